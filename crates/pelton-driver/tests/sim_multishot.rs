//! Multishot operations that the kernel ends by itself with their last item, on a simulated ring.
#![cfg(all(target_os = "linux", feature = "sim"))]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use pelton_driver::sim::{Fault, Faults, World, WorldOptions};
use pelton_driver::*;

const MULTI: Token = Token::number(7);

/// Every multishot operation ends with its first item, and goes on only where the driver submits it again.
fn on_a_ring_that_ends_them(test: impl FnOnce(&Driver)) {
    let faults = Faults::none().with(Fault::MultishotEnds, 1_000_000);
    let world = World::new(&WorldOptions { faults, ..WorldOptions::new(1) });
    let _entered = world.enter();
    let config = Config {
        backend: Backend::IoUring,
        ring_entries: 8,
        completion_entries: 64,
        max_operations: 64,
        max_descriptors: 256,
        pool_buffers: 8,
        pool_buffer_len: 64,
        ..Config::default()
    };
    test(&Driver::new(config).unwrap());
}

/// Ticks until the multishot operation is told of, and panics in the callback that is.
fn panic_when_told(driver: &Driver, told: impl Fn()) {
    for _ in 0..100 {
        let tick = || {
            driver.tick(Some(Duration::from_secs(1)), |completion| {
                if completion.token == MULTI {
                    told();
                    resume_unwind(Box::new("on purpose"));
                }
            })
        };
        match catch_unwind(AssertUnwindSafe(tick)) {
            Ok(ticked) => drop(ticked.unwrap()),
            Err(_) => return,
        }
    }
    panic!("nobody was told");
}

/// Sends one byte. Nobody looks at the outcome, which stays in the driver.
fn send(driver: &Driver, fd: Fd) {
    drop(driver.submit(Submission::send_all(fd, "x"), Token::NONE).unwrap());
}

#[test]
fn one_whose_last_item_makes_a_callback_panic_goes_on() {
    on_a_ring_that_ends_them(|driver| {
        let (one, other) = driver.stream_pair().unwrap();
        let key = driver.submit(Submission::recv_multi(other), MULTI).unwrap();
        for n in 1..=3 {
            send(driver, one);
            panic_when_told(driver, || ());
            assert_eq!(driver.waiting(&key), n);
            assert!(!driver.is_done(&key));
        }
        driver.abandon(key);
    });
}

#[test]
fn one_that_is_given_up_by_a_callback_that_panics_ends() {
    on_a_ring_that_ends_them(|driver| {
        let (one, other) = driver.stream_pair().unwrap();
        let key = driver.submit(Submission::recv_multi(other), MULTI).unwrap();
        let key = Cell::new(Some(key));
        send(driver, one);
        panic_when_told(driver, || driver.abandon(key.take().unwrap()));
        for _ in 0..100 {
            driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        }
        // The send, whose outcome nobody has taken.
        assert_eq!(driver.operations(), 1);
        assert_eq!(driver.counters().snapshot().in_flight_total(), 0);
    });
}
