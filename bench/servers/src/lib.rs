//! What the benchmark's programs share: the command line, the listener, the count that ends them, the
//! service that the HTTP servers answer with, and the list of micro-benchmarks.
//!
//! Nothing here knows any runtime: a program links the one that it measures and no other.

pub mod allocs;
pub mod args;
pub mod count;
pub mod http;
pub mod listen;
pub mod micro;
pub mod system;
pub mod versions;

use std::io::Write;
use std::net::SocketAddr;

/// Tells whoever started this program where it listens, in one line.
pub fn ready(name: &str, address: SocketAddr, detail: &str) {
    let pid = std::process::id();
    let mut out = std::io::stdout().lock();
    // Nobody there to read it is no reason not to serve.
    let _ = writeln!(out, "ready {name} addr={address} pid={pid} detail=\"{detail}\"");
    let _ = out.flush();
}

/// Ends the program because it cannot do its work.
pub fn fail(name: &str, what: impl std::fmt::Display) -> ! {
    eprintln!("{name}: {what}");
    std::process::exit(1)
}
