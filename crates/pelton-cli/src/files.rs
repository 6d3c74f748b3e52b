//! The blocking part of an answer: to find what a path names, with its best twin, and to read it
//! where it is small. Runs on the pool; everything that comes back from here is `Send`.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::encoding::{Coding, Preference};
use crate::listing::{self, Entry, EntryKind};
use crate::path::{self, SitePath};
use crate::root::Root;

/// Files up to this size are read whole when they are opened, and kept.
pub(crate) const SMALL: u64 = 64 * 1024;

/// What a folder shows if it holds it.
const INDEX: &[u8] = b"index.html";

/// What is served, the same for all reactors.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) root: Root,
    /// Whether a folder without an index is listed.
    pub(crate) listing: bool,
    /// Sent with every file as `Cache-Control`.
    pub(crate) cache_control: Option<HeaderValue>,
}

/// What tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) len: u64,
    pub(crate) modified: SystemTime,
    pub(crate) inode: u64,
    pub(crate) coding: Coding,
}

/// What is known of a file that is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) stamp: Stamp,
    /// False for a file that changed so short a time before it was looked at that the next change
    /// may carry the same time. Such a stamp proves nothing.
    pub(crate) settled: bool,
    pub(crate) etag: HeaderValue,
    pub(crate) last_modified: HeaderValue,
    pub(crate) content_type: HeaderValue,
}

/// A file as the pool hands it over.
#[derive(Debug)]
pub(crate) enum Opened {
    /// All of it.
    Bytes(Bytes),
    /// Open, at whatever position: it is read at offsets.
    File(File),
}

/// What a path names.
#[derive(Debug)]
pub(crate) enum Found {
    File(Meta, Opened),
    /// The file whose stamp the caller knows, unchanged.
    Unchanged,
    /// A folder, asked for without its slash.
    AddSlash,
    /// A folder without an index, as a page.
    Listing(String),
}

/// Why there is nothing to send.
#[derive(Debug)]
pub(crate) enum Missing {
    /// 404.
    NotFound,
    /// 403.
    Forbidden,
    /// 406: the client refuses the only coding that there is.
    NotAcceptable,
    /// 503: out of descriptors or memory; it will pass.
    Exhausted,
    /// 500.
    Failed(io::Error),
}

