//! The calls of the simulated system, as the rooms make them: by number, without waiting, with results as
//! completions carry them (0 and more, or a negated `errno`).
//!
//! They work on the world of this thread; without one every call answers `EBADF`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::datagram::Datagram;
use super::fault::Fault;
use super::file::{File, FileId, Kind};
use super::state::State;
use super::stream::{Context, Options, Phase, Stream};
use super::world::{World, WorldOptions, enter_for_good};
use crate::sys::{AddressLength, AddressStorage, MessageHeader, Part, RawDescriptor};

mod waits;

pub(crate) use waits::{
    epoll_create, epoll_ctl, epoll_wait, ring_enter, ring_memory, ring_register, ring_setup,
};

/// Descriptors of a simulated system have numbers from here on: more than any real system gives out.
pub(crate) const FIRST: RawDescriptor = 1 << 30;

/// True for the number of a descriptor of a simulated system.
#[inline(always)]
pub(crate) fn owns(raw: RawDescriptor) -> bool {
    raw >= FIRST
}

/// How a socket is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketKind {
    Stream,
    Datagram,
}

/// Options of a simulated socket, remembered and told again; linger zero resets at the close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketOption {
    NoDelay(bool),
    Ttl(u32),
    Linger(Option<Duration>),
    ReuseAddress(bool),
    ReusePort(bool),
}

