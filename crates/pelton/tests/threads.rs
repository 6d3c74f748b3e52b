//! What crosses threads: where tasks resume, handles, wakes and what they cost. Posted closures are in `posts.rs`.

mod common;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;
use std::time::Duration;

use common::{
    CountingWaker, Event, Oneshot, eventually, inside_each_backend, join, on_each_backend, park_on,
    runtime,
};
use pelton::Handle;

fn here() -> ThreadId {
    std::thread::current().id()
}

#[test]
fn a_task_resumes_at_home_whatever_it_awaits() {
    inside_each_backend(|_| async {
        let home = here();
        let task = pelton::spawn(async move {
            pelton::time::sleep(Duration::from_micros(300)).await;
            assert_eq!(here(), home, "after a timer");

            let elsewhere = pelton::spawn_blocking(here).await.unwrap();
            assert_ne!(elsewhere, home, "the blocking pool is elsewhere");
            assert_eq!(here(), home, "after the blocking pool");

            let channel = Oneshot::default();
            let sender = channel.clone();
            let thread = std::thread::spawn(move || {
                while !sender.is_awaited() {
                    std::thread::yield_now();
                }
                sender.send(here());
            });
            assert_ne!(channel.recv().await, home, "it was sent from elsewhere");
            assert_eq!(here(), home, "after a channel");
            join(thread);

            // A future that starts a thread of its own and hands it the waker.
            let mut started = false;
            let done = Arc::new(AtomicBool::new(false));
            poll_fn(|cx| {
                assert_eq!(here(), home, "a foreign future is polled at home");
                if done.load(Ordering::Acquire) {
                    return Poll::Ready(());
                }
                if !started {
                    started = true;
                    let (waker, done) = (cx.waker().clone(), done.clone());
                    std::thread::spawn(move || {
                        done.store(true, Ordering::Release);
                        waker.wake();
                    });
                }
                Poll::Pending
            })
            .await;
            assert_eq!(here(), home, "after a foreign future");

            let (a, b) = common::pair().await;
            a.send_all("x").await.unwrap();
            assert_eq!(&*b.recv().await.unwrap().unwrap(), b"x");
            assert_eq!(here(), home, "after input and output");
        });
        task.await.unwrap();
    });
}

#[test]
fn wakes_from_the_reactors_own_thread_never_enter_the_kernel() {
    inside_each_backend(|_| async {
        let handle = Handle::current();
        let posted = Rc::new(Cell::new(0));
        thread_local! { static RAN: Cell<u32> = const { Cell::new(0) }; }
        RAN.set(0);
        for round in 0..200 {
            // A task that another one wakes, through its waker and from a posted closure.
            let event = Event::default();
            let waits = event.clone();
            let waiter = pelton::spawn(async move { waits.wait().await });
            pelton::yield_now().await;
            event.set();
            waiter.await.unwrap();
            posted.set(round + 1);
            handle.post(|| RAN.set(RAN.get() + 1)).unwrap();
            // With nothing to do the reactor would sleep here, but for the post.
            let woken = CountingWaker::new();
            poll_fn(|cx| {
                woken.set_then(cx.waker());
                if woken.woken() > 0 {
                    return Poll::Ready(());
                }
                let waker = Waker::from(woken.clone());
                handle.post(move || waker.wake()).unwrap();
                Poll::Pending
            })
            .await;
            assert_eq!(RAN.get(), posted.get());
        }
        let counters = handle.snapshot();
        assert_eq!(counters.posts, 400);
        assert_eq!(counters.wakes_sent, 0, "{counters:?}");
    });
}

#[test]
fn a_future_spawned_from_elsewhere_runs_here_and_answers_there() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let (handle, home) = (runtime.handle(), here());
        let thread = std::thread::spawn(move || {
            let task = handle.spawn(async move {
                assert_eq!(here(), home);
                pelton::yield_now().await;
                assert_eq!(here(), home);
                41
            });
            assert_eq!(park_on(task).unwrap(), 41);
            // Made on the reactor's thread, it need not be `Send`.
            let task = handle.spawn_with(|| {
                let local = Rc::new(42);
                async move {
                    pelton::time::sleep(Duration::from_micros(200)).await;
                    *local
                }
            });
            assert_eq!(park_on(task).unwrap(), 42);
            let broken = handle.spawn(async { panic!("over there") });
            let error = park_on(broken).unwrap_err();
            assert_eq!(error.to_string(), "the task panicked: over there");
            let broken = handle.spawn_with(|| -> std::future::Ready<()> { panic!("at once") });
            assert!(park_on(broken).unwrap_err().is_panic());
            handle.shutdown();
        });
        runtime.run();
        join(thread);
        assert_eq!(runtime.handle().snapshot().post_panics, 0);
    });
}

