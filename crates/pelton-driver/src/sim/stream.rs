//! Byte streams: TCP with its handshake, ends, resets and windows, and connected pairs of Unix sockets.
//!
//! # How bytes travel
//!
//! A send takes as much as the window of the peer has room for: what was sent and not yet read by the peer's
//! application counts against it. What it took becomes a segment that arrives a trip later, never before an
//! earlier one of the same direction. A read makes room, and the sender hears of it a trip later.
//!
//! # How a connection ends
//!
//! - `shutdown` for writing, or a close with nothing unread, sends a FIN behind the data.
//! - A close with something unread, or with a linger of zero, sends a reset.
//! - Data for an end that is closed is answered with a reset. What has arrived stays readable after one.
//! - A host that has crashed says nothing; when it is up again, it answers data for its former life with a
//!   reset.

mod handshake;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::fault::Fault;
use super::file::{File, FileId, Kind};
use super::message::Asked;
use super::state::{Event, HostId, MICRO, Nanos, SECOND, State};
use crate::unix_address::UnixAddr;

/// Bytes that may be on their way or unread, in one direction.
const WINDOW: usize = 64 * 1024;
/// How long an end waits for a peer that has fallen silent.
const PATIENCE: Nanos = 20 * SECOND;
/// How often the first packet of a connection is sent.
const SYN_TRIES: u32 = 6;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) nodelay: bool,
    pub(super) ttl: Option<u32>,
    pub(super) linger: Option<Duration>,
    pub(super) reuse_address: bool,
    pub(super) reuse_port: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Made, perhaps bound.
    Fresh,
    Connecting,
    Connected,
    /// Reset, timed out, or refused.
    Dead,
}

/// What a socket of Windows lacks before it is one like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// Nothing.
    None,
    /// It has been given to an accept, which takes a socket once.
    Used,
    /// It is connected, by a call that does not tell the socket: it has no peer and no directions.
    Missing,
}

pub(super) struct Stream {
    /// The connection's number in stories; both ends have the same.
    pub(super) connection: u64,
    pub(super) phase: Phase,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) options: Options,
    pub(super) unix: bool,
    pub(super) context: Context,
    /// What a Unix socket was bound to.
    pub(super) name: UnixAddr,
    pub(super) peer: Option<FileId>,
    peer_host: HostId,
    inbox: VecDeque<u8>,
    /// The peer will send no more.
    fin: bool,
    error: Option<i32>,
    shut_read: bool,
    shut_write: bool,
    /// Bytes sent that the peer has not read.
    unread: usize,
    /// When the last segment that was sent arrives.
    arrives: Nanos,
    /// Nothing this end sends arrives any more.
    muted: bool,
}

/// What travels from one end to the other.
pub(super) struct Segment {
    pub(super) from: FileId,
    pub(super) from_host: HostId,
    pub(super) to_host: HostId,
    pub(super) to_life: u32,
    pub(super) content: Content,
}

pub(super) enum Content {
    Data(Vec<u8>),
    Fin,
    Reset,
}

pub(super) struct Listener {
    pub(super) address: SocketAddr,
    pub(super) backlog: usize,
    pub(super) options: Options,
    pub(super) queue: VecDeque<FileId>,
    /// That of a Unix socket; it has no other address then.
    pub(super) name: Option<UnixAddr>,
}

impl Listener {
    /// A Unix socket's.
    pub(super) fn local(name: UnixAddr, backlog: i32) -> Listener {
        Listener {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            backlog: backlog.clamp(0, 4096) as usize,
            options: Options::default(),
            queue: VecDeque::new(),
            name: Some(name),
        }
    }
}

impl Stream {
    pub(super) fn new(host: HostId, unix: bool) -> Stream {
        Stream {
            connection: 0,
            phase: Phase::Fresh,
            local: None,
            remote: None,
            options: Options::default(),
            unix,
            context: Context::None,
            name: UnixAddr::default(),
            peer: None,
            peer_host: host,
            inbox: VecDeque::new(),
            fin: false,
            error: None,
            shut_read: false,
            shut_write: false,
            unread: 0,
            arrives: 0,
            muted: false,
        }
    }

    fn room(&self) -> usize {
        WINDOW.saturating_sub(self.unread)
    }

    pub(super) fn mute(&mut self) {
        self.muted = true;
        self.phase = Phase::Dead;
        self.error = Some(libc::ECONNABORTED);
    }
}

