//! Options of datagram sockets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockRef;

use super::{check, messages};
use crate::driver::DatagramOption;

/// Sets an option.
pub(crate) fn set(socket: BorrowedFd<'_>, option: DatagramOption) -> io::Result<()> {
    let asks = SockRef::from(&socket);
    let v6 = || asks.local_addr().map(|address| address.is_ipv6());
    match option {
        DatagramOption::Broadcast(on) => asks.set_broadcast(on),
        DatagramOption::TrafficClass(class) if v6()? => asks.set_tclass_v6(class.into()),
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
            let (v4, v6s) = (messages::RECEIVE_PACKET_INFO_V4, messages::RECEIVE_PACKET_INFO_V6);
            switch(socket, if v6()? { v6s } else { v4 }, on)
        }
        DatagramOption::ReceiveHopLimit(on) => {
            let (v4, v6s) = (messages::RECEIVE_HOPS_V4, messages::RECEIVE_HOPS_V6);
            switch(socket, if v6()? { v6s } else { v4 }, on)
        }
        DatagramOption::ReceiveTrafficClass(on) => {
            let (v4, v6s) = (messages::RECEIVE_CLASS_V4, messages::RECEIVE_CLASS_V6);
            switch(socket, if v6()? { v6s } else { v4 }, on)
        }
        DatagramOption::ReceiveSegments(on) => switch(socket, messages::RECEIVE_SEGMENTS, on),
    }
}

/// Sets an option that is on or off, for which `socket2` has no call.
fn switch(socket: BorrowedFd<'_>, (level, name): (i32, i32), on: bool) -> io::Result<()> {
    if level < 0 {
        let what = "this system has no such option for datagrams";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    let value = i32::from(on);
    // SAFETY: the descriptor is open while it is borrowed; the system reads one `int`.
    let result = check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        ) as isize
    });
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
