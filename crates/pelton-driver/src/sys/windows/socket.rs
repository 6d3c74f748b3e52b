//! Sockets: made, bound, and asked.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::windows::io::{AsRawSocket, BorrowedSocket, OwnedSocket, RawSocket};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::descriptor::OwnedDescriptor;
use super::{RawDescriptor, datagram, startup};
use crate::driver::{DatagramOption, ListenOptions};
use crate::unix_address::UnixAddr;

/// What a driver wants of its sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants {
    /// Their simple calls never block.
    pub(crate) nonblocking: bool,
    /// They are of a simulated world: there is none.
    #[allow(dead_code, reason = "other systems have simulated sockets")]
    pub(crate) simulated: bool,
}

/// A stream socket for the family of an address.
pub(crate) fn stream(like: SocketAddr, wants: Wants) -> io::Result<OwnedDescriptor> {
    Ok(socket(like, Type::STREAM, Protocol::TCP, wants)?.into())
}

/// A stream socket that listens.
pub(crate) fn listening(
    address: SocketAddr,
    options: ListenOptions,
    wants: Wants,
) -> io::Result<OwnedDescriptor> {
    if options.reuse_port {
        return shared(address, options, wants);
    }
    alone(address, options, wants)
}

fn alone(address: SocketAddr, options: ListenOptions, wants: Wants) -> io::Result<OwnedDescriptor> {
    let socket = socket(address, Type::STREAM, Protocol::TCP, wants)?;
    if address.is_ipv6() {
        // As elsewhere: `[::]` is every address. A system without IPv4 has nothing to say to that.
        let _ = socket.set_only_v6(false);
    }
    // `SO_REUSEADDR` is not asked for: it would let two programs listen on one address here, and connections
    // that linger keep nobody from binding.
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// A Unix stream socket, where the system has those: from Windows 10, version 1803.
pub(crate) fn unix_stream(wants: Wants) -> io::Result<OwnedDescriptor> {
    Ok(unix_socket(wants)?.into())
}

/// A Unix stream socket that listens at a path.
pub(crate) fn unix_listening(
    address: &UnixAddr,
    backlog: i32,
    wants: Wants,
) -> io::Result<OwnedDescriptor> {
    let socket = unix_socket(wants)?;
    socket.bind(&address.to_system()?)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

fn unix_socket(wants: Wants) -> io::Result<Socket> {
    startup::ensure()?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(|error| {
        if error.raw_os_error() != Some(super::super::errno::EAFNOSUPPORT) {
            return error;
        }
        let what = "this system has no Unix sockets (Windows has them from Windows 10, version 1803): \
                    use a named pipe, or TCP on the loopback";
        io::Error::new(io::ErrorKind::Unsupported, what)
    })?;
    if wants.nonblocking {
        socket.set_nonblocking(true)?;
    }
    Ok(socket)
}

/// A listener that drivers of this process share. The socket here is what each of them has a duplicate of.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    socket: OwnedSocket,
}

/// A share in a listener: the address is taken as long as there is one.
pub(crate) type Share = Arc<Listener>;

#[derive(Default)]
struct Registry {
    all: Vec<Weak<Listener>>,
    /// Shares that are on their way to a driver's table, by the number of its duplicate.
    handed_out: Vec<(RawSocket, Share)>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { all: Vec::new(), handed_out: Vec::new() });

/// A duplicate of the listener that others of this process have on an address, or the first of it.
fn shared(
    address: SocketAddr,
    options: ListenOptions,
    wants: Wants,
) -> io::Result<OwnedDescriptor> {
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    registry.all.retain(|listener| listener.strong_count() > 0);
    let known = registry.all.iter().filter_map(Weak::upgrade);
    let listener = match known.into_iter().find(|listener| listener.address == address) {
        Some(listener) => listener,
        None => {
            let descriptor = alone(address, options, wants)?;
            let socket = OwnedSocket::try_from(descriptor).map_err(|_| io::ErrorKind::Other)?;
            let address = SockRef::from(&socket).local_addr().and_then(ip)?;
            let listener = Arc::new(Listener { address, socket });
            registry.all.push(Arc::downgrade(&listener));
            listener
        }
    };
    let duplicate = listener.socket.try_clone()?;
    registry.handed_out.push((duplicate.as_raw_socket(), listener));
    Ok(duplicate.into())
}

/// The share that came with a listener which has just been made, if it is a shared one.
pub(crate) fn take_share(raw: RawDescriptor) -> Option<Share> {
    let RawDescriptor::Socket(raw) = raw else { return None };
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    let at = registry.handed_out.iter().position(|(socket, _)| *socket == raw)?;
    Some(registry.handed_out.swap_remove(at).1)
}

/// A datagram socket that is bound to an address.
pub(crate) fn datagram(address: SocketAddr, wants: Wants) -> io::Result<OwnedDescriptor> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP, wants)?;
    super::calls::tell_of_resets(socket.as_raw_socket() as usize, false);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Two stream sockets that are connected to each other.
