//! What other threads do to a reactor.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use pelton::{Drain, Fleet, FleetBuilder, Handle};

use crate::Bench;
use crate::registry::behaviours;

behaviours! {
    "a post from another thread runs on the reactor's" => a_post_runs_on_the_reactors_thread
        [Aws "event_loop_xthread_scheduled_tasks_execute"] needs threads;
    "posts of two threads and of the reactor itself run in their order" => posts_of_several_run_in_their_order
        [Aws "event_loop_serialized_scheduling",
         Reseau "serialized ordering under dual-producer contention"] needs threads;
    "a burst of ten thousand posts runs whole" => a_burst_runs_whole
        [Reseau "cross-thread burst", Reseau "stress scheduling"] needs threads;
    "a future that is spawned from elsewhere runs here and answers there" => a_future_runs_here_and_answers_there
        [Aws "pipe tests, two loops", Ioxide "AffinityTests"] needs threads;
    "a future that is aborted from elsewhere is dropped here" => an_abort_from_elsewhere
        [Aws "channel: cancels_pending_tasks"] needs threads;
    "whatever a task awaits, it resumes at home" => a_task_resumes_at_home
        [Ioxide "AffinityTests", Aws "socket_handler: pinned_event_loop"] needs threads;
    "a shutdown from another thread ends a reactor that sleeps" => a_shutdown_from_elsewhere
        [ReseauMain "shutdown wakes idle poller promptly", Aws "channel: refcount_delays_clean_up"] needs threads;
    "counters are read from another thread" => counters_are_read_from_elsewhere
        [Reseau "load factor 0 at start"] needs threads;
    "two reactors talk to each other" => two_reactors_talk
        [Aws "pipe tests, two loops"] needs threads;
    "a fleet has a reactor for each thread, and its members stay on theirs" => a_fleet_has_a_reactor_for_each_thread
        [Aws "event_loop_group_setup_and_shutdown", Reseau "group thread affinity"] needs threads;
    "a fleet that is shut down drains, and asking again does nothing" => a_fleet_drains
        [Aws "event_loop_group_setup_and_shutdown_async", Reseau "group destroy idempotent",
         Aws "channel: keeps_event_loop_group_alive"] needs threads;
    "a panic of a member is told and the others end in order" => a_panic_of_a_member_is_told
        [Ioxide "ReactorSetupTeardownTests"] needs threads;
}

fn a_post_runs_on_the_reactors_thread(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    let here = std::thread::current().id();
    let handle = runtime.handle();
    let thread = std::thread::spawn(move || {
        let (ran, told) = mpsc::channel();
        let stop = handle.clone();
        handle
            .post(move || {
                ran.send(std::thread::current().id()).unwrap();
                stop.shutdown();
            })
            .unwrap();
        told.recv().unwrap()
    });
    runtime.run();
    assert_eq!(thread.join().unwrap(), here);
    on.end(runtime);
}

thread_local!(static RAN: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) });

