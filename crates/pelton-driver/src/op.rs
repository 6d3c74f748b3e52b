//! The list of operations: what each takes, owns and returns.
//!
//! [`Op`] is plain data and the list is closed. A backend is one room that turns the list into its
//! kernel's calls (`sys/`). To add an operation:
//!
//! 1. add a variant to [`Op`] and its [`Kind`];
//! 2. add a constructor to [`Submission`], which says what it owns and what its completion yields;
//! 3. answer wherever the compiler now complains: once per room.

use std::net::SocketAddr;
use std::time::Instant;

use crate::buf::{IoBuf, IoBufMut, IoVectored, IoVectoredMut};
use crate::descriptor::Fd;
use crate::message::Control;
use crate::payload::{
    Accepting, Connecting, ConnectingUnix, Filling, FillingAll, FillingMessage, Leasing,
    ManyAccepts, ManyLeases, Plain, ReceivingFrom, ReceivingMessage, Sending, SendingAll,
    SendingAway, SendingFile, SendingMessage, SendingTo, SendingWhole,
};
use crate::slot::OpId;
use crate::unix_address::UnixAddr;

/// One operation as plain data, without its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)] // The fields say what they are; each variant says what is done with them.
pub enum Op {
    /// Completes at the next tick.
    Nop,
    /// Accepts one connection.
    Accept { fd: Fd },
    /// Accepts connections until it is cancelled or fails.
    AcceptMulti { fd: Fd },
    /// Connects to the address that the operation owns.
    Connect { fd: Fd },
    /// Receives into a buffer that the operation owns.
    Recv { fd: Fd },
    /// Receives into a buffer of the pool, chosen when there is something to receive.
    RecvPooled { fd: Fd },
    /// Receives into buffers of the pool until it is cancelled, fails or meets the end of the stream.
    RecvMulti { fd: Fd },
    /// Receives into several buffers that the operation owns.
    RecvVectored { fd: Fd },
    /// Sends from a buffer that the operation owns; with `all`, all of it.
    Send { fd: Fd, all: bool },
    /// Sends from several buffers that the operation owns; with `all`, all of them.
    SendVectored { fd: Fd, all: bool },
    /// Receives one datagram, with its sender, into buffers that the operation owns; with what the system
    /// says about it, where the operation owns a buffer for that.
    RecvMsg { fd: Fd },
    /// Sends one datagram from buffers that the operation owns, to an address and with control messages
    /// where it owns those.
    SendMsg { fd: Fd },
    /// Sends from a file, as much and from where in it as the operation says.
    SendFile { fd: Fd, file: Fd },
    /// Reads from a pipe into a buffer that the operation owns; with `message`, telling where messages end.
    Read { fd: Fd, message: bool },
    /// Writes to a pipe from a buffer that the operation owns; with `all`, all of it.
    Write { fd: Fd, all: bool },
    /// Waits until a client has opened a named pipe.
    ConnectPipe { fd: Fd },
    /// Reads from a file at an offset in bytes.
    ReadAt { fd: Fd, offset: u64 },
    /// Writes to a file at an offset in bytes.
    WriteAt { fd: Fd, offset: u64 },
    /// Brings what was written to a file to the disk; with `data_only`, not what is not needed to read it.
    Sync { fd: Fd, data_only: bool },
    /// Waits until a descriptor is ready.
    Poll { fd: Fd, interest: Interest },
    /// Shuts a connection down, one way or both.
    Shutdown { fd: Fd, how: std::net::Shutdown },
    /// Closes a descriptor when every operation on it has ended; cancels those.
    Close { fd: Fd },
    /// Completes when the clock has reached a moment.
    Timeout { deadline: Instant },
    /// Asks to cancel one operation.
    Cancel { target: OpId },
    /// Asks to cancel every operation on a descriptor.
    CancelFd { fd: Fd },
    /// Completes when another thread notifies the driver.
    Wake,
    /// An operation of the user's own ([`seam`](crate::Driver::prepare)).
    Own { fd: Option<Fd>, form: Form },
}

/// How an operation of the user's own is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// By a submission entry of io_uring.
    Entry,
    /// By a closure, when the descriptor is ready.
    Ready(Interest),
    /// By an overlapped call of IOCP, which has been made.
    Overlapped,
}

