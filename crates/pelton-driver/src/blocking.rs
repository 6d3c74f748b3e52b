//! The blocking pool: threads for calls that have no completion form, and how their results come home.
//!
//! The pool belongs to the process and starts threads as jobs need them, up to a limit; a thread that
//! has had nothing to do for ten seconds ends. Jobs wait in an unbounded queue: a driver never waits for
//! the pool, and nothing is lost when all threads are busy.
//!
//! A job of the driver carries the address of memory that an operation owns. The operation's slot stays
//! busy until the job's result has come back to the driver's thread, so that memory outlives the job;
//! a driver that is dropped waits for its jobs, and leaks what will not end.

// Under a model checker only the models use the pool.
#![cfg_attr(any(loom, shuttle), allow(dead_code))]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
#[cfg(not(any(loom, shuttle)))]
use std::time::Duration;

use crate::notify::Notifier;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::calls;

/// The most threads of the process's pool.
pub const MAX_THREADS: usize = 64;
#[cfg(not(any(loom, shuttle)))]
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    /// Each with a number of its own.
    jobs: VecDeque<(u64, Job)>,
    next: u64,
    /// Threads that run or are being started.
    threads: usize,
    /// Those of them that run: what may be trusted to get to a job.
    running: usize,
    idle: usize,
    /// Models have no clock: the ten seconds are over when they say so.
    #[cfg(any(loom, shuttle))]
    over: bool,
}

#[cfg(not(any(loom, shuttle)))]
static POOL: Pool = Pool {
    state: Mutex::new(State { jobs: VecDeque::new(), next: 0, threads: 0, running: 0, idle: 0 }),
    work: Condvar::new(),
};

/// Runs `job` on a thread of the pool. A job that panics is caught: it kills no thread.
///
/// # Errors
/// The system refused the first thread: the job is dropped. With at least one thread running the job
/// only waits longer.
pub fn run(job: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    match calls::run_blocking(Box::new(job)) {
        Ok(()) => Ok(()),
        Err(job) => on_threads(job),
    }
}

#[cfg(not(any(loom, shuttle)))]
fn on_threads(job: Job) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("pelton-blocking".into());
    run_on(&POOL, job, || thread.spawn(|| work(&POOL)).map(drop))
}

/// A model has a pool of its own.
#[cfg(any(loom, shuttle))]
fn on_threads(_: Job) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// [`run`] with the system call passed in, for tests that refuse it.
fn run_on(
    pool: &Pool,
    job: Job,
    spawn: impl FnOnce() -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut state = lock(pool);
    let number = state.next;
    state.next += 1;
    state.jobs.push_back((number, job));
    if state.idle >= state.jobs.len() {
        pool.work.notify_one();
        return Ok(());
    }
    if state.threads == MAX_THREADS {
        return Ok(());
    }
    state.threads += 1;
    drop(state);
    let Err(error) = spawn() else { return Ok(()) };
    let mut state = lock(pool);
    state.threads -= 1;
    if state.running > 0 {
        pool.work.notify_one();
        return Ok(());
    }
    // This very job, and no other: whoever submitted that one has been told, or will be, how it goes. A
    // thread that is being started may have taken it, which is as good.
    let Some(at) = state.jobs.iter().position(|(other, _)| *other == number) else { return Ok(()) };
    let refused = state.jobs.remove(at);
    drop(state);
    drop(refused);
    Err(error)
}

fn lock(pool: &Pool) -> MutexGuard<'_, State> {
    pool.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(pool: &Pool) {
    let mut state = lock(pool);
    state.running += 1;
    loop {
        if let Some((_, job)) = state.jobs.pop_front() {
            drop(state);
            // Whoever waits for the job learns of its panic by its own means. What the panic carries is
            // dropped here, which may panic in turn; the second one is forgotten, or this would not end.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(panic))).map_err(std::mem::forget);
            }
            state = lock(pool);
            continue;
        }
        state.idle += 1;
        let over;
        (state, over) = rest(pool, state);
        state.idle -= 1;
        if over && state.jobs.is_empty() {
            state.threads -= 1;
            state.running -= 1;
            return;
        }
    }
}

/// Waits for work: true when there was none for too long.
#[cfg(not(any(loom, shuttle)))]
fn rest<'a>(pool: &'a Pool, state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, bool) {
    let (state, timeout) =
        pool.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
    (state, timeout.timed_out())
}

#[cfg(any(loom, shuttle))]
fn rest<'a>(pool: &'a Pool, state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, bool) {
    if state.over {
        return (state, true);
    }
    let state = pool.work.wait(state).unwrap_or_else(PoisonError::into_inner);
    let over = state.over;
    (state, over)
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
        let result = catch_unwind(AssertUnwindSafe(job.call)).unwrap_or(-crate::sys::errno::EIO);
        replies.push(job.user_data, result);
        // A wake that fails is counted; the latch is rolled back and the result waits in the list.
        let _ = home.notify();
    })
    .is_ok()
}

#[cfg(all(test, any(loom, shuttle)))]
mod models;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    #[cfg_attr(miri, ignore = "the pool's threads outlive it")]
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
        assert!(lock(&POOL).threads <= MAX_THREADS);
    }

    #[test]
    fn a_thread_that_cannot_be_had_refuses_its_own_job_and_not_that_of_another() {
        let pool = Pool { state: Mutex::default(), work: Condvar::new() };
        let refuse = || Err(std::io::ErrorKind::OutOfMemory.into());
        let (done, results) = mpsc::channel();
        let job = |n: u32| -> Job {
            let done = done.clone();
            Box::new(move || done.send(n).unwrap())
        };
        // While the system refuses the first one's thread, a second job comes and is refused too.
        let first = run_on(&pool, job(1), || {
            assert!(run_on(&pool, job(2), refuse).is_err());
            refuse()
        });
        assert!(first.is_err(), "nobody would ever run it");
        assert!(lock(&pool).jobs.is_empty());
        assert_eq!(lock(&pool).threads, 0);
        drop(done);
        assert_eq!(results.iter().count(), 0, "a job that was refused does not run");
    }
}
