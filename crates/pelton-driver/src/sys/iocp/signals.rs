//! Operations that wait until a handle is signalled that is no socket: a process that has ended, an event, a timer.
//!
//! # Who posts what, and when
//!
//! The system has an object for this, a *wait packet*, which posts one packet to the port when its handle is
//! signalled, with the address of the operation's home. Its calls are in no import library, and are looked up when
//! they are first needed. Where there are none (before Windows 8, and in Wine) the process's own thread pool waits,
//! and its callback posts the same packet; one thread of it waits for 63 handles.
//!
//! A home is the kernel's from the beginning of the wait to its packet, or to a cancel that has found that there will
//! be none. That is the one thing that both ways must answer ([`Wait::cancel`]): the operation ends with the cancel
//! where no packet will come, and with the packet where it has been posted already, so that no packet ever comes for
//! a slot that is free.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use windows_sys::Win32::Foundation::{
    CloseHandle, GENERIC_ALL, HANDLE, INVALID_HANDLE_VALUE, NTSTATUS,
};
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_UNKNOWN, GetFileType};
use windows_sys::Win32::System::IO::{OVERLAPPED, PostQueuedCompletionStatus};
use windows_sys::Win32::System::Threading::{
    INFINITE, RegisterWaitForSingleObject, UnregisterWaitEx, WT_EXECUTEINWAITTHREAD,
    WT_EXECUTEONLYONCE,
};

use super::super::numbers as errno;
use super::super::windows::calls::system_error;
use super::super::windows::{KEY_ROOM, RawDescriptor};
use super::home::Home;
use super::lookup::{Found, NTDLL, find};
use super::stream::nowhere;
use super::{Iocp, file_error};
use crate::core::Core;
use crate::op::Interest;
use crate::slot::Slot;
use crate::sys::status::Status;

/// The waits that are under way, by the numbers of their slots.
#[derive(Default)]
pub(super) struct Signals {
    waits: RefCell<HashMap<u32, Wait>>,
    /// What stands in for the system's own calls, in a test.
    #[cfg(test)]
    played: Cell<Option<Calls>>,
}

impl Signals {
    fn calls(&self) -> Option<Calls> {
        #[cfg(test)]
        if let Some(played) = self.played.get() {
            return Some(played);
        }
        Calls::get()
    }

    /// The packet of a slot's wait has come.
    pub(super) fn over(&self, index: u32) {
        let wait = self.waits.borrow_mut().remove(&index);
        drop(wait);
    }
}

impl Iocp {
    /// Begins to wait for a handle.
    pub(super) fn await_signal(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        raw: RawDescriptor,
        interest: Interest,
    ) {
        if let Err(error) = self.begin_wait(core, slot, home, raw, interest) {
            home.take_back();
            let _ = core.finish(slot, -error);
        }
    }

    fn begin_wait(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        raw: RawDescriptor,
        interest: Interest,
    ) -> Result<(), i32> {
        // SAFETY: plain arguments; the slot keeps the handle open.
        let kind = unsafe { GetFileType(raw.handle()) };
        if kind != FILE_TYPE_UNKNOWN {
            // A file or a pipe is signalled by whatever operation on it has ended last, which says nothing.
            return Err(errno::ENOTSOCK);
        }
        if interest != Interest::Readable {
            return Err(errno::EINVAL);
        }
        let index = core.arena.index(slot);
        let place = home.give(slot.generation.get(), nowhere());
        let port = core.shared.wake.port();
        let wait = match self.signals.calls() {
            Some(calls) => Wait::by_packet(calls, port, raw.handle(), place)?,
            None => Wait::by_pool(port, raw.handle(), place)?,
        };
        core.counters().registrations.add(1);
        self.signals.waits.borrow_mut().insert(index, wait);
        Ok(())
    }

    /// Ends the wait of an operation: at once, or with the packet that is on its way.
    pub(super) fn cancel_signal(&self, core: &Core, slot: &Slot, home: &Home) {
        let index = core.arena.index(slot);
        let mut waits = self.signals.waits.borrow_mut();
        let Some(wait) = waits.get(&index) else { return };
        if wait.cancel() {
            waits.remove(&index);
            drop(waits);
            home.take_back();
            core.finish_later(slot, core.cancelled(slot));
        }
    }
}

/// One wait that is under way.
enum Wait {
    Packet {
        calls: Calls,
        packet: HANDLE,
    },
    Pool {
        /// Null when it has been unregistered.
        wait: Cell<HANDLE>,
        signal: Box<Signal>,
    },
}

/// What the thread pool's callback works on, at an address that stays.
struct Signal {
    port: HANDLE,
    place: *mut OVERLAPPED,
    state: AtomicU32,
}

/// The states of a [`Signal`].
const ARMED: u32 = 0;
const POSTED: u32 = 1;
/// The port had no memory for the packet: there will be none.
const LOST: u32 = 2;

