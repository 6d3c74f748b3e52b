//! What came of a run.

use std::fmt;
use std::time::Duration;

use pelton_driver::sim::Decision;

/// Lines that a host or the test wrote, at most so many of which are shown: the last.
const MOST_TOLD: usize = 60;

/// Why a run failed, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A client, a host or a task panicked: an assertion of the test, as a rule.
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

/// A run that failed. Its display is what [`run`](super::run) panics with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Which kind of failure.
    pub kind: Kind,
    /// What was wrong.
    pub what: String,
    /// When it was, in virtual time since the start.
    pub at: Duration,
    /// The choices that make it happen, and none that need not be: what shrinking left.
    pub story: Vec<Decision>,
    /// What the test did, and what [`Sim::tell`](super::Sim::tell) was given, and when.
    pub told: Vec<(Duration, String)>,
    /// How many of the choices of the whole run were not dull.
    pub decisions: usize,
    /// How many runs shrinking took; 0 where it was not shrunk.
    pub shrunk_in: usize,
    /// The command that makes just this happen again.
    pub again: String,
}

impl Failure {
    /// What the environment variable `PELTON_SIM_REPLAY` takes to make just this happen again.
    pub fn replay(&self) -> String {
        pelton_driver::sim::script_text(&self.story)
    }

    /// The story line by line: the choices, marked with a star, between what was told.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<(u64, String)> = Vec::new();
        let told = &self.told[self.told.len().saturating_sub(MOST_TOLD)..];
        for (at, words) in told {
            let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
            lines.push((nanos, format!("  {}  {words}", moment(nanos))));
        }
        // A choice without words only details another one; where none has any, a number is better than
        // nothing.
        let any_words = self.story.iter().any(|decision| !decision.story.is_empty());
        for decision in &self.story {
            let Decision { at, story, label, who, value, .. } = decision;
            if !story.is_empty() {
                lines.push((*at, format!("* {}  {story}", moment(*at))));
            } else if !any_words {
                lines.push((*at, format!("* {}  {label} of {who} was {value}", moment(*at))));
            }
        }
        lines.sort_by_key(|line| line.0);
        lines.into_iter().map(|line| line.1).collect()
    }
}

fn moment(nanos: u64) -> String {
    format!("{:>12.3} ms", nanos as f64 / 1e6)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.as_secs_f64() * 1e3;
        writeln!(f, "seed {} failed after {at:.3} ms: {}", self.seed, self.what)?;
        if self.kind != Kind::NotDeterministic {
            if self.story.is_empty() {
                writeln!(f, "it happens without any fault, with everything in its dullest order:")?;
            } else if self.shrunk_in > 0 {
                writeln!(
                    f,
                    "{} of {} choices are needed for that, as {} runs have shown (* is a choice):",
                    self.story.len(),
                    self.decisions,
                    self.shrunk_in
                )?;
            } else {
                writeln!(f, "these choices were made (* is a choice):")?;
            }
        }
        for line in self.lines() {
            writeln!(f, "{line}")?;
        }
        write!(f, "again:\n{}", self.again)
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
    /// The virtual time that passed.
    pub elapsed: Duration,
}
