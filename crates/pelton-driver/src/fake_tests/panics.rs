//! User code that panics: in a buffer's methods, in its drop, in a tick's callback. The panic is the
//! caller's; the driver goes on as if it had not been.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// Unwinds without the message and the backtrace of a panic, which take Miri ten seconds.
fn on_purpose() {
    std::panic::resume_unwind(Box::new("on purpose"));
}

fn panics(f: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

#[test]
fn a_buffer_that_panics_when_it_is_submitted_is_dropped_and_leaves_no_slot() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    let bad = || census.plain(8).asked(on_purpose);
    assert!(panics(|| drop(driver.submit(Submission::recv(fd, bad()), Token::NONE))));
    assert!(panics(|| drop(driver.submit(Submission::send(fd, bad()), Token::NONE))));
    let parts = || vec![census.plain(8), bad()];
    assert!(panics(|| drop(driver.submit(Submission::recv_vectored(fd, parts()), Token::NONE))));
    assert!(panics(|| drop(driver.submit(Submission::send_vectored(fd, parts()), Token::NONE))));
    assert_eq!((census.alive(), driver.operations(), kernel.held().len()), (0, 0, 0));
    assert_eq!(driver.counters().snapshot().in_flight_total(), 0);
    driver.detach(fd).expect("nothing is in flight on it");
}

#[test]
fn a_buffer_that_panics_when_it_is_asked_once_more_ends_its_operation() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    let bad = census.plain(8).asked(|| {}).asked(on_purpose);
    let key = driver.submit(Submission::recv(fd, bad), Token::NONE).unwrap();
    let orphan = census.plain(8).asked(|| {}).asked(on_purpose);
    let orphan = driver.submit(Submission::recv(fd, orphan), Token::NONE).unwrap();
    let orphan_id = orphan.id().user_data();
    kernel.complete(key.id().user_data(), -crate::errno::EAGAIN);
    assert!(panics(|| drop(tick(&driver))));
    assert_eq!(tick(&driver).len(), 1);
    assert_eq!(error_of(driver.take(key).unwrap().0), ECANCELED);
    driver.abandon(orphan);
    kernel.complete(orphan_id, -crate::errno::EAGAIN);
    assert!(panics(|| drop(tick(&driver))));
    assert_eq!((census.alive(), driver.operations()), (0, 0));
}

#[test]
fn a_callback_that_panics_loses_no_other_completion() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let keys: Vec<_> = (0..6)
        .map(|n| driver.submit(Submission::recv(fd, [0; 8]), Token::number(n)).unwrap())
        .collect();
    for key in &keys[..4] {
        kernel.fill(key.id().user_data(), b"x");
    }
    let _ = driver.submit(Submission::nop(), Token::number(6)).unwrap();
    let _ = driver.submit(Submission::nop(), Token::number(7)).unwrap();
    let mut told = Vec::new();
    for _ in 0..10 {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            driver.tick(Some(Duration::ZERO), |completion| {
                told.push(completion.token.as_number());
                on_purpose();
            })
        }));
    }
    told.sort_unstable();
    assert_eq!(told, [0, 1, 2, 3, 6, 7], "each once");
    kernel.obey();
}

#[test]
fn a_callback_that_panics_at_the_last_item_leaves_no_operation_behind() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let leases = driver.submit(Submission::recv_multi(fd), Token::NONE).unwrap();
    let accepts = driver.submit(Submission::accept_multi(fd), Token::NONE).unwrap();
    kernel.complete(leases.id().user_data(), 4);
    let connection = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    kernel.connect(accepts.id().user_data(), connection.into(), false);
    let mut ended = Vec::new();
    for _ in 0..8 {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            driver.tick(Some(Duration::ZERO), |completion| {
                if !completion.more {
                    ended.push(completion.id);
                }
                on_purpose();
            })
        }));
    }
    assert_eq!(ended.len(), 2, "{ended:?}");
    assert!(driver.is_done(&leases) && driver.is_done(&accepts));
}

#[test]
fn a_buffer_that_panics_when_it_is_dropped_loses_no_other_completion() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    for _ in 0..3 {
        let bad = census.buffer(8, on_purpose);
        let key = driver.submit(Submission::recv(fd, bad), Token::NONE).unwrap();
        let id = key.id().user_data();
        driver.abandon(key);
        kernel.complete(id, -ECANCELED);
    }
    let key = driver.submit(Submission::recv(fd, [0; 8]), Token::NONE).unwrap();
    kernel.fill(key.id().user_data(), b"x");
    for _ in 0..3 {
        assert!(panics(|| drop(tick(&driver))));
    }
    assert_eq!(tick(&driver).len(), 1);
    assert_eq!((census.alive(), driver.operations()), (0, 1));
    assert!(driver.take(key).is_ok());
}
