//! Trying what an entry asks for: at once, and again when its file may be ready.

use std::sync::atomic::{AtomicU16, Ordering};

use rustix::io_uring::IoringOp;

use super::super::fault::Fault;
use super::super::file::{FileId, Waiter};
use super::super::seal::Seal;
use super::super::state::{Event, MICRO, MILLI, State};
use super::super::table::OpKey;
use super::super::words::time;
use super::{
    ACCEPT_MULTISHOT, BUFFER, BUFFER_MORE, BUFFER_SELECT, Entry, Op, POLL_MULTISHOT, Phase,
    RECV_MULTISHOT,
};
use crate::sys::{AddressLength, AddressStorage, MessageHeader, Part};

impl State {
    pub(super) fn submit(&mut self, id: FileId, entry: Entry) {
        if entry.opcode == IoringOp::AsyncCancel as u8 {
            return self.cancel_entry(id, entry);
        }
        if entry.opcode == IoringOp::Nop as u8 {
            return self.post(id, entry, 0, 0);
        }
        let Some(file) = self.of_fd(entry.fd) else {
            return self.post(id, entry, -libc::EBADF, 0);
        };
        if entry.opcode == IoringOp::Close as u8 {
            let result = self.close_fd(entry.fd);
            return self.post(id, entry, result, 0);
        }
        // SAFETY: whoever enters promises that what an entry names is valid until its last completion.
        let parts = unsafe { parts_of(&entry) };
        let fills = fills(entry.opcode);
        // SAFETY: as above: nobody else touches the memory until then.
        let seal = unsafe { Seal::put(&parts, fills, entry.user_data) };
        self.hold(file);
        let phase = Phase::Ready;
        let op = Op { entry, file, parts, seal, done: 0, started: false, cancelled: false, phase };
        let Some(ring) = self.ring(id) else { return };
        let number = ring.number;
        let key = ring.ops.add(op);
        if is_file_op(entry.opcode) && !self.is_pipe(file) {
            // A worker does it.
            let more = self.choose("worker takes", number, 256) * MICRO;
            if more > 0 {
                let story = format!("took {} longer", time(more));
                self.tell_op("worker takes", number, id, key, &story);
            }
            return self.send_away(id, key, 20 * MICRO + more);
        }
        if self.fault(Fault::LateCompletion, number, String::new) {
            let after = (1 + self.choose("late-completion by", number, 2000)) * MICRO;
            let story = format!("began {} late", time(after));
            self.tell_op(Fault::LateCompletion.name(), number, id, key, &story);
            return self.send_away(id, key, after);
        }
        self.attempt(id, key);
    }