/// What a descriptor is to a system that tells sockets from files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(pelton_iocp_elsewhere), allow(dead_code))]
pub(crate) enum RawFile {
    Socket,
    Disk,
    Pipe,
    Other,
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

/// The seed of the world that is entered where a driver asks for the simulator and no test has made one.
const SEED_VARIABLE: &str = "PELTON_SIM_SEED";

pub(super) fn here<R>(f: impl FnOnce(&mut State) -> R) -> Option<R> {
    World::current().map(|world| world.with(f))
}

pub(super) fn call(f: impl FnOnce(&mut State) -> i32) -> i32 {
    here(f).unwrap_or(-libc::EBADF)
}

pub(super) fn on_file(fd: RawDescriptor, f: impl FnOnce(&mut State, FileId) -> i32) -> i32 {
    call(|state| {
        state.count_call();
        match state.of_fd(fd) {
            Some(file) => f(state, file),
            None => -libc::EBADF,
        }
    })
}

// The world itself.

/// True when this thread is in a world.
pub(crate) fn in_world() -> bool {
    World::current().is_some()
}

/// Enters a world for good, where this thread is in none.
pub(crate) fn enter_default() {
    let seed = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    enter_for_good(&WorldOptions::new(seed));
}

/// True when a driver that may choose is to run on readiness, not on a ring.
pub(crate) fn prefers_readiness() -> bool {
    here(|state| {
        let who = state.current_host.0.into();
        let host = state.current_host;
        let name = state.host_name(host).to_owned();
        state.choose_told("readiness", who, 2, |_| format!("{name} ran on epoll")) == 1
    })
    .unwrap_or(false)
}

/// True when drivers are to run on completion ports.
pub(crate) fn prefers_ports() -> bool {
    here(|state| state.has_ports).unwrap_or(false)
}

/// The world's clock, as an instant; none outside of a world.
pub(crate) fn now() -> Option<Instant> {
    here(State::instant)
}

/// The wall clock of the current host; none outside of a world.
pub(crate) fn wall() -> Option<SystemTime> {
    here(State::wall)
}

/// Deterministic random words for whoever asks (hash seeds, ids); none outside of a world.
pub(crate) fn random() -> Option<u64> {
    here(State::random)
}

/// Runs a job of the blocking pool in the world's order; gives it back outside of a world.
pub(crate) fn run_blocking(job: Box<dyn FnOnce() + Send>) -> Result<(), Box<dyn FnOnce() + Send>> {
    match World::current() {
        Some(world) => {
            world.with(|state| state.add_job(job));
            Ok(())
        }
        None => Err(job),
    }
}

/// The addresses of a name, from the world's table; none outside of a world.
pub(crate) fn resolve(name: &str, port: u16) -> Option<std::io::Result<Vec<SocketAddr>>> {
    // An address that is written out needs no resolver.
    let literal = name.parse::<IpAddr>().ok();
    here(|state| match state.names.get(name) {
        _ if literal.is_some() => {
            Ok(literal.map(|ip| SocketAddr::new(ip, port)).into_iter().collect())
        }
        Some(addresses) => {
            let own = state.current_host;
            let local = |ip: &IpAddr| state.route(own, *ip) == Some(own) && name == "localhost";
            let loopback = IpAddr::from([127, 0, 0, 1]);
            let ip = |ip: &IpAddr| if local(ip) { loopback } else { *ip };
            Ok(addresses.iter().map(|address| SocketAddr::new(ip(address), port)).collect())
        }
        None => Err(std::io::Error::new(
            std::io::ErrorKind::NotFound,
            format!(
                "no host is named {name:?} in the simulation; there are {} (others can be added with `add_name`)",
                state.names.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
            ),
        )),
    })
}

// Sockets.

pub(crate) use super::message::{Wants, datagram_wants, receive_message, set_datagram_option};
pub(crate) use super::pipe::{pipe, read, write};

pub(crate) fn socket(v6: bool, kind: SocketKind, nonblocking: bool) -> i32 {
    call(|state| {
        let host = state.current_host;
        let kind = match kind {
            SocketKind::Stream => Kind::Stream(Box::new(Stream::new(host, false))),
            SocketKind::Datagram => Kind::Datagram(Datagram::new(v6)),
        };
        let file = state.new_file(kind, nonblocking);
        state.try_new_fd(file)
    })
}

pub(crate) fn socketpair(nonblocking: bool) -> Result<(RawDescriptor, RawDescriptor), i32> {
    here(|state| {
        let (one, other) = state.stream_pair(nonblocking);
        (state.new_fd(one), state.new_fd(other))
    })
    .ok_or(-libc::EBADF)
}

pub(crate) fn bind(fd: RawDescriptor, address: SocketAddr) -> i32 {
    on_file(fd, |state, file| state.bind(file, address))
}

pub(crate) fn listen(fd: RawDescriptor, backlog: i32) -> i32 {
    on_file(fd, |state, file| state.listen(file, backlog))
}

fn options<R>(fd: RawDescriptor, f: impl FnOnce(&mut Options) -> R) -> Result<R, i32> {
    here(|state| {
        let file = state.of_fd(fd).ok_or(-libc::EBADF)?;
        match state.file_mut(file).map(|file| &mut file.kind) {
            Some(Kind::Stream(stream)) => Ok(f(&mut stream.options)),
            Some(Kind::Listener(listener)) => Ok(f(&mut listener.options)),
            Some(Kind::Datagram(datagram)) => Ok(f(&mut datagram.options)),
            Some(_) => Err(-libc::ENOTSOCK),
            None => Err(-libc::EBADF),
        }
    })
    .unwrap_or(Err(-libc::EBADF))
}

pub(crate) fn set_option(fd: RawDescriptor, option: SocketOption) -> i32 {
    // What a pair of Unix sockets does not have, and what is no hop limit.
    match option {
        SocketOption::NoDelay(_) | SocketOption::Ttl(_) if is_unix(fd) => return -libc::EOPNOTSUPP,
        SocketOption::Ttl(ttl) if !(1..=255).contains(&ttl) => return -libc::EINVAL,
        _ => {}
    }
    if let Some(error) = refused(fd, "an option was to be set") {
        return error;
    }
    let set = options(fd, |options| match option {
        SocketOption::NoDelay(nodelay) => options.nodelay = nodelay,
        SocketOption::Ttl(ttl) => options.ttl = Some(ttl),
        SocketOption::Linger(linger) => options.linger = linger,
        SocketOption::ReuseAddress(reuse) => options.reuse_address = reuse,
        SocketOption::ReusePort(reuse) => options.reuse_port = reuse,
    });
    set.err().unwrap_or(0)
}

/// What a call on a socket fails with, where it is to.
fn refused(fd: RawDescriptor, when: &str) -> Option<i32> {
    let refuses = here(|state| {
        let tell = || format!("the system had no memory when {when} of descriptor {fd}");
        state.fault(Fault::SocketCall, fd as u64, tell)
    });
    (refuses == Some(true)).then_some(-libc::ENOBUFS)
}

fn is_unix(fd: RawDescriptor) -> bool {
    let is = |state: &mut State| Some(state.stream(state.of_fd(fd)?)?.unix);
    here(is).flatten().unwrap_or(false)
}

pub(crate) fn nodelay(fd: RawDescriptor) -> Result<bool, i32> {
    options(fd, |options| options.nodelay)
}

pub(crate) fn ttl(fd: RawDescriptor) -> Result<u32, i32> {
    options(fd, |options| options.ttl.unwrap_or(64))
}

pub(crate) fn linger(fd: RawDescriptor) -> Result<Option<Duration>, i32> {
    options(fd, |options| options.linger)
}

fn addresses(
    fd: RawDescriptor,
    of: impl FnOnce(&Kind) -> Result<Option<SocketAddr>, i32>,
) -> Result<SocketAddr, i32> {
    if let Some(error) = refused(fd, "an address was asked for") {
        return Err(error);
    }
    here(|state| {
        let file = state.of_fd(fd).ok_or(-libc::EBADF)?;
        let kind = state.file(file).map(|file| &file.kind).ok_or(-libc::EBADF)?;
        let v4 = SocketAddr::from(([0, 0, 0, 0], 0));
        of(kind).map(|address| address.unwrap_or(v4))
    })
    .unwrap_or(Err(-libc::EBADF))
}

pub(crate) fn local_addr(fd: RawDescriptor) -> Result<SocketAddr, i32> {
    addresses(fd, |kind| match kind {
        Kind::Stream(stream) if stream.unix => Err(-libc::EAFNOSUPPORT),
        Kind::Stream(stream) => Ok(stream.local),
        Kind::Listener(listener) if listener.name.is_some() => Err(-libc::EAFNOSUPPORT),
        Kind::Listener(listener) => Ok(Some(listener.address)),
        Kind::Datagram(datagram) => Ok(datagram.local),
        _ => Err(-libc::ENOTSOCK),
    })
}

pub(crate) fn peer_addr(fd: RawDescriptor) -> Result<SocketAddr, i32> {
    addresses(fd, |kind| match kind {
        Kind::Stream(stream) if stream.unix => Err(-libc::EAFNOSUPPORT),
        Kind::Stream(stream) if stream.context == Context::Missing => Err(-libc::ENOTCONN),
        Kind::Stream(stream) if stream.phase == Phase::Connected => Ok(stream.remote),
        Kind::Datagram(Datagram { remote: Some(remote), .. }) => Ok(Some(*remote)),
        Kind::Stream(_) | Kind::Listener(_) | Kind::Datagram(_) => Err(-libc::ENOTCONN),
        _ => Err(-libc::ENOTSOCK),
    })
}

pub(crate) fn is_stream(fd: RawDescriptor) -> bool {
    let is = |state: &mut State| {
        let file = state.of_fd(fd)?;
        Some(matches!(state.file(file)?.kind, Kind::Stream(_) | Kind::Listener(_)))
    };
    here(is).flatten().unwrap_or(false)
}

/// True when it had to be made so.
pub(crate) fn set_nonblocking(fd: RawDescriptor) -> Result<bool, i32> {
    here(|state| {
        let file = state.of_fd(fd).ok_or(-libc::EBADF)?;
        let file = state.file_mut(file).ok_or(-libc::EBADF)?;
        Ok(!std::mem::replace(&mut file.nonblocking, true))
    })
    .unwrap_or(Err(-libc::EBADF))
}

pub(crate) fn close(fd: RawDescriptor) -> i32 {
    if !is_here(fd) && World::current().is_none() {
        // Dropped on a thread that is not the world's, as real ones may be.
        super::world::remote_call(fd, true);
        return 0;
    }
    call(|state| {
        state.count_call();
        state.close_fd(fd)
    })
}

/// The faults of a call that is tried on a descriptor directly.
pub(super) fn tried(fd: RawDescriptor, f: impl FnOnce(&mut State, FileId) -> i32) -> i32 {
    on_file(fd, |state, file| {
        let who = file.index.into();
        if state.fault(Fault::Interrupted, who, String::new) {
            state.tell(Fault::Interrupted.name(), who, |state| {
                format!("a call on {} was interrupted", state.file_name(file))
            });
            return -libc::EINTR;
        }
        f(state, file)
    })
}

/// # Safety
/// As `recv(2)` with `MSG_DONTWAIT`: `ptr` is valid for writes of `len` bytes.
pub(crate) unsafe fn recv(fd: RawDescriptor, ptr: *mut u8, len: usize) -> i32 {
    tried(fd, |state, file| match state.receive(file, len) {
        Ok(bytes) => {
            // SAFETY: no more than `len` bytes, which the caller has room for.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), ptr, bytes.len()) };
            bytes.len() as i32
        }
        Err(error) => error,
    })
}

/// # Safety
/// As `send(2)` with `MSG_DONTWAIT | MSG_NOSIGNAL`: `ptr` is valid for reads of `len` bytes.
pub(crate) unsafe fn send(fd: RawDescriptor, ptr: *const u8, len: usize) -> i32 {
    tried(fd, |state, file| match state.may_send(file, len) {
        Ok(n) => {
            // SAFETY: `n <= len`, by the caller; not null where it is not zero.
            let bytes = if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(ptr, n) } };
            state.send_taken(file, bytes.to_vec());
            n as i32
        }
        Err(error) => error,
    })
}

