//! What a test says of its simulation: who is in it, what each runs, and what happens to them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use pelton_driver::sim::{HostId, World};

use super::group::Group;
use super::member::{Main, Member};
use super::options::Options;
use super::report::Kind;
use super::trouble::Rates;
use crate::handle::Handle;

/// Lines that are remembered; those after are forgotten.
const MOST_TOLD: usize = 10_000;

pub(super) struct Host {
    pub(super) name: String,
    pub(super) id: HostId,
    pub(super) reactors: usize,
    pub(super) boot: Rc<dyn Fn(usize) -> Main>,
    pub(super) members: Vec<Member>,
    pub(super) up: bool,
}

pub(super) struct Client {
    pub(super) name: String,
    pub(super) host: HostId,
    pub(super) main: Option<Main>,
    pub(super) member: Option<Member>,
    pub(super) done: bool,
}

pub(super) enum Action {
    Crash(String),
    Restart(String),
    Cut(String, Vec<String>),
    Heal(String, Vec<String>),
    Trouble(Rates),
    Run(Box<dyn FnOnce(&Sim)>),
}

pub(super) struct Inner {
    pub(super) world: World,
    pub(super) hosts: RefCell<Vec<Host>>,
    pub(super) clients: RefCell<Vec<Client>>,
    pub(super) actions: RefCell<Vec<(Duration, Action)>>,
    next_address: Cell<u8>,
    pub(super) vary: bool,
    pub(super) allow_panics: bool,
    pub(super) failure: RefCell<Option<(Kind, String, Duration)>>,
    pub(super) told: RefCell<Vec<(Duration, String)>>,
}

/// A simulation that is being set up, or runs. Tasks of the simulation reach it with
/// [`current`](super::current).
///
/// ```
/// use std::time::Duration;
/// use pelton::net::{TcpListener, TcpStream};
/// use pelton::sim::{self, Faults, Options};
///
/// sim::run_with(Options::new(1).faults(Faults::none()), |sim| {
///     sim.host("server", || async {
///         let listener = TcpListener::bind("0.0.0.0:80").await?;
///         loop {
///             let (stream, _) = listener.accept().await?;
///             let _ = stream.send_all("hello").await;
///         }
///     });
///     sim.client("client", async {
///         let sim = sim::current();
///         sim.partition("client", "server");
///         sim.at(sim.elapsed() + Duration::from_secs(3), |sim| sim.heal("client", "server"));
///         let stream = TcpStream::connect("server:80").await?;
///         assert!(sim.elapsed() >= Duration::from_secs(3));
///         assert_eq!(&*stream.recv().await?.unwrap(), b"hello");
///         Ok(())
///     });
/// });
/// ```
#[derive(Clone)]
pub struct Sim(pub(super) Rc<Inner>);

impl Sim {
    pub(super) fn new(world: World, options: &Options) -> Sim {
        Sim(Rc::new(Inner {
            world,
            hosts: RefCell::default(),
            clients: RefCell::default(),
            actions: RefCell::default(),
            next_address: Cell::new(1),
            vary: options.vary,
            allow_panics: options.allow_panics,
            failure: RefCell::default(),
            told: RefCell::default(),
        }))
    }

    // Who there is.

    /// Adds a host, which others reach by its name. `boot` makes what it runs, at the start and whenever it
    /// restarts after a crash. A host that ends with an error, or panics, fails the run; it may run for ever.
    ///
    /// # Panics
    /// There is a host or a client of that name.
    pub fn host<F>(&self, name: &str, boot: impl Fn() -> F + 'static)
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        self.fleet(name, 1, move |_| boot());
    }

    /// Adds a host with several reactors: `boot` is called for each, with its number. It is what
    /// [`Fleet`](crate::Fleet) is in production, whose threads are not simulated.
    ///
    /// ```
    /// use pelton::net::{ListenOptions, TcpListener};
    /// use pelton::sim;
    /// # use pelton::net::TcpStream;
    ///
    /// sim::run_with(sim::Options::new(1).faults(sim::Faults::none()), |sim| {
    ///     sim.fleet("server", 2, |_reactor| async {
    ///         let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    ///         let listener = TcpListener::bind_with("0.0.0.0:80", options).await?;
    ///         loop {
    ///             drop(listener.accept().await?);
    ///         }
    ///     });
    /// #   sim.client("client", async { TcpStream::connect("server:80").await.map(drop) });
    /// });
    /// ```
    ///
    /// # Panics
    /// There is a host or a client of that name.
    pub fn fleet<F>(&self, name: &str, reactors: usize, boot: impl Fn(usize) -> F + 'static)
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        let id = self.add(name);
        let boot: Rc<dyn Fn(usize) -> Main> = Rc::new(move |number| Box::pin(boot(number)));
        let (name, members) = (name.to_owned(), Vec::new());
        self.0.hosts.borrow_mut().push(Host { name, id, reactors, boot, members, up: false });
    }

