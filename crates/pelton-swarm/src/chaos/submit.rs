//! Submitting operations, in each of the ways that there are.

use std::time::Duration;

use pelton_driver::{Interest, Started, Submission, Token};

use super::buffer::{Buf, Owned, Wide};
use super::flow::{BLOCK, BLOCKS, MOST};
use super::op::{IntoAny, IntoOutcome, Op, What};
use super::{Chaos, Dice, Role};

/// How long a timer may be late: the clock may stand still for 21 ms.
const LATE: Duration = Duration::from_millis(40);

impl Chaos {
    /// Submits, and remembers what is to come of it. False where it was refused.
    pub(super) fn submit<P: IntoAny>(
        &self,
        side: usize,
        dice: &Dice,
        desc: Option<usize>,
        what: What,
        bufs: Vec<u64>,
        submission: Submission<P>,
    ) -> bool
    where
        P::Output: IntoOutcome,
    {
        let at = &self.sides[side];
        let token = self.next_token.get();
        self.next_token.set(token + 1);
        let open = desc.is_none_or(|desc| at.descs.borrow()[desc].open);
        let way = dice.below(4);
        self.starting.set(self.starting.get() + 1);
        let begun = self.with(side, |driver| match way {
            0 => driver.start_now(submission, Token::number(token)),
            _ => driver.submit(submission, Token::number(token)).map(Started::Pending),
        });
        self.starting.set(self.starting.get() - 1);
        let cancelled = false;
        self.say(|| {
            let how = match &begun {
                Ok(Started::Pending(_)) => "",
                Ok(Started::Done(_)) => "done at once",
                Err(_) => "refused",
            };
            format!("submit {side}/{desc:?} {token}: {what:?} {how}")
        });
        match begun {
            Err(refused) => {
                let raw = refused.error.raw_os_error();
                let full = refused.error.kind() == std::io::ErrorKind::QuotaExceeded;
                if open && !full && self.is_open(side, desc) {
                    self.wrong(format!("{what:?} was refused: {}", refused.error));
                }
                if !open && !full && raw != Some(rustix::io::Errno::BADF.raw_os_error()) {
                    self.wrong(format!("{what:?} on a closed one: {}", refused.error));
                }
                // Its buffers come back, and may go off.
                drop(refused);
                self.undo(&what);
                false
            }
            Ok(_) if !open => {
                self.wrong(format!("{what:?} was accepted on a descriptor that is closed"));
                false
            }
            Ok(Started::Done(output)) => {
                at.submitted.set(at.submitted.get() + 1);
                let outcome = P::Output::outcome(output);
                self.came(side, what, desc, bufs, cancelled, outcome);
                true
            }
            Ok(Started::Pending(key)) => {
                at.submitted.set(at.submitted.get() + 1);
                let id = key.id();
                let due = match &what {
                    What::Timer { deadline } => {
                        let left = deadline.saturating_duration_since(at.driver.now());
                        Some(self.world.now() + left + LATE)
                    }
                    _ => None,
                };
                let cancelled = desc.is_some() && !self.is_open(side, desc);
                let (key, told) = (P::any(key), false);
                let op = Op { id, key, what, desc, told, cancelled, bufs, due };
                at.ops.borrow_mut().insert(token, op);
                true
            }
        }
    }

    fn is_open(&self, side: usize, desc: Option<usize>) -> bool {
        desc.is_none_or(|desc| self.sides[side].descs.borrow()[desc].open)
    }

    /// What was not submitted holds nothing up.
    fn undo(&self, what: &What) {
        match what {
            What::Send { flow, .. } => self.flow(*flow, |flow| flow.sending = false),
            What::Read { file, block, .. } | What::Write { file, block, .. } => {
                self.files.borrow_mut()[*file].unlock(*block);
            }
            _ => {}
        }
    }

    fn buffer(&self, dice: &Dice, len: usize) -> Box<Buf> {
        let bomb = if dice.one_in(6) { self.me.clone() } else { std::rc::Weak::new() };
        Buf::new(&self.registry, len, bomb)
    }

