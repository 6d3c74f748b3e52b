//! Datagrams.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use pelton_driver::{
    Control, DatagramOption, Interest, IoBuf, IoBufMut, IoVectored, IoVectoredMut, Received,
    Submission,
};

use super::address::ToSocketAddrs;
use crate::reactor::Reactor;
use crate::socket::Socket;

/// A UDP socket of this thread's reactor.
///
/// Every call takes `&self`, so an `Rc<UdpSocket>` is shared by as many tasks as one likes: of several that
/// receive, each gets datagrams of its own, and which one gets which nobody promises. Dropping it closes the
/// socket; operations in flight on it are cancelled.
///
/// Errors of the network are values and do not end the socket. On one that is connected, the next call after a
/// datagram for a port where nobody is fails with `ConnectionRefused`, and the one after that goes on.
///
/// ```
/// # pelton::block_on(async {
/// use pelton::net::UdpSocket;
/// let server = UdpSocket::bind("127.0.0.1:0").await?;
/// let client = UdpSocket::bind("127.0.0.1:0").await?;
/// let (sent, _) = client.send_to("hello", server.local_addr()?).await;
/// assert_eq!(sent?, 5);
/// let (received, buf) = server.recv_from(Vec::with_capacity(1500)).await;
/// let (len, from) = received?;
/// assert_eq!((&buf[..len], from), (&b"hello"[..], client.local_addr()?));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
///
/// Shared by two tasks:
///
/// ```
/// # pelton::block_on(async {
/// use pelton::net::UdpSocket;
/// use std::rc::Rc;
/// let socket = Rc::new(UdpSocket::bind("127.0.0.1:0").await?);
/// let (receiver, address) = (socket.clone(), socket.local_addr()?);
/// let task = pelton::spawn(async move { receiver.recv_from([0; 16]).await.0 });
/// socket.send_to("to myself", address).await.0?;
/// assert_eq!(task.await??.0, 9);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct UdpSocket {
    socket: Socket,
}