    /// Adds a client: a host that runs a future once. The simulation goes on until every client has ended;
    /// one that ends with an error, or panics, fails the run.
    ///
    /// # Panics
    /// There is a host or a client of that name.
    pub fn client(&self, name: &str, main: impl Future<Output = io::Result<()>> + 'static) {
        let host = self.add(name);
        let (name, main) = (name.to_owned(), Some(Box::pin(main) as Main));
        self.0.clients.borrow_mut().push(Client { name, host, main, member: None, done: false });
    }

    /// Adds another name for hosts that there are, as a name server would: whoever looks it up gets the
    /// addresses of all of them, in this order.
    ///
    /// ```
    /// # use pelton::net::{TcpListener, TcpStream};
    /// pelton::sim::run_with(pelton::sim::Options::new(1).faults(pelton::sim::Faults::none()), |sim| {
    ///     sim.host("db-1", || async {
    ///         TcpListener::bind("0.0.0.0:5432").await?.accept().await.map(drop)
    ///     });
    ///     sim.add_name("db.example.com", "db-1");
    ///     sim.client("client", async { TcpStream::connect("db.example.com:5432").await.map(drop) });
    /// });
    /// ```
    ///
    /// # Panics
    /// There is no host of one of the names.
    pub fn add_name(&self, name: &str, hosts: impl Into<Group>) {
        let world = &self.0.world;
        let addresses = |host: &String| world.addresses(self.id_of(host));
        let addresses: Vec<IpAddr> = hosts.into().0.iter().flat_map(addresses).collect();
        world.add_name(name, &addresses);
    }

    /// The address of a host or a client.
    ///
    /// # Panics
    /// There is none of that name.
    pub fn address(&self, name: &str) -> IpAddr {
        self.0.world.addresses(self.id_of(name))[0]
    }

    /// Reaches one of a host's reactors as other threads would in production.
    ///
    /// # Panics
    /// There is no such reactor, or it does not run yet, or it is the one that runs now (which has
    /// [`Handle::current`]).
    pub fn handle(&self, name: &str, reactor: usize) -> Handle {
        let _ = self.id_of(name);
        let hosts = self.0.hosts.borrow();
        let host = hosts.iter().find(|host| host.name == name);
        let member = host.and_then(|host| host.members.get(reactor));
        member.unwrap_or_else(|| panic!("{name:?} has no reactor {reactor} that runs")).handle()
    }

    // What happens to them.

    /// Does something when so much virtual time has passed since the start; not after the time limit.
    pub fn at(&self, when: Duration, action: impl FnOnce(&Sim) + 'static) {
        self.plan(when, Action::Run(Box::new(action)));
    }

    /// Cuts the network between hosts: each of the first from each of the second. What a connection sends
    /// waits until it is healed, as it does where packets are sent again; new connections are tried again;
    /// datagrams are lost. What is on its way arrives.
    ///
    /// ```
    /// # pelton::sim::run(1, |sim| {
    /// # for name in ["a", "b", "c"] { sim.host(name, || async { Ok(()) }); }
    /// sim.partition("a", "b");
    /// sim.partition("c", ["a", "b"]);
    /// sim.heal("a", ["b", "c"]);
    /// # });
    /// ```
    ///
    /// # Panics
    /// There is no host or client of one of the names.
    pub fn partition(&self, a: impl Into<Group>, b: impl Into<Group>) {
        let (a, b) = (a.into(), b.into());
        self.each_link(&a, &b, World::cut);
        self.tell(format!("the test cut {a} off from {b}"));
    }

    /// Cuts a host off from all others.
    ///
    /// # Panics
    /// There is no host or client of that name.
    pub fn isolate(&self, name: &str) {
        let others: Vec<String> = self.names().into_iter().filter(|other| other != name).collect();
        self.partition(name, others);
    }

    /// Holds what is sent between hosts until it is [released](Sim::release): nothing is lost, no connection
    /// is tried again, everything is late.
    ///
    /// # Panics
    /// There is no host or client of one of the names.
    pub fn hold(&self, a: impl Into<Group>, b: impl Into<Group>) {
        let (a, b) = (a.into(), b.into());
        self.each_link(&a, &b, World::hold);
        self.tell(format!("the test held what {a} and {b} sent each other"));
    }

    /// Lets what was held between hosts go on.
    ///
    /// # Panics
    /// There is no host or client of one of the names.
    pub fn release(&self, a: impl Into<Group>, b: impl Into<Group>) {
        let (a, b) = (a.into(), b.into());
        self.each_link(&a, &b, World::heal);
        self.tell(format!("the test released what {a} and {b} sent each other"));
    }

    /// Heals the network between hosts.
    ///
    /// # Panics
    /// There is no host or client of one of the names.
    pub fn heal(&self, a: impl Into<Group>, b: impl Into<Group>) {
        let (a, b) = (a.into(), b.into());
        self.each_link(&a, &b, World::heal);
        self.tell(format!("the test healed the network between {a} and {b}"));
    }

