//! A simulated io_uring: the memory of the two queues, the entries that a driver puts there, and the
//! completions that it finds.
//!
//! # What is kept of the real one
//!
//! - An entry is tried once when it is submitted. Where it would block it waits for its file, unless the file
//!   does not block: then it ends with `EAGAIN`.
//! - What becomes possible later is done as *task work*: when the driver enters and asks for events, not when
//!   it happens (`DEFER_TASKRUN`). Only then is a buffer written.
//! - A full completion queue keeps what does not fit in a list, raises a flag, and ends multishot operations.
//! - Every operation ends with exactly one completion without `MORE`, also one that is cancelled.
//! - An operation in flight holds its file, so a close does not end it.
//!
//! # What is chosen
//! The order of task work; whether it comes late; whether a cancel that finds an operation with its work
//! queued stops it; how much is received and sent; which features the kernel has; all the faults.

use std::alloc::Layout;
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::io_uring::{
    IoringFeatureFlags, IoringOp, IoringRegisterOp, IoringSetupFlags, IoringSqFlags,
    io_uring_buf_reg, io_uring_params,
};

use super::fault::Fault;
use super::file::{File, FileId, Kind, Waiter};
use super::seal::Seal;
use super::state::{Event, MICRO, MILLI, ProcId, State};
use super::table::{OpKey, Table};
use super::words::{operation, time};
use crate::sys::{AddressLength, AddressStorage, MessageHeader, Part};

const SQ_HEAD: usize = 0;
const SQ_TAIL: usize = 4;
const SQ_FLAGS: usize = 8;
const SQ_DROPPED: usize = 12;
const CQ_HEAD: usize = 64;
const CQ_TAIL: usize = 68;
const CQ_OVERFLOW: usize = 72;
const ARRAY: usize = 128;

const MORE: u32 = 2;
const BUFFER: u32 = 1;
const BUFFER_MORE: u32 = 1 << 4;
const BUFFER_SELECT: u8 = 1 << 5;
const SKIP_SUCCESS: u8 = 1 << 6;
const RECV_MULTISHOT: u16 = 1 << 1;
const ACCEPT_MULTISHOT: u16 = 1;
const POLL_MULTISHOT: u32 = 1;
const CANCEL_ALL: u32 = 1;
const CANCEL_FD: u32 = 1 << 1;
const PBUF_INCREMENTAL: u16 = 2;

/// A submission entry, in the kernel's layout.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    buf_group: u16,
    personality: u16,
    file_index: u32,
    addr3: u64,
    pad: u64,
}

#[repr(C)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for its file.
    Armed,
    /// Can go on, and does when task work is done.
    Ready,
    /// With a worker, or late: an event brings it back.
    Away,
}

struct Op {
    entry: Entry,
    file: FileId,
    /// The memory that it was given, as it was when it was submitted.
    parts: Vec<(*mut u8, usize)>,
    seal: Seal,
    done: usize,
    started: bool,
    /// A cancel came too late to stop what it was doing: it does not wait again.
    cancelled: bool,
    phase: Phase,
}

struct Group {
    memory: NonNull<u8>,
    entries: u16,
    head: u16,
    incremental: bool,
}

/// Memory that a driver maps.
struct Mapped {
    start: NonNull<u8>,
    layout: Layout,
}

impl Mapped {
    fn new(len: usize) -> Mapped {
        let layout = Layout::from_size_align(len.max(64), 64).expect("a ring's size is checked");
        // SAFETY: the size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        Mapped { start, layout }
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + 4 <= self.layout.size());
        // SAFETY: inside the block, aligned, zeroed at first, and both sides access it atomically.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout. The driver's side has a share in it as long as it has
        // pointers, as a mapping would be, whatever becomes of the world.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

pub(super) struct Ring {
    queues: Rc<Mapped>,
    entries: Rc<Mapped>,
    sq_entries: u32,
    cq_entries: u32,
    sq_array: bool,
    cqes: usize,
    incremental: bool,
    cq_tail: u32,
    overflow: VecDeque<Completion>,
    ops: Table<Op>,
    work: VecDeque<OpKey>,
    /// Work that is not to be seen before so many more enters.
    kept: Vec<(OpKey, u32)>,
    groups: HashMap<u16, Group>,
    proc: Option<ProcId>,
    pub(super) number: u64,
}

impl Ring {
    /// Where the queues are and where the entries, and what keeps them there.
    pub(super) fn memory(&self) -> (*mut u8, *mut u8, Rc<dyn Any>) {
        let share = Rc::new((self.queues.clone(), self.entries.clone()));
        (self.queues.start.as_ptr(), self.entries.start.as_ptr(), share)
    }

