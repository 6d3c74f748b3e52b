//! A driver as the behaviours use it: bounded waiting, connections through the driver's own operations, and a
//! look at what is left when it goes.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::OnceLock;
use std::time::Duration;

use pelton_driver::{
    Accepted, Backend, Completion, Config, Driver, Fd, Key, ListenOptions, OpenOptions, Payload,
    Snapshot, Submission, Token,
};

use crate::bench::{Bench, watchdog};

/// Ticks that nothing here needs: more of them is a driver that spins.
const MOST_TICKS: u32 = 2_000_000;

/// Settings that are cheap to make many drivers with.
pub fn small() -> Config {
    Config {
        ring_entries: 64,
        completion_entries: 512,
        max_operations: 65536,
        max_descriptors: 4096,
        pool_buffers: 16,
        pool_buffer_len: 4096,
        ..Config::default()
    }
}

/// Bytes that differ from one place to the next, and from one seed to the next.
pub fn pattern(seed: usize, len: usize) -> Vec<u8> {
    // It comes back after 64 KiB, and copying is much faster than counting where nothing is optimised.
    const PERIOD: usize = 1 << 16;
    let byte = |at: usize| (at.wrapping_mul(31) ^ (at >> 8) ^ seed.wrapping_mul(97)) as u8;
    let mut bytes: Vec<u8> = (0..len.min(PERIOD)).map(byte).collect();
    bytes.reserve_exact(len - bytes.len());
    while bytes.len() < len {
        bytes.extend_from_within(..PERIOD.min(len - bytes.len()));
    }
    bytes
}

/// The system's number of an error; 0 where there is none, -1 for one that is Pelton's own.
pub fn errno<T>(result: io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

/// True for an error of one connection, or a shortage that passes: an accept is made again.
pub(crate) fn passes(error: &io::Error) -> bool {
    let errno = error.raw_os_error().unwrap_or(0);
    [
        pelton_driver::errno::ECONNABORTED,
        pelton_driver::errno::EMFILE,
        pelton_driver::errno::ENFILE,
        pelton_driver::errno::ENOMEM,
        pelton_driver::errno::ENOBUFS,
    ]
    .contains(&errno)
}

/// A driver, with what behaviours do with one all the time. When it is dropped it closes the descriptors that
/// it has given out, and then nothing may be left.
pub struct Rig {
    driver: Option<Driver>,
    given: RefCell<Vec<Fd>>,
    ended: Cell<bool>,
}

impl Deref for Rig {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        self.driver.as_ref().expect("there until it ends")
    }
}

impl Rig {
    pub(crate) fn new(driver: Driver) -> Rig {
        Rig { driver: Some(driver), given: RefCell::default(), ended: Cell::new(false) }
    }

    /// Has a descriptor closed at the end.
    pub fn keep(&self, fd: Fd) -> Fd {
        self.given.borrow_mut().push(fd);
        fd
    }

    /// Submits.
    #[track_caller]
    pub fn go<P: Payload>(&self, submission: Submission<P>) -> Key<P> {
        self.go_for(submission, 0)
    }

    /// Submits, for somebody with a number.
    #[track_caller]
    pub fn go_for<P: Payload>(&self, submission: Submission<P>, token: usize) -> Key<P> {
        match self.submit(submission, Token::number(token)) {
            Ok(key) => key,
            Err(refused) => panic!("refused: {}", refused.error),
        }
    }

    /// Ticks until the operation has ended, and takes its outcome.
    #[track_caller]
    pub fn end<P: Payload>(&self, key: Key<P>) -> P::Output {
        self.until(|| self.is_done(&key));
        match self.take(key) {
            Ok(outcome) => outcome,
            Err(_) => panic!("it is done and cannot be taken"),
        }
    }

    /// Submits and waits for the end.
    #[track_caller]
    pub fn run<P: Payload>(&self, submission: Submission<P>) -> P::Output {
        let key = self.go(submission);
        self.end(key)
    }

    /// Ticks until `done` says so. Returns what was told meanwhile.
    #[track_caller]
    pub fn until(&self, mut done: impl FnMut() -> bool) -> Vec<Completion> {
        let give_up = self.now() + watchdog(self.is_simulated());
        let mut told = Vec::new();
        for _ in 0..MOST_TICKS {
            if done() {
                return told;
            }
            assert!(self.now() < give_up, "nothing came of it");
            self.tick(Some(Duration::from_secs(1)), |completion| told.push(completion))
                .expect("a tick");
        }
        panic!("{MOST_TICKS} ticks, and nothing came of it");
    }