/// # Safety
/// The header and its parts are valid.
#[allow(clippy::unnecessary_cast)] // With other C libraries the number has another type.
pub(super) unsafe fn parts<'a>(header: *const MessageHeader) -> &'a [Part] {
    // SAFETY: by the caller.
    unsafe {
        let (parts, len) = ((*header).msg_iov, (*header).msg_iovlen);
        if len == 0 { &[] } else { std::slice::from_raw_parts(parts, len) }
    }
}

/// # Safety
/// As `recvmsg(2)`: the header and what it names are valid.
pub(crate) unsafe fn recvmsg(fd: RawDescriptor, header: *mut MessageHeader) -> i32 {
    // SAFETY: by the caller.
    let parts = unsafe { parts(header) };
    let len = parts.iter().map(|part| part.iov_len).sum();
    tried(fd, |state, file| match state.receive(file, len) {
        Ok(bytes) => {
            let mut rest = &bytes[..];
            for part in parts {
                let (now, later) = rest.split_at(rest.len().min(part.iov_len));
                // SAFETY: the part has room for it, by the caller.
                unsafe {
                    std::ptr::copy_nonoverlapping(now.as_ptr(), part.iov_base.cast(), now.len());
                }
                rest = later;
            }
            bytes.len() as i32
        }
        Err(error) => error,
    })
}

