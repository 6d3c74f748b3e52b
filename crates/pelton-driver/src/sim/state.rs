//! What a world consists of, and how things in it happen: one event after the other, in virtual time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use super::choices::{Choices, Script, mix};
use super::datagram::Packet;
use super::disk::Disk;
use super::fault::{Fault, Faults};
use super::file::{FileId, FileSlot, Kind};
use super::stream::Segment;
use super::table::OpKey;
use super::words::time;
use super::world::{Rooms, WorldOptions};
use crate::sys::RawDescriptor;
use crate::unix_address::UnixAddr;

pub(super) type Nanos = u64;
pub(super) type Job = Box<dyn FnOnce() + Send>;

pub(super) const MICRO: Nanos = 1_000;
pub(super) const MILLI: Nanos = 1_000_000;
pub(super) const SECOND: Nanos = 1_000_000_000;

/// How many calls there may be at one moment of virtual time before it is called a busy loop.
const BUSY: u64 = 200_000;

/// A machine of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub(super) u32);

/// A reactor of the world, of some host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcId(pub(super) u32);

pub(super) struct Host {
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) up: bool,
    pub(super) disk: Disk,
    pub(super) wall_offset: i64,
    /// Changes with each crash: what was on its way to an earlier life arrives nowhere.
    pub(super) life: u32,
    pub(super) next_port: u16,
}

pub(super) struct Proc {
    pub(super) host: HostId,
    /// What it waits in: the number of the wait, which makes a late deadline find nobody.
    pub(super) waiting: Option<u64>,
    pub(super) waits: u64,
    /// The wait in which it was last woken by somebody else.
    woken: Option<u64>,
    pub(super) runnable: bool,
}

/// Something that is going to happen.
pub(super) enum Event {
    /// A segment reaches its end of a connection.
    Segment(FileId, Segment),
    /// A datagram arrives.
    Packet(Packet),
    /// The first packet of a connection reaches a host.
    Syn { from: FileId, tries: u32 },
    /// The answer reaches the connecting end: 0, or what it failed with.
    Answer { to: FileId, server: Option<FileId>, error: i32 },
    /// Room in the peer's window is known of.
    Window(FileId),
    /// An operation of a ring goes on.
    Op(FileId, OpKey),
    /// What came late is looked at: task work that was kept back.
    Kept(FileId),
    /// An overlapped call goes on, or is told of.
    #[cfg_attr(not(pelton_iocp_elsewhere), allow(dead_code))]
    Request(FileId, OpKey),
    /// An event counter is heard.
    Heard(FileId),
    /// A job of the blocking pool is run.
    Job(u64),
    /// A reactor's wait is over.
    Deadline(ProcId, u64),
    /// An end that has not been heard of for too long.
    Dead(FileId, i32),
    /// A closed host's end, or a spurious wake.
    Spurious(ProcId),
}

/// Why nothing passes between two hosts, and what waits until it does again.
pub(super) struct Cut {
    /// What a network loses is lost: connections are tried again, datagrams are gone. Otherwise everything
    /// is only late.
    pub(super) loses: bool,
    pub(super) held: Vec<Event>,
}

struct Planned {
    at: Nanos,
    order: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Planned) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

