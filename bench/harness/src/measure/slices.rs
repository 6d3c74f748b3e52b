//! Processor time per request, in paired and interleaved slices.
//!
//! All the servers of a cell are up at once. One at a time is driven for a turn, in an order that
//! is shuffled each time, so that whatever the machine does meets all of them; a slice is a few such turns
//! together, and a round is a slice of each. A server's ratio
//! is its time per request divided by the reference's in the same round; the first round is
//! dropped, and the whole is done again with new processes. A second process of the reference runs
//! beside it: what that one's ratio strays from 1 is the resolution of the cell, and a cell whose
//! median strays too far is thrown away and repeated.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::Programs;
use super::cpu::{Clocks, Reading};
use super::stats;
use crate::cells::{self, Cell, Client};
use crate::error::{Error, Result};
use crate::load::{self, Driver};
use crate::machine::{LOAD_CPU, SERVER_CPU};
use crate::report::model::{self, CellResult, Latency, Row, Slice};
use crate::report::progress::Progress;
use crate::rng::Rng;
use crate::roster::{self, COPY};
use crate::server::{Server, Start};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protocol {
    pub(crate) rounds: usize,
    /// Sets of processes, one after the other.
    pub(crate) sets: usize,
    /// As many at most where the controls are not known well enough with those. The later ones are of the servers that
    /// goals speak of.
    pub(crate) most_sets: usize,
    pub(crate) attempts: usize,
}

struct Target {
    name: String,
    server: Server,
    driver: Driver,
    clocks: Clocks,
}

impl Protocol {
    /// How long a cell takes when the first attempt is good, without starting the servers.
    pub(crate) fn time(&self, cell: &Cell, wanted: &[&str]) -> Duration {
        self.time_of_set(cell, wanted) * self.sets as u32
    }

    fn time_of_set(&self, cell: &Cell, wanted: &[&str]) -> Duration {
        let processes = wanted.len() + roster::copies(cell.reference, wanted).len();
        cell.slice * ((self.rounds * cell.slices + 1) * processes) as u32
    }
}

