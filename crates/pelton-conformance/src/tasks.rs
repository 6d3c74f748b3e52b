//! Tasks and joins, on one reactor.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use pelton::{Handle, JoinHandle, spawn, yield_now};

use crate::Bench;
use crate::registry::behaviours;

behaviours! {
    "tasks run in the order in which they were spawned" => tasks_run_in_order
        [Aws "channel: tasks_serialized_run", Aws "channel: tasks_run"];
    "a join yields what its task returned, whenever that was" => a_join_yields_what_its_task_returned
        [Aws "future: set multiple times keeps first"];
    "a task that panics is an error of its handle and kills nobody" => a_panic_is_an_error_of_the_handle
        [Ioxide "CoreTests: DecRef-then-throw"];
    "an aborted task is dropped before abort returns, and its handle says so" => an_aborted_task_is_dropped
        [Aws "channel: cancels_pending_tasks", Aws "event_loop_canceled_tasks_run_in_el_thread"];
    "a task without a handle goes on" => a_task_without_a_handle_goes_on
        [Aws "future: can die incomplete"];
    "who gives way lets the others run" => who_gives_way_lets_others_run
        [Aws "event_loop_serialized_scheduling"];
    "a thousand tasks that wake each other all end" => a_thousand_tasks_end
        [Reseau "stress scheduling"];
    "a waker that outlives its task harms nobody" => a_waker_outlives_its_task
        [ReseauMain "stale token suppression"];
    "a task that never waits keeps neither time nor sockets away" => a_busy_task_starves_nobody
        [Reseau "epoll task pre-queue drain"];
    "a post from the reactor's own thread does not run inside the call" => a_post_does_not_run_inside_the_call
        [Aws "future: callback is its own task", Aws "sock_write_cb_is_async"];
    "posts run in the order in which they were posted" => posts_run_in_order
        [Aws "event_loop_serialized_scheduling"];
    "what is posted to a reactor that has ended is refused and dropped" => a_post_after_the_end_is_refused
        [Aws "channel: rejects_post_shutdown_tasks"];
    "tasks that are left are dropped with their runtime, on its thread" => tasks_that_are_left_are_dropped
        [Reseau "destroy cancels pending task", Aws "event_loop_canceled_tasks_run_in_el_thread"];
    "an object that a task holds may spawn when it is dropped at the end" => a_drop_at_the_end_may_spawn
        [Aws "channel: rejects_post_shutdown_tasks"];
    "tasks that are left go on at the next call" => tasks_go_on_at_the_next_call
        [Aws "event_loop_stop_then_restart"];
    "running a reactor inside itself is a panic that says what to do" => a_reactor_inside_itself
        [Reseau "destroy on loop thread throws", Reseau "wait_for_stop_completion thread-guarded"];
}