#[test]
fn a_task_of_one_reactor_can_await_one_of_another() {
    on_each_backend(|backend| {
        let first = runtime(backend);
        let handle = first.handle();
        let thread = std::thread::spawn(move || {
            let second = runtime(backend);
            second.block_on(async {
                let home = here();
                let there = handle.spawn(async { here() }).await.unwrap();
                assert_ne!(there, home);
                assert_eq!(here(), home);
            });
            handle.shutdown();
        });
        first.run();
        join(thread);
    });
}

#[test]
fn an_abort_from_elsewhere_drops_the_future_on_its_reactors_thread() {
    struct Tell(mpsc::Sender<ThreadId>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.send(here()).unwrap();
        }
    }
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let (handle, home) = (runtime.handle(), here());
        let thread = std::thread::spawn(move || {
            let (dropped, drops) = mpsc::channel();
            let (polled, polls) = mpsc::channel();
            let tell = Tell(dropped);
            let task = handle.spawn(async move {
                let _tell = tell;
                polled.send(()).unwrap();
                std::future::pending::<()>().await;
            });
            polls.recv().unwrap();
            assert!(!task.is_finished());
            task.abort();
            assert_eq!(drops.recv().unwrap(), home);
            assert!(park_on(task).unwrap_err().is_cancelled());
            handle.shutdown();
        });
        runtime.run();
        join(thread);
    });
}

#[test]
fn a_remote_handle_that_is_awaited_again_says_so_instead_of_hanging() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        let thread = std::thread::spawn(move || {
            let mut task = handle.spawn(async { 1 });
            assert_eq!(park_on(&mut task).unwrap(), 1);
            assert!(task.is_finished());
            let again = park_on(&mut task).unwrap_err();
            assert!(!again.is_cancelled() && !again.is_panic(), "{again}");
            handle.shutdown();
        });
        runtime.run();
        join(thread);
    });
}

#[test]
fn a_handle_outlives_its_reactor_and_says_that_it_has_ended() {
    struct Tell(mpsc::Sender<()>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        assert!(!handle.is_closed());
        let (dropped, drops) = mpsc::channel();
        let tell = Tell(dropped);
        handle.post(move || drop(tell)).unwrap();
        let waiting = handle.spawn(std::future::pending::<()>());
        drop(runtime);
        drops.try_recv().expect("what was posted and never ran is dropped with the runtime");
        assert!(handle.is_closed());
        assert!(park_on(waiting).unwrap_err().is_cancelled());
        assert_eq!(
            handle.post(|| panic!("never runs")).unwrap_err().to_string(),
            "the reactor has ended"
        );
        let late = handle.spawn(async {});
        assert!(late.is_finished());
        assert!(park_on(late).unwrap_err().is_cancelled());
        handle.shutdown();
        assert_eq!(handle.backend(), backend);
        assert_eq!(handle.snapshot().post_panics, 0);
    });
}

#[test]
fn a_waker_outlives_its_reactor() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
        let keeps = kept.clone();
        let task = runtime.spawn(poll_fn(move |cx| {
            *keeps.borrow_mut() = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        runtime.block_on(pelton::yield_now());
        drop((task, runtime));
        let waker = kept.take().expect("it was polled");
        waker.wake_by_ref();
        join(std::thread::spawn(move || {
            let another = waker.clone();
            waker.wake();
            another.wake();
        }));
    });
}

#[test]
fn counters_are_read_from_another_thread_while_the_reactor_runs() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        let thread = std::thread::spawn(move || {
            let first = handle.snapshot();
            loop {
                let now = handle.snapshot();
                assert!(now.polls >= first.polls && now.ticks >= first.ticks);
                if now.polls > first.polls + 100 && now.timers_fired > first.timers_fired + 10 {
                    break;
                }
                std::thread::yield_now();
            }
            let now = handle.snapshot();
            assert!(
                now.fields()
                    .iter()
                    .any(|(name, _, meaning)| *name == "enters" && !meaning.is_empty())
            );
            handle.shutdown();
        });
        runtime
            .spawn(async {
                loop {
                    pelton::time::sleep(Duration::from_micros(50)).await;
                }
            })
            .detach();
        runtime.run();
        join(thread);
    });
}

