//! Where a request's continuation runs, if not on the reactor.
//!
//! [`Where::Pool`] is what a program writes that offloads without a thought: `pelton::spawn_blocking` for
//! every request. Each hand-over locks the pool's queue and may wake a thread of it; each continuation wakes
//! its task by itself. How many of those wakes enter the kernel is the reactor's affair: its latch lets one
//! through for each sleep.
//!
//! [`Where::Worker`] hands over everything that one tick brought with one lock and at most one wake, to one
//! thread; and that thread brings everything back with one closure posted to the reactor. Under load a
//! request costs a part of a lock and a part of two wakes.
//!
//! The continuation itself does nothing but give the bytes back: what is measured is the way.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use pelton::Handle;

/// Where continuations run.
#[derive(Clone)]
pub(crate) enum Where {
    /// In the task, on the reactor.
    Here,
    /// Each on a thread of the process's pool.
    Pool,
    /// All of a tick's together, on one thread of their own.
    Worker(Rc<Worker>),
}

impl Where {
    /// Runs the continuation of one request and gives its answer.
    pub(crate) async fn go_on(&self, request: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Where::Here => Ok(continuation(request)),
            Where::Pool => pelton::spawn_blocking(move || continuation(request)).await,
            Where::Worker(worker) => Ok(worker.go_on(request).await),
        }
    }
}

/// Starts the thread of [`Where::Worker`], and the task that hands over to it.
pub(crate) fn start() -> io::Result<Rc<Worker>> {
    let inbox = Arc::new(Inbox::default());
    let (there, home) = (inbox.clone(), Handle::current());
    std::thread::Builder::new().name("continuations".into()).spawn(move || there.work(&home))?;
    let worker = Rc::new(Worker { outbox: RefCell::default(), inbox });
    let flushed = worker.clone();
    pelton::spawn(async move { flushed.hand_over().await }).detach();
    Ok(worker)
}

fn continuation(request: Vec<u8>) -> Vec<u8> {
    std::hint::black_box(request)
}

/// The reactor's side of the hand-over.
pub(crate) struct Worker {
    outbox: RefCell<Outbox>,
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct Outbox {
    /// What this tick has brought so far.
    jobs: Vec<Job>,
    /// The task that hands over, when it waits for something to do.
    flusher: Option<Waker>,
}

/// A request on its way there, or an answer on its way back.
struct Job {
    place: usize,
    bytes: Vec<u8>,
}

impl Worker {
    async fn go_on(&self, request: Vec<u8>) -> Vec<u8> {
        let place = Place::take();
        let flusher = {
            let mut outbox = self.outbox.borrow_mut();
            outbox.jobs.push(Job { place: place.0, bytes: request });
            outbox.flusher.take()
        };
        // It is queued behind the completions of this tick, all of which are polled inline, and runs before
        // the reactor waits again: by then the whole tick is in the outbox.
        if let Some(flusher) = flusher {
            flusher.wake();
        }
        place.answer().await
    }

    async fn hand_over(&self) {
        poll_fn(|cx| {
            let mut outbox = self.outbox.borrow_mut();
            if !outbox.jobs.is_empty() {
                self.inbox.add(&mut outbox.jobs);
            }
            outbox.flusher = Some(cx.waker().clone());
            Poll::<()>::Pending
        })
        .await;
    }
}

/// The thread's side: what has been handed over and not been taken.
#[derive(Default)]
struct Inbox {
    jobs: Mutex<Vec<Job>>,
    some: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Vec<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, jobs: &mut Vec<Job>) {
        let mut inbox = self.lock();
        let idle = inbox.is_empty();
        if idle {
            std::mem::swap(&mut *inbox, jobs);
        } else {
            inbox.append(jobs);
        }
        drop(inbox);
        // With something in it already the thread has been told, or has not looked yet.
        if idle {
            self.some.notify_one();
        }
    }

    /// Takes everything there is, and brings it back in one, until the reactor has ended.
    fn work(&self, home: &Handle) {
        loop {
            let inbox = self.lock();
            let waited = self.some.wait_while(inbox, |inbox| inbox.is_empty());
            let mut inbox = waited.unwrap_or_else(PoisonError::into_inner);
            let mut jobs = std::mem::take(&mut *inbox);
            drop(inbox);
            for job in &mut jobs {
                job.bytes = continuation(std::mem::take(&mut job.bytes));
            }
            if home.post(move || jobs.into_iter().for_each(come_home)).is_err() {
                return;
            }
        }
    }
}

thread_local! {
    /// The requests of this reactor that are away.
    static AWAY: RefCell<Places> = RefCell::default();
}

#[derive(Default)]
struct Places {
    all: Vec<Away>,
    free: Vec<usize>,
}

enum Away {
    Waiting(Option<Waker>),
    Back(Vec<u8>),
    /// The task has gone; the answer is dropped.
    Abandoned,
    Free,
}

/// On the reactor's thread: an answer is back.
fn come_home(job: Job) {
    let waker = AWAY.with_borrow_mut(|places| {
        match std::mem::replace(&mut places.all[job.place], Away::Back(job.bytes)) {
            Away::Waiting(waker) => waker,
            Away::Abandoned | Away::Back(_) | Away::Free => {
                places.all[job.place] = Away::Free;
                places.free.push(job.place);
                None
            }
        }
    });
    // Outside of the borrow: a waker is somebody's code.
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The place of one request that is away. It belongs to the answer if it is dropped before.
struct Place(usize);

impl Place {
    fn take() -> Place {
        AWAY.with_borrow_mut(|places| {
            let place = places.free.pop().unwrap_or_else(|| {
                places.all.push(Away::Free);
                places.all.len() - 1
            });
            places.all[place] = Away::Waiting(None);
            Place(place)
        })
    }

    async fn answer(self) -> Vec<u8> {
        poll_fn(|cx| {
            AWAY.with_borrow_mut(|places| {
                match std::mem::replace(&mut places.all[self.0], Away::Waiting(None)) {
                    Away::Back(answer) => {
                        places.all[self.0] = Away::Back(Vec::new());
                        Poll::Ready(answer)
                    }
                    _ => {
                        places.all[self.0] = Away::Waiting(Some(cx.waker().clone()));
                        Poll::Pending
                    }
                }
            })
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let waker = AWAY.try_with(|places| {
            let mut places = places.borrow_mut();
            match std::mem::replace(&mut places.all[self.0], Away::Free) {
                Away::Waiting(waker) => {
                    places.all[self.0] = Away::Abandoned;
                    waker
                }
                Away::Back(_) | Away::Abandoned | Away::Free => {
                    places.free.push(self.0);
                    None
                }
            }
        });
        drop(waker);
    }
}
