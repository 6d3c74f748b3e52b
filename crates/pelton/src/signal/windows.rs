//! The console tells of its events on a thread of its own, which leaves a mark with everybody who waits and wakes
//! them.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT,
    SetConsoleCtrlHandler,
};

use super::{ConsoleEvent, SignalKind};
use crate::reactor::Reactor;

/// Whoever waits for a signal.
#[derive(Debug, Default)]
struct Waiting {
    has_arrived: bool,
    waker: Option<Waker>,
}

type Waiter = Mutex<Waiting>;

/// Everybody, with the events that each waits for.
///
/// The console has a lock of its own, which it holds while a handler runs and while one is added. So this one is never
/// held while the console is asked for something: the two would wait for each other.
static ALL: Mutex<Vec<(Events, Weak<Waiter>)>> = Mutex::new(Vec::new());

/// Whether the console has been told whom to tell: once, and for good. Taking the handler away would wait for one that
/// does not return ([`told`]); and one that finds nobody who listens passes on.
static HEARD: Mutex<bool> = Mutex::new(false);

/// Events, one bit each.
type Events = u32;

/// Arrivals of one signal.
pub(super) struct Arrivals {
    waiter: Arc<Waiter>,
    reactor: Rc<Reactor>,
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").finish_non_exhaustive()
    }
}

impl Arrivals {
    pub(super) fn new(kind: SignalKind) -> io::Result<Arrivals> {
        let events: &[u32] = match kind {
            SignalKind::Interrupt => &[CTRL_C_EVENT],
            SignalKind::Terminate => &[CTRL_BREAK_EVENT, CTRL_SHUTDOWN_EVENT],
            SignalKind::Hangup => &[CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT],
            SignalKind::User1 | SignalKind::User2 => {
                Reactor::here()?;
                let what = "Windows has no such signal";
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
        };
        Arrivals::of(events)
    }

    pub(super) fn of_console(event: ConsoleEvent) -> io::Result<Arrivals> {
        Arrivals::of(&[match event {
            ConsoleEvent::CtrlC => CTRL_C_EVENT,
            ConsoleEvent::CtrlBreak => CTRL_BREAK_EVENT,
            ConsoleEvent::Close => CTRL_CLOSE_EVENT,
            ConsoleEvent::Logoff => CTRL_LOGOFF_EVENT,
            ConsoleEvent::Shutdown => CTRL_SHUTDOWN_EVENT,
        }])
    }

    fn of(events: &[u32]) -> io::Result<Arrivals> {
        let reactor = Reactor::here()?;
        let mut is_heard = locked(&HEARD);
        if !*is_heard {
            // SAFETY: a function that stays.
            if unsafe { SetConsoleCtrlHandler(Some(told), 1) } == 0 {
                return Err(io::Error::last_os_error());
            }
            *is_heard = true;
        }
        drop(is_heard);
        let waiter = Arc::new(Waiter::default());
        let events = events.iter().fold(0, |events, event| events | bit(*event));
        let mut all = locked(&ALL);
        all.retain(|(_, waiter)| waiter.strong_count() > 0);
        all.push((events, Arc::downgrade(&waiter)));
        Ok(Arrivals { waiter, reactor })
    }

    pub(super) async fn recv(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut waiting = locked(&self.waiter);
            if std::mem::take(&mut waiting.has_arrived) {
                return Poll::Ready(Ok(()));
            }
            if self.reactor.has_ended() {
                return Poll::Ready(Err(crate::operation::ended()));
            }
            let before = waiting.waker.replace(cx.waker().clone());
            drop(waiting);
            drop(before);
            Poll::Pending
        })
        .await
    }
}

/// Runs on a thread of the console's. True where somebody waits for the event, and nothing else is to be done.
unsafe extern "system" fn told(event: u32) -> i32 {
    let waiters: Vec<_> = {
        let all = locked(&ALL);
        let those = all.iter().filter(|(events, _)| events & bit(event) != 0);
        those.filter_map(|(_, waiter)| waiter.upgrade()).collect()
    };
    for waiter in &waiters {
        let mut waiting = locked(waiter);
        waiting.has_arrived = true;
        let waker = waiting.waker.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
    if waiters.is_empty() {
        return 0;
    }
    if !matches!(event, CTRL_C_EVENT | CTRL_BREAK_EVENT) {
        // The process is ended when this returns: its end is the program's affair now, and the system's patience.
        loop {
            std::thread::park();
        }
    }
    1
}

/// The bit of an event; none of one that nobody knows.
fn bit(event: u32) -> Events {
    1_u32.checked_shl(event).unwrap_or(0)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
