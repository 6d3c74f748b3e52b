//! Which descriptors have their packets come to this driver's port.
//!
//! An association is for good, and belongs to what a handle names, not to the handle: a duplicate has it too. The
//! system says only that there is one, not with which port. So where it refuses a second one, it is looked up
//! whether the first was made here: in the table, for duplicates, and among what was given back.

use std::cell::RefCell;
use std::os::windows::io::BorrowedSocket;
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};

use super::{Iocp, errno, port};
use crate::core::Core;
use crate::descriptor::{Entry, flags};
use crate::sys::windows::{RawDescriptor, calls};

/// How many are remembered that were given back.
const MOST_REMEMBERED: usize = 1024;

/// What was given back: its number, its address where it has one, and whether successes post packets.
pub(super) type GivenBack = RefCell<Vec<(RawDescriptor, Option<socket2::SockAddr>, bool)>>;

impl Iocp {
    /// Has a descriptor's packets come here, from its first operation on.
    pub(super) fn associate(&self, core: &Core, entry: &Entry, may_skip: bool) -> Result<(), i32> {
        if entry.has(flags::REGISTERED) {
            return Ok(());
        }
        let raw = entry.raw.get();
        // Never on what came from the user, who may count on every packet.
        let may_skip = may_skip
            && !entry.has(flags::FOREIGN)
            && raw.socket().is_some()
            && self.extensions.are_handles;
        if entry.has(flags::STREAM) && !calls::is_stream(raw).unwrap_or(false) {
            // Its owner has said so and knew no better. A message that is longer than its buffer fails at once and
            // posts a packet too, or none: only what is received without a wait can be told of once.
            entry.unset(flags::STREAM);
        }
        core.counters().registrations.add(1);
        let skips = match port::associate(core.shared.wake.port(), raw.handle(), may_skip) {
            Ok(skips) => skips,
            Err(errno::EINVAL) => self.is_ours(core, raw).ok_or(errno::EINVAL)?,
            Err(error) => return Err(error),
        };
        entry.of_room.skips.set(skips);
        entry.set(flags::REGISTERED);
        Ok(())
    }

    /// Whether a descriptor is associated with this port already: then whether its successes skip their packets.
    #[cold]
    fn is_ours(&self, core: &Core, raw: RawDescriptor) -> Option<bool> {
        for at in 0..core.fds.len() {
            if let Some(other) = core.fds.get(at)
                && other.has(flags::OPEN)
                && other.has(flags::REGISTERED)
                && is_same(other.raw.get().handle(), raw.handle())
            {
                return Some(other.of_room.skips.get());
            }
        }
        let mut given_back = self.given_back.borrow_mut();
        let name = name_of(raw);
        // The number alone may be another's by now.
        let at = given_back.iter().position(|(old, known, _)| *old == raw && *known == name)?;
        Some(given_back.swap_remove(at).2)
    }

    /// Remembers a descriptor that the user takes back.
    pub(super) fn give_back(&self, entry: &Entry) {
        let raw = entry.raw.get();
        if entry.has(flags::REGISTERED) && !port::dissociate(raw.handle()) {
            let mut given_back = self.given_back.borrow_mut();
            given_back.retain(|(old, ..)| *old != raw);
            if given_back.len() == MOST_REMEMBERED {
                given_back.remove(0);
            }
            given_back.push((raw, name_of(raw), entry.of_room.skips.get()));
        }
    }
}

fn name_of(raw: RawDescriptor) -> Option<socket2::SockAddr> {
    let RawDescriptor::Socket(socket) = raw else { return None };
    // SAFETY: it is open, as its entry is, or just was, in the table.
    let socket = unsafe { BorrowedSocket::borrow_raw(socket) };
    socket2::SockRef::from(&socket).local_addr().ok()
}

/// True for two handles that name the same thing, where the system can tell (from Windows 10).
fn is_same(one: HANDLE, other: HANDLE) -> bool {
    type Compare = unsafe extern "system" fn(HANDLE, HANDLE) -> i32;
    static FOUND: OnceLock<Option<Compare>> = OnceLock::new();
    let compare = FOUND.get_or_init(|| {
        let name: Vec<u16> = "kernelbase.dll\0".encode_utf16().collect();
        // SAFETY: names that end; the library stays, and the function is documented to be of this type.
        unsafe {
            let library = GetModuleHandleW(name.as_ptr());
            if library.is_null() {
                return None;
            }
            let call = GetProcAddress(library, c"CompareObjectHandles".as_ptr().cast())?;
            Some(std::mem::transmute::<unsafe extern "system" fn() -> isize, Compare>(call))
        }
    });
    // SAFETY: both are open.
    compare.is_some_and(|compare| unsafe { compare(one, other) } != 0)
}
