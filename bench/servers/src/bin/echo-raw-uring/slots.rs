//! As `single`, with what safety, tasks and fairness force upon whoever awaits: the least that a runtime does.
//!
//! Each operation claims a slot, which owns the buffer until its completion, and releases it; a completion names
//! its slot and the slot's generation; whoever waits is a future in a box, polled through its table; operations
//! are counted by kind, as they start and as they end, and each poll looks at a budget. There is nothing else:
//! no cancelling, no drop of what is in flight, no descriptors' table, no foreign wakers, no timers, no wakes.

use std::cell::{Cell, UnsafeCell};
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use bench::count;
use io_uring::types::Fd;
use io_uring::{cqueue, opcode};
use pelton_bench_servers as bench;

use crate::Handler;
use crate::queue::Queue;

const RECEIVE: usize = 0;
const SEND: usize = 1;
/// The word of the accept, which has no slot.
const ACCEPT: u64 = u64::MAX;
const BUDGET: i32 = 128;

#[derive(Default)]
struct Slot {
    generation: u32,
    done: bool,
    kind: u8,
    result: i32,
    /// Whom to poll.
    task: u32,
    buffer: Vec<u8>,
    next: u32,
}

/// What the futures work on. One thread; nobody keeps a reference into it across a poll.
#[derive(Default)]
struct World {
    slots: UnsafeCell<Vec<Slot>>,
    free: Cell<u32>,
    /// The queue, while a completion is handled.
    queue: Cell<Option<*mut Queue<'static>>>,
    budget: Cell<i32>,
    started: [Cell<u64>; 2],
    ended: [Cell<u64>; 2],
}

impl World {
    /// # Safety
    /// No other reference to the slot lives, and the slot has been claimed at least once.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the caller says that it is the only one")]
    unsafe fn slot(&self, index: u32) -> &mut Slot {
        // SAFETY: as the caller says.
        unsafe { (&mut *self.slots.get()).get_unchecked_mut(index as usize) }
    }

    #[inline(always)]
    fn claim(&self, kind: u8, buffer: Vec<u8>, task: u32) -> u32 {
        let index = self.free.get();
        if index == u32::MAX {
            return self.claim_fresh(kind, buffer, task);
        }
        // SAFETY: it is in the free list, so that nobody has it.
        let slot = unsafe { self.slot(index) };
        self.free.set(slot.next);
        (slot.done, slot.kind, slot.task) = (false, kind, task);
        // SAFETY: a free slot's buffer has been moved out: there is nothing to drop.
        unsafe { ptr::write(&mut slot.buffer, buffer) };
        index
    }

    #[cold]
    fn claim_fresh(&self, kind: u8, buffer: Vec<u8>, task: u32) -> u32 {
        // SAFETY: nobody has a reference into the list.
        let slots = unsafe { &mut *self.slots.get() };
        slots.push(Slot { kind, task, buffer, ..Slot::default() });
        (slots.len() - 1) as u32
    }

    #[inline(always)]
    fn release(&self, index: u32) -> (i32, Vec<u8>) {
        // SAFETY: its operation is done and its future has asked: nobody else has it.
        let slot = unsafe { self.slot(index) };
        slot.generation = slot.generation.wrapping_add(1);
        slot.next = self.free.replace(index);
        // SAFETY: moved out once: `claim` writes over it.
        (slot.result, unsafe { ptr::read(&slot.buffer) })
    }
}

enum Stage {
    Staged(Vec<u8>),
    Flying(u32),
    Ended,
}

struct Operation<const KIND: usize> {
    world: &'static World,
    fd: RawFd,
    stage: Stage,
}

