//! Sending from a file: what the operation keeps beside its socket, and the memory through which the bytes go where
//! the system does not send them by itself.

use std::cell::{Cell, OnceCell};
use std::io;

use super::held::{Held, no_memory};
use super::{Memory, NoRoom, Payload, Sealed, VTable, outcome};
use crate::core::Core;
use crate::memory::Zeroed;
use crate::slot::{NIL, Slot};

/// How many bytes go through memory at a time.
const CHUNK: u32 = 64 * 1024;

/// An operation that sends from a file.
#[derive(Debug)]
pub struct SendingFile {
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

payload!([] SendingFile => io::Result<usize>);

/// What such an operation has in its slot.
pub(crate) struct Source {
    /// Where in the file it began.
    pub(crate) offset: u64,
    /// How many bytes it is to send; how many it has sent is in the slot's `progress`.
    pub(crate) len: u32,
    /// The file's place in the table, where the operation is in flight too.
    pub(crate) file: Cell<u32>,
    chunk: OnceCell<Box<Chunk>>,
}

/// Memory of an operation's own, and how much of what was read into it has been sent.
pub(crate) struct Chunk {
    memory: Zeroed,
    filled: Cell<u32>,
    sent: Cell<u32>,
}

const TABLE: &VTable = &VTable { drop: Held::<Source>::drop, memory: no_memory };

/// The source of an operation that sends from a file and is in its slot.
pub(crate) fn source_of(slot: &Slot) -> &Source {
    debug_assert_eq!(slot.kind.get(), crate::op::Kind::SendFile);
    // SAFETY: called for such operations alone, whose payload `place` has put there, where it stays until the slot is
    // released. All that changes in it is in cells.
    unsafe { &*Held::<Source>::at(slot.payload()) }
}

impl Source {
    /// The memory; none where the system has none.
    pub(crate) fn chunk(&self) -> Option<&Chunk> {
        if self.chunk.get().is_none() {
            let memory = Zeroed::new(CHUNK as usize, 64)?;
            let chunk = Chunk { memory, filled: Cell::new(0), sent: Cell::new(0) };
            let _ = self.chunk.set(Box::new(chunk));
        }
        self.chunk.get().map(|chunk| &**chunk)
    }
}

impl Chunk {
    /// How many bytes there is room for.
    pub(crate) fn room(&self) -> u32 {
        CHUNK
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.memory.start().as_ptr()
    }

    /// What is to be sent of it: where, and how many bytes.
    pub(crate) fn left(&self) -> (*mut u8, u32) {
        let (filled, sent) = (self.filled.get(), self.sent.get());
        (self.start().wrapping_add(sent as usize), filled - sent)
    }

    /// So many bytes were read into it, all of whose former ones have been sent.
    pub(crate) fn fill(&self, n: u32) {
        self.filled.set(n.min(CHUNK));
        self.sent.set(0);
    }

    /// So many of its bytes were sent.
    pub(crate) fn sent(&self, n: u32) {
        self.sent.set((self.sent.get() + n).min(self.filled.get()));
    }
}

#[allow(private_interfaces)]
impl Sealed for SendingFile {
    type Outcome = io::Result<usize>;

    fn place(self, _: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
        let SendingFile { offset, len } = self;
        let (file, chunk) = (Cell::new(NIL), OnceCell::new());
        // More than there is room for is refused by its length, which is looked at next.
        let source = Source { offset, len: len as u32, file, chunk };
        Held::put(slot, source, TABLE);
        Ok(Memory { ptr: std::ptr::null_mut(), len })
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        Err(error)
    }

    fn unplace(_: &Core, slot: &Slot) -> SendingFile {
        // SAFETY: `place` put it there, and no kernel has seen it.
        let source: Source = unsafe { Held::take(slot) };
        SendingFile { offset: source.offset, len: source.len as usize }
    }

    fn finish(_: &Core, slot: &Slot) -> io::Result<usize> {
        // SAFETY: a key of this type was made only for a slot that holds one, and done means that the kernel has let
        // go of the memory.
        drop::<Source>(unsafe { Held::take_last(slot) });
        outcome(slot)
    }
}

const _: () = assert!(size_of::<Source>() <= crate::slot::PAYLOAD_WORDS * 8);
