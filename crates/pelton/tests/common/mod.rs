//! What the tests share: each on every backend, one at a time, with a watchdog that ends what hangs.

#![allow(dead_code, unreachable_pub)]

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::Write;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pelton::driver::Config;
use pelton::net::{TcpListener, TcpStream};
use pelton::{Backend, Builder, Handle, Runtime};

/// How long a test may hang before the process is ended. No test measures time by it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The backends of this system, and the one that works on every such system.
#[cfg(all(target_os = "linux", not(pelton_kqueue_elsewhere)))]
pub const BACKENDS: &[Backend] = &[Backend::Epoll, Backend::IoUring];
#[cfg(all(target_os = "linux", not(pelton_kqueue_elsewhere)))]
pub const ALWAYS: Backend = Backend::Epoll;
#[cfg(all(unix, any(not(target_os = "linux"), pelton_kqueue_elsewhere)))]
pub const BACKENDS: &[Backend] = &[Backend::Kqueue];
#[cfg(all(unix, any(not(target_os = "linux"), pelton_kqueue_elsewhere)))]
pub const ALWAYS: Backend = Backend::Kqueue;
#[cfg(windows)]
pub const BACKENDS: &[Backend] = &[Backend::Iocp];
/// A signal that nothing but a test raises.
#[cfg(unix)]
pub const SIGNAL: pelton::signal::SignalKind = pelton::signal::SignalKind::User2;
#[cfg(windows)]
pub const SIGNAL: pelton::signal::SignalKind = pelton::signal::SignalKind::Hangup;
#[cfg(windows)]
pub const ALWAYS: Backend = Backend::Iocp;

/// Runs a test once on each backend that works here, and says which it skips. The tests of one binary run
/// one at a time, so that they may count what belongs to the whole process, such as descriptors; and each
/// has to leave as many of those as it found.
pub fn on_each_backend(mut test: impl FnMut(Backend)) {
    let _alone = alone();
    let before = open_descriptors();
    for &backend in BACKENDS {
        if let Err(error) = Builder::new().backend(backend).build() {
            assert_ne!(backend, ALWAYS, "it works everywhere: {error}");
            let name = std::thread::current().name().unwrap_or("a test").to_owned();
            // Past the capture of the test harness, so that nobody takes a skip for a pass.
            let _ = writeln!(std::io::stderr(), "{name}: skipped on {backend}: {error}");
            continue;
        }
        let _watchdog = Watchdog::start(format!("on {backend}"));
        println!("on {backend}");
        test(backend);
        // A thread of the blocking pool may be busy with its last wake, and hold a notifier so long.
        let began = Instant::now();
        while open_descriptors() > before {
            assert!(began.elapsed() < PATIENCE / 4, "left open: {:#?}", descriptors());
            std::thread::yield_now();
        }
    }
}

/// As [`on_each_backend`], inside `block_on` of a runtime with the default settings.
pub fn inside_each_backend<F: Future<Output = ()>>(mut test: impl FnMut(Backend) -> F) {
    on_each_backend(|backend| runtime(backend).block_on(test(backend)));
}

/// Keeps the other tests of this binary waiting.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process if it is not dropped in time: a test that hangs says so.
pub struct Watchdog {
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    pub fn start(what: String) -> Watchdog {
        let (alive, gone) = mpsc::channel();
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        std::thread::spawn(move || {
            if gone.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = writeln!(std::io::stderr(), "{name} hangs {what}: giving up");
                std::process::abort();
            }
        });
        Watchdog { _alive: alive }
    }
}

pub fn runtime(backend: Backend) -> Runtime {
    Builder::new().backend(backend).build().expect("this backend works here")
}

pub fn config(backend: Backend) -> Config {
    Config { backend, ..Config::default() }
}

/// Where the system lists the descriptors of a process.
#[cfg(unix)]
const OPEN: &str = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };

/// Descriptors of this process.
#[cfg(unix)]
pub fn open_descriptors() -> usize {
    // The directory's own descriptor is among them, each time.
    std::fs::read_dir(OPEN).expect("it is there").count()
}

/// What they are, in words.
#[cfg(unix)]
fn descriptors() -> Vec<std::io::Result<std::path::PathBuf>> {
    let open = std::fs::read_dir(OPEN).expect("it is there").flatten();
    open.map(|fd| std::fs::read_link(fd.path())).collect()
}

/// Descriptors of this process, threads and whatever else has a handle excepted: the system counts those too, and
/// makes some of its own. So it is sockets that are counted, by asking of each number whether it is one.
#[cfg(windows)]
pub fn open_descriptors() -> usize {
    descriptors().len()
}

/// The numbers of this process's sockets.
#[cfg(windows)]
fn descriptors() -> Vec<usize> {
    use windows_sys::Win32::Networking::WinSock::{SO_TYPE, SOL_SOCKET, getsockopt};
    // Something that starts Winsock.
    drop(std::net::UdpSocket::bind("127.0.0.1:0"));
    let is_socket = |number: &usize| {
        let (mut kind, mut len) = (0_i32, 4);
        // SAFETY: both are ours to be written.
        unsafe { getsockopt(*number, SOL_SOCKET, SO_TYPE, (&raw mut kind).cast(), &mut len) == 0 }
    };
    (4..0x4000).step_by(4).filter(is_socket).collect()
}

