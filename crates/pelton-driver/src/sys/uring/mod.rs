//! The io_uring room.
//!
//! # One entry per tick
//!
//! `start` writes an entry straight into the submission queue and makes no call. `wait` enters the kernel
//! once: that submits whatever is staged, publishes how far completions have been read, and waits. `reap`
//! dispatches the batch that is there. Only where the submission queue is full in the middle of a tick is
//! there another entry, which submits and does not wait.
//!
//! # Nothing is lost
//!
//! Entries that the kernel did not take stay staged. Where the queue is full and a flush makes no room,
//! entries wait in a backlog, in order, cancels among them. A completion queue that overflows keeps the
//! rest in the kernel, and a flag in the ring makes the next wait fetch it.
//!
//! # What is tried again here
//!
//! An operation ends with its last completion, and some of those are not the operation's end: an
//! interruption; a descriptor that does not block and has nothing (the ring then polls it first); a send
//! of everything that was cut short; a pooled receive that found no buffer, which waits for one; a
//! multishot operation that the kernel stopped because its completion queue was full. In all of these the
//! slot stays busy and is submitted again, unless a cancel was asked for meanwhile or the descriptor is
//! closing.

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::attempt::{interest_arg, poll_events, shutdown_arg};
use super::descriptor::own;
use super::unix::{NO_DESCRIPTOR, RawDescriptor, errno, receive_flags};
use crate::config::{Config, Error};
use crate::core::{Core, OnCompletion};
use crate::descriptor::{Entry, flags};
use crate::op::{Form, Kind, Op};
use crate::payload::{self, Item, Memory};
use crate::seam;
use crate::slot::{NIL, OpId, Slot, Standing, State, bits, plain};

pub(crate) mod bufring;
mod entry;
pub(crate) mod ring;
pub(crate) mod setup;
mod stage;

use bufring::BufRing;
use entry::Sqe;
use ring::{Cqe, Ring, RingConfig, is_transient};

/// The group of the one pool: zero, so that an entry need not name it.
const GROUP: u16 = 0;
/// `user_data` of entries that belong to no slot: no slot has the number `NIL`.
const WAKE: u64 = internal(1);
const QUIET: u64 = internal(2);
/// From here on: a cancel that ends its target where it fails. Only a mutant makes one.
const RETIRES: u64 = 16;

const fn internal(n: u64) -> u64 {
    (n << 32) | NIL as u64
}

pub(crate) struct Uring {
    ring: Ring,
    /// Entries that found the submission queue full, in order.
    backlog: UnsafeCell<VecDeque<Sqe>>,
    /// Where entries are staged that are not zero in the words which most leave alone.
    rich: UnsafeCell<Vec<u32>>,
    /// The poll of the wake source is in the kernel.
    watching: Cell<bool>,
    overflows: Cell<u64>,
    /// In microseconds; zero does not gather.
    batch_wait: u32,
}

impl Uring {
    /// Makes the ring, or says in words why it cannot and what would help.
    pub(crate) fn new(config: &Config, simulated: bool) -> Result<Uring, String> {
        let sizes =
            RingConfig { sq_entries: config.ring_entries, cq_entries: config.completion_entries };
        let ring = if simulated { Ring::create_simulated(&sizes) } else { Ring::create(&sizes) };
        let ring = ring.map_err(|error| error.to_string())?;
        if !ring.features().pbuf_ring {
            return Err("this io_uring has no provided-buffer rings: it needs Linux 6.1".into());
        }
        let batch_wait = config.batch_wait.as_nanos().div_ceil(1000) as u32;
        if batch_wait > 0 && !ring.features().min_timeout {
            return Err("`batch_wait` needs Linux 6.12: leave it at zero".into());
        }
        Ok(Uring {
            ring,
            backlog: UnsafeCell::new(VecDeque::new()),
            rich: UnsafeCell::new(Vec::new()),
            watching: Cell::new(false),
            overflows: Cell::new(0),
            batch_wait,
        })
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.ring.is_simulated()
    }

    pub(crate) fn fills_buffers_piecewise(&self) -> bool {
        self.ring.features().pbuf_inc
    }

    pub(crate) fn prepare(&self, core: &Core) -> Result<(), Error> {
        let buffers = core.pool.len();
        let ring = BufRing::register(&self.ring, GROUP, buffers, self.fills_buffers_piecewise())
            .map_err(|error| Error::Os {
                what: "registering the ring of provided buffers (lower `pool_buffers` if memory is short)",
                error: error.into(),
            })?;
        core.pool.attach(ring);
        self.watch(core);
        Ok(())
    }

