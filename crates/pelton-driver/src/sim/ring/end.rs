//! How operations end: cancels and what they find, completions, and the bytes that come with them.

use rustix::io_uring::{IoringOp, IoringSqFlags};

use super::super::fault::Fault;
use super::super::file::FileId;
use super::super::seal::Seal;
use super::super::state::State;
use super::super::table::OpKey;
use super::super::words::operation;
use super::attempt::fills;
use super::attempt::is_file_op;
use super::{CANCEL_ALL, CANCEL_FD, Completion, Entry, MORE, Phase, SKIP_SUCCESS};

impl State {
    pub(super) fn cancel_entry(&mut self, id: FileId, entry: Entry) {
        let by_fd = entry.op_flags & CANCEL_FD != 0;
        let all = entry.op_flags & CANCEL_ALL != 0;
        let file = if by_fd { self.of_fd(entry.fd) } else { None };
        if by_fd && file.is_none() {
            return self.post(id, entry, -libc::EBADF, 0);
        }
        let Some(ring) = self.ring(id) else { return };
        let mut matching = ring.keys();
        matching.retain(|key| {
            ring.op(*key).is_some_and(|op| match file {
                Some(file) => op.file == file,
                None => op.entry.user_data == entry.addr,
            })
        });
        let mut result = -libc::ENOENT;
        let mut found = 0;
        for key in matching {
            if self.misses(id, key) {
                continue;
            }
            result = self.cancel(id, key);
            found += 1;
            if !all {
                break;
            }
        }
        if all && found > 0 {
            result = found;
        }
        self.post(id, entry, result, 0);
    }

    /// True where a cancel does not find an operation on a socket. As Linux has it: what was ready again when it
    /// was about to wait is queued to be tried, and in no list of those that wait.
    fn misses(&mut self, id: FileId, key: OpKey) -> bool {
        let Some(ring) = self.ring(id) else { return false };
        let number = ring.number;
        if ring.op(key).is_none_or(|op| is_file_op(op.entry.opcode)) {
            return false;
        }
        let misses = self.fault(Fault::CancelMissed, number, String::new);
        if misses {
            let label = Fault::CancelMissed.name();
            self.tell_op(label, number, id, key, "was not found by its cancel");
        }
        misses
    }

