//! From the path of a request target to a relative path that is safe to hand to
//! [`crate::root::Root`].
//!
//! The target is split at its slashes first and each segment is percent-decoded once, so that an
//! encoded slash can never become a separator and `%252e` is a file whose name contains a percent
//! sign. What is left here holds no `..`, no NUL and no separator of any system; links that lead
//! out are the root's business.

use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// Everything but the unreserved characters of RFC 3986 §2.3.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A decoded path beneath the root: segments joined by single slashes, without one in front.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SitePath {
    relative: Vec<u8>,
    folder: bool,
}

/// Why a request target names nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathError {
    /// No path, or one that tries to be something else: 400.
    Malformed,
    /// A name that is not for the public: 404, as if it did not exist.
    Hidden,
}

impl SitePath {
    /// Reads the path of a request target, percent-encoded and with its leading slash.
    pub(crate) fn parse(path: &str) -> Result<SitePath, PathError> {
        Self::parse_for(path, cfg!(windows))
    }

    fn parse_for(path: &str, windows: bool) -> Result<SitePath, PathError> {
        let path = path.strip_prefix('/').ok_or(PathError::Malformed)?;
        let mut relative = Vec::with_capacity(path.len());
        let mut hidden = false;
        let mut folder = true;
        for segment in path.split('/') {
            let start = relative.len();
            if start > 0 {
                relative.push(b'/');
            }
            let name = relative.len();
            decode(segment, &mut relative)?;
            folder = false;
            match &relative[name..] {
                // `a//b` and `a/./b` are `a/b`.
                b"" | b"." => {
                    relative.truncate(start);
                    folder = true;
                }
                b".." => return Err(PathError::Malformed),
                name if name.iter().any(|b| matches!(b, 0 | b'/' | b'\\')) => {
                    return Err(PathError::Malformed);
                }
                name if windows && !fit_for_windows(name) => return Err(PathError::Malformed),
                name => hidden |= is_hidden(name),
            }
        }
        // Told only now: a target that is malformed further on is malformed, whatever its first
        // name.
        if hidden { Err(PathError::Hidden) } else { Ok(SitePath { relative, folder }) }
    }

    /// Whether the path ends with a slash, or is the root.
    pub(crate) fn is_folder(&self) -> bool {
        self.folder
    }

    /// The same path with `suffix` behind its last name, such as `.gz`.
    pub(crate) fn with_suffix(&self, suffix: &str) -> SitePath {
        let mut relative = self.relative.clone();
        relative.extend_from_slice(suffix.as_bytes());
        SitePath { relative, folder: false }
    }

    /// The file `name` in this folder.
    pub(crate) fn child(&self, name: &[u8]) -> SitePath {
        let mut relative = self.relative.clone();
        if !relative.is_empty() {
            relative.push(b'/');
        }
        relative.extend_from_slice(name);
        SitePath { relative, folder: false }
    }

    /// The path for the system. Empty for the root. `None` where the system has no such name.
    pub(crate) fn to_path(&self) -> Option<PathBuf> {
        path_of_bytes(&self.relative)
    }

    /// The path for a person: what is not UTF-8 is replaced.
    pub(crate) fn display(&self) -> String {
        format!("/{}", String::from_utf8_lossy(&self.relative))
    }

    /// The last name, or nothing for the root.
    pub(crate) fn name(&self) -> &[u8] {
        self.relative.rsplit(|b| *b == b'/').next().unwrap_or(b"")
    }

    /// The target of this path as a folder, encoded again. Built from the decoded names, never from
    /// what the client wrote: `//elsewhere.example/x` would otherwise come back as a redirect to
    /// another host.
    pub(crate) fn folder_target(&self) -> String {
        let mut target = String::from("/");
        for name in self.relative.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            target.push_str(&encode(name));
            target.push('/');
        }
        target
    }
}

/// Percent-encodes one name for use in a path.
pub(crate) fn encode(name: &[u8]) -> String {
    percent_encode(name, SEGMENT).to_string()
}

/// Whether a name is kept from the public: dotfiles, but for the one folder that RFC 8615 reserves.
pub(crate) fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b".") && name != b".well-known"
}

#[cfg(unix)]
fn path_of_bytes(bytes: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(not(unix))]
fn path_of_bytes(bytes: &[u8]) -> Option<PathBuf> {
    std::str::from_utf8(bytes).ok().map(PathBuf::from)
}

/// Decodes one segment, once. A percent sign that introduces no byte is an error, not a literal.
fn decode(segment: &str, out: &mut Vec<u8>) -> Result<(), PathError> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(PathError::Malformed) };
        out.push((high * 16 + low) as u8);
    }
    Ok(())
}

