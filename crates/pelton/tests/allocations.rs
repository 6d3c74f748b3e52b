//! After warm-up the runtime allocates nothing: not for echoing, sleeping, or waking across threads.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use common::{inside_each_backend, pair};

thread_local! {
    /// Allocations of this thread. Needs no destructor, so that it can be counted at any time.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is done by the system's allocator; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as the caller says.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM: usize = 200;
const ROUNDS: usize = 2000;

/// Runs `round` often and says how much the last rounds have allocated on this thread.
async fn allocated(mut round: impl AsyncFnMut()) -> u64 {
    for _ in 0..WARM {
        round().await;
    }
    let before = COUNT.get();
    for _ in 0..ROUNDS {
        round().await;
    }
    COUNT.get() - before
}

#[test]
fn the_allocations_of_this_thread_are_counted() {
    let before = COUNT.get();
    drop(std::hint::black_box(vec![1]));
    assert_eq!(COUNT.get() - before, 1);
}

#[test]
fn echoing_with_leases_allocates_nothing() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        pelton::spawn(async move {
            while let Some(chunk) = b.recv().await? {
                b.send_all(chunk).await?;
            }
            std::io::Result::Ok(())
        })
        .detach();
        let allocated = allocated(async || {
            a.send_all([7u8; 16]).await.unwrap();
            let mut got = 0;
            while got < 16 {
                got += a.recv().await.unwrap().unwrap().len();
            }
        })
        .await;
        assert_eq!(allocated, 0);
    });
}

#[test]
fn echoing_with_owned_buffers_allocates_nothing() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        pelton::spawn(async move {
            let mut buf = Vec::with_capacity(1 << 12);
            loop {
                let (read, back) = b.read(buf).await;
                if read? == 0 {
                    return std::io::Result::Ok(());
                }
                let (sent, back) = b.write_all(back).await;
                sent?;
                buf = back;
                buf.clear();
            }
        })
        .detach();
        let buffer = Cell::new(vec![7; 1000]);
        let allocated = allocated(async || {
            let (sent, mut buf) = a.write_all(buffer.take()).await;
            sent.unwrap();
            buf.clear();
            while buf.len() < 1000 {
                let read;
                (read, buf) = a.read(buf).await;
                assert!(read.unwrap() > 0);
            }
            buffer.set(buf);
        })
        .await;
        assert_eq!(allocated, 0);
    });
}

#[test]
fn several_buffers_at_once_allocate_nothing() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let allocated = allocated(async || {
            let (sent, _) = a.write_vectored_all(["head", "body"]).await;
            assert_eq!(sent.unwrap(), 8);
            let (read, _) = b.read_vectored([[0u8; 4], [0u8; 4]]).await;
            assert_eq!(read.unwrap(), 8);
        })
        .await;
        // Two slices or arrays of 16 bytes are more than a slot has room for: one box each.
        assert!(allocated <= 2 * ROUNDS as u64, "{allocated}");
    });
}

#[test]
fn sleeping_allocates_nothing() {
    inside_each_backend(|_| async {
        let allocated = allocated(async || {
            pelton::time::sleep(Duration::from_nanos(1)).await;
        })
        .await;
        assert_eq!(allocated, 0);
        // Armed and given up, as timeouts are.
        let allocated = self::allocated(async || {
            pelton::time::timeout(Duration::from_secs(3600), pelton::yield_now()).await.unwrap();
        })
        .await;
        assert_eq!(allocated, 0);
        let mut ticks = pelton::time::interval(Duration::from_micros(20));
        for _ in 0..WARM {
            ticks.tick().await;
        }
        let before = COUNT.get();
        for _ in 0..WARM {
            ticks.tick().await;
        }
        assert_eq!(COUNT.get() - before, 0);
    });
}

#[test]
fn yielding_and_waking_tasks_allocates_nothing() {
    inside_each_backend(|_| async {
        assert_eq!(allocated(pelton::yield_now).await, 0);
        let event = std::rc::Rc::new(Cell::new(0u64));
        let counts = event.clone();
        pelton::spawn(async move {
            loop {
                counts.set(counts.get() + 1);
                pelton::yield_now().await;
            }
        })
        .detach();
        let allocated = allocated(async || {
            let before = event.get();
            while event.get() == before {
                pelton::yield_now().await;
            }
        })
        .await;
        assert_eq!(allocated, 0);
    });
}

#[test]
fn waking_a_task_from_another_thread_allocates_nothing_on_either() {
    inside_each_backend(|_| async {
        let kept: Arc<Mutex<Option<Waker>>> = Arc::default();
        let polls: Arc<AtomicU64> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let waking = {
            let (kept, polls, stop) = (kept.clone(), polls.clone(), stop.clone());
            std::thread::spawn(move || {
                let waker = loop {
                    match kept.lock().unwrap().take() {
                        Some(waker) => break waker,
                        None => std::thread::yield_now(),
                    }
                };
                // Each wake is seen before the next: every one crosses.
                let wake = |rounds| {
                    for _ in 0..rounds {
                        let before = polls.load(Ordering::Acquire);
                        waker.wake_by_ref();
                        while polls.load(Ordering::Acquire) == before {
                            std::thread::yield_now();
                        }
                    }
                };
                wake(WARM);
                let before = COUNT.get();
                wake(ROUNDS);
                let allocated = COUNT.get() - before;
                stop.store(true, Ordering::Release);
                waker.wake_by_ref();
                allocated
            })
        };
        let mut at_home = None;
        poll_fn(|cx| {
            if polls.load(Ordering::Relaxed) == 0 {
                *kept.lock().unwrap() = Some(cx.waker().clone());
            }
            if polls.fetch_add(1, Ordering::Release) == WARM as u64 / 2 {
                at_home = Some(COUNT.get());
            }
            if stop.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(COUNT.get() - at_home.expect("it was woken often"), 0);
        assert!(polls.load(Ordering::Relaxed) > (WARM + ROUNDS) as u64);
        assert_eq!(common::join(waking), 0);
    });
}

#[test]
fn spawning_a_task_allocates_once() {
    inside_each_backend(|_| async {
        let allocated = allocated(async || pelton::spawn(async {}).await.unwrap()).await;
        assert_eq!(allocated, ROUNDS as u64);
    });
}

#[test]
fn reading_a_file_allocates_nothing_where_the_page_cache_has_it() {
    inside_each_backend(|backend| async move {
        let name = format!("pelton-allocations-{}-{backend}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, [7; 4096]).unwrap();
        let file = pelton::fs::File::open(&path).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let buffer = Cell::new(Vec::with_capacity(512));
        let allocated = allocated(async || {
            let mut buf = buffer.take();
            buf.clear();
            let (read, buf) = file.read_at(buf, 100).await;
            assert_eq!(read.unwrap(), 512);
            buffer.set(buf);
        })
        .await;
        assert_eq!(allocated, 0);
    });
}
