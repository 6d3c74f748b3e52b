//! Running a scenario under a seed: hosts, clients, the loop that turns them, and what is checked at the end.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use pelton_driver::Config;
use pelton_driver::sim::{Decision, Faults, HostId, World, WorldOptions, shrink};

use super::member::{Ended, Main, Member, words};
use super::report::{Failure, Kind, Report};

use crate::handle::Handle;
use crate::runtime::Builder;

thread_local! {
    static CURRENT: RefCell<Option<Sim>> = const { RefCell::new(None) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// How a simulation is run.
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are run with"]
pub struct Options {
    world: WorldOptions,
    time_limit: Duration,
    grace: Duration,
    vary: bool,
    twice: bool,
    replay: Option<String>,
}

impl Options {
    /// The default: the seed decides which faults there are (swarm testing), a minute of virtual time with
    /// them, and another one without in which everything has to come to its end.
    pub fn new(seed: u64) -> Options {
        let minute = Duration::from_secs(60);
        let world = WorldOptions::swarm(seed);
        Options { world, time_limit: minute, grace: minute, vary: true, twice: true, replay: None }
    }

    /// Which faults there are, instead of those that the seed would pick.
    pub fn faults(mut self, faults: Faults) -> Options {
        self.world.faults = faults;
        self
    }

    /// How long, in virtual time, faults may happen. When it is over they stop, and all cuts heal.
    pub fn time_limit(mut self, limit: Duration) -> Options {
        self.time_limit = limit;
        self
    }

    /// How long, in virtual time, clients may take to come to their end without faults.
    pub fn grace(mut self, grace: Duration) -> Options {
        self.grace = grace;
        self
    }

    /// The least time from one host to another.
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

    /// Makes just these choices, as [`Failure::replay`] writes them, instead of those of the seed. The
    /// environment variable `PELTON_SIM_REPLAY` does the same for the seed that `PELTON_SIM_SEED` names.
    pub fn replay(mut self, choices: &str) -> Options {
        self.replay = Some(choices.to_owned());
        self
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.world.seed
    }
}

struct Host {
    name: String,
    id: HostId,
    reactors: usize,
    boot: Rc<dyn Fn(usize) -> Main>,
    members: Vec<Member>,
    up: bool,
}

struct Client {
    name: String,
    host: HostId,
    main: Option<Main>,
    member: Option<Member>,
    done: bool,
}

enum Action {
    Crash(String),
    Restart(String),
    Run(Box<dyn FnOnce(&Sim)>),
}

struct Inner {
    world: World,
    hosts: RefCell<Vec<Host>>,
    clients: RefCell<Vec<Client>>,
    actions: RefCell<Vec<(Duration, Action)>>,
    next_address: Cell<u8>,
    vary: bool,
    failure: RefCell<Option<(Kind, String)>>,
}

/// A simulation that is being set up, or runs.
///
/// Tasks of the simulation reach it with [`current`].
#[derive(Clone)]
pub struct Sim(Rc<Inner>);

impl Sim {
    fn new(world: World, vary: bool) -> Sim {
        Sim(Rc::new(Inner {
            world,
            hosts: RefCell::default(),
            clients: RefCell::default(),
            actions: RefCell::default(),
            next_address: Cell::new(1),
            vary,
            failure: RefCell::default(),
        }))
    }

    fn fresh_address(&self) -> IpAddr {
        let number = self.0.next_address.get();
        self.0.next_address.set(number.checked_add(1).unwrap_or(number));
        IpAddr::from(Ipv4Addr::new(10, 0, 0, number))
    }

    /// Adds a host, which others reach by its name. `boot` makes what it runs, at the start and whenever it
    /// restarts after a crash. A host that ends with an error, or panics, fails the run; it may run for ever.
    pub fn host<F>(&self, name: &str, boot: impl Fn() -> F + 'static)
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        self.fleet(name, 1, move |_| boot());
    }

    /// Adds a host with several reactors: `boot` is called for each, with its number.
    pub fn fleet<F>(&self, name: &str, reactors: usize, boot: impl Fn(usize) -> F + 'static)
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        let id = self.0.world.add_host(name, self.fresh_address());
        let boot: Rc<dyn Fn(usize) -> Main> = Rc::new(move |number| Box::pin(boot(number)));
        let name = name.to_owned();
        self.0.hosts.borrow_mut().push(Host {
            name,
            id,
            reactors,
            boot,
            members: Vec::new(),
            up: false,
        });
    }

    /// Adds a client: a host that runs a future once. The simulation goes on until every client has ended.
    pub fn client(&self, name: &str, main: impl Future<Output = io::Result<()>> + 'static) {
        let host = self.0.world.add_host(name, self.fresh_address());
        let (name, main) = (name.to_owned(), Some(Box::pin(main) as Main));
        self.0.clients.borrow_mut().push(Client { name, host, main, member: None, done: false });
    }

    /// Does something when so much virtual time has passed since the start.
    pub fn at(&self, when: Duration, action: impl FnOnce(&Sim) + 'static) {
        self.0.actions.borrow_mut().push((when, Action::Run(Box::new(action))));
    }

    fn soon(&self, action: Action) {
        self.0.actions.borrow_mut().push((self.0.world.now(), action));
    }

    fn id_of(&self, name: &str) -> HostId {
        let hosts = self.0.hosts.borrow();
        let host = hosts.iter().find(|host| host.name == name).map(|host| host.id);
        let clients = self.0.clients.borrow();
        let client = clients.iter().find(|client| client.name == name).map(|client| client.host);
        host.or(client).unwrap_or_else(|| panic!("the simulation has no host named {name:?}"))
    }

    /// Cuts the network between two hosts: what they send waits until it is healed.
    ///
    /// # Panics
    /// There is no host of that name.
    pub fn partition(&self, a: &str, b: &str) {
        self.0.world.cut(self.id_of(a), self.id_of(b));
    }

    /// Heals the network between two hosts.
    ///
    /// # Panics
    /// There is no host of that name.
    pub fn heal(&self, a: &str, b: &str) {
        self.0.world.heal(self.id_of(a), self.id_of(b));
    }

    /// A host loses power, at the next moment: its tasks are gone, its connections fall silent, and its files
    /// keep what was synced.
    pub fn crash(&self, name: &str) {
        self.soon(Action::Crash(name.to_owned()));
    }

    /// A host that has crashed starts again.
    pub fn restart(&self, name: &str) {
        self.soon(Action::Restart(name.to_owned()));
    }

    /// Reaches one of a host's reactors as other threads would in production.
    ///
    /// # Panics
    /// There is no such reactor, or it does not run yet.
    pub fn handle(&self, name: &str, reactor: usize) -> Handle {
        let hosts = self.0.hosts.borrow();
        let host = hosts.iter().find(|host| host.name == name);
        let member = host.and_then(|host| host.members.get(reactor));
        member.unwrap_or_else(|| panic!("{name:?} has no reactor {reactor} that runs")).handle()
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.world.now()
    }

    /// Makes a choice that is the test's own: a number below `n`, of which 0 is the dull one. It is recorded,
    /// shrunk and replayed like the simulation's own; `story` tells of it in words.
    pub fn choose(&self, label: &'static str, n: u64, story: impl FnOnce(u64) -> String) -> u64 {
        self.0.world.choose(label, 0, n, story)
    }

    /// The world beneath.
    pub fn world(&self) -> &World {
        &self.0.world
    }

    fn fail(&self, kind: Kind, what: String) {
        self.0.failure.borrow_mut().get_or_insert((kind, what));
    }

    fn failed(&self) -> bool {
        self.0.failure.borrow().is_some()
    }

    /// The settings of one reactor's driver: the seed's, where it varies them.
    fn builder(&self, host: HostId) -> Builder {
        let world = &self.0.world;
        let vary = |label, many: &[u32]| {
            if !self.0.vary {
                return many[0];
            }
            let host = world.host_name(host);
            let tell = |at| format!("{host} ran with {label} {}", many[at as usize]);
            many[world.choose(label, 0, many.len() as u64, tell) as usize]
        };
        let config = Config {
            max_operations: 1 << 16,
            max_descriptors: 1 << 14,
            ring_entries: vary("ring_entries", &[256, 2, 8]),
            completion_entries: vary("completion_entries", &[2048, 256, 512]),
            pool_buffers: vary("pool_buffers", &[64, 1, 4]) as u16,
            pool_buffer_len: vary("pool_buffer_len", &[4096, 64, 1024]),
            ..Config::default()
        };
        // What went wrong is the seed's doing, and told in its story.
        Builder::new().driver(config).on_fault(|_| {})
    }

    fn boot(&self, at: usize) {
        let world = &self.0.world;
        let (id, reactors, boot, name) = {
            let mut hosts = self.0.hosts.borrow_mut();
            let host = &mut hosts[at];
            host.up = true;
            (host.id, host.reactors, host.boot.clone(), host.name.clone())
        };
        for number in 0..reactors {
            let made = Member::new(world, id, self.builder(id), || boot(number));
            match made {
                Ok(member) => self.0.hosts.borrow_mut()[at].members.push(member),
                Err(error) => self.fail(Kind::Error, format!("{name} cannot start: {error}")),
            }
        }
    }

    fn begin(&self) {
        let count = self.0.hosts.borrow().len();
        for at in 0..count {
            self.boot(at);
        }
        let count = self.0.clients.borrow().len();
        for at in 0..count {
            let (host, main, name) = {
                let mut clients = self.0.clients.borrow_mut();
                let client = &mut clients[at];
                (client.host, client.main.take(), client.name.clone())
            };
            let Some(main) = main else { continue };
            match Member::new(&self.0.world, host, self.builder(host), || main) {
                Ok(member) => self.0.clients.borrow_mut()[at].member = Some(member),
                Err(error) => self.fail(Kind::Error, format!("{name} cannot start: {error}")),
            }
        }
    }

    /// Does what is due. True when there was something.
    fn act(&self) -> bool {
        let now = self.0.world.now();
        let due = {
            let mut actions = self.0.actions.borrow_mut();
            let first = actions.iter().enumerate().min_by_key(|(at, (when, _))| (*when, *at));
            match first.map(|(at, (when, _))| (at, *when)) {
                Some((at, when)) if when <= now => Some(actions.remove(at).1),
                _ => None,
            }
        };
        let Some(action) = due else { return false };
        match action {
            Action::Run(action) => action(self),
            Action::Crash(name) => self.do_crash(&name),
            Action::Restart(name) => {
                let down = {
                    let hosts = self.0.hosts.borrow();
                    let at = hosts.iter().position(|host| host.name == name && !host.up);
                    at.map(|at| (at, hosts[at].id))
                };
                if let Some((at, id)) = down {
                    self.0.world.restart(id);
                    self.boot(at);
                }
            }
        }
        true
    }

    fn do_crash(&self, name: &str) {
        let members = {
            let mut hosts = self.0.hosts.borrow_mut();
            let Some(host) = hosts.iter_mut().find(|host| host.name == name) else { return };
            host.up = false;
            self.0.world.crash(host.id);
            std::mem::take(&mut host.members)
        };
        for member in members {
            for left in member.end(&self.0.world) {
                self.fail(Kind::Violation, left);
            }
        }
    }

    fn next_action(&self) -> Option<Duration> {
        self.0.actions.borrow().iter().map(|(when, _)| *when).min()
    }

    /// Turns one reactor, and looks how its main future does.
    fn turn(&self, reactor: pelton_driver::sim::ReactorId) {
        let world = &self.0.world;
        // Taken out while it turns: what runs on it may look at the others.
        let host = {
            let mut hosts = self.0.hosts.borrow_mut();
            hosts.iter_mut().enumerate().find_map(|(at, host)| {
                let member = host.members.iter().position(|member| member.id == reactor)?;
                Some((at, member))
            })
        };
        if let Some((at, place)) = host {
            let (member, name) = {
                let host = &mut self.0.hosts.borrow_mut()[at];
                (host.members.remove(place), host.name.clone())
            };
            member.turn(world);
            match member.ended() {
                Some(Ended::Panicked(what)) => {
                    self.fail(Kind::Panic, format!("{name} panicked: {what}"));
                }
                Some(Ended::Badly(error)) => {
                    self.fail(Kind::Error, format!("{name} ended with an error: {error}"));
                }
                Some(Ended::Well) | None => {}
            }
            self.0.hosts.borrow_mut()[at].members.insert(place, member);
            return;
        }
        let at = {
            let clients = self.0.clients.borrow();
            let is = |client: &Client| client.member.as_ref().is_some_and(|m| m.id == reactor);
            clients.iter().position(is)
        };
        let Some(at) = at else { return };
        let (member, name) = {
            let client = &mut self.0.clients.borrow_mut()[at];
            (client.member.take(), client.name.clone())
        };
        let Some(member) = member else { return };
        member.turn(world);
        match member.ended() {
            None => {
                self.0.clients.borrow_mut()[at].member = Some(member);
                return;
            }
            Some(Ended::Well) => {}
            Some(Ended::Panicked(what)) => {
                self.fail(Kind::Panic, format!("{name} panicked: {what}"));
            }
            Some(Ended::Badly(error)) => {
                self.fail(Kind::Error, format!("{name} ended with an error: {error}"));
            }
        }
        self.0.clients.borrow_mut()[at].done = true;
        for left in member.end(world) {
            self.fail(Kind::Violation, left);
        }
    }

    fn clients_are_done(&self) -> bool {
        self.0.clients.borrow().iter().all(|client| client.done)
    }

    /// Turns everything until the clients have ended, at most until `limit`. False at the limit.
    fn go(&self, limit: Duration) -> bool {
        let world = &self.0.world;
        loop {
            if self.failed() {
                return true;
            }
            if let Some(violation) = world.violations().into_iter().next() {
                self.fail(Kind::Violation, violation);
                return true;
            }
            if self.clients_are_done() {
                return true;
            }
            if self.act() {
                continue;
            }
            if let Some(reactor) = world.next_runnable() {
                self.turn(reactor);
                continue;
            }
            let next = match (world.next_event(), self.next_action()) {
                (Some(event), Some(action)) => Some(event.min(action)),
                (event, action) => event.or(action),
            };
            match next {
                None => return false,
                Some(next) if next > limit => {
                    world.advance(limit);
                    return false;
                }
                Some(next) if world.next_event() == Some(next) => {
                    world.step();
                }
                Some(next) => world.advance(next),
            }
        }
    }

    /// Runs everything, and looks at what is left.
    fn whole(&self, options: &Options) {
        self.begin();
        let world = &self.0.world;
        if !self.go(options.time_limit) && !self.failed() {
            world.set_faults(false);
            world.heal_all();
            self.0.actions.borrow_mut().clear();
            let count = self.0.hosts.borrow().len();
            for at in 0..count {
                let (up, id) = (self.0.hosts.borrow()[at].up, self.0.hosts.borrow()[at].id);
                if !up {
                    world.restart(id);
                    self.boot(at);
                }
            }
            let limit = world.now() + options.grace;
            if !self.go(limit) && !self.failed() {
                let clients = self.0.clients.borrow();
                let stuck: Vec<&str> = clients
                    .iter()
                    .filter(|client| !client.done)
                    .map(|client| client.name.as_str())
                    .collect();
                let what = format!(
                    "stuck: with all faults off, {} did not end within {:?}",
                    stuck.join(", "),
                    options.grace
                );
                self.fail(Kind::Stuck, what);
            }
        }
        self.end();
    }

    fn end(&self) {
        let world = &self.0.world;
        world.set_faults(false);
        world.heal_all();
        let mut members: Vec<Member> = Vec::new();
        self.0.hosts.borrow_mut().iter_mut().for_each(|host| members.append(&mut host.members));
        let mut clients = self.0.clients.borrow_mut();
        members.extend(clients.iter_mut().filter_map(|client| client.member.take()));
        drop(clients);
        for member in members {
            for left in member.end(world) {
                self.fail(Kind::Violation, left);
            }
        }
        for what in world.violations().into_iter().chain(world.leftovers()) {
            self.fail(Kind::Violation, what);
        }
    }
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

/// Runs a scenario under each of several seeds, `0..seeds`, or under the one that the environment variable
/// `PELTON_SIM_SEED` names.
///
/// # Panics
/// As [`run`], at the first seed that fails.
pub fn run_seeds(seeds: u64, scenario: impl Fn(&Sim)) {
    if let Some(seed) = seed_of_environment() {
        run(seed, &scenario);
        return;
    }
    for seed in 0..seeds {
        run(seed, &scenario);
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
    hush();
    let seed = options.seed();
    let of_environment =
        || std::env::var("PELTON_SIM_REPLAY").ok().filter(|_| seed_of_environment() == Some(seed));
    if let Some(text) = options.replay.clone().or_else(of_environment) {
        let world = World::replay_text(&options.world, &text)
            .unwrap_or_else(|error| panic!("PELTON_SIM_REPLAY: {error}"));
        let run = once(world, &options, &scenario, true);
        let Some((kind, what)) = run.failure else { return Ok(run.report) };
        let decisions = run.decisions.len();
        let story = run.decisions;
        return Err(Box::new(Failure { seed, kind, what, story, decisions, shrunk_in: 1 }));
    }
    // What was chosen is written down only for a run that is known to fail.
    let quiet = WorldOptions { keep: false, ..options.world.clone() };
    let first = once(World::new(&quiet), &options, &scenario, false);
    let Some((kind, what)) = first.failure else {
        if options.twice {
            let second = once(World::new(&quiet), &options, &scenario, false);
            if second.report.trace_hash != first.report.trace_hash {
                let what = "the same seed did two different things: something in the test does not go through Pelton (a clock, a HashMap's order, a thread)".to_owned();
                let kind = Kind::NotDeterministic;
                let failure =
                    Failure { seed, kind, what, story: Vec::new(), decisions: 0, shrunk_in: 2 };
                return Err(Box::new(failure));
            }
        }
        return Ok(first.report);
    };
    let all = once(World::new(&options.world), &options, &scenario, false).decisions;
    let decisions = all.len();
    let again = |some: &[Decision]| {
        let world = World::replay(&options.world, some);
        once(world, &options, &scenario, false).failure.is_some_and(|(other, _)| other == kind)
    };
    let (story, shrunk_in) = shrink(all, again);
    // Once more for its words, which belong to the shrunk run.
    let last = once(World::replay(&options.world, &story), &options, &scenario, false);
    let (what, story) = match last.failure {
        Some((_, what)) => (what, last.decisions),
        None => (what, story),
    };
    Err(Box::new(Failure { seed, kind, what, story, decisions, shrunk_in }))
}

struct Run {
    failure: Option<(Kind, String)>,
    report: Report,
    decisions: Vec<Decision>,
}

fn once(world: World, options: &Options, scenario: &impl Fn(&Sim), loud: bool) -> Run {
    let entered = world.enter();
    let sim = Sim::new(world.clone(), options.vary);
    let before = CURRENT.with(|current| current.borrow_mut().replace(sim.clone()));
    let was_quiet = QUIET.replace(!loud);
    let nobody = crate::task::turning::nobody();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        scenario(&sim);
        sim.whole(options);
    }));
    QUIET.set(was_quiet);
    CURRENT.with(|current| *current.borrow_mut() = before);
    if let Err(panic) = ran {
        if loud {
            drop(entered);
            resume_unwind(panic);
        }
        sim.fail(Kind::Panic, words(panic.as_ref()));
    }
    let report = Report {
        seed: options.seed(),
        trace_hash: world.trace_hash(),
        events: world.events(),
        choices: world.choices(),
        elapsed: world.now(),
    };
    let run = Run { failure: sim.0.failure.take(), report, decisions: world.decisions() };
    drop(sim);
    drop(nobody);
    drop(entered);
    run
}

fn seed_of_environment() -> Option<u64> {
    std::env::var("PELTON_SIM_SEED").ok()?.parse().ok()
}

/// Keeps the panics of runs that are told of later, shrunk, from being printed each time.
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
