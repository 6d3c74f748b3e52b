//! User code that runs the driver from inside the driver: a buffer's drop, and a buffer that is asked for
//! its memory.

use super::*;

/// What a test keeps of its driver, so that a buffer can run it.
type Cell2<T> = Rc<RefCell<Option<T>>>;

fn shared<T>() -> Cell2<T> {
    Rc::new(RefCell::new(None))
}

#[test]
fn a_drop_in_the_middle_of_a_dispatch_may_submit_cancel_abandon_attach_and_close() {
    let (driver, kernel) = driver();
    let (fd, other, census) = (attach(&driver), attach(&driver), Census::default());
    let abandoned = driver.submit(Submission::recv(other, census.plain(8)), Token::NONE).unwrap();
    let cancelled =
        driver.submit(Submission::recv(other, census.plain(8)), Token::number(2)).unwrap();
    let cancelled_id = cancelled.id();
    let done = driver.submit(Submission::nop(), Token::NONE).unwrap();
    let inner = shared();
    let (at_drop, weak) = (inner.clone(), Rc::downgrade(&driver));
    let own = census.clone();
    let buf = census.buffer(8, move || {
        let driver = weak.upgrade().unwrap();
        let key = driver.submit(Submission::recv(other, own.plain(4)), Token::number(3)).unwrap();
        *at_drop.borrow_mut() = Some(key);
        driver.abandon(abandoned);
        assert!(driver.cancel(cancelled_id));
        drop(driver.take(done));
        let third = attach(&driver);
        driver.close(third);
        driver.close(fd);
        assert!(driver.tick(None, |_| {}).is_err());
    });
    let key = driver.submit(Submission::recv(fd, buf), Token::NONE).unwrap();
    let id = key.id().user_data();
    driver.abandon(key);
    kernel.complete(id, -ECANCELED);
    kernel.fill(cancelled_id.user_data(), b"cancelled");
    let told = tick(&driver);
    assert_eq!(told.len(), 2, "the nop, and the one that was cancelled");
    assert_eq!(kernel.closed(), 2);
    drop(driver.take(cancelled).unwrap());
    let inner = inner.borrow_mut().take().unwrap();
    kernel.fill(inner.id().user_data(), b"in");
    assert_eq!(tick(&driver)[0].token, Token::number(3));
    drop(driver.take(inner).unwrap());
    kernel.obey();
    tick(&driver);
    tick(&driver);
    assert_eq!((census.alive(), driver.operations(), driver.descriptors()), (0, 0, 1));
}

#[test]
fn a_drop_in_an_abandon_or_in_the_last_release_of_a_slot_may_take_that_slot_again() {
    let (driver, kernel) = driver();
    let (fd, census, inner) = (attach(&driver), Census::default(), shared());
    let (at_drop, weak, own) = (inner.clone(), Rc::downgrade(&driver), census.clone());
    let buf = census.buffer(8, move || {
        let driver = weak.upgrade().unwrap();
        let key = driver.submit(Submission::recv(fd, own.plain(8)), Token::NONE).unwrap();
        *at_drop.borrow_mut() = Some(key);
    });
    let key = driver.submit(Submission::recv(fd, buf), Token::NONE).unwrap();
    let index = key.id().index();
    kernel.fill(key.id().user_data(), b"done");
    tick(&driver);
    driver.abandon(key);
    let key = inner.borrow_mut().take().unwrap();
    assert_eq!(key.id().index(), index, "released before its buffer was dropped");
    assert!(!driver.is_done(&key));
    kernel.fill(key.id().user_data(), b"again");
    assert_eq!(tick(&driver).len(), 1);
    assert_eq!(driver.take(key).unwrap().0.unwrap(), 5);
}

#[test]
fn a_drop_while_the_driver_is_dropped_finds_no_driver() {
    let (driver, kernel) = driver();
    kernel.obey();
    let (fd, census) = (attach(&driver), Census::default());
    let found = Rc::new(Cell::new(0));
    let drop_in = || {
        let (weak, found) = (Rc::downgrade(&driver), found.clone());
        census.buffer(8, move || {
            found.set(found.get() + 1);
            assert!(weak.upgrade().is_none());
        })
    };
    let _busy = driver.submit(Submission::recv(fd, drop_in()), Token::NONE).unwrap();
    let done = driver.submit(Submission::send(fd, drop_in()), Token::NONE).unwrap();
    kernel.complete(done.id().user_data(), 8);
    tick(&driver);
    drop(driver);
    assert_eq!((found.get(), census.alive()), (2, 0));
}

