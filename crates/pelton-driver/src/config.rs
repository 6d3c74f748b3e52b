//! Settings, checked at construction: a bad one is an error that names its field, never an `EINVAL` at
//! first use.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

/// Which kernel interface a driver uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// The best that works here: io_uring, else epoll; on macOS and the BSDs kqueue, on Windows completion
    /// ports. `PELTON_BACKEND` in the environment can name another.
    #[default]
    Auto,
    /// io_uring, from Linux 6.1.
    IoUring,
    /// epoll, with a pool of threads for files.
    Epoll,
    /// kqueue, with a pool of threads for files. macOS and the BSDs.
    Kqueue,
    /// Completion ports. Only Windows.
    Iocp,
    /// A simulated system instead of the real one (feature `sim`): io_uring on that, or epoll.
    #[cfg(feature = "sim")]
    Sim,
}

impl Backend {
    /// The backend's name, as `PELTON_BACKEND` and the command line spell it.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Auto => "auto",
            Backend::IoUring => "io_uring",
            Backend::Epoll => "epoll",
            Backend::Kqueue => "kqueue",
            Backend::Iocp => "iocp",
            #[cfg(feature = "sim")]
            Backend::Sim => "sim",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Backend, ConfigError> {
        match name {
            "auto" => Ok(Backend::Auto),
            "io_uring" | "io-uring" | "uring" => Ok(Backend::IoUring),
            "epoll" => Ok(Backend::Epoll),
            "kqueue" => Ok(Backend::Kqueue),
            "iocp" => Ok(Backend::Iocp),
            #[cfg(feature = "sim")]
            "sim" => Ok(Backend::Sim),
            #[cfg(not(feature = "sim"))]
            "sim" => Err(ConfigError {
                field: "backend",
                reason:
                    "this program was built without the feature `sim`: build it with that, or use \
                         auto, io_uring, epoll, kqueue or iocp"
                        .into(),
            }),
            _ => Err(ConfigError {
                field: "backend",
                reason: format!(
                    "{name:?} is no backend: use auto, io_uring, epoll, kqueue or iocp"
                ),
            }),
        }
    }
}

