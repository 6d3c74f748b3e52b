//! A kernel made of user space: it completes what it was given when a test says so, late, twice, after a
//! cancel, or never, and writes into the memory of an operation at that moment, as a kernel would. So
//! Miri and AddressSanitizer see every use of memory that a kernel would still hold.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::config::Error;
use crate::core::{Completion, Core};
use crate::descriptor::Entry;
use crate::op::{Kind, Op};
use crate::payload::{self, Item, Memory};
use crate::slot::{OpId, Slot, bits};

/// Something that the fake kernel was given.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The operation, by the number that a kernel would carry.
    pub user_data: u64,
    /// What it is.
    pub kind: Kind,
    ptr: *mut u8,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Cqe {
    user_data: u64,
    result: i32,
    more: bool,
}

#[derive(Default)]
struct State {
    held: Vec<Held>,
    cancels: Vec<u64>,
    completions: Vec<Cqe>,
    closed: usize,
    /// Cancel what is asked to be cancelled by itself when the driver waits: a kernel that behaves.
    obedient: bool,
}

/// The test's side of a fake kernel.
#[derive(Clone, Default)]
pub struct FakeKernel {
    state: Rc<RefCell<State>>,
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

    /// Writes `data` into the memory of the operation, as far as it fits, and completes it for the last
    /// time with that many bytes.
    pub fn fill(&self, user_data: u64, data: &[u8]) {
        let held = self.held().into_iter().find(|held| held.user_data == user_data);
        let held = held.expect("the kernel holds this operation");
        let n = data.len().min(held.len);
        // SAFETY: the driver promises that the memory of an operation in flight stays where it is and is
        // touched by nobody else until its last completion; that promise is what the tests test.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), held.ptr, n) };
        self.complete(user_data, n as i32);
    }

    /// The bytes of an operation's memory, as a kernel that sends would read them.
    pub fn bytes(&self, user_data: u64) -> Vec<u8> {
        let held = self.held().into_iter().find(|held| held.user_data == user_data);
        let held = held.expect("the kernel holds this operation");
        // SAFETY: as in `fill`; an operation that sends has initialised its memory.
        unsafe { std::slice::from_raw_parts(held.ptr, held.len) }.to_vec()
    }

    /// Completes an operation for the last time, whether it is held or not.
    pub fn complete(&self, user_data: u64, result: i32) {
        let mut state = self.state.borrow_mut();
        state.held.retain(|held| held.user_data != user_data);
        state.completions.push(Cqe { user_data, result, more: false });
    }

    /// Completes a multishot operation and keeps it.
    pub fn complete_more(&self, user_data: u64, result: i32) {
        self.state.borrow_mut().completions.push(Cqe { user_data, result, more: true });
    }
}

/// The driver's side.
pub(crate) struct Fake {
    kernel: FakeKernel,
    reaping: Cell<bool>,
}

impl Fake {
    pub(crate) fn new(kernel: FakeKernel) -> Fake {
        Fake { kernel, reaping: Cell::new(false) }
    }

    pub(crate) fn prepare(&self, _: &Core) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn start(&self, core: &Core, slot: &Slot, op: Op, _: &Entry, memory: Memory) {
        if let Op::Connect { addr, .. } = op {
            core.scratch.get(slot.progress.get()).set_address(&addr);
        }
        self.hold(core, slot, memory);
    }

    fn hold(&self, core: &Core, slot: &Slot, memory: Memory) {
        let user_data = core.arena.id(slot).user_data();
        let held = Held { user_data, kind: slot.kind.get(), ptr: memory.ptr, len: memory.len };
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

    pub(crate) fn close(&self, core: &Core, _: &Entry, closer: Option<&Slot>) {
        self.kernel.state.borrow_mut().closed += 1;
        core.counters().closes.add(1);
        if let Some(closer) = closer {
            core.finish_later(closer, 0);
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.kernel.state.borrow().completions.is_empty()
    }

    pub(crate) fn wait(&self, core: &Core, _: Option<Duration>) -> io::Result<()> {
        core.counters().enters.add(1);
        let mut state = self.kernel.state.borrow_mut();
        if state.obedient {
            let cancels = std::mem::take(&mut state.cancels);
            for user_data in cancels {
                if state.held.iter().any(|held| held.user_data == user_data) {
                    state.held.retain(|held| held.user_data != user_data);
                    let result = -super::errno::ECANCELED;
                    state.completions.push(Cqe { user_data, result, more: false });
                }
            }
        }
        Ok(())
    }

    pub(crate) fn reap(&self, core: &Core, on: &mut impl FnMut(Completion)) {
        assert!(!self.reaping.replace(true), "a tick inside a tick");
        let completions = std::mem::take(&mut self.kernel.state.borrow_mut().completions);
        for Cqe { user_data, result, more } in completions {
            core.counters().completions.add(1);
            let Some(slot) = core.in_flight(user_data) else { continue };
            match slot.kind.get() {
                Kind::RecvMulti | Kind::RecvPooled if result == -super::errno::ENOBUFS => {
                    if slot.has(bits::CANCELLED) {
                        core.finish_now(slot, -super::errno::ECANCELED, on);
                    } else {
                        core.stall(slot);
                    }
                }
                Kind::RecvMulti if result > 0 => {
                    let lease = self.receive(core, result as u32);
                    core.yielded(slot, Item::Lease(lease), on);
                    if !more && core.in_flight(user_data).is_some() {
                        core.finish_now(slot, 0, on);
                    }
                }
                Kind::RecvPooled if result > 0 => {
                    payload::put_lease(slot, self.receive(core, result as u32));
                    core.finish_now(slot, result, on);
                }
                _ => core.finish_now(slot, result, on),
            }
        }
        self.reaping.set(false);
    }

    fn receive(&self, core: &Core, n: u32) -> crate::pool::Lease {
        let (id, ptr, room) = core.pool.pick().expect("the test leaves a buffer free");
        let n = n.min(room);
        // SAFETY: the unfilled rest of a buffer that is with this room.
        unsafe { ptr.write_bytes(0xAB, n as usize) };
        core.pool.commit(id, n)
    }
}
