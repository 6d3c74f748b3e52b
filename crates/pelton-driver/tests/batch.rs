//! The opt-in batching wait: it gathers, it hangs on nothing, and where it cannot be had it says so.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::*;
use pelton_driver::*;

fn gathering(backend: Backend) -> Result<Driver, Error> {
    Driver::new(Config { backend, batch_wait: Duration::from_millis(10), ..small() })
}

/// A driver that gathers; none, and said so, where the kernel has no such wait.
fn gathers() -> Option<Driver> {
    match gathering(Backend::IoUring) {
        Ok(driver) => Some(driver),
        Err(Error::Unsupported { backend: Backend::IoUring, reason }) => {
            skipped(&reason);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn without_a_kernel_that_gathers_it_is_a_typed_error_that_names_the_setting() {
    let other = if cfg!(windows) { Backend::Iocp } else { Backend::Epoll };
    match gathering(other) {
        Err(Error::Unsupported { backend, reason }) if backend == other => {
            assert!(reason.contains("batch_wait"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wait_too_long_is_refused_by_name() {
    let config = Config { batch_wait: Duration::from_secs(1), ..small() };
    assert_eq!(config.check().unwrap_err().field, "batch_wait");
}

#[test]
fn one_completion_is_handed_over_though_the_batch_never_fills() {
    let Some(driver) = gathers() else { return };
    let (fd, mut peer) = tcp(&driver);
    for round in 0..20 {
        let key = driver.go(Submission::recv(fd, [0; 8]));
        peer.write_all(&pattern(round, 8)).unwrap();
        let (n, buf) = driver.end(key);
        assert_eq!((n.unwrap(), &buf[..]), (8, &pattern(round, 8)[..]));
    }
}

#[test]
fn what_is_done_as_soon_as_it_is_submitted_is_handed_over_though_nothing_else_comes() {
    let Some(driver) = gathers() else { return };
    let (fd, mut peer) = tcp(&driver);
    for round in 0..5 {
        // Its completion is there before the wait begins.
        assert_eq!(driver.run(Submission::send_all(fd, pattern(round, 8))).0.unwrap(), 8);
        let mut got = [0; 8];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got[..], pattern(round, 8)[..]);
    }
}

#[test]
fn what_arrives_while_it_gathers_comes_with_one_wait() {
    let Some(driver) = gathers() else { return };
    let pairs: Vec<_> = (0..Config::BATCH).map(|_| tcp(&driver)).collect();
    let keys: Vec<_> =
        pairs.iter().map(|(fd, _)| driver.go(Submission::recv(*fd, [0; 8]))).collect();
    driver.tick(Some(Duration::ZERO), |_| panic!("nothing was sent")).unwrap();
    for (_, peer) in &pairs {
        (&*peer).write_all(b"x").unwrap();
    }
    let mut told = 0;
    let before = driver.counters().enters.get();
    while told < keys.len() {
        told += driver.tick(None, |_| ()).unwrap().completions;
    }
    // The kernel hands over what it deferred in portions; without gathering each would be a wait.
    let enters = driver.counters().enters.get() - before;
    assert!(enters <= 4, "{enters} entries for {told} completions");
    for key in keys {
        assert_eq!(driver.end(key).0.unwrap(), 1);
    }
}

#[test]
fn timers_and_wakes_end_the_wait() {
    let Some(driver) = gathers() else { return };
    let (fd, _peer) = tcp(&driver);
    let waits = driver.go(Submission::recv(fd, [0; 8]));
    let deadline = Instant::now() + Duration::from_millis(1);
    driver.run(Submission::timeout(deadline)).unwrap();
    assert!(Instant::now() >= deadline);
    let notifier = driver.notifier();
    let wake = driver.go(Submission::wake());
    let other = std::thread::spawn(move || notifier.notify());
    driver.end(wake).unwrap();
    other.join().unwrap().unwrap();
    driver.abandon(waits);
}

#[test]
fn a_wait_in_which_nothing_happens_goes_on_when_the_batchs_time_is_over() {
    let config = Config {
        backend: Backend::IoUring,
        batch_wait: Duration::from_millis(1),
        shutdown_timeout: Duration::from_millis(100),
        ..small()
    };
    if gathers().is_none() {
        return;
    }
    let driver = Driver::new(config).unwrap();
    let notifier = driver.notifier();
    let other = std::thread::spawn(move || {
        // Much longer than the batch's time: a wait that ends with it ends before this.
        std::thread::sleep(Duration::from_millis(50));
        notifier.notify()
    });
    let mut ticks = 0;
    while !driver.tick(None, |_| panic!("nothing was submitted")).unwrap().woken {
        ticks += 1;
    }
    other.join().unwrap().unwrap();
    assert!(ticks <= 3, "{ticks} ticks for nothing");
}
