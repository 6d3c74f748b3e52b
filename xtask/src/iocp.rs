//! `iocp`: the room of Windows, run on Linux.
//!
//! A build of its own (`--cfg pelton_iocp_elsewhere`) has the calls of Windows made of the simulated system
//! (`crates/pelton-driver/src/sys/iocp/elsewhere`). So the room runs under the simulator's worlds, its faults and its
//! checkers, and under the conformance suite. What a real system does beyond that is for `windows` to show.

use crate::Outcome;
use crate::args::Args;
use crate::nightly::separate_target;
use crate::run::{cargo, count_tests};
use crate::tally::Tally;

const SUITES: &[&[&str]] = &[
    &["-p", "pelton-driver", "--features", "sim", "--lib", "iocp"],
    &["-p", "pelton-conformance", "--lib", "ports"],
    &["-p", "pelton-conformance", "--test", "differential"],
    &["-p", "pelton-swarm", "--test", "worlds", "ports"],
];

pub(crate) fn verb(args: Args) -> Outcome {
    let rest = args.rest()?;
    if !cfg!(target_os = "linux") {
        println!("skipped: iocp: the simulator runs on Linux; on Windows `test` runs the real one");
        return Ok(());
    }
    let target = separate_target("iocp")?;
    let mut total = Tally::default();
    let mut failed = Vec::new();
    for suite in SUITES {
        let mut command = cargo();
        command.args(["test", "--no-fail-fast", "--target-dir", &target]).args(*suite).args(&rest);
        command.env("RUSTFLAGS", "--cfg pelton_iocp_elsewhere");
        let (tally, verdict) = count_tests(&mut command)?;
        total += tally;
        failed.extend(verdict.err());
    }
    println!("iocp: {total}");
    match failed.into_iter().next() {
        Some(why) => Err(why),
        None if total.ran() == 0 => Err("no test ran".into()),
        None => Ok(()),
    }
}
