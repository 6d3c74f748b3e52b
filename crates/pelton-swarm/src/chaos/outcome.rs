//! Looking at what came of an operation.

use std::io;
use std::rc::Rc;

use pelton_driver::{Lease, OwnedDescriptor};
use rustix::io::Errno;

use super::buffer::Buf;
use super::op::{Item, Op, Outcome, What};
use super::{Chaos, Dice, Role};

/// Errors that Pelton is to hide.
const HIDDEN: [Errno; 5] =
    [Errno::INTR, Errno::AGAIN, Errno::NOBUFS, Errno::BADF, Errno::INPROGRESS];

impl Chaos {
    /// Looks at an outcome that was taken.
    pub(super) fn came(
        &self,
        side: usize,
        what: What,
        desc: Option<usize>,
        bufs: Vec<u64>,
        cancelled: bool,
        outcome: Outcome,
    ) {
        let (result, back, small) = match outcome {
            Outcome::Accepted(accepted) => return self.accepted(side, desc, cancelled, accepted),
            Outcome::Lease(lease) => return self.leased(side, desc, cancelled, lease),
            Outcome::Number(result) => (result, None, None),
            Outcome::Buffers(result, back) => (result, Some(back), None),
            Outcome::Small(result, bytes) => (result, None, Some(bytes)),
            Outcome::Whole(result, back) => {
                let len = if let What::Send { len, .. } = what { len } else { 0 };
                (result.map(|()| len), Some(back), None)
            }
        };
        let back = back.unwrap_or_default();
        let ids: Vec<u64> = back.iter().map(|buf| buf.id()).collect();
        if ids != bufs {
            self.wrong(format!("{what:?} brought buffers {ids:?} back, not {bufs:?}"));
        }
        self.say(|| format!("came {what:?}: {result:?}"));
        if let Err(error) = &result {
            self.look_at_error(side, desc, &what, cancelled, error);
        }
        let room = match &what {
            What::Receive { room } | What::Read { room, .. } => *room,
            What::Send { len, .. } | What::SendDatagram { len } => *len,
            What::Write { bytes, .. } => bytes.len(),
            _ => usize::MAX,
        };
        if let Ok(n) = &result
            && *n > room
        {
            self.wrong(format!("{what:?} says {n}"));
            return;
        }
        let bytes = |n: usize| match small {
            Some(bytes) => bytes[..n].to_vec(),
            None => gather(&back, n),
        };
        match (&what, &result) {
            (What::Receive { room }, Ok(n)) => {
                self.received(side, desc, &bytes(*n), *room);
            }
            (What::Send { flow, len, all }, result) => {
                if let Ok(n) = result
                    && (*n == 0 || (*all && n < len && !cancelled))
                {
                    self.wrong(format!("{what:?} sent {n} bytes"));
                }
                self.flow(*flow, |flow| {
                    flow.sending = false;
                    match result {
                        Ok(n) => flow.sent += *n as u64,
                        // How much of it went is not told.
                        Err(_) if *all => flow.frozen = true,
                        Err(_) => {}
                    }
                    if !flow.frozen {
                        flow.may = flow.sent;
                    }
                });
            }
            (What::SendDatagram { len }, Ok(n)) if n != len => {
                self.wrong(format!("a datagram of {len} bytes was sent with {n}"));
            }
            (What::Read { file, block, room, least }, result) => {
                let read = match result {
                    Ok(n) => self.files.borrow()[*file].read(*block, &bytes(*n), *room, *least),
                    Err(_) => Ok(()),
                };
                self.files.borrow_mut()[*file].unlock(*block);
                if let Err(what) = read {
                    self.wrong(what);
                }
            }
            (What::Write { file, block, bytes }, result) => {
                let mut files = self.files.borrow_mut();
                if let Ok(n) = result {
                    files[*file].wrote(*block, &bytes[..*n]);
                }
                files[*file].unlock(*block);
            }
            (What::Cancel { found }, result) => {
                let raw = result.as_ref().err().and_then(io::Error::raw_os_error);
                let as_it_was = match found {
                    true => matches!(result, Ok(0)),
                    false => raw == Some(Errno::NOENT.raw_os_error()),
                };
                if !as_it_was {
                    self.wrong(format!("{what:?} said {result:?}"));
                }
            }
            (What::Nop | What::Timer { .. } | What::Wake | What::Close, Err(error))
                if !(cancelled && is(error, Errno::CANCELED)) =>
            {
                self.wrong(format!("{what:?} failed: {error}"));
            }
            _ => {}
        }
        // They may go off.
        drop(back);
    }

