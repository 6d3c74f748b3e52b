//! The folder that is served, and opening what lies beneath it and nothing else.
//!
//! A path that is clean in itself can still lead out through a link. On Linux one call asks the
//! kernel to resolve beneath the root (`openat2`). Where that call is missing or forbidden (old
//! kernels, strict sandboxes, other Unix systems) the path is walked here, name by name, each
//! opened relative to the folder before it without following links, and links are followed by hand.
//! Both have the same rules: a link may point anywhere beneath the root by a relative path; an
//! absolute link, and one that climbs over the root, are refused. Neither can be raced: no path is
//! ever resolved twice.

use std::fs::File;
use std::io;
use std::path::Path;

/// A folder that is open, so that it stays the same folder whatever happens to its name.
#[derive(Debug)]
pub(crate) struct Root {
    #[cfg(not(unix))]
    path: std::path::PathBuf,
    sys: sys::Root,
}

impl Root {
    /// Opens the folder at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Root> {
        if !std::fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let path = std::fs::canonicalize(path)?;
        Ok(Root {
            sys: sys::Root::open(&path)?,
            #[cfg(not(unix))]
            path,
        })
    }

    /// Where the folder was when it was opened.
    #[cfg(not(unix))]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file or a folder for reading. `relative` is empty for the root itself. Neither a
    /// fifo nor a terminal makes this wait; what kind of file it is, is for the caller to ask.
    ///
    /// # Errors
    /// `CrossesDevices` where a link leads out of the root, and what the system reports.
    pub(crate) fn open_beneath(&self, relative: &Path) -> io::Result<File> {
        self.sys.open_beneath(relative)
    }
}

#[cfg(unix)]
mod sys {
    use std::ffi::{OsStr, OsString};
    use std::fs::File;
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::Path;

    use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
    use rustix::io::Errno;

    /// As many links as Linux follows in one path.
    const MAX_LINKS: usize = 40;

    /// To read: without waiting for the writer of a fifo, or becoming the owner of a terminal.
    const READ: OFlags =
        OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

    #[derive(Debug)]
    pub(super) struct Root {
        dir: OwnedFd,
        #[cfg(target_os = "linux")]
        by_hand: std::sync::atomic::AtomicBool,
    }

    impl Root {
        pub(super) fn open(path: &Path) -> io::Result<Root> {
            let dir = openat(CWD, path, READ | OFlags::DIRECTORY, Mode::empty())?;
            Ok(Root {
                dir,
                #[cfg(target_os = "linux")]
                by_hand: false.into(),
            })
        }

        pub(super) fn open_beneath(&self, relative: &Path) -> io::Result<File> {
            let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
            #[cfg(target_os = "linux")]
            if let Some(answer) = self.ask_the_kernel(relative) {
                return Ok(File::from(answer?));
            }
            Ok(File::from(walk(self.dir.as_fd(), relative)?))
        }

        /// `None` where the kernel cannot be asked.
        #[cfg(target_os = "linux")]
        fn ask_the_kernel(&self, relative: &Path) -> Option<rustix::io::Result<OwnedFd>> {
            use rustix::fs::{ResolveFlags, openat2};
            use std::sync::atomic::Ordering::Relaxed;

            /// A rename elsewhere in the tree makes the kernel give up; it says to try again.
            const TRIES: usize = 4;

            if self.by_hand.load(Relaxed) {
                return None;
            }
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            for _ in 0..TRIES {
                match openat2(&self.dir, relative, READ, Mode::empty(), resolve) {
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    // A kernel before 5.6 says NOSYS, and so does a sandbox of today. An older
                    // one says PERM, which a file can say as well: this time the walk tells, and
                    // the next time the kernel is asked again.
                    Err(Errno::NOSYS) => {
                        self.by_hand.store(true, Relaxed);
                        return None;
                    }
                    Err(Errno::PERM) => return None,
                    answer => return Some(answer),
                }
            }
            None
        }
    }

