//! Datagrams with an address and control messages.
//!
//! The buffers are in the slot. The address, the vectors and the control messages are in the operation's scratch
//! block, where they stand still as long as the kernel may look at them, and from where they are taken back when
//! it has let go.

use std::io;
use std::net::SocketAddr;

use super::held::{Held, no_memory};
use super::{Memory, NoRoom, Payload, Sealed, VTable, outcome};
use crate::buf::{IoBuf, IoBufMut, IoVectored, IoVectoredMut};
use crate::core::Core;
use crate::message::{Control, Received};
use crate::scratch::{Block, MAX_PARTS};
use crate::slot::Slot;

/// Receiving one datagram into one buffer.
#[derive(Debug)]
pub struct ReceivingFrom<B>(pub B);

/// Sending one buffer as a datagram to an address.
#[derive(Debug)]
pub struct SendingTo<B>(pub B, pub SocketAddr);

/// Receiving one datagram into several buffers, with control messages.
#[derive(Debug)]
pub struct ReceivingMessage<V>(pub V, pub Control);

/// Sending several buffers as one datagram, with control messages.
#[derive(Debug)]
pub struct SendingMessage<V>(pub V, pub Option<SocketAddr>, pub Control);

payload!([B: IoBufMut] ReceivingFrom<B> => (io::Result<Received>, B));
payload!([B: IoBuf] SendingTo<B> => (io::Result<usize>, B));
payload!([V: IoVectoredMut] ReceivingMessage<V> => (io::Result<Received>, V, Control));
payload!([V: IoVectored] SendingMessage<V> => (io::Result<usize>, V, Control));

struct Table<T>(T);

impl<T: 'static> Table<T> {
    /// The vectors stand in the scratch block, so that nobody asks the owner for them twice.
    const TABLE: &'static VTable = &VTable { drop: Held::<T>::drop, memory: no_memory };
}

fn block<'a>(core: &'a Core, slot: &Slot) -> &'a Block {
    core.scratch.get(slot.progress.get())
}

/// Moves the owner of the buffers into the slot of an operation that has a block from now on.
fn put<T: 'static>(core: &Core, slot: &Slot, owner: T) -> *mut T {
    slot.progress.set(core.scratch.claim());
    Held::put(slot, owner, Table::<T>::TABLE);
    // SAFETY: a `T` has just been put there.
    unsafe { Held::at(slot.payload()) }
}

#[allow(private_interfaces)]
impl<B: IoBufMut> Sealed for ReceivingFrom<B> {
    type Outcome = (io::Result<Received>, B);

    const SCRATCH: bool = true;

    fn place(self, core: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
        let buf = put(core, slot, self.0);
        // SAFETY: nobody else can reach the owner.
        let mut spare = unsafe { &mut *buf }.spare();
        let memory = Memory { ptr: spare.as_mut_ptr(), len: spare.len() }.clamped();
        block(core, slot).push_part(memory.ptr, memory.len);
        if memory.len == 0 { Err(NoRoom::Empty) } else { Ok(Memory::NONE) }
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        (Err(error), self.0)
    }

    fn unplace(_: &Core, slot: &Slot) -> ReceivingFrom<B> {
        // SAFETY: `place` put a `B` there, and no kernel has seen it.
        ReceivingFrom(unsafe { Held::take(slot) })
    }

    fn finish(core: &Core, slot: &Slot) -> Self::Outcome {
        // Before the owner is asked for anything: what the block has is for one look.
        let received = outcome(slot).map(|n| block(core, slot).received(n).0);
        // SAFETY: a key of this type was made only for a slot that holds a `B`, and done means that the
        // kernel has let go.
        let mut buf: B = unsafe { Held::take_last(slot) };
        if let Ok(Received { len, .. }) = received {
            // SAFETY: the kernel wrote `len` bytes to the start of the memory that `spare` gave, which was
            // asked for once.
            unsafe { buf.advance(len) };
        }
        (received, buf)
    }
}

#[allow(private_interfaces)]
impl<B: IoBuf> Sealed for SendingTo<B> {
    type Outcome = (io::Result<usize>, B);

    const SCRATCH: bool = true;

