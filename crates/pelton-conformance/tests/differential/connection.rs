//! The model of a connection: which outcomes a send or a receive may have, after what has happened so far.
//!
//! Each direction is a stream of bytes. What a send that has ended has sent is known to the byte; what one in
//! flight may have sent so far is its bytes, or any number of the first of them. An end knows what has been done to
//! it (shut down, closed), and the outcomes that this allows are not one but a set: whether a cancel or its target
//! came first, how a stream was cut, whether a reset was seen by a send or by a receive is the kernel's affair.

use std::io;

/// Bytes that surely fit into a connection though nobody receives them.
const FITS: usize = 16 * 1024;

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// Every byte that has been sent, or may have been.
    bytes: Vec<u8>,
    /// So many of the first of them have been sent for sure.
    sure: usize,
    received: usize,
}

#[derive(Debug, Default)]
struct Side {
    closed: bool,
    no_reads: bool,
    no_writes: bool,
    /// A send has failed: nobody says how much of it went.
    failed: bool,
    /// What it had not received when it was closed is lost, and told of with a reset.
    unread_at_close: bool,
}

/// Both ends of a connection: 0 and 1.
#[derive(Debug)]
pub(crate) struct Connection {
    pair: bool,
    /// What this end sends.
    flows: [Flow; 2],
    sides: [Side; 2],
}

/// An outcome that the model does not allow, in words.
pub(crate) type Wrong = String;

impl Connection {
    /// Over TCP, or a pair that never was on a network.
    pub(crate) fn new(pair: bool) -> Connection {
        Connection { pair, flows: Default::default(), sides: Default::default() }
    }

    pub(crate) fn is_closed(&self, end: usize) -> bool {
        self.sides[end].closed
    }

    // What is done.

    pub(crate) fn send(&mut self, end: usize, bytes: &[u8]) {
        self.flows[end].bytes.extend_from_slice(bytes);
        self.note_unread(end ^ 1);
    }

    pub(crate) fn shut(&mut self, end: usize, how: std::net::Shutdown) {
        let side = &mut self.sides[end];
        side.no_reads |= how != std::net::Shutdown::Write;
        side.no_writes |= how != std::net::Shutdown::Read;
    }

    pub(crate) fn close(&mut self, end: usize) {
        self.sides[end].closed = true;
        self.note_unread(end);
    }

    /// Whatever comes to a closed end is answered with a reset.
    fn note_unread(&mut self, end: usize) {
        let flow = &self.flows[end ^ 1];
        let unread = flow.bytes.len() > flow.received;
        self.sides[end].unread_at_close |= self.sides[end].closed && unread;
    }

    // What may come of it.

    /// Whether this end may hear of a reset.
    fn may_be_reset(&self, end: usize) -> bool {
        let closed = self.sides[end ^ 1].closed && self.sides[end ^ 1].unread_at_close;
        closed || self.may_be_aborted(0) || self.may_be_aborted(1)
    }

    /// TCP gives a connection up where data comes to an end that is shut in both directions.
    fn may_be_aborted(&self, end: usize) -> bool {
        let side = &self.sides[end];
        let data = !self.flows[end ^ 1].bytes.is_empty();
        !self.pair && side.no_reads && side.no_writes && data
    }

    /// Whether nobody takes what this end sends.
    fn deaf_peer(&self, end: usize) -> bool {
        let peer = &self.sides[end ^ 1];
        peer.closed || (self.pair && peer.no_reads)
    }

