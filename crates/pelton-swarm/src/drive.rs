//! Running a world that works on raw drivers: once, again to compare, and when it fails as often as shrinking
//! needs.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pelton::sim::{Failure, Kind};
use pelton_driver::sim::{Decision, World, WorldOptions, shrink};

use crate::{Options, Stats};

type Outcome = Result<(), (Kind, String)>;

struct Run {
    outcome: Outcome,
    stats: Stats,
    decisions: Vec<Decision>,
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics that a failure tells of from being printed each time.
fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.try_with(Cell::get).unwrap_or(false) {
                before(info);
            }
        }));
    });
}

fn once(world: World, body: &dyn Fn(&World) -> Outcome) -> Run {
    let entered = world.enter();
    hush();
    let was_quiet = QUIET.replace(std::env::var_os("RUST_BACKTRACE").is_none());
    let ran = catch_unwind(AssertUnwindSafe(|| body(&world)));
    QUIET.set(was_quiet);
    let mut outcome = match ran {
        Ok(outcome) => outcome,
        Err(panic) => Err((Kind::Panic, words(panic.as_ref()))),
    };
    if outcome.is_ok()
        && let Some(what) = world.violations().into_iter().next()
    {
        outcome = Err((Kind::Violation, what));
    }
    let stats = Stats {
        events: world.events(),
        choices: world.choices(),
        elapsed: world.now(),
        trace_hash: world.trace_hash(),
    };
    drop(entered);
    Run { outcome, stats, decisions: world.decisions() }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".into())
}

/// Runs a world under a seed.
pub(crate) fn run(
    seed: u64,
    options: &Options,
    body: &dyn Fn(&World) -> Outcome,
) -> Result<Stats, Box<Failure>> {
    let faults = options.faults.of(seed);
    let rooms = options.rooms;
    let quiet = WorldOptions { faults, keep: false, rooms, ..WorldOptions::new(seed) };
    let kept = WorldOptions { keep: true, ..quiet.clone() };
    let failed = |kind, what, story: Vec<Decision>, decisions, shrunk_in| {
        let mut failure = Failure::new(seed, kind, what);
        (failure.story, failure.decisions, failure.shrunk_in) = (story, decisions, shrunk_in);
        Box::new(failure)
    };
    if let Some(text) = &options.replay {
        let world = World::replay_text(&kept, text)
            .map_err(|error| failed(Kind::Error, error, Vec::new(), 0, 0))?;
        let run = once(world, body);
        let decisions = run.decisions.len();
        return match run.outcome {
            Ok(()) => Ok(run.stats),
            Err((kind, what)) => Err(failed(kind, what, run.decisions, decisions, 1)),
        };
    }
    let first = once(World::new(&quiet), body);
    let same = |other: &Run| other.stats.trace_hash == first.stats.trace_hash;
    let unequal = || {
        let what = "the same seed did two different things".to_owned();
        failed(Kind::NotDeterministic, what, Vec::new(), 0, 2)
    };
    let Err((kind, what)) = first.outcome else {
        if options.twice && !same(&once(World::new(&quiet), body)) {
            return Err(unequal());
        }
        return Ok(first.stats);
    };
    // Again, with the choices written down.
    let all = once(World::new(&kept), body).decisions;
    let decisions = all.len();
    let again = |some: &[Decision]| {
        let run = once(World::replay(&kept, some), body);
        run.outcome.is_err_and(|(other, _)| other == kind)
    };
    let (story, shrunk_in) = shrink(all, again);
    let last = once(World::replay(&kept, &story), body);
    Err(match last.outcome {
        Err((kind, what)) => failed(kind, what, last.decisions, decisions, shrunk_in),
        Ok(()) => failed(kind, what, story, decisions, shrunk_in),
    })
}
