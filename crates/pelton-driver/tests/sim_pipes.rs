//! Pipes on the simulator, small enough for Miri: both rooms, given up at every moment, with every access to memory
//! checked.
#![cfg(all(unix, feature = "sim"))]

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

fn go<P: Payload>(driver: &Driver, submission: Submission<P>) -> Key<P> {
    driver.submit(submission, Token::NONE).unwrap_or_else(|r| panic!("{}", r.error))
}

fn end<P: Payload>(driver: &Driver, key: Key<P>) -> P::Output {
    until(driver, || driver.is_done(&key));
    driver.take(key).unwrap_or_else(|_| panic!("it is done"))
}

fn run<P: Payload>(driver: &Driver, submission: Submission<P>) -> P::Output {
    end(driver, go(driver, submission))
}

/// A driver of a world; none where the faults refused a ring.
fn driver(backend: Backend) -> Option<Driver> {
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
    match Driver::new(config) {
        Ok(driver) => Some(driver),
        Err(Error::Unsupported { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

fn in_worlds(play: fn(&Driver)) {
    for backend in [Backend::IoUring, Backend::Epoll] {
        let mut played = 0;
        for seed in 0..SEEDS {
            let faults = Faults::swarm(seed).harmless();
            let world = World::new(&WorldOptions { faults, ..WorldOptions::new(seed) });
            let entered = world.enter();
            let Some(driver) = driver(backend) else { continue };
            play(&driver);
            let notifier = driver.notifier();
            drop(driver);
            assert_eq!(notifier.counters().snapshot().leaked, 0);
            drop(notifier);
            drop(entered);
            assert_eq!(world.violations(), Vec::<String>::new(), "seed {seed}");
            assert_eq!(world.leftovers(), Vec::<String>::new(), "seed {seed}");
            played += 1;
        }
        assert!(played > 0, "no world had {backend}");
    }
}

#[test]
fn pipes_carry_their_bytes_and_are_given_up_at_every_moment() {
    in_worlds(|driver| {
        let (from, to) = driver.pipe().unwrap();
        let bytes: Vec<u8> = (0..6000).map(|n| (n % 251) as u8).collect();
        let write = go(driver, Submission::write_all(to, bytes.clone()));
        let mut got = Vec::new();
        while got.len() < bytes.len() {
            let (n, part) = run(driver, Submission::read(from, Vec::with_capacity(1000)));
            assert_eq!(n.unwrap(), part.len());
            got.extend(part);
        }
        assert!(got == bytes);
        assert_eq!(end(driver, write).0.unwrap(), bytes.len());
        for moment in 0..6 {
            let read = go(driver, Submission::read(from, Vec::with_capacity(8)));
            let wait = go(driver, Submission::poll(from, Interest::Readable));
            let write = go(driver, Submission::write_all(to, vec![1; 3]));
            for _ in 0..moment {
                driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
            }
            driver.abandon(read);
            driver.abandon(wait);
            driver.abandon(write);
            until(driver, || driver.operations() == 0);
        }
        run(driver, Submission::close(to)).unwrap();
        loop {
            let (n, _) = run(driver, Submission::read(from, [0; 8]));
            if n.unwrap() == 0 {
                break;
            }
        }
        // And one whose reader goes.
        let (from, to) = driver.pipe().unwrap();
        let write = go(driver, Submission::write_all(to, vec![2; 70_000]));
        let reads = go(driver, Submission::read(from, [0; 8]));
        let _ = run(driver, Submission::close(from));
        let _ = end(driver, reads);
        assert_eq!(end(driver, write).0.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    });
}
