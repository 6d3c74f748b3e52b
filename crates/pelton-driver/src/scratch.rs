//! What the kernel reads and writes beside the buffer: socket addresses, message headers and vectors of
//! buffers. They must stand still as long as the operation is in flight, so they live in blocks of the
//! driver's, which a slot names by number; the blocks are used again and never move.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ptr::NonNull;

use crate::message::{Control, Received};
use crate::sys::{
    AddressLength, AddressStorage, MessageEnd, MessageHeader, Part, message_end, message_header,
    name_message, socket_address,
};
use crate::unix_address::UnixAddr;

/// The most buffers that one vectored operation takes at once.
pub const MAX_PARTS: usize = 64;

/// The number that says "no block".
pub(crate) const NO_SCRATCH: u32 = 0;

/// One operation's block.
pub(crate) struct Block {
    pub(crate) address: UnsafeCell<MaybeUninit<AddressStorage>>,
    pub(crate) address_len: UnsafeCell<AddressLength>,
    header: UnsafeCell<MaybeUninit<MessageHeader>>,
    parts: UnsafeCell<[MaybeUninit<Part>; MAX_PARTS]>,
    /// Control messages of a datagram. Not the user's code: it may be dropped anywhere.
    control: UnsafeCell<Control>,
    len: Cell<usize>,
    skipped: Cell<usize>,
}

impl Block {
    fn reset(&self) {
        self.len.set(0);
        self.skipped.set(0);
        // SAFETY: nobody uses a block between its claim and its operation's start.
        unsafe { *self.address_len.get() = size_of::<AddressStorage>() as AddressLength };
    }

    /// Adds a buffer; those past [`MAX_PARTS`], and empty ones, are not needed.
    pub(crate) fn push_part(&self, ptr: *mut u8, len: usize) {
        let at = self.len.get();
        if at == MAX_PARTS {
            return;
        }
        // SAFETY: `at` is below the array's length; the operation that owns the block is being submitted,
        // so no kernel reads it yet.
        unsafe { (*self.parts.get())[at].write(crate::sys::part(ptr, len)) };
        self.len.set(at + 1);
    }

    pub(crate) fn parts(&self) -> usize {
        self.len.get()
    }

    /// Bytes of the part number `part` as it was given to the kernel.
    pub(crate) fn part_len(&self, part: usize) -> usize {
        assert!(part < self.len.get());
        // SAFETY: the parts below `len` have been written, and the kernel never writes to them.
        crate::sys::part_len(unsafe { (&*self.parts.get())[part].assume_init_ref() })
    }

    /// The parts as the kernel is given them.
    #[cfg(any(test, feature = "fake-kernel"))]
    pub(crate) fn all_parts(&self) -> Vec<Part> {
        // SAFETY: the parts below `len` have been written.
        let part = |at: usize| unsafe { *(&*self.parts.get())[at].assume_init_ref() };
        (0..self.parts()).map(part).collect()
    }

    pub(crate) fn bytes(&self) -> usize {
        (0..self.parts()).map(|part| self.part_len(part)).sum()
    }

    /// Bytes that [`Block::skip`] has taken off the front so far.
    pub(crate) fn skipped(&self) -> usize {
        self.skipped.get()
    }

    /// Takes `n` bytes that have been sent off the front of the parts. The kernel must not be looking.
    pub(crate) fn skip(&self, mut n: usize) {
        self.skipped.set(self.skipped.get() + n);
        let mut first = 0;
        while first < self.len.get() && self.part_len(first) <= n {
            n -= self.part_len(first);
            first += 1;
        }
        let parts = self.parts.get().cast::<Part>();
        let left = self.len.get() - first;
        // SAFETY: both ranges lie in the array, `copy` allows them to overlap, and the parts below `len`
        // have been written. No kernel reads them between two submissions.
        unsafe { std::ptr::copy(parts.add(first), parts, left) };
        self.len.set(left);
        if n > 0 && left > 0 {
            // SAFETY: the first part has been written and is longer than `n`.
            unsafe { crate::sys::part_skip(&mut *parts, n) };
        }
    }

    /// A header for the parts that are left.
    pub(crate) fn message(&self) -> *mut MessageHeader {
        // SAFETY: the block belongs to one operation, and no kernel reads its header between two
        // submissions.
        unsafe {
            let header = &mut *self.header.get();
            header.write(message_header(self.parts.get().cast(), self.len.get()))
        }
    }

    /// There is no address to send to.
    pub(crate) fn set_no_address(&self) {
        // SAFETY: the operation is being submitted: no kernel looks at the block yet.
        unsafe { *self.address_len.get() = 0 };
    }

