//! One run: the selection, the check of content, the cells, the counts, the microbenchmarks.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cells::{self, Cell};
use crate::error::{During, Error, Result};
use crate::goals;
use crate::load::check;
use crate::machine::{self, Build, LOAD_CPU, Machine, Precedence, Tree};
use crate::measure::slices::{self, Protocol};
use crate::measure::{CONNECTIONS, Programs, allocations, instructions, memory, micro, syscalls};
use crate::report::files;
use crate::report::model::{FORMAT, Micro, RunResult, Used};
use crate::report::progress::Progress;
use crate::rng::Rng;
use crate::roster::{self, Spec};
use crate::server::{Server, Start};

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) quick: bool,
    /// Only what the goals need.
    pub(crate) goals: bool,
    pub(crate) seed: u64,
    pub(crate) cells: Vec<Cell>,
    pub(crate) servers: Vec<&'static str>,
    /// Servers whose instructions, system calls, allocations and memory are counted.
    pub(crate) counted: Vec<&'static str>,
    pub(crate) micro: bool,
    pub(crate) command: String,
}

/// What can be asked for on the command line.
pub(crate) struct Wish {
    pub(crate) quick: bool,
    pub(crate) goals: bool,
    pub(crate) seed: u64,
    pub(crate) cells: Vec<String>,
    pub(crate) servers: Vec<String>,
}

impl Selection {
    pub(crate) fn of(wish: &Wish) -> Result<Self> {
        let known = roster::names();
        let mut servers = if !wish.servers.is_empty() {
            named(&wish.servers, &known, "server")?
        } else if wish.goals {
            cells::goal_servers()
        } else if wish.quick {
            cells::quick_servers()
        } else {
            known
        };
        let all = cells::all();
        let cells: Vec<Cell> = if wish.goals {
            all.into_iter().filter(|cell| goals::names(cell.id)).collect()
        } else if wish.cells.is_empty() {
            all.into_iter().filter(|cell| !wish.quick || cell.quick).collect()
        } else {
            let ids: Vec<&'static str> = all.iter().map(|cell| cell.id).collect();
            let ids = named(&wish.cells, &ids, "cell")?;
            all.into_iter().filter(|cell| ids.contains(&cell.id)).collect()
        };
        let whole = wish.cells.is_empty();
        // The short run is coarse: it has no time for more slices in some cells than in others, nor for many turns.
        let coarse = |cell: Cell| Cell { slices: 1, turns: 1, ..cell };
        let cells: Vec<Cell> =
            cells.into_iter().map(|cell| if wish.quick { coarse(cell) } else { cell }).collect();
        if wish.quick && !whole && wish.servers.is_empty() {
            // A cell that was asked for by name may be about these, which the short run is not.
            let variants = cells.iter().flat_map(|cell| cell.servers.iter().copied());
            servers.extend(variants.filter(|name| roster::is_variant(name)));
            servers.sort_unstable();
            servers.dedup();
        }
        let decomposed = cells.iter().any(|cell| cell.reference == roster::MODES[0]);
        // Valgrind and 9 000 connections take seconds for each.
        let counts = |name: &&str| {
            if !whole {
                // The counts are half of what the decomposition says.
                decomposed && roster::MODES.contains(name)
            } else if wish.goals {
                roster::PELTON_ECHO.contains(name) || *name == roster::AHEAD
            } else if wish.quick {
                roster::PELTON_ECHO.contains(name)
                    || [roster::RAW_URING, roster::RAW_EPOLL, roster::TOKIO].contains(name)
            } else {
                ![roster::BATCHED, roster::RAW_BATCHED].contains(name)
            }
        };
        let counted = servers.iter().copied().filter(counts).collect();
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        Ok(Self {
            quick: wish.quick,
            goals: wish.goals,
            seed: wish.seed,
            cells,
            servers,
            counted,
            micro: whole && wish.servers.is_empty(),
            command,
        })
    }

    /// For a cell of which goals speak; others need no more sets than the least.
    fn protocol(&self) -> Protocol {
        if self.quick {
            Protocol { rounds: 4, sets: 2, most_sets: 2, attempts: 2 }
        } else {
            Protocol { rounds: 8, sets: 4, most_sets: 12, attempts: 3 }
        }
    }

    /// The servers of a cell that were asked for; always its reference.
    fn of_cell(&self, cell: &Cell, missing: &BTreeMap<String, String>) -> Vec<&'static str> {
        let wanted = |name: &&str| {
            (self.servers.contains(name) || *name == cell.reference) && !missing.contains_key(*name)
        };
        cell.servers.iter().copied().filter(|name| wanted(name)).collect()
    }
}

