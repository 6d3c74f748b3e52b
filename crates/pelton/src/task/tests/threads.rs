//! Wakes from other threads.

use super::*;

/// Runs code on another thread, to its end.
fn elsewhere<T: Send>(code: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(code).join().expect("the thread ends well"))
}

#[test]
fn a_wake_from_another_thread_is_found_by_the_drain() {
    let bell = Bell::default();
    let tasks = Tasks::new(bell.clone());
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    let waker = gate.waker();
    elsewhere(|| waker.wake());
    assert!(!tasks.has_queued());
    assert_eq!(bell.rings(), 1);
    assert_eq!(tasks.drain_remote(), 1);
    assert_eq!(tasks.drain_remote(), 0);
    assert_eq!(tasks.run_queued(usize::MAX), 1);
    assert_eq!(gate.polls.get(), 2);
}

#[test]
fn wakes_on_the_own_thread_never_ring() {
    let bell = Bell::default();
    let tasks = Tasks::new(bell.clone());
    let gate = Gate::new();
    let handle = tasks.spawn(gate.pass());
    run(&tasks);
    gate.wake();
    gate.open();
    join(&tasks, handle).unwrap();
    assert_eq!(bell.rings(), 0);
}

#[test]
fn remote_wakes_are_polled_in_their_order() {
    let tasks = tasks();
    let order = Rc::new(RefCell::new(Vec::new()));
    let gates: Vec<_> = (0..6).map(|_| Gate::new()).collect();
    for (index, gate) in gates.iter().enumerate() {
        let (order, pass) = (order.clone(), gate.pass());
        tasks.spawn(async move {
            pass.0.open.set(true);
            let mut polls = 0;
            std::future::poll_fn(|cx| {
                polls += 1;
                pass.0.waker.replace(Some(cx.waker().clone()));
                if polls == 1 { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            order.borrow_mut().push(index);
        });
    }
    run(&tasks);
    let wakers: Vec<_> = gates.iter().map(|gate| gate.waker()).collect();
    let turns = [4, 1, 5, 0, 3, 2];
    elsewhere(|| turns.iter().for_each(|index| wakers[*index].wake_by_ref()));
    run(&tasks);
    assert_eq!(order.take(), turns);
}

#[test]
fn a_task_is_pushed_once_however_often_it_is_woken() {
    let bell = Bell::default();
    let tasks = Tasks::new(bell.clone());
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    let waker = gate.waker();
    for _ in 0..3 {
        elsewhere(|| {
            waker.wake_by_ref();
            waker.wake_by_ref();
        });
    }
    assert_eq!(bell.rings(), 1);
    assert_eq!(tasks.drain_remote(), 1);
    elsewhere(|| waker.wake_by_ref());
    assert_eq!((bell.rings(), tasks.drain_remote()), (2, 1), "a new wake after the drain");
    run(&tasks);
    assert_eq!(gate.polls.get(), 2, "queued once by both");
}

#[test]
fn a_task_woken_here_and_elsewhere_is_polled_once() {
    let tasks = tasks();
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    let waker = gate.waker();
    elsewhere(|| waker.wake_by_ref());
    waker.wake_by_ref();
    assert_eq!(tasks.drain_remote(), 1);
    assert_eq!(tasks.run_queued(usize::MAX), 1);
    assert_eq!(tasks.run_queued(usize::MAX), 0);
}

#[test]
fn a_notification_that_fails_loses_nothing_and_is_owed() {
    let bell = Bell::default();
    let tasks = Tasks::new(bell.clone());
    let (first, second) = (Gate::new(), Gate::new());
    tasks.spawn(first.pass());
    tasks.spawn(second.pass());
    run(&tasks);
    let (first_waker, second_waker) = (first.waker(), second.waker());
    bell.broken.store(true, Ordering::SeqCst);
    elsewhere(|| first_waker.wake_by_ref());
    assert_eq!(bell.rings(), 1);
    elsewhere(|| first_waker.wake_by_ref());
    assert_eq!(bell.rings(), 2, "the task is on the stack already, but its notification failed");
    bell.broken.store(false, Ordering::SeqCst);
    elsewhere(|| first_waker.wake_by_ref());
    elsewhere(|| first_waker.wake_by_ref());
    assert_eq!(bell.rings(), 3, "paid once");
    elsewhere(|| second_waker.wake_by_ref());
    assert_eq!((bell.rings(), tasks.drain_remote()), (4, 2));
    run(&tasks);
    assert_eq!((first.polls.get(), second.polls.get()), (2, 2));
}

#[test]
fn the_root_is_notified_from_another_thread() {
    let bell = Bell::default();
    let tasks = Tasks::new(bell.clone());
    let root = tasks.root();
    assert!(root.take_notified());
    let waker = root.waker();
    elsewhere(|| waker.wake_by_ref());
    assert!(!root.is_notified());
    assert_eq!((bell.rings(), tasks.drain_remote()), (1, 1));
    assert!(root.take_notified());
    assert!(!tasks.has_queued());
}

#[test]
fn a_lent_waker_may_be_shared_and_cloned_by_other_threads_during_a_poll() {
    let tasks = tasks();
    let mut polls = 0;
    let mut kept = Vec::new();
    let handle = tasks.spawn(std::future::poll_fn(move |cx| {
        polls += 1;
        if polls == 1 {
            let waker = cx.waker();
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..2)
                    .map(|_| {
                        scope.spawn(|| {
                            waker.wake_by_ref();
                            waker.clone()
                        })
                    })
                    .collect();
                kept.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
            });
            return Poll::Pending;
        }
        Poll::Ready(kept.len())
    }));
    assert_eq!(join(&tasks, handle).unwrap(), 2);
}

