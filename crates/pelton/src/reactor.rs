//! The reactor: a driver, the tasks that it wakes, and the loop that turns both.
//!
//! # The tick
//!
//! 1. Poll the root and the tasks that are queued, at most [`Settings::batch`] polls.
//! 2. Tick the driver: submit everything that they asked for and wait, in one kernel entry; not waiting
//!    where something is queued still.
//! 3. Dispatch the completions: each names the task that waits for it, which is polled there and then
//!    (or queued, where [`Dispatch::Queued`](crate::Dispatch) says so). What it submits goes out with the
//!    next tick.
//! 4. If another thread has raised the wake latch: move the tasks that it woke to the queue, and run the
//!    closures that it posted.
//!
//! # Whom a completion is for
//!
//! A token in the operation's slot. For a task of this reactor it is the address of the task's header,
//! which is not counted: headers are never freed while the reactor lives, so a token that has outlived its
//! task finds a dead header or, at worst, polls a task once too often. Any other waker, of a combinator or
//! of another executor, is kept in a table here, and the token is its number with the low bit set.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use pelton_driver::{
    Backend, Completion, Distance, Driver, Flight, Key, Kind, OnCompletion, OpId, Token,
};

use crate::fault::Fault;
use crate::handle::Shared;
use crate::reads::Reads;
use crate::runtime::{Dispatch, Settings};
use crate::task::{self, Queued, Resuming, Tasks};

/// Operations that end at once, without a wait, before a task has to give way.
const BUDGET: i32 = 128;

/// How long a wait is, at the end, before the deadline is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

