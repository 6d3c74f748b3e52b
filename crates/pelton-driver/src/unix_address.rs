//! Addresses of Unix sockets: a path, on Linux perhaps a name outside of the file system, or nothing.

use std::fmt;
use std::io;
use std::path::Path;

use crate::sys::{AddressFamily, AddressLength, AddressStorage, FAMILY_AT};

/// The bytes that a system has for a path, the byte of zero behind it included.
#[cfg(any(target_os = "linux", windows))]
const ROOM: usize = 108;
#[cfg(not(any(target_os = "linux", windows)))]
const ROOM: usize = 104;
/// Where the path stands, on every system: behind the family, which some precede with a length.
const PATH_AT: usize = 2;
const FAMILY: AddressFamily = 1;

/// The address of a Unix socket.
///
/// ```
/// use pelton_driver::UnixAddr;
/// let address = UnixAddr::from_path("/run/counter.sock")?;
/// assert_eq!(address.as_path(), Some(std::path::Path::new("/run/counter.sock")));
///
/// let long = UnixAddr::from_path("x".repeat(300)).unwrap_err();
/// assert!(long.to_string().contains("the longest that this system has"), "{long}");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UnixAddr(Name);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
enum Name {
    #[default]
    None,
    Path(Vec<u8>),
    Abstract(Vec<u8>),
}

impl UnixAddr {
    /// The bytes of the longest path on this system: 107 on Linux and Windows, 103 on macOS and the BSDs.
    pub const LONGEST_PATH: usize = ROOM - 1;

    /// A path in the file system.
    ///
    /// # Errors
    /// The path is empty, has a byte of zero in it, or is longer than [`UnixAddr::LONGEST_PATH`].
    pub fn from_path(path: impl AsRef<Path>) -> io::Result<UnixAddr> {
        let bytes = path.as_ref().as_os_str().as_encoded_bytes();
        if bytes.is_empty() {
            return Err(bad("a Unix socket's path cannot be empty"));
        }
        if bytes.contains(&0) {
            return Err(bad("a Unix socket's path cannot have a byte of zero in it"));
        }
        if bytes.len() > UnixAddr::LONGEST_PATH {
            let (len, most) = (bytes.len(), UnixAddr::LONGEST_PATH);
            return Err(bad(&format!(
                "a Unix socket's path of {len} bytes: the longest that this system has is {most}; \
                 use a shorter one, or one relative to the working directory"
            )));
        }
        Ok(UnixAddr(Name::Path(bytes.to_vec())))
    }

