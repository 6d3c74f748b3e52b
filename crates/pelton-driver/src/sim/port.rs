//! A simulated completion port, and the overlapped calls whose ends are packets there.
//!
//! # What is kept of the real one
//!
//! - How a call went is written into its `OVERLAPPED` when it ends, and its packet is taken later. What a packet says
//!   of that by itself is nowhere promised: here it always says that all is well.
//! - A call that succeeds at once posts a packet too, unless its file skips that. One that fails at once posts none.
//! - A cancel finds a call that has not ended. One that has, and whose packet is on its way, is not found.
//! - A poll of AFD ends once, with what is there of what it asks for. It asks below the port, for one socket.
//! - `AcceptEx` wants a socket that was nothing yet, and makes it the connection; `ConnectEx` wants one that is
//!   bound. Neither is a socket like any other before it has been told so: it has no peer and no directions.
//! - A file that is closed ends what is in flight on it. A socket is no handle to close.
//!
//! # What is chosen
//! Whether a call that could end at once says so; how late a packet comes, and behind how many others; how much is
//! received and sent; whether a cancel stops what a disk is doing; all the faults.

mod attempt;

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::fault::Fault;
use super::file::{File, FileId, Kind, Waiter};
use super::seal::Seal;
use super::state::{Event, MICRO, ProcId, State};
use super::stream::{Context, Phase};
use super::table::{OpKey, Table};
use super::words::time;
use crate::sys::RawDescriptor;

/// An overlapped call goes on (`ERROR_IO_PENDING`).
pub(crate) const PENDING: i32 = 997;

/// The key of the packets that wake.
pub(crate) const KEY_WAKE: usize = 1;

const STATUS_PENDING: usize = 0x103;
const CANCELLED: u32 = 0xC000_0120;
const BROKEN_PIPE: u32 = 0xC000_014B;
/// What a read says at once at the end of a pipe: no other error has this number.
pub(crate) const ENDED_PIPE: i32 = 1_109;
const PIPE_CLOSING: u32 = 0xC000_00B1;

/// Where the system keeps its word of a call, as Windows lays it out.
#[repr(C)]
pub(crate) struct Overlapped {
    pub(crate) status: usize,
    pub(crate) bytes: usize,
    pub(crate) offset: u32,
    pub(crate) offset_high: u32,
    pub(crate) event: usize,
}

/// What a poll of AFD asks and is answered, as Windows lays it out.
#[repr(C)]
pub(crate) struct AfdPoll {
    timeout: i64,
    handles: u32,
    exclusive: u32,
    handle: usize,
    pub(crate) events: u32,
    status: i32,
}

/// The events of such a poll.
pub(crate) mod afd {
    pub(crate) const RECEIVE: u32 = 0x01;
    pub(crate) const SEND: u32 = 0x04;
    pub(crate) const DISCONNECT: u32 = 0x08;
    pub(crate) const ABORT: u32 = 0x10;
    pub(crate) const LOCAL_CLOSE: u32 = 0x20;
    pub(crate) const ACCEPT: u32 = 0x80;
}

/// What an overlapped call is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Receive,
    Send,
    /// With a socket of its own, and where to say who the peer is.
    Accept(RawDescriptor, *mut Option<SocketAddr>),
    Connect(SocketAddr),
    Read(u64),
    Write(u64),
    Poll(*mut AfdPoll),
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Call::Receive => "a receive",
            Call::Send => "a send",
            Call::Accept(..) => "an accept",
            Call::Connect(_) => "a connect",
            Call::Read(_) => "a read",
            Call::Write(_) => "a write",
            Call::Poll(_) => "a poll",
        }
    }

    /// What it waits for, where it has to.
    fn events(self) -> i16 {
        match self {
            Call::Receive | Call::Accept(..) => libc::POLLIN,
            Call::Send | Call::Connect(_) => libc::POLLOUT,
            Call::Poll(_) => libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP,
            Call::Read(_) | Call::Write(_) => 0,
        }
    }

    fn fills(self) -> bool {
        matches!(self, Call::Receive | Call::Read(_))
    }
}

/// The port that a file's packets go to.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    port: FileId,
    key: usize,
    pub(super) skips: bool,
}

/// A packet, as it is taken from a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) key: usize,
    pub(crate) overlapped: *mut Overlapped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not ended.
    InFlight,
    /// Ended, with the packet on its way.
    Ended { status: u32, bytes: usize },
}