impl Missing {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Missing::NotFound => StatusCode::NOT_FOUND,
            Missing::Forbidden => StatusCode::FORBIDDEN,
            Missing::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Missing::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
            Missing::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Finds what `path` names. `known` is the stamp of the version that the caller still holds.
pub(crate) fn find(
    site: &Site,
    path: &SitePath,
    preference: Preference,
    known: Option<Stamp>,
    now: SystemTime,
) -> Result<Found, Missing> {
    let plain = open(&site.root, path)?;
    if plain.1.is_dir() {
        if !path.is_folder() {
            return Ok(Found::AddSlash);
        }
        let index = path.child(INDEX);
        match open(&site.root, &index) {
            Ok(file) if file.1.is_file() => best(site, &index, file, preference, known, now),
            Ok(_) | Err(Missing::NotFound) if site.listing => {
                list(site, path, &plain.0).map(Found::Listing).map_err(missing)
            }
            Ok(_) => Err(Missing::NotFound),
            Err(error) => Err(error),
        }
    } else if plain.1.is_file() && !path.is_folder() {
        best(site, path, plain, preference, known, now)
    } else {
        // A fifo, a socket or a device; or a file with a slash behind it, which names no file.
        Err(Missing::NotFound)
    }
}

fn open(root: &Root, path: &SitePath) -> Result<(File, Metadata), Missing> {
    let system_path = path.to_path().ok_or(Missing::NotFound)?;
    let file = root.open_beneath(&system_path).map_err(missing)?;
    let metadata = file.metadata().map_err(missing)?;
    Ok((file, metadata))
}

/// Chooses between a file and its twins.
fn best(
    site: &Site,
    path: &SitePath,
    plain: (File, Metadata),
    preference: Preference,
    known: Option<Stamp>,
    now: SystemTime,
) -> Result<Found, Missing> {
    for &coding in preference.codings() {
        if coding == Coding::Identity {
            return take(path, plain, coding, known, now);
        }
        let Ok(twin) = open(&site.root, &path.with_suffix(coding.suffix())) else { continue };
        // A twin that is older than its file was made from an earlier version of it.
        if twin.1.is_file() && modified(&twin.1) >= modified(&plain.1) {
            return take(path, twin, coding, known, now);
        }
    }
    Err(Missing::NotAcceptable)
}

fn take(
    path: &SitePath,
    (mut file, mut metadata): (File, Metadata),
    coding: Coding,
    known: Option<Stamp>,
    now: SystemTime,
) -> Result<Found, Missing> {
    /// A writer may be at work between the look at the length and the read. Once more is mostly
    /// enough; otherwise the file is sent as it is then, and cut off if it shrinks.
    const TRIES: usize = 2;

    let content_type = content_type(path.name());
    for _ in 0..TRIES {
        let stamp = stamp(&metadata, coding);
        if known == Some(stamp) {
            return Ok(Found::Unchanged);
        }
        if stamp.len > SMALL {
            break;
        }
        let mut body = Vec::with_capacity(stamp.len as usize + 1);
        file.rewind().map_err(missing)?;
        (&file).take(stamp.len + 1).read_to_end(&mut body).map_err(missing)?;
        if body.len() as u64 == stamp.len {
            body.shrink_to_fit();
            return Ok(Found::File(meta(stamp, content_type, now), Opened::Bytes(body.into())));
        }
        metadata = file.metadata().map_err(missing)?;
    }
    Ok(Found::File(meta(stamp(&metadata, coding), content_type, now), Opened::File(file)))
}

fn meta(stamp: Stamp, content_type: HeaderValue, now: SystemTime) -> Meta {
    /// Coarser than the clock of any file system in use, FAT's two seconds included.
    const SETTLED_AFTER: Duration = Duration::from_secs(2);

    let since = stamp.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let etag = format!("\"{:x}-{:x}-{:x}\"", stamp.len, since.as_nanos(), stamp.inode);
    // HTTP has no date before the year 1 and none after 9999, and httpdate panics outside.
    let epoch = SystemTime::UNIX_EPOCH;
    let last = Duration::from_secs(253_402_300_799);
    let date = if since <= last { epoch + since } else { epoch };
    Meta {
        stamp,
        settled: now.duration_since(stamp.modified).is_ok_and(|age| age > SETTLED_AFTER),
        etag: HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"\"")),
        last_modified: HeaderValue::try_from(httpdate::fmt_http_date(date))
            .unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT")),
        content_type,
    }
}

fn stamp(metadata: &Metadata, coding: Coding) -> Stamp {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Stamp { len: metadata.len(), modified: modified(metadata), inode, coding }
}

fn modified(metadata: &Metadata) -> SystemTime {
    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The type of a file from its name. Text is declared as UTF-8: without a declaration browsers
/// guess.
pub(crate) fn content_type(name: &[u8]) -> HeaderValue {
    let name = String::from_utf8_lossy(name);
    let guess = match mime_guess::from_path(&*name).first_raw() {
        // One type for scripts, as RFC 9239 has it.
        Some("application/javascript") => "text/javascript",
        Some(guess) => guess,
        None => "application/octet-stream",
    };
    if guess.starts_with("text/") && !guess.contains(';') {
        let value = format!("{guess}; charset=utf-8");
        return HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("text/plain"));
    }
    HeaderValue::from_static(guess)
}

