//! `targets`: lints and types for the systems that this machine cannot run.
//!
//! Neither needs a linker, only the standard library of the target: rustup's where it is installed, else that of
//! the kit (`kit.rs`), which Debian's packages make.

use std::process::Command;

use crate::Outcome;
use crate::args::Args;
use crate::kit::{self, Kit};
use crate::run::{cargo, output_of, run};

/// Targets whose every lint must hold, tests and examples among what is linted.
const LINTED: &[&str] = &["aarch64-apple-darwin", "x86_64-apple-darwin", "x86_64-unknown-freebsd"];
/// Targets whose types alone are checked. For OpenBSD rustup has no library: only a kit can do these.
const CHECKED: &[&str] = &["x86_64-unknown-netbsd", "x86_64-unknown-openbsd"];

/// The packages that are for those systems, each with what it has there: a simulation needs Linux.
const PORTABLE: &[(&str, &str)] = &[
    ("pelton-driver", "bytes,fake-kernel,fuzzing"),
    ("pelton", "bytes"),
    ("pelton-http", ""),
    ("pelton-cli", ""),
    ("pelton-conformance", ""),
    ("xtask", ""),
];

pub(crate) fn verb(mut args: Args) -> Outcome {
    let (require, install) = (args.flag("--require"), args.flag("--install"));
    let only = args.value("--only")?;
    args.finish()?;
    let wanted = wanted(only.as_deref())?;
    let mut fetched = fetched();
    if install && wanted.iter().any(|target| !fetched.contains(target)) {
        let installed = if kit::lacks().is_none() {
            Ok(())
        } else if kit::can_install() {
            kit::install(&[])
        } else {
            run(Command::new("rustup").args(["target", "add"]).args(LINTED))
        };
        if require {
            installed?;
        }
        fetched = self::fetched();
    }
    let (mut kit, mut done, mut skipped) = (None, Vec::new(), Vec::new());
    for target in wanted {
        if fetched.contains(target) {
            for (package, features) in PORTABLE {
                run(&mut by_rustup(target, package, features))?;
            }
        } else if let Some(lacking) = kit::lacks() {
            skipped.push(format!("{target}: `rustup target add {target}`, or: {lacking}"));
            continue;
        } else {
            let kit = match &kit {
                Some(kit) => kit,
                None => kit.insert(Kit::ready()?),
            };
            kit.types(target)?;
            for (package, features) in PORTABLE {
                run(&mut by_kit(kit, target, package, features))?;
            }
        }
        done.push(format!("{target} ({})", if is_linted(target) { "lints" } else { "types" }));
    }
    println!("targets: {}", if done.is_empty() { "none".into() } else { done.join(", ") });
    match (require, skipped.join("\n")) {
        (_, nothing) if nothing.is_empty() => Ok(()),
        (true, lacking) => Err(lacking),
        (false, lacking) => {
            lacking.lines().for_each(|line| println!("skipped: targets: {line}"));
            Ok(())
        }
    }
}

/// The targets whose names hold `only`.
fn wanted(only: Option<&str>) -> Outcome<Vec<&'static str>> {
    let all = LINTED.iter().chain(CHECKED).copied();
    let wanted: Vec<_> = all.filter(|target| target.contains(only.unwrap_or(""))).collect();
    if wanted.is_empty() {
        let all: Vec<_> = LINTED.iter().chain(CHECKED).copied().collect();
        return Err(format!("--only {}: use {}", only.unwrap_or(""), all.join(", ")));
    }
    Ok(wanted)
}

fn is_linted(target: &str) -> bool {
    LINTED.contains(&target)
}

/// What rustup has fetched for the toolchain that runs.
fn fetched() -> Fetched {
    let root = output_of(Command::new("rustc").args(["--print", "sysroot"])).unwrap_or_default();
    Fetched(std::path::Path::new(root.trim()).join("lib/rustlib"))
}

struct Fetched(std::path::PathBuf);

impl Fetched {
    fn contains(&self, target: &str) -> bool {
        self.0.join(target).join("lib").is_dir()
    }
}

fn by_rustup(target: &str, package: &str, features: &str) -> Command {
    let mut command = cargo();
    let verb = if is_linted(target) { "clippy" } else { "check" };
    command.args([verb, "--target", target, "--package", package, "--features", features]);
    if is_linted(target) {
        command.args(["--all-targets", "--", "-D", "warnings"]);
    }
    command
}

fn by_kit(kit: &Kit, target: &str, package: &str, features: &str) -> Command {
    let words = ["check", "--package", package, "--features", features];
    let mut command = kit.cargo(target, &words);
    if is_linted(target) {
        command.arg("--all-targets").envs(kit.lints());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_name_picks_targets_and_one_that_picks_none_is_an_error() {
        assert_eq!(wanted(None).unwrap().len(), LINTED.len() + CHECKED.len());
        assert_eq!(wanted(Some("darwin")).unwrap(), LINTED[..2]);
        assert!(wanted(Some("plan9")).unwrap_err().contains("x86_64-unknown-freebsd"));
    }

    #[test]
    fn a_target_that_is_not_fetched_is_not_found() {
        assert!(!Fetched("/".into()).contains("x86_64-unknown-freebsd"));
    }
}
