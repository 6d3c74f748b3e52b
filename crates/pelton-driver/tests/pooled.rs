//! Receives into buffers of the pool: leases, running out of buffers, and receives that go on.

mod common;

use std::io::Write;
use std::net::TcpStream;

use common::*;
use pelton_driver::*;

on_every_backend! {
    a_pooled_receive_brings_a_lease_and_nothing_at_the_end
    leases_that_are_held_stay_as_they_are_while_others_arrive
    a_lease_is_sent_back_without_a_copy
    a_receive_that_goes_on_yields_everything_and_then_the_end
    a_receive_that_goes_on_is_cancelled_and_ends_once
    a_receive_that_goes_on_and_is_abandoned_gives_its_buffers_back
    out_of_buffers_is_a_wait_and_not_an_end
    a_single_receive_without_a_buffer_waits_for_one
    a_buffer_that_comes_back_before_the_receive_is_told_that_there_was_none_still_serves_it
    waiting_for_a_buffer_can_be_cancelled_abandoned_and_closed
    a_receive_whose_items_nobody_takes_is_cancelled_at_the_limit
    a_lease_outlives_its_driver
    small_receives_share_a_buffer_where_the_backend_fills_it_piecewise
    the_most_buffers_that_were_in_use_are_remembered
}

fn a_pooled_receive_brings_a_lease_and_nothing_at_the_end(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let key = driver.go(Submission::recv_pooled(fd));
    driver.settle();
    assert!(!driver.is_done(&key));
    assert_eq!(driver.snapshot().buffers_in_use, 0, "an idle connection holds no buffer");
    peer.write_all(b"hello").unwrap();
    let lease = driver.end(key).unwrap().unwrap();
    assert_eq!((&lease[..], driver.snapshot().buffers_in_use), (&b"hello"[..], 1));
    drop(lease);
    drop(peer);
    assert!(driver.run(Submission::recv_pooled(fd)).unwrap().is_none());
    assert_eq!(driver.snapshot().buffers_in_use, 0);
}

fn leases_that_are_held_stay_as_they_are_while_others_arrive(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let mut held = Vec::new();
    for n in 0..200 {
        peer.write_all(&pattern(n, 10 + n)).unwrap();
        let mut received = Vec::new();
        while received.len() < 10 + n {
            let lease = driver.run(Submission::recv_pooled(fd)).unwrap().unwrap();
            received.extend_from_slice(&lease);
            held.push((lease, n, received.len()));
        }
        assert_eq!(received, pattern(n, 10 + n));
        if held.len() > 9 {
            // Given back in an order of their own.
            held.swap_remove(n % 10);
        }
        for (lease, n, end) in &held {
            assert!(lease[..] == pattern(*n, 10 + n)[end - lease.len()..*end], "it has changed");
        }
    }
    assert!(driver.snapshot().buffers_in_use > 0);
    drop(held);
    assert_eq!(driver.snapshot().buffers_in_use, 0);
}

fn a_lease_is_sent_back_without_a_copy(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    for n in 0..50 {
        peer.write_all(&pattern(n, 1000)).unwrap();
        let mut echoed = 0;
        while echoed < 1000 {
            let lease = driver.run(Submission::recv_pooled(fd)).unwrap().unwrap();
            echoed += lease.len();
            driver.run(Submission::send_all(fd, lease)).0.unwrap();
        }
        let mut back = vec![0; 1000];
        std::io::Read::read_exact(&mut peer, &mut back).unwrap();
        assert!(back == pattern(n, 1000));
    }
    assert_eq!(driver.snapshot().buffers_in_use, 0);
}

fn a_receive_that_goes_on_yields_everything_and_then_the_end(on: &On) {
    const LEN: usize = 1 << 20;
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let writer = std::thread::spawn(move || peer.write_all(&pattern(4, LEN)).unwrap());
    let key = driver.go(Submission::recv_multi(fd));
    let (mut received, mut last) = (Vec::new(), 0);
    while !driver.is_done(&key) {
        driver
            .tick(Some(WATCHDOG), |completion| {
                last += u32::from(!completion.more);
                while let Some(lease) = driver.next(&key) {
                    received.extend_from_slice(&lease);
                }
            })
            .unwrap();
    }
    writer.join().unwrap();
    while let Some(lease) = driver.next(&key) {
        received.extend_from_slice(&lease);
    }
    driver.take(key).unwrap().unwrap();
    assert!(received == pattern(4, LEN));
    assert_eq!(last, 1, "one last completion");
    assert_eq!((driver.operations(), driver.snapshot().buffers_in_use), (0, 0));
}

