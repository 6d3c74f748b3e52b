//! Message headers as the simulated system reads and writes them: where a datagram is to go and how, and what
//! has come with one.

use std::net::{IpAddr, SocketAddr};

use super::calls::{here, parts, tried};
use super::datagram::Arrived;
pub(crate) use super::datagram::Wants;
use super::file::{File, FileId, Kind};
use super::state::State;
use crate::driver::DatagramOption;
use crate::sys::{
    AddressStorage, MessageEnd, MessageHeader, RawDescriptor, control, end_message, socket_address,
    write_address,
};

/// The interface that everything comes by.
const INTERFACE: u32 = 1;

/// What the control messages of a send ask for.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked {
    pub(super) source: Option<IpAddr>,
    pub(super) hops: Option<u8>,
    pub(super) class: Option<u8>,
    pub(super) segment: Option<u16>,
}

/// What a receive has brought.
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    from: Option<SocketAddr>,
    control: Vec<((i32, i32), Vec<u8>)>,
}

impl Message {
    fn arrived(arrived: Arrived, wants: Wants) -> Message {
        let v6 = arrived.to.is_ipv6();
        let mut messages = Vec::new();
        if wants.packet_info {
            messages.push(control::arrived(arrived.to, INTERFACE));
        }
        if wants.hop_limit {
            let (kind, data) = control::set_hop_limit(v6, arrived.hops);
            messages.push((kind, data.to_vec()));
        }
        if wants.traffic_class {
            // As Linux has it: one byte for the old protocol, an `int` for the new one.
            let (kind, data) = control::set_traffic_class(v6, arrived.class);
            let data = if v6 { data.to_vec() } else { vec![arrived.class] };
            messages.push((kind, data));
        }
        Message { bytes: arrived.bytes, from: Some(arrived.from), control: messages }
    }

    /// Writes what is beside the bytes into a header, of which `filled` bytes have been filled. Returns the
    /// call's result.
    ///
    /// # Safety
    /// The header and what it names are valid, and nobody else touches them.
    #[allow(clippy::unnecessary_cast)] // With other C libraries the number has another type.
    pub(super) unsafe fn answer(
        &self,
        header: *mut MessageHeader,
        filled: usize,
        flags: i32,
    ) -> i32 {
        // SAFETY: by the caller, here and below.
        let header = unsafe { &mut *header };
        let (name, room) = (header.msg_name, header.msg_controllen as usize);
        let mut end = MessageEnd {
            address_len: 0,
            control_len: 0,
            truncated: filled < self.bytes.len(),
            control_truncated: false,
        };
        if let Some(from) = self.from.filter(|_| !name.is_null()) {
            // SAFETY: rooms have a whole storage there.
            end.address_len = unsafe { write_address(&from, name.cast::<AddressStorage>()) };
        }
        for ((level, kind), data) in &self.control {
            let next = end.control_len + control::space(data.len());
            if next > room {
                end.control_truncated = true;
                break;
            }
            // SAFETY: inside of the room that there is, all of it initialised.
            let to = unsafe {
                let start = header.msg_control.cast::<u8>().add(end.control_len);
                std::slice::from_raw_parts_mut(start, control::space(data.len()))
            };
            control::write(to, *level, *kind, data);
            end.control_len = next;
        }
        end_message(header, &end);
        let whole = flags & libc::MSG_TRUNC != 0;
        (if whole { self.bytes.len() } else { filled }) as i32
    }
}

/// Where a message is to go, and what it asks for.
///
/// # Safety
/// The header and what it names are valid.
#[allow(clippy::unnecessary_cast)] // With other C libraries the number has another type.
pub(super) unsafe fn asked(header: *const MessageHeader) -> (Option<SocketAddr>, Asked) {
    // SAFETY: by the caller.
    let header = unsafe { &*header };
    let mut to = None;
    if !header.msg_name.is_null() {
        // SAFETY: by the caller.
        to = unsafe { socket_address(header.msg_name.cast(), header.msg_namelen) };
    }
    let mut asked = Asked::default();
    let len = header.msg_controllen as usize;
    if len == 0 {
        return (to, asked);
    }
    // SAFETY: by the caller.
    let mut rest = unsafe { std::slice::from_raw_parts(header.msg_control.cast::<u8>(), len) };
    while let Some((level, kind, data)) = control::first(rest) {
        asked.source = asked.source.or(control::asked_source(level, kind, data));
        asked.hops = asked.hops.or(control::hop_limit(level, kind, data));
        asked.class = asked.class.or(control::traffic_class(level, kind, data));
        asked.segment = asked.segment.or(control::segment_len(level, kind, data));
        rest = rest.get(control::space(data.len())..).unwrap_or_default();
    }
    (to, asked)
}

