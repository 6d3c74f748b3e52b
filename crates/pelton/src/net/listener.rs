//! A TCP socket that connections come from.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use pelton_driver::ListenOptions;

use super::accepting::Accepting;
use super::address::ToSocketAddrs;
use super::tcp::TcpStream;
use crate::reactor::Reactor;
use crate::socket::Socket;

/// A socket that connections come from.
pub struct TcpListener {
    accepting: Accepting,
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
        TcpListener { accepting: Accepting::on(socket) }
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
        Ok(TcpStream::new(self.accepting.accept().await?))
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accepting.socket.local_addr()
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

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("fd", &self.accepting.socket.fd).finish_non_exhaustive()
    }
}

/// The peer of an accepted connection has gone, and so has its address.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotConnected | io::ErrorKind::InvalidInput | io::ErrorKind::ConnectionReset
    )
}
