//! Datagrams: whole or not at all, and in no order that anybody promises.
//!
//! What is kept of the real network: a socket that is connected hears its peer alone and is told when nobody is
//! there; one that is not hears everybody and is told nothing. A datagram may be lost, come twice, come late.
//! What comes along beside the bytes, and how it is asked for, is in `message.rs`. There is no multicast.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::fault::Fault;
use super::file::{File, FileId, Kind};
use super::message::Asked;
use super::state::{Event, HostId, MILLI, State};
use super::stream::Options;
use super::words::time;

/// Datagrams that wait to be received; those that come then are lost.
const MOST_WAITING: usize = 256;
/// How many datagrams one send may be cut into.
const MOST_SEGMENTS: usize = 64;

#[derive(Default)]
pub(super) struct Datagram {
    pub(super) v6: bool,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) options: Options,
    pub(super) wants: Wants,
    queue: VecDeque<Arrived>,
    error: Option<i32>,
}

/// What a socket was told to do and to receive beside the bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wants {
    pub(crate) broadcast: bool,
    pub(crate) packet_info: bool,
    pub(crate) hop_limit: bool,
    pub(crate) traffic_class: bool,
    pub(crate) class: u8,
    /// In the order v4, v6.
    pub(crate) multicast_loop: [Option<bool>; 2],
    pub(crate) multicast_hops: [Option<u32>; 2],
}

/// A datagram that waits to be received.
pub(super) struct Arrived {
    pub(super) from: SocketAddr,
    pub(super) to: IpAddr,
    pub(super) hops: u8,
    pub(super) class: u8,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Packet {
    sender: FileId,
    to_host: HostId,
    port: u16,
    arrived: Arrived,
}

impl Datagram {
    pub(super) fn new(v6: bool) -> Datagram {
        Datagram { v6, ..Datagram::default() }
    }

    pub(super) fn ready(&self) -> i16 {
        let readable = !self.queue.is_empty() || self.error.is_some();
        let failed = if self.error.is_some() { libc::POLLERR } else { 0 };
        libc::POLLOUT | failed | if readable { libc::POLLIN } else { 0 }
    }
}

impl State {
    pub(super) fn datagram(&self, id: FileId) -> Option<&Datagram> {
        match self.file(id) {
            Some(File { kind: Kind::Datagram(datagram), .. }) => Some(datagram),
            _ => None,
        }
    }

    pub(super) fn datagram_mut(&mut self, id: FileId) -> Option<&mut Datagram> {
        match self.file_mut(id) {
            Some(File { kind: Kind::Datagram(datagram), .. }) => Some(datagram),
            _ => None,
        }
    }

    pub(super) fn bind_datagram(&mut self, id: FileId, host: HostId, address: SocketAddr) -> i32 {
        if self.datagrams.contains_key(&(host, address.port())) {
            return -libc::EADDRINUSE;
        }
        match self.datagram_mut(id) {
            Some(datagram) if datagram.local.is_some() => return -libc::EINVAL,
            Some(datagram) => datagram.local = Some(address),
            None => return -libc::EBADF,
        }
        self.datagrams.insert((host, address.port()), id);
        0
    }

    pub(super) fn datagram_closed(&mut self, id: FileId, host: HostId, datagram: &Datagram) {
        if let Some(local) = datagram.local
            && self.datagrams.get(&(host, local.port())) == Some(&id)
        {
            self.datagrams.remove(&(host, local.port()));
        }
    }

    /// Gives a socket that nobody has bound a port.
    fn bind_by_itself(&mut self, id: FileId, host: HostId) {
        let v6 = match self.datagram(id) {
            Some(Datagram { local: None, v6, .. }) => *v6,
            _ => return,
        };
        let any: IpAddr = if v6 { [0_u16; 8].into() } else { [0_u8; 4].into() };
        let port = self.ephemeral_port(host);
        self.bind_datagram(id, host, SocketAddr::new(any, port));
    }

    /// The address that something to this one comes from.
    fn source(&self, host: HostId, local: SocketAddr, to: IpAddr) -> SocketAddr {
        if !local.ip().is_unspecified() {
            return local;
        }
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == to.is_ipv4();
        let ip = match to.is_loopback() || to.is_unspecified() {
            true => to,
            false => self.host(host).addresses.iter().find(of_family).copied().unwrap_or(to),
        };
        SocketAddr::new(ip, local.port())
    }

    pub(super) fn connect_datagram(&mut self, id: FileId, to: SocketAddr) -> i32 {
        let Some(host) = self.file(id).map(|file| file.host) else { return -libc::EBADF };
        self.bind_by_itself(id, host);
        let local = self.datagram(id).and_then(|datagram| datagram.local);
        let local = local.map(|local| self.source(host, local, to.ip()));
        if let Some(datagram) = self.datagram_mut(id) {
            (datagram.local, datagram.remote) = (local, Some(to));
        }
        0
    }

    pub(super) fn receive_datagram(&mut self, id: FileId, peek: bool) -> Result<Arrived, i32> {
        let Some(datagram) = self.datagram_mut(id) else { return Err(-libc::EBADF) };
        if let Some(error) = datagram.error.take() {
            return Err(-error);
        }
        if peek && let Some(first) = datagram.queue.front() {
            return Ok(Arrived { bytes: first.bytes.clone(), ..*first });
        }
        datagram.queue.pop_front().ok_or(-libc::EAGAIN)
    }