    fn send_away(&mut self, id: FileId, key: OpKey, after: u64) {
        if let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) {
            op.phase = Phase::Away;
        }
        self.plan(after, Event::Op(id, key));
    }

    pub(in crate::sim) fn op_goes_on(&mut self, id: FileId, key: OpKey) {
        self.queue_work(id, key);
    }

    /// The file of an operation that waits for it has changed.
    pub(in crate::sim) fn op_woken(&mut self, id: FileId, key: OpKey) {
        let Some(ring) = self.ring(id) else { return };
        let number = ring.number;
        let Some(op) = ring.op(key) else { return };
        if op.phase == Phase::Doomed {
            return;
        }
        op.phase = Phase::Ready;
        if self.fault(Fault::LateCompletion, number, String::new) {
            let after = (1 + self.choose("late-completion by", number, 2000)) * MICRO;
            let story = format!("went on {} late", time(after));
            self.tell_op(Fault::LateCompletion.name(), number, id, key, &story);
            return self.send_away(id, key, after);
        }
        if self.fault(Fault::Unseen, number, String::new) {
            let enters = 1 + self.choose("unseen for", number, 4) as u32;
            let story = format!("was not seen to end for {enters} calls");
            self.tell_op(Fault::Unseen.name(), number, id, key, &story);
            if let Some(ring) = self.ring(id) {
                ring.kept.push((key, enters));
            }
            return self.plan(2 * MILLI, Event::Kept(id));
        }
        self.queue_work(id, key);
    }

    /// Whether an operation accepts, and where it is doomed.
    pub(in crate::sim) fn accepts(&mut self, id: FileId, key: OpKey) -> Option<bool> {
        let op = self.ring(id)?.op(key)?;
        (op.entry.opcode == IoringOp::Accept as u8).then_some(op.phase == Phase::Doomed)
    }

    /// Tries an operation: it ends, yields, or waits for its file.
    pub(super) fn attempt(&mut self, id: FileId, key: OpKey) {
        let Some(ring) = self.ring(id) else { return };
        let number = ring.number;
        let Some(op) = ring.op(key) else { return };
        let (entry, file) = (op.entry, op.file);
        let code = entry.opcode;
        if interruptible(code) && self.fault(Fault::Interrupted, number, String::new) {
            self.tell_op(Fault::Interrupted.name(), number, id, key, "was interrupted");
            let done = self.ring(id).and_then(|ring| ring.op(key)).map_or(0, |op| op.done);
            let result = if done > 0 { done as i32 } else { -libc::EINTR };
            return self.end(id, key, result, 0);
        }
        if code == IoringOp::Recv as u8 && entry.flags & BUFFER_SELECT != 0 {
            self.attempt_pooled(id, key, entry, file);
        } else if code == IoringOp::Recvmsg as u8 {
            self.attempt_receive_message(id, key, entry, file);
        } else if code == IoringOp::Sendmsg as u8 && self.datagram(file).is_some() {
            let bytes = self.taken(id, key, 0, usize::MAX);
            let header = std::ptr::with_exposed_provenance(entry.addr as usize);
            // SAFETY: the header and what it names are valid until the operation's last completion.
            let result = unsafe { self.send_message(file, header, bytes) };
            self.end(id, key, result.unwrap_or(-libc::EBADF), 0);
        } else if code == IoringOp::Recv as u8 {
            self.attempt_receive(id, key, file);
        } else if matches!(code, c if c == IoringOp::Send as u8 || c == IoringOp::Sendmsg as u8) {
            self.attempt_send(id, key, entry, file);
        } else if code == IoringOp::Accept as u8 {
            self.attempt_accept(id, key, entry, file);
        } else if code == IoringOp::Connect as u8 {
            self.attempt_connect(id, key, entry, file);
        } else if code == IoringOp::PollAdd as u8 {
            self.attempt_poll(id, key, entry, file);
        } else if code == IoringOp::Shutdown as u8 {
            let result = self.shutdown(file, entry.len as i32);
            self.end(id, key, result, 0);
        } else if code == IoringOp::Read as u8 {
            let most =
                self.ring(id).and_then(|ring| ring.op(key)).map_or(0, |op| len_of(&op.parts));
            if self.is_pipe(file) {
                return self.attempt_pipe_read(id, key, file, most);
            }
            let result = match self.read_file(file, most, entry.off) {
                Ok(bytes) => self.fill(id, key, &bytes),
                Err(error) => error,
            };
            self.end(id, key, result, 0);
        } else if code == IoringOp::Write as u8 && self.is_pipe(file) {
            self.attempt_pipe_write(id, key, file);
        } else if code == IoringOp::Write as u8 {
            let bytes = self.taken(id, key, 0, usize::MAX);
            let result = self.write_file(file, &bytes, entry.off);
            self.end(id, key, result, 0);
        } else if code == IoringOp::Fsync as u8 {
            let result = self.sync_file(file);
            self.end(id, key, result, 0);
        } else {
            self.end(id, key, -libc::EINVAL, 0);
        }
    }

    /// Waits until the file says one of these, or ends where it is not to wait.
    pub(in crate::sim) fn block(&mut self, id: FileId, key: OpKey, file: FileId, events: i16) {
        if self.file(file).is_some_and(|file| file.nonblocking) {
            let done = self.ring(id).and_then(|ring| ring.op(key)).map_or(0, |op| op.done);
            let result = if done > 0 { done as i32 } else { -libc::EAGAIN };
            return self.end(id, key, result, 0);
        }
        self.arm(id, key, file, events);
    }

    fn arm(&mut self, id: FileId, key: OpKey, file: FileId, events: i16) {
        if let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) {
            if op.cancelled {
                return self.end_cancelled(id, key);
            }
            op.phase = Phase::Armed;
        }
        self.wait_for(file, Waiter::Op { ring: id, op: key, events });
    }

    fn attempt_receive(&mut self, id: FileId, key: OpKey, file: FileId) {
        let most = self.ring(id).and_then(|ring| ring.op(key)).map_or(0, |op| len_of(&op.parts));
        match self.receive(file, most) {
            Ok(bytes) => {
                let n = self.fill(id, key, &bytes);
                self.end(id, key, n, 0);
            }
            Err(error) if error == -libc::EAGAIN => self.block(id, key, file, libc::POLLIN),
            Err(error) => self.end(id, key, error, 0),
        }
    }

    fn attempt_receive_message(&mut self, id: FileId, key: OpKey, entry: Entry, file: FileId) {
        let flags = entry.op_flags as i32;
        let most = self.ring(id).and_then(|ring| ring.op(key)).map_or(0, |op| len_of(&op.parts));
        match self.receive_message(file, most, flags & libc::MSG_PEEK != 0) {
            Ok(message) => {
                let filled = self.fill(id, key, &message.bytes) as usize;
                let header = std::ptr::with_exposed_provenance_mut(entry.addr as usize);
                // SAFETY: the header and what it names are valid until the operation's last completion.
                let result = unsafe { message.answer(header, filled, flags) };
                self.end(id, key, result, 0);
            }
            Err(error) if error == -libc::EAGAIN => self.block(id, key, file, libc::POLLIN),
            Err(error) => self.end(id, key, error, 0),
        }
    }

    fn attempt_pooled(&mut self, id: FileId, key: OpKey, entry: Entry, file: FileId) {
        let multi = entry.ioprio & RECV_MULTISHOT != 0;
        let number = self.ring_number(id);
        loop {
            if self.ready(file) & libc::POLLIN == 0 {
                return self.block(id, key, file, libc::POLLIN);
            }
            let starved = self.fault(Fault::NoBuffer, number, String::new);
            if starved {
                self.tell_op(Fault::NoBuffer.name(), number, id, key, "found no buffer");
            }
            let buffer = self.head_buffer(id, entry.buf_group).filter(|_| !starved);
            let Some((ptr, room, number_of)) = buffer else {
                return self.end(id, key, -libc::ENOBUFS, 0);
            };
            let bytes = match self.receive(file, room) {
                Ok(bytes) => bytes,
                Err(error) if error == -libc::EAGAIN => {
                    return self.block(id, key, file, libc::POLLIN);
                }
                Err(error) => return self.end(id, key, error, 0),
            };
            if bytes.is_empty() {
                return self.end(id, key, 0, 0);
            }
            // SAFETY: the buffer was given to the kernel, which it belongs to until a completion names it.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), ptr, bytes.len()) };
            let flags = self.use_buffer(id, entry.buf_group, bytes.len(), number_of);
            let n = bytes.len() as i32;
            let ends = !multi
                || self.fault_of(Fault::MultishotEnds, id, number, "had a multishot recv end");
            if ends || !self.yields(id, key, n, flags) {
                return self.end(id, key, n, flags);
            }
        }
    }

    /// The buffer at the head of a group: where it is, how long, and its number.
    fn head_buffer(&mut self, id: FileId, group: u16) -> Option<(*mut u8, usize, u16)> {
        let group = self.ring(id)?.groups.get_mut(&group)?;
        // SAFETY: the memory was registered, is valid until it is unregistered, and its tail is the last two
        // bytes of entry zero, which both sides access atomically.
        let tail = unsafe { AtomicU16::from_ptr(group.memory.as_ptr().add(14).cast()) };
        if tail.load(Ordering::Acquire) == group.head {
            return None;
        }
        let index = usize::from(group.head & (group.entries - 1));
        // SAFETY: masked; the driver has written the entry before it moved the tail beyond it.
        unsafe {
            let entry = group.memory.as_ptr().add(16 * index);
            let ptr = entry.cast::<*mut u8>().read();
            let len = entry.add(8).cast::<u32>().read() as usize;
            let number = entry.add(12).cast::<u16>().read();
            Some((ptr, len, number))
        }
    }

    fn use_buffer(&mut self, id: FileId, group: u16, n: usize, number: u16) -> u32 {
        let flags = BUFFER | u32::from(number) << 16;
        let Some(group) = self.ring(id).and_then(|ring| ring.groups.get_mut(&group)) else {
            return flags;
        };
        let index = usize::from(group.head & (group.entries - 1));
        // SAFETY: as in `head_buffer`; entries between head and tail are the kernel's.
        let left = unsafe {
            let entry = group.memory.as_ptr().add(16 * index);
            let ptr = entry.cast::<*mut u8>();
            let len = entry.add(8).cast::<u32>();
            let left = len.read() as usize - n;
            if group.incremental && left > 0 {
                ptr.write(ptr.read().add(n));
                len.write(left as u32);
            }
            left
        };
        if group.incremental && left > 0 {
            return flags | BUFFER_MORE;
        }
        group.head = group.head.wrapping_add(1);
        flags
    }

    fn attempt_send(&mut self, id: FileId, key: OpKey, entry: Entry, file: FileId) {
        let all = entry.op_flags & libc::MSG_WAITALL as u32 != 0;
        loop {
            let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) else { return };
            let (done, left) = (op.done, len_of(&op.parts) - op.done);
            match self.may_send(file, left) {
                Ok(n) => {
                    let bytes = self.taken(id, key, done, n);
                    self.send_taken(file, bytes);
                    let done = done + n;
                    if let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) {
                        op.done = done;
                    }
                    if n == left || !all || n == 0 {
                        return self.end(id, key, done as i32, 0);
                    }
                }
                Err(error) if error == -libc::EAGAIN && (done == 0 || all) => {
                    return self.block(id, key, file, libc::POLLOUT);
                }
                Err(error) => {
                    let result = if done > 0 { done as i32 } else { error };
                    return self.end(id, key, result, 0);
                }
            }
        }
    }

    fn attempt_accept(&mut self, id: FileId, key: OpKey, entry: Entry, file: FileId) {
        let multi = entry.ioprio & ACCEPT_MULTISHOT != 0;
        let number = self.ring_number(id);
        loop {
            let (taken, peer) = match self.accept(file) {
                Ok(taken) => taken,
                Err(error) if error == -libc::EAGAIN => {
                    return self.block(id, key, file, libc::POLLIN);
                }
                Err(error) => return self.end(id, key, error, 0),
            };
            let fd = self.new_fd(taken);
            // The queue's hold.
            self.let_go(taken);
            let address =
                std::ptr::with_exposed_provenance_mut::<AddressStorage>(entry.addr as usize);
            let len = std::ptr::with_exposed_provenance_mut::<AddressLength>(entry.off as usize);
            if !address.is_null()
                && let Some(peer) = peer
            {
                // SAFETY: both are valid until the operation's last completion.
                unsafe { *len = crate::sys::write_address(&peer, address) };
            } else if !len.is_null() {
                // SAFETY: as above.
                unsafe { *len = 0 };
            }
            let ends = !multi
                || self.fault_of(Fault::MultishotEnds, id, number, "had a multishot accept end");
            if ends || !self.yields(id, key, fd, 0) {
                return self.end(id, key, fd, 0);
            }
        }
    }

    fn attempt_connect(&mut self, id: FileId, key: OpKey, entry: Entry, file: FileId) {
        let address = std::ptr::with_exposed_provenance::<AddressStorage>(entry.addr as usize);
        let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) else { return };
        let started = std::mem::replace(&mut op.started, true);
        // SAFETY: valid until the operation's last completion, with this length.
        match -unsafe { self.connect_to(file, address, entry.off as AddressLength) } {
            libc::EINPROGRESS => self.arm(id, key, file, libc::POLLOUT),
            libc::EALREADY if started => self.arm(id, key, file, libc::POLLOUT),
            libc::EISCONN if started => self.end(id, key, 0, 0),
            error => self.end(id, key, -error, 0),
        }
    }

    fn attempt_poll(&mut self, id: FileId, key: OpKey, entry: Entry, file: FileId) {
        let events = entry.op_flags as i16;
        let there = self.ready(file) & (events | libc::POLLERR | libc::POLLHUP | libc::POLLNVAL);
        let multi = entry.len & POLL_MULTISHOT != 0;
        if there == 0 {
            return self.arm(id, key, file, events);
        }
        if multi {
            let number = self.ring_number(id);
            let ends = self
                .fault(Fault::MultishotEnds, number, || "a multishot poll ended by itself".into());
            if !ends && self.yields(id, key, there.into(), 0) {
                self.arm(id, key, file, events);
            } else {
                self.end(id, key, there.into(), 0);
            }
        } else {
            self.end(id, key, there.into(), 0);
        }
    }
}

