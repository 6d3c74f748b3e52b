//! The loop that turns a simulation's reactors, and what is checked at its end.

use std::time::Duration;

use pelton_driver::sim::{Fault, HostId, ReactorId, World};
use pelton_driver::{Backend, Config};

use super::group::Group;
use super::member::{Ended, Member};
use super::options::Options;
use super::panics;
use super::report::Kind;
use super::scene::{Action, Client, Host, Sim};
use super::trouble::Rates;
use crate::runtime::Builder;

/// Operations in flight of one driver. Miri gets less: it looks after every byte of the memory for them.
const MOST_OPERATIONS: u32 = if cfg!(miri) { 1 << 8 } else { 1 << 16 };
/// How long it takes until somebody starts again what could not start.
const START_AGAIN: Duration = Duration::from_millis(100);
/// Events after the end, at most: segments and calls that were under way.
const MOST_LEFT: u32 = 100_000;
const MOST_DESCRIPTORS: u32 = if cfg!(miri) { 1 << 8 } else { 1 << 14 };

impl Sim {
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
            // Not the environment's, which would make another run of the same seed.
            backend: Backend::Sim,
            max_operations: MOST_OPERATIONS,
            max_descriptors: MOST_DESCRIPTORS,
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
            host.handles.clear();
            (host.id, host.reactors, host.boot.clone(), host.name.clone())
        };
        for number in 0..reactors {
            let made = Member::new(world, id, self.builder(id));
            match made {
                Ok(member) => {
                    member.run(world, || boot(number));
                    let host = &mut self.0.hosts.borrow_mut()[at];
                    host.handles.push(member.handle());
                    host.members.push(member);
                }
                Err(error) => {
                    // All of it or nothing: whoever looks after the host starts the whole again.
                    let begun = {
                        let host = &mut self.0.hosts.borrow_mut()[at];
                        host.up = false;
                        host.handles.clear();
                        std::mem::take(&mut host.members)
                    };
                    for left in begun.into_iter().flat_map(|member| member.end(world)) {
                        self.fail(Kind::Violation, left);
                    }
                    return self.start_later(&name, &error, move |sim| {
                        let up = sim.0.hosts.borrow()[at].up;
                        if !up {
                            sim.boot(at);
                        }
                    });
                }
            }
        }
    }

    /// What could not start for want of descriptors or memory is started again after a while, as whatever
    /// looks after a program does. Any other reason is a failure.
    fn start_later(&self, name: &str, error: &std::io::Error, again: impl FnOnce(&Sim) + 'static) {
        let world = &self.0.world;
        if world.rate(Fault::NoDriver) == 0 {
            return self.fail(Kind::Error, format!("{name} cannot start: {error}"));
        }
        if !error.to_string().contains("try again") {
            self.fail(Kind::Violation, format!("{name} was refused without a cure: {error}"));
        }
        self.plan(world.now() + START_AGAIN, Action::Run(Box::new(again)));
    }

    /// A host that is down starts again.
    fn do_restart(&self, name: &str) {
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

    fn begin(&self) {
        let count = self.0.hosts.borrow().len();
        for at in 0..count {
            self.boot(at);
        }
        let count = self.0.clients.borrow().len();
        for at in 0..count {
            self.begin_client(at);
        }
    }

    /// Starts a client that has not been started yet.
    fn begin_client(&self, at: usize) {
        let (host, name) = {
            let client = &self.0.clients.borrow()[at];
            if client.main.is_none() {
                return;
            }
            (client.host, client.name.clone())
        };
        let world = &self.0.world;
        match Member::new(world, host, self.builder(host)) {
            Ok(member) => {
                let main = self.0.clients.borrow_mut()[at].main.take();
                if let Some(main) = main {
                    member.run(world, || main);
                }
                self.0.clients.borrow_mut()[at].member = Some(member);
            }
            Err(error) => self.start_later(&name, &error, move |sim| sim.begin_client(at)),
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
            Action::Trouble(rates) => self.trouble(rates),
            Action::Cut(a, b) => self.each_link(&Group(vec![a]), &Group(b), World::cut),
            Action::Heal(a, b) => self.each_link(&Group(vec![a]), &Group(b), World::heal),
            Action::Crash(name) => self.do_crash(&name),
            Action::Restart(name) => self.do_restart(&name),
        }
        true
    }

    fn do_crash(&self, name: &str) {
        let (id, members) = {
            let mut hosts = self.0.hosts.borrow_mut();
            let up = |host: &&mut Host| host.name == name && host.up;
            let Some(host) = hosts.iter_mut().find(up) else { return };
            host.up = false;
            host.handles.clear();
            (host.id, std::mem::take(&mut host.members))
        };
        // What it drops is the application's code.
        self.0.world.crash(id);
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
    fn turn(&self, reactor: ReactorId) {
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
            self.look_at(&name, member.ended());
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
        let ended = member.ended();
        self.look_at(&name, ended.clone());
        if ended.is_none() {
            self.0.clients.borrow_mut()[at].member = Some(member);
            return;
        }
        self.0.clients.borrow_mut()[at].done = true;
        for left in member.end(world) {
            self.fail(Kind::Violation, left);
        }
    }

    /// What a turn came to: how the main future ended, and who panicked.
    fn look_at(&self, name: &str, ended: Option<Ended>) {
        let panics = panics::take();
        match ended {
            Some(Ended::Panicked(what)) => {
                let what = panics.first().cloned().unwrap_or(format!("panicked: {what}"));
                self.fail(Kind::Panic, format!("{name} {what}"));
            }
            Some(Ended::Badly(error)) => {
                self.fail(Kind::Error, format!("{name} ended with an error: {error}"));
            }
            Some(Ended::Well) | None => {}
        }
        if !self.0.allow_panics
            && let Some(what) = panics.first()
        {
            self.fail(Kind::Panic, format!("a task of {name} {what}"));
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
            // What is due happens, however busy a reactor keeps itself.
            let now = world.now();
            if world.next_event().is_some_and(|next| next <= now) {
                world.step();
                continue;
            }
            if now > limit {
                return false;
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
    pub(super) fn whole(&self, options: &Options) {
        self.begin();
        let world = &self.0.world;
        let Options { partitions, crashes, .. } = *options;
        self.plan_trouble(Rates { partitions, crashes });
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
            let count = self.0.clients.borrow().len();
            for at in 0..count {
                self.begin_client(at);
            }
            let limit = world.now() + options.grace;
            if !self.go(limit) && !self.failed() {
                self.fail(Kind::Stuck, self.who_is_stuck(options.grace));
            }
        }
        self.end();
    }

    /// Which clients have not ended, and what everybody waits for.
    fn who_is_stuck(&self, grace: Duration) -> String {
        let clients = self.0.clients.borrow();
        let open: Vec<&Client> = clients.iter().filter(|client| !client.done).collect();
        let names = Group(open.iter().map(|client| client.name.clone()).collect());
        let mut what = format!("with all faults off, {names} did not end within {grace:?}");
        let hosts = self.0.hosts.borrow();
        let open = open.iter().map(|client| (&client.name, client.host));
        for (name, id) in open.chain(hosts.iter().map(|host| (&host.name, host.id))) {
            let waits = self.0.world.waits_of(id);
            let waits = match &waits[..] {
                [] => "nothing but timers and tasks".to_owned(),
                waits => waits.join(", "),
            };
            what.push_str(&format!("\n  {name} waits for {waits}"));
        }
        what
    }

    fn end(&self) {
        let world = &self.0.world;
        world.set_faults(false);
        world.heal_all();
        let mut members: Vec<Member> = Vec::new();
        for host in &mut *self.0.hosts.borrow_mut() {
            members.append(&mut host.members);
            host.handles.clear();
        }
        let mut clients = self.0.clients.borrow_mut();
        members.extend(clients.iter_mut().filter_map(|client| client.member.take()));
        drop(clients);
        for member in members {
            for left in member.end(world) {
                self.fail(Kind::Violation, left);
            }
        }
        // Blocking calls that nobody waits for any more hold a wake of their reactor until they have run.
        for _ in 0..MOST_LEFT {
            if !world.step() {
                break;
            }
        }
        for what in world.violations().into_iter().chain(world.leftovers()) {
            self.fail(Kind::Violation, what);
        }
    }
}
