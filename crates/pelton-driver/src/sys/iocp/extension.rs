//! The calls of Winsock that have to be asked for: `AcceptEx` and its relatives.

use std::io;
use std::sync::OnceLock;

use socket2::{Domain, Protocol, Socket, Type};
use std::os::windows::io::AsRawSocket;
use windows_sys::Win32::Networking::WinSock::{
    LPFN_ACCEPTEX, LPFN_CONNECTEX, LPFN_GETACCEPTEXSOCKADDRS, LPFN_TRANSMITFILE, LPFN_WSARECVMSG,
    SIO_GET_EXTENSION_FUNCTION_POINTER, SO_PROTOCOL_INFOW, SOL_SOCKET, WSAID_ACCEPTEX,
    WSAID_CONNECTEX, WSAID_GETACCEPTEXSOCKADDRS, WSAID_TRANSMITFILE, WSAID_WSARECVMSG, WSAIoctl,
    WSAPROTOCOL_INFOW, XP1_IFS_HANDLES, getsockopt,
};
use windows_sys::core::GUID;

use super::super::windows::calls::socket_error;
use super::super::windows::startup;

/// The calls, and what the providers of streams are like.
#[derive(Clone, Copy)]
pub(super) struct Extensions {
    pub(super) accept: LPFN_ACCEPTEX,
    pub(super) connect: LPFN_CONNECTEX,
    pub(super) addresses: LPFN_GETACCEPTEXSOCKADDRS,
    /// None where there are no datagrams.
    pub(super) receive_message: LPFN_WSARECVMSG,
    /// None where the provider has none.
    pub(super) transmit_file: LPFN_TRANSMITFILE,
    /// Every stream socket is a handle of the system's, and successes that come at once may leave out their
    /// packets. Providers that somebody has put on top may post them in spite of that.
    pub(super) are_handles: bool,
}

/// Asks for them, once.
pub(super) fn get() -> io::Result<Extensions> {
    static FOUND: OnceLock<Result<Extensions, i32>> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        find().map_err(|error| error.raw_os_error().unwrap_or(super::super::numbers::EIO))
    });
    found.map_err(io::Error::from_raw_os_error)
}

fn find() -> io::Result<Extensions> {
    startup::ensure()?;
    let of = |domain| Socket::new(domain, Type::STREAM, Some(Protocol::TCP));
    let (v4, v6) = (of(Domain::IPV4), of(Domain::IPV6));
    let unix = Socket::new(Domain::UNIX, Type::STREAM, None);
    let are_handles = [&v4, &v6, &unix].into_iter().flatten().all(is_handle);
    let socket = v4.or(v6)?;
    let of = |domain| Socket::new(domain, Type::DGRAM, Some(Protocol::UDP));
    let datagrams = of(Domain::IPV4).or_else(|_| of(Domain::IPV6));
    let receive_message = datagrams.and_then(|socket| ask(&socket, WSAID_WSARECVMSG)).unwrap_or(0);
    // SAFETY: each is asked for by its own name, and so is of the type that it is taken for.
    unsafe {
        Ok(Extensions {
            accept: std::mem::transmute::<usize, LPFN_ACCEPTEX>(ask(&socket, WSAID_ACCEPTEX)?),
            connect: std::mem::transmute::<usize, LPFN_CONNECTEX>(ask(&socket, WSAID_CONNECTEX)?),
            addresses: std::mem::transmute::<usize, LPFN_GETACCEPTEXSOCKADDRS>(ask(
                &socket,
                WSAID_GETACCEPTEXSOCKADDRS,
            )?),
            receive_message: std::mem::transmute::<usize, LPFN_WSARECVMSG>(receive_message),
            transmit_file: std::mem::transmute::<usize, LPFN_TRANSMITFILE>(
                ask(&socket, WSAID_TRANSMITFILE).unwrap_or(0),
            ),
            are_handles,
        })
    }
}

fn ask(socket: &Socket, name: GUID) -> io::Result<usize> {
    let (mut call, mut n) = (0_usize, 0);
    // SAFETY: the arguments are ours, of the sizes that are said, and the call returns at once.
    let failed = unsafe {
        WSAIoctl(
            socket.as_raw_socket() as usize,
            SIO_GET_EXTENSION_FUNCTION_POINTER,
            (&raw const name).cast(),
            size_of::<GUID>() as u32,
            (&raw mut call).cast(),
            size_of::<usize>() as u32,
            &mut n,
            std::ptr::null_mut(),
            None,
        )
    };
    if failed != 0 { Err(io::Error::from_raw_os_error(socket_error())) } else { Ok(call) }
}

fn is_handle(socket: &Socket) -> bool {
    // SAFETY: plain data, for which all zeros are as good as anything.
    let mut info: WSAPROTOCOL_INFOW = unsafe { std::mem::zeroed() };
    let mut len = size_of::<WSAPROTOCOL_INFOW>() as i32;
    let (raw, to) = (socket.as_raw_socket() as usize, (&raw mut info).cast());
    // SAFETY: both are ours to be written.
    let failed = unsafe { getsockopt(raw, SOL_SOCKET, SO_PROTOCOL_INFOW, to, &mut len) };
    failed == 0 && info.dwServiceFlags1 & XP1_IFS_HANDLES != 0
}
