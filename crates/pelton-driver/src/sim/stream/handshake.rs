//! From an address to a connection: binding, listening, connecting and accepting.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::super::fault::Fault;
use super::super::file::{File, FileId, Kind};
use super::super::state::{Event, HostId, SECOND, State};
use super::{Listener, Options, Phase, SYN_TRIES, Stream};

impl State {
    pub(in crate::sim) fn ephemeral_port(&mut self, host: HostId) -> u16 {
        loop {
            let next = &mut self.host_mut(host).next_port;
            let port = *next;
            *next = if port >= 60_999 { 32_768 } else { port + 1 };
            let taken = self.listeners.contains_key(&(host, port))
                || self.datagrams.contains_key(&(host, port));
            if !taken {
                return port;
            }
        }
    }

    pub(in crate::sim) fn bind(&mut self, id: FileId, mut address: SocketAddr) -> i32 {
        let Some(file) = self.file(id) else { return -libc::EBADF };
        let host = file.host;
        let ours = self.route(host, address.ip()) == Some(host);
        if !ours {
            return -libc::EADDRNOTAVAIL;
        }
        if address.port() == 0 {
            address.set_port(self.ephemeral_port(host));
        }
        if let Some(Kind::Datagram(_)) = self.file(id).map(|file| &file.kind) {
            return self.bind_datagram(id, host, address);
        }
        let Some(stream) = self.stream(id) else { return -libc::EINVAL };
        if stream.local.is_some() || stream.phase != Phase::Fresh {
            return -libc::EINVAL;
        }
        if self.is_taken(id, host, address, stream.options) {
            return -libc::EADDRINUSE;
        }
        if let Some(stream) = self.stream_mut(id) {
            stream.local = Some(address);
        }
        0
    }

    /// Whether another socket of the host has an address that is this one, or a part of it, or has it as a part.
    /// Two may share one where both have said so: always with `SO_REUSEPORT`, and with `SO_REUSEADDR` as long as
    /// the other does not listen.
    fn is_taken(&self, own: FileId, host: HostId, address: SocketAddr, options: Options) -> bool {
        let shares = |other: &Options, listens: bool| {
            (options.reuse_port && other.reuse_port)
                || (options.reuse_address && other.reuse_address && !listens)
        };
        let files = self.files.iter().enumerate();
        files.filter_map(|(at, slot)| Some((at, slot.file.as_ref()?))).any(|(at, file)| {
            if file.host != host || at as u32 == own.index {
                return false;
            }
            let (other, free) = match &file.kind {
                Kind::Listener(other) => (other.address, shares(&other.options, true)),
                Kind::Stream(other) if other.phase == Phase::Fresh => match other.local {
                    Some(local) => (local, shares(&other.options, false)),
                    None => return false,
                },
                _ => return false,
            };
            !free && other.port() == address.port() && overlap(other.ip(), address.ip())
        })
    }

