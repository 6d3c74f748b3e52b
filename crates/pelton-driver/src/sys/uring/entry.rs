//! The 64 bytes of a submission entry, and one constructor for each that this room makes.
//!
//! The layout is the kernel's `struct io_uring_sqe`, with the names of the fields as plain numbers: an
//! entry is written once, straight into the ring, and a constructor that is inlined leaves nothing but
//! its stores.

use rustix::io_uring::{IoringOp, io_uring_sqe};

use crate::seam::RawEntry;
use crate::sys::unix::RawDescriptor;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Sqe {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    pub(super) user_data: u64,
    buf_group: u16,
    personality: u16,
    file_index: u32,
    addr3: u64,
    pad: u64,
}

const _: () = assert!(size_of::<Sqe>() == size_of::<io_uring_sqe>() && size_of::<Sqe>() == 64);

const BUFFER_SELECT: u8 = 1 << 5;
const SKIP_SUCCESS: u8 = 1 << 6;

const RECV_MULTISHOT: u16 = 1 << 1;
const ACCEPT_MULTISHOT: u16 = 1 << 0;
const POLL_MULTISHOT: u32 = 1 << 0;

/// What an entry says whose other words are zero: half of it, so that half of it is left as it is in an entry of
/// which they are known to be zero. The same words as those of [`Sqe`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Lean {
    head: Head,
    fd: i32,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Head {
    opcode: u8,
    flags: u8,
    ioprio: u16,
}

impl Lean {
    /// Writes it over an entry.
    ///
    /// # Safety
    /// `place` is an entry that may be written, and the words that a lean entry leaves alone are zero in it.
    #[inline(always)]
    pub(super) unsafe fn write(self, place: *mut Sqe) {
        // SAFETY: the fields of an entry that the caller may write; `Head` is the first three of them, and
        // the length is at an address that is a multiple of 8, with the flags behind it.
        unsafe {
            place.cast::<Head>().write(self.head);
            (&raw mut (*place).fd).write(self.fd);
            (&raw mut (*place).addr).write(self.addr);
            if self.op_flags == 0 && cfg!(target_endian = "little") {
                // With the zero behind it, at once.
                (&raw mut (*place).len).cast::<u64>().write(self.len.into());
            } else {
                (&raw mut (*place).len).write(self.len);
                (&raw mut (*place).op_flags).write(self.op_flags);
            }
            (&raw mut (*place).user_data).write(self.user_data);
        }
    }
}

impl From<Lean> for Sqe {
    fn from(lean: Lean) -> Sqe {
        let Lean { head: Head { opcode, flags, ioprio }, fd, addr, len, op_flags, user_data } =
            lean;
        Sqe { opcode, flags, ioprio, fd, addr, len, op_flags, user_data, ..EMPTY }
    }
}

impl Sqe {
    /// True when it says something where a [`Lean`] entry says nothing.
    pub(super) fn is_rich(&self) -> bool {
        self.off != 0
            || u64::from(self.buf_group) != 0
            || self.personality != 0
            || self.file_index != 0
            || self.addr3 != 0
            || self.pad != 0
    }

    /// An entry that says nothing.
    pub(super) const NOTHING: Sqe = EMPTY;

    pub(super) fn is_cancel(&self) -> bool {
        self.opcode == IoringOp::AsyncCancel as u8
    }
}

const EMPTY: Sqe = Sqe {
    opcode: 0,
    flags: 0,
    ioprio: 0,
    fd: -1,
    off: 0,
    addr: 0,
    len: 0,
    op_flags: 0,
    user_data: 0,
    buf_group: 0,
    personality: 0,
    file_index: 0,
    addr3: 0,
    pad: 0,
};

#[inline(always)]
fn on(op: IoringOp, fd: RawDescriptor, user_data: u64) -> Sqe {
    Sqe { opcode: op as u8, fd, user_data, ..EMPTY }
}

#[inline(always)]
fn lean(op: IoringOp, flags: u8, ioprio: u16, fd: RawDescriptor, user_data: u64) -> Lean {
    let head = Head { opcode: op as u8, flags, ioprio };
    Lean { head, fd, addr: 0, len: 0, op_flags: 0, user_data }
}

#[inline(always)]
pub(super) fn recv(fd: RawDescriptor, ptr: *mut u8, len: u32, user_data: u64) -> Lean {
    Lean { addr: ptr.expose_provenance() as u64, len, ..lean(IoringOp::Recv, 0, 0, fd, user_data) }
}

/// From the pool's group of buffers, which has the number 0.
#[inline(always)]
pub(super) fn recv_pooled(fd: RawDescriptor, multishot: bool, user_data: u64) -> Lean {
    let ioprio = if multishot { RECV_MULTISHOT } else { 0 };
    lean(IoringOp::Recv, BUFFER_SELECT, ioprio, fd, user_data)
}

/// With `all` the kernel itself goes on after a short send.
#[inline(always)]
pub(super) fn send(fd: RawDescriptor, ptr: *const u8, len: u32, all: bool, user_data: u64) -> Lean {
    let (addr, op_flags) = (ptr.expose_provenance() as u64, message_flags(all));
    Lean { addr, len, op_flags, ..lean(IoringOp::Send, 0, 0, fd, user_data) }
}

