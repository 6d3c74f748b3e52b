//! Control messages in the layout of this system: how long one is, where it starts, and what the numbers of
//! the usual ones mean.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What stands before the data of a message.
type Header = libc::cmsghdr;

/// Bytes from the start of a message to its data.
// SAFETY: arithmetic alone.
pub(crate) const HEADER: usize = unsafe { libc::CMSG_LEN(0) } as usize;

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

/// The level and the type of messages that carry descriptors.
pub(crate) const DESCRIPTORS: (i32, i32) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);

/// Where a datagram was sent to, or is to be sent from.
pub(crate) fn packet_info(level: i32, kind: i32, data: &[u8]) -> Option<(IpAddr, u32)> {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let (index, rest) = data.split_first_chunk::<4>()?;
            let destination: [u8; 4] = rest.get(4..8)?.try_into().ok()?;
            Some((Ipv4Addr::from(destination).into(), u32::from_ne_bytes(*index)))
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let (address, rest) = data.split_first_chunk::<16>()?;
            let index = rest.first_chunk::<4>()?;
            Some((Ipv6Addr::from(*address).into(), u32::from_ne_bytes(*index)))
        }
        _ => None,
    }
}

/// The message that asks for a source address and an interface.
pub(crate) fn source(address: IpAddr, interface: u32) -> (i32, i32, Vec<u8>) {
    let mut data = Vec::with_capacity(20);
    match address {
        IpAddr::V4(address) => {
            data.extend_from_slice(&interface.to_ne_bytes());
            data.extend_from_slice(&address.octets());
            data.extend_from_slice(&[0; 4]);
            (libc::IPPROTO_IP, libc::IP_PKTINFO, data)
        }
        IpAddr::V6(address) => {
            data.extend_from_slice(&address.octets());
            data.extend_from_slice(&interface.to_ne_bytes());
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, data)
        }
    }
}

/// The source address that a message of [`source`] asks for.
#[cfg(feature = "sim")]
pub(crate) fn asked_source(level: i32, kind: i32, data: &[u8]) -> Option<IpAddr> {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let source: [u8; 4] = data.get(4..8)?.try_into().ok()?;
            Some(Ipv4Addr::from(source).into())
        }
        _ => packet_info(level, kind, data).map(|(address, _)| address),
    }
}

/// The message that a receive brings along for [`packet_info`].
#[cfg(feature = "sim")]
pub(crate) fn arrived(address: IpAddr, interface: u32) -> (i32, i32, Vec<u8>) {
    let (level, kind, mut data) = source(address, interface);
    if let IpAddr::V4(address) = address {
        data[8..].copy_from_slice(&address.octets());
    }
    (level, kind, data)
}

/// A number, in a byte or in an `int`, as systems have it for one and the same message.
fn number(data: &[u8]) -> Option<u32> {
    match data {
        [byte] => Some((*byte).into()),
        [low, high] => Some(u16::from_ne_bytes([*low, *high]).into()),
        _ => data.first_chunk().map(|int| u32::from_ne_bytes(*int)),
    }
}

/// The hop limit that a datagram arrived with.
pub(crate) fn hop_limit(level: i32, kind: i32, data: &[u8]) -> Option<u8> {
    let is = matches!(
        (level, kind),
        (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)
    );
    if is { u8::try_from(number(data)?).ok() } else { None }
}

/// The message that a hop limit is sent with.
pub(crate) fn set_hop_limit(v6: bool, hops: u8) -> (i32, i32, [u8; 4]) {
    let data = i32::from(hops).to_ne_bytes();
    if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, data)
    } else {
        (libc::IPPROTO_IP, libc::IP_TTL, data)
    }
}

/// The traffic class (type of service) that a datagram arrived with.
pub(crate) fn traffic_class(level: i32, kind: i32, data: &[u8]) -> Option<u8> {
    let is = matches!(
        (level, kind),
        (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
    );
    if is { u8::try_from(number(data)?).ok() } else { None }
}

/// The message that a traffic class is sent with.
pub(crate) fn set_traffic_class(v6: bool, class: u8) -> (i32, i32, [u8; 4]) {
    let data = i32::from(class).to_ne_bytes();
    if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, data)
    } else {
        (libc::IPPROTO_IP, libc::IP_TOS, data)
    }
}

/// The length of the datagrams that a longer buffer is cut into, or was put together from.
pub(crate) fn segment_len(level: i32, kind: i32, data: &[u8]) -> Option<u16> {
    let is = level == libc::SOL_UDP && matches!(kind, libc::UDP_SEGMENT | libc::UDP_GRO);
    if is { u16::try_from(number(data)?).ok() } else { None }
}

/// The message that has a buffer sent as datagrams of this length.
pub(crate) fn set_segment_len(len: u16) -> (i32, i32, [u8; 2]) {
    (libc::SOL_UDP, libc::UDP_SEGMENT, len.to_ne_bytes())
}