    /// Heals the network between all hosts, and releases what was held.
    pub fn heal_all(&self) {
        self.0.world.heal_all();
        self.tell("the test healed the network");
    }

    /// A host loses power, at the next moment: its tasks are gone, its connections fall silent, and its files
    /// keep what was synced. It may be the host that calls this. One that is down stays down.
    ///
    /// # Panics
    /// There is no host of that name: clients do not crash.
    pub fn crash(&self, name: &str) {
        self.check_host(name);
        self.plan(self.elapsed(), Action::Crash(name.to_owned()));
        self.tell(format!("the test crashed {name}"));
    }

    /// A host that has crashed starts again, at the next moment. One that is up goes on.
    ///
    /// # Panics
    /// There is no host of that name.
    pub fn restart(&self, name: &str) {
        self.check_host(name);
        self.plan(self.elapsed(), Action::Restart(name.to_owned()));
        self.tell(format!("the test restarted {name}"));
    }

    /// True for a host that has power. Clients always have.
    ///
    /// # Panics
    /// There is no host or client of that name.
    pub fn is_up(&self, name: &str) -> bool {
        let _ = self.id_of(name);
        let hosts = self.0.hosts.borrow();
        hosts.iter().find(|host| host.name == name).is_none_or(|host| host.up)
    }

    // What a test asks and says.

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.world.now()
    }

    /// Makes a choice that is the test's own: a number below `n`, of which 0 is the dull one. It is recorded,
    /// shrunk and replayed like the simulation's own; `story` tells of it in words.
    ///
    /// ```
    /// # pelton::sim::run(1, |sim| {
    /// let clients = 1 + sim.choose("clients", 3, |more| format!("there were {more} more clients"));
    /// # assert!((1..4).contains(&clients));
    /// # });
    /// ```
    ///
    /// # Panics
    /// The label has a semicolon, which a replay could not name.
    pub fn choose(&self, label: &'static str, n: u64, story: impl FnOnce(u64) -> String) -> u64 {
        assert!(!label.contains(';'), "{label:?}: a label has no semicolon");
        self.0.world.choose(label, 0, n, story)
    }

    /// Puts a line into the story of a run, for whoever reads one that has failed.
    ///
    /// ```
    /// # pelton::sim::run(1, |sim| {
    /// # sim.client("a", async {
    /// pelton::sim::current().tell("b takes over");
    /// # Ok(()) }); });
    /// ```
    pub fn tell(&self, words: impl Into<String>) {
        let mut told = self.0.told.borrow_mut();
        if told.len() < MOST_TOLD {
            told.push((self.elapsed(), words.into()));
        }
    }

    /// Fails the run, as a panic of a client would.
    pub fn violation(&self, what: impl Into<String>) {
        self.0.world.violation(what.into());
    }

    /// The world beneath.
    pub fn world(&self) -> &World {
        &self.0.world
    }

    // For the other files.

    pub(super) fn plan(&self, when: Duration, action: Action) {
        self.0.actions.borrow_mut().push((when, action));
    }

    pub(super) fn fail(&self, kind: Kind, what: String) {
        let at = self.elapsed();
        self.0.failure.borrow_mut().get_or_insert((kind, what, at));
    }

    pub(super) fn host_names(&self) -> Vec<String> {
        self.0.hosts.borrow().iter().map(|host| host.name.clone()).collect()
    }

    /// The names of all hosts and clients.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = self.host_names();
        names.extend(self.0.clients.borrow().iter().map(|client| client.name.clone()));
        names
    }

    pub(super) fn id_of(&self, name: &str) -> HostId {
        self.find(name).unwrap_or_else(|| {
            let names = Group(self.names());
            panic!("no host or client is named {name:?}: there is {names}")
        })
    }

    fn find(&self, name: &str) -> Option<HostId> {
        let hosts = self.0.hosts.borrow();
        let host = hosts.iter().find(|host| host.name == name).map(|host| host.id);
        let clients = self.0.clients.borrow();
        let client = || clients.iter().find(|client| client.name == name).map(|one| one.host);
        host.or_else(client)
    }

    fn add(&self, name: &str) -> HostId {
        assert!(self.find(name).is_none(), "there is a host or client named {name:?} already");
        let number = self.0.next_address.get();
        let next = number.checked_add(1).expect("a simulation has at most 254 hosts and clients");
        self.0.next_address.set(next);
        self.0.world.add_host(name, IpAddr::from(Ipv4Addr::new(10, 0, 0, number)))
    }

    fn check_host(&self, name: &str) {
        let _ = self.id_of(name);
        assert!(
            self.host_names().iter().any(|host| host == name),
            "{name:?} is a client, which runs once: only hosts crash and restart"
        );
    }

    pub(super) fn each_link(&self, a: &Group, b: &Group, f: fn(&World, HostId, HostId)) {
        for one in &a.0 {
            for other in &b.0 {
                f(&self.0.world, self.id_of(one), self.id_of(other));
            }
        }
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim").field("world", &self.0.world).finish_non_exhaustive()
    }
}
