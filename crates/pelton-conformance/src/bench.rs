//! Where a behaviour runs: a backend, real or simulated, and what is checked when it has run.

use std::cell::OnceCell;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pelton::{Builder, Runtime};
use pelton_driver::sim::{Fault, Faults, World, WorldOptions};
use pelton_driver::{Backend, Config, Driver, Error};

use crate::registry::Behaviour;
use crate::rig::{Rig, small};

/// Longer than anything here takes: what comes to it has hung. On a simulated system it is virtual time, of which
/// faults can take much: 50 round trips on a slow network, accepts that pause again and again.
pub(crate) fn watchdog(simulated: bool) -> Duration {
    Duration::from_secs(if simulated { 1200 } else { 20 })
}

/// A backend on a system. `PELTON_CONFORMANCE_ONLY` in the environment leaves all out but those that it names,
/// with semicolons between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// io_uring on the real system.
    IoUring,
    /// epoll on the real system.
    Epoll,
    /// io_uring on a simulated system in which nothing goes wrong.
    SimRing,
    /// epoll on a simulated system in which nothing goes wrong.
    SimReadiness,
    /// Either, on a simulated system with every fault that Pelton must hide.
    SimFaults,
}

impl System {
    /// Every one that runs today.
    pub const ALL: [System; 5] =
        [System::IoUring, System::Epoll, System::SimRing, System::SimReadiness, System::SimFaults];

    /// Its name, at the head of a column.
    pub fn name(self) -> &'static str {
        match self {
            System::IoUring => "io_uring",
            System::Epoll => "epoll",
            System::SimRing => "sim, ring",
            System::SimReadiness => "sim, readiness",
            System::SimFaults => "sim, faults",
        }
    }

    /// True where there is one thread and time is virtual.
    pub fn is_simulated(self) -> bool {
        !matches!(self, System::IoUring | System::Epoll)
    }

    /// The seeds of the worlds that a behaviour runs in; real systems have one run.
    fn seeds(self) -> std::ops::Range<u64> {
        match self {
            System::IoUring | System::Epoll => 0..1,
            System::SimRing | System::SimReadiness => 0..2,
            System::SimFaults => 0..20,
        }
    }
}

/// What came of a behaviour on a system. What does not hold panics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was shown.
    Holds,
    /// It is about real threads, and the system has none.
    NeedsThreads,
    /// The backend cannot run here.
    NotRun(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Holds => f.write_str("yes"),
            Outcome::NeedsThreads => f.write_str("needs real threads"),
            Outcome::NotRun(why) => write!(f, "not run: {why}"),
        }
    }
}

impl Behaviour {
    /// Runs it on a system, in every world that it is to hold in.
    ///
    /// # Panics
    /// It does not hold.
    pub fn run(&self, system: System) -> Outcome {
        if self.threads && system.is_simulated() {
            return Outcome::NeedsThreads;
        }
        if let Err(why) = available(system) {
            return Outcome::NotRun(why);
        }
        if let Ok(only) = std::env::var("PELTON_CONFORMANCE_ONLY")
            && !only.split(';').any(|name| name == system.name())
        {
            return Outcome::NotRun("left out".into());
        }
        for seed in seeds(system) {
            let _told = Told { behaviour: self, system, seed };
            let faults = match system {
                System::SimFaults => Faults::swarm(seed)
                    .harmless()
                    // The bench forces a ring, and says so where it is refused.
                    .without(&[Fault::RingRefused])
                    .without(self.unbearable),
                _ => Faults::none(),
            };
            in_world(system, seed, faults, self.show);
        }
        Outcome::Holds
    }
}

/// Runs something on a system, in a world of this seed and without faults where that is simulated. None where
/// the backend cannot run here.
pub fn on<R>(system: System, seed: u64, f: impl FnOnce(&Bench) -> R) -> Option<R> {
    available(system).ok()?;
    Some(in_world(system, seed, Faults::none(), f))
}

fn in_world<R>(system: System, seed: u64, faults: Faults, f: impl FnOnce(&Bench) -> R) -> R {
    let world = system
        .is_simulated()
        .then(|| World::new(&WorldOptions { faults, ..WorldOptions::new(seed) }));
    let entered = world.as_ref().map(World::enter);
    let story = world.clone().filter(|_| std::env::var_os("PELTON_CONFORMANCE_SEED").is_some());
    let _story = story.map(Story);
    let bench = Bench { system, seed, directory: OnceCell::new() };
    let result = f(&bench);
    drop(bench);
    drop(entered);
    if let Some(world) = world {
        assert_eq!(world.violations(), [""; 0], "the world has found something wrong");
        assert_eq!(world.leftovers(), [""; 0], "something was left behind");
    }
    result
}

/// Runs one row of a table as a test.
#[cfg(test)]
pub(crate) fn test(table: &[Behaviour], name: &str, system: System) {
    let behaviour = table.iter().find(|behaviour| behaviour.name == name).expect("it has a row");
    match behaviour.run(system) {
        Outcome::Holds => {}
        outcome => say(&format!("{}: {name}: {outcome}", system.name())),
    }
}

