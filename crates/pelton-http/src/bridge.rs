//! hyper's `rt` traits on Pelton's types.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::ReadBufCursor;
use pelton::Lease;
use pelton::io::{AsyncRead, AsyncWrite, PollStream};
use pelton::net::TcpStream;
use send_wrapper::SendWrapper;

/// A connection as hyper reads and writes it. What is received is copied once, from a leased buffer into
/// hyper's; what is sent is copied once, into a buffer that the send owns.
#[derive(Debug)]
pub struct Io<S = PollStream> {
    stream: S,
    /// Received, and not all of it taken by hyper yet.
    rest: Option<Lease>,
}

impl Io<PollStream> {
    /// Wraps a connection.
    pub fn new(stream: TcpStream) -> Io<PollStream> {
        Io::from_poll(PollStream::new(stream))
    }
}

impl<S> Io<S> {
    /// Wraps anything that reads and writes in poll form.
    pub fn from_poll(stream: S) -> Io<S> {
        Io { stream, rest: None }
    }

    /// What is wrapped.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// What was wrapped, with what was received and not read.
    pub fn into_inner(self) -> (S, Option<Lease>) {
        (self.stream, self.rest)
    }
}

impl<S: AsyncRead + Unpin> hyper::rt::Read for Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let lease = match this.rest.take() {
            Some(rest) => Some(rest),
            None => ready!(this.stream.poll_recv(cx))?,
        };
        // Nothing filled is the end of the stream.
        let Some(mut lease) = lease else { return Poll::Ready(Ok(())) };
        let n = lease.len().min(into.remaining());
        into.put_slice(&lease[..n]);
        if n < lease.len() {
            lease.advance(n);
            this.rest = Some(lease);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> hyper::rt::Write for Io<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What a write has taken is on its way, and an error of it is told by the next write or by the
        // shutdown: waiting for it here would only poll the connection once more for each response.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write_vectored(cx, parts)
    }
}

/// Spawns hyper's tasks on this thread's reactor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        pelton::spawn(future).detach();
    }
}

/// hyper's timers on this thread's reactor.
///
/// hyper asks for timers that are `Send`. These may be moved to another thread but not used there: polling
/// or dropping one elsewhere panics. A connection that stays on its reactor never does either.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(SendWrapper::new(pelton::time::sleep(duration))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(SendWrapper::new(pelton::time::sleep_until(deadline))))
    }

    fn now(&self) -> Instant {
        pelton::time::now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(sleep) => sleep.get_mut().0.reset(deadline),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

struct Sleep(SendWrapper<pelton::time::Sleep>);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut *self.0).poll(cx)
    }
}

impl hyper::rt::Sleep for Sleep {}