    /// The address that the block was given, if it was given one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        // SAFETY: a length of 0 says that none was written; another one is that of what was.
        if unsafe { *self.address_len.get() } == 0 { None } else { self.peer() }
    }

    /// Keeps the control messages of an operation that is being submitted.
    pub(crate) fn set_control(&self, control: Control) {
        // SAFETY: no kernel looks at the block yet, and dropping what was there runs none of the user's code.
        unsafe { *self.control.get() = control };
    }

    /// Takes the control messages out again. The kernel has let go of them, or never saw them.
    pub(crate) fn take_control(&self) -> Control {
        // SAFETY: as the documentation demands; the reference ends with the statement.
        std::mem::take(unsafe { &mut *self.control.get() })
    }

    /// A header for the parts, with the address and the control messages: those to send, or room for those to
    /// receive.
    pub(crate) fn datagram(&self, receives: bool) -> *mut MessageHeader {
        let header = self.message();
        // SAFETY: the block belongs to one operation, and no kernel reads it between two submissions.
        unsafe {
            let control = &mut *self.control.get();
            let (control, len) = if receives { control.incoming() } else { control.outgoing() };
            let address_len = match receives {
                true => size_of::<AddressStorage>() as AddressLength,
                false => *self.address_len.get(),
            };
            name_message(&mut *header, self.address.get().cast(), address_len, control, len);
        }
        header
    }

    /// What a receive that has ended well, with this number as its result, has brought; with the control
    /// messages, which are taken out.
    pub(crate) fn received(&self, result: usize) -> (Received, Control) {
        // SAFETY: the operation was submitted, so that the header was written, and is done.
        let end = message_end(unsafe { (&*self.header.get()).assume_init_ref() });
        let MessageEnd { address_len, control_len, truncated, control_truncated } = end;
        let room = self.bytes();
        // SAFETY: the kernel wrote `address_len` bytes of the storage, or says that it did more than that.
        let from = unsafe { socket_address((*self.address.get()).as_ptr(), address_len) };
        let mut control = self.take_control();
        control.filled(control_len);
        let len = result.min(room);
        let whole_len = (!truncated || result > room).then_some(result);
        (Received { len, from, truncated, whole_len, control_truncated }, control)
    }

    /// Does what a kernel would that has received so many bytes of one datagram, without control messages.
    #[cfg(any(test, feature = "fake-kernel"))]
    pub(crate) fn receive_from(&self, sender: SocketAddr, bytes: usize) {
        // SAFETY: the operation was submitted, so that the header was written, and its kernel is us.
        unsafe {
            let address_len =
                crate::sys::write_address(&sender, (*self.address.get()).as_mut_ptr());
            let truncated = bytes > self.bytes();
            let end =
                MessageEnd { address_len, control_len: 0, truncated, control_truncated: false };
            crate::sys::end_message((*self.header.get()).assume_init_mut(), &end);
        }
    }

    /// Writes the address to connect to; returns where it is and how long.
    pub(crate) fn set_address(&self, addr: &SocketAddr) -> (*const AddressStorage, AddressLength) {
        // SAFETY: the operation is being submitted: no kernel looks at the block yet.
        unsafe {
            let len = crate::sys::write_address(addr, (*self.address.get()).as_mut_ptr());
            *self.address_len.get() = len;
            ((*self.address.get()).as_ptr(), len)
        }
    }

    /// Writes the address of a Unix socket to connect to.
    pub(crate) fn set_unix_address(&self, addr: &UnixAddr) {
        // SAFETY: the operation is being submitted: no kernel looks at the block yet. The reference is to
        // bytes that were just written, and ends with the call.
        unsafe {
            let storage = (*self.address.get()).as_mut_ptr();
            storage.write_bytes(0, 1);
            *self.address_len.get() = addr.write(&mut *storage.cast());
        }
    }

    /// The address of a Unix socket that the block was given.
    pub(crate) fn unix_address(&self) -> Option<UnixAddr> {
        // SAFETY: `set_unix_address` wrote the whole storage, and no kernel writes to what is connected to.
        unsafe {
            let len = *self.address_len.get() as usize;
            let bytes = (*self.address.get()).as_ptr().cast();
            UnixAddr::read(std::slice::from_raw_parts(bytes, len.min(size_of::<AddressStorage>())))
        }
    }

    /// The address that an accept has written, if it is an IP address.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        // SAFETY: the accept is done, and wrote `address_len` bytes of the storage; `socket_address`
        // looks at no byte past that length.
        unsafe { socket_address((*self.address.get()).as_ptr(), *self.address_len.get()) }
    }
}

/// The blocks of one driver.
pub(crate) struct Scratch {
    blocks: UnsafeCell<Vec<NonNull<Block>>>,
    free: UnsafeCell<Vec<u32>>,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch { blocks: UnsafeCell::new(Vec::new()), free: UnsafeCell::new(Vec::new()) }
    }

    /// Takes a block; its number is never [`NO_SCRATCH`].
    pub(crate) fn claim(&self) -> u32 {
        // SAFETY: one thread, and no user code runs while these references live.
        let (blocks, free) = unsafe { (&mut *self.blocks.get(), &mut *self.free.get()) };
        let number = free.pop().unwrap_or_else(|| {
            blocks.push(NonNull::from(Box::leak(Box::new(Block {
                address: UnsafeCell::new(MaybeUninit::uninit()),
                address_len: UnsafeCell::new(0),
                header: UnsafeCell::new(MaybeUninit::uninit()),
                parts: UnsafeCell::new([const { MaybeUninit::uninit() }; MAX_PARTS]),
                control: UnsafeCell::new(Control::none()),
                len: Cell::new(0),
                skipped: Cell::new(0),
            }))));
            // Room to take every block back without allocating.
            free.reserve(blocks.len());
            blocks.len() as u32
        });
        self.get(number).reset();
        number
    }

    /// The block with a number that `claim` gave.
    pub(crate) fn get(&self, number: u32) -> &Block {
        // SAFETY: one thread; the reference to the vector ends with the statement. Blocks are leaked
        // boxes that live until `self` is dropped, and all their fields are cells.
        unsafe { (&*self.blocks.get())[number as usize - 1].as_ref() }
    }

    /// Gives a block back: its operation's last completion has come.
    pub(crate) fn release(&self, number: u32) {
        if number != NO_SCRATCH {
            // What came for an operation that nobody waits for is given up with it.
            drop(self.get(number).take_control());
            // SAFETY: as in `claim`.
            unsafe { &mut *self.free.get() }.push(number);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for block in self.blocks.get_mut().drain(..) {
            // SAFETY: leaked from a box in `claim` and freed nowhere else. The driver drops its scratch
            // blocks only when nothing is in flight; otherwise it leaks them.
            drop(unsafe { Box::from_raw(block.as_ptr()) });
        }
    }
}
