//! Sockets: made, bound, and asked, of the system or of a simulated one.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::descriptor::OwnedDescriptor;
use super::unix::native::{self, without_signal};
use super::unix::{RawDescriptor, borrow};
#[cfg(feature = "sim")]
use super::{descriptor::own, unix::error_of};
use crate::driver::{DatagramOption, ListenOptions};
#[cfg(feature = "sim")]
use crate::sim::calls::{self as sim, SocketKind, SocketOption};
#[cfg(feature = "sim")]
use crate::sim::local;
use crate::unix_address::UnixAddr;

/// What a driver wants of its sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants {
    /// They never block.
    pub(crate) nonblocking: bool,
    /// They are of this thread's simulated world.
    #[cfg_attr(not(feature = "sim"), allow(dead_code, reason = "there is no simulated one"))]
    pub(crate) simulated: bool,
}

/// A stream socket for the family of an address.
pub(crate) fn stream(like: SocketAddr, wants: Wants) -> io::Result<OwnedDescriptor> {
    #[cfg(feature = "sim")]
    if wants.simulated {
        return simulated(like, SocketKind::Stream, wants);
    }
    Ok(socket(like, Type::STREAM, Protocol::TCP, wants)?.into())
}

/// A stream socket that listens.
pub(crate) fn listening(
    address: SocketAddr,
    options: ListenOptions,
    wants: Wants,
) -> io::Result<OwnedDescriptor> {
    #[cfg(feature = "sim")]
    if wants.simulated {
        let socket = simulated(address, SocketKind::Stream, wants)?;
        let raw = socket.as_raw();
        done(sim::set_option(raw, SocketOption::ReuseAddress(options.reuse_address)))?;
        if options.reuse_port {
            done(sim::set_option(raw, SocketOption::ReusePort(true)))?;
        }
        done(sim::bind(raw, address))?;
        done(sim::listen(raw, options.backlog))?;
        return Ok(socket);
    }
    let socket = socket(address, Type::STREAM, Protocol::TCP, wants)?;
    socket.set_reuse_address(options.reuse_address)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// A datagram socket that is bound to an address.
pub(crate) fn datagram(address: SocketAddr, wants: Wants) -> io::Result<OwnedDescriptor> {
    #[cfg(feature = "sim")]
    if wants.simulated {
        let socket = simulated(address, SocketKind::Datagram, wants)?;
        done(sim::bind(socket.as_raw(), address))?;
        return Ok(socket);
    }
    let socket = socket(address, Type::DGRAM, Protocol::UDP, wants)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A Unix stream socket.
pub(crate) fn unix_stream(wants: Wants) -> io::Result<OwnedDescriptor> {
    #[cfg(feature = "sim")]
    if wants.simulated {
        let raw = local::unix_socket(wants.nonblocking);
        done(raw)?;
        // SAFETY: the simulated system has just made it for us.
        return Ok(unsafe { own(raw) });
    }
    Ok(unix_socket(wants)?.into())
}

/// A Unix stream socket that listens at a path.
pub(crate) fn unix_listening(
    address: &UnixAddr,
    backlog: i32,
    wants: Wants,
) -> io::Result<OwnedDescriptor> {
    #[cfg(feature = "sim")]
    if wants.simulated {
        let socket = unix_stream(wants)?;
        done(local::unix_listen(socket.as_raw(), address.clone(), backlog))?;
        return Ok(socket);
    }
    let socket = unix_socket(wants)?;
    socket.bind(&address.to_system()?)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

fn unix_socket(wants: Wants) -> io::Result<Socket> {
    native::socket(Domain::UNIX, Type::STREAM, Protocol::from(0), wants.nonblocking)
}

/// Two stream sockets that are connected to each other.
pub(crate) fn stream_pair(wants: Wants) -> io::Result<(OwnedDescriptor, OwnedDescriptor)> {
    #[cfg(feature = "sim")]
    if wants.simulated {
        let (one, other) = sim::socketpair(wants.nonblocking).map_err(error_of)?;
        // SAFETY: the simulated system has just made both for us.
        return Ok(unsafe { (own(one), own(other)) });
    }
    let (one, other) = UnixStream::pair()?;
    if wants.nonblocking {
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
    }
    let (one, other) = (OwnedDescriptor::from(one), OwnedDescriptor::from(other));
    without_signal(one.as_raw());
    without_signal(other.as_raw());
    Ok((one, other))
}

fn socket(like: SocketAddr, kind: Type, protocol: Protocol, wants: Wants) -> io::Result<Socket> {
    native::socket(Domain::for_address(like), kind, protocol, wants.nonblocking)
}

#[cfg(feature = "sim")]
fn simulated(like: SocketAddr, kind: SocketKind, wants: Wants) -> io::Result<OwnedDescriptor> {
    let raw = sim::socket(like.is_ipv6(), kind, wants.nonblocking);
    done(raw)?;
    // SAFETY: the simulated system has just made it for us.
    Ok(unsafe { own(raw) })
}

#[cfg(feature = "sim")]
fn done(result: i32) -> io::Result<()> {
    if result < 0 { Err(error_of(-result)) } else { Ok(()) }
}

/// A socket that its owner has open during the call, to ask or to set something.
#[derive(Clone, Copy)]
pub(crate) struct Open(RawDescriptor);

impl Open {
    /// # Safety
    /// `raw` stays open as long as this is used.
    pub(crate) unsafe fn new(raw: RawDescriptor) -> Open {
        Open(raw)
    }

    fn system(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open, by the word of whoever made this.
        unsafe { borrow(self.0) }
    }

    pub(crate) fn local_addr(self) -> io::Result<SocketAddr> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return sim::local_addr(self.0).map_err(address_error);
        }
        ip(SockRef::from(&self.system()).local_addr()?)
    }

    pub(crate) fn unix_local_addr(self) -> io::Result<UnixAddr> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return local::unix_local_addr(self.0).map_err(error_of);
        }
        UnixAddr::of_system(&SockRef::from(&self.system()).local_addr()?)
    }

    pub(crate) fn unix_peer_addr(self) -> io::Result<UnixAddr> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return local::unix_peer_addr(self.0).map_err(error_of);
        }
        UnixAddr::of_system(&SockRef::from(&self.system()).peer_addr()?)
    }

    pub(crate) fn peer_addr(self) -> io::Result<SocketAddr> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return sim::peer_addr(self.0).map_err(address_error);
        }
        ip(SockRef::from(&self.system()).peer_addr()?)
    }

    pub(crate) fn set_nodelay(self, nodelay: bool) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return done(sim::set_option(self.0, SocketOption::NoDelay(nodelay)));
        }
        SockRef::from(&self.system()).set_tcp_nodelay(nodelay)
    }

    pub(crate) fn nodelay(self) -> io::Result<bool> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return sim::nodelay(self.0).map_err(error_of);
        }
        SockRef::from(&self.system()).tcp_nodelay()
    }

    pub(crate) fn set_ttl(self, ttl: u32) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return done(sim::set_option(self.0, SocketOption::Ttl(ttl)));
        }
        SockRef::from(&self.system()).set_ttl_v4(ttl)
    }

    pub(crate) fn ttl(self) -> io::Result<u32> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return sim::ttl(self.0).map_err(error_of);
        }
        SockRef::from(&self.system()).ttl_v4()
    }

    pub(crate) fn set_datagram_option(self, option: DatagramOption) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return match sim::set_datagram_option(self.0, option) {
                result if result == -libc::EOPNOTSUPP => Err(not_simulated()),
                result => done(result),
            };
        }
        super::unix::datagram::set(self.system(), option)
    }

    pub(crate) fn broadcast(self) -> io::Result<bool> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return sim::datagram_wants(self.0, |wants| wants.broadcast).map_err(error_of);
        }
        SockRef::from(&self.system()).broadcast()
    }

    pub(crate) fn multicast_loop(self, v6: bool) -> io::Result<bool> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            let of = |wants: &mut sim::Wants| wants.multicast_loop[usize::from(v6)];
            return Ok(sim::datagram_wants(self.0, of).map_err(error_of)?.unwrap_or(true));
        }
        let system = self.system();
        let asks = SockRef::from(&system);
        if v6 { asks.multicast_loop_v6() } else { asks.multicast_loop_v4() }
    }

    pub(crate) fn multicast_hops(self, v6: bool) -> io::Result<u32> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            let of = |wants: &mut sim::Wants| wants.multicast_hops[usize::from(v6)];
            return Ok(sim::datagram_wants(self.0, of).map_err(error_of)?.unwrap_or(1));
        }
        let system = self.system();
        let asks = SockRef::from(&system);
        if v6 { asks.multicast_hops_v6() } else { asks.multicast_ttl_v4() }
    }

    pub(crate) fn set_linger(self, linger: Option<Duration>) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return done(sim::set_option(self.0, SocketOption::Linger(linger)));
        }
        SockRef::from(&self.system()).set_linger(linger)
    }

    pub(crate) fn linger(self) -> io::Result<Option<Duration>> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return sim::linger(self.0).map_err(error_of);
        }
        SockRef::from(&self.system()).linger()
    }

    pub(crate) fn shutdown(self, how: Shutdown) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if sim::owns(self.0) {
            return done(sim::shutdown(self.0, super::shutdown_arg(how)));
        }
        SockRef::from(&self.system()).shutdown(how)
    }
}

fn ip(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(no_ip)
}

fn no_ip() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the socket's address is not an IP address")
}

/// What the network of a world does not have.
#[cfg(feature = "sim")]
fn not_simulated() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "a simulated network has no multicast and puts no datagrams together: send to each receiver by itself",
    )
}

/// The simulated system has addresses of IP alone, and says so of the others.
#[cfg(feature = "sim")]
fn address_error(errno: i32) -> io::Error {
    if errno.abs() == libc::EAFNOSUPPORT { no_ip() } else { error_of(errno) }
}
