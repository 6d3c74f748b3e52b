//! What an operation owns while it is in flight, and what its completion yields.
//!
//! A slot has 24 bytes for the owner of a buffer. A larger owner, or one that must be aligned to more
//! than 8 bytes, goes into a box of its own: one allocation. Operations that bring something new (a
//! connection, a lease) put that into the same place when they complete, so that whoever finds the slot
//! later, the key's holder or nobody, finds it owned.

use std::io;

use crate::buf::{IoBuf, IoBufMut, IoVectored, IoVectoredMut};
use crate::core::Core;
use crate::pool::Lease;
use crate::slot::Slot;
use crate::sys::OwnedDescriptor;

mod held;

pub(crate) use connection::put_descriptor;
pub use connection::{Accepted, Accepting, Connecting, ConnectingUnix};
pub use file::SendingFile;
pub(crate) use file::source_of;
use held::{Held, no_memory};
pub(crate) use held::{Leftover, VTable, memory_again};
pub use message::{ReceivingFrom, ReceivingMessage, SendingMessage, SendingTo};
pub use own::Own;
pub(crate) use own::{OwnBody, OwnHead};
#[cfg(any(windows, pelton_iocp_elsewhere))]
pub(crate) use pipe::{EMPTY, MORE, WANTS_MESSAGE};
pub use pipe::{FillingMessage, MessagePart};

/// A range of memory for the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) ptr: *mut u8,
    pub(crate) len: usize,
}

impl Memory {
    pub(crate) const NONE: Memory = Memory { ptr: std::ptr::null_mut(), len: 0 };

    /// As much of it as one operation transfers.
    #[inline(always)]
    pub(crate) fn clamped(self) -> Memory {
        Memory { len: self.len.min(MAX_TRANSFER), ..self }
    }
}

/// The most bytes that one operation transfers; what Linux itself stops at.
pub(crate) const MAX_TRANSFER: usize = 0x7FFF_F000;

/// What an operation owns and yields. Sealed: the list of operations is closed.
pub trait Payload: Sealed<Outcome = <Self as Payload>::Output> {
    /// What [`Driver::take`](crate::Driver::take) returns for it.
    type Output;
}

pub(crate) use sealed::Sealed;
mod sealed {
    use super::{Core, Memory, NoRoom, Slot, io};

    #[allow(private_interfaces)] // Sealed: the names are for this crate.
    pub trait Sealed: Sized + 'static {
        type Outcome;

        /// The operation has a scratch block, by the number in its slot's `progress`.
        const SCRATCH: bool = false;
        /// The operation completes more than once.
        const MULTISHOT: bool = false;

        /// Moves what the operation owns into its slot and says which memory the kernel may use.
        /// Runs user code, which may panic: whatever is in the slot then is owned by the slot.
        fn place(self, core: &Core, slot: &Slot) -> Result<Memory, NoRoom>;

        /// Whether an operation can do with the memory that `place` has said, and with how much of it. By itself, so
        /// that the slot is described in between: what branches in the midst of that is written twice.
        #[inline(always)]
        fn enough(memory: Memory) -> Result<Memory, NoRoom> {
            Ok(memory)
        }

        /// The outcome of a submission that was refused.
        fn refuse(self, error: io::Error) -> Self::Outcome;

        /// Takes the payload back out of a slot that `place` has filled and nothing else has seen.
        fn unplace(_: &Core, slot: &Slot) -> Self;

        /// Makes the outcome of a slot that is done, and is released next. Takes the payload out.
        fn finish(core: &Core, slot: &Slot) -> Self::Outcome;

        /// It sends one buffer, and may be tried before it has a slot.
        const SENDS: bool = false;

        /// What it sends. Runs user code, which may panic.
        #[inline(always)]
        fn bytes(&self) -> &[u8] {
            &[]
        }

        /// The outcome of a try that has sent this much.
        #[inline(always)]
        fn sent(self, _: usize) -> Self::Outcome {
            unreachable!("only what sends is tried")
        }

