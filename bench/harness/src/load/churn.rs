//! Short connections: opened, used a little or not at all, closed.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use super::exchange::pattern;
use super::ring::{Event, Ring};
use super::{Driven, PATIENCE, latencies, sockets};
use crate::error::{During, Error, Result};

const SIZE: usize = 64;

/// Places for connections, each of which opens a new one when the last is closed. A connection
/// makes `exchanges` echoes, says that it will send no more, and is done when the server closes.
pub(crate) struct Churn {
    // Dropped before the memory that its operations use.
    ring: Ring,
    addr: SocketAddr,
    exchanges: usize,
    places: Vec<Place>,
    message: Vec<u8>,
    /// Connections made so far, which chooses the next one's source address.
    made: u64,
    events: Vec<Event>,
    epoch: Instant,
}

struct Place {
    socket: Option<OwnedFd>,
    /// Exchanges still to make.
    left: usize,
    /// Bytes of the echo that are there.
    received: usize,
    /// When the connection or the exchange began.
    since: u64,
    buffer: Box<[u8; SIZE]>,
}

const SENT: u64 = 1;

impl Churn {
    pub(crate) fn new(addr: SocketAddr, places: usize, exchanges: usize) -> Result<Self> {
        let places = (0..places)
            .map(|_| Place {
                socket: None,
                left: 0,
                received: 0,
                since: 0,
                buffer: Box::new([0; SIZE]),
            })
            .collect();
        Ok(Self {
            ring: Ring::new(1024, 4096)?,
            addr,
            exchanges,
            places,
            message: pattern(SIZE),
            made: 0,
            events: Vec::with_capacity(1024),
            epoch: Instant::now(),
        })
    }

    pub(crate) fn drive(&mut self, duration: Duration) -> Result<Driven> {
        let mut latency = latencies();
        let mut requests = 0;
        let mut idle = 0;
        let start = self.now();
        let deadline = start + duration.as_nanos() as u64;
        let give_up = deadline + PATIENCE.as_nanos() as u64;
        for index in 0..self.places.len() {
            self.open(index)?;
        }
        let mut open = self.places.len();
        let mut before = start;
        loop {
            let mut events = std::mem::take(&mut self.events);
            events.clear();
            self.ring.poll(&mut events)?;
            let now = self.now();
            if events.is_empty() {
                idle += now - before;
            }
            before = now;
            for event in &events {
                let index = (event.user_data >> 1) as usize;
                if event.user_data & SENT != 0 || event.result < 0 {
                    let error = std::io::Error::from_raw_os_error(-event.result);
                    return Err(error).during("a short connection");
                }
                let length = event.result as usize;
                let place = &mut self.places[index];
                if place.left > 0 && length > 0 {
                    place.received += length;
                    if place.received < SIZE {
                        self.receive(index)?;
                        continue;
                    }
                    place.left -= 1;
                    latency.saturating_record(now - place.since);
                    requests += 1;
                    self.proceed(index, now)?;
                } else if place.left == 0 && length == 0 {
                    if self.exchanges == 0 {
                        latency.saturating_record(now - place.since);
                        requests += 1;
                    }
                    place.socket = None;
                    if now < deadline {
                        self.open(index)?;
                    } else {
                        open -= 1;
                    }
                } else {
                    let what = if length == 0 { "closed early" } else { "sent too much" };
                    return Err(Error::Load(format!("the server {what} on a short connection")));
                }
            }
            self.events = events;
            if open == 0 {
                return Ok(Driven {
                    requests,
                    wall: Duration::from_nanos(self.now() - start),
                    idle: Duration::from_nanos(idle),
                    latency,
                });
            }
            if now > give_up {
                return Err(Error::Load(format!("{open} short connections did not end")));
            }
        }
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let now = self.now();
        // A port rests after its connection. 4 000 connections for each address stay below the
        // 28 000 that one has, and 200 addresses come round only after 800 000 connections.
        let source = Ipv4Addr::new(127, 0, 1, 1 + (self.made / 4000 % 200) as u8);
        self.made += 1;
        let place = &mut self.places[index];
        place.left = self.exchanges;
        place.socket = Some(sockets::connect(self.addr, Some(source))?);
        place.since = now;
        self.proceed(index, now)
    }

    /// Makes the next exchange, or ends the connection after the last.
    fn proceed(&mut self, index: usize, now: u64) -> Result<()> {
        let place = &mut self.places[index];
        place.received = 0;
        let socket = place.socket.as_ref().expect("the place has a connection");
        if place.left == 0 {
            sockets::end_sending(socket)?;
        } else {
            place.since = now;
            let entry =
                opcode::Send::new(Fd(socket.as_raw_fd()), self.message.as_ptr(), SIZE as u32)
                    .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS)
                    .user_data((index as u64) << 1 | SENT);
            // SAFETY: the message is never changed, and lives until after the ring.
            unsafe { self.ring.push(&entry)? };
        }
        self.receive(index)
    }

    fn receive(&mut self, index: usize) -> Result<()> {
        let place = &mut self.places[index];
        let socket = place.socket.as_ref().expect("the place has a connection");
        let into = &mut place.buffer[place.received..];
        let entry = opcode::Recv::new(Fd(socket.as_raw_fd()), into.as_mut_ptr(), into.len() as u32)
            .build()
            .user_data((index as u64) << 1);
        // SAFETY: the buffer is boxed, lives until after the ring, and the place has no other
        // receive: this one is armed after the last one's completion.
        unsafe { self.ring.push(&entry) }
    }
}