#[test]
fn waking_a_finished_task_from_another_thread_runs_nothing() {
    let tasks = tasks();
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    gate.open();
    run(&tasks);
    let polls = tasks.counts().polls;
    let waker = gate.waker();
    elsewhere(|| waker.wake());
    assert_eq!(tasks.drain_remote(), 1);
    assert!(!tasks.has_queued());
    run(&tasks);
    assert_eq!(tasks.counts().polls, polls);
}

#[test]
fn a_remote_wake_under_way_at_the_end_is_harmless() {
    let bell = Bell::default();
    let tasks = Tasks::new(bell.clone());
    let gate = Gate::new();
    tasks.spawn(gate.pass());
    run(&tasks);
    let waker = gate.waker();
    elsewhere(|| waker.wake_by_ref());
    drop(tasks);
    elsewhere(|| waker.wake_by_ref());
    assert!(bell.is_held());
    elsewhere(|| drop(waker));
    assert!(!bell.is_held());
}

#[test]
fn a_wake_on_a_thread_with_a_reactor_of_its_own_goes_to_the_owner() {
    let bell = Bell::default();
    let ours = Tasks::new(bell.clone());
    let gate = Gate::new();
    ours.spawn(gate.pass());
    run(&ours);
    let waker = gate.waker();
    elsewhere(|| {
        let theirs = tasks();
        let handle = theirs.spawn(async move { waker.wake() });
        join(&theirs, handle).unwrap();
        assert_eq!(theirs.drain_remote(), 0);
    });
    assert_eq!((bell.rings(), ours.drain_remote()), (1, 1));
}

/// Many tasks, each passed around a ring of threads that wake it, while tasks end and headers are used
/// again. Nothing may be lost: every task is woken exactly as often as it waits.
#[test]
fn no_wake_is_lost_between_many_threads() {
    const THREADS: usize = 3;
    let (tasks_count, rounds) = if cfg!(miri) { (6, 3) } else { (200, 100) };
    let (rung, bell_end) = std::sync::mpsc::channel::<()>();
    struct Sends(std::sync::Mutex<std::sync::mpsc::Sender<()>>);
    impl Notify for Sends {
        fn notify(&self) -> io::Result<()> {
            self.0.lock().unwrap().send(()).map_err(io::Error::other)
        }
    }
    let tasks = Rc::new(Tasks::new(Sends(std::sync::Mutex::new(rung))));
    let mut senders = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..THREADS {
        let (send, receive) = std::sync::mpsc::channel::<(Arc<AtomicBool>, Waker)>();
        senders.push(send);
        threads.push(std::thread::spawn(move || {
            for (flag, waker) in receive {
                flag.store(true, Ordering::Relaxed);
                if flag.as_ptr().addr() & 8 == 0 { waker.wake() } else { waker.wake_by_ref() }
            }
        }));
    }
    let senders = Rc::new(senders);
    let (done, inner) = (counter(), tasks.clone());
    for index in 0..tasks_count {
        let (senders, done, inner) = (senders.clone(), done.clone(), inner.clone());
        tasks.spawn(async move {
            for round in 0..rounds {
                let flag = Arc::new(AtomicBool::new(false));
                let mut sent = false;
                let senders = senders.clone();
                let hop = inner.spawn(std::future::poll_fn(move |cx| {
                    if flag.load(Ordering::Relaxed) {
                        return Poll::Ready(());
                    }
                    if !sent {
                        sent = true;
                        senders[(index + round) % THREADS]
                            .send((flag.clone(), cx.waker().clone()))
                            .unwrap();
                    }
                    Poll::Pending
                }));
                hop.await.unwrap();
            }
            done.set(done.get() + 1);
        });
    }
    loop {
        run(&tasks);
        if done.get() == tasks_count {
            break;
        }
        // A lost wake shows as a wait without end.
        bell_end.recv().unwrap();
    }
    assert_eq!(tasks.live(), 0);
    drop(senders);
    for thread in threads {
        thread.join().unwrap();
    }
}