impl State {
    pub(super) fn stream(&self, id: FileId) -> Option<&Stream> {
        match self.file(id) {
            Some(File { kind: Kind::Stream(stream), .. }) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn stream_mut(&mut self, id: FileId) -> Option<&mut Stream> {
        match self.file_mut(id) {
            Some(File { kind: Kind::Stream(stream), .. }) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn stream_ready(&self, stream: &Stream) -> i16 {
        let mut ready = 0;
        if !stream.inbox.is_empty() || stream.fin || stream.shut_read {
            ready |= libc::POLLIN;
        }
        if stream.fin || stream.shut_read {
            ready |= libc::POLLRDHUP;
        }
        match stream.phase {
            Phase::Fresh => ready |= libc::POLLOUT | libc::POLLHUP,
            Phase::Connecting => {}
            Phase::Connected => {
                // A pair that is full tells nobody that it was shut for writing.
                if stream.room() > 0 || (stream.shut_write && !stream.unix) {
                    ready |= libc::POLLOUT;
                }
                if stream.fin && stream.shut_write {
                    ready |= libc::POLLHUP;
                }
            }
            Phase::Dead => {
                ready |= libc::POLLIN | libc::POLLOUT | libc::POLLHUP | libc::POLLRDHUP;
            }
        }
        if stream.error.is_some() {
            ready |= libc::POLLERR | libc::POLLIN | libc::POLLOUT;
        }
        ready
    }

    pub(super) fn stream_pair(&mut self, nonblocking: bool) -> (FileId, FileId) {
        let host = self.current_host;
        let connection =
            self.fresh_connection(|state| format!("a pair of {}", state.host_name(host)));
        let ends = [(); 2].map(|()| {
            let mut stream = Stream::new(host, true);
            stream.phase = Phase::Connected;
            stream.connection = connection;
            self.new_file(Kind::Stream(Box::new(stream)), nonblocking)
        });
        for (end, other) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            if let Some(stream) = self.stream_mut(end) {
                stream.peer = Some(other);
            }
        }
        (ends[0], ends[1])
    }

    /// Takes up to `most` bytes of what has arrived; 0 at the end of the stream.
    pub(super) fn receive(&mut self, id: FileId, most: usize) -> Result<Vec<u8>, i32> {
        let Some(stream) = self.stream_mut(id) else {
            return match self.file(id) {
                Some(File { kind: Kind::Datagram(_), .. }) => {
                    let mut bytes = self.receive_datagram(id, false)?.bytes;
                    bytes.truncate(most);
                    Ok(bytes)
                }
                Some(File { kind: Kind::Listener(_), .. }) => Err(-libc::ENOTCONN),
                Some(_) => Err(-libc::ENOTSOCK),
                None => Err(-libc::EBADF),
            };
        };
        let early = mutant!("sim-end-before-data") && stream.fin;
        if stream.inbox.is_empty() || early {
            return match (stream.error.take(), stream.phase) {
                (Some(error), _) => Err(-error),
                (None, Phase::Connecting) => Err(-libc::EAGAIN),
                (None, Phase::Fresh) => Err(-libc::ENOTCONN),
                (None, Phase::Connected) if !stream.fin && !stream.shut_read => Err(-libc::EAGAIN),
                (None, _) => Ok(Vec::new()),
            };
        }
        let (connection, there) = (stream.connection, stream.inbox.len());
        let mut n = there.min(most);
        if n > 1 && self.fault(Fault::ShortReceive, connection, String::new) {
            let all = n;
            n = 1 + self.choose("short-receive to", connection, n as u64 - 1) as usize;
            // epoll promises an edge for what is left behind a short receive: it came after.
            self.plan(MICRO, Event::Heard(id));
            self.tell(Fault::ShortReceive.name(), connection, |state| {
                let host = state.file(id).map_or("?", |file| state.host_name(file.host));
                let name = state.connection_name(connection);
                format!("recv of {host} on {name} brought {n} bytes of {all}")
            });
        }
        let Some(stream) = self.stream_mut(id) else { return Err(-libc::EBADF) };
        // By slices, which without optimisation is many times as fast as byte by byte.
        let (front, back) = stream.inbox.as_slices();
        let (front, back) = (&front[..n.min(front.len())], &back[..n.saturating_sub(front.len())]);
        let bytes = [front, back].concat();
        stream.inbox.drain(..n);
        let (peer, peer_host) = (stream.peer, stream.peer_host);
        let host = self.file(id).map_or(peer_host, |file| file.host);
        if let Some(peer) = peer
            && let Some(sender) = self.stream_mut(peer)
        {
            let was_full = sender.room() == 0;
            sender.unread -= n.min(sender.unread);
            if was_full {
                let trip = self.trip(connection, host, peer_host);
                self.send_over(host, peer_host, self.now + trip, Event::Window(peer));
            }
        }
        Ok(bytes)
    }

    /// How many bytes a send may take now; then [`State::send_taken`] sends them.
    pub(super) fn may_send(&mut self, id: FileId, len: usize) -> Result<usize, i32> {
        let Some(stream) = self.stream_mut(id) else {
            return match self.file(id) {
                Some(File { kind: Kind::Datagram(_), .. }) => self.may_send_datagram(id, len, None),
                Some(File { kind: Kind::Listener(_), .. }) => Err(-libc::EPIPE),
                Some(_) => Err(-libc::ENOTSOCK),
                None => Err(-libc::EBADF),
            };
        };
        match stream.phase {
            Phase::Fresh => return Err(-libc::EPIPE),
            Phase::Connecting => return Err(-libc::EAGAIN),
            Phase::Dead => return Err(-stream.error.take().unwrap_or(libc::EPIPE)),
            Phase::Connected => {}
        }
        if stream.shut_write {
            return Err(-libc::EPIPE);
        }
        // There is no network between the ends of a pair: that one is closed is known at once.
        let (unix, peer) = (stream.unix, stream.peer);
        // So is that it has said it will read no more.
        if unix && peer.is_none_or(|peer| self.stream(peer).is_none_or(|peer| peer.shut_read)) {
            return Err(-libc::EPIPE);
        }
        let Some(stream) = self.stream(id) else { return Err(-libc::EBADF) };
        if len == 0 {
            return Ok(0);
        }
        let (room, connection) = (stream.room(), stream.connection);
        if room == 0 {
            return Err(-libc::EAGAIN);
        }
        let mut n = len.min(room);
        if n > 1 && self.fault(Fault::ShortSend, connection, String::new) {
            let all = n;
            n = 1 + self.choose("short-send to", connection, n as u64 - 1) as usize;
            // And behind a short send, when there is room: it was made after.
            self.plan(MICRO, Event::Window(id));
            self.tell(Fault::ShortSend.name(), connection, |state| {
                let host = state.file(id).map_or("?", |file| state.host_name(file.host));
                let name = state.connection_name(connection);
                format!("send of {host} on {name} took {n} bytes of {all}")
            });
        }
        Ok(n)
    }

    pub(super) fn send_taken(&mut self, id: FileId, bytes: Vec<u8>) {
        if let Some(Kind::Datagram(_)) = self.file(id).map(|file| &file.kind) {
            // It was allowed: nothing that it asks for can be refused.
            let _ = self.send_datagram(id, bytes, None, Asked::default());
            return;
        }
        let Some(stream) = self.stream_mut(id) else { return };
        stream.unread += bytes.len();
        let connection = stream.connection;
        self.send_content(id, Content::Data(bytes));
        self.break_connection(id, connection);
    }

    /// The faults that end a connection in the middle.
    fn break_connection(&mut self, id: FileId, connection: u64) {
        if self.stream(id).is_some_and(|stream| stream.unix) {
            return;
        }
        let Some(peer) = self.stream(id).and_then(|stream| stream.peer) else { return };
        if self.fault(Fault::Reset, connection, String::new) {
            self.tell(Fault::Reset.name(), connection, |state| {
                format!("{} was reset", state.connection_name(connection))
            });
            let after = self.choose("reset after", connection, 1000) * MICRO;
            self.plan(after, Event::Dead(id, libc::ECONNRESET));
            self.plan(after, Event::Dead(peer, libc::ECONNRESET));
        }
        if self.fault(Fault::Silence, connection, String::new) {
            self.tell(Fault::Silence.name(), connection, |state| {
                format!("{} fell silent", state.connection_name(connection))
            });
            self.fall_silent([id, peer], libc::ETIMEDOUT);
        }
        if self.fault(Fault::WayLost, connection, String::new) {
            let errors = [(libc::EHOSTUNREACH, "EHOSTUNREACH"), (libc::ENETUNREACH, "ENETUNREACH")];
            let (error, name) = errors[self.choose("way-lost as", connection, 2) as usize];
            self.tell(Fault::WayLost.name(), connection, |state| {
                format!("{} lost its way: {name}", state.connection_name(connection))
            });
            self.fall_silent([id, peer], error);
        }
    }

    /// Nothing passes between two ends any more. They hope, as TCP does, and then fail: with what routers have
    /// said meanwhile, or that time is up.
    fn fall_silent(&mut self, ends: [FileId; 2], error: i32) {
        for end in ends {
            if let Some(stream) = self.stream_mut(end) {
                stream.muted = true;
            }
            self.plan(PATIENCE, Event::Dead(end, error));
        }
    }

    pub(super) fn shutdown(&mut self, id: FileId, how: i32) -> i32 {
        let Some(stream) = self.stream_mut(id) else {
            return match self.file(id) {
                Some(File { kind: Kind::Listener(_) | Kind::Datagram(_), .. }) => -libc::ENOTCONN,
                Some(_) => -libc::ENOTSOCK,
                None => -libc::EBADF,
            };
        };
        if stream.phase != Phase::Connected || stream.context == Context::Missing {
            return -libc::ENOTCONN;
        }
        if how != libc::SHUT_WR {
            stream.shut_read = true;
        }
        let ends = how != libc::SHUT_RD && !stream.shut_write;
        if ends {
            stream.shut_write = true;
            self.send_content(id, Content::Fin);
        }
        self.wake_file(id, libc::POLLIN | libc::POLLOUT | libc::POLLHUP | libc::POLLRDHUP);
        0
    }

    fn send_content(&mut self, id: FileId, content: Content) {
        let Some(file) = self.file(id) else { return };
        let host = file.host;
        let Some(stream) = self.stream(id) else { return };
        let (Some(peer), false) = (stream.peer, stream.muted) else { return };
        self.send_segment(id, host, peer, content);
    }

    fn send_segment(&mut self, id: FileId, host: HostId, peer: FileId, content: Content) {
        let Some((unix, connection, to_host, arrives)) = self
            .stream(id)
            .map(|stream| (stream.unix, stream.connection, stream.peer_host, stream.arrives))
        else {
            return;
        };
        let to_life = self.host(to_host).life;
        let segment = Segment { from: id, from_host: host, to_host, to_life, content };
        if unix {
            return self.segment_arrives(peer, segment);
        }
        let at = arrives.max(self.now + self.trip(connection, host, to_host));
        if let Some(stream) = self.stream_mut(id) {
            stream.arrives = at;
        }
        self.send_over(host, to_host, at, Event::Segment(peer, segment));
    }

    pub(super) fn segment_arrives(&mut self, to: FileId, segment: Segment) {
        let Segment { from, from_host, to_host, to_life, content } = segment;
        let host = self.host(to_host);
        if !host.up {
            return;
        }
        let known = host.life == to_life;
        let there = if known { self.stream(to).map(|stream| stream.muted) } else { None };
        if there == Some(true) {
            // Nothing passes on this connection, a reset neither.
            return;
        }
        if there.is_none() {
            // Nobody has this end any more. Data for it is answered with a reset.
            if let Content::Data(_) = content {
                let trip = self.latency;
                self.send_over(
                    to_host,
                    from_host,
                    self.now + trip,
                    Event::Dead(from, libc::ECONNRESET),
                );
            }
            return;
        }
        let Some(stream) = self.stream_mut(to) else { return };
        match content {
            Content::Data(bytes) => {
                // Also where this end has said that it will read no more: what is there is read before the end.
                // Where it has said that it will not write either, TCP gives the connection up.
                if stream.phase == Phase::Connected && stream.shut_read && stream.shut_write {
                    self.dies(to, libc::ECONNRESET);
                    let at = self.now + self.latency;
                    self.send_over(to_host, from_host, at, Event::Dead(from, libc::ECONNRESET));
                } else if stream.phase == Phase::Connected {
                    stream.inbox.extend(bytes);
                    self.wake_file(to, libc::POLLIN);
                } else if let Some(sender) = self.stream_mut(from) {
                    sender.unread -= bytes.len().min(sender.unread);
                }
            }
            Content::Fin => {
                stream.fin = true;
                let hung_up = if stream.shut_write { libc::POLLHUP } else { 0 };
                self.wake_file(to, libc::POLLIN | libc::POLLRDHUP | hung_up);
            }
            Content::Reset => self.reset_arrives(to),
        }
    }

    fn reset_arrives(&mut self, to: FileId) {
        self.dies(to, libc::ECONNRESET);
    }

    /// An end fails: with a reset, or because it has heard nothing for too long.
    pub(super) fn dies(&mut self, id: FileId, error: i32) {
        let Some(stream) = self.stream_mut(id) else { return };
        if !matches!(stream.phase, Phase::Connected | Phase::Connecting) {
            return;
        }
        stream.phase = Phase::Dead;
        stream.error = Some(error);
        let all = libc::POLLIN | libc::POLLOUT | libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP;
        self.wake_file(id, all);
    }

    /// The last holder of an end has let go of it.
    pub(super) fn stream_closed(&mut self, id: FileId, host: HostId, stream: Stream) {
        let (Some(peer), false) = (stream.peer, stream.muted) else { return };
        if stream.phase != Phase::Connected {
            return;
        }
        let resets = !stream.inbox.is_empty() || stream.options.linger == Some(Duration::ZERO);
        let content = if resets {
            Content::Reset
        } else if stream.shut_write {
            return;
        } else {
            Content::Fin
        };
        let to_host = stream.peer_host;
        let to_life = self.host(to_host).life;
        let segment = Segment { from: id, from_host: host, to_host, to_life, content };
        if stream.unix {
            return self.segment_arrives(peer, segment);
        }
        let at = stream.arrives.max(self.now + self.trip(stream.connection, host, to_host));
        self.send_over(host, to_host, at, Event::Segment(peer, segment));
    }
}
