//! Running other programs: which cargo, from where, and what it printed.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Outcome;
use crate::tally::{Meter, Tally};

/// The root of the workspace, whatever directory the command was typed in.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask sits in the root of the workspace").to_owned()
}

/// The cargo that runs this program, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// A program of the nightly toolchain. Through `rustup run`, because the cargo that runs this
/// program is not rustup's proxy and knows no `+nightly`.
pub(crate) fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", program]).current_dir(root());
    command
}

/// Shows the command, runs it, and fails if it failed.
pub(crate) fn run(command: &mut Command) -> Outcome {
    announce(command);
    let status = command.status().map_err(|error| cannot_run(command, &error))?;
    verdict(command, status)
}

/// Runs the command silently; a program that is not there counts as one that failed.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// What the command printed, if it succeeded. Its complaints go to the terminal.
pub(crate) fn output_of(command: &mut Command) -> Outcome<String> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| cannot_run(command, &error))?;
    if !output.status.success() {
        return Err(format!("`{}`: {}", show(command), output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("`{}`: {error}", show(command)))
}

/// Runs a command that runs tests. Its output streams through, and the tests are counted on the
/// way; `Err` in the pair is why the command failed, if it did.
pub(crate) fn count_tests(command: &mut Command) -> Outcome<(Tally, Outcome)> {
    announce(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_run(command, &error))?;
    let mut from = child.stdout.take().expect("stdout was piped just above");
    let mut meter = Meter::default();
    let streamed = stream(&mut from, &mut io::stdout().lock(), &mut meter);
    // The child is waited for even if the terminal went away, and its pipe is closed first, so
    // that it cannot block on it.
    drop(from);
    let status = child.wait().map_err(|error| cannot_run(command, &error))?;
    streamed.map_err(|error| format!("passing the tests' output on: {error}"))?;
    Ok((meter.finish(), verdict(command, status)))
}

/// [`count_tests`], whose output comes whole when the command has ended, for one that is not alone.
pub(crate) fn count_quietly(command: &mut Command) -> Outcome<(Tally, Outcome)> {
    announce(command);
    let output = command.output().map_err(|error| cannot_run(command, &error))?;
    let mut meter = Meter::default();
    meter.feed(&output.stdout);
    let passed_on = io::stdout().lock().write_all(&output.stdout);
    passed_on.map_err(|error| format!("passing the tests' output on: {error}"))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok((meter.finish(), verdict(command, output.status)))
}

/// Also where another thread has panicked with it.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn verdict(command: &Command, status: ExitStatus) -> Outcome {
    if status.success() { Ok(()) } else { Err(format!("`{}`: {status}", show(command))) }
}

/// Copies by whatever chunk arrives, not by line: when a test hangs, its name is already out.
fn stream(from: &mut impl Read, to: &mut impl Write, meter: &mut Meter) -> io::Result<()> {
    let mut chunk = [0; 8192];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                meter.feed(&chunk[..n]);
                to.write_all(&chunk[..n])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The command as one would type it, with the variables that it sets.
fn show(command: &Command) -> String {
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            words.push(format!("{}={}", name.display(), quoted(value)));
        }
    }
    let program = Path::new(command.get_program());
    words.push(program.file_stem().unwrap_or(program.as_os_str()).display().to_string());
    words.extend(command.get_args().map(quoted));
    words.join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.contains(' ') { format!("\"{word}\"") } else { word.into_owned() }
}

fn announce(command: &Command) {
    eprintln!("$ {}", show(command));
}

fn cannot_run(command: &Command, error: &io::Error) -> String {
    format!("cannot run `{}`: {error}", show(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/opt/bin/cargo");
        command.env("RUSTDOCFLAGS", "-D warnings").env_remove("PELTON_BACKEND");
        command.args(["doc", "--no-deps"]);
        assert_eq!(show(&command), "RUSTDOCFLAGS=\"-D warnings\" cargo doc --no-deps");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_that_names_it() {
        let error = run(&mut Command::new("no-such-program-anywhere")).unwrap_err();
        assert!(error.contains("no-such-program-anywhere"), "{error}");
        assert!(!succeeds(&mut Command::new("no-such-program-anywhere")));
    }

    #[test]
    fn streamed_output_is_counted_and_arrives_unchanged() {
        let said = b"running 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed; 2 ignored; \xff";
        let mut out = Vec::new();
        let mut meter = Meter::default();
        stream(&mut &said[..], &mut out, &mut meter).unwrap();
        assert_eq!(out, said);
        assert_eq!(meter.finish(), Tally { passed: 1, failed: 0, skipped: 2 });
    }
}
