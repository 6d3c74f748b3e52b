//! Reading and writing in poll form, for hyper, rustls and the like.
//!
//! Completion-based calls own their buffers; code that polls brings a borrowed slice each time. In between
//! stands [`PollStream`], which keeps an operation in flight across polls and copies once: a receive is
//! leased from the pool and copied out, a write is copied into a buffer that the send owns.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pelton_driver::{Lease, Leasing, Plain, Sending, Submission};

use crate::net::{Connected, TcpStream};
use crate::operation::Pending;
use crate::reactor::MayGoOn;
use crate::socket::Socket;

pub use pelton_driver::{IoBuf, IoBufMut, IoVectored, IoVectoredMut, Slice, Spare};

/// The most bytes that one write takes.
const WRITE_MOST: usize = 128 * 1024;
/// A buffer that has grown past this is not kept when nothing is being written.
const WRITE_KEEP: usize = 16 * 1024;
/// How long a send that was under way when its stream was dropped may still take.
const LINGER: Duration = Duration::from_secs(5);

/// Reading in poll form.
pub trait AsyncRead {
    /// Reads into borrowed memory. 0 bytes are the end of the stream, or no room.
    ///
    /// # Errors
    /// What the stream failed with.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: Spare<'_>) -> Poll<io::Result<usize>>;

    /// Reads without a copy: a lease on what was received, or nothing at the end of the stream.
    ///
    /// # Errors
    /// What the stream failed with.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>>;
}

/// Writing in poll form.
pub trait AsyncWrite {
    /// Takes bytes to be sent, and says how many. They are on their way without a flush. An error of an
    /// earlier write may be told here.
    ///
    /// # Errors
    /// What the stream failed with.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// Takes bytes of several slices to be sent, and says how many.
    ///
    /// # Errors
    /// What the stream failed with.
    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// Waits until what was taken has been handed to the system.
    ///
    /// # Errors
    /// What the stream failed with.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Flushes, and ends the stream for the peer.
    ///
    /// # Errors
    /// What the stream failed with.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A connection in poll form.
///
/// Dropped with a send under way, it lets that send end, for at most five seconds, before it closes: what
/// a write has taken is not lost with the stream.
///
/// ```
/// use pelton::io::{AsyncRead, AsyncWrite, PollStream};
/// use pelton::net::{TcpListener, TcpStream};
/// use std::future::poll_fn;
///
/// # pelton::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let mut client = PollStream::new(TcpStream::connect(listener.local_addr()?).await?);
/// let (server, _) = listener.accept().await?;
/// poll_fn(|cx| client.poll_write(cx, b"hello")).await?;
/// assert_eq!(&*server.recv().await?.unwrap(), b"hello");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct PollStream<S: Connected = TcpStream> {
    stream: Option<S>,
    recv: Pending<Leasing>,
    /// What was received and has not been read yet.
    lease: Option<Lease>,
    send: Pending<Sending<Vec<u8>>>,
    /// The buffer of the next send.
    buffer: Vec<u8>,
    failed: Option<io::Error>,
    shutdown: Pending<Plain>,
    is_shut_down: bool,
}

impl<S: Connected> PollStream<S> {
    /// Wraps a connection.
    pub fn new(stream: S) -> PollStream<S> {
        let (recv, lease) = stream.stream().left.take();
        PollStream {
            stream: Some(stream),
            recv: Pending::of(recv),
            lease,
            send: Pending::none(),
            buffer: Vec::new(),
            failed: None,
            shutdown: Pending::none(),
            is_shut_down: false,
        }
    }

    /// The connection, for its options and addresses.
    pub fn stream(&self) -> &S {
        self.stream.as_ref().expect("there until the drop")
    }

    /// Waits for what is being sent, and gives the connection back with what was received and not read.
    ///
    /// # Errors
    /// The send failed.
    pub async fn into_inner(mut self) -> io::Result<(S, Option<Lease>)> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await?;
        let reactor = socket_of(&self.stream).reactor.clone();
        // A receive that is in flight may have brought something already.
        if let Some(key) = self.recv.key() {
            reactor.driver.cancel(key.id());
            match std::future::poll_fn(|cx| self.recv.poll(&reactor, cx).expect("in flight")).await
            {
                Ok(lease) => self.lease = lease,
                Err(error) if error.raw_os_error() == Some(pelton_driver::errno::ECANCELED) => {}
                Err(error) => return Err(error),
            }
        }
        self.shutdown.abandon(&reactor);
        Ok((self.stream.take().expect("there until the drop"), self.lease.take()))
    }

    /// Collects the outcome of the last send.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let reactor = &socket_of(&self.stream).reactor;
        match self.send.poll(reactor, cx) {
            None => Poll::Ready(Ok(())),
            Some(poll) => {
                let (sent, buffer) = ready!(poll);
                self.keep(buffer);
                Poll::Ready(sent.map(drop))
            }
        }
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() <= WRITE_KEEP {
            self.buffer = buffer;
        }
    }
}

