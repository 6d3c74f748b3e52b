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

use super::SignalKind;
use crate::reactor::Reactor;

/// Whoever waits for a signal.
#[derive(Debug, Default)]
struct Waiting {
    has_arrived: bool,
    waker: Option<Waker>,
}

type Waiter = Mutex<Waiting>;

/// Everybody, and whether the console has been told whom to tell.
struct All {
    waiters: Vec<(SignalKind, Weak<Waiter>)>,
    is_heard: bool,
}

static ALL: Mutex<All> = Mutex::new(All { waiters: Vec::new(), is_heard: false });

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
        let reactor = Reactor::here()?;
        if matches!(kind, SignalKind::User1 | SignalKind::User2) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "Windows has no such signal"));
        }
        let mut all = locked(&ALL);
        if !all.is_heard {
            // SAFETY: a function that stays.
            if unsafe { SetConsoleCtrlHandler(Some(told), 1) } == 0 {
                return Err(io::Error::last_os_error());
            }
            all.is_heard = true;
        }
        let waiter = Arc::new(Waiter::default());
        all.waiters.retain(|(_, waiter)| waiter.strong_count() > 0);
        all.waiters.push((kind, Arc::downgrade(&waiter)));
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
    let Some(kind) = kind_of(event) else { return 0 };
    let waiters: Vec<_> = {
        let all = locked(&ALL);
        let of_kind = all.waiters.iter().filter(|(other, _)| *other == kind);
        of_kind.filter_map(|(_, waiter)| waiter.upgrade()).collect()
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

fn kind_of(event: u32) -> Option<SignalKind> {
    match event {
        CTRL_C_EVENT => Some(SignalKind::Interrupt),
        CTRL_BREAK_EVENT | CTRL_SHUTDOWN_EVENT => Some(SignalKind::Terminate),
        CTRL_CLOSE_EVENT | CTRL_LOGOFF_EVENT => Some(SignalKind::Hangup),
        _ => None,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The console itself can only be asked where there is one.
    #[test]
    fn an_event_reaches_everybody_who_waits_for_its_signal_and_nobody_else() {
        crate::block_on(async {
            let mut first = super::super::signal(SignalKind::Interrupt).unwrap();
            let mut second = super::super::signal(SignalKind::Interrupt).unwrap();
            let other = super::super::signal(SignalKind::Hangup).unwrap();
            let waits = crate::spawn(async move { first.recv().await });
            crate::yield_now().await;
            assert!(!waits.is_finished());
            // SAFETY: as the console calls it.
            std::thread::spawn(|| unsafe { assert_eq!(told(CTRL_C_EVENT), 1) }).join().unwrap();
            waits.await.unwrap().unwrap();
            second.recv().await.unwrap();
            assert!(!locked(&other.0.waiter).has_arrived);
            drop((second, other));
            // SAFETY: as above.
            let handled = unsafe { told(CTRL_BREAK_EVENT) };
            assert_eq!(handled, 0, "nobody waits: the system does what it does");
        });
    }
}
