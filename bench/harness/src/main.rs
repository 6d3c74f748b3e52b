//! Pelton's benchmark: starts servers, loads them one beside the other, counts, and reports.
//!
//! `bench/README.md` tells the method and what each number means.

mod cells;
mod error;
mod gate;
mod goals;
mod limits;
mod load;
mod machine;
mod measure;
mod report;
mod rng;
mod roster;
mod run;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::measure::Programs;
use crate::report::files;
use crate::run::{Selection, Wish};

/// Compares Pelton with other runtimes and with raw loops.
#[derive(Parser)]
#[command(name = "pelton-bench", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    places: Places,
}

#[derive(Args)]
struct Places {
    /// Where the servers' programs are; beside this one unless said otherwise.
    #[arg(long, global = true)]
    bin_dir: Option<PathBuf>,
    /// Where the servers built with the feature `count-allocs` are [default: BIN_DIR/counting].
    #[arg(long, global = true)]
    counting_dir: Option<PathBuf>,
    /// The directory `bench` of the project: results, baseline and limits are there.
    #[arg(long, global = true)]
    bench_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Measures and writes bench/results.
    Run {
        /// Fewer cells, servers and rounds: less than three minutes.
        #[arg(long)]
        quick: bool,
        /// Only these cells.
        #[arg(long, value_delimiter = ',')]
        cells: Vec<String>,
        /// Only these servers; a cell's reference is always measured.
        #[arg(long, value_delimiter = ',')]
        servers: Vec<String>,
        /// The seed of the order of slices; from the clock unless said otherwise.
        #[arg(long)]
        seed: Option<u64>,
        /// Puts the result into bench/README.md and docs/benchmark.md even if it is quick or a selection.
        #[arg(long)]
        readme: bool,
    },
    /// Judges every goal; fails when one is missed or not measured.
    Goals {
        /// Fewer rounds.
        #[arg(long)]
        quick: bool,
        /// Judges this result.json instead of measuring.
        #[arg(long)]
        from: Option<PathBuf>,
    },
    /// Compares the counts that come out the same each time with bench/baseline.json.
    Gate {
        /// Writes the baseline instead of comparing.
        #[arg(long)]
        update: bool,
        /// Fails where something is missing, instead of skipping.
        #[arg(long)]
        require: bool,
    },
    /// Checks what the servers answer, without measuring.
    Check {
        /// Only these servers.
        #[arg(long, value_delimiter = ',')]
        servers: Vec<String>,
    },
    /// Writes the tables and plots of a result.json again.
    Render {
        result: PathBuf,
        /// Puts it into bench/README.md and docs/benchmark.md as well.
        #[arg(long)]
        readme: bool,
    },
    /// Lists the cells and the servers.
    List,
}

