//! Clearing, and the end of the reactor with wakers and handles left over.

use super::*;

#[test]
fn clearing_drops_every_future_and_cancels_the_handles() {
    let tasks = tasks();
    let dropped = counter();
    let mut handles = Vec::new();
    for polled in [true, false] {
        for _ in 0..3 {
            let held = Counted(dropped.clone());
            handles.push(tasks.spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            }));
        }
        if polled {
            run(&tasks);
        }
    }
    tasks.clear();
    assert_eq!((dropped.get(), tasks.live(), tasks.has_queued()), (6, 0, false));
    for handle in handles {
        assert!(join(&tasks, handle).unwrap_err().is_cancelled());
    }
}

#[test]
fn clearing_keeps_the_outputs_of_finished_tasks() {
    let tasks = tasks();
    let handle = tasks.spawn(async { 6 });
    run(&tasks);
    tasks.clear();
    assert_eq!(join(&tasks, handle).unwrap(), 6);
}

#[test]
fn after_clearing_nothing_is_spawned() {
    let tasks = tasks();
    tasks.clear();
    let dropped = counter();
    let held = Counted(dropped.clone());
    let mut handle = tasks.spawn(async move { drop(held) });
    assert_eq!((dropped.get(), tasks.live()), (1, 0));
    assert!(handle.is_finished());
    handle.abort();
    let Poll::Ready(Err(error)) = poll_once(&mut handle, Waker::noop()) else { panic!("refused") };
    assert!(error.is_cancelled());
    tasks.clear();
}

#[test]
fn futures_whose_drop_spawns_and_wakes_and_aborts_are_cleared() {
    let tasks = Rc::new(tasks());
    let (spawned, dropped) = (counter(), counter());
    let gate = Gate::new();
    let handles: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
    for _ in 0..4 {
        let (inner, gate_inner, handles_inner) = (tasks.clone(), gate.clone(), handles.clone());
        let (count, held) = (spawned.clone(), dropped.clone());
        let at_end = OnDrop(move || {
            count.set(count.get() + 1);
            let held = Counted(held.clone());
            let refused = inner.spawn(async move { drop(held) });
            assert!(refused.is_finished());
            gate_inner.wake();
            handles_inner.borrow().iter().for_each(JoinHandle::abort);
            inner.clear();
        });
        let pass = gate.pass();
        handles.borrow_mut().push(tasks.spawn(async move {
            pass.await;
            drop(at_end);
        }));
    }
    run(&tasks);
    tasks.clear();
    assert_eq!((spawned.get(), dropped.get(), tasks.live(), tasks.has_queued()), (4, 4, 0, false));
    for handle in handles.take() {
        assert!(join(&tasks, handle).unwrap_err().is_cancelled());
    }
}

#[test]
fn a_drop_that_always_spawns_its_like_comes_to_an_end() {
    struct Weed(Rc<Tasks>, Rc<Cell<usize>>);
    impl Future for Weed {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }
    impl Drop for Weed {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
            self.0.spawn(Weed(self.0.clone(), self.1.clone()));
        }
    }
    let tasks = Rc::new(tasks());
    let dropped = counter();
    tasks.spawn(Weed(tasks.clone(), dropped.clone()));
    tasks.clear();
    assert_eq!(dropped.get(), 1 + MAX_REFUSALS as usize);
    assert_eq!(tasks.counts().forgotten, 1);
    assert_eq!(Rc::strong_count(&tasks), 2, "the forgotten one holds the tasks");
    // SAFETY: it was forgotten, so nobody will ever give its share back; this test does in its place.
    unsafe { Rc::decrement_strong_count(Rc::as_ptr(&tasks)) };
    // SAFETY: likewise.
    unsafe { Rc::decrement_strong_count(Rc::as_ptr(&dropped)) };
}

#[test]
fn a_task_that_clears_its_own_reactor_is_dropped_after_its_poll() {
    let tasks = Rc::new(tasks());
    let dropped = counter();
    let (inner, held, others) = (tasks.clone(), Counted(dropped.clone()), Counted(dropped.clone()));
    tasks.spawn(async move {
        std::future::pending::<()>().await;
        drop(others);
    });
    let count = dropped.clone();
    let handle = tasks.spawn(async move {
        inner.clear();
        assert_eq!(count.get(), 1, "the other task is gone, this one is still in use");
        yield_now().await;
        drop(held);
    });
    run(&tasks);
    assert_eq!((dropped.get(), tasks.live()), (2, 0));
    assert!(join(&tasks, handle).unwrap_err().is_cancelled());
}

#[test]
fn a_task_that_awaits_a_cleared_one_is_cleared_too() {
    let tasks = tasks();
    let inner = tasks.spawn(std::future::pending::<()>());
    let outer = tasks.spawn(inner);
    run(&tasks);
    tasks.clear();
    assert!(join(&tasks, outer).unwrap_err().is_cancelled());
}

#[test]
fn the_end_frees_everything_when_nothing_refers_to_it() {
    let bell = Bell::default();
    let tasks = Tasks::new(bell.clone());
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    drop(gate.waker());
    assert!(bell.is_held());
    drop(tasks);
    assert!(!bell.is_held());
}

#[test]
fn a_waker_that_outlives_the_reactor_is_harmless_and_frees_it_last() {
    let bell = Bell::default();
    let tasks = Tasks::new(bell.clone());
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    let waker = gate.waker();
    drop(tasks);
    assert!(bell.is_held());
    let again = waker.clone();
    waker.wake_by_ref();
    waker.wake();
    assert!(bell.is_held());
    drop(again);
    assert!(!bell.is_held(), "the last waker freed what it pointed to");
    assert_eq!((bell.rings(), gate.polls.get()), (0, 1));
}

