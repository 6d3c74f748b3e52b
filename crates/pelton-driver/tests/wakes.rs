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
    a_wake_among_many_events_is_taken_for_none_of_them
}

#[cfg(unix)]
mod unix_alone {
    use super::*;

    on_every_backend! {
        the_eventfd_is_watched_and_never_read
    }
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

#[cfg(unix)]
fn the_eventfd_is_watched_and_never_read(on: &On) {
    // It is the only one of its count: those of other drivers have been woken less often, or more.
    const WAKES: u64 = 777;
    let driver = on.driver();
    let notifier = driver.notifier();
    let woken = std::thread::spawn(move || {
        while notifier.counters().snapshot().wakes_sent < WAKES {
            notifier.notify().unwrap();
        }
    });
    let mut ticks = 0;
    while driver.snapshot().wakes_sent < WAKES {
        // Where the last one has come before this wait there is no other.
        driver.tick(Some(Duration::from_millis(10)), |_| {}).unwrap();
        ticks += 1;
    }
    woken.join().unwrap();
    assert!(ticks > 100, "it was woken and slept again");
    // Neither read by a call nor through the ring: every wake is still in its count.
    let counts: Vec<String> = std::fs::read_dir("/proc/self/fdinfo")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .filter_map(|info| {
            let count = info.lines().find_map(|line| line.strip_prefix("eventfd-count:"));
            count.map(|count| count.trim().to_owned())
        })
        .collect();
    let count = format!("{WAKES:x}");
    assert!(counts.contains(&count), "woken {WAKES} times ({count}), and there are {counts:?}");
}

fn a_wake_among_many_events_is_taken_for_none_of_them(on: &On) {
    let driver = on.driver();
    let connections: Vec<_> = (0..100).map(|_| tcp(&driver)).collect();
    let notifier = driver.notifier();
    for round in 0..20 {
        let keys: Vec<_> = connections
            .iter()
            .enumerate()
            .map(|(n, (fd, _))| driver.go_for(Submission::recv(*fd, [0; 1]), n))
            .collect();
        driver.settle();
        let mut told = vec![0; connections.len()];
        let (asleep, awake) = (driver.snapshot().wakes_sent, notifier.clone());
        let peers: Vec<_> = connections.iter().map(|(_, peer)| peer.try_clone().unwrap()).collect();
        // All of them and a wake are there when the driver looks: this thread does not tick meanwhile.
        std::thread::spawn(move || {
            for mut peer in peers {
                std::io::Write::write_all(&mut peer, b"x").unwrap();
            }
            awake.notify().unwrap();
        })
        .join()
        .unwrap();
        let mut woken = 0;
        while told.contains(&0) || woken == 0 {
            let tick = driver.tick(Some(WATCHDOG), |of| told[of.token.as_number()] += 1).unwrap();
            woken += u32::from(tick.woken);
        }
        assert_eq!((woken, driver.snapshot().stale), (1, 0), "round {round}");
        assert!(told.iter().all(|times| *times == 1), "round {round}: {told:?}");
        assert!(driver.snapshot().wakes_sent <= asleep + 1);
        for key in keys {
            assert_eq!(driver.take(key).unwrap().0.unwrap(), 1);
        }
    }
}
