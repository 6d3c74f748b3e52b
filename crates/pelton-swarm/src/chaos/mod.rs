//! Chaos: raw drivers, every operation, on descriptors of every kind, in an order that the seed makes up: taken
//! late or never, cancelled by number and by descriptor, given up, from inside a tick's callback and from the
//! drops of buffers.
//!
//! # What is checked
//!
//! - Each operation is told of exactly once for the last time, with its own number and token; never after it was
//!   taken or given up; none is missing at the end.
//! - Bytes of a stream come in order, once, and of the right connection (`flow.rs`); a datagram comes whole to
//!   the socket that it was sent to; a file contains what was written.
//! - The end of a stream comes after all of it, and not before the peer has ended it.
//! - A buffer comes back as the one that was submitted, is dropped once, and nobody writes beside it
//!   (`buffer.rs`). The bytes of a lease do not change while it is held.
//! - No error that Pelton is to hide is seen: `EINTR`, `EAGAIN`, `ENOBUFS`, `EBADF` for an open descriptor,
//!   `ECANCELED` for what nobody cancelled.
//! - Numbers add up after every tick: operations, those in flight, orphans; no completion was stale.
//! - With the faults off everything ends, and nothing is left: no operation, no descriptor, no buffer.

mod buffer;
mod end;
mod flow;
mod op;
mod outcome;
mod step;
mod submit;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use pelton::sim::{Failure, Kind};
use pelton_driver::sim::{HostId, World};
use pelton_driver::{Completion, Config, Driver, Error, Fd, Lease, Notifier, OwnedDescriptor};

use crate::pattern::mix;
use crate::{Options, Stats, drive};
use buffer::Registry;
use flow::{Datagrams, Flow, Model};
use op::Op;

/// Steps of a run.
const STEPS: u64 = 600;

/// Runs the world under a seed.
pub(crate) fn run(seed: u64, options: &Options) -> Result<Stats, Box<Failure>> {
    drive::run(seed, options, &|world| {
        let Some(chaos) = Chaos::new(world, options.tell) else { return Ok(()) };
        let steps = STEPS / 4 + mix(seed) % STEPS;
        for _ in 0..steps {
            chaos.step();
            if chaos.failed() {
                break;
            }
        }
        chaos.end()
    })
}

/// Attempts at making a driver.
const ATTEMPTS: u32 = 16;

/// Makes a driver, however often it is refused its descriptors: each time with an error that says what helps,
/// and with nothing left behind.
fn driver(world: &World, host: HostId, config: &Config) -> Option<Driver> {
    for _ in 0..ATTEMPTS {
        let before = world.leftovers();
        let error = match world.on_host(host, || Driver::new(config.clone())) {
            Ok(driver) => return Some(driver),
            Err(error) => error,
        };
        let text = error.to_string();
        if !matches!(error, Error::Os { .. }) || !text.contains("try again") {
            world.violation(format!("a driver was refused without a cure: {text}"));
        }
        if world.leftovers() != before {
            world.violation(format!("a driver that was refused left something: {text}"));
        }
    }
    None
}

/// Random numbers of one step.
pub(super) struct Dice(Cell<u64>);

impl Dice {
    fn new(word: u64) -> Dice {
        Dice(Cell::new(word))
    }

    pub(super) fn below(&self, n: usize) -> usize {
        let word = mix(self.0.get());
        self.0.set(word);
        if n == 0 { 0 } else { (word >> 11) as usize % n }
    }

