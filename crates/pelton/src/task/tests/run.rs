//! Queueing, polling, waking, tokens.

use super::*;

#[test]
fn the_output_of_a_task_reaches_its_handle() {
    let tasks = tasks();
    let handle = tasks.spawn(async { 7 });
    assert!(!handle.is_finished());
    assert_eq!(join(&tasks, handle).unwrap(), 7);
    assert_eq!(tasks.live(), 0);
    let counts = tasks.counts();
    assert_eq!((counts.spawned, counts.polls, counts.panics), (1, 1, 0));
}

#[test]
fn tasks_run_in_the_order_in_which_they_were_queued() {
    let tasks = tasks();
    let order = Rc::new(RefCell::new(Vec::new()));
    let gates: Vec<_> = (0..5).map(|_| Gate::new()).collect();
    for (index, gate) in gates.iter().enumerate() {
        let (order, pass) = (order.clone(), gate.pass());
        tasks.spawn(async move {
            order.borrow_mut().push(index);
            pass.await;
            order.borrow_mut().push(index);
        });
    }
    run(&tasks);
    assert_eq!(order.take(), [0, 1, 2, 3, 4]);
    for index in [3, 0, 4, 1, 2] {
        gates[index].open();
    }
    run(&tasks);
    assert_eq!(order.take(), [3, 0, 4, 1, 2]);
}

#[test]
fn what_is_queued_during_a_run_waits_for_the_next() {
    let tasks = Rc::new(tasks());
    let ran = counter();
    let (inner, count) = (tasks.clone(), ran.clone());
    tasks.spawn(async move {
        inner.spawn(async move { count.set(count.get() + 1) });
    });
    assert_eq!(tasks.run_queued(usize::MAX), 1);
    assert_eq!(ran.get(), 0);
    assert!(tasks.has_queued());
    assert_eq!(tasks.run_queued(usize::MAX), 1);
    assert_eq!(ran.get(), 1);
    assert!(!tasks.has_queued());
}

#[test]
fn a_run_polls_no_more_tasks_than_it_was_told() {
    let tasks = tasks();
    for _ in 0..5 {
        tasks.spawn(async {});
    }
    assert_eq!(tasks.run_queued(2), 2);
    assert_eq!(tasks.run_queued(0), 0);
    assert_eq!(tasks.counts().queued, 3);
    assert_eq!(tasks.run_queued(9), 3);
    assert_eq!(tasks.run_queued(9), 0);
}

#[test]
fn a_wake_while_running_queues_the_task_once() {
    let tasks = tasks();
    let polls = counter();
    let count = polls.clone();
    tasks.spawn(std::future::poll_fn(move |cx| {
        count.set(count.get() + 1);
        if count.get() == 1 {
            cx.waker().wake_by_ref();
            cx.waker().wake_by_ref();
            let cloned = cx.waker().clone();
            cloned.wake();
        }
        Poll::<()>::Pending
    }));
    assert_eq!(tasks.run_queued(usize::MAX), 1);
    assert_eq!(tasks.counts().queued, 1);
    assert_eq!(tasks.run_queued(usize::MAX), 1);
    assert_eq!(tasks.run_queued(usize::MAX), 0);
    assert_eq!(polls.get(), 2);
}

#[test]
fn a_wake_of_a_queued_task_changes_nothing() {
    let tasks = tasks();
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    gate.wake();
    gate.wake();
    assert_eq!(tasks.counts().queued, 1);
    run(&tasks);
    assert_eq!(gate.polls.get(), 2);
}

#[test]
fn waking_a_finished_task_does_nothing() {
    let tasks = tasks();
    let gate = Gate::new();
    let handle = tasks.spawn(gate.pass());
    run(&tasks);
    gate.open();
    run(&tasks);
    assert!(handle.is_finished());
    gate.wake();
    assert!(!tasks.has_queued(), "done, and the handle has not taken the output");
    drop(handle);
    gate.wake();
    assert!(!tasks.has_queued(), "dead");
    assert_eq!(gate.polls.get(), 2);
}

