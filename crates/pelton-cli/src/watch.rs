//! The time limits of connections, and their end.
//!
//! A timer for each connection would be armed and disarmed with each request. Instead a connection
//! notes when it last did something, which costs a store, and a reactor looks through all of them
//! once a second. A limit is therefore kept to about a second, which is enough for limits of many
//! seconds.
//!
//! Everything here belongs to one reactor. A connection's own future is the only one that ends it:
//! a verdict is left in its [`Vitals`] and its future is woken.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Write};

/// How long a connection may take over what; `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the first byte of a request, or from the start of the connection, to the end of the
    /// head.
    pub(crate) head: Option<Duration>,
    /// Between two requests.
    pub(crate) idle: Option<Duration>,
    /// For the peer to take what is being sent to it. While nothing waits to be sent, because the
    /// answer is still being made, no time counts: that is not the peer's fault.
    pub(crate) send: Option<Duration>,
    /// For the peer to stop sending after its connection was closed on our side.
    pub(crate) linger: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let seconds = Duration::from_secs;
        let some = |n| Some(seconds(n));
        Limits { head: some(10), idle: some(60), send: some(60), linger: seconds(2) }
    }
}

/// What a connection is doing, since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Accepted, and nothing has come yet: a head must.
    New,
    /// A head has begun.
    Head,
    /// Between the head of a request and the end of its response.
    Busy,
    /// Between two requests.
    Idle,
    /// After our last byte.
    Lingering,
}

/// What a connection's future is asked to do, the harder the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Say with the next response that it is the last, and end after it.
    Drain,
    /// End where there is no request, and after the response otherwise.
    Leave,
    /// End now.
    End,
}

/// The signs of life of one connection.
#[derive(Debug)]
pub(crate) struct Vitals {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    verdict: Cell<Option<Verdict>>,
    waker: RefCell<Option<Waker>>,
    /// A part of an answer waits for the peer to take the one before it.
    blocked: Cell<bool>,
    /// The peer may still be sending what nobody will answer.
    linger: Cell<bool>,
}

impl Vitals {
    /// A connection that was accepted at `now`.
    pub(crate) fn new(now: Instant) -> Vitals {
        Vitals {
            phase: Cell::new(Phase::New),
            since: Cell::new(now),
            verdict: Cell::new(None),
            waker: RefCell::new(None),
            blocked: Cell::new(false),
            linger: Cell::new(false),
        }
    }

    /// Bytes went in or out.
    pub(crate) fn moved(&self, inwards: bool, now: Instant) {
        match self.phase.get() {
            // What comes in meanwhile is no sign that anything is taken.
            Phase::Busy if inwards => {}
            Phase::Busy => self.enter(Phase::Busy, now),
            Phase::Idle if inwards => self.enter(Phase::Head, now),
            Phase::New if inwards => self.phase.set(Phase::Head),
            // The limit of a head is for the whole head, and that of lingering for the whole of it:
            // a byte now and then extends neither.
            Phase::New | Phase::Head | Phase::Lingering | Phase::Idle => {}
        }
    }

    /// A part of an answer cannot be sent yet.
    pub(crate) fn blocked(&self, now: Instant) {
        if !self.blocked.replace(true) && self.phase.get() == Phase::Busy {
            self.since.set(now);
        }
    }

    /// A head was read.
    pub(crate) fn asked(&self, now: Instant) {
        self.enter(Phase::Busy, now);
    }

    /// A response was handed over to the last byte.
    pub(crate) fn answered(&self, now: Instant) {
        if self.phase.get() == Phase::Busy {
            self.enter(Phase::Idle, now);
        }
    }

    /// Whether to read on for a while after the end, so that the peer sees the answer and not a
    /// reset.
    pub(crate) fn lingers(&self) -> bool {
        self.linger.get()
    }

    /// The peer may be sending still when our side closes: what was refused, or requests behind
    /// the last one that is answered.
    pub(crate) fn let_linger(&self) {
        self.linger.set(true);
    }

