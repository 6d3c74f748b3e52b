//! Operations in, completions out: the driver under the [Pelton](https://docs.rs/pelton) runtime, usable
//! alone, with no executor and no async.
//!
//! One closed list of operations ([`Op`]) runs on io_uring and on epoll with one behaviour; the backend is
//! chosen at run time, and [`Driver::fallback`] says why where it is not the best one. What the kernel
//! holds nobody else touches: a submission moves its buffer into the driver, and only the operation's last
//! completion lets go of it. See [`Driver`] to start.
//!
//! ```
//! use pelton_driver::{Config, Driver, Submission, Token};
//! use std::os::unix::net::UnixStream;
//!
//! let driver = Driver::new(Config::default())?;
//! let (one, other) = UnixStream::pair()?;
//! let (one, other) = (driver.attach(one.into())?, driver.attach(other.into())?);
//!
//! let recv = driver.submit(Submission::recv(other, [0; 16]), Token::NONE).map_err(|r| r.error)?;
//! let send = driver.submit(Submission::send_all(one, "hello"), Token::NONE).map_err(|r| r.error)?;
//! while !driver.is_done(&recv) {
//!     driver.tick(None, |_completion| {})?;
//! }
//! let (received, buf) = driver.take(recv).expect("it is done");
//! assert_eq!(&buf[..received?], b"hello");
//! # drop(send);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//! - `bytes`: buffer traits for `bytes::Bytes` and `bytes::BytesMut`.
//! - `fake-kernel`: `FakeKernel`, a kernel that a test plays.
//! - `sim`: `Backend::Sim`, a simulated system under the real backends.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "some of what rooms share only others use")
)]

#[cfg(all(feature = "sim", not(target_os = "linux")))]
compile_error!("the feature `sim` runs on Linux: the simulated system answers as that does");

// First, for its macro.
#[cfg(not(pelton_mutants))]
#[macro_use]
mod mutant;
#[cfg(pelton_mutants)]
#[doc(hidden)]
#[macro_use]
pub mod mutant;

pub mod blocking;
mod buf;
mod config;
mod core;
mod counters;
mod descriptor;
mod directory;
mod driver;
#[cfg(all(test, not(any(loom, shuttle))))]
mod fake_tests;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod items;
mod latch;
mod memory;
mod message;
#[cfg(windows)]
mod named_pipe;
mod notify;
mod op;
mod parked;
mod payload;
mod pool;
mod prefetch;
pub mod probe;
mod scratch;
mod seam;
#[cfg(feature = "sim")]
pub mod sim;
mod slot;
mod sync;
mod sys;
pub mod system;
mod timer;
mod unix_address;

pub use buf::{IoBuf, IoBufMut, IoVectored, IoVectoredMut, Slice, Spare};
pub use config::{Backend, Config, ConfigError, Error};
pub use core::{Completion, Distance, OnCompletion};
pub use counters::{Count, Counters, Snapshot};
pub use descriptor::Fd;
pub use directory::{Change, ChangeBuffer, Directory, DirectoryWatch};
pub use driver::{
    DatagramOption, Driver, Launched, ListenOptions, MOST_WAITING, Recipient, Refused, Started,
    Tick,
};
pub use latch::{Raise, WakeLatch};
pub use message::{Control, ControlMessage, Received};
#[cfg(windows)]
pub use named_pipe::{PipeClientOptions, PipeServerOptions};
pub use notify::Notifier;
pub use op::{Form, Interest, KINDS, Kind, Op, Submission};
pub use payload::{
    Accepted, Accepting, Connecting, ConnectingUnix, Filling, FillingAll, FillingMessage, Leasing,
    ManyAccepts, ManyLeases, MessagePart, Multishot, Own, Payload, Plain, ReceivingFrom,
    ReceivingMessage, Sending, SendingAll, SendingAway, SendingFile, SendingMessage, SendingTo,
    SendingWhole,
};
pub use pool::Lease;
#[doc(hidden)]
pub use prefetch::prefetch;
pub use scratch::MAX_PARTS;
pub use seam::{InCall, Prepared, RawEntry, Ready, Seam};
pub use slot::{Flight, Key, OpId, Token};
#[cfg(any(test, feature = "fake-kernel"))]
pub use sys::fake::{FakeKernel, Held};
pub use sys::{BorrowedDescriptor, OwnedDescriptor, RawDescriptor, errno};
pub use system::{OpenOptions, lookup};
pub use unix_address::UnixAddr;