#[test]
fn a_task_may_end_while_it_is_queued() {
    let tasks = tasks();
    tasks.spawn(std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Ready(())
    }));
    assert_eq!(tasks.run_queued(usize::MAX), 1);
    assert_eq!(tasks.live(), 0);
    assert!(tasks.has_queued(), "the link of the dead task");
    assert_eq!(tasks.run_queued(usize::MAX), 0);
    assert!(!tasks.has_queued());
    let before = tasks.counts().headers;
    tasks.spawn(async {});
    assert_eq!(tasks.counts().headers, before, "the header was taken back when it was unlinked");
}

#[test]
fn a_completion_polls_an_idle_task_at_once() {
    let tasks = tasks();
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    resume(&tasks, token_of(&tasks, &gate));
    assert_eq!(gate.polls.get(), 2);
    assert!(!tasks.has_queued());
    gate.open.set(true);
    resume(&tasks, token_of(&tasks, &gate));
    assert_eq!(tasks.live(), 0);
}

#[test]
fn a_completion_for_a_queued_task_leaves_it_to_the_queue() {
    let tasks = tasks();
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    gate.wake();
    resume(&tasks, token_of(&tasks, &gate));
    assert_eq!(gate.polls.get(), 1);
    run(&tasks);
    assert_eq!(gate.polls.get(), 2);
}

#[test]
fn a_completion_for_a_running_task_queues_it() {
    let tasks = Rc::new(tasks());
    let polls = counter();
    let (inner, count) = (tasks.clone(), polls.clone());
    tasks.spawn(std::future::poll_fn(move |cx| {
        count.set(count.get() + 1);
        if count.get() == 1 {
            resume(&inner, inner.token(cx.waker()).unwrap());
        }
        Poll::<()>::Pending
    }));
    tasks.run_queued(usize::MAX);
    assert_eq!((polls.get(), tasks.counts().queued), (1, 1));
    run(&tasks);
    assert_eq!(polls.get(), 2);
    tasks.clear();
}

#[test]
fn waking_by_token_only_queues() {
    let tasks = tasks();
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    let token = token_of(&tasks, &gate);
    // SAFETY: a token of these tasks.
    unsafe { tasks.resuming(Queued::ALL).resume(token) };
    assert_eq!((gate.polls.get(), tasks.counts().queued), (1, 1));
    run(&tasks);
    assert_eq!(gate.polls.get(), 2);
}

#[test]
fn a_token_passes_through_a_raw_pointer_with_clear_low_bits() {
    let tasks = tasks();
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    let token = token_of(&tasks, &gate);
    let raw = token.into_raw();
    assert_eq!(raw.addr() & 3, 0);
    assert_eq!(Token::from_raw(raw), Some(token));
    assert_eq!(Token::from_raw(std::ptr::null_mut()), None);
    resume(
        &tasks,
        Token::from_raw(raw.map_addr(|address| address | 1).map_addr(|address| address & !1))
            .unwrap(),
    );
    assert_eq!(gate.polls.get(), 2);
}

#[test]
fn there_is_no_token_for_wakers_of_others() {
    let (ours, theirs) = (tasks(), tasks());
    let gate = Gate::new();
    theirs.spawn(gate.pass());
    run(&theirs);
    let waker = gate.waker();
    assert!(theirs.token(&waker).is_some());
    assert!(ours.token(&waker).is_none());
    assert!(ours.token(Waker::noop()).is_none());
    assert!(ours.token(&Waker::from(Arc::new(CountingWaker::default()))).is_none());
}