#[inline(always)]
fn message_flags(all: bool) -> u32 {
    (libc::MSG_NOSIGNAL | if all { libc::MSG_WAITALL } else { 0 }) as u32
}

pub(super) fn sendmsg(
    fd: RawDescriptor,
    header: *mut libc::msghdr,
    all: bool,
    user_data: u64,
) -> Sqe {
    let op_flags = message_flags(all);
    let base = on(IoringOp::Sendmsg, fd, user_data);
    Sqe { addr: header.expose_provenance() as u64, len: 1, op_flags, ..base }
}

pub(super) fn recvmsg(
    fd: RawDescriptor,
    header: *mut libc::msghdr,
    flags: i32,
    user_data: u64,
) -> Sqe {
    let base = on(IoringOp::Recvmsg, fd, user_data);
    Sqe { addr: header.expose_provenance() as u64, len: 1, op_flags: flags as u32, ..base }
}

/// The accepted connection does not survive an `exec`; it blocks, because the ring would otherwise give
/// up on it instead of waiting.
pub(super) fn accept(
    fd: RawDescriptor,
    address: *mut libc::sockaddr_storage,
    len: *mut libc::socklen_t,
    user_data: u64,
) -> Sqe {
    let base = on(IoringOp::Accept, fd, user_data);
    let (addr, off) = (address.expose_provenance() as u64, len.expose_provenance() as u64);
    Sqe { addr, off, op_flags: libc::SOCK_CLOEXEC as u32, ..base }
}

pub(super) fn accept_multi(fd: RawDescriptor, user_data: u64) -> Sqe {
    let base = on(IoringOp::Accept, fd, user_data);
    Sqe { ioprio: ACCEPT_MULTISHOT, op_flags: libc::SOCK_CLOEXEC as u32, ..base }
}

pub(super) fn connect(
    fd: RawDescriptor,
    address: *const libc::sockaddr_storage,
    len: libc::socklen_t,
    user_data: u64,
) -> Sqe {
    let base = on(IoringOp::Connect, fd, user_data);
    Sqe { addr: address.expose_provenance() as u64, off: len.into(), ..base }
}

/// What has no places to read or write at, or goes on where it was.
pub(super) const NOWHERE: u64 = u64::MAX;

pub(super) fn read(fd: RawDescriptor, ptr: *mut u8, len: u32, offset: u64, user_data: u64) -> Sqe {
    let base = on(IoringOp::Read, fd, user_data);
    Sqe { addr: ptr.expose_provenance() as u64, len, off: offset, ..base }
}

pub(super) fn write(
    fd: RawDescriptor,
    ptr: *const u8,
    len: u32,
    offset: u64,
    user_data: u64,
) -> Sqe {
    let base = on(IoringOp::Write, fd, user_data);
    Sqe { addr: ptr.expose_provenance() as u64, len, off: offset, ..base }
}

pub(super) fn poll(fd: RawDescriptor, events: i16, user_data: u64) -> Sqe {
    let op_flags = poll_flags(events);
    Sqe { op_flags, ..on(IoringOp::PollAdd, fd, user_data) }
}

/// Completes at every edge until it is cancelled.
pub(super) fn poll_edges(fd: RawDescriptor, events: i16, user_data: u64) -> Sqe {
    Sqe { len: POLL_MULTISHOT, ..poll(fd, events, user_data) }
}

/// The kernel takes the 32 bits in the order of two words on a big-endian machine.
fn poll_flags(events: i16) -> u32 {
    let events = u32::from(events as u16);
    if cfg!(target_endian = "big") { events.rotate_left(16) } else { events }
}

pub(super) fn sync(fd: RawDescriptor, data_only: bool, user_data: u64) -> Sqe {
    Sqe { op_flags: u32::from(data_only), ..on(IoringOp::Fsync, fd, user_data) }
}

pub(super) fn shutdown(fd: RawDescriptor, how: i32, user_data: u64) -> Sqe {
    Sqe { len: how as u32, ..on(IoringOp::Shutdown, fd, user_data) }
}

/// One of the user's own, on a descriptor of the driver's where it was prepared for one.
pub(super) fn own(own: RawEntry, fd: Option<RawDescriptor>, user_data: u64) -> Sqe {
    let RawEntry { opcode, flags, ioprio, off, addr, len, op_flags, .. } = own;
    let RawEntry { buf_index: buf_group, personality, file_index, addr3, pad, .. } = own;
    let fd = fd.unwrap_or(own.fd);
    Sqe {
        opcode,
        flags,
        ioprio,
        fd,
        off,
        addr,
        len,
        op_flags,
        user_data,
        buf_group,
        personality,
        file_index,
        addr3,
        pad,
    }
}

/// A close that nobody waits for completes only where it fails.
pub(super) fn close(fd: RawDescriptor, user_data: u64, quiet: bool) -> Sqe {
    Sqe { flags: if quiet { SKIP_SUCCESS } else { 0 }, ..on(IoringOp::Close, fd, user_data) }
}

/// Completes only where it finds nothing to cancel.
pub(super) fn cancel(target: u64, user_data: u64) -> Sqe {
    Sqe { flags: SKIP_SUCCESS, addr: target, ..on(IoringOp::AsyncCancel, -1, user_data) }
}
