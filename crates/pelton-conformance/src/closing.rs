//! Closing descriptors, and dropping the driver.

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::time::Duration;

use pelton_driver::{Driver, Fd, Interest, Submission, Token};

use crate::registry::behaviours;
use crate::{Bench, errno, pattern};

behaviours! {
    "a close cancels what is in flight, each once, and completes last" => a_close_cancels_what_is_in_flight
        [ReseauMain "close evicts blocked waiters", ReseauMain "fdlock close wakes queued",
         Reseau "kqueue close with active subscriptions"];
    "a receive that waits ends with its close, and closing again does nothing" => closing_again_does_nothing
        [ReseauMain "blocked read unblocks on close, close idempotent"];
    "a descriptor that is closed refuses everything, and buffers come back" => a_closed_descriptor_refuses_everything
        [ReseauMain "not-pollable mapping", ReseauMain "controls race close"];
    "a close that nobody waits for closes" => a_close_that_nobody_waits_for_closes
        [Ioxide "CoreTests: flush/close race"];
    "a close in the middle of a send ends the send exactly once" => a_close_in_the_middle_of_a_send
        [Aws "pipe_clean_up_cancels_pending_writes", Ioxide "SendInFlightRecycleTests",
         Ioxide "CoreTests: flush/close race"];
    "a number that is used again reaches nobody else" => a_number_that_is_used_again
        [ReseauMain "stale close keeps active registration", Ioxide "SendInFlightRecycleTests",
         Reseau "close releases subscription roots"];
    "a callback that closes another that is ready stops its events" => a_callback_closes_another
        [Aws "event_loop_no_events_after_unsubscribe", Reseau "callback mutates another subscription"];
    "a connection may be closed where its send is told of" => a_close_where_the_send_is_told_of
        [Aws "cleanup_in_write_cb_doesnt_explode"];
    "a descriptor in use is not taken back, and a free one is as good as new" => a_descriptor_is_taken_back
        [ReseauMain "register/pollwait/deregister"];
    "connections come and go and the table is empty again" => connections_come_and_go
        [Ioxide "CoreTests: Stop teardown fd count", Reseau "pipe subscribe stress"];
    "a driver that is dropped leaves nothing of what was in flight" => a_dropped_driver_leaves_nothing
        [Reseau "destroy cancels pending task", ReseauMain "shutdown closes waiters",
         ReseauMain "shutdown wakes timer waiters, cancels waiters and timers"];
    "what a dropped driver had sent arrives" => what_a_dropped_driver_had_sent_arrives
        [ReseauMain "read before peer close"];
}

fn a_close_cancels_what_is_in_flight(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    driver.fill(one);
    let recv = driver.go_for(Submission::recv(one, [0; 8]), 1);
    let pooled = driver.go_for(Submission::recv_pooled(one), 2);
    let multi = driver.go_for(Submission::recv_multi(one), 3);
    let send = driver.go_for(Submission::send_all(one, pattern(1, 1000)), 4);
    let poll = driver.go_for(Submission::poll(one, Interest::Writable), 5);
    assert!(driver.settle().is_empty(), "they wait");
    let close = driver.go_for(Submission::close(one), 6);
    let refused = driver.submit(Submission::recv(one, [0; 8]), Token::NONE).unwrap_err();
    assert_eq!(
        refused.error.raw_os_error(),
        Some(pelton_driver::errno::EBADF),
        "closed for what comes now"
    );
    let mut told = driver.until(|| driver.is_done(&close));
    told.extend(driver.settle());
    let mut order: Vec<_> = told.iter().map(|told| told.token.as_number()).collect();
    assert_eq!(order.last(), Some(&6), "the close last: {order:?}");
    order.sort_unstable();
    assert_eq!(order, [1, 2, 3, 4, 5, 6], "each once");
    assert_eq!(errno(driver.take(recv).unwrap().0), pelton_driver::errno::ECANCELED);
    assert_eq!(errno(driver.take(pooled).unwrap()), pelton_driver::errno::ECANCELED);
    assert_eq!(errno(driver.take(multi).unwrap()), pelton_driver::errno::ECANCELED);
    assert_eq!(errno(driver.take(send).unwrap().0), pelton_driver::errno::ECANCELED);
    assert_eq!(errno(driver.take(poll).unwrap()), pelton_driver::errno::ECANCELED);
    assert_eq!(driver.take(close).unwrap().unwrap(), 0);
    assert_eq!((driver.descriptors(), driver.snapshot().closes), (1, 1));
    driver.receive_all(other);
}

fn closing_again_does_nothing(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let recv = driver.go(Submission::recv(one, [0; 8]));
        driver.settle();
        driver.close(one);
        driver.close(one);
        assert_eq!(errno(driver.end(recv).0), pelton_driver::errno::ECANCELED);
        driver.close(one);
        let refused = driver.submit(Submission::close(one), Token::NONE).unwrap_err();
        assert_eq!(refused.error.raw_os_error(), Some(pelton_driver::errno::EBADF));
        driver.at_its_end(other);
    }
}