fn a_receive_that_goes_on_is_cancelled_and_ends_once(on: &On) {
    let driver = on.driver();
    for received_first in [false, true] {
        let (fd, mut peer) = tcp(&driver);
        peer.write_all(b"early").unwrap();
        let key = driver.go(Submission::recv_multi(fd));
        if received_first {
            driver.until(|| driver.waiting(&key) > 0);
        }
        // In one case the item may have been received, and its notice be under way, when this comes.
        assert!(driver.cancel(key.id()));
        let told = driver.settle();
        assert_eq!(told.iter().filter(|told| !told.more).count(), 1, "told of its end once");
        if received_first {
            assert_eq!(&driver.next(&key).unwrap()[..], b"early");
        }
        assert_eq!(errno(driver.take(key).unwrap()), errno::ECANCELED);
    }
    assert_eq!((driver.operations(), driver.snapshot().buffers_in_use), (0, 0));
}

fn a_receive_that_goes_on_and_is_abandoned_gives_its_buffers_back(on: &On) {
    let driver = on.driver();
    for at_once in [false, true] {
        let (fd, mut peer) = tcp(&driver);
        let key = driver.go(Submission::recv_multi(fd));
        if !at_once {
            peer.write_all(b"taken by nobody").unwrap();
            driver.until(|| driver.waiting(&key) > 0);
        }
        driver.abandon(key);
        peer.write_all(b"and this comes too late").unwrap();
        assert!(driver.settle().is_empty());
        assert_eq!((driver.operations(), driver.snapshot().buffers_in_use), (0, 0));
        assert_eq!(driver.snapshot().orphans, 0);
    }
}

/// A driver with eight small buffers, as the requirement for running out has them.
fn eight_buffers(on: &On) -> Driver {
    let driver = on.driver_with(Config { pool_buffers: 8, pool_buffer_len: 1024, ..small() });
    assert_eq!(driver.snapshot().buffers_total, 8);
    driver
}

/// Receives and keeps everything until the receive waits for a buffer. Returns what it keeps.
fn until_it_stalls(driver: &Driver, key: &Key<ManyLeases>) -> Vec<Lease> {
    let mut held = Vec::new();
    driver.until(|| {
        held.extend(std::iter::from_fn(|| driver.next(key)));
        driver.snapshot().stalls > 0
    });
    held.extend(std::iter::from_fn(|| driver.next(key)));
    held
}

fn out_of_buffers_is_a_wait_and_not_an_end(on: &On) {
    const LEN: usize = 24 << 10;
    let driver = eight_buffers(on);
    let (fd, mut peer) = tcp(&driver);
    peer.write_all(&pattern(5, LEN)).unwrap();
    let key = driver.go(Submission::recv_multi(fd));
    let mut held = until_it_stalls(&driver, &key);
    let mut received: Vec<u8> = held.iter().flat_map(|lease| lease.iter().copied()).collect();
    assert!(received.len() <= 8 << 10, "no more than there is room for");
    assert!(!driver.is_done(&key));

    // While nothing comes back nothing happens: the driver sleeps.
    let before = driver.snapshot();
    driver.settle();
    let after = driver.snapshot();
    assert!(
        after.enters - before.enters <= 12,
        "it spins: {} enters",
        after.enters - before.enters
    );
    assert_eq!(after.stalls, before.stalls);

    // One at a time comes back; everything arrives, in order.
    while received.len() < LEN {
        held.remove(0);
        driver.until(|| {
            while let Some(lease) = driver.next(&key) {
                received.extend_from_slice(&lease);
                held.push(lease);
            }
            driver.tick(Some(std::time::Duration::ZERO), |_| {}).unwrap();
            held.is_empty() || driver.snapshot().buffers_in_use == 8 || received.len() == LEN
        });
    }
    assert!(received == pattern(5, LEN), "byte exact");
    assert!(driver.snapshot().stalls > 1, "it stalled again and again");
    assert!(!driver.is_done(&key), "and the connection lives");
    drop(peer);
    held.clear();
    driver.end(key).unwrap();
}

