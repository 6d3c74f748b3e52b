//! Datagram sockets: what is no operation, because it does not wait. Their options, and receives and sends that
//! are made at once or not at all.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Driver, bad_descriptor};
use crate::buf::IoBufMut;
use crate::descriptor::{Fd, flags};
use crate::message::Received;
use crate::payload::{MAX_TRANSFER, Memory, NoRoom};
use crate::sys::{calls, socket};

/// What a datagram socket can be told, by [`Driver::set_datagram_option`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatagramOption {
    /// It may send to broadcast addresses.
    Broadcast(bool),
    /// What it sends carries this traffic class (type of service).
    TrafficClass(u8),
    /// What it sends to a group of IPv4 comes back to this host too.
    MulticastLoopV4(bool),
    /// The hop limit of what it sends to a group of IPv4.
    MulticastTtlV4(u32),
    /// What it sends to a group of IPv6 comes back to this host too.
    MulticastLoopV6(bool),
    /// The hop limit of what it sends to a group of IPv6.
    MulticastHopsV6(u32),
    /// It joins a group on the interface with this address; unspecified lets the system choose.
    JoinV4(Ipv4Addr, Ipv4Addr),
    /// It leaves a group that it has joined.
    LeaveV4(Ipv4Addr, Ipv4Addr),
    /// It joins a group on the interface with this number; 0 lets the system choose.
    JoinV6(Ipv6Addr, u32),
    /// It leaves a group that it has joined.
    LeaveV6(Ipv6Addr, u32),
    /// Each datagram comes with the address that it was sent to and the interface that it came by:
    /// [`ControlMessage::packet_info`](crate::ControlMessage::packet_info).
    ReceivePacketInfo(bool),
    /// Each datagram comes with its hop limit: [`ControlMessage::hop_limit`](crate::ControlMessage::hop_limit).
    ReceiveHopLimit(bool),
    /// Each datagram comes with its traffic class:
    /// [`ControlMessage::traffic_class`](crate::ControlMessage::traffic_class).
    ReceiveTrafficClass(bool),
    /// Datagrams of one sender may come put together, with their length:
    /// [`ControlMessage::segment_len`](crate::ControlMessage::segment_len) (`UDP_GRO`).
    ReceiveSegments(bool),
}

impl Driver {
    /// Sets an option of a datagram socket. Does not wait.
    ///
    /// # Errors
    /// What the system said; or `EBADF`: the driver has no such descriptor. Simulated systems have no
    /// multicast and put no datagrams together, and say `Unsupported`.
    ///
    /// ```
    /// # use pelton_driver::{Config, DatagramOption, Driver};
    /// let driver = Driver::new(Config::default())?;
    /// let socket = driver.datagram_socket("127.0.0.1:0".parse()?)?;
    /// driver.set_datagram_option(socket, DatagramOption::Broadcast(true))?;
    /// assert!(driver.broadcast(socket)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_datagram_option(&self, fd: Fd, option: DatagramOption) -> io::Result<()> {
        self.asking(fd, |socket| socket.set_datagram_option(option))
    }

    /// Whether it may send to broadcast addresses.
    ///
    /// # Errors
    /// As for [`Driver::set_datagram_option`].
    pub fn broadcast(&self, fd: Fd) -> io::Result<bool> {
        self.asking(fd, socket::Open::broadcast)
    }

    /// Whether what it sends to a group comes back to this host, for IPv4 or for IPv6.
    ///
    /// # Errors
    /// As for [`Driver::set_datagram_option`].
    pub fn multicast_loop(&self, fd: Fd, v6: bool) -> io::Result<bool> {
        self.asking(fd, |socket| socket.multicast_loop(v6))
    }

    /// The hop limit of what it sends to a group, for IPv4 or for IPv6.
    ///
    /// # Errors
    /// As for [`Driver::set_datagram_option`].
    pub fn multicast_hops(&self, fd: Fd, v6: bool) -> io::Result<u32> {
        self.asking(fd, |socket| socket.multicast_hops(v6))
    }

    /// Receives a datagram that is there already: no operation, no completion. With `peek` it stays where it
    /// is, for the next receive.
    ///
    /// # Errors
    /// `WouldBlock`: none is there; or what the socket failed with; or the buffer has no room.
    ///
    /// ```
    /// # use pelton_driver::{Config, Driver};
    /// let driver = Driver::new(Config::default())?;
    /// let socket = driver.datagram_socket("127.0.0.1:0".parse()?)?;
    /// let error = driver.try_recv_from(socket, &mut [0; 16], false).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_recv_from<B: IoBufMut>(
        &self,
        fd: Fd,
        buf: &mut B,
        peek: bool,
    ) -> io::Result<Received> {
        // User code, which may close the descriptor: asked first. The memory stays where it is, because `buf`
        // is borrowed until the bytes have been counted, and the system call runs nobody's code.
        let mut spare = buf.spare();
        let memory = Memory { ptr: spare.as_mut_ptr(), len: spare.len() }.clamped();
        if memory.len == 0 {
            return Err(NoRoom::Empty.error());
        }
        let entry = self.core.fds.find(fd).ok_or_else(bad_descriptor)?;
        let stream = entry.has(flags::STREAM);
        // SAFETY: the memory is borrowed for this call, and the descriptor is open: nothing else runs meanwhile.
        let received =
            unsafe { calls::receive_one(entry.raw.get(), memory.ptr, memory.len, peek, stream) }?;
        // SAFETY: the system has just written so many bytes to the start of what `spare` gave, and nobody has
        // touched the buffer since.
        unsafe { buf.advance(received.len) };
        Ok(received)
    }

    /// Sends a datagram at once, to an address, or without one to where the socket is connected to: no
    /// operation, no completion.
    ///
    /// # Errors
    /// `WouldBlock`: the system has no room for it now; or what it was refused with.
    pub fn try_send_to(&self, fd: Fd, bytes: &[u8], to: Option<SocketAddr>) -> io::Result<usize> {
        let entry = self.core.fds.find(fd).ok_or_else(bad_descriptor)?;
        let bytes = bytes.get(..MAX_TRANSFER).unwrap_or(bytes);
        // SAFETY: the descriptor is open, and nothing else runs meanwhile.
        unsafe { calls::send_one(entry.raw.get(), bytes, to) }
    }
}
