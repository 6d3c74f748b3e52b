//! Accepting: sockets that wait in the kernel for a connection each, several of them ahead.
//!
//! Each accept has a record of its own: the `OVERLAPPED`, a fresh socket, and room for both addresses. The
//! record belongs to the operation that posted it, whose slot counts how many it has in the kernel and does not
//! end before the last of their packets.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::net::SocketAddr;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Networking::WinSock::{
    SO_UPDATE_ACCEPT_CONTEXT, SOCKADDR_STORAGE, SOL_SOCKET,
};
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::super::numbers as errno;
use super::super::status::{Began, Status};
use super::super::windows::calls::socket_error;
use super::super::windows::{RawDescriptor, RawSocket, own, socket_address};
use super::extension::Extensions;
use super::owed::Owed;
use super::region::{FromZero, Region};
use super::sharing::Signal;
use super::win32::{fresh_socket, setsockopt};
use crate::slot::NIL;
use crate::sys::OwnedDescriptor;

/// How many a multishot accept keeps in the kernel.
pub(super) const AHEAD: u32 = 8;

/// What the system wants for an address: 16 bytes more than it has.
const ADDRESS: usize = size_of::<SOCKADDR_STORAGE>() + 16;

/// One accept.
#[repr(C)]
pub(super) struct Ahead {
    overlapped: UnsafeCell<OVERLAPPED>,
    in_kernel: Cell<bool>,
    has_socket: Cell<bool>,
    /// The socket for the connection.
    socket: Cell<RawSocket>,
    /// The slot of the operation.
    pub(super) slot: Cell<u32>,
    pub(super) generation: Cell<u32>,
    /// The next one of the operation, or of the free ones.
    pub(super) next: Cell<u32>,
    /// The port to tell, where the listener's packets do not go there by themselves.
    port: Cell<HANDLE>,
    /// Where it is noted that the port could not be told.
    owed: Cell<*const Owed>,
    /// What tells it then.
    signal: UnsafeCell<Option<Box<Signal>>>,
    addresses: UnsafeCell<MaybeUninit<[u8; 2 * ADDRESS]>>,
}

const _: () = assert!(std::mem::offset_of!(Ahead, overlapped) == 0);

// SAFETY: numbers, and booleans that are false; no box, which is a pointer that is null. Whoever drops the records
// sees to the boxes.
unsafe impl FromZero for Ahead {}

impl Ahead {
    pub(super) fn overlapped(&self) -> *const OVERLAPPED {
        self.overlapped.get()
    }

    /// Which port is told. Read by the thread that tells it, while the record is not changed.
    #[cfg_attr(not(windows), allow(dead_code))]
    pub(super) fn port(&self) -> HANDLE {
        self.port.get()
    }

    #[cfg_attr(not(windows), allow(dead_code))]
    pub(super) fn owed(&self) -> *const Owed {
        self.owed.get()
    }

    /// How it ended whose packet has come.
    pub(super) fn ended(&self) -> Status {
        self.in_kernel.set(false);
        self.unwatch();
        // SAFETY: its packet has come: the kernel has written it for the last time.
        Status(unsafe { (*self.overlapped.get()).Internal } as u32)
    }

    /// Has the accept's end told to a port, by an event.
    fn watch(&self, port: HANDLE, owed: &Owed) -> Result<HANDLE, i32> {
        self.port.set(port);
        self.owed.set(owed);
        // SAFETY: one thread, and nothing below comes back here.
        let signal = unsafe { &mut *self.signal.get() };
        let signal = match signal {
            Some(signal) => signal,
            None => signal.insert(Box::new(Signal::new()?)),
        };
        signal.watch(self)?;
        Ok(signal.event())
    }

    fn unwatch(&self) {
        // SAFETY: as in `watch`.
        if let Some(signal) = unsafe { &mut *self.signal.get() } {
            signal.unwatch();
        }
    }

    /// Takes the socket out.
    pub(super) fn take_socket(&self) -> Option<OwnedDescriptor> {
        self.has_socket.replace(false).then(|| {
            // SAFETY: it was made for this record, which gives it up here.
            unsafe { own(RawDescriptor::Socket(self.socket.get())) }
        })
    }
}

/// The accepts of one driver.
pub(super) struct Aheads {
    records: Region<Ahead>,
    free: Cell<u32>,
    /// Those whose ends no packet tells of. In a box, because other threads have its address.
    pub(super) owed: Box<Owed>,
}

impl Aheads {
    pub(super) fn new(capacity: u32) -> Option<Aheads> {
        let owed = Box::default();
        Some(Aheads { records: Region::new(capacity)?, free: Cell::new(NIL), owed })
    }

    pub(super) fn get(&self, number: u32) -> Option<&Ahead> {
        self.records.get(number)
    }

    /// The accept that a packet is of.
    pub(super) fn find<P>(&self, pointer: *const P) -> Option<u32> {
        self.records
            .find(pointer)
            .filter(|number| self.get(*number).is_some_and(|ahead| ahead.in_kernel.get()))
    }