    /// Resolves `relative` beneath `root` name by name. The folders entered stay open on a stack:
    /// `..` in a link goes back to the folder that was really passed, and never above the first.
    pub(super) fn walk(root: BorrowedFd<'_>, relative: &Path) -> rustix::io::Result<OwnedFd> {
        let mut entered: Vec<OwnedFd> = Vec::new();
        // What is still to be walked, the next name last.
        let mut ahead: Vec<OsString> = Vec::new();
        let mut links = 0;
        push_names(&mut ahead, relative.as_os_str());
        while let Some(name) = ahead.pop() {
            match name.as_bytes() {
                b"." => continue,
                b".." => {
                    entered.pop().ok_or(Errno::XDEV)?;
                    continue;
                }
                _ => {}
            }
            let at = entered.last().map_or(root, AsFd::as_fd);
            let passed = !ahead.is_empty();
            // A folder that is only passed need not be readable where the system can express that.
            #[cfg(target_os = "linux")]
            let flags =
                if passed { OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC } else { READ };
            #[cfg(not(target_os = "linux"))]
            let flags = if passed { READ | OFlags::DIRECTORY } else { READ };
            match openat(at, &name, flags | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(fd) => entered.push(fd),
                // The ways in which systems say that this is a link.
                Err(error @ (Errno::LOOP | Errno::NOTDIR | Errno::MLINK)) => {
                    let Ok(target) = readlinkat(at, &name, Vec::new()) else { return Err(error) };
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = OsString::from_vec(target.into_bytes());
                    if target.as_bytes().starts_with(b"/") {
                        return Err(Errno::XDEV);
                    }
                    push_names(&mut ahead, &target);
                }
                Err(error) => return Err(error),
            }
        }
        match entered.pop() {
            // A folder that was passed on the way down and is the end of the way after all
            // (`a/b/..`) may be open without the right to read it.
            Some(end) => reopen(end),
            None => openat(root, ".", READ | OFlags::DIRECTORY, Mode::empty()),
        }
    }

