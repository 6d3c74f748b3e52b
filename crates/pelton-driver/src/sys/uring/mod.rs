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
//! What completions lead to, and what is tried again, is in `reap.rs`.

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::Ticks;
use super::attempt::{interest_arg, poll_events, shutdown_arg};
use super::unix::{NO_DESCRIPTOR, RawDescriptor, errno, receive_flags};
use crate::config::{Config, Error};
use crate::core::{Core, OnCompletion};
use crate::descriptor::{Entry, flags};
use crate::op::{Form, Kind, Op};
use crate::payload::Memory;
use crate::seam;
use crate::slot::{NIL, OpId, Slot, bits};

pub(crate) mod bufring;
mod entry;
mod reap;
pub(crate) mod ring;
mod sendfile;
pub(crate) mod setup;
mod stage;

use bufring::BufRing;
use entry::Sqe;
use ring::{Ring, RingConfig, is_transient};

/// The group of the one pool: zero, so that an entry need not name it.
const GROUP: u16 = 0;
/// `user_data` of entries that belong to no slot: no slot has the number `NIL`.
const WAKE: u64 = internal(1);
const QUIET: u64 = internal(2);
/// From here on, by the place of its target: a cancel, which completes where it has not found that.
const CANCEL: u64 = 16;

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
            Op::SendFile { .. } => match self.send_file_entry(core, slot, raw) {
                Some(sqe) => self.push(core, sqe),
                None => core.finish_later(slot, -errno::ENOMEM),
            },
            Op::Read { .. } => {
                self.push(core, entry::read(raw, ptr, len as u32, entry::NOWHERE, user_data));
            }
            Op::Write { .. } => {
                slot.arg.set(len as u32);
                self.push(core, entry::write(raw, ptr, len as u32, entry::NOWHERE, user_data));
            }
            Op::ConnectPipe { .. } => core.finish_later(slot, -errno::EOPNOTSUPP),
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
            Kind::SendFile => return self.send_file_entry(core, slot, raw),
            Kind::Read => {
                let memory = core.memory_again(slot)?;
                entry::read(raw, memory.ptr, memory.len as u32, entry::NOWHERE, user_data)
            }
            Kind::Write => {
                let memory = core.memory_again(slot)?;
                let sent = (slot.progress.get() as usize).min(memory.len);
                let (ptr, left) = (memory.ptr.wrapping_add(sent), (memory.len - sent) as u32);
                entry::write(raw, ptr, left, entry::NOWHERE, user_data)
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
            | Kind::ConnectPipe
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
        let from = internal(CANCEL + u64::from(core.arena.index(slot)));
        self.push(core, entry::cancel(core.arena.id(slot).user_data(), from));
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
}

impl Ticks for Uring {
    #[inline(always)]
    fn has_work(&self) -> bool {
        self.ring.cq_ready() > 0
    }

    #[inline(always)]
    fn wait(&self, core: &Core, timeout: Option<Duration>) -> io::Result<()> {
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

    #[inline(always)]
    fn reap(&self, core: &Core, on: &mut impl OnCompletion) {
        self.reap_all(core, on);
    }
}
