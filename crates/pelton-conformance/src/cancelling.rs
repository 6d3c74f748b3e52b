//! Cancelling and abandoning: each operation ends once, owns its buffer until then, and nothing is lost.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use pelton_driver::{
    Completion, Fd, Interest, IoBuf, IoBufMut, Kind, ListenOptions, OpId, Payload, Spare,
    Submission,
};

use crate::registry::behaviours;
use crate::{Bench, Rig, errno};

behaviours! {
    "each kind that waits is cancelled and ends once, as cancelled" => each_kind_that_waits_is_cancelled
        [Libxev "recv cancellation", Libxev "accept cancellation", ReseauMain "wait_canceled"];
    "each kind that is cancelled before the kernel has seen it ends once" => each_kind_is_cancelled_before_the_kernel_saw_it
        [Libxev "timer reset before tick"];
    "each kind that is abandoned leaves nothing" => each_kind_that_is_abandoned_leaves_nothing
        [Ioxide "CoreTests: DecRef-then-throw", Aws "future: can die incomplete"];
    "everything in flight can be cancelled at once" => everything_can_be_cancelled_at_once
        [ReseauMain "shutdown wakes timer waiters, cancels waiters and timers"];
    "a cancel finds what is in flight and nothing else" => a_cancel_finds_what_is_in_flight
        [Libxev "cancel a completed op"];
    "the name of one that has ended reaches nobody else" => an_old_name_reaches_nobody
        [ReseauMain "stale token suppression"];
    "a cancel in a callback ends what is ready in the same batch once" => a_cancel_in_a_callback
        [Aws "event_loop_no_events_after_unsubscribe"];
    "cancelling all on a descriptor counts and ends them, and spares the others" => cancelling_all_on_a_descriptor
        [ReseauMain "close evicts blocked waiters"];
    "a buffer is dropped once, and not before the operation has ended" => a_buffer_is_dropped_once
        [Ioxide "SendInFlightRecycleTests"];
    "a buffer may run the driver when it is dropped" => a_buffer_may_run_the_driver
        [Aws "cleanup_in_write_cb_doesnt_explode"];
    "a thousand cancels leave no operation" => a_thousand_cancels_leave_no_operation
        [Reseau "cancel-schedule churn on the same id"];
}

/// What an operation yields, reduced to its error.
trait Ended {
    fn errno(self) -> i32;
}
impl<T> Ended for io::Result<T> {
    fn errno(self) -> i32 {
        errno(self)
    }
}
impl<T, B> Ended for (io::Result<T>, B) {
    fn errno(self) -> i32 {
        errno(self.0)
    }
}

/// An operation that waits for something that does not happen.
struct Waiting {
    kind: Kind,
    id: OpId,
    abandon: Box<dyn FnOnce(&Rig)>,
    /// Takes the outcome and says with which error it ended.
    take: Box<dyn FnOnce(&Rig) -> i32>,
}

fn waiting<P>(driver: &Rig, submission: Submission<P>) -> Waiting
where
    P: Payload,
    P::Output: Ended,
{
    let kind = submission.op().kind();
    let key = driver.go_for(submission, kind as usize);
    let id = key.id();
    let key = Rc::new(RefCell::new(Some(key)));
    let same = key.clone();
    Waiting {
        kind,
        id,
        abandon: Box::new(move |driver| driver.abandon(key.take().unwrap())),
        take: Box::new(move |driver| driver.end(same.take().unwrap()).errno()),
    }
}