impl<S: Connected> AsyncRead for PollStream<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, mut into: Spare<'_>) -> Poll<io::Result<usize>> {
        if into.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(mut lease) = ready!(self.poll_recv(cx))? else { return Poll::Ready(Ok(0)) };
        let n = into.copy_from(&lease);
        lease.advance(n);
        if !lease.is_empty() {
            self.lease = Some(lease);
        }
        Poll::Ready(Ok(n))
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        if let Some(lease) = self.lease.take() {
            return Poll::Ready(Ok(Some(lease)));
        }
        let socket = socket_of(&self.stream);
        if let Some(poll) = self.recv.poll(&socket.reactor, cx) {
            return poll;
        }
        if !socket.reactor.may_go_on() && socket.reactor.give_way(cx.waker()) == MayGoOn::Later {
            return Poll::Pending;
        }
        let received =
            self.recv.start(&socket.reactor, Submission::recv_pooled(socket.fd), Some(cx));
        if received.is_ready() {
            socket.reactor.ended_at_once();
        }
        received
    }
}

impl<S: Connected> AsyncWrite for PollStream<S> {
    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        for part in parts {
            let room = WRITE_MOST - buffer.len();
            buffer.extend_from_slice(&part[..part.len().min(room)]);
        }
        let taken = buffer.len();
        if taken == 0 {
            self.buffer = buffer;
            return Poll::Ready(Ok(0));
        }
        let socket = socket_of(&self.stream);
        // Nobody needs to be told when it has been sent, unless somebody waits to write more or to flush.
        match self.send.start(&socket.reactor, Submission::send_all(socket.fd, buffer), None) {
            Poll::Ready((sent, buffer)) => {
                self.keep(buffer);
                Poll::Ready(sent.map(|_| taken))
            }
            Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        if self.is_shut_down {
            return Poll::Ready(Ok(()));
        }
        let socket = socket_of(&self.stream);
        let poll = match self.shutdown.poll(&socket.reactor, cx) {
            Some(poll) => poll,
            None => {
                let submission = Submission::shutdown(socket.fd, Shutdown::Write);
                self.shutdown.start(&socket.reactor, submission, Some(cx))
            }
        };
        let ended = ready!(poll);
        self.is_shut_down = true;
        match ended {
            // The peer has gone already: there is nobody left to tell.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended.map(drop)),
        }
    }
}

impl<S: Connected> Drop for PollStream<S> {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        let reactor = stream.stream().socket.reactor.clone();
        self.recv.abandon(&reactor);
        self.shutdown.abandon(&reactor);
        let under_way = self.send.key().is_some_and(|key| !reactor.driver.is_done(key));
        if !under_way || reactor.has_ended() {
            self.send.abandon(&reactor);
            return;
        }
        let mut lingering = Lingering { send: self.send.take(&reactor), stream };
        let linger = async move {
            let reactor = lingering.stream.stream().socket.reactor.clone();
            let sent = std::future::poll_fn(|cx| {
                lingering.send.poll(&reactor, cx).unwrap_or(Poll::Ready((Ok(0), Vec::new())))
            });
            let _ = crate::time::timeout(LINGER, sent).await;
        };
        reactor.tasks.spawn(linger).detach();
    }
}

/// Of the one field, because the others are borrowed beside it.
fn socket_of<S: Connected>(stream: &Option<S>) -> &Socket {
    &stream.as_ref().expect("there until the drop").stream().socket
}

/// A send that goes on without its stream's owner.
struct Lingering<S: Connected> {
    send: Pending<Sending<Vec<u8>>>,
    stream: S,
}

impl<S: Connected> Drop for Lingering<S> {
    fn drop(&mut self) {
        self.send.abandon(&self.stream.stream().socket.reactor);
    }
}

impl<S: Connected> fmt::Debug for PollStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}
