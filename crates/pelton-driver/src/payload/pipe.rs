//! Reading from a pipe of messages.
//!
//! What a read has found out beside the number of bytes stands in its slot, in `progress`, which no other part of
//! a read uses.

use std::io;

use super::{Filling, Memory, NoRoom, Payload, Sealed};
use crate::buf::IoBufMut;
use crate::core::Core;
use crate::slot::Slot;

/// The message goes on behind what was read of it.
pub(crate) const MORE: u32 = 1;
/// It was a message of no bytes, and not the end.
pub(crate) const EMPTY: u32 = 2;
/// Somebody wants to know where messages end.
#[cfg(any(windows, pelton_iocp_elsewhere))]
pub(crate) const WANTS_MESSAGE: u32 = 4;

/// What was read of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessagePart {
    /// How many bytes. A message may have none.
    pub len: usize,
    /// There was no room for the rest: the next read brings it.
    pub more: bool,
}

/// An operation that fills a buffer with a message, or a part of one.
#[derive(Debug)]
pub struct FillingMessage<B>(pub B);

payload!([B: IoBufMut] FillingMessage<B> => (io::Result<Option<MessagePart>>, B));

#[allow(private_interfaces)]
impl<B: IoBufMut> Sealed for FillingMessage<B> {
    type Outcome = (io::Result<Option<MessagePart>>, B);

    fn place(self, core: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
        Filling(self.0).place(core, slot)
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        (Err(error), self.0)
    }

    fn unplace(core: &Core, slot: &Slot) -> FillingMessage<B> {
        FillingMessage(Filling::unplace(core, slot).0)
    }

    fn finish(core: &Core, slot: &Slot) -> Self::Outcome {
        let found = slot.progress.get();
        let (result, buf) = Filling::finish(core, slot);
        let is_there = |len| len > 0 || found & EMPTY != 0;
        let more = found & MORE != 0;
        let part = |len| is_there(len).then_some(MessagePart { len, more });
        (result.map(part), buf)
    }
}
