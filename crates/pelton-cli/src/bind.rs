//! One listening socket for each reactor, all on one port.
//!
//! The kernel distributes connections over sockets that share a port. It lets any program of the
//! same user share it too, so that a second server on a port that is taken would start without a
//! word and get half of the connections of the first. Therefore the first socket is bound alone,
//! which fails where anyone else is, and is opened for sharing only then; the others join it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps for a reactor that has not accepted them yet.
const BACKLOG: i32 = 4096;

/// Listens `count` times on one address, and says which it became: port 0 takes a free port.
///
/// # Errors
/// The address, and what the system said.
pub(crate) fn all(
    address: SocketAddr,
    count: usize,
) -> Result<(SocketAddr, Vec<TcpListener>), (SocketAddr, io::Error)> {
    let (address, first) = match first(address, count > 1) {
        Ok(first) => (address, first),
        // Every address was asked for, and without IPv6 that is every one of IPv4.
        Err(error) if address.ip() == std::net::Ipv6Addr::UNSPECIFIED && has_no_family(&error) => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            (address, first(address, count > 1).map_err(|error| (address, error))?)
        }
        Err(error) => return Err((address, error)),
    };
    let bound = first.local_addr().map_err(|error| (address, error))?;
    let mut listeners = vec![first];
    for _ in 1..count {
        let another = another(&listeners[0], bound);
        listeners.push(another.map_err(|error| (bound, error))?);
    }
    Ok((bound, listeners))
}

fn first(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = open(address)?;
    socket.bind(&address.into())?;
    if shared {
        share(&socket)?;
    }
    listen(socket)
}

/// Windows distributes connections over those that wait for them on one socket.
#[cfg(windows)]
fn another(first: &TcpListener, _: SocketAddr) -> io::Result<TcpListener> {
    first.try_clone()
}

#[cfg(not(windows))]
fn another(_: &TcpListener, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address)?;
    share(&socket)?;
    socket.bind(&address.into())?;
    listen(socket)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Whatever the system's default: `[::]` is announced as every address.
        socket.set_only_v6(false)?;
    }
    // Connections of an earlier server that linger are no reason not to start.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it: set once here, it costs no system call for each of them.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(unix)]
fn share(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(unix))]
fn share(_: &Socket) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn has_no_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

#[cfg(not(unix))]
fn has_no_family(_: &io::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const ANY: &str = "127.0.0.1:0";

    #[test]
    fn all_listen_on_the_port_that_the_first_one_got() {
        let (address, listeners) = all(ANY.parse().unwrap(), 3).unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(listeners.len(), 3);
        for listener in &listeners {
            assert_eq!(listener.local_addr().unwrap(), address);
        }
    }

    #[test]
    fn a_port_that_another_server_shares_with_itself_is_taken() {
        let (address, _others) = all(ANY.parse().unwrap(), 2).unwrap();
        for count in [1, 2] {
            let (refused, error) = all(address, count).unwrap_err();
            assert_eq!((refused, error.kind()), (address, io::ErrorKind::AddrInUse));
        }
    }

    #[test]
    fn every_address_is_those_of_ipv4_too() {
        let (address, listeners) = all("[::]:0".parse().unwrap(), 1).unwrap();
        let _client = TcpStream::connect(("127.0.0.1", address.port())).unwrap();
        listeners[0].accept().unwrap();
    }

    #[test]
    fn accepted_connections_send_small_segments_at_once() {
        for count in [1, 2] {
            let (address, listeners) = all(ANY.parse().unwrap(), count).unwrap();
            let listeners: Vec<_> = listeners.into_iter().collect();
            let _client = TcpStream::connect(address).unwrap();
            // With two, the connection waits at either: the test asks both without waiting.
            let accepted = std::iter::repeat_with(|| {
                listeners.iter().find_map(|listener| {
                    listener.set_nonblocking(true).unwrap();
                    listener.accept().ok()
                })
            });
            let (stream, _) = accepted.flatten().next().unwrap();
            assert!(stream.nodelay().unwrap());
        }
    }
}
