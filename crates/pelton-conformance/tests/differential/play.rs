//! Playing a script on a backend, with the model beside it: each outcome is held against the set that the model
//! allows at that moment, and what the model says must end is waited for.

use std::collections::BTreeSet;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use pelton_conformance::{Bench, Rig, errno, pattern};
use pelton_driver::{
    Accepted, Accepting, Connecting, Fd, Filling, Interest, Key, OpId, Payload, Plain, Sending,
    SendingAll, Submission, Token,
};

use crate::connection::{Connection, Wrong};
use crate::file::{File, Reading};
use crate::script::{End, Step};

/// Clients and connections that a script makes, at most: a backlog has room for them.
const CLIENTS: usize = 16;

enum Held {
    Sending(Key<Sending<Vec<u8>>>),
    Parts(Key<SendingAll<Vec<Vec<u8>>>>),
    Filling(Key<Filling<Vec<u8>>>),
    Plain(Key<Plain>),
    Connecting(Key<Connecting>),
    Accepting(Key<Accepting>),
}

enum What {
    Send {
        end: End,
        len: usize,
        all: bool,
    },
    Receive {
        end: End,
        room: usize,
    },
    /// `was`: there was something to receive since the poll began.
    Readable {
        end: End,
        was: bool,
    },
    Writable {
        end: End,
    },
    Connect {
        somebody: bool,
    },
    Accept,
    Write,
    Read(Reading),
    Sync,
    Timeout(Instant),
}

struct InFlight {
    number: usize,
    held: Held,
    what: What,
    cancelled: bool,
}

enum Outcome {
    Bytes(io::Result<usize>, Vec<u8>),
    Errno(i32),
    Accepted(io::Result<Accepted>),
}

pub(crate) struct Play<'a> {
    driver: &'a Rig,
    ends: [Fd; 4],
    connections: [Connection; 2],
    file: Fd,
    model: File,
    listener: Fd,
    address: SocketAddr,
    nobody: SocketAddr,
    listening: bool,
    /// Local addresses of clients, and how many of them are connected and not yet accepted.
    clients: BTreeSet<SocketAddr>,
    connected: usize,
    accepted: usize,
    in_flight: Vec<InFlight>,
    number: usize,
}

/// Plays a script. What the model does not allow panics.
pub(crate) fn play(on: &Bench, script: &[Step]) {
    let driver = on.driver();
    let (one, two) = (driver.pair(), driver.local_pair());
    let file = driver.file(on, "file");
    let (listener, address) = driver.listening();
    let mut play = Play {
        driver: &driver,
        ends: [one.0, one.1, two.0, two.1],
        connections: [Connection::new(false), Connection::new(true)],
        file,
        model: File::default(),
        listener,
        address,
        nobody: on.nobody_at(address),
        listening: true,
        clients: BTreeSet::new(),
        connected: 0,
        accepted: 0,
        in_flight: Vec::new(),
        number: 0,
    };
    for (n, step) in script.iter().enumerate() {
        let wrong = play.step(n, step).and_then(|()| play.collect());
        if let Err(what) = wrong {
            panic!("step {n} {step:?}: {what}");
        }
    }
    if let Err(what) = play.finish() {
        panic!("at the end: {what}");
    }
}

