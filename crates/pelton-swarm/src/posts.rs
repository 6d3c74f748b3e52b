//! Posts: a fleet whose reactors post closures to each other, spawn on each other and await each other's tasks,
//! while wakes are late, come twice or for nothing. Nothing is lost and nothing is run twice or out of order.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pelton::Handle;
use pelton::sim::Sim;
use pelton::time;

use crate::hosted::must;

const REACTORS: usize = 3;
const POSTS: u64 = 12;

/// How the reactors reach each other.
type Handles = Rc<RefCell<Vec<Option<Handle>>>>;

pub(crate) fn scenario(sim: &Sim) {
    let done = Arc::new(AtomicU64::new(0));
    let counted = done.clone();
    let handles = Handles::default();
    let held = handles.clone();
    sim.fleet("fleet", REACTORS, move |number| {
        handles.borrow_mut().push(None);
        reactor(number, handles.clone(), counted.clone())
    });
    sim.client("watcher", async move {
        let all = (REACTORS * REACTORS) as u64;
        while done.load(Ordering::Relaxed) < all {
            time::sleep(Duration::from_millis(50)).await;
        }
        // A handle keeps what wakes its reactor.
        held.borrow_mut().clear();
        Ok(())
    });
}

async fn reactor(own: usize, handles: Handles, done: Arc<AtomicU64>) -> io::Result<()> {
    handles.borrow_mut()[own] = Some(Handle::current());
    // The others begin at the same moment.
    time::sleep(Duration::from_millis(1 + own as u64)).await;
    for other in 0..REACTORS {
        let done = done.clone();
        let handle = loop {
            if let Some(handle) = handles.borrow()[other].clone() {
                break handle;
            }
            time::sleep(Duration::from_millis(1)).await;
        };
        pelton::spawn(async move {
            talk(handle).await;
            done.fetch_add(1, Ordering::Relaxed);
        })
        .detach();
    }
    std::future::pending().await
}

async fn talk(handle: Handle) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    for number in 0..POSTS {
        let list = seen.clone();
        let posted = handle.post(move || list.lock().expect("no poster panics").push(number));
        must!(posted.is_ok(), "a reactor that runs refused a post");
        match pelton::random() % 4 {
            0 => time::sleep(Duration::from_micros(pelton::random() % 3_000)).await,
            1 => {
                let back = handle.spawn_with(move || async move {
                    time::sleep(Duration::from_micros(number * 100)).await;
                    number * 7
                });
                match back.await {
                    Ok(back) => must!(back == number * 7, "another task's output"),
                    Err(error) => must!(false, "a task on another reactor failed: {error}"),
                }
            }
            2 => {
                let asleep = handle.spawn_with(|| time::sleep(Duration::from_secs(3_600)));
                pelton::yield_now().await;
                asleep.abort();
                must!(asleep.await.is_err(), "an hour has passed");
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
    must!(seen == (0..POSTS).collect::<Vec<_>>(), "posts were lost, doubled or mixed");
}
