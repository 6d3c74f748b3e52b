//! A kernel made of user space: it completes what it was given when a test says so, late, twice, after a
//! cancel, or never, and writes into the memory of an operation at that moment, as a kernel would. So
//! Miri and AddressSanitizer see every use of memory that a kernel would still hold.
//!
//! It does what a kernel may do and nothing else: whatever a test says, it never claims to have written
//! bytes that it has not, and never makes a connection out of nothing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::{NO_DESCRIPTOR, OwnedDescriptor, Part, Ticks, errno, part, part_base, part_len};
use crate::config::Error;
use crate::core::{Core, OnCompletion};
use crate::descriptor::Entry;
use crate::op::{Kind, Op};
use crate::payload::{self, Item, Memory};
use crate::seam;
use crate::slot::{OpId, Slot, State, bits};

/// Something that the fake kernel was given.
#[derive(Clone)]
#[non_exhaustive]
pub struct Held {
    /// The operation, by the number that a kernel would carry.
    pub user_data: u64,
    /// What it is.
    pub kind: Kind,
    parts: Vec<Part>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Held { user_data, kind, .. } = self;
        f.debug_struct("Held")
            .field("user_data", user_data)
            .field("kind", kind)
            .finish_non_exhaustive()
    }
}

impl Held {
    fn len(&self) -> usize {
        self.parts.iter().map(part_len).sum()
    }

    fn fills(&self) -> bool {
        matches!(
            self.kind,
            Kind::Recv | Kind::Read | Kind::ReadAt | Kind::RecvVectored | Kind::RecvMsg
        )
    }
}

struct Cqe {
    user_data: u64,
    result: i32,
    more: bool,
    descriptor: Option<OwnedDescriptor>,
    /// The kernel did not hold the operation when the test completed it: a completion too many.
    spurious: bool,
}

#[derive(Default)]
struct Kernel {
    held: Vec<Held>,
    cancels: Vec<u64>,
    completions: VecDeque<Cqe>,
    closed: usize,
    /// Cancel what is asked to be cancelled by itself when the driver waits: a kernel that behaves.
    obedient: bool,
}

impl Kernel {
    fn find(&self, user_data: u64) -> Option<&Held> {
        self.held.iter().find(|held| held.user_data == user_data)
    }

    fn is_multishot(&self, user_data: u64) -> bool {
        self.find(user_data).is_some_and(|held| held.kind.is_multishot())
    }

    fn complete(&mut self, user_data: u64, result: i32, more: bool) {
        self.push(Cqe { user_data, result, more, descriptor: None, spurious: false });
    }

    /// A completion goes with what it is for, if that was the last one.
    fn push(&mut self, mut cqe: Cqe) {
        cqe.spurious = self.find(cqe.user_data).is_none();
        cqe.more &= self.is_multishot(cqe.user_data);
        if !cqe.more {
            self.held.retain(|held| held.user_data != cqe.user_data);
        }
        self.completions.push_back(cqe);
    }
}

/// The test's side of a fake kernel.
#[derive(Clone, Default)]
pub struct FakeKernel {
    state: Rc<RefCell<Kernel>>,
}

impl FakeKernel {
    /// A kernel that does nothing by itself.
    pub fn new() -> FakeKernel {
        FakeKernel::default()
    }

    /// What has been submitted and not completed for the last time.
    pub fn held(&self) -> Vec<Held> {
        self.state.borrow().held.clone()
    }

    /// Which operations the driver has asked to cancel, in order.
    pub fn cancels(&self) -> Vec<u64> {
        self.state.borrow().cancels.clone()
    }

    /// How many descriptors the driver has closed.
    pub fn closed(&self) -> usize {
        self.state.borrow().closed
    }

    /// From now on a wait cancels whatever the driver has asked to cancel.
    pub fn obey(&self) {
        self.state.borrow_mut().obedient = true;
    }

    /// Writes `data` into the memory of an operation that receives or reads, as far as it fits, and
    /// completes it for the last time with that many bytes.
    ///
    /// # Panics
    /// The kernel does not hold such an operation.
    pub fn fill(&self, user_data: u64, data: &[u8]) {
        let mut state = self.state.borrow_mut();
        let held = state.find(user_data).expect("the kernel holds this operation");
        assert!(held.fills(), "{:?} does not receive", held.kind);
        let n = write(held, data);
        // Of a datagram the kernel tells how long it was.
        let n = if held.kind == Kind::RecvMsg { data.len() } else { n };
        state.complete(user_data, n as i32, false);
    }

    /// The bytes of an operation that sends or writes, as a kernel would read them.
    ///
    /// # Panics
    /// The kernel does not hold such an operation.
    pub fn bytes(&self, user_data: u64) -> Vec<u8> {
        let state = self.state.borrow();
        let held = state.find(user_data).expect("the kernel holds this operation");
        assert!(!held.fills(), "{:?} does not send", held.kind);
        let mut bytes = Vec::with_capacity(held.len());
        for part in held.parts.iter().filter(|part| part_len(part) > 0) {
            // SAFETY: the driver promises that the memory of an operation in flight stays where it is and
            // is touched by nobody else until its last completion; that promise is what the tests test.
            // An operation that sends has initialised it.
            bytes.extend(unsafe { std::slice::from_raw_parts(part_base(part), part_len(part)) });
        }
        bytes
    }