    fn watch(&self, core: &Core) {
        self.watching.set(true);
        self.push(core, entry::poll_edges(core.shared.wake.watch(), libc::POLLIN, WAKE));
    }

    #[inline(always)]
    pub(crate) fn start(
        &self,
        core: &Core,
        slot: &Slot,
        id: OpId,
        op: Op,
        entry: &Entry,
        memory: Memory,
    ) {
        let raw = entry.raw.get();
        let user_data = id.user_data();
        let Memory { ptr, len } = memory;
        match op {
            Op::Recv { .. } => {
                self.push_lean(core, entry::recv(raw, ptr, len as u32, user_data));
            }
            Op::Send { all, .. } => {
                // Kept to see whether a completion was short.
                slot.arg.set(len as u32);
                self.push_lean(core, entry::send(raw, ptr, len as u32, all, user_data));
            }
            Op::RecvPooled { .. } => {
                self.push_lean(core, entry::recv_pooled(raw, false, user_data));
            }
            Op::RecvMulti { .. } => {
                self.push_lean(core, entry::recv_pooled(raw, true, user_data));
            }
            Op::ReadAt { offset, .. } => {
                slot.set_offset(offset);
                self.push(core, entry::read(raw, ptr, len as u32, offset, user_data));
            }
            Op::WriteAt { offset, .. } => {
                slot.set_offset(offset);
                self.push(core, entry::write(raw, ptr, len as u32, offset, user_data));
            }
            Op::Poll { interest, .. } => {
                slot.progress.set(interest_arg(interest));
                self.push_again(core, slot, raw);
            }
            Op::Connect { .. }
            | Op::Accept { .. }
            | Op::AcceptMulti { .. }
            | Op::RecvVectored { .. }
            | Op::SendVectored { .. }
            | Op::RecvMsg { .. }
            | Op::SendMsg { .. } => self.push_again(core, slot, raw),
            Op::Sync { data_only, .. } => {
                slot.progress.set(data_only.into());
                self.push(core, entry::sync(raw, data_only, user_data));
            }
            Op::Shutdown { how, .. } => {
                self.push(core, entry::shutdown(raw, shutdown_arg(how), user_data));
            }
            Op::Own { fd, form: Form::Entry } => {
                // SAFETY: this is what the seam gives for memory.
                let own = unsafe { seam::entry_in(memory) };
                self.push(core, entry::own(own, fd.map(|_| raw), user_data));
            }
            Op::Own { form: Form::Ready(interest), .. } => {
                slot.progress.set(interest_arg(interest));
                self.push_again(core, slot, raw);
            }
            Op::Own { form: Form::Overlapped, .. } => {
                unreachable!("the seam refuses {op:?} here")
            }
            Op::Nop
            | Op::Close { .. }
            | Op::Timeout { .. }
            | Op::Cancel { .. }
            | Op::CancelFd { .. }
            | Op::Wake => unreachable!("the driver itself answers {op:?}"),
        }
    }

    /// Stages the entry of an operation that is already in its slot.
    fn push_again(&self, core: &Core, slot: &Slot, raw: RawDescriptor) {
        match self.entry_again(core, slot, raw) {
            Some(sqe) => self.push(core, sqe),
            // Its owner, asked for its memory, had the operation cancelled. The cancel that the kernel
            // would get for it would come before the operation, and find nothing.
            None => core.finish_later(slot, core.cancelled(slot)),
        }
    }