pub(crate) fn stream_pair(wants: Wants) -> io::Result<(OwnedDescriptor, OwnedDescriptor)> {
    startup::ensure()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let mine = one.local_addr()?;
    // Anybody on this machine may have connected in between.
    let other = loop {
        let (other, peer) = listener.accept()?;
        if peer == mine {
            break other;
        }
    };
    // There is no pair of sockets whose small segments wait.
    one.set_nodelay(true)?;
    other.set_nodelay(true)?;
    if wants.nonblocking {
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
    }
    Ok((one.into(), other.into()))
}

fn socket(like: SocketAddr, kind: Type, protocol: Protocol, wants: Wants) -> io::Result<Socket> {
    startup::ensure()?;
    let socket = Socket::new(Domain::for_address(like), kind, Some(protocol))?;
    if wants.nonblocking {
        socket.set_nonblocking(true)?;
    }
    Ok(socket)
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

    fn with<R>(self, ask: impl FnOnce(SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        let RawDescriptor::Socket(socket) = self.0 else {
            return Err(io::Error::from_raw_os_error(super::super::errno::ENOTSOCK));
        };
        // SAFETY: it is open, by the word of whoever made this.
        let socket = unsafe { BorrowedSocket::borrow_raw(socket) };
        ask(SockRef::from(&socket))
    }

    pub(crate) fn local_addr(self) -> io::Result<SocketAddr> {
        self.with(|socket| match socket.local_addr() {
            // Not bound yet, which is no error elsewhere.
            Err(error) if error.raw_os_error() == Some(super::super::errno::WSAEINVAL) => {
                Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
            }
            address => ip(address?),
        })
    }

    pub(crate) fn unix_local_addr(self) -> io::Result<UnixAddr> {
        self.with(|socket| match socket.local_addr() {
            // Not bound yet, which is no error elsewhere.
            Err(error) if error.raw_os_error() == Some(super::super::errno::WSAEINVAL) => {
                Ok(UnixAddr::default())
            }
            address => UnixAddr::of_system(&address?),
        })
    }

    pub(crate) fn unix_peer_addr(self) -> io::Result<UnixAddr> {
        self.with(|socket| UnixAddr::of_system(&socket.peer_addr()?))
    }

    pub(crate) fn peer_addr(self) -> io::Result<SocketAddr> {
        self.with(|socket| ip(socket.peer_addr()?))
    }

    pub(crate) fn set_nodelay(self, nodelay: bool) -> io::Result<()> {
        self.with(|socket| socket.set_tcp_nodelay(nodelay))
    }

    pub(crate) fn nodelay(self) -> io::Result<bool> {
        self.with(|socket| socket.tcp_nodelay())
    }

    pub(crate) fn set_ttl(self, ttl: u32) -> io::Result<()> {
        self.with(|socket| socket.set_ttl_v4(ttl))
    }

    pub(crate) fn ttl(self) -> io::Result<u32> {
        self.with(|socket| socket.ttl_v4())
    }

    pub(crate) fn set_datagram_option(self, option: DatagramOption) -> io::Result<()> {
        self.with(|socket| datagram::set(&socket, option))
    }

    pub(crate) fn broadcast(self) -> io::Result<bool> {
        self.with(|socket| socket.broadcast())
    }

    pub(crate) fn multicast_loop(self, v6: bool) -> io::Result<bool> {
        self.with(|socket| if v6 { socket.multicast_loop_v6() } else { socket.multicast_loop_v4() })
    }

    pub(crate) fn multicast_hops(self, v6: bool) -> io::Result<u32> {
        self.with(|socket| if v6 { socket.multicast_hops_v6() } else { socket.multicast_ttl_v4() })
    }

    pub(crate) fn set_linger(self, linger: Option<Duration>) -> io::Result<()> {
        self.with(|socket| socket.set_linger(linger))
    }

    pub(crate) fn linger(self) -> io::Result<Option<Duration>> {
        self.with(|socket| socket.linger())
    }

    pub(crate) fn shutdown(self, how: Shutdown) -> io::Result<()> {
        self.with(|socket| socket.shutdown(how))
    }
}

fn ip(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "the socket's address is not an IP address")
    })
}
