//! Join handles: waiting, aborting, detaching, and who drops what how often.

use super::*;

#[test]
fn a_handle_that_is_dropped_detaches() {
    let tasks = tasks();
    let (gate, dropped) = (Gate::new(), counter());
    let (pass, output) = (gate.pass(), Counted(dropped.clone()));
    drop(tasks.spawn(async move {
        pass.await;
        output
    }));
    run(&tasks);
    assert_eq!((tasks.live(), dropped.get()), (1, 0));
    gate.open();
    run(&tasks);
    assert_eq!((tasks.live(), dropped.get()), (0, 1));
    tasks.spawn(async {}).detach();
    run(&tasks);
    assert_eq!(tasks.live(), 0);
}

#[test]
fn an_output_is_dropped_once_whoever_gets_it() {
    let tasks = tasks();
    let dropped = counter();
    let spawn = || {
        let output = Counted(dropped.clone());
        tasks.spawn(async move { output })
    };
    // Taken.
    let output = join(&tasks, spawn()).unwrap();
    assert_eq!(dropped.get(), 0);
    drop(output);
    assert_eq!(dropped.get(), 1);
    // Finished, then the handle dropped.
    let handle = spawn();
    run(&tasks);
    assert!(handle.is_finished());
    assert_eq!(dropped.get(), 1);
    drop(handle);
    assert_eq!(dropped.get(), 2);
    // Detached before it finishes.
    drop(spawn());
    run(&tasks);
    assert_eq!(dropped.get(), 3);
    // Aborted before its first poll: the future holds what would be the output.
    let handle = spawn();
    handle.abort();
    assert_eq!(dropped.get(), 4);
    drop(handle);
    // Cleared.
    let (finished, unfinished) = (spawn(), Gate::new());
    let (pass, output) = (unfinished.pass(), Counted(dropped.clone()));
    let waiting = tasks.spawn(async move {
        pass.await;
        output
    });
    run(&tasks);
    tasks.clear();
    assert_eq!(dropped.get(), 5);
    drop(finished);
    assert_eq!(dropped.get(), 6);
    drop(waiting);
    assert_eq!(dropped.get(), 6);
}

#[test]
fn an_idle_task_is_aborted_at_once() {
    let tasks = tasks();
    let (gate, dropped) = (Gate::new(), counter());
    let (pass, held) = (gate.pass(), Counted(dropped.clone()));
    let handle = tasks.spawn(async move {
        pass.await;
        drop(held);
    });
    run(&tasks);
    handle.abort();
    assert_eq!((dropped.get(), tasks.live()), (1, 0));
    assert!(handle.is_finished());
    handle.abort();
    gate.open();
    run(&tasks);
    assert_eq!(gate.polls.get(), 1);
    let error = join(&tasks, handle).unwrap_err();
    assert!(error.is_cancelled() && !error.is_panic());
}

#[test]
fn a_queued_task_is_aborted_at_once_and_never_polled() {
    let tasks = tasks();
    let polled = counter();
    let count = polled.clone();
    let handle = tasks.spawn(async move { count.set(1) });
    handle.abort();
    assert_eq!((tasks.live(), Rc::strong_count(&polled)), (0, 1));
    assert!(join(&tasks, handle).unwrap_err().is_cancelled());
    run(&tasks);
    assert_eq!(polled.get(), 0);
    assert!(!tasks.has_queued());
}

#[test]
fn a_handle_may_be_dropped_while_its_aborted_task_is_still_linked() {
    let tasks = tasks();
    let handle = tasks.spawn(async {});
    handle.abort();
    drop(handle);
    let headers = tasks.counts().headers;
    let other = tasks.spawn(async { 5 });
    assert_eq!(tasks.counts().headers, headers + 1, "the linked header is not used again");
    assert_eq!(join(&tasks, other).unwrap(), 5);
}

#[test]
fn a_finished_task_is_not_aborted_any_more() {
    let tasks = tasks();
    let handle = tasks.spawn(async { 3 });
    run(&tasks);
    handle.abort();
    assert_eq!(join(&tasks, handle).unwrap(), 3);
}

/// A task that has its own handle.
fn with_own_handle<T: 'static, F: Future<Output = T> + 'static>(
    tasks: &Tasks,
    make: impl FnOnce(Rc<RefCell<Option<JoinHandle<T>>>>) -> F,
) -> Rc<RefCell<Option<JoinHandle<T>>>> {
    let own = Rc::new(RefCell::new(None));
    let handle = tasks.spawn(make(own.clone()));
    own.replace(Some(handle));
    own
}

#[test]
fn a_task_that_aborts_itself_is_dropped_after_its_poll() {
    let tasks = tasks();
    let dropped = counter();
    let own = with_own_handle(&tasks, |own| {
        let (held, count) = (Counted(dropped.clone()), dropped.clone());
        async move {
            own.borrow().as_ref().unwrap().abort();
            assert_eq!(count.get(), 0);
            yield_now().await;
            drop(held);
            unreachable!("aborted");
        }
    });
    run(&tasks);
    assert_eq!((dropped.get(), tasks.live()), (1, 0));
    let handle = own.take().unwrap();
    assert!(join(&tasks, handle).unwrap_err().is_cancelled());
}

