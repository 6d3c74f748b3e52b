//! The open seam: an operation that Pelton has never heard of, in the driver's own slots.
//!
//! # Why it exists
//!
//! The list of operations ([`Op`]) is closed, so that every backend answers every one of them. A kernel has more
//! calls than any list. Through the seam a program brings its own: the driver gives it a place that stands still
//! ([`Driver::prepare`]), a name, a completion, a cancel and an orderly end; the program says what is to be called.
//!
//! # The protocol
//!
//! ```text
//!            submit_entry   (io_uring: a submission entry)
//! prepare ─▶ submit_when    (anywhere: a closure, and the readiness to wait for)      ─▶ Key ─▶ take, abandon
//!            in_call        (IOCP: the native call, then `submitted` or `abandoned`)
//!         └▶ abandon        (nothing was called: the memory comes back)
//! ```
//!
//! - **prepared**: a slot holds the memory, which has its final address. The kernel knows nothing of it. It ends
//!   with exactly one of the above, each of which consumes the [`Prepared`]: submitting twice, submitting what was
//!   abandoned and awaiting what was never submitted do not compile. One that is dropped is abandoned.
//! - **submitted**: the key is the right to the outcome, as for every other operation. The memory is the kernel's
//!   until the last completion. There is *one* completion for one submission, told of by a tick with the token,
//!   among all others and in their order. What would make it more or less (chained entries, entries that say
//!   nothing of success, multishot) is refused where it can be seen, and forbidden where it cannot.
//! - **completed**: [`Driver::take`] gives the result and the memory back, and the key is gone. Errors are values,
//!   and nothing is interpreted: a success of 0 is a success of 0.
//!
//! Cancelling ([`Driver::cancel`], [`Driver::close`], dropping the driver) frees nothing. It asks, and the operation
//! ends with its last completion, with `ECANCELED` or with what it did. [`Driver::finish`] waits with a limit: it
//! cancels when that is over, and still waits for the completion. What does not end in time when the driver goes
//! is left behind, memory and all, and counted ([`Counters::leaked`](crate::Counters::leaked)).
//!
//! # Which form
//!
//! The closure works on every backend, and is the one to write first: it is called when the descriptor is ready,
//! until it says something else than "would block". [`Driver::seam`] says which other form the backend has. A form
//! that it has not is refused with a typed error, and the memory comes back.
//!
//! A descriptor is [attached](Driver::attach), and the driver's from then on, or only
//! [associated](Driver::associate): then it stays the user's, and the driver never closes it. An operation on one
//! that is neither is refused when it is prepared, where it would otherwise hang for ever.
//!
//! An operation of one's own costs two allocations; those of the list cost none.

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::time::Duration;

use crate::core::{Completion, Core};
use crate::descriptor::{Entry, Fd, flags};
use crate::driver::{Driver, Refused};
use crate::op::{Form, Interest, Kind, Op};
use crate::payload::{Memory, Own, OwnBody, OwnHead, Payload};
use crate::slot::{Key, NIL, OpId, Slot, State, Token, bits, plain};
use crate::sys::{BorrowedDescriptor, RawDescriptor, borrow_descriptor, errno};

/// The form of an operation of one's own that a backend has beside the closure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Seam {
    /// A submission entry: [`Prepared::submit_entry`].
    Ring,
    /// None: readiness is all there is.
    Readiness,
    /// An overlapped call: [`Prepared::in_call`].
    Overlapped,
}

