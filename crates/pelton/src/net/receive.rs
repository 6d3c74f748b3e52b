//! Receiving, and what a receive that was dropped leaves behind.
//!
//! A receive that is in flight may have bytes at any moment. Were it cancelled when its future is dropped,
//! bytes that arrive between the cancel and its completion would be lost, and with them the stream's
//! order. So a dropped [`Recv`] cancels nothing: its operation stays in flight, kept by the connection, and
//! the next receive goes on with it. Dropping the connection gives it up.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, ready};

use pelton_driver::{Fd, Filling, IoBufMut, IoVectoredMut, Key, Lease, Leasing, Submission};

use super::stream::TcpStream;
use crate::operation::{self, Operation};
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

/// The future of [`TcpStream::recv`].
pub(super) struct Recv<'a> {
    stream: &'a TcpStream,
    key: Option<Key<Leasing>>,
}

impl<'a> Recv<'a> {
    #[inline(always)]
    pub(super) fn new(stream: &'a TcpStream) -> Recv<'a> {
        Recv { stream, key: None }
    }

    /// As `Operation::start`.
    #[inline(always)]
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Result<Option<Lease>>>> {
        let socket = &self.stream.socket;
        let reactor = &*socket.reactor;
        if self.stream.left.is_some() {
            if let Poll::Ready(lease) = self.go_on() {
                return Poll::Ready(Err(Ok(Some(lease))));
            }
            if self.key.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
        let submission = Submission::recv_pooled(socket.fd);
        match reactor.may_go_on(cx.waker()) {
            MayGoOn::Now => operation::start(reactor, submission, cx, &mut self.key),
            MayGoOn::Later => Poll::Pending,
            MayGoOn::Never => Poll::Ready(Err(operation::refuse(submission))),
        }
    }

    /// Goes on with what another receive has left.
    #[cold]
    fn go_on(&mut self) -> Poll<Lease> {
        let (key, lease) = self.stream.left.take();
        match (key, lease) {
            (key, Some(lease)) => {
                if let Some(key) = key {
                    self.stream.left.keep(&self.stream.socket.reactor, key);
                }
                Poll::Ready(lease)
            }
            (key, None) => {
                self.key = key;
                Poll::Pending
            }
        }
    }
}

impl Future for Recv<'_> {
    type Output = io::Result<Option<Lease>>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.key.is_none()
            && let Err(received) = ready!(this.start(cx))
        {
            return Poll::Ready(received);
        }
        operation::take_or_wait(&this.stream.socket.reactor, &mut this.key, cx)
    }
}

impl Drop for Recv<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.stream.left.keep(&self.stream.socket.reactor, key);
        }
    }
}

/// The future of [`TcpStream::read`].
pub(super) struct Read<'a, B: IoBufMut, F> {
    stream: &'a TcpStream,
    operation: Operation<'a, B, Filling<B>, F>,
    left: LeftFirst<'a>,
}

/// Another receive was left behind: its bytes come first. Seldom, so it is kept out of the way.
struct LeftFirst<'a>(Option<Box<Recv<'a>>>);

impl Drop for LeftFirst<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(recv) = self.0.take() {
            drop_left(recv);
        }
    }
}

#[cold]
fn drop_left(_: Box<Recv<'_>>) {}

impl<'a, B: IoBufMut, F: Fn(Fd, B) -> Submission<Filling<B>>> Read<'a, B, F> {
    #[inline(always)]
    pub(super) fn new(stream: &'a TcpStream, buf: B, make: F) -> Read<'a, B, F> {
        Read { stream, operation: stream.socket.operation(buf, make), left: LeftFirst(None) }
    }

    #[cold]
    fn poll_left_or_own(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<usize>, B)> {
        if self.operation.is_staged() {
            return self.poll_left(cx);
        }
        Pin::new(&mut self.operation).poll(cx)
    }

    #[cold]
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<usize>, B)> {
        let recv = self.left.0.get_or_insert_with(|| Box::new(Recv::new(self.stream)));
        let received = ready!(Pin::new(recv).poll(cx));
        self.left.0 = None;
        let buf = self.operation.take_argument();
        let mut lease = match received {
            Ok(Some(lease)) => lease,
            Ok(None) => return Poll::Ready((Ok(0), buf)),
            Err(error) => return Poll::Ready((Err(error), buf)),
        };
        let (copied, buf) = fill(buf, &lease);
        lease.advance(*copied.as_ref().unwrap_or(&0));
        self.stream.left.put_back(lease);
        Poll::Ready((copied, buf))
    }
}

impl<B: IoBufMut, F: Fn(Fd, B) -> Submission<Filling<B>>> Future for Read<'_, B, F> {
    type Output = (io::Result<usize>, B);

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left.0.is_some() {
            return self.poll_left(cx);
        }
        if self.stream.left.is_some() {
            return self.poll_left_or_own(cx);
        }
        Pin::new(&mut self.operation).poll(cx)
    }
}

/// Receives into several buffers what another receive has left; gives them back where there is nothing.
pub(super) async fn read_left<V: IoVectoredMut>(
    stream: &TcpStream,
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
pub(super) async fn wait_left(stream: &TcpStream) -> io::Result<()> {
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
