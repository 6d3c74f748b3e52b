//! What the runtime's own parts cost here: tasks, yields and timers, in nanoseconds, the least of several
//! runs. Numbers of one machine: compare them with others of the same machine and the same hour.
//!
//! `cargo run --release -p pelton --example costs`

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

const RUNS: u32 = 7;

fn main() {
    pelton::block_on(async {
        least("spawn and await", 200_000, async |n| {
            for _ in 0..n {
                pelton::spawn(async {}).await.expect("it ends");
            }
        })
        .await;
        least("spawn 1000, join all, each", 200_000, async |n| {
            for _ in 0..n / 1000 {
                let tasks: Vec<_> = (0..1000).map(|_| pelton::spawn(async {})).collect();
                for task in tasks {
                    task.await.expect("it ends");
                }
            }
        })
        .await;
        least("yield, one task", 500_000, async |n| {
            for _ in 0..n {
                pelton::yield_now().await;
            }
        })
        .await;
        timers().await;
    });
}

async fn timers() {
    let before = resident();
    let mut pending = Vec::with_capacity(100_000);
    for n in 0..100_000_u64 {
        let mut sleep = pelton::time::sleep(Duration::from_millis(30_000 + n % 60_000));
        poll_once(&mut sleep).await;
        pending.push(sleep);
    }
    println!("{:40} {:8} bytes", "timer, each of 100000 pending", (resident() - before) / 100_000);
    least("timer insert and cancel, 100000 pending", 500_000, async |n| {
        for i in 0..n {
            let mut sleep = pelton::time::sleep(Duration::from_millis(10 + u64::from(i % 1000)));
            poll_once(&mut sleep).await;
        }
    })
    .await;
    drop(pending);
}

/// Polls a future once, as the task that is running.
async fn poll_once(mut future: impl Future + Unpin) {
    poll_fn(|cx| {
        assert!(Pin::new(&mut future).poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

async fn least(what: &str, n: u32, mut run: impl AsyncFnMut(u32)) {
    let mut least = Duration::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        run(n).await;
        least = least.min(start.elapsed());
    }
    println!("{what:40} {:8.1} ns", least.as_nanos() as f64 / f64::from(n));
}

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}
