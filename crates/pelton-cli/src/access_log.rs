//! The access log: one line for each request, in the combined format with the duration in
//! microseconds behind it.
//!
//! A reactor must not wait for a disk or for a pipe that nobody reads. It adds its line to a buffer
//! that all share and goes on; a thread of the log's own writes. When the buffer is full, lines are
//! dropped and counted, and the count is written as soon as there is room.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{HeaderName, REFERER, USER_AGENT};
use http::{HeaderMap, Method, Uri, Version};

use crate::date::Date;

/// Beyond this much that is not written yet, lines are dropped.
const CAPACITY: usize = 4 << 20;

/// How long the writer lets lines gather before it writes them: a busy server wakes it 20 times a
/// second.
const GATHER: Duration = Duration::from_millis(50);

/// What a line says of a request.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) peer: Option<IpAddr>,
    pub(crate) time: SystemTime,
    pub(crate) method: Method,
    pub(crate) target: Uri,
    pub(crate) version: Version,
    pub(crate) referer: Option<http::HeaderValue>,
    pub(crate) user_agent: Option<http::HeaderValue>,
}

impl Record {
    pub(crate) fn new(
        peer: Option<IpAddr>,
        time: SystemTime,
        method: &Method,
        target: &Uri,
        version: Version,
        headers: &HeaderMap,
    ) -> Record {
        let header = |name: HeaderName| headers.get(name).cloned();
        Record {
            peer,
            time,
            method: method.clone(),
            target: target.clone(),
            version,
            referer: header(REFERER),
            user_agent: header(USER_AGENT),
        }
    }

    /// The line, with its end.
    pub(crate) fn line(&self, status: u16, sent: u64, took: Duration) -> String {
        let mut line = String::with_capacity(256);
        match self.peer {
            // An IPv4 client of a socket that takes both is logged as what it is.
            Some(peer) => drop(write!(line, "{}", peer.to_canonical())),
            None => line.push('-'),
        }
        let Date { year, day, hour, minute, second, .. } = Date::of(self.time);
        let month = Date::of(self.time).month_name();
        let _ = write!(
            line,
            " - - [{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000] \""
        );
        quote(&mut line, self.method.as_str().as_bytes());
        line.push(' ');
        quote(&mut line, self.target.to_string().as_bytes());
        let _ = write!(line, " {:?}\" {status} {sent} \"", self.version);
        quote(&mut line, self.referer.as_ref().map_or(b"-", |value| value.as_bytes()));
        line.push_str("\" \"");
        quote(&mut line, self.user_agent.as_ref().map_or(b"-", |value| value.as_bytes()));
        let _ = writeln!(line, "\" {}", took.as_micros());
        line
    }
}

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    File(PathBuf),
}

/// A log that any thread may write to.
#[derive(Debug)]
pub(crate) struct AccessLog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// For the writer: there are lines, or no more will come.
    news: Condvar,
    /// From the writer: it has ended.
    end: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    dropped: u64,
    /// The writer sleeps without a limit and has not been called.
    asleep: bool,
    ending: bool,
    ended: bool,
}

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or there is no thread to be had.
    pub(crate) fn open(target: &Target) -> io::Result<AccessLog> {
        let sink = match target {
            Target::Stdout => Sink::Stdout(io::stdout()),
            Target::File(path) => Sink::File { file: append_to(path)?, path: path.clone() },
        };
        AccessLog::start(sink)
    }

    fn start(sink: Sink) -> io::Result<AccessLog> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            write_all(&theirs, sink);
            lock(&theirs.pending).ended = true;
            theirs.end.notify_all();
        })?;
        Ok(AccessLog { shared })
    }

    /// Adds a line. Never waits for the target.
    pub(crate) fn write(&self, record: &Record, status: u16, sent: u64, took: Duration) {
        let line = record.line(status, sent, took);
        let mut pending = lock(&self.shared.pending);
        if pending.lines.len() + line.len() > CAPACITY {
            pending.dropped += 1;
            return;
        }
        pending.lines.extend_from_slice(line.as_bytes());
        // One call until the writer has been to look, however many lines come before.
        if std::mem::take(&mut pending.asleep) {
            drop(pending);
            self.shared.news.notify_one();
        }
    }

    /// Has everything written, and ends the writer. Lines that come later are lost. Waits for the
    /// target, but not for longer than `limit`: a program must be able to end although nobody reads
    /// its output. Returns whether all was written.
    pub(crate) fn close(&self, limit: Duration) -> bool {
        let mut pending = lock(&self.shared.pending);
        pending.ending = true;
        self.shared.news.notify_one();
        let waited = self.shared.end.wait_timeout_while(pending, limit, |p| !p.ended);
        pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        pending.ended
    }
}