/// For how long the short run repeats cells: what comes later would make it longer than three minutes.
const REPEATS_OF_SHORT: Duration = Duration::from_secs(60);

/// Checks every server's answers; returns what the good ones say of themselves, and the others
/// with what is wrong.
pub(crate) fn check_all(
    names: &[&str],
    programs: &Programs,
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut details, mut missing) = (BTreeMap::new(), BTreeMap::new());
    for name in names {
        let spec = roster::spec(name).expect("selections name known servers");
        match check_one(&spec, programs) {
            Ok(detail) => {
                details.insert(spec.name, detail);
            }
            Err(error) => {
                missing.insert(spec.name, reason(&error));
            }
        }
    }
    (details, missing)
}

fn check_one(spec: &Spec, programs: &Programs) -> Result<String> {
    let mut server = Server::start(&Start::new(spec, &programs.dir))?;
    let checked = if roster::is_http(&spec.name) {
        check::http(&spec.name, server.addr)
    } else {
        check::echo(&spec.name, server.addr)
    };
    server.alive()?;
    checked?;
    Ok(server.detail.clone())
}

/// Measures a selection.
pub(crate) fn measure(
    selection: &Selection,
    programs: &Programs,
    bench_dir: &Path,
) -> Result<RunResult> {
    let began = Instant::now();
    let started = files::utc_now();
    let machine = Machine::read();
    if machine.cpus < 2 {
        return Err(Error::Usage(
            "the benchmark needs two processors: one for servers, one for the load".into(),
        ));
    }
    let file_limit = machine::raise_file_limit()?;
    machine::pin(&[LOAD_CPU]).during("pinning the load generator")?;
    let precedence = Precedence::take();
    let protocol = selection.protocol();

    let mut names: Vec<&str> = selection.servers.clone();
    names.extend(selection.cells.iter().map(|cell| cell.reference));
    names.sort_unstable();
    names.dedup();
    let (details, mut missing) = check_all(&names, programs);
    for (name, why) in &missing {
        eprintln!("not measured: {name}: {why}");
    }

    let progress = Progress::new(estimate(selection, protocol, &missing));
    let mut rng = Rng::new(selection.seed);
    let mut not_measured = Vec::new();
    let mut measured = Vec::new();
    let mut micro = Vec::new();
    for (at, cell) in selection.cells.iter().enumerate() {
        if !selection.quick && at % CELLS_BETWEEN == 0 {
            microbenchmarks(selection, programs, &progress, &mut micro, &mut missing);
        }
        progress.begin(cell.title);
        let wanted = selection.of_cell(cell, &missing);
        let result = if let Some(why) = missing.get(cell.reference) {
            Err(Error::Load(format!("its reference {} is missing: {why}", cell.reference)))
        } else if wanted.len() < 2 {
            Err(Error::Load("nothing to compare the reference with".into()))
        } else {
            let most_sets = if goals::names(cell.id) { protocol.most_sets } else { protocol.sets };
            let hurried = selection.quick && began.elapsed() > REPEATS_OF_SHORT;
            let attempts = if hurried { 1 } else { protocol.attempts };
            let protocol = Protocol { most_sets, attempts, ..protocol };
            slices::measure(cell, &wanted, protocol, programs, &mut rng, &progress)
        };
        match result {
            Ok(result) => measured.push(result),
            Err(error) => not_measured.push(format!("cell {}: {error}", cell.id)),
        }
    }
    let mut result = RunResult {
        format: FORMAT,
        started,
        took_s: 0,
        command: selection.command.clone(),
        tree: Tree::read(bench_dir),
        machine,
        build: Build::read(),
        protocol: Used {
            quick: selection.quick,
            seed: selection.seed,
            rounds: protocol.rounds,
            sets: protocol.sets,
            most_sets: protocol.most_sets,
            precedence: precedence.taken(),
        },
        details,
        missing: BTreeMap::new(),
        cells: measured,
        counts: Vec::new(),
        micro: Vec::new(),
        not_measured,
    };
    count(selection, programs, file_limit, &missing, &progress, &mut result);
    microbenchmarks(selection, programs, &progress, &mut micro, &mut missing);
    progress.end();
    result.micro = micro;
    result.missing = missing;
    result.took_s = began.elapsed().as_secs();
    Ok(result)
}