    /// A name outside of the file system, which ends with its socket. Linux alone has those.
    ///
    /// # Errors
    /// `Unsupported` elsewhere; or the name is longer than [`UnixAddr::LONGEST_PATH`].
    pub fn from_abstract_name(name: impl AsRef<[u8]>) -> io::Result<UnixAddr> {
        let name = name.as_ref();
        if !cfg!(target_os = "linux") {
            let what = "this system has no abstract names of Unix sockets: use a path";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        if name.len() > UnixAddr::LONGEST_PATH {
            let (len, most) = (name.len(), UnixAddr::LONGEST_PATH);
            return Err(bad(&format!("an abstract name of {len} bytes: the longest is {most}")));
        }
        Ok(UnixAddr(Name::Abstract(name.to_vec())))
    }

    /// The path, if it is one.
    pub fn as_path(&self) -> Option<&Path> {
        match &self.0 {
            Name::Path(bytes) => as_path(bytes),
            _ => None,
        }
    }

    /// The name outside of the file system, if it is one.
    pub fn as_abstract_name(&self) -> Option<&[u8]> {
        match &self.0 {
            Name::Abstract(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// True of a socket that was not bound, as those are that connect.
    pub fn is_unnamed(&self) -> bool {
        self.0 == Name::None
    }

    /// Writes it in the system's form; returns its length.
    pub(crate) fn write(&self, to: &mut [u8; size_of::<AddressStorage>()]) -> AddressLength {
        let (lead, bytes, end): (&[u8], &[u8], &[u8]) = match &self.0 {
            Name::None => (&[], &[], &[]),
            Name::Path(bytes) => (&[], bytes, &[0]),
            Name::Abstract(bytes) => (&[0], bytes, &[]),
        };
        to[..PATH_AT].fill(0);
        to[FAMILY_AT..][..size_of::<AddressFamily>()].copy_from_slice(&FAMILY.to_ne_bytes());
        let mut len = PATH_AT;
        for part in [lead, bytes, end] {
            to[len..][..part.len()].copy_from_slice(part);
            len += part.len();
        }
        // Where the family is one byte, the length stands before it.
        if FAMILY_AT == 1 {
            to[0] = len as u8;
        }
        len as AddressLength
    }

    /// Reads what a system has written, if it is of this family.
    pub(crate) fn read(bytes: &[u8]) -> Option<UnixAddr> {
        let family = bytes.get(FAMILY_AT..)?.get(..size_of::<AddressFamily>())?;
        if family != FAMILY.to_ne_bytes() {
            return None;
        }
        let path = bytes.get(PATH_AT..).unwrap_or_default();
        Some(UnixAddr(match path {
            [0, name @ ..] if cfg!(target_os = "linux") => Name::Abstract(name.to_vec()),
            [] | [0, ..] => Name::None,
            path => Name::Path(path.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()),
        }))
    }
}

/// As `socket2` has addresses.
impl UnixAddr {
    pub(crate) fn to_system(&self) -> io::Result<socket2::SockAddr> {
        // SAFETY: all of the storage is zero to begin with, and the address is as long as was written.
        let ((), system) = unsafe {
            socket2::SockAddr::try_init(|storage, len| {
                *len = self.write(&mut *storage.cast()) as _;
                Ok(())
            })?
        };
        Ok(system)
    }

    /// # Errors
    /// `Unsupported`: it is of another family.
    pub(crate) fn of_system(address: &socket2::SockAddr) -> io::Result<UnixAddr> {
        // SAFETY: so many bytes of it are the address.
        let bytes = unsafe {
            std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), address.len() as usize)
        };
        UnixAddr::read(bytes).ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "the socket is not a Unix socket")
        })
    }
}

impl fmt::Debug for UnixAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Name::None => f.write_str("(unnamed)"),
            Name::Path(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            Name::Abstract(bytes) => write!(f, "@{}", bytes.escape_ascii()),
        }
    }
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "not every system's paths are any bytes")]
fn as_path(bytes: &[u8]) -> Option<&Path> {
    use std::os::unix::ffi::OsStrExt;
    Some(Path::new(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(windows)]
fn as_path(bytes: &[u8]) -> Option<&Path> {
    str::from_utf8(bytes).ok().map(Path::new)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(address: &UnixAddr) -> (usize, Option<UnixAddr>) {
        let mut storage = [0xaa; size_of::<AddressStorage>()];
        let len = address.write(&mut storage) as usize;
        (len, UnixAddr::read(&storage[..len]))
    }

    #[test]
    fn what_is_written_is_read() {
        let longest = "p".repeat(UnixAddr::LONGEST_PATH);
        for path in ["a", "/tmp/x", &longest] {
            let address = UnixAddr::from_path(path).unwrap();
            assert_eq!(there_and_back(&address), (PATH_AT + path.len() + 1, Some(address)));
        }
        let none = UnixAddr::default();
        assert_eq!(there_and_back(&none), (PATH_AT, Some(none)));
        if let Ok(name) = UnixAddr::from_abstract_name(b"a\0b") {
            assert_eq!(there_and_back(&name), (PATH_AT + 4, Some(name)));
        }
    }

    #[test]
    fn bad_paths_are_refused() {
        for path in ["", "a\0b", &"p".repeat(UnixAddr::LONGEST_PATH + 1)] {
            let error = UnixAddr::from_path(path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
    }

    #[test]
    fn what_is_not_of_the_family_or_cut_off_is_nothing() {
        let mut storage = [0; size_of::<AddressStorage>()];
        assert_eq!(UnixAddr::read(&storage), None);
        UnixAddr::from_path("/x").unwrap().write(&mut storage);
        for len in 0..PATH_AT {
            assert_eq!(UnixAddr::read(&storage[..len]), None, "{len}");
        }
        // A system that counts no byte of zero, and one that fills all it has.
        assert_eq!(
            UnixAddr::read(&storage[..PATH_AT + 2]).unwrap().as_path().unwrap(),
            Path::new("/x")
        );
        let whole = UnixAddr::read(&storage).unwrap();
        assert_eq!(whole.as_path().unwrap(), Path::new("/x"));
    }
}