    pub(super) fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What a descriptor is.
#[derive(Clone, Debug)]
enum Role {
    /// One end of a connection, by the connection's number where that is known.
    Stream {
        conn: Option<u64>,
        client: bool,
        pair: bool,
    },
    Listener(SocketAddr),
    Datagram {
        own: u64,
        peer: u64,
    },
    File(usize),
}

#[derive(Clone)]
struct Desc {
    fd: Fd,
    role: Role,
    open: bool,
    /// Several receives may be in flight at once.
    loose: bool,
    /// Several receives have been in flight on it at once.
    mixed: bool,
    /// This end has said that it will receive no more.
    deaf: bool,
    /// An error was seen on it, or may have gone to an operation that was given up.
    troubled: bool,
}

/// A driver and everything that is its.
struct Side {
    driver: Driver,
    notifier: Notifier,
    /// Notified since its last tick began, from outside of one.
    notified: Cell<bool>,
    /// When its tick has told somebody of something last.
    told_at: Cell<Option<Duration>>,
    host: HostId,
    ip: IpAddr,
    descs: RefCell<Vec<Desc>>,
    ops: RefCell<BTreeMap<usize, Op>>,
    leases: RefCell<Vec<(Lease, Vec<u8>)>>,
    detached: RefCell<Vec<(OwnedDescriptor, Desc)>>,
    submitted: Cell<u64>,
}

struct Chaos {
    me: Weak<Chaos>,
    world: World,
    registry: Rc<Registry>,
    sides: Vec<Side>,
    flows: RefCell<BTreeMap<(u64, bool), Flow>>,
    datagrams: RefCell<Datagrams>,
    files: RefCell<Vec<Model>>,
    wrong: RefCell<Option<(Kind, String)>>,
    next_token: Cell<usize>,
    next_number: Cell<u64>,
    /// How deep in callbacks and drops this is.
    depth: Cell<u32>,
    /// Which sides are inside of a tick, as bits.
    ticking: Cell<u32>,
    /// Submissions that have not returned: what they submit is not in our books yet.
    starting: Cell<u32>,
    loud: bool,
    /// The end has begun: nothing new is started.
    ending: Cell<bool>,
}

impl Chaos {
    /// None where the faults of the seed let no driver come about.
    fn new(world: &World, loud: bool) -> Option<Rc<Chaos>> {
        let mut sides = Vec::new();
        let mut host = None;
        for number in 0..2_u8 {
            let ip = IpAddr::from(Ipv4Addr::new(10, 0, 0, number + 1));
            let apart = number == 0 || world.choose("apart", 0, 2, |_| "two hosts".into()) == 1;
            let (on, ip) = match host {
                Some(host) if !apart => host,
                _ => (world.add_host(&format!("host{number}"), ip), ip),
            };
            host = Some((on, ip));
            let vary = |label, many: &[u32]| {
                let tell = |at| format!("driver {number} had {label} {}", many[at as usize]);
                many[world.choose(label, number.into(), many.len() as u64, tell) as usize]
            };
            let config = Config {
                ring_entries: vary("ring_entries", &[64, 1, 2, 8]),
                completion_entries: vary("completion_entries", &[256, 64, 128]),
                max_operations: vary("max_operations", &[1024, 1024, 1024, 24]),
                max_descriptors: 256,
                pool_buffers: vary("pool_buffers", &[16, 1, 2, 4]) as u16,
                pool_buffer_len: vary("pool_buffer_len", &[1024, 64, 256, 4096]),
                ..Config::default()
            };
            let driver = driver(world, on, &config)?;
            sides.push(Side {
                notifier: driver.notifier(),
                notified: Cell::new(false),
                told_at: Cell::new(None),
                driver,
                host: on,
                ip,
                descs: RefCell::default(),
                ops: RefCell::default(),
                leases: RefCell::default(),
                detached: RefCell::default(),
                submitted: Cell::new(0),
            });
        }
        Some(Rc::new_cyclic(|me| Chaos {
            me: me.clone(),
            world: world.clone(),
            registry: Rc::default(),
            sides,
            flows: RefCell::default(),
            datagrams: RefCell::default(),
            files: RefCell::default(),
            wrong: RefCell::default(),
            next_token: Cell::new(1),
            next_number: Cell::new(1),
            depth: Cell::new(0),
            ticking: Cell::new(0),
            starting: Cell::new(0),
            loud,
            ending: Cell::new(false),
        }))
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.loud {
            eprintln!("{:>12.3} ms: {}", self.world.now().as_secs_f64() * 1e3, what());
        }
    }