struct Request {
    call: Call,
    file: FileId,
    key: usize,
    overlapped: *mut Overlapped,
    parts: Vec<(*mut u8, usize)>,
    seal: Seal,
    done: usize,
    started: bool,
    stage: Stage,
}

enum Queued {
    Posted { key: usize, overlapped: *mut Overlapped },
    Of(OpKey),
}

pub(super) struct Port {
    queue: VecDeque<Queued>,
    requests: Table<Request>,
    proc: Option<ProcId>,
    number: u64,
}

impl Port {
    fn in_flight(&self) -> impl Iterator<Item = (OpKey, &Request)> {
        self.requests.iter().filter(|(_, request)| request.stage == Stage::InFlight)
    }

    pub(super) fn reactor(&self) -> Option<ProcId> {
        self.proc
    }

    /// What waits, by name, and on which file.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&'static str, FileId)> {
        self.in_flight().map(|(_, request)| (request.call.name(), request.file))
    }

    /// How many calls have not been told of.
    pub(super) fn left(&self) -> usize {
        self.requests.len()
    }
}

impl State {
    fn port(&mut self, id: FileId) -> Option<&mut Port> {
        match self.file_mut(id) {
            Some(File { kind: Kind::Port(port), .. }) => Some(port),
            _ => None,
        }
    }

    fn request(&mut self, id: FileId, key: OpKey) -> Option<&mut Request> {
        self.port(id)?.requests.get_mut(key)
    }

    pub(super) fn port_create(&mut self) -> FileId {
        let (number, proc) = (self.files.len() as u64, self.current_proc);
        let (queue, requests) = (VecDeque::new(), Table::new());
        let port = Port { queue, requests, proc, number };
        self.new_file(Kind::Port(Box::new(port)), false)
    }

    pub(super) fn port_closed(&mut self, port: Port) {
        // The driver has seen to it that nothing is in flight, or has left its memory behind.
        for (_, request) in port.requests.iter() {
            if request.stage == Stage::InFlight {
                let what = request.call.name();
                self.violation(format!("a port was closed with {what} in flight"));
            }
        }
    }

    /// Has the packets of a file come to a port, once: an association cannot be changed.
    pub(super) fn port_associate(&mut self, id: FileId, file: FileId, key: usize) -> i32 {
        if self.port(id).is_none() {
            return libc::EBADF;
        }
        match self.file_mut(file) {
            Some(File { kind: Kind::Port(_) | Kind::Ring(_) | Kind::Epoll(_), .. }) => libc::EINVAL,
            Some(file) if file.bound.is_some() => libc::EINVAL,
            Some(file) => {
                file.bound = Some(Bound { port: id, key, skips: false });
                0
            }
            None => libc::EBADF,
        }
    }

    // Calls.

    /// Makes an overlapped call: 0 where it has succeeded at once, [`PENDING`], or what is wrong.
    ///
    /// # Safety
    /// The `OVERLAPPED`, the parts and what the call names are valid, and nobody else touches them, until the packet
    /// has been taken; where there will be none, until this returns.
    pub(super) unsafe fn overlapped(
        &mut self,
        id: FileId,
        device: Option<FileId>,
        overlapped: *mut Overlapped,
        call: Call,
        mut parts: Vec<(*mut u8, usize)>,
    ) -> i32 {
        self.count_call();
        parts.retain(|part| part.1 > 0);
        let bound = self.file(device.unwrap_or(id)).and_then(|file| file.bound);
        let Some(bound) = bound else {
            let what = call.name();
            self.violation(format!("{what} on a file of no port: nobody would hear of its end"));
            return libc::EINVAL;
        };
        if let Err(error) = self.may_begin(id, call) {
            return error;
        }
        // SAFETY: by the caller.
        unsafe { (*overlapped).status = STATUS_PENDING };
        // SAFETY: by the caller.
        let seal = unsafe { Seal::put(&parts, call.fills(), overlapped.addr() as u64 >> 6) };
        let waits_behind = self.waits_behind(bound.port, id, call);
        let (key, file) = (bound.key, id);
        let (done, started, stage) = (0, false, Stage::InFlight);
        let request = Request { call, file, key, overlapped, parts, seal, done, started, stage };
        let Some(port) = self.port(bound.port) else { return libc::EBADF };
        let (number, key) = (port.number, port.requests.add(request));
        if matches!(call, Call::Read(_) | Call::Write(_)) {
            let more = self.choose("disk takes", number, 256) * MICRO;
            if more > 0 {
                let story = format!("took {} longer", time(more));
                self.tell_request("disk takes", number, bound.port, key, &story);
            }
            self.plan(20 * MICRO + more, Event::Request(bound.port, key));
            return PENDING;
        }
        let ended = if waits_behind { None } else { self.attempt_request(bound.port, key) };
        let Some((status, bytes)) = ended else {
            self.wait_for(id, Waiter::Request { port: bound.port, key, events: call.events() });
            return PENDING;
        };
        if self.choose("at once", number, 2) == 1 {
            self.tell_request("at once", number, bound.port, key, "said that it would be told of");
            self.end_request(bound.port, key, status, bytes);
            return PENDING;
        }
        if status == 0 && !bound.skips {
            self.end_request(bound.port, key, 0, bytes);
            return 0;
        }
        let Some(request) = self.port(bound.port).and_then(|port| port.requests.remove(key)) else {
            return libc::EIO;
        };
        // SAFETY: by the caller.
        unsafe { self.write_end(&request, status, bytes) };
        error_of(status)
    }

