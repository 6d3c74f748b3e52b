//! Receives into buffers of the pool: leases, running out of buffers, receives that go on.

use pelton_driver::{Config, Fd, Key, Lease, MOST_WAITING, ManyLeases, Submission};

use crate::registry::behaviours;
use crate::rig::small;
use crate::{Bench, Rig, errno, pattern};

behaviours! {
    "a pooled receive brings a lease, and nothing at the end" => a_pooled_receive_brings_a_lease
        [Ioxide "PipeReaderContract/StreamContract"];
    "an idle connection holds no buffer" => an_idle_connection_holds_no_buffer
        [Reseau "message pool sharing per loop"];
    "leases that are held stay as they are while others arrive" => held_leases_stay_as_they_are
        [Ioxide "CoreTests: incremental"];
    "a lease is sent back as it is" => a_lease_is_sent_back
        [Ioxide "CoreTests: echo"];
    "small receives into shared buffers are byte exact" => small_receives_are_byte_exact
        [Ioxide "CoreTests: incremental", Ioxide "CoreTests: fragmented"];
    "a receive that goes on yields everything and then the end" => a_receive_that_goes_on_yields_everything
        [Ioxide "CoreTests: Grow/Segmented"];
    "a receive that goes on is cancelled and ends once" => a_receive_that_goes_on_is_cancelled
        [Libxev "recv cancellation"];
    "a receive that goes on and is abandoned gives its buffers back" => an_abandoned_receive_gives_its_buffers_back
        [Ioxide "RecvBufferReclaimTests"];
    "running out of buffers is a wait and not an end" => out_of_buffers_is_a_wait
        [Ioxide "CoreTests: recv-queue overflow", Aws "socket_handler: echo_and_backpressure"];
    "a receive without a buffer is served when one comes back" => a_receive_is_served_when_a_buffer_comes_back
        [Ioxide "RecvBufferReclaimTests"];
    "waiting for a buffer can be cancelled, abandoned and closed" => waiting_for_a_buffer_can_be_ended
        [Ioxide "RecvBufferReclaimTests"];
    "a receive whose items nobody takes is cancelled at the limit, and loses none" => unclaimed_items_are_bounded
        [Ioxide "CoreTests: recv-queue overflow"];
    "buffers come back when the connection has died under them" => buffers_outlive_their_connection
        [Ioxide "RecvBufferReclaimTests"];
    "a lease outlives its driver" => a_lease_outlives_its_driver
        [ReseauMain "control refs delay destruction"];
    "the most buffers that were in use are remembered" => the_most_buffers_are_remembered
        [];
}

/// Receives so many bytes into buffers of the pool, and keeps the leases.
fn leases(driver: &Rig, fd: Fd, len: usize) -> Vec<Lease> {
    let mut held: Vec<Lease> = Vec::new();
    while held.iter().map(|lease| lease.len()).sum::<usize>() < len {
        held.push(driver.run(Submission::recv_pooled(fd)).unwrap().expect("not the end"));
    }
    held
}

fn bytes(leases: &[Lease]) -> Vec<u8> {
    leases.iter().flat_map(|lease| lease.iter().copied()).collect()
}

fn a_pooled_receive_brings_a_lease(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        driver.send(one, "hello");
        let held = leases(&driver, other, 5);
        assert_eq!(bytes(&held), b"hello");
        assert!(driver.snapshot().buffers_in_use > 0);
        drop(held);
        assert_eq!(driver.snapshot().buffers_in_use, 0);
        driver.close(one);
        assert!(driver.run(Submission::recv_pooled(other)).unwrap().is_none());
        assert_eq!(driver.snapshot().buffers_in_use, 0);
    }
}