impl Wait {
    fn by_packet(
        calls: Calls,
        port: HANDLE,
        handle: HANDLE,
        place: *mut OVERLAPPED,
    ) -> Result<Wait, i32> {
        let mut packet = std::ptr::null_mut();
        // SAFETY: room for the handle, and no name.
        let status = unsafe { (calls.create)(&mut packet, GENERIC_ALL, std::ptr::null()) };
        if status < 0 {
            return Err(file_error(Status(status as u32)));
        }
        // From here on it closes its handle.
        let wait = Wait::Packet { calls, packet };
        let key = std::ptr::without_provenance_mut(KEY_ROOM);
        let mut at_once = 0;
        // SAFETY: three handles that are open; the rest is plain numbers to the system, which gives them back in the
        // packet. A handle that is signalled already has its packet posted like any other.
        let status = unsafe {
            (calls.associate)(packet, port, handle, key, place.cast(), 0, 0, &mut at_once)
        };
        if status < 0 { Err(file_error(Status(status as u32))) } else { Ok(wait) }
    }

    fn by_pool(port: HANDLE, handle: HANDLE, place: *mut OVERLAPPED) -> Result<Wait, i32> {
        let signal = Box::new(Signal { port, place, state: AtomicU32::new(ARMED) });
        let context = (&raw const *signal).cast();
        let mut wait = std::ptr::null_mut();
        // SAFETY: the handle is open as long as the operation waits. The context stays until the callback has
        // posted, after which it looks at nothing, or the wait is unregistered (the drop of `Wait`).
        let registered = unsafe {
            RegisterWaitForSingleObject(
                &mut wait,
                handle,
                Some(signalled),
                context,
                INFINITE,
                WT_EXECUTEONLYONCE | WT_EXECUTEINWAITTHREAD,
            )
        };
        if registered == 0 {
            return Err(system_error());
        }
        Ok(Wait::Pool { wait: Cell::new(wait), signal })
    }

    /// Ends the wait, if its packet has not been posted. True where there will be no packet.
    fn cancel(&self) -> bool {
        match self {
            Wait::Packet { calls, packet } => {
                // One that is still in the port's queue is taken out of it, which is a success. Otherwise this
                // driver has taken it already, and it is in the batch that is being dispatched.
                // SAFETY: the packet's handle is open as long as this lives.
                unsafe { (calls.cancel)(*packet, 1) == 0 }
            }
            Wait::Pool { wait, signal } => {
                let wait = wait.replace(std::ptr::null_mut());
                if !wait.is_null() {
                    // SAFETY: it is registered, and this is not its callback, which has returned or will never run
                    // when this returns.
                    unsafe { UnregisterWaitEx(wait, INVALID_HANDLE_VALUE) };
                }
                signal.state.load(Ordering::Acquire) != POSTED
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        match self {
            Wait::Packet { calls, packet } => {
                // SAFETY: it is this wait's own. Its packet has come, or never will.
                unsafe {
                    (calls.cancel)(*packet, 1);
                    CloseHandle(*packet);
                }
            }
            Wait::Pool { wait, signal } => {
                let posted = signal.state.load(Ordering::Acquire) == POSTED;
                // A callback that has posted may be returning still, and needs nothing of this any more. Otherwise
                // it may be about to run, and the context must outlive it.
                let until = if posted { std::ptr::null_mut() } else { INVALID_HANDLE_VALUE };
                if !wait.get().is_null() {
                    // SAFETY: it is registered, and this is not its callback.
                    unsafe { UnregisterWaitEx(wait.get(), until) };
                }
            }
        }
    }
}

/// A thread of the process's pool finds a handle signalled.
unsafe extern "system" fn signalled(context: *mut c_void, _timed_out: bool) {
    let context = context.cast::<Signal>();
    // SAFETY: the context of a wait that is registered, which stays until this has posted or returned. The port is
    // open as long, because the driver's end cancels the operation first.
    unsafe {
        let (port, place) = ((*context).port, (*context).place);
        // Before the packet, behind which the context may go.
        (*context).state.store(POSTED, Ordering::Release);
        if PostQueuedCompletionStatus(port, 0, KEY_ROOM, place) == 0 {
            (*context).state.store(LOST, Ordering::Release);
        }
    }
}

type Create = unsafe extern "system" fn(*mut HANDLE, u32, *const c_void) -> NTSTATUS;
type Associate = unsafe extern "system" fn(
    HANDLE,
    HANDLE,
    HANDLE,
    *mut c_void,
    *mut c_void,
    NTSTATUS,
    usize,
    *mut u8,
) -> NTSTATUS;
type Cancel = unsafe extern "system" fn(HANDLE, u8) -> NTSTATUS;

/// The calls of wait packets.
#[derive(Clone, Copy)]
struct Calls {
    create: Create,
    associate: Associate,
    cancel: Cancel,
}

impl Calls {
    fn get() -> Option<Calls> {
        static FOUND: OnceLock<Option<Calls>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let create = find(NTDLL, c"NtCreateWaitCompletionPacket")?;
            let associate = find(NTDLL, c"NtAssociateWaitCompletionPacket")?;
            let cancel = find(NTDLL, c"NtCancelWaitCompletionPacket")?;
            // SAFETY: the functions are documented to be of these types.
            unsafe {
                Some(Calls {
                    create: std::mem::transmute::<Found, Create>(create),
                    associate: std::mem::transmute::<Found, Associate>(associate),
                    cancel: std::mem::transmute::<Found, Cancel>(cancel),
                })
            }
        })
    }
}

#[cfg(test)]
mod tests;
