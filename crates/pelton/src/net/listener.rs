//! A socket that connections come from.
//!
//! # How a listener accepts
//!
//! One multishot accept is armed as long as somebody waits, and stays armed across the futures that wait,
//! so that dropping one loses no connection: what has been accepted waits in the driver for the next. When
//! too many wait there the driver ends the operation, and the next `accept` arms it again, after taking
//! what is there. Several tasks may wait at once: each is woken for its turn.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pelton_driver::{ListenOptions, ManyAccepts, OwnedDescriptor, Submission};

use super::address::ToSocketAddrs;
use super::stream::TcpStream;
use crate::fault::Fault;
use crate::operation::Pending;
use crate::reactor::Reactor;
use crate::socket::Socket;

/// How long accepting pauses when descriptors or memory have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// A shortage that comes and goes is told of once in this time.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// A socket that connections come from.
pub struct TcpListener {
    accepts: RefCell<Pending<ManyAccepts>>,
    /// The turn that the operation's completions are told to. The others wait for that one's end.
    told_to: Cell<Option<u64>>,
    waiters: RefCell<Vec<(u64, Waker)>>,
    next_waiter: Cell<u64>,
    told: Cell<Option<Instant>>,
    socket: Socket,
}

impl TcpListener {
    /// Listens on an address; of several, on the first that works.
    ///
    /// # Errors
    /// The address is in use or not allowed, the name could not be looked up, or no reactor runs on this
    /// thread.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
        TcpListener::bind_with(address, ListenOptions::default()).await
    }

    /// Listens on an address, with options.
    ///
    /// # Errors
    /// As for [`TcpListener::bind`].
    ///
    /// ```
    /// # pelton::block_on(async {
    /// use pelton::net::{ListenOptions, TcpListener};
    /// let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    /// let first = TcpListener::bind_with("127.0.0.1:0", options).await?;
    /// let second = TcpListener::bind_with(first.local_addr()?, options).await?;
    /// # drop(second);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub async fn bind_with(
        address: impl ToSocketAddrs,
        options: ListenOptions,
    ) -> io::Result<TcpListener> {
        let mut last = None;
        for address in address.to_addresses().resolve().await? {
            match TcpListener::bind_now(address, options) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "there is no address to listen on")
        }))
    }

    /// Listens on one address, at once.
    ///
    /// # Errors
    /// As for [`TcpListener::bind`].
    pub fn bind_now(address: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
        let reactor = Reactor::here()?;
        Ok(TcpListener::on(Socket::listen(reactor, address, options)?))
    }

    /// Takes over a listener of the standard library's, for instance one that was inherited.
    ///
    /// # Errors
    /// No reactor runs on this thread, or its table of descriptors is full.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        Ok(TcpListener::on(Socket::attach(Reactor::here()?, listener.into())?))
    }

    fn on(socket: Socket) -> TcpListener {
        TcpListener {
            accepts: RefCell::new(Pending::none()),
            told_to: Cell::new(None),
            waiters: RefCell::default(),
            next_waiter: Cell::new(0),
            told: Cell::new(None),
            socket,
        }
    }

    /// The next connection and its peer's address. Dropping the future loses none.
    ///
    /// A connection that has failed before it was accepted is passed over. When descriptors or memory run
    /// out this waits and tries again; a [`Fault`](crate::Fault) tells of it once.
    ///
    /// # Errors
    /// What concerns the listener itself. What the system said when the peer's address was asked for, other
    /// than that the peer has gone: that connection is closed.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let stream = self.accept_stream().await?;
            match stream.peer_addr() {
                Ok(peer) => return Ok((stream, peer)),
                // A peer that has reset the connection already has no address any more: pass it over. Some
                // systems call that an invalid argument.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next connection. As [`TcpListener::accept`], without asking for the peer's address: one system
    /// call less.
    ///
    /// # Errors
    /// As for [`TcpListener::accept`].
    pub async fn accept_stream(&self) -> io::Result<TcpStream> {
        loop {
            let turn = Turn {
                listener: self,
                number: self.next_waiter.replace(self.next_waiter.get() + 1),
            };
            let accepted = poll_fn(|cx| self.poll_accept(cx, turn.number)).await;
            drop(turn);
            match accepted {
                Ok(descriptor) => {
                    match Socket::new_stream(self.socket.reactor.clone(), descriptor) {
                        Ok(socket) => return Ok(TcpStream::new(socket)),
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

    /// The address that is listened on.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Sets any option, through `socket2`.
    ///
    /// # Errors
    /// What `f` returned. `Unsupported` on a simulated system.
    pub fn with_socket<R>(
        &self,
        f: impl FnOnce(socket2::SockRef<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        self.socket.option(f)
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.accepts.get_mut().abandon(&self.socket.reactor);
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("fd", &self.socket.fd).finish_non_exhaustive()
    }
}

/// One future's wait for a connection.
struct Turn<'a> {
    listener: &'a TcpListener,
    number: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.listener.pass_on(self.number);
    }
}

fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(pelton_driver::errno::ECANCELED)
}

/// The peer of an accepted connection has gone, and so has its address.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotConnected | io::ErrorKind::InvalidInput | io::ErrorKind::ConnectionReset
    )
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