fn a_single_receive_without_a_buffer_waits_for_one(on: &On) {
    let driver = eight_buffers(on);
    let (holder, mut filler) = tcp(&driver);
    filler.write_all(&pattern(6, 24 << 10)).unwrap();
    let multi = driver.go(Submission::recv_multi(holder));
    let mut held = until_it_stalls(&driver, &multi);
    driver.cancel(multi.id());
    driver.settle();
    held.extend(std::iter::from_fn(|| driver.next(&multi)));

    let (fd, mut peer) = tcp(&driver);
    peer.write_all(b"patience").unwrap();
    let stalls = driver.snapshot().stalls;
    let key = driver.go(Submission::recv_pooled(fd));
    driver.settle();
    assert!(!driver.is_done(&key) && driver.snapshot().stalls > stalls, "it waits for a buffer");
    held.clear();
    assert_eq!(&driver.end(key).unwrap().unwrap()[..], b"patience");
    driver.abandon(multi);
    assert_eq!(driver.operations(), 0);
}

fn a_buffer_that_comes_back_before_the_receive_is_told_that_there_was_none_still_serves_it(
    on: &On,
) {
    let driver = eight_buffers(on);
    let (fd, mut peer) = tcp(&driver);
    peer.write_all(&pattern(7, 24 << 10)).unwrap();
    let key = driver.go(Submission::recv_multi(fd));
    let mut received = 0;
    while received < 24 << 10 {
        // The buffers come back inside the batch at whose end stands that there was none.
        driver
            .tick(Some(WATCHDOG), |_| {
                received +=
                    std::iter::from_fn(|| driver.next(&key)).map(|l| l.len()).sum::<usize>();
            })
            .unwrap();
    }
    assert!(!driver.is_done(&key));
    assert!(!on.is_uring() || driver.snapshot().stalls > 0, "there was none at some time");
    peer.write_all(b"more").unwrap();
    driver.until(|| {
        received +=
            std::iter::from_fn(|| driver.next(&key)).map(|lease| lease.len()).sum::<usize>();
        received == (24 << 10) + 4
    });
}

fn waiting_for_a_buffer_can_be_cancelled_abandoned_and_closed(on: &On) {
    let driver = eight_buffers(on);
    let (holder, mut filler) = tcp(&driver);
    filler.write_all(&pattern(6, 24 << 10)).unwrap();
    let multi = driver.go(Submission::recv_multi(holder));
    let mut held = until_it_stalls(&driver, &multi);
    // The one that holds the buffers is itself waiting for more now.
    let connections: Vec<(Fd, TcpStream)> = (0..3)
        .map(|_| {
            let (fd, mut peer) = tcp(&driver);
            peer.write_all(b"x").unwrap();
            (fd, peer)
        })
        .collect();
    let stalls = driver.snapshot().stalls;
    let cancelled = driver.go(Submission::recv_pooled(connections[0].0));
    let abandoned = driver.go(Submission::recv_pooled(connections[1].0));
    let closed = driver.go(Submission::recv_multi(connections[2].0));
    driver.until(|| driver.snapshot().stalls == stalls + 3);
    assert!(driver.cancel(cancelled.id()));
    assert!(driver.cancel(multi.id()));
    driver.abandon(abandoned);
    driver.close(connections[2].0);
    assert_eq!(errno(driver.end(cancelled)), errno::ECANCELED);
    assert_eq!(errno(driver.end(closed)), errno::ECANCELED);
    held.extend(std::iter::from_fn(|| driver.next(&multi)));
    assert_eq!(errno(driver.end(multi)), errno::ECANCELED);
    drop(held);
    driver.settle();
    assert_eq!((driver.operations(), driver.snapshot().buffers_in_use), (0, 0));
}