/// The kinds of operation, for counters and checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
#[allow(missing_docs)] // Each is the operation of the same name.
pub enum Kind {
    Nop,
    Accept,
    AcceptMulti,
    Connect,
    Recv,
    RecvPooled,
    Send,
    RecvMulti,
    RecvVectored,
    SendVectored,
    RecvMsg,
    SendMsg,
    SendFile,
    Read,
    Write,
    ConnectPipe,
    ReadAt,
    WriteAt,
    Sync,
    Poll,
    Shutdown,
    Close,
    Timeout,
    Cancel,
    CancelFd,
    Wake,
    Own,
}

/// How many kinds of operation there are.
pub const KINDS: usize = Kind::ALL.len();

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Kind; 27] = [
        Kind::Nop,
        Kind::Accept,
        Kind::AcceptMulti,
        Kind::Connect,
        Kind::Recv,
        Kind::RecvPooled,
        Kind::Send,
        Kind::RecvMulti,
        Kind::RecvVectored,
        Kind::SendVectored,
        Kind::RecvMsg,
        Kind::SendMsg,
        Kind::SendFile,
        Kind::Read,
        Kind::Write,
        Kind::ConnectPipe,
        Kind::ReadAt,
        Kind::WriteAt,
        Kind::Sync,
        Kind::Poll,
        Kind::Shutdown,
        Kind::Close,
        Kind::Timeout,
        Kind::Cancel,
        Kind::CancelFd,
        Kind::Wake,
        Kind::Own,
    ];

    /// The kind's name, in the spelling of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Nop => "nop",
            Kind::Accept => "accept",
            Kind::AcceptMulti => "accept_multi",
            Kind::Connect => "connect",
            Kind::Recv => "recv",
            Kind::RecvPooled => "recv_pooled",
            Kind::RecvMulti => "recv_multi",
            Kind::RecvVectored => "recv_vectored",
            Kind::Send => "send",
            Kind::SendVectored => "send_vectored",
            Kind::RecvMsg => "recv_msg",
            Kind::SendMsg => "send_msg",
            Kind::SendFile => "send_file",
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::ConnectPipe => "connect_pipe",
            Kind::ReadAt => "read_at",
            Kind::WriteAt => "write_at",
            Kind::Sync => "sync",
            Kind::Poll => "poll",
            Kind::Shutdown => "shutdown",
            Kind::Close => "close",
            Kind::Timeout => "timeout",
            Kind::Cancel => "cancel",
            Kind::CancelFd => "cancel_fd",
            Kind::Wake => "wake",
            Kind::Own => "own",
        }
    }

    /// True for the operations that complete more than once.
    pub fn is_multishot(self) -> bool {
        matches!(self, Kind::AcceptMulti | Kind::RecvMulti)
    }

    /// True for those that take connections.
    #[cfg_attr(
        all(unix, not(target_os = "linux")),
        allow(dead_code, reason = "a readiness room asks nobody")
    )]
    pub(crate) fn is_accept(self) -> bool {
        matches!(self, Kind::Accept | Kind::AcceptMulti)
    }
}

impl Op {
    /// The operation's kind.
    #[inline(always)]
    pub fn kind(&self) -> Kind {
        match self {
            Op::Nop => Kind::Nop,
            Op::Accept { .. } => Kind::Accept,
            Op::AcceptMulti { .. } => Kind::AcceptMulti,
            Op::Connect { .. } => Kind::Connect,
            Op::Recv { .. } => Kind::Recv,
            Op::RecvPooled { .. } => Kind::RecvPooled,
            Op::RecvMulti { .. } => Kind::RecvMulti,
            Op::RecvVectored { .. } => Kind::RecvVectored,
            Op::Send { .. } => Kind::Send,
            Op::SendVectored { .. } => Kind::SendVectored,
            Op::RecvMsg { .. } => Kind::RecvMsg,
            Op::SendMsg { .. } => Kind::SendMsg,
            Op::SendFile { .. } => Kind::SendFile,
            Op::Read { .. } => Kind::Read,
            Op::Write { .. } => Kind::Write,
            Op::ConnectPipe { .. } => Kind::ConnectPipe,
            Op::ReadAt { .. } => Kind::ReadAt,
            Op::WriteAt { .. } => Kind::WriteAt,
            Op::Sync { .. } => Kind::Sync,
            Op::Poll { .. } => Kind::Poll,
            Op::Shutdown { .. } => Kind::Shutdown,
            Op::Close { .. } => Kind::Close,
            Op::Timeout { .. } => Kind::Timeout,
            Op::Cancel { .. } => Kind::Cancel,
            Op::CancelFd { .. } => Kind::CancelFd,
            Op::Wake => Kind::Wake,
            Op::Own { .. } => Kind::Own,
        }
    }

