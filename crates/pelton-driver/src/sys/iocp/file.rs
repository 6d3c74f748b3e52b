//! Files: overlapped where their handle is, and on the blocking pool where its calls wait.

use super::super::numbers as errno;
use super::super::status::{self, Began};
use super::super::windows::calls::{self, system_error};
use super::super::windows::offset::at_offset;
use super::super::windows::{RawDescriptor, raw_of};
use super::Iocp;
use super::home::Home;
use super::win32::{ReadFile, WriteFile};
use crate::blocking::{self, FileJob};
use crate::core::Core;
use crate::descriptor::{Entry, flags};
use crate::notify::Notifier;
use crate::payload::Memory;
use crate::slot::Slot;

impl Iocp {
    /// Begins to read or write at a place in a file.
    pub(super) fn transfer(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        memory: Memory,
        (offset, write): (u64, bool),
    ) {
        slot.set_offset(offset);
        let raw = raw_of(entry);
        if let RawDescriptor::Socket(_) = raw {
            let _ = core.finish(slot, -errno::ESPIPE);
            return;
        }
        if !entry.has(flags::WAITS)
            && let Err(error) = self.associate(core, entry, true)
        {
            if error != errno::EINVAL {
                let _ = core.finish(slot, -error);
                return;
            }
            if !calls::is_file(raw) {
                // A pipe, or whatever else has no places, and whose calls would wait for ever.
                let _ = core.finish(slot, -errno::ESPIPE);
                return;
            }
            // It was not opened for overlapped calls.
            entry.set(flags::WAITS);
        }
        if entry.has(flags::WAITS) {
            return transfer_on_pool(core, slot, raw, memory, offset, write);
        }
        let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
        // SAFETY: the slot owns the memory and keeps the handle open until its last completion, which is not
        // before the packet.
        let began = unsafe { transfer(home, generation, skips, raw, memory, offset, write) };
        let result = match began {
            Began::Posts => return,
            Began::Ended => {
                let (status, bytes) = home.ended();
                self.after(core, slot, entry, status, bytes).unwrap_or(0)
            }
            Began::Failed(error) if write => -status::of_file(error),
            // Past what any file system holds, which some call an error.
            Began::Failed(errno::EINVAL) if offset >= 1 << 56 => 0,
            Began::Failed(error) => status::of_read(status::of_file(error), 0),
        };
        core.counters().completions.add(1);
        let _ = core.finish(slot, result);
    }
}

/// Reads or writes at a place in a file.
///
/// # Safety
/// The handle is open and the memory nobody else's, until the packet has come, where one does.
unsafe fn transfer(
    home: &Home,
    generation: u32,
    skips: bool,
    raw: RawDescriptor,
    memory: Memory,
    offset: u64,
    write: bool,
) -> Began {
    let overlapped = home.give(generation, at_offset(offset));
    let len = u32::try_from(memory.len).unwrap_or(u32::MAX);
    let none = std::ptr::null_mut();
    // SAFETY: by the caller; the home is the kernel's from here to the packet.
    let ok = unsafe {
        if write {
            WriteFile(raw.handle(), memory.ptr, len, none, overlapped)
        } else {
            ReadFile(raw.handle(), memory.ptr, len, none, overlapped)
        }
    } != 0;
    let began = Began::of(ok, if ok { 0 } else { system_error() }, skips);
    if began != Began::Posts {
        home.take_back();
    }
    began
}

/// The same on a thread of the blocking pool, for a handle whose calls wait.
fn transfer_on_pool(
    core: &Core,
    slot: &Slot,
    raw: RawDescriptor,
    memory: Memory,
    offset: u64,
    write: bool,
) {
    let job = ForThread(raw, memory);
    let call = move || {
        // As a whole, so that the closure takes the wrapper and not the pointers in it.
        let ForThread(raw, memory) = { job };
        // SAFETY: the slot that owns the memory and keeps the handle open stays busy until this call's result has
        // come back to the driver, or is leaked.
        unsafe {
            if write {
                calls::pwrite(raw, memory.ptr, memory.len, offset)
            } else {
                calls::pread(raw, memory.ptr, memory.len, offset)
            }
        }
    };
    pool_job(core, slot, Box::new(call));
}

/// Brings a file to the disk, which the system does only while somebody waits.
pub(super) fn sync(core: &Core, slot: &Slot, raw: RawDescriptor) {
    let job = ForThread(raw, Memory::NONE);
    let call = move || {
        let ForThread(raw, _) = { job };
        calls::fsync(raw)
    };
    pool_job(core, slot, Box::new(call));
}

fn pool_job(core: &Core, slot: &Slot, call: Box<dyn FnOnce() -> i32 + Send>) {
    core.counters().blocking_jobs.add(1);
    let job = FileJob { call, user_data: core.arena.id(slot).user_data() };
    let home = Notifier { shared: core.shared.clone() };
    if !blocking::submit(job, core.replies.clone(), home) {
        let _ = core.finish(slot, -errno::EAGAIN);
    }
}

/// A handle and the memory of an operation in flight, on their way to a thread of the pool.
struct ForThread(RawDescriptor, Memory);

// SAFETY: the memory is the kernel's, as far as the driver is concerned, until the job's result has come home:
// the thread that runs the job is the only one that touches it. A handle belongs to the process.
unsafe impl Send for ForThread {}