pub(super) struct State {
    pub(super) id: u32,
    pub(super) now: Nanos,
    base: Instant,
    wall_base: SystemTime,
    /// What the clock shows until the world's time has passed it.
    stalled: Option<(Nanos, Nanos)>,
    pub(super) choices: Choices,
    pub(super) faults: Faults,
    pub(super) faults_on: bool,
    /// Drivers that may choose run on completion ports.
    pub(super) has_ports: bool,
    events: BinaryHeap<Planned>,
    order: u64,
    pub(super) events_run: u64,
    pub(super) fds: Vec<Option<FileId>>,
    pub(super) free_fds: BTreeSet<u32>,
    pub(super) files: Vec<FileSlot>,
    pub(super) free_files: Vec<u32>,
    pub(super) hosts: Vec<Host>,
    pub(super) names: BTreeMap<String, Vec<IpAddr>>,
    pub(super) routes: HashMap<IpAddr, HostId>,
    /// Bound streams that listen, by host and port.
    pub(super) listeners: HashMap<(HostId, u16), Vec<FileId>>,
    /// Unix sockets that listen, by host and name.
    pub(super) local_listeners: HashMap<(HostId, UnixAddr), FileId>,
    pub(super) datagrams: HashMap<(HostId, u16), FileId>,
    /// Pairs of hosts that cannot reach each other, and what waits for them to.
    pub(super) cuts: BTreeMap<(HostId, HostId), Cut>,
    /// Both ends of each connection so far, in words.
    pub(super) connections: Vec<Box<str>>,
    pub(super) procs: Vec<Proc>,
    pub(super) current_host: HostId,
    pub(super) current_proc: Option<ProcId>,
    jobs: BTreeMap<u64, (HostId, Option<ProcId>, Job)>,
    next_job: u64,
    pub(super) violations: Vec<String>,
    calls_now: u64,
    pub(super) latency: Nanos,
    random: u64,
}

/// What running an event left to do outside of the world's own code.
pub(super) enum Ran {
    Nothing,
    Job(HostId, Option<ProcId>, Job),
}