    fn entry_again(&self, core: &Core, slot: &Slot, raw: RawDescriptor) -> Option<Sqe> {
        let user_data = core.arena.id(slot).user_data();
        let block = || core.scratch.get(slot.progress.get());
        Some(match slot.kind.get() {
            Kind::Recv => {
                let memory = core.memory_again(slot)?;
                entry::recv(raw, memory.ptr, memory.len as u32, user_data).into()
            }
            Kind::Send => {
                // Asked again the owner may show fewer bytes than have been sent: then none are left.
                let memory = core.memory_again(slot)?;
                let sent = (slot.progress.get() as usize).min(memory.len);
                let sent = if mutant!("send-from-zero") { 0 } else { sent };
                let left = (memory.len - sent) as u32;
                entry::send(
                    raw,
                    memory.ptr.wrapping_add(sent),
                    left,
                    slot.has(bits::ALL),
                    user_data,
                )
                .into()
            }
            Kind::RecvPooled => entry::recv_pooled(raw, false, user_data).into(),
            Kind::RecvMulti => entry::recv_pooled(raw, true, user_data).into(),
            Kind::ReadAt => {
                let memory = core.memory_again(slot)?;
                entry::read(raw, memory.ptr, memory.len as u32, slot.offset(), user_data)
            }
            Kind::Sync => entry::sync(raw, slot.progress.get() != 0, user_data),
            Kind::WriteAt => {
                let memory = core.memory_again(slot)?;
                entry::write(raw, memory.ptr, memory.len as u32, slot.offset(), user_data)
            }
            Kind::RecvVectored => entry::recvmsg(raw, block().message(), 0, user_data),
            Kind::RecvMsg => {
                let stream = core.entry_of(slot).is_none_or(|entry| entry.has(flags::STREAM));
                entry::recvmsg(raw, block().datagram(true), receive_flags(stream), user_data)
            }
            Kind::SendMsg => entry::sendmsg(raw, block().datagram(false), false, user_data),
            Kind::SendVectored => {
                entry::sendmsg(raw, block().message(), slot.has(bits::ALL), user_data)
            }
            Kind::Accept => {
                let block = block();
                entry::accept(raw, block.address.get().cast(), block.address_len.get(), user_data)
            }
            Kind::AcceptMulti => entry::accept_multi(raw, user_data),
            Kind::Connect => {
                let block = block();
                // SAFETY: the address and its length were written when the operation was started, and no
                // connect changes them.
                let len = unsafe { *block.address_len.get() };
                entry::connect(raw, block.address.get().cast(), len, user_data)
            }
            // Only a closure waits again.
            Kind::Poll | Kind::Own => entry::poll(raw, poll_events(slot.progress.get()), user_data),
            // One try each, or not the ring's.
            Kind::Nop
            | Kind::Shutdown
            | Kind::Close
            | Kind::Timeout
            | Kind::Cancel
            | Kind::CancelFd
            | Kind::Wake => unreachable!("{:?} is never submitted again", slot.kind.get()),
        })
    }

    pub(crate) fn restart(&self, core: &Core, slot: &Slot) {
        let Some(entry) = core.entry_of(slot) else { return };
        self.push_again(core, slot, entry.raw.get());
    }

    pub(crate) fn cancel(&self, core: &Core, slot: &Slot) {
        // Behind the operation's own entry if that is still staged, in the ring or in the backlog.
        let retires =
            mutant!("reseau-134").then(|| internal(RETIRES + u64::from(core.arena.index(slot))));
        self.push(core, entry::cancel(core.arena.id(slot).user_data(), retires.unwrap_or(QUIET)));
    }

    pub(crate) fn cancel_fd(&self, core: &Core, entry: &Entry) {
        self.push(core, entry::cancel_fd(entry.raw.get(), QUIET));
    }

    /// True when `cancel_fd` would reach too far: the kernel goes by the open file, which a duplicate of
    /// the descriptor shares.
    pub(crate) fn cancels_one_by_one(&self, entry: &Entry) -> bool {
        entry.has(flags::FOREIGN)
    }

    pub(crate) fn close(&self, core: &Core, entry: &Entry, closer: Option<&Slot>) {
        let user_data = closer.map_or(QUIET, |slot| core.arena.id(slot).user_data());
        self.push(core, entry::close(entry.raw.get(), user_data, closer.is_none()));
        core.counters().closes.add(1);
        // The number stays taken until the kernel has closed it, so nobody can get it meanwhile.
        entry.raw.set(NO_DESCRIPTOR);
    }

    pub(crate) fn has_staged(&self) -> bool {
        self.ring.staged() > 0 || self.has_backlog()
    }

    #[inline(always)]
    pub(crate) fn has_work(&self) -> bool {
        self.ring.cq_ready() > 0
    }

