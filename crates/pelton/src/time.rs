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
use std::time::{Duration, Instant, SystemTime};

use pelton_driver::{Plain, system};

use crate::operation::Pending;
use crate::reactor::Reactor;

/// What this thread's clock shows, by which its timers fire: [`Instant::now`], or in a simulation the
/// simulated world's clock. With or without a reactor.
///
/// ```
/// # pelton::block_on(async {
/// let now = pelton::time::now();
/// pelton::time::sleep(std::time::Duration::from_millis(1)).await;
/// assert!(pelton::time::now() - now >= std::time::Duration::from_millis(1));
/// # });
/// ```
#[inline]
pub fn now() -> Instant {
    system::now()
}

/// What the wall clock shows: [`SystemTime::now`], or in a simulation the simulated host's. It may go back,
/// so it is nothing to measure with.
///
/// ```
/// assert!(pelton::time::wall() > std::time::SystemTime::UNIX_EPOCH);
/// ```
#[inline]
pub fn wall() -> SystemTime {
    system::wall()
}

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
    let reactor = Reactor::current();
    let deadline = Deadline::new(now(), &reactor).after(duration);
    Sleep { reactor, timer: Pending::none(), deadline }
}

/// Ends when the clock has reached `deadline`.
///
/// # Panics
/// No reactor runs on this thread.
#[track_caller]
pub fn sleep_until(deadline: Instant) -> Sleep {
    let reactor = Reactor::current();
    let deadline = Deadline::new(deadline, &reactor);
    Sleep { reactor, timer: Pending::none(), deadline }
}

/// A later moment than anybody waits for.
fn far_future() -> Instant {
    now() + Duration::from_secs(86400 * 365 * 30)
}

/// The future of [`sleep`]. It is armed when it is first polled, and disarmed when it is dropped.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sleep {
    reactor: Rc<Reactor>,
    timer: Pending<Plain>,
    deadline: Deadline,
}

// There may be a hundred thousand of them, and each has a slot of 64 bytes beside it.
const _: () = assert!(size_of::<Sleep>() <= 32);

/// A moment, and whether it has been waited for: nanoseconds since the driver's start in 63 bits, which
/// reach 146 years to either side, and a bit.
#[derive(Clone, Copy)]
struct Deadline(i64);

impl Deadline {
    const MOST: i64 = i64::MAX >> 1;

    #[inline]
    fn new(moment: Instant, reactor: &Reactor) -> Deadline {
        let start = reactor.driver.start_time();
        let nanos = match moment.checked_duration_since(start) {
            Some(since) => nanos(since).min(Deadline::MOST),
            None => -nanos(start - moment).min(Deadline::MOST),
        };
        Deadline(nanos << 1)
    }

    /// So much later, or as late as can be said.
    #[inline]
    fn after(self, duration: Duration) -> Deadline {
        Deadline((self.0 >> 1).saturating_add(nanos(duration)).min(Deadline::MOST) << 1)
    }

    /// As the driver counts time; what is before its start is over at once.
    #[inline]
    fn nanos(self) -> u64 {
        (self.0 >> 1).max(0) as u64
    }

    #[inline]
    fn moment(self, reactor: &Reactor) -> Instant {
        let (start, nanos) = (reactor.driver.start_time(), self.0 >> 1);
        let distance = Duration::from_nanos(nanos.unsigned_abs());
        let moment =
            if nanos >= 0 { start.checked_add(distance) } else { start.checked_sub(distance) };
        moment.unwrap_or(start)
    }

    fn has_elapsed(self) -> bool {
        self.0 & 1 == 1
    }

    fn set_elapsed(&mut self) {
        self.0 |= 1;
    }
}

#[inline]
fn nanos(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}

impl Sleep {
    /// When it ends.
    pub fn deadline(&self) -> Instant {
        self.deadline.moment(&self.reactor)
    }

    /// True once it has ended.
    pub fn is_elapsed(&self) -> bool {
        self.deadline.has_elapsed()
    }

    /// Ready is a refusal.
    fn arm(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.reactor.has_ended() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let token = self.reactor.token_for(cx.waker());
        match self.reactor.driver.submit_timeout(self.deadline.nanos(), token) {
            Ok(key) => {
                self.timer = Pending::of(Some(key));
                Poll::Pending
            }
            Err(refused) => {
                self.reactor.forget(token);
                Poll::Ready(Err(refused.error))
            }
        }
    }

    /// Gives it another deadline, whether it has ended or not. It is armed for that when it is polled next.
    pub fn reset(&mut self, deadline: Instant) {
        self.timer.abandon(&self.reactor);
        self.deadline = Deadline::new(deadline, &self.reactor);
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.deadline.has_elapsed() {
            return Poll::Ready(());
        }
        let ended = match this.timer.poll(&this.reactor, cx) {
            Some(poll) => poll,
            None => this.arm(cx),
        };
        // A refusal, which only a reactor that has ended or is full gives, must not look like time.
        match ended {
            Poll::Ready(Ok(_)) => {
                this.deadline.set_elapsed();
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
        f.debug_struct("Sleep").field("deadline", &self.deadline()).finish_non_exhaustive()
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
    timeout_at(now().checked_add(duration).unwrap_or_else(far_future), future).await
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
    Interval { sleep: sleep_until(now()), period }
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
        let late = now().saturating_duration_since(due);
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
