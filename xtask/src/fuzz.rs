//! `fuzz`: libFuzzer on the targets of `fuzz/`, for so long.
//!
//! It passes the compiler the flags that cargo-fuzz passes it, so that needs not be installed; where it is,
//! `cargo fuzz run TARGET` does the same and more.

use crate::Outcome;
use crate::args::Args;
use crate::nightly::{host, lacks_asan, unless_skipped};
use crate::run::{nightly, root, run};

const TARGETS: &[&str] = &["script", "request", "parse"];

/// Coverage of every edge, what is compared with what, and AddressSanitizer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    --cfg fuzzing -Zsanitizer=address -Ccodegen-units=1";

pub(crate) fn verb(mut args: Args) -> Outcome {
    let seconds = match args.value("--seconds")? {
        None => 60,
        Some(text) => text.parse::<u32>().map_err(|_| format!("--seconds {text}: no number"))?,
    };
    let chosen: Vec<&str> = TARGETS.iter().copied().filter(|name| args.flag(name)).collect();
    let targets = if chosen.is_empty() { TARGETS.to_vec() } else { chosen };
    unless_skipped(args, "fuzz", lacks_asan, || {
        let host = host()?;
        targets.iter().try_for_each(|target| fuzz(target, seconds, &host))
    })
}

fn fuzz(target: &str, seconds: u32, host: &str) -> Outcome {
    let folder = root().join("fuzz");
    let corpus = folder.join("corpus").join(target);
    let found = folder.join("artifacts").join(target);
    for folder in [&corpus, &found] {
        std::fs::create_dir_all(folder).map_err(|error| format!("{folder:?}: {error}"))?;
    }
    let mut command = nightly("cargo");
    command.args(["run", "--release", "--target", host, "--bin", target, "--"]).arg(&corpus);
    command.arg(folder.join("seeds").join(target));
    command.arg(format!("-max_total_time={seconds}"));
    // No input is to take long: one that does is a finding, as one that crashes.
    command.args(["-timeout=30", "-print_final_stats=1"]);
    command.arg(format!("-artifact_prefix={}/", found.display()));
    command.current_dir(&folder).env("RUSTFLAGS", FLAGS);
    // A process that fuzzes ends in the middle of things, and cannot be traced in some containers.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    run(&mut command)
}
