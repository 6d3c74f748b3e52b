//! Wakes from another thread. Both threads' time counts.
//!
//! `cross_wake` posts without waiting, so that the runtime is mostly awake; `cross_round_trip` posts one at a
//! time to a runtime that sleeps, and is mostly the cost of two threads waking each other; `cross_closure` is
//! `cross_wake` through the runtime's own way of running something for another thread.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use super::{Plan, Runtime};
use crate::system::Clock;

const POSTS: u64 = 50_000;
const ROUND_TRIPS: u64 = 1000;

pub(super) async fn all<R: Runtime>(plan: &Plan) {
    if !R::WOKEN_FROM_AFAR {
        if plan.wants("cross_wake") {
            plan.skip("cross_wake", "its wakers stay on their thread in this build");
        }
        return;
    }
    if plan.wants("cross_wake") {
        let mailbox = Arc::new(Mailbox::default());
        measured::<R>(plan, "cross_wake", POSTS, async |n| {
            let sender = mailbox.clone();
            let thread = thread::spawn(move || (0..n).for_each(|_| sender.post()));
            mailbox.receive(n).await;
            thread.join().expect("it does not panic");
        })
        .await;
    }
    if plan.wants("cross_round_trip") {
        let mailbox = Arc::new(Mailbox::default());
        let sender = mailbox.clone();
        let (ask, asked) = mpsc::channel();
        let thread = thread::spawn(move || asked.iter().for_each(|()| sender.post()));
        measured::<R>(plan, "cross_round_trip", ROUND_TRIPS, async |n| {
            for _ in 0..n {
                ask.send(()).expect("the thread waits");
                mailbox.receive(1).await;
            }
        })
        .await;
        drop(ask);
        thread.join().expect("it does not panic");
    }
    if plan.wants("cross_closure") {
        let Some(remote) = R::remote() else { return };
        let mailbox = Arc::new(Mailbox::default());
        measured::<R>(plan, "cross_closure", POSTS, async |n| {
            let (remote, mailbox_there) = (remote.clone(), mailbox.clone());
            let thread = thread::spawn(move || {
                let ran = Arc::new(AtomicU64::new(0));
                for _ in 0..n {
                    let (ran, mailbox) = (ran.clone(), mailbox_there.clone());
                    remote(Box::new(move || {
                        if ran.fetch_add(1, Ordering::Relaxed) + 1 == n {
                            mailbox.post();
                        }
                    }));
                }
            });
            mailbox.receive(1).await;
            thread.join().expect("it does not panic");
        })
        .await;
    }
}

/// Measures on the process's clock, and tells of the wakes that entered the kernel.
async fn measured<R: Runtime>(plan: &Plan, bench: &str, n: u64, run: impl AsyncFnMut(u64)) {
    let mut run = run;
    let mut batches = 0;
    let turns = R::turns();
    let kernel_wakes = || turns.as_ref().map(|turns| turns().kernel_wakes);
    let before = kernel_wakes();
    let times = plan
        .times(Clock::Process, n, async |n| {
            batches += 1;
            run(n).await;
        })
        .await;
    let mut more = Vec::new();
    if let (Some(before), Some(after)) = (before, kernel_wakes()) {
        more.push(("kernel_wakes_each", (after - before) as f64 / (batches * n) as f64));
    }
    plan.tell(bench, Clock::Process, &times, n, &more);
}

/// Counts what was posted, and wakes whoever waits.
#[derive(Default)]
pub(super) struct Mailbox(Mutex<Mail>);

#[derive(Default)]
struct Mail {
    posted: u64,
    waiting: Option<Waker>,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn post(&self) {
        let mut mail = self.lock();
        mail.posted += 1;
        let waiting = mail.waiting.take();
        drop(mail);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Waits for `n` posts.
    pub(super) async fn receive(&self, n: u64) {
        let mut received = 0;
        poll_fn(|cx| {
            let mut mail = self.lock();
            received += std::mem::take(&mut mail.posted);
            if received >= n {
                return Poll::Ready(());
            }
            let before = mail.waiting.replace(cx.waker().clone());
            drop(mail);
            drop(before);
            Poll::Pending
        })
        .await;
    }
}
