//! Timers of the driver, by its own clock.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use pelton_driver::Submission;

use crate::registry::behaviours;
use crate::{Bench, errno};

behaviours! {
    "the clock goes forward with the waits and never back" => the_clock_goes_forward
        [Libxev "loop time", Ioxide "ClockTests"];
    "a timer ends at its moment and never before" => a_timer_never_ends_before_its_moment
        [Libxev "timer", Reseau "future scheduling timing", Ioxide "TimerTests"];
    "timers end in the order of their moments" => timers_end_in_the_order_of_their_moments
        [Libxev "timer"];
    "a moment that has passed ends at the next tick" => a_moment_that_has_passed_ends_at_once
        [ReseauMain "absolute deadlines"];
    "an earlier timer that is set later ends first" => an_earlier_timer_that_is_set_later_ends_first
        [ReseauMain "earlier deadline wakes poll"];
    "a timer that is cancelled ends once and does not fire" => a_cancelled_timer_does_not_fire
        [Libxev "timer cancel"];
    "cancelling and setting anew keeps the new moment" => setting_anew_keeps_the_new_moment
        [Libxev "timer reset", Libxev "timer reset before tick", Libxev "timer reset after trigger",
         Reseau "duplicate scheduling keeps future timestamp", ReseauMain "stale timer does not poison"];
    "a thousand rounds of setting and cancelling keep one slot" => churn_of_one_timer_uses_one_slot
        [Reseau "cancel-schedule churn on the same id"];
    "one that fires may cancel another of the same moment" => one_that_fires_cancels_another_of_its_moment
        [Aws "event_loop_no_events_after_unsubscribe"];
    "a chain of timers that are due does not keep a tick" => a_chain_of_timers_does_not_keep_a_tick
        [Reseau "stress scheduling"];
    "twenty thousand timers in any order all fire, none early" => twenty_thousand_timers
        [Libxev "million-entry heap"];
    "a moment in a hundred years is accepted and harmless" => a_far_moment_is_harmless
        [];
    "timers and other operations share a wait" => timers_and_sockets_share_a_wait
        [ReseauMain "wake reason precedence"];
}

fn the_clock_goes_forward(on: &Bench) {
    let driver = on.driver();
    assert!(driver.now() >= driver.start_time());
    let mut last = driver.now();
    for _ in 0..20 {
        let timer = driver.go(Submission::timeout(last + Duration::from_micros(100)));
        driver.end(timer).unwrap();
        assert!(driver.now() >= last + Duration::from_micros(100));
        last = driver.now();
    }
}

fn a_timer_never_ends_before_its_moment(on: &Bench) {
    let driver = on.driver();
    for micros in [1, 30, 300, 999, 1000, 1001, 5000] {
        let moment = driver.now() + Duration::from_micros(micros);
        let timer = driver.go(Submission::timeout(moment));
        driver.watch(|_| assert!(driver.now() >= moment, "{micros} us"), || driver.is_done(&timer));
        assert_eq!(driver.take(timer).unwrap().unwrap(), 0);
    }
}

fn timers_end_in_the_order_of_their_moments(on: &Bench) {
    let driver = on.driver();
    let now = driver.now();
    let keys: Vec<_> = [9, 3, 7, 1, 5]
        .map(|ms| driver.go_for(Submission::timeout(now + Duration::from_millis(ms)), ms as usize))
        .into();
    let told: Vec<_> = driver
        .until(|| keys.iter().all(|key| driver.is_done(key)))
        .iter()
        .map(|told| told.token.as_number())
        .collect();
    assert_eq!(told, [1, 3, 5, 7, 9]);
    for key in keys {
        driver.take(key).unwrap().unwrap();
    }
}

fn a_moment_that_has_passed_ends_at_once(on: &Bench) {
    let driver = on.driver();
    for moment in [driver.start_time(), driver.now()] {
        let timer = driver.go(Submission::timeout(moment));
        // It may be told of one tick later, where the clock had not gone on; neither of them waits.
        driver.tick(None, |_| {}).unwrap();
        driver.until(|| driver.is_done(&timer));
        driver.take(timer).unwrap().unwrap();
    }
}

fn an_earlier_timer_that_is_set_later_ends_first(on: &Bench) {
    let driver = on.driver();
    let hour = driver.go_for(Submission::timeout(driver.now() + Duration::from_secs(3600)), 1);
    driver.tick(Some(Duration::ZERO), |_| panic!("not yet")).unwrap();
    let soon = driver.go_for(Submission::timeout(driver.now() + Duration::from_millis(1)), 2);
    let told = driver.until(|| driver.is_done(&soon));
    assert_eq!(told.iter().map(|told| told.token.as_number()).collect::<Vec<_>>(), [2]);
    driver.take(soon).unwrap().unwrap();
    assert!(!driver.is_done(&hour));
    driver.abandon(hour);
}

fn a_cancelled_timer_does_not_fire(on: &Bench) {
    let driver = on.driver();
    let moment = driver.now() + Duration::from_millis(3);
    let cancelled = driver.go_for(Submission::timeout(moment), 1);
    let kept = driver.go_for(Submission::timeout(moment), 2);
    let abandoned = driver.go_for(Submission::timeout(moment), 3);
    assert!(driver.cancel(cancelled.id()));
    assert!(!driver.cancel(cancelled.id()), "it has ended");
    driver.abandon(abandoned);
    let told: Vec<_> =
        driver.until(|| driver.is_done(&kept)).iter().map(|told| told.token.as_number()).collect();
    assert_eq!(told, [1, 2]);
    assert_eq!(errno(driver.take(cancelled).unwrap()), pelton_driver::errno::ECANCELED);
    driver.take(kept).unwrap().unwrap();
    assert!(driver.settle().is_empty());
}