fn an_idle_connection_holds_no_buffer(on: &Bench) {
    let driver = on.driver_with(Config { pool_buffers: 2, ..small() });
    let pairs: Vec<_> = (0..20).map(|_| driver.local_pair()).collect();
    let keys: Vec<_> =
        pairs.iter().map(|pair| driver.go(Submission::recv_pooled(pair.1))).collect();
    driver.settle();
    assert_eq!(driver.snapshot().buffers_in_use, 0);
    // More connections than buffers, and each gets one when its turn has come.
    for ((one, _), key) in pairs.into_iter().zip(keys) {
        driver.send(one, "x");
        assert_eq!(&driver.end(key).unwrap().unwrap()[..], b"x");
    }
}

fn held_leases_stay_as_they_are(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.pair();
    let mut held = Vec::new();
    for n in 0..100 {
        let sent = pattern(n, 10 + n);
        driver.send(one, &sent);
        held.push((n, leases(&driver, other, sent.len())));
        if held.len() > 5 {
            // Given back in an order of their own.
            held.swap_remove(n % 5);
        }
        for (n, leases) in &held {
            assert!(bytes(leases) == pattern(*n, 10 + n), "it has changed");
        }
    }
    drop(held);
    assert_eq!(driver.snapshot().buffers_in_use, 0);
}

fn a_lease_is_sent_back(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        for n in 0..30 {
            driver.send(one, pattern(n, 1000));
            for lease in leases(&driver, other, 1000) {
                driver.run(Submission::send_all(other, lease)).0.unwrap();
            }
            assert!(driver.receive(one, 1000) == pattern(n, 1000));
        }
    }
}

fn small_receives_are_byte_exact(on: &Bench) {
    let driver = on.driver_with(Config { pool_buffers: 4, pool_buffer_len: 256, ..small() });
    let (one, other) = driver.pair();
    let mut received = Vec::new();
    for n in 0..200 {
        driver.send(one, pattern(n, 7 + n % 31));
        // None is kept: in more pieces than there are buffers the whole would not fit into them.
        let end = received.len() + 7 + n % 31;
        while received.len() < end {
            received.extend_from_slice(&leases(&driver, other, 1)[0]);
        }
    }
    let sent: Vec<u8> = (0..200).flat_map(|n| pattern(n, 7 + n % 31)).collect();
    assert!(received == sent);
}

fn a_receive_that_goes_on_yields_everything(on: &Bench) {
    const LEN: usize = 1 << 20;
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let mut send = Some(driver.go(Submission::send_all(one, pattern(4, LEN))));
        let key = driver.go(Submission::recv_multi(other));
        let mut received = Vec::new();
        driver.until(|| {
            while let Some(lease) = driver.next(&key) {
                received.extend_from_slice(&lease);
            }
            if let Some((sent, _)) = driver.take_if_done(&mut send) {
                assert_eq!(sent.unwrap(), LEN);
                driver.close(one);
            }
            driver.is_done(&key)
        });
        while let Some(lease) = driver.next(&key) {
            received.extend_from_slice(&lease);
        }
        driver.take(key).unwrap().unwrap();
        assert!(received == pattern(4, LEN));
        assert_eq!(driver.snapshot().buffers_in_use, 0);
    }
}

fn a_receive_that_goes_on_is_cancelled(on: &Bench) {
    let driver = on.driver();
    for received_first in [false, true] {
        for (one, other) in driver.pairs() {
            driver.send(one, "early");
            let key = driver.go(Submission::recv_multi(other));
            if received_first {
                driver.until(|| driver.waiting(&key) > 0);
            }
            // In one case the item may have been received, and its notice be under way, when this comes.
            assert!(driver.cancel(key.id()));
            let told = driver.until(|| driver.is_done(&key));
            let told = told.iter().chain(&driver.settle()).filter(|told| !told.more).count();
            assert_eq!(told, 1, "told of its end once");
            let mut received = Vec::new();
            while let Some(lease) = driver.next(&key) {
                received.extend_from_slice(&lease);
            }
            assert_eq!(errno(driver.take(key).unwrap()), pelton_driver::errno::ECANCELED);
            received.extend(driver.receive(other, 5 - received.len()));
            assert_eq!(received, b"early");
        }
    }
}