fn main() -> ExitCode {
    server::kill_servers_on_signal();
    match dispatch(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pelton-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    let bench_dir = cli.places.bench_dir();
    match cli.verb {
        Verb::Run { quick, cells, servers, seed, readme } => {
            let seed = seed.unwrap_or_else(clock_seed);
            let whole = !quick && cells.is_empty() && servers.is_empty();
            let selection = Selection::of(&Wish { quick, goals: false, seed, cells, servers })?;
            let result = run::measure(&selection, &cli.places.programs()?, &bench_dir)?;
            let dir = files::write(&result, &bench_dir)?;
            if whole || readme {
                files::publish(&result, &bench_dir)?;
            }
            println!("{}", report::table::summary(&result));
            println!("written to {}", dir.display());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Goals { quick, from } => judge(quick, from, &cli.places, &bench_dir),
        Verb::Gate { update, require } => {
            guard(update, require, &cli.places.programs()?, &bench_dir.join("baseline.json"))
        }
        Verb::Check { servers } => check(servers, &cli.places.programs()?),
        Verb::Render { result, readme } => {
            let dir = result.parent().unwrap_or(Path::new(".")).to_owned();
            let result = files::read(&result)?;
            files::write_into(&result, &dir)?;
            if readme {
                files::publish(&result, &bench_dir)?;
            }
            println!("written to {}", dir.display());
            Ok(ExitCode::SUCCESS)
        }
        Verb::List => {
            for cell in cells::all() {
                println!("cell {:<20} {}", cell.id, cell.title);
            }
            for spec in roster::all() {
                println!("server {:<20} {} {}", spec.name, spec.binary, spec.args.join(" "));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn judge(
    quick: bool,
    from: Option<PathBuf>,
    places: &Places,
    bench_dir: &Path,
) -> Result<ExitCode> {
    let root = bench_dir.parent().unwrap_or(Path::new("."));
    // Before the minutes of measuring.
    let limits = Limits::read(&bench_dir.join("limits.toml"), root)?;
    let result = match from {
        Some(path) => files::read(&path)?,
        None => {
            let wish = Wish {
                quick,
                goals: true,
                seed: clock_seed(),
                cells: Vec::new(),
                servers: Vec::new(),
            };
            let result = run::measure(&Selection::of(&wish)?, &places.programs()?, bench_dir)?;
            let dir = bench_dir.join("results/goals");
            files::write_into(&result, &dir)?;
            println!("measured into {}", dir.display());
            result
        }
    };
    let goals = goals::judge(&result, &limits);
    for goal in &goals {
        println!("{goal}");
    }
    for cell in result.cells.iter().filter(|cell| !cell.settled) {
        println!("unsettled: {}: {}", cell.id, cell.notes.join("; "));
    }
    for (server, why) in &result.missing {
        println!("missing: {server}: {why}");
    }
    for what in &result.not_measured {
        println!("not measured: {what}");
    }
    Ok(if goals::all_met(&goals) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn guard(update: bool, require: bool, programs: &Programs, path: &Path) -> Result<ExitCode> {
    if let Some(what) = gate::lacks(programs) {
        println!("skipped: {what}");
        return Ok(if require { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    // A baseline that cannot be read is told before anything is counted.
    let baseline = if update { None } else { Some(gate::Baseline::read(path)?) };
    let mut now = gate::measure(programs)?;
    let Some(baseline) = baseline else {
        now.write(path)?;
        println!("written: {}", path.display());
        return Ok(ExitCode::SUCCESS);
    };
    let mut outcome = baseline.compare(&now);
    if outcome.failures > 0 {
        // How a stream is cut into receives is the machine's affair, and a busy one's differ: what has moved for good
        // does so again.
        println!("{} counts moved: once more", outcome.failures);
        now.keep_nearer(&baseline, &gate::measure(programs)?);
        outcome = baseline.compare(&now);
    }
    for line in &outcome.lines {
        println!("{line}");
    }
    if outcome.failures == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} counts moved by more than 5 %. If that is meant, write the baseline again with `{}` and say why \
         in the commit.",
        outcome.failures,
        gate::UPDATE
    );
    Ok(ExitCode::FAILURE)
}

fn check(servers: Vec<String>, programs: &Programs) -> Result<ExitCode> {
    let wish = Wish { quick: false, goals: false, seed: 0, cells: Vec::new(), servers };
    let names = Selection::of(&wish)?.servers;
    let (good, bad) = run::check_all(&names, programs);
    for (name, detail) in &good {
        println!("ok {name}: {detail}");
    }
    for (name, why) in &bad {
        println!("FAILED {name}: {why}");
    }
    Ok(if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Places {
    fn programs(&self) -> Result<Programs> {
        let dir = match &self.bin_dir {
            Some(dir) => dir.clone(),
            None => std::env::current_exe()
                .ok()
                .and_then(|own| own.parent().map(Path::to_owned))
                .ok_or_else(|| {
                Error::Usage("name the servers' directory with --bin-dir".into())
            })?,
        };
        let counting = self.counting_dir.clone().unwrap_or_else(|| dir.join("counting"));
        Ok(Programs { dir, counting })
    }

    fn bench_dir(&self) -> PathBuf {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned);
        self.bench_dir.clone().or_else(beside).unwrap_or_else(|| "bench".into())
    }
}

fn clock_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |d| d.as_secs())
}
