//! `kqueue`: the room of macOS and the BSDs, run on Linux.
//!
//! A build of its own (`--cfg pelton_kqueue_elsewhere`) has a stand-in for the kernel's queue, which asks epoll
//! (`crates/pelton-driver/src/sys/kqueue/elsewhere.rs`). So every line of the room runs under the same tests as the
//! others; what a real kernel tells of ends and errors is for the systems themselves to show.

use std::process::Command;

use crate::Outcome;
use crate::args::Args;
use crate::nightly::separate_target;
use crate::run::{cargo, count_tests, output_of};
use crate::tally::Tally;

const SUITES: &[&[&str]] = &[
    &["-p", "pelton-driver", "--all-features", "--lib", "--tests"],
    &["-p", "pelton", "--features", "bytes", "--lib", "--tests"],
    &["-p", "pelton-conformance", "--lib", "kqueue"],
    &["-p", "pelton-conformance", "--test", "differential"],
];

pub(crate) fn verb(args: Args) -> Outcome {
    let rest = args.rest()?;
    if !cfg!(target_os = "linux") {
        println!(
            "skipped: kqueue: epoll plays the queue, which only Linux has; here `test` runs the real one"
        );
        return Ok(());
    }
    let target = separate_target("kqueue")?;
    let mut total = Tally::default();
    let mut failed = Vec::new();
    for suite in SUITES {
        let mut command = elsewhere(&target, &["test", "--no-fail-fast"]);
        command.args(*suite).args(&rest).env("PELTON_BACKEND", "kqueue");
        let (tally, verdict) = count_tests(&mut command)?;
        total += tally;
        failed.extend(verdict.err());
    }
    println!("kqueue: {total}");
    match failed.into_iter().next() {
        Some(why) => Err(why),
        None if total.ran() == 0 => Err("no test ran".into()),
        None => Ok(()),
    }
}

/// The cells of the page of behaviours that the room has shown; none on another system than Linux.
pub(crate) fn shown() -> Outcome<String> {
    if !cfg!(target_os = "linux") {
        return Ok(String::new());
    }
    let words = ["run", "--quiet", "--package", "pelton-conformance"];
    output_of(elsewhere(&separate_target("kqueue")?, &words).args(["--", "show", "kqueue"]))
}

/// A cargo that builds the room with the stand-in, in a directory of its own.
fn elsewhere(target: &str, words: &[&str]) -> Command {
    let mut command = cargo();
    command.args(words).args(["--target-dir", target]);
    command.env("RUSTFLAGS", "--cfg pelton_kqueue_elsewhere");
    command
}
