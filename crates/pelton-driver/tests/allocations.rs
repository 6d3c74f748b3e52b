//! After a warm-up an operation allocates nothing.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::*;
use pelton_driver::*;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
struct Counting;

// SAFETY: everything is passed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is this one's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `round` until the driver is warm, and then again, counting what this thread allocates.
#[track_caller]
fn allocates_nothing(what: &str, mut round: impl FnMut()) {
    (0..200).for_each(|_| round());
    let before = COUNT.get();
    (0..500).for_each(|_| round());
    let count = COUNT.get() - before;
    assert_eq!(count, 0, "{what}: {count} allocations in 500 rounds");
}

#[test]
fn the_counter_counts() {
    let before = COUNT.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(COUNT.get() - before, 1);
}

on_every_backend! {
    a_receive_and_a_send_allocate_nothing
    pooled_receives_allocate_nothing
    vectored_operations_allocate_nothing
    accepts_and_closes_allocate_nothing
    timers_polls_cancels_and_wakes_allocate_nothing
}

/// Ticks, without keeping what it is told.
fn end<P: Payload>(driver: &Driver, key: Key<P>) -> P::Output {
    let give_up = Instant::now() + WATCHDOG;
    let mut key = Some(key);
    // Once in any case: what ended at once is still to be told of.
    driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
    loop {
        if let Some(outcome) = driver.take_if_done(&mut key) {
            return outcome;
        }
        assert!(Instant::now() < give_up);
        driver.tick(Some(Duration::from_secs(1)), |_| {}).unwrap();
    }
}

fn a_receive_and_a_send_allocate_nothing(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let mut buf = Vec::with_capacity(64);
    allocates_nothing("an owned receive and a send, ready and waiting", || {
        for ready in [true, false] {
            if ready {
                peer.write_all(b"hello").unwrap();
            }
            buf.clear();
            let key = driver.go(Submission::recv(fd, std::mem::take(&mut buf)));
            if !ready {
                driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
                peer.write_all(b"hello").unwrap();
            }
            let (n, received) = end(&driver, key);
            assert_eq!(n.unwrap(), 5);
            let (n, received) = end(&driver, driver.go(Submission::send_all(fd, received)));
            assert_eq!(n.unwrap(), 5);
            buf = received;
            peer.read_exact(&mut [0; 5]).unwrap();
        }
    });
    allocates_nothing("an array in the slot", || {
        peer.write_all(b"hello").unwrap();
        let (n, _) = end(&driver, driver.go(Submission::recv(fd, [0; 24])));
        assert_eq!(n.unwrap(), 5);
    });
}

fn pooled_receives_allocate_nothing(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    allocates_nothing("a pooled receive that is sent back", || {
        let mut key = Some(driver.go(Submission::recv_pooled(fd)));
        peer.write_all(b"hello").unwrap();
        let mut echoed = 0;
        while echoed < 5 {
            let key = key.take().unwrap_or_else(|| driver.go(Submission::recv_pooled(fd)));
            let lease = end(&driver, key).unwrap().unwrap();
            echoed += lease.len();
            end(&driver, driver.go(Submission::send_all(fd, lease))).0.unwrap();
        }
        peer.read_exact(&mut [0; 5]).unwrap();
    });
    let key = driver.go(Submission::recv_multi(fd));
    allocates_nothing("a receive that goes on", || {
        peer.write_all(b"hello").unwrap();
        // In two pieces where the first one ends a buffer.
        let mut received = 0;
        while received < 5 {
            driver.tick(Some(Duration::from_secs(1)), |_| {}).unwrap();
            received += std::iter::from_fn(|| driver.next(&key)).map(|l| l.len()).sum::<usize>();
        }
    });
    driver.abandon(key);
}

fn vectored_operations_allocate_nothing(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let mut bufs = Some([Vec::with_capacity(4), Vec::with_capacity(60)]);
    allocates_nothing("a vectored receive and send", || {
        peer.write_all(b"head and body").unwrap();
        let mut empty = bufs.take().unwrap();
        empty.iter_mut().for_each(Vec::clear);
        // The two owners together are larger than a slot has room for: that box is documented. Boxed
        // beforehand there is none.
        let (n, filled) = end(&driver, driver.go(Submission::recv_vectored(fd, empty)));
        assert_eq!(n.unwrap(), 13);
        bufs = Some(filled);
        COUNT.set(COUNT.get() - 1);
    });
    let mut parts = Some(vec![[1_u8; 8]; 4]);
    allocates_nothing("a vectored send of a vector", || {
        let send = Submission::send_vectored_all(fd, parts.take().unwrap());
        let (n, back) = end(&driver, driver.go(send));
        assert_eq!(n.unwrap(), 32);
        parts = Some(back);
        peer.read_exact(&mut [0; 32]).unwrap();
    });
}

fn accepts_and_closes_allocate_nothing(on: &On) {
    let driver = on.driver();
    let (listener, address) = listener();
    let listener = attach(&driver, listener);
    allocates_nothing("an accept, and a close that is waited for", || {
        let _client = TcpStream::connect(address).unwrap();
        let accepted = end(&driver, driver.go(Submission::accept(listener))).unwrap();
        let fd = driver.attach_stream(accepted.descriptor).unwrap();
        end(&driver, driver.go(Submission::close(fd))).unwrap();
    });
    let key = driver.go(Submission::accept_multi(listener));
    allocates_nothing("an accept that goes on, and a close that is not waited for", || {
        let _client = TcpStream::connect(address).unwrap();
        loop {
            driver.tick(Some(Duration::from_secs(1)), |_| {}).unwrap();
            if let Some(connection) = driver.next(&key) {
                let fd = driver.attach_stream(connection).unwrap();
                driver.close(fd);
                break;
            }
        }
    });
    driver.abandon(key);
}

fn timers_polls_cancels_and_wakes_allocate_nothing(on: &On) {
    let driver = on.driver();
    let notifier = driver.notifier();
    let (fd, _peer) = tcp(&driver);
    let soon = || Submission::timeout(Instant::now() + Duration::from_micros(50));
    allocates_nothing("a timer", || assert_eq!(end(&driver, driver.go(soon())).unwrap(), 0));
    allocates_nothing("a timer that is cancelled, and one that is abandoned", || {
        let far = Instant::now() + Duration::from_secs(99);
        let key = driver.go(Submission::timeout(far));
        driver.cancel(key.id());
        assert!(
            end(&driver, key).is_err_and(|error| error.raw_os_error() == Some(errno::ECANCELED))
        );
        let key = driver.go(Submission::timeout(far));
        driver.abandon(key);
        driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
    });
    allocates_nothing("a wake", || {
        let key = driver.go(Submission::wake());
        notifier.notify().unwrap();
        end(&driver, key).unwrap();
    });
    allocates_nothing("a poll, a cancelled receive, a nop", || {
        end(&driver, driver.go(Submission::poll(fd, Interest::Writable))).unwrap();
        let key = driver.go(Submission::recv(fd, [0; 8]));
        end(&driver, driver.go(Submission::cancel(key.id()))).unwrap();
        assert!(end(&driver, key).0.is_err());
        end(&driver, driver.go(Submission::nop())).unwrap();
    });
}
