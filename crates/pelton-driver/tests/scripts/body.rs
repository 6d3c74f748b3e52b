//! Bytes as a script: what a program asks of a driver on the simulator, and which faults it meets.
//!
//! The fuzzer's target and the tests run this same function. Whatever the bytes say, it must hold that
//!
//! - every operation that was accepted ends once, and gives back what it owned;
//! - nobody receives bytes that the other end did not send, or more of them;
//! - nobody touches memory that the kernel holds (the world looks at seals on it);
//! - at the end, with the faults gone, everything comes to its end and nothing is left.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use pelton_driver::sim::{Faults, World, WorldOptions};
use pelton_driver::*;

/// A world is not to be kept busy for longer by one script.
const MOST_STEPS: usize = if cfg!(miri) { 48 } else { 400 };
const MOST_ENDS: usize = 12;
const MOST_KEYS: usize = 24;
/// What is written to files.
const ON_DISK: u8 = 0xF1;
/// What clients send, and what servers do.
const CLIENT: u8 = 0xC1;
const SERVER: u8 = 0xC2;

/// Runs a script. The number tells what happened: the same for the same bytes.
///
/// # Panics
/// Something that must hold does not.
pub(crate) fn run(script: &[u8]) -> u64 {
    let mut bytes = Reader(script);
    let seed = u64::from(bytes.next()) << 8 | u64::from(bytes.next());
    let faults = match bytes.next() % 4 {
        0 => Faults::none(),
        1 => Faults::swarm(seed).harmless(),
        _ => Faults::swarm(seed),
    };
    let world = World::new(&WorldOptions { faults, ..WorldOptions::new(seed) });
    let entered = world.enter();
    let pick = |byte: u8, many: &[u32]| many[usize::from(byte) % many.len()];
    let config = Config {
        ring_entries: pick(bytes.next(), &[64, 1, 2, 8]),
        completion_entries: pick(bytes.next(), &[256, 64, 128]),
        pool_buffers: pick(bytes.next(), &[16, 1, 2]) as u16,
        pool_buffer_len: pick(bytes.next(), &[1024, 64]),
        max_operations: pick(bytes.next(), &[256, 8]),
        max_descriptors: 256,
        ..Config::default()
    };
    // The faults may refuse it.
    if let Ok(driver) = Driver::new(config) {
        let mut play = Play::new(&driver, &world);
        for _ in 0..MOST_STEPS {
            if bytes.0.is_empty() {
                break;
            }
            play.step(&mut bytes);
        }
        let (live, notifier) = (play.live.clone(), driver.notifier());
        world.set_faults(false);
        if script.len() % 2 == 0 {
            play.finish();
        } else {
            // With everything in flight: the drop is to end it.
            drop(play);
        }
        drop(driver);
        assert_eq!(notifier.counters().leaked.get(), 0, "operations were left behind");
        assert_eq!(live.get(), 0, "buffers that were not given back");
        drop(notifier);
        assert_eq!(world.leftovers(), [""; 0]);
    }
    assert_eq!(world.violations(), [""; 0]);
    drop(entered);
    world.trace_hash()
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// The next byte; zeros behind the last one.
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }
}

/// A buffer that is counted as long as it lives.
struct Counted {
    bytes: Vec<u8>,
    live: Rc<Cell<u32>>,
}

impl Counted {
    fn new(bytes: Vec<u8>, live: &Rc<Cell<u32>>) -> Counted {
        live.set(live.get() + 1);
        Counted { bytes, live: live.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.live.set(self.live.get() - 1);
    }
}

impl IoBuf for Counted {
    fn as_init(&self) -> &[u8] {
        &self.bytes
    }
}

impl IoBufMut for Counted {
    fn spare(&mut self) -> Spare<'_> {
        self.bytes.spare()
    }

    unsafe fn advance(&mut self, n: usize) {
        // SAFETY: by the caller, of the same vector.
        unsafe { self.bytes.advance(n) };
    }
}