/// The settings of a driver. Every field has a default that works everywhere.
///
/// ```
/// use pelton_driver::{Backend, Config, Driver};
/// let config = Config { backend: Backend::Epoll, ..Config::default() };
/// assert_eq!(Driver::new(config)?.backend(), Backend::Epoll);
///
/// let bad = Config { ring_entries: 3, ..Config::default() };
/// assert_eq!(bad.check().unwrap_err().field, "ring_entries");
/// # Ok::<(), pelton_driver::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Which backend. [`Backend::Auto`] also obeys `PELTON_BACKEND`.
    pub backend: Backend,
    /// Entries of the submission queue: how much one tick stages before it has to enter the kernel. A
    /// power of two from 1 to 32768. Only io_uring.
    pub ring_entries: u32,
    /// Entries of the completion queue. A power of two from `ring_entries` to 65536, better four times
    /// `ring_entries` and more, because multishot operations complete more often than they are submitted.
    /// Only io_uring.
    pub completion_entries: u32,
    /// The most operations in flight at once, timers among them. Each needs 64 bytes, touched when used.
    pub max_operations: u32,
    /// The most descriptors at once.
    pub max_descriptors: u32,
    /// Buffers in the pool for receives without a buffer. A power of two from 1 to 32768.
    pub pool_buffers: u16,
    /// Bytes of each buffer of the pool, from 64 to 16 MiB.
    pub pool_buffer_len: u32,
    /// Opt-in batching: how long a wait that found nothing ready goes on gathering completions after it began,
    /// so that many of them cost one entry into the kernel and one wake-up of the thread. Zero, the default,
    /// hands each over as it comes. It is for a server that is neither idle nor saturated, and adds at most as
    /// much to its latency; an idle one sleeps as ever. A wait ends at once when [`Config::BATCH`] completions
    /// are there, and never lasts longer than a timer allows. Wakes from other threads wait too.
    ///
    /// Needs io_uring from Linux 6.12; without it a driver with this setting is refused with
    /// [`Error::Unsupported`]. At most 10 ms, and rounded up to whole microseconds.
    pub batch_wait: Duration,
    /// How long a drop waits for operations in flight before it leaves their memory behind.
    pub shutdown_timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            backend: Backend::Auto,
            ring_entries: 1024,
            completion_entries: 8192,
            max_operations: 1 << 20,
            max_descriptors: 1 << 20,
            pool_buffers: 64,
            // The kernel takes them in turn: all of them, one mebibyte, should stay in a processor's own cache.
            pool_buffer_len: 16 * 1024,
            batch_wait: Duration::ZERO,
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// How many completions end a wait before its [`batch_wait`](Config::batch_wait) is over.
    pub const BATCH: u32 = 32;

    /// Checks every field, as [`Driver::new`](crate::Driver::new) does first.
    ///
    /// # Errors
    /// The first field that is wrong, and what it may be.
    pub fn check(&self) -> Result<(), ConfigError> {
        power_of_two("ring_entries", self.ring_entries, 1, 32768)?;
        power_of_two(
            "completion_entries",
            self.completion_entries,
            self.ring_entries.max(2),
            65536,
        )?;
        within("max_operations", self.max_operations, 1, 1 << 28)?;
        within("max_descriptors", self.max_descriptors, 256, 1 << 28)?;
        power_of_two("pool_buffers", u32::from(self.pool_buffers), 1, 32768)?;
        within("pool_buffer_len", self.pool_buffer_len, 64, 16 << 20)?;
        if self.batch_wait > Duration::from_millis(10) {
            return Err(ConfigError {
                field: "batch_wait",
                reason: format!("{:?} is longer than 10 ms", self.batch_wait),
            });
        }
        if self.shutdown_timeout > Duration::from_secs(3600) {
            return Err(ConfigError {
                field: "shutdown_timeout",
                reason: format!("{:?} is longer than an hour", self.shutdown_timeout),
            });
        }
        Ok(())
    }

    /// Which backend is wanted: the field, or where that is `Auto` the environment's.
    pub(crate) fn wanted(&self) -> Result<Backend, ConfigError> {
        if self.backend != Backend::Auto {
            return Ok(self.backend);
        }
        match std::env::var("PELTON_BACKEND") {
            Ok(name) if !name.is_empty() => name
                .parse()
                .map_err(|error: ConfigError| ConfigError { field: "PELTON_BACKEND", ..error }),
            _ => Ok(Backend::Auto),
        }
    }
}

/// A setting that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The field of the settings, or the variable of the environment.
    pub field: &'static str,
    /// What is wrong with its value and what it may be.
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.field, self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// Why a driver could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting is wrong.
    Config(ConfigError),
    /// The backend that was asked for cannot run here.
    Unsupported {
        /// The backend.
        backend: Backend,
        /// Why, and what to do about it.
        reason: String,
    },
    /// The system refused something that every backend needs. Where something has run out it says what helps;
    /// nothing is left of the driver, and another attempt may succeed.
    Os {
        /// What was refused.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(error) => write!(f, "bad setting {error}"),
            Error::Unsupported { backend, reason } => {
                write!(f, "{backend} cannot run here: {reason}")
            }
            Error::Os { what, error } => match crate::sys::cure(error) {
                Some(cure) => write!(f, "{what}: {error}: {cure}"),
                None => write!(f, "{what}: {error}"),
            },
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Config(error) => Some(error),
            Error::Unsupported { .. } => None,
            Error::Os { error, .. } => Some(error),
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Error {
        Error::Config(error)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match &error {
            Error::Config(_) => io::ErrorKind::InvalidInput,
            Error::Unsupported { .. } => io::ErrorKind::Unsupported,
            Error::Os { error, .. } => error.kind(),
        };
        io::Error::new(kind, error)
    }
}

fn within(field: &'static str, value: u32, least: u32, most: u32) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError { field, reason: format!("{value} is not between {least} and {most}") })
}

fn power_of_two(field: &'static str, value: u32, least: u32, most: u32) -> Result<(), ConfigError> {
    within(field, value, least, most)?;
    if value.is_power_of_two() {
        return Ok(());
    }
    Err(ConfigError {
        field,
        reason: format!(
            "{value} is not a power of two: use {} or {}",
            value.next_power_of_two() / 2,
            value.next_power_of_two()
        ),
    })
}
