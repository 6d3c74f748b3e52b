//! Queues that are too small, signals without end, and callbacks that panic: nothing is lost, and it is
//! counted.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
#[cfg(unix)]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use pelton_driver::*;

on_every_backend! {
    four_hundred_operations_pass_a_submission_queue_of_four
    cancels_pass_a_submission_queue_that_is_full
    a_completion_queue_of_eight_serves_24_connections
    a_completion_queue_of_eight_serves_24_connections_that_receive_on_and_on
    a_flood_of_accepts_passes_a_completion_queue_of_eight
    a_callback_that_panics_loses_no_event
    a_callback_that_panics_loses_no_file_result_and_no_wake
}

#[cfg(unix)]
mod unix_alone {
    use super::*;

    on_every_backend! {
        a_storm_of_signals_loses_nothing
    }
}

fn tiny() -> Config {
    Config { ring_entries: 4, completion_entries: 8, ..small() }
}

fn four_hundred_operations_pass_a_submission_queue_of_four(on: &On) {
    let driver = on.driver_with(Config { ring_entries: 4, ..small() });
    let connections: Vec<_> = (0..100).map(|_| tcp(&driver)).collect();
    let mut keys = Vec::new();
    for (n, (fd, _)) in connections.iter().enumerate() {
        for part in 0..4 {
            let bytes = pattern(n * 4 + part, 50);
            keys.push(driver.go_for(Submission::send_all(*fd, bytes), keys.len()));
        }
    }
    let mut told = vec![0; 400];
    while told.contains(&0) {
        driver.tick(Some(WATCHDOG), |of| told[of.token.as_number()] += 1).unwrap();
    }
    assert!(driver.settle().is_empty());
    assert!(told.iter().all(|n| *n == 1));
    for key in keys {
        assert_eq!(driver.take(key).unwrap().0.unwrap(), 50);
    }
    for (n, (_, peer)) in connections.iter().enumerate() {
        let mut received = vec![0; 200];
        (&mut &*peer).read_exact(&mut received).unwrap();
        let expected: Vec<u8> = (0..4).flat_map(|part| pattern(n * 4 + part, 50)).collect();
        assert!(received == expected, "in the order of their submission");
    }
    let full = driver.snapshot().sq_full;
    assert!(if on.is_uring() { full > 50 } else { full == 0 }, "the queue was full {full} times");
}

fn cancels_pass_a_submission_queue_that_is_full(on: &On) {
    let driver = on.driver_with(tiny());
    let (fd, _peer) = tcp(&driver);
    let keys: Vec<_> = (0..200).map(|_| driver.go(Submission::recv(fd, [0; 8]))).collect();
    let (kept, given_up) = (keys.len() / 2, keys.len() / 2);
    let mut keys = keys.into_iter();
    for key in keys.by_ref().take(given_up) {
        driver.abandon(key);
    }
    let keys: Vec<_> = keys.collect();
    for key in &keys {
        assert!(driver.cancel(key.id()));
    }
    let mut told = 0;
    while told < kept {
        let tick = driver.tick(Some(WATCHDOG), |of| told += usize::from(!of.more)).unwrap();
        assert!(tick.completions > 0 || told < kept);
    }
    for key in keys {
        assert_eq!(errno(driver.take(key).unwrap().0), errno::ECANCELED);
    }
    driver.settle();
    assert_eq!((driver.operations(), driver.snapshot().orphans), (0, 0));
}

/// Each of 24 connections sends at once, for eight rounds, and gets back what it sent.
fn echo_in_rounds(driver: &Driver, mut echo: impl FnMut(&Driver, &[Fd])) {
    let connections: Vec<_> = (0..24).map(|_| tcp(driver)).collect();
    let fds: Vec<Fd> = connections.iter().map(|(fd, _)| *fd).collect();
    let peers: Vec<TcpStream> = connections.into_iter().map(|(_, peer)| peer).collect();
    let (sent, all_sent) = std::sync::mpsc::channel();
    let answered = Arc::new(AtomicUsize::new(0));
    let rounds = answered.clone();
    let clients = std::thread::spawn(move || {
        for round in 0..8 {
            for (n, peer) in peers.iter().enumerate() {
                (&mut &*peer).write_all(&pattern(n * 8 + round, 700 + n)).unwrap();
            }
            sent.send(()).unwrap();
            for (n, peer) in peers.iter().enumerate() {
                let mut back = vec![0; 700 + n];
                (&mut &*peer).read_exact(&mut back).unwrap();
                assert!(back == pattern(n * 8 + round, 700 + n), "connection {n}, round {round}");
            }
            rounds.fetch_add(1, Ordering::Release);
        }
    });
    for round in 0..8 {
        // All of them have something before the driver looks: that is what fills the queue.
        all_sent.recv().unwrap();
        while answered.load(Ordering::Acquire) == round && !clients.is_finished() {
            echo(driver, &fds);
        }
    }
    clients.join().unwrap();
}