impl UdpSocket {
    /// Binds a socket to an address; of several, to the first that can be had. Port 0 lets the system choose.
    ///
    /// # Errors
    /// The address is in use, not of this host, or not allowed; the name could not be looked up; or no reactor
    /// runs on this thread.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        let mut last = None;
        for address in address.to_addresses().resolve().await? {
            match UdpSocket::bind_now(address) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "there is no address to bind to")
        }))
    }

    /// Binds a socket to one address, at once.
    ///
    /// # Errors
    /// As for [`UdpSocket::bind`].
    pub fn bind_now(address: SocketAddr) -> io::Result<UdpSocket> {
        let reactor = Reactor::here()?;
        let fd = reactor.driver.datagram_socket(address)?;
        Ok(UdpSocket { socket: Socket { reactor: reactor.into(), fd } })
    }

    /// Takes over a socket of the standard library's, for instance one with options that have to be set before
    /// it is bound.
    ///
    /// # Errors
    /// No reactor runs on this thread, or its table of descriptors is full.
    pub fn from_std(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
        Ok(UdpSocket { socket: Socket::attach(Reactor::here()?, socket.into())? })
    }

    /// Gives the socket to the standard library. It does not block:
    /// [`set_nonblocking`](std::net::UdpSocket::set_nonblocking) changes that.
    ///
    /// Waits for operations that were dropped in flight to end.
    ///
    /// # Errors
    /// What the system said. `Unsupported` on a simulated system.
    pub async fn into_std(self) -> io::Result<std::net::UdpSocket> {
        let driver = &self.socket.reactor.driver;
        // Nobody holds a future on it any more, so that whatever is in flight has been abandoned.
        let descriptor = loop {
            match driver.detach(self.socket.fd) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    self.socket.operation((), |fd, ()| Submission::cancel_fd(fd)).await?;
                    crate::yield_now().await;
                }
                detached => break detached?,
            }
        };
        let socket = std::net::UdpSocket::try_from(descriptor).map_err(|_| {
            io::Error::new(io::ErrorKind::Unsupported, "the socket is one of a simulated system")
        })?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Connects the socket: it sends there, and receives from there alone. May be done again.
    ///
    /// # Errors
    /// The address is not one that can be reached, or of the other family; the name could not be looked up.
    pub async fn connect(&self, address: impl ToSocketAddrs) -> io::Result<()> {
        let mut last = None;
        for address in address.to_addresses().resolve().await? {
            match self.socket.operation(address, Submission::connect).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "there is no address to connect to")
        }))
    }

    /// Sends a datagram to where the socket is connected to, and gives the buffer back. Cancelled: it has been
    /// sent, or it has not.
    ///
    /// # Errors
    /// The socket is not connected, the datagram too long, or nobody was there for an earlier one.
    pub async fn send<B: IoBuf>(&self, buf: B) -> (io::Result<usize>, B) {
        self.socket.operation(buf, Submission::send).await
    }

    /// Receives a datagram. What does not fit into the buffer is lost; [`UdpSocket::recv_msg`] tells of that. A
    /// datagram may have no bytes: 0 is no end.
    ///
    /// Cancelled: no datagram is lost, unless it had been received already and nobody had looked.
    ///
    /// # Errors
    /// Nobody was there for a datagram that was sent; or the buffer has no room.
    pub async fn recv<B: IoBufMut>(&self, buf: B) -> (io::Result<usize>, B) {
        self.socket.operation(buf, Submission::recv).await
    }

    /// Sends a datagram to an address, and gives the buffer back. Cancelled: as for [`UdpSocket::send`].
    ///
    /// It takes an address and no name, so that no datagram waits for a lookup.
    ///
    /// # Errors
    /// The address cannot be reached, is of the other family, or the datagram is too long.
    pub async fn send_to<B: IoBuf>(&self, buf: B, to: SocketAddr) -> (io::Result<usize>, B) {
        let send = |fd, (buf, to)| Submission::send_to(fd, buf, to);
        self.socket.operation((buf, to), send).await
    }

    /// Receives a datagram, and who sent it. As [`UdpSocket::recv`] otherwise.
    ///
    /// # Errors
    /// As for [`UdpSocket::recv`].
    pub async fn recv_from<B: IoBufMut>(&self, buf: B) -> (io::Result<(usize, SocketAddr)>, B) {
        let (received, buf) = self.socket.operation(buf, Submission::recv_from).await;
        (received.and_then(with_sender), buf)
    }

    /// Copies the next datagram and leaves it where it is. Several tasks that look may see the same one.
    ///
    /// # Errors
    /// As for [`UdpSocket::recv`].
    pub async fn peek_from<B: IoBufMut>(&self, mut buf: B) -> (io::Result<(usize, SocketAddr)>, B) {
        let driver = &self.socket.reactor.driver;
        loop {
            match driver.try_recv_from(self.socket.fd, &mut buf, true) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                looked => return (looked.and_then(with_sender), buf),
            }
            if let Err(error) = self.readable().await {
                return (Err(error), buf);
            }
        }
    }

    /// Sends several buffers in order as one datagram, with control messages, to an address or, without one, to
    /// where the socket is connected to. Everything comes back. Cancelled: as for [`UdpSocket::send`].
    ///
    /// # Errors
    /// As for [`UdpSocket::send_to`]; or a control message asks for what cannot be had.
    ///
    /// ```
    /// # pelton::block_on(async {
    /// use pelton::net::{Control, UdpSocket};
    /// let one = UdpSocket::bind("127.0.0.1:0").await?;
    /// let other = UdpSocket::bind("127.0.0.1:0").await?;
    /// other.set_recv_packet_info(true)?;
    ///
    /// let to = other.local_addr()?;
    /// one.send_msg(["head", "body"], Some(to), Control::none()).await.0?;
    ///
    /// let control = Control::with_capacity(64);
    /// let (received, bufs, control) = other.recv_msg([Vec::with_capacity(4096)], control).await;
    /// assert_eq!((received?.len, &bufs[0][..]), (8, &b"headbody"[..]));
    /// let info = control.iter().find_map(|message| message.packet_info());
    /// assert_eq!(info.expect("it was asked for").0, to.ip());
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub async fn send_msg<V: IoVectored>(
        &self,
        bufs: V,
        to: Option<SocketAddr>,
        control: Control,
    ) -> (io::Result<usize>, V, Control) {
        let send = |fd, (bufs, to, control)| Submission::send_msg(fd, bufs, to, control);
        self.socket.operation((bufs, to, control), send).await
    }

    /// Receives a datagram into several buffers in order, with the control messages that the socket was told to
    /// receive (`set_recv_…`), and says whether anything was cut off. Everything comes back, also where it was
    /// cancelled by [`Submission::cancel_fd`]. Dropped: as for [`UdpSocket::recv`].
    ///
    /// # Errors
    /// As for [`UdpSocket::recv`].
    pub async fn recv_msg<V: IoVectoredMut>(
        &self,
        bufs: V,
        control: Control,
    ) -> (io::Result<Received>, V, Control) {
        let recv = |fd, (bufs, control)| Submission::recv_msg(fd, bufs, control);
        self.socket.operation((bufs, control), recv).await
    }

    /// Waits until a datagram can be received, or an error has come.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.operation(Interest::Readable, Submission::poll).await.map(drop)
    }

    /// Waits until a datagram can be sent, or an error has come.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.operation(Interest::Writable, Submission::poll).await.map(drop)
    }

    /// Receives a datagram that is there already.
    ///
    /// # Errors
    /// `WouldBlock`: none is. Else as for [`UdpSocket::recv`].
    pub fn try_recv<B: IoBufMut>(&self, buf: &mut B) -> io::Result<usize> {
        let driver = &self.socket.reactor.driver;
        driver.try_recv_from(self.socket.fd, buf, false).map(|received| received.len)
    }

    /// Receives a datagram that is there already, and who sent it.
    ///
    /// # Errors
    /// As for [`UdpSocket::try_recv`].
    pub fn try_recv_from<B: IoBufMut>(&self, buf: &mut B) -> io::Result<(usize, SocketAddr)> {
        let driver = &self.socket.reactor.driver;
        driver.try_recv_from(self.socket.fd, buf, false).and_then(with_sender)
    }

    /// Sends a datagram at once to where the socket is connected to.
    ///
    /// # Errors
    /// `WouldBlock`: the system has no room for it now. Else as for [`UdpSocket::send`].
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.reactor.driver.try_send_to(self.socket.fd, bytes, None)
    }

    /// Sends a datagram at once to an address.
    ///
    /// # Errors
    /// `WouldBlock`: the system has no room for it now. Else as for [`UdpSocket::send_to`].
    pub fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.socket.reactor.driver.try_send_to(self.socket.fd, bytes, Some(to))
    }

    /// Closes the socket and waits until that is done. Dropping it closes it too, and does not wait.
    ///
    /// # Errors
    /// What the system said; the descriptor is gone in any case.
    pub async fn close(self) -> io::Result<()> {
        self.socket.operation((), |fd, ()| Submission::close(fd)).await.map(drop)
    }

    /// The socket's own address.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The address that the socket is connected to.
    ///
    /// # Errors
    /// `NotConnected`, or what the system said.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// The hop limit of what is sent to one host (IPv4).
    ///
    /// # Errors
    /// What the system said.
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.reactor.driver.ttl(self.socket.fd)
    }

    /// Sets the hop limit of what is sent to one host (IPv4).
    ///
    /// # Errors
    /// What the system said.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket.reactor.driver.set_ttl(self.socket.fd, ttl)
    }

    /// Whether it may send to broadcast addresses.
    ///
    /// # Errors
    /// What the system said.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.socket.reactor.driver.broadcast(self.socket.fd)
    }

    /// Whether what it sends to a group of IPv4 comes back to this host too.
    ///
    /// # Errors
    /// What the system said.
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        self.socket.reactor.driver.multicast_loop(self.socket.fd, false)
    }

    /// The hop limit of what it sends to a group of IPv4.
    ///
    /// # Errors
    /// What the system said.
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        self.socket.reactor.driver.multicast_hops(self.socket.fd, false)
    }

    /// Whether what it sends to a group of IPv6 comes back to this host too.
    ///
    /// # Errors
    /// What the system said.
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        self.socket.reactor.driver.multicast_loop(self.socket.fd, true)
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

    fn tell(&self, option: DatagramOption) -> io::Result<()> {
        self.socket.reactor.driver.set_datagram_option(self.socket.fd, option)
    }
}