/// What the writer thread writes to.
enum Sink {
    Stdout(io::Stdout),
    File {
        file: File,
        path: PathBuf,
    },
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout(out) => {
                out.write_all(lines)?;
                out.flush()
            }
            Sink::File { file, path } => {
                // A log that was rotated away by a rename goes on under its own name.
                if moved(file, path)
                    && let Ok(new) = append_to(path)
                {
                    *file = new;
                }
                file.write_all(lines)
            }
            #[cfg(test)]
            Sink::Test(out) => out.write_all(lines),
        }
    }
}

/// The life of the writer.
fn write_all(shared: &Shared, mut sink: Sink) {
    let mut lines = Vec::new();
    let mut complained = false;
    loop {
        let (dropped, ending) = {
            let mut pending = lock(&shared.pending);
            while pending.lines.is_empty() && !pending.ending {
                pending.asleep = true;
                pending = shared.news.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            if !pending.ending {
                pending.asleep = false;
                let gathering = shared.news.wait_timeout_while(pending, GATHER, |p| !p.ending);
                pending = gathering.unwrap_or_else(PoisonError::into_inner).0;
            }
            std::mem::swap(&mut lines, &mut pending.lines);
            (std::mem::take(&mut pending.dropped), pending.ending)
        };
        if dropped > 0 {
            let _ = writeln!(
                lines,
                "# {dropped} lines dropped: the log could not be written fast enough"
            );
        }
        if let Err(error) = sink.write(&lines)
            && !std::mem::replace(&mut complained, true)
        {
            eprintln!("pelton: the access log cannot be written ({error}); lines are being lost");
        }
        lines.clear();
        // One burst is not kept as a buffer for ever.
        lines.shrink_to(64 * 1024);
        if ending {
            return;
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

#[cfg(unix)]
fn moved(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |m: std::fs::Metadata| (m.dev(), m.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => identity(open) != identity(named),
        (_, Err(error)) => error.kind() == io::ErrorKind::NotFound,
        (Err(_), _) => false,
    }
}

#[cfg(not(unix))]
fn moved(_file: &File, _path: &Path) -> bool {
    false
}

/// Escapes what would end a field or a line, or mean something to a terminal: `\xHH`.
fn quote(line: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => drop(write!(line, "\\x{byte:02X}")),
            byte => line.push(char::from(byte)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here can be left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::testing::Folder;

    fn record(target: &str, agent: Option<&'static [u8]>) -> Record {
        let mut headers = HeaderMap::new();
        if let Some(agent) = agent {
            headers.insert(USER_AGENT, http::HeaderValue::from_bytes(agent).unwrap());
            headers.insert(REFERER, http::HeaderValue::from_static("http://r/"));
        }
        Record::new(
            Some([192, 0, 2, 7].into()),
            SystemTime::UNIX_EPOCH + Duration::from_secs(971_211_336),
            &Method::GET,
            &target.parse().unwrap(),
            Version::HTTP_11,
            &headers,
        )
    }

    #[test]
    fn a_line_is_the_combined_format_and_the_duration() {
        let took = Duration::from_micros(1234);
        assert_eq!(
            record("/a%20b?c=d", Some(b"curl/8")).line(200, 2326, took),
            "192.0.2.7 - - [10/Oct/2000:20:55:36 +0000] \"GET /a%20b?c=d HTTP/1.1\" 200 2326 \
             \"http://r/\" \"curl/8\" 1234\n"
        );
        let unknown = Record { peer: None, ..record("/", None) };
        assert_eq!(
            unknown.line(404, 0, Duration::ZERO),
            "- - - [10/Oct/2000:20:55:36 +0000] \"GET / HTTP/1.1\" 404 0 \"-\" \"-\" 0\n"
        );
        let mapped =
            Record { peer: Some("::ffff:192.0.2.7".parse().unwrap()), ..record("/", None) };
        assert!(mapped.line(200, 0, took).starts_with("192.0.2.7 - "));
        let six = Record { peer: Some("2001:db8::1".parse().unwrap()), ..record("/", None) };
        assert!(six.line(200, 0, took).starts_with("2001:db8::1 - "));
    }

    #[test]
    fn a_client_cannot_write_a_line_of_its_own() {
        let agent = b"\" 200 0 \"x\\\xff\t";
        let line = record("/", Some(agent)).line(200, 0, Duration::ZERO);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with("\"\\x22 200 0 \\x22x\\x5C\\xFF\\x09\" 0\n"), "{line}");
        // What no header can hold is escaped nevertheless.
        let mut text = String::new();
        quote(&mut text, b"\x1b[2J\r\n\x7f");
        assert_eq!(text, "\\x1B[2J\\x0D\\x0A\\x7F");
    }

    #[test]
    fn lines_of_all_threads_arrive_whole_and_none_is_lost_at_the_end() {
        let folder = Folder::new();
        let path = folder.path().join("access.log");
        let log = AccessLog::open(&Target::File(path.clone())).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for n in 0..250 {
                        log.write(&record(&format!("/{thread}/{n}"), None), 200, n, Duration::ZERO);
                    }
                });
            }
        });
        assert!(log.close(Duration::MAX) && log.close(Duration::MAX));
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert!(
            text.lines().all(|line| line.starts_with("192.0.2.7 - - [") && line.ends_with(" 0"))
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_log_that_was_renamed_goes_on_under_its_own_name() {
        let folder = Folder::new();
        let path = folder.write("access.log", "");
        let mut sink = Sink::File { file: append_to(&path).unwrap(), path: path.clone() };
        sink.write(b"one\n").unwrap();
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        sink.write(b"two\n").unwrap();
        assert_eq!(std::fs::read(folder.path().join("access.log.1")).unwrap(), b"one\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
        folder.write("other.log", "");
        std::fs::rename(folder.path().join("other.log"), &path).unwrap();
        sink.write(b"three\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
    }

    /// Blocks in each write until the test lets it go on, and hands the test what was written.
    struct Gate {
        arrived: mpsc::Sender<Vec<u8>>,
        go_on: mpsc::Receiver<()>,
    }

    impl Write for Gate {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let _ = self.arrived.send(buf.to_owned());
            let _ = self.go_on.recv();
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_target_that_hangs_costs_lines_and_never_a_reactor() {
        let (arrived, written) = mpsc::channel();
        let (release, go_on) = mpsc::channel();
        let log = AccessLog::start(Sink::Test(Box::new(Gate { arrived, go_on }))).unwrap();
        let line = |target: &str| log.write(&record(target, None), 200, 0, Duration::ZERO);
        line("/first");
        let first = written.recv().unwrap();
        assert!(first.ends_with(b"0\n"));
        // The writer is stuck in the target now. More than the buffer holds:
        let long = format!("/{}", "x".repeat(60_000));
        for _ in 0..CAPACITY / 60_000 + 10 {
            line(&long);
        }
        assert!(lock(&log.shared.pending).lines.len() <= CAPACITY);
        let dropped = lock(&log.shared.pending).dropped;
        assert!(dropped > 0);
        assert!(!log.close(Duration::ZERO), "nothing can have been written");
        release.send(()).unwrap();
        let second = written.recv().unwrap();
        let note = format!("# {dropped} lines dropped");
        assert!(String::from_utf8_lossy(&second).contains(&note));
        drop(release);
        assert!(log.close(Duration::MAX));
    }
}