impl Play<'_> {
    fn step(&mut self, n: usize, step: &Step) -> Result<(), Wrong> {
        let driver = self.driver;
        match *step {
            Step::Send { end, len, all } if !self.is_sending(end) => {
                let bytes = pattern(n, len);
                let (fd, own) = (self.ends[end], bytes.clone());
                let send =
                    if all { Submission::send_all(fd, own) } else { Submission::send(fd, own) };
                self.begin_send(end, &bytes, all, |driver| {
                    driver.submit(send, Token::NONE).map(Held::Sending).map_err(|r| r.error)
                })
            }
            Step::SendParts { end, one, other } if !self.is_sending(end) => {
                let parts = vec![pattern(n, one), pattern(n + 1, other)];
                let bytes = parts.concat();
                let send = Submission::send_vectored_all(self.ends[end], parts);
                self.begin_send(end, &bytes, true, |driver| {
                    driver.submit(send, Token::NONE).map(Held::Parts).map_err(|r| r.error)
                })
            }
            Step::Receive { end, room } if !self.is_receiving(end) => {
                let recv = Submission::recv(self.ends[end], Vec::with_capacity(room));
                let begun = driver.submit(recv, Token::NONE).map(Held::Filling);
                self.begin_at(end, What::Receive { end, room }, begun.map_err(|r| r.error))
            }
            Step::Readable(end) => {
                let was = self.of(end).0.readable(end & 1);
                let poll = Submission::poll(self.ends[end], Interest::Readable);
                let begun = driver.submit(poll, Token::NONE).map(Held::Plain);
                self.begin_at(end, What::Readable { end, was }, begun.map_err(|r| r.error))
            }
            Step::Writable(end) => {
                let poll = Submission::poll(self.ends[end], Interest::Writable);
                let begun = driver.submit(poll, Token::NONE).map(Held::Plain);
                self.begin_at(end, What::Writable { end }, begun.map_err(|r| r.error))
            }
            Step::Shutdown(end, how) => self.shut_down(end, how),
            Step::Close(end) => {
                self.of(end).0.close(end & 1);
                driver.close(self.ends[end]);
                Ok(())
            }
            Step::Connect { somebody } if self.clients.len() < CLIENTS => {
                let to = if somebody { self.address } else { self.nobody };
                let client = driver.socket(to);
                let key = driver.go(Submission::connect(client, to));
                // Its port is chosen when it connects, which a ring does at the next tick.
                driver.tick(Some(Duration::ZERO), |_| {}).expect("a tick");
                if somebody && let Ok(local) = driver.local_addr(client) {
                    self.clients.insert(local);
                }
                self.begin(Held::Connecting(key), What::Connect { somebody });
                Ok(())
            }
            Step::Accept => match driver.submit(Submission::accept(self.listener), Token::NONE) {
                Ok(key) => {
                    self.begin(Held::Accepting(key), What::Accept);
                    Ok(())
                }
                Err(refused) => self.refused(!self.listening, &refused.error),
            },
            Step::StopListening => {
                self.listening = false;
                driver.close(self.listener);
                Ok(())
            }
            Step::WriteAt { at, len } => {
                let bytes = pattern(n, len);
                let reads = self.in_flight.iter_mut().filter_map(|one| match &mut one.what {
                    What::Read(reading) => Some(reading),
                    _ => None,
                });
                self.model.write(self.number, at, &bytes, reads);
                let key = driver.go(Submission::write_at(self.file, bytes, at as u64));
                self.begin(Held::Sending(key), What::Write);
                Ok(())
            }
            Step::ReadAt { at, len } => {
                let reading = self.model.read(at, len);
                let room = Vec::with_capacity(len);
                let key = driver.go(Submission::read_at(self.file, room, at as u64));
                self.begin(Held::Filling(key), What::Read(reading));
                Ok(())
            }
            Step::Sync { data_only } => {
                let key = driver.go(Submission::sync(self.file, data_only));
                self.begin(Held::Plain(key), What::Sync);
                Ok(())
            }
            Step::Timeout(micros) => {
                let due = driver.now() + Duration::from_micros(micros);
                let key = driver.go(Submission::timeout(due));
                self.begin(Held::Plain(key), What::Timeout(due));
                Ok(())
            }
            Step::Cancel { which, by_operation } if !self.in_flight.is_empty() => {
                let which = which % self.in_flight.len();
                self.cancel(which, by_operation)
            }
            Step::Settle => self.settle(),
            _ => Ok(()),
        }
    }

    fn of(&mut self, end: End) -> (&mut Connection, usize) {
        (&mut self.connections[end / 2], end & 1)
    }

    fn begin(&mut self, held: Held, what: What) {
        self.in_flight.push(InFlight { number: self.number, held, what, cancelled: false });
        self.number += 1;
    }

    fn begin_at(&mut self, end: End, what: What, begun: io::Result<Held>) -> Result<(), Wrong> {
        match begun {
            Ok(held) => {
                self.begin(held, what);
                Ok(())
            }
            Err(error) => {
                let closed = self.connections[end / 2].is_closed(end & 1);
                self.refused(closed, &error)
            }
        }
    }

    fn begin_send(
        &mut self,
        end: End,
        bytes: &[u8],
        all: bool,
        submit: impl FnOnce(&Rig) -> io::Result<Held>,
    ) -> Result<(), Wrong> {
        let begun = submit(self.driver);
        if begun.is_ok() {
            let (connection, at) = self.of(end);
            connection.send(at, bytes);
        }
        self.begin_at(end, What::Send { end, len: bytes.len(), all }, begun)
    }

    /// Only a descriptor that is closed refuses, and always in the same way.
    fn refused(&self, closed: bool, error: &io::Error) -> Result<(), Wrong> {
        let right = closed && error.raw_os_error() == Some(libc::EBADF);
        if right { Ok(()) } else { Err(format!("refused: {error}")) }
    }

    fn shut_down(&mut self, end: End, how: Shutdown) -> Result<(), Wrong> {
        match self.driver.submit(Submission::shutdown(self.ends[end], how), Token::NONE) {
            Ok(key) => {
                let (connection, at) = self.of(end);
                connection.shut(at, how);
                let errno = errno(self.driver.end(key));
                self.connections[end / 2].shut_down(end & 1, errno)
            }
            Err(refused) => self.begin_at(end, What::Accept, Err(refused.error)),
        }
    }

    fn cancel(&mut self, which: usize, by_operation: bool) -> Result<(), Wrong> {
        let driver = self.driver;
        let id = self.in_flight[which].held.id();
        let done = self.in_flight[which].held.is_done(driver);
        let found = if by_operation {
            let key = driver.go(Submission::cancel(id));
            match errno(driver.end(key)) {
                0 => true,
                libc::ENOENT => false,
                other => return Err(format!("a cancel ended with errno {other}")),
            }
        } else {
            driver.cancel(id)
        };
        if done && found {
            return Err("a cancel found what had ended".into());
        }
        if !done && !found {
            return Err("a cancel did not find what was in flight".into());
        }
        self.in_flight[which].cancelled |= found;
        Ok(())
    }

    fn is_sending(&self, end: End) -> bool {
        let on = |what: &What| matches!(what, What::Send { end: on, .. } if *on == end);
        self.in_flight.iter().any(|one| on(&one.what))
    }

    fn is_receiving(&self, end: End) -> bool {
        let on = |what: &What| matches!(what, What::Receive { end: on, .. } if *on == end);
        self.in_flight.iter().any(|one| on(&one.what))
    }

    /// Waits for what must come to its end, and holds that against the model.
    fn settle(&mut self) -> Result<(), Wrong> {
        loop {
            self.collect()?;
            let due: Vec<OpId> = self
                .in_flight
                .iter()
                .filter(|one| self.must_end(one))
                .map(|one| one.held.id())
                .collect();
            if due.is_empty() {
                return Ok(());
            }
            let driver = self.driver;
            let ended = || {
                let is = |one: &&InFlight| due.contains(&one.held.id());
                self.in_flight.iter().filter(is).any(|one| one.held.is_done(driver))
            };
            driver.until(ended);
        }
    }

    fn must_end(&self, one: &InFlight) -> bool {
        let at = |end: End| (&self.connections[end / 2], end & 1);
        one.cancelled
            || match one.what {
                What::Send { end, len, .. } => {
                    let (connection, end) = at(end);
                    len < 10_000 && connection.must_send(end)
                }
                What::Receive { end, .. } | What::Readable { end, .. } => {
                    let (connection, end) = at(end);
                    connection.must_receive(end)
                }
                What::Writable { end } => {
                    let (connection, end) = at(end);
                    connection.must_send(end)
                }
                What::Accept => !self.listening || self.connected > self.accepted,
                What::Timeout(due) => due <= self.driver.now() + Duration::from_millis(1),
                What::Connect { .. } | What::Write | What::Read(_) | What::Sync => true,
            }
    }

    /// Takes the outcomes of what has ended, and holds each against the model.
    fn collect(&mut self) -> Result<(), Wrong> {
        let driver = self.driver;
        let mut ended = Vec::new();
        for one in std::mem::take(&mut self.in_flight) {
            let InFlight { number, held, what, cancelled } = one;
            match held.take(driver) {
                Ok(outcome) => ended.push((number, what, cancelled, outcome)),
                Err(held) => self.in_flight.push(InFlight { number, held, what, cancelled }),
            }
        }
        // What was sent is known before what was received is looked at.
        let (sends, mut others): (Vec<_>, Vec<_>) =
            ended.into_iter().partition(|(_, what, ..)| matches!(what, What::Send { .. }));
        for (number, what, cancelled, outcome) in sends {
            self.came(number, what, cancelled, outcome)?;
        }
        // A poll may be told of what a receive beside it takes now.
        let polls = self.in_flight.iter_mut().map(|one| &mut one.what);
        for what in polls.chain(others.iter_mut().map(|(_, what, ..)| what)) {
            if let What::Readable { end, was } = what {
                *was |= self.connections[*end / 2].readable(*end & 1);
            }
        }
        for (number, what, cancelled, outcome) in others {
            self.came(number, what, cancelled, outcome)?;
        }
        Ok(())
    }

    fn came(
        &mut self,
        number: usize,
        what: What,
        cancelled: bool,
        outcome: Outcome,
    ) -> Result<(), Wrong> {
        match (what, outcome) {
            (What::Send { end, len, all }, Outcome::Bytes(result, _)) => {
                let (connection, end) = self.of(end);
                connection.sent(end, len, all, cancelled, &result)
            }
            (What::Receive { end, room }, Outcome::Bytes(result, bytes)) => {
                let (connection, end) = self.of(end);
                connection.received(end, room, cancelled, &result, &bytes)
            }
            (What::Readable { end, was }, Outcome::Errno(errno)) => {
                let (connection, end) = self.of(end);
                match errno {
                    0 if was || connection.readable(end) => Ok(()),
                    0 => Err("readable, and nothing is there".into()),
                    _ => given_up("a poll", errno, cancelled || connection.is_closed(end)),
                }
            }
            (What::Writable { end }, Outcome::Errno(errno)) => {
                let (connection, end) = self.of(end);
                given_up("a poll", errno, cancelled || connection.is_closed(end))
            }
            (What::Connect { somebody }, Outcome::Errno(errno)) => {
                self.connected += usize::from(errno == 0);
                match errno {
                    0 if somebody => Ok(()),
                    0 => Err("a connection to nobody".into()),
                    libc::ECONNREFUSED | libc::ECONNRESET if !somebody || !self.listening => Ok(()),
                    _ => given_up("a connect", errno, cancelled),
                }
            }
            (What::Accept, Outcome::Accepted(result)) => match result {
                Ok(accepted) => {
                    self.accepted += 1;
                    let peer = accepted.peer;
                    self.driver.adopt(accepted);
                    match peer {
                        Some(peer) if self.clients.remove(&peer) => Ok(()),
                        peer => Err(format!("a connection of {peer:?}, which is none of ours")),
                    }
                }
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(-1);
                    given_up("an accept", errno, cancelled || !self.listening)
                }
            },
            (What::Write, Outcome::Bytes(result, _)) => {
                self.model.wrote(number, cancelled, &result)
            }
            (What::Read(reading), Outcome::Bytes(result, bytes)) => {
                self.model.has_read(&reading, cancelled, &result, &bytes)
            }
            (What::Sync, Outcome::Errno(errno)) => given_up("a sync", errno, cancelled),
            (What::Timeout(due), Outcome::Errno(errno)) => {
                if errno == 0 && self.driver.now() < due {
                    return Err("a timeout fired early".into());
                }
                given_up("a timeout", errno, cancelled)
            }
            _ => Err("an outcome of another kind".into()),
        }
    }

    /// Receives what is on its way, ends everything, and looks whether all has come.
    fn finish(&mut self) -> Result<(), Wrong> {
        self.settle()?;
        for end in 0..4 {
            self.drain(end)?;
        }
        self.driver.cancel_all();
        self.in_flight.iter_mut().for_each(|one| one.cancelled = true);
        self.settle()?;
        let len = self.model.len() + 10;
        self.step(0, &Step::ReadAt { at: 0, len })?;
        self.settle()?;
        for end in 0..4 {
            let (connection, at) = self.of(end);
            connection.at_the_end(at).map_err(|what| format!("at end {end}: {what}"))?;
        }
        Ok(())
    }

    /// Receives what an end has sent and is sending, as far as anybody does.
    fn drain(&mut self, end: End) -> Result<(), Wrong> {
        let peer = end ^ 1;
        loop {
            let (sending, before) = (self.is_sending(end), self.connections[end / 2].progress());
            let (connection, at) = self.of(peer);
            if connection.is_closed(at) || !(sending || connection.owes(at)) {
                return Ok(());
            }
            if !self.is_receiving(peer) {
                self.step(0, &Step::Receive { end: peer, room: 1 << 20 })?;
            }
            let driver = self.driver;
            // Something else that ends in between says nothing of these bytes.
            let concerns = |what: &What| match *what {
                What::Send { end: from, .. } => from == end,
                What::Receive { end: to, .. } => to == peer,
                _ => false,
            };
            let ended = |one: &InFlight| concerns(&one.what) && one.held.is_done(driver);
            driver.until(|| self.in_flight.iter().any(ended));
            self.collect()?;
            // The end of the stream, or an error, and it will be so again.
            if self.connections[end / 2].progress() == before && self.is_sending(end) == sending {
                return Ok(());
            }
        }
    }
}

