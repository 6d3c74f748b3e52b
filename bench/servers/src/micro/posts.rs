//! How many wakes enter the kernel when another thread posts a thousand closures: to a runtime that is busy
//! the whole time, and to one that sleeps.
//!
//! Neither is taken on trust. The busy runtime has a task that yields in a loop, and the thread goes on only
//! when the runtime has turned since its last hundred posts. The sleeping one is read off its counters: it has
//! begun a wait after the last closure ran, and the first closure of the next thousand runs in that very
//! turn, after a wake that entered the kernel, which nothing but a sleep makes necessary. A thousand of
//! which this cannot be said is left out, and a benchmark with too few is an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use super::{Closure, Plan, Runtime, Turns, give_way};

/// Closures of one measurement.
const POSTS: u64 = 1000;
/// Posts between two looks at whether the runtime has turned.
const LOOK: u64 = 100;
/// Measurements.
const TIMES: u64 = 100;

type Remote = Arc<dyn Fn(Closure) + Send + Sync>;
type Counters = Arc<dyn Fn() -> Turns + Send + Sync>;

pub(super) async fn all<R: Runtime>(plan: &Plan) {
    let (Some(remote), Some(turns)) = (R::remote(), R::turns()) else { return };
    if plan.wants("cross_busy") {
        let wakes = busy::<R>(remote.clone(), turns.clone()).await;
        tell(plan, "cross_busy", wakes);
    }
    if plan.wants("cross_asleep") {
        let wakes = asleep(remote, turns).await;
        tell(plan, "cross_asleep", wakes);
    }
}

fn tell(plan: &Plan, bench: &str, wakes: u64) {
    let each = wakes as f64 / TIMES as f64;
    plan.line(
        bench,
        format!("\"kernel_wakes_each\":{each:.4},\"posts_each\":{POSTS},\"n\":{TIMES}"),
    );
}

/// Wakes that entered the kernel while the runtime was busy.
async fn busy<R: Runtime>(remote: Remote, turns: Counters) -> u64 {
    let yields = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let task = {
        let (yields, over) = (yields.clone(), over.clone());
        R::spawn(async move {
            while !over.load(Ordering::Acquire) {
                yields.fetch_add(1, Ordering::Release);
                give_way().await;
            }
        })
    };
    let ran = Arc::new(AtomicU64::new(0));
    let thread = thread::spawn(move || {
        // From here on a turn of the runtime finds the task queued, and so none of them sleeps.
        wait_until(|| yields.load(Ordering::Acquire) > 0);
        let before = turns();
        for _ in 0..TIMES {
            for post in 0..POSTS {
                let ran = ran.clone();
                remote(Box::new(move || {
                    ran.fetch_add(1, Ordering::Release);
                }));
                if post % LOOK == LOOK - 1 {
                    let (ticks, yielded) = (turns().ticks, yields.load(Ordering::Acquire));
                    wait_until(|| {
                        turns().ticks > ticks && yields.load(Ordering::Acquire) > yielded
                    });
                }
            }
        }
        wait_until(|| ran.load(Ordering::Acquire) == TIMES * POSTS);
        let after = turns();
        over.store(true, Ordering::Release);
        after.kernel_wakes - before.kernel_wakes
    });
    task.await;
    thread.join().expect("it does not panic")
}

/// Wakes that entered the kernel for as many sleeps as there were measurements.
async fn asleep(remote: Remote, turns: Counters) -> u64 {
    let (mailbox, done) = (Arc::new(super::cross::Mailbox::default()), turns);
    let home = mailbox.clone();
    let thread = thread::spawn(move || {
        let (mut proven, mut wakes) = (0, 0);
        for _ in 0..TIMES * 4 {
            if let Some(of_one) = one_sleep(&remote, &done) {
                proven += 1;
                wakes += of_one;
            }
            if proven == TIMES {
                break;
            }
        }
        home.post();
        (proven, wakes)
    });
    mailbox.receive(1).await;
    let (proven, wakes) = thread.join().expect("it does not panic");
    assert_eq!(proven, TIMES, "the runtime was not seen to sleep often enough: it proves nothing");
    wakes
}

/// Posts a thousand closures to a runtime that sleeps: the wakes that entered the kernel, if it is certain
/// that it slept, and that it did so once.
fn one_sleep(remote: &Remote, turns: &Counters) -> Option<u64> {
    // What the last closure so far saw. The runtime has nothing to do after it, and begins to wait.
    let last = run_there(remote, turns);
    wait_until(|| {
        let now = turns();
        now.ticks > last.ticks && now.enters > last.enters
    });
    let before = turns();
    // The first closure stays until all are posted, so that the runtime cannot sleep again in between.
    let (tell, told) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let there = turns.clone();
    remote(Box::new(move || {
        let _ = tell.send(there());
        let _ = released.recv();
    }));
    let ran = Arc::new(AtomicU64::new(1));
    for _ in 1..POSTS {
        let ran = ran.clone();
        remote(Box::new(move || {
            ran.fetch_add(1, Ordering::Release);
        }));
    }
    let first = told.recv().expect("the runtime runs what is posted");
    let after = turns();
    drop(release);
    wait_until(|| ran.load(Ordering::Acquire) == POSTS);
    let same_wait = first.ticks == before.ticks && first.enters == before.enters;
    let wakes = after.kernel_wakes - before.kernel_wakes;
    (same_wait && wakes > 0).then_some(wakes)
}

/// Runs a closure on the runtime's thread and tells what it saw of the counters there.
fn run_there(remote: &Remote, turns: &Counters) -> Turns {
    let (tell, told) = mpsc::channel();
    let turns = turns.clone();
    remote(Box::new(move || {
        let _ = tell.send(turns());
    }));
    told.recv().expect("the runtime runs what is posted")
}

/// Gives the processor away in between: the runtime may have to share it.
fn wait_until(mut there: impl FnMut() -> bool) {
    while !there() {
        thread::yield_now();
    }
}
