//! Connections that a listening socket brings, whatever its addresses are.
//!
//! # How a listener accepts
//!
//! One multishot accept is armed as long as somebody waits, and stays armed across the futures that wait,
//! so that dropping one loses no connection: what has been accepted waits in the driver for the next. When
//! too many wait there the driver ends the operation, and the next `accept` arms it again, after taking
//! what is there. Several tasks may wait at once: each is woken for its turn.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pelton_driver::{ManyAccepts, OwnedDescriptor, Submission};

use crate::fault::Fault;
use crate::operation::Pending;
use crate::socket::Socket;

/// How long accepting pauses when descriptors or memory have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// A shortage that comes and goes is told of once in this time.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// A listening socket, and who waits for its connections.
pub(super) struct Accepting {
    accepts: RefCell<Pending<ManyAccepts>>,
    /// The turn that the operation's completions are told to. The others wait for that one's end.
    told_to: Cell<Option<u64>>,
    waiters: RefCell<Vec<(u64, Waker)>>,
    next_waiter: Cell<u64>,
    told: Cell<Option<Instant>>,
    pub(super) socket: Socket,
}

impl Accepting {
    pub(super) fn on(socket: Socket) -> Accepting {
        Accepting {
            accepts: RefCell::new(Pending::none()),
            told_to: Cell::new(None),
            waiters: RefCell::default(),
            next_waiter: Cell::new(0),
            told: Cell::new(None),
            socket,
        }
    }

    /// The next connection. A connection that has failed before it was accepted is passed over. When
    /// descriptors or memory run out this waits and tries again; a [`Fault`] tells of it once.
    pub(super) async fn accept(&self) -> io::Result<Socket> {
        loop {
            let turn = Turn {
                accepting: self,
                number: self.next_waiter.replace(self.next_waiter.get() + 1),
            };
            let accepted = poll_fn(|cx| self.poll_accept(cx, turn.number)).await;
            drop(turn);
            match accepted {
                Ok(descriptor) => {
                    match Socket::new_stream(self.socket.reactor.clone(), descriptor) {
                        Ok(socket) => return Ok(socket),
                        Err(error) => self.pause(error).await,
                    }
                }
                Err(error) if passes(&error) => {}
                Err(error) if runs_out(&error) => self.pause(error).await,
                Err(error) => return Err(error),
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>, number: u64) -> Poll<io::Result<OwnedDescriptor>> {
        let reactor = &self.socket.reactor;
        let mut accepts = self.accepts.borrow_mut();
        loop {
            if let Some(key) = accepts.key() {
                if let Some(descriptor) = reactor.driver.next(key) {
                    return Poll::Ready(Ok(descriptor));
                }
                if self.told_to.get().is_some_and(|other| other != number) {
                    drop(accepts);
                    self.wait(cx.waker(), number);
                    return Poll::Pending;
                }
                self.told_to.set(Some(number));
                match accepts.poll(reactor, cx) {
                    // Ended because too many waited, or a close of ours: they have been taken, arm again.
                    Some(Poll::Ready(Err(error))) if is_cancelled(&error) => {}
                    Some(Poll::Ready(Ok(()))) | None => {}
                    Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                    Some(Poll::Pending) => return Poll::Pending,
                }
            }
            let submission = Submission::accept_multi(self.socket.fd);
            if let Poll::Ready(ended) = accepts.start(reactor, submission, Some(cx)) {
                return Poll::Ready(Err(ended
                    .err()
                    .unwrap_or_else(|| io::ErrorKind::Other.into())));
            }
        }
    }

    fn wait(&self, waker: &Waker, number: u64) {
        let waker = waker.clone();
        let mut waiters = self.waiters.borrow_mut();
        let before = match waiters.iter_mut().find(|(waiter, _)| *waiter == number) {
            Some((_, place)) => Some(std::mem::replace(place, waker)),
            None => {
                waiters.push((number, waker));
                None
            }
        };
        drop(waiters);
        drop(before);
    }

    /// Somebody's turn is over: the completion that is told to one alone concerns the next one now.
    #[inline]
    fn pass_on(&self, number: u64) {
        if self.told_to.get() == Some(number) {
            self.told_to.set(None);
        }
        if !self.waiters.borrow().is_empty() {
            self.wake_others(number);
        }
    }

    #[cold]
    fn wake_others(&self, number: u64) {
        let mut waiters = self.waiters.borrow_mut();
        let mine = waiters.iter().position(|(waiter, _)| *waiter == number);
        let mine = mine.map(|at| waiters.swap_remove(at));
        let others: Vec<Waker> = waiters.iter().map(|(_, waker)| waker.clone()).collect();
        drop(waiters);
        drop(mine);
        others.into_iter().for_each(Waker::wake);
    }

    async fn pause(&self, error: io::Error) {
        let reactor = &self.socket.reactor;
        reactor.driver.counters().accept_pauses.add(1);
        let now = crate::time::now();
        if self.told.get().is_none_or(|told| now.duration_since(told) >= TELL_AGAIN) {
            self.told.set(Some(now));
            reactor.tell(&Fault::AcceptPaused(error));
        }
        let pause = if mutant!("ioxide-222") { Duration::ZERO } else { PAUSE };
        crate::time::sleep(pause).await;
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.accepts.get_mut().abandon(&self.socket.reactor);
    }
}

/// One future's wait for a connection.
struct Turn<'a> {
    accepting: &'a Accepting,
    number: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.accepting.pass_on(self.number);
    }
}

fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(pelton_driver::errno::ECANCELED)
}

/// The connection failed before it was accepted, which says nothing of the listener.
#[cfg(windows)]
fn passes(error: &io::Error) -> bool {
    use pelton_driver::errno::{EAGAIN, ECONNABORTED, ECONNRESET, EINTR};
    let number = error.raw_os_error();
    [EAGAIN, ECONNABORTED, ECONNRESET, EINTR].iter().any(|errno| number == Some(*errno))
}

#[cfg(windows)]
fn runs_out(error: &io::Error) -> bool {
    use pelton_driver::errno::{EMFILE, ENOBUFS};
    let number = error.raw_os_error();
    [EMFILE, ENOBUFS].iter().any(|errno| number == Some(*errno))
        || error.kind() == io::ErrorKind::QuotaExceeded
}

/// The connection failed before it was accepted, which says nothing of the listener.
#[cfg(unix)]
fn passes(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // Linux hands pending network errors of the new connection to accept.
    [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::PROTO,
        Errno::NETDOWN,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        #[cfg(target_os = "linux")]
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NETUNREACH,
        Errno::PERM,
        Errno::INTR,
        Errno::AGAIN,
    ]
    .iter()
    .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(unix)]
fn runs_out(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        || error.kind() == io::ErrorKind::QuotaExceeded
}

#[cfg(all(test, unix))]
mod tests;
