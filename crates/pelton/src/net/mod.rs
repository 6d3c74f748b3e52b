//! TCP, UDP and Unix sockets on a reactor.
//!
//! Names and meanings are those of `std` and tokio. Calls that take a buffer own it while the kernel does
//! and give it back with the result; [`TcpStream::recv`] needs none: it leases one from the reactor's pool
//! when there is something to receive. Every future here can be dropped at any moment.

mod accepting;
mod address;
mod listener;
mod receive;
mod split;
pub(crate) mod stream;
mod tcp;
mod udp;
mod unix;

pub use address::{Addresses, ToSocketAddrs};
pub use listener::TcpListener;
pub use pelton_driver::{Control, ControlMessage, ListenOptions, Received, UnixAddr};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stream::Connected;
pub use tcp::TcpStream;
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};