thread_local! {
    static CURRENT: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

/// A share in a reactor: an `Rc` that points at the reactor and not at the counts in front of it, so that
/// what every operation works on is where the pointer says.
pub(crate) struct Share(NonNull<Reactor>);

impl From<Rc<Reactor>> for Share {
    fn from(reactor: Rc<Reactor>) -> Share {
        // SAFETY: what an `Rc` points to is not null.
        Share(unsafe { NonNull::new_unchecked(Rc::into_raw(reactor).cast_mut()) })
    }
}

impl Deref for Share {
    type Target = Reactor;

    #[inline(always)]
    fn deref(&self) -> &Reactor {
        // SAFETY: from `Rc::into_raw`, and the count that it stands for is given back by the drop alone.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for Share {
    #[inline]
    fn clone(&self) -> Share {
        // SAFETY: from `Rc::into_raw`, and its own count has not been given back.
        unsafe { Rc::increment_strong_count(self.0.as_ptr()) };
        Share(self.0)
    }
}

impl Drop for Share {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: gives back the count that this share stands for, once.
        unsafe { Rc::decrement_strong_count(self.0.as_ptr()) };
    }
}

pub(crate) struct Reactor {
    pub(crate) tasks: Tasks,
    pub(crate) driver: Driver,
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Settings,
    reads: Reads,
    /// How many operations may still end at once. Below zero where refusals came on top.
    budget: Cell<i32>,
    wakers: Wakers,
    /// Those who wait for somebody to ask for the end.
    stop_waiters: Wakers,
    ended: Cell<bool>,
    /// Nothing turns this reactor any more; only objects that outlive it hold it.
    left: Cell<bool>,
}

impl Reactor {
    pub(crate) fn new(driver: Driver, shared: Arc<Shared>, settings: Settings) -> Reactor {
        Reactor {
            tasks: Tasks::new(driver.notifier()),
            driver,
            shared,
            settings,
            reads: Reads::default(),
            wakers: Wakers::default(),
            budget: Cell::new(BUDGET),
            stop_waiters: Wakers::default(),
            ended: Cell::new(false),
            left: Cell::new(false),
        }
    }

    /// The reactor of this thread, if one runs here.
    pub(crate) fn try_current() -> Option<Rc<Reactor>> {
        CURRENT.with(|current| current.borrow().clone())
    }

    /// The reactor of this thread.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub(crate) fn current() -> Rc<Reactor> {
        Reactor::try_current().expect(
            "no Pelton reactor runs on this thread: call this from inside `pelton::block_on`, `#[pelton::main]` or a task",
        )
    }

    /// The reactor of this thread, for those who can return an error.
    pub(crate) fn here() -> io::Result<Rc<Reactor>> {
        Reactor::try_current().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotConnected,
                "no Pelton reactor runs on this thread: call this from inside `pelton::block_on` or a task",
            )
        })
    }

    /// Makes this the thread's reactor until the guard is dropped. None when there is one already.
    pub(crate) fn enter(self: &Rc<Reactor>) -> Option<Entered> {
        CURRENT.with(|current| {
            let mut current = current.borrow_mut();
            if current.is_some() {
                return None;
            }
            *current = Some(Rc::clone(self));
            Some(Entered(()))
        })
    }

    /// One turn of the loop. `root` is polled when it has been notified, and its outcome returned.
    pub(crate) fn turn<T>(
        &self,
        root: &task::RootTask<'_>,
        mut poll_root: impl FnMut() -> std::task::Poll<T>,
    ) -> Option<T> {
        if !root.is_notified() && !self.tasks.has_queued() {
            self.tick(None);
            return None;
        }
        let mut polls = 0;
        self.tasks.begin_batch();
        loop {
            if root.take_notified() {
                polls += 1;
                if let std::task::Poll::Ready(outcome) = poll_root() {
                    self.report();
                    return Some(outcome);
                }
            }
            polls += self.tasks.run_queued(self.settings.batch.saturating_sub(polls).max(1));
            if polls >= self.settings.batch
                || self.tasks.is_paused()
                || !(root.is_notified() || self.tasks.has_queued())
            {
                break;
            }
        }
        let busy = root.is_notified() || self.tasks.has_queued();
        self.tick(if busy { Some(Duration::ZERO) } else { None });
        None
    }

    /// One tick of the driver, with its completions dispatched.
    pub(crate) fn tick(&self, timeout: Option<Duration>) {
        if !self.ended.get() {
            self.budget.set(BUDGET);
        }
        self.reads.turn_over();
        // Before the wait, so that what others see of a reactor that sleeps is all it has done.
        self.report();
        let queued = match self.settings.dispatch {
            Dispatch::Queued => Queued::ALL,
            _ => Queued::NEEDED,
        };
        let dispatcher = Dispatcher { reactor: self, resuming: self.tasks.resuming(queued) };
        let woken = match self.driver.tick_with(timeout, dispatcher) {
            Ok(tick) => tick.woken,
            Err(error) => {
                self.could_not_wait(error);
                true
            }
        };
        // Also where nobody raised the latch: a wake that failed leaves its task behind, and the next tick
        // must find it. Finding nothing costs one load.
        self.tasks.drain_remote();
        if woken {
            self.run_posts();
        }
    }

    #[cold]
    #[inline(never)]
    fn could_not_wait(&self, error: io::Error) {
        self.tell(&Fault::Wait(error));
        if !self.driver.is_simulated() {
            // Not a spin at full speed, if it keeps being refused.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Wakes somebody else's. Its place is given up before, so that whoever takes the outcome of an operation that
    /// was told of need not look for one.
    #[cold]
    fn dispatch_foreign(&self, id: OpId, place: Place) {
        self.driver.set_token_of(id, NOBODY);
        if let Some(waker) = self.wakers.take(place) {
            // Anybody's code, in the middle of a tick.
            task::contain(|| waker.wake());
        }
    }

    /// The token of whoever is being polled. It is to be [forgotten](Reactor::forget) by whoever finds it
    /// in an operation that has ended and that nobody was told of.
    #[inline(always)]
    pub(crate) fn token_for(&self, waker: &Waker) -> Token {
        match self.tasks.token(waker) {
            Some(token) => Token(token.into_raw()),
            None => self.foreign_token(waker, &mut None),
        }
    }

    /// [`Reactor::token_for`], where that is a task of this reactor's.
    #[inline(always)]
    pub(crate) fn own_token(&self, waker: &Waker) -> Option<Token> {
        self.tasks.token(waker).map(|token| Token(token.into_raw()))
    }

    #[cold]
    fn foreign_token(&self, waker: &Waker, place: &mut Option<Place>) -> Token {
        token_of(self.wakers.keep(waker, place))
    }

    /// Sees to it that an operation's completion is for `waker`.
    #[inline(always)]
    pub(crate) fn wait_for<P>(&self, key: &Key<P>, waker: &Waker) {
        let before = self.driver.token(key);
        if mutant!("token-not-moved") && before != NOBODY {
            return;
        }
        match self.tasks.token(waker) {
            Some(token) => {
                self.driver.set_token(key, Token(token.into_raw()));
                self.forget(before);
            }
            None => {
                let token = self.foreign_token(waker, &mut place_of(before));
                self.driver.set_token(key, token);
            }
        }
    }

    /// [`Reactor::wait_for`] of a flight.
    ///
    /// # Safety
    /// This reactor's driver has launched it.
    #[inline(never)]
    pub(crate) unsafe fn wait_for_flight<P>(&self, flight: &Flight<P>, waker: &Waker) {
        // SAFETY: as the caller says.
        let before = unsafe { self.driver.token_in(flight) };
        if mutant!("token-not-moved") && before != NOBODY {
            return;
        }
        let (token, replaced) = match self.tasks.token(waker) {
            Some(token) => (Token(token.into_raw()), before),
            None => (self.foreign_token(waker, &mut place_of(before)), NOBODY),
        };
        // SAFETY: as the caller says.
        unsafe { self.driver.set_token_in(flight, token) };
        self.forget(replaced);
    }

    /// Sees to it that nobody is woken by an operation's completion.
    pub(crate) fn wait_no_more<P>(&self, key: &Key<P>) {
        let before = self.driver.token(key);
        self.driver.set_token(key, NOBODY);
        self.forget(before);
    }

    /// Gives up the place in the table of wakers that a token may name. No operation has the token any more.
    #[inline(always)]
    pub(crate) fn forget(&self, token: Token) {
        if let Some(place) = place_of(token) {
            self.wakers.remove(place);
        }
    }

    /// Whether to start an operation, which may end at once. If not, [give way](Reactor::give_way).
    #[inline(always)]
    pub(crate) fn may_go_on(&self) -> bool {
        self.budget.get() > 0
    }

    /// Counts an operation that has ended at once. One that waits costs its task no part of the budget, as the
    /// task has given way by itself.
    #[inline(always)]
    pub(crate) fn ended_at_once(&self) {
        self.budget.set(self.budget.get().wrapping_sub(1));
    }

    /// Whether a read from a file is to be submitted even if the page cache has what it wants.
    #[inline]
    pub(crate) fn reads_go_together(&self) -> bool {
        self.driver.backend() == Backend::IoUring
            && self.reads.go_together(|| {
                self.tasks.has_queued() || self.driver.counters().in_flight_of(Kind::ReadAt) > 0
            })
    }

    /// A task has had enough of operations that end at once: it is woken to go on later.
    #[cold]
    pub(crate) fn give_way(&self, waker: &Waker) -> MayGoOn {
        if self.ended.get() {
            return MayGoOn::Never;
        }
        self.budget.set(BUDGET);
        // Whoever comes next has a budget of his own, but only when the kernel has been looked at: a task that
        // always finds its operations ready holds everybody up for no longer than one budget.
        self.tasks.pause();
        waker.wake_by_ref();
        MayGoOn::Later
    }

    /// Runs the closures that other threads have posted, those that are there now, and tells of the end where one has
    /// asked for it. Each by itself: one that panics is counted, and told of, and harms nobody.
    #[inline(never)]
    fn run_posts(&self) {
        for post in self.shared.inbox.take_posts() {
            self.driver.counters().posts.add(1);
            if task::contain(post) {
                self.driver.counters().post_panics.add(1);
                self.tell(&Fault::PostPanicked);
            }
        }
        if self.shared.inbox.stop_requested() {
            self.stop_waiters.wake_all();
        }
    }

    /// Tells of a fault. The hook is somebody's code: a panic in it ends there.
    pub(crate) fn tell(&self, fault: &Fault) {
        task::contain(|| (self.settings.on_fault)(fault));
    }

    /// Keeps the waker until somebody asks for the end, or until its place is given up.
    pub(crate) fn wait_for_stop(&self, waker: &Waker, place: &mut Option<Place>) {
        self.stop_waiters.keep(waker, place);
    }

    pub(crate) fn stop_waiting(&self, place: Place) {
        self.stop_waiters.remove(place);
    }

    /// The end: drops every task, on this thread, and refuses what comes after.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        // For good: an operation then finds out why.
        self.budget.set(0);
        self.shared.inbox.close();
        self.tasks.clear();
    }

    /// The very end, after [`Reactor::end`]: everything in flight is cancelled, and the kernel has a
    /// bounded time to let go of it, so that futures that outlive the reactor find an outcome.
    pub(crate) fn leave(&self) {
        self.driver.cancel_all();
        let give_up = self.driver.now() + self.settings.shutdown_timeout;
        loop {
            let left = give_up.saturating_duration_since(self.driver.now());
            let in_flight = self.driver.counters().snapshot().in_flight_total();
            // The last of these ticks hands over the closes that the others have brought about.
            let wait = if in_flight == 0 { Duration::ZERO } else { left.min(LOOK_AGAIN) };
            self.tick(Some(wait));
            if in_flight == 0 || left.is_zero() {
                break;
            }
        }
        self.left.set(true);
    }

    /// Hands over what has been staged, where no loop does it any more.
    #[inline]
    pub(crate) fn push_out(&self) {
        if self.left.get() {
            let _ = self.driver.tick(Some(Duration::ZERO), |completion| {
                // Nobody is woken any more.
                if let Some(place) = place_of(completion.token) {
                    self.driver.set_token_of(completion.id, NOBODY);
                    self.wakers.remove(place);
                }
            });
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Copies what the tasks counted to where other threads can read it.
    #[inline]
    fn report(&self) {
        let (now, counters) = (self.tasks.counts(), self.driver.counters());
        counters.tasks_spawned.set(now.spawned);
        counters.tasks_live.set(now.live as u64);
        counters.polls.set(now.polls);
        counters.task_panics.set(now.panics);
    }
}

/// Whether an operation may be started that there was no budget for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayGoOn {
    /// Its task has been woken to try again.
    Later,
    /// The reactor has ended.
    Never,
}

/// The token of an operation for which nobody waits: the place in the table where nothing is kept.
pub(crate) const NOBODY: Token = token_of(0);

const fn token_of(place: usize) -> Token {
    Token::number(place << 1 | 1)
}

/// The place in the table of wakers that a token names, if it names one.
#[inline(always)]
fn place_of(token: Token) -> Option<Place> {
    let number = token.as_number();
    (number & 1 == 1).then_some(Place(number >> 1))
}

/// Dispatches the completions of one tick.
struct Dispatcher<'a> {
    reactor: &'a Reactor,
    resuming: Resuming<'a>,
}

