//! What comes and goes with a datagram beside its bytes: its sender, whether it was cut off, and control
//! messages.
//!
//! `rustix` has types for two control messages, descriptors and credentials; what datagrams need (packet
//! information, hop limits, traffic classes, segments) has to be put together by hand with it. So this is a
//! buffer of our own: any message can be pushed and read as level, type and data, and the usual ones by name.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::sys::{OwnedDescriptor, control};

/// What is known of a datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Bytes in the buffers.
    pub len: usize,
    /// Who sent it. None where the sender has no IP address, and on a stream.
    pub from: Option<SocketAddr>,
    /// The datagram was longer than the buffers: the rest of it is gone.
    pub truncated: bool,
    /// How long the datagram was, where the system tells it: Linux and simulated systems do.
    pub whole_len: Option<usize>,
    /// There were more control messages than the control buffer had room for.
    pub control_truncated: bool,
}

/// A buffer for control messages: those to send with a datagram, or those that came with one. Messages that came
/// are not sent on: a buffer that has them is emptied when it is sent, or when the first one is pushed.
///
/// ```
/// use pelton_driver::Control;
/// let mut control = Control::with_capacity(Control::space(2));
/// control.push_segment_len(1200)?;
/// assert_eq!(control.iter().next().unwrap().segment_len(), Some(1200));
/// assert!(control.push_segment_len(1200).is_err(), "it is full");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Default)]
pub struct Control {
    /// Words, because messages are aligned to them; all of them initialised.
    words: Vec<u64>,
    /// Bytes that hold messages.
    len: usize,
    /// The system wrote the messages. They are never sent: descriptors among them may be others' numbers by then.
    received: bool,
    /// Descriptors among them are ours, and nobody has taken them.
    has_descriptors: bool,
    /// So is the descriptor of the process that has sent them.
    has_process: bool,
}

impl Control {
    /// No room for anything, and no allocation.
    pub const fn none() -> Control {
        Control {
            words: Vec::new(),
            len: 0,
            received: false,
            has_descriptors: false,
            has_process: false,
        }
    }

    /// Room for so many bytes, rounded up to whole words. [`Control::space`] says what a message takes.
    pub fn with_capacity(bytes: usize) -> Control {
        Control { words: vec![0; bytes.div_ceil(8)], ..Control::none() }
    }

    /// Bytes that a message with `len` bytes of data takes.
    pub const fn space(len: usize) -> usize {
        control::space(len)
    }

    /// Bytes that there is room for.
    pub fn capacity(&self) -> usize {
        self.words.len() * 8
    }

    /// True when there is no message.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes out all messages. Descriptors that came with them and have not been taken
    /// ([`Control::take_descriptors`], [`Control::take_process`]) are closed.
    pub fn clear(&mut self) {
        drop((self.take_descriptors(), self.take_process()));
        self.len = 0;
        self.received = false;
    }

    /// Adds a message.
    ///
    /// # Errors
    /// There is no room for it: make the buffer larger. Or it would send descriptors, which plain numbers
    /// are no right to.
    pub fn push(&mut self, level: i32, kind: i32, data: &[u8]) -> io::Result<()> {
        let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if Some((level, kind)) == control::DESCRIPTORS {
            return invalid("descriptors cannot be sent as plain numbers");
        }
        if self.received {
            self.clear();
        }
        let room = self.capacity() - self.len;
        if data.len() > room || control::space(data.len()) > room {
            return invalid(
                "the control buffer has no room for the message: make it larger (`Control::space`)",
            );
        }
        let (at, end) = (self.len, self.len + control::space(data.len()));
        let to = &mut self.memory()[at..end];
        to.fill(0);
        control::write(to, level, kind, data);
        self.len = end;
        Ok(())
    }

    /// Has a buffer sent as several datagrams of `len` bytes, the last one of what is left (`UDP_SEGMENT`).
    ///
    /// # Errors
    /// As for [`Control::push`].
    pub fn push_segment_len(&mut self, len: u16) -> io::Result<()> {
        let ((level, kind), len) = control::set_segment_len(len);
        self.push(level, kind, &control::segment_bytes(&len))
    }