/// Lets the reactor turn until something holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE / 4, "it never came to: {what}");
        pelton::yield_now().await;
    }
}

/// Lets the reactor turn until this process has as many descriptors as before.
pub async fn closed_down_to(before: usize) {
    let began = Instant::now();
    while open_descriptors() != before {
        let in_time = began.elapsed() < PATIENCE / 4;
        assert!(in_time, "there were {before} descriptors and now there are {:#?}", descriptors());
        pelton::yield_now().await;
    }
}

/// Lets the reactor turn until nothing is in flight and nobody's operation is left over.
pub async fn quiet() {
    let handle = Handle::current();
    let mut last = None;
    let began = Instant::now();
    loop {
        let now = handle.snapshot();
        if now.in_flight_total() == 0 && now.orphans == 0 {
            return;
        }
        assert!(began.elapsed() < PATIENCE / 4, "operations are left over: {last:?}");
        last = Some(now);
        pelton::yield_now().await;
    }
}

/// Two ends of a connection on this thread's reactor.
pub async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = pelton::spawn(TcpStream::connect(address));
    let (server, _) = listener.accept().await.unwrap();
    (client.await.unwrap().unwrap(), server)
}

/// One end on this thread's reactor, and the other a blocking socket of the standard library's.
pub async fn pair_with_std() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (server, client)
}

/// Receives until `n` bytes are there or the stream ends.
pub async fn read_n(stream: &TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(n);
    while bytes.len() < n {
        let (read, buf) = stream.read(bytes).await;
        bytes = buf;
        if read.unwrap() == 0 {
            break;
        }
    }
    bytes
}

/// Bytes that tell where in a stream they belong.
pub fn pattern(n: usize) -> Vec<u8> {
    // It repeats after this much; a whole one is copied, because tests are not optimised.
    const PERIOD: usize = 251 * 256;
    let one = n.min(PERIOD);
    let mut bytes: Vec<u8> = (0..one).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect();
    while bytes.len() < n {
        let more = (n - bytes.len()).min(PERIOD);
        bytes.extend_from_within(..more);
    }
    bytes
}

/// Something that one task waits for and another brings about, on one thread.
#[derive(Clone, Default)]
pub struct Event(Rc<(Cell<bool>, RefCell<Option<Waker>>)>);

impl Event {
    pub fn set(&self) {
        self.0.0.set(true);
        if let Some(waker) = self.0.1.borrow_mut().take() {
            waker.wake();
        }
    }

    pub fn is_set(&self) -> bool {
        self.0.0.get()
    }

    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.is_set() {
                return Poll::Ready(());
            }
            *self.0.1.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A value from one thread to a task on another.
pub struct Oneshot<T>(Arc<Mutex<(Option<T>, Option<Waker>)>>);

impl<T> Clone for Oneshot<T> {
    fn clone(&self) -> Oneshot<T> {
        Oneshot(self.0.clone())
    }
}

impl<T> Default for Oneshot<T> {
    fn default() -> Oneshot<T> {
        Oneshot(Arc::default())
    }
}

impl<T> Oneshot<T> {
    pub fn send(&self, value: T) {
        let mut state = self.0.lock().unwrap();
        state.0 = Some(value);
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// True once somebody waits.
    pub fn is_awaited(&self) -> bool {
        self.0.lock().unwrap().1.is_some()
    }

    pub async fn recv(&self) -> T {
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            if let Some(value) = state.0.take() {
                return Poll::Ready(value);
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Another executor: one future, on the thread that calls this, woken by unparking it.
pub fn park_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A waker that is not Pelton's, and counts: how often it was woken, and by its references who keeps it.
#[derive(Default)]
pub struct CountingWaker {
    woken: AtomicUsize,
    then: Mutex<Option<Waker>>,
}

impl CountingWaker {
    pub fn new() -> Arc<CountingWaker> {
        Arc::default()
    }

    pub fn woken(&self) -> usize {
        self.woken.load(Ordering::Relaxed)
    }

    /// Whom to wake in turn.
    pub fn set_then(&self, waker: &Waker) {
        *self.then.lock().unwrap() = Some(waker.clone());
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Relaxed);
        let then = self.then.lock().unwrap().take();
        if let Some(then) = then {
            then.wake();
        }
    }
}

/// Polls a future once with a waker that does nothing.
pub fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls futures each with a waker of its own, none of them the task's, until all have ended: what
/// combinators of other crates do.
pub async fn join_all<T>(futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> Vec<T> {
    let wakers: Vec<_> = futures.iter().map(|_| CountingWaker::new()).collect();
    let mut futures: Vec<_> = futures.into_iter().map(Some).collect();
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    let mut seen = vec![usize::MAX; futures.len()];
    poll_fn(|cx| {
        for at in 0..futures.len() {
            let Some(future) = &mut futures[at] else { continue };
            wakers[at].set_then(cx.waker());
            // Only those that were woken, as a good combinator does: a lost wake shows.
            if seen[at] == wakers[at].woken() {
                continue;
            }
            seen[at] = wakers[at].woken();
            let waker = Waker::from(wakers[at].clone());
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                outputs[at] = Some(output);
                futures[at] = None;
            }
        }
        if futures.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().map(|output| output.expect("all have ended")).collect()
}

/// Joins a thread and goes on with its panic, if it had one.
pub fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
