//! Datagrams: whole or not at all, and in no order that anybody promises.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::fault::Fault;
use super::file::{File, FileId, Kind};
use super::state::{Event, HostId, MILLI, State};
use super::words::time;

/// Datagrams that wait to be received; those that come then are lost.
const MOST_WAITING: usize = 256;
/// The longest datagram.
const LONGEST: usize = 65_507;

pub(super) struct Datagram {
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    error: Option<i32>,
}

pub(super) struct Packet {
    from: SocketAddr,
    sender: FileId,
    to_host: HostId,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Datagram {
    pub(super) fn new() -> Datagram {
        Datagram { local: None, remote: None, queue: VecDeque::new(), error: None }
    }

    pub(super) fn ready(&self) -> i16 {
        let readable = !self.queue.is_empty() || self.error.is_some();
        libc::POLLOUT | if readable { libc::POLLIN } else { 0 }
    }
}

impl State {
    fn datagram_mut(&mut self, id: FileId) -> Option<&mut Datagram> {
        match self.file_mut(id) {
            Some(File { kind: Kind::Datagram(datagram), .. }) => Some(datagram),
            _ => None,
        }
    }

    pub(super) fn bind_datagram(&mut self, id: FileId, host: HostId, address: SocketAddr) -> i32 {
        if self.datagrams.contains_key(&(host, address.port())) {
            return -libc::EADDRINUSE;
        }
        self.datagrams.insert((host, address.port()), id);
        if let Some(datagram) = self.datagram_mut(id) {
            datagram.local = Some(address);
        }
        0
    }

    pub(super) fn datagram_closed(&mut self, id: FileId, host: HostId, datagram: &Datagram) {
        if let Some(local) = datagram.local
            && self.datagrams.get(&(host, local.port())) == Some(&id)
        {
            self.datagrams.remove(&(host, local.port()));
        }
    }

    pub(super) fn connect_datagram(&mut self, id: FileId, to: SocketAddr) -> i32 {
        if let Some(datagram) = self.datagram_mut(id) {
            datagram.remote = Some(to);
        }
        0
    }

    pub(super) fn receive_datagram(&mut self, id: FileId, most: usize) -> Result<Vec<u8>, i32> {
        let Some(datagram) = self.datagram_mut(id) else { return Err(-libc::EBADF) };
        if let Some(error) = datagram.error.take() {
            return Err(-error);
        }
        let connected = datagram.remote;
        while let Some((from, mut bytes)) = datagram.queue.pop_front() {
            if connected.is_none_or(|remote| remote == from) {
                bytes.truncate(most);
                return Ok(bytes);
            }
        }
        Err(-libc::EAGAIN)
    }

    pub(super) fn may_send_datagram(&mut self, id: FileId, len: usize) -> Result<usize, i32> {
        let Some(datagram) = self.datagram_mut(id) else { return Err(-libc::EBADF) };
        if let Some(error) = datagram.error.take() {
            return Err(-error);
        }
        if datagram.remote.is_none() {
            return Err(-libc::EDESTADDRREQ);
        }
        if len > LONGEST { Err(-libc::EMSGSIZE) } else { Ok(len) }
    }

    pub(super) fn send_datagram(&mut self, id: FileId, bytes: Vec<u8>) {
        let Some(host) = self.file(id).map(|file| file.host) else { return };
        let Some(datagram) = self.datagram_mut(id) else { return };
        let (Some(from), Some(to)) = (datagram.local, datagram.remote) else { return };
        let Some(to_host) = self.route(host, to.ip()) else { return };
        let who = u64::from(from.port());
        let ways = |state: &State| {
            let (from, to) = (state.host_name(host), state.host_name(to_host));
            format!("a datagram of {} bytes from {from} to {to}", bytes.len())
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
            let packet = Packet { from, sender: id, to_host, to, bytes: bytes.clone() };
            self.send_over(host, to_host, self.now + after, Event::Packet(packet));
        }
    }

    pub(super) fn packet_arrives(&mut self, packet: Packet) {
        let Packet { from, sender, to_host, to, bytes } = packet;
        if !self.host(to_host).up {
            return;
        }
        let Some(target) = self.datagrams.get(&(to_host, to.port())).copied() else {
            // The host says that nobody is there; the next call on the sender's socket hears of it.
            if let Some(datagram) = self.datagram_mut(sender) {
                datagram.error = Some(libc::ECONNREFUSED);
                self.wake_file(sender, libc::POLLIN | libc::POLLERR);
            }
            return;
        };
        if let Some(datagram) = self.datagram_mut(target)
            && datagram.queue.len() < MOST_WAITING
        {
            datagram.queue.push_back((from, bytes));
            self.wake_file(target, libc::POLLIN);
        }
    }
}