    pub(crate) fn sent(
        &mut self,
        end: usize,
        len: usize,
        all: bool,
        cancelled: bool,
        result: &io::Result<usize>,
    ) -> Result<(), Wrong> {
        let given_up = cancelled || self.sides[end].closed;
        let over = self.sides[end].no_writes || self.deaf_peer(end) || self.may_be_reset(end);
        let n = match result {
            Ok(n) if *n > len || (*n == 0 && len > 0) => return Err(format!("{n} of {len} sent")),
            Ok(n) if all && *n < len && !given_up && !over => {
                return Err(format!("a send of everything sent {n} of {len}"));
            }
            Ok(n) => *n,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(-1);
                match errno {
                    libc::ECANCELED if given_up => 0,
                    libc::EPIPE | libc::ECONNRESET if over => {
                        self.sides[end].failed = true;
                        return Ok(());
                    }
                    _ => return Err(format!("a send ended with {error}")),
                }
            }
        };
        let flow = &mut self.flows[end];
        flow.sure = flow.bytes.len() - len + n;
        flow.bytes.truncate(flow.sure);
        // Perhaps the peer has more of it than this says.
        if flow.received > flow.sure && !self.sides[end].failed {
            return Err(format!("{} received of {} sent", flow.received, flow.sure));
        }
        Ok(())
    }

    pub(crate) fn received(
        &mut self,
        end: usize,
        room: usize,
        cancelled: bool,
        result: &io::Result<usize>,
        bytes: &[u8],
    ) -> Result<(), Wrong> {
        let given_up = cancelled || self.sides[end].closed;
        let reset = self.may_be_reset(end);
        let (own, peer) = (&self.sides[end], &self.sides[end ^ 1]);
        let ended = peer.closed || peer.no_writes;
        let no_reads = own.no_reads;
        let flow = &mut self.flows[end ^ 1];
        match result {
            Ok(0) if no_reads || reset => Ok(()),
            Ok(0) if !ended => Err("the end of a stream that goes on".into()),
            Ok(0) if flow.received < flow.sure => {
                Err(format!("the end after {} of {} bytes", flow.received, flow.sure))
            }
            Ok(0) => Ok(()),
            Ok(n) if *n > room || *n != bytes.len() => {
                Err(format!("{n} bytes, {} there, into {room}", bytes.len()))
            }
            Ok(n) => {
                let from = flow.received;
                if flow.bytes.get(from..from + n) != Some(bytes) {
                    return Err(format!("{n} bytes from {from} on were not sent"));
                }
                flow.received += n;
                Ok(())
            }
            Err(error) => match error.raw_os_error().unwrap_or(-1) {
                libc::ECANCELED if given_up => Ok(()),
                libc::ECONNRESET | libc::EPIPE if reset => Ok(()),
                _ => Err(format!("a receive ended with {error}")),
            },
        }
    }

    /// How many bytes may be there for this end.
    pub(crate) fn readable(&self, end: usize) -> bool {
        let (own, peer, flow) = (&self.sides[end], &self.sides[end ^ 1], &self.flows[end ^ 1]);
        let ended = peer.closed || peer.no_writes || own.no_reads || own.closed;
        ended || flow.bytes.len() > flow.received
    }

    pub(crate) fn shut_down(&self, end: usize, errno: i32) -> Result<(), Wrong> {
        let gone = self.sides[end ^ 1].closed || self.may_be_reset(end);
        match errno {
            0 => Ok(()),
            libc::ENOTCONN if gone || self.both_ways_shut() => Ok(()),
            _ => Err(format!("a shutdown ended with errno {errno}")),
        }
    }

    fn both_ways_shut(&self) -> bool {
        self.sides.iter().all(|side| side.no_writes)
    }

    // What must come of it.

    /// A receive that waits must end.
    pub(crate) fn must_receive(&self, end: usize) -> bool {
        let (own, peer, flow) = (&self.sides[end], &self.sides[end ^ 1], &self.flows[end ^ 1]);
        own.closed || own.no_reads || peer.closed || peer.no_writes || flow.sure > flow.received
    }

    /// A send that waits must end, or room for more be told of.
    pub(crate) fn must_send(&self, end: usize) -> bool {
        let flow = &self.flows[end];
        let (own, peer) = (&self.sides[end], &self.sides[end ^ 1]);
        // A pair that is full tells nobody that it was shut for writing.
        let shut = own.no_writes && !self.pair;
        own.closed || shut || peer.closed || flow.bytes.len() - flow.received <= FITS
    }

    /// What is wrong where nothing is in flight any more and everything has been received.
    pub(crate) fn at_the_end(&self, end: usize) -> Result<(), Wrong> {
        let (own, peer) = (&self.sides[end], &self.sides[end ^ 1]);
        let quiet = ![own, peer].iter().any(|side| side.closed || side.no_reads || side.failed);
        let flow = &self.flows[end ^ 1];
        if quiet && flow.received != flow.sure {
            return Err(format!("{} of {} bytes have come", flow.received, flow.sure));
        }
        Ok(())
    }

    /// How much has been sent and received: it changes with whatever passes.
    pub(crate) fn progress(&self) -> usize {
        self.flows.iter().map(|flow| flow.sure + flow.received).sum()
    }

    /// Whether more is still to come for this end for sure.
    pub(crate) fn owes(&self, end: usize) -> bool {
        let (own, peer) = (&self.sides[end], &self.sides[end ^ 1]);
        let quiet = ![own, peer].iter().any(|side| side.closed || side.no_reads || side.failed);
        quiet && self.flows[end ^ 1].received < self.flows[end ^ 1].sure
    }
}
