//! The open seam: operations that the list does not have.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use pelton_driver::{
    Backend, Fd, Form, Interest, Key, Op, Own, RawEntry, Ready, Seam, Submission, Token,
};

use crate::registry::behaviours;
use crate::{Bench, Rig, errno};

behaviours! {
    "a call of one's own is made when its descriptor is ready, as often as it would block" => a_call_waits_for_readiness
        [];
    "what a call of one's own says is its outcome as it is" => an_outcome_is_as_it_is [];
    "a call of one's own is told of once, with its token, among all others" => it_is_told_of_once [];
    "a call of one's own that is cancelled ends once and is not made any more" => a_cancelled_call_is_not_made
        [];
    "a call of one's own that is given up lets go of its memory at its end" => a_call_that_is_given_up [];
    "a close ends calls of one's own" => a_close_ends_calls [];
    "what was prepared and not submitted comes back, or goes, and holds nothing up" => prepared_and_abandoned [];
    "a call of one's own on a bad descriptor is refused, and its memory comes back" => bad_descriptors_are_refused
        [];
    "a form that the backend has not is refused, and the memory comes back" => other_forms_are_refused [];
    "waiting for a call of one's own with a limit cancels it and still awaits its end" => a_limit_cancels [];
    "a descriptor that is only associated stays the user's" => an_associated_descriptor_stays_the_users [];
    "a call of one's own may cancel itself and close its descriptor" => a_call_may_end_itself [];
    "a call of one's own that panics ends, and the driver goes on" => a_panic_ends_the_call [];
    "calls of one's own end with their driver" => calls_end_with_their_driver [];
    "a submission entry of one's own does what it says from memory that stands still, or is refused as unsupported" => an_entry_does_what_it_says
        [];
    "an entry that the kernel does not know is an error of the operation, where there are entries" => an_unknown_entry_is_a_value [];
    "an entry that would touch others is refused before the kernel sees it, where there are entries" => a_bad_entry_is_refused [];
}

/// Receives into a vector until it has as many bytes as it has room for.
fn fills(bytes: &mut Vec<u8>, ready: &Ready<'_>) -> io::Result<usize> {
    loop {
        let mut part = [0; 4];
        let most = part.len().min(bytes.capacity() - bytes.len());
        match ready.recv(&mut part[..most]) {
            Ok(n) => bytes.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if bytes.len() == bytes.capacity() {
            return Ok(bytes.len());
        }
    }
}

fn never<T>(_: &mut T, _: &Ready<'_>) -> io::Result<usize> {
    Err(ErrorKind::WouldBlock.into())
}

#[track_caller]
fn when<T: 'static>(
    driver: &Rig,
    fd: Fd,
    memory: T,
    attempt: impl FnMut(&mut T, &Ready<'_>) -> io::Result<usize> + 'static,
) -> Key<Own<T>> {
    let prepared = driver.prepare(Some(fd), memory).unwrap_or_else(|r| panic!("{}", r.error));
    let key = prepared.submit_when(Token::NONE, Interest::Readable, attempt);
    key.unwrap_or_else(|refused| panic!("{}", refused.error))
}

fn a_call_waits_for_readiness(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let calls = Rc::new(Cell::new(0));
        let count = calls.clone();
        let key = when(&driver, other, Vec::with_capacity(9), move |bytes, ready| {
            count.set(count.get() + 1);
            fills(bytes, ready)
        });
        for part in ["one", "two", "six"] {
            driver.settle();
            assert!(!driver.is_done(&key), "it waits for the rest");
            driver.send(one, part);
        }
        let (n, bytes) = driver.end(key);
        assert_eq!((n.unwrap(), &bytes[..]), (9, &b"onetwosix"[..]));
        assert!(calls.get() >= 3, "{} calls", calls.get());
        // And the other way: writable at once.
        let prepared = driver.prepare(Some(one), b"out".to_vec()).unwrap();
        let send = |bytes: &mut Vec<u8>, ready: &Ready<'_>| loop {
            match ready.send(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                sent => return sent,
            }
        };
        let key = prepared.submit_when(Token::NONE, Interest::Writable, send).unwrap();
        let n = driver.end(key).0.unwrap();
        assert!((1..=3).contains(&n), "the faults of some worlds cut it short");
        assert_eq!(driver.receive(other, n), b"out"[..n]);
    }
}