fn a_completion_queue_of_eight_serves_24_connections(on: &On) {
    let driver = on.driver_with(Config { pool_buffers: 32, ..tiny() });
    let mut waiting: Vec<Option<Key<Leasing>>> = Vec::new();
    let mut sends: Vec<Key<Sending<Lease>>> = Vec::new();
    echo_in_rounds(&driver, |driver, fds| {
        if waiting.is_empty() {
            waiting = fds.iter().map(|fd| Some(driver.go(Submission::recv_pooled(*fd)))).collect();
        }
        driver.tick(Some(Duration::from_millis(100)), |_| {}).unwrap();
        for (n, slot) in waiting.iter_mut().enumerate() {
            let Some(outcome) = driver.take_if_done(slot) else { continue };
            if let Some(lease) = outcome.unwrap() {
                sends.push(driver.go(Submission::send_all(fds[n], lease)));
                *slot = Some(driver.go(Submission::recv_pooled(fds[n])));
            }
        }
        sends = std::mem::take(&mut sends)
            .into_iter()
            .filter_map(|key| match driver.take(key) {
                Ok((sent, _)) => sent.map(|_| None).unwrap(),
                Err(key) => Some(key),
            })
            .collect();
    });
    let counters = driver.snapshot();
    assert!(!on.is_uring() || counters.cq_overflows > 0, "the queue never overflowed");
}

fn a_completion_queue_of_eight_serves_24_connections_that_receive_on_and_on(on: &On) {
    // Few buffers, filled piece by piece where the kernel can: a receive that ends for want of room in
    // the queue may leave a buffer half full at the head of the kernel's ring.
    let driver = on.driver_with(Config { pool_buffers: 8, pool_buffer_len: 2048, ..tiny() });
    let mut waiting: Vec<Key<ManyLeases>> = Vec::new();
    let mut sends: Vec<Key<Sending<Lease>>> = Vec::new();
    let mut queued: Vec<std::collections::VecDeque<Lease>> = Vec::new();
    let mut sending = [false; 24];
    let mut starts = std::collections::BTreeSet::new();
    echo_in_rounds(&driver, |driver, fds| {
        if waiting.is_empty() {
            waiting = (0..24).map(|n| driver.go_for(Submission::recv_multi(fds[n]), n)).collect();
            queued = (0..24).map(|_| Default::default()).collect();
        }
        driver.tick(Some(Duration::from_millis(100)), |_| {}).unwrap();
        for (n, key) in waiting.iter().enumerate() {
            let new = std::iter::from_fn(|| driver.next(key));
            queued[n].extend(new.inspect(|lease| {
                starts.insert(lease.as_ptr().addr() % 2048);
            }));
        }
        sends = std::mem::take(&mut sends)
            .into_iter()
            .filter_map(|key| match driver.take(key) {
                Ok((sent, lease)) => {
                    assert_eq!(sent.unwrap(), lease.len());
                    None
                }
                Err(key) => Some(key),
            })
            .collect();
        if sends.is_empty() {
            sending.fill(false);
        }
        // One at a time on each connection: their order is what is echoed.
        for (n, queue) in queued.iter_mut().enumerate() {
            if !sending[n]
                && let Some(lease) = queue.pop_front()
            {
                sending[n] = true;
                sends.push(driver.go(Submission::send_all(fds[n], lease)));
            }
        }
    });
    let counters = driver.snapshot();
    assert!(!on.is_uring() || counters.cq_overflows > 0, "the queue never overflowed");
    // The buffers lie side by side, so that what begins elsewhere than the first does is behind something
    // in the same buffer.
    if on.fills_buffers_piecewise() {
        assert!(starts.len() > 1, "no receive went on in a buffer that another had begun");
    } else {
        skipped("this backend gives each receive a whole buffer");
    }
    drop(queued);
    drop(sends);
    for key in waiting {
        driver.abandon(key);
    }
    driver.settle();
}

fn a_flood_of_accepts_passes_a_completion_queue_of_eight(on: &On) {
    let driver = on.driver_with(tiny());
    let (listener, address) = listener();
    let listener = attach(&driver, listener);
    let key = driver.go(Submission::accept_multi(listener));
    driver.settle();
    let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut accepted = Vec::new();
    driver.until(|| {
        accepted.extend(std::iter::from_fn(|| driver.next(&key)));
        accepted.len() == clients.len()
    });
    assert!(!driver.is_done(&key), "it goes on");
    assert!(!on.is_uring() || driver.snapshot().cq_overflows > 0, "the queue never overflowed");
}