    #[inline(always)]
    pub(crate) fn wait(&self, core: &Core, timeout: Option<Duration>) -> io::Result<()> {
        if self.has_backlog() {
            return self.wait_with_backlog(core);
        }
        if timeout == Some(Duration::ZERO) {
            if mutant!("libxev-224") && !self.ring.needs_enter() {
                return Ok(());
            }
            if mutant!("overflow-not-looked-at") && self.ring.staged() == 0 {
                return Ok(());
            }
            if self.ring.staged() == 0 && !self.ring.needs_enter() {
                return Ok(());
            }
            return self.enter(core, 0, None);
        }
        if self.batch_wait > 0 {
            return self.gather(core, timeout);
        }
        self.enter(core, 1, timeout)
    }

    /// Waits until a batch has gathered or its time is over, and then for one completion.
    #[cold]
    fn gather(&self, core: &Core, timeout: Option<Duration>) -> io::Result<()> {
        // The kernel would let the batch's time run out even where a timer is due earlier.
        let until_timer = timeout.map_or(u128::MAX, |timeout| timeout.as_micros());
        let min_wait = until_timer.min(u128::from(self.batch_wait)) as u32;
        if min_wait == 0 {
            return self.enter(core, 1, timeout);
        }
        core.counters().enters.add(1);
        self.entered(core, self.ring.enter_min_wait(Config::BATCH, timeout, min_wait))
    }

    #[cold]
    fn wait_with_backlog(&self, core: &Core) -> io::Result<()> {
        // Everything that was submitted must reach the kernel before anybody waits for it. As long as
        // the kernel takes nothing, what has completed has to be reaped first: no waiting.
        loop {
            self.unload();
            let before = self.ring.staged();
            self.enter(core, 0, None)?;
            if !self.has_backlog() || self.ring.staged() == before {
                return Ok(());
            }
        }
    }

    #[inline(always)]
    fn enter(&self, core: &Core, wait: u32, timeout: Option<Duration>) -> io::Result<()> {
        core.counters().enters.add(1);
        self.entered(core, self.ring.enter(wait, timeout, true))
    }