/// What an error of the system means to a client.
fn missing(error: io::Error) -> Missing {
    use io::ErrorKind;
    match error.kind() {
        // A link that leads out, and a path that goes through a file, name nothing here.
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::CrossesDevices => {
            return Missing::NotFound;
        }
        ErrorKind::InvalidInput | ErrorKind::InvalidFilename => return Missing::NotFound,
        ErrorKind::PermissionDenied => return Missing::Forbidden,
        ErrorKind::OutOfMemory => return Missing::Exhausted,
        _ => {}
    }
    #[cfg(unix)]
    if let Some(number) = rustix::io::Errno::from_io_error(&error) {
        use rustix::io::Errno;
        match number {
            // A circle of links, a name too long, a socket.
            Errno::LOOP | Errno::NAMETOOLONG | Errno::NXIO | Errno::NODEV => {
                return Missing::NotFound;
            }
            Errno::MFILE | Errno::NFILE => return Missing::Exhausted,
            _ => {}
        }
    }
    Missing::Failed(error)
}

/// The page of a folder that is open.
fn list(site: &Site, path: &SitePath, folder: &File) -> io::Result<String> {
    let mut entries = Vec::new();
    let mut more = 0;
    for_each_entry(site, path, folder, |name, look| {
        if path::is_hidden(name) || name == b".well-known" {
            return;
        }
        if entries.len() == listing::MAX_ENTRIES {
            more += 1;
        } else if let Some((kind, modified)) = look() {
            entries.push(Entry { name: name.to_owned(), kind, modified });
        }
    })?;
    listing::sort(&mut entries);
    Ok(listing::page(&path.display(), &entries, more))
}

/// What a listing shows of a file: nothing of what would not be served.
fn look_at(metadata: &Metadata) -> Option<(EntryKind, Option<SystemTime>)> {
    let kind = match () {
        () if metadata.is_dir() => EntryKind::Folder,
        () if metadata.is_file() => EntryKind::File(metadata.len()),
        () => return None,
    };
    Some((kind, metadata.modified().ok()))
}

type Look<'a> = &'a dyn Fn() -> Option<(EntryKind, Option<SystemTime>)>;

#[cfg(unix)]
fn for_each_entry(
    site: &Site,
    path: &SitePath,
    folder: &File,
    mut each: impl FnMut(&[u8], Look<'_>),
) -> io::Result<()> {
    use rustix::fs::{AtFlags, Dir, FileType, statat};

    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let look = || {
            let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            let modified = u64::try_from(stat.st_mtime)
                .ok()
                .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Some((EntryKind::Folder, modified)),
                FileType::RegularFile => Some((EntryKind::File(stat.st_size as u64), modified)),
                // Where a link leads, and whether there at all, is known by going there.
                FileType::Symlink => {
                    let (_, metadata) = open(&site.root, &path.child(name.to_bytes())).ok()?;
                    look_at(&metadata)
                }
                _ => None,
            }
        };
        each(name.to_bytes(), &look);
    }
    Ok(())
}

