//! Control messages: what the usual ones say. How long one is, where it starts and which numbers they have is the
//! system's (`messages.rs` of each).

use std::net::{IpAddr, Ipv6Addr};

use super::system::messages as system;

#[cfg(test)]
pub(crate) use system::HEADER;
pub(crate) use system::{DESCRIPTORS, PROCESS, SURVIVE_EXEC, first, space, write};

/// Where a datagram was sent to, and the interface that it came by.
pub(crate) fn packet_info(level: i32, kind: i32, data: &[u8]) -> Option<(IpAddr, u32)> {
    match (level, kind) {
        system::PACKET_INFO_V4 => {
            let (address, interface) = system::destination_v4(data)?;
            Some((address.into(), interface))
        }
        system::PACKET_INFO_V6 => v6(data),
        _ => None,
    }
}

fn v6(data: &[u8]) -> Option<(IpAddr, u32)> {
    let (address, rest) = data.split_first_chunk::<16>()?;
    let interface = rest.first_chunk::<4>()?;
    Some((Ipv6Addr::from(*address).into(), u32::from_ne_bytes(*interface)))
}

/// The message that asks for a source address and an interface.
pub(crate) fn source(address: IpAddr, interface: u32) -> ((i32, i32), Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            (system::PACKET_INFO_V4, system::source_v4(address, interface).to_vec())
        }
        IpAddr::V6(address) => {
            let data = [&address.octets()[..], &interface.to_ne_bytes()].concat();
            (system::PACKET_INFO_V6, data)
        }
    }
}

/// The source address that a message of [`source`] asks for.
#[cfg(feature = "sim")]
pub(crate) fn asked_source(level: i32, kind: i32, data: &[u8]) -> Option<IpAddr> {
    match (level, kind) {
        system::PACKET_INFO_V4 => Some(system::asked_v4(data)?.into()),
        system::PACKET_INFO_V6 => v6(data).map(|(address, _)| address),
        _ => None,
    }
}

/// The message that a receive brings along for [`packet_info`].
#[cfg(feature = "sim")]
pub(crate) fn arrived(address: IpAddr, interface: u32) -> ((i32, i32), Vec<u8>) {
    let (kind, mut data) = source(address, interface);
    if let IpAddr::V4(address) = address {
        system::arrived_v4(&mut data, address);
    }
    (kind, data)
}

/// A number, in as many bytes as systems have it for one and the same message.
fn number(data: &[u8]) -> Option<u32> {
    match data {
        [byte] => Some((*byte).into()),
        [low, high] => Some(u16::from_ne_bytes([*low, *high]).into()),
        _ => data.first_chunk().map(|int| u32::from_ne_bytes(*int)),
    }
}

/// The hop limit that a datagram arrived with, or is to be sent with.
pub(crate) fn hop_limit(level: i32, kind: i32, data: &[u8]) -> Option<u8> {
    let kinds = [system::HOPS_V4, system::HOPS_V4_SENT, system::HOPS_V6];
    if kinds.contains(&(level, kind)) { u8::try_from(number(data)?).ok() } else { None }
}

/// The message that a hop limit is sent with.
pub(crate) fn set_hop_limit(v6: bool, hops: u8) -> ((i32, i32), [u8; 4]) {
    let kind = if v6 { system::HOPS_V6 } else { system::HOPS_V4_SENT };
    (kind, i32::from(hops).to_ne_bytes())
}

/// The traffic class (type of service) that a datagram arrived with, or is to be sent with.
pub(crate) fn traffic_class(level: i32, kind: i32, data: &[u8]) -> Option<u8> {
    let kinds = [system::CLASS_V4, system::CLASS_V4_SENT, system::CLASS_V6];
    if kinds.contains(&(level, kind)) { u8::try_from(number(data)?).ok() } else { None }
}

/// The message that a traffic class is sent with.
pub(crate) fn set_traffic_class(v6: bool, class: u8) -> ((i32, i32), [u8; 4]) {
    let kind = if v6 { system::CLASS_V6 } else { system::CLASS_V4_SENT };
    (kind, i32::from(class).to_ne_bytes())
}

/// The length of the datagrams that a longer buffer is cut into, or was put together from.
pub(crate) fn segment_len(level: i32, kind: i32, data: &[u8]) -> Option<u16> {
    let kinds = [system::SEGMENTS_SENT, system::SEGMENTS];
    if kinds.contains(&(level, kind)) { u16::try_from(number(data)?).ok() } else { None }
}

/// The message that has a buffer sent as datagrams of this length.
pub(crate) fn set_segment_len(len: u16) -> ((i32, i32), system::SegmentLen) {
    (system::SEGMENTS_SENT, system::SegmentLen::from(len))
}

/// The bytes of [`set_segment_len`]'s number.
pub(crate) fn segment_bytes(len: &system::SegmentLen) -> Vec<u8> {
    len.to_ne_bytes().to_vec()
}
