//! What every test of tasks stands on: a notifier that counts, futures that are held back, drops that
//! count.

mod end;
mod handle;
mod header;
mod panics;
mod random;
mod run;
mod threads;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::*;

/// Counts its rings. How many clones exist says whether a core still holds one.
#[derive(Clone, Default)]
struct Bell {
    rings: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

impl Notify for Bell {
    fn notify(&self) -> io::Result<()> {
        self.rings.fetch_add(1, Ordering::SeqCst);
        if self.broken.load(Ordering::SeqCst) { Err(io::Error::other("broken")) } else { Ok(()) }
    }
}

impl Bell {
    fn rings(&self) -> usize {
        self.rings.load(Ordering::SeqCst)
    }

    /// True while a core exists that was made with this bell.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.rings) > 1
    }
}

fn tasks() -> Tasks {
    Tasks::new(Bell::default())
}

/// What a reactor's loop does, without a driver: until nothing is ready.
fn run(tasks: &Tasks) {
    loop {
        tasks.drain_remote();
        if tasks.run_queued(usize::MAX) == 0 && !tasks.has_queued() {
            return;
        }
    }
}

/// Polls a future as the root until nothing is ready any more.
fn run_root<T>(tasks: &Tasks, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let root = tasks.root();
    loop {
        while root.take_notified() {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(root.waker()))
            {
                return Some(value);
            }
        }
        run(tasks);
        if !root.is_notified() {
            return None;
        }
    }
}

/// The output of a task that can finish.
fn join<T>(tasks: &Tasks, handle: JoinHandle<T>) -> Result<T, JoinError> {
    run_root(tasks, handle).expect("the task finishes")
}

/// A future that waits until it is opened, keeps the waker of its last poll, and counts its polls.
#[derive(Default)]
struct Gate {
    open: Cell<bool>,
    polls: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Gate {
    fn new() -> Rc<Gate> {
        Rc::default()
    }

    fn pass(self: &Rc<Gate>) -> Pass {
        Pass(self.clone())
    }

    fn open(&self) {
        self.open.set(true);
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.borrow().clone();
        waker.expect("the gate was polled").wake();
    }

    fn waker(&self) -> Waker {
        self.waker.borrow_mut().take().expect("the gate was polled")
    }
}

struct Pass(Rc<Gate>);

impl Future for Pass {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.polls.set(self.0.polls.get() + 1);
        let former = self.0.waker.replace(Some(cx.waker().clone()));
        drop(former);
        if self.0.open.get() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Counts how often it was dropped.
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn counter() -> Rc<Cell<usize>> {
    Rc::default()
}

/// Runs code when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A waker of nobody's executor, which counts.
#[derive(Default)]
struct CountingWaker {
    wakes: AtomicUsize,
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

impl CountingWaker {
    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Unwinds without the panic hook, which would print.
fn throw(message: &'static str) -> ! {
    std::panic::resume_unwind(Box::new(message))
}

/// The token of a task that waits in a gate.
fn token_of(tasks: &Tasks, gate: &Gate) -> Token {
    let waker = gate.waker.borrow();
    tasks.token(waker.as_ref().expect("the gate was polled")).expect("a task of ours")
}

fn resume(tasks: &Tasks, token: Token) {
    // SAFETY: every test passes tokens of the same tasks.
    unsafe { tasks.resuming(Queued::NEEDED).resume(token) };
}