    #[inline(always)]
    fn entered(&self, core: &Core, result: Result<u32, Errno>) -> io::Result<()> {
        // SAFETY: one thread; plain numbers.
        if !unsafe { &*self.rich.get() }.is_empty() {
            self.clean();
        }
        match result {
            Ok(_) => Ok(()),
            // The tick goes on with what there is; entries that were not taken stay staged.
            Err(error) if is_transient(error) && !mutant!("ioxide-220") => {
                if matches!(error, Errno::BUSY | Errno::AGAIN) {
                    core.counters().busy.add(1);
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    #[inline(always)]
    pub(crate) fn reap(&self, core: &Core, on: &mut impl OnCompletion) {
        let reaping = Reaping::begin(&self.ring, core);
        // Bounded by what is there now, so that a tick ends.
        while let Some(cqe) = self.ring.next_seen() {
            if !self.dispatch_plain(core, cqe, on) {
                // As numbers: a reference to the whole would keep it out of registers.
                self.dispatch(core, cqe.user_data, cqe.res, cqe.flags, on);
            }
        }
        drop(reaping);
        let overflows = self.ring.cq_overflows();
        if overflows != self.overflows.get() {
            core.counters().cq_overflows.add(overflows - self.overflows.replace(overflows));
        }
    }

    /// What nearly all completions are: an end with success, of an operation with nothing special about it.
    /// False, with nothing done, for any other.
    #[inline(always)]
    fn dispatch_plain(&self, core: &Core, cqe: Cqe, on: &mut impl OnCompletion) -> bool {
        const RECV: Standing = plain(Kind::Recv, 0);
        const RECV_POOLED: Standing = plain(Kind::RecvPooled, 0);
        const SEND: Standing = plain(Kind::Send, 0);
        const SEND_ALL: Standing = plain(Kind::Send, bits::ALL);
        let id = OpId::from_user_data(cqe.user_data);
        let Some(slot) = core.arena.find(id) else { return false };
        let mut result = cqe.res;
        if result < 0 {
            return false;
        }
        match slot.standing() {
            RECV => core.counters().ended(Kind::Recv),
            SEND_ALL | SEND => {
                if (result as u32) < slot.arg.get() {
                    return false;
                }
                result += slot.progress.get() as i32;
                core.counters().ended(Kind::Send);
            }
            RECV_POOLED => {
                if let Some(buffer) = cqe.buffer()
                    && let Some(lease) =
                        core.pool.received(buffer, result as u32, cqe.buffer_more())
                {
                    payload::put_lease(slot, lease);
                }
                core.counters().ended(Kind::RecvPooled);
            }
            _ => return false,
        }
        if mutant!("ioxide-244") && result == 0 && slot.kind.get() != Kind::Send {
            self.fail_sends(core, slot.fd.get());
        }
        // SAFETY: these kinds are operations on a descriptor, and are in flight since it was found.
        let entry = unsafe { core.fds.get_used(slot.fd.get()) };
        core.finish_plain(slot, id, entry, result, on);
        true
    }

    #[inline(never)]
    fn dispatch(
        &self,
        core: &Core,
        user_data: u64,
        res: i32,
        flags: u32,
        on: &mut dyn OnCompletion,
    ) {
        let cqe = Cqe { user_data, res, flags };
        if cqe.user_data as u32 == NIL {
            return self.dispatch_internal(core, cqe);
        }
        let Some(slot) = core.in_flight(cqe.user_data) else { return };
        let result = cqe.res;
        if slot.kind.get() == Kind::Own {
            return self.dispatch_own(core, slot, cqe, on);
        }
        if slot.has(bits::POLLING) || (result < 0 && try_again(slot.kind.get(), result)) {
            return self.dispatch_again(core, slot, cqe, on);
        }
        let result = match slot.kind.get() {
            Kind::RecvPooled => {
                if let Some(buffer) = cqe.buffer() {
                    let n = result.max(0) as u32;
                    if let Some(lease) = core.pool.received(buffer, n, cqe.buffer_more()) {
                        payload::put_lease(slot, lease);
                    }
                }
                result
            }
            Kind::Send
                if result >= 0
                    && (result as u32) < slot.arg.get()
                    && slot.has(bits::ALL)
                    && !mutant!("short-send-is-the-end") =>
            {
                return self.dispatch_short_send(core, slot, result, on);
            }
            Kind::Send => {
                let sent = slot.progress.get() as i32;
                match result {
                    _ if result >= 0 => sent + result,
                    _ if result == -errno::ECANCELED => core.cancelled(slot),
                    error => error,
                }
            }
            Kind::RecvMulti => return self.dispatch_recv_multi(core, slot, cqe, on),
            Kind::Accept => {
                if mutant!("compio-315") && slot.state.get() == State::Orphan {
                    // Nobody waits for the connection, and nobody closes it.
                } else if result >= 0 {
                    core.counters().accepts.add(1);
                    // SAFETY: the kernel has just made it for this operation.
                    payload::put_descriptor(slot, unsafe { own(result) });
                }
                result.min(0)
            }
            Kind::AcceptMulti => return self.dispatch_accept_multi(core, slot, cqe, on),
            Kind::SendVectored => return self.dispatch_send_vectored(core, slot, result, on),
            _ => result,
        };
        core.finish_now(slot, result, on);
    }

    #[cold]
    fn dispatch_internal(&self, core: &Core, cqe: Cqe) {
        if cqe.user_data == WAKE {
            core.shared.wake.drain();
            if !cqe.more() && !mutant!("watch-not-rearmed") {
                self.watching.set(false);
                self.watch(core);
            }
        }
        if mutant!("reseau-134") && cqe.user_data >> 32 >= RETIRES {
            // Too late to cancel it, so it is taken to have ended: its completion is still on its way.
            let target = core.arena.get((cqe.user_data >> 32) as u32 - RETIRES as u32);
            if let Some(slot) = target
                && matches!(slot.state.get(), State::Busy | State::Orphan)
                && slot.has(bits::CANCELLED)
            {
                core.finish_later(slot, core.cancelled(slot));
            }
        }
        // A cancel that found nothing, or a close that failed: nobody waits to hear of it.
    }

    /// A completion of an operation of the user's own: the outcome as it is, or the word that its descriptor is
    /// ready.
    #[cold]
    fn dispatch_own(&self, core: &Core, slot: &Slot, cqe: Cqe, on: &mut dyn OnCompletion) {
        if !slot.has(seam::READY) {
            if cqe.more() {
                // A zero-copy send says first what it did, and when the memory is free after that.
                if !slot.has(bits::POLLING) {
                    slot.set(bits::POLLING);
                    slot.arg.set(cqe.res as u32);
                }
                return;
            }
            let result =
                if cqe.is_notice() && slot.has(bits::POLLING) { slot.result() } else { cqe.res };
            slot.unset(bits::POLLING);
            // What was interrupted by its cancel may say so in the kernel's own words ("restart me").
            let restarts = matches!(-result, 512..=514 | 516) && slot.has(bits::CANCELLED);
            return core.finish_now(slot, if restarts { core.cancelled(slot) } else { result }, on);
        }
        let Some(entry) = core.entry_of(slot) else { return };
        let result = match cqe.res {
            _ if !may_restart(core, slot) => core.cancelled(slot),
            error if error < 0 && error != -errno::EINTR => error,
            // Interrupted, it is called all the same, and says that it would block.
            _ => seam::attempt(core, slot, entry.raw.get()),
        };
        if result == -errno::EAGAIN {
            self.push_again(core, slot, entry.raw.get());
        } else {
            core.finish_now(slot, result, on);
        }
    }

    /// A completion that is not the operation's end.
    #[cold]
    fn dispatch_again(&self, core: &Core, slot: &Slot, cqe: Cqe, on: &mut dyn OnCompletion) {
        if let Some(buffer) = cqe.buffer() {
            // Nothing was received, so the buffer is still whole.
            let _ = core.pool.received(buffer, 0, cqe.buffer_more());
        }
        let result = cqe.res;
        if cqe.more() {
            return;
        }
        let polled = slot.has(bits::POLLING);
        if !mutant!("polling-kept") {
            slot.unset(bits::POLLING);
        }
        if !may_restart(core, slot) {
            // "Try again" is no outcome.
            let real = polled && result < 0 && !matches!(-result, errno::EINTR | errno::ECANCELED);
            return core.finish_now(slot, if real { result } else { core.cancelled(slot) }, on);
        }
        match -result {
            errno::ENOBUFS if !polled => core.stall(slot),
            errno::EAGAIN if !polled => {
                // A descriptor that does not block makes the ring give up at once: poll it first.
                slot.set(bits::POLLING);
                let Some(entry) = core.entry_of(slot) else { return };
                let events = if sends(slot.kind.get()) { libc::POLLOUT } else { libc::POLLIN };
                let sqe = entry::poll(entry.raw.get(), events, core.arena.id(slot).user_data());
                self.push(core, sqe);
            }
            error if polled && error > 0 && error != errno::EINTR => {
                core.finish_now(slot, result, on)
            }
            _ => self.restart(core, slot),
        }
    }

    #[cold]
    fn dispatch_short_send(
        &self,
        core: &Core,
        slot: &Slot,
        result: i32,
        on: &mut dyn OnCompletion,
    ) {
        let sent = slot.progress.get() + result as u32;
        slot.progress.set(sent);
        if result == 0 || !may_restart(core, slot) {
            return core.finish_now(slot, sent as i32, on);
        }
        slot.arg.set(slot.arg.get() - result as u32);
        self.restart(core, slot);
    }

    fn dispatch_send_vectored(
        &self,
        core: &Core,
        slot: &Slot,
        result: i32,
        on: &mut dyn OnCompletion,
    ) {
        if result == -errno::ECANCELED {
            return core.finish_now(slot, core.cancelled(slot), on);
        }
        if result < 0 {
            return core.finish_now(slot, result, on);
        }
        let block = core.scratch.get(slot.progress.get());
        block.skip(result as usize);
        if result == 0 || block.bytes() == 0 || !slot.has(bits::ALL) || !may_restart(core, slot) {
            return core.finish_now(slot, block.skipped() as i32, on);
        }
        self.restart(core, slot);
    }

    fn dispatch_recv_multi(&self, core: &Core, slot: &Slot, cqe: Cqe, on: &mut dyn OnCompletion) {
        let lease = cqe.buffer().and_then(|buffer| {
            core.pool.received(buffer, cqe.res.max(0) as u32, cqe.buffer_more())
        });
        let ended = lease.is_none();
        if let Some(lease) = lease {
            core.yielded(slot, Item::Lease(lease), on);
        }
        if mutant!("ioxide-244") && ended {
            self.fail_sends(core, slot.fd.get());
        }
        if !cqe.more() {
            self.end_or_rearm(core, cqe, ended, on);
        } else if mutant!("multishot-dropped-at-first") && slot.state.get() == State::Orphan {
            core.finish_now(slot, 0, on);
        }
    }

    /// ioxide #244: only a mutant does this.
    #[cold]
    fn fail_sends(&self, core: &Core, fd: u32) {
        for slot in (0..core.arena.used()).filter_map(|index| core.arena.get(index)) {
            let in_flight = slot.state.get() == State::Busy && !slot.has(bits::LINKED);
            if in_flight && slot.kind.get() == Kind::Send && slot.fd.get() == fd {
                core.finish_later(slot, -libc::EPIPE);
            }
        }
    }

    fn dispatch_accept_multi(&self, core: &Core, slot: &Slot, cqe: Cqe, on: &mut dyn OnCompletion) {
        let ended = cqe.res < 0;
        if !ended {
            core.counters().accepts.add(1);
            // SAFETY: the kernel has just made it for this operation.
            core.yielded(slot, Item::Connection(unsafe { own(cqe.res) }), on);
        }
        if !cqe.more() {
            self.end_or_rearm(core, cqe, ended, on);
        } else if mutant!("multishot-dropped-at-first") && slot.state.get() == State::Orphan {
            core.finish_now(slot, 0, on);
        }
    }

    /// The kernel has let go of a multishot operation: because that has ended, or because there was no
    /// room to go on. Whoever was told of its last item may have cancelled or abandoned it, but the slot
    /// stays in flight until this.
    fn end_or_rearm(&self, core: &Core, cqe: Cqe, ended: bool, on: &mut dyn OnCompletion) {
        let Some(slot) = core.in_flight(cqe.user_data) else { return };
        if ended {
            return core.finish_now(slot, cqe.res.min(0), on);
        }
        if may_restart(core, slot) {
            if !mutant!("multishot-not-rearmed") {
                self.restart(core, slot);
            }
        } else {
            core.finish_now(slot, -errno::ECANCELED, on);
        }
    }
}

/// Counts what has been taken from the completion queue and gives it back to the kernel, also where a
/// callback panics.
struct Reaping<'a> {
    ring: &'a Ring,
    core: &'a Core,
    before: u32,
}

impl<'a> Reaping<'a> {
    #[inline(always)]
    fn begin(ring: &'a Ring, core: &'a Core) -> Reaping<'a> {
        Reaping { ring, core, before: ring.look() }
    }
}

impl Drop for Reaping<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let taken = self.ring.publish().wrapping_sub(self.before);
        self.core.counters().completions.add(u64::from(taken));
    }
}

