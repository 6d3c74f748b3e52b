//! Receiving, and what a receive that was dropped leaves behind.
//!
//! A receive that is in flight may have bytes at any moment. Were it cancelled when its future is dropped,
//! bytes that arrive between the cancel and its completion would be lost, and with them the stream's
//! order. So a dropped [`Recv`] cancels nothing: its operation stays in flight, kept by the connection, and
//! the next receive goes on with it. Dropping the connection gives it up.

use std::cell::Cell;
use std::io;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, ready};

use pelton_driver::{Filling, IoBufMut, IoVectoredMut, Key, Lease, Leasing, Submission};

use super::stream::Stream;
use crate::operation::{self, Stage, by_words, ready_now};
use crate::reactor::{MayGoOn, Reactor};

/// What receives have left behind for the next one. Seldom anything, so that it is kept out of the way:
/// connections are many, and this is in each.
#[derive(Default)]
pub(crate) struct Left(Cell<Option<NonNull<Leavings>>>);

#[derive(Default)]
struct Leavings {
    key: Option<Key<Leasing>>,
    lease: Option<Lease>,
}

impl Left {
    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        self.0.get().is_some()
    }

    /// Takes the operation that is in flight, and the bytes that come before its own.
    pub(crate) fn take(&self) -> (Option<Key<Leasing>>, Option<Lease>) {
        if !self.is_some() {
            return (None, None);
        }
        let Leavings { key, lease } = *self.take_box();
        (key, lease)
    }

    /// What is kept, or nothing in a new box.
    fn take_box(&self) -> Box<Leavings> {
        match self.0.take() {
            // SAFETY: the pointer came from `Box::into_raw` in `set`, and has just been taken out.
            Some(leavings) => unsafe { Box::from_raw(leavings.as_ptr()) },
            None => Box::default(),
        }
    }

    /// There is something to keep, and nothing is kept.
    fn set(&self, leavings: Box<Leavings>) {
        debug_assert!(!self.is_some());
        self.0.set(NonNull::new(Box::into_raw(leavings)));
    }

    /// Bytes that were received and are the next ones to read.
    fn put_back(&self, lease: Lease) {
        if !lease.is_empty() {
            let mut leavings = self.take_box();
            let before = leavings.lease.replace(lease);
            self.set(leavings);
            drop(before);
        }
    }

    #[cold]
    fn keep(&self, reactor: &Reactor, key: Key<Leasing>) {
        if mutant!("receive-dropped-with-its-future") {
            return operation::abandon(reactor, key);
        }
        reactor.wait_no_more(&key);
        let mut leavings = self.take_box();
        let other = leavings.key.replace(key);
        self.set(leavings);
        if let Some(other) = other {
            // Two receives at once, both dropped: their order was never defined.
            reactor.driver.abandon(other);
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if self.is_some() {
            drop(self.take_box());
        }
    }
}

/// The future of `recv` of a stream.
pub(super) struct Recv<'a> {
    stream: &'a Stream,
    stage: Stage<Leasing>,
}

impl<'a> Recv<'a> {
    #[inline(always)]
    pub(super) fn new(stream: &'a Stream) -> Recv<'a> {
        Recv { stream, stage: Stage::STAGED }
    }

    /// Goes on with what another receive has left.
    #[cold]
    #[inline(never)]
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Box<io::Result<Option<Lease>>>> {
        if self.stage.has_ended() {
            operation::ended_already();
        }
        let left = &self.stream.left;
        let reactor = &*self.stream.socket.reactor;
        let (key, lease) = left.take();
        if let Some(lease) = lease {
            if let Some(key) = key {
                left.keep(reactor, key);
            }
            self.stage = Stage::ENDED;
            return Poll::Ready(Box::new(Ok(Some(lease))));
        }
        if let Some(Ok(flight)) = key.map(|key| reactor.driver.flight_of(key)) {
            self.stage = Stage::flying(flight);
            // SAFETY: this driver says that it is one of its own.
            return unsafe { self.stage.poll(reactor, cx) }.map(Box::new);
        }
        self.poll_staged(cx).map(Box::new)
    }

    #[inline(always)]
    fn poll_staged(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        let socket = &self.stream.socket;
        if !socket.reactor.may_go_on() {
            return self.give_way(cx).map(|output| *output);
        }
        self.stage = Stage::ENDED;
        let submission = Submission::recv_pooled(socket.fd);
        // SAFETY: the socket is borrowed as long as this future lives.
        unsafe { self.stage.start(&socket.reactor, submission, cx) }
    }

    /// There is no budget left, or no reactor.
    #[cold]
    #[inline(never)]
    fn give_way(&mut self, cx: &mut Context<'_>) -> Poll<Box<io::Result<Option<Lease>>>> {
        let socket = &self.stream.socket;
        if socket.reactor.give_way(cx.waker()) == MayGoOn::Later {
            return Poll::Pending;
        }
        self.stage = Stage::ENDED;
        Poll::Ready(Box::new(operation::refuse(Submission::recv_pooled(socket.fd))))
    }
}

impl Future for Recv<'_> {
    type Output = io::Result<Option<Lease>>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let output = ready!(self.poll_stage(cx));
        // SAFETY: each of its ways to be ready has ended it. So the drop that comes next need not look.
        unsafe { std::hint::assert_unchecked(self.stage.has_ended()) };
        ready_now(output)
    }
}