impl OnCompletion for Dispatcher<'_> {
    #[inline(always)]
    fn on_completion(&mut self, completion: Completion) {
        if let Some(place) = place_of(completion.token) {
            return self.reactor.dispatch_foreign(completion.id, place);
        }
        // SAFETY: whatever this reactor puts into its driver has the low bit set or is a token of these very
        // tasks: it is from `token_for`, or `NOBODY`.
        unsafe {
            let token = task::Token::from_raw(completion.token.0).unwrap_unchecked();
            self.resuming.resume(token);
        }
    }

    #[inline(always)]
    fn comes(&mut self, token: Token, distance: Distance) {
        if place_of(token).is_none()
            && let Some(token) = task::Token::from_raw(token.0)
        {
            // SAFETY: as above; what is not of an operation has no token, or the one of an operation before.
            unsafe { self.resuming.comes(token, distance) };
        }
    }
}

/// While it lives the reactor is its thread's.
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|current| drop(current.borrow_mut().take()));
    }
}

/// Wakers that are kept, each in a place of its own: those of other executors, which wait for operations
/// of the driver, and those that wait for the end.
struct Wakers {
    /// Nothing is ever kept in the first one.
    places: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

/// A waker's place in the table.
#[derive(Debug)]
pub(crate) struct Place(usize);

impl Default for Wakers {
    fn default() -> Wakers {
        Wakers { places: RefCell::new(vec![None]), free: RefCell::default() }
    }
}

impl Wakers {
    fn keep(&self, waker: &Waker, place: &mut Option<Place>) -> usize {
        // Cloned, and what it replaces dropped, outside the borrow: both are foreign code.
        let mut incoming = Some(waker.clone());
        let index = match place {
            Some(Place(index)) if *index != 0 => *index,
            _ => self.free.borrow_mut().pop().unwrap_or_else(|| {
                let mut places = self.places.borrow_mut();
                places.push(None);
                places.len() - 1
            }),
        };
        std::mem::swap(&mut self.places.borrow_mut()[index], &mut incoming);
        drop(incoming);
        *place = Some(Place(index));
        index
    }

