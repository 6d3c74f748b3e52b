//! How a simulation is run.

use std::time::Duration;

use pelton_driver::sim::{Faults, Rooms, WorldOptions};

/// How a simulation is run.
///
/// ```
/// use std::time::Duration;
/// use pelton::sim::{self, Fault, Faults, Options};
///
/// // Nothing goes wrong but that one receive in ten is short, and the network is cut now and then.
/// let options = Options::new(5)
///     .faults(Faults::none().with(Fault::ShortReceive, 100_000))
///     .partitions(50_000)
///     .time_limit(Duration::from_secs(10));
/// sim::run_with(options, |sim| {
///     sim.client("alone", async { Ok(()) });
/// });
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are run with"]
pub struct Options {
    pub(super) world: WorldOptions,
    pub(super) time_limit: Duration,
    pub(super) grace: Duration,
    pub(super) vary: bool,
    pub(super) twice: bool,
    pub(super) shrink: bool,
    pub(super) allow_panics: bool,
    pub(super) partitions: u32,
    pub(super) crashes: u32,
    pub(super) replay: Option<String>,
}

impl Options {
    /// The default: the seed decides which faults there are (swarm testing), ten seconds of virtual
    /// time with them, and a minute without in which everything has to come to its end. No partitions and no
    /// crashes.
    pub fn new(seed: u64) -> Options {
        Options {
            world: WorldOptions::swarm(seed),
            time_limit: Duration::from_secs(10),
            grace: Duration::from_secs(60),
            vary: true,
            twice: true,
            shrink: true,
            allow_panics: false,
            partitions: 0,
            crashes: 0,
            replay: None,
        }
    }

    /// Makes just these choices, as [`Failure::replay`](super::Failure::replay) writes them, instead of those of
    /// the seed. The environment variable `PELTON_SIM_REPLAY` does the same for the seed that `PELTON_SIM_SEED`
    /// names.
    pub fn replay(mut self, choices: &str) -> Options {
        self.replay = Some(choices.to_owned());
        self
    }

    /// Which faults there are, instead of those that the seed would pick.
    pub fn faults(mut self, faults: Faults) -> Options {
        self.world.faults = faults;
        self
    }

    /// The chance, in millionths and for each tenth of a second, that the network between two hosts is cut,
    /// or one host off from all others, for 50 ms to 10 s. 0 by default; 100 000 is about one a second.
    /// Hosts and clients alike are cut off, so an application that is never to notice needs patience.
    pub fn partitions(mut self, rate: u32) -> Options {
        self.partitions = rate;
        self
    }

    /// The chance, in millionths and for each tenth of a second, that a host loses power, and has it again
    /// after 50 ms to 10 s. 0 by default. Clients do not crash.
    pub fn crashes(mut self, rate: u32) -> Options {
        self.crashes = rate;
        self
    }

    /// How long, in virtual time, faults may happen. When it is over they stop, all cuts heal, hosts that are
    /// down start again, and what [`Sim::at`](super::Sim::at) has left to do is forgotten. Ten seconds by default.
    pub fn time_limit(mut self, limit: Duration) -> Options {
        self.time_limit = limit;
        self
    }

    /// How long, in virtual time, clients may take to come to their end without faults. A minute by default.
    pub fn grace(mut self, grace: Duration) -> Options {
        self.grace = grace;
        self
    }

    /// The least time from one host to another. 250 us by default.
    pub fn latency(mut self, latency: Duration) -> Options {
        self.world.latency = latency;
        self
    }

    /// Whether the seed also varies what the drivers are made with: short queues, few and small buffers. On by
    /// default.
    pub fn vary(mut self, vary: bool) -> Options {
        self.vary = vary;
        self
    }

    /// Whether a run that goes well is run again to see whether it does the same. On by default.
    pub fn twice(mut self, twice: bool) -> Options {
        self.twice = twice;
        self
    }

    /// Whether a run that fails is shrunk. On by default.
    pub fn shrink(mut self, shrink: bool) -> Options {
        self.shrink = shrink;
        self
    }

    /// Whether a task other than the main one may panic, as in production, where only whoever awaits it is
    /// told. Off by default: the assertion of a task that nobody awaits fails the run too.
    pub fn allow_panics(mut self, allow: bool) -> Options {
        self.allow_panics = allow;
        self
    }

    /// Which system's rooms the hosts run on, in builds for tests that have more than one.
    #[doc(hidden)]
    pub fn rooms(mut self, rooms: Rooms) -> Options {
        self.world.rooms = rooms;
        self
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.world.seed
    }
}