    /// Completes an operation for the last time, whether it is held or not. `EAGAIN` is what a descriptor
    /// says that is not ready: the driver then asks the operation's owner for its memory once more and
    /// submits it again. An operation that receives "n" bytes receives zeros, and no more than fit.
    pub fn complete(&self, user_data: u64, result: i32) {
        let mut state = self.state.borrow_mut();
        let n = match state.find(user_data) {
            Some(held) if result > 0 && held.fills() => {
                write(held, &vec![0; (result as usize).min(held.len())]) as i32
            }
            Some(_) => result,
            // Nothing can be transferred for an operation that is not there.
            None => result.min(0),
        };
        state.complete(user_data, n, false);
    }

    /// Completes a multishot operation and keeps it.
    ///
    /// # Panics
    /// The kernel does not hold such an operation.
    pub fn complete_more(&self, user_data: u64, result: i32) {
        let mut state = self.state.borrow_mut();
        assert!(state.is_multishot(user_data), "only a multishot operation goes on");
        state.complete(user_data, result, true);
    }

    /// Completes an accept with a connection; with `more` a multishot accept goes on.
    pub fn connect(&self, user_data: u64, descriptor: OwnedDescriptor, more: bool) {
        let descriptor = Some(descriptor);
        let cqe = Cqe { user_data, result: 0, more, descriptor, spurious: false };
        self.state.borrow_mut().push(cqe);
    }
}

/// Writes `data` into the memory of an operation in flight, as far as it fits.
fn write(held: &Held, data: &[u8]) -> usize {
    let mut rest = data;
    for part in &held.parts {
        let (now, later) = rest.split_at(rest.len().min(part_len(part)));
        if now.is_empty() {
            continue;
        }
        // SAFETY: as in `bytes`; the part has room for `now`.
        unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), part_base(part), now.len()) };
        rest = later;
    }
    data.len() - rest.len()
}

/// Whom all datagrams are from.
const SENDER: std::net::SocketAddr =
    std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 9));

/// The driver's side.
pub(crate) struct Fake {
    kernel: FakeKernel,
}

impl Fake {
    pub(crate) fn new(kernel: FakeKernel) -> Fake {
        Fake { kernel }
    }

    pub(crate) fn prepare(&self, _: &Core) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn is_simulated(&self) -> bool {
        false
    }

    pub(crate) fn start(
        &self,
        core: &Core,
        slot: &Slot,
        _: OpId,
        _: Op,
        _: &Entry,
        memory: Memory,
    ) {
        self.hold(core, slot, memory);
    }

    fn hold(&self, core: &Core, slot: &Slot, memory: Memory) {
        let user_data = core.arena.id(slot).user_data();
        let parts = match slot.kind.get() {
            Kind::SendVectored | Kind::RecvVectored => {
                core.scratch.get(slot.progress.get()).all_parts()
            }
            kind @ (Kind::SendMsg | Kind::RecvMsg) => {
                let block = core.scratch.get(slot.progress.get());
                block.datagram(kind == Kind::RecvMsg);
                block.all_parts()
            }
            Kind::Own => Vec::new(),
            _ => vec![part(memory.ptr, memory.len)],
        };
        let held = Held { user_data, kind: slot.kind.get(), parts };
        self.kernel.state.borrow_mut().held.push(held);
    }

    pub(crate) fn restart(&self, core: &Core, slot: &Slot) {
        self.hold(core, slot, Memory::NONE);
    }

    pub(crate) fn cancel(&self, core: &Core, slot: &Slot) {
        self.kernel.state.borrow_mut().cancels.push(core.arena.id(slot).user_data());
    }

    pub(crate) fn cancel_fd(&self, core: &Core, entry: &Entry) {
        let held = self.kernel.held();
        let on = held.iter().filter(|held| {
            core.arena
                .find(OpId::from_user_data(held.user_data))
                .and_then(|slot| core.entry_of(slot))
                .is_some_and(|other| std::ptr::eq(other, entry))
        });
        self.kernel.state.borrow_mut().cancels.extend(on.map(|held| held.user_data));
    }

    pub(crate) fn close(&self, core: &Core, entry: &Entry, closer: Option<&Slot>) {
        self.kernel.state.borrow_mut().closed += 1;
        core.counters().closes.add(1);
        // SAFETY: the driver owns the descriptor, nothing is in flight on it, and its entry goes now.
        drop(unsafe { super::own(entry.raw.replace(NO_DESCRIPTOR)) });
        if let Some(closer) = closer {
            core.finish_later(closer, 0);
        }
    }

