//! TCP and UDP on a reactor.
//!
//! Names and meanings are those of `std` and tokio. Calls that take a buffer own it while the kernel does
//! and give it back with the result; [`TcpStream::recv`] needs none: it leases one from the reactor's pool
//! when there is something to receive. Every future here can be dropped at any moment.

mod address;
mod listener;
mod receive;

mod split;
mod stream;
mod udp;

pub use address::{Addresses, ToSocketAddrs};
pub use listener::TcpListener;
pub use pelton_driver::{Control, ControlMessage, ListenOptions, Received};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stream::TcpStream;
pub use udp::UdpSocket;
