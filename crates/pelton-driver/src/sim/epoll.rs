//! A simulated epoll: registrations, the list of those that are ready, and edges.

use std::collections::{BTreeMap, VecDeque};

use super::fault::Fault;
use super::file::{File, FileId, Kind, Waiter};
use super::state::{ProcId, State};
use crate::sys::RawDescriptor;

pub(super) struct Epoll {
    items: BTreeMap<RawDescriptor, Item>,
    ready: VecDeque<RawDescriptor>,
    proc: Option<ProcId>,
    number: u64,
}

struct Item {
    file: FileId,
    events: u32,
    data: u64,
    listed: bool,
    /// Told of although it is not ready.
    spurious: bool,
}

impl Epoll {
    pub(super) fn reactor(&self) -> Option<ProcId> {
        self.proc
    }

    /// The files that are registered.
    pub(super) fn watched(&self) -> impl Iterator<Item = FileId> {
        self.items.values().map(|item| item.file)
    }
}

impl State {
    fn epoll(&mut self, id: FileId) -> Option<&mut Epoll> {
        match self.file_mut(id) {
            Some(File { kind: Kind::Epoll(epoll), .. }) => Some(epoll),
            _ => None,
        }
    }

    pub(super) fn epoll_create(&mut self) -> FileId {
        let number = self.files.len() as u64;
        let proc = self.current_proc;
        let epoll = Epoll { items: BTreeMap::new(), ready: VecDeque::new(), proc, number };
        self.new_file(Kind::Epoll(epoll), false)
    }

    pub(super) fn epoll_control(
        &mut self,
        id: FileId,
        what: i32,
        fd: RawDescriptor,
        events: u32,
        data: u64,
    ) -> i32 {
        let Some(file) = self.of_fd(fd) else { return -libc::EBADF };
        if let Some(Kind::Disk(_)) = self.file(file).map(|file| &file.kind) {
            return -libc::EPERM;
        }
        let Some(epoll) = self.epoll(id) else { return -libc::EINVAL };
        match what {
            libc::EPOLL_CTL_ADD => {
                if epoll.items.get(&fd).is_some_and(|item| item.file == file) {
                    return -libc::EEXIST;
                }
                let item = Item { file, events, data, listed: false, spurious: false };
                epoll.items.insert(fd, item);
                self.wait_for(file, Waiter::Item { epoll: id, fd });
                let there = self.ready(file);
                self.item_woken(id, fd, file, there);
                0
            }
            libc::EPOLL_CTL_DEL => {
                if epoll.items.remove(&fd).is_none() {
                    return -libc::ENOENT;
                }
                if let Some(file) = self.file_mut(file) {
                    file.waiters.retain(|waiter| *waiter != Waiter::Item { epoll: id, fd });
                }
                0
            }
            _ => -libc::EINVAL,
        }
    }

    /// A file is gone, and its registration with it.
    pub(super) fn forget_item(&mut self, id: FileId, fd: RawDescriptor, file: FileId) {
        if let Some(epoll) = self.epoll(id)
            && epoll.items.get(&fd).is_some_and(|item| item.file == file)
        {
            epoll.items.remove(&fd);
        }
    }

    pub(super) fn epoll_closed(&mut self, id: FileId, epoll: &Epoll) {
        for (fd, item) in &epoll.items {
            if let Some(file) = self.file_mut(item.file) {
                file.waiters.retain(|waiter| *waiter != Waiter::Item { epoll: id, fd: *fd });
            }
        }
    }

    pub(super) fn item_woken(&mut self, id: FileId, fd: RawDescriptor, file: FileId, events: i16) {
        let Some(epoll) = self.epoll(id) else { return };
        let (proc, number) = (epoll.proc, epoll.number);
        let Some(item) = epoll.items.get_mut(&fd).filter(|item| item.file == file) else { return };
        let wanted = item.events as i16 | libc::POLLERR | libc::POLLHUP;
        if events & wanted == 0 || item.listed {
            return;
        }
        item.listed = true;
        let len = epoll.ready.len() as u64;
        let ahead = if len == 0 { 0 } else { self.choose("overtakes", number, len.min(8) + 1) };
        if ahead > 0 {
            self.tell("overtakes", number, |state| {
                let (reactor, name) = (state.reactor_of(id), state.file_name(file));
                format!("{reactor} heard of {name} before {ahead} others")
            });
        }
        if let Some(epoll) = self.epoll(id) {
            epoll.ready.insert((len - ahead) as usize, fd);
        }
        if let Some(proc) = proc
            && self.procs[proc.0 as usize].waiting.is_some()
        {
            self.make_runnable(proc);
        }
    }

    /// Takes what is ready: bits and data of each.
    pub(super) fn epoll_take(&mut self, id: FileId, most: usize) -> Vec<(u32, u64)> {
        self.count_call();
        let mut taken = Vec::new();
        let Some(epoll) = self.epoll(id) else { return taken };
        let number = epoll.number;
        if let Some(fd) = epoll.items.keys().next_back().copied()
            && self.fault(Fault::WakeSpurious, number, || {
                "an epoll told of readiness that was not there".into()
            })
            && let Some(epoll) = self.epoll(id)
            && let Some(item) = epoll.items.get_mut(&fd)
        {
            item.spurious = true;
            if !std::mem::replace(&mut item.listed, true) {
                epoll.ready.push_back(fd);
            }
        }
        let listed = self.epoll(id).map_or(0, |epoll| epoll.ready.len());
        for _ in 0..listed {
            if taken.len() == most {
                break;
            }
            let Some(epoll) = self.epoll(id) else { break };
            let Some(fd) = epoll.ready.pop_front() else { break };
            let Some(item) = epoll.items.get_mut(&fd) else { continue };
            item.listed = false;
            let spurious = std::mem::take(&mut item.spurious);
            let (file, events, data) = (item.file, item.events, item.data);
            let mut bits = self.ready(file) & (events as i16 | libc::POLLERR | libc::POLLHUP);
            if spurious {
                bits |= events as i16 & (libc::POLLIN | libc::POLLOUT);
            }
            if bits == 0 {
                continue;
            }
            taken.push((bits as u16 as u32, data));
            if events & libc::EPOLLET as u32 == 0
                && let Some(epoll) = self.epoll(id)
                && let Some(item) = epoll.items.get_mut(&fd)
            {
                item.listed = true;
                epoll.ready.push_back(fd);
            }
        }
        taken
    }

    pub(super) fn epoll_waits(&mut self, id: FileId, timeout: Option<u64>) -> bool {
        match self.epoll(id).and_then(|epoll| epoll.proc) {
            Some(proc) => {
                self.begin_wait(proc, timeout);
                true
            }
            None => false,
        }
    }

    pub(super) fn epoll_number(&mut self, id: FileId) -> u64 {
        self.epoll(id).map_or(0, |epoll| epoll.number)
    }
}