    /// The descriptor that the operation works on, if it works on one.
    #[inline(always)]
    pub fn fd(&self) -> Option<Fd> {
        match *self {
            Op::Own { fd, .. } => fd,
            Op::Nop | Op::Timeout { .. } | Op::Cancel { .. } | Op::Wake => None,
            Op::Accept { fd }
            | Op::AcceptMulti { fd }
            | Op::Connect { fd }
            | Op::Recv { fd }
            | Op::RecvPooled { fd }
            | Op::RecvMulti { fd }
            | Op::RecvVectored { fd }
            | Op::Send { fd, .. }
            | Op::SendVectored { fd, .. }
            | Op::RecvMsg { fd }
            | Op::SendMsg { fd }
            | Op::SendFile { fd, .. }
            | Op::Read { fd, .. }
            | Op::Write { fd, .. }
            | Op::ConnectPipe { fd }
            | Op::ReadAt { fd, .. }
            | Op::WriteAt { fd, .. }
            | Op::Sync { fd, .. }
            | Op::Poll { fd, .. }
            | Op::Shutdown { fd, .. }
            | Op::Close { fd }
            | Op::CancelFd { fd } => Some(fd),
        }
    }
}

/// What [`Op::Poll`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Interest {
    /// Something can be received or accepted, or the peer has closed, or there is an error to collect.
    Readable,
    /// Something can be sent, or a connect has ended, or there is an error to collect.
    Writable,
}

/// An operation together with what it owns: the one argument of [`Driver::submit`](crate::Driver::submit).
///
/// `P` says what the operation owns while it is in flight and what its completion yields.
///
/// ```
/// use pelton_driver::{Config, Driver, Submission, Token};
/// let driver = Driver::new(Config::default())?;
/// let nop = driver.submit(Submission::nop(), Token::NONE).map_err(|refused| refused.error)?;
/// driver.tick(None, |completion| assert_eq!(completion.id, nop.id()))?;
/// assert_eq!(driver.take(nop).unwrap()?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Submission<P> {
    pub(crate) op: Op,
    pub(crate) payload: P,
}

impl<P> Submission<P> {
    /// The operation as plain data.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The outcome of a submission that somebody refuses instead of submitting it: the error, with the
    /// buffer if there is one.
    pub fn refuse(self, error: std::io::Error) -> P::Output
    where
        P: crate::Payload,
    {
        self.payload.refuse(error)
    }
}

impl Submission<Plain> {
    fn plain(op: Op) -> Submission<Plain> {
        Submission { op, payload: Plain }
    }

    /// Completes at the next tick with 0.
    pub fn nop() -> Submission<Plain> {
        Submission::plain(Op::Nop)
    }

    /// Waits until a descriptor is ready. The level counts, not the edge: a descriptor that is ready
    /// already completes at once.
    ///
    /// On Windows a handle that is no socket is readable when it is signalled: a process that has ended, an event, a
    /// timer. One that is reset by a wait is reset by this one. Files and pipes are refused, as being signalled says
    /// nothing of them.
    pub fn poll(fd: Fd, interest: Interest) -> Submission<Plain> {
        Submission::plain(Op::Poll { fd, interest })
    }

    /// Brings what was written to a file to the disk, and completes when it is there; with `data_only`,
    /// not what is not needed to read it again, such as the time of its last change.
    ///
    /// Cancelled: it may go on, and completes when it has ended.
    pub fn sync(fd: Fd, data_only: bool) -> Submission<Plain> {
        Submission::plain(Op::Sync { fd, data_only })
    }

    /// Waits until a client has opened a named pipe, of which this is a server's end (`PipeServerOptions`). One that has done so
    /// already, even if it has gone again, ends it at once: reads bring what it wrote.
    ///
    /// Cancelled: no client is lost, the next one of these finds it. On systems other than Windows it fails with
    /// `EOPNOTSUPP`: there are no named pipes like that.
    pub fn connect_pipe(fd: Fd) -> Submission<Plain> {
        Submission::plain(Op::ConnectPipe { fd })
    }

    /// Shuts a connection down, one way or both.
    pub fn shutdown(fd: Fd, how: std::net::Shutdown) -> Submission<Plain> {
        Submission::plain(Op::Shutdown { fd, how })
    }

    /// Closes a descriptor: from now on the driver refuses operations on it, cancels those in flight,
    /// and closes it when the last of them has ended. Completes after that. Cannot be cancelled.
    pub fn close(fd: Fd) -> Submission<Plain> {
        Submission::plain(Op::Close { fd })
    }