#[test]
fn a_task_that_aborts_itself_in_its_last_poll_delivers() {
    let tasks = tasks();
    let own = with_own_handle(&tasks, |own| async move {
        own.borrow().as_ref().unwrap().abort();
        11
    });
    run(&tasks);
    let handle = own.take().unwrap();
    assert_eq!(join(&tasks, handle).unwrap(), 11);
}

#[test]
fn a_task_that_aborts_itself_and_drops_its_handle_ends() {
    let tasks = tasks();
    let dropped = counter();
    with_own_handle(&tasks, |own| {
        let held = Counted(dropped.clone());
        async move {
            let handle = own.take().unwrap();
            handle.abort();
            drop(handle);
            yield_now().await;
            drop(held);
        }
    });
    run(&tasks);
    assert_eq!((dropped.get(), tasks.live(), tasks.counts().queued), (1, 0, 0));
}

#[test]
fn the_drop_of_an_aborted_future_may_wake_and_abort_and_ask() {
    let tasks = tasks();
    let gate = Gate::new();
    let seen = Rc::new(Cell::new(None));
    let own = with_own_handle(&tasks, |own| {
        let (pass, seen) = (gate.pass(), seen.clone());
        let at_end = OnDrop(move || {
            pass.0.wake();
            let own = own.borrow();
            let handle: &JoinHandle<()> = own.as_ref().unwrap();
            handle.abort();
            seen.set(Some(handle.is_finished()));
        });
        let pass = gate.pass();
        async move {
            pass.await;
            drop(at_end);
        }
    });
    run(&tasks);
    own.borrow().as_ref().unwrap().abort();
    assert_eq!(seen.get(), Some(false));
    assert!(own.borrow().as_ref().unwrap().is_finished());
    run(&tasks);
    assert_eq!((tasks.live(), gate.polls.get()), (0, 1));
    let handle = own.take().unwrap();
    assert!(join(&tasks, handle).unwrap_err().is_cancelled());
}

#[test]
fn a_task_may_abort_another_and_await_it() {
    let tasks = tasks();
    let gate = Gate::new();
    let victim = tasks.spawn(gate.pass());
    let handle = tasks.spawn(async move {
        yield_now().await;
        victim.abort();
        victim.await.unwrap_err().is_cancelled()
    });
    assert!(join(&tasks, handle).unwrap());
}

#[test]
fn tasks_await_each_other() {
    let tasks = Rc::new(tasks());
    let inner = tasks.clone();
    let handle = tasks.spawn(async move {
        let mut sum = 0;
        for value in 0..10 {
            let child = inner.spawn(async move {
                yield_now().await;
                value
            });
            sum += child.await.unwrap();
        }
        sum
    });
    assert_eq!(join(&tasks, handle).unwrap(), 45);
}

#[test]
fn a_handle_can_be_awaited_again_after_the_wait_was_dropped() {
    let tasks = tasks();
    let gate = Gate::new();
    let mut handle = tasks.spawn(gate.pass());
    assert!(run_root(&tasks, &mut handle).is_none());
    // The header of that root may be used by the next: the handle's note of it is stale.
    let other = tasks.spawn(async { 1 });
    gate.open();
    assert_eq!(join(&tasks, other).unwrap(), 1);
    join(&tasks, handle).unwrap();
}

#[test]
fn a_foreign_waker_is_woken_once_and_cloned_once() {
    let tasks = tasks();
    let gate = Gate::new();
    let mut handle = tasks.spawn(gate.pass());
    let foreign = Arc::new(CountingWaker::default());
    let waker = Waker::from(foreign.clone());
    for _ in 0..3 {
        assert!(poll_once(&mut handle, &waker).is_pending());
        assert_eq!(Arc::strong_count(&foreign), 3, "ours, the waker's and the one stored");
    }
    run(&tasks);
    gate.open();
    run(&tasks);
    assert_eq!((foreign.wakes(), Arc::strong_count(&foreign)), (1, 2));
    assert!(poll_once(&mut handle, &waker).is_ready());
}

#[test]
fn only_the_last_waker_that_polled_is_woken() {
    let tasks = tasks();
    let mut handle = tasks.spawn(async {});
    let (first, last) = (Arc::new(CountingWaker::default()), Arc::new(CountingWaker::default()));
    assert!(poll_once(&mut handle, &first.clone().into()).is_pending());
    assert!(poll_once(&mut handle, &last.clone().into()).is_pending());
    assert_eq!(Arc::strong_count(&first), 1, "the former waker was dropped");
    run(&tasks);
    assert_eq!((first.wakes(), last.wakes()), (0, 1));
}

#[test]
fn a_dropped_handle_drops_the_waker_it_stored() {
    let tasks = tasks();
    let mut handle = tasks.spawn(async {});
    let foreign = Arc::new(CountingWaker::default());
    assert!(poll_once(&mut handle, &foreign.clone().into()).is_pending());
    drop(handle);
    assert_eq!(Arc::strong_count(&foreign), 1);
    run(&tasks);
    assert_eq!(foreign.wakes(), 0);
}