fn an_outcome_is_as_it_is(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    driver.send(one, "ready");
    let run =
        |said: fn() -> io::Result<usize>| driver.end(when(&driver, other, 7, move |_, _| said()));
    assert_eq!(run(|| Ok(0)).0.unwrap(), 0);
    assert_eq!(run(|| Ok(usize::MAX)).0.unwrap(), usize::MAX);
    assert_eq!(
        errno(run(|| Err(io::Error::from_raw_os_error(pelton_driver::errno::ENOTTY))).0),
        pelton_driver::errno::ENOTTY
    );
    assert_eq!(
        errno(run(|| Err(io::Error::from_raw_os_error(pelton_driver::errno::EINTR))).0),
        pelton_driver::errno::EINTR
    );
    let (said, memory) = run(|| Err(io::Error::other("in words")));
    assert_eq!((said.unwrap_err().to_string(), memory), ("in words".into(), 7));
}

fn it_is_told_of_once(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    driver.send(one, "ready");
    let keys: Vec<_> = (0..6)
        .map(|n| {
            let prepared = driver.prepare(Some(other), n).unwrap();
            let key = prepared.submit_when(Token::number(n), Interest::Readable, |_, _| Ok(1));
            (key.unwrap(), driver.go_for(Submission::nop(), 100 + n))
        })
        .collect();
    let told =
        driver.until(|| keys.iter().all(|(own, nop)| driver.is_done(own) && driver.is_done(nop)));
    let told: Vec<_> = told.into_iter().chain(driver.settle()).collect();
    for (n, (own, nop)) in keys.into_iter().enumerate() {
        for token in [n, 100 + n] {
            let times = told.iter().filter(|one| one.token == Token::number(token) && !one.more);
            assert_eq!(times.count(), 1);
        }
        assert_eq!(driver.end(own).1, n);
        driver.end(nop).unwrap();
    }
    // In order on one descriptor, where it is readiness that they wait for.
    let own: Vec<_> = told.iter().map(|one| one.token.as_number()).filter(|n| *n < 6).collect();
    assert_eq!(own.len(), 6);
    assert!(on.is_ring() || own.is_sorted(), "{own:?}");
}

fn a_cancelled_call_is_not_made(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    for round in 0..4 {
        let calls = Rc::new(Cell::new(0));
        let count = calls.clone();
        let key = when(&driver, other, "memory", move |_, ready| {
            count.set(count.get() + 1);
            never(&mut (), ready)
        });
        if round % 2 == 0 {
            driver.settle();
        }
        assert!(driver.cancel(key.id()));
        assert!(driver.cancel(key.id()) || driver.is_done(&key), "asking twice does nothing");
        let (said, memory) = driver.end(key);
        assert_eq!((errno(said), memory), (pelton_driver::errno::ECANCELED, "memory"));
        assert_eq!(Rc::strong_count(&calls), 1, "the closure is gone");
        let before = calls.get();
        driver.send(one, "x");
        driver.receive(other, 1);
        assert_eq!(calls.get(), before);
    }
}

fn a_call_that_is_given_up(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    let memory = Rc::new(());
    for round in 0..4 {
        let key = when(&driver, other, memory.clone(), never);
        if round % 2 == 0 {
            driver.settle();
        }
        driver.abandon(key);
    }
    driver.send(one, "x");
    driver.settle();
    assert_eq!((Rc::strong_count(&memory), driver.operations()), (1, 0));
    // One that has ended, too.
    let key = when(&driver, other, memory.clone(), |_, _| Ok(0));
    driver.until(|| driver.is_done(&key));
    driver.abandon(key);
    assert_eq!((Rc::strong_count(&memory), driver.operations()), (1, 0));
}

fn a_close_ends_calls(on: &Bench) {
    let driver = on.driver();
    let (_one, other) = driver.local_pair();
    let keys: Vec<_> = (0..3).map(|n| when(&driver, other, n, never)).collect();
    driver.settle();
    driver.run(Submission::close(other)).unwrap();
    for (n, key) in keys.into_iter().enumerate() {
        let (said, memory) = driver.end(key);
        assert_eq!((errno(said), memory), (pelton_driver::errno::ECANCELED, n));
    }
}

fn prepared_and_abandoned(on: &Bench) {
    let driver = on.driver();
    let (_one, other) = driver.local_pair();
    let memory = Rc::new(5);
    let mut prepared = driver.prepare(Some(other), memory.clone()).unwrap();
    assert_eq!(**prepared.memory(), 5);
    assert_eq!(driver.operations(), 1);
    drop(prepared.abandon());
    drop(driver.prepare(Some(other), memory.clone()).unwrap());
    drop(driver.prepare(None, memory.clone()).unwrap());
    assert_eq!((Rc::strong_count(&memory), driver.operations()), (1, 0));
    // What is prepared holds the descriptor, and a close waits for its end.
    let prepared = driver.prepare(Some(other), memory.clone()).unwrap();
    let close = driver.go(Submission::close(other));
    driver.settle();
    assert!(!driver.is_done(&close));
    prepared.abandon();
    driver.end(close).unwrap();
}

