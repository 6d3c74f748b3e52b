//! One reactor: `block_on`, `spawn`, the handle of a task, running again after a stop.

mod common;

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{CountingWaker, inside_each_backend, on_each_backend, runtime};
use pelton::{Backend, Builder, Runtime};

/// Tells the thread that it was dropped on.
struct Dropped(Rc<Cell<Option<std::thread::ThreadId>>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(Some(std::thread::current().id()));
    }
}

fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().expect("text")).to_owned(),
    }
}

#[test]
fn block_on_returns_what_the_future_returns_and_may_borrow() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let text = String::from("borrowed");
        assert_eq!(runtime.block_on(async { &*text }), "borrowed");
        assert_eq!(runtime.backend(), backend);
        assert!(runtime.fallback().is_none(), "a forced backend is no fallback");
    });
}

#[test]
fn one_runtime_can_block_on_many_times_and_its_tasks_go_on_between() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let count = Rc::new(Cell::new(0));
        let ticker = {
            let count = count.clone();
            runtime.spawn(async move {
                loop {
                    count.set(count.get() + 1);
                    pelton::time::sleep(Duration::from_millis(1)).await;
                }
            })
        };
        assert_eq!(count.get(), 0, "a task does not run before its runtime does");
        for wanted in [2, 4, 6] {
            runtime.block_on(common::eventually("the ticker runs on", || count.get() >= wanted));
        }
        assert!(!ticker.is_finished());
        ticker.abort();
        assert!(runtime.block_on(ticker).unwrap_err().is_cancelled());
    });
}

#[test]
fn a_task_yields_its_output_once() {
    inside_each_backend(|_| async {
        let mut task = pelton::spawn(async {
            pelton::time::sleep(Duration::from_millis(1)).await;
            "output"
        });
        assert!(!task.is_finished());
        assert_eq!((&mut task).await.unwrap(), "output");
        assert!(task.is_finished());
        let again = task.await.unwrap_err();
        assert!(!again.is_cancelled() && !again.is_panic());
    });
}

#[test]
fn a_detached_task_runs_to_its_end() {
    inside_each_backend(|_| async {
        let done = common::Event::default();
        let inner = done.clone();
        pelton::spawn(async move {
            pelton::yield_now().await;
            inner.set();
        })
        .detach();
        done.wait().await;
    });
}

#[test]
fn an_aborted_task_is_dropped_at_once_on_this_thread() {
    inside_each_backend(|_| async {
        let dropped = Rc::new(Cell::new(None));
        let guard = Dropped(dropped.clone());
        let task = pelton::spawn(async move {
            let _guard = guard;
            pelton::time::sleep(Duration::from_secs(3600)).await;
        });
        pelton::yield_now().await;
        assert_eq!(dropped.get(), None);
        task.abort();
        assert_eq!(dropped.get(), Some(std::thread::current().id()));
        assert!(task.await.unwrap_err().is_cancelled());
        common::quiet().await;
    });
}

#[test]
fn a_panic_is_the_handles_error_and_harms_nobody_else() {
    inside_each_backend(|_| async {
        let other = pelton::spawn(async {
            pelton::time::sleep(Duration::from_millis(5)).await;
            "unharmed"
        });
        let broken = pelton::spawn(async {
            pelton::yield_now().await;
            panic!("of no use");
        });
        let error = broken.await.unwrap_err();
        assert!(error.is_panic());
        assert_eq!(error.to_string(), "the task panicked: of no use");
        assert_eq!(other.await.unwrap(), "unharmed");
        let counters = pelton::Handle::current();
        common::eventually("the panic is counted", || counters.snapshot().task_panics == 1).await;
    });
}

#[test]
fn a_panic_of_the_future_itself_goes_to_the_caller_and_the_runtime_is_good_for_more() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let left = runtime.spawn(async { 7 });
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                pelton::time::sleep(Duration::from_micros(100)).await;
                panic!("the root");
            })
        }));
        assert_eq!(message(panicked.unwrap_err()), "the root");
        assert!(pelton::Handle::try_current().is_none(), "nothing is current after the unwinding");
        assert_eq!(runtime.block_on(left).unwrap(), 7);
    });
}