impl State {
    /// Takes what a receive of a message brings: of a stream up to `most` bytes, else one datagram.
    pub(super) fn receive_message(
        &mut self,
        id: FileId,
        most: usize,
        peek: bool,
    ) -> Result<Message, i32> {
        if let Some(datagram) = self.datagram(id) {
            let wants = datagram.wants;
            return self.receive_datagram(id, peek).map(|one| Message::arrived(one, wants));
        }
        if peek {
            return Err(-libc::EOPNOTSUPP);
        }
        let bytes = self.receive(id, most)?;
        Ok(Message { bytes, from: None, control: Vec::new() })
    }

    /// Sends a message over a datagram socket: how many bytes, or a negated error. None where the file is
    /// something else.
    ///
    /// # Safety
    /// The header and what it names are valid.
    pub(super) unsafe fn send_message(
        &mut self,
        id: FileId,
        header: *const MessageHeader,
        bytes: Vec<u8>,
    ) -> Option<i32> {
        if !matches!(self.file(id), Some(File { kind: Kind::Datagram(_), .. })) {
            return None;
        }
        let len = bytes.len();
        // SAFETY: by the caller.
        let (to, asked) = unsafe { asked(header) };
        let sent = self
            .may_send_datagram(id, len, to)
            .and_then(|_| self.send_datagram(id, bytes, to, asked));
        Some(match sent {
            Ok(()) => len as i32,
            Err(error) => error,
        })
    }
}

// The calls.

/// `recvmsg` of one datagram, with its sender and what it says beside the bytes.
///
/// # Safety
/// As `recvmsg(2)`: the header and what it names are valid.
pub(crate) unsafe fn receive_message(
    fd: RawDescriptor,
    header: *mut MessageHeader,
    flags: i32,
) -> i32 {
    // SAFETY: by the caller.
    let parts = unsafe { parts(header) };
    let most = parts.iter().map(|part| part.iov_len).sum();
    let peek = flags & libc::MSG_PEEK != 0;
    tried(fd, |state, file| match state.receive_message(file, most, peek) {
        Ok(message) => {
            let mut rest = &message.bytes[..];
            for part in parts {
                let (now, later) = rest.split_at(rest.len().min(part.iov_len));
                // SAFETY: the part has room for it, by the caller.
                unsafe {
                    std::ptr::copy_nonoverlapping(now.as_ptr(), part.iov_base.cast(), now.len());
                }
                rest = later;
            }
            let filled = message.bytes.len() - rest.len();
            // SAFETY: by the caller.
            unsafe { message.answer(header, filled, flags) }
        }
        Err(error) => error,
    })
}

/// What a datagram socket was told, to look at or to change.
pub(crate) fn datagram_wants<R>(
    fd: RawDescriptor,
    f: impl FnOnce(&mut Wants) -> R,
) -> Result<R, i32> {
    here(|state| {
        let file = state.of_fd(fd).ok_or(-libc::EBADF)?;
        let datagram = state.datagram_mut(file).ok_or(-libc::EOPNOTSUPP)?;
        Ok(f(&mut datagram.wants))
    })
    .unwrap_or(Err(-libc::EBADF))
}

pub(crate) fn set_datagram_option(fd: RawDescriptor, option: DatagramOption) -> i32 {
    let hops = |hops: u32| if hops > 255 { Err(-libc::EINVAL) } else { Ok(Some(hops)) };
    let set = datagram_wants(fd, |wants| {
        match option {
            DatagramOption::Broadcast(on) => wants.broadcast = on,
            DatagramOption::TrafficClass(class) => wants.class = class,
            DatagramOption::MulticastLoopV4(on) => wants.multicast_loop[0] = Some(on),
            DatagramOption::MulticastLoopV6(on) => wants.multicast_loop[1] = Some(on),
            DatagramOption::MulticastTtlV4(ttl) => wants.multicast_hops[0] = hops(ttl)?,
            DatagramOption::MulticastHopsV6(limit) => wants.multicast_hops[1] = hops(limit)?,
            DatagramOption::ReceivePacketInfo(on) => wants.packet_info = on,
            DatagramOption::ReceiveHopLimit(on) => wants.hop_limit = on,
            DatagramOption::ReceiveTrafficClass(on) => wants.traffic_class = on,
            DatagramOption::JoinV4(..)
            | DatagramOption::LeaveV4(..)
            | DatagramOption::JoinV6(..)
            | DatagramOption::LeaveV6(..)
            | DatagramOption::ReceiveSegments(_) => return Err(-libc::EOPNOTSUPP),
        }
        Ok(0)
    });
    match set {
        Ok(Ok(done)) => done,
        Ok(Err(error)) | Err(error) => error,
    }
}