    #[cfg(target_os = "linux")]
    fn reopen(end: OwnedFd) -> rustix::io::Result<OwnedFd> {
        let only_a_path = rustix::fs::fcntl_getfl(&end)?.contains(OFlags::PATH);
        if only_a_path {
            openat(&end, ".", READ | OFlags::DIRECTORY, Mode::empty())
        } else {
            Ok(end)
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn reopen(end: OwnedFd) -> rustix::io::Result<OwnedFd> {
        Ok(end)
    }

    fn push_names(ahead: &mut Vec<OsString>, path: &OsStr) {
        // A slash at the end asks for a folder, which the name `.` behind it does as well.
        let names = path.as_bytes().split(|b| *b == b'/').rev();
        ahead.extend(
            names.map(|name| OsStr::from_bytes(if name.is_empty() { b"." } else { name }).into()),
        );
    }
}

#[cfg(not(unix))]
mod sys {
    use std::fs::File;
    use std::io;
    use std::path::{Path, PathBuf};

    #[derive(Debug)]
    pub(super) struct Root {
        path: PathBuf,
    }

    impl Root {
        pub(super) fn open(path: &Path) -> io::Result<Root> {
            Ok(Root { path: path.to_owned() })
        }

        /// Here the path is resolved twice: who can replace a folder by a link between the two can
        /// lead this out. On such a system serve only what nobody else writes to.
        pub(super) fn open_beneath(&self, relative: &Path) -> io::Result<File> {
            let path = std::fs::canonicalize(self.path.join(relative))?;
            if !path.starts_with(&self.path) {
                return Err(io::ErrorKind::CrossesDevices.into());
            }
            open_for_reading(&path)
        }
    }

    #[cfg(windows)]
    fn open_for_reading(path: &Path) -> io::Result<File> {
        use std::os::windows::fs::OpenOptionsExt;
        /// Without it Windows opens no folders.
        const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
        std::fs::OpenOptions::new().read(true).custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(path)
    }

    #[cfg(not(windows))]
    fn open_for_reading(path: &Path) -> io::Result<File> {
        File::open(path)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::Folder;

    /// `outside/secret` beside `root/`, and links of every kind in `root/`.
    fn tree() -> (Folder, Root) {
        let folder = Folder::new();
        folder.write("outside/secret", "secret");
        folder.write("root/a/b/deep.txt", "deep");
        folder.write("root/top.txt", "top");
        let link =
            |target: &str, name: &str| symlink(target, folder.path().join("root").join(name));
        link("top.txt", "inside").unwrap();
        link("a/b", "folder").unwrap();
        link("a/b/", "folder-slash").unwrap();
        link("../../top.txt", "a/b/up-to-root").unwrap();
        link("folder/../../top.txt", "through").unwrap();
        link("inside", "twice").unwrap();
        link(".", "self").unwrap();
        link("a/b/..", "up").unwrap();
        link("../outside/secret", "escape").unwrap();
        link("../outside", "escape-folder").unwrap();
        link("a/../../outside/secret", "a-climb").unwrap();
        link("../root/top.txt", "out-and-back").unwrap();
        symlink(folder.path().join("outside/secret"), folder.path().join("root/absolute")).unwrap();
        symlink(folder.path().join("root/top.txt"), folder.path().join("root/absolute-inside"))
            .unwrap();
        link("loop-b", "loop-a").unwrap();
        link("loop-a", "loop-b").unwrap();
        link("nowhere", "dangling").unwrap();
        let root = Root::open(&folder.path().join("root")).unwrap();
        (folder, root)
    }

    /// Both ways to resolve, which must agree.
    fn both(folder: &Folder, root: &Root, relative: &str) -> [io::Result<String>; 2] {
        let top = File::open(folder.path().join("root")).unwrap();
        let walked =
            sys::walk(top.as_fd(), Path::new(if relative.is_empty() { "." } else { relative }));
        [root.open_beneath(Path::new(relative)), walked.map(File::from).map_err(io::Error::from)]
            .map(|file| {
                let mut file = file?;
                let mut text = String::new();
                if file.metadata()?.is_dir() {
                    return Ok("folder".to_owned());
                }
                file.read_to_string(&mut text)?;
                Ok(text)
            })
    }

    #[test]
    fn links_are_followed_beneath_the_root_and_never_out_of_it() {
        let (folder, root) = tree();
        let fine = [
            ("", "folder"),
            ("top.txt", "top"),
            ("a", "folder"),
            ("a/b/deep.txt", "deep"),
            ("inside", "top"),
            ("twice", "top"),
            ("through", "top"),
            ("folder", "folder"),
            ("folder/deep.txt", "deep"),
            ("folder-slash", "folder"),
            ("folder-slash/deep.txt", "deep"),
            ("a/b/up-to-root", "top"),
            ("folder/up-to-root", "top"),
            ("self", "folder"),
            ("self/self/top.txt", "top"),
            ("up", "folder"),
            ("up/b/deep.txt", "deep"),
        ];
        for (path, want) in fine {
            for (way, got) in both(&folder, &root, path).into_iter().enumerate() {
                assert_eq!(
                    got.unwrap_or_else(|e| panic!("{path}, way {way}: {e}")),
                    want,
                    "{path}"
                );
            }
        }
        use io::ErrorKind as Kind;
        let refused = [
            ("escape", Kind::CrossesDevices),
            ("escape-folder/secret", Kind::CrossesDevices),
            ("a-climb", Kind::CrossesDevices),
            ("out-and-back", Kind::CrossesDevices),
            ("absolute", Kind::CrossesDevices),
            ("absolute-inside", Kind::CrossesDevices),
            ("..", Kind::CrossesDevices),
            ("a/../../outside/secret", Kind::CrossesDevices),
            ("dangling", Kind::NotFound),
            ("nothing", Kind::NotFound),
            ("top.txt/x", Kind::NotADirectory),
            ("top.txt/", Kind::NotADirectory),
        ];
        for (path, want) in refused {
            for (way, got) in both(&folder, &root, path).into_iter().enumerate() {
                assert_eq!(got.expect_err(path).kind(), want, "{path}, way {way}");
            }
        }
        for got in both(&folder, &root, "loop-a/x") {
            let number = got.unwrap_err().raw_os_error();
            assert_eq!(number, Some(rustix::io::Errno::LOOP.raw_os_error()));
        }
    }

    #[test]
    fn a_name_too_long_for_the_system_is_an_error_and_no_panic() {
        let (folder, root) = tree();
        for path in ["x".repeat(300), "x/".repeat(4000)] {
            for got in both(&folder, &root, &path) {
                got.unwrap_err();
            }
        }
    }

    #[test]
    fn a_fifo_does_not_make_an_open_wait() {
        let (folder, root) = tree();
        let path = folder.path().join("root/fifo");
        crate::testing::fifo(&path);
        let file = root.open_beneath(Path::new("fifo")).unwrap();
        assert!(!file.metadata().unwrap().is_file());
    }

    #[test]
    fn the_root_stays_the_folder_that_was_opened() {
        let (folder, root) = tree();
        std::fs::rename(folder.path().join("root"), folder.path().join("moved")).unwrap();
        folder.write("root/top.txt", "other");
        let mut text = String::new();
        root.open_beneath(Path::new("top.txt")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "top");
    }

    #[test]
    fn a_root_must_be_a_folder_that_exists() {
        let folder = Folder::new();
        folder.write("file", "x");
        let error = Root::open(&folder.path().join("file")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        let error = Root::open(&folder.path().join("none")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
