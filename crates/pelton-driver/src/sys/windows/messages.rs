//! Messages: what is in a header of Winsock's, control messages in its layout, and their numbers.

use std::net::Ipv4Addr;

use windows_sys::Win32::Networking::WinSock::{
    CMSGHDR, IP_HOPLIMIT, IP_PKTINFO, IP_RECVTOS, IP_TOS, IP_TTL, IPPROTO_IP, IPPROTO_IPV6,
    IPPROTO_UDP, IPV6_HOPLIMIT, IPV6_PKTINFO, IPV6_RECVTCLASS, IPV6_TCLASS, MSG_CTRUNC, MSG_TRUNC,
    UDP_COALESCED_INFO, UDP_RECV_MAX_COALESCED_SIZE, UDP_SEND_MSG_SIZE,
};

use super::{AddressLength, AddressStorage, MessageHeader, OwnedDescriptor};

pub(crate) const PACKET_INFO_V4: (i32, i32) = (IPPROTO_IP, IP_PKTINFO);
pub(crate) const PACKET_INFO_V6: (i32, i32) = (IPPROTO_IPV6, IPV6_PKTINFO);
pub(crate) const HOPS_V4: (i32, i32) = (IPPROTO_IP, IP_HOPLIMIT);
pub(crate) const HOPS_V4_SENT: (i32, i32) = (IPPROTO_IP, IP_TTL);
pub(crate) const HOPS_V6: (i32, i32) = (IPPROTO_IPV6, IPV6_HOPLIMIT);
pub(crate) const CLASS_V4: (i32, i32) = (IPPROTO_IP, IP_TOS);
pub(crate) const CLASS_V4_SENT: (i32, i32) = (IPPROTO_IP, IP_TOS);
pub(crate) const CLASS_V6: (i32, i32) = (IPPROTO_IPV6, IPV6_TCLASS);
pub(crate) const SEGMENTS: (i32, i32) = (IPPROTO_UDP, UDP_COALESCED_INFO as i32);
pub(crate) const SEGMENTS_SENT: (i32, i32) = (IPPROTO_UDP, UDP_SEND_MSG_SIZE);
pub(crate) type SegmentLen = u32;

pub(crate) const RECEIVE_PACKET_INFO_V4: (i32, i32) = PACKET_INFO_V4;
pub(crate) const RECEIVE_PACKET_INFO_V6: (i32, i32) = PACKET_INFO_V6;
pub(crate) const RECEIVE_HOPS_V4: (i32, i32) = HOPS_V4;
pub(crate) const RECEIVE_HOPS_V6: (i32, i32) = HOPS_V6;
pub(crate) const RECEIVE_CLASS_V4: (i32, i32) = (IPPROTO_IP, IP_RECVTOS);
pub(crate) const RECEIVE_CLASS_V6: (i32, i32) = (IPPROTO_IPV6, IPV6_RECVTCLASS);
pub(crate) const RECEIVE_SEGMENTS: (i32, i32) = (IPPROTO_UDP, UDP_RECV_MAX_COALESCED_SIZE);

/// No message carries descriptors.
pub(crate) const DESCRIPTORS: Option<(i32, i32)> = None;
pub(crate) const PROCESS: Option<(i32, i32)> = None;
pub(crate) const SURVIVE_EXEC: bool = false;

const ALIGN: usize = align_of::<usize>();

/// Bytes from the start of a message to its data.
pub(crate) const HEADER: usize = size_of::<CMSGHDR>().next_multiple_of(ALIGN);

/// Bytes that a message with `len` bytes of data takes, with what fills it up to where the next one starts.
pub(crate) const fn space(len: usize) -> usize {
    HEADER + len.next_multiple_of(ALIGN)
}

/// Level, type and data of the first message of `bytes`; none where there is no whole one.
pub(crate) fn first(bytes: &[u8]) -> Option<(i32, i32, &[u8])> {
    if bytes.len() < HEADER {
        return None;
    }
    // SAFETY: a header is plain data, shorter than what is there; unaligned, because these are bytes.
    let header = unsafe { bytes.as_ptr().cast::<CMSGHDR>().read_unaligned() };
    let data = bytes.get(HEADER..header.cmsg_len)?;
    Some((header.cmsg_level, header.cmsg_type, data))
}

/// Writes a message to the start of `to`, which has [`space`] for it.
pub(crate) fn write(to: &mut [u8], level: i32, kind: i32, data: &[u8]) {
    let (header_place, rest) = to.split_at_mut(HEADER);
    let header = CMSGHDR { cmsg_len: HEADER + data.len(), cmsg_level: level, cmsg_type: kind };
    // SAFETY: the place is as long as a header.
    unsafe { header_place.as_mut_ptr().cast::<CMSGHDR>().write_unaligned(header) };
    rest[..data.len()].copy_from_slice(data);
}

/// Of an `IN_PKTINFO`: the address, be it to send from or that it was sent to, and the interface.
pub(crate) fn destination_v4(data: &[u8]) -> Option<(Ipv4Addr, u32)> {
    let (address, rest) = data.split_first_chunk::<4>()?;
    Some((Ipv4Addr::from(*address), u32::from_ne_bytes(*rest.first_chunk()?)))
}

pub(crate) fn source_v4(address: Ipv4Addr, interface: u32) -> [u8; 8] {
    let mut data = [0; 8];
    data[..4].copy_from_slice(&address.octets());
    data[4..].copy_from_slice(&interface.to_ne_bytes());
    data
}

/// Names the address and the control messages in a message header, or room for them. Where there is no
/// length there is nothing.
pub(crate) fn name_message(
    header: &mut MessageHeader,
    address: *mut AddressStorage,
    address_len: AddressLength,
    control: *mut u8,
    control_len: usize,
) {
    if address_len > 0 {
        header.name = address.cast();
        header.namelen = address_len;
    }
    if control_len > 0 {
        header.Control.buf = control;
        header.Control.len = u32::try_from(control_len).unwrap_or(u32::MAX);
    }
}

/// What the system has written into a message header.
pub(crate) struct MessageEnd {
    pub(crate) address_len: AddressLength,
    pub(crate) control_len: usize,
    pub(crate) truncated: bool,
    pub(crate) control_truncated: bool,
}

pub(crate) fn message_end(header: &MessageHeader) -> MessageEnd {
    MessageEnd {
        address_len: header.namelen,
        control_len: header.Control.len as usize,
        truncated: header.dwFlags & MSG_TRUNC != 0,
        control_truncated: header.dwFlags & MSG_CTRUNC != 0,
    }
}

/// Writes into a message header what a system would.
#[cfg(any(test, feature = "fake-kernel", feature = "sim"))]
pub(crate) fn end_message(header: &mut MessageHeader, end: &MessageEnd) {
    header.namelen = end.address_len;
    header.Control.len = end.control_len as u32;
    header.dwFlags = if end.truncated { MSG_TRUNC } else { 0 }
        | if end.control_truncated { MSG_CTRUNC } else { 0 };
}

/// Sees to it that programs which are started do not get descriptors that came with messages: none ever do.
pub(crate) fn keep_from_programs(_: &[&[u8]]) {}

/// The descriptors that came with messages: none ever do.
pub(crate) fn received_descriptors(_: &[&[u8]]) -> Vec<OwnedDescriptor> {
    Vec::new()
}