fn a_receive_whose_items_nobody_takes_is_cancelled_at_the_limit(on: &On) {
    let driver = on.driver_with(Config { pool_buffers: 256, pool_buffer_len: 64, ..small() });
    let (fd, mut peer) = tcp(&driver);
    peer.set_nodelay(true).unwrap();
    let key = driver.go(Submission::recv_multi(fd));
    peer.write_all(&pattern(1, 64 * 300)).unwrap();
    driver.until(|| driver.is_done(&key));
    assert!(driver.waiting(&key) >= MOST_WAITING);
    assert_eq!(driver.counters().unclaimed.get(), 1, "and counted as such, once");
    let mut received: Vec<u8> =
        std::iter::from_fn(|| driver.next(&key)).flat_map(|lease| lease.to_vec()).collect();
    assert_eq!(errno(driver.take(key).unwrap()), errno::ECANCELED);
    // The rest is for the next one.
    while received.len() < 64 * 300 {
        received.extend_from_slice(&driver.run(Submission::recv_pooled(fd)).unwrap().unwrap());
    }
    assert!(received == pattern(1, 64 * 300));
}

fn a_lease_outlives_its_driver(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    peer.write_all(b"here to stay").unwrap();
    let mut lease = driver.run(Submission::recv_pooled(fd)).unwrap().unwrap();
    drop(driver);
    assert_eq!(&lease[..], b"here to stay");
    lease[0] = b'H';
    assert_eq!(&lease[..4], b"Here");
}

fn small_receives_share_a_buffer_where_the_backend_fills_it_piecewise(on: &On) {
    if !on.fills_buffers_piecewise() {
        skipped("this backend gives each receive a whole buffer");
        return;
    }
    let driver = on.driver_with(Config { pool_buffers: 4, pool_buffer_len: 4096, ..small() });
    let (fd, mut peer) = tcp(&driver);
    let mut leases = Vec::new();
    for n in 0..20 {
        peer.write_all(&pattern(n, 100)).unwrap();
        leases.push(driver.run(Submission::recv_pooled(fd)).unwrap().unwrap());
    }
    assert_eq!(driver.snapshot().buffers_in_use, 1, "twenty leases on one buffer");
    for (n, lease) in leases.iter().enumerate() {
        assert!(lease[..] == pattern(n, 100));
    }
}

fn the_most_buffers_that_were_in_use_are_remembered(on: &On) {
    const LEN: usize = 1024;
    let driver = on.driver_with(Config { pool_buffers: 8, pool_buffer_len: LEN as u32, ..small() });
    let in_use = |driver: &Driver| {
        let counters = driver.snapshot();
        (counters.buffers_in_use, counters.buffers_high_water, counters.buffers_total)
    };
    assert_eq!(in_use(&driver), (0, 0, 8));
    let (fd, mut peer) = tcp(&driver);
    // As many bytes as a buffer has, so that each receive fills one.
    let receive = |peer: &mut TcpStream| {
        peer.write_all(&pattern(1, LEN)).unwrap();
        let lease = driver.run(Submission::recv_pooled(fd)).unwrap().unwrap();
        assert_eq!(lease.len(), LEN);
        lease
    };
    let mut held: Vec<Lease> = (0..5).map(|_| receive(&mut peer)).collect();
    assert_eq!(in_use(&driver), (5, 5, 8));
    held.truncate(2);
    assert_eq!(in_use(&driver), (2, 5, 8));
    held.push(receive(&mut peer));
    assert_eq!(in_use(&driver), (3, 5, 8), "fewer than before");
    held.extend((0..4).map(|_| receive(&mut peer)));
    assert_eq!(in_use(&driver), (7, 7, 8));
    drop(held);
    assert_eq!(in_use(&driver), (0, 7, 8));
    // Any thread sees them, and a page by their names.
    let counters = driver.notifier();
    let fields =
        std::thread::spawn(move || counters.counters().snapshot().fields()).join().unwrap();
    for (name, value) in [("buffers_in_use", 0), ("buffers_high_water", 7), ("buffers_total", 8)] {
        let field = fields.iter().find(|field| field.0 == name).unwrap();
        assert!(field.1 == value && !field.2.is_empty(), "{field:?}");
    }
}