    /// A record with a fresh socket.
    pub(super) fn claim(&self, family: i32) -> Result<u32, i32> {
        let number = match self.records.get(self.free.get()) {
            Some(ahead) => self.free.replace(ahead.next.get()),
            None => self.records.used(),
        };
        let ahead = self.records.get_or_grow(number).ok_or(errno::ENOBUFS)?;
        if mutant!("iocp-accept-socket-reused") && ahead.has_socket.get() {
            return Ok(number);
        }
        match fresh_socket(family) {
            Ok(socket) => {
                ahead.socket.set(socket);
                ahead.has_socket.set(true);
                Ok(number)
            }
            Err(error) => {
                self.release(number);
                Err(error)
            }
        }
    }

    /// Gives a record back, with the socket that may still be in it: nothing of it is in the kernel.
    pub(super) fn release(&self, number: u32) {
        let Some(ahead) = self.get(number) else { return };
        debug_assert!(!ahead.in_kernel.get());
        if !mutant!("iocp-accept-socket-reused") {
            drop(ahead.take_socket());
        }
        ahead.slot.set(NIL);
        ahead.next.set(self.free.replace(number));
    }

    /// Gives the accept to the kernel. With a port to `tell`, the listener is associated with none, and the packet
    /// is posted there by a thread that waits for the accept's event.
    pub(super) fn post(
        &self,
        calls: &Extensions,
        listener: usize,
        ahead: &Ahead,
        tell: Option<HANDLE>,
        skips: bool,
    ) -> Began {
        let Some(accept) = calls.accept else { return Began::Failed(errno::ENOSYS) };
        debug_assert!(!ahead.in_kernel.get() && ahead.has_socket.get());
        let event = match tell.map(|port| ahead.watch(port, &self.owed)) {
            None => std::ptr::null_mut(),
            Some(Ok(event)) => event,
            Some(Err(error)) => return Began::Failed(error),
        };
        let overlapped = ahead.overlapped.get();
        let mut n = 0;
        // SAFETY: the record is not in the kernel, so all of it is ours; from here to its packet it is the
        // kernel's and is neither freed nor moved. Both sockets are open: the operation keeps the listener so,
        // and the record owns the other.
        let ok = unsafe {
            overlapped.write(OVERLAPPED { hEvent: event, ..OVERLAPPED::default() });
            accept(
                listener,
                ahead.socket.get() as usize,
                ahead.addresses.get().cast(),
                0,
                ADDRESS as u32,
                ADDRESS as u32,
                &mut n,
                overlapped,
            )
        } != 0;
        // A success that comes at once is told of too, by its packet or at the next tick.
        let began = Began::of(ok, if ok { 0 } else { socket_error() }, skips);
        match began {
            Began::Posts => ahead.in_kernel.set(true),
            Began::Ended => {
                ahead.in_kernel.set(true);
                self.owed.put(overlapped);
            }
            Began::Failed(_) => ahead.unwatch(),
        }
        began
    }

    /// Makes the accepted connection a socket like any other, and says who the peer is.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn connected(
        &self,
        calls: &Extensions,
        listener: usize,
        ahead: &Ahead,
    ) -> Result<Option<SocketAddr>, i32> {
        // First: before that the socket has no addresses, options or directions.
        let from = listener.to_ne_bytes();
        let (socket, len) = (ahead.socket.get() as usize, from.len() as i32);
        let failed = if mutant!("iocp-accept-context") {
            0
        } else {
            // SAFETY: both are open; the argument is the listener's number.
            unsafe { setsockopt(socket, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, from.as_ptr(), len) }
        };
        if failed != 0 {
            return Err(socket_error());
        }
        Ok(calls.addresses.and_then(|addresses| {
            let (mut local, mut peer) = (std::ptr::null_mut(), std::ptr::null_mut());
            let (mut local_len, mut peer_len) = (0, 0);
            // SAFETY: the accept has written the block, which has the sizes that it was told.
            unsafe {
                addresses(
                    ahead.addresses.get().cast(),
                    0,
                    ADDRESS as u32,
                    ADDRESS as u32,
                    &mut local,
                    &mut local_len,
                    &mut peer,
                    &mut peer_len,
                );
                if peer.is_null() { None } else { socket_address(peer.cast(), peer_len) }
            }
        }))
    }
}

impl Drop for Aheads {
    fn drop(&mut self) {
        for number in 0..self.records.used() {
            if let Some(ahead) = self.get(number) {
                // SAFETY: nothing of it is in the kernel, and nobody else looks at it any more.
                drop(unsafe { &mut *ahead.signal.get() }.take());
            }
        }
    }
}

/// True for an error of an accept that concerns the connection alone, which has gone before it was accepted.
pub(super) fn has_gone(error: i32) -> bool {
    matches!(error, errno::ECONNRESET | errno::ECONNABORTED | errno::ENOTCONN)
}
