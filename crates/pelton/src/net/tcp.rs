//! A TCP connection.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use pelton_driver::{IoBuf, IoBufMut, IoVectored, IoVectoredMut, Lease, Submission};

use super::address::ToSocketAddrs;
use super::split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use super::stream::{Stream, transfers};
use crate::reactor::Reactor;
use crate::socket::Socket;

/// A TCP connection of this thread's reactor.
///
/// Every call takes `&self`: a connection may be read and written at the same time. Dropping it closes the
/// connection; operations in flight on it are cancelled.
pub struct TcpStream {
    pub(super) stream: Stream,
}

transfers! { TcpStream }

impl TcpStream {
    #[inline]
    pub(crate) fn new(socket: Socket) -> TcpStream {
        TcpStream { stream: Stream::new(socket) }
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

    /// This end's address.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.socket.local_addr()
    }

    /// The other end's address.
    ///
    /// # Errors
    /// The connection is not connected any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.socket.peer_addr()
    }

    /// Sends small segments at once (`TCP_NODELAY`), or waits to gather them.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.stream.socket.reactor.driver.set_nodelay(self.stream.socket.fd, nodelay)
    }

    /// Whether small segments are sent at once.
    ///
    /// # Errors
    /// What the system said.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.stream.socket.reactor.driver.nodelay(self.stream.socket.fd)
    }

    /// The hop limit of what is sent.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.stream.socket.reactor.driver.set_ttl(self.stream.socket.fd, ttl)
    }

    /// The hop limit of what is sent.
    ///
    /// # Errors
    /// What the system said.
    pub fn ttl(&self) -> io::Result<u32> {
        self.stream.socket.reactor.driver.ttl(self.stream.socket.fd)
    }

    /// How long a close may wait for what is still to be sent; zero resets the connection.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.stream.socket.reactor.driver.set_linger(self.stream.socket.fd, linger)
    }

    /// How long a close may wait for what is still to be sent.
    ///
    /// # Errors
    /// What the system said.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.stream.socket.reactor.driver.linger(self.stream.socket.fd)
    }
}
