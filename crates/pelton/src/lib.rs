//! **Pelton**: a completion-based, thread-per-core I/O runtime. One list of operations on io_uring and on
//! epoll, with one behaviour; the backend is chosen at run time.
//!
//! ```
//! use pelton::net::{TcpListener, TcpStream};
//!
//! #[pelton::main]
//! async fn main() -> std::io::Result<()> {
//!     let listener = TcpListener::bind("127.0.0.1:0").await?;
//!     let client = pelton::spawn(TcpStream::connect(listener.local_addr()?));
//!
//!     let (stream, _peer) = listener.accept().await?;
//!     pelton::spawn(async move {
//!         while let Some(chunk) = stream.recv().await? {
//!             stream.send_all(chunk).await?; // a lease on a pooled buffer: no copy
//!         }
//!         std::io::Result::Ok(())
//!     })
//!     .detach();
//!
//!     let client = client.await??;
//!     client.send_all("hello").await?;
//!     assert_eq!(&*client.recv().await?.expect("an echo"), b"hello");
//!     Ok(())
//! }
//! ```
//!
//! - A [`Runtime`] is one reactor on the calling thread; a [`Fleet`] is one per core.
//! - Tasks stay on their reactor: they need not be `Send`, and whatever wakes them, they resume there.
//!   [`Handle`] reaches a reactor from other threads.
//! - Any future can be dropped at any moment: what the kernel holds stays in the reactor until the kernel
//!   has let go.
//! - [`driver`] is the layer below, usable without any of this.
//!
//! # Features
//! - `bytes`: buffer traits for `bytes::Bytes` and `bytes::BytesMut`.
//! - `sim`: `pelton::sim` and `#[pelton::sim_test]`, deterministic simulation for tests; `Backend::Sim`, a
//!   simulated system under the real backends.

#[macro_use(mutant)]
extern crate pelton_driver as _;

pub use pelton_driver as driver;
pub use pelton_driver::system::random;
pub use pelton_driver::{Backend, Lease};
#[cfg(feature = "sim")]
pub use pelton_macros::sim_test;
pub use pelton_macros::{main, test};

mod blocking;
mod fault;
mod fleet;
pub mod fs;
mod handle;
pub mod hash;
mod inbox;
pub mod io;
pub mod net;
mod operation;
pub mod own;
pub mod pipe;
pub mod process;
mod reactor;
mod reads;
mod remote_join;
mod runtime;
pub mod signal;
#[cfg(feature = "sim")]
pub mod sim;
mod socket;
mod task;
pub mod time;

pub use blocking::spawn_blocking;
pub use fault::Fault;
pub use fleet::{Drain, Fleet, FleetBuilder, FleetError, Member};
pub use handle::{CallError, Closed, Handle};
pub use remote_join::RemoteJoinHandle;
pub use runtime::{Builder, Dispatch, Runtime, block_on, sendable, shutdown_requested, spawn};
pub use task::{JoinError, JoinHandle, yield_now};

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The tutorial's examples, compiled.
#[cfg(all(doctest, feature = "sim"))]
#[doc = include_str!("../../../docs/simulation.md")]
struct Simulation;

#[cfg(doctest)]
mod not_send;
