//! What happens outside of the process's own descriptors, as descriptors that are waited for like any other.

use std::io;
use std::process::Child;

use super::Driver;
use crate::descriptor::{Fd, flags};

impl Driver {
    /// Gives the driver something that is [readable](crate::Submission::poll) from the moment on at which a child
    /// process has ended. None: it has ended already.
    ///
    /// Then, and not before, [`Child::wait`] returns without a wait to speak of. The child stays the caller's; what
    /// is told of here is its end alone, so that dropping either changes nothing about the other. The descriptor is
    /// the driver's: [close](Driver::close) it when nobody waits any more.
    ///
    /// On Linux it is a `pidfd`, with kqueue a queue of its own that has the one filter for the process, and on
    /// Windows a handle of the process.
    ///
    /// # Errors
    /// `Unsupported`: the driver runs on a simulated system, which has no processes; or Linux is older than 5.3.
    /// The table is full (`max_descriptors`), or the system has no more descriptors.
    ///
    /// ```no_run
    /// # use pelton_driver::{Config, Driver, Interest, Submission, Token};
    /// let driver = Driver::new(Config::default())?;
    /// let mut child = std::process::Command::new("true").spawn()?;
    /// if let Some(fd) = driver.watch_child(&child)? {
    ///     let ended = driver.submit(Submission::poll(fd, Interest::Readable), Token::NONE);
    ///     driver.finish(ended.map_err(|refused| refused.error)?, None, |_| {})??;
    ///     driver.close(fd);
    /// }
    /// assert!(child.wait()?.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch_child(&self, child: &Child) -> io::Result<Option<Fd>> {
        if self.is_simulated() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a simulated system has no processes: wait for real ones on a reactor of the real system",
            ));
        }
        let Some(descriptor) = self.room.watch_child(child)? else { return Ok(None) };
        self.insert(descriptor, flags::FOREIGN).map(Some)
    }
}