/// One of each kind that can wait.
fn every_kind(driver: &Rig) -> Vec<Waiting> {
    let silent = |driver: &Rig| driver.local_pair().0;
    let full = |driver: &Rig| {
        let (one, _other) = driver.local_pair();
        driver.fill(one);
        one
    };
    let options = ListenOptions { backlog: 0, ..ListenOptions::default() };
    let (_, hanging) = driver.listening_on("127.0.0.1:0", options);
    driver.connected(hanging);
    let hour = driver.now() + Duration::from_secs(3600);
    let (one, two, three) = (full(driver), full(driver), full(driver));
    vec![
        waiting(driver, Submission::accept(driver.listening().0)),
        waiting(driver, Submission::accept_multi(driver.listening().0)),
        waiting(driver, Submission::connect(driver.socket(hanging), hanging)),
        waiting(driver, Submission::recv(silent(driver), [0; 8])),
        waiting(driver, Submission::recv(silent(driver), vec![0; 100].into_boxed_slice())),
        waiting(driver, Submission::recv_pooled(silent(driver))),
        waiting(driver, Submission::recv_multi(silent(driver))),
        waiting(driver, Submission::recv_vectored(silent(driver), [[0; 8]; 2])),
        waiting(driver, Submission::send_all(one, vec![1; 100_000])),
        waiting(driver, Submission::send_vectored(two, vec![vec![1; 1000]; 2])),
        waiting(driver, Submission::poll(three, Interest::Writable)),
        waiting(driver, Submission::poll(silent(driver), Interest::Readable)),
        waiting(driver, Submission::timeout(hour)),
        waiting(driver, Submission::wake()),
    ]
}

fn ends(told: &[Completion], id: OpId) -> usize {
    told.iter().filter(|told| told.id == id && !told.more).count()
}

fn all_end_as_cancelled(driver: &Rig, all: Vec<Waiting>) {
    let mut told = driver.until(|| driver.snapshot().in_flight_total() == 0);
    told.extend(driver.settle());
    for waiting in all {
        assert_eq!(ends(&told, waiting.id), 1, "{:?} ends once", waiting.kind);
        assert_eq!((waiting.take)(driver), pelton_driver::errno::ECANCELED, "{:?}", waiting.kind);
    }
}

fn each_kind_that_waits_is_cancelled(on: &Bench) {
    let driver = on.driver();
    let all = every_kind(&driver);
    assert!(driver.settle().is_empty(), "they wait");
    for waiting in &all {
        assert!(driver.cancel(waiting.id), "{:?}", waiting.kind);
        driver.cancel(waiting.id);
    }
    all_end_as_cancelled(&driver, all);
}

fn each_kind_is_cancelled_before_the_kernel_saw_it(on: &Bench) {
    let driver = on.driver();
    let all = every_kind(&driver);
    for waiting in &all {
        driver.cancel(waiting.id);
    }
    all_end_as_cancelled(&driver, all);
}

fn each_kind_that_is_abandoned_leaves_nothing(on: &Bench) {
    for in_the_kernel in [true, false] {
        let driver = on.driver();
        let all = every_kind(&driver);
        let ids: Vec<OpId> = all.iter().map(|waiting| waiting.id).collect();
        if in_the_kernel {
            driver.settle();
        }
        for waiting in all {
            (waiting.abandon)(&driver);
        }
        let told = driver.settle();
        assert!(ids.iter().all(|id| told.iter().all(|told| told.id != *id)), "nobody is told");
        assert_eq!((driver.operations(), driver.snapshot().in_flight_total()), (0, 0));
    }
}

fn everything_can_be_cancelled_at_once(on: &Bench) {
    let driver = on.driver();
    let all = every_kind(&driver);
    driver.settle();
    driver.cancel_all();
    driver.cancel_all();
    all_end_as_cancelled(&driver, all);
}

fn a_cancel_finds_what_is_in_flight(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    let recv = driver.go(Submission::recv(other, [0; 8]));
    let id = recv.id();
    driver.settle();
    assert_eq!(driver.run(Submission::cancel(id)).unwrap(), 0);
    assert_eq!(errno(driver.end(recv).0), pelton_driver::errno::ECANCELED);
    assert_eq!(errno(driver.run(Submission::cancel(id))), pelton_driver::errno::ENOENT);
    // One that has ended and was not taken.
    driver.send(one, "x");
    let recv = driver.go(Submission::recv(other, [0; 8]));
    driver.until(|| driver.is_done(&recv));
    assert!(!driver.cancel(recv.id()));
    assert_eq!(errno(driver.run(Submission::cancel(recv.id()))), pelton_driver::errno::ENOENT);
    assert_eq!(driver.take(recv).unwrap().0.unwrap(), 1, "its outcome is what it was");
}