#[test]
fn a_waker_that_outlives_its_reactor_is_none_of_the_next_one_which_may_have_its_table_later() {
    let before = tasks();
    let gate = Gate::new();
    before.spawn(gate.pass());
    run(&before);
    let waker = gate.waker();
    drop(before);
    // As many as there are tables to be had, and one that has to be made.
    let after: Vec<_> = (0..8).map(|_| tasks()).collect();
    for tasks in &after {
        let root = tasks.root();
        assert!(tasks.token(&waker).is_none(), "its table is another's already");
        assert!(!std::ptr::eq(waker.vtable(), root.waker().vtable()));
        assert!(tasks.token(root.waker()).is_some());
    }
    waker.wake();
    drop(after);
    let again = tasks();
    assert!(again.token(again.root().waker()).is_some());
}

#[test]
fn a_wake_between_two_reactors_of_one_thread_stays_local() {
    let bell = Bell::default();
    let (first, second) = (Tasks::new(bell.clone()), tasks());
    let gate = Gate::new();
    first.spawn(gate.pass());
    run(&first);
    let opener = gate.clone();
    second.spawn(async move { opener.open() });
    run(&second);
    assert_eq!(bell.rings(), 0);
    assert_eq!(first.live(), 1);
    run(&first);
    assert_eq!(first.live(), 0);
}

#[test]
fn the_root_is_notified_by_wakes_tokens_and_at_first() {
    let tasks = tasks();
    let root = tasks.root();
    assert!(root.is_notified() && root.take_notified());
    assert!(!root.is_notified() && !root.take_notified());
    root.waker().wake_by_ref();
    assert!(root.take_notified());
    let cloned = root.waker().clone();
    cloned.wake();
    assert!(root.take_notified());
    let token = tasks.token(root.waker()).unwrap();
    resume(&tasks, token);
    assert!(root.take_notified());
    assert!(!tasks.has_queued(), "a root is never in the queue");
    drop(root);
    resume(&tasks, token);
    assert!(!tasks.has_queued());
}

#[test]
fn a_waker_may_outlive_its_root() {
    let tasks = tasks();
    let waker = tasks.root().waker().clone();
    waker.wake_by_ref();
    assert!(!tasks.has_queued());
    let root = tasks.root();
    assert!(root.take_notified());
    waker.wake();
    assert!(!root.is_notified(), "the header was not used again while the waker lived");
}

#[test]
fn yielding_lets_others_go_first() {
    let tasks = tasks();
    let order = Rc::new(RefCell::new(Vec::new()));
    for name in ["a", "b"] {
        let order = order.clone();
        tasks.spawn(async move {
            for turn in 0..3 {
                order.borrow_mut().push((name, turn));
                yield_now().await;
            }
        });
    }
    run(&tasks);
    assert_eq!(order.take(), [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]);
}

#[test]
fn a_run_within_a_poll_passes_over_the_task_that_runs() {
    let tasks = Rc::new(tasks());
    let (inner, other_ran) = (tasks.clone(), counter());
    let count = other_ran.clone();
    let mut polls = 0;
    let handle = tasks.spawn(std::future::poll_fn(move |cx| {
        polls += 1;
        if polls == 1 {
            cx.waker().wake_by_ref();
            assert_eq!(inner.run_queued(usize::MAX), 1, "the other task, and not this one");
            return Poll::Pending;
        }
        Poll::Ready(polls)
    }));
    tasks.spawn(async move { count.set(count.get() + 1) });
    assert_eq!(join(&tasks, handle).unwrap(), 2);
    assert_eq!(other_ran.get(), 1);
}

#[test]
fn a_future_may_be_large_and_strictly_aligned() {
    #[repr(align(256))]
    struct Aligned([u8; 5000]);
    let tasks = tasks();
    let value = Aligned([3; 5000]);
    let handle = tasks.spawn(async move {
        assert_eq!((&raw const value).addr() % 256, 0);
        yield_now().await;
        value
    });
    let value = join(&tasks, handle).unwrap();
    assert_eq!((&raw const value).addr() % 256, 0);
    assert!(value.0.iter().all(|byte| *byte == 3));
}