    /// Ticks until `done` says so, and tells `on` of each completion from inside the tick.
    #[track_caller]
    pub fn watch(&self, mut on: impl FnMut(Completion), mut done: impl FnMut() -> bool) {
        let give_up = self.now() + watchdog(self.is_simulated());
        for _ in 0..MOST_TICKS {
            if done() {
                return;
            }
            assert!(self.now() < give_up, "nothing came of it");
            self.tick(Some(Duration::from_secs(1)), &mut on).expect("a tick");
        }
        panic!("{MOST_TICKS} ticks, and nothing came of it");
    }

    /// Ticks for longer than it takes what is on its way to come. For showing that something waits; whatever
    /// is to have happened is waited for with [`Rig::until`].
    #[track_caller]
    pub fn settle(&self) -> Vec<Completion> {
        let mut told = Vec::new();
        // A timer that fires in a later tick shows that what was there before has been told of.
        for _ in 0..3 {
            let timer = Submission::timeout(self.now() + Duration::from_millis(2));
            let timer = self.go_for(timer, usize::MAX);
            told.extend(self.until(|| self.is_done(&timer)));
            self.take(timer).unwrap_or_else(|_| panic!("it is done")).expect("a timer");
        }
        // What was abandoned may be with a thread of the kernel's or of the pool's, and ends in any case.
        told.extend(self.until(|| self.snapshot().orphans == 0));
        told.retain(|completion| completion.token.as_number() != usize::MAX);
        told
    }

    /// Lets some of what is on its way come.
    #[track_caller]
    pub fn settle_briefly(&self) {
        let timer = self.go(Submission::timeout(self.now() + Duration::from_micros(200)));
        self.end(timer).expect("a timer");
    }

    fn is_simulated(&self) -> bool {
        Driver::is_simulated(self)
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        self.counters().snapshot()
    }

    /// Listens on a port of the system's choice.
    #[track_caller]
    pub fn listening(&self) -> (Fd, SocketAddr) {
        self.listening_on("127.0.0.1:0", ListenOptions::default())
    }

    /// Listens on an address.
    #[track_caller]
    pub fn listening_on(&self, address: &str, options: ListenOptions) -> (Fd, SocketAddr) {
        let address = address.parse().expect("an address");
        let listener = self.listen(address, options).expect("a listener");
        (self.keep(listener), self.local_addr(listener).expect("an address"))
    }

    /// A stream socket that is not connected.
    #[track_caller]
    pub fn socket(&self, like: SocketAddr) -> Fd {
        self.keep(self.stream_socket(like).expect("a socket"))
    }

    /// A socket that is connected to an address.
    #[track_caller]
    pub fn connected(&self, to: SocketAddr) -> Fd {
        let fd = self.socket(to);
        self.run(Submission::connect(fd, to)).expect("a connection");
        fd
    }

    /// Gives the driver a connection that it has accepted.
    #[track_caller]
    pub fn adopt(&self, accepted: Accepted) -> Fd {
        self.keep(self.attach_stream(accepted.descriptor).expect("a place in the table"))
    }

    /// Accepts; what concerns no connection that comes is passed over, as every server does.
    #[track_caller]
    pub fn accepted(&self, listener: Fd) -> Accepted {
        loop {
            match self.run(Submission::accept(listener)) {
                Ok(accepted) => return accepted,
                Err(error) if passes(&error) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The two ends of a TCP connection, the connecting one first.
    #[track_caller]
    pub fn pair(&self) -> (Fd, Fd) {
        let (listener, address) = self.listening();
        let client = self.connected(address);
        let server = self.adopt(self.accepted(listener));
        Driver::close(self, listener);
        (client, server)
    }

    /// The two ends of a connection that never was on a network.
    #[track_caller]
    pub fn local_pair(&self) -> (Fd, Fd) {
        let (one, other) = self.stream_pair().expect("a pair");
        (self.keep(one), self.keep(other))
    }

    /// Both kinds of connection.
    #[track_caller]
    pub fn pairs(&self) -> [(Fd, Fd); 2] {
        [self.pair(), self.local_pair()]
    }

    /// Sends all of it.
    #[track_caller]
    pub fn send(&self, fd: Fd, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref().to_vec();
        let len = bytes.len();
        assert_eq!(self.run(Submission::send_all(fd, bytes)).0.expect("a send"), len);
    }

    /// Receives so many bytes.
    #[track_caller]
    pub fn receive(&self, fd: Fd, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let room = Vec::with_capacity((len - bytes.len()).min(65536));
            let (n, part) = self.run(Submission::recv(fd, limited(room, len - bytes.len())));
            let n = n.expect("a receive");
            assert!(n > 0, "the end after {} of {len} bytes", bytes.len());
            bytes.extend_from_slice(&part.0);
        }
        bytes
    }

    /// Receives up to the end of the stream.
    #[track_caller]
    pub fn receive_all(&self, fd: Fd) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let (n, part) = self.run(Submission::recv(fd, Vec::with_capacity(4096)));
            if n.expect("a receive") == 0 {
                return bytes;
            }
            bytes.extend_from_slice(&part);
        }
    }

