//! Entering a ring: entries are taken from one queue, task work is done, and completions come out of the other. And
//! what is registered with a ring.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::io_uring::{IoringRegisterOp, IoringSqFlags, io_uring_buf_reg};

use super::super::fault::Fault;
use super::super::file::FileId;
use super::super::state::State;
use super::super::table::OpKey;
use super::{ARRAY, Entry, Group, PBUF_INCREMENTAL, Phase, SQ_HEAD, SQ_TAIL};

impl State {
    /// The part of an enter that does not wait: takes entries, and with `getevents` does task work.
    pub(in crate::sim) fn enter_begin(
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
    pub(in crate::sim) fn completions(&mut self, id: FileId) -> u32 {
        self.ring(id).map_or(0, |ring| ring.ready())
    }

    /// Work that is to be done before a wait goes on.
    pub(in crate::sim) fn has_work(&mut self, id: FileId) -> bool {
        self.ring(id).is_some_and(|ring| !ring.work.is_empty() || !ring.overflow.is_empty())
    }

    pub(in crate::sim) fn wait_begins(&mut self, id: FileId, timeout: Option<u64>) {
        if let Some(proc) = self.ring(id).and_then(|ring| ring.proc) {
            self.begin_wait(proc, timeout);
        }
    }

    pub(in crate::sim) fn ring_number(&mut self, id: FileId) -> u64 {
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
            match self.ring(id).and_then(|ring| ring.op(key)).map(|op| (op.phase, op.file)) {
                Some((Phase::Doomed, file)) => {
                    self.wait_no_more(file, id, key);
                    self.end_cancelled(id, key);
                }
                _ => self.attempt(id, key),
            }
        }
        if let Some(ring) = self.ring(id) {
            // A driver that no scheduler turns is to look each time, or nothing would ever happen while its
            // thread keeps itself busy.
            let alone = ring.proc.is_none();
            ring.flag(IoringSqFlags::TASKRUN, alone || !ring.work.is_empty());
        }
    }

    pub(in crate::sim) fn bring_kept(&mut self, id: FileId) {
        let Some(ring) = self.ring(id) else { return };
        let kept: Vec<OpKey> = ring.kept.drain(..).map(|(key, _)| key).collect();
        for key in kept {
            self.queue_work(id, key);
        }
    }

    pub(super) fn queue_work(&mut self, id: FileId, key: OpKey) {
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

    pub(super) fn ring_changed(&mut self, id: FileId) {
        if let Some(proc) = self.ring(id).and_then(|ring| ring.proc)
            && self.procs[proc.0 as usize].waiting.is_some()
        {
            self.make_runnable(proc);
        }
    }

    /// # Safety
    /// `arg` is what `op` demands.
    pub(in crate::sim) unsafe fn ring_register(
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
