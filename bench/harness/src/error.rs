//! What can go wrong, and what to do about it.

use std::fmt;
use std::io;

/// An error of the benchmark. Every message names the thing concerned and, where there is one, the
/// cure.
#[derive(Debug)]
pub(crate) enum Error {
    /// The command line asks for something that does not exist.
    Usage(String),
    /// A server did not do what it was started for.
    Server { name: String, what: String },
    /// The connections of the load were refused, broken or silent.
    Load(String),
    /// A file or a call of the system.
    System { what: String, source: io::Error },
    /// A tool that the measurement needs is not installed.
    Missing { tool: &'static str, cure: &'static str },
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn server(name: &str, what: impl Into<String>) -> Self {
        Error::Server { name: name.to_owned(), what: what.into() }
    }
}

/// Adds what was being done to an error of the system.
pub(crate) trait During<T> {
    fn during(self, what: impl Into<String>) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::System { what: what.into(), source })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(what) | Error::Load(what) => f.write_str(what),
            Error::Server { name, what } => write!(f, "server {name}: {what}"),
            Error::System { what, source } => write!(f, "{what}: {source}"),
            Error::Missing { tool, cure } => write!(f, "{tool} is missing: {cure}"),
        }
    }
}

impl std::error::Error for Error {}
