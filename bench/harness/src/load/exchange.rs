//! Requests and answers over connections that stay.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use io_uring::types::Fixed;
use io_uring::{cqueue, opcode, squeue};

use super::http::{self, ResponseCounter};
use super::ring::{Event, GROUP, Pool, Ring};
use super::{Driven, PATIENCE, latencies, sockets};
use crate::cells::{Load, Pace};
use crate::error::{During, Error, Result};

/// Connections to one server, each with one receive that stays armed.
pub(crate) struct Exchange {
    // Before the memory that its operations use: fields are dropped in this order, and the ring
    // waits for its operations when it is closed.
    ring: Ring,
    pool: Pool,
    /// What is sent, again and again.
    message: Vec<u8>,
    /// Requests in one message.
    depth: usize,
    receive_flags: i32,
    connections: Vec<Connection>,
    pace: Pace,
    sleeps: bool,
    /// Requests without an answer so far.
    under_way: usize,
    closed: usize,
    events: Vec<Event>,
    /// The beginning of time for the due times.
    epoch: Instant,
}

struct Connection {
    answers: Answers,
    /// When each request without an answer was meant to be sent, the oldest first.
    due: VecDeque<u64>,
}

enum Answers {
    /// Echoes of `size` bytes, and how much of the next one is there.
    Echo {
        size: usize,
        partial: usize,
    },
    Http(ResponseCounter),
}

const SENT: u64 = 1;

/// From this size on, the kernel drops what is received instead of copying it out.
const NOT_COPIED: usize = 4096;

impl Exchange {
    pub(crate) fn connect(addr: SocketAddr, load: Load, count: usize) -> Result<Self> {
        let (message, depth) = match load {
            Load::Echo { size, depth } => (pattern(size * depth), depth),
            Load::Http { path, depth } => (http::request(path).repeat(depth), depth),
            Load::Churn { .. } => unreachable!("churn has its own driver"),
        };
        let ring = Ring::new(4096, 32768)?;
        let (pool, receive_flags) = match load {
            Load::Echo { size, depth } if size * depth >= NOT_COPIED => {
                (Pool::register(&ring, 1024, 128 * 1024, false)?, libc::MSG_TRUNC)
            }
            Load::Http { depth, .. } if depth > 1 => (Pool::register(&ring, 1024, 8192, true)?, 0),
            Load::Http { .. } => (Pool::register(&ring, 4096, 2048, true)?, 0),
            _ => (Pool::register(&ring, 1024, 4096, false)?, 0),
        };
        // The descriptors are closed once the ring has the files: what it holds does not count
        // against the limit of open files.
        let sockets =
            (0..count).map(|_| sockets::connect(addr, None)).collect::<Result<Vec<_>>>()?;
        let fds: Vec<i32> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        ring.uring().submitter().register_files(&fds).during("registering the connections")?;
        drop(sockets);
        let connections = (0..count)
            .map(|_| Connection {
                answers: match load {
                    Load::Echo { size, .. } => Answers::Echo { size, partial: 0 },
                    _ => Answers::Http(ResponseCounter::default()),
                },
                due: VecDeque::with_capacity(depth),
            })
            .collect();
        let mut exchange = Self {
            ring,
            pool,
            message,
            depth,
            receive_flags,
            connections,
            pace: Pace::Closed,
            sleeps: false,
            under_way: 0,
            closed: 0,
            events: Vec::with_capacity(4096),
            epoch: Instant::now(),
        };
        for index in 0..count {
            exchange.receive(index)?;
        }
        Ok(exchange)
    }

    pub(crate) fn pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    pub(crate) fn sleeps(&mut self, sleeps: bool) {
        self.sleeps = sleeps;
    }

    /// Loads the server for `duration`, then waits for the answers that are missing.
    pub(crate) fn drive(&mut self, duration: Duration) -> Result<Driven> {
        let mut latency = latencies();
        let mut requests = 0;
        let mut idle = 0;
        let start = self.now();
        let deadline = start + duration.as_nanos() as u64;
        let give_up = deadline + PATIENCE.as_nanos() as u64;
        // The time between two sends of the fixed rate, and how many were sent.
        let (gap, mut sent) = match self.pace {
            Pace::Closed => (0, 0),
            Pace::Open { rate } => (1_000_000_000 / rate.max(1), 0u64),
        };
        if self.pace == Pace::Closed {
            for index in 0..self.connections.len() {
                self.send(index, start)?;
            }
        }
        let mut before = start;
        loop {
            if gap > 0 {
                // A send that comes late keeps the time at which it was meant: a server that stalls
                // the client does not shorten its own latencies so.
                while start + sent * gap <= before && start + sent * gap < deadline {
                    let index = (sent % self.connections.len() as u64) as usize;
                    self.send(index, start + sent * gap)?;
                    sent += 1;
                }
            }
            let events = self.turn(1)?;
            let now = self.now();
            let answered = self.answer(events, now, &mut latency, |this, index| {
                if gap == 0 && now < deadline { this.send(index, now) } else { Ok(()) }
            })?;
            if answered == 0 {
                idle += now - before;
            }
            requests += answered;
            before = now;
            self.still_open()?;
            if now >= deadline && self.under_way == 0 {
                return Ok(Driven {
                    requests,
                    wall: Duration::from_nanos(now - start),
                    idle: Duration::from_nanos(idle),
                    latency,
                });
            }
            if now > give_up {
                return Err(Error::Load(format!("{} answers did not come", self.under_way)));
            }
        }
    }

