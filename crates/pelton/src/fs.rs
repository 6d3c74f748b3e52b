//! Files: reading and writing at an offset.
//!
//! What the page cache has is read at once. Everything else goes through the ring on io_uring, and to the
//! blocking pool on epoll. Opening, and whatever else has no operation yet, is for
//! [`spawn_blocking`](crate::spawn_blocking).

use std::fmt;
use std::io;
use std::path::Path;

use pelton_driver::{IoBuf, IoBufMut, OpenOptions, Submission};

use crate::reactor::Reactor;
use crate::socket::Socket;

/// An open file of this thread's reactor.
///
/// ```
/// # pelton::block_on(async {
/// let file = pelton::fs::File::open("Cargo.toml").await?;
/// let (read, buf) = file.read_at(Vec::with_capacity(4096), 0).await;
/// assert_eq!(buf.len(), read?);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct File {
    socket: Socket,
}

impl File {
    /// Opens a file for reading, on the blocking pool.
    ///
    /// # Errors
    /// What the system said, or no reactor runs on this thread.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true);
        File::opened(path, options).await
    }

    /// Creates a file for reading and writing, or empties one, on the blocking pool.
    ///
    /// # Errors
    /// What the system said, or no reactor runs on this thread.
    pub async fn create(path: impl AsRef<Path>) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        File::opened(path, options).await
    }

    async fn opened(path: impl AsRef<Path>, options: OpenOptions) -> io::Result<File> {
        let path = path.as_ref().to_owned();
        let file = crate::spawn_blocking(move || options.open(path)).await??;
        Ok(File { socket: Socket::attach(Reactor::here()?, file)? })
    }

    /// Takes over an open file.
    ///
    /// # Errors
    /// No reactor runs on this thread, or its table of descriptors is full.
    pub fn from_std(file: std::fs::File) -> io::Result<File> {
        Ok(File { socket: Socket::attach(Reactor::here()?, file.into())? })
    }

    /// Reads once at `offset` bytes. 0 bytes are the end of the file. A `Vec` is filled behind what it has.
    ///
    /// # Errors
    /// What the system said, or the buffer has no room. The buffer comes back in any case.
    pub async fn read_at<B: IoBufMut>(&self, buf: B, offset: u64) -> (io::Result<usize>, B) {
        self.socket.operation(buf, move |fd, buf| Submission::read_at(fd, buf, offset)).await
    }

    /// Writes once at `offset` bytes, and says how much.
    ///
    /// # Errors
    /// What the system said. The buffer comes back in any case.
    pub async fn write_at<B: IoBuf>(&self, buf: B, offset: u64) -> (io::Result<usize>, B) {
        self.socket.operation(buf, move |fd, buf| Submission::write_at(fd, buf, offset)).await
    }

    /// Brings everything that was written to the disk, what the file is called and when it changed too.
    ///
    /// # Errors
    /// What the system said: what was written may not be on the disk then, and may never be.
    pub async fn sync_all(&self) -> io::Result<()> {
        self.socket.operation(false, Submission::sync).await.map(drop)
    }

    /// Brings the content that was written to the disk.
    ///
    /// # Errors
    /// As for [`File::sync_all`].
    pub async fn sync_data(&self) -> io::Result<()> {
        self.socket.operation(true, Submission::sync).await.map(drop)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("fd", &self.socket.fd).finish_non_exhaustive()
    }
}