    /// Whether the next response has to be the last one.
    pub(crate) fn is_asked_to_leave(&self) -> bool {
        self.verdict.get().is_some()
    }

    /// Whether nothing has come yet.
    pub(crate) fn is_new(&self) -> bool {
        self.phase.get() == Phase::New
    }

    /// Whether the head of a request is coming, which deserves its answer.
    pub(crate) fn is_being_asked(&self) -> bool {
        self.phase.get() == Phase::Head
    }

    /// Our side is closed.
    pub(crate) fn closed(&self, now: Instant) {
        self.enter(Phase::Lingering, now);
    }

    /// The verdict, if there is one; otherwise remembers whom to wake when there is.
    pub(crate) fn verdict(&self, cx: &mut Context<'_>) -> Option<Verdict> {
        let verdict = self.verdict.get();
        if verdict != Some(Verdict::End) {
            let mut waker = self.waker.borrow_mut();
            match &mut *waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
        }
        verdict
    }

    fn enter(&self, phase: Phase, now: Instant) {
        self.phase.set(phase);
        self.since.set(now);
        self.blocked.set(false);
    }

    fn is_over(&self, limits: &Limits, now: Instant) -> bool {
        let limit = match self.phase.get() {
            Phase::New | Phase::Head => limits.head,
            Phase::Busy => limits.send.filter(|_| self.blocked.get()),
            Phase::Idle => limits.idle,
            Phase::Lingering => Some(limits.linger),
        };
        limit.is_some_and(|limit| now.saturating_duration_since(self.since.get()) >= limit)
    }

    fn judge(&self, verdict: Verdict) {
        if self.verdict.get() >= Some(verdict) {
            return;
        }
        self.verdict.set(Some(verdict));
        // Taken out first: to wake is to run code that may come back here.
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The connections of one reactor.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: RefCell<HashMap<u64, Rc<Vitals>>>,
    next: Cell<u64>,
    draining: Cell<bool>,
    /// Who waits for the last one to leave.
    empty: RefCell<Option<Waker>>,
    /// Who waits for one to come.
    any: RefCell<Option<Waker>>,
}

/// A place among the [`Connections`], given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Rc<Connections>,
    number: u64,
    vitals: Rc<Vitals>,
}

impl Place {
    pub(crate) fn vitals(&self) -> &Rc<Vitals> {
        &self.vitals
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.borrow_mut();
        open.remove(&self.number);
        // A crowd that has gone leaves no room reserved for it.
        if open.len() * 8 < open.capacity() && open.capacity() > 64 {
            open.shrink_to(64);
        }
        let empty = open.is_empty();
        drop(open);
        let waker = if empty { self.connections.empty.borrow_mut().take() } else { None };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Connections {
    /// Connections open now.
    pub(crate) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Enters a connection, unless there are `most` already.
    pub(crate) fn enter(self: &Rc<Self>, most: usize, now: Instant) -> Option<Place> {
        if self.len() >= most {
            return None;
        }
        let vitals = Rc::new(Vitals::new(now));
        if self.draining.get() {
            vitals.judge(Verdict::Drain);
        }
        let number = self.next.replace(self.next.get() + 1);
        self.open.borrow_mut().insert(number, Rc::clone(&vitals));
        let waker = self.any.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(Place { connections: Rc::clone(self), number, vitals })
    }

    /// Ends those that are over a limit. Returns how many.
    pub(crate) fn sweep(&self, limits: &Limits, now: Instant) -> u64 {
        let over: Vec<_> =
            self.open.borrow().values().filter(|v| v.is_over(limits, now)).cloned().collect();
        let mut ended = 0;
        for vitals in over {
            ended += u64::from(vitals.verdict.get() != Some(Verdict::End));
            vitals.judge(Verdict::End);
        }
        ended
    }

    /// Makes the next response of each the last one, and of those that come after.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        self.judge_all(Verdict::Drain);
    }

    /// Ends those that have no request.
    pub(crate) fn leave(&self) {
        self.judge_all(Verdict::Leave);
    }

    /// Ends all now.
    pub(crate) fn end(&self) {
        self.judge_all(Verdict::End);
    }

    /// Ready when no connection is open.
    pub(crate) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.open.borrow().is_empty() {
            return Poll::Ready(());
        }
        *self.empty.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when a connection is open.
    pub(crate) fn poll_any(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.open.borrow().is_empty() {
            return Poll::Ready(());
        }
        *self.any.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn judge_all(&self, verdict: Verdict) {
        let all: Vec<_> = self.open.borrow().values().cloned().collect();
        for vitals in all {
            vitals.judge(verdict);
        }
    }
}

/// A transport that reports its signs of life.
#[derive(Debug)]
pub(crate) struct Watched<I> {
    pub(crate) io: I,
    pub(crate) vitals: Rc<Vitals>,
}

impl<I: Read + Unpin> Read for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        // The end of the stream counts as well, which does no harm: hyper is done with it then.
        if let Poll::Ready(Ok(())) = result {
            self.vitals.moved(true, Instant::now());
        }
        result
    }
}

