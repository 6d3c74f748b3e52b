//! Child processes: waited for by many tasks, given up, dropped, killed. The test program itself is the child: it
//! reads its input to the end, and then exits.

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

#[cfg(unix)]
use common::eventually;
use common::{inside_each_backend, quiet};
use pelton::process::{self, Child};
use pelton::time;

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

fn command() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env("PELTON_TEST_CHILD", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A child that goes on until its input is closed.
fn started() -> Child {
    process::spawn(&mut command()).unwrap()
}

#[test]
fn a_child_is_waited_for_and_its_status_told_as_often_as_one_asks() {
    inside_each_backend(|_| async {
        let mut child = started();
        assert!(child.try_wait().unwrap().is_none(), "it waits for its input");
        assert!(child.stdout.is_none() && child.stdin.is_some());
        for _ in 0..2 {
            assert_eq!(child.wait().await.unwrap().code(), Some(CODE));
        }
        assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(CODE));
        child.kill().unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(CODE), "it has ended before");
        // Taken over, before it has ended and after.
        let mut other = Child::from_std(command().spawn().unwrap()).unwrap();
        assert_eq!(other.wait().await.unwrap().code(), Some(CODE));
        let mut known = command().spawn().unwrap();
        known.wait().unwrap();
        assert_eq!(Child::from_std(known).unwrap().wait().await.unwrap().code(), Some(CODE));
    });
}

#[test]
fn a_wait_that_is_given_up_can_be_made_again() {
    inside_each_backend(|_| async {
        let mut child = started();
        let input = child.stdin.take();
        for _ in 0..10 {
            assert!(time::timeout(Duration::from_micros(200), child.wait()).await.is_err());
            // Never polled.
            drop(child.wait());
        }
        quiet().await;
        drop(input);
        assert_eq!(child.wait().await.unwrap().code(), Some(CODE));
    });
}

#[test]
fn one_reactor_waits_for_many_children_with_no_thread_for_any() {
    inside_each_backend(|_| async {
        let before = threads();
        let mut children: Vec<_> = (0..24).map(|_| started()).collect();
        let inputs: Vec<_> = children.iter_mut().map(|child| child.stdin.take()).collect();
        let waits: Vec<_> = children
            .into_iter()
            .map(|mut child| pelton::spawn(async move { child.wait().await.unwrap().code() }))
            .collect();
        pelton::yield_now().await;
        assert!(waits.iter().all(|wait| !wait.is_finished()));
        assert!(threads() <= before, "a thread for a child");
        // From the last to the first.
        for input in inputs.into_iter().rev() {
            drop(input);
        }
        for wait in waits {
            assert_eq!(wait.await.unwrap(), Some(CODE));
        }
    });
}

/// Threads of this process, where it is told how many those are.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[test]
fn a_child_is_killed() {
    inside_each_backend(|_| async {
        let mut child = started();
        let _input = child.stdin.take();
        child.kill().unwrap();
        let status = child.wait().await.unwrap();
        assert!(!status.success() && status.code() != Some(CODE), "{status}");
    });
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    inside_each_backend(|_| async {
        let error = process::spawn(&mut Command::new("/nowhere/at-all")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    });
    let error = process::spawn(&mut command()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected, "no reactor runs here");
}

/// True when the system knows no such process any more, not even one that has ended and was not waited for.
#[cfg(unix)]
fn has_gone(id: u32) -> bool {
    let id = rustix::process::Pid::from_raw(id.try_into().unwrap()).unwrap();
    rustix::process::test_kill_process(id) == Err(rustix::io::Errno::SRCH)
}

#[cfg(unix)]
#[test]
fn a_child_that_is_dropped_goes_on_and_leaves_no_zombie() {
    inside_each_backend(|_| async {
        let mut child = started();
        let (input, id) = (child.stdin.take(), child.id());
        drop(child);
        for _ in 0..5 {
            pelton::yield_now().await;
        }
        assert!(!has_gone(id), "it goes on");
        drop(input);
        eventually("it is waited for", || has_gone(id)).await;
        quiet().await;
        // In the middle of a wait, and when it has ended.
        let mut child = started();
        let (input, id) = (child.stdin.take(), child.id());
        assert!(time::timeout(Duration::from_micros(200), child.wait()).await.is_err());
        drop((child, input));
        eventually("it is waited for", || has_gone(id)).await;
    });
}

#[cfg(unix)]
#[test]
fn a_child_whose_reactor_has_ended_is_waited_for_by_the_next_one() {
    common::on_each_backend(|backend| {
        let runtime = common::runtime(backend);
        let (left, input, ids) = runtime.block_on(async {
            let (mut dropped, mut left) = (started(), started());
            let mut forgotten = started();
            let ids = [dropped.id(), left.id(), forgotten.id()];
            let input = [dropped.stdin.take(), left.stdin.take(), forgotten.stdin.take()];
            drop(dropped);
            // One is left to a task that the end of the runtime drops.
            pelton::spawn(async move { forgotten.wait().await }).detach();
            pelton::yield_now().await;
            (left, input, ids)
        });
        drop(runtime);
        // And one outlives its reactor.
        drop(left);
        drop(input);
        common::runtime(backend).block_on(async {
            eventually("they are waited for", || {
                drop(Child::from_std(ended()).unwrap());
                ids.iter().all(|&id| has_gone(id))
            })
            .await;
        });
    });
}

/// A child that has ended and was waited for.
#[cfg(unix)]
fn ended() -> std::process::Child {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child
}

#[cfg(unix)]
#[test]
fn a_child_that_somebody_else_has_waited_for_is_an_error() {
    use rustix::process::{Pid, WaitOptions, waitpid};
    inside_each_backend(|_| async {
        let mut child = started();
        let id = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        drop(child.stdin.take());
        waitpid(Some(id), WaitOptions::empty()).unwrap();
        let error = child.wait().await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::CHILD.raw_os_error()));
    });
}
