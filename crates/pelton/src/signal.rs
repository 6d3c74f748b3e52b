//! Signals of the process: those of Unix, and on Windows the console's events.
//!
//! Any number of tasks and reactors may wait for the same signal.

use std::io;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix::Arrivals;
#[cfg(windows)]
use windows::Arrivals;

/// Which signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignalKind {
    /// `SIGINT`: somebody pressed Ctrl-C. So it is on Windows.
    Interrupt,
    /// `SIGTERM`: somebody asks the process to end. On Windows Ctrl-Break, or the system shuts down.
    Terminate,
    /// `SIGHUP`: the terminal has gone, or somebody asks to read the settings again. On Windows the console is
    /// being closed, or its user logs off.
    Hangup,
    /// `SIGUSR1`. Not on Windows.
    User1,
    /// `SIGUSR2`. Not on Windows.
    User2,
}

/// Which event of the console of Windows. [`SignalKind`] has names for them that other systems share, some of them for
/// two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConsoleEvent {
    /// Somebody pressed Ctrl-C.
    CtrlC,
    /// Somebody pressed Ctrl-Break, or a process asks those of its group to end.
    CtrlBreak,
    /// The console is being closed. The system ends the process some seconds later, whatever it does.
    Close,
    /// The user logs off. Told to services alone.
    Logoff,
    /// The system shuts down. Told to services alone.
    Shutdown,
}

/// Arrivals of one signal. From its making to its drop the signal does nothing else to the process.
#[derive(Debug)]
pub struct Signal(Arrivals);

/// Starts to listen for a signal.
///
/// # Errors
/// No reactor runs on this thread, or the system refused the handler or a descriptor. `Unsupported`: the system
/// has no such signal.
///
/// ```
/// # pelton::block_on(async {
/// use pelton::signal::{SignalKind, signal};
/// let mut terminate = signal(SignalKind::Terminate)?;
/// # let raise = || Ok::<(), std::io::Error>(());
/// # let _ = (&mut terminate, raise);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub fn signal(kind: SignalKind) -> io::Result<Signal> {
    Arrivals::new(kind).map(Signal)
}

/// Starts to listen for an event of the console of Windows.
///
/// The console tells of its events on a thread of its own, which marks them for whoever listens. Where nobody does any
/// more the event goes on to what else the process has for it, at the end of which the system ends the process. With
/// somebody listening [`ConsoleEvent::CtrlC`] and [`ConsoleEvent::CtrlBreak`] are over with that, and the other three
/// end the process after some seconds in any case: the time is the program's to come to its own end.
///
/// # Errors
/// As for [`signal`]. `Unsupported`: this is not Windows.
///
/// ```
/// # pelton::block_on(async {
/// use pelton::signal::{ConsoleEvent, console};
/// match console(ConsoleEvent::Close) {
///     Ok(mut closed) => drop(closed.recv()),
///     Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Unsupported),
/// }
/// # });
/// ```
pub fn console(event: ConsoleEvent) -> io::Result<Signal> {
    Arrivals::of_console(event).map(Signal)
}

/// Waits for `SIGINT`, that is for Ctrl-C, once.
///
/// # Errors
/// As for [`signal`].
pub async fn ctrl_c() -> io::Result<()> {
    signal(SignalKind::Interrupt)?.recv().await
}

impl Signal {
    /// Waits for the next arrival. Arrivals that came while nobody waited count as one. Cancelling loses
    /// none.
    ///
    /// # Errors
    /// The system refused to watch for it.
    pub async fn recv(&mut self) -> io::Result<()> {
        self.0.recv().await
    }
}
