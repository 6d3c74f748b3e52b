//! `interrupted`: the tests while the kernel interrupts every third wait, and while it refuses io_uring.
//!
//! strace runs each test program and answers the system call in the kernel's place. A runtime that takes
//! `EINTR` for an error, loses what was staged, or waits once more than it may, fails here.

use std::process::Command;

use crate::Outcome;
use crate::args::Args;
use crate::run::{cargo, count_tests, succeeds};
use crate::tally::Tally;

/// What is injected, and the backend that meets it.
const INJECTIONS: &[(&str, &str)] = &[
    ("io_uring_enter:error=EINTR:when=2+3", "io_uring"),
    ("epoll_pwait,epoll_pwait2:error=EINTR:when=2+3", "epoll"),
    ("io_uring_setup:error=EPERM", ""),
    ("io_uring_setup:error=ENOSYS", ""),
];

/// Every test program of the workspace that enters the kernel. Not the documentation's tests, which cargo
/// runs without a runner.
const TESTS: &[&str] = &["--workspace", "--all-features", "--lib", "--bins", "--tests"];

pub(crate) fn verb(mut args: Args) -> Outcome {
    let only = args.value("--only")?;
    let require = args.flag("--require");
    let narrowed = args.rest()?;
    let chosen: Vec<_> = INJECTIONS
        .iter()
        .filter(|(injection, _)| only.as_ref().is_none_or(|only| injection.contains(only)))
        .collect();
    if chosen.is_empty() {
        let all: Vec<_> = INJECTIONS.iter().map(|(injection, _)| *injection).collect();
        return Err(format!("--only {}: none of {}", only.unwrap_or_default(), all.join(", ")));
    }
    if !succeeds(Command::new("strace").arg("-V")) {
        let lacking = "strace is not installed; `apt-get install strace`";
        if require {
            return Err(lacking.into());
        }
        println!("skipped: interrupted: {lacking}");
        return Ok(());
    }
    let mut total = Tally::default();
    let mut failed = Vec::new();
    for (injection, backend) in chosen {
        let mut command = cargo();
        command.args(["test", "--no-fail-fast"]);
        if narrowed.is_empty() {
            command.args(TESTS);
        }
        command.args(&narrowed).env(runner(), strace(injection));
        match *backend {
            "" => command.env_remove("PELTON_BACKEND"),
            name => command.env("PELTON_BACKEND", name),
        };
        let (tally, verdict) = count_tests(&mut command)?;
        println!("{injection}: {tally}");
        total += tally;
        if let Err(error) = verdict {
            eprintln!("xtask: {injection}: {error}");
            failed.push(*injection);
        }
    }
    println!("{total}");
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// The variable by which cargo is told what to run test programs with.
fn runner() -> String {
    let (arch, system) = (std::env::consts::ARCH, std::env::consts::OS);
    format!("CARGO_TARGET_{arch}_UNKNOWN_{system}_GNU_RUNNER").to_uppercase()
}

/// Children are followed, because some tests are about the program; nothing else is traced or printed.
fn strace(injection: &str) -> String {
    format!("strace -f --seccomp-bpf -qq -o /dev/null -e trace=none -e inject={injection}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_injection_that_is_none_is_refused_with_the_list() {
        let words = ["--only", "write"].map(Into::into);
        let error = verb(Args::parse(words.into_iter()).unwrap()).unwrap_err();
        assert!(error.contains("write") && error.contains("io_uring_enter"), "{error}");
    }

    #[test]
    fn the_runner_is_the_one_that_cargo_reads_on_this_machine() {
        assert!(runner().starts_with("CARGO_TARGET_") && runner().ends_with("_RUNNER"));
        assert_eq!(runner(), runner().to_uppercase());
    }
}
