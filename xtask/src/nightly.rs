//! `miri`, `asan`, `tsan`: the checkers that need a nightly toolchain.
//!
//! Where one is missing the verb prints a line that begins with `skipped:` and says what to
//! install, and succeeds: the stable toolchain must be enough to contribute. With `--require` a
//! missing checker is a failure, which is how the project's own CI calls it.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::args::Args;
use crate::metadata;
use crate::run::{count_quietly, count_tests, locked, nightly, output_of, succeeds};
use crate::suites;
use crate::tally::Tally;
use crate::{Outcome, run};

pub(crate) fn miri(args: Args) -> Outcome {
    unless_skipped(args, "miri", lacks_miri, || {
        let strict = suites::MIRI.iter().map(|suite| (*suite, "-Zmiri-strict-provenance"));
        let simulated = suites::MIRI_SIMULATED.iter();
        let simulated = simulated.map(|suite| (*suite, "-Zmiri-permissive-provenance"));
        count_together(strict.chain(simulated), |(suite, flags)| {
            let mut command = nightly("cargo");
            command.args(["miri", "test"]).args(suite);
            or_default(&mut command, "MIRIFLAGS", &format!("{flags} -Zmiri-disable-isolation"));
            (suite.join(" "), command)
        })
    })
}

pub(crate) fn asan(args: Args) -> Outcome {
    unless_skipped(args, "asan", lacks_asan, || {
        let (host, target) = (host()?, separate_target("asan")?);
        count(suites::SANITIZED, |suite| {
            let mut command = sanitized("address", "test", &host, &target);
            command.args(suite);
            or_default(&mut command, "ASAN_OPTIONS", "detect_leaks=1");
            command
        })
    })
}

pub(crate) fn tsan(args: Args) -> Outcome {
    unless_skipped(args, "tsan", lacks_tsan, || {
        let (host, target) = (host()?, separate_target("tsan")?);
        count(suites::SANITIZED, |suite| {
            let mut command = sanitized("thread", "test", &host, &target);
            command.arg("-Zbuild-std").args(suite);
            command
        })
    })
}

/// Runs each suite and counts. A suite that ran no test fails, since it proved nothing.
pub(crate) fn count(suites: &[&[&str]], command: impl Fn(&[&str]) -> Command) -> Outcome {
    let mut total = Tally::default();
    for suite in suites {
        let (tally, verdict) = count_tests(&mut command(suite))?;
        verdict?;
        if tally.ran() == 0 {
            return Err(ran_none(&suite.join(" ")));
        }
        total += tally;
    }
    println!("{total}");
    Ok(())
}

/// [`count`] for a checker that runs everything on one thread: as many suites at a time as there are processors.
/// What one prints comes when it has ended.
fn count_together<S: Send>(
    suites: impl Iterator<Item = S> + Send,
    command: impl Fn(S) -> (String, Command) + Sync,
) -> Outcome {
    let (suites, told) = (Mutex::new(suites), Mutex::new((Tally::default(), Ok(()))));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let one_by_one = || {
        loop {
            let Some(suite) = locked(&suites).next() else { return };
            let (name, mut command) = command(suite);
            let counted = count_quietly(&mut command).and_then(|(tally, verdict)| {
                verdict?;
                if tally.ran() > 0 { Ok(tally) } else { Err(ran_none(&name)) }
            });
            let (total, verdict) = &mut *locked(&told);
            match counted {
                Ok(tally) => *total += tally,
                Err(why) => *verdict = Err(why),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(one_by_one);
        }
    });
    let (total, verdict) = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{total}");
    verdict
}

fn ran_none(suite: &str) -> String {
    format!("`{suite}` ran no test; see xtask/src/suites.rs")
}

/// A build directory of its own, beside the others: flags that change every crate must not throw
/// the ordinary build away.
pub(crate) fn separate_target(name: &str) -> Outcome<String> {
    let path = metadata::read()?.target_directory.join(name);
    path.into_os_string().into_string().map_err(|path| format!("{path:?} is not text"))
}

/// Sets a variable unless the caller did.
fn or_default(command: &mut Command, name: &str, value: &str) {
    if std::env::var_os(name).is_none() {
        command.env(name, value);
    }
}

/// Takes `--require`, asks what is missing, and skips or fails by it, or runs the checker.
pub(crate) fn unless_skipped(
    mut args: Args,
    name: &str,
    lacks: fn() -> Option<String>,
    check: impl FnOnce() -> Outcome,
) -> Outcome {
    let required = args.flag("--require");
    args.finish()?;
    match lacks() {
        None => check(),
        Some(lacking) if required => Err(lacking),
        Some(lacking) => {
            println!("skipped: {name}: {lacking}");
            Ok(())
        }
    }
}