/// Windows reads more into a name than its bytes: streams behind a colon, devices, ends that it
/// drops.
fn fit_for_windows(name: &[u8]) -> bool {
    const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
    let Ok(name) = std::str::from_utf8(name) else { return false };
    if name.ends_with(['.', ' ']) || name.chars().any(|c| c < ' ' || r#"<>:"|?*"#.contains(c)) {
        return false;
    }
    let stem = name.split('.').next().unwrap_or(name).trim_end();
    let numbered = |prefix: &str| {
        let digit = stem.get(3..).is_some_and(|rest| {
            let mut rest = rest.chars();
            // The superscript digits are device numbers too.
            matches!((rest.next(), rest.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
        });
        digit && stem.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let device = DEVICES.iter().any(|device| stem.eq_ignore_ascii_case(device));
    !(device || numbered("COM") || numbered("LPT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Result<(String, bool), PathError> {
        SitePath::parse_for(path, false)
            .map(|p| (String::from_utf8_lossy(&p.relative).into_owned(), p.folder))
    }

    #[test]
    fn a_target_becomes_a_relative_path_or_nothing() {
        use PathError::{Hidden, Malformed};
        type Row = (&'static str, Result<(&'static str, bool), PathError>);
        let table: &[Row] = &[
            ("/", Ok(("", true))),
            ("/a", Ok(("a", false))),
            ("/a/", Ok(("a", true))),
            ("/a/b.txt", Ok(("a/b.txt", false))),
            ("/a%20b", Ok(("a b", false))),
            ("/%61", Ok(("a", false))),
            ("/a+b", Ok(("a+b", false))),
            ("/%C3%A9", Ok(("é", false))),
            ("/a?b", Ok(("a?b", false))),
            // Slashes and single dots are folded.
            ("//", Ok(("", true))),
            ("//a", Ok(("a", false))),
            ("//etc//passwd", Ok(("etc/passwd", false))),
            ("/a//", Ok(("a", true))),
            ("/./a", Ok(("a", false))),
            ("/a/.", Ok(("a", true))),
            ("/%2e/a", Ok(("a", false))),
            // Up is never a direction.
            ("/..", Err(Malformed)),
            ("/../", Err(Malformed)),
            ("/../etc/passwd", Err(Malformed)),
            ("/a/../b", Err(Malformed)),
            ("/a/..", Err(Malformed)),
            ("/%2e%2e/", Err(Malformed)),
            ("/%2E./x", Err(Malformed)),
            ("/.%2e/x", Err(Malformed)),
            ("/..%2fetc", Err(Malformed)),
            ("/a%2fb", Err(Malformed)),
            ("/%2fetc/passwd", Err(Malformed)),
            ("/..%5c", Err(Malformed)),
            ("/..\\windows", Err(Malformed)),
            ("/a%5Cb", Err(Malformed)),
            ("/a%00.txt", Err(Malformed)),
            ("/%00", Err(Malformed)),
            // Decoded once: these are odd names of files, and nothing else.
            ("/%252e%252e/", Ok(("%2e%2e", true))),
            ("/..%252f", Err(Hidden)),
            ("/...", Err(Hidden)),
            // Not percent-encoding.
            ("/%", Err(Malformed)),
            ("/%2", Err(Malformed)),
            ("/%zz", Err(Malformed)),
            ("/%+1", Err(Malformed)),
            // No path.
            ("", Err(Malformed)),
            ("*", Err(Malformed)),
            ("etc/passwd", Err(Malformed)),
            // Dotfiles.
            ("/.git/config", Err(Hidden)),
            ("/a/.env", Err(Hidden)),
            ("/%2egit", Err(Hidden)),
            ("/.well-known/acme-challenge/x", Ok((".well-known/acme-challenge/x", false))),
            ("/.well-known/.secret", Err(Hidden)),
            ("/.well-knownish", Err(Hidden)),
            ("/.git/../x", Err(Malformed)),
        ];
        for (path, want) in table {
            let want = want.map(|(path, folder)| (path.to_owned(), folder));
            assert_eq!(parsed(path), want, "{path}");
        }
    }

    #[test]
    fn an_overlong_encoding_is_bytes_and_no_dot_or_slash() {
        for path in ["/%c0%ae%c0%ae/etc", "/%c0%af", "/%e0%80%ae"] {
            let path = SitePath::parse_for(path, false).unwrap();
            assert!(path.relative.iter().all(|b| *b != b'.'), "{path:?}");
            assert!(std::str::from_utf8(&path.relative).is_err());
        }
    }

    #[test]
    fn windows_sees_no_streams_devices_or_dropped_ends() {
        for path in [
            "/a:b",
            "/c:/x",
            "/a.txt::$DATA",
            "/CON",
            "/con.txt",
            "/nul ",
            "/com1",
            "/LPT9.log",
            "/com¹",
            "/COM%C2%B2.x",
            "/a.",
            "/a%20",
            "/a*",
            "/a%3f",
            "/%c0%ae",
            "/a%01",
        ] {
            assert_eq!(SitePath::parse_for(path, true), Err(PathError::Malformed), "{path}");
        }
        for path in ["/console", "/com", "/com10", "/a.con", "/lpt", "/a b"] {
            assert!(SitePath::parse_for(path, true).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_redirect_never_leaves_this_host() {
        let table = [
            ("//elsewhere.example/x", "/elsewhere.example/x/"),
            ("/a%20b", "/a%20b/"),
            ("/%C3%A9/%22", "/%C3%A9/%22/"),
            ("/a%0d%0aSet-Cookie:x", "/a%0D%0ASet-Cookie%3Ax/"),
            ("/", "/"),
        ];
        for (path, want) in table {
            assert_eq!(SitePath::parse_for(path, false).unwrap().folder_target(), want);
        }
    }

    #[test]
    fn names_are_taken_apart_and_put_together() {
        let path = SitePath::parse_for("/a/b.js", false).unwrap();
        assert_eq!(path.name(), b"b.js");
        assert_eq!(path.with_suffix(".gz").display(), "/a/b.js.gz");
        let root = SitePath::parse_for("/", false).unwrap();
        assert!(root.name().is_empty());
        assert_eq!(root.child(b"index.html").display(), "/index.html");
        assert_eq!(path.child(b"c").display(), "/a/b.js/c");
    }
}
