//! Running a scenario under a seed, or under many: whole, again, and shrunk.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use pelton_driver::sim::{Decision, World};

use super::options::Options;
use super::report::{Failure, Kind, Report};
use super::scene::Sim;
use super::shrink::shrink;
use super::{environment, panics};

/// How many choices, dull ones too, all the runs of one shrinking may make.
const SHRINKING: u64 = 20_000_000;

thread_local! {
    static CURRENT: RefCell<Option<Sim>> = const { RefCell::new(None) };
}

/// The simulation that this thread runs.
///
/// # Panics
/// None runs.
pub fn current() -> Sim {
    CURRENT
        .with(|current| current.borrow().clone())
        .expect("no simulation runs on this thread: call this from inside `pelton::sim::run`")
}

/// Runs a scenario under a seed, with the faults that the seed picks.
///
/// # Panics
/// The run failed. The message tells the shrunk story, and how to make it happen again.
pub fn run(seed: u64, scenario: impl Fn(&Sim)) -> Report {
    run_with(Options::new(seed), scenario)
}

/// Runs a scenario under each of several seeds, `0..seeds`. In the environment `PELTON_SIM_SEED=7` picks one,
/// and `PELTON_SIM_SEEDS=1000` or `PELTON_SIM_SEEDS=100..200` others.
///
/// # Panics
/// As [`run`], at the first seed that fails. Or a variable does not say what it should.
pub fn run_seeds(seeds: u64, scenario: impl Fn(&Sim)) {
    run_seeds_with(seeds, Options::new, scenario);
}

/// [`run_seeds`], with options for each seed.
///
/// ```
/// use pelton::sim::{self, Options};
/// sim::run_seeds_with(10, |seed| Options::new(seed).partitions(50_000), |sim| {
///     sim.client("alone", async { Ok(()) });
/// });
/// ```
///
/// # Panics
/// As [`run_seeds`].
pub fn run_seeds_with(seeds: u64, options: impl Fn(u64) -> Options, scenario: impl Fn(&Sim)) {
    for seed in environment::seeds(seeds) {
        run_with(options(seed), &scenario);
    }
}

/// Runs a scenario with options.
///
/// # Panics
/// As [`run`].
pub fn run_with(options: Options, scenario: impl Fn(&Sim)) -> Report {
    match try_run(options, scenario) {
        Ok(report) => report,
        Err(failure) => panic!("{failure}"),
    }
}

/// Runs a scenario with options, and gives a failure back instead of panicking.
///
/// # Errors
/// The run failed: how, and the shrunk story.
pub fn try_run(options: Options, scenario: impl Fn(&Sim)) -> Result<Report, Box<Failure>> {
    let seed = options.seed();
    if let Some(text) = environment::replay(seed) {
        let world = World::replay_text(&options.world, &text)
            .unwrap_or_else(|error| panic!("PELTON_SIM_REPLAY: {error}"));
        let run = once(world, &options, &scenario, true);
        let decisions = run.decisions.len();
        return run.outcome(seed, decisions, 0);
    }
    let first = once(World::new(&options.world), &options, &scenario, false);
    if first.failure.is_none() {
        return if options.twice { again(first, &options, &scenario) } else { Ok(first.report) };
    }
    let decisions = first.decisions.len();
    if !options.shrink {
        return first.outcome(seed, decisions, 0);
    }
    shrunk(first, &options, &scenario)
}

/// Runs a seed that went well again, to see whether it does the same.
fn again(first: Run, options: &Options, scenario: &impl Fn(&Sim)) -> Result<Report, Box<Failure>> {
    let second = once(World::new(&options.world), options, scenario, false);
    let report = first.report;
    if second.report.trace_hash == report.trace_hash {
        return Ok(report);
    }
    let pairs = first.decisions.iter().zip(&second.decisions);
    let parted = pairs.into_iter().find(|(one, other)| one != other);
    let at = parted.map_or(report.elapsed.min(second.report.elapsed), |(one, other)| {
        Duration::from_nanos(one.at.min(other.at))
    });
    let mut what = "the same seed did two different things: something in the test does not go through Pelton (a clock, the order of a HashMap, a thread, a static)".to_owned();
    match parted {
        Some((one, other)) => {
            what.push_str(&format!("\n  the first run: {one}\n  the second:    {other}"));
        }
        None => what.push_str("\n  up to its end both made the same choices"),
    }
    Err(Box::new(Failure {
        seed: report.seed,
        kind: Kind::NotDeterministic,
        what,
        at,
        story: Vec::new(),
        told: Vec::new(),
        decisions: 0,
        shrunk_in: 0,
        again: environment::again(report.seed, None),
    }))
}

/// Shrinks a run that failed.
fn shrunk(first: Run, options: &Options, scenario: &impl Fn(&Sim)) -> Result<Report, Box<Failure>> {
    let (seed, decisions) = (options.seed(), first.decisions.len());
    let kind = first.failure.as_ref().map(|failure| failure.0);
    let spent = Cell::new(0);
    let fails = |some: &[Decision]| {
        if spent.get() > SHRINKING {
            return false;
        }
        let run = once(World::replay(&options.world, some), options, scenario, false);
        spent.set(spent.get() + run.choices);
        run.failure.is_some_and(|(other, ..)| Some(other) == kind)
    };
    let (story, runs) = shrink(first.decisions.clone(), fails);
    // Once more for its words, which belong to the shrunk run.
    let last = once(World::replay(&options.world, &story), options, scenario, false);
    let run = if last.failure.is_some() { last } else { first };
    run.outcome(seed, decisions, runs)
}

/// What one run came to.
struct Run {
    failure: Option<(Kind, String, Duration)>,
    report: Report,
    decisions: Vec<Decision>,
    told: Vec<(Duration, String)>,
    choices: u64,
}

impl Run {
    fn outcome(
        self,
        seed: u64,
        decisions: usize,
        shrunk_in: usize,
    ) -> Result<Report, Box<Failure>> {
        let Some((kind, what, at)) = self.failure else { return Ok(self.report) };
        let (story, told) = (self.decisions, self.told);
        let again = environment::again(seed, Some(&story));
        Err(Box::new(Failure { seed, kind, what, at, story, told, decisions, shrunk_in, again }))
    }
}

fn once(world: World, options: &Options, scenario: &impl Fn(&Sim), loud: bool) -> Run {
    let entered = world.enter();
    let sim = Sim::new(world.clone(), options);
    let before = CURRENT.with(|current| current.borrow_mut().replace(sim.clone()));
    let watch = panics::Watch::start(loud);
    let nobody = crate::task::turning::nobody();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        scenario(&sim);
        sim.whole(options);
    }));
    if let Err(panic) = ran {
        let words = || format!("panicked: {}", panics::words(panic.as_ref()));
        let what = panics::take().into_iter().next().unwrap_or_else(words);
        sim.fail(Kind::Panic, format!("the test itself {what}"));
    }
    drop(watch);
    CURRENT.with(|current| *current.borrow_mut() = before);
    let report = Report {
        seed: options.seed(),
        trace_hash: world.trace_hash(),
        events: world.events(),
        elapsed: world.now(),
    };
    let run = Run {
        failure: sim.0.failure.take(),
        report,
        decisions: world.decisions(),
        told: sim.0.told.take(),
        choices: world.choices(),
    };
    drop(sim);
    drop(nobody);
    drop(entered);
    run
}
