//! The handle on a world: what a test does with it, and how it turns.

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::choices::{Decision, parse_script, script};
use super::fault::{Fault, Faults};
use super::file::Kind;
use super::state::{HostId, MICRO, Nanos, ProcId, Ran, State};
use crate::sys::{OwnedDescriptor, RawDescriptor};

/// How long a driver that waits for another thread waits, in real time, before that is called a deadlock.
const REAL_PATIENCE: Duration = Duration::from_secs(30);

thread_local! {
    static CURRENT: RefCell<Option<World>> = const { RefCell::new(None) };
}

static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// Worlds at once in a process, by the numbers of their descriptors.
const WORLDS: u32 = 1 << 14;

/// Which system's rooms the drivers of a world run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rooms {
    /// io_uring or epoll, as the seed decides.
    #[default]
    Linux,
    /// Completion ports. In builds for tests (`--cfg pelton_iocp_elsewhere`); in others this is as [`Rooms::Linux`].
    Windows,
}

/// The variable that has every world of a build for tests run on completion ports, where it says `windows`.
const ROOMS_VARIABLE: &str = "PELTON_SIM_ROOMS";

impl Rooms {
    /// What the environment asks for, in builds in which that makes a difference.
    fn asked() -> Rooms {
        let asked = cfg!(pelton_iocp_elsewhere)
            && std::env::var_os(ROOMS_VARIABLE).is_some_and(|asked| asked == "windows");
        if asked { Rooms::Windows } else { Rooms::Linux }
    }
}

/// How a world is made.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Decides everything.
    pub seed: u64,
    /// What goes wrong, and how often.
    pub faults: Faults,
    /// The least time from one host to another.
    pub latency: Duration,
    /// Remembers every choice that was not dull, which a long run need not.
    pub keep: bool,
    /// What drivers run on that may choose.
    pub rooms: Rooms,
}

impl WorldOptions {
    /// A world in which nothing goes wrong.
    pub fn new(seed: u64) -> WorldOptions {
        let latency = Duration::from_micros(250);
        let rooms = Rooms::asked();
        WorldOptions { seed, faults: Faults::none(), latency, keep: true, rooms }
    }

    /// A world in which the seed decides what goes wrong.
    pub fn swarm(seed: u64) -> WorldOptions {
        WorldOptions { faults: Faults::swarm(seed), ..WorldOptions::new(seed) }
    }
}

/// A simulated system: hosts with a network between them, disks, and one clock for all.
///
/// A driver that is made while a world is [entered](World::enter) runs on it, with the very code that runs on
/// a real system. Everything happens on one thread, in virtual time, and the same seed makes the same things
/// happen. A world belongs to the thread that made it.
///
/// ```
/// use pelton_driver::sim::{World, WorldOptions};
/// use pelton_driver::{Config, Driver, Submission, Token};
/// use std::time::{Duration, Instant};
///
/// let world = World::new(&WorldOptions::new(1));
/// let _entered = world.enter();
/// let driver = Driver::new(Config::default())?;
/// let real = Instant::now();
/// let hour = driver.now() + Duration::from_secs(3600);
/// let timer = driver.submit(Submission::timeout(hour), Token::NONE).map_err(|r| r.error)?;
/// while !driver.is_done(&timer) {
///     driver.tick(None, |_| {})?;
/// }
/// assert!(world.now() >= Duration::from_secs(3600));
/// assert!(real.elapsed() < Duration::from_secs(60));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct World(Rc<RefCell<State>>);