    fn look_at_error(
        &self,
        side: usize,
        desc: Option<usize>,
        what: &What,
        cancelled: bool,
        error: &io::Error,
    ) {
        if matches!(what, What::Cancel { .. }) {
            return;
        }
        let hidden = HIDDEN.iter().any(|hidden| is(error, *hidden));
        if hidden || error.raw_os_error().is_none() {
            self.wrong(format!("{what:?} ended with {error}, which is not for its holder"));
        }
        if is(error, Errno::CANCELED) {
            let many = matches!(what, What::AcceptMany | What::ReceiveMany);
            let bounded = self.sides[side].driver.counters().unclaimed.get() > 0;
            if !(cancelled || (many && bounded)) {
                self.wrong(format!("{what:?} ended as cancelled, and nobody cancelled it"));
            }
        } else if let Some(desc) = desc {
            self.sides[side].descs.borrow_mut()[desc].troubled = true;
        }
    }

    /// Looks at bytes that came on a descriptor; none are the end of a stream.
    fn received(&self, side: usize, desc: Option<usize>, bytes: &[u8], room: usize) {
        let Some(desc) = desc else { return };
        let known = self.sides[side].descs.borrow()[desc].clone();
        let looked = match known.role {
            Role::Datagram { own, .. } => self.datagrams.borrow_mut().receive(own, bytes, room),
            Role::Stream { pair, .. } => match self.connection(side, desc) {
                None if bytes.is_empty() => Ok(()),
                // Its descriptor is closed, and nobody asked before whose it is.
                None if !known.open => Ok(()),
                None => Err("bytes came on a stream that has no connection".into()),
                Some((conn, client)) if bytes.is_empty() => {
                    // An error may have gone to an operation whose outcome nobody has looked at.
                    let others = self.sides[side].ops.borrow();
                    let others = others.values().any(|op| op.desc == Some(desc));
                    if known.deaf || known.troubled || others {
                        return;
                    }
                    self.flow((conn, !client), |flow| match (flow.ended, flow.may_end()) {
                        (false, _) if flow.known => Err(format!(
                            "a stream ended that its sender has not ended (pair: {pair})"
                        )),
                        (true, false) => Err(format!(
                            "a stream ended after {} of {} bytes",
                            flow.received, flow.sent
                        )),
                        _ => Ok(()),
                    })
                }
                Some((conn, client)) => self.flow((conn, !client), |flow| flow.receive(bytes)),
            },
            _ => Err(format!("{} bytes came on {:?}", bytes.len(), known.role)),
        };
        if let Err(what) = looked {
            self.wrong(what);
        }
    }

    fn leased(
        &self,
        side: usize,
        desc: Option<usize>,
        cancelled: bool,
        lease: io::Result<Option<Lease>>,
    ) {
        match lease {
            Ok(Some(lease)) => self.lease(side, desc, lease),
            Ok(None) => self.received(side, desc, &[], usize::MAX),
            Err(error) => {
                self.look_at_error(side, desc, &What::Receive { room: 0 }, cancelled, &error);
            }
        }
    }

    fn lease(&self, side: usize, desc: Option<usize>, lease: Lease) {
        if lease.is_empty() {
            self.wrong("a lease on nothing");
        }
        // What its room was is not known: a datagram that was cut off is not told from one that was not.
        let datagram = desc.is_some_and(|desc| {
            matches!(self.sides[side].descs.borrow()[desc].role, Role::Datagram { .. })
        });
        let room = if datagram { lease.len() } else { usize::MAX };
        self.received(side, desc, &lease, room);
        if self.world.choose("keep a lease", side as u64, 2, |_| "a lease was kept".into()) == 1 {
            let copy = lease.to_vec();
            self.sides[side].leases.borrow_mut().push((lease, copy));
        }
    }

    fn accepted(
        &self,
        side: usize,
        desc: Option<usize>,
        cancelled: bool,
        accepted: io::Result<pelton_driver::Accepted>,
    ) {
        match accepted {
            Ok(accepted) => {
                let Some(peer) = accepted.peer else {
                    return self.wrong("an accept brought no address");
                };
                let conn = Some(crate::pattern::connection(peer));
                self.serve(side, accepted.descriptor, conn);
            }
            Err(error) => self.look_at_error(side, desc, &What::Accept, cancelled, &error),
        }
    }