/// A submission entry of io_uring, with the fields of `struct io_uring_sqe` and their names where those are not
/// many. Zeros say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)] // The kernel says what they are.
pub struct RawEntry {
    pub opcode: u8,
    /// Only `IOSQE_ASYNC` (16) is allowed: the others would touch other operations, or this one's completion.
    pub flags: u8,
    pub ioprio: u16,
    /// Ignored where the operation was prepared for a descriptor of the driver's.
    pub fd: i32,
    pub off: u64,
    pub addr: u64,
    pub len: u32,
    /// `rw_flags`, `msg_flags`, `splice_flags` and so on.
    pub op_flags: u32,
    /// The driver's: whatever is here is replaced.
    pub user_data: u64,
    /// `buf_index` or `buf_group`.
    pub buf_index: u16,
    pub personality: u16,
    /// `splice_fd_in`, `file_index` and so on.
    pub file_index: u32,
    pub addr3: u64,
    pub pad: u64,
}

const _: () = assert!(size_of::<RawEntry>() == 64);

impl RawEntry {
    /// An entry that another crate has written, such as `io_uring::squeue::Entry`: 64 bytes in the kernel's order.
    pub fn from_bytes(bytes: [u8; 64]) -> RawEntry {
        // SAFETY: an entry is 64 bytes of plain numbers without padding.
        unsafe { std::mem::transmute(bytes) }
    }

    /// Refuses what would break the driver, as far as it can be seen.
    fn check(&self) -> io::Result<()> {
        const ASYNC: u8 = 1 << 4;
        // What removes, changes or forges operations and buffers of the driver's, or closes descriptors under it:
        // POLL_REMOVE, TIMEOUT_REMOVE, ASYNC_CANCEL, LINK_TIMEOUT, CLOSE, FILES_UPDATE, PROVIDE_BUFFERS,
        // REMOVE_BUFFERS, MSG_RING, FIXED_FD_INSTALL.
        const KEPT: [u8; 10] = [7, 12, 14, 15, 19, 20, 31, 32, 40, 54];
        let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if self.flags & !ASYNC != 0 {
            return invalid(
                "an entry of one's own has no flag but `IOSQE_ASYNC`: others concern other operations, or the \
                 driver's buffers, or suppress the completion",
            );
        }
        if KEPT.contains(&self.opcode) {
            return invalid(
                "operations on operations, on the ring's own tables and on its buffers are the driver's: use \
                 `Driver::cancel`, `Driver::close` and timeouts of the driver's",
            );
        }
        let multishot = match self.opcode {
            6 => self.len & 1 != 0,              // POLL_ADD
            10 | 27 => self.ioprio & 2 != 0,     // RECVMSG, RECV
            11 => self.op_flags & (1 << 6) != 0, // TIMEOUT
            13 => self.ioprio & 1 != 0,          // ACCEPT
            49 => true,                          // READ_MULTISHOT
            _ => false,
        };
        if multishot {
            return invalid(
                "an entry of one's own completes once: make it one-shot and submit it again",
            );
        }
        Ok(())
    }
}

/// What the closure of [`Prepared::submit_when`] is called with: the descriptor, which is ready.
#[derive(Clone, Copy)]
pub struct Ready<'a> {
    raw: RawDescriptor,
    open: PhantomData<BorrowedDescriptor<'a>>,
}

impl Ready<'_> {
    /// The system's descriptor, which is open during the call.
    ///
    /// # Errors
    /// `Unsupported`: it is one of a simulated system, which the real one does not know.
    pub fn descriptor(&self) -> io::Result<BorrowedDescriptor<'_>> {
        if crate::sys::calls::is_simulated(self.raw) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the descriptor is one of a simulated system: `recv` and `send` work on it",
            ));
        }
        // SAFETY: an operation that is in flight keeps its descriptor open, and this one is.
        Ok(unsafe { borrow_descriptor(self.raw) })
    }

    /// Receives from a socket without waiting, on a simulated system too.
    ///
    /// # Errors
    /// `WouldBlock`, or what the socket failed with.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        number(crate::sys::recv_now(self.raw, buf))
    }

    /// Sends over a socket without waiting, on a simulated system too.
    ///
    /// # Errors
    /// `WouldBlock`, or what the socket failed with.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        number(crate::sys::send_now(self.raw, bytes))
    }
}

impl fmt::Debug for Ready<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ready").field(&self.raw).finish()
    }
}