    fn ready(&self) -> u32 {
        self.cq_tail.wrapping_sub(self.queues.word(CQ_HEAD).load(Ordering::Acquire))
    }

    fn has_room(&self) -> bool {
        self.overflow.is_empty() && self.ready() < self.cq_entries
    }

    fn flag(&self, flag: IoringSqFlags, on: bool) {
        let word = self.queues.word(SQ_FLAGS);
        let before = word.load(Ordering::Relaxed);
        let after = if on { before | flag.bits() } else { before & !flag.bits() };
        word.store(after, Ordering::Relaxed);
    }

    fn write(&mut self, completion: Completion) {
        let at = self.cqes + (self.cq_tail & (self.cq_entries - 1)) as usize * 16;
        // SAFETY: inside the block, by the mask; aligned; the driver does not read beyond the tail, which is
        // moved after.
        unsafe { self.queues.start.as_ptr().add(at).cast::<Completion>().write(completion) };
        self.cq_tail = self.cq_tail.wrapping_add(1);
        self.queues.word(CQ_TAIL).store(self.cq_tail, Ordering::Release);
    }

    fn op(&mut self, key: OpKey) -> Option<&mut Op> {
        self.ops.get_mut(key)
    }

    pub(super) fn reactor(&self) -> Option<ProcId> {
        self.proc
    }

    /// What waits, by name, and on which file.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&'static str, FileId)> {
        self.ops.iter().map(|(_, op)| (operation(op.entry.opcode), op.file))
    }

    /// Operations that have not ended.
    pub(super) fn in_flight(&self) -> usize {
        self.ops.len()
    }

    fn keys(&self) -> Vec<OpKey> {
        self.ops.iter().map(|(key, _)| key).collect()
    }
}

impl State {
    fn ring(&mut self, id: FileId) -> Option<&mut Ring> {
        match self.file_mut(id) {
            Some(File { kind: Kind::Ring(ring), .. }) => Some(ring),
            _ => None,
        }
    }

    pub(super) fn ring_setup(
        &mut self,
        entries: u32,
        params: &mut io_uring_params,
    ) -> Result<FileId, Errno> {
        let number = self.files.len() as u64;
        let host = self.current_host;
        if self.fault(Fault::RingRefused, 0, String::new) {
            self.tell(Fault::RingRefused.name(), 0, |state| {
                format!("the kernel of {} refused a ring", state.host_name(host))
            });
            return Err(Errno::PERM);
        }
        let old = self.choose("old kernel", 0, 2) == 1;
        if old {
            self.tell("old kernel", 0, |state| {
                format!("the kernel of {} is an old one", state.host_name(host))
            });
        }
        if old && params.flags.contains(IoringSetupFlags::NO_SQARRAY) {
            return Err(Errno::INVAL);
        }
        let sq_array = !params.flags.contains(IoringSetupFlags::NO_SQARRAY);
        let cq_entries = params.cq_entries.max(2 * entries);
        let cqes = (ARRAY + 4 * entries as usize).next_multiple_of(64);
        params.sq_entries = entries;
        params.cq_entries = cq_entries;
        params.features = IoringFeatureFlags::SINGLE_MMAP
            | IoringFeatureFlags::NODROP
            | IoringFeatureFlags::SUBMIT_STABLE
            | IoringFeatureFlags::EXT_ARG
            | IoringFeatureFlags::CQE_SKIP
            | IoringFeatureFlags::from_bits_retain(if old { 0 } else { 1 << 15 });
        params.sq_off.head = SQ_HEAD as u32;
        params.sq_off.tail = SQ_TAIL as u32;
        params.sq_off.flags = SQ_FLAGS as u32;
        params.sq_off.dropped = SQ_DROPPED as u32;
        params.sq_off.array = ARRAY as u32;
        params.cq_off.head = CQ_HEAD as u32;
        params.cq_off.tail = CQ_TAIL as u32;
        params.cq_off.overflow = CQ_OVERFLOW as u32;
        params.cq_off.cqes = cqes as u32;
        let ring = Ring {
            queues: Rc::new(Mapped::new(cqes + 16 * cq_entries as usize)),
            entries: Rc::new(Mapped::new(64 * entries as usize)),
            sq_entries: entries,
            cq_entries,
            sq_array,
            cqes,
            incremental: !old,
            cq_tail: 0,
            overflow: VecDeque::new(),
            ops: Table::new(),
            work: VecDeque::new(),
            kept: Vec::new(),
            groups: HashMap::new(),
            proc: self.current_proc,
            number,
        };
        Ok(self.new_file(Kind::Ring(Box::new(ring)), false))
    }

