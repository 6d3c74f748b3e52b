//! Halves of a connection.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use pelton_driver::{IoBuf, IoBufMut, IoVectored, Lease};

use super::stream::{Connected, Stream};
use super::tcp::TcpStream;

pub(super) fn borrowed(stream: &mut Stream) -> (ReadHalf<'_>, WriteHalf<'_>) {
    (ReadHalf { stream }, WriteHalf { stream })
}

pub(super) fn owned<S: Connected>(stream: S) -> (OwnedReadHalf<S>, OwnedWriteHalf<S>) {
    let stream = Rc::new(stream);
    let read = OwnedReadHalf { stream: stream.clone() };
    (read, OwnedWriteHalf { stream: Some(stream), end: true })
}

/// The read half of [`TcpStream::split`].
pub struct ReadHalf<'a> {
    stream: &'a Stream,
}

/// The write half of [`TcpStream::split`].
pub struct WriteHalf<'a> {
    stream: &'a Stream,
}

/// The read half of [`TcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf<S: Connected = TcpStream> {
    stream: Rc<S>,
}

/// The write half of [`TcpStream::into_split`]. Dropping it shuts the connection down for writing, once
/// what has been sent is on its way.
pub struct OwnedWriteHalf<S: Connected = TcpStream> {
    stream: Option<Rc<S>>,
    end: bool,
}

macro_rules! reads {
    ([$($generic:tt)*] $half:ty) => {
        impl<$($generic)*> $half {
            /// As [`TcpStream::recv`].
            ///
            /// # Errors
            /// As there.
            pub async fn recv(&mut self) -> io::Result<Option<Lease>> {
                self.stream().recv().await
            }

            /// As [`TcpStream::read`].
            ///
            /// # Errors
            /// As there.
            pub async fn read<B: IoBufMut>(&mut self, buf: B) -> (io::Result<usize>, B) {
                self.stream().read(buf).await
            }

            /// As [`TcpStream::readable`].
            ///
            /// # Errors
            /// As there.
            pub async fn readable(&mut self) -> io::Result<()> {
                self.stream().readable().await
            }
        }
    };
}

macro_rules! writes {
    ([$($generic:tt)*] $half:ty) => {
        impl<$($generic)*> $half {
            /// As [`TcpStream::write`].
            ///
            /// # Errors
            /// As there.
            pub async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
                self.stream().write(buf).await
            }

            /// As [`TcpStream::write_all`].
            ///
            /// # Errors
            /// As there.
            pub async fn write_all<B: IoBuf>(&mut self, buf: B) -> (io::Result<()>, B) {
                self.stream().write_all(buf).await
            }

            /// As [`TcpStream::send_all`].
            ///
            /// # Errors
            /// As there.
            pub async fn send_all<B: IoBuf>(&mut self, buf: B) -> io::Result<()> {
                self.stream().send_all(buf).await
            }

            /// As [`TcpStream::write_vectored_all`].
            ///
            /// # Errors
            /// As there.
            pub async fn write_vectored_all<V: IoVectored>(&mut self, bufs: V) -> (io::Result<usize>, V) {
                self.stream().write_vectored_all(bufs).await
            }

            /// Ends the stream for the peer.
            ///
            /// # Errors
            /// As for [`TcpStream::shutdown`].
            pub async fn shutdown(&mut self) -> io::Result<()> {
                self.stream().shutdown(Shutdown::Write).await
            }
        }
    };
}

reads!(['a] ReadHalf<'a>);
reads!([S: Connected] OwnedReadHalf<S>);
writes!(['a] WriteHalf<'a>);
writes!([S: Connected] OwnedWriteHalf<S>);

impl ReadHalf<'_> {
    fn stream(&self) -> &Stream {
        self.stream
    }
}

impl WriteHalf<'_> {
    fn stream(&self) -> &Stream {
        self.stream
    }
}

impl<S: Connected> OwnedReadHalf<S> {
    fn stream(&self) -> &Stream {
        self.stream.stream()
    }

    /// Puts the connection together again.
    ///
    /// # Errors
    /// The halves are of two connections; both come back.
    pub fn reunite(self, mut write: OwnedWriteHalf<S>) -> Result<S, ReuniteError<S>> {
        if !Rc::ptr_eq(&self.stream, write.shared()) {
            return Err(ReuniteError(self, write));
        }
        write.end = false;
        drop(write);
        Ok(Rc::into_inner(self.stream).expect("a connection has two halves"))
    }
}

impl<S: Connected> OwnedWriteHalf<S> {
    fn shared(&self) -> &Rc<S> {
        self.stream.as_ref().expect("there until the drop")
    }

    fn stream(&self) -> &Stream {
        self.shared().stream()
    }

    /// Drops the half without ending the stream for the peer.
    pub fn forget(mut self) {
        self.end = false;
    }
}

impl<S: Connected> Drop for OwnedWriteHalf<S> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take()
            && self.end
        {
            // On the spot: a shutdown neither waits nor needs the kernel's completion.
            let socket = &stream.stream().socket;
            let _ = socket.reactor.driver.shutdown(socket.fd, Shutdown::Write);
        }
    }
}

impl fmt::Debug for ReadHalf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadHalf").field("fd", &self.stream.socket.fd).finish_non_exhaustive()
    }
}

impl fmt::Debug for WriteHalf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteHalf").field("fd", &self.stream.socket.fd).finish_non_exhaustive()
    }
}

impl<S: Connected> fmt::Debug for OwnedWriteHalf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedWriteHalf").field("stream", self.shared()).finish()
    }
}

/// The halves of two different connections.
#[derive(Debug)]
pub struct ReuniteError<S: Connected = TcpStream>(
    /// The one.
    pub OwnedReadHalf<S>,
    /// The other.
    pub OwnedWriteHalf<S>,
);

impl<S: Connected> fmt::Display for ReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves are of two different connections")
    }
}

impl<S: Connected> std::error::Error for ReuniteError<S> {}
