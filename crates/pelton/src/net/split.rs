//! Halves of a connection.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::ops::Deref;
use std::rc::Rc;

use pelton_driver::{IoBuf, IoBufMut, IoVectored, Lease};

use super::stream::TcpStream;

pub(super) fn borrowed(stream: &mut TcpStream) -> (ReadHalf<'_>, WriteHalf<'_>) {
    (ReadHalf { stream }, WriteHalf { stream })
}

pub(super) fn owned(stream: TcpStream) -> (OwnedReadHalf, OwnedWriteHalf) {
    let stream = Rc::new(stream);
    let read = OwnedReadHalf { stream: stream.clone() };
    (read, OwnedWriteHalf { stream: Some(stream), end: true })
}

/// The read half of [`TcpStream::split`].
#[derive(Debug)]
pub struct ReadHalf<'a> {
    stream: &'a TcpStream,
}

/// The write half of [`TcpStream::split`].
#[derive(Debug)]
pub struct WriteHalf<'a> {
    stream: &'a TcpStream,
}

/// The read half of [`TcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    stream: Rc<TcpStream>,
}

/// The write half of [`TcpStream::into_split`]. Dropping it shuts the connection down for writing, once
/// what has been sent is on its way.
pub struct OwnedWriteHalf {
    stream: Option<Rc<TcpStream>>,
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
reads!([] OwnedReadHalf);
writes!(['a] WriteHalf<'a>);
writes!([] OwnedWriteHalf);

impl ReadHalf<'_> {
    fn stream(&self) -> &TcpStream {
        self.stream
    }
}

impl WriteHalf<'_> {
    fn stream(&self) -> &TcpStream {
        self.stream
    }
}

impl OwnedReadHalf {
    fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Puts the connection together again.
    ///
    /// # Errors
    /// The halves are of two connections; both come back.
    pub fn reunite(self, mut write: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        if !Rc::ptr_eq(&self.stream, write.shared()) {
            return Err(ReuniteError(self, write));
        }
        write.end = false;
        drop(write);
        Ok(Rc::into_inner(self.stream).expect("a connection has two halves"))
    }
}

impl OwnedWriteHalf {
    fn shared(&self) -> &Rc<TcpStream> {
        self.stream.as_ref().expect("there until the drop")
    }

    fn stream(&self) -> &TcpStream {
        self.shared().deref()
    }

    /// Drops the half without ending the stream for the peer.
    pub fn forget(mut self) {
        self.end = false;
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take()
            && self.end
        {
            // On the spot: a shutdown neither waits nor needs the kernel's completion.
            let socket = &stream.socket;
            let _ = socket.reactor.driver.shutdown(socket.fd, Shutdown::Write);
        }
    }
}

impl fmt::Debug for OwnedWriteHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedWriteHalf").field("stream", self.stream()).finish()
    }
}

/// The halves of two different connections.
#[derive(Debug)]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves are of two different connections")
    }
}

impl std::error::Error for ReuniteError {}