        /// [`Sealed::finish`], and then lets go of `release`, which releases the slot. One that drops a part of
        /// the payload itself does that last: the drop may run the driver.
        #[inline(always)]
        fn conclude<R>(core: &Core, slot: &Slot, release: R) -> Self::Outcome {
            let outcome = Self::finish(core, slot);
            drop(release);
            outcome
        }
    }
}

#[inline(always)]
fn outcome(slot: &Slot) -> io::Result<usize> {
    let result = slot.result();
    if result >= 0 { Ok(result as u32 as usize) } else { Err(failed(result)) }
}

/// [`outcome`] without the number.
#[inline(always)]
fn ended(slot: &Slot) -> io::Result<()> {
    let result = slot.result();
    if result >= 0 { Ok(()) } else { Err(failed(result)) }
}

#[cold]
fn failed(result: i32) -> io::Error {
    io::Error::from_raw_os_error(-result)
}

macro_rules! payload {
    ([$($generic:tt)*] $payload:ty => $output:ty) => {
        impl<$($generic)*> Payload for $payload {
            type Output = $output;
        }
    };
}

// Behind the macro.
mod connection;
mod file;
mod message;
mod own;
mod pipe;

/// An operation that owns nothing and yields a number.
#[derive(Debug)]
pub struct Plain;

payload!([] Plain => io::Result<usize>);

#[allow(private_interfaces)]
impl Sealed for Plain {
    type Outcome = io::Result<usize>;

    #[inline(always)]
    fn place(self, _: &Core, _: &Slot) -> Result<Memory, NoRoom> {
        Ok(Memory::NONE)
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        Err(error)
    }

    fn unplace(_: &Core, _: &Slot) -> Plain {
        Plain
    }

    #[inline(always)]
    fn finish(_: &Core, slot: &Slot) -> io::Result<usize> {
        outcome(slot)
    }
}

/// An operation that fills a buffer.
#[derive(Debug)]
pub struct Filling<B>(pub B);

payload!([B: IoBufMut] Filling<B> => (io::Result<usize>, B));

struct FillingTable<B>(B);

impl<B: IoBufMut> FillingTable<B> {
    const TABLE: &'static VTable = &VTable { drop: Held::<B>::drop, memory: Self::memory };

    unsafe fn memory(payload: *mut u8) -> Memory {
        // SAFETY: the payload is a `B` in its slot, which nobody else can reach while the slot is busy.
        let buf = unsafe { &mut *Held::<B>::at(payload) };
        let mut spare = buf.spare();
        Memory { ptr: spare.as_mut_ptr(), len: spare.len() }
    }
}

#[allow(private_interfaces)]
impl<B: IoBufMut> Sealed for Filling<B> {
    type Outcome = (io::Result<usize>, B);

    #[inline(always)]
    fn place(self, _: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
        Held::put(slot, self.0, FillingTable::<B>::TABLE);
        // SAFETY: a `B` has just been put there.
        Ok(unsafe { FillingTable::<B>::memory(slot.payload()) })
    }

    #[inline(always)]
    fn enough(memory: Memory) -> Result<Memory, NoRoom> {
        // Neither empty nor too much.
        if memory.len.wrapping_sub(1) < MAX_TRANSFER {
            return Ok(memory);
        }
        if memory.len == 0 { Err(NoRoom::Empty) } else { Ok(memory.clamped()) }
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        (Err(error), self.0)
    }

    fn unplace(_: &Core, slot: &Slot) -> Filling<B> {
        // SAFETY: `place` put a `B` there, and no kernel has seen it.
        Filling(unsafe { Held::take(slot) })
    }

    #[inline(always)]
    fn finish(_: &Core, slot: &Slot) -> (io::Result<usize>, B) {
        let result = outcome(slot);
        // SAFETY: a key of this type was made only for a slot that holds a `B`, and done means that the
        // kernel has let go.
        let mut buf: B = unsafe { Held::take_last(slot) };
        if let Ok(n) = result {
            // SAFETY: the kernel, or the room in its place, wrote `n` bytes to the start of the memory
            // that `spare` gave last, which is the one that `n` was measured against.
            unsafe { buf.advance(n) };
        }
        (result, buf)
    }
}

