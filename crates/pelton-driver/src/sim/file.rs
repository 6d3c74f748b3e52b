//! Open files of a world: what a descriptor names, who else holds it, and who waits for it.
//!
//! A file is destroyed when nothing holds it any more: no descriptor, and no operation in flight. So closing
//! a descriptor ends nothing by itself, as with a real kernel, and its number is given out again at once, the
//! lowest free one first.

use super::calls::FIRST;
use super::datagram::Datagram;
use super::disk::DiskFile;
use super::epoll::Epoll;
use super::fault::Fault;
use super::pipe::Pipe;
use super::port::{Bound, Port};
use super::ring::Ring;
use super::state::{HostId, ProcId, State};
use super::stream::{Listener, Stream};
use super::table::OpKey;
use crate::sys::RawDescriptor;

/// Numbers below this within a world: so many descriptors can it have at once.
const PER_WORLD: i32 = 1 << 16;

/// An open file, by place and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

pub(super) struct FileSlot {
    pub(super) generation: u32,
    pub(super) file: Option<File>,
}

pub(super) struct File {
    pub(super) kind: Kind,
    pub(super) host: HostId,
    /// Descriptors and operations in flight that hold it.
    pub(super) holders: u32,
    pub(super) nonblocking: bool,
    pub(super) waiters: Vec<Waiter>,
    /// Where the packets of its overlapped calls go.
    pub(super) bound: Option<Bound>,
}

pub(super) enum Kind {
    Stream(Box<Stream>),
    Listener(Listener),
    Datagram(Datagram),
    Disk(DiskFile),
    Pipe(Pipe),
    /// An event descriptor: its count, and the reactor that it wakes.
    Event {
        count: u64,
        of: Option<ProcId>,
    },
    Epoll(Epoll),
    Ring(Box<Ring>),
    #[cfg_attr(not(pelton_iocp_elsewhere), allow(dead_code))]
    Port(Box<Port>),
    /// The device through which sockets are polled.
    #[cfg_attr(not(pelton_iocp_elsewhere), allow(dead_code))]
    Device,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// An operation in flight, once.
    Op { ring: FileId, op: OpKey, events: i16 },
    /// A registration, until it is removed.
    Item { epoll: FileId, fd: RawDescriptor },
    /// An overlapped call in flight, once.
    #[cfg_attr(not(pelton_iocp_elsewhere), allow(dead_code))]
    Request { port: FileId, key: OpKey, events: i16 },
}

impl State {
    pub(super) fn new_file(&mut self, kind: Kind, nonblocking: bool) -> FileId {
        let host = self.current_host;
        self.new_file_on(host, kind, nonblocking)
    }

    pub(super) fn new_file_on(&mut self, host: HostId, kind: Kind, nonblocking: bool) -> FileId {
        let index = self.free_files.pop().unwrap_or_else(|| {
            self.files.push(FileSlot { generation: 1, file: None });
            self.files.len() as u32 - 1
        });
        let slot = &mut self.files[index as usize];
        let (waiters, bound) = (Vec::new(), None);
        slot.file = Some(File { kind, host, holders: 0, nonblocking, waiters, bound });
        FileId { index, generation: slot.generation }
    }

    pub(super) fn file(&self, id: FileId) -> Option<&File> {
        let slot = self.files.get(id.index as usize)?;
        if slot.generation == id.generation { slot.file.as_ref() } else { None }
    }