fn tasks_run_in_order(on: &Bench) {
    on.block_on(async {
        let ran = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..100)
            .map(|n| {
                let ran = ran.clone();
                spawn(async move { ran.borrow_mut().push(n) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*ran.borrow(), (0..100).collect::<Vec<_>>());
    });
}

fn a_join_yields_what_its_task_returned(on: &Bench) {
    on.block_on(async {
        let early = spawn(async { "early" });
        let late = spawn(async {
            pelton::time::sleep(Duration::from_millis(1)).await;
            "late"
        });
        assert_eq!(late.await.unwrap(), "late");
        assert!(early.is_finished());
        assert_eq!(early.await.unwrap(), "early");
        let mut taken = spawn(async { 7 });
        assert_eq!((&mut taken).await.unwrap(), 7);
        let again = (&mut taken).await.unwrap_err();
        assert!(!again.is_panic(), "its output has been taken: {again}");
    });
}

fn a_panic_is_an_error_of_the_handle(on: &Bench) {
    on.block_on(async {
        let survivor = spawn(async {
            pelton::time::sleep(Duration::from_millis(1)).await;
            1
        });
        let error = spawn(async { std::panic::resume_unwind(Box::new("on purpose")) });
        let error: pelton::JoinError = JoinHandle::<()>::await_error(error).await;
        assert!(error.is_panic());
        assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "on purpose");
        assert_eq!(survivor.await.unwrap(), 1);
    });
}

trait AwaitError {
    async fn await_error(self) -> pelton::JoinError;
}

impl AwaitError for JoinHandle<()> {
    async fn await_error(self) -> pelton::JoinError {
        self.await.expect_err("it ended well")
    }
}

/// Counts what is dropped.
struct Noted(Rc<Cell<u32>>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn an_aborted_task_is_dropped(on: &Bench) {
    on.block_on(async {
        let dropped = Rc::new(Cell::new(0));
        for polled in [false, true] {
            let noted = Noted(dropped.clone());
            let task = spawn(async move {
                let _noted = noted;
                pending::<()>().await;
            });
            if polled {
                yield_now().await;
            }
            let before = dropped.get();
            task.abort();
            assert_eq!(dropped.get(), before + 1);
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        // One that has ended is not aborted any more.
        let ended = spawn(async { 3 });
        yield_now().await;
        ended.abort();
        assert_eq!(ended.await.unwrap(), 3);
    });
}

fn a_task_without_a_handle_goes_on(on: &Bench) {
    on.block_on(async {
        let ran = Rc::new(Cell::new(0));
        for detach in [true, false] {
            let ran = ran.clone();
            let task = spawn(async move {
                yield_now().await;
                ran.set(ran.get() + 1);
            });
            if detach {
                task.detach();
            } else {
                drop(task);
            }
        }
        while ran.get() < 2 {
            yield_now().await;
        }
    });
}

fn who_gives_way_lets_others_run(on: &Bench) {
    on.block_on(async {
        let order = Rc::new(RefCell::new(String::new()));
        let tasks = ["a", "b", "c"].map(|name| {
            let order = order.clone();
            spawn(async move {
                for _ in 0..3 {
                    order.borrow_mut().push_str(name);
                    yield_now().await;
                }
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), "abcabcabc");
    });
}

fn a_thousand_tasks_end(on: &Bench) {
    on.block_on(async {
        // Each waits for the one before it.
        let mut last = spawn(async { 0 });
        for _ in 0..1000 {
            last = spawn(async move { last.await.unwrap() + 1 });
        }
        assert_eq!(last.await.unwrap(), 1000);
    });
}

fn a_waker_outlives_its_task(on: &Bench) {
    let kept = Rc::new(RefCell::new(Vec::<Waker>::new()));
    let into = kept.clone();
    on.block_on(async {
        for _ in 0..10 {
            let into = into.clone();
            let mut polls = 0;
            spawn(poll_fn(move |cx| {
                into.borrow_mut().push(cx.waker().clone());
                polls += 1;
                if polls == 3 {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }))
            .await
            .unwrap();
        }
        // Others are in their places now.
        let others: Vec<_> = (0..10).map(|n| spawn(async move { n })).collect();
        into.borrow().iter().for_each(Waker::wake_by_ref);
        for (n, other) in others.into_iter().enumerate() {
            assert_eq!(other.await.unwrap(), n);
        }
    });
    for waker in kept.take() {
        waker.wake();
    }
}

fn a_busy_task_starves_nobody(on: &Bench) {
    on.block_on(async {
        let busy = spawn(async {
            loop {
                yield_now().await;
            }
        });
        pelton::time::sleep(Duration::from_millis(2)).await;
        let listener = pelton::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = pelton::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.send_all("x").await.unwrap();
        assert_eq!(&server.recv().await.unwrap().unwrap()[..], b"x");
        busy.abort();
    });
}

fn a_post_does_not_run_inside_the_call(on: &Bench) {
    on.block_on(async {
        thread_local!(static RAN: Cell<u32> = const { Cell::new(0) });
        RAN.set(0);
        for n in 0..5 {
            Handle::current().post(|| RAN.set(RAN.get() + 1)).unwrap();
            assert_eq!(RAN.get(), n, "not inside the call");
            while RAN.get() == n {
                yield_now().await;
            }
        }
    });
}

fn posts_run_in_order(on: &Bench) {
    on.block_on(async {
        thread_local!(static RAN: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) });
        RAN.take();
        let handle = Handle::current();
        for n in 0..100 {
            handle.post(move || RAN.with_borrow_mut(|ran| ran.push(n))).unwrap();
        }
        // A future that is spawned through the handle comes behind them.
        assert_eq!(handle.spawn(async { RAN.with_borrow(Vec::len) }).await.unwrap(), 100);
        assert_eq!(RAN.take(), (0..100).collect::<Vec<_>>());
    });
}

fn a_post_after_the_end_is_refused(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    let handle = runtime.handle();
    assert!(!handle.is_closed());
    drop(runtime);
    assert!(handle.is_closed());
    assert!(handle.post(|| panic!("it runs")).is_err());
    let after = handle.spawn(async { 1 });
    assert!(after.is_finished());
    // Nobody is there to poll it: a runtime of its own says what it yields.
    assert!(on.block_on(after).unwrap_err().is_cancelled());
    handle.shutdown();
}

fn tasks_that_are_left_are_dropped(on: &Bench) {
    let dropped = Rc::new(Cell::new(0));
    let runtime = on.builder().build().unwrap();
    let handles: Vec<_> = (0..10)
        .map(|n| {
            let noted = Noted(dropped.clone());
            runtime.spawn(async move {
                let _noted = noted;
                match n % 3 {
                    0 => pending().await,
                    1 => pelton::time::sleep(Duration::from_secs(3600)).await,
                    _ => pelton::shutdown_requested().await,
                }
            })
        })
        .collect();
    on.bounded(&runtime, async { yield_now().await });
    assert_eq!(dropped.get(), 0);
    on.end(runtime);
    assert_eq!(dropped.get(), 10);
    for handle in handles {
        assert!(handle.is_finished());
        assert!(on.block_on(handle).unwrap_err().is_cancelled());
    }
}

fn a_drop_at_the_end_may_spawn(on: &Bench) {
    struct Spawns(Rc<Cell<u32>>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            let noted = Noted(self.0.clone());
            let task = spawn(async move { drop(noted) });
            assert!(task.is_finished(), "it is refused");
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let runtime = on.builder().build().unwrap();
    let spawns = Spawns(dropped.clone());
    runtime
        .spawn(async move {
            let _spawns = spawns;
            pending::<()>().await;
        })
        .detach();
    on.bounded(&runtime, yield_now());
    on.end(runtime);
    assert_eq!(dropped.get(), 1);
}

fn tasks_go_on_at_the_next_call(on: &Bench) {
    let runtime = on.builder().build().unwrap();
    let task = runtime.spawn(async {
        pelton::time::sleep(Duration::from_millis(2)).await;
        5
    });
    on.bounded(&runtime, yield_now());
    assert!(!task.is_finished());
    assert_eq!(on.bounded(&runtime, task).unwrap(), 5);
    on.end(runtime);
}

fn a_reactor_inside_itself(on: &Bench) {
    let other = on.builder().build().unwrap();
    on.block_on(async {
        let inner = std::panic::AssertUnwindSafe(|| other.block_on(async {}));
        let panic = std::panic::catch_unwind(inner).unwrap_err();
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or(panic.downcast_ref::<&str>().map(|said| said.to_string())).unwrap();
        assert!(said.contains("await") && said.contains("spawn"), "{said}");
    });
    on.end(other);
}