impl<const KIND: usize> Future for Operation<KIND> {
    type Output = (i32, Vec<u8>);

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let world = self.world;
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Flying(index) => {
                // SAFETY: the operation's own slot, and nobody else looks at it now.
                if !unsafe { world.slot(index) }.done {
                    self.stage = Stage::Flying(index);
                    return Poll::Pending;
                }
                Poll::Ready(world.release(index))
            }
            Stage::Staged(mut buffer) => {
                // All of these wait for the kernel, so the budget never runs out.
                assert!(world.budget.get() > 0, "no operation ends at once here");
                let waker = cx.waker();
                assert!(ptr::eq(waker.vtable(), &VTABLE), "a waker of these tasks");
                let (ptr, len, room) = (buffer.as_mut_ptr(), buffer.len(), buffer.capacity());
                let index = world.claim(KIND as u8, buffer, waker.data().addr() as u32);
                // SAFETY: it has just been claimed.
                let generation = unsafe { world.slot(index) }.generation;
                let word = u64::from(generation) << 32 | u64::from(index);
                let started = &world.started[KIND];
                started.set(started.get() + 1);
                let entry = if KIND == RECEIVE {
                    opcode::Recv::new(Fd(self.fd), ptr, room as u32).build()
                } else {
                    let send = opcode::Send::new(Fd(self.fd), ptr, len as u32);
                    send.flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).build()
                };
                let queue =
                    world.queue.get().expect("a task is polled while a completion is handled");
                // SAFETY: the queue is there while a completion is handled, and nobody else uses it meanwhile; the
                // slot owns the memory until the operation is done.
                unsafe { (*queue).push(entry.user_data(word)) };
                self.stage = Stage::Flying(index);
                Poll::Pending
            }
            Stage::Ended => unreachable!("not polled after its end"),
        }
    }
}

async fn echo(world: &'static World, fd: RawFd, buffer: usize) {
    let mut buf = Vec::with_capacity(buffer);
    loop {
        let mut result;
        let stage = Stage::Staged(buf);
        (result, buf) = Operation::<RECEIVE> { world, fd, stage }.await;
        if result <= 0 {
            break;
        }
        // SAFETY: the kernel has written so many bytes.
        unsafe { buf.set_len(result as usize) };
        let stage = Stage::Staged(buf);
        (result, buf) = Operation::<SEND> { world, fd, stage }.await;
        if result < 0 {
            break;
        }
        buf.clear();
        count::one();
    }
    // SAFETY: the connection's own descriptor, with nothing in flight.
    unsafe { libc::close(fd) };
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |data| RawWaker::new(data, &VTABLE),
    |_| unreachable!("nobody wakes but completions"),
    |_| unreachable!("nobody wakes but completions"),
    |_| {},
);

pub(super) struct Echo {
    listener: RawFd,
    buffer: usize,
    world: &'static World,
    tasks: Vec<Option<Pin<Box<dyn Future<Output = ()>>>>>,
}

impl Echo {
    pub(super) fn new(listener: RawFd, buffer: usize) -> Echo {
        let world: &'static World = Box::leak(Box::default());
        world.free.set(u32::MAX);
        world.budget.set(BUDGET);
        Echo { listener, buffer, world, tasks: Vec::new() }
    }

    #[inline(always)]
    fn poll(&mut self, task: u32, queue: &mut Queue<'_>) {
        self.world.queue.set(Some(ptr::from_mut(queue).cast()));
        let data = ptr::without_provenance(task as usize);
        // SAFETY: the table's functions do nothing with the data.
        let waker = unsafe { Waker::from_raw(RawWaker::new(data, &VTABLE)) };
        let place = &mut self.tasks[task as usize];
        let Some(future) = place else { return };
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            *place = None;
        }
        std::mem::forget(waker);
    }
}

impl Handler for Echo {
    fn start(&mut self, queue: &mut Queue<'_>) {
        let accept = opcode::AcceptMulti::new(Fd(self.listener)).flags(libc::SOCK_CLOEXEC);
        // SAFETY: the listener stays open, and no memory is named.
        unsafe { queue.push(accept.build().user_data(ACCEPT)) };
    }

    #[inline(always)]
    fn complete(&mut self, completion: &cqueue::Entry, queue: &mut Queue<'_>) {
        let (word, result) = (completion.user_data(), completion.result());
        if word == ACCEPT {
            if result >= 0 {
                self.tasks.push(Some(Box::pin(echo(self.world, result, self.buffer))));
                self.poll(self.tasks.len() as u32 - 1, queue);
            }
            if !cqueue::more(completion.flags()) {
                self.start(queue);
            }
            return;
        }
        // SAFETY: nobody has a reference into the list.
        let slots = unsafe { &mut *self.world.slots.get() };
        let Some(slot) = slots.get_mut(word as u32 as usize) else { return };
        if slot.generation != (word >> 32) as u32 {
            return;
        }
        (slot.done, slot.result) = (true, result);
        let task = slot.task;
        let ended = &self.world.ended[usize::from(slot.kind & 1)];
        ended.set(ended.get() + 1);
        self.poll(task, queue);
    }

    fn turn_over(&mut self, _: &mut Queue<'_>) {
        self.world.budget.set(BUDGET);
    }
}
