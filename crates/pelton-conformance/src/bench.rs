//! Where a behaviour runs: a backend, real or simulated, and what is checked when it has run.

use std::cell::OnceCell;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pelton::{Builder, Runtime};
use pelton_driver::{Backend, Config, Driver, Error};

#[cfg(not(target_os = "linux"))]
use self::in_no_world as in_world;
use crate::registry::Behaviour;
use crate::rig::{Rig, small};
#[cfg(target_os = "linux")]
use crate::worlds::in_world;

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
    /// kqueue on the real system: macOS or a BSD, or Linux in builds for tests in which epoll plays the queue
    /// (`cargo xtask kqueue`).
    Kqueue,
    /// Completion ports on the real system: Windows, or Wine.
    Iocp,
    /// io_uring on a simulated system in which nothing goes wrong.
    SimRing,
    /// epoll on a simulated system in which nothing goes wrong.
    SimReadiness,
    /// Either, on a simulated system with every fault that Pelton must hide.
    SimFaults,
    /// Completion ports on a simulated system, in builds for tests that have them (`cargo xtask iocp`).
    SimPorts,
    /// The same, with every fault that Pelton must hide.
    SimPortsFaults,
}

impl System {
    /// Every one that runs in any build.
    pub const ALL: [System; 7] = [
        System::IoUring,
        System::Epoll,
        System::Kqueue,
        System::Iocp,
        System::SimRing,
        System::SimReadiness,
        System::SimFaults,
    ];

    /// Its name, at the head of a column.
    pub fn name(self) -> &'static str {
        match self {
            System::IoUring => "io_uring",
            System::Epoll => "epoll",
            System::Kqueue => "kqueue",
            System::Iocp => "iocp",
            System::SimRing => "sim, ring",
            System::SimReadiness => "sim, readiness",
            System::SimFaults => "sim, faults",
            System::SimPorts => "sim, ports",
            System::SimPortsFaults => "sim, ports, faults",
        }
    }

    /// True where there is one thread and time is virtual.
    pub fn is_simulated(self) -> bool {
        !matches!(self, System::IoUring | System::Epoll | System::Kqueue | System::Iocp)
    }

    /// True on simulated completion ports.
    fn has_ports(self) -> bool {
        matches!(self, System::SimPorts | System::SimPortsFaults)
    }

    /// True where things go wrong that Pelton must hide.
    pub fn has_faults(self) -> bool {
        matches!(self, System::SimFaults | System::SimPortsFaults)
    }

    /// The seeds of the worlds that a behaviour runs in; real systems have one run.
    fn seeds(self) -> std::ops::Range<u64> {
        match self {
            System::IoUring | System::Epoll | System::Kqueue | System::Iocp => 0..1,
            System::SimRing | System::SimReadiness | System::SimPorts => 0..2,
            System::SimFaults | System::SimPortsFaults => 0..20,
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
        if system.has_ports() && matches!(self.subject, "local" | "sendfile") {
            let why = "simulated ports have neither Unix sockets nor `TransmitFile`";
            return Outcome::NotRun(why.into());
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
            in_world(system, seed, Some(self), self.show);
        }
        Outcome::Holds
    }
}

/// Runs something on a system, in a world of this seed and without faults where that is simulated. None where
/// the backend cannot run here.
pub fn on<R>(system: System, seed: u64, f: impl FnOnce(&Bench) -> R) -> Option<R> {
    available(system).ok()?;
    Some(in_world(system, seed, None, f))
}

/// On a system that simulates nothing.
#[cfg(not(target_os = "linux"))]
fn in_no_world<R>(
    system: System,
    seed: u64,
    _: Option<&Behaviour>,
    f: impl FnOnce(&Bench) -> R,
) -> R {
    f(&Bench::new(system, seed))
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
        (_, Some(many)) if system.has_faults() => 0..many,
        _ => system.seeds(),
    }
}

/// Whether a real backend can run here, and why not.
fn available(system: System) -> Result<(), String> {
    if system.is_simulated() {
        return if cfg!(target_os = "linux") {
            Ok(())
        } else {
            Err("the simulator runs on Linux".into())
        };
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
        System::Kqueue => Backend::Kqueue,
        System::Iocp | System::SimPorts | System::SimPortsFaults => Backend::Iocp,
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

/// What a behaviour gets: it makes drivers and runtimes on its backend, and checks what they leave behind.
#[derive(Debug)]
pub struct Bench {
    system: System,
    seed: u64,
    directory: OnceCell<PathBuf>,
}

impl Bench {
    pub(crate) fn new(system: System, seed: u64) -> Bench {
        Bench { system, seed, directory: OnceCell::new() }
    }

    /// The backend to force.
    pub fn backend(&self) -> Backend {
        backend(self.system, self.seed)
    }

    /// What a driver or runtime that was made here says that it runs on.
    pub fn shown_backend(&self) -> Backend {
        #[cfg(target_os = "linux")]
        if self.is_simulated() {
            return Backend::Sim;
        }
        self.backend()
    }

    /// True where the kernel holds an operation and its memory until it completes it.
    pub fn is_completing(&self) -> bool {
        matches!(self.backend(), Backend::IoUring | Backend::Iocp)
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
        self.system.has_faults()
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