#[cfg(not(unix))]
fn for_each_entry(
    site: &Site,
    path: &SitePath,
    _folder: &File,
    mut each: impl FnMut(&[u8], Look<'_>),
) -> io::Result<()> {
    let relative = path.to_path().ok_or(io::ErrorKind::NotFound)?;
    for entry in std::fs::read_dir(site.root.path().join(relative))? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let look = || {
            if entry.file_type().ok()?.is_symlink() {
                let (_, metadata) = open(&site.root, &path.child(name.as_bytes())).ok()?;
                return look_at(&metadata);
            }
            look_at(&entry.metadata().ok()?)
        };
        each(name.as_bytes(), &look);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

    fn site(folder: &Folder) -> Site {
        Site { root: Root::open(folder.path()).unwrap(), listing: true, cache_control: None }
    }

    fn get(site: &Site, path: &str, accept: &str) -> Result<Found, Missing> {
        let preference = Preference::parse(std::iter::once(accept));
        find(site, &SitePath::parse(path).unwrap(), preference, None, SystemTime::now())
    }

    /// Sets the time of the last change, seconds after the epoch.
    fn touch(folder: &Folder, name: &str, seconds: u64) {
        let file = File::options().write(true).open(folder.path().join(name)).unwrap();
        file.set_modified(EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    fn body(found: Result<Found, Missing>) -> (Meta, String) {
        match found {
            Ok(Found::File(meta, Opened::Bytes(bytes))) => {
                (meta, String::from_utf8_lossy(&bytes).into_owned())
            }
            other => panic!("no small file: {other:?}"),
        }
    }

    #[test]
    fn a_path_names_a_file_a_folder_or_nothing() {
        let folder = Folder::new();
        folder.write("a.txt", "alpha");
        folder.write("sub/index.html", "<p>");
        folder.write("bare/b.txt", "b");
        let site = site(&folder);
        assert_eq!(body(get(&site, "/a.txt", "")).1, "alpha");
        assert_eq!(body(get(&site, "/sub/", "")).1, "<p>");
        assert!(matches!(get(&site, "/sub", ""), Ok(Found::AddSlash)));
        assert!(matches!(get(&site, "/a.txt/", ""), Err(Missing::NotFound)));
        assert!(matches!(get(&site, "/a.txt/x", ""), Err(Missing::NotFound)));
        assert!(matches!(get(&site, "/none", ""), Err(Missing::NotFound)));
        assert!(matches!(get(&site, &format!("/{}", "x".repeat(300)), ""), Err(Missing::NotFound)));
        let Ok(Found::Listing(page)) = get(&site, "/bare/", "") else { panic!("no listing") };
        assert!(page.contains("./b.txt"), "{page}");
        let quiet = Site { listing: false, ..site };
        assert!(matches!(get(&quiet, "/bare/", ""), Err(Missing::NotFound)));
        assert_eq!(body(get(&quiet, "/sub/", "")).1, "<p>");
    }

    #[test]
    fn the_best_twin_that_is_not_older_is_taken() {
        let folder = Folder::new();
        for (name, time) in
            [("a.js", 100), ("a.js.gz", 100), ("a.js.br", 99), ("a.js.zst", 101), ("b.js.gz", 1)]
        {
            folder.write(name, name);
            touch(&folder, name, time);
        }
        let site = site(&folder);
        let table = [
            ("", "a.js"),
            ("gzip", "a.js.gz"),
            ("gzip, zstd", "a.js.zst"),
            ("gzip;q=0.9, zstd;q=0.8", "a.js.gz"),
            // Older than its file.
            ("br", "a.js"),
            ("br, gzip", "a.js.gz"),
        ];
        for (accept, want) in table {
            let (meta, text) = body(get(&site, "/a.js", accept));
            assert_eq!(text, want, "{accept}");
            assert_eq!(meta.content_type, "text/javascript; charset=utf-8");
        }
        assert!(matches!(get(&site, "/a.js", "br, identity;q=0"), Err(Missing::NotAcceptable)));
        // A twin without its file is a file like any other.
        assert!(matches!(get(&site, "/b.js", "gzip"), Err(Missing::NotFound)));
        assert_eq!(body(get(&site, "/b.js.gz", "gzip")).1, "b.js.gz");
    }

    #[test]
    fn the_stamp_tells_versions_apart_and_is_not_read_twice() {
        let folder = Folder::new();
        folder.write("a.txt", "one");
        touch(&folder, "a.txt", 1_000_000_000);
        let site = site(&folder);
        let path = SitePath::parse("/a.txt").unwrap();
        let (meta, _) = body(get(&site, "/a.txt", ""));
        assert!(meta.settled);
        assert_eq!(meta.last_modified, "Sun, 09 Sep 2001 01:46:40 GMT");
        let again =
            |stamp| find(&site, &path, Preference::IDENTITY, Some(stamp), SystemTime::now());
        assert!(matches!(again(meta.stamp), Ok(Found::Unchanged)));
        folder.write("a.txt", "two");
        let (changed, text) = body(again(meta.stamp));
        assert_eq!(text, "two");
        assert_ne!(changed.etag, meta.etag);
        assert_ne!(changed.stamp, meta.stamp);
    }

    #[test]
    fn a_file_that_changed_just_now_is_not_settled() {
        let stamp = Stamp {
            len: 1,
            modified: EPOCH + Duration::from_secs(100),
            inode: 1,
            coding: Coding::Identity,
        };
        let at = |millis| meta(stamp, content_type(b"x"), EPOCH + Duration::from_millis(millis));
        assert!(!at(100_500).settled);
        assert!(!at(102_000).settled);
        assert!(at(102_001).settled);
        // A time in the future never settles.
        assert!(!at(99_000).settled);
    }

    #[test]
    fn a_date_that_http_cannot_say_is_no_panic() {
        for seconds in [253_402_300_799, 253_402_300_800, 1 << 40] {
            // Some systems cannot say it either.
            let Some(modified) = EPOCH.checked_add(Duration::from_secs(seconds)) else { continue };
            let stamp = Stamp { len: 1, modified, inode: 1, coding: Coding::Identity };
            let meta = meta(stamp, content_type(b"x"), EPOCH);
            let date = meta.last_modified.to_str().unwrap();
            assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
        }
    }

    #[test]
    fn large_files_are_handed_over_open() {
        let folder = Folder::new();
        folder.write("edge", vec![7; SMALL as usize]);
        folder.write("large", vec![7; SMALL as usize + 1]);
        folder.write("empty", "");
        let site = site(&folder);
        assert_eq!(body(get(&site, "/edge", "")).1.len() as u64, SMALL);
        assert_eq!(body(get(&site, "/empty", "")).1, "");
        let Ok(Found::File(meta, Opened::File(_))) = get(&site, "/large", "") else {
            panic!("read whole")
        };
        assert_eq!(meta.stamp.len, SMALL + 1);
    }

    #[test]
    fn types_come_from_names_and_text_is_utf8() {
        let table = [
            ("a.html", "text/html; charset=utf-8"),
            ("a.CSS", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.webp", "image/webp"),
            ("a.woff2", "font/woff2"),
            ("a.unknown-kind", "application/octet-stream"),
            ("noext", "application/octet-stream"),
        ];
        for (name, want) in table {
            assert_eq!(content_type(name.as_bytes()), want, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_listing_shows_what_would_be_served_and_nothing_else() {
        use std::os::unix::fs::symlink;
        let outer = Folder::new();
        outer.write("secret", "s");
        outer.write("root/shown.txt", "x");
        outer.write("root/.hidden", "x");
        outer.write("root/.well-known/x", "x");
        outer.write("root/sub/x", "x");
        symlink("shown.txt", outer.path().join("root/link-in")).unwrap();
        symlink("sub", outer.path().join("root/link-folder")).unwrap();
        symlink("../secret", outer.path().join("root/link-out")).unwrap();
        symlink("nowhere", outer.path().join("root/link-dead")).unwrap();
        let root = Root::open(&outer.path().join("root")).unwrap();
        let site = Site { root, listing: true, cache_control: None };
        let Ok(Found::Listing(page)) = get(&site, "/", "") else { panic!("no listing") };
        for shown in ["./shown.txt\"", "./sub/\"", "./link-in\"", "./link-folder/\""] {
            assert!(page.contains(shown), "no {shown} in {page}");
        }
        for kept in ["hidden", "well-known", "link-out", "link-dead"] {
            assert!(!page.contains(kept), "{kept} in {page}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_served() {
        let folder = Folder::new();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        let fifo = folder.path().join("fifo");
        crate::testing::fifo(&fifo);
        let site = site(&folder);
        assert!(matches!(get(&site, "/socket", ""), Err(Missing::NotFound)));
        assert!(matches!(get(&site, "/fifo", ""), Err(Missing::NotFound)));
    }
}
