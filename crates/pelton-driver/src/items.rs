//! What multishot operations have yielded and nobody has taken yet: lists of nodes that are used again.
//!
//! A slot has room for one owner, and a multishot operation may yield faster than its holder takes. Its
//! payload is then the head of a list here. The nodes belong to the driver; an item belongs to whoever
//! pops it, and items that nobody will pop are dropped after their slot has been released, because
//! dropping one may run the driver again.

use std::cell::{Cell, UnsafeCell};

use crate::payload::Item;
use crate::slot::{NIL, Slot};

#[derive(Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
    len: u32,
}

const EMPTY: Queue = Queue { first: NIL, last: NIL, len: 0 };

struct Node {
    item: Option<Item>,
    next: u32,
}

/// The nodes of one driver.
pub(crate) struct Items {
    nodes: UnsafeCell<Vec<Node>>,
    free: Cell<u32>,
}

/// Makes the payload of a multishot operation: no items yet.
pub(crate) fn start(slot: &Slot) {
    set_queue(slot, EMPTY);
}

/// How many items wait to be taken.
pub(crate) fn waiting(slot: &Slot) -> u32 {
    queue(slot).len
}

fn queue(slot: &Slot) -> Queue {
    // SAFETY: called for multishot operations alone, whose payload `start` has made a `Queue`, which fits
    // in 24 bytes aligned to 8.
    unsafe { slot.payload().cast::<Queue>().read() }
}

fn set_queue(slot: &Slot, queue: Queue) {
    // SAFETY: as above; a `Queue` needs no drop, so nothing is lost by writing over it.
    unsafe { slot.payload().cast::<Queue>().write(queue) };
}

impl Items {
    pub(crate) fn new() -> Items {
        Items { nodes: UnsafeCell::new(Vec::new()), free: Cell::new(NIL) }
    }

    /// Adds an item to those of a multishot operation.
    pub(crate) fn push(&self, slot: &Slot, item: Item) {
        let mut queue = queue(slot);
        let node = self.with(|nodes| {
            let node = self.free.get();
            match nodes.get_mut(node as usize) {
                Some(free) => {
                    self.free.set(free.next);
                    *free = Node { item: Some(item), next: NIL };
                    node
                }
                None => {
                    nodes.push(Node { item: Some(item), next: NIL });
                    nodes.len() as u32 - 1
                }
            }
        });
        if queue.last == NIL {
            queue.first = node;
        } else {
            self.with(|nodes| nodes[queue.last as usize].next = node);
        }
        queue.last = node;
        queue.len += 1;
        set_queue(slot, queue);
    }

    /// Takes the oldest item of a multishot operation.
    pub(crate) fn pop(&self, slot: &Slot) -> Option<Item> {
        let mut queue = queue(slot);
        let item = self.pop_node(&mut queue);
        set_queue(slot, queue);
        item
    }

    /// Detaches all the items of a multishot operation. Drop them after the slot's release.
    pub(crate) fn take_all(&self, slot: &Slot) -> Rest<'_> {
        let queue = queue(slot);
        set_queue(slot, EMPTY);
        Rest { items: self, queue }
    }

    fn pop_node(&self, queue: &mut Queue) -> Option<Item> {
        if queue.first == NIL {
            return None;
        }
        let node = queue.first;
        let (item, next) = self.with(|nodes| {
            let item = nodes[node as usize].item.take();
            let next = std::mem::replace(&mut nodes[node as usize].next, self.free.get());
            self.free.set(node);
            (item, next)
        });
        queue.first = next;
        queue.len -= 1;
        if next == NIL {
            queue.last = NIL;
        }
        item
    }

    /// Runs `f` on the nodes. `f` must not run user code: it moves items and drops none.
    fn with<R>(&self, f: impl FnOnce(&mut Vec<Node>) -> R) -> R {
        // SAFETY: one thread, and no second reference can be made while `f` runs: the callers in this
        // file only move items and links in it.
        f(unsafe { &mut *self.nodes.get() })
    }
}

/// Items that nobody will take.
pub(crate) struct Rest<'a> {
    items: &'a Items,
    queue: Queue,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        while let Some(item) = self.items.pop_node(&mut self.queue) {
            drop(item);
        }
    }
}