impl Recv<'_> {
    /// It has ended where this is ready.
    #[inline(always)]
    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        if self.stage.is_flying() {
            // SAFETY: the socket is the same since it was made, and its reactor's driver has launched the flight.
            return unsafe { self.stage.poll(&self.stream.socket.reactor, cx) };
        }
        if !self.stage.is_staged() || self.stream.left.is_some() {
            return self.poll_left(cx).map(|output| *output);
        }
        self.poll_staged(cx)
    }
}

impl Drop for Recv<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.stage.is_flying() {
            self.leave();
        }
    }
}

impl Recv<'_> {
    #[cold]
    #[inline(never)]
    fn leave(&mut self) {
        let reactor = &*self.stream.socket.reactor;
        if let Some(flight) = self.stage.take() {
            // SAFETY: the socket's reactor's driver has launched it.
            self.stream.left.keep(reactor, unsafe { reactor.driver.key_of(flight) });
        }
    }
}

/// The future of `read` of a stream.
pub(super) struct Read<'a, B: IoBufMut> {
    stream: &'a Stream,
    stage: Stage<Filling<B>>,
    rest: Rest<'a, B>,
}

/// Until the receive is submitted.
union Rest<'a, B> {
    /// Staged: the buffer.
    buf: ManuallyDrop<B>,
    /// [Aside](Stage::ASIDE): a receive was left behind, and its bytes come first. Seldom.
    left: ManuallyDrop<Box<LeftFirst<'a, B>>>,
}

struct LeftFirst<'a, B> {
    recv: Recv<'a>,
    buf: B,
}

impl<'a, B: IoBufMut> Read<'a, B> {
    #[inline(always)]
    pub(super) fn new(stream: &'a Stream, buf: B) -> Read<'a, B> {
        let rest = Rest { buf: ManuallyDrop::new(by_words(buf)) };
        Read { stream, stage: Stage::STAGED, rest }
    }

    /// Takes the buffer.
    ///
    /// # Safety
    /// The receive is staged. It has ended when this returns.
    #[inline(always)]
    unsafe fn take_buf(&mut self) -> B {
        self.stage = Stage::ENDED;
        // SAFETY: staged, says the caller, which means that the buffer is there, and it is not any more.
        unsafe { ManuallyDrop::take(&mut self.rest.buf) }
    }

    /// Undoes [`Read::take_buf`].
    #[inline(always)]
    fn put_back(&mut self, buf: B) {
        self.rest.buf = ManuallyDrop::new(buf);
        self.stage = Stage::STAGED;
    }

    /// What another receive has left comes first.
    #[cold]
    #[inline(never)]
    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<Box<(io::Result<usize>, B)>> {
        if !self.stage.is_aside() {
            operation::ended_already();
        }
        // SAFETY: aside, so the box is there.
        let left = unsafe { &mut *self.rest.left };
        let received = ready!(Pin::new(&mut left.recv).poll(cx));
        self.stage = Stage::ENDED;
        // SAFETY: it was aside until now.
        let LeftFirst { buf, .. } = *unsafe { ManuallyDrop::take(&mut self.rest.left) };
        let mut lease = match received {
            Ok(Some(lease)) => lease,
            Ok(None) => return Poll::Ready(Box::new((Ok(0), buf))),
            Err(error) => return Poll::Ready(Box::new((Err(error), buf))),
        };
        let (copied, buf) = fill(buf, &lease);
        lease.advance(*copied.as_ref().unwrap_or(&0));
        self.stream.left.put_back(lease);
        Poll::Ready(Box::new((copied, buf)))
    }

    /// Another receive has left something; or there is no budget left, or no reactor.
    #[cold]
    #[inline(never)]
    fn poll_later(&mut self, cx: &mut Context<'_>) -> Poll<Box<(io::Result<usize>, B)>> {
        if self.stream.left.is_some() {
            // SAFETY: whoever polls has put it back.
            let buf = unsafe { self.take_buf() };
            let left = Box::new(LeftFirst { recv: Recv::new(self.stream), buf });
            self.rest.left = ManuallyDrop::new(left);
            self.stage = Stage::ASIDE;
            return self.poll_aside(cx);
        }
        let socket = &self.stream.socket;
        if socket.reactor.give_way(cx.waker()) == MayGoOn::Later {
            return Poll::Pending;
        }
        // SAFETY: as above, and waking the task has not changed it.
        let buf = unsafe { self.take_buf() };
        Poll::Ready(Box::new(operation::refuse(Submission::recv(self.stream.socket.fd, buf))))
    }
}

impl<B: IoBufMut> Future for Read<'_, B> {
    type Output = (io::Result<usize>, B);

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let output = ready!(self.poll_stage(cx));
        // SAFETY: each of its ways to be ready has ended it. So the drop that comes next need not look.
        unsafe { std::hint::assert_unchecked(self.stage.has_ended()) };
        ready_now(output)
    }
}

