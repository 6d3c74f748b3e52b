//! What the stories call things: hosts and reactors by name, connections by both ends, files by path.

use rustix::io_uring::IoringOp;

use super::file::{FileId, Kind};
use super::state::{HostId, MICRO, MILLI, Nanos, ProcId, State};

impl State {
    /// Puts words to the last choice of this label about this object. It must not have been dull.
    pub(super) fn tell(
        &mut self,
        label: &'static str,
        who: u64,
        story: impl FnOnce(&State) -> String,
    ) {
        if !self.choices.keeps() {
            return;
        }
        let story = story(self);
        self.choices.retell(label, who, story, None);
    }

    pub(super) fn host_name(&self, host: HostId) -> &str {
        &self.host(host).name
    }

    /// Gives a connection a number, and remembers who has it.
    pub(super) fn fresh_connection(&mut self, name: impl FnOnce(&State) -> String) -> u64 {
        let name = name(self);
        self.connections.push(name.into());
        self.connections.len() as u64
    }

    /// `connection 3 (client -> server:80)`.
    pub(super) fn connection_name(&self, connection: u64) -> String {
        let at = usize::try_from(connection).ok().and_then(|number| number.checked_sub(1));
        match at.and_then(|at| self.connections.get(at)) {
            Some(ends) => format!("connection {connection} ({ends})"),
            None => "a new connection".into(),
        }
    }

    pub(super) fn file_name(&self, id: FileId) -> String {
        let Some(file) = self.file(id) else { return "a closed descriptor".into() };
        let host = self.host_name(file.host);
        match &file.kind {
            Kind::Stream(stream) => self.connection_name(stream.connection),
            Kind::Listener(listener) => match &listener.name {
                Some(name) => format!("the listener {host}:{name:?}"),
                None => format!("the listener {host}:{}", listener.address.port()),
            },
            Kind::Datagram(datagram) => match datagram.local {
                Some(local) => format!("the datagram socket {host}:{}", local.port()),
                None => format!("a datagram socket of {host}"),
            },
            Kind::Pipe(_) => format!("a pipe of {host}"),
            Kind::Disk(disk) => self.disk_name(file.host, disk.inode()),
            Kind::Event { .. } => format!("a wake source of {host} (a `Handle` that outlives it?)"),
            Kind::Epoll(_) => format!("an epoll of {host}"),
            Kind::Ring(_) => format!("a ring of {host}"),
            Kind::Port(_) => format!("a completion port of {host} (a `Handle` that outlives it?)"),
            Kind::Device => format!("the device of polls of {host}"),
        }
    }

    /// Whose ring or epoll this is.
    pub(super) fn reactor_of(&self, id: FileId) -> String {
        let proc = match self.file(id).map(|file| &file.kind) {
            Some(Kind::Ring(ring)) => ring.reactor(),
            Some(Kind::Epoll(epoll)) => epoll.reactor(),
            Some(Kind::Port(port)) => port.reactor(),
            _ => None,
        };
        match (proc, self.file(id)) {
            (Some(proc), _) => self.reactor_name(proc),
            (None, Some(file)) => self.host_name(file.host).to_owned(),
            (None, None) => "a driver".into(),
        }
    }

    /// A host's name, and which of its reactors where it has had several.
    pub(super) fn reactor_name(&self, proc: ProcId) -> String {
        let host = self.procs[proc.0 as usize].host;
        let of_host = |at: &usize| self.procs[*at].host == host;
        let before = (0..proc.0 as usize).filter(of_host).count();
        let name = self.host_name(host);
        match (0..self.procs.len()).filter(of_host).count() {
            1 => name.to_owned(),
            _ => format!("reactor {before} of {name}"),
        }
    }

    /// What a host's drivers wait for, in words: for a run that is stuck.
    pub(super) fn waits_of(&self, host: HostId) -> Vec<String> {
        let mut waits = Vec::new();
        for slot in &self.files {
            let Some(file) = slot.file.as_ref().filter(|file| file.host == host) else { continue };
            match &file.kind {
                Kind::Ring(ring) => {
                    let real = |on: &FileId| {
                        !matches!(self.file(*on).map(|file| &file.kind), Some(Kind::Event { .. }))
                    };
                    for (what, on) in ring.waiting().filter(|(_, on)| real(on)) {
                        waits.push(format!("{what} on {}", self.file_name(on)));
                    }
                }
                Kind::Epoll(epoll) => {
                    let on = epoll.watched().map(|on| self.file(on).map(|file| (on, &file.kind)));
                    for (on, kind) in on.flatten() {
                        if !matches!(kind, Kind::Event { .. }) {
                            waits.push(format!("readiness of {}", self.file_name(on)));
                        }
                    }
                }
                Kind::Port(port) => {
                    for (what, on) in port.waiting() {
                        waits.push(format!("{what} on {}", self.file_name(on)));
                    }
                }
                _ => {}
            }
        }
        waits
    }
}

/// The name of an operation, as its manual page has it.
pub(super) fn operation(code: u8) -> &'static str {
    let is = |op: IoringOp| op as u8 == code;
    match () {
        () if is(IoringOp::Recv) || is(IoringOp::Recvmsg) => "recv",
        () if is(IoringOp::Send) || is(IoringOp::Sendmsg) => "send",
        () if is(IoringOp::Accept) => "accept",
        () if is(IoringOp::Connect) => "connect",
        () if is(IoringOp::PollAdd) => "poll",
        () if is(IoringOp::Shutdown) => "shutdown",
        () if is(IoringOp::Read) => "read",
        () if is(IoringOp::Write) => "write",
        () if is(IoringOp::Fsync) => "fsync",
        () => "an operation",
    }
}

/// A length of time, in the unit that reads best.
pub(super) fn time(nanos: Nanos) -> String {
    match nanos {
        0..MICRO => format!("{nanos} ns"),
        MICRO..MILLI => format!("{} us", nanos / MICRO),
        _ if nanos.is_multiple_of(MILLI) => format!("{} ms", nanos / MILLI),
        _ => format!("{:.3} ms", nanos as f64 / MILLI as f64),
    }
}