fn bad_descriptors_are_refused(on: &Bench) {
    let (driver, elsewhere) = (on.driver(), on.driver());
    let (_, foreign) = elsewhere.local_pair();
    let (_one, other) = driver.local_pair();
    let refused = driver.prepare(Some(foreign), "memory").unwrap_err();
    assert_eq!(
        (refused.error.raw_os_error(), refused.payload.0),
        (Some(pelton_driver::errno::EBADF), "memory")
    );
    // Closed, or cancelled, between the one and the other.
    let prepared = driver.prepare(Some(other), "memory").unwrap();
    driver.run(Submission::cancel_fd(other)).unwrap();
    let refused = prepared.submit_when(Token::NONE, Interest::Readable, never).unwrap_err();
    assert_eq!(
        (refused.error.raw_os_error(), refused.payload.0),
        (Some(pelton_driver::errno::ECANCELED), "memory")
    );
    let prepared = driver.prepare(Some(other), "memory").unwrap();
    driver.close(other);
    let refused = prepared.submit_when(Token::NONE, Interest::Readable, never).unwrap_err();
    assert_eq!(
        (refused.error.raw_os_error(), refused.payload.0),
        (Some(pelton_driver::errno::EBADF), "memory")
    );
    driver.until(|| driver.descriptors() == 1);
    let refused = driver.prepare(Some(other), "memory").unwrap_err();
    assert_eq!(
        (refused.error.raw_os_error(), refused.payload.0),
        (Some(pelton_driver::errno::EBADF), "memory")
    );
}

fn other_forms_are_refused(on: &Bench) {
    let driver = on.driver();
    let (_one, other) = driver.local_pair();
    let is_iocp = on.backend() == Backend::Iocp;
    if !is_iocp {
        let refused = driver.prepare(Some(other), 1).unwrap().in_call().unwrap_err();
        assert_eq!((refused.error.kind(), refused.payload.0), (ErrorKind::Unsupported, 1));
    }
    let prepared = driver.prepare(None, 2).unwrap();
    let refused = prepared.submit_when(Token::NONE, Interest::Readable, never).unwrap_err();
    assert_eq!((refused.error.kind(), refused.payload.0), (ErrorKind::InvalidInput, 2));
    let rest = if is_iocp { Seam::Overlapped } else { Seam::Readiness };
    assert_eq!(driver.seam(), if on.is_ring() { Seam::Ring } else { rest });
    if !on.is_ring() {
        no_entries(on);
    }
    // The operation is plain data, as all others are.
    let op = Op::Own { fd: Some(other), form: Form::Ready(Interest::Readable) };
    assert_eq!((op.fd(), op.kind().name()), (Some(other), "own"));
}

