//! What `#[pelton::sim_test]` expands to calls this. No part of the interface.

pub use super::environment::Test;
use super::options::Options;
use super::run::run_seeds_with;
use super::scene::Sim;
use pelton_driver::sim::Faults;

/// Runs a test under its seeds.
pub fn run(test: &Test, seeds: u64, options: impl Fn(Options) -> Options, scenario: fn(&Sim)) {
    test.running(|| run_seeds_with(seeds, |seed| options(Options::new(seed)), scenario));
}

/// `faults = "harmless"`.
pub fn harmless(options: Options) -> Options {
    let faults = Faults::swarm(options.seed()).harmless();
    options.faults(faults)
}

/// `faults = "none"`.
pub fn none(options: Options) -> Options {
    options.faults(Faults::none())
}
