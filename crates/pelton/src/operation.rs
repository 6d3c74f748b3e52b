//! The future of one operation.

use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pelton_driver::{Fd, Key, Payload, Refused, Submission, Token};

use crate::reactor::{MayGoOn, Reactor};
use crate::socket::Socket;

/// An operation on a socket's descriptor as a future. Submitted when it is first polled; dropped at any
/// moment, it is abandoned: what it owns stays with the driver until the kernel has let go.
///
/// Which operation it is, is a function from the descriptor and an argument, most often a constructor of
/// [`Submission`], so that the compiler knows it wherever this is polled. The argument is there until the
/// operation is submitted, the key while it is in flight.
pub(crate) struct Operation<'a, A, P: Payload, F> {
    socket: &'a Socket,
    /// Dropped by hand, so that the drop of one that has ended is two looks and no call.
    argument: ManuallyDrop<Option<A>>,
    key: Option<Key<P>>,
    make: F,
}

impl<'a, A, P: Payload, F: Fn(Fd, A) -> Submission<P>> Operation<'a, A, P, F> {
    #[inline(always)]
    pub(crate) fn new(socket: &'a Socket, argument: A, make: F) -> Operation<'a, A, P, F> {
        Operation { socket, argument: ManuallyDrop::new(Some(argument)), key: None, make }
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

    /// Submits it. Pending when it is in flight; ready when its outcome can be taken, or says why there is none.
    #[inline(always)]
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Output>> {
        let reactor = &*self.socket.reactor;
        let may = reactor.may_go_on(cx.waker());
        if may == MayGoOn::Later {
            return Poll::Pending;
        }
        let argument = self.argument.take().expect("an operation is polled until it has ended");
        let submission = (self.make)(self.socket.fd, argument);
        if may == MayGoOn::Never {
            return Poll::Ready(Err(refuse(submission)));
        }
        start(reactor, submission, cx, &mut self.key)
    }
}

/// Gives up an operation.
#[cold]
pub(crate) fn abandon<P: Payload>(reactor: &Reactor, key: Key<P>) {
    let token = reactor.driver.token(&key);
    reactor.driver.abandon(key);
    reactor.forget(token);
}

/// Takes the outcome, or sees to it that whoever polls is woken.
#[inline(always)]
pub(crate) fn take_or_wait<P: Payload>(
    reactor: &Reactor,
    key: &mut Option<Key<P>>,
    cx: &mut Context<'_>,
) -> Poll<P::Output> {
    let mut token = Token::NONE;
    let polled = reactor.driver.poll_take(key, &mut token);
    match &polled {
        Poll::Ready(_) => reactor.forget(token),
        Poll::Pending => wait(reactor, key, cx),
    }
    polled
}

fn wait<P: Payload>(reactor: &Reactor, key: &Option<Key<P>>, cx: &mut Context<'_>) {
    if let Some(key) = key {
        reactor.wait_for(key, cx.waker());
    }
}

/// Submits an operation of a reactor that has not ended, for whoever polls. Pending when it is in flight;
/// ready when its outcome can be taken with the key; a refusal is an outcome too, and leaves no key.
#[inline(always)]
pub(crate) fn start<P: Payload>(
    reactor: &Reactor,
    submission: Submission<P>,
    cx: &mut Context<'_>,
    key: &mut Option<Key<P>>,
) -> Poll<Result<(), P::Output>> {
    start_for(reactor, submission, reactor.token_for(cx.waker()), key)
}

#[inline(always)]
fn start_for<P: Payload>(
    reactor: &Reactor,
    submission: Submission<P>,
    token: Token,
    key: &mut Option<Key<P>>,
) -> Poll<Result<(), P::Output>> {
    match reactor.driver.submit_and_look(submission, token) {
        Ok((made, ended)) => {
            *key = Some(made);
            if ended { Poll::Ready(Ok(())) } else { Poll::Pending }
        }
        Err(refused) => Poll::Ready(Err(refused_now(reactor, refused, token))),
    }
}

#[cold]
#[inline(never)]
fn refused_now<P: Payload>(reactor: &Reactor, refused: Refused<P>, token: Token) -> P::Output {
    reactor.forget(token);
    refused.into_output()
}

/// The outcome of an operation of a reactor that has ended.
#[cold]
#[inline(never)]
pub(crate) fn refuse<P: Payload>(submission: Submission<P>) -> P::Output {
    submission.refuse(ended())
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
        if this.key.is_none()
            && let Err(output) = ready!(this.start(cx))
        {
            return Poll::Ready(output);
        }
        take_or_wait(&this.socket.reactor, &mut this.key, cx)
    }
}

impl<A, P: Payload, F> Drop for Operation<'_, A, P, F> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.key.is_some() || self.argument.is_some() {
            self.drop_unfinished();
        }
    }
}

impl<A, P: Payload, F> Operation<'_, A, P, F> {
    #[cold]
    fn drop_unfinished(&mut self) {
        // Its drop is user code: last.
        let argument = self.argument.take();
        if let Some(key) = self.key.take() {
            abandon(&self.socket.reactor, key);
        }
        drop(argument);
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
        let token = cx.map_or(Token::NONE, |cx| reactor.token_for(cx.waker()));
        match ready!(start_for(reactor, submission, token, &mut self.0)) {
            Ok(()) => {
                let mut token = Token::NONE;
                let polled = reactor.driver.poll_take(&mut self.0, &mut token);
                reactor.forget(token);
                polled
            }
            Err(output) => Poll::Ready(output),
        }
    }

    /// Takes the outcome, or sees to it that whoever polls is woken. None when nothing is in flight.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        reactor: &Reactor,
        cx: &mut Context<'_>,
    ) -> Option<Poll<P::Output>> {
        self.0.as_ref()?;
        Some(take_or_wait(reactor, &mut self.0, cx))
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