/// One round of the microbenchmarks. Their times are not paired, and a machine that is shared is slow for minutes at
/// a time: so there are several rounds, far apart, and of each benchmark the round with the least time stays.
fn microbenchmarks(
    selection: &Selection,
    programs: &Programs,
    progress: &Progress,
    found: &mut Vec<Micro>,
    missing: &mut BTreeMap<String, String>,
) {
    if !selection.micro {
        return;
    }
    for program in roster::MICRO {
        progress.begin(&format!("microbenchmarks: {}", program.0));
        match micro::measure(program, programs) {
            Ok(lines) => micro::keep_least(found, lines),
            Err(error) => {
                missing.insert(format!("{} ({})", program.1, program.0), reason(&error));
            }
        }
        progress.advance(MICRO_TIME);
    }
}

fn count(
    selection: &Selection,
    programs: &Programs,
    file_limit: u64,
    missing: &BTreeMap<String, String>,
    progress: &Progress,
    result: &mut RunResult,
) {
    if selection.counted.is_empty() {
        return;
    }
    let valgrind = instructions::available();
    if !valgrind {
        result.not_measured.push(instructions::NEEDS.to_string());
    }
    let counter = syscalls::Counter::find();
    if let Err(error) = &counter {
        result.not_measured.push(error.to_string());
    }
    let counting = programs.counting.is_dir() && !selection.goals;
    if !counting && !selection.goals {
        result.not_measured.push(
            "allocations: no servers that count them: build them with the feature `count-allocs` and \
             name their directory with --counting-dir"
                .to_owned(),
        );
    }
    let turns = if selection.quick { 150 } else { 400 };
    let time = Duration::from_millis(if selection.quick { 600 } else { 3000 });
    for name in selection.counted.iter().filter(|name| !missing.contains_key(**name)) {
        progress.begin(&format!("counting: {name}"));
        let spec = roster::spec(name).expect("selections name known servers");
        let mut found = Vec::new();
        let what = Counts::of(name);
        if valgrind {
            for &connections in what.instructions {
                // As many requests with one connection as are enough to tell the slope from chance.
                let turns = if connections == 1 { turns * 8 } else { turns };
                let count = instructions::measure(&spec, programs, connections, turns);
                found.push(count.map(|count| vec![count]));
            }
        }
        if let Ok(counter) = counter {
            for &connections in what.syscalls {
                let count = syscalls::saturated(&spec, programs, counter, connections, time);
                found.push(count.map(|count| vec![count]));
            }
        }
        if counting && what.allocations {
            found.push(allocations::measure(&spec, programs, turns).map(Vec::from));
        }
        if what.memory {
            found.push(memory::measure(&spec, programs, file_limit).map(|count| vec![count]));
        }
        for counts in found {
            match counts {
                Ok(counts) => result.counts.extend(counts),
                Err(error) => result.not_measured.push(format!("a count: {error}")),
            }
        }
        progress.advance(COUNT_TIME);
    }
}

/// What is counted of a server, and with how many connections.
#[derive(Debug, PartialEq)]
struct Counts {
    instructions: &'static [usize],
    syscalls: &'static [usize],
    allocations: bool,
    memory: bool,
}

impl Counts {
    fn of(name: &str) -> Self {
        const BOTH: &[usize] = &[CONNECTIONS, 1];
        const MANY: &[usize] = &[CONNECTIONS];
        let all = Counts { instructions: MANY, syscalls: BOTH, allocations: true, memory: true };
        if name == roster::AHEAD {
            // It answers one question.
            return Counts { instructions: &[], syscalls: &[1], allocations: false, memory: false };
        }
        if [roster::OFFLOADED, roster::COALESCED].contains(&name) {
            // Callgrind runs one thread at a time, and with the reactor asleep in the ring the others may not
            // get their turn: a run need not end.
            return Counts { instructions: &[], memory: false, ..all };
        }
        if roster::MODES.contains(&name) {
            let memory = !roster::is_variant(name);
            return Counts { instructions: BOTH, memory, ..all };
        }
        if name.starts_with("axum") {
            // With two threads these do not come out the same each time.
            return Counts { instructions: &[], allocations: false, ..all };
        }
        all
    }
}

const COUNT_TIME: Duration = Duration::from_secs(8);
const MICRO_TIME: Duration = Duration::from_secs(2);
/// Cells between two rounds of the microbenchmarks.
const CELLS_BETWEEN: usize = 5;