#[test]
fn a_handle_awaited_after_it_delivered_says_so() {
    let tasks = tasks();
    let mut handle = tasks.spawn(async {});
    run(&tasks);
    assert!(matches!(poll_once(&mut handle, Waker::noop()), Poll::Ready(Ok(()))));
    assert!(handle.is_finished());
    handle.abort();
    let Poll::Ready(Err(error)) = poll_once(&mut handle, Waker::noop()) else { panic!("an error") };
    assert!(!error.is_cancelled() && !error.is_panic());
    assert!(error.to_string().contains("before"), "{error}");
}

#[test]
fn a_waker_whose_clone_finishes_the_task_loses_nothing() {
    /// Clears the tasks when it is cloned.
    mod hostile {
        use super::*;
        use std::task::{RawWaker, RawWakerVTable};

        static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, wake);

        pub(super) fn waker(tasks: &Tasks) -> Waker {
            // SAFETY: used by the one test on the one thread while the tasks exist.
            unsafe { Waker::from_raw(RawWaker::new((&raw const *tasks).cast(), &VTABLE)) }
        }

        unsafe fn clone(tasks: *const ()) -> RawWaker {
            // SAFETY: as above.
            unsafe { (*tasks.cast::<Tasks>()).clear() };
            RawWaker::new(tasks, &VTABLE)
        }

        unsafe fn wake(_: *const ()) {}
    }
    let tasks = tasks();
    let mut handle = tasks.spawn(std::future::pending::<()>());
    let Poll::Ready(Err(error)) = poll_once(&mut handle, &hostile::waker(&tasks)) else {
        panic!("finished while the waker was made, and nobody would wake it");
    };
    assert!(error.is_cancelled());
}

#[test]
fn a_handle_can_be_awaited_on_another_reactor_of_the_thread() {
    let (first, second) = (tasks(), tasks());
    let gate = Gate::new();
    let pass = gate.pass();
    let handle = first.spawn(async move {
        pass.await;
        8
    });
    let waiting = second.spawn(handle);
    run(&first);
    run(&second);
    gate.open();
    run(&first);
    assert!(second.has_queued());
    assert_eq!(join(&second, waiting).unwrap().unwrap(), 8);
}

#[test]
fn the_drop_of_an_output_may_spawn_and_wake() {
    let tasks = Rc::new(tasks());
    let (gate, ran) = (Gate::new(), counter());
    tasks.spawn(gate.pass());
    run(&tasks);
    for detached in [true, false] {
        let (inner, gate, count) = (tasks.clone(), gate.clone(), ran.clone());
        let handle = tasks.spawn(async move {
            OnDrop(move || {
                gate.wake();
                let count = count.clone();
                inner.spawn(async move { count.set(count.get() + 1) });
            })
        });
        if detached {
            drop(handle);
            run(&tasks);
        } else {
            run(&tasks);
            drop(handle);
            run(&tasks);
        }
    }
    assert_eq!((ran.get(), gate.polls.get(), tasks.live()), (2, 3, 1));
    tasks.clear();
}

#[test]
fn the_drop_of_an_output_may_run_the_queue_that_links_its_own_task() {
    for (detached, clear) in [(true, true), (true, false), (false, true), (false, false)] {
        let tasks = Rc::new(tasks());
        let (inner, ran) = (tasks.clone(), counter());
        let count = ran.clone();
        let mut output = Some(OnDrop(move || {
            count.set(count.get() + 1);
            if clear {
                inner.clear();
            } else {
                assert_eq!(inner.run_queued(usize::MAX), 0);
            }
        }));
        let handle = tasks.spawn(std::future::poll_fn(move |cx| {
            cx.waker().wake_by_ref();
            Poll::Ready(output.take())
        }));
        if detached {
            drop(handle);
            tasks.run_queued(usize::MAX);
        } else {
            tasks.run_queued(usize::MAX);
            assert!(tasks.has_queued());
            drop(handle);
        }
        assert_eq!((ran.get(), tasks.live(), tasks.has_queued()), (1, 0, false));
        let roots = [tasks.root(), tasks.root()];
        assert_ne!(tasks.token(roots[0].waker()), tasks.token(roots[1].waker()), "buried once");
        assert_eq!(tasks.counts().headers, 2);
    }
}

#[test]
fn errors_say_what_happened_and_travel() {
    let tasks = tasks();
    let aborted = || {
        let handle = tasks.spawn(async {});
        handle.abort();
        join(&tasks, handle).unwrap_err()
    };
    assert_eq!(aborted().to_string(), "the task was cancelled");
    assert_eq!(format!("{:?}", aborted()), "JoinError(the task was cancelled)");
    assert!(aborted().try_into_panic().unwrap_err().is_cancelled());
    assert!(aborted().into_panic().downcast::<JoinError>().unwrap().is_cancelled());
    let boxed: Box<dyn std::error::Error + Send + Sync> = aborted().into();
    assert!(boxed.downcast_ref::<JoinError>().unwrap().is_cancelled());
    assert_eq!(io::Error::from(aborted()).to_string(), "the task was cancelled");
}