/// The seeds of a simulated system: `PELTON_CONFORMANCE_SEED` in the environment is the only one, and
/// `PELTON_CONFORMANCE_SEEDS` how many there are with faults.
fn seeds(system: System) -> std::ops::Range<u64> {
    let variable = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    match (variable("PELTON_CONFORMANCE_SEED"), variable("PELTON_CONFORMANCE_SEEDS")) {
        (Some(seed), _) if system.is_simulated() => seed..seed + 1,
        (_, Some(many)) if system == System::SimFaults => 0..many,
        _ => system.seeds(),
    }
}

/// Whether a real backend can run here, and why not.
fn available(system: System) -> Result<(), String> {
    if system.is_simulated() {
        return Ok(());
    }
    match Driver::new(Config { backend: backend(system, 0), ..small() }) {
        Ok(_) => Ok(()),
        Err(Error::Unsupported { reason, .. }) => Err(reason),
        Err(error) => panic!("{error}"),
    }
}

fn backend(system: System, seed: u64) -> Backend {
    match system {
        System::IoUring | System::SimRing => Backend::IoUring,
        System::Epoll | System::SimReadiness => Backend::Epoll,
        System::SimFaults if seed.is_multiple_of(2) => Backend::IoUring,
        System::SimFaults => Backend::Epoll,
    }
}

/// Past the test harness, which would swallow a `println!`.
#[cfg(test)]
fn say(line: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("\n{line}\n").as_bytes());
}

/// Says which world it was when a behaviour panics.
struct Told<'a> {
    behaviour: &'a Behaviour,
    system: System,
    seed: u64,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && self.system.is_simulated() {
            let (name, on, seed) = (self.behaviour.name, self.system.name(), self.seed);
            eprintln!("{name} on {on}: again with PELTON_CONFORMANCE_SEED={seed}");
        }
    }
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

/// What a behaviour gets: it makes drivers and runtimes on its backend, and checks what they leave behind.
#[derive(Debug)]
pub struct Bench {
    system: System,
    seed: u64,
    directory: OnceCell<PathBuf>,
}

impl Bench {
    /// The backend to force.
    pub fn backend(&self) -> Backend {
        backend(self.system, self.seed)
    }

    /// What a driver or runtime that was made here says that it runs on.
    pub fn shown_backend(&self) -> Backend {
        if self.is_simulated() { Backend::Sim } else { self.backend() }
    }

    /// True where operations go through a submission and a completion queue.
    pub fn is_ring(&self) -> bool {
        self.backend() == Backend::IoUring
    }

    /// True where there is one thread and time is virtual.
    pub fn is_simulated(&self) -> bool {
        self.system.is_simulated()
    }

    /// True where things go wrong that Pelton must hide: numbers of attempts are then not what they were.
    pub fn has_faults(&self) -> bool {
        self.system == System::SimFaults
    }

    /// A driver with small settings.
    pub fn driver(&self) -> Rig {
        self.driver_with(small())
    }

    /// A driver with these settings.
    pub fn driver_with(&self, config: Config) -> Rig {
        let driver = Driver::new(Config { backend: self.backend(), ..config }).expect("a driver");
        assert_eq!(driver.backend(), self.shown_backend(), "a forced backend is the one that runs");
        Rig::new(driver)
    }

    /// The settings of a runtime on this backend.
    pub fn builder(&self) -> Builder {
        self.builder_with(small())
    }

    /// The same, with settings of the driver's.
    pub fn builder_with(&self, config: Config) -> Builder {
        Builder::new().driver(Config { backend: self.backend(), ..config })
    }

    /// Runs a future on a runtime of its own, bounded, and checks that nothing is left when that has ended.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.run_on(self.builder().build().expect("a runtime"), future)
    }

    /// Runs a future on a runtime, bounded, drops that, and checks that nothing is left.
    pub fn run_on<F: Future>(&self, runtime: Runtime, future: F) -> F::Output {
        let output = self.bounded(&runtime, future);
        self.end(runtime);
        output
    }

    /// Runs a future on a runtime; one that does not end fails instead of hanging.
    pub fn bounded<F: Future>(&self, runtime: &Runtime, future: F) -> F::Output {
        runtime
            .block_on(async { pelton::time::timeout(watchdog(self.is_simulated()), future).await })
            .expect("it does not come to its end")
    }

    /// Drops a runtime and checks that nothing is left.
    pub fn end(&self, runtime: Runtime) {
        let handle = runtime.handle();
        drop(runtime);
        let left = handle.snapshot();
        assert_eq!(
            (left.leaked, left.orphans, left.in_flight_total(), left.tasks_live),
            (0, 0, 0, 0),
            "slots, orphans, operations and tasks that are left"
        );
        assert!(handle.is_closed());
    }

    /// The address of nobody: the port of a listener, which no other test can have, on another address.
    pub fn nobody_at(&self, listener: SocketAddr) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 2], listener.port()))
    }

    /// A path for a file that nobody else has.
    pub fn path(&self, name: &str) -> PathBuf {
        let directory = self.directory.get_or_init(|| {
            static LAST: AtomicU32 = AtomicU32::new(0);
            if self.is_simulated() {
                return PathBuf::from("/conformance");
            }
            let number = LAST.fetch_add(1, Ordering::Relaxed);
            let name = format!("pelton-conformance-{}-{number}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&directory).expect("a directory for files");
            directory
        });
        directory.join(name)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !self.is_simulated()
            && let Some(directory) = self.directory.get()
        {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
