//! The tests, each in a process of its own under Wine.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::kit::Kit;
use super::skips::Skips;
use super::{PORTABLE, TARGET};
use crate::Outcome;
use crate::run::{locked, output_of, root, run};
use crate::tally::Tally;

/// How long one test may take. A packet that never comes is a hang.
const LIMIT: Duration = Duration::from_secs(30);
/// They mostly wait.
const AT_ONCE: usize = 3;
const FLOOR: &str = ".ci/windows-floor";

pub(super) struct Program {
    /// As `package.target`.
    name: String,
    path: PathBuf,
    /// The package's folder, where cargo would run it.
    folder: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Ignored,
    /// It passed, and then a signal ended its process.
    Ended(i32),
    Failed(String),
}

pub(super) fn of(kit: &Kit, only: Option<&str>, rest: &[OsString]) -> Outcome {
    let skips = Skips::read(&root())?;
    let programs = built(kit, rest)?;
    // What Wine starts first stays, and must not count to the first test's time.
    run(kit.wine("wine").args(["cmd", "/c", "exit"]).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let mut total = Tally::default();
    let mut failures = Vec::new();
    for program in &programs {
        let (tally, failed) = all_of(kit, program, &skips, only)?;
        if tally != Tally::default() {
            println!("{}: {tally}", program.name);
        }
        total += tally;
        failures.extend(failed);
    }
    kit.end();
    println!("windows: {total}");
    if !failures.is_empty() {
        return Err(format!("failed under Wine:\n  {}", failures.join("\n  ")));
    }
    if total.ran() == 0 {
        return Err("no test ran".into());
    }
    if only.is_none() && rest.is_empty() { hold(total) } else { Ok(()) }
}

/// Fails if fewer tests ran than the committed number says.
fn hold(total: Tally) -> Outcome {
    let path = root().join(FLOOR);
    let text = std::fs::read_to_string(path).map_err(|error| format!("{FLOOR}: {error}"))?;
    let floor: u64 = text.trim().parse().map_err(|_| format!("{FLOOR} must hold one number"))?;
    if total.ran() >= floor {
        return Ok(());
    }
    Err(format!(
        "only {} tests ran under Wine, and {FLOOR} wants at least {floor}: find what stopped running",
        total.ran()
    ))
}

/// Runs every test of a program.
fn all_of(
    kit: &Kit,
    program: &Program,
    skips: &Skips,
    only: Option<&str>,
) -> Outcome<(Tally, Vec<String>)> {
    let mut names = kit.wine("wine");
    names.arg(&program.path).args(["--list", "--format", "terse"]).current_dir(&program.folder);
    let names = output_of(&mut names)?;
    let mut todo = VecDeque::new();
    let mut tally = Tally::default();
    for name in names.lines().filter_map(|line| line.trim_end().strip_suffix(": test")) {
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        if let Some(skip) = skips.of(&program.name, name) {
            println!("skipped: {} {name}: {}", program.name, skip.because);
            tally.skipped += 1;
        } else {
            todo.push_back(name.to_owned());
        }
    }
    let todo = Mutex::new(todo);
    let told = Mutex::new((tally, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(name) = locked(&todo).pop_front() else { return };
                    let verdict = one(kit, program, &name);
                    let (tally, failed) = &mut *locked(&told);
                    let why = match verdict {
                        Verdict::Passed => {
                            tally.passed += 1;
                            continue;
                        }
                        Verdict::Ignored => {
                            tally.skipped += 1;
                            continue;
                        }
                        Verdict::Ended(signal) => format!("{}, twice", ended(signal)),
                        Verdict::Failed(why) => why,
                    };
                    tally.failed += 1;
                    println!("---- {} {name}\n{why}", program.name);
                    failed.push(format!("{} {name}", program.name));
                }
            });
        }
    });
    Ok(told.into_inner().expect("no thread panicked"))
}