    pub(super) fn ring_closed(&mut self, mut ring: Ring) {
        // What is in flight holds its files no longer. The driver has seen to it that nothing is, or has
        // left its memory behind.
        for key in ring.keys() {
            if let Some(op) = ring.ops.remove(key) {
                if !op.parts.is_empty() || op.entry.flags & BUFFER_SELECT != 0 {
                    let user_data = op.entry.user_data;
                    self.violation(format!(
                        "a ring was closed with operation {user_data:#x} in flight, which holds memory"
                    ));
                }
                self.let_go(op.file);
            }
        }
    }

    // Entering.

    /// The part of an enter that does not wait: takes entries, and with `getevents` does task work.
    pub(super) fn enter_begin(
        &mut self,
        id: FileId,
        submit: u32,
        getevents: bool,
    ) -> Result<u32, Errno> {
        self.count_call();
        let Some(ring) = self.ring(id) else { return Err(Errno::BADF) };
        let (who, overflowed) = (ring.number, !ring.overflow.is_empty());
        let head = ring.queues.word(SQ_HEAD).load(Ordering::Acquire);
        let tail = ring.queues.word(SQ_TAIL).load(Ordering::Acquire);
        let staged = tail.wrapping_sub(head).min(ring.sq_entries);
        let mut take = submit.min(staged);
        if take > 0 {
            if self.fault_of(Fault::EnterAgain, id, who, "could not enter the kernel: EAGAIN") {
                return Err(Errno::AGAIN);
            }
            if overflowed
                && self.fault_of(Fault::EnterBusy, id, who, "could not enter the kernel: EBUSY")
            {
                self.flush_overflow(id);
                return Err(Errno::BUSY);
            }
            if take > 1 && self.fault(Fault::ShortSubmit, who, String::new) {
                let all = take;
                take = 1 + self.choose("short-submit to", who, u64::from(take) - 1) as u32;
                self.tell(Fault::ShortSubmit.name(), who, |state| {
                    format!("{} got {take} of {all} entries submitted", state.reactor_of(id))
                });
            }
        }
        for taken in 0..take {
            let at = head.wrapping_add(taken);
            let Some(entry) = self.read_entry(id, at) else { break };
            if let Some(ring) = self.ring(id) {
                ring.queues.word(SQ_HEAD).store(at.wrapping_add(1), Ordering::Release);
            }
            self.submit(id, entry);
        }
        if getevents {
            self.flush_overflow(id);
            self.run_work(id);
        }
        Ok(take)
    }

    /// How many completions are there that have not been taken.
    pub(super) fn completions(&mut self, id: FileId) -> u32 {
        self.ring(id).map_or(0, |ring| ring.ready())
    }

    /// Work that is to be done before a wait goes on.
    pub(super) fn has_work(&mut self, id: FileId) -> bool {
        self.ring(id).is_some_and(|ring| !ring.work.is_empty() || !ring.overflow.is_empty())
    }

    pub(super) fn wait_begins(&mut self, id: FileId, timeout: Option<u64>) {
        if let Some(proc) = self.ring(id).and_then(|ring| ring.proc) {
            self.begin_wait(proc, timeout);
        }
    }

    pub(super) fn ring_number(&mut self, id: FileId) -> u64 {
        self.ring(id).map_or(0, |ring| ring.number)
    }

    fn read_entry(&mut self, id: FileId, at: u32) -> Option<Entry> {
        let ring = self.ring(id)?;
        let mask = ring.sq_entries - 1;
        let mut index = at & mask;
        if ring.sq_array {
            index = ring.queues.word(ARRAY + 4 * index as usize).load(Ordering::Relaxed) & mask;
        }
        // SAFETY: masked, so inside the block; the driver has written the entry whole before it moved the
        // tail beyond it.
        Some(unsafe { ring.entries.start.as_ptr().cast::<Entry>().add(index as usize).read() })
    }

