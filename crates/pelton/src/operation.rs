//! The future of one operation.

use std::pin::Pin;
use std::task::{Context, Poll};

use pelton_driver::{Fd, Key, Payload, Started, Submission};

use crate::reactor::{Place, Reactor};
use crate::socket::Socket;

/// An operation on a socket's descriptor as a future. Submitted when it is first polled; dropped at any
/// moment, it is abandoned: what it owns stays with the driver until the kernel has let go.
///
/// Which operation it is, is a function from the descriptor and an argument, most often a constructor of
/// [`Submission`], so that the compiler knows it wherever this is polled. The argument is there until the
/// operation is submitted, the key while it is in flight.
pub(crate) struct Operation<'a, A, P: Payload, F> {
    socket: &'a Socket,
    argument: Option<A>,
    key: Option<Key<P>>,
    place: Option<Place>,
    make: F,
}

impl<'a, A, P: Payload, F: Fn(Fd, A) -> Submission<P>> Operation<'a, A, P, F> {
    #[inline(always)]
    pub(crate) fn new(socket: &'a Socket, argument: A, make: F) -> Operation<'a, A, P, F> {
        Operation { socket, argument: Some(argument), key: None, place: None, make }
    }

    /// True until it is submitted.
    #[inline(always)]
    pub(crate) fn is_staged(&self) -> bool {
        self.argument.is_some()
    }

    /// Takes the argument back, instead of submitting.
    pub(crate) fn take_argument(&mut self) -> A {
        self.argument.take().expect("it has not been submitted")
    }

    #[inline(always)]
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<P::Output> {
        let reactor = &*self.socket.reactor;
        if !reactor.may_go_on(cx.waker()) {
            return Poll::Pending;
        }
        let argument = self.argument.take().expect("an operation is polled until it has ended");
        let token = reactor.token_for(cx.waker(), &mut self.place);
        match start(reactor, (self.make)(self.socket.fd, argument), token) {
            Started::Done(output) => {
                forget_waker(reactor, &mut self.place);
                Poll::Ready(output)
            }
            Started::Pending(key) => {
                self.key = Some(key);
                Poll::Pending
            }
        }
    }
}

/// Forgets the waker that was kept in the reactor's table, if one was.
#[inline(always)]
pub(crate) fn forget_waker(reactor: &Reactor, place: &mut Option<Place>) {
    if let Some(place) = place.take() {
        reactor.forget_waker(place);
    }
}

#[cold]
fn abandon<P: Payload>(reactor: &Reactor, key: Key<P>) {
    reactor.driver.abandon(key);
}

/// Submits an operation; a refusal is its outcome.
#[inline(always)]
pub(crate) fn start<P: Payload>(
    reactor: &Reactor,
    submission: Submission<P>,
    token: pelton_driver::Token,
) -> Started<P> {
    if reactor.has_ended() {
        return Started::Done(submission.refuse(ended()));
    }
    match reactor.driver.start_now(submission, token) {
        Ok(started) => started,
        Err(refused) => Started::Done(refused.into_output()),
    }
}

#[cold]
fn ended() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the reactor of this object has ended")
}

// Nothing in it is borrowed by the kernel: that is all in the driver.
impl<A, P: Payload, F> Unpin for Operation<'_, A, P, F> {}

impl<A, P: Payload, F: Fn(Fd, A) -> Submission<P>> Future for Operation<'_, A, P, F> {
    type Output = P::Output;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<P::Output> {
        let this = &mut *self;
        if this.key.is_none() {
            return this.start(cx);
        }
        let reactor = &*this.socket.reactor;
        match reactor.driver.take_if_done(&mut this.key) {
            Some(output) => {
                forget_waker(reactor, &mut this.place);
                Poll::Ready(output)
            }
            None => {
                if let Some(key) = &this.key {
                    let token = reactor.token_for(cx.waker(), &mut this.place);
                    reactor.driver.set_token(key, token);
                }
                Poll::Pending
            }
        }
    }
}

impl<A, P: Payload, F> Drop for Operation<'_, A, P, F> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            abandon(&self.socket.reactor, key);
        }
        forget_waker(&self.socket.reactor, &mut self.place);
    }
}

/// An operation that is held across polls, beside the object that it belongs to.
pub(crate) struct Pending<P: Payload> {
    key: Option<Key<P>>,
    place: Option<Place>,
}

impl<P: Payload> Pending<P> {
    pub(crate) const fn none() -> Pending<P> {
        Pending { key: None, place: None }
    }

    /// Goes on with what is in flight already, if anything is.
    pub(crate) fn of(key: Option<Key<P>>) -> Pending<P> {
        Pending { key, place: None }
    }

    pub(crate) fn key(&self) -> Option<&Key<P>> {
        self.key.as_ref()
    }

    /// Submits, with nothing in flight before. Ready if it has ended at once.
    pub(crate) fn start(
        &mut self,
        reactor: &Reactor,
        submission: Submission<P>,
        cx: Option<&mut Context<'_>>,
    ) -> Poll<P::Output> {
        debug_assert!(self.key.is_none());
        let token = match cx {
            Some(cx) => reactor.token_for(cx.waker(), &mut self.place),
            None => pelton_driver::Token::NONE,
        };
        match start(reactor, submission, token) {
            Started::Done(output) => {
                self.forget_waker(reactor);
                Poll::Ready(output)
            }
            Started::Pending(key) => {
                self.key = Some(key);
                Poll::Pending
            }
        }
    }

    /// Takes the outcome, or sees to it that whoever polls is woken. None when nothing is in flight.
    pub(crate) fn poll(
        &mut self,
        reactor: &Reactor,
        cx: &mut Context<'_>,
    ) -> Option<Poll<P::Output>> {
        self.key.as_ref()?;
        Some(match reactor.driver.take_if_done(&mut self.key) {
            Some(output) => {
                self.forget_waker(reactor);
                Poll::Ready(output)
            }
            None => {
                if let Some(key) = &self.key {
                    let token = reactor.token_for(cx.waker(), &mut self.place);
                    reactor.driver.set_token(key, token);
                }
                Poll::Pending
            }
        })
    }

    /// Gives up what is in flight.
    pub(crate) fn abandon(&mut self, reactor: &Reactor) {
        if let Some(key) = self.key.take() {
            reactor.driver.abandon(key);
        }
        self.forget_waker(reactor);
    }

    /// Moves the operation out, for somebody else to wait for.
    pub(crate) fn take(&mut self, reactor: &Reactor) -> Pending<P> {
        self.forget_waker(reactor);
        Pending { key: self.key.take(), place: None }
    }

    fn forget_waker(&mut self, reactor: &Reactor) {
        if let Some(place) = self.place.take() {
            reactor.forget_waker(place);
        }
    }
}