const PASSED: &str = "test result: ok. 1 passed";
const IGNORED: &str = "0 passed; 0 failed; 1 ignored";
/// What Wine says of a fault of the program's, on whichever thread.
const FAULT: &str = "wine: Unhandled ";

/// Runs one test, and once more where its process was ended after it had passed.
fn one(kit: &Kit, program: &Program, name: &str) -> Verdict {
    match once(kit, program, name) {
        Verdict::Ended(signal) => {
            println!("again: {} {name}: {}", program.name, ended(signal));
            once(kit, program, name)
        }
        verdict => verdict,
    }
}

fn ended(signal: i32) -> String {
    format!("Wine's process ended by signal {signal} after the test had passed")
}

/// Runs one test, and ends it where it takes too long.
fn once(kit: &Kit, program: &Program, name: &str) -> Verdict {
    let mut command = kit.wine("wine");
    command.arg(&program.path).args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.current_dir(&program.folder).env("RUST_BACKTRACE", "0");
    match within(&mut command, LIMIT) {
        Err(error) => Verdict::Failed(error),
        Ok((None, said)) => Verdict::Failed(format!("{said}ended after {LIMIT:?}")),
        Ok((Some(status), said)) => judged(status, &said),
    }
}

/// How a test ended, from its process and what that said.
///
/// A signal after a pass is not the test's doing. What Wine 8 makes of a fault of a program's own was tried with one
/// that has each: it says so (`FAULT`), or hands it to `abort`, or ends the process with status 1 and without a word
/// where the system writes into memory that is gone. Only a thread whose stack pointer is no address gets a signal.
/// And a signal does come after `main` of programs without a line of Pelton: of one in C whose threads do nothing
/// but return while `main` does, 19 of 6000 runs were ended by signal 9 (the process was still there a while after
/// its end, and Wine's server killed it) and one by signal 11, all with their output complete. In the dump of that
/// one the main thread is in `NtTerminateProcess`, and Wine's own handler faults on a thread that is exiting. The
/// watchdog of most tests is such a thread: it ends when its test does.
///
/// The status of a program that faulted tells nothing: Wine's debugger ends it with 0, and a program that returns
/// from `main` before the debugger has come has passed, as far as the rest of its output goes.
fn judged(status: ExitStatus, said: &str) -> Verdict {
    let passed = said.contains(PASSED) && !said.contains(FAULT);
    match status.signal() {
        None if status.success() && passed => Verdict::Passed,
        None if status.success() && said.contains(IGNORED) => Verdict::Ignored,
        Some(signal) if passed => Verdict::Ended(signal),
        _ => Verdict::Failed(format!("{said}{status}")),
    }
}

/// Runs a command for at most `limit`: how it ended, if it did by itself, and what it said. That goes to a file
/// and not through a pipe, which a service that Wine starts in passing would keep open.
fn within(command: &mut Command, limit: Duration) -> Outcome<(Option<ExitStatus>, String)> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("pelton-windows-{}-{number}", std::process::id()));
    let about = |error: std::io::Error| format!("{}: {error}", path.display());
    let said = File::create(&path).map_err(about)?;
    let ended = watched(command, said, limit);
    let said = std::fs::read(&path).map_err(about);
    let _ = std::fs::remove_file(&path);
    Ok((ended?, String::from_utf8_lossy(&said?).into_owned()))
}

