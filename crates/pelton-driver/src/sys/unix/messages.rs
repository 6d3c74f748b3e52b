//! Control messages in the layout of Unix, and what those of IPv4 say. Their numbers are each system's own.

use std::net::Ipv4Addr;

pub(crate) use super::native::messages::*;

/// What stands before the data of a message.
type Header = libc::cmsghdr;

/// Bytes from the start of a message to its data.
// SAFETY: arithmetic alone.
pub(crate) const HEADER: usize = unsafe { libc::CMSG_LEN(0) } as usize;

/// The level and the type of messages that carry descriptors.
pub(crate) const DESCRIPTORS: Option<(i32, i32)> = Some((libc::SOL_SOCKET, libc::SCM_RIGHTS));

/// Of those that carry the descriptor of the process that has sent them (`SCM_PIDFD`).
pub(crate) const PROCESS: Option<(i32, i32)> =
    if cfg!(target_os = "linux") { Some((libc::SOL_SOCKET, 4)) } else { None };

/// True where a receive cannot say that the descriptors which come are not for programs that are started.
pub(crate) const SURVIVE_EXEC: bool = RECEIVE == 0;

/// Bytes that a message with `len` bytes of data takes, with what fills it up to where the next one starts.
pub(crate) const fn space(len: usize) -> usize {
    // SAFETY: arithmetic alone.
    unsafe { libc::CMSG_SPACE(len as libc::c_uint) as usize }
}

/// Level, type and data of the first message of `bytes`; none where there is no whole one.
pub(crate) fn first(bytes: &[u8]) -> Option<(i32, i32, &[u8])> {
    if bytes.len() < HEADER {
        return None;
    }
    // SAFETY: a header is plain data, shorter than what is there; unaligned, because these are bytes.
    let header: Header = unsafe { bytes.as_ptr().cast::<Header>().read_unaligned() };
    #[allow(clippy::unnecessary_cast)] // With other C libraries the number has another type.
    let end = header.cmsg_len as usize;
    let data = bytes.get(HEADER..end)?;
    Some((header.cmsg_level, header.cmsg_type, data))
}

/// Writes a message to the start of `to`, which has [`space`] for it.
pub(crate) fn write(to: &mut [u8], level: i32, kind: i32, data: &[u8]) {
    let (header_place, rest) = to.split_at_mut(HEADER);
    // SAFETY: a header is plain data for which all zeros is a value.
    let mut header: Header = unsafe { std::mem::zeroed() };
    header.cmsg_len = (HEADER + data.len()) as _;
    header.cmsg_level = level;
    header.cmsg_type = kind;
    assert!(header_place.len() >= size_of::<Header>());
    // SAFETY: there is room for a header, as has just been looked at.
    unsafe { header_place.as_mut_ptr().cast::<Header>().write_unaligned(header) };
    rest[..data.len()].copy_from_slice(data);
}

/// Of an `in_pktinfo`: the interface, the address to send from, the address that it was sent to.
pub(crate) fn destination_v4(data: &[u8]) -> Option<(Ipv4Addr, u32)> {
    let interface = u32::from_ne_bytes(*data.first_chunk::<4>()?);
    let address: [u8; 4] = data.get(8..12)?.try_into().ok()?;
    Some((address.into(), interface))
}

pub(crate) fn source_v4(address: Ipv4Addr, interface: u32) -> [u8; 12] {
    let mut data = [0; 12];
    data[..4].copy_from_slice(&interface.to_ne_bytes());
    data[4..8].copy_from_slice(&address.octets());
    data
}

#[cfg(feature = "sim")]
pub(crate) fn asked_v4(data: &[u8]) -> Option<Ipv4Addr> {
    let address: [u8; 4] = data.get(4..8)?.try_into().ok()?;
    Some(address.into())
}

#[cfg(feature = "sim")]
pub(crate) fn arrived_v4(data: &mut [u8], address: Ipv4Addr) {
    data[8..].copy_from_slice(&address.octets());
}
