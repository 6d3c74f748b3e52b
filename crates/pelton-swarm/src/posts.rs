//! Posts: a fleet whose reactors post closures to each other, spawn on each other and await each other's tasks,
//! while wakes are late, come twice or for nothing. Nothing is lost and nothing is run twice or out of order.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pelton::sim::{self, Sim};
use pelton::time;

const REACTORS: usize = 3;
const POSTS: u64 = 12;

pub(crate) fn scenario(sim: &Sim) {
    let done = Arc::new(AtomicU64::new(0));
    let counted = done.clone();
    sim.fleet("fleet", REACTORS, move |number| reactor(number, counted.clone()));
    sim.client("watcher", async move {
        let all = (REACTORS * REACTORS) as u64;
        while done.load(Ordering::Relaxed) < all {
            time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    });
}

async fn reactor(own: usize, done: Arc<AtomicU64>) -> io::Result<()> {
    // The others begin at the same moment.
    time::sleep(Duration::from_millis(1 + own as u64)).await;
    for other in 0..REACTORS {
        let done = done.clone();
        pelton::spawn(async move {
            talk(other).await;
            done.fetch_add(1, Ordering::Relaxed);
        })
        .detach();
    }
    std::future::pending().await
}

async fn talk(other: usize) {
    let handle = sim::current().handle("fleet", other);
    let seen = Arc::new(Mutex::new(Vec::new()));
    for number in 0..POSTS {
        let list = seen.clone();
        let posted = handle.post(move || list.lock().expect("no poster panics").push(number));
        assert!(posted.is_ok(), "a reactor that runs refused a post");
        match pelton::random() % 4 {
            0 => time::sleep(Duration::from_micros(pelton::random() % 3_000)).await,
            1 => {
                let back = handle.spawn_with(move || async move {
                    time::sleep(Duration::from_micros(number * 100)).await;
                    number * 7
                });
                match back.await {
                    Ok(back) => assert_eq!(back, number * 7, "another task's output"),
                    Err(error) => panic!("a task on another reactor failed: {error}"),
                }
            }
            2 => {
                let asleep = handle.spawn_with(|| time::sleep(Duration::from_secs(3_600)));
                pelton::yield_now().await;
                asleep.abort();
                assert!(asleep.await.is_err(), "an hour has passed");
            }
            _ => pelton::yield_now().await,
        }
    }
    // A late wake comes after 5 ms at most.
    for _ in 0..50 {
        if seen.lock().expect("no poster panics").len() as u64 == POSTS {
            break;
        }
        time::sleep(Duration::from_millis(20)).await;
    }
    let seen = seen.lock().expect("no poster panics").clone();
    assert_eq!(seen, (0..POSTS).collect::<Vec<_>>(), "posts were lost, doubled or mixed");
}