/// Measures one cell with those of its servers that `wanted` names.
pub(crate) fn measure(
    cell: &Cell,
    wanted: &[&'static str],
    protocol: Protocol,
    programs: &Programs,
    rng: &mut Rng,
    progress: &Progress,
) -> Result<CellResult> {
    let mut attempt = 1;
    loop {
        let mut result = once(cell, wanted, protocol, programs, rng, progress)?;
        result.attempts = attempt;
        let copy = result.row(COPY).and_then(|row| row.ratio);
        let off = copy.map_or(f64::INFINITY, |ratio| (ratio.median - 1.0).abs());
        result.settled = off <= cell.tolerance();
        if result.settled || attempt == protocol.attempts {
            if !result.settled {
                result.notes.push(format!(
                    "the copy of the reference was off by {:.1} % in {attempt} of {attempt} \
                     attempts: read these ratios with that in mind",
                    off * 100.0
                ));
            }
            return Ok(result);
        }
        progress.note(&format!(
            "{}: the copy of the reference is off by {:.1} %: once more",
            cell.id,
            off * 100.0
        ));
        attempt += 1;
    }
}

fn once(
    cell: &Cell,
    wanted: &[&'static str],
    protocol: Protocol,
    programs: &Programs,
    rng: &mut Rng,
    progress: &Progress,
) -> Result<CellResult> {
    let mut slices = Vec::new();
    let mut histograms: HashMap<String, Histogram<u64>> = HashMap::new();
    let mut failed: BTreeMap<String, String> = BTreeMap::new();
    let mut details: BTreeMap<String, String> = BTreeMap::new();
    // How long it goes on is for the controls to say and not for those that are judged by them.
    let judged: Vec<_> =
        wanted.iter().copied().filter(|name| cells::goal_servers().contains(name)).collect();
    let mut set = 0;
    while set < protocol.sets
        || (set < protocol.most_sets && !are_controls_known(cell, &slices, &failed))
    {
        let of_set = if set < protocol.sets { wanted } else { &judged };
        if set >= protocol.sets {
            progress.extend(protocol.time_of_set(cell, of_set));
        }
        let mut targets = start(cell, of_set, programs, &mut failed)?;
        for target in &targets {
            details.insert(target.name.clone(), target.server.detail.clone());
        }
        for round in 0..=protocol.rounds * cell.slices {
            let mut taken: BTreeMap<String, Taken> = BTreeMap::new();
            for _ in 0..cell.turns {
                rng.shuffle(&mut targets);
                let mut broken = Vec::new();
                for (order, target) in targets.iter_mut().enumerate() {
                    let of_target =
                        taken.entry(target.name.clone()).or_insert_with(|| Taken::new(order));
                    if let Err(error) = of_target.turn(cell, target) {
                        let error = target.server.alive().err().unwrap_or(error);
                        failed.insert(target.name.clone(), error.to_string());
                        broken.push(target.name.clone());
                    }
                    progress.advance(cell.slice / cell.turns);
                }
                targets.retain(|target| !broken.contains(&target.name));
            }
            for target in targets.iter().filter(|_| round > 0) {
                let Some(taken) = taken.remove(&target.name) else { continue };
                let all = histograms.entry(target.name.clone());
                all.or_insert_with(load::latencies).add(&taken.latency).ok();
                slices.push(taken.into_slice(&target.name, set, round));
            }
        }
        for target in &mut targets {
            let sound = target.server.alive().and_then(|()| target.server.identify());
            if let Err(error) = sound {
                failed.insert(target.name.clone(), error.to_string());
            }
        }
        set += 1;
    }
    if let Some(what) = failed.get(cell.reference) {
        return Err(Error::Load(format!("{}: no reference: {what}", cell.id)));
    }
    Ok(summarise(cell, wanted, slices, &histograms, failed, details))
}

/// Of a control that is not measured, because a process of it has failed or the cell has none, nothing more can be known.
fn are_controls_known(cell: &Cell, slices: &[Slice], failed: &BTreeMap<String, String>) -> bool {
    let servers: Vec<&str> = slices.iter().map(|slice| slice.server.as_str()).collect();
    roster::copies(cell.reference, &servers).into_iter().all(|(copy, of)| {
        let ratios = model::ratios(slices, copy, of, Slice::cost_ns);
        let is_measured =
            !ratios.is_empty() && ![copy, of].iter().any(|name| failed.contains_key(*name));
        !is_measured || stats::are_quartiles_known(&ratios)
    })
}

fn start(
    cell: &Cell,
    wanted: &[&'static str],
    programs: &Programs,
    failed: &mut BTreeMap<String, String>,
) -> Result<Vec<Target>> {
    let mut names = vec![(cell.reference, cell.reference)];
    names.extend(roster::copies(cell.reference, wanted));
    names.extend(wanted.iter().filter(|name| **name != cell.reference).map(|name| (*name, *name)));
    let mut targets = Vec::new();
    let cpus: &[usize] = match cell.client {
        Client::SleepsBeside => &[SERVER_CPU, LOAD_CPU],
        _ => &[SERVER_CPU],
    };
    for (name, program) in names {
        if failed.contains_key(name) {
            continue;
        }
        let spec = roster::spec(program).expect("cells name known servers");
        let target =
            Server::start(&Start { cpus, ..Start::new(&spec, &programs.dir) }).and_then(|server| {
                let driver = Driver::connect(cell, server.addr)?;
                let clocks = Clocks::new(server.pid(), cpus);
                Ok(Target { name: name.to_owned(), server, driver, clocks })
            });
        match target {
            Ok(target) => targets.push(target),
            Err(error) => {
                failed.insert(name.to_owned(), error.to_string());
            }
        }
    }
    Ok(targets)
}

/// What the turns of a slice have come to so far.
struct Taken {
    /// The place in the order of the first one.
    order: usize,
    requests: u64,
    wall: Duration,
    idle: Duration,
    used: Reading,
    latency: Histogram<u64>,
}

impl Taken {
    fn new(order: usize) -> Self {
        Self {
            order,
            requests: 0,
            wall: Duration::ZERO,
            idle: Duration::ZERO,
            used: Reading::default(),
            latency: load::latencies(),
        }
    }

    /// Drives the server for one turn.
    fn turn(&mut self, cell: &Cell, target: &mut Target) -> Result<()> {
        let before = target.clocks.settled()?;
        let driven = target.driver.drive(cell.slice / cell.turns)?;
        self.used += target.clocks.settled()?.since(before);
        self.requests += driven.requests;
        self.wall += driven.wall;
        self.idle += driven.idle;
        self.latency.add(&driven.latency).expect("histograms with the same bounds");
        Ok(())
    }

    fn into_slice(self, server: &str, set: usize, round: usize) -> Slice {
        let quantile = |q| self.latency.value_at_quantile(q);
        Slice {
            server: server.to_owned(),
            set,
            round,
            order: self.order,
            requests: self.requests,
            wall_ns: self.wall.as_nanos() as u64,
            idle_ns: self.idle.as_nanos() as u64,
            cpu_ns: self.used.process,
            softirq_ns: self.used.softirq,
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
        }
    }
}

/// Below this the server waited for the client, or for a fixed rate.
const SATURATED: f64 = 0.9;

fn summarise(
    cell: &Cell,
    wanted: &[&'static str],
    slices: Vec<Slice>,
    histograms: &HashMap<String, Histogram<u64>>,
    failed: BTreeMap<String, String>,
    details: BTreeMap<String, String>,
) -> CellResult {
    let mut result = CellResult {
        id: cell.id.to_owned(),
        title: cell.title.to_owned(),
        reference: cell.reference.to_owned(),
        unit: cell.unit().to_owned(),
        open_loop: matches!(cell.pace, crate::cells::Pace::Open { .. }),
        settled: true,
        attempts: 1,
        notes: Vec::new(),
        rows: Vec::new(),
        slices,
    };
    let mut names: Vec<&str> = vec![COPY];
    names.extend(wanted);
    for name in names {
        let own: Vec<&Slice> = result.slices.iter().filter(|s| s.server == name).collect();
        let over = |f: &dyn Fn(&Slice) -> f64| own.iter().map(|s| f(s)).collect::<Vec<f64>>();
        let cost = over(&Slice::cost_ns);
        let utilisation =
            stats::median(&over(&|s| (s.cpu_ns + s.softirq_ns) as f64 / s.wall_ns as f64));
        let client = stats::median(&over(&|s| 1.0 - s.idle_ns as f64 / s.wall_ns as f64));
        let saturating = matches!(cell.pace, crate::cells::Pace::Closed);
        let latency = histograms.get(name).map(|all| Latency {
            p50_ns: all.value_at_quantile(0.5),
            p99_ns: all.value_at_quantile(0.99),
            p999_ns: all.value_at_quantile(0.999),
        });
        let row = Row {
            server: name.to_owned(),
            detail: details.get(name).cloned().unwrap_or_default(),
            failed: failed.get(name).cloned(),
            ratio: result.ratio_to(name, cell.reference, Slice::cost_ns),
            cpu_ns_min: cost.iter().copied().reduce(f64::min),
            cpu_ns_median: stats::median(&cost),
            per_second: stats::median(&over(&|s| s.requests as f64 * 1e9 / s.wall_ns as f64)),
            utilisation,
            client_utilisation: client,
            client_bound: saturating && utilisation.is_some_and(|u| u < SATURATED),
            latency,
        };
        result.rows.push(row);
    }
    let bound: Vec<&str> =
        result.rows.iter().filter(|r| r.client_bound).map(|r| r.server.as_str()).collect();
    if !bound.is_empty() {
        result.notes.push(format!(
            "the client bounded {}: rates say nothing there, ratios of processor time do",
            if bound.len() == result.rows.len() { "all".to_owned() } else { bound.join(", ") }
        ));
    }
    result
}
