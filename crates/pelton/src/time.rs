//! Time: sleeping, deadlines, intervals.
//!
//! A timer is an operation of the reactor's driver, in its timer wheel: inserting and cancelling touch one
//! bucket, nothing is allocated, and the next timer is the timeout of the reactor's wait. A reactor without
//! timers sleeps until something happens.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pelton_driver::{Plain, Submission};

use crate::operation::Pending;
use crate::reactor::Reactor;

/// Ends when `duration` has passed: never earlier, and on an idle reactor about a hundred microseconds
/// later at most.
///
/// # Panics
/// No reactor runs on this thread.
///
/// ```
/// # pelton::block_on(async {
/// pelton::time::sleep(std::time::Duration::from_millis(1)).await;
/// # });
/// ```
#[track_caller]
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now().checked_add(duration).unwrap_or_else(far_future))
}

/// Ends when the clock has reached `deadline`.
///
/// # Panics
/// No reactor runs on this thread.
#[track_caller]
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { reactor: Reactor::current(), deadline, timer: Pending::none(), elapsed: false }
}

/// A later moment than anybody waits for.
fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(86400 * 365 * 30)
}

/// The future of [`sleep`]. It is armed when it is first polled, and disarmed when it is dropped.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sleep {
    reactor: Rc<Reactor>,
    deadline: Instant,
    timer: Pending<Plain>,
    elapsed: bool,
}

impl Sleep {
    /// When it ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// True once it has ended.
    pub fn is_elapsed(&self) -> bool {
        self.elapsed
    }

    /// Gives it another deadline, whether it has ended or not. It is armed for that when it is polled next.
    pub fn reset(&mut self, deadline: Instant) {
        self.timer.abandon(&self.reactor);
        self.deadline = deadline;
        self.elapsed = false;
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.elapsed {
            return Poll::Ready(());
        }
        let ended = match this.timer.poll(&this.reactor, cx) {
            Some(poll) => poll,
            None => this.timer.start(&this.reactor, Submission::timeout(this.deadline), Some(cx)),
        };
        // A refusal, which only a reactor that has ended or is full gives, must not look like time.
        match ended {
            Poll::Ready(Ok(_)) => {
                this.elapsed = true;
                Poll::Ready(())
            }
            Poll::Ready(Err(_)) if this.reactor.has_ended() => Poll::Pending,
            Poll::Ready(Err(_)) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.timer.abandon(&self.reactor);
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// The deadline passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has passed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, elapsed)
    }
}

/// Runs a future for at most `duration`. A future that does not make it is dropped, with all that it has in
/// flight.
///
/// # Errors
/// [`Elapsed`]: the future did not end in time.
///
/// ```
/// # use std::time::Duration;
/// # pelton::block_on(async {
/// let never = std::future::pending::<()>();
/// assert!(pelton::time::timeout(Duration::from_millis(1), never).await.is_err());
/// # });
/// ```
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(Instant::now().checked_add(duration).unwrap_or_else(far_future), future).await
}

/// Runs a future at most until `deadline`.
///
/// # Errors
/// [`Elapsed`]: the future did not end in time.
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = sleep_until(deadline);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed(())))
    })
    .await
}

/// Ticks every `period`, first at once.
///
/// # Panics
/// `period` is zero, or no reactor runs on this thread.
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval of zero would never wait");
    Interval { sleep: sleep_until(Instant::now()), period }
}

/// The ticks of [`interval`].
#[derive(Debug)]
pub struct Interval {
    sleep: Sleep,
    period: Duration,
}

impl Interval {
    /// Waits for the next tick and returns the moment that it was due. Ticks that nobody waited for in
    /// time are not made up for: the next one is due a whole number of periods later. Cancelling loses
    /// nothing.
    pub async fn tick(&mut self) -> Instant {
        (&mut self.sleep).await;
        let due = self.sleep.deadline();
        let late = Instant::now().saturating_duration_since(due);
        let missed =
            u32::try_from(late.as_nanos() / self.period.as_nanos()).unwrap_or(u32::MAX - 1);
        let next = due.checked_add(self.period.saturating_mul(missed.saturating_add(1)));
        self.sleep.reset(next.unwrap_or_else(far_future));
        due
    }

    /// The time from one tick to the next.
    pub fn period(&self) -> Duration {
        self.period
    }
}
