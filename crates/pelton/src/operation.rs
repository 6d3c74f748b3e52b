//! The future of one operation.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pelton_driver::{Key, Payload, Started, Submission};

use crate::reactor::{Place, Reactor};

/// An operation of a reactor's driver as a future. Submitted when it is first polled; dropped at any
/// moment, it is abandoned: what it owns stays with the driver until the kernel has let go.
pub(crate) struct Operation<'a, P: Payload> {
    reactor: &'a Rc<Reactor>,
    state: State<P>,
    place: Option<Place>,
}

enum State<P> {
    Staged(Submission<P>),
    InFlight(Key<P>),
    Ended,
}

impl<'a, P: Payload> Operation<'a, P> {
    #[inline(always)]
    pub(crate) fn new(reactor: &'a Rc<Reactor>, submission: Submission<P>) -> Operation<'a, P> {
        Operation { reactor, state: State::Staged(submission), place: None }
    }

    #[inline(always)]
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<P::Output> {
        if !self.reactor.may_go_on(cx.waker()) {
            return Poll::Pending;
        }
        let State::Staged(submission) = std::mem::replace(&mut self.state, State::Ended) else {
            unreachable!("an operation is started once")
        };
        let token = self.reactor.token_for(cx.waker(), &mut self.place);
        match start(self.reactor, submission, token) {
            Started::Done(output) => {
                self.forget_waker();
                Poll::Ready(output)
            }
            Started::Pending(key) => {
                self.state = State::InFlight(key);
                Poll::Pending
            }
        }
    }

    #[inline(always)]
    fn forget_waker(&mut self) {
        if let Some(place) = self.place.take() {
            self.reactor.forget_waker(place);
        }
    }
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
impl<P: Payload> Unpin for Operation<'_, P> {}

impl<P: Payload> Future for Operation<'_, P> {
    type Output = P::Output;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<P::Output> {
        let this = &mut *self;
        match std::mem::replace(&mut this.state, State::Ended) {
            staged @ State::Staged(_) => {
                this.state = staged;
                this.start(cx)
            }
            State::InFlight(key) => match this.reactor.driver.take(key) {
                Ok(output) => {
                    this.forget_waker();
                    Poll::Ready(output)
                }
                Err(key) => {
                    let token = this.reactor.token_for(cx.waker(), &mut this.place);
                    this.reactor.driver.set_token(&key, token);
                    this.state = State::InFlight(key);
                    Poll::Pending
                }
            },
            State::Ended => panic!("an operation was polled after it had ended"),
        }
    }
}

impl<P: Payload> Drop for Operation<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        if let State::InFlight(key) = std::mem::replace(&mut self.state, State::Ended) {
            self.reactor.driver.abandon(key);
        }
        self.forget_waker();
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
        let key = self.key.take()?;
        Some(match reactor.driver.take(key) {
            Ok(output) => {
                self.forget_waker(reactor);
                Poll::Ready(output)
            }
            Err(key) => {
                self.set_waker(reactor, &key, cx);
                self.key = Some(key);
                Poll::Pending
            }
        })
    }

    fn set_waker(&mut self, reactor: &Reactor, key: &Key<P>, cx: &mut Context<'_>) {
        let token = reactor.token_for(cx.waker(), &mut self.place);
        reactor.driver.set_token(key, token);
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