#[cfg(unix)]
fn a_storm_of_signals_loses_nothing(on: &On) {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the action is whole, its handler does nothing, and without SA_RESTART a wait is interrupted.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    // SAFETY: names this thread, which outlives the two others: they are joined below.
    let this = unsafe { libc::pthread_self() };
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let (stopped, counts) = (stop.clone(), sent.clone());
    let storm = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            // SAFETY: the thread lives, and the signal has a handler.
            assert_eq!(unsafe { libc::pthread_kill(this, libc::SIGUSR1) }, 0);
            if counts.fetch_add(1, Ordering::Relaxed) % 64 == 63 {
                std::thread::yield_now();
            }
        }
    });
    let client = std::thread::spawn(move || {
        for round in 0..2000 {
            peer.write_all(&pattern(round, 64)).unwrap();
            let mut back = [0; 64];
            peer.read_exact(&mut back).unwrap();
            assert!(back[..] == pattern(round, 64));
        }
    });
    for _ in 0..2000 {
        let mut received = 0;
        while received < 64 {
            let timer = driver.go(Submission::timeout(std::time::Instant::now() + WATCHDOG));
            let lease = driver.run(Submission::recv_pooled(fd)).unwrap().unwrap();
            received += lease.len();
            driver.run(Submission::send_all(fd, lease)).0.unwrap();
            driver.abandon(timer);
        }
    }
    client.join().unwrap();
    // Waits that only signals break, until there were enough of both: none of them is an error.
    let give_up = std::time::Instant::now() + WATCHDOG;
    while driver.snapshot().ticks < 10_000 || sent.load(Ordering::Relaxed) < 10_000 {
        assert!(std::time::Instant::now() < give_up, "{sent:?} signals are no storm");
        driver.tick(Some(Duration::from_millis(50)), |_| {}).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    storm.join().unwrap();
    assert_eq!(driver.snapshot().stale, 0);
}

fn a_callback_that_panics_loses_no_event(on: &On) {
    let driver = on.driver();
    let connections: Vec<_> = (0..20).map(|_| tcp(&driver)).collect();
    let keys: Vec<_> = connections
        .iter()
        .enumerate()
        .map(|(n, (fd, _))| {
            let other = driver.go_for(Submission::recv(*fd, [0; 2]), 20 + n);
            (driver.go_for(Submission::recv(*fd, [0; 2]), n), other)
        })
        .collect();
    let multi = tcp(&driver);
    let multi_key = driver.go_for(Submission::recv_multi(multi.0), 40);
    driver.settle();
    for (_, peer) in &connections {
        (&mut &*peer).write_all(b"abcd").unwrap();
    }
    (&mut &multi.1).write_all(&pattern(1, 100)).unwrap();
    let mut told = vec![0; 41];
    let mut panics = 0;
    while told.contains(&0) {
        let tick = catch_unwind(AssertUnwindSafe(|| {
            driver.tick(Some(WATCHDOG), |of| {
                told[of.token.as_number()] += 1;
                std::panic::resume_unwind(Box::new("on purpose"));
            })
        }));
        match tick {
            Ok(tick) => assert!(tick.unwrap().woken, "nothing came of it: {told:?}"),
            Err(_) => panics += 1,
        }
    }
    assert!(panics >= 41);
    assert!(told[..40].iter().all(|n| *n == 1), "{told:?}");
    for (one, other) in keys {
        assert_eq!(driver.take(one).unwrap().0.unwrap(), 2);
        assert_eq!(driver.take(other).unwrap().0.unwrap(), 2);
    }
    driver.abandon(multi_key);
}

fn a_callback_that_panics_loses_no_file_result_and_no_wake(on: &On) {
    let driver = on.driver();
    let fd = attach(&driver, file());
    let notifier = driver.notifier();
    for round in 0..50 {
        let mut told = [0; 8];
        let writes: Vec<_> =
            (0..6).map(|n| driver.go_for(Submission::write_at(fd, [1; 8], 0), n)).collect();
        let wake = driver.go_for(Submission::wake(), 6);
        let second = driver.go_for(Submission::wake(), 7);
        notifier.notify().unwrap();
        while told.contains(&0) {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                driver.tick(Some(WATCHDOG), |of| {
                    told[of.token.as_number()] += 1;
                    std::panic::resume_unwind(Box::new("on purpose"));
                })
            }));
        }
        assert_eq!(told, [1; 8], "round {round}");
        for key in writes {
            assert_eq!(driver.take(key).unwrap().0.unwrap(), 8);
        }
        driver.take(wake).unwrap().unwrap();
        driver.take(second).unwrap().unwrap();
    }
}
