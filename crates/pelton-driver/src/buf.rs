//! Buffers that an operation owns while it is in flight.
//!
//! # Why these traits are safe to implement
//!
//! A submission moves the buffer's owner into the operation's slot *before* the driver asks it for its
//! memory, and the slot does not move until the operation's last completion. So an address handed out
//! by [`IoBuf::as_init`] or [`IoBufMut::spare`] stays right for inline arrays too, and nobody else can
//! reach the owner meanwhile: it is `'static`, and it is in the slot. An implementation cannot break the
//! driver, only itself: whatever slice it returns is a slice that it was allowed to make. Where the
//! driver has to ask a second time (a short send, a retry after readiness), the answer may differ, so
//! it is checked against what has been transferred already.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::sync::Arc;

/// A buffer whose bytes can be sent or written.
///
/// ```
/// use pelton_driver::IoBuf;
/// assert_eq!(IoBuf::as_init(&vec![1, 2, 3]), [1, 2, 3]);
/// assert_eq!(IoBuf::as_init(&"text"), b"text");
/// ```
pub trait IoBuf: 'static {
    /// The initialised bytes, the ones to send.
    fn as_init(&self) -> &[u8];
}

/// A buffer that can be received or read into.
///
/// A `Vec<u8>` receives into its spare capacity, after the bytes that it has, as
/// `tokio::io::AsyncReadExt::read_buf` does. A `Box<[u8]>` or an array is overwritten from its start.
///
/// ```
/// use pelton_driver::IoBufMut;
/// let mut buf = Vec::with_capacity(16);
/// buf.push(1u8);
/// assert_eq!(buf.spare().len(), 15);
/// ```
pub trait IoBufMut: IoBuf {
    /// The memory to fill. Empty memory is refused at submission: a receive into it would look like the
    /// end of the stream.
    fn spare(&mut self) -> Spare<'_>;

    /// Records that the first `n` bytes of [`IoBufMut::spare`] have been written.
    ///
    /// # Safety
    /// The first `n` bytes of what `spare` returned must have been initialised since, and the buffer
    /// must not have been changed in between.
    unsafe fn advance(&mut self, n: usize);
}

/// Memory to be filled: writable, perhaps not initialised.
///
/// It can be made from `&mut [u8]` and from `&mut [MaybeUninit<u8>]` and gives out neither, so that safe
/// code can put nothing uninitialised into bytes that somebody believes are initialised.
#[derive(Debug)]
pub struct Spare<'a> {
    ptr: *mut u8,
    len: usize,
    buffer: PhantomData<&'a mut [MaybeUninit<u8>]>,
}

impl Spare<'_> {
    /// Where the memory starts. Valid for writes of [`Spare::len`] bytes while the buffer is borrowed.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.ptr
    }

    /// Bytes that fit.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing fits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies as much of `bytes` as fits and returns how much that was.
    pub fn copy_from(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.len);
        // SAFETY: `ptr` is valid for writes of `len >= n` bytes for as long as the buffer is borrowed,
        // which `self` shows, and `bytes` cannot overlap memory that is mutably borrowed.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.ptr, n) };
        n
    }
}

impl<'a> From<&'a mut [u8]> for Spare<'a> {
    fn from(slice: &'a mut [u8]) -> Spare<'a> {
        Spare { ptr: slice.as_mut_ptr(), len: slice.len(), buffer: PhantomData }
    }
}

impl<'a> From<&'a mut [MaybeUninit<u8>]> for Spare<'a> {
    fn from(slice: &'a mut [MaybeUninit<u8>]) -> Spare<'a> {
        Spare { ptr: slice.as_mut_ptr().cast(), len: slice.len(), buffer: PhantomData }
    }
}

impl IoBuf for Vec<u8> {
    fn as_init(&self) -> &[u8] {
        self
    }
}

impl IoBufMut for Vec<u8> {
    fn spare(&mut self) -> Spare<'_> {
        self.spare_capacity_mut().into()
    }

    unsafe fn advance(&mut self, n: usize) {
        // SAFETY: the caller says that `n` bytes of the spare capacity are initialised.
        unsafe { self.set_len(self.len() + n) };
    }
}

macro_rules! whole_slice {
    ($([$($generic:tt)*] $buffer:ty,)+) => {$(
        impl<$($generic)*> IoBuf for $buffer {
            fn as_init(&self) -> &[u8] {
                &self[..]
            }
        }

        impl<$($generic)*> IoBufMut for $buffer {
            fn spare(&mut self) -> Spare<'_> {
                (&mut self[..]).into()
            }

            unsafe fn advance(&mut self, _: usize) {}
        }
    )+};
}

whole_slice! {
    [] Box<[u8]>,
    [const N: usize] [u8; N],
    [const N: usize] Box<[u8; N]>,
}

impl IoBuf for () {
    fn as_init(&self) -> &[u8] {
        &[]
    }
}

impl IoBuf for &'static [u8] {
    fn as_init(&self) -> &[u8] {
        self
    }
}