    /// Has the datagram sent from this address, and through this interface where the number is not 0.
    ///
    /// # Errors
    /// As for [`Control::push`].
    pub fn push_source(&mut self, address: IpAddr, interface: u32) -> io::Result<()> {
        let ((level, kind), data) = control::source(address, interface);
        self.push(level, kind, &data)
    }

    /// Sends the datagram with this hop limit; `to` says for which family.
    ///
    /// # Errors
    /// As for [`Control::push`].
    pub fn push_hop_limit(&mut self, to: SocketAddr, hops: u8) -> io::Result<()> {
        let ((level, kind), data) = control::set_hop_limit(to.is_ipv6(), hops);
        self.push(level, kind, &data)
    }

    /// Sends the datagram with this traffic class (type of service), of which the lowest two bits are for
    /// congestion (ECN); `to` says for which family.
    ///
    /// # Errors
    /// As for [`Control::push`].
    pub fn push_traffic_class(&mut self, to: SocketAddr, class: u8) -> io::Result<()> {
        let ((level, kind), data) = control::set_traffic_class(to.is_ipv6(), class);
        self.push(level, kind, &data)
    }

    /// The messages, in order. One that is cut off is left out.
    pub fn iter(&self) -> impl Iterator<Item = ControlMessage<'_>> {
        let mut rest = &self.bytes()[..self.len];
        std::iter::from_fn(move || {
            let (level, kind, data) = control::first(rest)?;
            rest = rest.get(control::space(data.len())..).unwrap_or_default();
            Some(ControlMessage { level, kind, data })
        })
    }

    /// The descriptors that came with a message over a Unix socket, once. Those that nobody takes are closed
    /// with the buffer.
    pub fn take_descriptors(&mut self) -> Vec<OwnedDescriptor> {
        if !std::mem::take(&mut self.has_descriptors) {
            return Vec::new();
        }
        crate::sys::received_descriptors(&self.all_of(control::DESCRIPTORS))
    }

    /// The descriptor of the process that has sent a message over a Unix socket, once (`SCM_PIDFD`, on Linux from 6.5
    /// on, where the socket asks for it). One that nobody takes is closed with the buffer.
    pub fn take_process(&mut self) -> Option<OwnedDescriptor> {
        if !std::mem::take(&mut self.has_process) {
            return None;
        }
        crate::sys::received_descriptors(&self.all_of(control::PROCESS)).pop()
    }

    /// The data of all messages of a kind; of none where there is no such kind.
    fn all_of(&self, kind: Option<(i32, i32)>) -> Vec<&[u8]> {
        let is_one = |message: &ControlMessage<'_>| Some((message.level, message.kind)) == kind;
        self.iter().filter(is_one).map(|message| message.data).collect()
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: words are bytes, all of them initialised.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.capacity()) }
    }

    fn memory(&mut self) -> &mut [u8] {
        let len = self.capacity();
        // SAFETY: as above, and any bytes are words.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), len) }
    }

    /// Where the messages to send are, and how long they are all together.
    pub(crate) fn outgoing(&mut self) -> (*mut u8, usize) {
        if self.received {
            self.clear();
        }
        (self.words.as_mut_ptr().cast(), self.len)
    }

    /// Where messages are to be received, and how much room there is.
    pub(crate) fn incoming(&mut self) -> (*mut u8, usize) {
        self.clear();
        (self.words.as_mut_ptr().cast(), self.capacity())
    }

    /// The system, or a room in its place, has written `len` bytes of messages to where
    /// [`Control::incoming`] said.
    pub(crate) fn filled(&mut self, len: usize) {
        self.len = len.min(self.capacity());
        self.received = true;
        (self.has_descriptors, self.has_process) = (true, true);
        if control::SURVIVE_EXEC {
            crate::sys::keep_from_programs(&self.all_of(control::DESCRIPTORS));
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.has_descriptors || self.has_process {
            self.clear();
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// One control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlMessage<'a> {
    /// The protocol that it is of, by the system's number.
    pub level: i32,
    /// What it is, by the system's number.
    pub kind: i32,
    /// What it says.
    pub data: &'a [u8],
}

impl ControlMessage<'_> {
    /// The address that the datagram was sent to, and the number of the interface that it came by
    /// (`IP_PKTINFO`, `IPV6_PKTINFO`).
    pub fn packet_info(&self) -> Option<(IpAddr, u32)> {
        control::packet_info(self.level, self.kind, self.data)
    }

    /// The hop limit that the datagram arrived with (`IP_TTL`, `IPV6_HOPLIMIT`).
    pub fn hop_limit(&self) -> Option<u8> {
        control::hop_limit(self.level, self.kind, self.data)
    }

    /// The traffic class that the datagram arrived with, of which the lowest two bits are for congestion
    /// (`IP_TOS`, `IPV6_TCLASS`).
    pub fn traffic_class(&self) -> Option<u8> {
        control::traffic_class(self.level, self.kind, self.data)
    }

    /// The length of the datagrams that the buffer is cut into, or was put together from (`UDP_SEGMENT`,
    /// `UDP_GRO`).
    pub fn segment_len(&self) -> Option<u16> {
        control::segment_len(self.level, self.kind, self.data)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_and_no_more_than_fit() {
        let v4: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let v6: SocketAddr = "[::1]:9".parse().unwrap();
        let mut control = Control::with_capacity(Control::space(12) + 4 * Control::space(4));
        control.push_source(v4.ip(), 7).unwrap();
        control.push_hop_limit(v4, 3).unwrap();
        control.push_traffic_class(v6, 2).unwrap();
        control.push_segment_len(1000).unwrap();
        control.push(7, 8, b"abc").unwrap();
        assert_eq!(control.push(7, 8, b"").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let all: Vec<_> = control.iter().collect();
        assert_eq!(all.len(), 5);
        assert_eq!(all[1].hop_limit(), Some(3));
        assert_eq!(all[2].traffic_class(), Some(2));
        assert_eq!(all[3].segment_len(), Some(1000));
        assert_eq!((all[4].level, all[4].kind, all[4].data), (7, 8, &b"abc"[..]));
        assert!(all[4].hop_limit().is_none() && all[4].packet_info().is_none());
        control.clear();
        control.push_source(v6.ip(), 4).unwrap();
        assert_eq!(control.iter().next().unwrap().packet_info(), Some((v6.ip(), 4)));
    }

    #[test]
    fn nothing_is_read_past_the_end_of_what_was_written() {
        for len in 0..Control::space(8) {
            let mut control = Control::with_capacity(Control::space(8));
            control.push(1, 2, &[3; 8]).unwrap();
            control.len = len;
            let whole = control.iter().count();
            assert_eq!(whole, usize::from(len >= control::HEADER + 8), "{len} bytes");
        }
        // A length that leads before its own header, or nowhere.
        for bad in [0_u64, 3, 15, u64::MAX] {
            let mut control = Control::with_capacity(64);
            control.words[0] = bad;
            control.filled(64);
            assert_eq!(control.iter().count(), 0, "{bad}");
        }
        assert_eq!(Control::none().iter().count(), 0);
    }

    #[cfg(all(unix, not(miri)))] // It asks the kernel.
    #[test]
    fn what_comes_where_the_system_cannot_say_so_is_kept_from_programs_afterwards() {
        use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
        use std::os::fd::AsRawFd;
        let (one, other) = std::io::pipe().unwrap();
        fcntl_setfd(&one, FdFlags::empty()).unwrap();
        fcntl_setfd(&other, FdFlags::empty()).unwrap();
        let [a, b] = [one.as_raw_fd(), other.as_raw_fd()].map(i32::to_ne_bytes);
        let both = [a, b].concat();
        crate::sys::keep_from_programs(&[&both]);
        for flags in [fcntl_getfd(&one), fcntl_getfd(&other)] {
            assert!(flags.unwrap().contains(FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn plain_numbers_are_not_sent_as_descriptors() {
        let Some((level, kind)) = control::DESCRIPTORS else { return };
        let mut control = Control::with_capacity(64);
        assert!(control.push(level, kind, &1_i32.to_ne_bytes()).is_err());
        assert!(control.is_empty() && control.take_descriptors().is_empty());
    }
}