fn number(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

impl Driver {
    /// Which form of an operation of one's own the backend has beside the closure.
    pub fn seam(&self) -> Seam {
        self.room().seam()
    }

    /// Lets operations work on a descriptor that stays the user's: the driver never closes it. It may be made not
    /// to block. [`Driver::close`] ends what is in flight on it, and the association; on Windows the latter only as
    /// [`Driver::detach`] says.
    ///
    /// # Errors
    /// As for [`Driver::attach`].
    ///
    /// # Safety
    /// It stays open until the association has ended (a [`close`](crate::Submission::close) has completed), or the
    /// driver is gone and has left nothing behind.
    pub unsafe fn associate(&self, raw: RawDescriptor) -> io::Result<Fd> {
        self.associate_raw(raw)
    }

    /// Prepares an operation of one's own, on a descriptor of the driver's or on none, with the memory that it is
    /// going to use: it stands still from now on.
    ///
    /// # Errors
    /// `EBADF`: the driver has no such descriptor, and a call on it would never complete here. Or there are too
    /// many operations (`max_operations`). The memory comes back.
    ///
    /// ```
    /// use pelton_driver::{Config, Driver, Interest, Token};
    /// let driver = Driver::new(Config::default())?;
    /// let (one, other) = driver.stream_pair()?;
    /// driver.try_send_to(other, b"hello", None)?;
    ///
    /// let prepared = driver.prepare(Some(one), Vec::new()).map_err(|refused| refused.error)?;
    /// let key = prepared.submit_when(Token::NONE, Interest::Readable, |bytes: &mut Vec<u8>, ready| {
    ///     let mut part = [0; 16];
    ///     let n = ready.recv(&mut part)?;
    ///     bytes.extend_from_slice(&part[..n]);
    ///     Ok(n)
    /// });
    /// let (n, bytes) = driver.finish(key.map_err(|refused| refused.error)?, None, |_| {})?;
    /// assert_eq!((n?, &bytes[..]), (5, &b"hello"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// What was submitted is not submitted again, and not abandoned either:
    ///
    /// ```compile_fail,E0382
    /// # use pelton_driver::{Driver, Fd, Interest, Token};
    /// # fn twice(driver: &Driver, fd: Fd) {
    /// let prepared = driver.prepare(Some(fd), ()).unwrap();
    /// let one = prepared.submit_when(Token::NONE, Interest::Readable, |_, _| Ok(0));
    /// let two = prepared.submit_when(Token::NONE, Interest::Readable, |_, _| Ok(0));
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0382
    /// # use pelton_driver::{Driver, Fd, Interest, Token};
    /// # fn both(driver: &Driver, fd: Fd) {
    /// let prepared = driver.prepare(Some(fd), ()).unwrap();
    /// let key = prepared.submit_when(Token::NONE, Interest::Readable, |_, _| Ok(0));
    /// prepared.abandon();
    /// # }
    /// ```
    ///
    /// Nobody awaits what was not submitted, or what has been taken:
    ///
    /// ```compile_fail,E0308
    /// # use pelton_driver::{Driver, Fd};
    /// # fn early(driver: &Driver, fd: Fd) {
    /// let prepared = driver.prepare(Some(fd), ()).unwrap();
    /// driver.take(prepared);
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0382
    /// # use pelton_driver::{Driver, Fd, Interest, Token};
    /// # fn again(driver: &Driver, fd: Fd) {
    /// let prepared = driver.prepare(Some(fd), ()).unwrap();
    /// let key = prepared.submit_when(Token::NONE, Interest::Readable, |_, _| Ok(0)).unwrap();
    /// let outcome = driver.finish(key, None, |_| {});
    /// driver.take(key);
    /// # }
    /// ```
    ///
    /// And it does not leave its thread:
    ///
    /// ```compile_fail,E0277
    /// # use pelton_driver::{Driver, Fd};
    /// # fn elsewhere(driver: &Driver, fd: Fd) {
    /// let prepared = driver.prepare(Some(fd), ()).unwrap();
    /// std::thread::scope(|scope| scope.spawn(move || prepared.abandon()).join());
    /// # }
    /// ```
    pub fn prepare<T: 'static>(
        &self,
        fd: Option<Fd>,
        memory: T,
    ) -> Result<Prepared<'_, T>, Refused<Own<T>>> {
        let core = self.core();
        let mut entry = None;
        if let Some(fd) = fd {
            let Some(found) = core.fds.find(fd) else {
                let error = io::Error::from_raw_os_error(errno::EBADF);
                return Err(Refused { error, payload: Own(memory) });
            };
            entry = Some((fd, found));
        }
        let Some(slot) = core.arena.claim(Kind::Own, bits::ASKED, std::ptr::null_mut()) else {
            return Err(Refused { error: too_many(), payload: Own(memory) });
        };
        // It counts as being asked for until it is submitted: whoever cancels it meanwhile, one by one or with its
        // descriptor, only notes that.
        OwnBody::put(slot, memory);
        if let Some((fd, entry)) = entry {
            entry.hold();
            slot.fd.set(fd.index);
        }
        Ok(Prepared { driver: self, slot, fd, memory: PhantomData })
    }

    /// Ticks until an operation has ended, and takes its outcome; `on` is told of the other completions meanwhile.
    /// When the limit is over the operation is cancelled, and its end awaited still: then the outcome is
    /// `ECANCELED`, or what it did after all.
    ///
    /// # Errors
    /// The system refused a wait. Or `TimedOut`: the kernel has not let go of a cancelled operation within
    /// [`Config::shutdown_timeout`](crate::Config::shutdown_timeout); it has been abandoned, and what it owns stays
    /// in the driver. Or the key is another driver's. Or `Deadlock`: it was called from inside of a tick, before the
    /// operation had ended, which has been abandoned. In any case the key is gone.
    pub fn finish<P: Payload>(
        &self,
        key: Key<P>,
        limit: Option<Duration>,
        mut on: impl FnMut(Completion),
    ) -> io::Result<P::Output> {
        if !self.owns(&key) {
            let what = "the operation is another driver's: finish it there";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let id = key.id();
        let mut others = |completion: Completion| {
            if completion.id != id {
                on(completion);
            }
        };
        let mut deadline = limit.and_then(|limit| self.now().checked_add(limit));
        let mut cancelled = false;
        while !self.is_done(&key) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(self.now()));
            if left == Some(Duration::ZERO) {
                if cancelled {
                    self.abandon(key);
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the kernel does not let go of the operation: it has been abandoned",
                    ));
                }
                cancelled = true;
                self.cancel(key.id());
                deadline = self.now().checked_add(self.shutdown_timeout());
                continue;
            }
            if let Err(error) = self.tick(left, &mut others) {
                self.abandon(key);
                return Err(error);
            }
        }
        self.take(key).map_err(|_| io::ErrorKind::Other.into())
    }
}