impl<const N: usize> IoBuf for &'static [u8; N] {
    fn as_init(&self) -> &[u8] {
        &self[..]
    }
}

impl IoBuf for &'static str {
    fn as_init(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl IoBuf for String {
    fn as_init(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl IoBuf for Rc<[u8]> {
    fn as_init(&self) -> &[u8] {
        self
    }
}

impl IoBuf for Arc<[u8]> {
    fn as_init(&self) -> &[u8] {
        self
    }
}

#[cfg(feature = "bytes")]
impl IoBuf for bytes::Bytes {
    fn as_init(&self) -> &[u8] {
        self
    }
}

#[cfg(feature = "bytes")]
impl IoBuf for bytes::BytesMut {
    fn as_init(&self) -> &[u8] {
        self
    }
}

#[cfg(feature = "bytes")]
impl IoBufMut for bytes::BytesMut {
    fn spare(&mut self) -> Spare<'_> {
        self.spare_capacity_mut().into()
    }

    unsafe fn advance(&mut self, n: usize) {
        // SAFETY: the caller says that `n` bytes of the spare capacity are initialised.
        unsafe { self.set_len(self.len() + n) };
    }
}

/// A part of a buffer, from an offset to an end, which keeps the whole.
///
/// ```
/// use pelton_driver::{IoBuf, Slice};
/// let rest = Slice::from(vec![1, 2, 3, 4], 2);
/// assert_eq!(rest.as_init(), [3, 4]);
/// assert_eq!(rest.into_inner(), [1, 2, 3, 4]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice<B> {
    buf: B,
    start: usize,
    end: usize,
}

impl<B: IoBuf> Slice<B> {
    /// The bytes from `start` to the end; none where `start` lies past the end.
    pub fn from(buf: B, start: usize) -> Slice<B> {
        Slice { buf, start, end: usize::MAX }
    }

    /// The bytes from `start` up to, and not with, `end`, as far as there are any.
    pub fn range(buf: B, start: usize, end: usize) -> Slice<B> {
        Slice { buf, start, end }
    }

    /// The whole buffer.
    pub fn into_inner(self) -> B {
        self.buf
    }
}

impl<B: IoBuf> IoBuf for Slice<B> {
    fn as_init(&self) -> &[u8] {
        let bytes = self.buf.as_init();
        let end = self.end.min(bytes.len());
        &bytes[self.start.min(end)..end]
    }
}

/// Several buffers that one operation sends in order.
///
/// ```
/// use pelton_driver::IoVectored;
/// let parts = [b"head".to_vec(), b"body".to_vec()];
/// let mut total = 0;
/// parts.each(|part| total += part.len());
/// assert_eq!(total, 8);
/// ```
pub trait IoVectored: 'static {
    /// Calls `f` with the initialised bytes of each part, in order.
    ///
    /// The parts borrow from `self`, because the kernel reads them after the call has returned. What
    /// does not outlive the call cannot be a part:
    ///
    /// ```compile_fail,E0597
    /// struct Temporary;
    /// impl pelton_driver::IoVectored for Temporary {
    ///     fn each<'a>(&'a self, mut f: impl FnMut(&'a [u8])) {
    ///         let bytes = vec![1, 2, 3];
    ///         f(&bytes);
    ///     }
    /// }
    /// ```
    fn each<'a>(&'a self, f: impl FnMut(&'a [u8]));
}

/// Several buffers that one operation fills in order.
pub trait IoVectoredMut: 'static {
    /// Calls `f` with the memory to fill of each part, in order. The parts borrow from `self`, as those
    /// of [`IoVectored::each`].
    fn each_spare<'a>(&'a mut self, f: impl FnMut(Spare<'a>));

    /// Records that the first `n` bytes of the memory that the last `each_spare` gave as number `part`,
    /// counted from 0, have been written.
    ///
    /// # Safety
    /// They must have been, and the buffers must not have been changed since.
    unsafe fn advance(&mut self, part: usize, n: usize);
}

macro_rules! vectored {
    ($([$($generic:tt)*] $buffers:ty,)+) => {$(
        impl<B: IoBuf, $($generic)*> IoVectored for $buffers {
            fn each<'a>(&'a self, f: impl FnMut(&'a [u8])) {
                self.iter().map(IoBuf::as_init).for_each(f);
            }
        }

        impl<B: IoBufMut, $($generic)*> IoVectoredMut for $buffers {
            fn each_spare<'a>(&'a mut self, f: impl FnMut(Spare<'a>)) {
                self.iter_mut().map(IoBufMut::spare).for_each(f);
            }

            unsafe fn advance(&mut self, part: usize, n: usize) {
                // SAFETY: the caller says so of this very part.
                unsafe { self[part].advance(n) };
            }
        }
    )+};
}

vectored! {
    [] Vec<B>,
    [] Box<[B]>,
    [const N: usize] [B; N],
}

impl<A: IoBuf, B: IoBuf> IoVectored for (A, B) {
    fn each<'a>(&'a self, mut f: impl FnMut(&'a [u8])) {
        f(self.0.as_init());
        f(self.1.as_init());
    }
}