    /// Whether a datagram of so many bytes may be sent there, or to where the socket is connected.
    pub(super) fn may_send_datagram(
        &mut self,
        id: FileId,
        len: usize,
        to: Option<SocketAddr>,
    ) -> Result<usize, i32> {
        let Some(datagram) = self.datagram_mut(id) else { return Err(-libc::EBADF) };
        if let Some(error) = datagram.error.take() {
            return Err(-error);
        }
        let Some(to) = to.or(datagram.remote) else { return Err(-libc::EDESTADDRREQ) };
        if to.port() == 0 {
            return Err(-libc::EINVAL);
        }
        if to.is_ipv6() != datagram.v6 {
            return Err(-libc::EAFNOSUPPORT);
        }
        match to.ip() {
            IpAddr::V4(ip) if ip.is_broadcast() && !datagram.wants.broadcast => {
                return Err(-libc::EACCES);
            }
            IpAddr::V4(ip) if ip.is_broadcast() => return Err(-libc::EOPNOTSUPP),
            ip if ip.is_multicast() => return Err(-libc::EOPNOTSUPP),
            _ => {}
        }
        // What a packet may have, without the heads of both protocols.
        let longest = if datagram.v6 { 65_527 } else { 65_507 };
        if len > longest { Err(-libc::EMSGSIZE) } else { Ok(len) }
    }

    /// Sends what [`State::may_send_datagram`] allowed: one datagram, or several where it is to be cut.
    pub(super) fn send_datagram(
        &mut self,
        id: FileId,
        bytes: Vec<u8>,
        to: Option<SocketAddr>,
        asked: Asked,
    ) -> Result<(), i32> {
        let Some(host) = self.file(id).map(|file| file.host) else { return Err(-libc::EBADF) };
        self.bind_by_itself(id, host);
        let Some(datagram) = self.datagram(id) else { return Err(-libc::EBADF) };
        let (Some(local), Some(to)) = (datagram.local, to.or(datagram.remote)) else {
            return Err(-libc::EDESTADDRREQ);
        };
        let hops = asked.hops.or(datagram.options.ttl.map(|ttl| ttl as u8)).unwrap_or(64);
        let class = asked.class.unwrap_or(datagram.wants.class);
        let from = match asked.source {
            Some(ip) if ip.is_unspecified() => self.source(host, local, to.ip()),
            Some(ip) if self.route(host, ip) != Some(host) => return Err(-libc::EINVAL),
            Some(ip) => SocketAddr::new(ip, local.port()),
            None => self.source(host, local, to.ip()),
        };
        let arrived = |bytes: Vec<u8>| Arrived { from, to: to.ip(), hops, class, bytes };
        let segment = asked.segment.map_or(0, usize::from);
        if segment == 0 || segment >= bytes.len() {
            self.send_one(id, host, to, arrived(bytes));
            return Ok(());
        }
        if bytes.len().div_ceil(segment) > MOST_SEGMENTS {
            return Err(-libc::EINVAL);
        }
        for bytes in bytes.chunks(segment) {
            self.send_one(id, host, to, arrived(bytes.to_vec()));
        }
        Ok(())
    }

    fn send_one(&mut self, sender: FileId, host: HostId, to: SocketAddr, arrived: Arrived) {
        // Nobody has the address, or nobody on the way to it: it is gone.
        let Some(to_host) = self.route(host, to.ip()) else { return };
        let who = u64::from(arrived.from.port());
        let len = arrived.bytes.len();
        let ways = |state: &State| {
            let (from, to) = (state.host_name(host), state.host_name(to_host));
            format!("a datagram of {len} bytes from {from} to {to}")
        };
        if self.is_cut(host, to_host) {
            return;
        }
        if self.fault(Fault::DatagramLost, who, String::new) {
            self.tell(Fault::DatagramLost.name(), who, |state| format!("{} was lost", ways(state)));
            return;
        }
        let twice = self.fault(Fault::DatagramTwice, who, String::new);
        if twice {
            let name = Fault::DatagramTwice.name();
            self.tell(name, who, |state| format!("{} came twice", ways(state)));
        }
        for _ in 0..1 + u32::from(twice) {
            let mut after = self.trip(who, host, to_host);
            if self.fault(Fault::DatagramOvertakes, who, String::new) {
                let late = self.choose("datagram overtaken by", who, 50) * MILLI;
                after += late;
                self.tell(Fault::DatagramOvertakes.name(), who, |state| {
                    format!("{} was {} late", ways(state), time(late))
                });
            }
            let arrived = Arrived { bytes: arrived.bytes.clone(), ..arrived };
            let packet = Packet { sender, to_host, port: to.port(), arrived };
            self.send_over(host, to_host, self.now + after, Event::Packet(packet));
        }
    }

    pub(super) fn packet_arrives(&mut self, packet: Packet) {
        let Packet { sender, to_host, port, arrived } = packet;
        if !self.host(to_host).up {
            return;
        }
        let target = self.datagrams.get(&(to_host, port)).copied();
        let hears = |datagram: &Datagram| {
            let here = datagram.local.is_some_and(|local| {
                local.ip().is_unspecified()
                    || local.ip() == arrived.to
                    || arrived.to.is_unspecified()
            });
            here && datagram.remote.is_none_or(|remote| remote == arrived.from)
        };
        let target = target.filter(|target| self.datagram(*target).is_some_and(hears));
        let Some(target) = target else {
            // The host says that nobody is there. A sender that is connected hears of it at its next call.
            let to = SocketAddr::new(arrived.to, port);
            if let Some(datagram) = self.datagram_mut(sender)
                && datagram.remote == Some(to)
            {
                datagram.error = Some(libc::ECONNREFUSED);
                self.wake_file(sender, libc::POLLIN | libc::POLLERR);
            }
            return;
        };
        if let Some(datagram) = self.datagram_mut(target)
            && datagram.queue.len() < MOST_WAITING
        {
            datagram.queue.push_back(arrived);
            self.wake_file(target, libc::POLLIN);
        }
    }
}