fn posts_of_several_run_in_their_order(on: &Bench) {
    const EACH: usize = 500;
    let runtime = on.builder().build().unwrap();
    RAN.take();
    let post = |handle: &Handle, who, n| {
        handle.post(move || RAN.with_borrow_mut(|ran| ran.push((who, n)))).unwrap();
    };
    let threads: Vec<_> = (0..2)
        .map(|who| {
            let handle = runtime.handle();
            std::thread::spawn(move || (0..EACH).for_each(|n| post(&handle, who, n)))
        })
        .collect();
    on.bounded(&runtime, async {
        for n in 0..EACH {
            post(&Handle::current(), 2, n);
            pelton::yield_now().await;
        }
        while RAN.with_borrow(Vec::len) < 3 * EACH {
            pelton::time::sleep(Duration::from_micros(100)).await;
        }
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let ran = RAN.take();
    for who in 0..3 {
        let order: Vec<_> = ran.iter().filter(|ran| ran.0 == who).map(|ran| ran.1).collect();
        assert_eq!(order, (0..EACH).collect::<Vec<_>>());
    }
    on.end(runtime);
}

fn a_burst_runs_whole(on: &Bench) {
    const COUNT: usize = 10_000;
    let runtime = on.builder().build().unwrap();
    let (handle, ran) = (runtime.handle(), Arc::new(AtomicUsize::new(0)));
    let counts = ran.clone();
    let thread = std::thread::spawn(move || {
        for _ in 0..COUNT {
            let counts = counts.clone();
            handle
                .post(move || {
                    counts.fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
        }
        handle.shutdown();
    });
    on.bounded(&runtime, async {
        pelton::shutdown_requested().await;
        while ran.load(Ordering::Relaxed) < COUNT {
            pelton::yield_now().await;
        }
    });
    thread.join().unwrap();
    on.end(runtime);
}

fn a_future_runs_here_and_answers_there(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    let here = std::thread::current().id();
    let handle = runtime.handle();
    let (there_on, builder) = (on.backend(), on.builder());
    let thread = std::thread::spawn(move || {
        // It is awaited on a reactor of its own.
        let own = builder.build().unwrap();
        assert_eq!(own.backend(), there_on);
        let remote = handle.spawn_with(|| async {
            pelton::time::sleep(Duration::from_millis(1)).await;
            std::thread::current().id()
        });
        let ran_on = own.block_on(remote).unwrap();
        handle.shutdown();
        ran_on
    });
    runtime.run();
    assert_eq!(thread.join().unwrap(), here);
    on.end(runtime);
}

struct Tells(mpsc::Sender<std::thread::ThreadId>);

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.send(std::thread::current().id());
    }
}

fn an_abort_from_elsewhere(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    let here = std::thread::current().id();
    let handle = runtime.handle();
    let thread = std::thread::spawn(move || {
        let (tell, dropped_on) = mpsc::channel();
        let (begun, begins) = mpsc::channel();
        let tells = Tells(tell);
        let remote = handle.spawn(async move {
            let _tells = tells;
            begun.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        begins.recv().unwrap();
        remote.abort();
        let dropped_on = dropped_on.recv().unwrap();
        handle.shutdown();
        dropped_on
    });
    runtime.run();
    assert_eq!(thread.join().unwrap(), here);
    on.end(runtime);
}

fn a_task_resumes_at_home(on: &Bench) {
    let here = std::thread::current().id();
    on.block_on(async {
        let at_home = || assert_eq!(std::thread::current().id(), here);
        pelton::time::sleep(Duration::from_millis(1)).await;
        at_home();
        let there = pelton::spawn_blocking(|| std::thread::current().id()).await.unwrap();
        at_home();
        assert_ne!(there, here);
        let handle = Handle::current();
        let thread = std::thread::spawn(move || handle.spawn(async { 1 }));
        while !thread.is_finished() {
            pelton::time::sleep(Duration::from_micros(100)).await;
        }
        thread.join().unwrap().await.unwrap();
        at_home();
        assert_eq!(pelton::driver::lookup("127.0.0.1", 1).unwrap().len(), 1);
        at_home();
    });
}

fn a_shutdown_from_elsewhere(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    for _ in 0..10 {
        let handle = runtime.handle();
        let thread = std::thread::spawn(move || handle.shutdown());
        runtime.run();
        thread.join().unwrap();
    }
    on.end(runtime);
}

fn counters_are_read_from_elsewhere(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    let handle = runtime.handle();
    assert_eq!((handle.snapshot().tasks_live, handle.snapshot().polls), (0, 0), "at the start");
    let task = runtime.spawn(pelton::shutdown_requested());
    let thread = std::thread::spawn(move || {
        while handle.snapshot().tasks_live == 0 || handle.snapshot().polls == 0 {
            std::thread::yield_now();
        }
        handle.shutdown();
    });
    on.bounded(&runtime, task).unwrap();
    thread.join().unwrap();
    on.end(runtime);
}

fn two_reactors_talk(on: &Bench) {
    let (tell, told) = mpsc::channel();
    let builder = on.builder();
    let server = std::thread::spawn(move || {
        builder.build().unwrap().block_on(async {
            let listener = pelton::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            while let Some(chunk) = stream.recv().await.unwrap() {
                stream.send_all(chunk).await.unwrap();
            }
        });
    });
    let address = told.recv().unwrap();
    on.block_on(async {
        let stream = pelton::net::TcpStream::connect(address).await.unwrap();
        for n in 0..100 {
            let message = crate::pattern(n, 1000);
            stream.send_all(message.clone()).await.unwrap();
            let mut echo = Vec::new();
            while echo.len() < 1000 {
                echo.extend_from_slice(&stream.recv().await.unwrap().unwrap());
            }
            assert!(echo == message);
        }
    });
    server.join().unwrap();
}

fn a_fleet_has_a_reactor_for_each_thread(on: &Bench) {
    let (tell, told) = mpsc::channel();
    let fleet = fleet(on, 2)
        .start(move |member| {
            let tell = tell.clone();
            async move {
                let first = std::thread::current().id();
                for _ in 0..10 {
                    pelton::time::sleep(Duration::from_micros(200)).await;
                    assert_eq!(std::thread::current().id(), first);
                }
                tell.send((member.index(), member.count(), first)).unwrap();
                Ok(())
            }
        })
        .unwrap();
    assert_eq!(fleet.handles().len(), 2);
    fleet.join().unwrap();
    let mut members: Vec<_> = told.iter().collect();
    members.sort_by_key(|member| member.0);
    assert_eq!((members[0].0, members[1].0, members[0].1, members.len()), (0, 1, 2, 2));
    assert_ne!(members[0].2, members[1].2);
}

fn fleet(on: &Bench, reactors: usize) -> FleetBuilder {
    FleetBuilder::new().reactors(reactors).pin(false).runtime(on.builder())
}

fn a_fleet_drains(on: &Bench) {
    let ended = Arc::new(AtomicUsize::new(0));
    let counts = ended.clone();
    let fleet: Fleet = fleet(on, 2)
        .start(move |member| {
            let counts = counts.clone();
            async move {
                member.shutdown_requested().await;
                counts.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .unwrap();
    let handles = fleet.handles();
    fleet.request_shutdown();
    fleet.request_shutdown();
    let drained = fleet.shutdown(Duration::from_secs(20)).unwrap();
    assert!(matches!(drained, Drain::Complete), "{drained:?}");
    assert_eq!(ended.load(Ordering::SeqCst), 2);
    // What outlives it says that it has ended.
    for handle in handles {
        assert!(handle.is_closed() && handle.post(|| {}).is_err());
    }
}

fn a_panic_of_a_member_is_told(on: &Bench) {
    let fleet = fleet(on, 2)
        .start(|member| async move {
            if member.index() == 1 {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            member.shutdown_requested().await;
            Ok(())
        })
        .unwrap();
    fleet.request_shutdown();
    let error = fleet.join().unwrap_err();
    assert!(error.to_string().contains("on purpose"), "{error}");
}