fn a_limit_cancels(on: &Bench) {
    let (driver, stranger) = (on.driver(), on.driver());
    let (one, other) = driver.local_pair();
    let key = when(&driver, other, "memory", never);
    let (nop, mut told) = (driver.go(Submission::nop()), 0);
    let limit = Some(Duration::from_millis(2));
    let (said, memory) = driver.finish(key, limit, |_| told += 1).unwrap();
    assert_eq!(
        (errno(said), memory, told),
        (pelton_driver::errno::ECANCELED, "memory", 1),
        "the other is told of"
    );
    driver.end(nop).unwrap();
    assert_eq!(driver.operations(), 0, "nothing is in flight any more");
    driver.send(one, "x");
    let key = when(&driver, other, Vec::with_capacity(1), fills);
    assert_eq!(driver.finish(key, None, |_| {}).unwrap().0.unwrap(), 1);
    let key = driver.go(Submission::nop());
    let error = stranger.finish(key, None, |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    driver.settle();
    // That key is gone, as it says: its slot goes with the driver.
    assert_eq!(driver.abandon_all().leaked, 0);
}

fn an_associated_descriptor_stays_the_users(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.stream_pair().unwrap();
    let (one, owner) = (driver.keep(one), driver.detach(other).unwrap());
    // SAFETY: it is open until the end.
    let fd = unsafe { driver.associate(owner.as_raw()) }.unwrap();
    let key = when(&driver, fd, Vec::with_capacity(5), fills);
    driver.send(one, "first");
    assert_eq!(driver.end(key).1, b"first");
    assert_eq!(driver.detach(fd).unwrap_err().kind(), ErrorKind::InvalidInput);
    let pending = when(&driver, fd, (), never);
    driver.run(Submission::close(fd)).unwrap();
    assert_eq!(errno(driver.end(pending).0), pelton_driver::errno::ECANCELED);
    assert!(driver.prepare(Some(fd), ()).is_err(), "the association has ended");
    // And goes with the driver.
    let second = on.driver();
    // SAFETY: as above.
    let fd = second.keep(unsafe { second.associate(owner.as_raw()) }.unwrap());
    let key = when(&second, fd, (), never);
    second.abandon(key);
    drop(second);
    let fd = driver.keep(driver.attach(owner).unwrap());
    driver.send(one, "open still");
    assert_eq!(driver.receive(fd, 10), b"open still");
}

fn a_call_may_end_itself(on: &Bench) {
    let driver = on.driver();
    let shared = Rc::new(driver);
    let (one, other) = shared.local_pair();
    shared.send(one, "ready");
    // A tick first, so that it is called inside of one on readiness, too.
    for how in 0..3 {
        let own: Rc<RefCell<Option<Key<Own<u8>>>>> = Rc::default();
        let (weak, mine) = (Rc::downgrade(&shared), own.clone());
        let (busy, at) = if how == 2 { shared.local_pair() } else { (one, other) };
        let key = when(&shared, at, 7, move |_, _| {
            let driver = weak.upgrade().unwrap();
            let key = mine.borrow_mut().take();
            match (how, key) {
                // Called inside of the submission: whoever submits has no key yet.
                (_, None) => {}
                (0, Some(key)) => driver.abandon(key),
                (1, Some(key)) => {
                    driver.cancel(key.id());
                    *mine.borrow_mut() = Some(key);
                }
                (_, Some(key)) => {
                    driver.close(at);
                    *mine.borrow_mut() = Some(key);
                }
            }
            Err(ErrorKind::WouldBlock.into())
        });
        *own.borrow_mut() = Some(key);
        shared.send(busy, "again");
        let ended = || own.borrow().as_ref().is_none_or(|key| shared.is_done(key));
        shared.until(ended);
        let key = own.borrow_mut().take();
        if let Some(key) = key {
            let (said, memory) = shared.end(key);
            assert_eq!((errno(said), memory), (pelton_driver::errno::ECANCELED, 7));
        }
        shared.until(|| shared.operations() == 0);
    }
}

fn a_panic_ends_the_call(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    let memory = Rc::new(());
    driver.send(one, "ready");
    let mut keys = Vec::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        keys.push(when(&driver, other, memory.clone(), |_, _| panic!("on purpose")));
        driver.until(|| false)
    }));
    assert!(panicked.is_err());
    for key in keys {
        // It was called by a tick, and has ended there.
        let (said, _) = driver.end(key);
        assert_eq!(errno(said), pelton_driver::errno::ECANCELED);
    }
    driver.settle();
    assert_eq!((Rc::strong_count(&memory), driver.operations()), (1, 0));
    let key = when(&driver, other, Vec::with_capacity(5), fills);
    assert_eq!(driver.end(key).1, b"ready");
}

fn calls_end_with_their_driver(on: &Bench) {
    let driver = on.driver();
    let (_one, other) = driver.local_pair();
    let memory = Rc::new(());
    let keys: Vec<_> = (0..3).map(|_| when(&driver, other, memory.clone(), never)).collect();
    driver.settle_briefly();
    let left = driver.abandon_all();
    drop(keys);
    assert_eq!((Rc::strong_count(&memory), left.leaked), (1, 0));
}

/// Memory of a buffer as an entry names it.
fn name(entry: &mut RawEntry, opcode: u8, bytes: &mut [u8]) {
    entry.opcode = opcode;
    entry.addr = bytes.as_mut_ptr().expose_provenance() as u64;
    entry.len = bytes.len() as u32;
}

/// `IORING_OP_SEND` and `IORING_OP_RECV`: the list has both, but the seam does not know that.
const SEND: u8 = 26;
const RECV: u8 = 27;

#[track_caller]
fn entry<T: 'static>(
    driver: &Rig,
    fd: Option<Fd>,
    memory: T,
    fill: impl FnOnce(&mut T, &mut RawEntry),
) -> Key<Own<T>> {
    let prepared = driver.prepare(fd, memory).unwrap();
    // SAFETY: those here name the memory that they are given, which nobody else reaches, and complete once.
    let key = unsafe { prepared.submit_entry(Token::NONE, fill) };
    key.unwrap_or_else(|refused| panic!("{}", refused.error))
}