#[test]
fn block_on_inside_a_reactor_panics_with_a_message_that_says_what_to_do() {
    on_each_backend(|backend| {
        let outer = runtime(backend);
        let inner = runtime(backend);
        outer.block_on(async {
            for nested in [&outer, &inner] {
                let panicked = catch_unwind(AssertUnwindSafe(|| nested.block_on(async {})));
                let message = message(panicked.unwrap_err());
                assert!(message.contains("`await` the future, or spawn it"), "{message}");
            }
            // The one outside has not lost its place.
            pelton::time::sleep(Duration::from_micros(100)).await;
        });
        inner.block_on(async {});
    });
}

#[test]
fn a_reactor_that_was_stopped_runs_again() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        let log = Rc::new(RefCell::new(Vec::new()));
        for round in 0..3 {
            let (handle, log) = (handle.clone(), log.clone());
            let task = runtime.spawn(async move {
                pelton::time::sleep(Duration::from_micros(100)).await;
                log.borrow_mut().push(round);
                handle.shutdown();
                handle.shutdown();
            });
            runtime.run();
            assert!(task.is_finished(), "the run ended because the task asked for it");
        }
        assert_eq!(*log.borrow(), [0, 1, 2]);
        assert!(!handle.is_closed());
    });
}

#[test]
fn a_shutdown_that_comes_before_the_run_ends_it_and_no_other() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        handle.shutdown();
        runtime.run();
        let ran = Rc::new(Cell::new(false));
        let inner = ran.clone();
        runtime
            .spawn(async move {
                pelton::time::sleep(Duration::from_micros(100)).await;
                inner.set(true);
                handle.shutdown();
            })
            .detach();
        runtime.run();
        assert!(ran.get(), "the second run was not ended by the first one's shutdown");
    });
}

#[test]
fn everybody_who_waits_for_the_shutdown_is_told() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let told = Rc::new(Cell::new(0));
        for _ in 0..10 {
            let told = told.clone();
            runtime
                .spawn(async move {
                    pelton::shutdown_requested().await;
                    told.set(told.get() + 1);
                })
                .detach();
        }
        let handle = runtime.handle();
        let thread = std::thread::spawn(move || handle.shutdown());
        runtime.block_on(common::eventually("all are told", || told.get() == 10));
        common::join(thread);
    });
}

#[test]
fn who_no_longer_waits_for_the_shutdown_leaves_nothing_behind() {
    inside_each_backend(|_| async {
        let waker = CountingWaker::new();
        for _ in 0..1000 {
            let mut waits = Box::pin(pelton::shutdown_requested());
            let task_waker = Waker::from(waker.clone());
            assert!(waits.as_mut().poll(&mut Context::from_waker(&task_waker)).is_pending());
            assert!(Arc::strong_count(&waker) > 2, "it waits");
        }
        assert_eq!(Arc::strong_count(&waker), 1, "wakers of futures that were dropped are kept");
    });
}

#[test]
fn the_end_of_a_runtime_drops_its_tasks_on_its_thread() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let dropped = Rc::new(Cell::new(None));
        let guard = Dropped(dropped.clone());
        let waits = runtime.spawn(async move {
            let _guard = guard;
            pelton::time::sleep(Duration::from_secs(3600)).await;
        });
        let never_polled = Rc::new(Cell::new(None));
        runtime.block_on(pelton::yield_now());
        let guard = Dropped(never_polled.clone());
        let new = runtime.spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        drop(runtime);
        assert_eq!(dropped.get(), Some(std::thread::current().id()));
        assert_eq!(never_polled.get(), Some(std::thread::current().id()));
        assert!(common::park_on(waits).unwrap_err().is_cancelled());
        assert!(common::park_on(new).unwrap_err().is_cancelled());
    });
}

#[test]
fn a_task_that_finished_delivers_after_the_end_of_its_runtime() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let task = runtime.spawn(async { vec![1, 2, 3] });
        runtime.block_on(common::eventually("it finishes", || task.is_finished()));
        drop(runtime);
        assert_eq!(common::park_on(task).unwrap(), [1, 2, 3]);
    });
}

#[test]
fn a_drop_that_spawns_while_the_runtime_ends_is_refused_and_the_end_comes() {
    struct Spawns;
    impl Drop for Spawns {
        fn drop(&mut self) {
            let refused = pelton::spawn(async { Spawns });
            assert!(refused.is_finished());
        }
    }
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let task = runtime.spawn(async {
            let _spawns = Spawns;
            pending::<()>().await;
        });
        runtime.block_on(pelton::yield_now());
        drop(runtime);
        assert!(task.is_finished());
    });
}