fn a_closed_descriptor_refuses_everything(on: &Bench) {
    let driver = on.driver();
    let (one, _other) = driver.pair();
    driver.close(one);
    let refused = driver.submit(Submission::recv(one, [1; 8]), Token::NONE).unwrap_err();
    assert_eq!(
        (refused.error.raw_os_error(), refused.payload.0),
        (Some(pelton_driver::errno::EBADF), [1; 8])
    );
    let refused = driver.submit(Submission::send(one, "x"), Token::NONE).unwrap_err();
    assert_eq!(
        (refused.error.raw_os_error(), refused.payload.0),
        (Some(pelton_driver::errno::EBADF), "x")
    );
    let address = "127.0.0.1:1".parse().unwrap();
    let refused = driver.submit(Submission::connect(one, address), Token::NONE).unwrap_err();
    assert_eq!(
        (errno::<()>(Err(refused.error)), refused.payload.0),
        (pelton_driver::errno::EBADF, address)
    );
    assert_eq!(errno(driver.with_descriptor(one, |_| ())), pelton_driver::errno::EBADF);
    assert_eq!(errno(driver.detach(one)), pelton_driver::errno::EBADF);
    assert_eq!(errno(Driver::shutdown(&driver, one, Shutdown::Both)), pelton_driver::errno::EBADF);
    assert_eq!(driver.operations(), 0);
}

fn a_close_that_nobody_waits_for_closes(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        driver.close(one);
        driver.at_its_end(other);
    }
    for (one, other) in driver.pairs() {
        let recv = driver.go(Submission::recv(one, [0; 8]));
        let close = driver.go(Submission::close(one));
        driver.abandon(close);
        driver.abandon(recv);
        driver.at_its_end(other);
    }
}

fn a_close_in_the_middle_of_a_send(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let sent = pattern(1, 16 << 20);
        let send = driver.go(Submission::send_all(one, sent.clone()));
        driver.settle();
        assert!(!driver.is_done(&send), "it waits for its peer to receive");
        driver.close(one);
        let told = driver.until(|| driver.is_done(&send));
        assert_eq!(told.len() + driver.settle().len(), 1, "once");
        let (n, buf) = driver.take(send).unwrap();
        let n = n.unwrap_or(0);
        assert!(n < sent.len() && buf == sent, "the buffer is as it was");
        let received = driver.receive_all(other);
        assert!(received == sent[..n], "{} of {n} bytes", received.len());
    }
}

fn a_number_that_is_used_again(on: &Bench) {
    let driver = on.driver();
    let mut old: Vec<Fd> = Vec::new();
    for round in 0..100 {
        let (one, other) = driver.local_pair();
        // Something is in flight when it is closed, and completes at the same moment.
        let recv = driver.go(Submission::recv(one, [0; 8]));
        let send = driver.go(Submission::send_all(one, pattern(round, 100)));
        if round % 2 == 0 {
            driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        }
        let late = driver.go(Submission::send_all(other, "late"));
        driver.close(one);
        if round % 3 == 0 {
            driver.abandon(recv);
        } else {
            let _ = driver.end(recv);
        }
        let sent = driver.end(send).0.unwrap_or(0);
        let _ = driver.end(late);
        let (mut received, mut n) = (Vec::new(), 1);
        while n > 0 {
            // It was closed with bytes that it had not received: the end may be an error.
            let (got, part) = driver.run(Submission::recv(other, Vec::with_capacity(256)));
            n = got.unwrap_or(0);
            received.extend(part);
        }
        let whole = pattern(round, 100);
        assert!(whole.starts_with(&received) && received.len() <= sent, "its own bytes alone");
        driver.run(Submission::close(other)).unwrap();
        for fd in &old {
            assert_eq!(errno(driver.nodelay(*fd)), pelton_driver::errno::EBADF);
        }
        old.push(one);
        if old.len() > 20 {
            old.remove(0);
        }
    }
    assert_eq!(driver.descriptors(), 0);
}

fn a_callback_closes_another(on: &Bench) {
    let driver = on.driver();
    let pairs = driver.pairs();
    let keys: Vec<_> = pairs
        .iter()
        .enumerate()
        .map(|(n, pair)| driver.go_for(Submission::recv_multi(pair.1), n))
        .collect();
    driver.settle();
    let sends = pairs.map(|pair| driver.go_for(Submission::send_all(pair.0, "ready"), 9));
    let (first, ends) = (Cell::new(None), Cell::new(0));
    driver.watch(
        |completion| {
            let n = completion.token.as_number();
            if n == 9 {
                return;
            }
            if first.get().is_none() {
                first.set(Some(n));
                Driver::close(&driver, pairs[1 - n].1);
            }
            if first.get() != Some(n) && !completion.more {
                ends.set(ends.get() + 1);
            }
        },
        || ends.get() > 0,
    );
    let closed = 1 - first.get().unwrap();
    let after = driver.settle();
    assert!(after.iter().all(|told| told.token.as_number() != closed), "nothing after its end");
    assert_eq!(ends.get(), 1);
    keys.into_iter().for_each(|key| driver.abandon(key));
    for send in sends {
        let _ = driver.end(send);
    }
}