    fn fresh(&self) -> u64 {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        number
    }

    fn wrong(&self, what: impl Into<String>) {
        self.wrong.borrow_mut().get_or_insert((Kind::Violation, what.into()));
    }

    fn failed(&self) -> bool {
        if let Some(what) = self.registry.wrong() {
            self.wrong(what);
        }
        self.wrong.borrow().is_some()
    }

    /// Runs `f` on a side's driver, as that side's host.
    fn with<R>(&self, side: usize, f: impl FnOnce(&Driver) -> R) -> R {
        let side = &self.sides[side];
        self.world.on_host(side.host, || f(&side.driver))
    }

    fn flow<R>(&self, flow: (u64, bool), f: impl FnOnce(&mut Flow) -> R) -> R {
        let mut flows = self.flows.borrow_mut();
        let key = crate::pattern::direction(flow.0, flow.1);
        f(flows.entry(flow).or_insert_with(|| Flow::new(key)))
    }

    /// The connection of a stream's end, if it is known by now.
    fn connection(&self, side: usize, desc: usize) -> Option<(u64, bool)> {
        let (fd, role) = {
            let descs = self.sides[side].descs.borrow();
            (descs[desc].fd, descs[desc].role.clone())
        };
        let Role::Stream { conn, client, .. } = role else { return None };
        if conn.is_some() || !client {
            return conn.map(|conn| (conn, client));
        }
        let local = self.with(side, |driver| driver.local_addr(fd)).ok()?;
        if local.port() == 0 {
            return None;
        }
        let found = crate::pattern::connection(local);
        let mixed = {
            let desc = &mut self.sides[side].descs.borrow_mut()[desc];
            if let Role::Stream { conn, .. } = &mut desc.role {
                *conn = Some(found);
            }
            desc.mixed
        };
        self.flow((found, client), |flow| flow.known = true);
        if mixed {
            // Since before anybody knew which connection it is.
            self.flow((found, !client), Flow::loosen);
        }
        Some((found, client))
    }

    fn add(&self, side: usize, fd: Fd, role: Role) -> usize {
        if let Role::Stream { conn: Some(conn), client, .. } = role {
            self.flow((conn, client), |flow| flow.known = true);
        }
        let loose = self.world.choose("loose", side as u64, 4, |_| "receives mixed".into()) == 3;
        let mut descs = self.sides[side].descs.borrow_mut();
        self.say(|| format!("descriptor {side}/{}: {role:?} {fd:?}", descs.len()));
        let (deaf, troubled) = (false, false);
        descs.push(Desc { fd, role, open: true, loose, mixed: false, deaf, troubled });
        descs.len() - 1
    }

    /// A tick, and what is looked at after each.
    fn tick(&self, side: usize, timeout: Duration) {
        let before = self.world.now();
        self.say(|| format!("tick {side} for {timeout:?}"));
        self.sides[side].told_at.set(None);
        let notified = self.sides[side].notified.take();
        let outer = self.ticking.replace(self.ticking.get() | 1 << side);
        let ticked = self.with(side, |driver| {
            driver.tick(Some(timeout), |completion| self.told(side, completion))
        });
        self.ticking.set(outer);
        match ticked {
            Err(error) => self.wrong(format!("a tick failed: {error}")),
            Ok(tick) if !timeout.is_zero() => {
                let (at, now) = (&self.sides[side], self.world.now());
                if notified && tick.completions == 0 && now - before >= timeout {
                    self.wrong(format!("driver {side} slept for {timeout:?}, notified as it was"));
                }
                if at.told_at.get().is_some_and(|told| now - told >= timeout) {
                    self.wrong(format!("driver {side} waited for {timeout:?} after it had told"));
                }
            }
            Ok(_) => {}
        }
        self.audit(side, before);
    }

