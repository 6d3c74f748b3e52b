//! Faults that no call can return to anyone: told once, through a hook.

use std::fmt;
use std::io;

/// Something that went wrong in a reactor with nobody waiting for it. The reactor goes on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The kernel refused a wait; the reactor tries again.
    Wait(io::Error),
    /// Descriptors or memory have run out: accepting pauses, and goes on when there are some again. Told
    /// once for each time that it runs out.
    AcceptPaused(io::Error),
    /// A closure posted from another thread panicked.
    PostPanicked,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Wait(error) => write!(f, "the kernel refused to wait, trying again: {error}"),
            Fault::AcceptPaused(error) => write!(
                f,
                "accepting pauses until there is room again: {error} (raise `ulimit -n`, or lower the cap on connections)"
            ),
            Fault::PostPanicked => f.write_str("a closure posted to the reactor panicked"),
        }
    }
}

/// What to do with faults when nobody said otherwise: a line on stderr.
pub(crate) fn print(fault: &Fault) {
    eprintln!("pelton: {fault}");
}