    /// Takes in a connection that was accepted.
    fn serve(&self, side: usize, descriptor: OwnedDescriptor, conn: Option<u64>) {
        let Ok(fd) = self.with(side, |driver| driver.attach_stream(descriptor)) else { return };
        let peer = self.with(side, |driver| driver.peer_addr(fd)).ok();
        let asked = peer.map(crate::pattern::connection);
        if conn.is_some() && asked.is_some() && conn != asked {
            self.wrong("an accepted connection has another peer than its accept said");
        }
        let Some(conn) = conn.or(asked) else {
            // It is dead already, and nobody knows whose it was.
            return self.with(side, |driver| driver.close(fd));
        };
        let role = Role::Stream { conn: Some(conn), client: false, pair: false };
        self.add(side, fd, role);
    }

    /// Takes what multishot operations have yielded. True when there was something.
    pub(super) fn next_item(&self, side: usize, token: usize) -> bool {
        let (item, desc) = {
            let ops = self.sides[side].ops.borrow();
            let Some(op) = ops.get(&token) else { return false };
            (self.with(side, |driver| op.key.next(driver)), op.desc)
        };
        match item {
            None => return false,
            Some(Item::Connection(descriptor)) => self.serve(side, descriptor, None),
            Some(Item::Lease(lease)) => self.lease(side, desc, lease),
        }
        true
    }

    /// Takes an operation's outcome, if it is done.
    pub(super) fn take(&self, side: usize, token: usize, dice: &Dice) {
        let at = &self.sides[side];
        let many = at.ops.borrow().get(&token).map(|op| (op.what.clone(), op.desc));
        if let Some((What::ReceiveMany | What::AcceptMany, desc)) = many {
            if dice.one_in(8) {
                self.may_lose(side, desc, u64::MAX / 2);
            } else {
                while self.next_item(side, token) {}
            }
        }
        // Looking at an item may have run a step that took this one.
        let Some(op) = at.ops.borrow_mut().remove(&token) else { return };
        let Op { id, key, what, desc, told, cancelled, bufs, due } = op;
        let was_done = key.is_done(&at.driver);
        self.say(|| format!("take {side} {token} {what:?} done {was_done}"));
        match self.with(side, |driver| key.take(driver)) {
            Ok(outcome) => {
                if !was_done {
                    self.wrong(format!("{what:?} was taken before it was done"));
                }
                self.came(side, what, desc, bufs, cancelled, outcome);
            }
            Err(key) => {
                if was_done {
                    self.wrong(format!("{what:?} was done and could not be taken"));
                }
                let op = Op { id, key, what, desc, told, cancelled, bufs, due };
                at.ops.borrow_mut().insert(token, op);
            }
        }
    }

    fn may_lose(&self, side: usize, desc: Option<usize>, bytes: u64) {
        let Some(desc) = desc else { return };
        self.sides[side].descs.borrow_mut()[desc].troubled = true;
        if let Some((conn, client)) = self.connection(side, desc) {
            self.flow((conn, !client), |flow| flow.may_lose(bytes));
        }
    }

    /// Gives an operation up.
    pub(super) fn give_up(&self, side: usize, token: usize) {
        let Some(op) = self.sides[side].ops.borrow_mut().remove(&token) else { return };
        self.say(|| format!("give up {side} {token} {:?}", op.what));
        match &op.what {
            What::Send { flow, .. } => {
                self.flow(*flow, |flow| {
                    flow.frozen = true;
                    flow.sending = false;
                });
                // That the connection is broken may have been told to it.
                if let Some(desc) = op.desc {
                    self.sides[side].descs.borrow_mut()[desc].troubled = true;
                }
            }
            What::Receive { room: 0 } | What::ReceiveMany => {
                self.may_lose(side, op.desc, u64::MAX / 2);
            }
            What::Receive { room } => self.may_lose(side, op.desc, *room as u64),
            What::Read { file, block, .. } => self.files.borrow_mut()[*file].unlock(*block),
            What::Write { file, block, .. } => self.files.borrow_mut()[*file].burn(*block),
            _ => {
                if let Some(desc) = op.desc {
                    self.sides[side].descs.borrow_mut()[desc].troubled = true;
                }
            }
        }
        self.with(side, |driver| op.key.abandon(driver));
    }

    /// Drops a lease, whose bytes are still to be what they were.
    pub(super) fn drop_lease(&self, side: usize, at: usize) {
        let (lease, copy) = self.sides[side].leases.borrow_mut().swap_remove(at);
        if *lease != *copy {
            self.wrong("the bytes of a lease changed while it was held");
        }
        drop(lease);
    }

    pub(super) fn registry(&self) -> &Rc<super::Registry> {
        &self.registry
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn gather(bufs: &[Box<Buf>], n: usize) -> Vec<u8> {
    let mut all: Vec<u8> = bufs.iter().flat_map(|buf| buf.bytes().iter().copied()).collect();
    all.truncate(n);
    all
}