#[test]
fn a_reactor_with_nothing_to_do_sleeps_and_arms_no_timer() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        let thread = std::thread::spawn(move || {
            // Past its start: whatever it does at first has been done when this has run.
            let (ran, runs) = mpsc::channel();
            handle.post(move || ran.send(()).unwrap()).unwrap();
            runs.recv().unwrap();
            let before = handle.snapshot();
            // The length proves nothing by itself: a reactor that polls shows more entries.
            std::thread::sleep(Duration::from_secs(1));
            let after = handle.snapshot();
            handle.shutdown();
            (before, after)
        });
        // A task that waits, and a connection that is idle.
        runtime.spawn(std::future::pending::<()>()).detach();
        let (a, b) = runtime.block_on(common::pair());
        runtime.spawn(async move { drop(a.recv().await) }).detach();
        runtime.run();
        let (before, after) = join(thread);
        assert!(after.enters - before.enters <= 2, "{before:?}\n{after:?}");
        assert_eq!(after.timers_fired, 0);
        assert_eq!(after.in_flight_of(pelton::driver::Kind::Timeout), 0);
        drop(b);
    });
}

#[test]
fn a_blocking_call_that_panics_goes_on_in_the_task_that_awaits_it() {
    inside_each_backend(|_| async {
        let task = pelton::spawn(async {
            pelton::spawn_blocking(|| panic!("in the pool")).await.unwrap();
        });
        assert_eq!(task.await.unwrap_err().to_string(), "the task panicked: in the pool");
        assert_eq!(pelton::spawn_blocking(|| 3).await.unwrap(), 3, "the pool goes on");
    });
}

#[test]
fn a_blocking_call_that_nobody_awaits_any_more_ends_and_its_result_is_dropped() {
    inside_each_backend(|_| async {
        let (go, gone) = mpsc::channel::<()>();
        let result = Arc::new(());
        let inner = result.clone();
        let mut call = Box::pin(pelton::spawn_blocking(move || {
            gone.recv().unwrap();
            inner
        }));
        assert!(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await);
        drop(call);
        go.send(()).unwrap();
        eventually("the result is dropped", || Arc::strong_count(&result) == 1).await;
    });
}

#[test]
fn many_blocking_calls_at_once_all_come_home() {
    inside_each_backend(|_| async {
        let calls: Vec<_> = (0..300)
            .map(|n| pelton::spawn(async move { pelton::spawn_blocking(move || n).await.unwrap() }))
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), n);
        }
    });
}

#[test]
fn a_waker_that_is_woken_from_many_threads_polls_its_task_at_home() {
    inside_each_backend(|_| async {
        let home = here();
        let kept: Arc<Mutex<Option<Waker>>> = Arc::default();
        let keeps = kept.clone();
        let target = Rc::new(Cell::new(0u64));
        let polls = target.clone();
        let task = pelton::spawn(poll_fn(move |cx: &mut Context<'_>| {
            assert_eq!(here(), home);
            polls.set(polls.get() + 1);
            *keeps.lock().unwrap() = Some(cx.waker().clone());
            if polls.get() > 500 { Poll::Ready(()) } else { Poll::Pending }
        }));
        pelton::yield_now().await;
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (kept, stop) = (kept.clone(), stop.clone());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let waker = kept.lock().unwrap().clone();
                        waker.expect("it was polled").wake();
                    }
                })
            })
            .collect();
        task.await.unwrap();
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(join);
    });
}

#[test]
fn what_others_see_of_a_reactor_that_sleeps_is_all_it_has_done() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        let thread = std::thread::spawn(move || {
            // Nothing will wake the reactor before this has seen what it waits for.
            while handle.snapshot().polls < 5 {
                std::thread::yield_now();
            }
            assert_eq!(handle.snapshot().tasks_live, 5);
            handle.shutdown();
        });
        for _ in 0..5 {
            runtime.spawn(std::future::pending::<()>()).detach();
        }
        runtime.run();
        join(thread);
        runtime.block_on(async { pelton::yield_now().await });
    });
}

#[test]
fn results_that_panic_when_they_are_dropped_take_no_thread_from_the_pool() {
    struct Grenade;
    impl Drop for Grenade {
        fn drop(&mut self) {
            // With a payload that needs no memory, because nobody can drop it any more.
            std::panic::panic_any(());
        }
    }
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            std::panic::panic_any(Grenade);
        }
    }
    // The pool is the process's, and has at most 512 threads: more of these than that.
    inside_each_backend(|_| async {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        for _ in 0..600 {
            let (go, gone) = mpsc::channel::<()>();
            let mut call = Box::pin(pelton::spawn_blocking(move || {
                gone.recv().unwrap();
                Panics
            }));
            assert!(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await);
            drop(call);
            go.send(()).unwrap();
            assert_eq!(pelton::spawn_blocking(|| 1).await.unwrap(), 1);
        }
        std::panic::set_hook(quiet);
    });
}
