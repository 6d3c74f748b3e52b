//! What a connected stream socket does, whatever its addresses are.
//!
//! [`Stream`] is the socket with the receive that a dropped future has left behind. `TcpStream` and
//! `UnixStream` are one each, with addresses and options of their own; the calls that move bytes are the same
//! and are `Stream`'s; [`transfers!`] gives them to both types.

use std::io;
use std::net::Shutdown;

use pelton_driver::{IoBuf, IoBufMut, IoVectored, IoVectoredMut, Lease, Submission};

use super::receive::{self, Left, Read, Recv};
use crate::operation::Operation;
use crate::socket::Socket;

/// A connected stream socket. Dropping it closes it; operations in flight on it are cancelled.
pub struct Stream {
    pub(crate) socket: Socket,
    pub(crate) left: Left,
}

impl Stream {
    #[inline]
    pub(crate) fn new(socket: Socket) -> Stream {
        Stream { socket, left: Left::default() }
    }

    #[inline]
    pub(crate) fn recv(&self) -> impl Future<Output = io::Result<Option<Lease>>> {
        Recv::new(self)
    }

    #[inline]
    pub(crate) fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> {
        Read::new(self, buf)
    }

    pub(crate) async fn read_vectored<V: IoVectoredMut>(&self, bufs: V) -> (io::Result<usize>, V) {
        if self.left.is_some() {
            return receive::read_left(self, bufs).await;
        }
        self.socket.operation(bufs, Submission::recv_vectored).await
    }

    #[inline]
    pub(crate) fn write<B: IoBuf>(&self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> {
        self.socket.operation(buf, Submission::send)
    }

    #[inline]
    pub(crate) fn write_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = (io::Result<()>, B)> {
        Operation::new(&self.socket, buf, Submission::send_whole)
    }

    #[inline]
    pub(crate) fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = io::Result<()>> {
        Operation::new(&self.socket, buf, Submission::send_away)
    }

    pub(crate) async fn write_vectored<V: IoVectored>(&self, bufs: V) -> (io::Result<usize>, V) {
        self.socket.operation(bufs, Submission::send_vectored).await
    }

    pub(crate) async fn write_vectored_all<V: IoVectored>(
        &self,
        bufs: V,
    ) -> (io::Result<usize>, V) {
        self.socket.operation(bufs, Submission::send_vectored_all).await
    }

    pub(crate) async fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.operation(how, Submission::shutdown).await.map(drop)
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        if self.left.is_some() {
            return receive::wait_left(self).await;
        }
        let interest = pelton_driver::Interest::Readable;
        self.socket.operation(interest, Submission::poll).await.map(drop)
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        let interest = pelton_driver::Interest::Writable;
        self.socket.operation(interest, Submission::poll).await.map(drop)
    }

    pub(crate) async fn close(self) -> io::Result<()> {
        self.socket.operation((), |fd, ()| Submission::close(fd)).await.map(drop)
    }
}

impl Drop for Stream {
    #[inline]
    fn drop(&mut self) {
        if self.left.is_some()
            && let (Some(key), _) = self.left.take()
        {
            self.socket.reactor.driver.abandon(key);
        }
    }
}

pub(crate) mod sealed {
    /// Nobody else makes streams.
    pub trait Connected {
        fn stream(&self) -> &super::Stream;
    }
}

/// A connection that bytes go through: a [`TcpStream`](super::TcpStream) or a
/// [`UnixStream`](super::UnixStream). There are no others.
pub trait Connected: sealed::Connected + std::fmt::Debug + 'static {}

