//! The future of one operation.

use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker, ready};

use pelton_driver::{
    Fd, Flight, Key, Launched, Payload, Recipient, Refused, Started, Submission, Token,
};

use crate::reactor::{MayGoOn, NOBODY, Reactor};
use crate::socket::Socket;

/// An operation on a socket's descriptor as a future. Submitted when it is first polled; dropped at any
/// moment, it is abandoned: what it owns stays with the driver until the kernel has let go.
///
/// Which operation it is, is a function from the descriptor and an argument, most often a constructor of
/// [`Submission`], so that the compiler knows it wherever this is polled.
pub(crate) struct Operation<'a, A, P: Payload, F> {
    socket: &'a Socket,
    stage: Stage<P>,
    /// There until the operation is submitted.
    argument: Argument<A>,
    make: F,
}

union Argument<A> {
    there: ManuallyDrop<A>,
    _gone: (),
}

impl<'a, A, P: Payload, F> Operation<'a, A, P, F> {
    #[inline(always)]
    pub(crate) fn new(socket: &'a Socket, argument: A, make: F) -> Operation<'a, A, P, F> {
        let argument = Argument { there: ManuallyDrop::new(by_words(argument)) };
        Operation { argument, socket, stage: Stage::STAGED, make }
    }

    /// Takes the argument.
    ///
    /// # Safety
    /// The operation is staged. It has ended when this returns.
    #[inline(always)]
    unsafe fn take_argument(&mut self) -> A {
        self.stage = Stage::ENDED;
        // SAFETY: staged, says the caller, which means that the argument is there, and it is not any more.
        unsafe { ManuallyDrop::take(&mut self.argument.there) }
    }

    /// Undoes [`Operation::take_argument`].
    #[inline(always)]
    fn put_back(&mut self, argument: A) {
        self.argument.there = ManuallyDrop::new(argument);
        self.stage = Stage::STAGED;
    }
}

impl<A, P: Payload, F: Fn(Fd, A) -> Submission<P>> Operation<'_, A, P, F> {
    /// There is no budget left, or no reactor.
    #[cold]
    #[inline(never)]
    fn give_way(&mut self, cx: &mut Context<'_>) -> Poll<Box<P::Output>> {
        if self.socket.reactor.give_way(cx.waker()) == MayGoOn::Later {
            return Poll::Pending;
        }
        // SAFETY: whoever polls has put it back, and waking the task has not changed it.
        let argument = unsafe { self.take_argument() };
        Poll::Ready(Box::new(refuse((self.make)(self.socket.fd, argument))))
    }
}

/// Moves a value as words, where it consists of at most three: those stay in registers until they are wanted, but what is
/// moved as a whole, as into a union, is copied by way of the stack.
#[inline(always)]
pub(crate) fn by_words<T>(value: T) -> T {
    type Word = MaybeUninit<usize>;
    let count = size_of::<T>() / size_of::<Word>();
    if align_of::<T>() != align_of::<Word>() || !matches!(count, 1..=3) {
        return value;
    }
    let (from, mut to) = (ManuallyDrop::new(value), MaybeUninit::<T>::uninit());
    let (from, place) = ((&raw const from).cast::<Word>(), to.as_mut_ptr().cast::<Word>());
    // SAFETY: both are values of as many words, which are moved as they are, initialised or not; and the one that they came
    // from is neither used nor dropped again.
    unsafe {
        place.write(from.read());
        if count > 1 {
            place.add(1).write(from.add(1).read());
        }
        if count > 2 {
            place.add(2).write(from.add(2).read());
        }
        to.assume_init()
    }
}

/// Where an operation stands, in one word: the flight, or one of three numbers that are none.
pub(crate) struct Stage<P>(*mut (), PhantomData<Flight<P>>);

impl<P: Payload> Stage<P> {
    /// It has not been submitted.
    pub(crate) const STAGED: Stage<P> = Stage(std::ptr::without_provenance_mut(1), PhantomData);
    /// It waits for something else first.
    pub(crate) const ASIDE: Stage<P> = Stage(std::ptr::without_provenance_mut(2), PhantomData);
    /// There is nothing to wait for, any more or yet.
    pub(crate) const ENDED: Stage<P> = Stage(std::ptr::null_mut(), PhantomData);

    #[inline(always)]
    pub(crate) fn flying(flight: Flight<P>) -> Stage<P> {
        Stage(flight.into_raw().as_ptr(), PhantomData)
    }

    #[inline(always)]
    pub(crate) fn is_staged(&self) -> bool {
        self.0.addr() == 1
    }

    #[inline(always)]
    pub(crate) fn is_flying(&self) -> bool {
        self.0.addr() > 2
    }

    #[inline(always)]
    pub(crate) fn is_aside(&self) -> bool {
        self.0.addr() == 2
    }

    #[inline(always)]
    pub(crate) fn has_ended(&self) -> bool {
        self.0.is_null()
    }

