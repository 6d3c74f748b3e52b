//! The count of requests that ends a program: `--stop-after`.
//!
//! Counts of instructions and of allocations want a program that ends by itself, at the same request every
//! time, because a signal is delivered whenever it happens to be.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::allocs;

static DONE: AtomicU64 = AtomicU64::new(0);
/// The count at which something is to be done next.
static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);
static LAST: AtomicU64 = AtomicU64::new(u64::MAX);
static ENDING: AtomicBool = AtomicBool::new(false);

/// Ends the program after `last` requests. Allocations are counted from the half on, so that what a runtime
/// allocates once is not among them.
pub fn stop_after(last: u64, count_allocs: bool) {
    LAST.store(last, Relaxed);
    let half = if count_allocs { last / 2 } else { last };
    NEXT.store(half.max(1), Relaxed);
    if count_allocs && last < 2 {
        allocs::start();
    }
}

/// One request more, where one thread alone counts: a load, an addition and a store.
#[inline]
pub fn one() {
    let done = DONE.load(Relaxed) + 1;
    DONE.store(done, Relaxed);
    if done >= NEXT.load(Relaxed) {
        reached(done);
    }
}

/// One request more, where several threads count. Without `--stop-after` nothing is counted, so that threads
/// do not share a cache line for nothing.
#[inline]
pub fn one_of_many() {
    let next = NEXT.load(Relaxed);
    if next == u64::MAX {
        return;
    }
    let done = DONE.fetch_add(1, Relaxed) + 1;
    if done >= next {
        reached(done);
    }
}

#[cold]
fn reached(done: u64) {
    let last = LAST.load(Relaxed);
    if done < last {
        NEXT.store(last, Relaxed);
        allocs::start();
        return;
    }
    if ENDING.swap(true, Relaxed) {
        return;
    }
    if let Some((allocs, bytes)) = allocs::counted() {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "allocs={allocs} bytes={bytes}");
        let _ = out.flush();
    }
    std::process::exit(0);
}