    fn place(self, core: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
        let SendingTo(buf, to) = self;
        let buf = put(core, slot, buf);
        let block = block(core, slot);
        block.set_address(&to);
        // SAFETY: nobody else can reach the owner, and nobody changes it while the slot is busy.
        let bytes = unsafe { &*buf }.as_init();
        block.push_part(bytes.as_ptr().cast_mut(), bytes.len());
        Ok(Memory::NONE)
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        (Err(error), self.0)
    }

    fn unplace(core: &Core, slot: &Slot) -> SendingTo<B> {
        let to = block(core, slot).address();
        // SAFETY: `place` put a `B` there, and no kernel has seen it.
        let buf = unsafe { Held::take(slot) };
        SendingTo(buf, to.expect("the address that `place` has written"))
    }

    fn finish(_: &Core, slot: &Slot) -> Self::Outcome {
        // SAFETY: as for `ReceivingFrom`.
        (outcome(slot), unsafe { Held::take_last(slot) })
    }
}

#[allow(private_interfaces)]
impl<V: IoVectoredMut> Sealed for ReceivingMessage<V> {
    type Outcome = (io::Result<Received>, V, Control);

    const SCRATCH: bool = true;

    fn place(self, core: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
        let ReceivingMessage(bufs, control) = self;
        let bufs = put(core, slot, bufs);
        let block = block(core, slot);
        block.set_control(control);
        // SAFETY: nobody else can reach the owner.
        unsafe { &mut *bufs }.each_spare(|mut part| block.push_part(part.as_mut_ptr(), part.len()));
        if block.bytes() == 0 { Err(NoRoom::Empty) } else { Ok(Memory::NONE) }
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        (Err(error), self.0, self.1)
    }

    fn unplace(core: &Core, slot: &Slot) -> ReceivingMessage<V> {
        let control = block(core, slot).take_control();
        // SAFETY: `place` put a `V` there, and no kernel has seen it.
        ReceivingMessage(unsafe { Held::take(slot) }, control)
    }

    fn finish(core: &Core, slot: &Slot) -> Self::Outcome {
        let block = block(core, slot);
        let (received, control) = match outcome(slot) {
            Ok(n) => {
                let (received, control) = block.received(n);
                (Ok(received), control)
            }
            Err(error) => (Err(error), block.take_control()),
        };
        // SAFETY: as for `ReceivingFrom`.
        let mut bufs: V = unsafe { Held::take_last(slot) };
        let mut left = received.as_ref().map_or(0, |received| received.len);
        for part in 0..block.parts() {
            // The length is the one that the kernel was given, whatever the owner would say today.
            let here = left.min(block.part_len(part));
            if here > 0 {
                // SAFETY: the kernel filled the parts in order, `left` bytes from here on, and this part was
                // given to it with at least `here` bytes.
                unsafe { bufs.advance(part, here) };
            }
            left -= here;
        }
        (received, bufs, control)
    }
}

#[allow(private_interfaces)]
impl<V: IoVectored> Sealed for SendingMessage<V> {
    type Outcome = (io::Result<usize>, V, Control);

    const SCRATCH: bool = true;

    fn place(self, core: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
        let SendingMessage(bufs, to, control) = self;
        let bufs = put(core, slot, bufs);
        let block = block(core, slot);
        block.set_control(control);
        match to {
            Some(to) => drop(block.set_address(&to)),
            None => block.set_no_address(),
        }
        let mut parts = 0;
        // SAFETY: nobody else can reach the owner, and nobody changes it while the slot is busy.
        unsafe { &*bufs }.each(|part| {
            parts += 1;
            block.push_part(part.as_ptr().cast_mut(), part.len());
        });
        if parts > MAX_PARTS { Err(NoRoom::Parts) } else { Ok(Memory::NONE) }
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        (Err(error), self.0, self.2)
    }

    fn unplace(core: &Core, slot: &Slot) -> SendingMessage<V> {
        let block = block(core, slot);
        let (to, control) = (block.address(), block.take_control());
        // SAFETY: `place` put a `V` there, and no kernel has seen it.
        SendingMessage(unsafe { Held::take(slot) }, to, control)
    }

    fn finish(core: &Core, slot: &Slot) -> Self::Outcome {
        let control = block(core, slot).take_control();
        // SAFETY: as for `ReceivingFrom`.
        (outcome(slot), unsafe { Held::take_last(slot) }, control)
    }
}