impl<I: Write + Unpin> Watched<I> {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(1..)) => self.vitals.moved(false, Instant::now()),
            Poll::Pending => self.vitals.blocked(Instant::now()),
            Poll::Ready(_) => {}
        }
        result
    }
}

impl<I: Write + Unpin> Write for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    const LIMITS: Limits = Limits {
        head: Some(Duration::from_secs(10)),
        idle: Some(Duration::from_secs(60)),
        send: Some(Duration::from_secs(30)),
        linger: Duration::from_secs(2),
    };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// When, in seconds after `start`, a sweep ends the connection.
    fn ends_at(vitals: &Vitals, start: Instant) -> u64 {
        (0..1000).find(|&s| vitals.is_over(&LIMITS, after(start, s))).expect("never ends")
    }

    #[test]
    fn each_phase_has_its_limit() {
        let t0 = Instant::now();
        let v = Vitals::new(t0);
        assert_eq!(ends_at(&v, t0), 10, "a head must come");
        assert!(v.is_new());
        v.moved(true, after(t0, 5));
        assert!(v.is_being_asked() && !v.is_new());
        v.moved(true, after(t0, 9));
        assert_eq!(ends_at(&v, t0), 10, "drips do not extend the limit of a head");
        v.asked(after(t0, 9));
        v.blocked(after(t0, 12));
        assert_eq!(ends_at(&v, t0), 42, "the peer does not take what it asked for");
        v.blocked(after(t0, 15));
        v.moved(true, after(t0, 16));
        assert_eq!(ends_at(&v, t0), 42, "nor do more tries or what it says take it");
        v.moved(false, after(t0, 20));
        v.blocked(after(t0, 22));
        assert_eq!(ends_at(&v, t0), 52, "what is taken extends a response");
        v.moved(false, after(t0, 25));
        v.answered(after(t0, 30));
        assert_eq!(ends_at(&v, t0), 90, "idle");
        v.moved(false, after(t0, 40));
        assert_eq!(ends_at(&v, t0), 90, "our own last bytes are no request");
        v.moved(true, after(t0, 80));
        assert_eq!(ends_at(&v, t0), 90, "the next head");
        v.asked(after(t0, 85));
        v.closed(after(t0, 90));
        v.moved(true, after(t0, 91));
        // The response of a connection that was cut is dropped late: it is not idle again.
        v.answered(after(t0, 91));
        assert_eq!(ends_at(&v, t0), 92, "lingering ends");
    }

    #[test]
    fn a_slow_answer_is_not_the_peers_fault() {
        let t0 = Instant::now();
        let v = Vitals::new(t0);
        v.asked(after(t0, 1));
        assert!(!v.is_over(&LIMITS, after(t0, 100_000)), "nothing was there to be sent");
        v.moved(false, after(t0, 100_000));
        assert!(!v.is_over(&LIMITS, after(t0, 200_000)), "a part, and the next is being made");
        v.blocked(after(t0, 200_000));
        assert!(!v.is_over(&LIMITS, after(t0, 200_029)));
        assert!(v.is_over(&LIMITS, after(t0, 200_030)), "now it is the peer who is waited for");
        // What could not be sent at once before the head counts for nothing later.
        let v = Vitals::new(t0);
        v.blocked(t0);
        v.asked(after(t0, 5));
        assert!(!v.is_over(&LIMITS, after(t0, 1000)));
    }

    #[test]
    fn without_a_limit_no_phase_but_the_last_ends() {
        let never = Limits { head: None, idle: None, send: None, ..LIMITS };
        let t0 = Instant::now();
        let (late, v) = (after(t0, 1 << 30), Vitals::new(t0));
        assert!(!v.is_over(&never, late), "new");
        v.moved(true, t0);
        assert!(!v.is_over(&never, late), "in a head");
        v.asked(t0);
        v.blocked(t0);
        assert!(v.is_over(&LIMITS, late) && !v.is_over(&never, late), "sending");
        v.answered(t0);
        assert!(!v.is_over(&never, late), "idle");
        v.closed(t0);
        assert!(v.is_over(&never, late), "who lingers has nothing to come any more");
    }

    #[test]
    fn a_verdict_wakes_once_and_the_hardest_stands() {
        let t0 = Instant::now();
        let connections = Rc::new(Connections::default());
        let place = connections.enter(8, t0).unwrap();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        assert_eq!(place.vitals().verdict(&mut cx), None);
        connections.drain();
        assert_eq!(count.0.load(Relaxed), 1);
        assert_eq!(place.vitals().verdict(&mut cx), Some(Verdict::Drain));
        assert_eq!(connections.sweep(&LIMITS, after(t0, 10)), 1);
        assert_eq!(count.0.load(Relaxed), 2);
        assert_eq!(place.vitals().verdict(&mut cx), Some(Verdict::End));
        connections.drain();
        connections.leave();
        assert_eq!(place.vitals().verdict(&mut cx), Some(Verdict::End));
        assert_eq!(connections.sweep(&LIMITS, after(t0, 10)), 0, "counted once");
    }

    #[test]
    fn the_cap_holds_and_a_place_is_usable_again() {
        let now = Instant::now();
        let connections = Rc::new(Connections::default());
        let mut places: Vec<_> = (0..3).map(|_| connections.enter(3, now).unwrap()).collect();
        assert!(connections.enter(3, now).is_none());
        places.remove(1);
        let again = connections.enter(3, now).unwrap();
        assert_eq!(connections.len(), 3);
        drop((again, places));
        assert_eq!(connections.len(), 0);
    }

    #[test]
    fn the_last_one_out_wakes_who_waits_for_the_end() {
        let now = Instant::now();
        let connections = Rc::new(Connections::default());
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        assert!(connections.poll_empty(&mut cx).is_ready());
        assert!(connections.poll_any(&mut cx).is_pending());
        let (a, b) = (connections.enter(9, now).unwrap(), connections.enter(9, now).unwrap());
        assert_eq!(count.0.swap(0, Relaxed), 1, "one has come");
        assert!(connections.poll_any(&mut cx).is_ready());
        assert!(connections.poll_empty(&mut cx).is_pending());
        drop(a);
        assert_eq!(count.0.load(Relaxed), 0);
        drop(b);
        assert_eq!(count.0.load(Relaxed), 1);
        assert!(connections.poll_empty(&mut cx).is_ready());
        // One that comes while all are asked to leave is asked as well.
        connections.drain();
        let late = connections.enter(9, now).unwrap();
        assert_eq!(late.vitals().verdict(&mut cx), Some(Verdict::Drain));
    }
}
