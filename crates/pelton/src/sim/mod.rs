//! Deterministic simulation: an application, its clients, and the network between them, on one thread, in
//! virtual time, with faults.
//!
//! A test adds hosts and clients to a [`Sim`]. Each host is one reactor or more, each with a driver of its own
//! on a simulated system, and runs the code that it runs in production. The seed decides whatever a real
//! system leaves open: how long things take, in which order they happen, how many bytes a receive brings, what
//! goes wrong. The same seed does the same again.
//!
//! ```
//! use pelton::io::AsyncReadExt;
//! use pelton::net::{TcpListener, TcpStream};
//! use pelton::sim;
//!
//! sim::run(7, |sim| {
//!     sim.host("greeter", || async {
//!         let listener = TcpListener::bind("0.0.0.0:80").await?;
//!         loop {
//!             let (stream, _) = listener.accept().await?;
//!             // The client may be gone, or the connection reset: that is its loss.
//!             let _ = stream.send_all("hello").await;
//!         }
//!     });
//!     sim.client("visitor", async {
//!         // Faults are part of the bargain: try until one connection holds.
//!         loop {
//!             let Ok(stream) = TcpStream::connect("greeter:80").await else { continue };
//!             if let Ok(Some(greeting)) = stream.recv().await
//!                 && "hello".as_bytes().starts_with(&greeting)
//!             {
//!                 return Ok(());
//!             }
//!         }
//!     });
//! });
//! ```
//!
//! # What is deterministic, and what is not
//!
//! Everything that goes through Pelton is: the order in which tasks run, [`crate::time`], name lookup,
//! [`crate::random`], files, sockets, [`crate::spawn_blocking`] (whose calls run on the one thread, in the
//! simulation's order). What does not go through Pelton is not: `Instant::now`, `SystemTime::now` (use
//! [`crate::time::now`] and [`crate::time::wall`]), the iteration order of std's `HashMap` (use a `BTreeMap`, or
//! [`crate::hash::HashMap`]), threads of one's own, addresses of memory, files of the real system. A run that is not deterministic is reported as such: every seed is run twice.
//!
//! # When a seed fails
//!
//! The failing run is shrunk: faults are taken out as long as it fails. What is left is told in words, with the
//! command that makes exactly that happen again.

mod environment;
mod group;
#[doc(hidden)]
pub mod macro_support;
mod member;
mod options;
mod panics;
mod report;
mod run;
mod scene;
mod shrink;
mod trouble;
mod turns;

pub use group::Group;
pub use options::Options;
pub use pelton_driver::sim::{Decision, Fault, Faults};
pub use report::{Failure, Kind, Report};
pub use run::{current, run, run_seeds, run_seeds_with, run_with, try_run};
pub use scene::Sim;