    /// Cancels one operation: 0, or `EALREADY` where it goes on.
    pub(super) fn cancel(&mut self, id: FileId, key: OpKey) -> i32 {
        let Some(ring) = self.ring(id) else { return -libc::ENOENT };
        let number = ring.number;
        let Some(op) = ring.op(key) else { return -libc::ENOENT };
        let (phase, file, code) = (op.phase, op.file, op.entry.opcode);
        if phase == Phase::Armed
            && code == IoringOp::Accept as u8
            && self.choose("cancel race", number, 2) == 1
        {
            let story = "was cancelled, and may be woken in another's place until it has ended";
            self.tell_op("cancel race", number, id, key, story);
            self.queue_work(id, key);
            if let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) {
                op.phase = Phase::Doomed;
            }
            return 0;
        }
        if phase != Phase::Armed {
            let label = if self.fault(Fault::CancelTooLate, number, String::new) {
                Some(Fault::CancelTooLate.name())
            } else {
                (self.choose("cancel race", number, 2) == 1).then_some("cancel race")
            };
            if let Some(label) = label {
                self.tell_op(label, number, id, key, "was cancelled too late");
                // As Linux has it: it does what it is about to do, and ends where it would have to wait.
                if let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) {
                    op.cancelled = true;
                }
                return -libc::EALREADY;
            }
        }
        self.wait_no_more(file, id, key);
        self.end_cancelled(id, key);
        0
    }

    pub(super) fn end_cancelled(&mut self, id: FileId, key: OpKey) {
        let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) else { return };
        let (done, code) = (op.done, op.entry.opcode);
        let sends = code == IoringOp::Send as u8 || code == IoringOp::Sendmsg as u8;
        let result = if sends && done > 0 { done as i32 } else { -libc::ECANCELED };
        self.end(id, key, result, 0);
    }

    pub(in crate::sim) fn cancel_everything(&mut self, id: FileId) -> u32 {
        let keys = self.ring(id).map_or(Vec::new(), |ring| ring.keys());
        for key in &keys {
            self.cancel(id, *key);
        }
        keys.len() as u32
    }

    /// One of several completions. False, with nothing done, where there is no room to go on.
    pub(super) fn yields(&mut self, id: FileId, key: OpKey, result: i32, flags: u32) -> bool {
        let Some(ring) = self.ring(id) else { return false };
        if !ring.has_room() {
            return false;
        }
        let Some(op) = ring.op(key) else { return false };
        let entry = op.entry;
        self.post(id, entry, result, flags | MORE);
        true
    }

    /// The last completion.
    pub(in crate::sim) fn end(&mut self, id: FileId, key: OpKey, result: i32, flags: u32) {
        let Some(op) = self.ring(id).and_then(|ring| ring.ops.remove(key)) else { return };
        let written = if fills(op.entry.opcode) { result.max(0) as usize } else { 0 };
        // SAFETY: until this completion nobody but the kernel touches the memory.
        if let Err(what) = unsafe { op.seal.check(&op.parts, written) } {
            let user_data = op.entry.user_data;
            self.violation(format!("operation {user_data:#x}: {what} while the kernel held it"));
        }
        self.let_go(op.file);
        self.post(id, op.entry, result, flags);
    }

    pub(super) fn post(&mut self, id: FileId, entry: Entry, result: i32, flags: u32) {
        if entry.flags & SKIP_SUCCESS != 0 && result >= 0 {
            return;
        }
        let number = self.ring_number(id);
        let spills = self.fault_of(Fault::Overflow, id, number, "had its queue overflow");
        // Descriptor numbers tell worlds apart: two runs of one seed have others.
        let noted = if super::super::calls::owns(result) { 0 } else { result as u32 };
        self.choices.note(entry.user_data ^ u64::from(noted) << 20);
        let Some(ring) = self.ring(id) else { return };
        let completion = Completion { user_data: entry.user_data, result, flags };
        if ring.has_room() && !spills {
            ring.write(completion);
        } else {
            ring.overflow.push_back(completion);
            ring.flag(IoringSqFlags::CQ_OVERFLOW, true);
        }
        self.ring_changed(id);
    }

    /// Writes into an operation's memory, as far as it fits.
    pub(in crate::sim) fn fill(&mut self, id: FileId, key: OpKey, bytes: &[u8]) -> i32 {
        let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) else { return 0 };
        // SAFETY: until its last completion nobody but the kernel touches the memory.
        if let Err(what) = unsafe { op.seal.check(&op.parts, 0) } {
            let user_data = op.entry.user_data;
            op.seal = Seal::none();
            self.violation(format!("operation {user_data:#x}: {what} while the kernel held it"));
        }
        let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) else { return 0 };
        let mut rest = bytes;
        for (ptr, len) in &op.parts {
            let (now, later) = rest.split_at(rest.len().min(*len));
            // SAFETY: the part has room for it, and belongs to the kernel now.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), *ptr, now.len()) };
            rest = later;
        }
        (bytes.len() - rest.len()) as i32
    }

    /// Reads from an operation's memory: at most `n` bytes, behind the first `skip`.
    pub(in crate::sim) fn taken(
        &mut self,
        id: FileId,
        key: OpKey,
        mut skip: usize,
        mut n: usize,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) else { return bytes };
        for (ptr, len) in &op.parts {
            let here = len.saturating_sub(skip).min(n);
            if here > 0 {
                // SAFETY: inside the part, which the owner has initialised and leaves alone until the last
                // completion.
                bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(ptr.add(skip), here) });
            }
            skip = skip.saturating_sub(*len);
            n -= here;
        }
        bytes
    }

    /// A fault of a reactor as a whole.
    pub(in crate::sim) fn fault_of(
        &mut self,
        fault: Fault,
        id: FileId,
        who: u64,
        story: &str,
    ) -> bool {
        let fires = self.fault(fault, who, String::new);
        if fires {
            self.tell(fault.name(), who, |state| format!("{} {story}", state.reactor_of(id)));
        }
        fires
    }

    pub(super) fn tell_op(
        &mut self,
        label: &'static str,
        who: u64,
        id: FileId,
        key: OpKey,
        story: &str,
    ) {
        let op = self.ring(id).and_then(|ring| ring.op(key)).map(|op| (op.entry.opcode, op.file));
        let Some((code, file)) = op else { return };
        self.tell(label, who, |state| {
            let (reactor, name) = (state.reactor_of(id), state.file_name(file));
            format!("{} of {reactor} on {name} {story}", operation(code))
        });
    }
}