pub(super) fn fills(code: u8) -> bool {
    code == IoringOp::Recv as u8 || code == IoringOp::Recvmsg as u8 || code == IoringOp::Read as u8
}

pub(super) fn is_file_op(code: u8) -> bool {
    code == IoringOp::Read as u8 || code == IoringOp::Write as u8 || code == IoringOp::Fsync as u8
}

fn interruptible(code: u8) -> bool {
    [IoringOp::Recv, IoringOp::Recvmsg, IoringOp::Send, IoringOp::Sendmsg, IoringOp::Accept]
        .iter()
        .any(|op| *op as u8 == code)
}

fn len_of(parts: &[(*mut u8, usize)]) -> usize {
    parts.iter().map(|part| part.1).sum()
}

/// The memory that an entry names.
///
/// # Safety
/// What the entry names is valid.
#[allow(clippy::unnecessary_cast)] // With other C libraries the number has another type.
unsafe fn parts_of(entry: &Entry) -> Vec<(*mut u8, usize)> {
    let code = entry.opcode;
    if code == IoringOp::Sendmsg as u8 || code == IoringOp::Recvmsg as u8 {
        let header = std::ptr::with_exposed_provenance::<MessageHeader>(entry.addr as usize);
        // SAFETY: the header and its parts are valid, by the caller.
        let parts: &[Part] = unsafe {
            let (parts, len) = ((*header).msg_iov, (*header).msg_iovlen);
            if len == 0 { &[] } else { std::slice::from_raw_parts(parts, len) }
        };
        return parts.iter().map(|part| (part.iov_base.cast(), part.iov_len)).collect();
    }
    let has_memory = [IoringOp::Recv, IoringOp::Send, IoringOp::Read, IoringOp::Write];
    if has_memory.iter().any(|op| *op as u8 == code) && entry.flags & BUFFER_SELECT == 0 {
        let ptr = std::ptr::with_exposed_provenance_mut(entry.addr as usize);
        return vec![(ptr, entry.len as usize)];
    }
    Vec::new()
}
