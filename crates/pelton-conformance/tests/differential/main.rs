//! Random scripts of operations, on every backend and on the simulated system under each of them: every outcome must
//! be one of those that the model allows, and what the model says must end has to.
//!
//! This keeps the simulator honest: what it answers is held against the same sets as what the real kernel answers. The
//! model says what a script may do, not what it does: how bytes are cut, and which of a cancel and its target comes
//! first, is the kernel's affair. `PELTON_DIFFERENTIAL_CASES` in the environment is how many scripts are played.
#![cfg(target_os = "linux")]

mod connection;
mod file;
mod play;
mod script;

use pelton_conformance::{System, on};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Scripts that every run of the tests plays.
const CASES: u32 = 128;

#[test]
fn every_outcome_is_one_that_the_model_allows() {
    let asked = std::env::var("PELTON_DIFFERENTIAL_CASES").ok();
    let cases = asked.and_then(|number| number.parse().ok()).unwrap_or(CASES);
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let played = std::cell::Cell::new(0);
    let outcome = runner.run(&script::script(), |script| {
        played.set(played.get() + 1);
        // Two worlds each: what races, and how bytes are cut, is the seed's choice there.
        play_everywhere(&script, &[played.get(), 1000 + played.get()]);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn scripts_that_have_found_something_find_nothing_any_more() {
    let worlds: Vec<u64> = (0..16).collect();
    for script in script::that_found_something() {
        play_everywhere(&script, &worlds);
    }
}

/// Plays a script on every system, on the simulated ones in these worlds.
fn play_everywhere(script: &[script::Step], worlds: &[u64]) {
    let systems = [
        System::IoUring,
        System::Epoll,
        #[cfg(pelton_kqueue_elsewhere)]
        System::Kqueue,
        System::SimRing,
        System::SimReadiness,
        #[cfg(pelton_iocp_elsewhere)]
        System::SimPorts,
    ];
    let runs = systems.into_iter().flat_map(|system| {
        let worlds = match system {
            System::IoUring | System::Epoll | System::Kqueue => &[0],
            _ => worlds,
        };
        worlds.iter().map(move |world| (system, *world))
    });
    let mut ran = 0;
    for (system, seed) in runs {
        let _on = Told(system, seed);
        ran += usize::from(on(system, seed, |bench| play::play(bench, script)).is_some());
    }
    assert!(ran > 2 * worlds.len(), "epoll and the simulated system run everywhere");
}

/// Says on which system it was when a script fails.
struct Told(System, u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("on {}, seed {}", self.0.name(), self.1);
        }
    }
}