fn setting_anew_keeps_the_new_moment(on: &Bench) {
    let driver = on.driver();
    let now = driver.now();
    let (soon, late) = (now + Duration::from_millis(1), now + Duration::from_millis(8));
    // Before a tick has seen it.
    let first = driver.go_for(Submission::timeout(soon), 1);
    driver.abandon(first);
    let again = driver.go_for(Submission::timeout(late), 2);
    let other = driver.go_for(Submission::timeout(soon), 3);
    let told = driver.until(|| driver.is_done(&other));
    // The new one may be among them: a clock that stood still shows both moments at once.
    let of_old = |one: &pelton_driver::Completion| one.token.as_number() == 1;
    assert!(!told.iter().any(of_old), "the old moment fires nobody: {told:?}");
    driver.take(other).unwrap().unwrap();
    driver.until(|| driver.is_done(&again));
    assert!(driver.now() >= late);
    driver.take(again).unwrap().unwrap();
    // And after it has fired: the next one is not touched by the last.
    let next = driver.go(Submission::timeout(driver.now() + Duration::from_millis(1)));
    driver.end(next).unwrap();
}

fn churn_of_one_timer_uses_one_slot(on: &Bench) {
    let driver = on.driver();
    let hour = driver.now() + Duration::from_secs(3600);
    for round in 0..1000 {
        let timer = driver.go(Submission::timeout(hour));
        if round % 2 == 0 {
            driver.abandon(timer);
        } else {
            assert!(driver.cancel(timer.id()));
            assert_eq!(errno(driver.take(timer).unwrap()), pelton_driver::errno::ECANCELED);
        }
        assert_eq!(driver.operations(), 0);
    }
    let soon = driver.go(Submission::timeout(driver.now() + Duration::from_millis(1)));
    assert_eq!(driver.operations(), 1);
    driver.end(soon).unwrap();
}

fn one_that_fires_cancels_another_of_its_moment(on: &Bench) {
    let driver = on.driver();
    let moment = driver.now() + Duration::from_millis(2);
    let keys = [1, 2].map(|n| driver.go_for(Submission::timeout(moment), n));
    let (fired, told) = (RefCell::new(Vec::new()), Cell::new(0));
    driver.watch(
        |completion| {
            told.set(told.get() + 1);
            let me = completion.token.as_number();
            if fired.borrow().is_empty() {
                fired.borrow_mut().push(me);
                driver.cancel(keys[2 - me].id());
            }
        },
        || told.get() == 2,
    );
    assert!(driver.settle().is_empty(), "each is told of once");
    let first = fired.borrow()[0];
    for (n, key) in keys.into_iter().enumerate() {
        let error = errno(driver.take(key).unwrap());
        assert!(
            if n + 1 == first { error == 0 } else { error == pelton_driver::errno::ECANCELED },
            "{error}"
        );
    }
}

fn a_chain_of_timers_does_not_keep_a_tick(on: &Bench) {
    let driver = on.driver();
    let past = driver.now();
    let mut last = driver.go(Submission::timeout(past));
    let mut fired = 0;
    // Each sets the next one when it fires, and that is due as well: every tick ends all the same. Some of them
    // with nothing, where waits are interrupted.
    for _ in 0..500 {
        if fired >= 10 {
            break;
        }
        driver
            .tick(None, |_| {
                fired += 1;
                let next = driver.go(Submission::timeout(past));
                driver.take(std::mem::replace(&mut last, next)).unwrap().unwrap();
            })
            .unwrap();
    }
    assert!(fired >= 10);
    driver.abandon(last);
}

fn twenty_thousand_timers(on: &Bench) {
    const COUNT: u64 = 20_000;
    let driver = on.driver();
    let start = driver.now();
    // In an order of their own, over a quarter of a second, many of them at the same moment.
    let moment = |n: u64| start + Duration::from_micros(n * 7919 % COUNT / 4 * 50);
    let keys: Vec<_> =
        (0..COUNT).map(|n| driver.go_for(Submission::timeout(moment(n)), n as usize)).collect();
    let fired = Cell::new(0);
    driver.watch(
        |completion| {
            fired.set(fired.get() + 1);
            assert!(driver.now() >= moment(completion.token.as_number() as u64), "early");
        },
        || fired.get() == COUNT,
    );
    for key in keys {
        driver.take(key).unwrap().unwrap();
    }
}

fn a_far_moment_is_harmless(on: &Bench) {
    let driver = on.driver();
    let year = Duration::from_secs(365 * 86400);
    let far = [1, 30, 100].map(|years| driver.go(Submission::timeout(driver.now() + year * years)));
    driver.tick(Some(Duration::from_millis(2)), |_| panic!("it is far")).unwrap();
    let soon = driver.go(Submission::timeout(driver.now() + Duration::from_millis(1)));
    driver.end(soon).unwrap();
    for key in far {
        assert!(!driver.is_done(&key));
        driver.abandon(key);
    }
}

fn timers_and_sockets_share_a_wait(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.pair();
    let hour = driver.go(Submission::timeout(driver.now() + Duration::from_secs(3600)));
    let recv = driver.go(Submission::recv(other, [0; 8]));
    let soon = driver.go(Submission::timeout(driver.now() + Duration::from_millis(1)));
    driver.end(soon).unwrap();
    assert!(!driver.is_done(&recv));
    driver.send(one, "x");
    assert_eq!(driver.end(recv).0.unwrap(), 1);
    assert!(!driver.is_done(&hour));
    driver.abandon(hour);
}