/// An operation without a number: it is done, or was given up.
fn given_up(what: &str, errno: i32, may: bool) -> Result<(), Wrong> {
    match errno {
        0 => Ok(()),
        libc::ECANCELED if may => Ok(()),
        _ => Err(format!("{what} ended with errno {errno}")),
    }
}

fn taken<P: Payload>(
    driver: &Rig,
    key: Key<P>,
    held: fn(Key<P>) -> Held,
    outcome: impl FnOnce(P::Output) -> Outcome,
) -> Result<Outcome, Held> {
    driver.take(key).map(outcome).map_err(held)
}

impl Held {
    fn id(&self) -> OpId {
        match self {
            Held::Sending(key) => key.id(),
            Held::Parts(key) => key.id(),
            Held::Filling(key) => key.id(),
            Held::Plain(key) => key.id(),
            Held::Connecting(key) => key.id(),
            Held::Accepting(key) => key.id(),
        }
    }

    fn is_done(&self, driver: &Rig) -> bool {
        match self {
            Held::Sending(key) => driver.is_done(key),
            Held::Parts(key) => driver.is_done(key),
            Held::Filling(key) => driver.is_done(key),
            Held::Plain(key) => driver.is_done(key),
            Held::Connecting(key) => driver.is_done(key),
            Held::Accepting(key) => driver.is_done(key),
        }
    }

    fn take(self, driver: &Rig) -> Result<Outcome, Held> {
        let no_bytes = |result| Outcome::Bytes(result, Vec::new());
        match self {
            Held::Sending(key) => taken(driver, key, Held::Sending, |(n, _)| no_bytes(n)),
            Held::Parts(key) => taken(driver, key, Held::Parts, |(n, _)| no_bytes(n)),
            Held::Filling(key) => {
                taken(driver, key, Held::Filling, |(n, bytes)| Outcome::Bytes(n, bytes))
            }
            Held::Plain(key) => taken(driver, key, Held::Plain, |end| Outcome::Errno(errno(end))),
            Held::Connecting(key) => {
                taken(driver, key, Held::Connecting, |end| Outcome::Errno(errno(end)))
            }
            Held::Accepting(key) => taken(driver, key, Held::Accepting, Outcome::Accepted),
        }
    }
}
