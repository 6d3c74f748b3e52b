//! When a header is used again, and when it must not be.

use super::*;

/// The address of the header that a task would get now. The task is gone afterwards.
fn next_header(tasks: &Tasks) -> Token {
    let gate = Gate::new();
    let handle = tasks.spawn(gate.pass());
    tasks.run_queued(usize::MAX);
    let token = token_of(tasks, &gate);
    drop(gate.waker());
    handle.abort();
    drop(handle);
    token
}

#[test]
fn a_header_is_used_again_once_nothing_refers_to_it() {
    let tasks = tasks();
    let first = next_header(&tasks);
    for _ in 0..100 {
        assert_eq!(next_header(&tasks), first);
    }
    assert_eq!(tasks.counts().headers, 1);
}

#[test]
fn a_header_is_not_used_again_while_a_waker_refers_to_it() {
    let tasks = tasks();
    let gate = Gate::new();
    tasks.spawn(gate.pass()).abort();
    run(&tasks);
    let handle = tasks.spawn(gate.pass());
    run(&tasks);
    let token = token_of(&tasks, &gate);
    handle.abort();
    drop(handle);
    let waker = gate.waker();
    let other = next_header(&tasks);
    assert_ne!(other, token);
    assert_eq!(next_header(&tasks), other);
    drop(waker);
    // The free one is taken first; then, instead of growing, the zombie is found.
    let held = tasks.spawn(std::future::pending::<()>());
    let before = tasks.counts().headers;
    assert_eq!(next_header(&tasks), token);
    assert_eq!(tasks.counts().headers, before);
    held.abort();
}

#[test]
fn a_header_is_not_used_again_while_its_handle_exists() {
    let tasks = tasks();
    let gate = Gate::new();
    let handle = tasks.spawn(gate.pass());
    run(&tasks);
    let token = token_of(&tasks, &gate);
    drop(gate.waker());
    handle.abort();
    assert_ne!(next_header(&tasks), token);
    drop(handle);
    assert_eq!(next_header(&tasks), token);
}

#[test]
fn a_header_is_not_used_again_while_it_is_on_the_remote_stack() {
    let tasks = tasks();
    let gate = Gate::new();
    let handle = tasks.spawn(gate.pass());
    run(&tasks);
    let token = token_of(&tasks, &gate);
    let waker = gate.waker();
    std::thread::spawn(move || waker.wake()).join().unwrap();
    handle.abort();
    drop(handle);
    let held = tasks.spawn(std::future::pending::<()>());
    assert_ne!(next_header(&tasks), token, "linked");
    let also_held = tasks.spawn(std::future::pending::<()>());
    assert_eq!(tasks.drain_remote(), 1);
    run(&tasks);
    assert_eq!(next_header(&tasks), token, "unlinked");
    drop((held, also_held));
}

#[test]
fn a_stale_token_of_a_dead_task_does_nothing() {
    let tasks = tasks();
    let token = next_header(&tasks);
    let polls = tasks.counts().polls;
    resume(&tasks, token);
    assert!(!tasks.has_queued());
    assert_eq!(tasks.counts().polls, polls);
}

#[test]
fn a_stale_token_polls_the_task_that_uses_the_header_now() {
    let tasks = tasks();
    let stale = next_header(&tasks);
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    assert_eq!(token_of(&tasks, &gate), stale);
    resume(&tasks, stale);
    assert_eq!((gate.polls.get(), tasks.live()), (2, 1), "a poll for nothing, and nothing else");
}

#[test]
fn a_stale_token_of_a_task_is_harmless_for_a_root() {
    let tasks = tasks();
    let stale = next_header(&tasks);
    let root = tasks.root();
    assert_eq!(tasks.token(root.waker()), Some(stale));
    assert!(root.take_notified());
    resume(&tasks, stale);
    assert!(root.is_notified());
}

#[test]
fn zombies_are_taken_back_before_the_slab_grows() {
    let tasks = tasks();
    let many = if cfg!(miri) { 20 } else { 200 };
    let zombies = |count: usize| -> Vec<Waker> {
        let gates: Vec<_> = (0..count).map(|_| Gate::new()).collect();
        let handles: Vec<_> = gates.iter().map(|gate| tasks.spawn(gate.pass())).collect();
        run(&tasks);
        handles.iter().for_each(JoinHandle::abort);
        gates.iter().map(|gate| gate.waker()).collect()
    };
    let wakers = zombies(many);
    assert_eq!(tasks.core().local.slab.zombies(), many);
    assert_eq!(tasks.counts().headers, many);
    drop(wakers);
    for _ in 0..10 {
        drop(zombies(many));
        assert_eq!(tasks.counts().headers, many);
    }
    // With zombies that stay, the slab grows by no more than what is alive.
    let pinned = zombies(many);
    for _ in 0..10 {
        drop(zombies(many));
        assert_eq!(tasks.counts().headers, 2 * many);
    }
    drop(pinned);
}

#[test]
fn a_few_tasks_among_many_pinned_headers_do_not_grow_the_slab_for_ever() {
    let tasks = tasks();
    let gate = Gate::new();
    let pinned_count = if cfg!(miri) { 5 } else { 300 };
    let mut pinned = Vec::new();
    let turn = |gate: &Rc<Gate>| {
        let handle = tasks.spawn(gate.pass());
        run(&tasks);
        handle.abort();
        gate.waker()
    };
    for _ in 0..pinned_count {
        pinned.push(turn(&gate));
    }
    assert!(tasks.counts().headers >= pinned_count);
    for _ in 0..pinned_count * 30 {
        // The waker dies after its task, so that each turn leaves a zombie behind.
        drop(turn(&gate));
    }
    assert!(tasks.counts().headers <= pinned_count * 3, "{}", tasks.counts().headers);
}

#[test]
fn many_tasks_at_once_span_many_chunks() {
    let tasks = tasks();
    let count = if cfg!(miri) { 70 } else { 5000 };
    let handles: Vec<_> = (0..count).map(|value| tasks.spawn(async move { value })).collect();
    assert_eq!((tasks.live(), tasks.counts().headers), (count, count));
    run(&tasks);
    for (value, handle) in handles.into_iter().enumerate() {
        assert_eq!(join(&tasks, handle).unwrap(), value);
    }
    // The root's, once more.
    assert_eq!(tasks.counts().headers, count + 1);
}

#[test]
fn a_header_fills_one_cache_line() {
    assert!(size_of::<Header>() <= 64);
    assert_eq!(align_of::<Header>(), 64);
}