    /// Sends on every connection, waits for every answer, and so on for `turns`, asleep while the
    /// server works. `last` allows the server to end itself in the last turn.
    pub(crate) fn lock_step(&mut self, turns: usize, last: bool, patience: Duration) -> Result<()> {
        let mut latency = latencies();
        for turn in 0..turns {
            let now = self.now();
            let give_up = now + patience.as_nanos() as u64;
            for index in 0..self.connections.len() {
                self.send(index, now)?;
            }
            while self.under_way > 0 {
                self.sleeps = true;
                let events = self.turn(self.under_way.div_ceil(self.depth))?;
                self.answer(events, 0, &mut latency, |_, _| Ok(()))?;
                if self.closed > 0 && last && turn + 1 == turns {
                    return Ok(());
                }
                self.still_open()?;
                if self.now() > give_up {
                    return Err(Error::Load(format!("{} answers did not come", self.under_way)));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn turn(&mut self, want: usize) -> Result<Vec<Event>> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        if self.sleeps {
            self.ring.wait(want, Duration::from_millis(200), &mut events)?;
        } else {
            self.ring.poll(&mut events)?;
        }
        Ok(events)
    }

    /// Takes the completions, and calls `next` for each connection that has all its answers.
    fn answer(
        &mut self,
        events: Vec<Event>,
        now: u64,
        latency: &mut Histogram<u64>,
        mut next: impl FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<u64> {
        let mut answered = 0;
        for event in &events {
            let index = (event.user_data >> 1) as usize;
            if event.user_data & SENT != 0 {
                // A send speaks only when it failed.
                self.broken(event.result)?;
                continue;
            }
            if event.result > 0 {
                let id = cqueue::buffer_select(event.flags)
                    .ok_or_else(|| Error::Load("a receive without a buffer".into()))?;
                let length = event.result as usize;
                let connection = &mut self.connections[index];
                let complete = match &mut connection.answers {
                    Answers::Echo { size, partial } => {
                        *partial += length;
                        let complete = *partial / *size;
                        *partial %= *size;
                        complete
                    }
                    Answers::Http(counter) => counter.feed(self.pool.bytes(id, length))?,
                };
                for _ in 0..complete {
                    let due = connection.due.pop_front().ok_or_else(|| {
                        Error::Load("the server answers more than it was asked".into())
                    })?;
                    latency.saturating_record(now.saturating_sub(due));
                }
                let all = connection.due.is_empty();
                self.pool.give(id);
                self.under_way -= complete;
                answered += complete as u64;
                if all && complete > 0 {
                    next(self, index)?;
                }
            } else if event.result != -libc::ENOBUFS {
                self.broken(event.result)?;
                continue;
            }
            if !cqueue::more(event.flags) {
                self.pool.publish();
                self.receive(index)?;
            }
        }
        self.pool.publish();
        self.events = events;
        Ok(answered)
    }

    /// A connection that the server closed or reset is counted; any other error ends the load.
    fn broken(&mut self, result: i32) -> Result<()> {
        match -result {
            0 | libc::ECONNRESET | libc::EPIPE => {
                self.closed += 1;
                Ok(())
            }
            other => Err(std::io::Error::from_raw_os_error(other)).during("a connection's load"),
        }
    }

    fn still_open(&self) -> Result<()> {
        if self.closed == 0 {
            return Ok(());
        }
        Err(Error::Load(format!("the server closed {} connections", self.closed)))
    }

    fn send(&mut self, index: usize, due: u64) -> Result<()> {
        let connection = &mut self.connections[index];
        connection.due.extend(std::iter::repeat_n(due, self.depth));
        self.under_way += self.depth;
        let entry = opcode::Send::new(
            Fixed(index as u32),
            self.message.as_ptr(),
            self.message.len() as u32,
        )
        .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data((index as u64) << 1 | SENT);
        // SAFETY: the message is never changed, and lives until after the ring.
        unsafe { self.ring.push(&entry) }
    }

    fn receive(&mut self, index: usize) -> Result<()> {
        let entry = opcode::RecvMulti::new(Fixed(index as u32), GROUP)
            .flags(self.receive_flags)
            .build()
            .user_data((index as u64) << 1);
        // SAFETY: the entry points nowhere; the kernel takes its memory from the pool, which lives
        // until after the ring.
        unsafe { self.ring.push(&entry) }
    }
}

/// Bytes that repeat after 251, which is prime: a piece that is lost or moved shows.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}
