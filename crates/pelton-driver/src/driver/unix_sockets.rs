//! Unix sockets of the driver's own: by path, made for its system and asked there.

use std::io;

use super::Driver;
use crate::descriptor::Fd;
use crate::sys::socket;
use crate::unix_address::UnixAddr;

impl Driver {
    /// A Unix stream socket that listens at an address, and keeps at most `backlog` connections until they are
    /// accepted. Does not wait. A path stays in the file system when the socket is closed, and is in use as
    /// long as it is there: whoever owns it removes it.
    ///
    /// # Errors
    /// The path is in use, or not allowed; the address is unnamed; or a table of descriptors is full.
    /// `Unsupported` on Windows before Windows 10, version 1803, which has none.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use pelton_driver::{Config, Driver, Submission, Token, UnixAddr};
    /// let driver = Driver::new(Config::default())?;
    /// let path = std::env::temp_dir().join(format!("pelton-doc-{}", std::process::id()));
    /// let address = UnixAddr::from_path(&path)?;
    /// let listener = driver.unix_listen(&address, 16)?;
    /// let client = driver.unix_socket()?;
    ///
    /// let connect = Submission::connect_unix(client, address.clone());
    /// let connect = driver.submit(connect, Token::NONE).map_err(|r| r.error)?;
    /// while !driver.is_done(&connect) {
    ///     driver.tick(None, |_completion| {})?;
    /// }
    /// driver.take(connect).expect("it is done")?;
    /// assert_eq!(driver.unix_peer_addr(client)?, address);
    /// # let _ = listener;
    /// std::fs::remove_file(path)?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unix_listen(&self, address: &UnixAddr, backlog: i32) -> io::Result<Fd> {
        if address.is_unnamed() {
            let what = "a Unix socket cannot listen without a name: say a path";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let listener = socket::unix_listening(address, backlog, self.wants())?;
        let raw = listener.as_raw();
        let fd = self.attach_stream(listener);
        self.room.listens(raw, fd.is_ok());
        fd
    }

    /// A Unix stream socket, to [connect](crate::Submission::connect_unix). Does not wait. See
    /// [`Driver::unix_listen`] for an example.
    ///
    /// # Errors
    /// A table of descriptors is full. `Unsupported` on Windows before Windows 10, version 1803.
    pub fn unix_socket(&self) -> io::Result<Fd> {
        self.attach_stream(socket::unix_stream(self.wants())?)
    }

    /// The address that a Unix socket was bound to.
    ///
    /// # Errors
    /// `EBADF`: the driver has no such descriptor. `Unsupported`: it is no Unix socket. Or what the system said.
    pub fn unix_local_addr(&self, fd: Fd) -> io::Result<UnixAddr> {
        self.asking(fd, socket::Open::unix_local_addr)
    }

    /// The address that the peer of a Unix socket was bound to.
    ///
    /// # Errors
    /// As for [`Driver::unix_local_addr`]; it is not connected.
    pub fn unix_peer_addr(&self, fd: Fd) -> io::Result<UnixAddr> {
        self.asking(fd, socket::Open::unix_peer_addr)
    }
}
