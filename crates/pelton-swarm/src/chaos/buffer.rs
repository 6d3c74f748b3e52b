//! Buffers that know who they are: each is dropped once, comes back as the one that was handed over, has margins
//! that nobody may write to, and may run the driver when it is dropped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use pelton_driver::{IoBuf, IoBufMut, Spare};

use super::Chaos;

const MARGIN: usize = 16;
const CANARY: u8 = 0xC5;

/// What has become of every buffer that was made.
#[derive(Default)]
pub(super) struct Registry {
    next: Cell<u64>,
    live: RefCell<BTreeMap<u64, usize>>,
    wrong: RefCell<Vec<String>>,
}

impl Registry {
    pub(super) fn live(&self) -> usize {
        self.live.borrow().len()
    }

    /// What was wrong with buffers so far.
    pub(super) fn wrong(&self) -> Option<String> {
        self.wrong.borrow().first().cloned()
    }

    fn complain(&self, what: String) {
        self.wrong.borrow_mut().push(what);
    }
}

pub(super) struct Buf {
    bytes: Box<[u8]>,
    id: u64,
    registry: Rc<Registry>,
    bomb: Weak<Chaos>,
}

impl Buf {
    /// A buffer of so many bytes. With `bomb`, its drop runs the driver.
    pub(super) fn new(registry: &Rc<Registry>, len: usize, bomb: Weak<Chaos>) -> Box<Buf> {
        let id = registry.next.get() + 1;
        registry.next.set(id);
        let mut bytes = vec![CANARY; len + 2 * MARGIN].into_boxed_slice();
        bytes[MARGIN..MARGIN + len].fill(0);
        registry.live.borrow_mut().insert(id, bytes.as_ptr().addr());
        Box::new(Buf { bytes, id, registry: registry.clone(), bomb })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[MARGIN..self.bytes.len() - MARGIN]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let end = self.bytes.len() - MARGIN;
        &mut self.bytes[MARGIN..end]
    }

    fn check(&self) {
        let place = self.registry.live.borrow().get(&self.id).copied();
        if place != Some(self.bytes.as_ptr().addr()) {
            self.registry.complain(format!("buffer {} is not where it was made", self.id));
        }
        let (front, back) = (&self.bytes[..MARGIN], &self.bytes[self.bytes.len() - MARGIN..]);
        if front.iter().chain(back).any(|byte| *byte != CANARY) {
            self.registry.complain(format!("somebody wrote outside of buffer {}", self.id));
        }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.check();
        if self.registry.live.borrow_mut().remove(&self.id).is_none() {
            self.registry.complain(format!("buffer {} was dropped twice", self.id));
        }
        if let Some(chaos) = self.bomb.upgrade() {
            chaos.bomb();
        }
    }
}

/// The owner of a buffer, small enough for a slot.
pub(super) struct Owned(pub(super) Box<Buf>);

/// The owner of a buffer, too large for a slot.
pub(super) struct Wide(pub(super) Box<Buf>, #[allow(dead_code)] pub(super) [u64; 4]);

macro_rules! buffers {
    ($($owner:ty),+) => {$(
        impl IoBuf for $owner {
            fn as_init(&self) -> &[u8] {
                self.0.bytes()
            }
        }

        impl IoBufMut for $owner {
            fn spare(&mut self) -> Spare<'_> {
                self.0.bytes_mut().into()
            }

            unsafe fn advance(&mut self, _: usize) {}
        }
    )+};
}

buffers!(Owned, Wide);