impl World {
    /// A world with one host, `localhost`.
    pub fn new(options: &WorldOptions) -> World {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed) % WORLDS;
        World(Rc::new(RefCell::new(State::new(id, options, None))))
    }

    /// A world in which just these choices are made, and every other one is dull.
    pub fn replay(options: &WorldOptions, decisions: &[Decision]) -> World {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed) % WORLDS;
        World(Rc::new(RefCell::new(State::new(id, options, Some(script(decisions))))))
    }

    /// [`World::replay`], with the choices as [`script_text`](super::script_text) writes them.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn replay_text(options: &WorldOptions, text: &str) -> Result<World, String> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed) % WORLDS;
        let script = parse_script(text)?;
        Ok(World(Rc::new(RefCell::new(State::new(id, options, Some(script))))))
    }

    /// The world of this thread, if one has been entered.
    pub fn current() -> Option<World> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// Makes this the thread's world until the guard is dropped.
    pub fn enter(&self) -> Entered {
        let before = CURRENT.with(|current| current.borrow_mut().replace(self.clone()));
        Entered { before }
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.borrow_mut())
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.with(|state| state.choices.seed())
    }

    /// The time since the world began.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.with(|state| state.now))
    }

    /// A number for everything that has happened: the same for two runs that were the same.
    pub fn trace_hash(&self) -> u64 {
        self.with(|state| state.choices.hash())
    }

    /// Events that have happened.
    pub fn events(&self) -> u64 {
        self.with(|state| state.events_run)
    }

    /// Choices that have been made, dull ones too.
    pub fn choices(&self) -> u64 {
        self.with(|state| state.choices.made())
    }

    /// The choices so far that were not dull.
    pub fn decisions(&self) -> Vec<Decision> {
        self.with(|state| state.choices.decisions().to_vec())
    }

    /// What the world has found wrong with whoever runs on it.
    pub fn violations(&self) -> Vec<String> {
        self.with(|state| state.violations.clone())
    }

    /// Says that something is wrong.
    pub fn violation(&self, text: impl Into<String>) {
        self.with(|state| state.violation(text.into()));
    }

    /// Switches all faults off, or on again: with none, everything is to come to its end.
    pub fn set_faults(&self, on: bool) {
        self.with(|state| state.faults_on = on);
    }

    /// How often a fault comes, in millionths of the occasions for it.
    pub fn rate(&self, fault: Fault) -> u32 {
        self.with(|state| state.faults.rate(fault))
    }

    /// Makes a choice: a number below `n`, where 0 is the dull one. `label` and `who` name it in a replay, and
    /// `story` tells of one that was not dull.
    pub fn choose(
        &self,
        label: &'static str,
        who: u64,
        n: u64,
        story: impl FnOnce(u64) -> String,
    ) -> u64 {
        self.with(|state| state.choose_told(label, who, n, story))
    }

    /// Something by chance, `rate` times in a million.
    pub fn chance(
        &self,
        label: &'static str,
        who: u64,
        rate: u32,
        story: impl FnOnce() -> String,
    ) -> bool {
        self.with(|state| {
            let on = state.faults_on;
            let now = state.now;
            on && state.choices.chance(now, label, who, rate, story)
        })
    }

    /// Puts words to the last choice of this label about `who`, and says when what it did begins: what a
    /// choice comes to is often known only when others have been made. Others that have no words are details.
    pub fn tell(
        &self,
        label: &'static str,
        who: u64,
        at: Duration,
        story: impl FnOnce() -> String,
    ) {
        let at = u64::try_from(at.as_nanos()).unwrap_or(Nanos::MAX);
        self.with(|state| state.choices.retell(label, who, story(), Some(at)));
    }

    /// Makes something that an application did part of the trace.
    pub fn note(&self, what: u64) {
        self.with(|state| state.choices.note(what));
    }

    // Hosts.

    /// The host that a world has from the beginning.
    pub fn localhost(&self) -> HostId {
        HostId(0)
    }

    /// Adds a host with a name and an address.
    pub fn add_host(&self, name: &str, address: IpAddr) -> HostId {
        self.with(|state| state.add_host(name, vec![address]))
    }

    /// Adds a name to what can be looked up.
    pub fn add_name(&self, name: &str, addresses: &[IpAddr]) {
        self.with(|state| state.names.insert(name.to_owned(), addresses.to_vec()));
    }

    /// A host's addresses.
    pub fn addresses(&self, host: HostId) -> Vec<IpAddr> {
        self.with(|state| state.host(host).addresses.clone())
    }

    /// A host's name.
    pub fn host_name(&self, host: HostId) -> String {
        self.with(|state| state.host(host).name.clone())
    }

    /// Cuts the network between two hosts: what is sent waits until it has healed.
    pub fn cut(&self, a: HostId, b: HostId) {
        self.with(|state| state.cut(a, b, true));
    }

    /// Holds whatever is sent between two hosts, also what a cut would lose, until that is healed.
    pub fn hold(&self, a: HostId, b: HostId) {
        self.with(|state| state.cut(a, b, false));
    }

    /// Heals a cut or ends a hold.
    pub fn heal(&self, a: HostId, b: HostId) {
        self.with(|state| state.heal(a, b));
    }

    /// Heals every cut.
    pub fn heal_all(&self) {
        self.with(|state| {
            let cuts: Vec<_> = state.cuts.keys().copied().collect();
            for (a, b) in cuts {
                state.heal(a, b);
            }
        });
    }

    /// A host loses power: its connections fall silent, its disk keeps what was synced. Whoever runs its
    /// reactors drops them then.
    pub fn crash(&self, host: HostId) {
        // What its blocking pool had begun is done first, as if it had been just in time: whoever waits for it
        // would otherwise wait for ever.
        for job in self.with(|state| state.take_jobs(host)) {
            self.on_host(host, job);
        }
        self.with(|state| {
            let at = state.host_mut(host);
            at.up = false;
            at.life += 1;
            for slot in &mut state.files {
                if let Some(file) = &mut slot.file
                    && file.host == host
                    && let Kind::Stream(stream) = &mut file.kind
                {
                    stream.mute();
                }
            }
            state.listeners.retain(|(of, _), _| *of != host);
            state.local_listeners.retain(|(of, _), _| *of != host);
            state.datagrams.retain(|(of, _), _| *of != host);
            state.crash_disk(host);
        });
    }

    /// A host has power again.
    pub fn restart(&self, host: HostId) {
        self.with(|state| state.host_mut(host).up = true);
    }

    /// Runs `f` as that host: what it makes is the host's.
    pub fn on_host<R>(&self, host: HostId, f: impl FnOnce() -> R) -> R {
        self.as_whom(host, None, f)
    }

    fn as_whom<R>(&self, host: HostId, proc: Option<ProcId>, f: impl FnOnce() -> R) -> R {
        struct Back<'a>(&'a World, HostId, Option<ProcId>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                let Back(world, host, proc) = self;
                world.with(|state| (state.current_host, state.current_proc) = (*host, *proc));
            }
        }
        let before = self.with(|state| {
            let before = (state.current_host, state.current_proc);
            (state.current_host, state.current_proc) = (host, proc);
            before
        });
        let _back = Back(self, before.0, before.1);
        f()
    }

    /// Makes a descriptor of this world one that does not block, as its user may have done before a driver gets
    /// it.
    pub fn set_nonblocking(&self, descriptor: &OwnedDescriptor) {
        self.with(|state| {
            let file = state.of_fd(descriptor.as_raw());
            if let Some(file) = file.and_then(|file| state.file_mut(file)) {
                file.nonblocking = true;
            }
        });
    }

    // Reactors.

    /// Adds a reactor to a host. It is runnable.
    pub fn add_reactor(&self, host: HostId) -> ProcId {
        self.with(|state| state.add_proc(host))
    }

    /// Runs `f` as that reactor: a driver that it makes is the reactor's, and waits by returning at once;
    /// the reactor is runnable again when there is something for it.
    pub fn as_reactor<R>(&self, reactor: ProcId, f: impl FnOnce() -> R) -> R {
        let host = self.with(|state| state.procs[reactor.0 as usize].host);
        self.as_whom(host, Some(reactor), f)
    }

    /// Which reactor runs next, of those that can: a choice. Running takes a microsecond.
    pub fn next_runnable(&self) -> Option<ProcId> {
        self.with(|state| {
            let runnable: Vec<usize> =
                (0..state.procs.len()).filter(|at| state.procs[*at].runnable).collect();
            if runnable.is_empty() {
                return None;
            }
            let at = state.choose("runs first", 0, runnable.len() as u64);
            let proc = ProcId(runnable[at as usize] as u32);
            if at > 0 {
                state.tell("runs first", 0, |state| {
                    format!("{} ran before {at} others", state.reactor_name(proc))
                });
            }
            state.procs[proc.0 as usize].runnable = false;
            let now = state.now;
            state.advance(now + MICRO);
            Some(proc)
        })
    }

    /// Says that a reactor can go on without waiting.
    pub fn set_runnable(&self, reactor: ProcId) {
        self.with(|state| state.make_runnable(reactor));
    }

    /// True when the reactor's driver has begun to wait, and nothing has come for it since.
    pub fn is_waiting(&self, reactor: ProcId) -> bool {
        self.with(|state| state.procs[reactor.0 as usize].waiting.is_some())
    }

    /// Lets time pass up to a moment, where nothing happens before.
    pub fn advance(&self, to: Duration) {
        let to = u64::try_from(to.as_nanos()).unwrap_or(Nanos::MAX >> 1);
        self.with(|state| state.advance(to));
    }

    /// Takes a reactor out: it is gone.
    pub fn remove_reactor(&self, reactor: ProcId) {
        self.with(|state| {
            let proc = &mut state.procs[reactor.0 as usize];
            (proc.waiting, proc.runnable) = (None, false);
        });
    }

    /// Lets the next event happen. False when nothing is left that could.
    pub fn step(&self) -> bool {
        self.hear_remote();
        if self.with(|state| state.next_event().is_none()) {
            return false;
        }
        self.run_event();
        true
    }

    /// Lets the next event happen. True when that was somebody's code.
    fn run_event(&self) -> bool {
        match self.with(State::run_event) {
            Ran::Job(host, proc, job) => {
                self.as_whom(host, proc, job);
                true
            }
            Ran::Nothing => false,
        }
    }

    /// When the next event happens.
    pub fn next_event(&self) -> Option<Duration> {
        self.with(|state| state.next_event()).map(Duration::from_nanos)
    }

    /// What a host's drivers have in flight, in words: where a run is stuck, that is what it waits for.
    pub fn waits_of(&self, host: HostId) -> Vec<String> {
        self.with(|state| state.waits_of(host))
    }

    /// The names that can be looked up.
    pub fn names(&self) -> Vec<String> {
        self.with(|state| state.names.keys().cloned().collect())
    }

    /// What nobody has given back: descriptors, and operations in flight, in words.
    pub fn leftovers(&self) -> Vec<String> {
        self.with(|state| {
            let mut left = Vec::new();
            for (index, file) in state.fds.iter().enumerate() {
                if let Some(file) = file {
                    let what = match state.file(*file).map(|file| &file.kind) {
                        Some(Kind::Ring(ring)) => {
                            let name = state.file_name(*file);
                            format!("{name} with {} operations in flight", ring.in_flight())
                        }
                        Some(Kind::Port(port)) => {
                            let name = state.file_name(*file);
                            format!("{name} with {} calls that were not told of", port.left())
                        }
                        _ => state.file_name(*file),
                    };
                    left.push(format!("descriptor {index} is open: {what}"));
                }
            }
            left
        })
    }

    /// A call that does not wait takes a microsecond all the same, outside of a simulation's reactors: whoever
    /// makes many of them sees time pass and things happen.
    pub(super) fn pass(&self) {
        if self.with(|state| state.current_proc.is_some()) {
            return;
        }
        self.hear_remote();
        let now = self.with(|state| {
            state.advance(state.now + MICRO);
            state.now
        });
        while self.with(|state| state.next_event().is_some_and(|next| next <= now)) {
            self.run_event();
        }
    }

    /// Waits in virtual time until `done`, at most until `limit`; lets things happen meanwhile. Ends early
    /// after a job of the blocking pool: it ran on the very thread that waits here, so that what it woke
    /// there needs no wake.
    pub(super) fn wait(
        &self,
        limit: Option<Nanos>,
        mut done: impl FnMut(&mut State) -> bool,
    ) -> bool {
        loop {
            self.hear_remote();
            if self.with(&mut done) {
                return true;
            }
            let next = self.with(|state| state.next_event());
            match (next, limit) {
                (Some(next), limit) if limit.is_none_or(|limit| next <= limit) => {
                    if self.run_event() {
                        return false;
                    }
                }
                (_, Some(limit)) => {
                    self.with(|state| state.advance(limit));
                    return false;
                }
                (_, None) => wait_for_remote(),
            }
        }
    }

    /// Takes in the wakes of other threads.
    fn hear_remote(&self) {
        if !REMOTE_PENDING.load(Ordering::Acquire) {
            return;
        }
        let mut remote = REMOTE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut mine = Vec::new();
        self.with(|state| {
            remote.retain(|call| {
                let is_mine = state.of_fd(call.fd).is_some();
                if is_mine {
                    mine.push(*call);
                }
                !is_mine
            });
        });
        REMOTE_PENDING.store(!remote.is_empty(), Ordering::Release);
        drop(remote);
        for Remote { fd, closes } in mine {
            self.with(|state| if closes { state.close_fd(fd) } else { state.event_write(fd) });
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.seed()).field("now", &self.now()).finish()
    }
}