fn sanitized(sanitizer: &str, subcommand: &str, host: &str, target_dir: &str) -> Command {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(&format!(" -Zsanitizer={sanitizer}"));
    if sanitizer == "thread" {
        // Through the C library, where it hears of what is mapped and unmapped. Else memory that one thread gave
        // back and another has mapped anew, at the same address by chance, is a race to it.
        flags.push_str(" --cfg rustix_use_libc");
    }
    let mut command = nightly("cargo");
    // The target is named although it is the host, so that build scripts and macros, which run
    // inside the compiler, are built without the sanitizer.
    command.args([subcommand, "--target", host, "--target-dir", target_dir]);
    command.env("RUSTFLAGS", flags.trim());
    if sanitizer == "thread" {
        let known = crate::run::root().join(".ci/tsan-suppressions");
        or_default(&mut command, "TSAN_OPTIONS", &format!("suppressions={}", known.display()));
    }
    command
}

/// The triple of this machine, which the nightly compiler knows.
pub(crate) fn host() -> Outcome<String> {
    host_line(&output_of(nightly("rustc").arg("-vV"))?)
}

fn host_line(version: &str) -> Outcome<String> {
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".into())
}

fn lacks_nightly() -> Option<String> {
    let there = succeeds(nightly("rustc").arg("--version"));
    (!there).then(|| "no nightly toolchain here; `rustup toolchain install nightly`".into())
}

fn lacks_miri() -> Option<String> {
    let cure = "`rustup +nightly component add miri rust-src`";
    lacks_nightly().or_else(|| {
        if !succeeds(nightly("cargo").args(["miri", "--version"])) {
            return Some(format!("Miri is not installed; {cure}"));
        }
        // Miri interprets the standard library too, from its source or from one already built.
        let given = ["MIRI_SYSROOT", "MIRI_LIB_SRC"].iter().any(|n| std::env::var_os(n).is_some());
        (!given && !has_rust_src())
            .then(|| format!("the library's source is not installed; {cure}"))
    })
}

pub(crate) fn lacks_asan() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("the sanitizers are set up for Linux only".into());
    }
    lacks_nightly()
}

fn lacks_tsan() -> Option<String> {
    lacks_asan().or_else(|| {
        if !has_rust_src() {
            let cure = "`rustup +nightly component add rust-src`";
            return Some(format!("the library's source is not installed; {cure}"));
        }
        // One crate that is not ours: if that does not build, it is the standard library.
        let probe = || -> Outcome<bool> {
            let mut build = sanitized("thread", "build", &host()?, &separate_target("tsan")?);
            Ok(succeeds(build.args(["-Zbuild-std", "-p", "libc"])))
        };
        let cure = "the library's source may not match its lock file, or cannot be fetched";
        let builds = probe().unwrap_or(false);
        (!builds).then(|| format!("the standard library does not build with -Zbuild-std; {cure}"))
    })
}

fn has_rust_src() -> bool {
    let sysroot = run::output_of(nightly("rustc").args(["--print", "sysroot"]));
    let source = "lib/rustlib/src/rust/library/std/Cargo.toml";
    sysroot.is_ok_and(|sysroot| Path::new(sysroot.trim_end()).join(source).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Args {
        Args::parse(words.iter().map(std::ffi::OsString::from)).unwrap()
    }

    #[test]
    fn a_missing_checker_is_skipped_unless_it_is_required() {
        let lacks = || Some("nothing here; install it".to_owned());
        let must_not_run = || -> Outcome { unreachable!("the checker is missing") };
        assert_eq!(unless_skipped(args(&[]), "miri", lacks, must_not_run), Ok(()));
        let error = unless_skipped(args(&["--require"]), "miri", lacks, must_not_run).unwrap_err();
        assert!(error.contains("install it"), "{error}");
    }

    #[test]
    fn a_checker_that_is_there_runs_and_its_failure_is_a_failure() {
        let failing = || Err("found a leak".to_owned());
        assert!(unless_skipped(args(&[]), "asan", || None, failing).is_err());
    }

    #[test]
    fn the_host_is_read_from_the_compilers_version() {
        let version = "rustc 1.97.0-nightly\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n";
        assert_eq!(host_line(version).unwrap(), "x86_64-unknown-linux-gnu");
        assert!(host_line("rustc 1.97.0").is_err());
    }

    #[test]
    fn a_sanitized_build_names_its_target_and_keeps_to_its_own_directory() {
        let command = sanitized("address", "test", "a-b-c", "target/asan");
        let words: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        let tail = ["test", "--target", "a-b-c", "--target-dir", "target/asan"];
        assert!(words.ends_with(&tail), "{words:?}");
        let (_, flags) = command.get_envs().find(|(name, _)| *name == "RUSTFLAGS").unwrap();
        assert!(flags.unwrap().to_str().unwrap().ends_with("-Zsanitizer=address"));
    }
}