/// True for results that are not the end of this operation.
#[cold]
fn try_again(kind: Kind, result: i32) -> bool {
    match -result {
        errno::EINTR if mutant!("interrupted-is-the-end") => false,
        errno::EAGAIN if mutant!("again-is-the-end") => false,
        errno::ENOBUFS if mutant!("ioxide-93") => false,
        errno::EINTR => !matches!(kind, Kind::Connect | Kind::Shutdown | Kind::Close),
        errno::EAGAIN => !matches!(
            kind,
            Kind::ReadAt | Kind::WriteAt | Kind::Sync | Kind::Shutdown | Kind::Close
        ),
        errno::ENOBUFS => matches!(kind, Kind::RecvPooled | Kind::RecvMulti),
        _ => false,
    }
}

fn sends(kind: Kind) -> bool {
    matches!(kind, Kind::Send | Kind::SendVectored | Kind::SendMsg | Kind::Connect)
}

fn may_restart(core: &Core, slot: &Slot) -> bool {
    slot.state.get() == State::Busy
        && !slot.has(bits::CANCELLED)
        && core.entry_of(slot).is_some_and(|entry| !entry.has(flags::CLOSING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_ends_only_what_must_not_be_done_twice() {
        for kind in Kind::ALL {
            let once = matches!(kind, Kind::Connect | Kind::Shutdown | Kind::Close);
            assert_eq!(try_again(kind, -errno::EINTR), !once, "{kind:?}");
        }
    }

    #[test]
    fn only_receives_without_a_buffer_wait_for_one_and_only_sockets_are_polled() {
        for kind in Kind::ALL {
            let pooled = matches!(kind, Kind::RecvPooled | Kind::RecvMulti);
            assert_eq!(try_again(kind, -errno::ENOBUFS), pooled, "{kind:?}");
            assert!(!try_again(kind, -errno::ECANCELED) && !try_again(kind, -libc::ECONNRESET));
        }
        assert!(
            try_again(Kind::Accept, -errno::EAGAIN) && try_again(Kind::Connect, -errno::EAGAIN)
        );
        assert!(
            !try_again(Kind::ReadAt, -errno::EAGAIN) && !try_again(Kind::Close, -errno::EAGAIN)
        );
    }
}
