//! Who owns what, when: the driver on a kernel that the test plays, so that Miri sees every use of memory
//! that a real kernel would hold.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::*;

mod flight;
mod messages;
mod own;
mod owners;
mod panics;
mod reentry;
mod script;
mod slots;

const ECANCELED: i32 = crate::errno::ECANCELED;

pub(crate) fn config() -> Config {
    Config {
        max_operations: 256,
        max_descriptors: 256,
        pool_buffers: 4,
        pool_buffer_len: 64,
        shutdown_timeout: Duration::from_secs(5),
        ..Config::default()
    }
}

pub(crate) fn driver() -> (Rc<Driver>, FakeKernel) {
    let kernel = FakeKernel::new();
    let driver = Driver::on_fake_kernel(config(), kernel.clone()).expect("a driver");
    (Rc::new(driver), kernel)
}

/// A descriptor that the fake kernel never looks at.
pub(crate) fn descriptor() -> crate::OwnedDescriptor {
    std::io::pipe().expect("a pipe").0.into()
}

pub(crate) fn attach(driver: &Driver) -> Fd {
    driver.attach_stream(descriptor()).expect("room in the table")
}

pub(crate) fn tick(driver: &Driver) -> Vec<Completion> {
    let mut told = Vec::new();
    driver.tick(Some(Duration::ZERO), |completion| told.push(completion)).expect("a tick");
    told
}

/// How many of a kind of owner live.
#[derive(Clone, Default)]
pub(crate) struct Census(Rc<Cell<usize>>);

impl Census {
    pub(crate) fn alive(&self) -> usize {
        self.0.get()
    }

    /// A buffer of `len` bytes that is counted, and does `at_drop` when it goes.
    pub(crate) fn buffer(&self, len: usize, at_drop: impl FnOnce() + 'static) -> Counted {
        self.0.set(self.0.get() + 1);
        Counted {
            bytes: vec![b'.'; len],
            all: self.clone(),
            at_drop: Some(Box::new(at_drop)),
            at_ask: RefCell::new(VecDeque::new()),
        }
    }

    pub(crate) fn plain(&self, len: usize) -> Counted {
        self.buffer(len, || {})
    }
}

/// What a buffer does when it is asked for its memory.
pub(crate) type Ask = Box<dyn FnOnce()>;

/// A buffer whose code does what it is told to: user code at its most awkward.
pub(crate) struct Counted {
    bytes: Vec<u8>,
    all: Census,
    at_drop: Option<Box<dyn FnOnce()>>,
    /// Done one by one, each time that the buffer is asked.
    at_ask: RefCell<VecDeque<Ask>>,
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Counted").field(&self.bytes).finish()
    }
}

impl Counted {
    pub(crate) fn asked(self, first: impl FnOnce() + 'static) -> Counted {
        self.at_ask.borrow_mut().push_back(Box::new(first));
        self
    }

    fn ask(&self) {
        let next = self.at_ask.borrow_mut().pop_front();
        if let Some(next) = next {
            next();
        }
    }
}

impl IoBuf for Counted {
    fn as_init(&self) -> &[u8] {
        self.ask();
        &self.bytes
    }
}

impl IoBufMut for Counted {
    fn spare(&mut self) -> Spare<'_> {
        self.ask();
        self.bytes.as_mut_slice().into()
    }

    unsafe fn advance(&mut self, n: usize) {
        assert!(n <= self.bytes.len());
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.0.set(self.all.0.get() - 1);
        if let Some(at_drop) = self.at_drop.take() {
            at_drop();
        }
    }
}

fn error_of<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

#[test]
fn a_completion_that_comes_late_after_an_abandon_drops_the_buffer_and_tells_nobody() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    let key = driver.submit(Submission::recv(fd, census.plain(8)), Token::number(1)).unwrap();
    let id = key.id().user_data();
    driver.abandon(key);
    for _ in 0..3 {
        assert_eq!(tick(&driver), []);
    }
    assert_eq!((census.alive(), driver.operations()), (1, 1), "the kernel still holds it");
    assert_eq!(kernel.cancels(), [id]);
    kernel.fill(id, b"too late");
    assert_eq!(tick(&driver), []);
    assert_eq!((census.alive(), driver.operations()), (0, 0));
    assert_eq!(driver.counters().snapshot().orphans, 0);
}

