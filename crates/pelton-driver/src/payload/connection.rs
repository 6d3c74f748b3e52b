//! Connections that are to be made or taken: what a connect and an accept keep, and what they yield.

use std::io;
use std::net::SocketAddr;

use super::held::{Held, no_memory};
use super::{Memory, NoRoom, Payload, Sealed, VTable, nothing_there, outcome};
use crate::core::Core;
use crate::slot::Slot;
use crate::sys::OwnedDescriptor;
use crate::unix_address::UnixAddr;

/// Connecting to an address, which is copied to where the kernel can read it.
#[derive(Debug)]
pub struct Connecting(pub SocketAddr);

/// Connecting a Unix socket to an address, which is copied to where the kernel can read it.
#[derive(Debug)]
pub struct ConnectingUnix(pub UnixAddr);

/// What differs is how the scratch keeps the address.
macro_rules! connecting {
    ($payload:ident, $put:ident, $get:ident) => {
        payload!([] $payload => io::Result<usize>);

        #[allow(private_interfaces)]
        impl Sealed for $payload {
            type Outcome = io::Result<usize>;

            const SCRATCH: bool = true;

            fn place(self, core: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
                slot.progress.set(core.scratch.claim());
                core.scratch.get(slot.progress.get()).$put(&self.0);
                Ok(Memory::NONE)
            }

            fn refuse(self, error: io::Error) -> Self::Outcome {
                Err(error)
            }

            fn unplace(core: &Core, slot: &Slot) -> Self {
                let address = core.scratch.get(slot.progress.get()).$get();
                $payload(address.expect("the address that `place` has written"))
            }

            fn finish(_: &Core, slot: &Slot) -> io::Result<usize> {
                outcome(slot)
            }
        }
    };
}

connecting!(Connecting, set_address, peer);
connecting!(ConnectingUnix, set_unix_address, unix_address);

/// Accepting one connection.
#[derive(Debug)]
pub struct Accepting;

payload!([] Accepting => io::Result<Accepted>);

/// A connection that was accepted. Closed when it is dropped.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub descriptor: OwnedDescriptor,
    /// The peer's address; none for the families that have no IP address, and for multishot accepts.
    pub peer: Option<SocketAddr>,
}

const DESCRIPTOR: &VTable = &VTable { drop: Held::<OwnedDescriptor>::drop, memory: no_memory };

/// Puts a descriptor that the kernel has just made into the slot of the operation that made it.
pub(crate) fn put_descriptor(slot: &Slot, descriptor: OwnedDescriptor) {
    Held::put(slot, descriptor, DESCRIPTOR);
}

#[allow(private_interfaces)]
impl Sealed for Accepting {
    type Outcome = io::Result<Accepted>;

    const SCRATCH: bool = true;

    fn place(self, core: &Core, slot: &Slot) -> Result<Memory, NoRoom> {
        slot.progress.set(core.scratch.claim());
        Ok(Memory::NONE)
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        Err(error)
    }

    fn unplace(_: &Core, _: &Slot) -> Accepting {
        Accepting
    }

    fn finish(core: &Core, slot: &Slot) -> io::Result<Accepted> {
        outcome(slot)?;
        if slot.vtable.get().is_none() {
            return Err(nothing_there());
        }
        // SAFETY: the only thing that an accept's slot ever holds is the descriptor it brought, and it
        // holds something.
        let descriptor = unsafe { Held::take_last(slot) };
        // Only now: where the accept failed nobody has written an address.
        let peer = core.scratch.get(slot.progress.get()).peer();
        Ok(Accepted { descriptor, peer })
    }
}
