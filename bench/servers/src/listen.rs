//! The listener that every server starts from: the same options everywhere, set by the same code.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the system keeps until they are accepted.
const BACKLOG: i32 = 4096;

/// How long a server leaves accepting alone when descriptors have run out.
pub const PAUSE: Duration = Duration::from_millis(10);

/// Listens on `address`. Accepted connections inherit `TCP_NODELAY` and the congestion control, so that no
/// server has to spend a system call on either.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listener(address, false)
}

/// Listeners that share an address, one for each reactor.
pub fn listen_shared(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let first = listener(address, true)?;
    let address = first.local_addr()?;
    let mut all = vec![first];
    for _ in 1..count {
        all.push(listener(address, true)?);
    }
    Ok(all)
}

fn listener(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    // Where there is no cubic every server has the system's default, and so the comparison stays fair.
    let _ = socket.set_tcp_congestion(b"cubic");
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