fn estimate(
    selection: &Selection,
    protocol: Protocol,
    missing: &BTreeMap<String, String>,
) -> Duration {
    let cells: Duration = selection
        .cells
        .iter()
        .map(|cell| protocol.time(cell, &selection.of_cell(cell, missing)))
        .sum();
    let rounds =
        if selection.quick { 1 } else { 1 + selection.cells.len().div_ceil(CELLS_BETWEEN) as u32 };
    let micro = if selection.micro { roster::MICRO.len() as u32 * rounds } else { 0 };
    cells + COUNT_TIME * selection.counted.len() as u32 + MICRO_TIME * micro
}

fn named(wanted: &[String], known: &[&'static str], what: &str) -> Result<Vec<&'static str>> {
    wanted
        .iter()
        .map(|name| {
            known.iter().copied().find(|k| k == name).ok_or_else(|| {
                Error::Usage(format!(
                    "there is no {what} `{name}`; there are: {}",
                    known.join(", ")
                ))
            })
        })
        .collect()
}

/// An error without the name that stands beside it.
fn reason(error: &Error) -> String {
    match error {
        Error::Server { what, .. } => what.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish { quick: false, goals: false, seed: 1, cells: Vec::new(), servers: Vec::new() }
    }

    #[test]
    fn an_unknown_name_is_told_with_the_known_ones() {
        let error = Selection::of(&Wish { servers: vec!["nginx".into()], ..wish() });
        let error = error.expect_err("no such server").to_string();
        assert!(error.contains("`nginx`") && error.contains("raw-epoll"), "{error}");
        let error = Selection::of(&Wish { cells: vec!["echo".into()], ..wish() });
        assert!(error.expect_err("no such cell").to_string().contains("echo-64b-c64"));
    }

    #[test]
    fn the_quick_run_is_a_part_and_a_missing_server_is_left_out() {
        let quick = Selection::of(&Wish { quick: true, ..wish() }).expect("a selection");
        let full = Selection::of(&wish()).expect("a selection");
        assert!(quick.cells.len() < full.cells.len() && !quick.cells.is_empty());
        let cell = &quick.cells[0];
        let missing = BTreeMap::from([(roster::TOKIO.to_owned(), "gone".to_owned())]);
        let servers = quick.of_cell(cell, &missing);
        assert!(!servers.contains(&roster::TOKIO) && servers.contains(&cell.reference));
    }

    #[test]
    fn the_cells_of_the_decomposition_bring_its_counts_with_them() {
        let of = |cells: &[&str]| {
            let cells = cells.iter().map(|id| (*id).to_owned()).collect();
            Selection::of(&Wish { cells, ..wish() }).expect("a selection").counted
        };
        let mut counted = of(&[cells::MODES_ONE, cells::MODES_MANY]);
        counted.sort_unstable();
        let mut modes = roster::MODES.to_vec();
        modes.sort_unstable();
        assert_eq!(counted, modes);
        let cells = vec![cells::MODES_ONE.to_owned()];
        let quick = Selection::of(&Wish { quick: true, cells, ..wish() }).expect("a selection");
        assert_eq!(quick.of_cell(&quick.cells[0], &BTreeMap::new()), roster::MODES);
        assert!(of(&["echo-64b-c1"]).is_empty());
    }

    #[test]
    fn the_modes_are_counted_with_one_connection_too() {
        for mode in roster::MODES {
            let threads = [roster::OFFLOADED, roster::COALESCED].contains(&mode);
            assert_eq!(Counts::of(mode).instructions.is_empty(), threads, "{mode}");
            assert!(Counts::of(mode).syscalls.contains(&1), "{mode}");
        }
        assert_eq!(Counts::of(roster::TOKIO).instructions, [CONNECTIONS]);
        assert_eq!(Counts::of(roster::AHEAD).syscalls, [1]);
    }

    #[test]
    fn the_goals_have_the_counts_that_they_speak_of() {
        let selection = Selection::of(&Wish { goals: true, ..wish() }).expect("a selection");
        for server in roster::PELTON_ECHO.into_iter().chain([roster::AHEAD]) {
            assert!(selection.counted.contains(&server), "{server}");
        }
    }

    #[test]
    fn the_reference_is_measured_even_if_not_asked_for() {
        let wish = Wish {
            cells: vec!["echo-64b-c64".into()],
            servers: vec![roster::TOKIO.into()],
            ..wish()
        };
        let selection = Selection::of(&wish).expect("a selection");
        let servers = selection.of_cell(&selection.cells[0], &BTreeMap::new());
        assert_eq!(servers, [roster::RAW_URING, roster::TOKIO]);
    }
}
