//! Changes in a directory.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::time::Duration;

use pelton_driver::{Change, ChangeBuffer, Directory, DirectoryWatch, Own};

use crate::operation::Pending;
use crate::reactor::{NOBODY, Reactor};
use crate::socket::Socket;
use crate::time;

/// How long the new name of an entry may come after its old one.
const HALF: Duration = Duration::from_millis(2);

/// Watches a directory for changes of its entries, but not of those of directories in it. It is opened on the blocking
/// pool.
///
/// Systems differ in how much they tell; [`pelton_driver::DirectoryWatch`] has the table. A program that answers
/// [`Change::Rescan`] by looking at the directory anew works on all of them.
///
/// # Errors
/// What the system said: `NotFound`, or `NotADirectory`; on Linux also a limit
/// (`fs.inotify.max_user_instances`, as `EMFILE`). No reactor runs on this thread. `Unsupported`: it is a simulated
/// one, on which nothing tells of changes.
///
/// ```
/// # pelton::block_on(async {
/// use pelton::fs::Change;
/// # let directory = std::env::temp_dir().join(format!("pelton-watch-{}", std::process::id()));
/// # std::fs::create_dir(&directory)?;
/// let mut watcher = pelton::fs::watch(&directory).await?;
/// std::fs::write(directory.join("settings"), "")?;
/// match watcher.next().await? {
///     Change::Created(name) => assert_eq!(name, "settings"),
///     change => assert_eq!(change, Change::Rescan),
/// }
/// # std::fs::remove_dir_all(&directory)?;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub async fn watch(path: impl AsRef<Path>) -> io::Result<Watcher> {
    let reactor = Reactor::here()?;
    let (path, backend) = (path.as_ref().to_owned(), reactor.driver.backend());
    // What is refused without a look need not go to a thread, which a simulated system would have to play.
    let directory = if reactor.driver.is_simulated() {
        Directory::open(path, backend)?
    } else {
        crate::spawn_blocking(move || Directory::open(path, backend)).await??
    };
    let watch = reactor.driver.watch_directory(directory)?;
    let socket = Socket { reactor: reactor.into(), fd: watch.fd() };
    let mut watcher = Watcher { pending: Pending::none(), socket: Some(socket), watch };
    // On Windows changes are told from here on.
    watcher.begin()?;
    Ok(watcher)
}

/// A directory that is watched by this thread's reactor. What changes while nobody asks is kept, as far as the system
/// keeps it.
pub struct Watcher {
    watch: DirectoryWatch,
    pending: Pending<Own<ChangeBuffer>>,
    /// Closed when the directory has gone: on Windows it goes only then.
    socket: Option<Socket>,
}

impl Watcher {
    /// Waits for the next change. Cancelling loses none.
    ///
    /// # Errors
    /// `NotFound`: the directory itself has been removed, and all that was told before that has been told here. Or what
    /// the system said.
    pub async fn next(&mut self) -> io::Result<Change> {
        loop {
            if let Some(change) = self.watch.next() {
                return Ok(change);
            }
            if self.watch.has_gone() || self.socket.is_none() {
                self.end();
                let what = "the directory that was watched has been removed: watch another";
                return Err(io::Error::new(io::ErrorKind::NotFound, what));
            }
            self.begin()?;
            let outcome = if self.watch.has_half_a_rename() {
                match time::timeout(HALF, self.arrived()).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        self.watch.settle();
                        continue;
                    }
                }
            } else {
                self.arrived().await
            };
            self.watch.take_in(outcome)?;
        }
    }

    /// Has an operation under way, if the directory is still there.
    fn begin(&mut self) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        if self.pending.key().is_some() {
            return Ok(());
        }
        if socket.reactor.has_ended() {
            return Err(crate::operation::ended());
        }
        match self.watch.submit(&socket.reactor.driver, NOBODY) {
            Ok(key) => self.pending = Pending::of(Some(key)),
            // Told when all else has been.
            Err(_) if self.watch.has_gone() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits for the operation that is under way.
    async fn arrived(&mut self) -> (io::Result<usize>, ChangeBuffer) {
        poll_fn(|cx| {
            let socket = self.socket.as_ref().expect("it has not gone");
            self.pending.poll(&socket.reactor, cx).expect("it is under way")
        })
        .await
    }

    /// Closes the directory.
    fn end(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.pending.abandon(&socket.reactor);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("watch", &self.watch).finish_non_exhaustive()
    }
}