fn an_abandoned_receive_gives_its_buffers_back(on: &Bench) {
    let driver = on.driver();
    for at_once in [false, true] {
        for (one, other) in driver.pairs() {
            let key = driver.go(Submission::recv_multi(other));
            if !at_once {
                driver.send(one, "taken by nobody");
                driver.until(|| driver.waiting(&key) > 0);
            }
            driver.abandon(key);
            driver.send(one, "and this comes too late");
            driver.settle();
            assert_eq!((driver.operations(), driver.snapshot().buffers_in_use), (0, 0));
        }
    }
}

/// A driver with eight small buffers.
fn eight_buffers(on: &Bench) -> Rig {
    let driver = on.driver_with(Config { pool_buffers: 8, pool_buffer_len: 1024, ..small() });
    assert_eq!(driver.snapshot().buffers_total, 8);
    driver
}

/// Receives and keeps everything until all buffers are held and the receive waits for one.
fn until_it_stalls(driver: &Rig, key: &Key<ManyLeases>) -> Vec<Lease> {
    let mut held = Vec::new();
    driver.until(|| {
        held.extend(std::iter::from_fn(|| driver.next(key)));
        let counters = driver.snapshot();
        counters.stalls > 0 && counters.buffers_in_use == 8
    });
    held.extend(std::iter::from_fn(|| driver.next(key)));
    held
}

fn out_of_buffers_is_a_wait(on: &Bench) {
    const LEN: usize = 24 << 10;
    let driver = eight_buffers(on);
    let (one, other) = driver.pair();
    driver.send(one, pattern(5, LEN));
    let key = driver.go(Submission::recv_multi(other));
    let mut held = until_it_stalls(&driver, &key);
    let mut received = bytes(&held);
    assert!(received.len() <= 8 << 10, "no more than there is room for");
    driver.settle();
    assert!(!driver.is_done(&key), "it waits");
    // One at a time comes back; everything arrives, in order.
    while received.len() < LEN {
        held.remove(0);
        driver.until(|| {
            while let Some(lease) = driver.next(&key) {
                received.extend_from_slice(&lease);
                held.push(lease);
            }
            held.is_empty() || driver.snapshot().buffers_in_use == 8 || received.len() == LEN
        });
    }
    assert!(received == pattern(5, LEN), "byte exact");
    assert!(!driver.is_done(&key), "and the connection lives");
    held.clear();
    driver.close(one);
    driver.end(key).unwrap();
}

fn a_receive_is_served_when_a_buffer_comes_back(on: &Bench) {
    let driver = eight_buffers(on);
    let (filler, holder) = driver.pair();
    driver.send(filler, pattern(6, 24 << 10));
    let multi = driver.go(Submission::recv_multi(holder));
    let mut held = until_it_stalls(&driver, &multi);
    driver.cancel(multi.id());
    driver.settle();
    held.extend(std::iter::from_fn(|| driver.next(&multi)));
    assert_eq!(driver.snapshot().buffers_in_use, 8);

    let (one, other) = driver.pair();
    driver.send(one, "patience");
    let key = driver.go(Submission::recv_pooled(other));
    driver.settle();
    assert!(!driver.is_done(&key), "it waits for a buffer");
    held.clear();
    let first = driver.end(key).unwrap().unwrap().to_vec();
    assert!(b"patience".starts_with(&first) && !first.is_empty());
    driver.abandon(multi);
}