fn a_close_where_the_send_is_told_of(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let recv = driver.go_for(Submission::recv(one, [0; 8]), 2);
        let send = RefCell::new(Some(driver.go_for(Submission::send_all(one, "last words"), 1)));
        let sent = Cell::new(None);
        driver.watch(
            |completion| {
                if completion.token.as_number() == 1 {
                    sent.set(driver.take(send.take().unwrap()).unwrap().0.ok());
                    Driver::close(&driver, one);
                }
            },
            || sent.get().is_some(),
        );
        assert_eq!(sent.get(), Some(10));
        assert_eq!(errno(driver.end(recv).0), pelton_driver::errno::ECANCELED);
        assert_eq!(driver.receive_all(other), b"last words");
    }
}

fn a_descriptor_is_taken_back(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.pair();
    let recv = driver.go(Submission::recv(one, [0; 8]));
    driver.settle();
    assert_eq!(driver.detach(one).unwrap_err().kind(), std::io::ErrorKind::ResourceBusy);
    driver.send(other, "1");
    assert_eq!(driver.end(recv).0.unwrap(), 1);
    let mine = driver.detach(one).unwrap();
    assert_eq!(errno(driver.detach(one)), pelton_driver::errno::EBADF);
    // It may be given to a driver once more.
    let again = driver.keep(driver.attach(mine).unwrap());
    let recv = driver.go(Submission::recv(again, [0; 8]));
    driver.settle();
    driver.send(other, "2");
    let (n, buf) = driver.end(recv);
    assert_eq!((n.unwrap(), buf[0]), (1, b'2'));
    // And closed by whoever has it.
    let mine = driver.detach(again).unwrap();
    drop(mine);
    driver.at_its_end(other);
}

fn connections_come_and_go(on: &Bench) {
    let driver = on.driver();
    for round in 0..10 {
        let pairs: Vec<_> = (0..10).map(|_| driver.local_pair()).collect();
        let keys: Vec<_> =
            pairs.iter().map(|pair| driver.go(Submission::recv(pair.1, [0; 8]))).collect();
        if round % 2 == 0 {
            driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        }
        for (n, ((one, other), key)) in pairs.into_iter().zip(keys).enumerate() {
            driver.close(if n % 2 == 0 { one } else { other });
            driver.abandon(key);
            driver.close(one);
            driver.close(other);
        }
        driver.until(|| driver.descriptors() == 0);
        driver.until(|| driver.snapshot().orphans == 0);
        assert_eq!(driver.operations(), 0);
    }
}

fn a_dropped_driver_leaves_nothing(on: &Bench) {
    for in_the_kernel in [true, false] {
        let driver = on.driver();
        let (one, other) = driver.pair();
        driver.fill(one);
        let (listener, _) = driver.listening();
        let hour = driver.now() + Duration::from_secs(3600);
        let _keys = (
            driver.go(Submission::send_all(one, vec![1; 1000])),
            driver.go(Submission::recv(one, vec![0; 100].into_boxed_slice())),
            driver.go(Submission::recv_multi(other)),
            driver.go(Submission::recv_vectored(one, [[0; 8]; 2])),
            driver.go(Submission::accept(listener)),
            driver.go(Submission::accept_multi(listener)),
            driver.go(Submission::poll(one, Interest::Writable)),
            driver.go(Submission::timeout(hour)),
            driver.go(Submission::wake()),
            driver.go(Submission::nop()),
        );
        let file = driver.file(on, if in_the_kernel { "one" } else { "other" });
        let _write = driver.go(Submission::write_at(file, pattern(1, 100_000), 0));
        if in_the_kernel {
            driver.settle();
        }
        let left = driver.abandon_all();
        assert_eq!((left.leaked, left.in_flight_total(), left.orphans), (0, 0, 0));
        assert_eq!(left.buffers_in_use, 0);
    }
}

fn what_a_dropped_driver_had_sent_arrives(on: &Bench) {
    let (one, other) = (on.driver(), on.driver());
    let (listener, address) = other.listening();
    let client = one.connected(address);
    let server = other.adopt(other.accepted(listener));
    one.send(client, pattern(2, 10_000));
    assert_eq!(one.abandon_all().leaked, 0);
    assert!(other.receive_all(server) == pattern(2, 10_000));
}
