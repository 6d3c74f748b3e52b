//! `pelton-swarm mutants`: switches on one bug after the other and says how many seeds the worlds need to find it.
//!
//! A mutant may corrupt memory, hang or abort. So each runs in a child process, which says before every run which
//! one it is: a child that dies, or is silent for too long, has found its mutant as well as one that tells of a
//! checker. Before all of them the same worlds run under the same seeds with none switched on, and nothing may
//! fail.

mod child;
mod table;

use std::process::ExitCode;

use pelton_driver::mutant::{Finder, Mutant, mutants};

use child::Found;
use table::Row;

const USAGE: &str = "\
pelton-swarm mutants [--seeds MAX] [--world NAME] [--write FILE] [--tested NAME]… [NAME…]

  --seeds MAX    the seeds of chaos, at most; other worlds have a 32nd of them (default 4096)
  --world NAME   one world only
  --write FILE   writes the table as Markdown
  --tested NAME  a mutant that the models under loom, or the scripts, have found
  --models       prints the mutants that the models under loom are to find, and nothing else
  --scripts      the same for those that random scripts on every system are to find
";

/// The seeds of the cheapest world within which every mutant is to be found.
const SEEDS: u64 = 4096;

/// Runs the subcommand with the words behind it.
pub fn main(words: &[String]) -> ExitCode {
    if words.first().is_some_and(|word| word == child::WORD) {
        return child::main(&words[1..]);
    }
    let list = match words.first().map(String::as_str) {
        Some("--models") => Some(Finder::Loom),
        Some("--scripts") => Some(Finder::Scripts),
        _ => None,
    };
    if let Some(finder) = list {
        let found = mutants().iter().filter(|mutant| mutant.finder == finder);
        found.for_each(|mutant| println!("{}", mutant.name));
        return ExitCode::SUCCESS;
    }
    match Plan::parse(words).and_then(|plan| plan.run()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pelton-swarm: {error}");
            ExitCode::from(2)
        }
    }
}

struct Plan {
    seeds: u64,
    world: Option<String>,
    write: Option<String>,
    /// What the models and the scripts have found.
    tested: Vec<String>,
    mutants: Vec<&'static Mutant>,
    /// Some mutants only: no table is written, and no control is run.
    some: bool,
}

impl Plan {
    fn parse(words: &[String]) -> Result<Plan, String> {
        let mut plan = Plan {
            seeds: SEEDS,
            world: None,
            write: None,
            tested: Vec::new(),
            mutants: Vec::new(),
            some: false,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value =
                || words.next().cloned().ok_or_else(|| format!("{word} wants a value\n{USAGE}"));
            match word.as_str() {
                "--seeds" => {
                    let text = value()?;
                    plan.seeds = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
                }
                "--world" => plan.world = Some(value()?),
                "--write" => plan.write = Some(value()?),
                "--tested" => plan.tested.push(value()?),
                name => {
                    let found = mutants().iter().find(|mutant| mutant.name == name);
                    plan.mutants.push(found.ok_or_else(|| {
                        format!("no mutant is called {name:?}: see docs/mutants.md\n{USAGE}")
                    })?);
                }
            }
        }
        plan.some = !plan.mutants.is_empty();
        if !plan.some {
            plan.mutants = mutants().iter().collect();
        }
        Ok(plan)
    }

    /// True when everything was found, and nothing where there was nothing.
    fn run(&self) -> Result<bool, String> {
        if !self.some {
            for worlds in [self.world.as_deref(), Some(child::PORTS)] {
                match child::run(None, self.seeds, worlds)? {
                    None => println!("control: nothing fails within {} seeds", self.seeds),
                    Some(found) => {
                        println!("control: with no mutant, {found}");
                        return Ok(false);
                    }
                }
            }
        }
        let mut rows = Vec::new();
        for mutant in &self.mutants {
            let row = self.row(mutant)?;
            println!("{row}");
            rows.push(row);
        }
        let holes = rows.iter().filter(|row| !row.is_found()).count();
        println!("{} of {} mutants were found", rows.len() - holes, rows.len());
        if let Some(file) = &self.write
            && !self.some
        {
            let text = table::markdown(&rows, self.seeds);
            std::fs::write(file, text).map_err(|error| format!("{file}: {error}"))?;
        }
        Ok(holes == 0)
    }

    fn is_tested(&self, mutant: &Mutant) -> bool {
        self.tested.iter().any(|name| name == mutant.name)
    }

    fn row(&self, mutant: &'static Mutant) -> Result<Row, String> {
        let found = match mutant.finder {
            Finder::Loom => self.is_tested(mutant).then(Found::by_models),
            Finder::Scripts => self.is_tested(mutant).then(Found::by_scripts),
            Finder::Ports => {
                let worlds = self.world.as_deref().unwrap_or(child::PORTS);
                child::run(Some(mutant.name), self.seeds, Some(worlds))?
            }
            Finder::Simulator => child::run(Some(mutant.name), self.seeds, self.world.as_deref())?,
        };
        Ok(Row { mutant, found })
    }
}