fn watched(command: &mut Command, said: File, limit: Duration) -> Outcome<Option<ExitStatus>> {
    let about = |error: std::io::Error| format!("wine: {error}");
    let complaints = said.try_clone().map_err(about)?;
    command.stdin(Stdio::null()).stdout(said).stderr(complaints);
    let mut child = command.spawn().map_err(about)?;
    let give_up = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(about)? {
            return Ok(Some(status));
        }
        if Instant::now() >= give_up {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Builds the test programs.
pub(super) fn built(kit: &Kit, rest: &[OsString]) -> Outcome<Vec<Program>> {
    let mut words = vec!["test", "--no-run", "--message-format", "json-render-diagnostics"];
    if rest.is_empty() {
        words.extend(["--lib", "--tests", "--bins"]);
        words.extend(PORTABLE.iter().flat_map(|package| ["--package", package]));
    }
    let mut command = kit.cargo(TARGET, &words);
    command.args(rest);
    // Small: nobody looks at them with a debugger.
    for profile in ["DEV", "TEST"] {
        command.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "0");
    }
    let programs: Vec<_> = output_of(&mut command)?.lines().filter_map(program_of).collect();
    if programs.is_empty() { Err("cargo built no test programs".into()) } else { Ok(programs) }
}

fn program_of(message: &str) -> Option<Program> {
    let value: Value = serde_json::from_str(message).ok()?;
    if !value["profile"]["test"].as_bool()? {
        return None;
    }
    let folder = Path::new(value["manifest_path"].as_str()?).parent()?.to_owned();
    let package = folder.file_name()?.to_str()?.to_owned();
    let target = &value["target"];
    let is =
        |kind: &str| target["kind"].as_array().is_some_and(|all| all.iter().any(|k| k == kind));
    let name = if is("lib") { "lib" } else { target["name"].as_str()? };
    let path = PathBuf::from(value["executable"].as_str()?);
    Some(Program { name: format!("{package}.{name}"), path, folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_among_cargos_messages() {
        let message = |kind: &str, name: &str, test: bool, path: &str| {
            format!(
                r#"{{"manifest_path":"/w/crates/pelton/Cargo.toml","target":{{"kind":["{kind}"],"name":"{name}"}},
                "profile":{{"test":{test}}},"executable":{path}}}"#
            )
        };
        let name = |message: &str| program_of(message).map(|program| program.name);
        assert_eq!(name(&message("lib", "pelton", true, "\"/t/p.exe\"")).unwrap(), "pelton.lib");
        assert_eq!(name(&message("test", "tcp", true, "\"/t/t.exe\"")).unwrap(), "pelton.tcp");
        assert_eq!(name(&message("lib", "pelton", false, "\"/t/p.exe\"")), None);
        assert_eq!(name(&message("lib", "pelton", true, "null")), None);
        assert_eq!(name("not json"), None);
    }

    #[test]
    fn a_program_that_hangs_is_ended_and_one_that_does_not_says_how_it_went() {
        let limit = Duration::from_millis(50);
        let (ended, _) = within(Command::new("sleep").arg("600"), limit).unwrap();
        assert!(ended.is_none());
        let mut quick = Command::new("sh");
        let (ended, said) = within(quick.args(["-c", "echo hello; exit 3"]), LIMIT).unwrap();
        assert_eq!((ended.unwrap().code(), said.as_str()), (Some(3), "hello\n"));
    }

    #[test]
    fn a_signal_after_the_test_has_passed_is_told_from_one_before_it_and_from_a_fault() {
        let passed = format!("test a ... ok\n\n{PASSED}; 0 failed\n");
        let fault = format!("{FAULT}page fault on write access to 0\n{passed}");
        let (exit, signal) = (|code| ExitStatus::from_raw(code << 8), ExitStatus::from_raw);
        assert_eq!(judged(exit(0), &passed), Verdict::Passed);
        assert_eq!(judged(exit(0), &format!("test result: ok. {IGNORED}")), Verdict::Ignored);
        assert_eq!(judged(signal(11), &passed), Verdict::Ended(11));
        let failed = |status, said: &str| matches!(judged(status, said), Verdict::Failed(_));
        assert!(failed(signal(11), "running 1 test\ntest a ... "));
        assert!(failed(exit(0), "running 1 test\ntest a ... ") && failed(exit(1), &passed));
        assert!(failed(exit(0), &fault) && failed(signal(11), &fault));
    }

    #[test]
    fn the_committed_floor_is_a_number() {
        let text = std::fs::read_to_string(root().join(FLOOR)).unwrap();
        assert!(text.trim().parse::<u64>().is_ok(), "{text:?}");
    }
}
