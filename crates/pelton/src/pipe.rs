//! Pipes: bytes from one end to the other, within a process or to another one.
//!
//! [`pipe`] makes the two ends of an anonymous pipe, on every backend; [`PipeReader`] and [`PipeWriter`] also take
//! over those that somebody else has made, as the standard streams of a child process. On Windows there are named
//! pipes, too (`NamedPipe`), of bytes and of messages, with a server and clients.
//!
//! ```
//! # pelton::block_on(async {
//! let (reader, writer) = pelton::pipe::pipe()?;
//! pelton::spawn(async move { writer.write_all("through the pipe").await.0 }).detach();
//!
//! let mut bytes = Vec::with_capacity(64);
//! loop {
//!     let (read, back) = reader.read(bytes).await;
//!     bytes = back;
//!     if read? == 0 {
//!         break; // the writer has been dropped
//!     }
//! }
//! assert_eq!(bytes, b"through the pipe");
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

use std::fmt;
use std::io;

use pelton_driver::{Interest, IoBuf, IoBufMut, OwnedDescriptor, Submission};

use crate::reactor::Reactor;
use crate::socket::Socket;

#[cfg(windows)]
mod named;

#[cfg(windows)]
pub use named::NamedPipe;
#[cfg(windows)]
pub use pelton_driver::{MessagePart, PipeClientOptions, PipeServerOptions};

/// Makes a pipe: what is written to the one end is read from the other. Does not wait.
///
/// On Windows it is a named one underneath, whose name nobody is told: the system's anonymous ones wait.
///
/// # Errors
/// No reactor runs on this thread, or a table of descriptors is full.
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let reactor = Reactor::here()?;
    let (from, to) = reactor.driver.pipe()?;
    let end = |fd| Socket { reactor: reactor.clone().into(), fd };
    Ok((PipeReader { socket: end(from) }, PipeWriter { socket: end(to) }))
}

/// The end of a pipe to read from. Dropped, it is closed: whoever writes gets an error then.
pub struct PipeReader {
    socket: Socket,
}

impl PipeReader {
    /// Takes over the end of a pipe that somebody else has made: a child's output, a `std::io::PipeReader`.
    ///
    /// On Windows it must have been opened for overlapped calls, as those of child processes are and those of
    /// `std::io::pipe` are not: others fail at the first read, with `InvalidInput`.
    ///
    /// # Errors
    /// No reactor runs on this thread, or its table of descriptors is full.
    pub fn new(descriptor: impl Into<OwnedDescriptor>) -> io::Result<PipeReader> {
        Ok(PipeReader { socket: Socket::attach(Reactor::here()?, descriptor.into())? })
    }

    /// Reads once into a buffer; 0 bytes are the end, when every writer has gone. A `Vec` is filled behind what it
    /// has.
    ///
    /// Cancelled: what had been read into the buffer is lost with it. After [`PipeReader::readable`] a read does
    /// not wait, and is over when it is first polled, or soon.
    ///
    /// # Errors
    /// What the pipe failed with; or the buffer has no room. The buffer comes back in any case.
    pub fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> {
        self.socket.operation(buf, Submission::read)
    }

    /// Waits until something can be read, or the end has come. Takes no byte; cancelled, it has done nothing.
    ///
    /// # Errors
    /// The pipe cannot be watched.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.operation(Interest::Readable, Submission::poll).await.map(drop)
    }

    /// Closes this end and waits until that is done. Dropping it closes it too, and does not wait.
    ///
    /// # Errors
    /// What the system said; the descriptor is gone in any case.
    pub async fn close(self) -> io::Result<()> {
        self.socket.operation((), |fd, ()| Submission::close(fd)).await.map(drop)
    }
}

/// The end of a pipe to write to. Dropped, it is closed: whoever reads finds the end behind what was written.
pub struct PipeWriter {
    socket: Socket,
}

impl PipeWriter {
    /// Takes over the end of a pipe that somebody else has made: a child's input, a `std::io::PipeWriter`. On
    /// Windows as for [`PipeReader::new`].
    ///
    /// # Errors
    /// No reactor runs on this thread, or its table of descriptors is full.
    pub fn new(descriptor: impl Into<OwnedDescriptor>) -> io::Result<PipeWriter> {
        Ok(PipeWriter { socket: Socket::attach(Reactor::here()?, descriptor.into())? })
    }

    /// Writes some of a buffer, and says how much.
    ///
    /// # Errors
    /// `BrokenPipe`: nobody reads any more. (A program of Unix that does not ignore `SIGPIPE`, as those in Rust do,
    /// is ended by that.) Or what the pipe failed with. The buffer comes back in any case.
    pub fn write<B: IoBuf>(&self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> {
        self.socket.operation(buf, Submission::write)
    }

    /// Writes all of a buffer, at most 2 GiB (less 4 KiB).
    ///
    /// Cancelled: an unknown part of the buffer has been written.
    ///
    /// # Errors
    /// As for [`PipeWriter::write`]; an unknown part has been written then.
    pub async fn write_all<B: IoBuf>(&self, buf: B) -> (io::Result<()>, B) {
        let (written, buf) = self.socket.operation(buf, Submission::write_all).await;
        (written.map(drop), buf)
    }

    /// Closes this end and waits until that is done. Dropping it closes it too, and does not wait.
    ///
    /// # Errors
    /// What the system said; the descriptor is gone in any case.
    pub async fn close(self) -> io::Result<()> {
        self.socket.operation((), |fd, ()| Submission::close(fd)).await.map(drop)
    }
}

impl fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeReader").field("fd", &self.socket.fd).finish_non_exhaustive()
    }
}

impl fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeWriter").field("fd", &self.socket.fd).finish_non_exhaustive()
    }
}
