//! What other threads leave for a reactor: closures to run, and the request to stop.
//!
//! Whoever leaves something raises the driver's wake latch afterwards; the reactor clears the latch first and
//! looks here afterwards. So what is left is found in this round, or the reactor does not sleep before the
//! next.

use std::sync::PoisonError;

use crate::task::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

pub(crate) type Post = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(crate) struct Inbox {
    posts: Mutex<Posts>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Posts {
    queue: Vec<Post>,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Posts> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Any thread: leaves a closure, and then wakes the reactor. False, with the closure dropped, when the
    /// reactor has ended.
    pub(crate) fn post(&self, post: Post, wake: impl FnOnce()) -> bool {
        let mut posts = self.lock();
        if posts.closed {
            drop(posts);
            return false;
        }
        // compio #984: nobody drains while this thread waits for room.
        while mutant!("compio-984") && posts.queue.len() >= 4 {
            drop(posts);
            std::thread::yield_now();
            posts = self.lock();
        }
        posts.queue.push(post);
        drop(posts);
        wake();
        true
    }

    /// Any thread: asks the reactor to stop, and then wakes it.
    pub(crate) fn ask_to_stop(&self, wake: impl FnOnce()) {
        self.stop.store(true, Ordering::Release);
        wake();
    }

    /// The reactor, after it has cleared the latch.
    pub(crate) fn take_posts(&self) -> Vec<Post> {
        std::mem::take(&mut self.lock().queue)
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Lets a reactor that was asked to stop be run again.
    pub(crate) fn clear_stop(&self) {
        self.stop.store(false, Ordering::Release);
    }

    /// The reactor has ended: what was posted is dropped, and nothing is accepted any more.
    pub(crate) fn close(&self) {
        let mut posts = self.lock();
        posts.closed = true;
        let left = std::mem::take(&mut posts.queue);
        drop(posts);
        // Outside the lock: what a closure owns is user code.
        drop(left);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

#[cfg(all(test, any(loom, shuttle)))]
mod models;