/// # Safety
/// As `sendmsg(2)`.
pub(crate) unsafe fn sendmsg(fd: RawDescriptor, header: *const MessageHeader) -> i32 {
    // SAFETY: by the caller.
    let parts = unsafe { parts(header) };
    let len = parts.iter().map(|part| part.iov_len).sum();
    let taken = |n: usize| {
        let mut bytes = Vec::with_capacity(n);
        for part in parts {
            let here = part.iov_len.min(n - bytes.len());
            if here > 0 {
                let start = part.iov_base.cast::<u8>();
                // SAFETY: by the caller the part is valid for reads, and this is inside of it.
                bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(start, here) });
            }
        }
        bytes
    };
    tried(fd, |state, file| {
        if state.datagram(file).is_some() {
            // SAFETY: by the caller.
            let sent = unsafe { state.send_message(file, header, taken(len)) };
            return sent.unwrap_or(-libc::EBADF);
        }
        match state.may_send(file, len) {
            Ok(n) => {
                state.send_taken(file, taken(n));
                n as i32
            }
            Err(error) => error,
        }
    })
}

/// # Safety
/// As `accept4(2)`: both pointers are null or valid.
pub(crate) unsafe fn accept(
    fd: RawDescriptor,
    address: *mut AddressStorage,
    len: *mut AddressLength,
    nonblocking: bool,
) -> i32 {
    tried(fd, |state, file| match state.accept(file) {
        Ok((taken, peer)) => {
            let fd = state.new_fd(taken);
            // The queue's hold.
            state.let_go(taken);
            if let Some(taken) = state.file_mut(taken) {
                taken.nonblocking = nonblocking;
            }
            if !address.is_null()
                && let Some(peer) = peer
            {
                // SAFETY: by the caller.
                unsafe { *len = crate::sys::write_address(&peer, address) };
            } else if !len.is_null() {
                // SAFETY: by the caller.
                unsafe { *len = 0 };
            }
            fd
        }
        Err(error) => error,
    })
}

