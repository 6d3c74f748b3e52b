//! Closures that other threads post: in which order they run, what they cost, and what becomes of one that panics or is
//! never come to.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread::ThreadId;

use common::{eventually, inside_each_backend, join, on_each_backend, runtime};
use pelton::{Builder, CallError, Fault, Handle};

fn here() -> ThreadId {
    std::thread::current().id()
}

#[test]
fn a_burst_of_posts_runs_whole_and_in_order_with_hardly_a_wake() {
    const POSTS: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        let next = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(Barrier::new(2));
        let thread = {
            let (handle, next, gate) = (handle.clone(), next.clone(), gate.clone());
            std::thread::spawn(move || {
                let inner = gate.clone();
                // The reactor is held until everything has been posted: one batch.
                handle.post(move || _ = inner.wait()).unwrap();
                for number in 0..POSTS {
                    let next = next.clone();
                    handle
                        .post(move || assert_eq!(next.fetch_add(1, Ordering::Relaxed), number))
                        .unwrap();
                }
                let last = handle.clone();
                handle.post(move || last.shutdown()).unwrap();
                gate.wait();
            })
        };
        runtime.run();
        join(thread);
        assert_eq!(next.load(Ordering::Relaxed), POSTS);
        let counters = handle.snapshot();
        assert_eq!(counters.post_panics, 0, "they ran out of order");
        assert_eq!(counters.posts, POSTS + 2);
        assert!(counters.wakes_sent <= 3, "{counters:?}");
    });
}

#[test]
fn posts_while_the_reactor_runs_cost_at_most_one_wake_for_each_drain() {
    const POSTS: u64 = 50_000;
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        let ran = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (handle, ran) = (handle.clone(), ran.clone());
                std::thread::spawn(move || {
                    for _ in 0..POSTS {
                        let ran = ran.clone();
                        handle.post(move || _ = ran.fetch_add(1, Ordering::Relaxed)).unwrap();
                    }
                })
            })
            .collect();
        let waiter = handle.clone();
        let last = std::thread::spawn(move || {
            threads.into_iter().for_each(join);
            waiter.post({
                let waiter = waiter.clone();
                move || waiter.shutdown()
            })
        });
        runtime.run();
        join(last).unwrap();
        assert_eq!(ran.load(Ordering::Relaxed), 2 * POSTS);
        let counters = handle.snapshot();
        assert!(counters.wakes_sent <= counters.ticks, "{counters:?}");
    });
}

#[test]
fn no_wake_is_lost_between_the_drain_and_the_sleep() {
    const ROUNDS: u32 = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        let thread = std::thread::spawn(move || {
            let (ack, acks) = mpsc::channel();
            for round in 0..ROUNDS {
                let ack = ack.clone();
                handle.post(move || ack.send(round).unwrap()).unwrap();
                // The reactor is on its way to sleep when the next one comes.
                assert_eq!(acks.recv().unwrap(), round);
            }
            handle.shutdown();
            handle.snapshot()
        });
        runtime.run();
        let counters = join(thread);
        assert!(counters.wakes_sent > 0, "it never slept: nothing was proved. {counters:?}");
    });
}

#[test]
fn posts_of_several_producers_run_in_the_order_in_which_they_were_posted() {
    const POSTS: usize = 100_000;
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        // The order is the order of taking the lock.
        let submitted = Arc::new(Mutex::new(Vec::with_capacity(POSTS)));
        let ran = Arc::new(Mutex::new(Vec::with_capacity(POSTS)));
        let post = {
            let (handle, submitted, ran) = (handle.clone(), submitted.clone(), ran.clone());
            Arc::new(move |producer: u8| {
                let mut submitted = submitted.lock().unwrap();
                let (number, ran) = (submitted.len(), ran.clone());
                if number == POSTS {
                    return false;
                }
                submitted.push(producer);
                handle.post(move || ran.lock().unwrap().push(number)).unwrap();
                true
            })
        };
        let outside = {
            let post = post.clone();
            std::thread::spawn(move || {
                while post(1) {
                    std::thread::yield_now();
                }
            })
        };
        runtime.block_on(async {
            while post(2) {
                pelton::yield_now().await;
            }
            eventually("all have run", || ran.lock().unwrap().len() == POSTS).await;
        });
        join(outside);
        assert!(ran.lock().unwrap().is_sorted());
        let submitted = submitted.lock().unwrap();
        assert!(submitted.contains(&1) && submitted.contains(&2), "both had their turns");
    });
}

