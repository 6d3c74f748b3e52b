//! Datagrams on the simulator, small enough for Miri: both rooms, with headers, addresses and control messages
//! that cross the rings as addresses, given up at every moment, with every access to memory checked.
#![cfg(all(unix, feature = "sim"))]

use std::net::SocketAddr;
use std::time::Duration;

use pelton_driver::sim::{Faults, World, WorldOptions};
use pelton_driver::*;

const SEEDS: u64 = if cfg!(miri) { 2 } else { 50 };

fn until(driver: &Driver, mut done: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        driver.tick(Some(Duration::from_secs(1)), |_| {}).unwrap();
    }
    panic!("nothing came of it");
}

fn run<P: Payload>(driver: &Driver, submission: Submission<P>) -> P::Output {
    let key = driver.submit(submission, Token::NONE).unwrap_or_else(|r| panic!("{}", r.error));
    until(driver, || driver.is_done(&key));
    driver.take(key).unwrap_or_else(|_| panic!("it is done"))
}

fn bound(driver: &Driver) -> (Fd, SocketAddr) {
    let fd = driver.datagram_socket("127.0.0.1:0".parse().unwrap()).unwrap();
    (fd, driver.local_addr(fd).unwrap())
}

/// False where the faults refused a ring.
fn play(backend: Backend, seed: u64) -> bool {
    let faults = Faults::swarm(seed).harmless();
    let world = World::new(&WorldOptions { faults, ..WorldOptions::new(seed) });
    let entered = world.enter();
    let config = Config {
        backend,
        ring_entries: 8,
        completion_entries: 64,
        max_operations: 64,
        max_descriptors: 256,
        pool_buffers: 2,
        pool_buffer_len: 64,
        ..Config::default()
    };
    let driver = match Driver::new(config) {
        Ok(driver) => driver,
        Err(Error::Unsupported { .. }) => return false,
        Err(error) => panic!("{error}"),
    };
    let ((one, from), (other, to)) = (bound(&driver), bound(&driver));
    driver.set_datagram_option(other, DatagramOption::ReceivePacketInfo(true)).unwrap();
    driver.set_datagram_option(other, DatagramOption::ReceiveHopLimit(true)).unwrap();

    let mut control = Control::with_capacity(128);
    control.push_hop_limit(to, 5).unwrap();
    control.push_segment_len(4).unwrap();
    let parts = [b"one".to_vec(), b"two".to_vec()];
    let (n, ..) = run(&driver, Submission::send_msg(one, parts, Some(to), control));
    assert_eq!(n.unwrap(), 6);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let bufs = [Vec::with_capacity(3), Vec::with_capacity(8)];
        let recv = Submission::recv_msg(other, bufs, Control::with_capacity(128));
        let (received, bufs, control) = run(&driver, recv);
        assert_eq!(received.unwrap().from, Some(from));
        assert_eq!(control.iter().find_map(|m| m.hop_limit()), Some(5));
        assert_eq!(control.iter().find_map(|m| m.packet_info()).unwrap().0, to.ip());
        seen.push(bufs.concat());
    }
    seen.sort_unstable();
    assert_eq!(seen, [b"onet".to_vec(), b"wo".to_vec()]);

    // Given up at every moment; what was received for nobody is lost with its buffer, and that is all.
    for moment in 0..6 {
        let recv = Submission::recv_msg(other, [[0; 8]], Control::with_capacity(64));
        let recv = driver.submit(recv, Token::NONE).unwrap();
        let plain = driver.submit(Submission::recv_from(other, [0; 4]), Token::NONE).unwrap();
        for _ in 0..moment {
            driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        }
        let send = driver.submit(Submission::send_to(one, "whole", to), Token::NONE).unwrap();
        for _ in 0..moment {
            driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        }
        driver.abandon(recv);
        driver.cancel(plain.id());
        driver.abandon(send);
        until(&driver, || driver.is_done(&plain));
        drop(driver.take(plain));
    }
    // And with some in flight at the end.
    let recv =
        driver.submit(Submission::recv_from(other, vec![0; 64].into_boxed_slice()), Token::NONE);
    drop(recv.unwrap());
    driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
    let notifier = driver.notifier();
    drop(driver);
    assert_eq!(notifier.counters().leaked.get(), 0);
    drop(notifier);
    assert_eq!(world.leftovers(), [""; 0]);
    assert_eq!(world.violations(), [""; 0]);
    drop(entered);
    true
}

fn play_all(backend: Backend) {
    let played = (1..=SEEDS).filter(|seed| play(backend, *seed)).count() as u64;
    assert!(played * 2 >= SEEDS, "{played} of {SEEDS} seeds had a driver");
}

#[test]
fn datagrams_on_a_ring_hold_their_memory_to_the_end() {
    play_all(Backend::IoUring);
}

#[test]
fn datagrams_on_readiness_hold_their_memory_to_the_end() {
    play_all(Backend::Epoll);
}