    /// Submits something to a descriptor, whatever it is.
    pub(super) fn submit_on(&self, side: usize, desc: usize, dice: &Dice) {
        let (fd, role) = {
            let descs = self.sides[side].descs.borrow();
            (descs[desc].fd, descs[desc].role.clone())
        };
        let kind = dice.below(20);
        match (kind, &role) {
            (0, _) => {
                let interest = if dice.one_in(2) { Interest::Readable } else { Interest::Writable };
                // A poll takes no error away, but its descriptor may be hung up when it comes.
                let what = What::Poll;
                self.submit(side, dice, Some(desc), what, vec![], Submission::poll(fd, interest));
            }
            (1, _) => self.shutdown(side, desc, dice),
            (2, Role::File(_)) | (3, Role::File(_)) => {
                let submission = Submission::sync(fd, dice.one_in(2));
                self.submit(side, dice, Some(desc), What::Sync, vec![], submission);
            }
            (_, Role::File(file)) => self.on_file(side, desc, *file, dice),
            (_, Role::Listener(_)) if kind < 12 => {
                let submission = Submission::accept(fd);
                self.submit(side, dice, Some(desc), What::Accept, vec![], submission);
            }
            (_, Role::Listener(_)) if kind < 17 => {
                let submission = Submission::accept_multi(fd);
                self.submit(side, dice, Some(desc), What::AcceptMany, vec![], submission);
            }
            (k, Role::Stream { .. } | Role::Datagram { .. }) if k < 11 => {
                self.receive(side, desc, dice);
            }
            (_, Role::Stream { .. }) => self.send(side, desc, dice),
            (_, Role::Datagram { peer, .. }) => {
                let len = 8 + dice.below(600);
                let bytes = self.datagrams.borrow_mut().next(*peer, len);
                let what = What::SendDatagram { len: bytes.len() };
                self.send_bytes(side, desc, dice, what, &bytes, false);
            }
            // Of the wrong kind: it fails, and nothing worse.
            (_, Role::Listener(_)) => self.receive(side, desc, dice),
        }
    }

    fn shutdown(&self, side: usize, desc: usize, dice: &Dice) {
        use std::net::Shutdown;
        if !dice.one_in(3) {
            return;
        }
        let how = [Shutdown::Write, Shutdown::Both, Shutdown::Read][dice.below(3)];
        let fd = self.sides[side].descs.borrow()[desc].fd;
        if how != Shutdown::Read
            && let Some(flow) = self.connection(side, desc)
        {
            self.flow(flow, |flow| flow.ended = true);
        }
        if how != Shutdown::Write {
            self.sides[side].descs.borrow_mut()[desc].deaf = true;
        }
        if dice.one_in(4) {
            let open = self.is_open(side, Some(desc));
            let done = self.with(side, |driver| driver.shutdown(fd, how));
            if !open && done.is_ok() {
                self.wrong("a closed descriptor was shut down");
            }
            return;
        }
        let submission = Submission::shutdown(fd, how);
        self.submit(side, dice, Some(desc), What::Shutdown, vec![], submission);
    }

    fn on_file(&self, side: usize, desc: usize, file: usize, dice: &Dice) {
        let fd = self.sides[side].descs.borrow()[desc].fd;
        let block = dice.below(BLOCKS);
        if !self.files.borrow_mut()[file].lock(block) {
            return;
        }
        let offset = (block * BLOCK) as u64;
        let len = 1 + dice.below(BLOCK);
        let mut buf = self.buffer(dice, len);
        let id = buf.id();
        if dice.one_in(2) {
            let least = self.files.borrow()[file].least;
            let what = What::Read { file, block, room: len, least };
            let submission = Submission::read_at(fd, Owned(buf), offset);
            self.submit(side, dice, Some(desc), what, vec![id], submission);
        } else {
            crate::pattern::fill(self.fresh(), 0, buf.bytes_mut());
            self.files.borrow_mut()[file].begin_write(block);
            let what = What::Write { file, block, bytes: buf.bytes().to_vec() };
            let submission = Submission::write_at(fd, Owned(buf), offset);
            self.submit(side, dice, Some(desc), what, vec![id], submission);
        }
    }

