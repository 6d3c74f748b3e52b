//! A TCP connection.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use pelton_driver::{IoBuf, IoBufMut, IoVectored, IoVectoredMut, Lease, Submission};

use super::address::ToSocketAddrs;
use super::receive::{self, Left, Read, Recv};
use super::split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::fs::File;
use crate::reactor::Reactor;
use crate::socket::Socket;

/// How much of a file one operation sends.
const FILE_PART: u64 = 1 << 30;

/// A TCP connection of this thread's reactor.
///
/// Every call takes `&self`: a connection may be read and written at the same time. Dropping it closes the
/// connection; operations in flight on it are cancelled.
pub struct TcpStream {
    pub(crate) socket: Socket,
    pub(crate) left: Left,
}

impl TcpStream {
    #[inline]
    pub(crate) fn new(socket: Socket) -> TcpStream {
        TcpStream { socket, left: Left::default() }
    }

    /// Connects to an address; of several, to the first that answers.
    ///
    /// Cancelled: the attempt is given up.
    ///
    /// # Errors
    /// What the last attempt failed with; the name could not be looked up; or no reactor runs on this
    /// thread.
    pub async fn connect(address: impl ToSocketAddrs) -> io::Result<TcpStream> {
        let reactor = Reactor::here()?;
        let mut last = None;
        for address in address.to_addresses().resolve().await? {
            match TcpStream::connect_to(&reactor, address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "there is no address to connect to")
        }))
    }

    async fn connect_to(reactor: &Rc<Reactor>, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::open(reactor.clone(), address)?;
        socket.operation(address, Submission::connect).await?;
        Ok(TcpStream::new(socket))
    }

    /// Takes over a connection of the standard library's.
    ///
    /// # Errors
    /// No reactor runs on this thread, or its table of descriptors is full.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<TcpStream> {
        let socket = Socket::attach(Reactor::here()?, stream.into())?;
        Ok(TcpStream::new(socket))
    }

    /// Receives into a buffer of the reactor's pool, leased until the lease is dropped; nothing at the end
    /// of the stream. An idle connection holds no buffer. Where no buffer is free it waits for one.
    ///
    /// Cancelled: nothing is lost, and nothing stops. The receive stays in flight with the connection, and
    /// the next one goes on with it.
    ///
    /// # Errors
    /// What the connection failed with.
    #[inline]
    pub fn recv(&self) -> impl Future<Output = io::Result<Option<Lease>>> {
        Recv::new(self)
    }

    /// Receives once into a buffer; 0 bytes are the end of the stream. A `Vec` is filled behind what it
    /// has.
    ///
    /// Cancelled: what had been received into the buffer is lost with it. [`TcpStream::recv`] loses nothing.
    ///
    /// # Errors
    /// What the connection failed with; or the buffer has no room. The buffer comes back in any case.
    #[inline]
    pub fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> {
        Read::new(self, buf)
    }

    /// Receives once into several buffers in order.
    ///
    /// # Errors
    /// As for [`TcpStream::read`].
    pub async fn read_vectored<V: IoVectoredMut>(&self, bufs: V) -> (io::Result<usize>, V) {
        if self.left.is_some() {
            return receive::read_left(self, bufs).await;
        }
        self.socket.operation(bufs, Submission::recv_vectored).await
    }

    /// Sends some of a buffer, and says how much.
    ///
    /// # Errors
    /// What the connection failed with. The buffer comes back in any case.
    #[inline]
    pub fn write<B: IoBuf>(&self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> {
        self.socket.operation(buf, Submission::send)
    }

    /// Sends all of a buffer and gives it back. More than 2 GiB at once are refused.
    ///
    /// Cancelled: an unknown part of the buffer has been sent.
    ///
    /// # Errors
    /// What the connection failed with; an unknown part has been sent then.
    #[inline]
    pub fn write_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = (io::Result<()>, B)> {
        self.socket.operation(buf, Submission::send_whole)
    }

    /// Sends all of a buffer, a lease for instance, and drops it. Cancelled as [`TcpStream::write_all`].
    ///
    /// # Errors
    /// What the connection failed with; an unknown part has been sent then.
    #[inline]
    pub fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = io::Result<()>> {
        self.socket.operation(buf, Submission::send_away)
    }

    /// Sends some of several buffers, in order, and says how much.
    ///
    /// # Errors
    /// As for [`TcpStream::write`].
    pub async fn write_vectored<V: IoVectored>(&self, bufs: V) -> (io::Result<usize>, V) {
        self.socket.operation(bufs, Submission::send_vectored).await
    }

    /// Sends all of several buffers, at most [`MAX_PARTS`](crate::driver::MAX_PARTS) of them, and says how
    /// much that was.
    ///
    /// # Errors
    /// As for [`TcpStream::write_all`].
    pub async fn write_vectored_all<V: IoVectored>(&self, bufs: V) -> (io::Result<usize>, V) {
        self.socket.operation(bufs, Submission::send_vectored_all).await
    }

    /// Sends `len` bytes of a file, from `offset` bytes on, and says how many: fewer only where the file ends before.
    /// The bytes pass no buffer of the caller's; on Linux with epoll, and on Windows, none of this process at all.
    ///
    /// Cancelled: an unknown part has been sent.
    ///
    /// # Errors
    /// What the connection failed with, or what the file could not be read with; an unknown part has been sent then.
    /// `EBADF`: the file is one of another reactor's.
    ///
    /// ```
    /// # pelton::block_on(async {
    /// use pelton::net::{TcpListener, TcpStream};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    /// let (server, _) = listener.accept().await?;
    ///
    /// let file = pelton::fs::File::open("Cargo.toml").await?;
    /// let sent = server.send_file(&file, 0, u64::MAX).await?;
    /// drop(server);
    /// # let mut received = 0;
    /// # while let Some(lease) = client.recv().await? { received += lease.len() as u64; }
    /// # assert_eq!(received, sent);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub async fn send_file(&self, file: &File, offset: u64, len: u64) -> io::Result<u64> {
        let mut sent = 0;
        while sent < len {
            let part = (len - sent).min(FILE_PART);
            let what = (file.socket.fd, offset.saturating_add(sent), part as usize);
            let send = |fd, (file, offset, len)| Submission::send_file(fd, file, offset, len);
            let n = self.socket.operation(what, send).await? as u64;
            sent += n;
            if n < part {
                break;
            }
        }
        Ok(sent)
    }

    /// Shuts the connection down, one way or both. After `Write` the peer sees the end of the stream.
    ///
    /// # Errors
    /// The connection is not connected any more.
    pub async fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.operation(how, Submission::shutdown).await.map(drop)
    }

    /// Waits until something can be received, or the end of the stream or an error has come.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub async fn readable(&self) -> io::Result<()> {
        if self.left.is_some() {
            return receive::wait_left(self).await;
        }
        let interest = pelton_driver::Interest::Readable;
        self.socket.operation(interest, Submission::poll).await.map(drop)
    }

    /// Waits until something can be sent, or an error has come.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub async fn writable(&self) -> io::Result<()> {
        let interest = pelton_driver::Interest::Writable;
        self.socket.operation(interest, Submission::poll).await.map(drop)
    }

    /// Closes the connection and waits until that is done. Dropping it closes it too, and does not wait.
    ///
    /// # Errors
    /// What the system said; the descriptor is gone in any case.
    pub async fn close(self) -> io::Result<()> {
        self.socket.operation((), |fd, ()| Submission::close(fd)).await.map(drop)
    }

    /// Halves that borrow the connection, for two futures of one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        split::borrowed(self)
    }

    /// Halves that own the connection, for two tasks. Dropping the write half ends the stream for the peer.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split::owned(self)
    }

    /// This end's address.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The other end's address.
    ///
    /// # Errors
    /// The connection is not connected any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// Sends small segments at once (`TCP_NODELAY`), or waits to gather them.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket.reactor.driver.set_nodelay(self.socket.fd, nodelay)
    }

    /// Whether small segments are sent at once.
    ///
    /// # Errors
    /// What the system said.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket.reactor.driver.nodelay(self.socket.fd)
    }

    /// The hop limit of what is sent.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket.reactor.driver.set_ttl(self.socket.fd, ttl)
    }

    /// The hop limit of what is sent.
    ///
    /// # Errors
    /// What the system said.
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.reactor.driver.ttl(self.socket.fd)
    }

    /// How long a close may wait for what is still to be sent; zero resets the connection.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.socket.reactor.driver.set_linger(self.socket.fd, linger)
    }

    /// How long a close may wait for what is still to be sent.
    ///
    /// # Errors
    /// What the system said.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.socket.reactor.driver.linger(self.socket.fd)
    }

    /// Sets any other option, through `socket2`.
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

impl Drop for TcpStream {
    #[inline]
    fn drop(&mut self) {
        if self.left.is_some()
            && let (Some(key), _) = self.left.take()
        {
            self.socket.reactor.driver.abandon(key);
        }
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream").field("fd", &self.socket.fd).finish_non_exhaustive()
    }
}
