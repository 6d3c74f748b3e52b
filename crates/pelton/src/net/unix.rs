//! Unix sockets: streams between processes of one host.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::path::Path;
use std::time::Duration;

use pelton_driver::{IoBuf, IoBufMut, IoVectored, IoVectoredMut, Lease, Submission, UnixAddr};

use super::accepting::Accepting;
use super::split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use super::stream::{Stream, transfers};
use crate::reactor::Reactor;
use crate::socket::Socket;

/// Connections that a listener keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// How long a connect pauses, the first time and at most, before it asks a full listener again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A Unix stream socket of this thread's reactor.
///
/// It moves bytes as a [`TcpStream`](super::TcpStream) does: every call takes `&self`, and dropping it closes
/// it and cancels what is in flight.
pub struct UnixStream {
    pub(super) stream: Stream,
}

transfers! { UnixStream }

impl UnixStream {
    fn new(socket: Socket) -> UnixStream {
        UnixStream { stream: Stream::new(socket) }
    }

    /// Connects to a path. Where the listener has no room for another connection it waits for some.
    ///
    /// Cancelled: the attempt is given up.
    ///
    /// # Errors
    /// The path is too long for a Unix socket; nobody listens there (`ConnectionRefused`, or `NotFound` where
    /// there is no such file; always the first on Windows); it is not allowed; no reactor runs on this thread.
    /// `Unsupported` on Windows before Windows 10, version 1803.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&UnixAddr::from_path(path)?).await
    }

    /// Connects to an address, which on Linux may be a name outside of the file system.
    ///
    /// # Errors
    /// As for [`UnixStream::connect`].
    pub async fn connect_addr(address: &UnixAddr) -> io::Result<UnixStream> {
        let reactor = Reactor::here()?;
        let (mut pause, longest) = PAUSES;
        loop {
            let fd = reactor.driver.unix_socket()?;
            let socket = Socket { reactor: reactor.clone().into(), fd };
            match socket.operation(address.clone(), Submission::connect_unix).await {
                Ok(_) => return Ok(UnixStream::new(socket)),
                // No system tells of room where readiness is all there is.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(socket);
                    crate::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The address that this end was bound to; that of a client is unnamed.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<UnixAddr> {
        self.stream.socket.reactor.driver.unix_local_addr(self.stream.socket.fd)
    }

    /// The address that the other end was bound to.
    ///
    /// # Errors
    /// It is not connected any more.
    pub fn peer_addr(&self) -> io::Result<UnixAddr> {
        self.stream.socket.reactor.driver.unix_peer_addr(self.stream.socket.fd)
    }
}

#[cfg(unix)]
impl UnixStream {
    /// Two that are connected to each other and to nobody else.
    ///
    /// # Errors
    /// A table of descriptors is full; or no reactor runs on this thread.
    ///
    /// ```
    /// # pelton::block_on(async {
    /// let (one, other) = pelton::net::UnixStream::pair()?;
    /// one.write_all("hello").await.0?;
    /// assert_eq!(&*other.recv().await?.unwrap(), b"hello");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let reactor = Reactor::here()?;
        let (one, other) = reactor.driver.stream_pair()?;
        let of = |fd| UnixStream::new(Socket { reactor: reactor.clone().into(), fd });
        Ok((of(one), of(other)))
    }

    /// Takes over a connection of the standard library's.
    ///
    /// # Errors
    /// No reactor runs on this thread, or its table of descriptors is full.
    pub fn from_std(stream: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
        Ok(UnixStream::new(Socket::attach(Reactor::here()?, stream.into())?))
    }
}

/// A Unix socket that connections come from.
///
/// ```
/// # #[cfg(unix)]
/// # pelton::block_on(async {
/// use pelton::net::{UnixListener, UnixStream};
/// let path = std::env::temp_dir().join(format!("pelton-doc-{}.sock", std::process::id()));
/// let listener = UnixListener::bind(&path)?;
/// let client = UnixStream::connect(&path).await?;
/// let (server, _) = listener.accept().await?;
/// client.write_all("hello").await.0?;
/// assert_eq!(&*server.recv().await?.unwrap(), b"hello");
/// std::fs::remove_file(path)?;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct UnixListener {
    accepting: Accepting,
}

impl UnixListener {
    /// Listens on a path, which is made. It stays in the file system when the listener is dropped, and is in use
    /// as long as it is there: remove it before or after.
    ///
    /// # Errors
    /// `AddrInUse`: there is such a file. The path is too long for a Unix socket, or not allowed; no reactor runs
    /// on this thread. `Unsupported` on Windows before Windows 10, version 1803.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        UnixListener::bind_addr(&UnixAddr::from_path(path)?)
    }

    /// Listens on an address, which on Linux may be a name outside of the file system: that one ends with the
    /// listener.
    ///
    /// # Errors
    /// As for [`UnixListener::bind`].
    pub fn bind_addr(address: &UnixAddr) -> io::Result<UnixListener> {
        UnixListener::bind_with(address, BACKLOG)
    }

    /// Listens on an address and keeps at most `backlog` connections until they are accepted; Linux takes one
    /// more.
    ///
    /// # Errors
    /// As for [`UnixListener::bind`].
    pub fn bind_with(address: &UnixAddr, backlog: i32) -> io::Result<UnixListener> {
        let reactor = Reactor::here()?;
        let fd = reactor.driver.unix_listen(address, backlog)?;
        Ok(UnixListener { accepting: Accepting::on(Socket { reactor: reactor.into(), fd }) })
    }

    /// Takes over a listener of the standard library's, for instance one that was inherited.
    ///
    /// # Errors
    /// No reactor runs on this thread, or its table of descriptors is full.
    #[cfg(unix)]
    pub fn from_std(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
        let socket = Socket::attach(Reactor::here()?, listener.into())?;
        Ok(UnixListener { accepting: Accepting::on(socket) })
    }

    /// The next connection and its peer's address, which is unnamed as a rule. Dropping the future loses none.
    ///
    /// When descriptors or memory run out this waits and tries again; a [`Fault`](crate::Fault) tells of it
    /// once.
    ///
    /// # Errors
    /// What concerns the listener itself.
    pub async fn accept(&self) -> io::Result<(UnixStream, UnixAddr)> {
        let stream = UnixStream::new(self.accepting.accept().await?);
        // A peer that has gone already had no name to lose.
        let peer = stream.peer_addr().unwrap_or_default();
        Ok((stream, peer))
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<UnixAddr> {
        let socket = &self.accepting.socket;
        socket.reactor.driver.unix_local_addr(socket.fd)
    }

    /// Sets any option, through `socket2`.
    ///
    /// # Errors
    /// What `f` returned. `Unsupported` on a simulated system.
    pub fn with_socket<R>(
        &self,
        f: impl FnOnce(socket2::SockRef<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        self.accepting.socket.option(f)
    }
}

impl fmt::Debug for UnixListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fd = &self.accepting.socket.fd;
        f.debug_struct("UnixListener").field("fd", fd).finish_non_exhaustive()
    }
}
