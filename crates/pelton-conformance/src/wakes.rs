//! Waking a driver that waits.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pelton_driver::Submission;

use crate::registry::behaviours;
use crate::{Bench, errno};

behaviours! {
    "a notification before the wait is not lost" => a_notification_before_the_wait_is_not_lost
        [Libxev "async notify first"];
    "notifications of an awake driver make one wake" => notifications_make_one_wake
        [Libxev "async batching"];
    "an operation that waits for a wake ends with it, once" => a_wake_operation_ends_with_the_notification
        [Libxev "async wait"];
    "a wake that is waited for in a callback is the next one" => a_wake_in_a_callback_waits_for_the_next
        [];
    "a wake among many completions is taken for none of them" => a_wake_among_completions
        [ReseauMain "wake reason precedence"];
    "a notifier outlives its driver, and says so" => a_notifier_outlives_its_driver
        [ReseauMain "control refs delay destruction", ReseauMain "shutdown-safe control paths"];
    "another thread ends a wait without a limit" => another_thread_ends_a_wait
        [Aws "event_loop_xthread_scheduled_tasks_execute", ReseauMain "shutdown wakes idle poller promptly",
         ReseauMain "sleep/timedwait on poller"] needs threads;
    "four threads that notify strand nothing" => four_threads_strand_nothing
        [Reseau "cross-thread burst"] needs threads;
}

fn a_notification_before_the_wait_is_not_lost(on: &Bench) {
    let driver = on.driver();
    driver.notifier().notify().unwrap();
    let woken = Cell::new(false);
    driver.until(|| {
        let tick = driver.tick(Some(Duration::ZERO), |_| panic!("nothing is in flight")).unwrap();
        woken.set(woken.get() || tick.woken);
        woken.get()
    });
}

fn notifications_make_one_wake(on: &Bench) {
    let driver = on.driver();
    let notifier = driver.notifier();
    for _ in 0..10 {
        for _ in 0..100 {
            notifier.notify().unwrap();
        }
        assert!(driver.tick(None, |_| {}).unwrap().woken);
        assert!(!driver.tick(Some(Duration::ZERO), |_| {}).unwrap().woken, "once");
    }
    assert_eq!(driver.snapshot().wakes_sent, 0, "an awake driver needs no call into the kernel");
}

fn a_wake_operation_ends_with_the_notification(on: &Bench) {
    let driver = on.driver();
    let wakes = [1, 2].map(|n| driver.go_for(Submission::wake(), n));
    assert!(driver.settle().is_empty());
    driver.notifier().notify().unwrap();
    let told = driver.until(|| wakes.iter().all(|wake| driver.is_done(wake)));
    assert_eq!(told.iter().map(|told| told.token.as_number()).collect::<Vec<_>>(), [1, 2]);
    for wake in wakes {
        assert_eq!(driver.take(wake).unwrap().unwrap(), 0);
    }
    let cancelled = driver.go(Submission::wake());
    assert!(driver.cancel(cancelled.id()));
    assert_eq!(errno(driver.end(cancelled)), pelton_driver::errno::ECANCELED);
}

fn a_wake_in_a_callback_waits_for_the_next(on: &Bench) {
    let driver = on.driver();
    let first = driver.go(Submission::wake());
    driver.notifier().notify().unwrap();
    let mut second = None;
    while second.is_none() {
        driver.tick(None, |_| second = Some(driver.go(Submission::wake()))).unwrap();
    }
    let second = second.unwrap();
    driver.take(first).unwrap().unwrap();
    driver.settle();
    assert!(!driver.is_done(&second), "that was the last one's");
    driver.notifier().notify().unwrap();
    driver.end(second).unwrap();
}

fn a_wake_among_completions(on: &Bench) {
    let driver = on.driver();
    let pairs: Vec<_> = (0..50).map(|_| driver.local_pair()).collect();
    let keys: Vec<_> =
        pairs.iter().map(|(_, fd)| driver.go_for(Submission::recv(*fd, [0; 4]), 1)).collect();
    driver.settle();
    for (fd, _) in &pairs {
        driver.send(*fd, "x");
        driver.notifier().notify().unwrap();
    }
    for key in keys {
        assert_eq!(driver.end(key).0.unwrap(), 1);
    }
    assert_eq!(driver.snapshot().stale, 0);
}

fn a_notifier_outlives_its_driver(on: &Bench) {
    let driver = on.driver();
    let notifier = driver.notifier();
    notifier.notify().unwrap();
    drop(driver);
    for _ in 0..3 {
        // Whatever it says, it harms nobody.
        let _ = notifier.notify();
    }
    assert_eq!(notifier.counters().snapshot().in_flight_total(), 0);
}

fn another_thread_ends_a_wait(on: &Bench) {
    let driver = on.driver();
    for _ in 0..20 {
        let notifier = driver.notifier();
        let thread = std::thread::spawn(move || notifier.notify());
        while !driver.tick(None, |_| panic!("nothing is in flight")).unwrap().woken {}
        thread.join().unwrap().unwrap();
    }
}

fn four_threads_strand_nothing(on: &Bench) {
    const EACH: u64 = 2000;
    let driver = on.driver();
    let left = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (notifier, left) = (driver.notifier(), left.clone());
            std::thread::spawn(move || {
                for _ in 0..EACH {
                    left.fetch_add(1, Ordering::SeqCst);
                    notifier.notify().unwrap();
                }
            })
        })
        .collect();
    let mut taken = 0;
    while taken < 4 * EACH {
        // What was left is taken in only after a wake: one that is stranded hangs here.
        while !driver.tick(None, |_| {}).unwrap().woken {}
        taken += left.swap(0, Ordering::SeqCst);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let counters = driver.snapshot();
    assert!(counters.wakes_sent <= counters.enters, "at most one for each wait");
}
