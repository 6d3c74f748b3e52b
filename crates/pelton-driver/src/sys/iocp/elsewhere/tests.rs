//! What the system refuses only where a test says so: the room on a simulated system, from outside.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{REFUSED, REFUSED_WAKE, Refused};
use crate::op::Interest;
use crate::sim::{Rooms, World, WorldOptions};
use crate::{Backend, Config, Driver, Submission, Token};

fn in_world(f: impl FnOnce(&World)) {
    let world = World::new(&WorldOptions { rooms: Rooms::Windows, ..WorldOptions::new(1) });
    let entered = world.enter();
    f(&world);
    REFUSED.set(Refused::default());
    drop(entered);
    assert_eq!(world.violations(), [""; 0]);
    assert_eq!(world.leftovers(), [""; 0]);
}

fn driver() -> Driver {
    let config = Config { max_operations: 64, max_descriptors: 256, ..Config::default() };
    let driver = Driver::new(Config { backend: Backend::Iocp, ..config }).unwrap();
    assert_eq!(driver.backend(), Backend::Sim);
    driver
}

#[test]
fn a_wait_that_fails_without_saying_why_has_brought_nothing_and_is_no_error() {
    in_world(|_| {
        let driver = driver();
        let (one, other) = driver.stream_pair().unwrap();
        let receive = driver.submit(Submission::recv(one, [0; 8]), Token::NONE).unwrap();
        let send = driver.submit(Submission::send(other, *b"x"), Token::NONE).unwrap();
        REFUSED.set(Refused { wait: true, ..Refused::default() });
        for _ in 0..3 {
            // What it says of how many there are is not believed.
            driver.tick(Some(Duration::ZERO), |told| assert_ne!(told.id, receive.id())).unwrap();
        }
        REFUSED.set(Refused::default());
        while !(driver.is_done(&receive) && driver.is_done(&send)) {
            driver.tick(Some(Duration::from_secs(1)), |_| {}).unwrap();
        }
        assert_eq!(driver.take(receive).unwrap().0.unwrap(), 1);
    });
}

#[test]
fn without_the_device_readiness_is_refused_and_all_else_works() {
    in_world(|_| {
        let driver = driver();
        let (one, other) = driver.stream_pair().unwrap();
        REFUSED.set(Refused { device: true, ..Refused::default() });
        let poll = Submission::poll(one, Interest::Readable);
        let poll = driver.submit(poll, Token::NONE).unwrap();
        driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        let error = driver.take(poll).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
        // Bytes come without it.
        let receive = driver.submit(Submission::recv_pooled(one), Token::NONE).unwrap();
        drop(driver.submit(Submission::send(other, *b"x"), Token::NONE).unwrap());
        while !driver.is_done(&receive) {
            driver.tick(Some(Duration::from_secs(1)), |_| {}).unwrap();
        }
        assert_eq!(&driver.take(receive).unwrap().unwrap().unwrap()[..], b"x");
        // It is looked for again each time.
        REFUSED.set(Refused::default());
        let poll = Submission::poll(one, Interest::Writable);
        let poll = driver.submit(poll, Token::NONE).unwrap();
        while !driver.is_done(&poll) {
            driver.tick(Some(Duration::from_secs(1)), |_| {}).unwrap();
        }
        assert!(driver.take(poll).unwrap().is_ok());
    });
}

#[test]
fn a_wake_that_the_port_refuses_is_taken_back_and_the_next_one_wakes() {
    in_world(|_| {
        let driver = driver();
        let notifier = driver.notifier();
        REFUSED_WAKE.set(&driver);
        let refused = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // One that finds the driver awake enters no kernel, and is refused by none.
                while notifier.notify().is_ok() {
                    std::thread::yield_now();
                }
                refused.store(true, Ordering::SeqCst);
                // The driver sleeps on: what was refused has not woken it.
                notifier.notify().unwrap();
            });
            while !refused.load(Ordering::SeqCst) {
                driver.tick(None, |_| {}).unwrap();
            }
        });
        let counted = driver.counters().snapshot();
        assert_eq!(counted.wakes_failed, 1);
        assert!(counted.wakes_sent > 0, "vacuous: no wake has entered the kernel");
    });
}

#[test]
fn what_is_given_back_may_be_given_to_another_driver_where_the_system_ends_associations() {
    in_world(|_| {
        let (one, other) = (driver(), driver());
        let (mine, peer) = one.stream_pair().unwrap();
        let receive = one.submit(Submission::recv(mine, [0; 8]), Token::NONE).unwrap();
        drop(one.submit(Submission::send(peer, *b"here"), Token::NONE).unwrap());
        while !one.is_done(&receive) {
            one.tick(Some(Duration::from_secs(1)), |_| {}).unwrap();
        }
        assert_eq!(one.take(receive).unwrap().0.unwrap(), 4);
        let given = other.attach(one.detach(mine).unwrap()).unwrap();
        let receive = other.submit(Submission::recv(given, [0; 8]), Token::NONE).unwrap();
        other.tick(Some(Duration::ZERO), |_| {}).unwrap();
        assert!(!other.is_done(&receive), "it waits, and is not refused");
        let send = one.submit(Submission::send(peer, *b"there"), Token::NONE).unwrap();
        while !other.is_done(&receive) {
            one.tick(Some(Duration::ZERO), |_| {}).unwrap();
            other.tick(Some(Duration::from_secs(1)), |_| {}).unwrap();
        }
        assert_eq!(other.take(receive).unwrap().0.unwrap(), 5);
        assert_eq!(one.take(send).unwrap().0.unwrap(), 5);
        assert_eq!((one.counters().stale.get(), other.counters().stale.get()), (0, 0));
    });
}
