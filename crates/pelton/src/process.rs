//! Child processes: waiting for their end, without a thread for each.
//!
//! Children are started with the standard library's [`Command`], and are this crate's from then on: by [`spawn`], or
//! by [`Child::from_std`] where the start itself may take long and is made on another thread.
//!
//! ```
//! # pelton::block_on(async {
//! use std::process::Command;
//!
//! let mut child = pelton::process::spawn(Command::new("sh").args(["-c", "exit 0"]))?;
//! assert!(child.wait().await?.success());
//! # std::io::Result::Ok(()) }).unwrap();
//! ```
//!
//! # What is waited for
//! On Linux a `pidfd` (from 5.3), on macOS and the BSDs a kernel queue with one filter for the process, on Windows the
//! process's handle by a wait packet of the completion port, or by the process's thread pool where the system has
//! none of those. No signal is handled for it. A simulated system has no processes, and says
//! [`Unsupported`](io::ErrorKind::Unsupported).

use std::fmt;
use std::io;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use pelton_driver::{Interest, Submission};

use crate::reactor::Reactor;
use crate::socket::Socket;

/// Starts a child process.
///
/// The start is a call of the system's that takes as long as it takes, usually less than a millisecond.
///
/// # Errors
/// What the system said. No reactor runs on this thread, or it is a simulated one (`Unsupported`): then nothing is
/// started. Where the child runs and cannot be waited for, because there are no more descriptors, it is killed.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let reactor = here()?;
    Child::of(&reactor, command.spawn()?).map_err(|(error, mut child)| {
        let _ = child.kill();
        // It ends at once.
        let _ = child.wait();
        error
    })
}

/// A child process.
///
/// Dropped while the child runs, the child goes on running, as one of the standard library's does; but it leaves no
/// zombie behind: the reactor waits for its end, or, where the reactor ends first, whatever waits for children in
/// this process later.
pub struct Child {
    /// Its standard input, where that was asked for (`Stdio::piped`). Waiting closes it.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, where that was asked for.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, where that was asked for.
    pub stderr: Option<ChildStderr>,
    process: Process,
}

impl Child {
    /// Takes over a child that was started elsewhere.
    ///
    /// # Errors
    /// No reactor runs on this thread, it is a simulated one (`Unsupported`), or there are no more descriptors. The
    /// child goes on running, and is waited for at its end where other children of this process are.
    pub fn from_std(child: std::process::Child) -> io::Result<Child> {
        let made = match here() {
            Ok(reactor) => Child::of(&reactor, child),
            Err(error) => Err((error, child)),
        };
        made.map_err(|(error, child)| {
            leave(child);
            error
        })
    }

    fn of(
        reactor: &Rc<Reactor>,
        mut child: std::process::Child,
    ) -> Result<Child, (io::Error, std::process::Child)> {
        look_after_the_left();
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // One that was waited for already has given its number back.
        let end = match child.try_wait() {
            Ok(None) => reactor.driver.watch_child(&child),
            Ok(Some(_)) => Ok(None),
            Err(error) => Err(error),
        };
        let end = match end {
            Ok(end) => end.map(|fd| Socket { reactor: reactor.clone().into(), fd }),
            Err(error) => return Err((error, child)),
        };
        Ok(Child { stdin, stdout, stderr, process: Process { child: Some(child), end } })
    }

    /// The system's number of the process. Once its end has been told, the system may give it to another.
    pub fn id(&self) -> u32 {
        self.process.child().id()
    }

    /// Waits until the child has ended. Told again and again, if it is asked again.
    ///
    /// Its standard input is closed first, so that a child that reads it to the end does come to its end. Whoever
    /// reads its output does so at the same time, because the child waits where nobody does.
    ///
    /// Cancelled: nothing has changed, but that the standard input is closed.
    ///
    /// # Errors
    /// What the system said: `ECHILD`, for one, where somebody else in this process has waited for it.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        self.process.wait().await
    }

    /// The child's status, if it has ended.
    ///
    /// # Errors
    /// As for [`Child::wait`].
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.child_mut().try_wait()
    }

    /// Ends the child: by `SIGKILL` on Unix, and with the exit code 1 on Windows. One that has ended already stays as
    /// it is. [`Child::wait`] tells when it is over.
    ///
    /// # Errors
    /// What the system said.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.child_mut().kill()
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A process that is waited for, whoever does that.
struct Process {
    /// There until the drop.
    child: Option<std::process::Child>,
    /// What is readable from its end on; none where that is over.
    end: Option<Socket>,
}

impl Process {
    fn child(&self) -> &std::process::Child {
        self.child.as_ref().expect("there until the drop")
    }

    fn child_mut(&mut self) -> &mut std::process::Child {
        self.child.as_mut().expect("there until the drop")
    }

    async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(end) = &self.end {
            end.operation(Interest::Readable, Submission::poll).await?;
        }
        // It has ended, or is about to: some systems tell of that a moment before it can be waited for.
        let status = self.child_mut().wait()?;
        self.end = None;
        look_after_the_left();
        Ok(status)
    }

    /// Whether nobody needs to wait for it any more.
    fn is_over(&mut self) -> bool {
        // Only Unix keeps what has ended until somebody asks. An error says that somebody else has.
        cfg!(windows) || !matches!(self.child_mut().try_wait(), Ok(None))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(end) = self.process.end.take() else { return };
        if self.process.is_over() || end.reactor.has_ended() {
            return;
        }
        let reactor = end.reactor.clone();
        let mut process = Process { child: self.process.child.take(), end: Some(end) };
        reactor.tasks.spawn(async move { drop(process.wait().await) }).detach();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.is_some()
            && !self.is_over()
            && let Some(child) = self.child.take()
        {
            leave(child);
        }
    }
}

/// Children that run and whose reactors have ended.
static LEFT: Mutex<Vec<std::process::Child>> = Mutex::new(Vec::new());

fn leave(child: std::process::Child) {
    if cfg!(windows) {
        return;
    }
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    look_after_the_left();
}

/// Waits for those that have ended meanwhile.
fn look_after_the_left() {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    left.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// The reactor of this thread, if it is one of the real system.
fn here() -> io::Result<Rc<Reactor>> {
    let reactor = Reactor::here()?;
    if reactor.driver.is_simulated() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a simulated system has no processes: start them on a runtime of the real system",
        ));
    }
    Ok(reactor)
}