    fn flush_overflow(&mut self, id: FileId) {
        let Some(ring) = self.ring(id) else { return };
        while ring.ready() < ring.cq_entries
            && let Some(completion) = ring.overflow.pop_front()
        {
            ring.write(completion);
        }
        ring.flag(IoringSqFlags::CQ_OVERFLOW, !ring.overflow.is_empty());
    }

    fn run_work(&mut self, id: FileId) {
        let Some(ring) = self.ring(id) else { return };
        for kept in &mut ring.kept {
            kept.1 = kept.1.saturating_sub(1);
        }
        let (now, later) = std::mem::take(&mut ring.kept).into_iter().partition(|kept| kept.1 == 0);
        let now: Vec<(OpKey, u32)> = now;
        ring.kept = later;
        ring.work.extend(now.into_iter().map(|(key, _)| key));
        for _ in 0..ring.work.len() {
            let Some(key) = self.ring(id).and_then(|ring| ring.work.pop_front()) else { break };
            self.attempt(id, key);
        }
        if let Some(ring) = self.ring(id) {
            // A driver that no scheduler turns is to look each time, or nothing would ever happen while its
            // thread keeps itself busy.
            let alone = ring.proc.is_none();
            ring.flag(IoringSqFlags::TASKRUN, alone || !ring.work.is_empty());
        }
    }

    pub(super) fn bring_kept(&mut self, id: FileId) {
        let Some(ring) = self.ring(id) else { return };
        let kept: Vec<OpKey> = ring.kept.drain(..).map(|(key, _)| key).collect();
        for key in kept {
            self.queue_work(id, key);
        }
    }

    fn queue_work(&mut self, id: FileId, key: OpKey) {
        let Some(ring) = self.ring(id) else { return };
        let (number, len) = (ring.number, ring.work.len() as u64);
        if ring.op(key).is_none() {
            return;
        }
        let ahead = if len == 0 { 0 } else { self.choose("overtakes", number, len.min(8) + 1) };
        if ahead > 0 {
            self.tell_op("overtakes", number, id, key, &format!("went on before {ahead} others"));
        }
        let Some(ring) = self.ring(id) else { return };
        if let Some(op) = ring.op(key) {
            op.phase = Phase::Ready;
        }
        ring.work.insert((len - ahead) as usize, key);
        ring.flag(IoringSqFlags::TASKRUN, true);
        self.ring_changed(id);
    }

    fn ring_changed(&mut self, id: FileId) {
        if let Some(proc) = self.ring(id).and_then(|ring| ring.proc)
            && self.procs[proc.0 as usize].waiting.is_some()
        {
            self.make_runnable(proc);
        }
    }

    // Operations.