/// What an end of a connection may receive.
#[derive(Clone)]
struct Expected {
    byte: u8,
    /// Bytes that were submitted at the other end and have not been received: none where nobody counts.
    coming: Option<Rc<Cell<usize>>>,
}

impl Expected {
    fn received(&self, bytes: &[u8]) {
        let byte = self.byte;
        assert!(bytes.iter().all(|b| *b == byte), "{bytes:?} came, which nobody sent: {byte:#x}");
        if let Some(coming) = &self.coming {
            let left = coming.get().checked_sub(bytes.len());
            coming.set(left.expect("more came than was sent"));
        }
    }
}

#[derive(Clone)]
enum End {
    Stream { fd: Fd, sends: Expected, expects: Expected },
    Listener { fd: Fd, address: SocketAddr },
    File { fd: Fd },
}

impl End {
    fn fd(&self) -> Fd {
        match *self {
            End::Stream { fd, .. } | End::Listener { fd, .. } | End::File { fd } => fd,
        }
    }
}

/// An operation in flight, and what its outcome is measured by.
enum Held {
    Plain(Key<Plain>),
    Connect(Key<Connecting>),
    Fill(Key<Filling<Counted>>, Expected),
    FillInline(Key<Filling<[u8; 8]>>, Expected),
    FillAll(Key<FillingAll<Vec<Counted>>>, Expected),
    Read(Key<Filling<Counted>>),
    Send(Key<Sending<Counted>>),
    SendAll(Key<SendingAll<Vec<Counted>>>),
    SendAway(Key<SendingAway<Counted>>),
    Lease(Key<Leasing>, Expected),
    Leases(Key<ManyLeases>, Expected),
    Accept(Key<Accepting>),
    Accepts(Key<ManyAccepts>),
}

macro_rules! with_key {
    ($held:expr, $key:ident => $then:expr) => {
        match $held {
            Held::Plain($key) => $then,
            Held::Connect($key) => $then,
            Held::Fill($key, _) => $then,
            Held::FillInline($key, _) => $then,
            Held::FillAll($key, _) => $then,
            Held::Read($key) => $then,
            Held::Send($key) => $then,
            Held::SendAll($key) => $then,
            Held::SendAway($key) => $then,
            Held::Lease($key, _) => $then,
            Held::Leases($key, _) => $then,
            Held::Accept($key) => $then,
            Held::Accepts($key) => $then,
        }
    };
}

struct Play<'a> {
    driver: &'a Driver,
    world: &'a World,
    ends: Vec<End>,
    held: VecDeque<Held>,
    leases: Vec<Lease>,
    live: Rc<Cell<u32>>,
    pairs: u8,
}