    /// Completes with 0 when the clock has reached `deadline`, never before, and at most about a
    /// hundred microseconds later on an idle driver.
    pub fn timeout(deadline: Instant) -> Submission<Plain> {
        Submission::plain(Op::Timeout { deadline })
    }

    /// Asks to cancel one operation, and says with 0 that it was found in flight or with `ENOENT` that
    /// it was not. The target completes by itself, with `ECANCELED` or with what it did meanwhile.
    pub fn cancel(target: OpId) -> Submission<Plain> {
        Submission::plain(Op::Cancel { target })
    }

    /// Asks to cancel every operation on a descriptor, and says how many were found in flight.
    pub fn cancel_fd(fd: Fd) -> Submission<Plain> {
        Submission::plain(Op::CancelFd { fd })
    }

    /// Completes when another thread has called [`Notifier::notify`](crate::Notifier::notify).
    pub fn wake() -> Submission<Plain> {
        Submission::plain(Op::Wake)
    }
}

impl Submission<Connecting> {
    /// Connects a socket that was made for the address's family.
    ///
    /// Cancelled: the attempt is given up; close the socket then, its state is undefined on some systems.
    pub fn connect(fd: Fd, addr: SocketAddr) -> Submission<Connecting> {
        Submission { op: Op::Connect { fd }, payload: Connecting(addr) }
    }
}

impl Submission<ConnectingUnix> {
    /// Connects a [Unix socket](crate::Driver::unix_socket).
    ///
    /// Where the listener has no room for another connection, io_uring waits for it; epoll and kqueue, which
    /// no system tells when there is some, and the simulator answer `WouldBlock`: try again a little later.
    ///
    /// Cancelled: as [`Submission::connect`].
    pub fn connect_unix(fd: Fd, addr: UnixAddr) -> Submission<ConnectingUnix> {
        Submission { op: Op::Connect { fd }, payload: ConnectingUnix(addr) }
    }
}

impl Submission<Accepting> {
    /// Accepts one connection, with the peer's address. A connection that is accepted for nobody,
    /// because the operation was abandoned, is closed.
    pub fn accept(fd: Fd) -> Submission<Accepting> {
        Submission { op: Op::Accept { fd }, payload: Accepting }
    }
}

impl Submission<ManyAccepts> {
    /// Accepts connections until it is cancelled or fails; [`Driver::next`](crate::Driver::next) yields
    /// them. Nothing asks for the peers' addresses. When [`MOST_WAITING`](crate::MOST_WAITING) of them wait
    /// to be taken it ends as if cancelled; submit another one when they have been taken.
    pub fn accept_multi(fd: Fd) -> Submission<ManyAccepts> {
        Submission { op: Op::AcceptMulti { fd }, payload: ManyAccepts::new() }
    }
}

impl Submission<Leasing> {
    /// Receives into a buffer of the pool, chosen when there is something to receive; completes with a
    /// lease on it, or with nothing at the end of the stream. Where no buffer is free the operation
    /// waits for one.
    pub fn recv_pooled(fd: Fd) -> Submission<Leasing> {
        Submission { op: Op::RecvPooled { fd }, payload: Leasing }
    }
}

impl Submission<ManyLeases> {
    /// Receives into buffers of the pool until it is cancelled, fails or meets the end of the stream;
    /// [`Driver::next`](crate::Driver::next) yields the leases.
    ///
    /// It receives whether or not anybody takes. When [`MOST_WAITING`](crate::MOST_WAITING) leases wait to
    /// be taken it ends as if cancelled. [`Submission::recv_pooled`] receives only when asked to.
    pub fn recv_multi(fd: Fd) -> Submission<ManyLeases> {
        Submission { op: Op::RecvMulti { fd }, payload: ManyLeases::new() }
    }
}

impl Submission<SendingFile> {
    /// Sends `len` bytes of a file, from `offset` bytes on, over a stream, and says how many: fewer only where the
    /// file ends before, or after a cancel. The file is one of the same driver's, and stays open until this has
    /// ended; a close of either descriptor cancels it. More than 2 GiB (less 4 KiB) at once are refused, and so is
    /// what is no file and what is no stream.
    ///
    /// How it is done: by `sendfile` on a thread of the [blocking pool](crate::blocking) with epoll and kqueue (read
    /// and sent where there is none), through memory of the operation's own on io_uring, by `TransmitFile` on
    /// Windows, of which editions that are no servers do two at a time.
    ///
    /// Cancelled: how much has been sent by then; on Windows without what was sent of the last piece, of at most a
    /// mebibyte. Sends in flight on the stream at the same time may mix their bytes with it.
    pub fn send_file(fd: Fd, file: Fd, offset: u64, len: usize) -> Submission<SendingFile> {
        Submission { op: Op::SendFile { fd, file }, payload: SendingFile { offset, len } }
    }
}