    /// Says that the stream is at its end.
    #[track_caller]
    pub fn at_its_end(&self, fd: Fd) {
        let (n, _) = self.run(Submission::recv(fd, [0; 8]));
        assert_eq!(n.expect("the end of a stream is no error"), 0, "it is not the end");
    }

    /// Sends until nothing more fits. Returns what has been sent, which the peer has not received.
    #[track_caller]
    pub fn fill(&self, fd: Fd) -> Vec<u8> {
        static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
        let bytes = BYTES.get_or_init(|| pattern(11, 16 << 20)).clone();
        let key = self.go(Submission::send_all(fd, bytes));
        self.settle();
        assert!(self.cancel(key.id()), "16 MiB are more than there is room for");
        let (sent, mut bytes) = self.end(key);
        let mut sent = sent.expect("a part was sent");
        // What the kernel holds waits for much room, and what is tried takes any. The pair is one of TCP, whose
        // acknowledgements make some more for a while.
        let mut refused = if self.backend() == Backend::Iocp { 0 } else { 3 };
        while refused < 3 {
            let key = self.go(Submission::send(fd, bytes[sent..].to_vec()));
            self.settle();
            self.cancel(key.id());
            match self.end(key).0 {
                Ok(more) => (sent, refused) = (sent + more, 0),
                Err(_) => {
                    refused += 1;
                    let timer = Submission::timeout(self.now() + Duration::from_millis(50));
                    self.end(self.go(timer)).expect("a timer");
                }
            }
        }
        bytes.truncate(sent);
        bytes
    }

    /// A file that is new, for reading and writing.
    #[track_caller]
    pub fn file(&self, on: &Bench, name: &str) -> Fd {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(on.path(name));
        self.keep(self.attach(file.expect("a file")).expect("a place in the table"))
    }

    /// Writes all of it at an offset.
    #[track_caller]
    pub fn write(&self, file: Fd, bytes: &[u8], offset: u64) {
        let mut at = 0;
        while at < bytes.len() {
            let part = bytes[at..].to_vec();
            let (n, _) = self.run(Submission::write_at(file, part, offset + at as u64));
            at += n.expect("a write");
        }
    }

    /// Reads up to so many bytes from an offset, fewer only where the file ends.
    #[track_caller]
    pub fn read(&self, file: Fd, len: usize, offset: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let room = limited(Vec::new(), len - bytes.len());
            let at = offset + bytes.len() as u64;
            let (n, part) = self.run(Submission::read_at(file, room, at));
            if n.expect("a read") == 0 {
                break;
            }
            bytes.extend_from_slice(&part.0);
        }
        bytes
    }

    /// Drops the driver as it is, with whatever is in flight, and says what that left behind.
    pub fn abandon_all(mut self) -> Snapshot {
        self.ended.set(true);
        let driver = self.driver.take().expect("there until it ends");
        let notifier = driver.notifier();
        drop(driver);
        notifier.counters().snapshot()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() || self.ended.get() {
            return;
        }
        for fd in self.given.take() {
            Driver::close(self, fd);
        }
        self.until(|| self.descriptors() == 0 && self.snapshot().orphans == 0);
        let left = self.snapshot();
        assert_eq!(self.operations(), 0, "operations are left: {self:?}");
        assert_eq!((left.in_flight_total(), left.buffers_in_use), (0, 0), "in flight, and buffers");
        let driver = self.driver.take().expect("there until it ends");
        let notifier = driver.notifier();
        drop(driver);
        assert_eq!(notifier.counters().snapshot().leaked, 0, "slots that were left behind");
    }
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.driver.fmt(f)
    }
}

/// A vector that takes so many bytes and no more, whatever its capacity is.
#[derive(Debug)]
pub(crate) struct Limited(pub(crate) Vec<u8>, usize);

/// A vector with room for exactly so many bytes more.
pub(crate) fn limited(mut bytes: Vec<u8>, most: usize) -> Limited {
    bytes.reserve(most);
    Limited(bytes, most)
}

impl pelton_driver::IoBuf for Limited {
    fn as_init(&self) -> &[u8] {
        &self.0
    }
}

impl pelton_driver::IoBufMut for Limited {
    fn spare(&mut self) -> pelton_driver::Spare<'_> {
        let most = self.1;
        (&mut self.0.spare_capacity_mut()[..most]).into()
    }

    unsafe fn advance(&mut self, n: usize) {
        self.1 -= n;
        // SAFETY: the caller says that the first `n` bytes of what `spare` gave are initialised, which are
        // those behind the vector's length.
        unsafe { self.0.set_len(self.0.len() + n) };
    }
}
