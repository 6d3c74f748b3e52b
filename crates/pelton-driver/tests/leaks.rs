//! Descriptors, slots and buffers come back to where they were, whatever was in flight when it went.
//!
//! The descriptors of this process are counted, so one test runs at a time.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::*;
use pelton_driver::*;

on_every_backend! {
    drivers_that_come_and_go_leave_no_descriptor
    a_driver_with_everything_in_flight_leaves_no_descriptor
    connections_whose_handlers_panic_are_released
    a_connection_for_an_accept_that_was_abandoned_is_closed
    cancels_by_the_thousand_leave_no_descriptor
    what_is_done_and_not_taken_goes_with_the_driver
}

fn drivers_that_come_and_go_leave_no_descriptor(on: &On) {
    let _alone = alone();
    drop(on.driver());
    let before = open_descriptors();
    for _ in 0..30 {
        let driver = on.driver();
        let (fd, _peer) = tcp(&driver);
        let _ = driver.go(Submission::recv(fd, [0; 8]));
        let _ = driver.go(Submission::timeout(std::time::Instant::now() + WATCHDOG));
        driver.settle();
    }
    assert_eq!(open_descriptors(), before);
}

fn a_driver_with_everything_in_flight_leaves_no_descriptor(on: &On) {
    let _alone = alone();
    let before = open_descriptors();
    for in_the_kernel in [true, false] {
        let driver = on.driver();
        let (listener, address) = listener();
        let listener = attach(&driver, listener);
        let _ = driver.go(Submission::accept(listener));
        let _ = driver.go(Submission::accept_multi(listener));
        let (full, _peer) = full(&driver);
        let _ = driver.go(Submission::send_all(full, vec![0; 100_000]));
        let (fd, mut peer) = tcp(&driver);
        let _ = driver.go(Submission::recv_multi(fd));
        let _ = driver.go(Submission::close(fd));
        let (other, mut other_peer) = tcp(&driver);
        let _ = driver.go(Submission::recv_multi(other));
        if in_the_kernel {
            driver.settle();
        }
        // Connections and bytes arrive while the driver goes.
        let _clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        let _ = peer.write_all(b"late");
        let _ = other_peer.write_all(b"late");
        let notifier = driver.notifier();
        drop(driver);
        let counters = notifier.counters().snapshot();
        assert_eq!((counters.leaked, counters.buffers_in_use), (0, 0));
    }
    assert_eq!(open_descriptors(), before);
}

fn connections_whose_handlers_panic_are_released(on: &On) {
    let _alone = alone();
    let driver = on.driver();
    let before = (open_descriptors(), driver.operations());
    for round in 0..1000 {
        let (fd, mut peer) = unix(&driver);
        let key = driver.go(Submission::recv_pooled(fd));
        peer.write_all(b"request").unwrap();
        // What a handler holds when it panics: the connection, a receive, a lease, a send.
        struct Handler<'a> {
            driver: &'a Driver,
            fd: Fd,
            recv: Option<Key<Leasing>>,
            send: Option<Key<Sending<Lease>>>,
        }
        impl Drop for Handler<'_> {
            fn drop(&mut self) {
                self.recv.take().into_iter().for_each(|key| self.driver.abandon(key));
                self.send.take().into_iter().for_each(|key| self.driver.abandon(key));
                self.driver.close(self.fd);
                self.driver.close(self.fd);
            }
        }
        let driver = &driver;
        let mut handler = Handler { driver, fd, recv: Some(key), send: None };
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            if round % 2 == 0 {
                let lease = driver.end(handler.recv.take().unwrap()).unwrap().unwrap();
                handler.recv = Some(driver.go(Submission::recv_pooled(fd)));
                if round % 4 == 0 {
                    handler.send = Some(driver.go(Submission::send_all(fd, lease)));
                }
            }
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        assert!(panicked.is_err());
        if round % 100 == 0 {
            driver.settle();
        }
    }
    driver.settle();
    assert_eq!((open_descriptors(), driver.operations()), before);
    assert_eq!((driver.snapshot().buffers_in_use, driver.descriptors()), (0, 0));
}

fn a_connection_for_an_accept_that_was_abandoned_is_closed(on: &On) {
    let _alone = alone();
    let driver = on.driver();
    let (listener, address) = listener();
    let listener = attach(&driver, listener);
    driver.settle();
    for multi in [false, true] {
        let before = open_descriptors();
        for round in 0..50 {
            let client = TcpStream::connect(address).unwrap();
            // The cancel and the connection meet, in the kernel or on the way to it.
            if multi {
                let key = driver.go(Submission::accept_multi(listener));
                if round % 2 == 0 {
                    driver.tick(Some(std::time::Duration::ZERO), |_| {}).unwrap();
                }
                driver.abandon(key);
            } else {
                let key = driver.go(Submission::accept(listener));
                if round % 2 == 0 {
                    driver.tick(Some(std::time::Duration::ZERO), |_| {}).unwrap();
                }
                driver.abandon(key);
            }
            driver.settle();
            drop(client);
        }
        assert_eq!((open_descriptors(), driver.operations()), (before, 0));
    }
}

fn cancels_by_the_thousand_leave_no_descriptor(on: &On) {
    let _alone = alone();
    let driver = on.driver();
    let (fd, _peer) = tcp(&driver);
    driver.settle();
    let before = open_descriptors();
    for round in 0..10_000 {
        let key = driver.go(Submission::recv(fd, [0; 8]));
        if round % 3 == 0 {
            driver.tick(Some(std::time::Duration::ZERO), |_| {}).unwrap();
        }
        driver.cancel(key.id());
        driver.abandon(key);
    }
    driver.settle();
    assert_eq!((open_descriptors(), driver.operations()), (before, 0));
    assert_eq!(driver.snapshot().orphans, 0);
}

fn what_is_done_and_not_taken_goes_with_the_driver(on: &On) {
    let _alone = alone();
    let before = open_descriptors();
    let driver = on.driver();
    let (listener, address) = listener();
    let listener = attach(&driver, listener);
    let _client = TcpStream::connect(address).unwrap();
    let accept = driver.go(Submission::accept(listener));
    let (fd, mut peer) = tcp(&driver);
    peer.write_all(b"received and not taken").unwrap();
    let recv = driver.go(Submission::recv_pooled(fd));
    driver.until(|| driver.is_done(&accept) && driver.is_done(&recv));
    assert_eq!(driver.snapshot().buffers_in_use, 1);
    let notifier = driver.notifier();
    drop((driver, peer, _client));
    assert_eq!(notifier.counters().snapshot().buffers_in_use, 0);
    // A notifier keeps the object that it would wake its driver through.
    drop((accept, recv, notifier));
    assert_eq!(open_descriptors(), before);
}
