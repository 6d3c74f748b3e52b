//! The measurements. [`slices`] compares times; the others count, and come out the same each time.

pub(crate) mod allocations;
pub(crate) mod cpu;
pub(crate) mod instructions;
mod lock_step;
pub(crate) mod memory;
pub(crate) mod micro;
pub(crate) mod slices;
pub(crate) mod stats;
pub(crate) mod syscalls;

use std::path::PathBuf;

use crate::cells::Load;
use crate::roster::{self, Spec};

/// Where the servers' programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) dir: PathBuf,
    /// The same programs built to count their allocations.
    pub(crate) counting: PathBuf,
}

/// The plain request of a server, for what is counted.
fn plain_load(spec: &Spec) -> Load {
    if roster::is_http(&spec.name) {
        Load::Http { path: "/", depth: 1 }
    } else {
        Load::Echo { size: 64, depth: 1 }
    }
}

/// The connections of all counts that are made with many.
pub(crate) const CONNECTIONS: usize = 64;
