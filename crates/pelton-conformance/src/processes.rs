//! Child processes. A simulated system has none, and says so.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use pelton::process::{self, Child};
use pelton::{spawn, time};
use pelton_driver::{Interest, Submission};

use crate::registry::behaviours;
use crate::{Bench, errno};

behaviours! {
    "the end of a child is waited for, and its status told, or a simulated system says that it has none" => a_child_is_waited_for
        [Libxev "process wait"];
    "a child that has ended already is told of at once" => a_child_that_has_ended
        [Libxev "process wait"];
    "a wait for a child that is given up can be made again, and several wait at once" => a_wait_is_given_up
        [];
    "a child is killed, and its end waited for" => a_child_is_killed [];
    "children that are dropped leave nothing in the reactor" => children_are_dropped [];
    "the driver alone tells of a child's end, once to each who waits" => the_driver_tells_of_an_end [];
}

/// What a child exits with that has read a line.
const CODE: i32 = 7;

/// The system's own shell, which waits for a line.
fn shell() -> Command {
    let mut command;
    if cfg!(windows) {
        command = Command::new("cmd");
        command.args(["/c", &format!("set /p line= & exit {CODE}")]);
    } else {
        command = Command::new("sh");
        command.args(["-c", &format!("read line; exit {CODE}")]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Has a shell come to its end.
fn end(input: &mut Option<std::process::ChildStdin>) {
    let mut input = input.take().expect("it was asked for");
    input.write_all(b"line\r\n").expect("a shell that reads");
}

/// Starts a child, and runs `show` with it; or, on a simulated system, shows that there are none.
fn with_children<F: Future<Output = ()>>(on: &Bench, show: impl FnOnce() -> F) {
    on.block_on(async {
        if on.is_simulated() {
            let refused = process::spawn(&mut shell()).expect_err("there are no processes");
            assert_eq!(refused.kind(), ErrorKind::Unsupported);
            return;
        }
        show().await;
    });
}

fn started() -> Child {
    process::spawn(&mut shell()).expect("a shell")
}

fn a_child_is_waited_for(on: &Bench) {
    with_children(on, || async {
        let mut child = started();
        assert!(child.try_wait().unwrap().is_none(), "it waits for its input");
        end(&mut child.stdin);
        for _ in 0..2 {
            assert_eq!(child.wait().await.unwrap().code(), Some(CODE));
        }
    });
}

fn a_child_that_has_ended(on: &Bench) {
    with_children(on, || async {
        let mut child = shell().spawn().unwrap();
        end(&mut child.stdin);
        child.wait().unwrap();
        let mut child = Child::from_std(child).unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(CODE));
    });
}

fn a_wait_is_given_up(on: &Bench) {
    with_children(on, || async {
        let mut children: Vec<_> = (0..4).map(|_| started()).collect();
        let mut inputs: Vec<_> = children.iter_mut().map(|child| child.stdin.take()).collect();
        for child in &mut children {
            let late = time::timeout(Duration::from_millis(1), child.wait()).await;
            assert!(late.is_err(), "it waits for its input");
        }
        let waits: Vec<_> = children
            .into_iter()
            .map(|mut child| spawn(async move { child.wait().await.unwrap().code() }))
            .collect();
        inputs.iter_mut().rev().for_each(end);
        for wait in waits {
            assert_eq!(wait.await.unwrap(), Some(CODE));
        }
    });
}

fn a_child_is_killed(on: &Bench) {
    with_children(on, || async {
        let mut child = started();
        let _input = child.stdin.take();
        child.kill().unwrap();
        let status = child.wait().await.unwrap();
        assert!(!status.success() && status.code() != Some(CODE), "{status}");
    });
}

fn children_are_dropped(on: &Bench) {
    with_children(on, || async {
        // One in the middle of a wait, one that nobody waits for, one whose runtime ends first.
        let (mut waited, mut dropped, mut left) = (started(), started(), started());
        let mut inputs = [waited.stdin.take(), dropped.stdin.take(), left.stdin.take()];
        assert!(time::timeout(Duration::from_millis(1), waited.wait()).await.is_err());
        drop((waited, dropped));
        inputs.iter_mut().for_each(end);
        spawn(async move { left.wait().await }).detach();
    });
}

fn the_driver_tells_of_an_end(on: &Bench) {
    let driver = on.driver();
    let mut child = shell().spawn().unwrap();
    if on.is_simulated() {
        let refused = driver.watch_child(&child).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    } else {
        let fd = driver.keep(driver.watch_child(&child).unwrap().expect("it waits for its input"));
        let given_up = driver.go(Submission::poll(fd, Interest::Readable));
        let waits = [(); 2].map(|()| driver.go(Submission::poll(fd, Interest::Readable)));
        driver.settle();
        assert!(waits.iter().all(|wait| !driver.is_done(wait)));
        assert!(driver.cancel(given_up.id()));
        assert_eq!(errno(driver.end(given_up)), pelton_driver::errno::ECANCELED);
        end(&mut child.stdin);
        let mut told = driver.until(|| waits.iter().all(|wait| driver.is_done(wait)));
        told.extend(driver.settle());
        for wait in waits {
            assert_eq!(told.iter().filter(|told| told.id == wait.id()).count(), 1);
            driver.end(wait).unwrap();
        }
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}
