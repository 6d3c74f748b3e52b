//! The micro-benchmarks: one list, run on every runtime through the same trait.
//!
//! Each prints one line of JSON. Times are processor time per operation, the least and the median of several
//! batches after a warm-up: of the thread where the runtime has only one, of the process where threads of a
//! pool take part.

mod cross;
mod file;
mod plan;
mod posts;
mod tasks;
mod timers;

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use file::{BLOCK, BLOCKS, offset, test_file};
pub use plan::{Plan, extras};

use std::sync::Arc;
use std::time::Duration;

/// A closure that a runtime runs for another thread.
pub type Closure = Box<dyn FnOnce() + Send>;

/// What a runtime has counted of its turns until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// Turns of its loop.
    pub ticks: u64,
    /// Entries into the kernel to submit or to wait, counted just before each.
    pub enters: u64,
    /// Wakes from other threads that entered the kernel.
    pub kernel_wakes: u64,
}

/// A runtime, as far as the benchmarks need it. All of it is called inside the runtime.
pub trait Runtime: 'static {
    /// An open file.
    type File: 'static;

    /// Whether a task can be woken from other threads.
    const WOKEN_FROM_AFAR: bool;

    /// Spawns a task; the future ends when it has.
    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()>;

    /// Its own sleep, not boxed.
    fn sleep(duration: Duration) -> impl Future<Output = ()>;

    /// A sleep that can be moved after it has been polled, as a program keeps it in a vector: its own sleep
    /// where that can be moved, and in a box otherwise.
    fn kept_sleep(duration: Duration) -> impl Future<Output = ()> + Unpin {
        Box::pin(Self::sleep(duration))
    }

    /// Opens a file.
    fn open(path: &Path) -> impl Future<Output = io::Result<Self::File>>;

    /// Spawns a task that reads `count` blocks of the file, at [`offset`] 0, 1 and so on. Returns the file.
    fn spawn_reader(file: Self::File, count: usize) -> impl Future<Output = Self::File>;

    /// How another thread has the runtime run a closure.
    fn remote() -> Option<Arc<dyn Fn(Closure) + Send + Sync>> {
        None
    }

    /// How any thread reads what the runtime counts of its turns, if it counts them.
    fn turns() -> Option<Arc<dyn Fn() -> Turns + Send + Sync>> {
        None
    }

    /// Operations in flight, timers among them, if the runtime counts that.
    fn in_flight() -> Option<u64> {
        None
    }
}

/// Runs everything that was asked for.
pub async fn run<R: Runtime>(plan: &Plan) {
    // First, while the heap has no holes that would hide what is allocated.
    timers::bytes::<R>(plan).await;
    tasks::all::<R>(plan).await;
    timers::all::<R>(plan).await;
    cross::all::<R>(plan).await;
    posts::all::<R>(plan).await;
    file::all::<R>(plan).await;
}

/// Gives way once: the same for all runtimes, whatever they offer themselves.
pub(crate) fn give_way() -> GiveWay {
    GiveWay(false)
}

pub(crate) struct GiveWay(bool);

impl Future for GiveWay {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
