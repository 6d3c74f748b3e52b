//! What came of a run.

use std::fmt;
use std::time::Duration;

use pelton_driver::sim::Decision;

/// Why a run failed, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A client or a host panicked: an assertion of the test, as a rule.
    Panic,
    /// A client or a host ended with an error.
    Error,
    /// A checker of the simulation fired.
    Violation,
    /// With all faults off something did not come to its end.
    Stuck,
    /// The same seed did two different things.
    NotDeterministic,
}

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Which kind of failure.
    pub kind: Kind,
    /// What was wrong.
    pub what: String,
    /// The choices that make it happen, and none that need not be: what shrinking left.
    pub story: Vec<Decision>,
    /// How many of the choices of the whole run were not dull.
    pub decisions: usize,
    /// How many runs shrinking took.
    pub shrunk_in: usize,
}

impl Failure {
    /// What the environment variable `PELTON_SIM_REPLAY` takes to make just this happen again.
    pub fn replay(&self) -> String {
        pelton_driver::sim::script_text(&self.story)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} failed: {}", self.seed, self.what)?;
        if self.story.is_empty() {
            writeln!(f, "it happens without any fault and with everything in its dullest order")?;
        } else {
            writeln!(
                f,
                "of {} choices {} are needed ({} runs to find that out):",
                self.decisions,
                self.story.len(),
                self.shrunk_in
            )?;
            for decision in &self.story {
                writeln!(f, "  {decision}")?;
            }
        }
        let test = std::thread::current().name().unwrap_or("TEST").to_owned();
        write!(
            f,
            "again: PELTON_SIM_SEED={} PELTON_SIM_REPLAY='{}' cargo test {test}",
            self.seed,
            self.replay()
        )
    }
}

/// A run that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A number for everything that happened.
    pub trace_hash: u64,
    /// Events that happened.
    pub events: u64,
    /// Choices that were made, dull ones too.
    pub choices: u64,
    /// The virtual time that passed.
    pub elapsed: Duration,
}