macro_rules! options {
    ($($(#[$doc:meta])+ $name:ident($($arg:ident: $type:ty),+) $option:ident;)+) => {
        impl UdpSocket {
            $(
                $(#[$doc])+
                ///
                /// # Errors
                /// What the system said. A simulated network has no multicast, and says `Unsupported`.
                pub fn $name(&self, $($arg: $type),+) -> io::Result<()> {
                    self.tell(DatagramOption::$option($($arg),+))
                }
            )+
        }
    };
}

options! {
    /// Allows it to send to broadcast addresses.
    set_broadcast(on: bool) Broadcast;
    /// Sets the traffic class (type of service) of what it sends.
    set_tos(class: u8) TrafficClass;
    /// Says whether what it sends to a group of IPv4 comes back to this host too.
    set_multicast_loop_v4(on: bool) MulticastLoopV4;
    /// Sets the hop limit of what it sends to a group of IPv4.
    set_multicast_ttl_v4(ttl: u32) MulticastTtlV4;
    /// Says whether what it sends to a group of IPv6 comes back to this host too.
    set_multicast_loop_v6(on: bool) MulticastLoopV6;
    /// Sets the hop limit of what it sends to a group of IPv6.
    set_multicast_hops_v6(hops: u32) MulticastHopsV6;
    /// Joins a group on the interface with this address; unspecified lets the system choose.
    join_multicast_v4(group: Ipv4Addr, interface: Ipv4Addr) JoinV4;
    /// Leaves a group.
    leave_multicast_v4(group: Ipv4Addr, interface: Ipv4Addr) LeaveV4;
    /// Joins a group on the interface with this number; 0 lets the system choose.
    join_multicast_v6(group: Ipv6Addr, interface: u32) JoinV6;
    /// Leaves a group.
    leave_multicast_v6(group: Ipv6Addr, interface: u32) LeaveV6;
    /// Has each datagram come with the address that it was sent to:
    /// [`ControlMessage::packet_info`](pelton_driver::ControlMessage::packet_info).
    set_recv_packet_info(on: bool) ReceivePacketInfo;
    /// Has each datagram come with its hop limit:
    /// [`ControlMessage::hop_limit`](pelton_driver::ControlMessage::hop_limit).
    set_recv_hop_limit(on: bool) ReceiveHopLimit;
    /// Has each datagram come with its traffic class:
    /// [`ControlMessage::traffic_class`](pelton_driver::ControlMessage::traffic_class).
    set_recv_tos(on: bool) ReceiveTrafficClass;
    /// Lets datagrams of one sender come put together, with their length:
    /// [`ControlMessage::segment_len`](pelton_driver::ControlMessage::segment_len).
    set_recv_segments(on: bool) ReceiveSegments;
}

fn with_sender(received: Received) -> io::Result<(usize, SocketAddr)> {
    let no_sender = || io::Error::new(io::ErrorKind::Unsupported, "the sender has no IP address");
    Ok((received.len, received.from.ok_or_else(no_sender)?))
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("fd", &self.socket.fd).finish_non_exhaustive()
    }
}
