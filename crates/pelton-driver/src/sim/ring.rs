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
//! - A connection wakes one accept of those that wait for its listener. One that was cancelled may be that one, and
//!   then nobody hears of it.
//!
//! # What is chosen
//! The order of task work; whether it comes late; whether a cancel that finds an operation with its work
//! queued stops it; how much is received and sent; which features the kernel has; all the faults.

mod attempt;
mod end;
mod enter;

use std::alloc::Layout;
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::io_uring::{IoringFeatureFlags, IoringSetupFlags, IoringSqFlags, io_uring_params};

use super::fault::Fault;
use super::file::{File, FileId, Kind};
use super::seal::Seal;
use super::state::{ProcId, State};
use super::table::{OpKey, Table};
use super::words::operation;

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
    /// Cancelled, and among those that wait until its task work is done: it may be woken in another's place.
    Doomed,
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
}
