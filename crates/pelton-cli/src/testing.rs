//! What several tests need.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use hyper::rt::ReadBufCursor;

use crate::runtime::{LocalBoxFuture, Runtime};

/// A folder of its own for one test, removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!("pelton-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
            let path = std::env::temp_dir().join(name);
            match std::fs::create_dir(&path) {
                // On Windows a canonical path takes no slashes.
                Ok(()) if cfg!(windows) => return Folder(path),
                // Canonical, because on some systems the temporary folder itself is behind a link.
                Ok(()) => return Folder(std::fs::canonicalize(path).unwrap()),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => panic!("no folder for the test: {e}"),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and the folders on the way to it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A runtime without a reactor: everything is done at once, and time passes only when a test says
/// so.
#[derive(Clone, Default)]
pub(crate) struct Inline {
    state: Rc<InlineState>,
}

#[derive(Default)]
struct InlineState {
    now: Cell<Duration>,
    pool_hangs: Cell<bool>,
    jobs: Cell<usize>,
    sheds: Cell<usize>,
    tasks: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>,
}

impl Inline {
    /// Sleeps that end within this time from now are over.
    pub(crate) fn let_pass(&self, time: Duration) {
        self.state.now.set(self.state.now.get() + time);
    }

    /// How many connections were closed as they came.
    pub(crate) fn sheds(&self) -> usize {
        self.state.sheds.get()
    }

    /// Whether jobs for the pool are begun and never finished.
    pub(crate) fn let_the_pool_hang(&self, hangs: bool) {
        self.state.pool_hangs.set(hangs);
    }

    /// How many jobs the pool was given.
    pub(crate) fn jobs(&self) -> usize {
        self.state.jobs.get()
    }

    /// Polls what was spawned until nothing moves any more. Returns how many tasks are left.
    pub(crate) fn run(&self) -> usize {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        // Three rounds at least: what a test changed from outside has woken nobody.
        let mut quiet = 0;
        while quiet < 3 {
            let mut tasks = self.state.tasks.take();
            let before = tasks.len();
            tasks.retain_mut(|task| task.as_mut().poll(&mut cx).is_pending());
            let ended = tasks.len() < before;
            let mut new = self.state.tasks.borrow_mut();
            let moved = ended || !new.is_empty() || woken.0.swap(false, Relaxed);
            quiet = if moved { 0 } else { quiet + 1 };
            tasks.append(&mut new);
            *new = tasks;
        }
        self.state.tasks.borrow().len()
    }
}

/// Whether anyone was woken since the last look.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl Runtime for Inline {
    type File = File;

    fn adopt(&self, file: File) -> io::Result<File> {
        Ok(file)
    }

    fn read_at(
        file: Rc<File>,
        mut buf: Vec<u8>,
        offset: u64,
    ) -> LocalBoxFuture<(io::Result<usize>, Vec<u8>)> {
        Box::pin(async move {
            let held = buf.len();
            buf.resize(buf.capacity(), 0);
            let result = read_at(&file, &mut buf[held..], offset);
            buf.truncate(held + result.as_ref().map_or(0, |n| *n));
            (result, buf)
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.state.jobs.set(self.jobs() + 1);
        if self.state.pool_hangs.get() {
            std::future::pending::<()>().await;
        }
        Ok(job())
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        let state = Rc::clone(&self.state);
        let end = state.now.get() + duration;
        poll_fn(move |_| if state.now.get() < end { Poll::Pending } else { Poll::Ready(()) })
    }

    fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.state.tasks.borrow_mut().push(Box::pin(future));
    }

    fn shed(&self) {
        self.state.sheds.set(self.sheds() + 1);
    }
}

#[cfg(unix)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}

/// A connection in memory: a test writes what the client says and reads what the server answered.
#[derive(Clone, Default)]
pub(crate) struct Pipe(Rc<RefCell<PipeState>>);

#[derive(Default)]
struct PipeState {
    input: VecDeque<u8>,
    input_ended: bool,
    output: Vec<u8>,
    output_ended: bool,
}

impl Pipe {
    pub(crate) fn say(&self, bytes: impl AsRef<[u8]>) {
        self.0.borrow_mut().input.extend(bytes.as_ref());
    }

    pub(crate) fn hang_up(&self) {
        self.0.borrow_mut().input_ended = true;
    }

    /// What was answered since the last call.
    pub(crate) fn hear(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().output)
    }

    /// How much of what was said has not been read.
    pub(crate) fn unread(&self) -> usize {
        self.0.borrow().input.len()
    }

    /// Whether the server has closed its side.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.borrow().output_ended
    }
}

impl hyper::rt::Read for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        if state.input.is_empty() && !state.input_ended {
            return Poll::Pending;
        }
        let n = state.input.len().min(buf.remaining());
        let bytes: Vec<u8> = state.input.drain(..n).collect();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().output.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().output_ended = true;
        Poll::Ready(Ok(()))
    }
}

/// The result of a future that never has to wait.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits"),
    }
}

/// Makes a FIFO, by the program that every Unix has: the call has other names on other systems.
#[cfg(unix)]
pub(crate) fn fifo(path: &std::path::Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success(), "{made}");
}
