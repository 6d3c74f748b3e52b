//! What the system refuses only where a test says so: the room on a simulated system, from outside.

use std::io;
use std::time::Duration;

use super::{REFUSED, Refused};
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
