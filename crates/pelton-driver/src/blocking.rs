//! The blocking pool: threads for calls that have no completion form, and how their results come home.
//!
//! The pool belongs to the process and starts threads as jobs need them, up to a limit; a thread that
//! has had nothing to do for ten seconds ends. Jobs wait in an unbounded queue: a driver never waits for
//! the pool, and nothing is lost when all threads are busy.
//!
//! A job of the driver carries the address of memory that an operation owns. The operation's slot stays
//! busy until the job's result has come back to the driver's thread, so that memory outlives the job;
//! a driver that is dropped waits for its jobs, and leaks what will not end.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::notify::Notifier;

/// The most threads of the process's pool.
pub const MAX_THREADS: usize = 64;
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static POOL: Pool = Pool {
    state: Mutex::new(State { jobs: VecDeque::new(), threads: 0, idle: 0 }),
    work: Condvar::new(),
};

/// Runs `job` on a thread of the pool. A job that panics is caught: it kills no thread.
///
/// # Errors
/// The system refused the first thread: the job is dropped. With at least one thread running the job
/// only waits longer.
pub fn run(job: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let mut state = lock();
    state.jobs.push_back(Box::new(job));
    if state.idle >= state.jobs.len() {
        POOL.work.notify_one();
        return Ok(());
    }
    if state.threads == MAX_THREADS {
        return Ok(());
    }
    state.threads += 1;
    drop(state);
    let thread = std::thread::Builder::new().name("pelton-blocking".into()).spawn(work);
    let Err(error) = thread else { return Ok(()) };
    let mut state = lock();
    state.threads -= 1;
    if state.threads > 0 {
        POOL.work.notify_one();
        return Ok(());
    }
    let refused = state.jobs.pop_back();
    drop(state);
    drop(refused);
    Err(error)
}

fn lock() -> MutexGuard<'static, State> {
    POOL.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work() {
    let mut state = lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            // Whoever waits for the job learns of its panic by its own means.
            let _ = catch_unwind(AssertUnwindSafe(job));
            state = lock();
            continue;
        }
        state.idle += 1;
        let (guard, timeout) =
            POOL.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = guard;
        state.idle -= 1;
        if timeout.timed_out() && state.jobs.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}

/// Results on their way home to one driver.
#[derive(Default)]
pub(crate) struct Replies {
    done: Mutex<Vec<(u64, i32)>>,
}

impl Replies {
    fn push(&self, user_data: u64, result: i32) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push((user_data, result));
    }

    /// Moves the results into `into`, which keeps its memory from one call to the next.
    pub(crate) fn drain(&self, into: &mut VecDeque<(u64, i32)>) {
        into.extend(self.done.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
    }
}

/// A file operation for the pool.
pub(crate) struct FileJob {
    pub(crate) call: Box<dyn FnOnce() -> i32 + Send>,
    pub(crate) user_data: u64,
}

/// Sends a job to the pool; its result comes home through `replies`. False when no thread could be had.
pub(crate) fn submit(job: FileJob, replies: Arc<Replies>, home: Notifier) -> bool {
    run(move || {
        // A result must come home whatever happens: the slot waits for it.
        let result = catch_unwind(AssertUnwindSafe(job.call)).unwrap_or(-libc::EIO);
        replies.push(job.user_data, result);
        // A wake that fails is counted; the latch is rolled back and the result waits in the list.
        let _ = home.notify();
    })
    .is_ok()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn more_jobs_than_threads_all_run_and_a_panic_kills_no_thread() {
        let (done, results) = mpsc::channel();
        for n in 0..1000 {
            let done = done.clone();
            run(move || {
                done.send(n).unwrap();
                assert!(n % 10 != 0, "on purpose");
            })
            .unwrap();
        }
        drop(done);
        let mut all: Vec<i32> = results.iter().collect();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        assert!(lock().threads <= MAX_THREADS);
    }
}