fn an_old_name_reaches_nobody(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    let mut old = Vec::new();
    for _ in 0..100 {
        let nop = driver.go(Submission::nop());
        old.push(nop.id());
        driver.end(nop).unwrap();
    }
    // In the slot that all of them had.
    let recv = driver.go(Submission::recv(other, [0; 8]));
    driver.settle();
    for id in old {
        assert!(id != recv.id() && !driver.cancel(id));
    }
    driver.settle();
    assert!(!driver.is_done(&recv));
    driver.send(one, "x");
    assert_eq!(driver.end(recv).0.unwrap(), 1);
}

fn a_cancel_in_a_callback(on: &Bench) {
    let driver = on.driver();
    let pairs: Vec<_> = (0..6).map(|_| driver.local_pair()).collect();
    let keys: Vec<_> = pairs
        .iter()
        .enumerate()
        .map(|(n, pair)| driver.go_for(Submission::recv(pair.1, [0; 8]), n + 1))
        .collect();
    driver.settle();
    let sends: Vec<_> =
        pairs.iter().map(|pair| driver.go_for(Submission::send_all(pair.0, "x"), 0)).collect();
    let (told, first) = (RefCell::new(vec![0; 7]), Cell::new(true));
    driver.watch(
        |completion| {
            let n = completion.token.as_number();
            told.borrow_mut()[n] += 1;
            if n > 0 && first.replace(false) {
                for key in &keys {
                    driver.cancel(key.id());
                }
            }
        },
        || told.borrow().iter().sum::<u32>() == 12,
    );
    assert!(driver.settle().is_empty());
    assert_eq!(*told.borrow(), [6, 1, 1, 1, 1, 1, 1], "each once");
    for (key, pair) in keys.into_iter().zip(&pairs) {
        match driver.take(key).unwrap().0 {
            Ok(n) => assert_eq!(n, 1),
            // It was not received: the next one gets it.
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(pelton_driver::errno::ECANCELED));
                assert_eq!(driver.receive(pair.1, 1), b"x");
            }
        }
    }
    for send in sends {
        driver.end(send).0.unwrap();
    }
}

fn cancelling_all_on_a_descriptor(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    driver.fill(one);
    let recv = driver.go(Submission::recv(one, [0; 8]));
    let send = driver.go(Submission::send_all(one, "x"));
    let poll = driver.go(Submission::poll(one, Interest::Writable));
    let (silent, peer) = driver.local_pair();
    let stays = driver.go(Submission::recv(silent, [0; 8]));
    driver.settle();
    assert_eq!(driver.run(Submission::cancel_fd(one)).unwrap(), 3);
    assert_eq!(errno(driver.end(recv).0), pelton_driver::errno::ECANCELED);
    assert_eq!(errno(driver.end(send).0), pelton_driver::errno::ECANCELED);
    assert_eq!(errno(driver.end(poll)), pelton_driver::errno::ECANCELED);
    assert_eq!(driver.run(Submission::cancel_fd(one)).unwrap(), 0);
    assert!(!driver.is_done(&stays));
    driver.send(peer, "x");
    assert_eq!(driver.end(stays).0.unwrap(), 1);
    // The descriptor itself is as good as before.
    driver.send(other, "y");
    assert_eq!(driver.receive(one, 1), b"y");
}

/// A buffer that says when it is dropped, and may do something then.
struct Noted {
    bytes: Box<[u8]>,
    dropped: Rc<Cell<u32>>,
    then: Option<Box<dyn FnOnce()>>,
}

impl Noted {
    fn new(len: usize, dropped: &Rc<Cell<u32>>) -> Noted {
        let bytes = vec![7; len].into_boxed_slice();
        Noted { bytes, dropped: dropped.clone(), then: None }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.dropped.set(self.dropped.get() + 1);
        if let Some(then) = self.then.take() {
            then();
        }
    }
}