impl<B: IoBufMut> Submission<Filling<B>> {
    /// Receives once into `buf`. 0 bytes are the end of the stream.
    ///
    /// Which of several receives in flight on one descriptor gets what comes first is the kernel's affair
    /// (io_uring serves the last one first): have one at a time where the order counts.
    pub fn recv(fd: Fd, buf: B) -> Submission<Filling<B>> {
        Submission { op: Op::Recv { fd }, payload: Filling(buf) }
    }

    /// Reads once from a pipe into `buf`. 0 bytes are the end: nobody has it open to write any more. Of a pipe of
    /// messages (Windows) this brings the bytes one message after another, and none of a message that has none:
    /// [`Submission::read_message`] tells where they end.
    ///
    /// Cancelled: nothing is lost, unless something had been read already, which the outcome then tells.
    /// Abandoned: what is read all the same is lost with the buffer. [Wait](Submission::poll) for the pipe to be
    /// readable first where that matters.
    ///
    /// For pipes; files are read [at an offset](Submission::read_at). On Windows a pipe that was not opened for
    /// overlapped calls is refused with `InvalidInput`, and what is no pipe with `Unsupported`.
    pub fn read(fd: Fd, buf: B) -> Submission<Filling<B>> {
        Submission { op: Op::Read { fd, message: false }, payload: Filling(buf) }
    }

    /// Reads once from a file at `offset` bytes. 0 bytes are the end of the file. Through the ring on io_uring
    /// and on the blocking pool on epoll, wherever the bytes are: ask
    /// [`Driver::read_cached`](crate::Driver::read_cached) first for what may be in the page cache.
    pub fn read_at(fd: Fd, buf: B, offset: u64) -> Submission<Filling<B>> {
        Submission { op: Op::ReadAt { fd, offset }, payload: Filling(buf) }
    }
}

impl<B: IoBufMut> Submission<FillingMessage<B>> {
    /// Reads from a pipe of messages into `buf`: one message, or as much of it as there is room for, and then the
    /// next read goes on with it. None is the end. On a pipe of bytes each read is told of as a whole message.
    ///
    /// Cancelled and abandoned as [`Submission::read`].
    pub fn read_message(fd: Fd, buf: B) -> Submission<FillingMessage<B>> {
        Submission { op: Op::Read { fd, message: true }, payload: FillingMessage(buf) }
    }
}

impl<B: IoBuf> Submission<Sending<B>> {
    /// Writes some of `buf` to a pipe, once. To a pipe of messages (Windows) all of it, as one message.
    ///
    /// Nobody who reads any more is a broken pipe. A program of Unix that does not ignore `SIGPIPE`, as those in
    /// Rust do, is ended by that.
    pub fn write(fd: Fd, buf: B) -> Submission<Sending<B>> {
        Submission { op: Op::Write { fd, all: false }, payload: Sending(buf) }
    }

    /// Writes all of `buf` to a pipe: fewer bytes are reported only after a cancel, and then on Windows those of
    /// the part that was under way may be missing in the count. More than 2 GiB (less 4 KiB) at once are refused.
    ///
    /// Writes in flight on one pipe at the same time may mix their bytes: have one at a time.
    pub fn write_all(fd: Fd, buf: B) -> Submission<Sending<B>> {
        Submission { op: Op::Write { fd, all: true }, payload: Sending(buf) }
    }

    /// Sends some of `buf`, once.
    pub fn send(fd: Fd, buf: B) -> Submission<Sending<B>> {
        Submission { op: Op::Send { fd, all: false }, payload: Sending(buf) }
    }

    /// Sends all of `buf`: fewer bytes are reported only after a cancel. More than 2 GiB (less 4 KiB) at
    /// once are refused.
    ///
    /// Sends in flight on one descriptor at the same time may mix their bytes: have one at a time.
    pub fn send_all(fd: Fd, buf: B) -> Submission<Sending<B>> {
        Submission { op: Op::Send { fd, all: true }, payload: Sending(buf) }
    }