    pub(in crate::sim) fn listen(&mut self, id: FileId, backlog: i32) -> i32 {
        let Some(file) = self.file(id) else { return -libc::EBADF };
        let host = file.host;
        match &file.kind {
            Kind::Listener(_) => return 0,
            Kind::Stream(stream) if stream.phase == Phase::Fresh => {}
            Kind::Stream(_) => return -libc::EINVAL,
            _ => return -libc::EOPNOTSUPP,
        }
        let (local, options) = match self.stream(id) {
            Some(stream) => (stream.local, stream.options),
            None => return -libc::EINVAL,
        };
        let address = match local {
            Some(address) => address,
            None => SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.ephemeral_port(host))),
        };
        if self.is_taken(id, host, address, options) {
            return -libc::EADDRINUSE;
        }
        let backlog = backlog.clamp(1, 4096) as usize;
        if let Some(file) = self.file_mut(id) {
            let queue = VecDeque::new();
            let listener = Listener { address, backlog, options, queue, name: None };
            file.kind = Kind::Listener(listener);
        }
        self.listeners.entry((host, address.port())).or_default().push(id);
        0
    }

    pub(in crate::sim) fn listener_closed(&mut self, id: FileId, host: HostId, listener: Listener) {
        if let Some(name) = listener.name {
            self.local_listeners.remove(&(host, name));
        }
        let key = (host, listener.address.port());
        if let Some(group) = self.listeners.get_mut(&key) {
            group.retain(|other| *other != id);
            if group.is_empty() {
                self.listeners.remove(&key);
            }
        }
        for waiting in listener.queue {
            if let Some(stream) = self.stream_mut(waiting) {
                // Nobody will ever read from it.
                stream.options.linger = Some(Duration::ZERO);
            }
            self.let_go(waiting);
        }
    }

    /// Starts a connect, or says how one goes that was started.
    pub(in crate::sim) fn connect(&mut self, id: FileId, to: SocketAddr) -> i32 {
        let Some(file) = self.file(id) else { return -libc::EBADF };
        let host = file.host;
        if let Kind::Datagram(_) = file.kind {
            return self.connect_datagram(id, to);
        }
        let Some(stream) = self.stream(id) else { return -libc::EOPNOTSUPP };
        match stream.phase {
            Phase::Connecting => return -libc::EALREADY,
            Phase::Connected => return -libc::EISCONN,
            Phase::Dead => {
                let error = self.stream_mut(id).and_then(|stream| stream.error.take());
                return -error.unwrap_or(libc::ECONNABORTED);
            }
            Phase::Fresh => {}
        }
        let Some(target) = self.route(host, to.ip()) else { return -libc::ENETUNREACH };
        let ip = if to.ip().is_loopback() || to.ip().is_unspecified() {
            to.ip()
        } else {
            let same = |ip: &&IpAddr| ip.is_ipv4() == to.is_ipv4();
            self.host(host).addresses.iter().find(same).copied().unwrap_or(to.ip())
        };
        let port = self.ephemeral_port(host);
        let connection = self.fresh_connection(|state| {
            format!("{} -> {}:{}", state.host_name(host), state.host_name(target), to.port())
        });
        let Some(stream) = self.stream_mut(id) else { return -libc::EBADF };
        stream.connection = connection;
        stream.phase = Phase::Connecting;
        stream.remote = Some(to);
        stream.peer_host = target;
        let local = stream.local.get_or_insert(SocketAddr::new(ip, port));
        if local.ip().is_unspecified() {
            local.set_ip(ip);
        }
        let trip = self.trip(connection, host, target);
        if self.fault(Fault::Unreachable, connection, String::new) {
            self.tell(Fault::Unreachable.name(), connection, |state| {
                format!("{} found no way to its host", state.connection_name(connection))
            });
            self.plan(trip, Event::Answer { to: id, server: None, error: libc::EHOSTUNREACH });
        } else {
            self.plan(trip, Event::Syn { from: id, tries: 1 });
        }
        -libc::EINPROGRESS
    }

    pub(in crate::sim) fn syn_arrives(&mut self, from: FileId, tries: u32) {
        let Some(client) = self.file(from) else { return };
        let host = client.host;
        let Some(stream) = self.stream(from).filter(|s| s.phase == Phase::Connecting) else {
            return;
        };
        let (connection, target) = (stream.connection, stream.peer_host);
        let (local, Some(to)) = (stream.local, stream.remote) else { return };
        let trip = self.trip(connection, host, target);
        let again = Event::Syn { from, tries: tries + 1 };
        let timed_out = Event::Answer { to: from, server: None, error: libc::ETIMEDOUT };
        if self.is_held(host, target) {
            let now = self.now;
            return self.send_over(host, target, now, Event::Syn { from, tries });
        }
        let lost = self.is_cut(host, target) || !self.host(target).up || !self.host(host).up;
        let listener = self.pick_listener(connection, target, to);
        let full = listener.is_some_and(|listener| match self.file(listener) {
            Some(File { kind: Kind::Listener(listener), .. }) => {
                listener.queue.len() >= listener.backlog
            }
            _ => true,
        });
        if lost || full {
            let later = if tries >= SYN_TRIES { timed_out } else { again };
            return self.plan(SECOND << (tries - 1), later);
        }
        let Some(listener) = listener else {
            let refused = Event::Answer { to: from, server: None, error: libc::ECONNREFUSED };
            return self.plan(trip, refused);
        };
        let mut server = Stream::new(host, false);
        server.connection = connection;
        server.phase = Phase::Connected;
        server.local = Some(to);
        server.remote = local;
        server.peer = Some(from);
        server.peer_host = host;
        // What it sends does not overtake the answer.
        server.arrives = self.now + trip;
        let server = self.new_file_on(target, Kind::Stream(Box::new(server)), false);
        // The queue's.
        self.hold(server);
        if let Some(Kind::Listener(listener)) = self.file_mut(listener).map(|file| &mut file.kind) {
            listener.queue.push_back(server);
        }
        self.wake_file(listener, libc::POLLIN);
        let answer = Event::Answer { to: from, server: Some(server), error: 0 };
        self.send_over(target, host, self.now + trip, answer);
    }

    fn pick_listener(&mut self, connection: u64, host: HostId, to: SocketAddr) -> Option<FileId> {
        let mut group = self.listeners.get(&(host, to.port()))?.clone();
        group.retain(|listener| match self.file(*listener).map(|file| &file.kind) {
            Some(Kind::Listener(listener)) => hears(listener.address.ip(), to.ip()),
            _ => false,
        });
        if group.is_empty() {
            return None;
        }
        let at = self.choose("listener", connection, group.len() as u64);
        if at > 0 {
            self.tell("listener", connection, |state| {
                let name = state.connection_name(connection);
                format!("{name} went to listener {at} of {}", group.len())
            });
        }
        group.get(at as usize).copied()
    }

    pub(in crate::sim) fn answer_arrives(
        &mut self,
        to: FileId,
        server: Option<FileId>,
        error: i32,
    ) {
        let host = self.file(to).map(|file| file.host);
        let Some(stream) = self.stream_mut(to).filter(|s| s.phase == Phase::Connecting) else {
            // It has been given up meanwhile.
            if let Some(server) = server {
                self.reset_arrives(server);
            }
            return;
        };
        if error == 0 {
            stream.phase = Phase::Connected;
            stream.peer = server;
            stream.arrives = 0;
            self.wake_file(to, libc::POLLOUT);
        } else {
            stream.phase = Phase::Dead;
            stream.error = Some(error);
            self.wake_file(to, libc::POLLIN | libc::POLLOUT | libc::POLLERR | libc::POLLHUP);
        }
        debug_assert!(host.is_some());
    }

    pub(in crate::sim) fn accept(
        &mut self,
        id: FileId,
    ) -> Result<(FileId, Option<SocketAddr>), i32> {
        let number = u64::from(id.index);
        match self.file(id) {
            Some(File { kind: Kind::Listener(listener), .. }) => {
                if listener.queue.is_empty() {
                    return Err(-libc::EAGAIN);
                }
            }
            Some(_) => return Err(-libc::EINVAL),
            None => return Err(-libc::EBADF),
        }
        if self.fault(Fault::AcceptRunsOut, number, String::new) {
            let at = self.choose("accept runs out of", number, 3) as usize;
            let errors =
                [(libc::EMFILE, "EMFILE"), (libc::ENFILE, "ENFILE"), (libc::ENOMEM, "ENOMEM")];
            let (error, name) = errors[at];
            self.tell(Fault::AcceptRunsOut.name(), number, |state| {
                format!("an accept on {} failed with {name}", state.file_name(id))
            });
            return Err(-error);
        }
        let Some(Kind::Listener(listener)) = self.file_mut(id).map(|file| &mut file.kind) else {
            return Err(-libc::EBADF);
        };
        let Some(taken) = listener.queue.pop_front() else { return Err(-libc::EAGAIN) };
        let connection = self.stream(taken).map_or(0, |stream| stream.connection);
        if self.fault(Fault::AcceptAborted, number, String::new) {
            self.tell(Fault::AcceptAborted.name(), number, |state| {
                let name = state.connection_name(connection);
                format!("{name} was aborted before it was accepted")
            });
            if let Some(stream) = self.stream_mut(taken) {
                stream.options.linger = Some(Duration::ZERO);
            }
            self.let_go(taken);
            return Err(-libc::ECONNABORTED);
        }
        let remote = self.stream(taken).and_then(|stream| stream.remote);
        Ok((taken, remote))
    }
}

/// Whether one address is the other, or every address of a family that the other is of. That of every IPv6 address
/// is every IPv4 address too.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let covers =
        |all: IpAddr, some: IpAddr| all.is_unspecified() && (all.is_ipv6() || some.is_ipv4());
    one == other || covers(one, other) || covers(other, one)
}

/// Whether a listener on one address is reached through another. That of every IPv6 address hears IPv4 too, and
/// who connects to no address in particular connects to the host itself.
fn hears(listener: IpAddr, to: IpAddr) -> bool {
    listener == to
        || (listener.is_unspecified() && (listener.is_ipv6() || to.is_ipv4()))
        || (to.is_unspecified() && listener.is_loopback() && listener.is_ipv4() == to.is_ipv4())
}
