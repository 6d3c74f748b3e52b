//! Where there is no simulated system: the faults that behaviours name, which nothing brings about.

/// Faults that behaviours run without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fault {
    AcceptRunsOut,
    AcceptAborted,
}

impl Fault {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Fault::AcceptRunsOut => "accept-runs-out",
            Fault::AcceptAborted => "accept-aborted",
        }
    }
}
