//! The room on a queue that epoll plays.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::*;
use crate::op::{Interest, Submission};
use crate::slot::{Key, Token};
use crate::sys::Room;
use crate::{Driver, Payload};

fn driver() -> Driver {
    Driver::new(Config { backend: Backend::Kqueue, ..Config::default() }).unwrap()
}

fn go<P: Payload>(driver: &Driver, submission: Submission<P>) -> Key<P> {
    driver.submit(submission, Token::NONE).map_err(|refused| refused.error).unwrap()
}

fn now(driver: &Driver) -> usize {
    driver.tick(Some(Duration::ZERO), |_| {}).unwrap().completions
}

/// Which filters the queue has for a descriptor.
fn watched(driver: &Driver, raw: i32) -> (bool, bool) {
    let Room::Kqueue(room) = driver.room() else { panic!("{driver:?}") };
    room.poller().queue.watches(raw)
}

#[test]
fn a_tick_that_does_not_wait_tells_of_what_was_added_and_what_was_given_back() {
    let driver = driver();
    let (mine, mut theirs) = UnixStream::pair().unwrap();
    let raw = mine.as_raw_fd();
    let fd = driver.attach(mine.into()).unwrap();
    let recv = go(&driver, Submission::recv(fd, [0; 8]));
    assert_eq!(watched(&driver, raw), (false, false), "nothing is told outside of a tick");
    now(&driver);
    assert_eq!(watched(&driver, raw), (true, false), "and only what is waited for");
    driver.cancel(recv.id());
    now(&driver);
    assert!(driver.take(recv).is_ok());
    // The descriptor is the user's again, with a filter that must go before the tick is over.
    let mine = driver.detach(fd).unwrap();
    assert_eq!(watched(&driver, raw), (true, false));
    now(&driver);
    assert_eq!(watched(&driver, raw), (false, false));
    theirs.write_all(b"x").unwrap();
    let stale = driver.counters().snapshot().stale;
    assert_eq!((now(&driver), driver.counters().snapshot().stale), (0, stale), "nobody is told");
    drop(mine);
}

#[test]
fn an_event_of_this_batch_does_not_reach_who_has_the_place_of_a_descriptor_closed_in_it() {
    let driver = driver();
    let (ends, mut peers): (Vec<_>, Vec<_>) = (0..2).map(|_| UnixStream::pair().unwrap()).unzip();
    let fds: Vec<Fd> = ends.into_iter().map(|end| driver.attach(end.into()).unwrap()).collect();
    let keys: Vec<_> = fds.iter().map(|&fd| go(&driver, Submission::recv(fd, [0; 8]))).collect();
    now(&driver);
    let (next, mut next_peer) = UnixStream::pair().unwrap();
    let mut next = Some(next);
    peers.iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
    let stale = driver.counters().snapshot().stale;
    // Whoever is told first closes both: the second event of the batch is for nobody.
    driver
        .tick(Some(Duration::ZERO), |_| {
            fds.iter().for_each(|&fd| driver.close(fd));
        })
        .unwrap();
    let fd = driver.attach(next.take().unwrap().into()).unwrap();
    let recv = go(&driver, Submission::recv(fd, [0; 8]));
    assert_eq!(driver.counters().snapshot().stale, stale, "it was found closing, not by another");
    while driver.descriptors() > 1 {
        now(&driver);
    }
    now(&driver);
    assert!(!driver.is_done(&recv), "its peer has sent nothing");
    next_peer.write_all(b"mine").unwrap();
    while !driver.is_done(&recv) {
        driver.tick(Some(Duration::from_secs(20)), |_| {}).unwrap();
    }
    assert_eq!(driver.take(recv).unwrap().0.unwrap(), 4);
    for key in keys {
        assert!(driver.take(key).is_ok());
    }
}

#[test]
fn a_poll_that_was_ready_when_it_was_submitted_can_be_made_again_and_cancelled() {
    let driver = driver();
    let (mine, mut theirs) = UnixStream::pair().unwrap();
    let fd = driver.attach(mine.into()).unwrap();
    theirs.write_all(b"x").unwrap();
    for _ in 0..3 {
        let poll = go(&driver, Submission::poll(fd, Interest::Readable));
        now(&driver);
        assert!(driver.take(poll).unwrap().is_ok(), "the level counts");
    }
    let recv = go(&driver, Submission::recv(fd, [0; 8]));
    now(&driver);
    assert_eq!(driver.take(recv).unwrap().0.unwrap(), 1);
    let poll = go(&driver, Submission::poll(fd, Interest::Readable));
    now(&driver);
    assert!(!driver.is_done(&poll));
    driver.cancel(poll.id());
    now(&driver);
    let error = driver.take(poll).unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(errno::ECANCELED));
}

#[test]
fn what_cannot_be_watched_ends_what_waits_for_it_and_the_tick_does_not_sleep() {
    let driver = driver();
    let (mine, _theirs) = UnixStream::pair().unwrap();
    let fd = driver.attach(mine.into()).unwrap();
    let recv = go(&driver, Submission::recv(fd, [0; 8]));
    let Room::Kqueue(room) = driver.room() else { panic!("{driver:?}") };
    room.poller().queue.refuse_next(errno::ENOENT + 1000);
    // Without an end: the driver must not wait for what cannot come.
    while !driver.is_done(&recv) {
        driver.tick(None, |_| {}).unwrap();
    }
    let error = driver.take(recv).unwrap().0.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(errno::ENOENT + 1000));
    // The next one asks again, and is watched.
    let recv = go(&driver, Submission::recv(fd, [0; 8]));
    now(&driver);
    assert!(!driver.is_done(&recv));
    driver.cancel(recv.id());
    now(&driver);
    assert!(driver.take(recv).is_ok());
}
