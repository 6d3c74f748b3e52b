//! The worlds in which behaviours run on a simulated system, and what is checked of them.

use pelton_driver::sim::{Faults, World, WorldOptions};

pub(crate) use pelton_driver::sim::Fault;

use crate::bench::{Bench, System};
use crate::registry::Behaviour;

/// Runs something in a world, where the system is simulated. A behaviour says which faults it cannot bear.
pub(crate) fn in_world<R>(
    system: System,
    seed: u64,
    behaviour: Option<&Behaviour>,
    f: impl FnOnce(&Bench) -> R,
) -> R {
    let faults = match behaviour {
        Some(behaviour) if system.has_faults() => Faults::swarm(seed)
            .harmless()
            // The bench forces a ring, and says so where it is refused.
            .without(&[Fault::RingRefused])
            .without(behaviour.unbearable),
        _ => Faults::none(),
    };
    let world = system
        .is_simulated()
        .then(|| World::new(&WorldOptions { faults, ..WorldOptions::new(seed) }));
    let entered = world.as_ref().map(World::enter);
    let story = world.clone().filter(|_| std::env::var_os("PELTON_CONFORMANCE_SEED").is_some());
    let _story = story.map(Story);
    let bench = Bench::new(system, seed);
    let result = f(&bench);
    drop(bench);
    drop(entered);
    if let Some(world) = world {
        assert_eq!(world.violations(), [""; 0], "the world has found something wrong");
        assert_eq!(world.leftovers(), [""; 0], "something was left behind");
    }
    result
}

/// Of the one seed that was asked for: what went wrong in it, and what was waited for when it failed.
struct Story(World);

impl Drop for Story {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for decision in self.0.decisions().iter().filter(|decision| !decision.story.is_empty()) {
            eprintln!("  {decision}");
        }
        for file in self.0.leftovers() {
            eprintln!("  {file}");
        }
        for wait in self.0.waits_of(self.0.localhost()) {
            eprintln!("  it waits for {wait}");
        }
    }
}