    fn receive(&self, side: usize, desc: usize, dice: &Dice) {
        let at = &self.sides[side];
        let (fd, loose) = {
            let descs = at.descs.borrow();
            (descs[desc].fd, descs[desc].loose)
        };
        let others = at.ops.borrow().values().any(|op| op.desc == Some(desc) && op.what.receives());
        if others && !loose {
            return;
        }
        if others {
            at.descs.borrow_mut()[desc].mixed = true;
            if let Some((conn, client)) = self.connection(side, desc) {
                self.flow((conn, !client), super::Flow::loosen);
            }
        }
        let on = Some(desc);
        match dice.below(8) {
            0 => {
                let buf = self.buffer(dice, 1 + dice.below(900));
                let (id, room) = (buf.id(), buf.bytes().len());
                let submission = Submission::recv(fd, Wide(buf, [0; 4]));
                self.submit(side, dice, on, What::Receive { room }, vec![id], submission);
            }
            1 => {
                let submission = Submission::recv(fd, [0; 16]);
                self.submit(side, dice, on, What::Receive { room: 16 }, vec![], submission);
            }
            2 => {
                let parts = 1 + dice.below(4);
                let bufs: Vec<Owned> =
                    (0..parts).map(|_| Owned(self.buffer(dice, 1 + dice.below(200)))).collect();
                let ids = bufs.iter().map(|buf| buf.0.id()).collect();
                let room = bufs.iter().map(|buf| buf.0.bytes().len()).sum();
                let submission = Submission::recv_vectored(fd, bufs);
                self.submit(side, dice, on, What::Receive { room }, ids, submission);
            }
            3 | 4 => {
                let what = What::Receive { room: 0 };
                self.submit(side, dice, on, what, vec![], Submission::recv_pooled(fd));
            }
            5 | 6 => {
                let what = What::ReceiveMany;
                self.submit(side, dice, on, what, vec![], Submission::recv_multi(fd));
            }
            _ => {
                let most = if dice.one_in(4) { 20_000 } else { 300 };
                let buf = self.buffer(dice, 1 + dice.below(most));
                let (id, room) = (buf.id(), buf.bytes().len());
                let submission = Submission::recv(fd, Owned(buf));
                self.submit(side, dice, on, What::Receive { room }, vec![id], submission);
            }
        }
    }

    fn send(&self, side: usize, desc: usize, dice: &Dice) {
        let Some(flow) = self.connection(side, desc) else { return };
        let most = if dice.one_in(8) { 40_000 } else { 700 };
        let small = dice.one_in(8);
        let len = if small { 16 } else { 1 + dice.below(most) };
        let all = !small && dice.one_in(2);
        let bytes = self.flow(flow, |flow| {
            if flow.sending || flow.frozen || flow.may + len as u64 > MOST {
                return None;
            }
            flow.sending = true;
            let (from, bytes) = flow.take_next(len);
            flow.may = flow.may.max(from + len as u64);
            Some(bytes)
        });
        let Some(bytes) = bytes else { return };
        let what = What::Send { flow, len, all };
        self.send_bytes(side, desc, dice, what, &bytes, all);
    }

    fn send_bytes(
        &self,
        side: usize,
        desc: usize,
        dice: &Dice,
        what: What,
        bytes: &[u8],
        all: bool,
    ) {
        let fd = self.sides[side].descs.borrow()[desc].fd;
        let on = Some(desc);
        let datagram = matches!(what, What::SendDatagram { .. });
        if !all && let Ok(bytes) = <[u8; 16]>::try_from(bytes) {
            self.submit(side, dice, on, what, vec![], Submission::send(fd, bytes));
            return;
        }
        if dice.one_in(4) && bytes.len() > 3 {
            let cut = 1 + dice.below(bytes.len() - 1);
            let mut bufs = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                let mut buf = self.buffer(dice, part.len());
                buf.bytes_mut().copy_from_slice(part);
                bufs.push(Owned(buf));
            }
            let ids = bufs.iter().map(|buf| buf.0.id()).collect();
            let submission = if all {
                Submission::send_vectored_all(fd, bufs)
            } else {
                Submission::send_vectored(fd, bufs)
            };
            self.submit(side, dice, on, what, ids, submission);
            return;
        }
        let mut buf = self.buffer(dice, bytes.len());
        buf.bytes_mut().copy_from_slice(bytes);
        let ids = vec![buf.id()];
        match dice.below(4) {
            0 if all => {
                let submission = Submission::send_whole(fd, Owned(buf));
                self.submit(side, dice, on, what, ids, submission)
            }
            1 if all => {
                let submission = Submission::send_away(fd, Owned(buf));
                self.submit(side, dice, on, what, vec![], submission)
            }
            2 if !datagram && !all => {
                let submission = Submission::send(fd, Wide(buf, [0; 4]));
                self.submit(side, dice, on, what, ids, submission)
            }
            _ if all => {
                let submission = Submission::send_all(fd, Owned(buf));
                self.submit(side, dice, on, what, ids, submission)
            }
            _ => self.submit(side, dice, on, what, ids, Submission::send(fd, Owned(buf))),
        };
    }
}
