//! Waking a driver from other threads.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use pelton_driver::*;

on_every_backend! {
    four_threads_that_notify_strand_nothing_and_enter_the_kernel_once_per_wait
    notifying_an_awake_driver_never_enters_the_kernel
    a_notification_before_the_wait_is_not_lost
    a_notifier_outlives_its_driver
    a_wake_operation_completes_when_another_thread_notifies
    a_wake_that_is_waited_for_in_a_callback_waits_for_the_next_notification
}

fn four_threads_that_notify_strand_nothing_and_enter_the_kernel_once_per_wait(on: &On) {
    const EACH: usize = 200_000;
    let driver = on.driver();
    let queue = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (queue, notifier) = (queue.clone(), driver.notifier());
            std::thread::spawn(move || {
                for n in 0..EACH {
                    queue.lock().unwrap().push(thread * EACH + n);
                    notifier.notify().unwrap();
                }
            })
        })
        .collect();
    let (mut seen, mut drains, mut next) = (0, 0_u64, vec![0; 4]);
    while seen < 4 * EACH {
        let tick = driver.tick(Some(WATCHDOG), |_| {}).unwrap();
        assert!(tick.woken, "asleep with work in the queue");
        drains += 1;
        for n in std::mem::take(&mut *queue.lock().unwrap()) {
            assert_eq!(n % EACH, next[n / EACH], "in the order in which its thread pushed");
            next[n / EACH] += 1;
            seen += 1;
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let counters = driver.snapshot();
    assert!(counters.wakes_sent <= counters.ticks, "{} wakes", counters.wakes_sent);
    assert!(counters.wakes_sent <= drains + 1);
    assert_eq!(counters.wakes_sent + counters.wakes_coalesced, 4 * EACH as u64);
    assert_eq!(counters.wakes_failed, 0);
}

fn notifying_an_awake_driver_never_enters_the_kernel(on: &On) {
    let driver = on.driver();
    let notifier = driver.notifier();
    for _ in 0..1000 {
        notifier.notify().unwrap();
    }
    assert!(driver.tick(Some(WATCHDOG), |_| {}).unwrap().woken, "and does not sleep");
    let nop = driver.go(Submission::nop());
    // Told of before the tick looks at the latch, so that it is this tick's.
    assert!(driver.tick(None, |_| notifier.notify().unwrap()).unwrap().woken);
    driver.take(nop).unwrap().unwrap();
    assert!(!driver.tick(Some(Duration::ZERO), |_| {}).unwrap().woken, "once each");
    let counters = driver.snapshot();
    assert_eq!((counters.wakes_sent, counters.wakes_coalesced), (0, 1001));
}

fn a_notification_before_the_wait_is_not_lost(on: &On) {
    let driver = on.driver();
    for _ in 0..200 {
        let notifier = driver.notifier();
        let thread = std::thread::spawn(move || notifier.notify().unwrap());
        // Before, during or after: with no limit, so that a lost one hangs.
        while !driver.tick(None, |_| {}).unwrap().woken {}
        thread.join().unwrap();
    }
}

fn a_notifier_outlives_its_driver(on: &On) {
    let driver = on.driver();
    let notifier = driver.notifier();
    let other = notifier.clone();
    assert!(!notifier.is_closed());
    let _ = driver.go(Submission::nop());
    driver.tick(None, |_| {}).unwrap();
    drop(driver);
    assert!(notifier.is_closed());
    std::thread::spawn(move || {
        for _ in 0..100 {
            other.notify().unwrap();
        }
    })
    .join()
    .unwrap();
    assert_eq!(
        (notifier.counters().snapshot().wakes_sent, notifier.counters().ticks.get() > 0),
        (0, true)
    );
}

fn a_wake_operation_completes_when_another_thread_notifies(on: &On) {
    let driver = on.driver();
    let keys: Vec<_> = (0..3).map(|_| driver.go(Submission::wake())).collect();
    driver.settle();
    assert!(keys.iter().all(|key| !driver.is_done(key)));
    let notifier = driver.notifier();
    let thread = std::thread::spawn(move || notifier.notify().unwrap());
    for key in keys {
        driver.end(key).unwrap();
    }
    thread.join().unwrap();
    assert_eq!(driver.operations(), 0);
}

fn a_wake_that_is_waited_for_in_a_callback_waits_for_the_next_notification(on: &On) {
    let driver = on.driver();
    let first = driver.go(Submission::wake());
    driver.notifier().notify().unwrap();
    let mut second = None;
    driver.tick(None, |_| second = Some(driver.go(Submission::wake()))).unwrap();
    driver.take(first).unwrap().unwrap();
    let second = second.unwrap();
    driver.settle();
    assert!(!driver.is_done(&second));
    driver.notifier().notify().unwrap();
    driver.end(second).unwrap();
}
