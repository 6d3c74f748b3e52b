//! Timeouts, and how often a driver wakes for them.

mod common;

use std::time::{Duration, Instant};

use common::*;
use pelton_driver::*;

on_every_backend! {
    timers_fire_in_order_and_never_early
    a_moment_that_has_passed_fires_at_the_next_ticks
    a_cancelled_timer_ends_once_and_does_not_fire
    a_far_moment_is_accepted_and_the_driver_sleeps
    a_timer_of_300_us_takes_at_most_three_entries_into_the_kernel
    an_idle_driver_enters_the_kernel_once
    a_chain_of_timers_that_are_due_does_not_keep_a_tick
    a_thousand_timers_cost_no_kernel_object
}

fn timers_fire_in_order_and_never_early(on: &On) {
    let driver = on.driver();
    let start = Instant::now();
    // Set in an order of their own, from under a millisecond to fifty.
    let due: Vec<Duration> =
        (0..40_u64).map(|n| Duration::from_micros(n * 7919 % 50_000)).collect();
    let keys: Vec<_> = due
        .iter()
        .enumerate()
        .map(|(n, due)| driver.go_for(Submission::timeout(start + *due), n))
        .collect();
    let mut fired = Vec::new();
    while fired.len() < due.len() {
        driver
            .tick(None, |told| {
                let due = due[told.token.as_number()];
                assert!(start.elapsed() >= due, "early");
                fired.push(due);
            })
            .unwrap();
    }
    // Two that are due within one grain of the clock of each other may fire in either order.
    let slack = Duration::from_micros(140);
    assert!(fired.windows(2).all(|pair| pair[0] <= pair[1] + slack), "{fired:?}");
    for key in keys {
        assert_eq!(driver.take(key).unwrap().unwrap(), 0);
    }
    assert_eq!((driver.snapshot().timers_fired, driver.operations()), (40, 0));
}

fn a_moment_that_has_passed_fires_at_the_next_ticks(on: &On) {
    let driver = on.driver();
    let past = Instant::now();
    for _ in 0..10 {
        driver.run(Submission::timeout(past)).unwrap();
    }
    driver.run(Submission::timeout(past - Duration::from_secs(1))).unwrap();
}

fn a_cancelled_timer_ends_once_and_does_not_fire(on: &On) {
    let driver = on.driver();
    let deadline = Instant::now() + Duration::from_millis(3);
    let cancelled = driver.go_for(Submission::timeout(deadline), 1);
    let kept = driver.go_for(Submission::timeout(deadline), 2);
    let abandoned = driver.go_for(Submission::timeout(deadline), 3);
    assert!(driver.cancel(cancelled.id()));
    assert!(!driver.cancel(cancelled.id()), "it has ended");
    driver.abandon(abandoned);
    let told: Vec<_> =
        driver.until(|| driver.is_done(&kept)).iter().map(|told| told.token.as_number()).collect();
    assert_eq!(told, [1, 2]);
    assert_eq!(errno(driver.take(cancelled).unwrap()), errno::ECANCELED);
    driver.take(kept).unwrap().unwrap();
    // Cancelled, set anew, cancelled again before anybody is told of it.
    let again = driver.go(Submission::timeout(deadline + Duration::from_secs(9)));
    driver.cancel(again.id());
    driver.abandon(again);
    assert!(driver.settle().is_empty());
    assert_eq!(driver.operations(), 0);
}

fn a_far_moment_is_accepted_and_the_driver_sleeps(on: &On) {
    let driver = on.driver();
    let far = driver.go(Submission::timeout(Instant::now() + Duration::from_millis(1 << 33)));
    let farther =
        driver.go(Submission::timeout(Instant::now() + Duration::from_secs(100 * 365 * 86400)));
    let before = driver.snapshot().enters;
    let tick = driver.tick(Some(Duration::from_millis(20)), |_| panic!("it is far")).unwrap();
    assert_eq!(tick.completions, 0);
    assert_eq!(driver.snapshot().enters - before, 1);
    // With no limit of its own it waits for whatever comes first, in this case another thread.
    let notifier = driver.notifier();
    let thread = std::thread::spawn(move || notifier.notify());
    while !driver.tick(None, |_| panic!("it is far")).unwrap().woken {}
    thread.join().unwrap().unwrap();
    driver.abandon(far);
    driver.abandon(farther);
    assert_eq!(driver.operations(), 0);
}

fn a_timer_of_300_us_takes_at_most_three_entries_into_the_kernel(on: &On) {
    let driver = on.driver();
    driver.settle();
    for _ in 0..20 {
        let before = driver.snapshot().enters;
        let key = driver.go(Submission::timeout(Instant::now() + Duration::from_micros(300)));
        while !driver.is_done(&key) {
            driver.tick(None, |_| {}).unwrap();
        }
        let enters = driver.snapshot().enters - before;
        assert!(enters <= 3, "{enters} entries");
        driver.take(key).unwrap().unwrap();
    }
}

fn an_idle_driver_enters_the_kernel_once(on: &On) {
    let driver = on.driver();
    let (fd, _peer) = tcp(&driver);
    let _recv = driver.go(Submission::recv(fd, [0; 8]));
    driver.settle();
    let before = driver.snapshot();
    let start = Instant::now();
    let tick = driver.tick(Some(Duration::from_secs(1)), |_| panic!("nothing happens")).unwrap();
    assert_eq!((tick.completions, tick.woken), (0, false));
    assert!(start.elapsed() >= Duration::from_millis(999), "it waited");
    let after = driver.snapshot();
    assert_eq!((after.ticks - before.ticks, after.enters - before.enters), (1, 1));
}

fn a_chain_of_timers_that_are_due_does_not_keep_a_tick(on: &On) {
    let driver = on.driver();
    let past = Instant::now();
    let mut last = driver.go(Submission::timeout(past));
    let mut fired = 0;
    // Each sets the next one when it fires, and that is due as well: every tick ends all the same.
    for _ in 0..20 {
        driver
            .tick(None, |_| {
                fired += 1;
                let next = driver.go(Submission::timeout(past));
                driver.take(std::mem::replace(&mut last, next)).unwrap().unwrap();
            })
            .unwrap();
    }
    assert!(fired >= 10);
}

fn a_thousand_timers_cost_no_kernel_object(on: &On) {
    let driver = on.driver();
    let deadline = Instant::now() + Duration::from_millis(5);
    let keys: Vec<_> = (0..1000).map(|_| driver.go(Submission::timeout(deadline))).collect();
    let before = driver.snapshot().enters;
    let mut fired = 0;
    while fired < 1000 {
        fired += driver.tick(None, |_| {}).unwrap().completions;
    }
    assert!(driver.snapshot().enters - before <= 4, "they share their waits");
    keys.into_iter().for_each(|key| driver.abandon(key));
    assert_eq!(driver.operations(), 0);
}
