//! The client's sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{During, Error, Result};
use crate::machine;

/// A connected socket, without delay and with the congestion control of the whole benchmark.
/// Connecting over loopback ends in the same call, so nothing is gained by not blocking.
///
/// A `source` spreads short connections over addresses: each has its own ports, which rest for a
/// minute after use.
pub(crate) fn connect(addr: SocketAddr, source: Option<Ipv4Addr>) -> Result<OwnedFd> {
    let SocketAddr::V4(to) = addr else {
        return Err(Error::Load(format!("{addr}: servers listen on an IPv4 address")));
    };
    // SAFETY: a plain system call.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).during("creating a socket");
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if machine::congestion_control() == "cubic" {
        option(&socket, libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"cubic")?;
    }
    option(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32.to_ne_bytes())?;
    if let Some(source) = source {
        option(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1i32.to_ne_bytes())?;
        let from = socket_address(source, 0);
        // SAFETY: the address is live and its true size is given.
        let result = unsafe { libc::bind(fd, (&raw const from).cast(), size_of_val(&from) as u32) };
        if result != 0 {
            return Err(io::Error::last_os_error()).during(format!("binding {source}"));
        }
    }
    let to = socket_address(*to.ip(), to.port());
    loop {
        // SAFETY: the address is live and its true size is given.
        let result = unsafe { libc::connect(fd, (&raw const to).cast(), size_of_val(&to) as u32) };
        if result == 0 {
            return Ok(socket);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error).during(format!("connecting to {addr}"));
        }
    }
}

/// Says that no more will be sent, so that the server closes.
pub(crate) fn end_sending(socket: &OwnedFd) -> Result<()> {
    // SAFETY: a plain system call on a live descriptor.
    if unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error()).during("ending a connection")
}

fn option(socket: &OwnedFd, level: i32, name: i32, value: &[u8]) -> Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the value is live for the call and `length` is its length.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).during("setting up a socket") }
}

fn socket_address(ip: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    }
}