    /// Takes the flight.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Option<Flight<P>> {
        if !self.is_flying() {
            return None;
        }
        let raw = std::mem::replace(self, Stage::ENDED).0;
        // SAFETY: none of the three numbers, so it was made of a flight in `flying`, the only one that there
        // is, since the stage has given it up.
        Some(unsafe { Flight::from_raw(NonNull::new_unchecked(raw)) })
    }

    /// Takes the outcome of what is in flight, or sees to it that whoever polls is woken.
    ///
    /// # Safety
    /// Something is in flight, and this reactor's driver has launched the flight.
    #[inline(always)]
    pub(crate) unsafe fn poll(
        &mut self,
        reactor: &Reactor,
        cx: &mut Context<'_>,
    ) -> Poll<P::Output> {
        debug_assert!(self.is_flying());
        // SAFETY: made of a flight in `flying`; where it is not the end of it this is only a second look at the one
        // that the stage keeps.
        let flight: Flight<P> = unsafe { Flight::from_raw(NonNull::new_unchecked(self.0)) };
        // SAFETY: as the caller says.
        unsafe {
            if reactor.driver.is_told_of(&flight) {
                *self = Stage::ENDED;
                // Whoever was told has seen to the token.
                return ready_now(reactor.driver.land(flight));
            }
        }
        // SAFETY: as the caller says.
        unsafe { self.poll_untold(reactor, cx) }.map(|output| *output)
    }

    /// [`Stage::poll`] of what goes on, or has ended and nobody was told of it yet.
    ///
    /// # Safety
    /// As for [`Stage::poll`].
    #[cold]
    #[inline(never)]
    unsafe fn poll_untold(
        &mut self,
        reactor: &Reactor,
        cx: &mut Context<'_>,
    ) -> Poll<Box<P::Output>> {
        // SAFETY: as in `poll`.
        let flight: Flight<P> = unsafe { Flight::from_raw(NonNull::new_unchecked(self.0)) };
        // SAFETY: as the caller says.
        unsafe {
            if reactor.driver.has_landed(&flight) {
                *self = Stage::ENDED;
                reactor.forget(reactor.driver.token_in(&flight));
                return Poll::Ready(Box::new(reactor.driver.land(flight)));
            }
            reactor.wait_for_flight(&flight, cx.waker());
        }
        Poll::Pending
    }

    /// Submits, for whoever polls. Ready where that is the end of it too; otherwise there is something in flight,
    /// launched by the reactor's driver. There was nothing before.
    ///
    /// # Safety
    /// The submission's descriptor is of a socket of this reactor's, which is borrowed until this returns: only
    /// its drop closes it.
    #[inline(always)]
    pub(crate) unsafe fn start(
        &mut self,
        reactor: &Reactor,
        submission: Submission<P>,
        cx: &mut Context<'_>,
    ) -> Poll<P::Output> {
        debug_assert!(self.has_ended());
        let whom = Polling { reactor, waker: cx.waker() };
        // SAFETY: as the caller says.
        match unsafe { reactor.driver.launch(submission, whom) } {
            Ok(Launched::Flying(flight)) => {
                *self = Stage::flying(flight);
                Poll::Pending
            }
            Ok(Launched::Over(output) | Launched::Landed(output)) => {
                reactor.ended_at_once();
                Poll::Ready(output)
            }
            Err(refused) => Poll::Ready(*refused_now(reactor, *refused, NOBODY)),
        }
    }
}

/// Whoever polls, as the recipient of what is launched.
struct Polling<'a> {
    reactor: &'a Reactor,
    waker: &'a Waker,
}

impl Recipient for Polling<'_> {
    #[inline(always)]
    fn known(&self) -> Option<Token> {
        self.reactor.own_token(self.waker)
    }

    // In place, so that no reference is made to what is then kept in memory.
    #[inline(always)]
    fn token(&self) -> Token {
        self.reactor.token_for(self.waker)
    }

    #[inline(always)]
    fn forget(&self, token: Token) {
        self.reactor.forget(token);
    }
}

/// Says that a poll is ready so that the compiler knows it: that is written in a niche of the output, which nobody has to
/// look at again.
#[inline(always)]
pub(crate) fn ready_now<T>(output: T) -> Poll<T> {
    let poll = Poll::Ready(output);
    // SAFETY: it says so above.
    unsafe { std::hint::assert_unchecked(poll.is_ready()) };
    poll
}

#[cold]
#[inline(never)]
pub(crate) fn ended_already() -> ! {
    panic!("an operation is not polled again when it has ended")
}

/// Gives up an operation.
#[cold]
pub(crate) fn abandon<P: Payload>(reactor: &Reactor, key: Key<P>) {
    let token = reactor.driver.token(&key);
    reactor.driver.abandon(key);
    reactor.forget(token);
}

#[cold]
#[inline(never)]
fn refused_now<P: Payload>(reactor: &Reactor, refused: Refused<P>, token: Token) -> Box<P::Output> {
    reactor.ended_at_once();
    reactor.forget(token);
    Box::new(refused.into_output())
}