impl State {
    pub(super) fn new(id: u32, options: &WorldOptions, script: Option<Script>) -> State {
        let seed = options.seed;
        let mut state = State {
            id,
            now: 0,
            base: Instant::now(),
            wall_base: SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000),
            stalled: None,
            choices: Choices::new(seed, script, options.keep),
            faults: options.faults.clone(),
            faults_on: true,
            has_ports: cfg!(pelton_iocp_elsewhere) && options.rooms == Rooms::Windows,
            events: BinaryHeap::new(),
            order: 0,
            events_run: 0,
            fds: Vec::new(),
            free_fds: BTreeSet::new(),
            files: Vec::new(),
            free_files: Vec::new(),
            hosts: Vec::new(),
            names: BTreeMap::new(),
            routes: HashMap::new(),
            listeners: HashMap::new(),
            local_listeners: HashMap::new(),
            datagrams: HashMap::new(),
            cuts: BTreeMap::new(),
            connections: Vec::new(),
            procs: Vec::new(),
            current_host: HostId(0),
            current_proc: None,
            jobs: BTreeMap::new(),
            next_job: 0,
            violations: Vec::new(),
            calls_now: 0,
            latency: options.latency.as_nanos() as Nanos,
            random: 0,
        };
        state.add_host("localhost", vec![IpAddr::from([127, 0, 0, 1])]);
        state.routes.insert(IpAddr::from([0_u16, 0, 0, 0, 0, 0, 0, 1]), HostId(0));
        state
    }

    pub(super) fn add_host(&mut self, name: &str, addresses: Vec<IpAddr>) -> HostId {
        let id = HostId(self.hosts.len() as u32);
        for address in &addresses {
            self.routes.insert(*address, id);
        }
        self.names.insert(name.to_owned(), addresses.clone());
        self.hosts.push(Host {
            name: name.to_owned(),
            addresses,
            up: true,
            disk: Disk::default(),
            wall_offset: 0,
            life: 0,
            next_port: 32_768,
        });
        id
    }

    pub(super) fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0 as usize]
    }

    pub(super) fn host_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0 as usize]
    }

    /// The host that an address names, as seen from another one: loopback is always oneself.
    pub(super) fn route(&self, from: HostId, to: IpAddr) -> Option<HostId> {
        if to.is_loopback() || to.is_unspecified() {
            return Some(from);
        }
        self.routes.get(&to).copied()
    }

    // Time.

    pub(super) fn clock(&mut self) -> Nanos {
        if let Some((until, shown)) = self.stalled {
            if self.now < until {
                return shown;
            }
            self.stalled = None;
        }
        if self.fault(Fault::ClockStall, 0, String::new) {
            let length = MILLI + self.choose("clock-stall length", 0, 20) * MILLI;
            self.tell(Fault::ClockStall.name(), 0, |_| {
                format!("the clock stood still for {}", time(length))
            });
            self.stalled = Some((self.now + length, self.now));
        }
        self.now
    }

    pub(super) fn instant(&mut self) -> Instant {
        self.base + Duration::from_nanos(self.clock())
    }

    pub(super) fn wall(&mut self) -> SystemTime {
        let host = self.current_host;
        if self.fault(Fault::WallJump, host.0.into(), String::new) {
            let jump = self.choose("wall-jump by", host.0.into(), 7_200) as i64 - 3_600;
            self.host_mut(host).wall_offset += jump;
            self.tell(Fault::WallJump.name(), host.0.into(), |state| {
                format!("the wall clock of {} jumped by {jump} s", state.host_name(host))
            });
        }
        let offset = self.host(host).wall_offset;
        let wall = self.wall_base + Duration::from_nanos(self.now);
        if offset >= 0 {
            wall + Duration::from_secs(offset as u64)
        } else {
            wall - Duration::from_secs(offset.unsigned_abs())
        }
    }

    // Choices.

    pub(super) fn choose(&mut self, label: &'static str, who: u64, n: u64) -> u64 {
        self.choices.choose(self.now, label, who, n, |_| String::new())
    }

    pub(super) fn choose_told(
        &mut self,
        label: &'static str,
        who: u64,
        n: u64,
        tell: impl FnOnce(u64) -> String,
    ) -> u64 {
        self.choices.choose(self.now, label, who, n, tell)
    }

    pub(super) fn fault_on(&self, fault: Fault) -> bool {
        self.faults_on && self.faults.rate(fault) > 0
    }

    /// Whether a fault comes about here and now.
    pub(super) fn fault(&mut self, fault: Fault, who: u64, tell: impl FnOnce() -> String) -> bool {
        if !self.fault_on(fault) {
            return false;
        }
        self.choices.chance(self.now, fault.name(), who, self.faults.rate(fault), tell)
    }

    // Events.

    pub(super) fn plan(&mut self, after: Nanos, event: Event) {
        self.plan_at(self.now + after, event);
    }

    pub(super) fn plan_at(&mut self, at: Nanos, event: Event) {
        self.order += 1;
        let order = self.order;
        self.events.push(Planned { at: at.max(self.now), order, event });
    }

    /// When the next event happens.
    pub(super) fn next_event(&self) -> Option<Nanos> {
        self.events.peek().map(|planned| planned.at)
    }

    /// Lets the next event happen.
    pub(super) fn run_event(&mut self) -> Ran {
        let Some(Planned { at, event, .. }) = self.events.pop() else { return Ran::Nothing };
        self.advance(at);
        self.events_run += 1;
        self.choices.note(at);
        match event {
            Event::Segment(to, segment) => self.segment_arrives(to, segment),
            Event::Packet(packet) => self.packet_arrives(packet),
            Event::Syn { from, tries } => self.syn_arrives(from, tries),
            Event::Answer { to, server, error } => self.answer_arrives(to, server, error),
            Event::Window(file) => self.wake_file(file, libc::POLLOUT),
            Event::Op(ring, op) => self.op_goes_on(ring, op),
            Event::Kept(ring) => self.bring_kept(ring),
            Event::Request(port, key) => self.request_goes_on(port, key),
            Event::Heard(file) => self.is_heard(file),
            Event::Job(number) => {
                if let Some((host, proc, job)) = self.jobs.remove(&number)
                    && self.host(host).up
                {
                    return Ran::Job(host, proc, job);
                }
            }
            Event::Deadline(proc, wait) => {
                if self.procs[proc.0 as usize].waiting == Some(wait) {
                    self.make_runnable(proc);
                }
            }
            Event::Dead(file, error) => self.dies(file, error),
            Event::Spurious(proc) => self.make_runnable(proc),
        }
        Ran::Nothing
    }

    pub(super) fn advance(&mut self, to: Nanos) {
        if to > self.now {
            self.now = to;
            self.calls_now = 0;
        }
    }

    /// Counts a call, so that a loop that never waits is found out.
    pub(super) fn count_call(&mut self) {
        self.calls_now += 1;
        if self.calls_now == BUSY {
            let now = self.now;
            self.violation(format!(
                "a busy loop: {BUSY} calls at {:.3} ms, with no time passing",
                now as f64 / 1e6
            ));
        }
    }

    pub(super) fn violation(&mut self, text: String) {
        if self.violations.len() < 16 {
            self.violations.push(text);
        }
    }

    // Reactors.

    pub(super) fn add_proc(&mut self, host: HostId) -> ProcId {
        self.procs.push(Proc { host, waiting: None, waits: 0, woken: None, runnable: true });
        ProcId(self.procs.len() as u32 - 1)
    }

    pub(super) fn make_runnable(&mut self, proc: ProcId) {
        let state = &mut self.procs[proc.0 as usize];
        state.waiting = None;
        state.runnable = true;
    }

    /// A reactor enters the kernel, to wait or to look: it drains after that whatever has woken it.
    pub(super) fn enters(&mut self) {
        if let Some(proc) = self.current_proc {
            self.procs[proc.0 as usize].woken = None;
        }
    }

    /// A reactor of this world begins to wait.
    pub(super) fn begin_wait(&mut self, proc: ProcId, timeout: Option<Nanos>) {
        let state = &mut self.procs[proc.0 as usize];
        state.waits += 1;
        let wait = state.waits;
        state.waiting = Some(wait);
        state.runnable = false;
        if let Some(timeout) = timeout {
            self.plan(timeout, Event::Deadline(proc, wait));
        }
        let who = proc.0.into();
        if self.fault(Fault::WakeSpurious, who, String::new) {
            let after = self.choose("wake-spurious after", who, 1000) * MICRO;
            self.tell(Fault::WakeSpurious.name(), who, |state| {
                format!("{} woke for nothing after {}", state.reactor_name(proc), time(after))
            });
            self.plan(after, Event::Spurious(proc));
        }
    }

    /// A reactor is woken through the kernel: once, at most, between two of its drains.
    fn count_wake(&mut self, proc: ProcId) {
        let state = &mut self.procs[proc.0 as usize];
        let wait = Some(state.waits);
        if std::mem::replace(&mut state.woken, wait) == wait {
            let name = self.reactor_name(proc);
            self.violation(format!("{name} was woken through the kernel twice in one wait"));
        }
    }

    // Wakes.

    pub(super) fn event_write(&mut self, fd: RawDescriptor) -> i32 {
        let Some(id) = self.of_fd(fd) else { return -libc::EBADF };
        match self.file_mut(id).map(|file| &mut file.kind) {
            Some(Kind::Event { count, of }) => {
                *count += 1;
                if let Some(proc) = *of {
                    self.count_wake(proc);
                }
            }
            Some(Kind::Port(port)) => {
                if let Some(proc) = port.reactor() {
                    self.count_wake(proc);
                }
            }
            _ => return -libc::EINVAL,
        }
        let who = u64::from(id.index);
        let host = self.file(id).map_or(self.current_host, |file| file.host);
        if self.fault(Fault::WakeTwice, who, String::new) {
            let after = (1 + self.choose("wake-twice after", who, 500)) * MICRO;
            self.tell(Fault::WakeTwice.name(), who, |state| {
                format!("a wake of {} came again after {}", state.host_name(host), time(after))
            });
            self.plan(after, Event::Heard(id));
        }
        if self.fault(Fault::WakeLate, who, String::new) {
            let after = (1 + self.choose("wake-late by", who, 5000)) * MICRO;
            self.tell(Fault::WakeLate.name(), who, |state| {
                format!("a wake of {} came {} late", state.host_name(host), time(after))
            });
            self.plan(after, Event::Heard(id));
        } else {
            self.is_heard(id);
        }
        0
    }

    fn is_heard(&mut self, id: FileId) {
        match self.file(id).map(|file| &file.kind) {
            Some(Kind::Port(_)) => self.port_post(id, super::port::KEY_WAKE, std::ptr::null_mut()),
            _ => self.wake_file(id, libc::POLLIN),
        }
    }

    /// A number for whoever asks. No choice: it is the same in a replay.
    pub(super) fn random(&mut self) -> u64 {
        self.random += 1;
        mix(mix(self.choices.seed() ^ 0x5EED) ^ self.random)
    }

    // Jobs.

    pub(super) fn add_job(&mut self, job: Job) {
        let number = self.next_job;
        self.next_job += 1;
        self.jobs.insert(number, (self.current_host, self.current_proc, job));
        let more = self.choose("job takes", number, 200) * MICRO;
        if more > 0 {
            self.tell("job takes", number, |state| {
                let host = state.host_name(state.current_host);
                format!("a blocking call of {host} took {} longer", time(more))
            });
        }
        let after = 20 * MICRO + more;
        self.plan(after, Event::Job(number));
    }

    /// Jobs of a host that will not be run any more, to be dropped outside of the world.
    pub(super) fn take_jobs(&mut self, host: HostId) -> Vec<Job> {
        let of_host: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| job.0 == host).map(|(number, _)| *number).collect();
        of_host.iter().filter_map(|number| self.jobs.remove(number)).map(|job| job.2).collect()
    }

    // The network between hosts.

    pub(super) fn link(a: HostId, b: HostId) -> (HostId, HostId) {
        (a.min(b), a.max(b))
    }

    /// Sends an event over the network from one host to another: at `at`, or when a cut has healed.
    pub(super) fn send_over(&mut self, from: HostId, to: HostId, at: Nanos, event: Event) {
        if from != to
            && let Some(cut) = self.cuts.get_mut(&State::link(from, to))
        {
            cut.held.push(event);
            return;
        }
        self.plan_at(at, event);
    }

    pub(super) fn is_cut(&self, a: HostId, b: HostId) -> bool {
        a != b && self.cuts.get(&State::link(a, b)).is_some_and(|cut| cut.loses)
    }

    pub(super) fn is_held(&self, a: HostId, b: HostId) -> bool {
        a != b && self.cuts.get(&State::link(a, b)).is_some_and(|cut| !cut.loses)
    }

    /// Lets nothing pass between two hosts. A cut that is there already becomes the stricter of both.
    pub(super) fn cut(&mut self, a: HostId, b: HostId, loses: bool) {
        if a != b {
            let empty = Cut { loses, held: Vec::new() };
            self.cuts.entry(State::link(a, b)).or_insert(empty).loses |= loses;
        }
    }

    pub(super) fn heal(&mut self, a: HostId, b: HostId) {
        let Some(cut) = self.cuts.remove(&State::link(a, b)) else { return };
        for event in cut.held {
            self.plan(self.latency, event);
        }
    }

    /// How long something takes from one host to another.
    pub(super) fn trip(&mut self, who: u64, from: HostId, to: HostId) -> Nanos {
        let least = if from == to { 5 * MICRO } else { self.latency };
        let more = self.choose("latency", who, 64) * least / 128;
        let ends =
            |state: &State| (state.host_name(from).to_owned(), state.host_name(to).to_owned());
        if more > 0 {
            self.tell("latency", who, |state| {
                let (from, to) = ends(state);
                format!("the way from {from} to {to} took {} longer", time(more))
            });
        }
        if !self.fault(Fault::Slow, who, String::new) {
            return least + more;
        }
        let slow = (1 + self.choose("slow by", who, 200)) * MILLI;
        self.tell(Fault::Slow.name(), who, |state| {
            let (from, to) = ends(state);
            format!("something from {from} to {to} was {} late", time(slow))
        });
        least + more + slow
    }
}