#[test]
fn a_posted_closure_that_panics_is_counted_and_told_of_and_harms_nobody() {
    struct Grenade;
    impl Drop for Grenade {
        fn drop(&mut self) {
            // With a payload that needs no memory, because nobody can drop it any more.
            std::panic::panic_any(());
        }
    }
    on_each_backend(|backend| {
        let told = Arc::new(AtomicU32::new(0));
        let hook = told.clone();
        let runtime = Builder::new()
            .backend(backend)
            .on_fault(move |fault| {
                assert!(matches!(fault, Fault::PostPanicked), "{fault}");
                hook.fetch_add(1, Ordering::Relaxed);
            })
            .build()
            .unwrap();
        let handle = runtime.handle();
        let ran = Arc::new(AtomicU32::new(0));
        // One batch: the ones behind the broken ones must run too.
        for number in 0..9 {
            let ran = ran.clone();
            handle
                .post(move || {
                    ran.fetch_add(1, Ordering::Relaxed);
                    match number % 3 {
                        0 => panic!("number {number}"),
                        1 => std::panic::panic_any(Grenade),
                        _ => {}
                    }
                })
                .unwrap();
        }
        runtime.block_on(async {
            // The root is not polled in the middle of a batch of posts.
            eventually("all have run", || ran.load(Ordering::Relaxed) == 9).await;
        });
        assert_eq!(told.load(Ordering::Relaxed), 6);
        assert_eq!(handle.snapshot().post_panics, 6);
        assert_eq!(handle.snapshot().posts, 9);
    });
}

#[test]
fn a_hook_for_faults_that_panics_harms_nobody() {
    on_each_backend(|backend| {
        let runtime =
            Builder::new().backend(backend).on_fault(|_| panic!("the hook")).build().unwrap();
        let handle = runtime.handle();
        let ran = Arc::new(AtomicU32::new(0));
        handle.post(|| panic!("the closure")).unwrap();
        let inner = ran.clone();
        handle.post(move || inner.store(1, Ordering::Relaxed)).unwrap();
        runtime.block_on(eventually("the second runs", || ran.load(Ordering::Relaxed) == 1));
    });
}

#[test]
fn a_post_from_the_reactors_own_thread_does_not_run_inside_the_call() {
    inside_each_backend(|_| async {
        let handle = Handle::current();
        let ran = Arc::new(AtomicBool::new(false));
        let inner = ran.clone();
        let nested = handle.clone();
        handle
            .post(move || {
                let again = inner.clone();
                nested.post(move || again.store(true, Ordering::Relaxed)).unwrap();
                assert!(!inner.load(Ordering::Relaxed), "not inside a posted closure either");
            })
            .unwrap();
        assert!(!ran.load(Ordering::Relaxed), "it ran inside the call");
        eventually("it runs later", || ran.load(Ordering::Relaxed)).await;
        assert_eq!(handle.snapshot().post_panics, 0);
    });
}

#[test]
fn a_call_is_made_at_home_and_its_caller_waits_and_panics_with_it() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let (handle, home) = (runtime.handle(), here());
        assert_eq!(handle.call(|| 1), Err(CallError::NotRunning), "this thread would run it");
        let thread = std::thread::spawn(move || {
            // What is posted before the call has run when it returns.
            let order = Arc::new(Mutex::new(Vec::new()));
            for n in 0..3 {
                let order = order.clone();
                handle.post(move || order.lock().unwrap().push(n)).unwrap();
            }
            let inside = order.clone();
            let called = handle.call(move || {
                inside.lock().unwrap().push(3);
                (here(), pelton::Handle::try_current().is_some())
            });
            assert_eq!(called, Ok((home, true)));
            assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);

            // At home it is made at once, inside whatever calls.
            let nested = handle.clone();
            let nested = handle.call(move || nested.call(here));
            assert_eq!(nested, Ok(Ok(home)));

            let again = handle.clone();
            let panic = std::panic::catch_unwind(move || again.call(|| panic!("over there")));
            let said = panic.unwrap_err();
            assert_eq!(said.downcast_ref(), Some(&"over there"), "the caller panics with it");
            assert_eq!(handle.call(|| 5), Ok(5), "and the reactor goes on");

            let other = pelton::Runtime::new().unwrap();
            let here = handle.clone();
            let refused = other.block_on(async move { here.call(|| 6) });
            assert_eq!(refused, Err(CallError::OnAnotherReactor));
            drop(other);
            handle.shutdown();
            handle
        });
        runtime.run();
        drop(runtime);
        let handle = join(thread);
        assert_eq!(handle.snapshot().post_panics, 0);
        assert_eq!(handle.call(|| 7), Err(CallError::Closed));
        let elsewhere = std::thread::spawn(move || handle.call(|| 8));
        assert_eq!(join(elsewhere), Err(CallError::Closed));
    });
}

#[test]
fn a_call_that_the_reactor_never_comes_to_is_an_error() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let handle = runtime.handle();
        let (tell, told) = mpsc::channel();
        struct Dropped(mpsc::Sender<()>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let dropped = Dropped(tell);
        let wakes = |handle: &Handle| {
            let counted = handle.snapshot();
            counted.wakes_sent + counted.wakes_coalesced
        };
        let before = wakes(&handle);
        let waits = handle.clone();
        let thread = std::thread::spawn(move || waits.call(move || drop(dropped)));
        // Queued: the latch is raised behind it, and nobody has run the reactor.
        while wakes(&handle) == before {
            std::thread::yield_now();
        }
        assert!(told.try_recv().is_err(), "it waits");
        drop(runtime);
        assert_eq!(join(thread), Err(CallError::Closed));
        assert_eq!(told.try_recv(), Ok(()), "the closure was dropped");
    });
}
