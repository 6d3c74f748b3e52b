//! What a program asks of the system that is no operation: the time, names, files to open, random numbers.
//!
//! On a thread that is in a simulated world (feature `sim`) the world answers, the same each time it runs;
//! elsewhere the system does. A program that asks here and nowhere else can be simulated.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{Instant, SystemTime};

use crate::sys::{OwnedDescriptor, calls, file};

/// The clock that does not go back: [`Instant::now`], or the world's.
///
/// ```
/// let now = pelton_driver::system::now();
/// assert!(pelton_driver::system::now() >= now);
/// ```
#[inline]
pub fn now() -> Instant {
    calls::now()
}

/// The wall clock: [`SystemTime::now`], or the world's.
///
/// ```
/// assert!(pelton_driver::system::wall() > std::time::SystemTime::UNIX_EPOCH);
/// ```
#[inline]
pub fn wall() -> SystemTime {
    calls::wall()
}

/// A random number, for seeds of hash tables, for names that are not to collide, and for waits that are not
/// to coincide. **No cryptographic source**: whoever sees some of them may guess others.
///
/// ```
/// assert_ne!(pelton_driver::system::random(), pelton_driver::system::random());
/// ```
pub fn random() -> u64 {
    // Two of these are never keyed alike, so a constant is as good to hash as anything.
    calls::random().unwrap_or_else(|| RandomState::new().hash_one(0))
}

/// The addresses of a host, each with this port. **Blocks** until the system's resolver has answered: call
/// it on the [blocking pool](crate::blocking).
///
/// # Errors
/// There is no such host, or the resolver cannot be reached.
///
/// ```
/// let found = pelton_driver::lookup("127.0.0.1", 80)?;
/// assert_eq!(found, ["127.0.0.1:80".parse().unwrap()]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    calls::resolve(host, port).unwrap_or_else(|| Ok((host, port).to_socket_addrs()?.collect()))
}

/// How to open a file, as [`std::fs::OpenOptions`] says it.
///
/// ```
/// use pelton_driver::OpenOptions;
/// let file = OpenOptions::new().read(true).open("Cargo.toml")?;
/// # drop(file);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) truncate: bool,
}

impl OpenOptions {
    /// Nothing is said yet: such a file cannot be opened.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// It is to be read.
    pub fn read(&mut self, read: bool) -> &mut OpenOptions {
        self.read = read;
        self
    }

    /// It is to be written.
    pub fn write(&mut self, write: bool) -> &mut OpenOptions {
        self.write = write;
        self
    }

    /// It is made where it does not exist. Needs `write`.
    pub fn create(&mut self, create: bool) -> &mut OpenOptions {
        self.create = create;
        self
    }

    /// It is made, and it is an error that it exists already. Needs `write`.
    pub fn create_new(&mut self, create_new: bool) -> &mut OpenOptions {
        self.create_new = create_new;
        self
    }

    /// What it contains is thrown away. Needs `write`.
    pub fn truncate(&mut self, truncate: bool) -> &mut OpenOptions {
        self.truncate = truncate;
        self
    }

    /// Opens the file, for [`Driver::attach`](crate::Driver::attach). **Blocks** until the system has found
    /// it: call it on the [blocking pool](crate::blocking).
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `AlreadyExists` with [`create_new`](OpenOptions::create_new), or
    /// whatever else the system said. `InvalidInput`: the options contradict each other.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<OwnedDescriptor> {
        file::open(path.as_ref(), *self)
    }
}