/// # Safety
/// As `connect(2)`: `len` bytes of the address are valid.
pub(crate) unsafe fn connect(
    fd: RawDescriptor,
    address: *const AddressStorage,
    len: AddressLength,
) -> i32 {
    // SAFETY: by the caller.
    on_file(fd, |state, file| unsafe { state.connect_to(file, address, len) })
}

pub(crate) fn shutdown(fd: RawDescriptor, how: i32) -> i32 {
    on_file(fd, |state, file| state.shutdown(file, how))
}

/// The events of `poll(2)` that are there, 0 for none.
pub(crate) fn poll(fd: RawDescriptor, events: i16) -> i32 {
    let always = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
    on_file(fd, |state, file| i32::from(state.ready(file) & (events | always)))
}

// Files.

pub(crate) fn open(path: &Path, flags: OpenFlags) -> i32 {
    call(|state| state.open(path, flags))
}

/// # Safety
/// `ptr` is valid for writes of `len` bytes.
pub(crate) unsafe fn pread(fd: RawDescriptor, ptr: *mut u8, len: usize, offset: u64) -> i32 {
    on_file(fd, |state, file| match state.read_file(file, len, offset) {
        Ok(bytes) => {
            // SAFETY: no more than `len` bytes, which the caller has room for.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), ptr, bytes.len()) };
            bytes.len() as i32
        }
        Err(error) => error,
    })
}

pub(crate) fn is_file(fd: RawDescriptor) -> bool {
    on_file(fd, |state, id| matches!(state.file(id), Some(File { kind: Kind::Disk(_), .. })).into())
        == 1
}

/// `preadv2` with `RWF_NOWAIT` for one part.
///
/// # Safety
/// As for [`pread`].
pub(crate) unsafe fn pread_cached(fd: RawDescriptor, ptr: *mut u8, len: usize, offset: u64) -> i32 {
    let cached = on_file(fd, |state, id| match state.file(id) {
        Some(File { kind: Kind::Disk(_), .. }) => {
            let missing = state.choose("not cached", id.index.into(), 2);
            if missing == 1 {
                state.tell("not cached", id.index.into(), |state| {
                    format!("a read of {} was not in the page cache", state.file_name(id))
                });
            }
            missing as i32
        }
        _ => -libc::EOPNOTSUPP,
    });
    match cached {
        // SAFETY: by the caller.
        0 => unsafe { pread(fd, ptr, len, offset) },
        1 => -libc::EAGAIN,
        error => error,
    }
}

/// # Safety
/// `ptr` is valid for reads of `len` bytes.
pub(crate) unsafe fn pwrite(fd: RawDescriptor, ptr: *const u8, len: usize, offset: u64) -> i32 {
    // SAFETY: by the caller; not null where it is not zero.
    let bytes = if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(ptr, len) } };
    on_file(fd, |state, file| state.write_file(file, bytes, offset))
}

pub(crate) fn fsync(fd: RawDescriptor, _data_only: bool) -> i32 {
    on_file(fd, State::sync_file)
}

// Wakes.

pub(crate) fn eventfd() -> i32 {
    call(|state| {
        let of = state.current_proc;
        let file = state.new_file(Kind::Event { count: 0, of }, true);
        state.driver_fd(file, "a wake source")
    })
}

pub(crate) fn eventfd_write(fd: RawDescriptor) -> i32 {
    call(|state| state.event_write(fd))
}

/// Wakes a driver of a world from a thread that is not the world's.
pub(crate) fn remote_wake(fd: RawDescriptor) {
    super::world::remote_call(fd, false);
}

/// True when the descriptor is one of this thread's world.
pub(crate) fn is_here(fd: RawDescriptor) -> bool {
    here(|state| state.of_fd(fd).is_some()).unwrap_or(false)
}
