//! The calls of the simulated system, as the rooms make them: by number, without waiting, with results as
//! completions carry them (0 and more, or a negated `errno`).
//!
//! They work on the world of this thread; without one every call answers `EBADF`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use rustix::io_uring::{IoringRegisterOp, io_uring_params};

use crate::sys::{AddressLength, AddressStorage, MessageHeader, RawDescriptor};

/// Descriptors of a simulated system have numbers from here on: more than any real system gives out.
pub(crate) const FIRST: RawDescriptor = 1 << 30;

/// True for the number of a descriptor of a simulated system.
#[inline(always)]
pub(crate) fn owns(raw: RawDescriptor) -> bool {
    raw >= FIRST
}

/// How a socket is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketKind { Stream, Datagram }

/// Options of a simulated socket, remembered and told again; linger zero resets at the close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketOption {
    NoDelay(bool),
    Ttl(u32),
    Linger(Option<Duration>),
    ReuseAddress(bool),
    ReusePort(bool),
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenFlags {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) truncate: bool,
}

/// True when this thread is in a world.
pub(crate) fn in_world() -> bool { false }
/// The world's clock, as an instant; none outside of a world.
pub(crate) fn now() -> Option<Instant> { None }
/// The wall clock of the current host; none outside of a world.
pub(crate) fn wall() -> Option<SystemTime> { None }
/// Deterministic random words for whoever asks (hash seeds, ids); none outside of a world.
pub(crate) fn random() -> Option<u64> { None }

pub(crate) fn socket(_v6: bool, _kind: SocketKind, _nonblocking: bool) -> i32 { unreachable!() }
pub(crate) fn socketpair(_nonblocking: bool) -> Result<(RawDescriptor, RawDescriptor), i32> { unreachable!() }
pub(crate) fn bind(_fd: RawDescriptor, _address: SocketAddr) -> i32 { unreachable!() }
pub(crate) fn listen(_fd: RawDescriptor, _backlog: i32) -> i32 { unreachable!() }
pub(crate) fn set_option(_fd: RawDescriptor, _option: SocketOption) -> i32 { unreachable!() }
pub(crate) fn nodelay(_fd: RawDescriptor) -> Result<bool, i32> { unreachable!() }
pub(crate) fn ttl(_fd: RawDescriptor) -> Result<u32, i32> { unreachable!() }
pub(crate) fn linger(_fd: RawDescriptor) -> Result<Option<Duration>, i32> { unreachable!() }
pub(crate) fn local_addr(_fd: RawDescriptor) -> Result<SocketAddr, i32> { unreachable!() }
pub(crate) fn peer_addr(_fd: RawDescriptor) -> Result<SocketAddr, i32> { unreachable!() }
pub(crate) fn is_stream(_fd: RawDescriptor) -> bool { unreachable!() }
/// True when it had to be made so.
pub(crate) fn set_nonblocking(_fd: RawDescriptor) -> Result<bool, i32> { unreachable!() }
pub(crate) fn close(_fd: RawDescriptor) -> i32 { unreachable!() }

/// # Safety
/// As `recv(2)` with `MSG_DONTWAIT`: `ptr` is valid for writes of `len` bytes.
pub(crate) unsafe fn recv(_fd: RawDescriptor, _ptr: *mut u8, _len: usize) -> i32 { unreachable!() }
/// # Safety
/// As `send(2)` with `MSG_DONTWAIT | MSG_NOSIGNAL`: `ptr` is valid for reads of `len` bytes.
pub(crate) unsafe fn send(_fd: RawDescriptor, _ptr: *const u8, _len: usize) -> i32 { unreachable!() }
/// # Safety
/// As `recvmsg(2)`: the header and what it names are valid.
pub(crate) unsafe fn recvmsg(_fd: RawDescriptor, _header: *mut MessageHeader) -> i32 { unreachable!() }
/// # Safety
/// As `sendmsg(2)`.
pub(crate) unsafe fn sendmsg(_fd: RawDescriptor, _header: *const MessageHeader) -> i32 { unreachable!() }
/// # Safety
/// As `accept4(2)`: both pointers are null or valid.
pub(crate) unsafe fn accept(_fd: RawDescriptor, _address: *mut AddressStorage, _len: *mut AddressLength, _nonblocking: bool) -> i32 { unreachable!() }
/// # Safety
/// As `connect(2)`: `len` bytes of the address are valid.
pub(crate) unsafe fn connect(_fd: RawDescriptor, _address: *const AddressStorage, _len: AddressLength) -> i32 { unreachable!() }
pub(crate) fn shutdown(_fd: RawDescriptor, _how: i32) -> i32 { unreachable!() }
/// The events of `poll(2)` that are there, 0 for none.
pub(crate) fn poll(_fd: RawDescriptor, _events: i16) -> i32 { unreachable!() }

