//! Waking a driver from another thread: the latch, and the kernel object behind it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::counters::Counters;
use crate::latch::{Raise, WakeLatch};
use crate::sys::WakeSource;

/// What a driver shares with other threads.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) latch: WakeLatch,
    pub(crate) wake: WakeSource,
    pub(crate) counters: Counters,
    pub(crate) closed: AtomicBool,
}

/// Wakes one driver from any thread. Cheap to clone; outlives its driver, and then does nothing.
///
/// Between two waits of the driver at most one notification enters the kernel, and none does while the
/// driver is awake: it looks at the latch before it sleeps.
///
/// ```
/// # use pelton_driver::{Driver, Config};
/// # use std::time::Duration;
/// let driver = Driver::new(Config::default())?;
/// let notifier = driver.notifier();
/// let thread = std::thread::spawn(move || notifier.notify());
/// // Waits until the other thread has notified, or has done so already.
/// let tick = driver.tick(Some(Duration::from_secs(60)), |_completion| {})?;
/// thread.join().unwrap()?;
/// # let _ = tick;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Notifier {
    pub(crate) shared: Arc<Shared>,
}

impl Notifier {
    /// Makes the driver's current or next [`tick`](crate::Driver::tick) return without waiting.
    ///
    /// Push whatever the driver's thread should find *before* this call. After the driver is gone this
    /// succeeds and does nothing.
    ///
    /// # Errors
    /// What the kernel said when it refused the wake. The latch is rolled back, so that the next call
    /// tries again; what was pushed stays where it is.
    #[inline]
    pub fn notify(&self) -> io::Result<()> {
        match self.shared.latch.raise() {
            Raise::Awake | Raise::Coalesced if !mutant!("ioxide-96") => {
                self.shared.counters.wakes_coalesced.add_shared();
                Ok(())
            }
            _ => self.wake(),
        }
    }

    #[cold]
    fn wake(&self) -> io::Result<()> {
        match self.shared.wake.signal() {
            Ok(()) => {
                self.shared.counters.wakes_sent.add_shared();
                Ok(())
            }
            Err(error) => {
                self.shared.latch.roll_back();
                self.shared.counters.wakes_failed.add_shared();
                Err(error)
            }
        }
    }

    /// True once the driver has been dropped.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// The driver's counters, from any thread, without stopping it.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}