/// While it lives a world is its thread's.
#[must_use = "the world is left again when this is dropped"]
pub struct Entered {
    before: Option<World>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        let _ = CURRENT.try_with(|current| std::mem::replace(&mut *current.borrow_mut(), before));
    }
}

/// Enters a world for the rest of the thread's life, where there is none.
pub(super) fn enter_for_good(options: &WorldOptions) {
    CURRENT.with(|current| {
        current.borrow_mut().get_or_insert_with(|| World::new(options));
    });
}

/// A call from another thread, which has no place in a world's order of things: a wake, or a close.
#[derive(Clone, Copy)]
struct Remote {
    fd: RawDescriptor,
    closes: bool,
}

static REMOTE: Mutex<Vec<Remote>> = Mutex::new(Vec::new());
static REMOTE_PENDING: AtomicBool = AtomicBool::new(false);
static REMOTE_CAME: Condvar = Condvar::new();

pub(super) fn remote_call(fd: RawDescriptor, closes: bool) {
    REMOTE.lock().unwrap_or_else(PoisonError::into_inner).push(Remote { fd, closes });
    REMOTE_PENDING.store(true, Ordering::Release);
    REMOTE_CAME.notify_all();
}

fn wait_for_remote() {
    let give_up = Instant::now() + REAL_PATIENCE;
    let mut remote = REMOTE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = remote.len();
    while remote.len() == before && !REMOTE_PENDING.load(Ordering::Acquire) {
        let left = give_up.saturating_duration_since(Instant::now());
        assert!(
            !left.is_zero(),
            "deadlock in a simulated world: a driver waits, nothing is left that could happen, and no thread has woken it",
        );
        remote = REMOTE_CAME.wait_timeout(remote, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
