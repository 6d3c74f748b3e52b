//! What the server asks of the runtime beneath it. The rest of the program is written against these
//! two traits, and its tests run on an implementation of a few lines.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// A future that stays on its reactor.
pub(crate) type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// A runtime, as one reactor sees it.
pub(crate) trait Runtime: Clone + 'static {
    /// An open file as the runtime reads it.
    type File: 'static;

    /// Takes over a file that the pool opened.
    fn adopt(&self, file: File) -> io::Result<Self::File>;

    /// Reads at `offset` into the spare capacity of `buf`, behind what it holds. Returns how much
    /// was read, 0 at the end of the file, and the buffer, longer by that much.
    fn read_at(
        file: Rc<Self::File>,
        buf: Vec<u8>,
        offset: u64,
    ) -> LocalBoxFuture<(io::Result<usize>, Vec<u8>)>;

    /// Runs `job` on the pool. An error means that it did not run to its end: it panicked, or there
    /// is no pool.
    fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = io::Result<T>>;

    /// Ends after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;

    /// Runs a future on this reactor. That it panics must not harm anyone else.
    fn spawn(&self, future: impl Future<Output = ()> + 'static);

    /// Counts a connection that was closed as it came.
    fn shed(&self);
}

/// A socket that connections come from.
pub(crate) trait Listener {
    /// A connection, as hyper reads and writes it.
    type Io: hyper::rt::Read + hyper::rt::Write + Unpin + 'static;

    /// The next connection, and whose it is where that is known. Dropping the future loses none.
    ///
    /// # Errors
    /// What concerns the listener; what concerns a single connection is passed over, and while
    /// descriptors are short this waits.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Io, Option<SocketAddr>)>>;
}