/// The outcome of an operation of a reactor that has ended.
#[cold]
#[inline(never)]
pub(crate) fn refuse<P: Payload>(submission: Submission<P>) -> P::Output {
    submission.refuse(ended())
}

#[cold]
pub(crate) fn ended() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the reactor of this object has ended")
}

// Nothing in it is borrowed by the kernel: that is all in the driver.
impl<A, P: Payload, F> Unpin for Operation<'_, A, P, F> {}

impl<A, P: Payload, F: Fn(Fd, A) -> Submission<P>> Future for Operation<'_, A, P, F> {
    type Output = P::Output;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<P::Output> {
        let output = ready!(self.poll_stage(cx));
        debug_assert!(self.stage.has_ended());
        // Each of its ways to be ready has ended it, but some run code of the payload's after that: said once more, the
        // drop that comes next need not look.
        self.stage = Stage::ENDED;
        ready_now(output)
    }
}

impl<A, P: Payload, F: Fn(Fd, A) -> Submission<P>> Operation<'_, A, P, F> {
    /// It has ended where this is ready.
    #[inline(always)]
    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<P::Output> {
        let this = self;
        let reactor = &*this.socket.reactor;
        if this.stage.is_flying() {
            // SAFETY: the socket is the same since it was made, and its reactor's driver has launched the flight.
            return unsafe { this.stage.poll(reactor, cx) };
        }
        if !this.stage.is_staged() {
            ended_already();
        }
        // Before it is known who goes on: what is taken at once need never have been in memory.
        // SAFETY: it has just been looked at.
        let argument = unsafe { this.take_argument() };
        if !reactor.may_go_on() {
            this.put_back(argument);
            return this.give_way(cx).map(|output| *output);
        }
        let submission = (this.make)(this.socket.fd, argument);
        // SAFETY: constructors of submissions keep the descriptor, and the socket is borrowed as long as `this`.
        unsafe { this.stage.start(reactor, submission, cx) }
    }
}

impl<A, P: Payload, F> Drop for Operation<'_, A, P, F> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.stage.has_ended() {
            self.drop_unfinished();
        }
    }
}

impl<A, P: Payload, F> Operation<'_, A, P, F> {
    #[cold]
    #[inline(never)]
    fn drop_unfinished(&mut self) {
        if self.stage.is_staged() {
            // SAFETY: it has just been looked at.
            drop(unsafe { self.take_argument() });
        } else if let Some(flight) = self.stage.take() {
            let reactor = &self.socket.reactor;
            // SAFETY: the socket's reactor's driver has launched it.
            abandon(reactor, unsafe { reactor.driver.key_of(flight) });
        }
    }
}

/// An operation that is held across polls, beside the object that it belongs to.
pub(crate) struct Pending<P: Payload>(Option<Key<P>>);

impl<P: Payload> Pending<P> {
    pub(crate) const fn none() -> Pending<P> {
        Pending(None)
    }

    /// Goes on with what is in flight already, if anything is.
    pub(crate) fn of(key: Option<Key<P>>) -> Pending<P> {
        Pending(key)
    }

    pub(crate) fn key(&self) -> Option<&Key<P>> {
        self.0.as_ref()
    }

    /// Submits, with nothing in flight before. Ready if it has ended at once.
    #[inline]
    pub(crate) fn start(
        &mut self,
        reactor: &Reactor,
        submission: Submission<P>,
        cx: Option<&mut Context<'_>>,
    ) -> Poll<P::Output> {
        debug_assert!(self.0.is_none());
        if reactor.has_ended() {
            return Poll::Ready(refuse(submission));
        }
        let token = cx.map_or(NOBODY, |cx| reactor.token_for(cx.waker()));
        match reactor.driver.start_now(submission, token) {
            Ok(Started::Done(output)) => {
                reactor.forget(token);
                Poll::Ready(output)
            }
            Ok(Started::Pending(key)) => {
                self.0 = Some(key);
                Poll::Pending
            }
            Err(refused) => Poll::Ready(*refused_now(reactor, refused, token)),
        }
    }

    /// Takes the outcome, or sees to it that whoever polls is woken. None when nothing is in flight.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        reactor: &Reactor,
        cx: &mut Context<'_>,
    ) -> Option<Poll<P::Output>> {
        let key = self.0.as_ref()?;
        if !reactor.driver.is_done(key) {
            reactor.wait_for(key, cx.waker());
            return Some(Poll::Pending);
        }
        let token = reactor.driver.token(key);
        let output = reactor.driver.take_if_done(&mut self.0)?;
        reactor.forget(token);
        Some(Poll::Ready(output))
    }

    /// Gives up what is in flight.
    #[inline]
    pub(crate) fn abandon(&mut self, reactor: &Reactor) {
        if let Some(key) = self.0.take() {
            abandon(reactor, key);
        }
    }

    /// Moves the operation out, for somebody else to wait for.
    pub(crate) fn take(&mut self, reactor: &Reactor) -> Pending<P> {
        if let Some(key) = &self.0 {
            reactor.wait_no_more(key);
        }
        Pending(self.0.take())
    }
}