/// An operation of one's own that has been prepared, and of which the kernel knows nothing yet.
#[must_use = "submit it or abandon it: when it is dropped it is abandoned"]
pub struct Prepared<'d, T: 'static> {
    driver: &'d Driver,
    slot: &'d Slot,
    fd: Option<Fd>,
    memory: PhantomData<T>,
}

impl<'d, T: 'static> Prepared<'d, T> {
    /// The memory, which nobody else can reach yet.
    pub fn memory(&mut self) -> &mut T {
        // SAFETY: the slot holds it since `prepare`, and this is the only way to it until it is submitted.
        unsafe { &mut (*OwnBody::<T>::of(self.slot)).memory }
    }

    /// Gives the operation up before anything was called. The memory comes back.
    pub fn abandon(self) -> T {
        ManuallyDrop::new(self).withdraw()
    }

    /// Submits it as an entry of io_uring, which `fill` writes, given the memory at its final place.
    ///
    /// # Errors
    /// `Unsupported`: this backend has no ring. `InvalidInput`: the entry has flags or an opcode that it must not
    /// have. `EBADF`: the descriptor has been closed since. `ECANCELED`: it was cancelled since. The memory comes
    /// back. What the kernel says is no error of this call, but the operation's outcome.
    ///
    /// # Safety
    /// - All memory that the entry names lies in what `fill` was given, or in what that owns exclusively, or lives
    ///   for ever; and it may be used so: nothing but the kernel touches it until the operation has ended.
    /// - Descriptors that the entry names by number, beside the one that it was prepared for, stay open until the
    ///   operation has ended.
    /// - It completes once, not counting the notice of a zero-copy send. So it is not multishot.
    /// - It does to the process nothing that the caller may not do. A descriptor that it yields is a plain number
    ///   to the driver, and the caller's to own, also where the operation was abandoned meanwhile.
    pub unsafe fn submit_entry(
        self,
        token: Token,
        fill: impl FnOnce(&mut T, &mut RawEntry),
    ) -> Result<Key<Own<T>>, Refused<Own<T>>> {
        if self.driver.seam() != Seam::Ring {
            return Err(self.refuse(unsupported(
                "submission entries are io_uring's: use the closure, `Prepared::submit_when`",
            )));
        }
        let mut entry = RawEntry { fd: -1, ..RawEntry::default() };
        let mut this = self;
        fill(this.memory(), &mut entry);
        if let Err(error) = entry.check() {
            return Err(this.refuse(error));
        }
        // SAFETY: the slot holds a body since `prepare`, and the kernel knows nothing of it.
        unsafe { (*OwnBody::<T>::of(this.slot)).head.entry = entry };
        this.submit(token, Form::Entry)
    }

    /// Submits it as a closure: called with the memory when the descriptor is ready, once or as often as it says
    /// `WouldBlock`. Anything else is the outcome. It must say `WouldBlock` only where the system did: on some
    /// backends the next call comes with the next edge. It may be called where the descriptor is not ready.
    ///
    /// Where the descriptor may be ready it is called inside of this call; its end is told of by a tick in any case.
    ///
    /// Cancelled: it is not called any more. A panic in it goes to whoever ticks, and ends the operation.
    ///
    /// # Errors
    /// `InvalidInput`: it was prepared for no descriptor. `EBADF`: the descriptor has been closed since.
    /// `ECANCELED`: it was cancelled since. The memory comes back.
    pub fn submit_when(
        self,
        token: Token,
        interest: Interest,
        attempt: impl FnMut(&mut T, &Ready<'_>) -> io::Result<usize> + 'static,
    ) -> Result<Key<Own<T>>, Refused<Own<T>>> {
        if self.fd.is_none() {
            let what = "readiness is of a descriptor: prepare the operation for one";
            return Err(self.refuse(io::Error::new(io::ErrorKind::InvalidInput, what)));
        }
        // SAFETY: as in `submit_entry`. There was no closure before, so that nobody's code runs.
        unsafe { (*OwnBody::<T>::of(self.slot)).attempt = Some(Box::new(attempt)) };
        self.submit(token, Form::Ready(interest))
    }

    /// Goes on to make an overlapped call by oneself (IOCP). The descriptor is associated with the driver's port from
    /// then on, for good; one of the user's own must post a packet for every success
    /// (no `FILE_SKIP_COMPLETION_PORT_ON_SUCCESS`).
    ///
    /// # Errors
    /// `Unsupported`: this backend has no such calls. `InvalidInput`: it was prepared for no descriptor, or for one
    /// that was not opened for overlapped calls, or whose packets go elsewhere. The memory comes back.
    pub fn in_call(self) -> Result<InCall<'d, T>, Refused<Own<T>>> {
        match self.driver.room().overlapped(self.driver.core(), self.slot) {
            Ok(overlapped) => Ok(InCall { prepared: ManuallyDrop::new(self), overlapped }),
            Err(error) => Err(self.refuse(error)),
        }
    }

    fn refuse(self, error: io::Error) -> Refused<Own<T>> {
        Refused { error, payload: Own(self.abandon()) }
    }

    fn submit(self, token: Token, form: Form) -> Result<Key<Own<T>>, Refused<Own<T>>> {
        let (slot, core) = (self.slot, self.driver.core());
        let closing = core.entry_of(slot).is_some_and(|entry| entry.has(flags::CLOSING));
        if closing || slot.has(bits::CANCELLED) {
            let error = if closing { errno::EBADF } else { errno::ECANCELED };
            return Err(self.refuse(io::Error::from_raw_os_error(error)));
        }
        Ok(self.begin(token, form))
    }

    /// From here on the slot is an operation like any other.
    fn begin(self, token: Token, form: Form) -> Key<Own<T>> {
        let (driver, slot, fd) = (self.driver, self.slot, self.fd);
        let core = driver.core();
        std::mem::forget(self);
        let bits = if matches!(form, Form::Ready(_)) { READY } else { 0 };
        slot.set_standing(plain(Kind::Own, bits));
        slot.token.set(token.0);
        core.counters().started(Kind::Own);
        let id = core.arena.id(slot);
        let head = OwnBody::<T>::of(slot).cast::<u8>();
        let memory = Memory { ptr: head, len: size_of::<OwnHead>() };
        let nobody = Entry::nobody();
        let entry = core.entry_of(slot).unwrap_or(&nobody);
        // The closure may be called now, and panic: then nobody ever has the key.
        let unkeyed = Unkeyed(driver, Some(driver.key_for::<Own<T>>(id)));
        driver.room().start(core, slot, id, Op::Own { fd, form }, entry, memory);
        if slot.state.get() == State::Done {
            core.announce(slot);
        }
        unkeyed.key()
    }

    /// Takes everything back. The kernel knows nothing of it.
    fn withdraw(&self) -> T {
        let (core, slot) = (self.driver.core(), self.slot);
        if let Some(entry) = core.entry_of(slot) {
            if slot.has(bits::CANCELLED) {
                entry.cancelled.set(entry.cancelled.get() - 1);
            }
            if entry.let_go() {
                core.closable.push(slot.fd.get());
            }
            slot.fd.set(NIL);
        }
        let body = OwnBody::<T>::take(slot);
        core.arena.release(slot);
        self.driver.settle_now();
        body.memory
    }
}