    fn told(&self, side: usize, completion: Completion) {
        let at = &self.sides[side];
        let token = completion.token.as_number();
        at.told_at.set(Some(self.world.now()));
        self.say(|| format!("told {side}: {token} more {}", completion.more));
        {
            let mut ops = at.ops.borrow_mut();
            match ops.get_mut(&token) {
                None => self.wrong(format!(
                    "a completion of {:?} was told to {token}, who has taken it or given it up",
                    completion.id
                )),
                Some(op) => {
                    let name = &op.what;
                    if op.id != completion.id {
                        self.wrong(format!("{name:?} was told of with another's number"));
                    }
                    if op.told {
                        self.wrong(format!("{name:?} was told of after its last completion"));
                    }
                    let many = matches!(name, op::What::AcceptMany | op::What::ReceiveMany);
                    if completion.more && !many {
                        self.wrong(format!("{name:?} says that it goes on"));
                    }
                    if !completion.more {
                        op.told = true;
                        if !op.key.is_done(&at.driver) {
                            self.wrong(format!("{name:?} was told of and is not done"));
                        }
                    }
                }
            }
        }
        if self.depth.get() < 2
            && !self.ending.get()
            && self.world.choose("inside", side as u64, 4, |_| "in a callback:".into()) == 3
        {
            self.depth.set(self.depth.get() + 1);
            self.step();
            self.depth.set(self.depth.get() - 1);
        }
        self.told_now();
    }

    /// Whoever was told has acted: from now on no time is to pass in a tick that has told of something.
    fn told_now(&self) {
        for (number, side) in self.sides.iter().enumerate() {
            if self.ticking.get() & (1 << number) != 0 && (side.told_at.get().is_some()) {
                side.told_at.set(Some(self.world.now()));
            }
        }
    }

    /// The drop of a buffer runs the driver.
    fn bomb(&self) {
        if self.depth.get() >= 2 || self.ending.get() {
            return;
        }
        self.depth.set(self.depth.get() + 1);
        self.step();
        self.depth.set(self.depth.get() - 1);
        self.told_now();
    }

    /// Whether the numbers add up.
    fn audit(&self, side: usize, began: Duration) {
        if self.starting.get() > 0 {
            return;
        }
        let at = &self.sides[side];
        let numbers = at.driver.counters().snapshot();
        let (mut busy, mut all) = (0, 0);
        for op in at.ops.borrow().values() {
            all += 1;
            let done = op.key.is_done(&at.driver);
            busy += u64::from(!done);
            if !done && op.due.is_some_and(|due| due < began) {
                self.wrong(format!("{:?} should have ended at {:?}", op.what, op.due));
            }
        }
        // A batch of readiness may tell of a descriptor that was detached while it was worked off.
        if numbers.stale > 0 && !at.driver.wants_nonblocking() {
            self.wrong(format!("{} completions belonged to nobody", numbers.stale));
        }
        if numbers.in_flight_total() != busy + numbers.orphans {
            let there = numbers.in_flight_total();
            let orphans = numbers.orphans;
            self.wrong(format!("{there} in flight, not {busy} and {orphans} orphans"));
        }
        if u64::from(at.driver.operations()) != all + numbers.orphans {
            let (there, orphans) = (at.driver.operations(), numbers.orphans);
            self.wrong(format!("{there} operations, not {all} and {orphans} orphans"));
        }
        if numbers.submissions != at.submitted.get() {
            let (there, mine) = (numbers.submissions, at.submitted.get());
            self.wrong(format!("{there} were submitted by its count, {mine} by ours"));
        }
        if numbers.leaked > 0 {
            self.wrong("operations were left behind");
        }
        if numbers.buffers_in_use > at.leases.borrow().len() as u64 + all * 200 {
            self.wrong(format!("{} buffers are in use", numbers.buffers_in_use));
        }
    }
}