impl IoBuf for Noted {
    fn as_init(&self) -> &[u8] {
        &self.bytes
    }
}

impl IoBufMut for Noted {
    fn spare(&mut self) -> Spare<'_> {
        (&mut *self.bytes).into()
    }

    unsafe fn advance(&mut self, _: usize) {}
}

fn a_buffer_is_dropped_once(on: &Bench) {
    let driver = on.driver();
    let dropped = Rc::new(Cell::new(0));
    let (one, other) = driver.local_pair();
    driver.fill(one);
    // Taken and dropped.
    let recv = driver.go(Submission::recv(one, Noted::new(8, &dropped)));
    driver.settle();
    driver.cancel(recv.id());
    driver.until(|| driver.is_done(&recv));
    assert_eq!(dropped.get(), 0, "it is its taker's");
    drop(driver.take(recv).unwrap());
    assert_eq!(dropped.get(), 1);
    // Abandoned in flight, and abandoned when it has ended.
    let send = driver.go(Submission::send_all(one, Noted::new(5000, &dropped)));
    driver.settle();
    driver.abandon(send);
    driver.settle();
    assert_eq!(dropped.get(), 2);
    let recv = driver.go(Submission::recv(one, Noted::new(8, &dropped)));
    driver.send(other, "x");
    driver.until(|| driver.is_done(&recv));
    driver.abandon(recv);
    assert_eq!(dropped.get(), 3);
    // Refused.
    driver.close(one);
    let refused =
        driver.submit(Submission::recv(one, Noted::new(8, &dropped)), pelton_driver::Token::NONE);
    assert_eq!(dropped.get(), 3);
    drop(refused);
    assert_eq!(dropped.get(), 4);
    // Left in flight when the driver goes.
    let recv = driver.go(Submission::recv(other, Noted::new(8, &dropped)));
    driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
    drop(recv);
    driver.abandon_all();
    assert_eq!(dropped.get(), 5);
}

fn a_buffer_may_run_the_driver(on: &Bench) {
    let driver = Rc::new(on.driver());
    let dropped = Rc::new(Cell::new(0));
    for round in 0..10 {
        let (one, other) = driver.local_pair();
        let begun = Rc::new(RefCell::new(None));
        let mut buf = Noted::new(64, &dropped);
        let (weak, into) = (Rc::downgrade(&driver), begun.clone());
        buf.then = Some(Box::new(move || {
            let driver = weak.upgrade().unwrap();
            driver.close(one);
            *into.borrow_mut() = Some(driver.go(Submission::send_all(other, "from a drop")));
        }));
        let recv = driver.go(Submission::recv(one, buf));
        if round % 2 == 0 {
            driver.settle();
        }
        driver.abandon(recv);
        driver.until(|| begun.borrow().is_some());
        let send = begun.take().unwrap();
        // Its peer is being closed: it is sent, or an error.
        let _ = driver.end(send).0;
    }
    assert_eq!(dropped.get(), 10);
}

fn a_thousand_cancels_leave_no_operation(on: &Bench) {
    let driver = on.driver();
    let pairs: Vec<(Fd, Fd)> = (0..10).map(|_| driver.local_pair()).collect();
    for round in 0..100 {
        let keys: Vec<_> =
            pairs.iter().map(|pair| driver.go(Submission::recv(pair.1, [0; 8]))).collect();
        if round % 3 == 0 {
            driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        }
        for (n, key) in keys.into_iter().enumerate() {
            if n % 2 == 0 {
                driver.abandon(key);
            } else {
                driver.cancel(key.id());
                assert_eq!(errno(driver.end(key).0), pelton_driver::errno::ECANCELED);
            }
        }
    }
    driver.until(|| driver.snapshot().orphans == 0);
    assert_eq!(driver.operations(), 0);
    for (one, other) in pairs {
        driver.send(one, "x");
        assert_eq!(driver.receive(other, 1), b"x");
    }
}