    fn dispatch(&self, core: &Core, cqe: Cqe, on: &mut impl OnCompletion) {
        let Cqe { user_data, result, more, descriptor, spurious } = cqe;
        let Some(slot) = core.in_flight(user_data) else { return };
        if spurious && matches!(slot.state.get(), State::Busy | State::Orphan) {
            // The driver has submitted it again in between: not even a kernel with a bug would complete it
            // for what it held before.
            return core.counters().stale.add(1);
        }
        let kind = slot.kind.get();
        let no_buffer = result == -errno::ENOBUFS || (result > 0 && core.pool.available() == 0);
        match kind {
            Kind::RecvMulti | Kind::RecvPooled if no_buffer => {
                self.kernel.state.borrow_mut().held.retain(|held| held.user_data != user_data);
                if slot.has(bits::CANCELLED) {
                    core.finish_now(slot, core.cancelled(slot), on);
                } else {
                    core.stall(slot);
                }
            }
            Kind::RecvMulti if result > 0 => {
                let lease = self.receive(core, result as u32);
                self.yielded(core, slot, user_data, more, Item::Lease(lease), on);
            }
            Kind::AcceptMulti if descriptor.is_some() => {
                if let Some(descriptor) = descriptor {
                    self.yielded(core, slot, user_data, more, Item::Connection(descriptor), on);
                }
            }
            Kind::RecvPooled if result > 0 => {
                payload::put_lease(slot, self.receive(core, result as u32));
                core.finish_now(slot, result, on);
            }
            Kind::Accept => {
                let result = if descriptor.is_none() { result.min(-1) } else { 0 };
                if let Some(descriptor) = descriptor {
                    let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
                    core.scratch.get(slot.progress.get()).set_address(&peer);
                    payload::put_descriptor(slot, descriptor);
                }
                core.finish_now(slot, result, on);
            }
            Kind::Own if slot.has(seam::READY) => {
                let Some(raw) = core.entry_of(slot).map(|entry| entry.raw.get()) else { return };
                let orphan = slot.state.get() == State::Orphan;
                let result = match result {
                    _ if orphan || slot.has(bits::CANCELLED) => core.cancelled(slot),
                    0.. => seam::attempt(core, slot, raw),
                    error => error,
                };
                if result == -errno::EAGAIN {
                    self.hold(core, slot, Memory::NONE);
                } else {
                    core.finish_now(slot, result, on);
                }
            }
            Kind::RecvMsg if result >= 0 => {
                core.scratch.get(slot.progress.get()).receive_from(SENDER, result as usize);
                core.finish_now(slot, result, on);
            }
            Kind::Recv | Kind::Send | Kind::ReadAt | Kind::WriteAt if result == -errno::EAGAIN => {
                match core.memory_again(slot) {
                    Some(memory) => self.hold(core, slot, memory),
                    None => core.finish_now(slot, core.cancelled(slot), on),
                }
            }
            _ => core.finish_now(slot, result, on),
        }
    }

    /// Tells of an item; without `more` it was the last, also where the callback panics.
    fn yielded(
        &self,
        core: &Core,
        slot: &Slot,
        user_data: u64,
        more: bool,
        item: Item,
        on: &mut impl OnCompletion,
    ) {
        let unfinished = (!more).then(|| Unfinished { core, user_data });
        core.yielded(slot, item, on);
        std::mem::forget(unfinished);
        if !more && let Some(slot) = core.in_flight(user_data) {
            core.finish_now(slot, 0, on);
        }
    }

    fn receive(&self, core: &Core, n: u32) -> crate::pool::Lease {
        let buffer = core.pool.pick().expect("the test leaves a buffer free");
        let (ptr, room) = buffer.rest();
        let n = n.min(room);
        // SAFETY: the unfilled rest of a buffer that is with this room.
        unsafe { ptr.write_bytes(0xAB, n as usize) };
        core.pool.commit(buffer, n)
    }
}

impl Ticks for Fake {
    fn has_work(&self) -> bool {
        !self.kernel.state.borrow().completions.is_empty()
    }

    fn wait(&self, core: &Core, _: Option<Duration>) -> io::Result<()> {
        core.counters().enters.add(1);
        let mut state = self.kernel.state.borrow_mut();
        if state.obedient {
            for user_data in std::mem::take(&mut state.cancels) {
                if state.find(user_data).is_some() {
                    state.complete(user_data, -errno::ECANCELED, false);
                }
            }
        }
        Ok(())
    }

    fn reap(&self, core: &Core, on: &mut impl OnCompletion) {
        let there_now = self.kernel.state.borrow().completions.len();
        for _ in 0..there_now {
            // One by one, so that none is lost where a callback panics.
            let Some(cqe) = self.kernel.state.borrow_mut().completions.pop_front() else { break };
            core.counters().completions.add(1);
            self.dispatch(core, cqe, on);
        }
    }
}

/// A multishot operation that the kernel has let go of, while user code is told of its last item.
struct Unfinished<'a> {
    core: &'a Core,
    user_data: u64,
}

impl Drop for Unfinished<'_> {
    #[cold]
    fn drop(&mut self) {
        if let Some(slot) = self.core.in_flight(self.user_data) {
            self.core.finish_later(slot, 0);
        }
    }
}
