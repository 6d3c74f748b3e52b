//! Pipes of the driver's own.

use std::io;

use super::Driver;
#[cfg(windows)]
use super::bad_descriptor;
use crate::descriptor::Fd;
#[cfg(windows)]
use crate::sys::RawDescriptor;
use crate::sys::pipe;

impl Driver {
    /// A pipe: what is [written](crate::Submission::write) to its second end is [read](crate::Submission::read) from
    /// its first. Does not wait.
    ///
    /// On Windows, where anonymous pipes know no overlapped calls, it is a named one underneath, whose name nobody
    /// is told and which takes no second client.
    ///
    /// # Errors
    /// A table of descriptors is full.
    ///
    /// ```
    /// use pelton_driver::{Config, Driver, Submission, Token};
    /// let driver = Driver::new(Config::default())?;
    /// let (from, to) = driver.pipe()?;
    /// let read = driver.submit(Submission::read(from, [0; 8]), Token::NONE).map_err(|r| r.error)?;
    /// let write = driver.submit(Submission::write(to, "hello"), Token::NONE).map_err(|r| r.error)?;
    /// while !driver.is_done(&read) {
    ///     driver.tick(None, |_completion| {})?;
    /// }
    /// assert_eq!(driver.take(read).expect("it is done").0?, 5);
    /// # drop(write);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pipe(&self) -> io::Result<(Fd, Fd)> {
        let (from, to) = pipe::pair(self.wants())?;
        let from = self.insert(from, 0)?;
        match self.insert(to, 0) {
            Ok(to) => Ok((from, to)),
            Err(error) => {
                self.close(from);
                Err(error)
            }
        }
    }

    /// Asks the system about a descriptor that is open.
    #[cfg(windows)]
    pub(crate) fn with_raw<R>(
        &self,
        fd: Fd,
        ask: impl FnOnce(RawDescriptor) -> io::Result<R>,
    ) -> io::Result<R> {
        let entry = self.core.fds.find(fd).ok_or_else(bad_descriptor)?;
        ask(entry.raw.get())
    }
}