/// An operation that empties a buffer.
#[derive(Debug)]
pub struct Sending<B>(pub B);

payload!([B: IoBuf] Sending<B> => (io::Result<usize>, B));

struct SendingTable<B>(B);

impl<B: IoBuf> SendingTable<B> {
    const TABLE: &'static VTable = &VTable { drop: Held::<B>::drop, memory: Self::memory };

    unsafe fn memory(payload: *mut u8) -> Memory {
        // SAFETY: the payload is a `B` in its slot; the kernel only reads while the slot is busy.
        let bytes = unsafe { &*Held::<B>::at(payload) }.as_init();
        Memory { ptr: bytes.as_ptr().cast_mut(), len: bytes.len() }
    }
}

#[allow(private_interfaces)]
impl<B: IoBuf> Sealed for Sending<B> {
    type Outcome = (io::Result<usize>, B);

    #[inline(always)]
    fn place(self, _: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
        Held::put(slot, self.0, SendingTable::<B>::TABLE);
        // SAFETY: a `B` has just been put there.
        Ok(unsafe { SendingTable::<B>::memory(slot.payload()) })
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        (Err(error), self.0)
    }

    fn unplace(_: &Core, slot: &Slot) -> Sending<B> {
        // SAFETY: `place` put a `B` there, and no kernel has seen it.
        Sending(unsafe { Held::take(slot) })
    }

    #[inline(always)]
    fn finish(_: &Core, slot: &Slot) -> (io::Result<usize>, B) {
        // SAFETY: as for `Filling`.
        (outcome(slot), unsafe { Held::take_last(slot) })
    }

    const SENDS: bool = true;

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        self.0.as_init()
    }

    #[inline(always)]
    fn sent(self, n: usize) -> (io::Result<usize>, B) {
        (Ok(n), self.0)
    }
}