#[test]
fn a_waker_may_be_used_and_dropped_by_another_thread_after_the_end() {
    let bell = Bell::default();
    let tasks = Tasks::new(bell.clone());
    let gates: Vec<_> = (0..3).map(|_| Gate::new()).collect();
    for gate in &gates {
        tasks.spawn(gate.pass());
    }
    run(&tasks);
    let wakers: Vec<_> = gates.iter().map(|gate| gate.waker()).collect();
    drop(tasks);
    std::thread::spawn(move || {
        for waker in wakers {
            let again = waker.clone();
            waker.wake();
            again.wake_by_ref();
        }
    })
    .join()
    .unwrap();
    assert!(!bell.is_held());
    assert_eq!(bell.rings(), 0, "after the end nothing is pushed");
}

#[test]
fn a_forgotten_root_ends_with_the_reactor() {
    let bell = Bell::default();
    let tasks = Tasks::new(bell.clone());
    let root = tasks.root();
    let waker = root.waker().clone();
    std::mem::forget(root);
    tasks.clear();
    drop(tasks);
    waker.wake_by_ref();
    assert!(bell.is_held());
    drop(waker);
    assert!(!bell.is_held());
}

#[test]
fn handles_that_outlive_the_reactor_deliver_or_report() {
    let bell = Bell::default();
    let tasks = Tasks::new(bell.clone());
    let dropped = counter();
    let output = Counted(dropped.clone());
    let mut finished = tasks.spawn(async move { output });
    run(&tasks);
    let mut cancelled = tasks.spawn(std::future::pending::<()>());
    let unused_output = Counted(dropped.clone());
    let unused = tasks.spawn(async move { unused_output });
    tasks.run_queued(usize::MAX);
    drop(tasks);
    assert!(bell.is_held());
    assert!(finished.is_finished() && cancelled.is_finished() && unused.is_finished());
    cancelled.abort();
    let Poll::Ready(Ok(output)) = poll_once(&mut finished, Waker::noop()) else {
        panic!("an output")
    };
    let Poll::Ready(Err(error)) = poll_once(&mut cancelled, Waker::noop()) else {
        panic!("an error")
    };
    assert!(error.is_cancelled());
    assert_eq!(dropped.get(), 0);
    drop((output, finished, cancelled));
    assert_eq!(dropped.get(), 1);
    assert!(bell.is_held(), "one handle is left");
    drop(unused);
    assert_eq!(dropped.get(), 2);
    assert!(!bell.is_held());
}

#[test]
fn a_handle_and_a_waker_of_one_task_may_both_outlive_the_reactor() {
    for handle_first in [true, false] {
        let bell = Bell::default();
        let tasks = Tasks::new(bell.clone());
        let gate = Gate::new();
        let handle = tasks.spawn(gate.pass());
        run(&tasks);
        let waker = gate.waker();
        drop(tasks);
        if handle_first {
            drop(handle);
            assert!(bell.is_held());
            waker.wake();
        } else {
            waker.wake();
            assert!(bell.is_held());
            drop(handle);
        }
        assert!(!bell.is_held());
    }
}

#[test]
fn an_outputs_drop_may_end_the_reactor() {
    let bell = Bell::default();
    let tasks = Rc::new(Tasks::new(bell.clone()));
    let inner = tasks.clone();
    let handle = tasks.spawn(async move { (inner, OnDrop(|| throw("counted on the way out"))) });
    run(&tasks);
    drop(tasks);
    assert!(bell.is_held(), "the output holds the reactor");
    drop(handle);
    assert!(!bell.is_held());
}

#[test]
fn an_aborted_futures_drop_may_end_the_reactor() {
    let bell = Bell::default();
    let tasks = Rc::new(Tasks::new(bell.clone()));
    let (inner, dropped) = (tasks.clone(), counter());
    let held = Counted(dropped.clone());
    let mut handle = tasks.spawn(async move {
        std::future::pending::<()>().await;
        drop((inner, held));
    });
    let other_held = Counted(dropped.clone());
    let mut other = tasks.spawn(async move {
        std::future::pending::<()>().await;
        drop(other_held);
    });
    run(&tasks);
    assert!(poll_once(&mut other, &Arc::new(CountingWaker::default()).into()).is_pending());
    drop(tasks);
    handle.abort();
    assert_eq!(dropped.get(), 2);
    assert!(handle.is_finished() && other.is_finished());
    let Poll::Ready(Err(error)) = poll_once(&mut handle, Waker::noop()) else {
        panic!("cancelled")
    };
    assert!(error.is_cancelled());
    drop(handle);
    assert!(bell.is_held());
    drop(other);
    assert!(!bell.is_held());
}

#[test]
fn a_joiner_may_end_the_reactor_when_it_is_woken() {
    /// Owns the reactor; all on one thread, which `Wake` cannot know.
    struct Owner(std::sync::Mutex<Option<SendRc>>);
    struct SendRc(#[allow(dead_code)] Rc<Tasks>);
    // SAFETY: the test has one thread.
    unsafe impl Send for SendRc {}
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {
            let tasks = self.0.lock().unwrap().take();
            drop(tasks);
        }
    }
    let bell = Bell::default();
    let tasks = Rc::new(Tasks::new(bell.clone()));
    let mut handle = tasks.spawn(std::future::pending::<()>());
    run(&tasks);
    let owner = Arc::new(Owner(std::sync::Mutex::new(Some(SendRc(tasks)))));
    assert!(poll_once(&mut handle, &owner.into()).is_pending());
    handle.abort();
    assert!(bell.is_held());
    drop(handle);
    assert!(!bell.is_held());
}

#[test]
fn an_unused_reactor_ends() {
    let bell = Bell::default();
    drop(Tasks::new(bell.clone()));
    assert!(!bell.is_held());
}
