//! Options of datagram sockets.

use std::io;
use std::os::windows::io::AsRawSocket;

use socket2::SockRef;
use windows_sys::Win32::Networking::WinSock::{IPPROTO_IPV6, IPV6_TCLASS, setsockopt};

use super::calls::socket_error;
use super::messages;
use crate::driver::DatagramOption;

/// The longest that datagrams are put together to.
const MOST_TOGETHER: i32 = 65_535;

/// Sets an option.
pub(crate) fn set(asks: &SockRef<'_>, option: DatagramOption) -> io::Result<()> {
    let v6 = || asks.local_addr().map(|address| address.is_ipv6());
    let number = |number, value| set_number(asks, number, value);
    let on_or_off = |v4, of_v6, on: bool| number(if v6()? { of_v6 } else { v4 }, i32::from(on));
    match option {
        DatagramOption::Broadcast(on) => asks.set_broadcast(on),
        DatagramOption::TrafficClass(class) if v6()? => {
            number((IPPROTO_IPV6, IPV6_TCLASS), class.into())
        }
        DatagramOption::TrafficClass(class) => asks.set_tos_v4(class.into()),
        DatagramOption::MulticastLoopV4(on) => asks.set_multicast_loop_v4(on),
        DatagramOption::MulticastTtlV4(ttl) => asks.set_multicast_ttl_v4(ttl),
        DatagramOption::MulticastLoopV6(on) => asks.set_multicast_loop_v6(on),
        DatagramOption::MulticastHopsV6(hops) => asks.set_multicast_hops_v6(hops),
        DatagramOption::JoinV4(group, interface) => asks.join_multicast_v4(&group, &interface),
        DatagramOption::LeaveV4(group, interface) => asks.leave_multicast_v4(&group, &interface),
        DatagramOption::JoinV6(group, interface) => asks.join_multicast_v6(&group, interface),
        DatagramOption::LeaveV6(group, interface) => asks.leave_multicast_v6(&group, interface),
        DatagramOption::ReceivePacketInfo(on) => {
            on_or_off(messages::RECEIVE_PACKET_INFO_V4, messages::RECEIVE_PACKET_INFO_V6, on)
        }
        DatagramOption::ReceiveHopLimit(on) => {
            on_or_off(messages::RECEIVE_HOPS_V4, messages::RECEIVE_HOPS_V6, on)
        }
        DatagramOption::ReceiveTrafficClass(on) => {
            on_or_off(messages::RECEIVE_CLASS_V4, messages::RECEIVE_CLASS_V6, on)
        }
        DatagramOption::ReceiveSegments(on) => {
            number(messages::RECEIVE_SEGMENTS, if on { MOST_TOGETHER } else { 0 })
        }
    }
}

/// Sets an option that is a number, for which `socket2` has no call.
fn set_number(asks: &SockRef<'_>, (level, name): (i32, i32), value: i32) -> io::Result<()> {
    let (value, len) = ((&raw const value).cast(), size_of::<i32>() as i32);
    // SAFETY: the socket is open while it is borrowed; the system reads one number.
    let result = unsafe { setsockopt(asks.as_raw_socket() as usize, level, name, value, len) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(socket_error())) }
}
