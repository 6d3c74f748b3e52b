//! One mutant in a process of its own: the process, and the parent's eye on it.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use pelton_driver::mutant::VARIABLE;

use crate::{Kind, Options, worlds};

/// The word that makes a process a child.
pub(super) const WORD: &str = "--child";

/// How long one run may take in real time: it takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The world that has all of the seeds.
pub(super) const CHEAP: &str = "chaos";

/// How many times as many seeds it has as any other world, whose runs take longer.
pub(super) const DEARER: u64 = 32;

/// How much of a processor's time one run may take.
const CPU_SECONDS: u64 = 8;

/// How a mutant was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The world, or the models.
    pub(super) world: String,
    /// How many seeds it took; none for the models, which try everything.
    pub(super) seeds: Option<u64>,
    /// By what: a checker, a crash, a hang.
    pub(super) how: String,
    /// What was said.
    pub(super) what: String,
}

impl Found {
    pub(super) fn by_models() -> Found {
        let what = "a model fails".to_owned();
        Found { world: "loom".into(), seeds: None, how: "every interleaving".into(), what }
    }
}

impl Found {
    pub(super) fn by_scripts() -> Found {
        let what = "an outcome that the model does not allow".to_owned();
        Found { world: "scripts".into(), seeds: None, how: "a script".into(), what }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { world, seeds, how, what } = self;
        match seeds {
            Some(seeds) => write!(f, "{world} at seed {} ({how}): {what}", seeds - 1),
            None => write!(f, "{world} ({how}): {what}"),
        }
    }
}

/// What says that the worlds on completion ports are meant.
pub(super) const PORTS: &str = "ports";

/// Whether a world is one of those that were asked for: by name, those on ports, or all others.
fn is_wanted(only: &str, world: &str) -> bool {
    let on_ports = world.ends_with("-ports");
    match only {
        "all" => !on_ports,
        PORTS => on_ports,
        name => name == world,
    }
}

/// Runs every world under each seed, and says which run it is before it begins.
pub(super) fn main(words: &[String]) -> ExitCode {
    let Some(seeds) = words.first().and_then(|word| word.parse::<u64>().ok()) else {
        return ExitCode::from(2);
    };
    let only = words.get(1).map_or("all", String::as_str);
    for seed in 0..seeds {
        for world in worlds().iter().filter(|world| is_wanted(only, world.name)) {
            if !world.name.starts_with(CHEAP) && seed >= seeds.div_ceil(DEARER) {
                continue;
            }
            say(&format!("at {} {seed}", world.name));
            limit_cpu();
            if let Err(failure) = (world.run)(seed, &Options::default()) {
                let how = match failure.kind {
                    Kind::Panic => "a panic",
                    Kind::Error => "an error",
                    Kind::Stuck => "stuck",
                    Kind::NotDeterministic => "two runs differ",
                    _ => "a checker",
                };
                let what = failure.what.replace(['\n', '\t'], " ");
                say(&format!("found {how}\t{}", what.strip_prefix("stuck: ").unwrap_or(&what)));
                return ExitCode::SUCCESS;
            }
        }
    }
    say("clean");
    ExitCode::SUCCESS
}

/// Lets the system end this process where the run that begins now never ends.
fn limit_cpu() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::time::{ClockId, clock_gettime};
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec as u64;
    let Rlimit { maximum, .. } = getrlimit(Resource::Cpu);
    let _ = setrlimit(Resource::Cpu, Rlimit { current: Some(used + CPU_SECONDS), maximum });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A parent that has gone away hears nothing.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Runs a child with a mutant, or with none, and says how it was found.
pub(super) fn run(
    mutant: Option<&str>,
    seeds: u64,
    only: Option<&str>,
) -> Result<Option<Found>, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["mutants", WORD, &seeds.to_string(), only.unwrap_or("all")]).env_remove(VARIABLE);
    if let Some(mutant) = mutant {
        command.env(VARIABLE, mutant);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("a child process: {error}"))?;
    let Some(out) = child.stdout.take() else { return Err("a child without output".into()) };
    let (lines, heard) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                break;
            }
        }
    });
    let (mut world, mut seed) = (String::new(), 0);
    let outcome = loop {
        match heard.recv_timeout(PATIENCE) {
            Ok(line) => {
                if let Some((at, number)) =
                    line.strip_prefix("at ").and_then(|at| at.split_once(' '))
                {
                    (world, seed) = (at.to_owned(), number.parse().unwrap_or(0));
                } else if let Some((how, what)) =
                    line.strip_prefix("found ").and_then(|found| found.split_once('\t'))
                {
                    break Some((how.to_owned(), what.to_owned()));
                } else if line == "clean" {
                    break None;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                break Some(("a hang".into(), "the run never ended".into()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().map_err(|error| error.to_string())?;
                const XCPU: Option<i32> = Some(24); // SIGXCPU, on Linux
                if status.signal() == XCPU {
                    break Some(("a hang".into(), "the run never ended".into()));
                }
                let what = match status.signal() {
                    Some(signal) => format!("signal {signal}"),
                    None => status.to_string(),
                };
                break Some(("a crash".into(), what));
            }
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    let _ = reader.join();
    Ok(outcome.map(|(how, what)| Found { world, seeds: Some(seed + 1), how, what }))
}