impl<B: IoBufMut> Read<'_, B> {
    /// It has ended where this is ready.
    #[inline(always)]
    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<usize>, B)> {
        let this = self;
        let socket = &this.stream.socket;
        if this.stage.is_flying() {
            // SAFETY: the socket is the same since it was made, and its reactor's driver has launched the flight.
            return unsafe { this.stage.poll(&socket.reactor, cx) };
        }
        if !this.stage.is_staged() {
            return this.poll_aside(cx).map(|output| *output);
        }
        // Before it is known who goes on: what is taken at once need never have been in memory.
        // SAFETY: it has just been looked at.
        let buf = unsafe { this.take_buf() };
        if this.stream.left.is_some() || !socket.reactor.may_go_on() {
            this.put_back(buf);
            return this.poll_later(cx).map(|output| *output);
        }
        let submission = Submission::recv(socket.fd, buf);
        // SAFETY: the socket is borrowed as long as this future lives.
        unsafe { this.stage.start(&socket.reactor, submission, cx) }
    }
}

// Nothing in it is borrowed by the kernel: that is all in the driver.
impl<B: IoBufMut> Unpin for Read<'_, B> {}

impl<B: IoBufMut> Drop for Read<'_, B> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.stage.has_ended() {
            self.drop_unfinished();
        }
    }
}

impl<B: IoBufMut> Read<'_, B> {
    #[cold]
    #[inline(never)]
    fn drop_unfinished(&mut self) {
        let reactor = &*self.stream.socket.reactor;
        if self.stage.is_staged() {
            // SAFETY: it has just been looked at.
            drop(unsafe { self.take_buf() });
        } else if self.stage.is_aside() {
            self.stage = Stage::ENDED;
            // SAFETY: it was aside until now.
            drop(unsafe { ManuallyDrop::take(&mut self.rest.left) });
        } else if let Some(flight) = self.stage.take() {
            // SAFETY: the socket's reactor's driver has launched it.
            operation::abandon(reactor, unsafe { reactor.driver.key_of(flight) });
        }
    }
}

/// Receives into several buffers what another receive has left; gives them back where there is nothing.
pub(super) async fn read_left<V: IoVectoredMut>(
    stream: &Stream,
    mut bufs: V,
) -> (io::Result<usize>, V) {
    let mut lease = match Recv::new(stream).await {
        Ok(Some(lease)) => lease,
        Ok(None) => return (Ok(0), bufs),
        Err(error) => return (Err(error), bufs),
    };
    let mut copied = Vec::new();
    let mut room = false;
    bufs.each_spare(|mut spare| {
        room |= !spare.is_empty();
        let n = spare.copy_from(&lease);
        lease.advance(n);
        copied.push(n);
    });
    for (part, n) in copied.iter().enumerate().filter(|(_, n)| **n > 0) {
        // SAFETY: `copy_from` has just written `n` bytes at the start of this part's memory, and the
        // buffers have not been changed since.
        unsafe { bufs.advance(part, *n) };
    }
    stream.left.put_back(lease);
    (if room { Ok(copied.iter().sum()) } else { Err(no_room()) }, bufs)
}

/// Waits until a receive that was left behind has something.
pub(super) async fn wait_left(stream: &Stream) -> io::Result<()> {
    if let Some(lease) = Recv::new(stream).await? {
        stream.left.put_back(lease);
    }
    Ok(())
}

fn fill<B: IoBufMut>(mut buf: B, bytes: &[u8]) -> (io::Result<usize>, B) {
    let mut spare = buf.spare();
    if spare.is_empty() {
        return (Err(no_room()), buf);
    }
    let n = spare.copy_from(bytes);
    // SAFETY: `copy_from` has just written the first `n` bytes of the spare memory, and the buffer has not
    // been changed since.
    unsafe { buf.advance(n) };
    (Ok(n), buf)
}

/// To receive nothing would look like the end of the stream.
#[cold]
fn no_room() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the buffer has no room")
}