#[test]
fn a_second_completion_is_counted_as_stale_whatever_has_become_of_the_slot() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    let stale = || driver.counters().snapshot().stale;
    let key = driver.submit(Submission::recv(fd, census.plain(8)), Token::NONE).unwrap();
    let id = key.id().user_data();
    kernel.fill(id, b"one");
    kernel.complete(id, 3);
    assert_eq!(tick(&driver).len(), 1, "done: told of once");
    assert_eq!(stale(), 1);
    kernel.complete(id, -5);
    assert_eq!(tick(&driver), [], "done and not taken");
    assert_eq!((stale(), census.alive()), (2, 1));

    let (result, buf) = driver.take(key).unwrap();
    assert_eq!((result.unwrap(), &buf.bytes[..3]), (3, &b"one"[..]));
    drop(buf);
    kernel.complete(id, 3);
    assert_eq!(tick(&driver), [], "released");
    assert_eq!(stale(), 3);

    let key = driver.submit(Submission::recv(fd, census.plain(8)), Token::NONE).unwrap();
    assert_eq!(key.id().user_data() as u32, id as u32, "the same slot");
    kernel.complete(id, 3);
    assert_eq!(tick(&driver), [], "used again");
    assert_eq!((stale(), census.alive()), (4, 1));
    assert!(!driver.is_done(&key));
    kernel.fill(key.id().user_data(), b"two");
    assert_eq!(tick(&driver).len(), 1);
    assert_eq!(driver.take(key).unwrap().0.unwrap(), 3);
}

#[test]
fn a_second_completion_of_an_orphan_frees_nothing_twice() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    let key = driver.submit(Submission::recv(fd, census.plain(8)), Token::NONE).unwrap();
    let id = key.id().user_data();
    driver.abandon(key);
    kernel.complete(id, -ECANCELED);
    kernel.complete(id, -ECANCELED);
    assert_eq!(tick(&driver), []);
    assert_eq!((census.alive(), driver.counters().snapshot().stale), (0, 1));
}

#[test]
fn what_an_operation_did_before_its_cancel_reached_it_is_its_outcome() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let key = driver.submit(Submission::recv(fd, Vec::with_capacity(8)), Token::NONE).unwrap();
    let id = key.id();
    assert!(driver.cancel(id));
    assert!(driver.cancel(id), "still in flight");
    assert_eq!(kernel.cancels(), [id.user_data()], "asked for once");
    kernel.fill(id.user_data(), b"data");
    assert_eq!(tick(&driver).len(), 1);
    assert!(!driver.cancel(id), "it has ended");
    let (result, buf) = driver.take(key).unwrap();
    assert_eq!((result.unwrap(), buf), (4, b"data".to_vec()));
    assert!(!driver.cancel(id), "it is gone");
    assert_eq!(kernel.cancels().len(), 1);
}

#[test]
fn an_operation_that_never_ends_is_left_behind_counted_and_still_may_be_written() {
    let kernel = FakeKernel::new();
    let config = Config { shutdown_timeout: Duration::ZERO, ..config() };
    let driver = Driver::on_fake_kernel(config, kernel.clone()).unwrap();
    let (fd, census) = (attach(&driver), Census::default());
    let notifier = driver.notifier();
    let key = driver.submit(Submission::recv(fd, census.plain(8)), Token::NONE).unwrap();
    let array = driver.submit(Submission::recv(fd, [0; 24]), Token::NONE).unwrap();
    let ids = [key.id().user_data(), array.id().user_data()];
    drop(driver);
    assert_eq!(notifier.counters().snapshot().leaked, 2);
    assert!(notifier.is_closed());
    assert_eq!(census.alive(), 1, "the kernel may still write to it");
    for id in ids {
        kernel.fill(id, b"written after the driver has gone");
    }
}

#[test]
fn a_driver_that_is_dropped_waits_for_its_kernel_and_drops_every_owner_once() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    kernel.obey();
    let notifier = driver.notifier();
    let done = driver.submit(Submission::recv(fd, census.plain(8)), Token::NONE).unwrap();
    kernel.fill(done.id().user_data(), b"done");
    assert_eq!(tick(&driver).len(), 1);
    let _busy = driver.submit(Submission::send(fd, census.plain(8)), Token::NONE).unwrap();
    let orphan = driver.submit(Submission::recv(fd, census.plain(8)), Token::NONE).unwrap();
    driver.abandon(orphan);
    let _timer =
        driver.submit(Submission::timeout(std::time::Instant::now()), Token::NONE).unwrap();
    let _wake = driver.submit(Submission::wake(), Token::NONE).unwrap();
    let _accept = driver.submit(Submission::accept(fd), Token::NONE).unwrap();
    let multi = driver.submit(Submission::recv_multi(fd), Token::NONE).unwrap();
    kernel.complete_more(multi.id().user_data(), 10);
    tick(&driver);
    assert_eq!(driver.waiting(&multi), 1);
    let _close = driver.submit(Submission::close(fd), Token::NONE).unwrap();
    assert_eq!(census.alive(), 2, "one is done, one in flight; the orphan has gone");
    drop(driver);
    assert_eq!((census.alive(), kernel.closed()), (0, 1));
    let counters = notifier.counters().snapshot();
    assert_eq!((counters.leaked, counters.in_flight_total(), counters.buffers_in_use), (0, 0, 0));
}