impl<T: 'static> Drop for Prepared<'_, T> {
    fn drop(&mut self) {
        drop(self.withdraw());
    }
}

impl<T> fmt::Debug for Prepared<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("fd", &self.fd).finish_non_exhaustive()
    }
}

/// An overlapped call that is being made (IOCP): make it, and say how it began.
///
/// One that is dropped without a word may be in the kernel for all that anybody knows: its slot and its memory
/// stay until the driver goes, and are then left behind and counted.
#[must_use = "say `submitted` or `abandoned`: nobody else knows how the call began"]
pub struct InCall<'d, T: 'static> {
    prepared: ManuallyDrop<Prepared<'d, T>>,
    overlapped: NonNull<c_void>,
}

impl<T: 'static> InCall<'_, T> {
    /// The `OVERLAPPED` to make the call with, once. Zeroed but for what belongs to the driver.
    pub fn overlapped(&self) -> NonNull<c_void> {
        self.overlapped
    }

    /// Where the memory is. A pointer, because the kernel may be at it too.
    pub fn memory(&self) -> *mut T {
        // SAFETY: the slot holds a body since `prepare`; no reference is made.
        unsafe { &raw mut (*OwnBody::<T>::of(self.prepared.slot)).memory }
    }

    /// The call has succeeded (`at_once`) or is pending: it ends with a packet, or has ended where successes of the
    /// descriptor post none, which the driver knows.
    ///
    /// # Safety
    /// The call was made with this `OVERLAPPED`, on the descriptor that the operation was prepared for, and
    /// returned success, where `at_once` says so, or `ERROR_IO_PENDING`; and the memory that it was given is
    /// [`InCall::memory`]'s, or that owns it exclusively.
    pub unsafe fn submitted(self, token: Token, at_once: bool) -> Key<Own<T>> {
        let prepared = ManuallyDrop::into_inner(self.prepared);
        let (driver, slot) = (prepared.driver, prepared.slot);
        slot.progress.set(at_once.into());
        // A call that was made is in flight, whatever was asked meanwhile: it is cancelled as others are.
        let cancelled = slot.has(bits::CANCELLED);
        if let Some(entry) = driver.core().entry_of(slot).filter(|_| cancelled) {
            entry.cancelled.set(entry.cancelled.get() - 1);
        }
        let closing = |entry: &Entry| entry.has(flags::CLOSING);
        let unwanted = cancelled || driver.core().entry_of(slot).is_some_and(closing);
        let key = prepared.begin(token, Form::Overlapped);
        if unwanted {
            driver.cancel(key.id());
        }
        key
    }