#[test]
fn a_forced_backend_holds_whether_the_drivers_settings_come_before_or_after_it() {
    let config = pelton::driver::Config { max_operations: 100, ..Default::default() };
    for builder in [
        Builder::new().backend(common::ALWAYS).driver(config.clone()),
        Builder::new().driver(config.clone()).backend(common::ALWAYS),
    ] {
        assert_eq!(builder.build().unwrap().backend(), common::ALWAYS);
    }
}

#[test]
fn a_forced_backend_is_the_one_that_runs_or_a_typed_error() {
    for backend in [Backend::Auto, Backend::Epoll, Backend::IoUring, Backend::Iocp] {
        match Builder::new().backend(backend).build() {
            Ok(runtime) if backend == Backend::Auto => {
                assert_ne!(runtime.backend(), Backend::Auto);
            }
            Ok(runtime) => assert_eq!(runtime.backend(), backend),
            Err(pelton::driver::Error::Unsupported { backend: named, reason }) => {
                assert_eq!(named, backend);
                assert!(!reason.is_empty());
                assert_ne!(backend, common::ALWAYS);
            }
            Err(error) => panic!("{backend}: {error}"),
        }
    }
}

#[test]
fn a_bad_setting_is_an_error_that_names_its_field() {
    fn field(builder: Builder) -> &'static str {
        match builder.build() {
            Err(pelton::driver::Error::Config(error)) => error.field,
            Err(error) => panic!("another error: {error}"),
            Ok(_) => panic!("no error"),
        }
    }
    assert_eq!(field(Builder::new().batch(0)), "batch");
    on_each_backend(|backend| {
        let config = common::config(backend);
        let bad = pelton::driver::Config { ring_entries: 3, ..config.clone() };
        assert_eq!(field(Builder::new().driver(bad)), "ring_entries");
        let bad = pelton::driver::Config { pool_buffers: 0, ..config.clone() };
        assert_eq!(field(Builder::new().driver(bad)), "pool_buffers");
        let bad = pelton::driver::Config { max_operations: 0, ..config };
        assert_eq!(field(Builder::new().driver(bad)), "max_operations");
    });
}

#[test]
fn without_a_reactor_calls_fail_or_panic_with_a_message_that_says_what_to_do() {
    let panicked = catch_unwind(|| drop(pelton::spawn(async {})));
    assert!(message(panicked.unwrap_err()).contains("no Pelton reactor runs on this thread"));
    let panicked = catch_unwind(|| drop(pelton::time::sleep(Duration::ZERO)));
    assert!(message(panicked.unwrap_err()).contains("no Pelton reactor runs on this thread"));
    let refused = common::park_on(pelton::net::TcpStream::connect("127.0.0.1:1"));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    let refused = common::park_on(pelton::net::TcpListener::bind("127.0.0.1:0"));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    assert!(pelton::signal::signal(pelton::signal::SignalKind::User2).is_err());
    assert!(pelton::Handle::try_current().is_none());
}

#[test]
fn yielding_lets_the_others_go_first() {
    inside_each_backend(|_| async {
        let log = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..3)
            .map(|task| {
                let log = log.clone();
                pelton::spawn(async move {
                    for round in 0..3 {
                        log.borrow_mut().push((round, task));
                        pelton::yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let log = log.borrow();
        assert!(log.is_sorted(), "{log:?}");
    });
}

#[test]
fn two_runtimes_on_one_thread_take_turns() {
    on_each_backend(|backend| {
        let first = runtime(backend);
        let second = Runtime::new().unwrap();
        for _ in 0..3 {
            assert_eq!(first.block_on(async { pelton::spawn(async { 1 }).await.unwrap() }), 1);
            assert_eq!(second.block_on(async { pelton::spawn(async { 2 }).await.unwrap() }), 2);
        }
    });
}

#[test]
fn a_foreign_waker_that_panics_when_woken_does_not_reach_the_loop() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a foreign waker");
        }
    }
    inside_each_backend(|_| async {
        let waker = Waker::from(Arc::new(Panics));
        let mut sleep = Box::pin(pelton::time::sleep(Duration::from_micros(100)));
        assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        pelton::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(common::poll_once(sleep.as_mut()), Poll::Ready(()));
    });
}