/// Two further ways to yield what came of sending a buffer.
macro_rules! sending {
    ($(#[$doc:meta])+ $name:ident<$buf:ident> => $output:ty, $finish:expr) => {
        $(#[$doc])+
        #[derive(Debug)]
        pub struct $name<$buf>(pub $buf);

        payload!([$buf: IoBuf] $name<$buf> => $output);

        #[allow(private_interfaces)]
        impl<$buf: IoBuf> Sealed for $name<$buf> {
            type Outcome = $output;

            #[inline(always)]
            fn place(self, core: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
                Sending(self.0).place(core, slot)
            }

            fn refuse(self, error: io::Error) -> Self::Outcome {
                let finish: fn(io::Result<()>, $buf) -> $output = $finish;
                finish(Err(error), self.0)
            }

            fn unplace(core: &Core, slot: &Slot) -> $name<$buf> {
                $name(Sending::unplace(core, slot).0)
            }

            #[inline(always)]
            fn finish(core: &Core, slot: &Slot) -> Self::Outcome {
                Self::conclude(core, slot, ())
            }

            #[inline(always)]
            fn conclude<R>(_: &Core, slot: &Slot, release: R) -> Self::Outcome {
                let result = ended(slot);
                // SAFETY: as for `Filling`.
                let buf: $buf = unsafe { Held::take_last(slot) };
                drop(release);
                $finish(result, buf)
            }

            const SENDS: bool = true;

            #[inline(always)]
            fn bytes(&self) -> &[u8] {
                self.0.as_init()
            }

            #[inline(always)]
            fn sent(self, _: usize) -> Self::Outcome {
                let finish: fn(io::Result<()>, $buf) -> $output = $finish;
                finish(Ok(()), self.0)
            }
        }
    };
}

sending! {
    /// An operation that empties a buffer to the last byte, and yields no number.
    SendingWhole<B> => (io::Result<()>, B), |result, buf| (result, buf)
}

sending! {
    /// An operation that empties a buffer to the last byte and drops it.
    SendingAway<B> => io::Result<()>, |result, _buf| result
}

/// An operation that empties several buffers.
#[derive(Debug)]
pub struct SendingAll<V>(pub V);

payload!([V: IoVectored] SendingAll<V> => (io::Result<usize>, V));

struct ManyTable<V>(V);

impl<V: 'static> ManyTable<V> {
    /// The vectors stand in the scratch block, so that nobody asks the owner for them twice.
    const TABLE: &'static VTable = &VTable { drop: Held::<V>::drop, memory: no_memory };
}

#[allow(private_interfaces)]
impl<V: IoVectored> Sealed for SendingAll<V> {
    type Outcome = (io::Result<usize>, V);

    const SCRATCH: bool = true;

    fn place(self, core: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
        slot.progress.set(core.scratch.claim());
        Held::put(slot, self.0, ManyTable::<V>::TABLE);
        // SAFETY: a `V` has just been put there, and nobody else can reach it.
        let bufs = unsafe { &*Held::<V>::at(slot.payload()) };
        let block = core.scratch.get(slot.progress.get());
        bufs.each(|part| block.push_part(part.as_ptr().cast_mut(), part.len()));
        Ok(Memory::NONE)
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        (Err(error), self.0)
    }

    fn unplace(_: &Core, slot: &Slot) -> SendingAll<V> {
        // SAFETY: `place` put a `V` there, and no kernel has seen it.
        SendingAll(unsafe { Held::take(slot) })
    }

    fn finish(_: &Core, slot: &Slot) -> (io::Result<usize>, V) {
        // SAFETY: as for `Filling`.
        (outcome(slot), unsafe { Held::take_last(slot) })
    }
}

/// An operation that fills several buffers.
#[derive(Debug)]
pub struct FillingAll<V>(pub V);

payload!([V: IoVectoredMut] FillingAll<V> => (io::Result<usize>, V));

#[allow(private_interfaces)]
impl<V: IoVectoredMut> Sealed for FillingAll<V> {
    type Outcome = (io::Result<usize>, V);

    const SCRATCH: bool = true;

    fn place(self, core: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
        slot.progress.set(core.scratch.claim());
        Held::put(slot, self.0, ManyTable::<V>::TABLE);
        // SAFETY: a `V` has just been put there, and nobody else can reach it.
        let bufs = unsafe { &mut *Held::<V>::at(slot.payload()) };
        let block = core.scratch.get(slot.progress.get());
        bufs.each_spare(|mut part| block.push_part(part.as_mut_ptr(), part.len()));
        if block.bytes() == 0 { Err(NoRoom::Empty) } else { Ok(Memory::NONE) }
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        (Err(error), self.0)
    }

    fn unplace(_: &Core, slot: &Slot) -> FillingAll<V> {
        // SAFETY: `place` put a `V` there, and no kernel has seen it.
        FillingAll(unsafe { Held::take(slot) })
    }

    fn finish(core: &Core, slot: &Slot) -> (io::Result<usize>, V) {
        let result = outcome(slot);
        // SAFETY: as for `Filling`.
        let mut bufs: V = unsafe { Held::take_last(slot) };
        let block = core.scratch.get(slot.progress.get());
        let mut left = *result.as_ref().unwrap_or(&0);
        for part in 0..block.parts() {
            // The length is the one that the kernel was given, whatever the owner would say today.
            let here = left.min(block.part_len(part));
            if here > 0 {
                // SAFETY: the kernel filled the parts in order, `left` bytes from here on, and this part
                // was given to it with at least `here` bytes.
                unsafe { bufs.advance(part, here) };
            }
            left -= here;
        }
        (result, bufs)
    }
}

/// Receiving into a buffer of the pool.
#[derive(Debug)]
pub struct Leasing;

payload!([] Leasing => io::Result<Option<Lease>>);

const LEASE: &VTable = &VTable { drop: Held::<Lease>::drop, memory: no_memory };

/// Puts a lease into the slot of the operation that received into it.
#[inline(always)]
pub(crate) fn put_lease(slot: &Slot, lease: Lease) {
    Held::put(slot, lease, LEASE);
}

#[allow(private_interfaces)]
impl Sealed for Leasing {
    type Outcome = io::Result<Option<Lease>>;

    #[inline(always)]
    fn place(self, _: &Core, _: &Slot) -> Result<Memory, NoRoom> {
        Ok(Memory::NONE)
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        Err(error)
    }

    fn unplace(_: &Core, _: &Slot) -> Leasing {
        Leasing
    }

    #[inline(always)]
    fn finish(_: &Core, slot: &Slot) -> io::Result<Option<Lease>> {
        if slot.result() > 0 && slot.vtable.get().is_some() {
            // SAFETY: the only thing that a pooled receive's slot ever holds is its lease, and it holds
            // something.
            return Ok(Some(unsafe { Held::take_last(slot) }));
        }
        no_lease(slot)
    }
}

#[cold]
fn no_lease(slot: &Slot) -> io::Result<Option<Lease>> {
    if outcome(slot)? == 0 { Ok(None) } else { Err(nothing_there()) }
}

/// One thing that a multishot operation yields, waiting to be taken. In a list of the driver's, because
/// a slot has room for one.
pub(crate) enum Item {
    Connection(OwnedDescriptor),
    Lease(Lease),
}

/// Accepting many connections.
#[derive(Debug)]
pub struct ManyAccepts(());

/// Receiving many leases.
#[derive(Debug)]
pub struct ManyLeases(());

/// A multishot operation, whose items are taken with [`Driver::next`](crate::Driver::next).
pub trait Multishot: Payload {
    /// What it yields.
    type Item;

    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn item(item: Item) -> Option<Self::Item>;
}

macro_rules! multishot {
    ($many:ident, $variant:ident, $item:ty) => {
        impl $many {
            pub(crate) fn new() -> $many {
                $many(())
            }
        }

        payload!([] $many => io::Result<()>);

        #[allow(private_interfaces)]
        impl Multishot for $many {
            type Item = $item;

            fn item(item: Item) -> Option<$item> {
                match item {
                    Item::$variant(item) => Some(item),
                    _ => None,
                }
            }
        }

        #[allow(private_interfaces)]
        impl Sealed for $many {
            type Outcome = io::Result<()>;

            const MULTISHOT: bool = true;

            fn place(self, _: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
                crate::items::start(slot);
                Ok(Memory::NONE)
            }

            fn refuse(self, error: io::Error) -> Self::Outcome {
                Err(error)
            }

            fn unplace(_: &Core, _: &Slot) -> $many {
                $many(())
            }

            fn finish(_: &Core, slot: &Slot) -> io::Result<()> {
                outcome(slot).map(drop)
            }
        }
    };
}

multishot!(ManyAccepts, Connection, OwnedDescriptor);
multishot!(ManyLeases, Lease, Lease);

/// The kernel said that it brought something and named nothing that is ours.
#[cold]
fn nothing_there() -> io::Error {
    io::Error::other("the kernel completed an operation without what it was to bring")
}

/// The buffers are not what an operation takes. An error is made of it when the slot says all that it is to say.
pub(crate) enum NoRoom {
    /// There is nothing to receive into.
    Empty,
    /// There are more of them than one datagram is sent from.
    Parts,
}

impl NoRoom {
    #[cold]
    #[inline(never)]
    pub(crate) fn error(self) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            match self {
                NoRoom::Empty => {
                    "the buffer has no room: a receive into it would look like the end of the stream (reserve capacity first)"
                }
                NoRoom::Parts => {
                    "a datagram is sent from at most 64 buffers (`MAX_PARTS`): put some of them together"
                }
            },
        )
    }
}
