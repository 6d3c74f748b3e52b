//! One suite for every backend: a behaviour is a function over a [`Bench`], written against the public driver
//! and runtime, and runs wherever a driver can be made.
//!
//! # Rules for a behaviour
//!
//! - It uses the public API and nothing else: no sockets of `std`, so that it runs on a simulated system too.
//! - Time is [`pelton_driver::Driver::now`] or `pelton::time::now`, and nothing sleeps.
//! - Threads only where the behaviour is about them; its row then says `needs threads`, and a simulated
//!   system, which is one thread, leaves it out.
//! - Ports are the system's choice, and files are in a directory of the bench's own.
//! - It leaves nothing behind. The bench checks that at the end, by itself.
//! - It expects what Pelton promises, not what one kernel happens to do: a receive may bring less than is
//!   there, a send may take less than it could. Faults that Pelton must hide are on in `sim::faults`.
//!
//! Each file of behaviours has a table with the tests of older systems that a behaviour comes from; the rows
//! that come from nowhere are Pelton's own. The table makes tests `io_uring::…`, `epoll::…` and `sim::…` of
//! them, and the rows of docs/conformance.md.

mod bench;
mod registry;
mod rig;
mod rows;
mod table;
#[cfg_attr(not(target_os = "linux"), path = "no_worlds.rs")]
mod worlds;

mod cancelling;
mod closing;
mod datagrams;
mod files;
mod listening;
mod local;
mod messages;
mod pipes;
mod polls;
mod pooled;
mod seam;
mod sendfile;
mod streams;
mod ticks;
mod timers;
mod vectored;
mod wakes;

mod blocking;
mod connections;
mod directories;
mod processes;
mod shutdown;
mod sleeping;
mod tasks;
mod threads;

pub use bench::{Bench, Outcome, System, on};
pub use registry::{Behaviour, Origin, Source};
pub use rig::{Rig, errno, pattern, small};
pub use rows::{ROWS, Row};
pub use table::{check, show, write};

/// Every behaviour, in the order of the table.
pub fn behaviours() -> Vec<&'static Behaviour> {
    let subjects: &[&'static [Behaviour]] = &[
        ticks::BEHAVIOURS,
        timers::BEHAVIOURS,
        wakes::BEHAVIOURS,
        polls::BEHAVIOURS,
        listening::BEHAVIOURS,
        streams::BEHAVIOURS,
        vectored::BEHAVIOURS,
        pooled::BEHAVIOURS,
        datagrams::BEHAVIOURS,
        messages::BEHAVIOURS,
        local::BEHAVIOURS,
        pipes::BEHAVIOURS,
        files::BEHAVIOURS,
        sendfile::BEHAVIOURS,
        cancelling::BEHAVIOURS,
        closing::BEHAVIOURS,
        seam::BEHAVIOURS,
        tasks::BEHAVIOURS,
        threads::BEHAVIOURS,
        sleeping::BEHAVIOURS,
        connections::BEHAVIOURS,
        blocking::BEHAVIOURS,
        processes::BEHAVIOURS,
        directories::BEHAVIOURS,
        shutdown::BEHAVIOURS,
    ];
    subjects.iter().flat_map(|subject| subject.iter()).collect()
}