impl<'a> Play<'a> {
    fn new(driver: &'a Driver, world: &'a World) -> Play<'a> {
        let (ends, held, leases) = (Vec::new(), VecDeque::new(), Vec::new());
        Play { driver, world, ends, held, leases, live: Rc::default(), pairs: 0 }
    }

    fn step(&mut self, bytes: &mut Reader) {
        let (what, with) = (bytes.next() % 32, bytes.next());
        let driver = self.driver;
        match what {
            0 | 1 => self.pair(),
            2 => self.listen(),
            3 => self.connect(with),
            4 => self.open(),
            5 => driver.close(self.end(with).fd()),
            6 => self.on(with, Submission::close),
            7 => self.plain(Submission::nop()),
            8 => self.plain(Submission::wake()),
            9 => self.on(with, |fd| Submission::sync(fd, with > 127)),
            10 => {
                let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both];
                self.on(with, |fd| Submission::shutdown(fd, how[usize::from(with) % 3]));
            }
            11 => {
                let interest = if with > 127 { Interest::Readable } else { Interest::Writable };
                self.on(with, |fd| Submission::poll(fd, interest));
            }
            12 => {
                let after = Duration::from_micros(u64::from(with) * 40);
                self.plain(Submission::timeout(driver.now() + after));
            }
            13 => self.on(with, Submission::cancel_fd),
            14 => {
                if let Some(id) = self.operation(with) {
                    self.plain(Submission::cancel(id));
                }
            }
            15 => {
                if let Some(id) = self.operation(with) {
                    driver.cancel(id);
                }
            }
            16 => self.take_or(with, |play, held| play.held.push_back(held)),
            17 => self.take_or(with, Play::abandon),
            18 => self.tick(Duration::ZERO),
            19 | 20 => self.tick(Duration::from_micros(u64::from(with) * 50)),
            21 => drop(driver.notifier().notify()),
            22 => drop(driver.park()),
            23 => drop(self.leases.pop()),
            24 if with == 7 => driver.cancel_all(),
            24 => self.again(with),
            _ => self.transfer(what, with),
        }
        while self.held.len() > MOST_KEYS {
            self.take_or(0, Play::abandon);
        }
        while self.ends.len() > MOST_ENDS {
            let end = self.ends.remove(0);
            driver.close(end.fd());
        }
    }

    /// One of the descriptors that there are. Some of them are closed.
    fn end(&mut self, with: u8) -> End {
        if self.ends.is_empty() {
            self.pair();
        }
        match self.ends.get(usize::from(with) % self.ends.len().max(1)) {
            Some(end) => end.clone(),
            // The faults refuse descriptors: nothing is as good as a number that names none.
            None => End::File { fd: self.nobody() },
        }
    }

    /// A descriptor that has been given back.
    fn nobody(&self) -> Fd {
        loop {
            if let Ok((one, other)) = self.driver.stream_pair() {
                self.driver.close(one);
                self.driver.close(other);
                return one;
            }
            // No descriptor is free: those that are closing will be.
            self.world.set_faults(false);
            self.driver.cancel_all();
            self.tick(Duration::from_millis(1));
            self.world.set_faults(true);
        }
    }

    fn pair(&mut self) {
        let Ok((one, other)) = self.driver.stream_pair() else { return };
        self.pairs = self.pairs.wrapping_add(2) % 128;
        let counted = |byte| Expected { byte, coming: Some(Rc::default()) };
        let (a, b) = (counted(self.pairs), counted(self.pairs + 1));
        self.ends.push(End::Stream { fd: one, sends: a.clone(), expects: b.clone() });
        self.ends.push(End::Stream { fd: other, sends: b, expects: a });
    }

    fn listen(&mut self) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let Ok(fd) = self.driver.listen(any, ListenOptions::default()) else { return };
        let address = self.driver.local_addr(fd).expect("it listens");
        self.ends.push(End::Listener { fd, address });
    }

    fn connect(&mut self, with: u8) {
        let End::Listener { address, .. } = self.end(with) else { return self.listen() };
        let Ok(fd) = self.driver.stream_socket(address) else { return };
        self.ends.push(stream(fd, CLIENT, SERVER));
        self.submit(Submission::connect(fd, address), Held::Connect);
    }

    fn accepted(&mut self, connection: OwnedDescriptor) {
        if let Ok(fd) = self.driver.attach_stream(connection) {
            self.ends.push(stream(fd, SERVER, CLIENT));
        }
    }

    fn open(&mut self) {
        let file = OpenOptions::new().read(true).write(true).create(true).open("/script");
        if let Some(fd) = file.ok().and_then(|file| self.driver.attach(file).ok()) {
            self.ends.push(End::File { fd });
        }
    }

    /// Takes a descriptor out of the driver and puts it in again: it has another number then.
    fn again(&mut self, with: u8) {
        let end = self.end(with);
        if let Ok(descriptor) = self.driver.detach(end.fd()) {
            self.ends.retain(|other| other.fd() != end.fd());
            match (self.driver.attach(descriptor), end) {
                (Ok(fd), End::Stream { sends, expects, .. }) => {
                    self.ends.push(End::Stream { fd, sends, expects });
                }
                (Ok(fd), End::Listener { address, .. }) => {
                    self.ends.push(End::Listener { fd, address });
                }
                (Ok(fd), End::File { .. }) => self.ends.push(End::File { fd }),
                (Err(_), _) => {}
            }
        }
    }

    fn counted(&self, bytes: Vec<u8>) -> Counted {
        Counted::new(bytes, &self.live)
    }

    fn transfer(&mut self, what: u8, with: u8) {
        let len = [0, 1, 8, 100, 1000, 5000][usize::from(with >> 4) % 6];
        let room = || Vec::with_capacity(len);
        match self.end(with) {
            End::Stream { fd, sends, expects } => {
                let full = |play: &Play| play.counted(vec![sends.byte; len]);
                let coming = |n: usize| {
                    let coming = sends.coming.as_ref().expect("the ends of a pair count");
                    coming.set(coming.get() + n);
                };
                // Before it is submitted, because it may have been sent when that returns.
                let counted = |n| {
                    if sends.coming.is_some() {
                        coming(n)
                    }
                };
                match what {
                    25 => {
                        let buf = self.counted(room());
                        self.submit(Submission::recv(fd, buf), |key| Held::Fill(key, expects));
                    }
                    26 if with % 3 == 0 => {
                        let held = |key| Held::FillInline(key, expects);
                        self.submit(Submission::recv(fd, [0; 8]), held);
                    }
                    26 => {
                        let bufs = vec![self.counted(room()), self.counted(Vec::with_capacity(3))];
                        let held = |key| Held::FillAll(key, expects);
                        self.submit(Submission::recv_vectored(fd, bufs), held);
                    }
                    27 => {
                        let held = |key| Held::Lease(key, expects);
                        self.submit(Submission::recv_pooled(fd), held);
                    }
                    28 => {
                        let held = |key| Held::Leases(key, expects);
                        self.submit(Submission::recv_multi(fd), held);
                    }
                    29 => {
                        counted(len);
                        let buf = full(self);
                        self.submit(Submission::send(fd, buf), Held::Send);
                    }
                    30 if with % 3 == 0 => {
                        counted(2 * len);
                        let bufs = vec![full(self), full(self)];
                        let all = with % 2 == 0;
                        let op = if all {
                            Submission::send_vectored_all(fd, bufs)
                        } else {
                            Submission::send_vectored(fd, bufs)
                        };
                        self.submit(op, Held::SendAll);
                    }
                    30 => {
                        counted(len);
                        let buf = full(self);
                        self.submit(Submission::send_away(fd, buf), Held::SendAway);
                    }
                    _ => {
                        counted(len);
                        let buf = full(self);
                        self.submit(Submission::send_all(fd, buf), Held::Send);
                    }
                }
            }
            End::Listener { fd, .. } if what % 2 == 0 => {
                self.submit(Submission::accept(fd), Held::Accept);
            }
            End::Listener { fd, .. } => self.submit(Submission::accept_multi(fd), Held::Accepts),
            End::File { fd } => {
                let offset = u64::from(with) * 37;
                if what % 2 == 0 {
                    let buf = self.counted(room());
                    self.submit(Submission::read_at(fd, buf, offset), Held::Read);
                } else {
                    let buf = self.counted(vec![ON_DISK; len]);
                    self.submit(Submission::write_at(fd, buf, offset), Held::Send);
                }
            }
        }
    }

    /// Something without a buffer on one of the descriptors.
    fn on(&mut self, with: u8, make: impl FnOnce(Fd) -> Submission<Plain>) {
        let fd = self.end(with).fd();
        self.plain(make(fd));
    }

    fn plain(&mut self, submission: Submission<Plain>) {
        self.submit(submission, Held::Plain);
    }

    fn submit<P: Payload>(&mut self, submission: Submission<P>, held: impl FnOnce(Key<P>) -> Held) {
        if let Ok(key) = self.driver.submit(submission, Token::NONE) {
            self.held.push_back(held(key));
        }
    }

    fn operation(&self, with: u8) -> Option<OpId> {
        let held = self.held.get(usize::from(with) % self.held.len().max(1))?;
        Some(with_key!(held, key => key.id()))
    }

    fn tick(&self, timeout: Duration) {
        // Some errors are faults. What they leave behind is told of by the next tick.
        let _ = self.driver.tick(Some(timeout), |_| {});
    }

    /// Takes the outcome of an operation, if it has one, and looks at it.
    fn take_or(&mut self, with: u8, or: impl FnOnce(&mut Self, Held)) {
        let at = usize::from(with) % self.held.len().max(1);
        let Some(held) = self.held.remove(at) else { return };
        let driver = self.driver;
        match held {
            Held::Leases(ref key, ref expects) => {
                while let Some(lease) = driver.next(key) {
                    expects.received(&lease);
                    self.leases.push(lease);
                }
            }
            Held::Accepts(ref key) => {
                while let Some(connection) = driver.next(key) {
                    self.accepted(connection);
                }
            }
            _ => {}
        }
        if !with_key!(&held, key => driver.is_done(key)) {
            return or(self, held);
        }
        let late = "it is done";
        match held {
            Held::Plain(key) => drop(driver.take(key).expect(late)),
            Held::Connect(key) => drop(driver.take(key).expect(late)),
            Held::Fill(key, expects) => {
                let (n, buf) = driver.take(key).expect(late);
                assert_eq!(n.unwrap_or(0), buf.bytes.len());
                expects.received(&buf.bytes);
            }
            Held::FillInline(key, expects) => {
                let (n, buf) = driver.take(key).expect(late);
                expects.received(&buf[..n.unwrap_or(0)]);
            }
            Held::FillAll(key, expects) => {
                let (n, bufs) = driver.take(key).expect(late);
                let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.bytes.iter().copied()).collect();
                assert_eq!(n.unwrap_or(0), all.len());
                expects.received(&all);
            }
            Held::Read(key) => {
                let (n, buf) = driver.take(key).expect(late);
                assert_eq!(n.unwrap_or(0), buf.bytes.len());
                assert!(buf.bytes.iter().all(|b| [0, ON_DISK].contains(b)), "{:?}", buf.bytes);
            }
            Held::Send(key) => {
                let (n, buf) = driver.take(key).expect(late);
                assert!(n.unwrap_or(0) <= buf.bytes.len());
            }
            Held::SendAll(key) => {
                let (n, bufs) = driver.take(key).expect(late);
                assert!(n.unwrap_or(0) <= bufs.iter().map(|buf| buf.bytes.len()).sum());
            }
            Held::SendAway(key) => drop(driver.take(key).expect(late)),
            Held::Lease(key, expects) => {
                if let Ok(Some(lease)) = driver.take(key).expect(late) {
                    assert!(!lease.is_empty(), "an empty lease would look like the end");
                    expects.received(&lease);
                    self.leases.push(lease);
                }
            }
            Held::Leases(key, _) => drop(driver.take(key).expect(late)),
            Held::Accept(key) => {
                if let Ok(accepted) = driver.take(key).expect(late) {
                    self.accepted(accepted.descriptor);
                }
            }
            Held::Accepts(key) => drop(driver.take(key).expect(late)),
        }
    }

    fn abandon(&mut self, held: Held) {
        let driver = self.driver;
        with_key!(held, key => driver.abandon(key));
    }

    /// Gives everything up and lets it come to its end.
    fn finish(mut self) {
        while !self.held.is_empty() {
            self.take_or(0, Play::abandon);
        }
        self.leases.clear();
        for end in std::mem::take(&mut self.ends) {
            self.driver.close(end.fd());
        }
        for _ in 0..1000 {
            if self.driver.operations() == 0 && self.driver.descriptors() == 0 {
                return;
            }
            self.driver.tick(Some(Duration::from_secs(1)), |_| {}).expect("no fault is left");
        }
        let (operations, descriptors) = (self.driver.operations(), self.driver.descriptors());
        panic!("{operations} operations and {descriptors} descriptors do not come to their end");
    }
}

fn stream(fd: Fd, sends: u8, expects: u8) -> End {
    let uncounted = |byte| Expected { byte, coming: None };
    End::Stream { fd, sends: uncounted(sends), expects: uncounted(expects) }
}
