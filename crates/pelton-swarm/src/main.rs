//! `pelton-swarm`: runs the simulator's worlds for as many seeds as one likes.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use pelton_swarm::{Failure, Fault, Faults, Options, Stats, Which, WorldSpec, worlds};

const USAGE: &str = "\
pelton-swarm run [--world NAME|all] [--seeds N] [--from SEED] [--faults swarm|none|harmless|LIST]
                 [--once] [--replay CHOICES] [--tell]
pelton-swarm list

  --seeds N     how many seeds of each world (default 100)
  --from SEED   the first of them (default 0)
  --faults      which faults: those that the seed picks (swarm), none, those that no application may
                notice (harmless), or a list of names, each with its rate in millionths: reset=10000,slow
  --once        do not run each seed again to see whether it does the same
  --replay      the choices that a failure told, for one world and one seed
  --tell        tell what is done as it is done (chaos)
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.first().map(String::as_str) {
        #[cfg(pelton_mutants)]
        Some("mutants") => return pelton_swarm::mutants::main(&words[1..]),
        Some("run") => Plan::parse(&words[1..]).map(|plan| plan.run()),
        Some("list") => {
            list();
            Ok(true)
        }
        Some("-h" | "--help" | "help") => {
            print!("{USAGE}");
            Ok(true)
        }
        Some(other) => Err(format!("no command `{other}`\n{USAGE}")),
        None => Err(format!("which command?\n{USAGE}")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pelton-swarm: {error}");
            ExitCode::from(2)
        }
    }
}

fn list() {
    for world in worlds() {
        println!("{:<12} {}", world.name, world.about);
    }
    let faults: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    println!("faults: {}", faults.join(" "));
}

struct Plan {
    worlds: Vec<WorldSpec>,
    seeds: u64,
    from: u64,
    faults: String,
    options: Options,
}

/// What came of one world's seeds.
#[derive(Default)]
struct Row {
    seeds: u64,
    events: u64,
    choices: u64,
    elapsed: Duration,
    cpu: Duration,
    failure: Option<Box<Failure>>,
}

impl Plan {
    fn parse(words: &[String]) -> Result<Plan, String> {
        let mut plan = Plan {
            worlds: worlds().to_vec(),
            seeds: 100,
            from: 0,
            faults: "swarm".into(),
            options: Options { twice: true, ..Options::default() },
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--once" {
                plan.options.twice = false;
                continue;
            }
            if word == "--tell" {
                plan.options.tell = true;
                continue;
            }
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (word.as_str(), words.next().cloned().unwrap_or_default()),
            };
            if value.is_empty() {
                return Err(format!("{name} wants a value\n{USAGE}"));
            }
            let number = || value.parse().map_err(|_| format!("{name}: {value:?} is not a number"));
            match name {
                "--world" if value == "all" => {}
                "--world" => {
                    let world = worlds().iter().find(|world| world.name == value);
                    let world = world.ok_or_else(|| {
                        let names: Vec<&str> = worlds().iter().map(|world| world.name).collect();
                        format!("no world {value:?}: there are {} and all", names.join(", "))
                    })?;
                    plan.worlds = vec![*world];
                }
                "--seeds" => plan.seeds = number()?,
                "--from" => plan.from = number()?,
                "--faults" => {
                    plan.options.faults = faults(&value)?;
                    plan.faults = value;
                }
                "--replay" => plan.options.replay = Some(value),
                _ => return Err(format!("no option `{name}`\n{USAGE}")),
            }
        }
        if plan.options.replay.is_some() && (plan.worlds.len() != 1 || plan.seeds != 1) {
            return Err("--replay is for one world and one seed: say --world and --seeds 1".into());
        }
        Ok(plan)
    }

    /// True when no seed failed.
    fn run(&self) -> bool {
        let mut rows = Vec::new();
        for world in &self.worlds {
            rows.push((world.name, self.run_world(world)));
        }
        table(&rows);
        let mut well = true;
        for (name, row) in &rows {
            if let Some(failure) = &row.failure {
                well = false;
                self.tell(name, failure);
            }
        }
        well
    }

    fn run_world(&self, world: &WorldSpec) -> Row {
        let mut row = Row::default();
        let began = cpu_time();
        let mut said = Instant::now();
        for seed in self.from..self.from.saturating_add(self.seeds) {
            match (world.run)(seed, &self.options) {
                Ok(Stats { events, choices, elapsed, .. }) => {
                    row.events += events;
                    row.choices += choices;
                    row.elapsed += elapsed;
                }
                Err(failure) => row.failure = Some(failure),
            }
            row.seeds += 1;
            if said.elapsed() > Duration::from_secs(2) {
                said = Instant::now();
                eprintln!(
                    "{}: {} of {} seeds, {} events",
                    world.name, row.seeds, self.seeds, row.events
                );
            }
            if row.failure.is_some() {
                break;
            }
        }
        row.cpu = cpu_time().saturating_sub(began);
        row
    }

    fn tell(&self, world: &str, failure: &Failure) {
        println!("\n{world}: seed {} failed ({:?}): {}", failure.seed, failure.kind, failure.what);
        println!(
            "of {} choices {} are needed ({} runs to find that out):",
            failure.decisions,
            failure.story.len(),
            failure.shrunk_in
        );
        for decision in &failure.story {
            println!("  {decision}");
        }
        println!(
            "again: pelton-swarm run --world {world} --from {} --seeds 1 --faults {} --replay '{}'",
            failure.seed,
            self.faults,
            failure.replay()
        );
    }
}

/// `reset=10000,slow`: the faults that are named, each at its rate or one in a hundred.
fn faults(text: &str) -> Result<Which, String> {
    match text {
        "swarm" => return Ok(Which::Swarm),
        "none" => return Ok(Which::None),
        "harmless" => return Ok(Which::Harmless),
        _ => {}
    }
    let mut faults = Faults::none();
    for entry in text.split(',') {
        let (name, rate) = entry.split_once('=').unwrap_or((entry, "10000"));
        let fault = Fault::ALL.iter().find(|fault| fault.name() == name);
        let fault = fault.ok_or_else(|| format!("no fault {name:?}: `pelton-swarm list` tells"))?;
        let rate = rate.parse().map_err(|_| format!("{entry:?}: the rate is not a number"))?;
        faults = faults.with(*fault, rate);
    }
    Ok(Which::These(faults))
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn table(rows: &[(&'static str, Row)]) {
    println!(
        "{:<12} {:>9} {:>12} {:>13} {:>12} {:>9} {:>9} {:>12}",
        "world", "seeds", "events", "choices", "virtual", "CPU", "seeds/s", "sim h/CPU h"
    );
    let mut total = Row::default();
    for (name, row) in rows {
        line(name, row);
        total.seeds += row.seeds;
        total.events += row.events;
        total.choices += row.choices;
        total.elapsed += row.elapsed;
        total.cpu += row.cpu;
    }
    if rows.len() > 1 {
        line("all", &total);
    }
}

fn line(name: &str, row: &Row) {
    let cpu = row.cpu.as_secs_f64().max(1e-9);
    println!(
        "{:<12} {:>9} {:>12} {:>13} {:>10.1} s {:>7.1} s {:>9.1} {:>12.1}",
        name,
        row.seeds,
        row.events,
        row.choices,
        row.elapsed.as_secs_f64(),
        row.cpu.as_secs_f64(),
        row.seeds as f64 / cpu,
        row.elapsed.as_secs_f64() / cpu,
    );
}
