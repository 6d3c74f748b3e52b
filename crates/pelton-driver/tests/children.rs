//! The end of child processes. The test program itself is the child: it reads its input to the end, and then exits.

mod common;

use std::process::{Child, Command, Stdio};

use common::*;
use pelton_driver::*;

/// What the child exits with.
const CODE: i32 = 7;

/// Not a test of its own: what a child does.
#[test]
fn child() {
    if std::env::var_os("PELTON_TEST_CHILD").is_none() {
        return;
    }
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    std::process::exit(CODE);
}

/// A child that goes on until its input is closed.
fn started() -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env("PELTON_TEST_CHILD", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn end(child: &mut Child) {
    drop(child.stdin.take());
}

/// True for a result that says that it is readable.
fn is_readable(result: std::io::Result<usize>) -> bool {
    result.unwrap() & 1 == 1
}

on_every_backend! {
    the_end_of_a_child_is_told_once_to_all_who_wait
    one_that_has_ended_already_is_told_of
    a_wait_that_is_given_up_changes_nothing_for_the_child
    a_wait_ends_with_its_descriptor_and_with_its_driver
    an_end_and_a_cancel_at_once_are_one_outcome
}

fn the_end_of_a_child_is_told_once_to_all_who_wait(on: &On) {
    let driver = on.driver();
    let mut child = started();
    let fd = driver.watch_child(&child).unwrap().expect("it waits for its input");
    let waits: Vec<_> =
        (0..3).map(|n| driver.go_for(Submission::poll(fd, Interest::Readable), n)).collect();
    driver.settle();
    assert!(waits.iter().all(|wait| !driver.is_done(wait)), "it has not ended");
    assert!(child.try_wait().unwrap().is_none());
    end(&mut child);
    let mut told = driver.until(|| waits.iter().all(|wait| driver.is_done(wait)));
    told.extend(driver.settle());
    for wait in waits {
        assert_eq!(told.iter().filter(|told| told.id == wait.id()).count(), 1);
        assert!(is_readable(driver.take(wait).unwrap()));
    }
    assert_eq!(child.wait().unwrap().code(), Some(CODE));
    // It stays so.
    assert!(is_readable(driver.run(Submission::poll(fd, Interest::Readable))));
    driver.run(Submission::close(fd)).unwrap();
    assert_eq!((driver.operations(), driver.snapshot().stale), (0, 0));
}

fn one_that_has_ended_already_is_told_of(on: &On) {
    let driver = on.driver();
    let mut child = started();
    let early = driver.watch_child(&child).unwrap().expect("it waits for its input");
    end(&mut child);
    driver.run(Submission::poll(early, Interest::Readable)).unwrap();
    // It was not waited for yet, so that its number is nobody else's.
    if let Some(late) = driver.watch_child(&child).unwrap() {
        assert!(is_readable(driver.run(Submission::poll(late, Interest::Readable))));
    }
    assert_eq!(child.wait().unwrap().code(), Some(CODE));
}

fn a_wait_that_is_given_up_changes_nothing_for_the_child(on: &On) {
    let driver = on.driver();
    let mut child = started();
    let fd = driver.watch_child(&child).unwrap().unwrap();
    for _ in 0..20 {
        let wait = driver.go(Submission::poll(fd, Interest::Readable));
        driver.settle();
        assert!(driver.cancel(wait.id()));
        assert_eq!(errno(driver.end(wait)), pelton_driver::errno::ECANCELED);
        // The next one may have its slot.
        driver.abandon(driver.go(Submission::poll(fd, Interest::Readable)));
    }
    driver.until(|| driver.operations() == 0);
    assert!(child.try_wait().unwrap().is_none());
    // In the slots of those waits there is something else when the child ends.
    let timers: Vec<_> =
        (0..40).map(|_| driver.go(Submission::timeout(driver.now() + WATCHDOG))).collect();
    let wait = driver.go(Submission::poll(fd, Interest::Readable));
    end(&mut child);
    assert!(is_readable(driver.end(wait)));
    driver.settle();
    assert!(timers.iter().all(|timer| !driver.is_done(timer)));
    timers.into_iter().for_each(|timer| driver.abandon(timer));
    assert_eq!(driver.snapshot().stale, 0);
    assert_eq!(child.wait().unwrap().code(), Some(CODE));
}

fn a_wait_ends_with_its_descriptor_and_with_its_driver(on: &On) {
    let driver = on.driver();
    let mut child = started();
    let fd = driver.watch_child(&child).unwrap().unwrap();
    let wait = driver.go(Submission::poll(fd, Interest::Readable));
    driver.run(Submission::close(fd)).unwrap();
    assert_eq!(errno(driver.take(wait).unwrap()), pelton_driver::errno::ECANCELED);
    let fd = driver.watch_child(&child).unwrap().unwrap();
    let left = driver.go(Submission::poll(fd, Interest::Readable));
    let counters = driver.notifier();
    drop(driver);
    drop(left);
    assert_eq!(counters.counters().leaked.get(), 0);
    assert!(child.try_wait().unwrap().is_none(), "the child knows nothing of that");
    end(&mut child);
    assert_eq!(child.wait().unwrap().code(), Some(CODE));
}

fn an_end_and_a_cancel_at_once_are_one_outcome(on: &On) {
    let driver = on.driver();
    for _ in 0..5 {
        let mut child = started();
        let fd = driver.watch_child(&child).unwrap().unwrap();
        let wait = driver.go(Submission::poll(fd, Interest::Readable));
        driver.settle();
        end(&mut child);
        // It has ended, and nobody has ticked since.
        assert_eq!(child.wait().unwrap().code(), Some(CODE));
        driver.cancel(wait.id());
        let mut told = driver.until(|| driver.is_done(&wait));
        driver.run(Submission::close(fd)).unwrap();
        told.extend(driver.settle());
        assert_eq!(told.iter().filter(|told| told.id == wait.id()).count(), 1);
        match driver.take(wait).unwrap() {
            Err(error) => assert_eq!(error.raw_os_error(), Some(pelton_driver::errno::ECANCELED)),
            told => assert!(is_readable(told)),
        }
    }
    assert_eq!((driver.operations(), driver.snapshot().stale), (0, 0));
}

#[cfg(all(target_os = "linux", feature = "sim"))]
#[test]
fn a_simulated_system_has_no_children_and_says_so() {
    use pelton_driver::sim::{World, WorldOptions};
    let mut child = started();
    for backend in [Backend::IoUring, Backend::Epoll] {
        let world = World::new(&WorldOptions::new(1));
        let _entered = world.enter();
        let driver = Driver::new(Config { backend, ..small() }).unwrap();
        assert!(driver.is_simulated());
        let refused = driver.watch_child(&child).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
        assert!(refused.to_string().contains("no processes"), "{refused}");
    }
    end(&mut child);
    assert_eq!(child.wait().unwrap().code(), Some(CODE));
}
