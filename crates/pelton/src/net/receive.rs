//! Receiving, and what a receive that was dropped leaves behind.
//!
//! A receive that is in flight may have bytes at any moment. Were it cancelled when its future is dropped,
//! bytes that arrive between the cancel and its completion would be lost, and with them the stream's
//! order. So a dropped [`Recv`] cancels nothing: its operation stays in flight, kept by the connection, and
//! the next receive goes on with it. Dropping the connection gives it up.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pelton_driver::{
    Fd, Filling, IoBufMut, IoVectoredMut, Key, Lease, Leasing, Started, Submission, Token,
};

use super::stream::TcpStream;
use crate::operation::{self, Operation};
use crate::reactor::{Place, Reactor};

/// What receives have left behind for the next one.
#[derive(Default)]
pub(crate) struct Left {
    some: Cell<bool>,
    key: Cell<Option<Key<Leasing>>>,
    lease: Cell<Option<Lease>>,
}

impl Left {
    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        self.some.get()
    }

    /// Takes the operation that is in flight, and the bytes that come before its own.
    pub(crate) fn take(&self) -> (Option<Key<Leasing>>, Option<Lease>) {
        self.some.set(false);
        (self.key.take(), self.lease.take())
    }

    /// Bytes that were received and are the next ones to read.
    fn put_back(&self, lease: Lease) {
        if !lease.is_empty() {
            self.some.set(true);
            self.lease.set(Some(lease));
        }
    }

    fn keep(&self, reactor: &Reactor, key: Key<Leasing>) {
        reactor.driver.set_token(&key, Token::NONE);
        self.some.set(true);
        if let Some(other) = self.key.replace(Some(key)) {
            // Two receives at once, both dropped: their order was never defined.
            reactor.driver.abandon(other);
        }
    }
}

/// The future of [`TcpStream::recv`].
pub(super) struct Recv<'a> {
    stream: &'a TcpStream,
    key: Option<Key<Leasing>>,
    place: Option<Place>,
}

impl<'a> Recv<'a> {
    #[inline(always)]
    pub(super) fn new(stream: &'a TcpStream) -> Recv<'a> {
        Recv { stream, key: None, place: None }
    }

    #[inline(always)]
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        let socket = &self.stream.socket;
        let reactor = &*socket.reactor;
        if self.stream.left.is_some()
            && let Poll::Ready(lease) = self.go_on()
        {
            return Poll::Ready(Ok(Some(lease)));
        }
        if self.key.is_some() {
            return self.poll_key(cx);
        }
        if !reactor.may_go_on(cx.waker()) {
            return Poll::Pending;
        }
        let token = reactor.token_for(cx.waker(), &mut self.place);
        match operation::start(reactor, Submission::recv_pooled(socket.fd), token) {
            Started::Done(output) => {
                operation::forget_waker(reactor, &mut self.place);
                Poll::Ready(output)
            }
            Started::Pending(key) => {
                self.key = Some(key);
                Poll::Pending
            }
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

    #[inline(always)]
    fn poll_key(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        let reactor = &*self.stream.socket.reactor;
        match reactor.driver.take_if_done(&mut self.key) {
            Some(output) => {
                operation::forget_waker(reactor, &mut self.place);
                Poll::Ready(output)
            }
            None => {
                if let Some(key) = &self.key {
                    let token = reactor.token_for(cx.waker(), &mut self.place);
                    reactor.driver.set_token(key, token);
                }
                Poll::Pending
            }
        }
    }
}

impl Future for Recv<'_> {
    type Output = io::Result<Option<Lease>>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.key.is_some() { self.poll_key(cx) } else { self.start(cx) }
    }
}

impl Drop for Recv<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let reactor = &*self.stream.socket.reactor;
        operation::forget_waker(reactor, &mut self.place);
        if let Some(key) = self.key.take() {
            self.stream.left.keep(reactor, key);
        }
    }
}

/// The future of [`TcpStream::read`].
pub(super) struct Read<'a, B: IoBufMut, F> {
    stream: &'a TcpStream,
    operation: Operation<'a, B, Filling<B>, F>,
    /// Another receive was left behind: its bytes come first. Seldom, so it is kept out of the way.
    left: Option<Box<Recv<'a>>>,
}

impl<'a, B: IoBufMut, F: Fn(Fd, B) -> Submission<Filling<B>>> Read<'a, B, F> {
    #[inline(always)]
    pub(super) fn new(stream: &'a TcpStream, buf: B, make: F) -> Read<'a, B, F> {
        Read { stream, operation: stream.socket.operation(buf, make), left: None }
    }

    #[cold]
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<usize>, B)> {
        let recv = self.left.get_or_insert_with(|| Box::new(Recv::new(self.stream)));
        let received = ready!(Pin::new(recv).poll(cx));
        self.left = None;
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
        if self.left.is_some() || (self.stream.left.is_some() && self.operation.is_staged()) {
            return self.poll_left(cx);
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
