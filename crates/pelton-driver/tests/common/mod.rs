//! What the conformance tests share: each behaviour is written once and runs on every backend.
#![allow(dead_code, unreachable_pub)] // No test file uses all of it, and none is a library.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pelton_driver::*;

#[cfg(unix)]
pub use std::os::fd::OwnedFd as OwnedSystem;
#[cfg(windows)]
pub use std::os::windows::io::OwnedSocket as OwnedSystem;

/// One end of a connection inside of this process: of the cheapest kind that the system has.
#[cfg(unix)]
pub type Local = std::os::unix::net::UnixStream;
#[cfg(windows)]
pub type Local = TcpStream;

#[cfg(unix)]
pub fn local_pair() -> (Local, Local) {
    Local::pair().unwrap()
}

/// Both ends hold little, so that a sender waits for its reader.
#[cfg(windows)]
pub fn local_pair() -> (Local, Local) {
    let (one, other) = tcp_pair();
    for end in [&one, &other] {
        end.set_nodelay(true).unwrap();
        little_room(end);
    }
    (one, other)
}

/// The backend that a test runs on.
pub struct On {
    pub backend: Backend,
}

/// Longer than anything here takes: a test that comes to it has hung.
pub const WATCHDOG: Duration = Duration::from_secs(20);

/// Held by whoever counts the descriptors of this process, and by whoever makes some outside of a test.
static ALONE: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test, unless its backend is refused here: then it says so, past the test harness, which would
/// swallow a `println!`.
pub fn run(backend: Backend, test: fn(&On)) {
    let probing = alone();
    match Driver::new(Config { backend, ..small() }) {
        Ok(driver) => assert_eq!(driver.backend(), backend, "a backend that is forced is that one"),
        Err(Error::Unsupported { backend, reason }) => {
            return skipped(&format!("{backend}: {reason}"));
        }
        Err(error) => panic!("{error}"),
    }
    drop(probing);
    test(&On { backend });
}

