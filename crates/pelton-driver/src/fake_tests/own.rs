//! Operations of one's own: the memory stands still while a kernel may be at it, and goes with the last completion.

use super::*;

/// Submits an entry that names nothing; the kernel's side gets a pointer to the memory.
fn entry<T: 'static>(driver: &Driver, fd: Fd, memory: T) -> (Key<Own<T>>, *mut T) {
    let mut at = std::ptr::null_mut();
    let prepared = driver.prepare(Some(fd), memory).unwrap();
    // SAFETY: whatever is written through the pointer is written by the kernel that the test plays.
    let key = unsafe { prepared.submit_entry(Token::NONE, |memory, _| at = memory) };
    (key.unwrap(), at)
}

#[test]
fn memory_is_written_where_it_stands_long_after_the_submission() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let (key, at) = entry(&driver, fd, [b'.'; 8]);
    // Others before and after it, so that slots are made and used again meanwhile.
    for _ in 0..4 {
        drop(driver.prepare(Some(fd), [0_u8; 64]).unwrap());
        let nop = driver.submit(Submission::nop(), Token::NONE).unwrap();
        tick(&driver);
        driver.take(nop).unwrap().unwrap();
    }
    // SAFETY: the kernel that the test plays, before the completion.
    unsafe { (&mut (*at))[..5].copy_from_slice(b"wrote") };
    kernel.complete(key.id().user_data(), 5);
    assert_eq!(tick(&driver).len(), 1);
    let (n, memory) = driver.take(key).unwrap();
    assert_eq!((n.unwrap(), &memory), (5, b"wrote..."));
}

#[test]
fn memory_that_is_given_up_stays_until_the_kernel_lets_go() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    let (key, at) = entry(&driver, fd, census.plain(8));
    let user_data = key.user_data();
    driver.abandon(key);
    tick(&driver);
    assert_eq!(
        (kernel.cancels(), census.alive()),
        (vec![user_data], 1),
        "cancelling frees nothing"
    );
    // SAFETY: as above.
    unsafe { (&mut (*at).bytes)[0] = b'!' };
    kernel.complete(user_data, -ECANCELED);
    tick(&driver);
    assert_eq!((census.alive(), driver.operations()), (0, 0));
    // A packet too many is counted and ignored.
    let stale = driver.counters().snapshot().stale;
    kernel.complete(user_data, 0);
    tick(&driver);
    assert_eq!(driver.counters().snapshot().stale, stale + 1);
}

#[test]
fn what_a_kernel_never_lets_go_of_is_left_behind_and_counted() {
    let kernel = FakeKernel::new();
    let config = Config { shutdown_timeout: Duration::ZERO, ..config() };
    let driver = Driver::on_fake_kernel(config, kernel.clone()).unwrap();
    let (fd, census) = (attach(&driver), Census::default());
    let (key, at) = entry(&driver, fd, census.plain(8));
    let counters = driver.notifier();
    // A limit cancels, and what still does not end is abandoned.
    let given_up = driver.finish(key, Some(Duration::ZERO), |_| {}).unwrap_err();
    assert_eq!(given_up.kind(), std::io::ErrorKind::TimedOut);
    drop(driver);
    assert_eq!((counters.counters().leaked.get(), census.alive()), (1, 1));
    // SAFETY: as above: the memory is there still, for ever.
    unsafe { (&mut (*at).bytes)[0] = b'!' };
}

#[test]
fn a_closure_is_called_again_until_it_does_not_block_and_never_after_a_cancel() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let prepared = driver.prepare(Some(fd), Vec::new()).unwrap();
    let key = prepared.submit_when(Token::NONE, Interest::Readable, |calls: &mut Vec<u8>, _| {
        calls.push(1);
        if calls.len() < 3 { Err(std::io::ErrorKind::WouldBlock.into()) } else { Ok(9) }
    });
    let key = key.unwrap();
    for _ in 0..3 {
        assert!(!driver.is_done(&key));
        kernel.complete(key.user_data(), 1);
        tick(&driver);
    }
    let (n, calls) = driver.take(key).unwrap();
    assert_eq!((n.unwrap(), calls.len()), (9, 3));

    let prepared = driver.prepare(Some(fd), ()).unwrap();
    let key = prepared.submit_when(Token::NONE, Interest::Readable, |_, _| panic!("cancelled"));
    let key = key.unwrap();
    driver.cancel(key.id());
    // It had become ready before the cancel reached it.
    kernel.complete(key.user_data(), 1);
    tick(&driver);
    assert_eq!(error_of(driver.take(key).unwrap().0), ECANCELED);
}

#[test]
fn memory_whose_drop_runs_the_driver_finds_it_whole() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    let weak = Rc::downgrade(&driver);
    let buffer = census.buffer(4, move || {
        let driver = weak.upgrade().unwrap();
        let nop = driver.submit(Submission::nop(), Token::NONE).unwrap();
        drop(driver.prepare(None, 1).unwrap());
        driver.abandon(nop);
    });
    let (key, _) = entry(&driver, fd, buffer);
    let user_data = key.user_data();
    driver.abandon(key);
    kernel.complete(user_data, -ECANCELED);
    tick(&driver);
    tick(&driver);
    assert_eq!((census.alive(), driver.operations()), (0, 0));
}
