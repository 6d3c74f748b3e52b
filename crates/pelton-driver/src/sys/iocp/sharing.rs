//! Listeners that several drivers share.
//!
//! Windows has no way for several sockets to listen on one address and share its connections, and a socket's
//! packets go to one port. So drivers of this process that want to share an address have duplicates of one socket
//! that is associated with no port. Each keeps an accept of its own in the kernel, which serves them in the order
//! in which they came: whoever is done with its last connection is next but one. An accept signals an event when
//! it ends, and a thread of the system's that waits for events posts its packet to the driver whose it is.

use std::cell::RefCell;
use std::ffi::c_void;
use std::time::Duration;

use windows_sys::Win32::Foundation::{CloseHandle, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::System::IO::PostQueuedCompletionStatus;
use windows_sys::Win32::System::Threading::{
    CreateEventW, INFINITE, RegisterWaitForSingleObject, UnregisterWaitEx, WT_EXECUTEINWAITTHREAD,
    WT_EXECUTEONLYONCE,
};

use super::Iocp;
use super::accept::Ahead;
use crate::descriptor::Entry;
use crate::sys::windows::calls::system_error;
use crate::sys::windows::socket::{Share, take_share};
use crate::sys::windows::{KEY_ROOM, RawDescriptor, raw_of};

/// What keeps each of a driver's shared listeners alive, by the number of its socket.
pub(super) type Shared = RefCell<Vec<(RawDescriptor, Share)>>;

/// How often a packet that the system refuses to post is tried again, a millisecond apart. Other accepts' packets wait
/// behind it, so it is not for ever.
const TRIES: u32 = if cfg!(test) { 3 } else { 10_000 };

impl Iocp {
    /// A listener has been made, and is in the table unless that was full.
    pub(crate) fn listens(&self, raw: RawDescriptor, is_kept: bool) {
        if let Some(share) = take_share(raw)
            && is_kept
        {
            self.shared.borrow_mut().push((raw, share));
        }
    }

    /// True for a listener that others share.
    pub(super) fn is_shared(&self, entry: &Entry) -> bool {
        entry.of_room.by_event.get()
            || self.shared.borrow().iter().any(|(raw, _)| *raw == raw_of(entry))
    }

    /// A descriptor goes.
    pub(super) fn unshare(&self, entry: &Entry) {
        let share = {
            let mut shared = self.shared.borrow_mut();
            let at = shared.iter().position(|(raw, _)| *raw == raw_of(entry));
            at.map(|at| shared.swap_remove(at))
        };
        drop(share);
    }
}

/// The event of an accept, and the wait for it.
pub(super) struct Signal {
    event: HANDLE,
    wait: HANDLE,
}

impl Signal {
    pub(super) fn new() -> Result<Signal, i32> {
        // SAFETY: an event of no name that is reset by whoever has waited for it.
        let event = unsafe { CreateEventW(std::ptr::null(), 0, 0, std::ptr::null()) };
        if event.is_null() {
            return Err(system_error());
        }
        Ok(Signal { event, wait: std::ptr::null_mut() })
    }

    /// What the kernel signals. With its lowest bit set, which says that no packet is to be posted, should the
    /// listener be associated with a port: that is another driver's.
    pub(super) fn event(&self) -> HANDLE {
        self.event.map_addr(|address| address | 1)
    }

    /// Has a packet posted when the event is signalled, for an accept that is in the kernel.
    ///
    /// # Errors
    /// The system refused. No packet comes.
    pub(super) fn watch(&mut self, ahead: &Ahead) -> Result<(), i32> {
        self.unwatch();
        let flags = WT_EXECUTEONLYONCE | WT_EXECUTEINWAITTHREAD;
        let about = std::ptr::from_ref(ahead).cast();
        // SAFETY: the record stays where it is and as it is until the packet has come that the callback posts.
        let watched = unsafe {
            RegisterWaitForSingleObject(
                &mut self.wait,
                self.event,
                Some(signalled),
                about,
                INFINITE,
                flags,
            )
        };
        if watched != 0 { Ok(()) } else { Err(system_error()) }
    }

    /// Lets go of a wait that is over, or that nothing will end.
    pub(super) fn unwatch(&mut self) {
        if !self.wait.is_null() {
            // SAFETY: ours. Its callback has posted its packet, which is why this is called, and at most has still
            // to return, which is not waited for; or nothing is in the kernel that could signal.
            unsafe { UnregisterWaitEx(self.wait, std::ptr::null_mut()) };
            self.wait = std::ptr::null_mut();
        }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        if !self.wait.is_null() {
            // The event must not go under a wait: this one is over, and ends in no time.
            // SAFETY: as above.
            unsafe { UnregisterWaitEx(self.wait, INVALID_HANDLE_VALUE) };
        }
        // SAFETY: ours, and nobody waits for it any more.
        unsafe { CloseHandle(self.event) };
    }
}

/// Runs on a thread of the system's when an accept has ended: posts its packet, and touches nothing after that.
unsafe extern "system" fn signalled(about: *mut c_void, _: bool) {
    // SAFETY: the record of an accept that is in the kernel, as far as its driver knows: it neither moves nor is
    // freed before the packet below has been dispatched.
    let (port, overlapped, owed) = unsafe {
        let ahead = &*about.cast::<Ahead>();
        (ahead.port(), ahead.overlapped(), ahead.owed())
    };
    for _ in 0..TRIES {
        #[cfg(test)]
        if tests::REFUSES.load(std::sync::atomic::Ordering::SeqCst) {
            continue;
        }
        // SAFETY: the port is open as long as the driver has an operation in flight, and this is one.
        if unsafe { PostQueuedCompletionStatus(port, 0, KEY_ROOM, overlapped) } != 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: the room's, which stays as long as it has an operation in flight, or is left behind whole.
    unsafe { &*owed }.put(overlapped);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::driver::ListenOptions;
    use crate::{Backend, Config, Driver, Submission, Token};

    /// Every post of an accept's packet is refused.
    pub(super) static REFUSES: AtomicBool = AtomicBool::new(false);

    #[test]
    fn an_accept_whose_packet_is_never_posted_comes_with_the_next_tick() {
        let config = || Config { backend: Backend::Iocp, ..Config::default() };
        let driver = Driver::new(config()).unwrap();
        let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let listener = driver.listen("127.0.0.1:0".parse().unwrap(), options).unwrap();
        let address = driver.local_addr(listener).unwrap();
        let key = driver.submit(Submission::accept(listener), Token::NONE).unwrap();
        REFUSES.store(true, Ordering::SeqCst);
        let _client = std::net::TcpStream::connect(address).unwrap();
        let give_up = std::time::Instant::now() + Duration::from_secs(20);
        while !driver.is_done(&key) && std::time::Instant::now() < give_up {
            driver.tick(Some(Duration::from_millis(10)), |_| {}).unwrap();
        }
        REFUSES.store(false, Ordering::SeqCst);
        assert!(driver.is_done(&key), "the connection is lost");
        assert!(driver.take(key).unwrap().is_ok());
    }
}
