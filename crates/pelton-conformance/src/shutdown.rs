//! Stopping a runtime, and what is left when it goes.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use pelton::net::{TcpListener, TcpStream};
use pelton::{Builder, Handle, spawn};
use pelton_driver::{Error, Submission};

use crate::registry::behaviours;
use crate::{Bench, pattern};

behaviours! {
    "a reactor that was stopped runs again" => a_stopped_reactor_runs_again
        [Aws "event_loop_stop_then_restart"];
    "stopping several times is stopping once" => stopping_several_times
        [Aws "event_loop_multiple_stops", Aws "channel: duplicate_shutdown", Libxev "stop"];
    "a stop before the run ends that run and no other" => a_stop_before_the_run
        [Aws "event_loop_stop_then_restart"];
    "everybody who waits for the end is told of it" => everybody_is_told_of_the_end
        [ReseauMain "shutdown closes waiters", ReseauMain "fdlock close wakes queued"];
    "a runtime that ends with everything in flight leaves nothing" => everything_in_flight_leaves_nothing
        [Reseau "destroy cancels pending task", ReseauMain "shutdown closes waiters",
         ReseauMain "shutdown wakes timer waiters, cancels waiters and timers"];
    "objects that outlive their runtime are errors and no more" => objects_outlive_their_runtime
        [ReseauMain "shutdown-safe control paths", ReseauMain "control refs delay destruction",
         Aws "channel: refcount_delays_clean_up"];
    "runtimes come and go one after the other" => runtimes_come_and_go
        [Ioxide "ReactorSetupTeardownTests", Aws "pipe_open_close"];
    "a bad setting of a runtime is an error that names its field" => a_bad_setting_names_its_field
        [Reseau "backend creation contract"];
    "a peer is told when its server's runtime ends" => a_peer_is_told_of_the_end
        [Aws "socket_handler: close"];
}

fn a_stopped_reactor_runs_again(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    for round in 0..3 {
        let handle = runtime.handle();
        let task = runtime.spawn(async move {
            pelton::time::sleep(Duration::from_millis(1)).await;
            handle.shutdown();
            round
        });
        runtime.run();
        assert!(task.is_finished());
        assert_eq!(on.bounded(&runtime, task).unwrap(), round);
    }
    on.end(runtime);
}

fn stopping_several_times(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    let handle = runtime.handle();
    runtime
        .spawn(async move {
            for _ in 0..5 {
                handle.shutdown();
            }
        })
        .detach();
    runtime.run();
    let later = runtime.handle();
    runtime.spawn(async move { later.shutdown() }).detach();
    runtime.run();
    on.end(runtime);
}

fn a_stop_before_the_run(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    runtime.handle().shutdown();
    runtime.run();
    let handle = runtime.handle();
    let ran = Rc::new(RefCell::new(false));
    let into = ran.clone();
    runtime
        .spawn(async move {
            pelton::time::sleep(Duration::from_millis(1)).await;
            *into.borrow_mut() = true;
            handle.shutdown();
        })
        .detach();
    runtime.run();
    assert!(*ran.borrow(), "the next run was not ended by it");
    on.end(runtime);
}

fn everybody_is_told_of_the_end(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    on.bounded(&runtime, async {
        let waiters: Vec<_> = (0..10).map(|_| spawn(pelton::shutdown_requested())).collect();
        // One that has stopped waiting is not told.
        waiters[3].abort();
        // Each of them has its first poll before this one goes on.
        pelton::yield_now().await;
        assert_eq!(waiters.iter().filter(|waiter| waiter.is_finished()).count(), 1);
        Handle::current().shutdown();
        for (n, waiter) in waiters.into_iter().enumerate() {
            assert_eq!(waiter.await.is_err(), n == 3);
        }
    });
    on.end(runtime);
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept_stream().await.unwrap())
}

fn everything_in_flight_leaves_nothing(on: &Bench) {
    let path = on.path("file");
    for ticks in [0, 3] {
        let runtime = on.builder().build().unwrap();
        on.bounded(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (client, server) = pair().await;
            let file = pelton::fs::File::create(&path).await.unwrap();
            spawn(async move { listener.accept().await.map(drop) }).detach();
            let client = Rc::new(client);
            let other = client.clone();
            spawn(async move { client.send_all(pattern(1, 16 << 20)).await }).detach();
            spawn(async move { other.recv().await.map(drop) }).detach();
            spawn(async move {
                let lease = server.recv().await;
                pending::<()>().await;
                drop((lease, server));
            })
            .detach();
            spawn(async move { file.write_at(pattern(2, 100_000), 0).await.0 }).detach();
            spawn(pelton::time::sleep(Duration::from_secs(3600))).detach();
            spawn(async { pelton::spawn_blocking(|| 1).await.map(drop) }).detach();
            spawn(pelton::shutdown_requested()).detach();
            for _ in 0..ticks {
                pelton::time::sleep(Duration::from_millis(1)).await;
            }
        });
        on.end(runtime);
    }
}

fn objects_outlive_their_runtime(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    let (listener, client, server, sleep) = on.bounded(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = listener.accept_stream().await.unwrap();
        (listener, client, server, pelton::time::sleep(Duration::from_secs(1)))
    });
    on.end(runtime);
    on.block_on(async {
        assert!(client.send_all("x").await.is_err());
        assert!(server.recv().await.is_err());
        assert!(listener.accept().await.is_err());
    });
    drop((listener, client, server, sleep));
}

fn runtimes_come_and_go(on: &Bench) {
    for _ in 0..20 {
        on.block_on(async {
            let (client, server) = pair().await;
            client.send_all("x").await.unwrap();
            assert_eq!(&server.recv().await.unwrap().unwrap()[..], b"x");
        });
    }
}

fn a_bad_setting_names_its_field(on: &Bench) {
    let batch = Builder::new().backend(on.backend()).batch(0).build();
    assert!(matches!(batch, Err(Error::Config(error)) if error.field == "batch"));
    let config = pelton::driver::Config { ring_entries: 0, ..crate::small() };
    let entries = on.builder_with(config).build();
    assert!(matches!(entries, Err(Error::Config(error)) if error.field == "ring_entries"));
}

fn a_peer_is_told_of_the_end(on: &Bench) {
    let driver = on.driver();
    let runtime = on.builder().build().unwrap();
    let listener = on.bounded(&runtime, async { TcpListener::bind("127.0.0.1:0").await.unwrap() });
    let address = listener.local_addr().unwrap();
    let client = driver.socket(address);
    // Before it is accepted: nobody ticks this driver while the runtime waits.
    driver.run(Submission::connect(client, address)).unwrap();
    let server = on.bounded(&runtime, async { listener.accept_stream().await.unwrap() });
    on.bounded(&runtime, async {
        server.send_all("the last").await.unwrap();
        let held = server;
        spawn(async move {
            let _held = held;
            pending::<()>().await;
        })
        .detach();
        pelton::yield_now().await;
    });
    drop(listener);
    on.end(runtime);
    assert_eq!(driver.receive_all(client), b"the last");
}