    /// The call has failed at once: there will be no packet. The memory comes back.
    ///
    /// # Safety
    /// No call was made with this `OVERLAPPED`, or it failed with anything but `ERROR_IO_PENDING`.
    pub unsafe fn abandoned(self) -> T {
        ManuallyDrop::into_inner(self.prepared).abandon()
    }
}

impl<T> fmt::Debug for InCall<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InCall").field("overlapped", &self.overlapped).finish_non_exhaustive()
    }
}

/// An operation whose submitter does not have the key yet.
struct Unkeyed<'d, P: Payload>(&'d Driver, Option<Key<P>>);

impl<P: Payload> Unkeyed<'_, P> {
    fn key(mut self) -> Key<P> {
        self.1.take().expect("it is taken once")
    }
}

impl<P: Payload> Drop for Unkeyed<'_, P> {
    fn drop(&mut self) {
        if let Some(key) = self.1.take() {
            self.0.abandon(key);
        }
    }
}

/// On an operation of one's own: it is a closure.
pub(crate) const READY: u8 = bits::ALL;

/// Calls the closure of an operation whose descriptor may be ready. Returns its result, or `EAGAIN` where it is
/// to be called again.
pub(crate) fn attempt(core: &Core, slot: &Slot, raw: RawDescriptor) -> i32 {
    // User code: it may cancel or abandon this very operation, or close its descriptor, which is only noted.
    let (result, wanted) = core.asked(slot, || {
        let head = crate::payload::memory_again(slot).ptr.cast::<OwnHead>();
        // SAFETY: the slot of an operation of this kind holds a body, which begins with its head, and nobody else
        // reaches it while the slot is busy.
        unsafe { ((*head).call)(head, Ready { raw, open: PhantomData }) }
    });
    if result == -errno::EAGAIN && !wanted { core.cancelled(slot) } else { result }
}

/// The entry of an operation that was submitted as one.
///
/// # Safety
/// `memory` is what [`Prepared::submit`] gave the room.
pub(crate) unsafe fn entry_in(memory: Memory) -> RawEntry {
    // SAFETY: by the caller it is the head of a body, which its slot owns.
    unsafe { (*memory.ptr.cast::<OwnHead>()).entry }
}

#[cold]
fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

#[cold]
fn too_many() -> io::Error {
    io::Error::new(
        io::ErrorKind::QuotaExceeded,
        "too many operations are in flight: raise `max_operations`",
    )
}

impl<T> Key<Own<T>> {
    /// The name of the operation as the kernel carries it, for those who look at the kernel's traces.
    pub fn user_data(&self) -> u64 {
        OpId::user_data(self.id)
    }
}
