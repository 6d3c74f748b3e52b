//! The oracles of what travels: streams, datagrams and files.

use std::collections::BTreeMap;

use crate::pattern;

/// Bytes that one direction of a connection carries at most: the search for where a piece belongs stays short.
pub(super) const MOST: u64 = 200_000;

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Flow {
    key: u64,
    /// Bytes that were sent for certain.
    pub(super) sent: u64,
    /// Bytes that may have been sent.
    pub(super) may: u64,
    /// How much was sent is not known any more: nothing more is sent.
    pub(super) frozen: bool,
    /// A send is in flight, or its outcome has not been taken.
    pub(super) sending: bool,
    /// Its sending end is known: it is not one that was accepted for nobody, or closed before it was known.
    pub(super) known: bool,
    /// The sender has said, or may have said, that nothing more will come.
    pub(super) ended: bool,
    /// Bytes that have been handed over.
    pub(super) received: u64,
    /// Where the next piece begins at the earliest.
    low: u64,
    /// Bytes that may have gone to receives that were given up.
    slack: u64,
    /// Pieces may be looked at in any order.
    loose: bool,
    claimed: BTreeMap<u64, u64>,
}

impl Flow {
    pub(super) fn new(key: u64) -> Flow {
        Flow { key, ..Flow::default() }
    }

    /// Some of what comes may go to a receive that nobody hears of.
    pub(super) fn may_lose(&mut self, bytes: u64) {
        self.slack = self.slack.saturating_add(bytes);
    }

    /// From now on several receives are in flight at once, and pieces come in any order.
    pub(super) fn loosen(&mut self) {
        self.loose = true;
    }

    pub(super) fn take_next(&self, len: usize) -> (u64, Vec<u8>) {
        (self.sent, pattern::bytes(self.key, self.sent, len))
    }

    /// Looks at a piece that was received.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        let n = bytes.len() as u64;
        if self.received + n > self.may {
            return Err(format!(
                "{} bytes came of a stream of which at most {} were sent",
                self.received + n,
                self.may
            ));
        }
        let before = self.received;
        self.received += n;
        if self.loose {
            return self.receive_loose(bytes);
        }
        let last = before.saturating_add(self.slack).min(self.may - n);
        let found = (self.low..=last).find(|at| pattern::matches(self.key, *at, bytes));
        match found {
            Some(at) => {
                self.low = at + n;
                Ok(())
            }
            None => Err(format!(
                "{n} bytes are not those of their stream from {}{} on: {}",
                self.low,
                if last > self.low { format!(" to {last}") } else { String::new() },
                self.whose(bytes)
            )),
        }
    }

    fn receive_loose(&mut self, bytes: &[u8]) -> Result<(), String> {
        let n = bytes.len() as u64;
        let after = self.claimed.last_key_value().map_or(0, |(start, len)| start + len);
        let everywhere = 0..=self.may - n;
        let found = Some(after)
            .filter(|at| everywhere.contains(at) && pattern::matches(self.key, *at, bytes))
            .or_else(|| everywhere.clone().find(|at| pattern::matches(self.key, *at, bytes)));
        let Some(at) = found else {
            return Err(format!("{n} bytes are nowhere in their stream: {}", self.whose(bytes)));
        };
        if n < 8 {
            // Too few to say where they belong.
            return Ok(());
        }
        let before = self.claimed.range(..=at).next_back().map_or(0, |(start, len)| start + len);
        let next = self.claimed.range(at..).next().map_or(u64::MAX, |(start, _)| *start);
        if before > at || next < at + n {
            return Err(format!("bytes {at} to {} of a stream came twice", at + n));
        }
        self.claimed.insert(at, n);
        Ok(())
    }

    fn whose(&self, bytes: &[u8]) -> String {
        let n = bytes.len() as u64;
        let known = self.may.checked_sub(n).and_then(|last| {
            (0..=last).find(|at| n >= 4 && pattern::matches(self.key, *at, bytes))
        });
        match known {
            Some(at) => format!("they are its bytes from {at} on"),
            None => {
                let head = &bytes[..bytes.len().min(8)];
                format!("they begin with {head:02x?} and are not of it at all")
            }
        }
    }

    /// Whether the stream may end here: whether all that was sent for certain may have come.
    pub(super) fn may_end(&self) -> bool {
        self.loose || self.received.saturating_add(self.slack) >= self.sent
    }
}

