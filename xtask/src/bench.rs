//! `bench`, `goals` and `gate`: build the benchmark's own workspace and run it.
//!
//! The servers are built twice: as they are, and in a directory of their own with an allocator that counts.
//! `gate` needs neither the other runtimes nor long: what it compares are counts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::Outcome;
use crate::args::Args;
use crate::run::{cargo, root, run};

pub(crate) fn bench(args: Args) -> Outcome {
    measure("run", args, Servers::All)
}

pub(crate) fn goals(args: Args) -> Outcome {
    measure("goals", args, Servers::All)
}

pub(crate) fn gate(mut args: Args) -> Outcome {
    let update = args.flag("--update");
    args.finish()?;
    if !cfg!(target_os = "linux") {
        println!("skipped: gate: it counts with valgrind and io_uring, on Linux");
        return Ok(());
    }
    let mut command = build(Servers::OwnAndRaw)?;
    command.arg("gate");
    if update {
        command.arg("--update");
    }
    run(&mut command)
}

#[derive(Clone, Copy)]
enum Servers {
    All,
    /// Pelton's and the raw loops.
    OwnAndRaw,
}

fn measure(what: &str, mut args: Args, servers: Servers) -> Outcome {
    let quick = args.flag("--quick");
    let rest: Vec<OsString> = args.rest()?;
    let mut command = build(servers)?;
    command.arg(what);
    if quick {
        command.arg("--quick");
    }
    run(command.args(rest))
}

/// Builds the servers and the harness, and gives the harness to run.
fn build(servers: Servers) -> Outcome<Command> {
    let target = root().join("target").join("bench");
    let features: &[&str] = match servers {
        Servers::All => &[],
        Servers::OwnAndRaw => &["--no-default-features"],
    };
    run(bench_cargo(&target).args(["-p", "pelton-bench"]))?;
    run(bench_cargo(&target).args(["-p", "pelton-bench-servers"]).args(features))?;
    let counting = target.join("counting");
    run(bench_cargo(&counting)
        .args(["-p", "pelton-bench-servers", "--features", "count-allocs"])
        .args(features))?;
    let mut command = Command::new(target.join("release").join("pelton-bench"));
    command.current_dir(root());
    command.arg("--bench-dir").arg("bench");
    // Relative to the root: the result records the command, and is no place for this machine's paths.
    command.args(["--counting-dir", "target/bench/counting/release"]);
    Ok(command)
}

fn bench_cargo(target: &PathBuf) -> Command {
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "--manifest-path", "bench/Cargo.toml"]);
    command.arg("--target-dir").arg(target);
    command
}