/// Where there are no submission entries: they are refused, and nothing is asked of them.
fn no_entries(on: &Bench) {
    let driver = on.driver();
    let (_one, other) = driver.local_pair();
    let prepared = driver.prepare(Some(other), 3).unwrap();
    // SAFETY: it is refused before the entry is written.
    let refused = unsafe { prepared.submit_entry(Token::NONE, |_, _| unreachable!()) }.unwrap_err();
    assert_eq!((refused.error.kind(), refused.payload.0), (ErrorKind::Unsupported, 3));
}

fn an_entry_does_what_it_says(on: &Bench) {
    if !on.is_ring() {
        return no_entries(on);
    }
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        for n in 0..5_u8 {
            // In the body itself, which must stand still.
            let recv = entry(&driver, Some(other), [0_u8; 8], |m, e| name(e, RECV, m));
            let (sent, _) = loop {
                let send = entry(&driver, Some(one), [n; 8], |m, e| name(e, SEND, m));
                match driver.end(send) {
                    // As it is: nobody tries it again.
                    (Err(error), _) if error.kind() == ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            let sent = sent.unwrap();
            let mut got = match driver.end(recv) {
                (Err(error), _) if error.kind() == ErrorKind::Interrupted => Vec::new(),
                (n, bytes) => bytes[..n.unwrap()].to_vec(),
            };
            got.extend(driver.receive(other, sent - got.len()));
            assert_eq!(got, vec![n; sent]);
        }
        // Cancelled and given up as all others are.
        let cancelled = entry(&driver, Some(other), [9_u8; 8], |m, e| name(e, RECV, m));
        let given_up = entry(&driver, Some(other), [9_u8; 8], |m, e| name(e, RECV, m));
        driver.settle();
        driver.cancel(cancelled.id());
        driver.abandon(given_up);
        let ended = errno(driver.end(cancelled).0);
        assert!(
            [pelton_driver::errno::ECANCELED, pelton_driver::errno::EINTR].contains(&ended),
            "{ended}"
        );
        let pending = entry(&driver, Some(other), [9_u8; 8], |m, e| name(e, RECV, m));
        driver.run(Submission::close(other)).unwrap();
        let ended = errno(driver.end(pending).0);
        assert!(
            [pelton_driver::errno::ECANCELED, pelton_driver::errno::EINTR].contains(&ended),
            "{ended}"
        );
    }
}

fn an_unknown_entry_is_a_value(on: &Bench) {
    if !on.is_ring() {
        return no_entries(on);
    }
    let driver = on.driver();
    let (_one, other) = driver.local_pair();
    let key = entry(&driver, Some(other), "memory", |_, e| e.opcode = 250);
    let (said, memory) = driver.end(key);
    assert_eq!((errno(said), memory), (pelton_driver::errno::EINVAL, "memory"));
    // On no descriptor at all.
    let key = entry(&driver, None, "memory", |m, e| {
        e.opcode = RECV;
        e.addr = m.as_ptr().addr() as u64;
    });
    assert_eq!(errno(driver.end(key).0), pelton_driver::errno::EBADF);
    let nop = entry(&driver, None, (), |(), e| e.opcode = 0);
    assert_eq!(driver.end(nop).0.unwrap(), 0);
}

fn a_bad_entry_is_refused(on: &Bench) {
    if !on.is_ring() {
        return no_entries(on);
    }
    let driver = on.driver();
    let (_one, other) = driver.local_pair();
    let plain = RawEntry::default();
    let linked = RawEntry { flags: 1 << 2, ..plain };
    let quiet = RawEntry { flags: 1 << 6, ..plain };
    let pooled = RawEntry { opcode: RECV, flags: 1 << 5, ..plain };
    let multishot = RawEntry { opcode: RECV, ioprio: 2, ..plain };
    let close = RawEntry { opcode: 19, ..plain };
    let cancel = RawEntry { opcode: 14, ..plain };
    let forged = RawEntry { opcode: 40, ..plain };
    for bad in [linked, quiet, pooled, multishot, close, cancel, forged] {
        let prepared = driver.prepare(Some(other), "memory").unwrap();
        // SAFETY: it is refused.
        let refused = unsafe { prepared.submit_entry(Token::NONE, |_, e| *e = bad) }.unwrap_err();
        assert_eq!((refused.error.kind(), refused.payload.0), (ErrorKind::InvalidInput, "memory"));
    }
    assert_eq!(RawEntry::from_bytes([0; 64]), plain);
    assert_eq!(driver.operations(), 0);
}
