//! Files: reading and writing at an offset. Directories: being told of changes.
//!
//! What the page cache has is read at once, by a system call that does not wait. On io_uring several tasks that
//! read at a time have their reads go through the ring instead, with one entry into the kernel for all, which
//! costs less from about six on. What is not cached goes through the ring on io_uring, and to the blocking pool
//! on epoll; a file of which nothing was cached is not asked again at each read: it pauses for one read, then
//! three, and up to 63, until one finds its bytes. Opening, and whatever else has no operation yet, is for
//! [`spawn_blocking`](crate::spawn_blocking).

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::task::Poll;

use pelton_driver::{IoBuf, IoBufMut, OpenOptions, Submission};

use crate::reactor::{MayGoOn, Reactor};
use crate::socket::Socket;

mod watch;

pub use pelton_driver::Change;
pub use watch::{Watcher, watch};

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
    pub async fn read_at<B: IoBufMut>(&self, mut buf: B, offset: u64) -> (io::Result<usize>, B) {
        let Socket { reactor, fd } = &self.socket;
        let may = poll_fn(|cx| {
            if reactor.may_go_on() {
                return Poll::Ready(true);
            }
            match reactor.give_way(cx.waker()) {
                MayGoOn::Later => Poll::Pending,
                MayGoOn::Never => Poll::Ready(false),
            }
        });
        if may.await
            && !reactor.reads_go_together()
            && let Some(read) = reactor.driver.read_cached(*fd, &mut buf, offset)
        {
            reactor.ended_at_once();
            return (Ok(read), buf);
        }
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
