//! `sim`: builds the swarm of simulated worlds in release and runs it.

use crate::Outcome;
use crate::args::Args;
use crate::run::{cargo, run};

pub(crate) fn verb(mut args: Args) -> Outcome {
    let seeds = args.value("--seeds")?;
    let world = args.value("--world")?;
    let rest = args.rest()?;
    let mut command = cargo();
    command.args(["run", "--release", "-p", "pelton-swarm", "--", "run"]);
    for (option, value) in [("--seeds", seeds), ("--world", world)] {
        if let Some(value) = value {
            command.args([option, &value]);
        }
    }
    run(command.args(rest))
}