/// The calls that move bytes, for a type that has a `stream`.
macro_rules! transfers {
    ($connection:ident) => {
        impl $crate::net::stream::sealed::Connected for $connection {
            #[inline]
            fn stream(&self) -> &$crate::net::stream::Stream {
                &self.stream
            }
        }

        impl $crate::net::Connected for $connection {}

        impl $connection {
            /// Receives into a buffer of the reactor's pool, leased until the lease is dropped; nothing at the end
            /// of the stream. An idle connection holds no buffer. Where no buffer is free it waits for one.
            ///
            /// Cancelled: nothing is lost, and nothing stops. The receive stays in flight with the connection, and
            /// the next one goes on with it.
            ///
            /// # Errors
            /// What the connection failed with.
            #[inline]
            pub fn recv(&self) -> impl Future<Output = io::Result<Option<Lease>>> {
                self.stream.recv()
            }

            /// Receives once into a buffer; 0 bytes are the end of the stream. A `Vec` is filled behind what it
            /// has.
            ///
            /// Cancelled: what had been received into the buffer is lost with it. [`Self::recv`] loses nothing.
            ///
            /// # Errors
            /// What the connection failed with; or the buffer has no room. The buffer comes back in any case.
            #[inline]
            pub fn read<B: IoBufMut>(
                &self,
                buf: B,
            ) -> impl Future<Output = (io::Result<usize>, B)> {
                self.stream.read(buf)
            }

            /// Receives once into several buffers in order.
            ///
            /// # Errors
            /// As for [`Self::read`].
            pub fn read_vectored<V: IoVectoredMut>(
                &self,
                bufs: V,
            ) -> impl Future<Output = (io::Result<usize>, V)> {
                self.stream.read_vectored(bufs)
            }

            /// Sends some of a buffer, and says how much.
            ///
            /// # Errors
            /// What the connection failed with. The buffer comes back in any case.
            #[inline]
            pub fn write<B: IoBuf>(&self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> {
                self.stream.write(buf)
            }

            /// Sends all of a buffer and gives it back. More than 2 GiB at once are refused.
            ///
            /// Cancelled: an unknown part of the buffer has been sent.
            ///
            /// # Errors
            /// What the connection failed with; an unknown part has been sent then.
            #[inline]
            pub fn write_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = (io::Result<()>, B)> {
                self.stream.write_all(buf)
            }

            /// Sends all of a buffer, a lease for instance, and drops it. Cancelled as [`Self::write_all`].
            ///
            /// # Errors
            /// What the connection failed with; an unknown part has been sent then.
            #[inline]
            pub fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = io::Result<()>> {
                self.stream.send_all(buf)
            }

            /// Sends some of several buffers, in order, and says how much.
            ///
            /// # Errors
            /// As for [`Self::write`].
            pub fn write_vectored<V: IoVectored>(
                &self,
                bufs: V,
            ) -> impl Future<Output = (io::Result<usize>, V)> {
                self.stream.write_vectored(bufs)
            }

            /// Sends all of several buffers, at most [`MAX_PARTS`](crate::driver::MAX_PARTS) of them, and says how
            /// much that was.
            ///
            /// # Errors
            /// As for [`Self::write_all`].
            pub fn write_vectored_all<V: IoVectored>(
                &self,
                bufs: V,
            ) -> impl Future<Output = (io::Result<usize>, V)> {
                self.stream.write_vectored_all(bufs)
            }

            /// Shuts the connection down, one way or both. After `Write` the peer sees the end of the stream.
            ///
            /// # Errors
            /// The connection is not connected any more.
            pub fn shutdown(&self, how: Shutdown) -> impl Future<Output = io::Result<()>> {
                self.stream.shutdown(how)
            }

            /// Waits until something can be received, or the end of the stream or an error has come.
            ///
            /// # Errors
            /// The descriptor cannot be watched.
            pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
                self.stream.readable()
            }

            /// Waits until something can be sent, or an error has come.
            ///
            /// # Errors
            /// The descriptor cannot be watched.
            pub fn writable(&self) -> impl Future<Output = io::Result<()>> {
                self.stream.writable()
            }

            /// Closes the connection and waits until that is done. Dropping it closes it too, and does not wait.
            ///
            /// # Errors
            /// What the system said; the descriptor is gone in any case.
            pub async fn close(self) -> io::Result<()> {
                self.stream.close().await
            }

            /// Halves that borrow the connection, for two futures of one task.
            pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
                split::borrowed(&mut self.stream)
            }

            /// Halves that own the connection, for two tasks. Dropping the write half ends the stream for the peer.
            pub fn into_split(self) -> (OwnedReadHalf<Self>, OwnedWriteHalf<Self>) {
                split::owned(self)
            }

            /// Sets any other option, through `socket2`.
            ///
            /// # Errors
            /// What `f` returned. `Unsupported` on a simulated system.
            pub fn with_socket<R>(
                &self,
                f: impl FnOnce(socket2::SockRef<'_>) -> io::Result<R>,
            ) -> io::Result<R> {
                self.stream.socket.option(f)
            }
        }

        impl std::fmt::Debug for $connection {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let fd = &self.stream.socket.fd;
                f.debug_struct(stringify!($connection)).field("fd", fd).finish_non_exhaustive()
            }
        }
    };
}

pub(super) use transfers;
