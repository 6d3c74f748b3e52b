//! Worlds for the simulator: programs that use everything of the driver and the runtime while the simulated
//! system does its worst, and oracles that see whatever goes to the wrong place.
//!
//! A world is a function of a seed. The seed decides what is done, in which order, and which faults there are
//! (swarm testing: most of them off in any one seed). A run that fails is shrunk to the choices it needs and told
//! in words. `cargo xtask sim` runs as many seeds as one likes; `cargo test` runs a few of each world.
//!
//! ```
//! use pelton_swarm::{Options, worlds};
//! let chaos = worlds().iter().find(|world| world.name == "chaos").unwrap();
//! let stats = (chaos.run)(1, &Options::default()).unwrap();
//! assert!(stats.events > 0);
//! ```

mod chaos;
mod churn;
mod datagrams;
mod drive;
mod echo;
mod errands;
mod files;
mod hosted;
#[cfg(pelton_mutants)]
pub mod mutants;
pub mod pattern;
#[cfg(pelton_iocp_elsewhere)]
mod places;
mod posts;
mod tasks;

use std::time::Duration;

pub use pelton::sim::{Failure, Fault, Faults, Kind};
pub use pelton_driver::sim::Rooms;

/// Which faults a run shows.
#[derive(Clone, Debug, Default)]
pub enum Which {
    /// Those that the seed picks.
    #[default]
    Swarm,
    /// Those that the seed picks, without those that an application may notice.
    Harmless,
    /// None.
    None,
    /// Just these.
    These(Faults),
}

impl Which {
    /// The faults of a seed.
    pub fn of(&self, seed: u64) -> Faults {
        match self {
            Which::Swarm => Faults::swarm(seed),
            Which::Harmless => Faults::swarm(seed).harmless(),
            Which::None => Faults::none(),
            Which::These(faults) => faults.clone(),
        }
    }
}

/// How a world is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which faults there are.
    pub faults: Which,
    /// Runs each seed again to see whether it does the same.
    pub twice: bool,
    /// The choices to make, as a failure tells them, instead of those of the seed.
    pub replay: Option<String>,
    /// Tells on the standard error what is done as it is done, where a world knows how to.
    pub tell: bool,
    /// What hosts run on that may choose.
    pub rooms: Rooms,
}

#[cfg(pelton_iocp_elsewhere)]
impl Options {
    /// The same on completion ports.
    fn on_ports(&self) -> Options {
        Options { rooms: Rooms::Windows, ..self.clone() }
    }
}

/// What a run that went well did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events of the simulated system.
    pub events: u64,
    /// Choices that were made, dull ones too.
    pub choices: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// A number for everything that happened.
    pub trace_hash: u64,
}

/// A world, by name.
#[derive(Clone, Copy, Debug)]
pub struct WorldSpec {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Runs it under a seed.
    pub run: fn(u64, &Options) -> Result<Stats, Box<Failure>>,
}

/// Every world.
pub fn worlds() -> &'static [WorldSpec] {
    &[
        WorldSpec {
            name: "chaos",
            about: "every operation of raw drivers, in random order, given up and cancelled at random",
            run: chaos::run,
        },
        WorldSpec {
            name: "echo",
            about: "clients that are idle for long and send streams back and forth; timers of every kind",
            run: |seed, options| hosted::run(seed, options, 7 * 24 * 60, echo::scenario),
        },
        WorldSpec {
            name: "churn",
            about: "connections that come in storms and end in every manner",
            run: |seed, options| hosted::run(seed, options, 60, churn::scenario),
        },
        WorldSpec {
            name: "tasks",
            about: "tasks ended in every manner, futures dropped at any moment, the blocking pool",
            run: |seed, options| hosted::run(seed, options, 60, tasks::scenario),
        },
        WorldSpec {
            name: "posts",
            about: "reactors of one host that post to each other and await each other's tasks",
            run: |seed, options| hosted::run(seed, options, 60, posts::scenario),
        },
        WorldSpec {
            name: "files",
            about: "a log that is synced, on a host that loses power",
            run: |seed, options| hosted::run(seed, options, 60, files::scenario),
        },
        WorldSpec {
            name: "datagrams",
            about: "datagrams of every size, with and without connections, against a ledger of what was sent",
            run: datagrams::run,
        },
        WorldSpec {
            name: "errands",
            about: "what one does with a runtime, without errors: whatever is begun must come to its end",
            run: errands::run,
        },
        #[cfg(pelton_iocp_elsewhere)]
        WorldSpec {
            name: "chaos-ports",
            about: "chaos, on the room of Windows",
            run: |seed, options| chaos::run(seed, &options.on_ports()),
        },
        #[cfg(pelton_iocp_elsewhere)]
        WorldSpec {
            name: "echo-ports",
            about: "echo, on the room of Windows",
            run: |seed, options| {
                hosted::run(seed, &options.on_ports(), 7 * 24 * 60, echo::scenario)
            },
        },
        #[cfg(pelton_iocp_elsewhere)]
        WorldSpec {
            name: "churn-ports",
            about: "churn, on the room of Windows",
            run: |seed, options| hosted::run(seed, &options.on_ports(), 60, churn::scenario),
        },
        #[cfg(pelton_iocp_elsewhere)]
        WorldSpec {
            name: "posts-ports",
            about: "posts, on the room of Windows",
            run: |seed, options| hosted::run(seed, &options.on_ports(), 60, posts::scenario),
        },
        #[cfg(pelton_iocp_elsewhere)]
        WorldSpec {
            name: "files-ports",
            about: "files, on the room of Windows",
            run: |seed, options| hosted::run(seed, &options.on_ports(), 60, files::scenario),
        },
        #[cfg(pelton_iocp_elsewhere)]
        WorldSpec {
            name: "datagrams-ports",
            about: "datagrams, on the room of Windows",
            run: |seed, options| datagrams::run(seed, &options.on_ports()),
        },
        #[cfg(pelton_iocp_elsewhere)]
        WorldSpec {
            name: "places-ports",
            about: "files beyond four gibibytes; sockets that several wait for in both directions",
            run: |seed, options| hosted::run(seed, &options.on_ports(), 60, places::scenario),
        },
        #[cfg(pelton_iocp_elsewhere)]
        WorldSpec {
            name: "errands-ports",
            about: "errands, on the room of Windows",
            run: |seed, options| errands::run(seed, &options.on_ports()),
        },
    ]
}
