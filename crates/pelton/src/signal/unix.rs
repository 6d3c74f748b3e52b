//! A signal handler may do almost nothing, so it writes one byte into a pipe of sockets that it was given, and the
//! reactor watches the other end.

use std::io;
use std::os::unix::net::UnixStream;

use pelton_driver::{Interest, Submission};

use super::{ConsoleEvent, SignalKind};
use crate::reactor::Reactor;
use crate::socket::Socket;

/// Arrivals of one signal.
#[derive(Debug)]
pub(super) struct Arrivals {
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

impl Arrivals {
    pub(super) fn new(kind: SignalKind) -> io::Result<Arrivals> {
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
        let id = unsafe { signal_hook_registry::register(number(kind), arrived)? };
        Ok(Arrivals { id, read, watched })
    }

    pub(super) fn of_console(event: ConsoleEvent) -> io::Result<Arrivals> {
        let what =
            format!("{event:?} is an event of the console of Windows: listen for a signal instead");
        Err(io::Error::new(io::ErrorKind::Unsupported, what))
    }

    pub(super) async fn recv(&mut self) -> io::Result<()> {
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

impl Drop for Arrivals {
    fn drop(&mut self) {
        signal_hook_registry::unregister(self.id);
    }
}

fn number(kind: SignalKind) -> i32 {
    use rustix::process::Signal;
    match kind {
        SignalKind::Interrupt => Signal::INT,
        SignalKind::Terminate => Signal::TERM,
        SignalKind::Hangup => Signal::HUP,
        SignalKind::User1 => Signal::USR1,
        SignalKind::User2 => Signal::USR2,
    }
    .as_raw()
}
