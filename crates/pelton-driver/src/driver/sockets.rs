//! Sockets of the driver's own, made for its system and asked there: what is no operation, because it does
//! not wait.
//!
//! On a simulated system they are the only way to a socket: nobody else can make one there.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use super::{Driver, bad_descriptor};
use crate::descriptor::Fd;
use crate::sys::{calls, socket};

/// How to listen.
///
/// ```
/// use pelton_driver::{Config, Driver, ListenOptions};
/// let driver = Driver::new(Config::default())?;
/// let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
/// let first = driver.listen("127.0.0.1:0".parse()?, options)?;
/// let second = driver.listen(driver.local_addr(first)?, options)?;
/// # let _ = second;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections that the system keeps until they are accepted.
    pub backlog: i32,
    /// Several listeners, one for each reactor, share the port, and the system distributes connections.
    pub reuse_port: bool,
    /// Binds although connections of an earlier listener linger.
    pub reuse_address: bool,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions { backlog: 4096, reuse_port: false, reuse_address: true }
    }
}

impl Driver {
    /// A stream socket that listens on an address; port 0 lets the system choose one, which
    /// [`Driver::local_addr`] tells. Does not wait.
    ///
    /// # Errors
    /// The address is in use, not of this host, or not allowed; or a table of descriptors is full.
    ///
    /// ```
    /// use pelton_driver::{Config, Driver, ListenOptions, Submission, Token};
    /// let driver = Driver::new(Config::default())?;
    /// let listener = driver.listen("127.0.0.1:0".parse()?, ListenOptions::default())?;
    /// let address = driver.local_addr(listener)?;
    /// let client = driver.stream_socket(address)?;
    ///
    /// let connect = Submission::connect(client, address);
    /// let connect = driver.submit(connect, Token::NONE).map_err(|r| r.error)?;
    /// let accept = driver.submit(Submission::accept(listener), Token::NONE).map_err(|r| r.error)?;
    /// while !(driver.is_done(&connect) && driver.is_done(&accept)) {
    ///     driver.tick(None, |_completion| {})?;
    /// }
    /// driver.take(connect).expect("it is done")?;
    /// let accepted = driver.take(accept).expect("it is done")?;
    /// let server = driver.attach_stream(accepted.descriptor)?;
    /// assert_eq!(driver.peer_addr(server)?, driver.local_addr(client)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn listen(&self, address: SocketAddr, options: ListenOptions) -> io::Result<Fd> {
        let listener = socket::listening(address, options, self.wants())?;
        let raw = listener.as_raw();
        let fd = self.attach_stream(listener);
        self.room.listens(raw, fd.is_ok());
        fd
    }

    /// A stream socket for the family of an address, to [connect](crate::Submission::connect). Does not
    /// wait. See [`Driver::listen`] for an example.
    ///
    /// # Errors
    /// The system has no such family, or a table of descriptors is full.
    pub fn stream_socket(&self, like: SocketAddr) -> io::Result<Fd> {
        self.attach_stream(socket::stream(like, self.wants())?)
    }

    /// A datagram socket that is bound to an address; port 0 lets the system choose one. Does not wait.
    ///
    /// # Errors
    /// As for [`Driver::listen`].
    ///
    /// ```
    /// use pelton_driver::{Config, Driver, Submission, Token};
    /// let driver = Driver::new(Config::default())?;
    /// let one = driver.datagram_socket("127.0.0.1:0".parse()?)?;
    /// let other = driver.datagram_socket("127.0.0.1:0".parse()?)?;
    ///
    /// // Connected, it sends there and receives from there alone.
    /// let connect = Submission::connect(one, driver.local_addr(other)?);
    /// let connect = driver.submit(connect, Token::NONE).map_err(|r| r.error)?;
    /// while !driver.is_done(&connect) {
    ///     driver.tick(None, |_completion| {})?;
    /// }
    /// driver.take(connect).expect("it is done")?;
    /// assert_eq!(driver.peer_addr(one)?, driver.local_addr(other)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn datagram_socket(&self, bind: SocketAddr) -> io::Result<Fd> {
        // Neither a stream nor anybody's duplicate.
        self.insert(socket::datagram(bind, self.wants())?, 0)
    }

    /// Two stream sockets that are connected to each other and to nobody else. Does not wait.
    ///
    /// # Errors
    /// A table of descriptors is full.
    ///
    /// ```
    /// use pelton_driver::{Config, Driver, Submission, Token};
    /// let driver = Driver::new(Config::default())?;
    /// let (one, other) = driver.stream_pair()?;
    /// let recv = driver.submit(Submission::recv(other, [0; 8]), Token::NONE).map_err(|r| r.error)?;
    /// let send = driver.submit(Submission::send(one, "hello"), Token::NONE).map_err(|r| r.error)?;
    /// while !driver.is_done(&recv) {
    ///     driver.tick(None, |_completion| {})?;
    /// }
    /// assert_eq!(driver.take(recv).expect("it is done").0?, 5);
    /// # drop(send);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stream_pair(&self) -> io::Result<(Fd, Fd)> {
        let (one, other) = socket::stream_pair(self.wants())?;
        let one = self.attach_stream(one)?;
        match self.attach_stream(other) {
            Ok(other) => Ok((one, other)),
            Err(error) => {
                self.close(one);
                Err(error)
            }
        }
    }

    /// The address that a socket is bound to. Does not wait.
    ///
    /// # Errors
    /// `EBADF`: the driver has no such descriptor. `Unsupported`: the address is not an IP address. Or what
    /// the system said.
    ///
    /// ```
    /// # use pelton_driver::{Config, Driver, ListenOptions};
    /// let driver = Driver::new(Config::default())?;
    /// let listener = driver.listen("127.0.0.1:0".parse()?, ListenOptions::default())?;
    /// assert_ne!(driver.local_addr(listener)?.port(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn local_addr(&self, fd: Fd) -> io::Result<SocketAddr> {
        self.asking(fd, socket::Open::local_addr)
    }

    /// The address that a socket is connected to. Does not wait.
    ///
    /// # Errors
    /// As for [`Driver::local_addr`]; and the socket is not connected.
    ///
    /// ```
    /// # use pelton_driver::{Config, Driver};
    /// let driver = Driver::new(Config::default())?;
    /// let socket = driver.stream_socket("127.0.0.1:80".parse()?)?;
    /// let error = driver.peer_addr(socket).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn peer_addr(&self, fd: Fd) -> io::Result<SocketAddr> {
        self.asking(fd, socket::Open::peer_addr)
    }

    /// Whether small segments of a TCP socket are sent at once instead of being gathered. Does not wait.
    ///
    /// # Errors
    /// `EBADF`: the driver has no such descriptor. Or what the system said.
    ///
    /// ```
    /// # use pelton_driver::{Config, Driver};
    /// let driver = Driver::new(Config::default())?;
    /// let socket = driver.stream_socket("127.0.0.1:80".parse()?)?;
    /// driver.set_nodelay(socket, true)?;
    /// assert!(driver.nodelay(socket)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_nodelay(&self, fd: Fd, nodelay: bool) -> io::Result<()> {
        self.asking(fd, |socket| socket.set_nodelay(nodelay))
    }

    /// Whether small segments are sent at once, as [`Driver::set_nodelay`] said.
    ///
    /// # Errors
    /// As for [`Driver::set_nodelay`].
    pub fn nodelay(&self, fd: Fd) -> io::Result<bool> {
        self.asking(fd, socket::Open::nodelay)
    }

    /// The hop limit of what a socket sends, from 1 to 255. Does not wait.
    ///
    /// # Errors
    /// As for [`Driver::set_nodelay`].
    ///
    /// ```
    /// # use pelton_driver::{Config, Driver};
    /// let driver = Driver::new(Config::default())?;
    /// let socket = driver.stream_socket("127.0.0.1:80".parse()?)?;
    /// driver.set_ttl(socket, 7)?;
    /// assert_eq!(driver.ttl(socket)?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_ttl(&self, fd: Fd, ttl: u32) -> io::Result<()> {
        self.asking(fd, |socket| socket.set_ttl(ttl))
    }

    /// The hop limit, as [`Driver::set_ttl`] said.
    ///
    /// # Errors
    /// As for [`Driver::set_nodelay`].
    pub fn ttl(&self, fd: Fd) -> io::Result<u32> {
        self.asking(fd, socket::Open::ttl)
    }

    /// How long a close may wait for what is still to be sent, in whole seconds; zero resets the connection
    /// at the close. Does not wait.
    ///
    /// # Errors
    /// As for [`Driver::set_nodelay`].
    ///
    /// ```
    /// # use pelton_driver::{Config, Driver};
    /// # use std::time::Duration;
    /// let driver = Driver::new(Config::default())?;
    /// let socket = driver.stream_socket("127.0.0.1:80".parse()?)?;
    /// driver.set_linger(socket, Some(Duration::ZERO))?;
    /// assert_eq!(driver.linger(socket)?, Some(Duration::ZERO));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_linger(&self, fd: Fd, linger: Option<Duration>) -> io::Result<()> {
        self.asking(fd, |socket| socket.set_linger(linger))
    }

    /// How long a close may wait, as [`Driver::set_linger`] said.
    ///
    /// # Errors
    /// As for [`Driver::set_nodelay`].
    pub fn linger(&self, fd: Fd) -> io::Result<Option<Duration>> {
        self.asking(fd, socket::Open::linger)
    }

    /// Ends one direction of a connection, or both, on the spot: the same as
    /// [`Submission::shutdown`](crate::Submission::shutdown), for those that cannot wait for its completion.
    ///
    /// # Errors
    /// As for [`Driver::set_nodelay`]; and the socket is not connected.
    ///
    /// ```
    /// # use pelton_driver::{Config, Driver};
    /// let driver = Driver::new(Config::default())?;
    /// let (one, _other) = driver.stream_pair()?;
    /// driver.shutdown(one, std::net::Shutdown::Write)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(&self, fd: Fd, how: Shutdown) -> io::Result<()> {
        self.asking(fd, |socket| socket.shutdown(how))?;
        if let Some(entry) = self.core.fds.find(fd) {
            self.room.shut(&self.core, fd.index, entry, how);
        }
        Ok(())
    }

    /// The driver's clock, by which its timers fire: [`Instant::now`], or the world's on a simulated system.
    ///
    /// ```
    /// # use pelton_driver::{Config, Driver};
    /// let driver = Driver::new(Config::default())?;
    /// assert!(driver.now() >= driver.start_time());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn now(&self) -> Instant {
        calls::now()
    }

    pub(super) fn wants(&self) -> socket::Wants {
        socket::Wants { nonblocking: self.wants_nonblocking(), simulated: self.is_simulated() }
    }

    pub(super) fn asking<R>(
        &self,
        fd: Fd,
        ask: impl FnOnce(socket::Open) -> io::Result<R>,
    ) -> io::Result<R> {
        let entry = self.core.fds.find(fd).ok_or_else(bad_descriptor)?;
        // SAFETY: the entry is open, and nothing here runs code of the user's that could close it.
        ask(unsafe { socket::Open::new(entry.raw.get()) })
    }
}
