//! A simulated operating system under the rooms.
//!
//! # Where the simulation begins
//!
//! The rooms for io_uring and epoll run as they are. Where they would call the kernel they ask first whose
//! the descriptor is: numbers from 2^30 on belong to a simulated system, and no real system gives them out. So
//! everything above the system call is the code that runs in production: the staging of entries, the backlog
//! of a full queue, rings of provided buffers, readiness, retries, cancels, the close protocol. What is
//! simulated is the kernel: its queues in memory, its files, its network, its disks, its clock.
//!
//! # Who may touch what, when
//!
//! A world is one value with everything in it, borrowed for the length of one call. It never runs anybody
//! else's code while it is borrowed: jobs of the blocking pool, and whatever they drop, are handed out first.
//! The memory of an operation in flight is the world's from the enter that took the entry to the completion:
//! it is sealed (`seal.rs`) and written at the moment of the completion, from user space, so that Miri and
//! AddressSanitizer see whoever else is at it.
//!
//! # What decides
//!
//! Everything that a real system leaves open is a choice (`choices.rs`) of the seed; every fault (`fault.rs`)
//! is one too. Time is virtual: it stands still while code runs and jumps to the next event (`state.rs`).

pub(crate) mod calls;
mod choices;
mod datagram;
mod disk;
mod epoll;
mod fault;
mod file;
pub(crate) mod local;
mod message;
mod pipe;
#[cfg_attr(
    not(pelton_iocp_elsewhere),
    allow(dead_code, reason = "its room runs in builds for tests")
)]
pub(crate) mod port;
#[cfg_attr(
    not(pelton_iocp_elsewhere),
    allow(dead_code, reason = "its room runs in builds for tests")
)]
pub(crate) mod port_calls;
mod ring;
mod seal;
mod shrink;
mod sparse;
mod state;
mod stream;
mod table;
mod words;
mod world;

pub use choices::{Decision, Name, script_text};
pub use fault::{Fault, Faults};
pub use shrink::shrink;
pub use state::{HostId, ProcId as ReactorId};
pub use world::{Entered, Rooms, World, WorldOptions};