/// Says that the test at hand is skipped, and why, past the test harness.
pub fn skipped(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("\nskipped: {name}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Makes of each function a test on every backend of this system: `io_uring::name` and `epoll::name`, or
/// `kqueue::name`, or `iocp::name`.
#[macro_export]
macro_rules! on_every_backend {
    ($($name:ident)+) => {
        #[cfg(target_os = "linux")]
        mod io_uring {
            $(#[test] fn $name() { $crate::common::run(pelton_driver::Backend::IoUring, super::$name) })+
        }
        #[cfg(target_os = "linux")]
        mod epoll {
            $(#[test] fn $name() { $crate::common::run(pelton_driver::Backend::Epoll, super::$name) })+
        }
        #[cfg(all(unix, any(not(target_os = "linux"), pelton_kqueue_elsewhere)))]
        mod kqueue {
            $(#[test] fn $name() { $crate::common::run(pelton_driver::Backend::Kqueue, super::$name) })+
        }
        #[cfg(windows)]
        mod iocp {
            $(#[test] fn $name() { $crate::common::run(pelton_driver::Backend::Iocp, super::$name) })+
        }
    };
}

/// Settings that are cheap to make many drivers with.
pub fn small() -> Config {
    Config {
        ring_entries: 64,
        completion_entries: 512,
        max_operations: 65536,
        max_descriptors: 16384,
        pool_buffers: 16,
        pool_buffer_len: 4096,
        ..Config::default()
    }
}

impl On {
    /// True where several receives share a buffer of the pool. Elsewhere a driver halves large buffers and has
    /// more of them, which tells.
    pub fn fills_buffers_piecewise(&self) -> bool {
        let large = Config { pool_buffers: 2, pool_buffer_len: 8192, ..small() };
        self.driver_with(large).snapshot().buffers_total == 2
    }

    pub fn driver(&self) -> Driver {
        self.driver_with(small())
    }

    pub fn driver_with(&self, config: Config) -> Driver {
        Driver::new(Config { backend: self.backend, ..config }).unwrap()
    }

    /// True where the kernel holds an operation and its memory until it completes it.
    pub fn is_completing(&self) -> bool {
        matches!(self.backend, Backend::IoUring | Backend::Iocp)
    }

    pub fn is_uring(&self) -> bool {
        self.backend == Backend::IoUring
    }
}

/// What the tests do with a driver all the time.
pub trait More {
    fn go<P: Payload>(&self, submission: Submission<P>) -> Key<P>;
    fn go_for<P: Payload>(&self, submission: Submission<P>, token: usize) -> Key<P>;
    /// Ticks until the operation has ended, and takes its outcome.
    fn end<P: Payload>(&self, key: Key<P>) -> P::Output;
    fn run<P: Payload>(&self, submission: Submission<P>) -> P::Output;
    /// Ticks until `done` says so. Returns what was told meanwhile.
    fn until(&self, done: impl FnMut() -> bool) -> Vec<Completion>;
    /// Ticks without waiting for longer than it takes what is on its way to come.
    fn settle(&self) -> Vec<Completion>;
    fn snapshot(&self) -> Snapshot;
}

impl More for Driver {
    #[track_caller]
    fn go<P: Payload>(&self, submission: Submission<P>) -> Key<P> {
        self.go_for(submission, 0)
    }

    #[track_caller]
    fn go_for<P: Payload>(&self, submission: Submission<P>, token: usize) -> Key<P> {
        match self.submit(submission, Token::number(token)) {
            Ok(key) => key,
            Err(refused) => panic!("refused: {}", refused.error),
        }
    }

    #[track_caller]
    fn end<P: Payload>(&self, key: Key<P>) -> P::Output {
        self.until(|| self.is_done(&key));
        match self.take(key) {
            Ok(outcome) => outcome,
            Err(_) => panic!("it is done and cannot be taken"),
        }
    }

    #[track_caller]
    fn run<P: Payload>(&self, submission: Submission<P>) -> P::Output {
        let key = self.go(submission);
        self.end(key)
    }

    #[track_caller]
    fn until(&self, mut done: impl FnMut() -> bool) -> Vec<Completion> {
        let give_up = Instant::now() + WATCHDOG;
        let mut told = Vec::new();
        while !done() {
            assert!(Instant::now() < give_up, "nothing came of it");
            self.tick(Some(Duration::from_secs(1)), |completion| told.push(completion)).unwrap();
        }
        told
    }

    #[track_caller]
    fn settle(&self) -> Vec<Completion> {
        let mut told = Vec::new();
        // A timer that fires in a later tick shows that what was there before has been told of.
        for _ in 0..3 {
            let timer = Submission::timeout(Instant::now() + Duration::from_millis(2));
            let timer = self.go_for(timer, usize::MAX);
            told.extend(self.until(|| self.is_done(&timer)));
            self.take(timer).unwrap().unwrap();
        }
        // What was abandoned may be with a thread of the kernel's or of the pool's, and ends in any case.
        told.extend(self.until(|| self.snapshot().orphans == 0));
        told.retain(|completion| completion.token.as_number() != usize::MAX);
        told
    }

    fn snapshot(&self) -> Snapshot {
        self.counters().snapshot()
    }
}

pub fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

pub fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listener();
    let client = TcpStream::connect(address).unwrap();
    (client, listener.accept().unwrap().0)
}

pub fn attach(driver: &Driver, descriptor: impl Into<OwnedDescriptor>) -> Fd {
    driver.attach(descriptor.into()).unwrap()
}

/// The system's descriptor, for `std` to ask.
pub fn system<T: From<OwnedSystem>>(descriptor: OwnedDescriptor) -> T {
    OwnedSystem::try_from(descriptor).expect("a descriptor of the system").into()
}

/// A connection of which the driver has one end and the test the other.
pub fn tcp(driver: &Driver) -> (Fd, TcpStream) {
    let (mine, theirs) = tcp_pair();
    (attach(driver, mine), theirs)
}

pub fn unix(driver: &Driver) -> (Fd, Local) {
    let (mine, theirs) = local_pair();
    (attach(driver, mine), theirs)
}

/// A connection whose sending side is full, so that a send on it waits.
pub fn full(driver: &Driver) -> (Fd, Local) {
    let (mine, theirs) = local_pair();
    mine.set_nonblocking(true).unwrap();
    while (&mine).write(&[0; 65536]).is_ok() {}
    mine.set_nonblocking(false).unwrap();
    (attach(driver, mine), theirs)
}

/// Bytes that differ from one place to the next, and from one seed to the next.
pub fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed.wrapping_mul(97)) as u8).collect()
}

/// A connection whose peer has gone, and on which that is known.
#[cfg(unix)]
pub fn left(driver: &Driver) -> Fd {
    unix(driver).0
}

/// A connection whose peer has gone, and on which that is known.
#[cfg(windows)]
pub fn left(driver: &Driver) -> Fd {
    let (mine, theirs) = local_pair();
    drop(theirs);
    while (&mine).write(b"is anybody there?").is_ok() {}
    attach(driver, mine)
}

/// True for what a send says to a peer that has gone.
pub fn has_left(number: i32) -> bool {
    number == errno::EPIPE
        || (cfg!(windows) && [errno::ECONNRESET, errno::ECONNABORTED].contains(&number))
}

/// Makes the system keep little of what is on its way over a socket.
pub fn little_room(socket: &TcpStream) {
    let socket = socket2::SockRef::from(socket);
    socket.set_send_buffer_size(16 * 1024).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
}

/// A file of no lasting name, empty.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn file() -> std::fs::File {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("pelton-test-{}-{number}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path);
    std::fs::remove_file(path).unwrap();
    file.unwrap()
}

/// A file of no lasting name, empty.
#[cfg(target_os = "linux")]
pub fn file() -> std::fs::File {
    // In memory, and sparse.
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    std::fs::File::from(fd)
}

/// A file of no lasting name, empty.
#[cfg(windows)]
pub fn file() -> std::fs::File {
    use std::os::windows::fs::OpenOptionsExt;
    use windows_sys::Win32::Storage::FileSystem::{
        FILE_FLAG_DELETE_ON_CLOSE, FILE_FLAG_OVERLAPPED,
    };
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("pelton-test-{}-{number}", std::process::id());
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create_new(true);
    options.custom_flags(FILE_FLAG_OVERLAPPED | FILE_FLAG_DELETE_ON_CLOSE);
    options.open(std::env::temp_dir().join(name)).unwrap()
}

/// The descriptors of this process.
#[cfg(windows)]
pub fn open_descriptors() -> usize {
    use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessHandleCount};
    let mut count = 0;
    // SAFETY: this process, and a word of ours.
    assert_ne!(unsafe { GetProcessHandleCount(GetCurrentProcess(), &mut count) }, 0);
    count as usize
}

/// Where the system lists them.
#[cfg(unix)]
pub const OPEN: &str = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };

/// The descriptors of this process.
#[cfg(unix)]
pub fn open_descriptors() -> usize {
    std::fs::read_dir(OPEN).unwrap().count()
}