    /// What a call is refused for before anything has begun.
    fn may_begin(&mut self, id: FileId, call: Call) -> Result<(), i32> {
        match call {
            Call::Accept(socket, _) => {
                let Some(Kind::Listener(_)) = self.file(id).map(|file| &file.kind) else {
                    return Err(libc::EINVAL);
                };
                let fresh = self.of_fd(socket).ok_or(libc::ENOTSOCK)?;
                let stream = self.stream_mut(fresh).ok_or(libc::EINVAL)?;
                if stream.phase != Phase::Fresh || stream.context != Context::None {
                    return Err(libc::EINVAL);
                }
                stream.context = Context::Used;
                Ok(())
            }
            Call::Connect(_) => match self.stream(id) {
                None => Err(libc::EINVAL),
                Some(stream) if stream.phase == Phase::Connected => Err(libc::EISCONN),
                Some(stream) if stream.local.is_none() => Err(libc::EINVAL),
                Some(_) => Ok(()),
            },
            Call::Poll(_) => {
                let doubled = |state: &State| {
                    let waiters = &state.file(id)?.waiters;
                    let is_poll = |waiter: &&Waiter| match **waiter {
                        Waiter::Request { port, key, .. } => state.is_poll(port, key),
                        _ => false,
                    };
                    waiters.iter().find(is_poll).map(|_| state.file_name(id))
                };
                if let Some(name) = doubled(self) {
                    self.violation(format!("two polls of {name} at once"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn is_poll(&self, port: FileId, key: OpKey) -> bool {
        let Some(File { kind: Kind::Port(port), .. }) = self.file(port) else { return false };
        port.requests.get(key).is_some_and(|request| matches!(request.call, Call::Poll(_)))
    }

    /// Whether older calls of its direction wait on the same file: they come first.
    fn waits_behind(&mut self, port: FileId, id: FileId, call: Call) -> bool {
        let same = std::mem::discriminant(&call);
        self.port(port).is_some_and(|port| {
            let mut older = port.in_flight().map(|(_, request)| request);
            !matches!(call, Call::Poll(_))
                && older
                    .any(|other| other.file == id && std::mem::discriminant(&other.call) == same)
        })
    }

    /// The file of a call that waits for it has changed.
    pub(super) fn request_woken(&mut self, id: FileId, key: OpKey) {
        let Some(request) = self.request(id, key) else { return };
        let (file, events) = (request.file, request.call.events());
        match self.attempt_request(id, key) {
            Some((status, bytes)) => self.end_request(id, key, status, bytes),
            None => self.wait_for(file, Waiter::Request { port: id, key, events }),
        }
    }

    /// The disk has done what it was to do, or a late packet comes.
    pub(super) fn request_goes_on(&mut self, id: FileId, key: OpKey) {
        let Some(request) = self.request(id, key) else { return };
        if request.stage != Stage::InFlight {
            return self.queue_packet(id, key);
        }
        if let Some((status, bytes)) = self.attempt_request(id, key) {
            self.end_request(id, key, status, bytes);
        }
    }

    /// The file of a call has been closed.
    pub(super) fn request_closed(&mut self, id: FileId, key: OpKey) {
        let Some(request) = self.request(id, key) else { return };
        let done = request.done;
        if let Call::Poll(info) = request.call {
            // SAFETY: the poll's until its packet has been taken.
            unsafe { (*info).events = afd::LOCAL_CLOSE };
            return self.end_request(id, key, 0, 0);
        }
        self.end_request(id, key, CANCELLED, done);
    }

    // Cancelling.

    /// Asks for the end of calls on a file: of one, or of all. False where none is found.
    pub(super) fn cancel_overlapped(
        &mut self,
        file: FileId,
        which: Option<*const Overlapped>,
    ) -> bool {
        self.count_call();
        let Some(bound) = self.file(file).and_then(|file| file.bound) else { return false };
        let is_it = |request: &Request| {
            request.file == file
                && which.is_none_or(|which| std::ptr::eq(request.overlapped, which))
        };
        self.cancel_where(bound.port, is_it)
    }

    /// The same for a poll, which is in flight on the device.
    pub(super) fn cancel_poll(&mut self, device: FileId, which: *const Overlapped) -> bool {
        self.count_call();
        let Some(bound) = self.file(device).and_then(|file| file.bound) else { return false };
        self.cancel_where(bound.port, |request| std::ptr::eq(request.overlapped, which))
    }

    fn cancel_where(&mut self, id: FileId, is_it: impl Fn(&Request) -> bool) -> bool {
        let Some(port) = self.port(id) else { return false };
        let number = port.number;
        let found: Vec<OpKey> =
            port.in_flight().filter(|(_, request)| is_it(request)).map(|(key, _)| key).collect();
        let mut any = false;
        for key in found {
            let Some(request) = self.request(id, key) else { continue };
            let (file, done) = (request.file, request.done);
            let on_disk = matches!(request.call, Call::Read(_) | Call::Write(_));
            if on_disk && self.choose("cancel race", number, 2) == 1 {
                self.tell_request("cancel race", number, id, key, "was cancelled too late");
                continue;
            }
            if matches!(self.request(id, key).map(|request| request.call), Some(Call::Connect(_)))
                && let Some(stream) = self.stream_mut(file)
            {
                stream.mute();
            }
            self.waits_no_more(file, id, key);
            self.end_request(id, key, CANCELLED, done);
            any = true;
        }
        any
    }

    fn waits_no_more(&mut self, file: FileId, id: FileId, request: OpKey) {
        if let Some(file) = self.file_mut(file) {
            file.waiters.retain(|waiter| {
                !matches!(waiter, Waiter::Request { port, key, .. } if (*port, *key) == (id, request))
            });
        }
    }

    // Ends.

    /// Writes down how a call went.
    ///
    /// # Safety
    /// It is not over yet: its memory is the system's.
    unsafe fn write_end(&mut self, request: &Request, status: u32, bytes: usize) {
        let what = request.call.name();
        let written = if request.call.fills() { bytes } else { 0 };
        // SAFETY: by the caller.
        if let Err(how) = unsafe { request.seal.check(&request.parts, written) } {
            self.violation(format!("{what}: {how} while the kernel held it"));
        }
        // SAFETY: by the caller.
        let place = unsafe { &mut *request.overlapped };
        if place.status != STATUS_PENDING {
            self.violation(format!(
                "the `OVERLAPPED` of {what} was changed while it was in flight"
            ));
        }
        place.status = status as usize;
        place.bytes = bytes;
    }

    /// A call has ended, and its packet is on its way.
    fn end_request(&mut self, id: FileId, key: OpKey, status: u32, bytes: usize) {
        let Some(port) = self.port(id) else { return };
        let number = port.number;
        let Some(request) = port.requests.get_mut(key) else { return };
        request.stage = Stage::Ended { status, bytes };
        let seal = std::mem::replace(&mut request.seal, Seal::none());
        let parts = std::mem::take(&mut request.parts);
        let (call, file, overlapped) = (request.call, request.file, request.overlapped);
        let stage = Stage::InFlight;
        let ended =
            Request { call, file, key: 0, overlapped, parts, seal, done: 0, started: false, stage };
        // SAFETY: in flight until now.
        unsafe { self.write_end(&ended, status, bytes) };
        if let Some(request) = self.request(id, key) {
            request.parts = ended.parts;
        }
        let late = if self.fault(Fault::LateCompletion, number, String::new) {
            1 + self.choose("late-completion by", number, 2000)
        } else {
            self.choose("packet takes", number, 4)
        };
        if late > 0 {
            let label = if late > 3 { Fault::LateCompletion.name() } else { "packet takes" };
            let story = format!("ended, and was told of {} later", time(late * MICRO));
            self.tell_request(label, number, id, key, &story);
            return self.plan(late * MICRO, Event::Request(id, key));
        }
        self.queue_packet(id, key);
    }

    fn queue_packet(&mut self, id: FileId, key: OpKey) {
        let Some(port) = self.port(id) else { return };
        let (number, len) = (port.number, port.queue.len() as u64);
        let ahead = if len == 0 { 0 } else { self.choose("overtakes", number, len.min(8) + 1) };
        if ahead > 0 {
            let story = format!("was told of before {ahead} others");
            self.tell_request("overtakes", number, id, key, &story);
        }
        if let Some(port) = self.port(id) {
            port.queue.insert((len - ahead) as usize, Queued::Of(key));
        }
        self.port_changed(id);
    }

    /// Posts a packet of no call.
    pub(super) fn port_post(&mut self, id: FileId, key: usize, overlapped: *mut Overlapped) {
        if let Some(port) = self.port(id) {
            port.queue.push_back(Queued::Posted { key, overlapped });
            self.port_changed(id);
        }
    }

    fn port_changed(&mut self, id: FileId) {
        if let Some(proc) = self.port(id).and_then(|port| port.proc)
            && self.procs[proc.0 as usize].waiting.is_some()
        {
            self.make_runnable(proc);
        }
    }

    /// Takes packets, as many as are there, at most `most`.
    pub(super) fn port_take(&mut self, id: FileId, most: usize) -> Vec<Packet> {
        self.count_call();
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(queued) = self.port(id).and_then(|port| port.queue.pop_front())
        {
            let key = match queued {
                Queued::Posted { key, overlapped } => {
                    taken.push(Packet { key, overlapped });
                    continue;
                }
                Queued::Of(key) => key,
            };
            let Some(request) = self.port(id).and_then(|port| port.requests.remove(key)) else {
                continue;
            };
            let Stage::Ended { status, bytes } = request.stage else { continue };
            // SAFETY: its packet is taken here: until now all of it is the system's.
            let place = unsafe { &*request.overlapped };
            if (place.status, place.bytes) != (status as usize, bytes) {
                let what = request.call.name();
                self.violation(format!(
                    "the `OVERLAPPED` of {what} was changed before its packet was taken"
                ));
            }
            self.choices.note(u64::from(status) << 32 | bytes as u64);
            let (key, overlapped) = (request.key, request.overlapped);
            taken.push(Packet { key, overlapped });
        }
        taken
    }

    pub(super) fn port_waits(&mut self, id: FileId, timeout: Option<u64>) {
        if let Some(proc) = self.port(id).and_then(|port| port.proc) {
            self.begin_wait(proc, timeout);
        }
    }

    pub(super) fn port_number(&mut self, id: FileId) -> u64 {
        self.port(id).map_or(0, |port| port.number)
    }

    // Telling.

    fn tell_request(&mut self, label: &'static str, who: u64, id: FileId, key: OpKey, story: &str) {
        let request = self.request(id, key).map(|request| (request.call.name(), request.file));
        let Some((what, file)) = request else { return };
        self.tell(label, who, |state| {
            let (reactor, name) = (state.reactor_of(id), state.file_name(file));
            format!("{what} of {reactor} on {name} {story}")
        });
    }
}

/// What a call says that has ended at once.
fn error_of(status: u32) -> i32 {
    STATUSES.iter().find(|known| known.1 == status).map_or(libc::EINVAL, |known| known.0)
}

/// How the kernel says in a status what `errno` calls it.
fn status_of(errno: i32) -> u32 {
    STATUSES.iter().find(|known| known.0 == errno).map_or(0xC000_000D, |known| known.1)
}

const STATUSES: &[(i32, u32)] = &[
    (0, 0),
    (libc::ECANCELED, CANCELLED),
    (libc::EBADF, 0xC000_0008),
    (libc::ENOTSOCK, 0xC000_0024),
    (libc::ENOMEM, 0xC000_009A),
    (libc::ENOBUFS, 0xC000_009A),
    (libc::EMFILE, 0xC000_009A),
    (libc::ENFILE, 0xC000_009A),
    (libc::ETIMEDOUT, 0xC000_00B5),
    (libc::ECONNRESET, 0xC000_020D),
    (libc::ECONNABORTED, 0xC000_0241),
    (libc::ENETUNREACH, 0xC000_023C),
    (libc::EHOSTUNREACH, 0xC000_023D),
    (libc::ENOTCONN, 0xC000_0140),
    (libc::ECONNREFUSED, 0xC000_0236),
    (libc::EPIPE, 0xC000_00B0),
    (libc::EPIPE, PIPE_CLOSING),
    (ENDED_PIPE, BROKEN_PIPE),
    (libc::ENOSPC, 0xC000_007F),
    (libc::EIO, 0xC000_0185),
    (libc::EACCES, 0xC000_0022),
    (libc::EFBIG, 0xC000_0904),
];
