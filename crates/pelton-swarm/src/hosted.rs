//! Running a world of the runtime's: hosts and clients under `pelton::sim`.

use std::time::Duration;

use pelton::sim::{self, Failure, Sim};

use crate::{Options, Stats};

/// Runs a scenario under a seed.
pub(crate) fn run(
    seed: u64,
    options: &Options,
    minutes: u64,
    scenario: fn(&Sim),
) -> Result<Stats, Box<Failure>> {
    let span = Duration::from_secs(60 * minutes);
    // Workers that panic on purpose are part of these worlds; what is wrong is told by other means.
    let mut run = sim::Options::new(seed)
        .allow_panics(true)
        .rooms(options.rooms)
        .faults(options.faults.of(seed))
        .twice(options.twice)
        .time_limit(span)
        .grace(span.max(Duration::from_secs(600)));
    if let Some(text) = &options.replay {
        run = run.replay(text);
    }
    let report = sim::try_run(run, scenario)?;
    Ok(Stats {
        events: report.events,
        choices: report.choices,
        elapsed: report.elapsed,
        trace_hash: report.trace_hash,
    })
}

/// A pause after something that failed, as any application makes one.
pub(crate) async fn pause() {
    pelton::time::sleep(Duration::from_millis(10)).await;
}

/// What must be true, or else the run has failed: also in a task, whose panic only its handle hears of.
macro_rules! must {
    ($true:expr, $($what:tt)+) => {
        if !$true {
            pelton::sim::current().world().violation(format!($($what)+));
        }
    };
}
pub(crate) use must;