#[test]
fn a_buffer_may_submit_and_close_when_it_is_submitted_itself() {
    let (driver, kernel) = driver();
    let (fd, census, inner) = (attach(&driver), Census::default(), shared());
    let (at_ask, weak, own) = (inner.clone(), Rc::downgrade(&driver), census.clone());
    let buf = census.plain(8).asked(move || {
        let driver = weak.upgrade().unwrap();
        let key = driver.submit(Submission::recv(fd, own.plain(8)), Token::NONE).unwrap();
        *at_ask.borrow_mut() = Some(key);
        driver.close(fd);
        driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
    });
    let refused = driver.submit(Submission::recv(fd, buf), Token::NONE).unwrap_err();
    assert_eq!(refused.error.raw_os_error(), Some(crate::errno::EBADF));
    assert_eq!((census.alive(), driver.operations()), (2, 1));
    drop(refused);
    kernel.obey();
    tick(&driver);
    tick(&driver);
    let inner = inner.borrow_mut().take().unwrap();
    assert_eq!(error_of(driver.take(inner).unwrap().0), ECANCELED);
    assert_eq!((census.alive(), kernel.closed()), (0, 1));
}

/// Submits a buffer that is asked a second time, does `what` then, and returns its outcome, if it has one.
fn asked_again<R: 'static>(
    send: bool,
    what: impl FnOnce(&Driver, Fd, &Cell2<Received>) -> R + 'static,
) -> (Option<i32>, R) {
    let (driver, kernel) = driver();
    kernel.obey();
    let (fd, census) = (attach(&driver), Census::default());
    let (mine, returned) = (shared(), shared());
    let (weak, key_of, back) = (Rc::downgrade(&driver), mine.clone(), returned.clone());
    let second = move || {
        let answer = what(&weak.upgrade().unwrap(), fd, &key_of);
        *back.borrow_mut() = Some(answer);
    };
    let buf = census.plain(8).asked(|| {}).asked(second);
    let (id, key) = if send {
        let key = driver.submit(Submission::send_all(fd, buf), Token::NONE).unwrap();
        (key.id(), Received::Send(key))
    } else {
        let key = driver.submit(Submission::recv(fd, buf), Token::NONE).unwrap();
        (key.id(), Received::Recv(key))
    };
    *mine.borrow_mut() = Some(key);
    kernel.complete(id.user_data(), -crate::errno::EAGAIN);
    let mut told = 0;
    for _ in 0..4 {
        told += tick(&driver).len();
    }
    assert!(kernel.held().iter().all(|held| held.user_data != id.user_data()), "nothing retried");
    let outcome = mine.borrow_mut().take().map(|key| {
        assert_eq!(told, 1, "one last completion");
        match key {
            Received::Send(key) => error_of(driver.take(key).unwrap().0),
            Received::Recv(key) => error_of(driver.take(key).unwrap().0),
        }
    });
    assert_eq!((census.alive(), driver.operations()), (0, 0));
    let answer = returned.borrow_mut().take().expect("it was asked");
    (outcome, answer)
}

enum Received {
    Send(Key<Sending<Counted>>),
    Recv(Key<Filling<Counted>>),
}

impl Received {
    fn id(&self) -> OpId {
        match self {
            Received::Send(key) => key.id(),
            Received::Recv(key) => key.id(),
        }
    }
}

#[test]
fn a_buffer_that_is_asked_once_more_may_cancel_its_own_operation() {
    for send in [false, true] {
        let (outcome, found) = asked_again(send, |driver, _, key| {
            let id = key.borrow().as_ref().unwrap().id();
            (driver.cancel(id), driver.cancel(id))
        });
        assert_eq!((outcome, found), (Some(ECANCELED), (true, true)));
    }
}

#[test]
fn a_buffer_that_is_asked_once_more_cannot_be_taken_from_under_itself() {
    for send in [false, true] {
        let (outcome, ()) = asked_again(send, |driver, _, shared| {
            let key = shared.borrow_mut().take().unwrap();
            driver.cancel(key.id());
            let back = match key {
                Received::Send(key) => Received::Send(driver.take(key).err().unwrap()),
                Received::Recv(key) => Received::Recv(driver.take(key).err().unwrap()),
            };
            *shared.borrow_mut() = Some(back);
        });
        assert_eq!(outcome, Some(ECANCELED));
    }
}

#[test]
fn a_buffer_that_is_asked_once_more_may_abandon_its_own_operation() {
    for send in [false, true] {
        let (outcome, ()) =
            asked_again(send, |driver, _, key| match key.borrow_mut().take().unwrap() {
                Received::Send(key) => driver.abandon(key),
                Received::Recv(key) => driver.abandon(key),
            });
        assert_eq!(outcome, None);
    }
}

#[test]
fn a_buffer_that_is_asked_once_more_may_close_its_own_descriptor_or_cancel_all_on_it() {
    for send in [false, true] {
        let (outcome, ()) = asked_again(send, |driver, fd, _| driver.close(fd));
        assert_eq!(outcome, Some(ECANCELED));
        let (outcome, found) = asked_again(send, |driver, fd, _| {
            let cancel = driver.start_now(Submission::cancel_fd(fd), Token::NONE).unwrap();
            let Started::Done(found) = cancel else { panic!("it ends at once") };
            found.unwrap()
        });
        assert_eq!((outcome, found), (Some(ECANCELED), 1));
    }
}