#[test]
fn a_key_of_another_driver_is_refused_and_changes_nothing() {
    let ((one, kernel), (other, _)) = (driver(), driver());
    let fd = attach(&one);
    let key = one.submit(Submission::recv_multi(fd), Token::number(1)).unwrap();
    kernel.complete_more(key.id().user_data(), 5);
    tick(&one);
    assert!(other.next(&key).is_none());
    assert_eq!(other.waiting(&key), 0);
    assert!(!other.is_done(&key));
    other.set_token(&key, Token::number(2));
    assert!(!other.cancel(key.id()));
    let key = other.take(key).unwrap_err();
    assert_eq!(one.waiting(&key), 1);
    kernel.complete(key.id().user_data(), 0);
    let told = tick(&one);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].token, Token::number(1));
    // An abandon has no way to give the key back: the other driver's slot stays as it is.
    other.abandon(key);
    assert_eq!((one.operations(), other.operations()), (1, 0));
}

#[test]
fn a_descriptor_of_another_driver_is_refused_there() {
    let ((one, _), (other, kernel)) = (driver(), driver());
    let (mine, theirs) = (attach(&one), attach(&other));
    assert_ne!(mine, theirs);
    let refused = other.submit(Submission::recv(mine, [0; 8]), Token::NONE);
    assert_eq!(refused.unwrap_err().error.raw_os_error(), Some(crate::errno::EBADF));
    other.close(mine);
    assert_eq!((other.descriptors(), kernel.closed()), (1, 0));
}

#[test]
fn a_tick_inside_a_tick_is_an_error_and_loses_nothing() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let keys: Vec<_> =
        (0..2).map(|_| driver.submit(Submission::recv(fd, [0; 8]), Token::NONE).unwrap()).collect();
    for key in &keys {
        kernel.fill(key.id().user_data(), b"x");
    }
    let mut told = 0;
    driver
        .tick(Some(Duration::ZERO), |_| {
            told += 1;
            let error = driver.tick(Some(Duration::ZERO), |_| panic!("nested")).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::Deadlock);
        })
        .unwrap();
    assert_eq!(told, 2);
}

#[test]
fn what_is_submitted_in_a_callback_is_told_of_by_a_later_tick() {
    let (driver, _) = driver();
    let _ = driver.submit(Submission::nop(), Token::number(0)).unwrap();
    let mut told = Vec::new();
    for _ in 0..4 {
        driver
            .tick(Some(Duration::ZERO), |completion| {
                let n = completion.token.as_number();
                told.push(n);
                let _ = driver.submit(Submission::nop(), Token::number(n + 1)).unwrap();
            })
            .unwrap();
    }
    assert_eq!(told, [0, 1, 2, 3]);
}

#[test]
fn a_full_arena_refuses_with_the_payload_and_recovers() {
    let kernel = FakeKernel::new();
    let config = Config { max_operations: 2, ..config() };
    let driver = Driver::on_fake_kernel(config, kernel.clone()).unwrap();
    let (fd, census) = (attach(&driver), Census::default());
    let first = driver.submit(Submission::recv(fd, census.plain(4)), Token::NONE).unwrap();
    let second = driver.submit(Submission::recv(fd, census.plain(4)), Token::NONE).unwrap();
    let refused = driver.submit(Submission::recv(fd, census.plain(4)), Token::NONE).unwrap_err();
    assert_eq!(refused.error.kind(), std::io::ErrorKind::QuotaExceeded);
    let (result, buf) = refused.into_output();
    assert!(result.is_err());
    assert_eq!(census.alive(), 3);
    drop(buf);
    driver.abandon(first);
    kernel.complete(second.id().user_data(), 0);
    assert_eq!(tick(&driver).len(), 1);
    drop(driver.take(second).unwrap());
    assert!(driver.submit(Submission::nop(), Token::NONE).is_ok());
    kernel.obey();
}

#[test]
fn the_table_of_descriptors_holds_as_many_as_it_was_told_and_no_more() {
    let kernel = FakeKernel::new();
    let config = Config { max_descriptors: 300, ..config() };
    let driver = Driver::on_fake_kernel(config, kernel.clone()).unwrap();
    let all: Vec<Fd> = (0..300).map(|_| attach(&driver)).collect();
    let error = driver.attach_stream(descriptor()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded);
    driver.close(all[7]);
    assert_eq!((driver.descriptors(), kernel.closed()), (299, 1));
    let again = attach(&driver);
    assert!(again != all[7], "the place is used again under another generation");
}