pub(crate) fn open(_path: &Path, _flags: OpenFlags) -> i32 { unreachable!() }
/// # Safety
/// `ptr` is valid for writes of `len` bytes.
pub(crate) unsafe fn pread(_fd: RawDescriptor, _ptr: *mut u8, _len: usize, _offset: u64) -> i32 { unreachable!() }
/// `preadv2` with `RWF_NOWAIT` for one part.
/// # Safety
/// As for [`pread`].
pub(crate) unsafe fn pread_cached(_fd: RawDescriptor, _ptr: *mut u8, _len: usize, _offset: u64) -> i32 { unreachable!() }
/// # Safety
/// `ptr` is valid for reads of `len` bytes.
pub(crate) unsafe fn pwrite(_fd: RawDescriptor, _ptr: *const u8, _len: usize, _offset: u64) -> i32 { unreachable!() }
pub(crate) fn fsync(_fd: RawDescriptor, _data_only: bool) -> i32 { unreachable!() }

pub(crate) fn eventfd() -> i32 { unreachable!() }
pub(crate) fn eventfd_write(_fd: RawDescriptor) -> i32 { unreachable!() }

pub(crate) fn epoll_create() -> i32 { unreachable!() }
pub(crate) fn epoll_ctl(_epoll: RawDescriptor, _what: i32, _fd: RawDescriptor, _events: u32, _data: u64) -> i32 { unreachable!() }
pub(crate) fn epoll_wait(_epoll: RawDescriptor, _events: &mut [libc::epoll_event], _timeout: Option<Duration>) -> i32 { unreachable!() }

/// `io_uring_setup`: the ring's descriptor, with the parameters filled in.
pub(crate) fn ring_setup(_entries: u32, _params: &mut io_uring_params) -> Result<RawDescriptor, Errno> { unreachable!() }
/// What `mmap` gives: the memory of both queues, and that of the submission entries. It lives as long as the
/// ring's descriptor is open.
pub(crate) fn ring_memory(_ring: RawDescriptor) -> Option<(*mut u8, *mut u8)> { unreachable!() }
/// # Safety
/// As `io_uring_enter`: every staged entry is whole, and what it names is valid until its last completion.
pub(crate) unsafe fn ring_enter(_ring: RawDescriptor, _submit: u32, _wait: u32, _getevents: bool, _timeout: Option<Duration>, _min_wait: u32) -> Result<u32, Errno> { unreachable!() }
/// # Safety
/// As `io_uring_register`.
pub(crate) unsafe fn ring_register(_ring: RawDescriptor, _op: IoringRegisterOp, _arg: *mut std::ffi::c_void, _count: u32) -> Result<u32, Errno> { unreachable!() }

/// Runs a job of the blocking pool in the world's order; gives it back outside of a world.
pub(crate) fn run_blocking(job: Box<dyn FnOnce() + Send>) -> Result<(), Box<dyn FnOnce() + Send>> { Err(job) }
/// The addresses of a name, from the world's table; none outside of a world.
pub(crate) fn resolve(_name: &str, _port: u16) -> Option<std::io::Result<Vec<SocketAddr>>> { None }
