//! Test programs that need nothing of the system that they run on.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Outcome;
use crate::run::{cargo, output_of};

/// Whose tests are run: what enters the kernel.
const PACKAGES: &[&str] = &["pelton-driver", "pelton"];

const TARGET: &str = "x86_64-unknown-linux-gnu";

pub(super) struct Programs {
    /// This program, which is the machine's first process.
    pub(super) init: PathBuf,
    /// The tests, each with a name of its own.
    pub(super) tests: Vec<(String, PathBuf)>,
}

pub(super) fn test_programs(folder: &Path) -> Outcome<Programs> {
    let mut tests = Vec::new();
    for package in PACKAGES {
        let words = ["test", "--no-run", "--lib", "--tests", "--package", package];
        tests.extend(programs_of(&built(folder, &words)?, package));
    }
    if tests.is_empty() {
        return Err("cargo built no test programs".into());
    }
    let made = built(folder, &["build", "--package", "xtask"])?;
    let init = programs_of(&made, "xtask").into_iter().next().ok_or("cargo built no xtask")?.1;
    Ok(Programs { init, tests })
}

/// Builds, linked statically, and gives back what cargo tells of it, line by line.
fn built(folder: &Path, words: &[&str]) -> Outcome<String> {
    let mut command = cargo();
    command.args(words).args(["--target", TARGET, "--message-format", "json-render-diagnostics"]);
    command.arg("--target-dir").arg(folder);
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    command.env("RUSTFLAGS", format!("{flags} -C target-feature=+crt-static").trim());
    // Small and quick, for a machine that is emulated.
    for profile in ["DEV", "TEST"] {
        command.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "0");
        command.env(format!("CARGO_PROFILE_{profile}_STRIP"), "symbols");
        command.env(format!("CARGO_PROFILE_{profile}_OPT_LEVEL"), "1");
    }
    output_of(&mut command)
}

/// The programs among the things that were built, by the names of their targets.
fn programs_of(messages: &str, package: &str) -> Vec<(String, PathBuf)> {
    let values = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = |value: Value| {
        let path = value["executable"].as_str()?;
        let target = &value["target"];
        let name = target["name"].as_str()?;
        let is_lib = target["kind"].as_array()?.iter().any(|kind| kind == "lib");
        let name = if is_lib { "lib" } else { name };
        Some((format!("{package}.{name}"), PathBuf::from(path)))
    };
    values.filter_map(program).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"libc"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"pelton"},"executable":"/t/pelton-1"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"tcp"},"executable":"/t/tcp-2"}
{"reason":"build-finished","success":true}"#;
        let names: Vec<_> = programs_of(messages, "pelton").into_iter().map(|p| p.0).collect();
        assert_eq!(names, ["pelton.lib", "pelton.tcp"]);
    }
}