    /// Writes once to a file at `offset` bytes.
    pub fn write_at(fd: Fd, buf: B, offset: u64) -> Submission<Sending<B>> {
        Submission { op: Op::WriteAt { fd, offset }, payload: Sending(buf) }
    }
}

impl<B: IoBuf> Submission<SendingWhole<B>> {
    /// [`Submission::send_all`] for those who need no number: that all was sent says it.
    #[inline(always)]
    pub fn send_whole(fd: Fd, buf: B) -> Submission<SendingWhole<B>> {
        Submission { op: Op::Send { fd, all: true }, payload: SendingWhole(buf) }
    }
}

impl<B: IoBuf> Submission<SendingAway<B>> {
    /// [`Submission::send_all`] for those who do not want the buffer back: it is dropped when the outcome is
    /// taken.
    #[inline(always)]
    pub fn send_away(fd: Fd, buf: B) -> Submission<SendingAway<B>> {
        Submission { op: Op::Send { fd, all: true }, payload: SendingAway(buf) }
    }
}

impl<V: IoVectored> Submission<SendingAll<V>> {
    /// Sends some of several buffers, once. At most [`MAX_PARTS`](crate::MAX_PARTS) of them; the rest
    /// is left for another submission.
    pub fn send_vectored(fd: Fd, bufs: V) -> Submission<SendingAll<V>> {
        Submission { op: Op::SendVectored { fd, all: false }, payload: SendingAll(bufs) }
    }

    /// Sends all of several buffers, at most [`MAX_PARTS`](crate::MAX_PARTS) of them; as
    /// [`Submission::send_all`] otherwise.
    pub fn send_vectored_all(fd: Fd, bufs: V) -> Submission<SendingAll<V>> {
        Submission { op: Op::SendVectored { fd, all: true }, payload: SendingAll(bufs) }
    }
}

impl<V: IoVectoredMut> Submission<FillingAll<V>> {
    /// Receives once into several buffers in order, at most [`MAX_PARTS`](crate::MAX_PARTS) of them.
    pub fn recv_vectored(fd: Fd, bufs: V) -> Submission<FillingAll<V>> {
        Submission { op: Op::RecvVectored { fd }, payload: FillingAll(bufs) }
    }
}

impl<B: IoBufMut> Submission<ReceivingFrom<B>> {
    /// Receives one datagram into `buf`, and says who sent it and whether all of it fitted:
    /// [`Received`](crate::Received). A datagram of no bytes is one too, and no end.
    ///
    /// Cancelled: no datagram is lost, unless one had been received already, which the outcome then tells.
    /// Abandoned: one that is received all the same is lost with the buffer.
    pub fn recv_from(fd: Fd, buf: B) -> Submission<ReceivingFrom<B>> {
        Submission { op: Op::RecvMsg { fd }, payload: ReceivingFrom(buf) }
    }
}

impl<B: IoBuf> Submission<SendingTo<B>> {
    /// Sends `buf` as one datagram to an address: whole, or not at all.
    ///
    /// Cancelled or abandoned: it has been sent, or it has not.
    pub fn send_to(fd: Fd, buf: B, to: SocketAddr) -> Submission<SendingTo<B>> {
        Submission { op: Op::SendMsg { fd }, payload: SendingTo(buf, to) }
    }
}

impl<V: IoVectoredMut> Submission<ReceivingMessage<V>> {
    /// As [`Submission::recv_from`], into several buffers in order (at most [`MAX_PARTS`](crate::MAX_PARTS)),
    /// with the control messages that came along. Those are whatever the socket was told to receive; they take
    /// the place of what `control` had in it, as far as its capacity goes. A capacity of 0 receives none.
    pub fn recv_msg(fd: Fd, bufs: V, control: Control) -> Submission<ReceivingMessage<V>> {
        Submission { op: Op::RecvMsg { fd }, payload: ReceivingMessage(bufs, control) }
    }
}

impl<V: IoVectored> Submission<SendingMessage<V>> {
    /// Sends several buffers in order (at most [`MAX_PARTS`](crate::MAX_PARTS)) as one datagram, with control
    /// messages, to an address, or without one to where the socket is connected to.
    ///
    /// More buffers than that are refused: a part of a datagram is another datagram.
    pub fn send_msg(
        fd: Fd,
        bufs: V,
        to: Option<SocketAddr>,
        control: Control,
    ) -> Submission<SendingMessage<V>> {
        Submission { op: Op::SendMsg { fd }, payload: SendingMessage(bufs, to, control) }
    }
}
