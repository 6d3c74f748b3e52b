//! Signals of the process.
//!
//! A signal handler may do almost nothing, so it writes one byte into a pipe of sockets that it was given,
//! and the reactor watches the other end. Any number of tasks and reactors may wait for the same signal.

use std::io;
use std::os::unix::net::UnixStream;

use pelton_driver::{Interest, Submission};

use crate::reactor::Reactor;
use crate::socket::Socket;

/// Which signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignalKind {
    /// `SIGINT`: somebody pressed Ctrl-C.
    Interrupt,
    /// `SIGTERM`: somebody asks the process to end.
    Terminate,
    /// `SIGHUP`: the terminal has gone, or somebody asks to read the settings again.
    Hangup,
    /// `SIGUSR1`.
    User1,
    /// `SIGUSR2`.
    User2,
}

impl SignalKind {
    fn number(self) -> i32 {
        use rustix::process::Signal;
        match self {
            SignalKind::Interrupt => Signal::INT,
            SignalKind::Terminate => Signal::TERM,
            SignalKind::Hangup => Signal::HUP,
            SignalKind::User1 => Signal::USR1,
            SignalKind::User2 => Signal::USR2,
        }
        .as_raw()
    }
}

/// Arrivals of one signal. From its making to its drop the signal does nothing else to the process.
#[derive(Debug)]
pub struct Signal {
    id: signal_hook_registry::SigId,
    read: UnixStream,
    watched: Watched,
}

struct Watched(Socket);

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

/// Starts to listen for a signal.
///
/// # Errors
/// No reactor runs on this thread, or the system refused the handler or a descriptor.
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
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    let watched = Watched(Socket::attach(Reactor::here()?, read.try_clone()?.into())?);
    let arrived = move || {
        // Full means that arrivals wait to be seen already.
        let _ = rustix::io::write(&write, &[1]);
    };
    // SAFETY: the handler makes one system call that is allowed in handlers, on a descriptor that it owns,
    // and neither allocates nor locks nor panics. `rustix` leaves `errno` alone.
    let id = unsafe { signal_hook_registry::register(kind.number(), arrived)? };
    Ok(Signal { id, read, watched })
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
        let mut arrived = false;
        loop {
            let mut bytes = [0; 64];
            match io::Read::read(&mut &self.read, &mut bytes) {
                // All of them: they count as one.
                Ok(_) => {
                    arrived = true;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if arrived {
                return Ok(());
            }
            let Watched(socket) = &self.watched;
            socket.operation(Interest::Readable, Submission::poll).await?;
        }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        signal_hook_registry::unregister(self.id);
    }
}