    pub(super) fn file_mut(&mut self, id: FileId) -> Option<&mut File> {
        let slot = self.files.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.file.as_mut() } else { None }
    }

    /// The file of a descriptor of this world.
    pub(super) fn of_fd(&self, fd: RawDescriptor) -> Option<FileId> {
        let number = fd.checked_sub(FIRST)?;
        if number < 0 || (number / PER_WORLD) as u32 != self.id {
            return None;
        }
        *self.fds.get((number % PER_WORLD) as usize)?
    }

    /// Gives a file a descriptor: the lowest free number.
    pub(super) fn new_fd(&mut self, file: FileId) -> RawDescriptor {
        let index = match self.free_fds.pop_first() {
            Some(index) => {
                let entry = &mut self.fds[index as usize];
                *entry = Some(file);
                index
            }
            None => {
                self.fds.push(Some(file));
                self.fds.len() as u32 - 1
            }
        };
        assert!((index as i32) < PER_WORLD, "a world has at most {PER_WORLD} descriptors at once");
        self.hold(file);
        FIRST + self.id as i32 * PER_WORLD + index as i32
    }

    /// [`State::new_fd`] where the system may run out of numbers.
    pub(super) fn try_new_fd(&mut self, file: FileId) -> i32 {
        let host = self.current_host.0.into();
        let name = self.host_name(self.current_host).to_owned();
        let tell = || format!("{name} had no descriptor free");
        if self.fault(Fault::NoDescriptor, host, tell) {
            self.hold(file);
            self.let_go(file);
            return -libc::EMFILE;
        }
        self.new_fd(file)
    }

    /// [`State::new_fd`] for a file that a driver runs on, which may be refused.
    pub(super) fn driver_fd(&mut self, file: FileId, what: &str) -> i32 {
        let host = self.current_host;
        let who = host.0.into();
        if !self.fault(Fault::NoDriver, who, String::new) {
            return self.new_fd(file);
        }
        let errors = [(libc::EMFILE, "EMFILE"), (libc::ENFILE, "ENFILE"), (libc::ENOMEM, "ENOMEM")];
        let (error, name) = errors[self.choose("no-driver as", who, 3) as usize];
        self.tell(Fault::NoDriver.name(), who, |state| {
            format!("{} was refused {what}: {name}", state.host_name(host))
        });
        self.hold(file);
        self.let_go(file);
        -error
    }

    pub(super) fn close_fd(&mut self, fd: RawDescriptor) -> i32 {
        let Some(file) = self.of_fd(fd) else { return -libc::EBADF };
        let index = (fd - FIRST) % PER_WORLD;
        self.fds[index as usize] = None;
        self.free_fds.insert(index as u32);
        self.let_go(file);
        0
    }

    /// Has a descriptor name another file from now on.
    pub(super) fn fd_becomes(&mut self, fd: RawDescriptor, file: FileId) {
        let Some(before) = self.of_fd(fd) else { return };
        self.fds[((fd - FIRST) % PER_WORLD) as usize] = Some(file);
        self.hold(file);
        self.let_go(before);
    }

    pub(super) fn hold(&mut self, file: FileId) {
        if let Some(file) = self.file_mut(file) {
            file.holders += 1;
        }
    }

    pub(super) fn let_go(&mut self, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        file.holders -= 1;
        if file.holders > 0 {
            return;
        }
        let slot = &mut self.files[id.index as usize];
        let Some(file) = slot.file.take() else { return };
        slot.generation += 1;
        self.free_files.push(id.index);
        for waiter in &file.waiters {
            match *waiter {
                Waiter::Item { epoll, fd } => self.forget_item(epoll, fd, id),
                Waiter::Request { port, key, .. } => self.request_closed(port, key),
                Waiter::Op { .. } => {}
            }
        }
        match file.kind {
            Kind::Stream(stream) => self.stream_closed(id, file.host, *stream),
            Kind::Listener(listener) => self.listener_closed(id, file.host, listener),
            Kind::Datagram(datagram) => self.datagram_closed(id, file.host, &datagram),
            Kind::Ring(ring) => self.ring_closed(*ring),
            Kind::Epoll(epoll) => self.epoll_closed(id, &epoll),
            Kind::Port(port) => self.port_closed(*port),
            Kind::Pipe(pipe) => self.pipe_closed(&pipe),
            Kind::Device | Kind::Disk(_) | Kind::Event { .. } => {}
        }
    }

    /// What `poll` would say of a file.
    pub(super) fn ready(&self, id: FileId) -> i16 {
        match self.file(id).map(|file| &file.kind) {
            Some(Kind::Stream(stream)) => self.stream_ready(stream),
            Some(Kind::Listener(listener)) if listener.queue.is_empty() => 0,
            Some(Kind::Listener(_)) => libc::POLLIN,
            Some(Kind::Datagram(datagram)) => datagram.ready(),
            Some(Kind::Pipe(pipe)) => self.pipe_ready(pipe),
            Some(Kind::Disk(_)) => libc::POLLIN | libc::POLLOUT,
            Some(Kind::Event { count: 0, .. }) => libc::POLLOUT,
            Some(Kind::Event { .. }) => libc::POLLIN | libc::POLLOUT,
            Some(Kind::Epoll(_) | Kind::Ring(_) | Kind::Port(_) | Kind::Device) => 0,
            None => libc::POLLNVAL,
        }
    }

    /// Something about a file has changed: whoever waits for it looks again.
    pub(super) fn wake_file(&mut self, id: FileId, events: i16) {
        let always = libc::POLLERR | libc::POLLHUP;
        let passed_over = if events & always == 0 { self.passed_over(id) } else { Vec::new() };
        let Some(file) = self.file_mut(id) else { return };
        let mut woken = Vec::new();
        file.waiters.retain(|waiter| match *waiter {
            _ if passed_over.contains(waiter) => true,
            Waiter::Op { events: wanted, .. } | Waiter::Request { events: wanted, .. }
                if (wanted | always) & events != 0 =>
            {
                woken.push(*waiter);
                false
            }
            Waiter::Op { .. } | Waiter::Request { .. } => true,
            Waiter::Item { .. } => {
                woken.push(*waiter);
                true
            }
        });
        for waiter in woken {
            match waiter {
                Waiter::Op { ring, op, .. } => self.op_woken(ring, op),
                Waiter::Item { epoll, fd } => self.item_woken(epoll, fd, id, events),
                Waiter::Request { port, key, .. } => self.request_woken(port, key),
            }
        }
    }

    /// Who is not woken by a connection: of those that accept the first alone is, and one that is doomed stays where it
    /// is.
    fn passed_over(&mut self, listener: FileId) -> Vec<Waiter> {
        let waiters = match self.file(listener) {
            Some(File { kind: Kind::Listener(_), waiters, .. }) => waiters.clone(),
            _ => return Vec::new(),
        };
        let mut passed_over = Vec::new();
        let mut is_first = true;
        for waiter in waiters {
            let Waiter::Op { ring, op, .. } = waiter else { continue };
            let Some(doomed) = self.accepts(ring, op) else { continue };
            if doomed || !is_first {
                passed_over.push(waiter);
            }
            is_first = false;
        }
        passed_over
    }

    pub(super) fn wait_for(&mut self, id: FileId, waiter: Waiter) {
        if let Some(file) = self.file_mut(id) {
            file.waiters.push(waiter);
        }
    }

    pub(super) fn wait_no_more(&mut self, id: FileId, ring: FileId, op: OpKey) {
        if let Some(file) = self.file_mut(id) {
            file.waiters.retain(|waiter| {
                !matches!(waiter, Waiter::Op { ring: r, op: o, .. } if (*r, *o) == (ring, op))
            });
        }
    }
}