/// What was sent in datagrams.
#[derive(Default)]
pub(super) struct Datagrams {
    sent: Vec<Sent>,
}

struct Sent {
    to: u64,
    len: usize,
    came: u32,
}

const HEAD: usize = 4;

impl Datagrams {
    /// The bytes of a new datagram to a socket.
    pub(super) fn next(&mut self, to: u64, len: usize) -> Vec<u8> {
        let len = len.max(HEAD + 4);
        let number = self.sent.len() as u32;
        self.sent.push(Sent { to, len, came: 0 });
        let mut bytes = pattern::bytes(u64::from(number), 0, len);
        bytes[..HEAD].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    /// Looks at a datagram that came to a socket with room for `room` bytes.
    pub(super) fn receive(&mut self, at: u64, bytes: &[u8], room: usize) -> Result<(), String> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
            return if bytes.len() == room {
                Ok(())
            } else {
                Err(format!("a datagram of {} bytes, which nobody sent", bytes.len()))
            };
        };
        let number = u32::from_le_bytes(*head);
        let Some(sent) = self.sent.get_mut(number as usize) else {
            return Err(format!("a datagram that nobody sent: {head:02x?}"));
        };
        if sent.to != at {
            return Err(format!("datagram {number} went to the wrong socket"));
        }
        if bytes.len() != sent.len.min(room) {
            let (n, len) = (bytes.len(), sent.len);
            return Err(format!("datagram {number} of {len} bytes came with {n}, room {room}"));
        }
        if !pattern::matches(u64::from(number), HEAD as u64, rest) {
            return Err(format!("datagram {number} came with other bytes"));
        }
        sent.came += 1;
        if sent.came > 2 {
            return Err(format!("datagram {number} came {} times", sent.came));
        }
        Ok(())
    }
}

/// Bytes of a block of a file, the piece that one operation works on.
pub(super) const BLOCK: usize = 128;
/// Blocks of a file.
pub(super) const BLOCKS: usize = 24;

/// What a file is to contain. No two operations work on one block at a time, reads apart from each other.
pub(super) struct Model {
    bytes: Vec<u8>,
    /// Bytes that it has for certain.
    pub(super) least: usize,
    most: usize,
    busy: [u32; BLOCKS],
    burned: [bool; BLOCKS],
}

impl Model {
    pub(super) fn new() -> Model {
        let bytes = vec![0; BLOCK * BLOCKS];
        Model { bytes, least: 0, most: 0, busy: [0; BLOCKS], burned: [false; BLOCKS] }
    }

    /// Takes a block for an operation, if nothing is at it.
    pub(super) fn lock(&mut self, block: usize) -> bool {
        let free = self.busy[block] == 0 && !self.burned[block];
        if free {
            self.busy[block] = 1;
        }
        free
    }

    pub(super) fn unlock(&mut self, block: usize) {
        self.busy[block] = 0;
    }

    /// Whether a block's write was done will never be known.
    pub(super) fn burn(&mut self, block: usize) {
        self.burned[block] = true;
        self.most = self.most.max((block + 1) * BLOCK);
    }

    pub(super) fn begin_write(&mut self, block: usize) {
        self.most = self.most.max((block + 1) * BLOCK);
    }

    pub(super) fn wrote(&mut self, block: usize, bytes: &[u8]) {
        let at = block * BLOCK;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.least = self.least.max(at + bytes.len());
        }
    }

    /// Looks at what a read brought that began when the file had `least` bytes.
    pub(super) fn read(
        &self,
        block: usize,
        bytes: &[u8],
        room: usize,
        least: usize,
    ) -> Result<(), String> {
        let at = block * BLOCK;
        if bytes.is_empty() && least > at && room > 0 {
            return Err(format!("a read at {at} found the end of a file of {least} bytes"));
        }
        if at + bytes.len() > self.most && !bytes.is_empty() {
            return Err(format!("a read at {at} went beyond the end at {}", self.most));
        }
        if bytes != &self.bytes[at..at + bytes.len()] {
            return Err(format!("a read of {} bytes at {at} brought others", bytes.len()));
        }
        Ok(())
    }
}