    fn submit(&mut self, id: FileId, entry: Entry) {
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

    pub(super) fn op_goes_on(&mut self, id: FileId, key: OpKey) {
        self.queue_work(id, key);
    }

    /// The file of an operation that waits for it has changed.
    pub(super) fn op_woken(&mut self, id: FileId, key: OpKey) {
        let Some(ring) = self.ring(id) else { return };
        let number = ring.number;
        let Some(op) = ring.op(key) else { return };
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

    /// Tries an operation: it ends, yields, or waits for its file.
    fn attempt(&mut self, id: FileId, key: OpKey) {
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
    pub(super) fn block(&mut self, id: FileId, key: OpKey, file: FileId, events: i16) {
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

    // Cancelling.

    fn cancel_entry(&mut self, id: FileId, entry: Entry) {
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
    fn cancel(&mut self, id: FileId, key: OpKey) -> i32 {
        let Some(ring) = self.ring(id) else { return -libc::ENOENT };
        let number = ring.number;
        let Some(op) = ring.op(key) else { return -libc::ENOENT };
        let (phase, file) = (op.phase, op.file);
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

    fn end_cancelled(&mut self, id: FileId, key: OpKey) {
        let Some(op) = self.ring(id).and_then(|ring| ring.op(key)) else { return };
        let (done, code) = (op.done, op.entry.opcode);
        let sends = code == IoringOp::Send as u8 || code == IoringOp::Sendmsg as u8;
        let result = if sends && done > 0 { done as i32 } else { -libc::ECANCELED };
        self.end(id, key, result, 0);
    }

    pub(super) fn cancel_everything(&mut self, id: FileId) -> u32 {
        let keys = self.ring(id).map_or(Vec::new(), |ring| ring.keys());
        for key in &keys {
            self.cancel(id, *key);
        }
        keys.len() as u32
    }

    // Completing.

    /// One of several completions. False, with nothing done, where there is no room to go on.
    fn yields(&mut self, id: FileId, key: OpKey, result: i32, flags: u32) -> bool {
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
    pub(super) fn end(&mut self, id: FileId, key: OpKey, result: i32, flags: u32) {
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

    fn post(&mut self, id: FileId, entry: Entry, result: i32, flags: u32) {
        if entry.flags & SKIP_SUCCESS != 0 && result >= 0 {
            return;
        }
        let number = self.ring_number(id);
        let spills = self.fault_of(Fault::Overflow, id, number, "had its queue overflow");
        // Descriptor numbers tell worlds apart: two runs of one seed have others.
        let noted = if super::calls::owns(result) { 0 } else { result as u32 };
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
    pub(super) fn fill(&mut self, id: FileId, key: OpKey, bytes: &[u8]) -> i32 {
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
    pub(super) fn taken(
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

    // Telling.

    /// A fault of a reactor as a whole.
    pub(super) fn fault_of(&mut self, fault: Fault, id: FileId, who: u64, story: &str) -> bool {
        let fires = self.fault(fault, who, String::new);
        if fires {
            self.tell(fault.name(), who, |state| format!("{} {story}", state.reactor_of(id)));
        }
        fires
    }

    fn tell_op(&mut self, label: &'static str, who: u64, id: FileId, key: OpKey, story: &str) {
        let op = self.ring(id).and_then(|ring| ring.op(key)).map(|op| (op.entry.opcode, op.file));
        let Some((code, file)) = op else { return };
        self.tell(label, who, |state| {
            let (reactor, name) = (state.reactor_of(id), state.file_name(file));
            format!("{} of {reactor} on {name} {story}", operation(code))
        });
    }

    // Registering.

    /// # Safety
    /// `arg` is what `op` demands.
    pub(super) unsafe fn ring_register(
        &mut self,
        id: FileId,
        op: IoringRegisterOp,
        arg: *mut std::ffi::c_void,
        count: u32,
    ) -> Result<u32, Errno> {
        match op {
            IoringRegisterOp::RegisterProbe => {
                let known = count.min(64) as usize;
                // SAFETY: 16 bytes of head and `count` entries of 8.
                unsafe {
                    let head = arg.cast::<u8>();
                    head.write(known as u8 - 1);
                    head.add(1).write(known as u8);
                    for code in 0..known {
                        head.add(16 + 8 * code).write(code as u8);
                        head.add(16 + 8 * code + 2).cast::<u16>().write_unaligned(1);
                    }
                }
                Ok(0)
            }
            IoringRegisterOp::RegisterPbufRing => {
                // SAFETY: the argument is such a registration.
                let registration = unsafe { arg.cast::<io_uring_buf_reg>().read() };
                let Some(ring) = self.ring(id) else { return Err(Errno::BADF) };
                let entries = registration.ring_entries;
                let incremental = registration.flags & PBUF_INCREMENTAL != 0;
                if !entries.is_power_of_two()
                    || entries > 32768
                    || (incremental && !ring.incremental)
                {
                    return Err(Errno::INVAL);
                }
                if ring.groups.contains_key(&registration.bgid) {
                    return Err(Errno::EXIST);
                }
                let memory = registration.ring_addr.ptr.cast::<u8>();
                let memory = NonNull::new(memory).ok_or(Errno::FAULT)?;
                let group = Group { memory, entries: entries as u16, head: 0, incremental };
                ring.groups.insert(registration.bgid, group);
                Ok(0)
            }
            IoringRegisterOp::UnregisterPbufRing => {
                // SAFETY: as above.
                let registration = unsafe { arg.cast::<io_uring_buf_reg>().read() };
                let ring = self.ring(id).ok_or(Errno::BADF)?;
                ring.groups.remove(&registration.bgid).map(|_| 0).ok_or(Errno::NOENT)
            }
            IoringRegisterOp::RegisterSyncCancel => Ok(self.cancel_everything(id)),
            _ => Err(Errno::INVAL),
        }
    }
}

fn fills(code: u8) -> bool {
    code == IoringOp::Recv as u8 || code == IoringOp::Recvmsg as u8 || code == IoringOp::Read as u8
}

fn is_file_op(code: u8) -> bool {
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