fn waiting_for_a_buffer_can_be_ended(on: &Bench) {
    let driver = eight_buffers(on);
    let (filler, holder) = driver.pair();
    driver.send(filler, pattern(6, 24 << 10));
    let multi = driver.go(Submission::recv_multi(holder));
    let mut held = until_it_stalls(&driver, &multi);
    // The one that holds the buffers is itself waiting for more now.
    let fds: Vec<Fd> = (0..3)
        .map(|_| {
            let (one, other) = driver.pair();
            driver.send(one, "x");
            other
        })
        .collect();
    let cancelled = driver.go(Submission::recv_pooled(fds[0]));
    let abandoned = driver.go(Submission::recv_pooled(fds[1]));
    let closed = driver.go(Submission::recv_multi(fds[2]));
    driver.settle();
    assert!(!driver.is_done(&cancelled) && !driver.is_done(&closed), "there is no buffer");
    assert!(driver.cancel(cancelled.id()));
    assert!(driver.cancel(multi.id()));
    driver.abandon(abandoned);
    driver.close(fds[2]);
    assert_eq!(errno(driver.end(cancelled)), pelton_driver::errno::ECANCELED);
    assert_eq!(errno(driver.end(closed)), pelton_driver::errno::ECANCELED);
    held.extend(std::iter::from_fn(|| driver.next(&multi)));
    assert_eq!(errno(driver.end(multi)), pelton_driver::errno::ECANCELED);
    drop(held);
    driver.settle();
    assert_eq!((driver.operations(), driver.snapshot().buffers_in_use), (0, 0));
}

fn unclaimed_items_are_bounded(on: &Bench) {
    const LEN: usize = 64 * 300;
    let driver = on.driver_with(Config { pool_buffers: 256, pool_buffer_len: 64, ..small() });
    let (one, other) = driver.pair();
    driver.set_nodelay(one, true).unwrap();
    let key = driver.go(Submission::recv_multi(other));
    driver.send(one, pattern(1, LEN));
    driver.until(|| driver.is_done(&key));
    assert!(driver.waiting(&key) >= MOST_WAITING);
    assert_eq!(driver.snapshot().unclaimed, 1, "and counted as such, once");
    let mut received: Vec<u8> =
        std::iter::from_fn(|| driver.next(&key)).flat_map(|lease| lease.to_vec()).collect();
    assert_eq!(errno(driver.take(key).unwrap()), pelton_driver::errno::ECANCELED);
    // The rest is for the next one.
    received.extend(driver.receive(other, LEN - received.len()));
    assert!(received == pattern(1, LEN));
}

fn buffers_outlive_their_connection(on: &Bench) {
    let driver = on.driver();
    let mut held = Vec::new();
    for n in 0..5 {
        let (one, other) = driver.pair();
        driver.send(one, pattern(n, 100));
        held.extend(leases(&driver, other, 100));
        let waits = driver.go(Submission::recv_multi(other));
        driver.set_linger(one, Some(std::time::Duration::ZERO)).unwrap();
        driver.run(Submission::close(one)).unwrap();
        assert_eq!(errno(driver.end(waits)), pelton_driver::errno::ECONNRESET);
        driver.run(Submission::close(other)).unwrap();
    }
    assert_eq!(bytes(&held), (0..5).flat_map(|n| pattern(n, 100)).collect::<Vec<_>>());
    drop(held);
    assert_eq!(driver.snapshot().buffers_in_use, 0);
}

fn a_lease_outlives_its_driver(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.pair();
    driver.send(one, "x");
    let mut lease = driver.run(Submission::recv_pooled(other)).unwrap().unwrap();
    assert_eq!(driver.abandon_all().leaked, 0);
    assert_eq!(&lease[..], b"x");
    lease[0] = b'X';
    assert_eq!(&lease[..], b"X");
}

fn the_most_buffers_are_remembered(on: &Bench) {
    const LEN: usize = 1024;
    let driver = eight_buffers(on);
    let (one, other) = driver.pair();
    // As many bytes as a buffer has, so that each message fills one.
    let message = || {
        driver.send(one, pattern(1, LEN));
        leases(&driver, other, LEN)
    };
    let mut held: Vec<_> = (0..5).map(|_| message()).collect();
    let most = driver.snapshot().buffers_high_water;
    assert!(most >= 5 && driver.snapshot().buffers_in_use >= 5);
    held.truncate(2);
    assert!(driver.snapshot().buffers_in_use < most);
    assert_eq!(driver.snapshot().buffers_high_water, most, "it does not fall");
    drop(held);
    assert_eq!(driver.snapshot().buffers_in_use, 0);
}