    /// Wakes all of them. They keep their places.
    fn wake_all(&self) {
        let places = self.places.borrow().len();
        for index in 0..places {
            let waker = self.places.borrow_mut()[index].take();
            if let Some(waker) = waker {
                // Anybody's code, in the middle of a tick.
                task::contain(|| waker.wake());
            }
        }
    }

    /// Takes a waker, and gives up its place.
    fn take(&self, Place(index): Place) -> Option<Waker> {
        if index == 0 {
            return None;
        }
        let waker = self.places.borrow_mut()[index].take();
        self.free.borrow_mut().push(index);
        waker
    }

    #[cold]
    fn remove(&self, place: Place) {
        drop(self.take(place));
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_waker_that_is_taken_is_the_next_ones_and_nobody_has_one() {
        let wakers = Wakers::default();
        let mut place = None;
        let first = wakers.keep(Waker::noop(), &mut place);
        assert_eq!(token_of(first), Token::number(3));
        assert!(wakers.take(place.unwrap()).is_some());
        let mut place = place_of(NOBODY);
        assert_eq!(wakers.keep(Waker::noop(), &mut place), first, "the same place again");
        for _ in 0..2 {
            assert!(wakers.take(place_of(NOBODY).unwrap()).is_none(), "it is not given up either");
        }
        assert_ne!(wakers.keep(Waker::noop(), &mut None), 0);
        assert_eq!(wakers.places.borrow().len(), 3);
    }
}
