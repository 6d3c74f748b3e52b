//! The program as a child process, and a folder for it to serve.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

use crate::client::Client;

/// Nothing takes this long. What does is stuck, and a failed test is better than one that hangs.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// A folder of its own for one test, removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("pelton-serve-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        // What a killed run with the same number has left behind.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and the folders on the way to it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes of which no two stretches are alike, so that one in the wrong place is seen.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The program, with the options that follow.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pelton"));
    command.env_remove("PELTON_BACKEND");
    command
}

/// The program, with a soft and a hard limit on open files.
pub(crate) fn limited(soft: u32, hard: u32) -> Command {
    let program = program();
    let mut command = Command::new("sh");
    command.env_remove("PELTON_BACKEND");
    let script = format!("ulimit -S -n {soft} && ulimit -H -n {hard} && exec \"$@\"");
    command.args(["-c", &script, "sh"]).arg(program.get_program());
    command
}

/// What a program said and how it ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A server that listens. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Arc<Stderr>,
    /// The first line that it wrote.
    pub(crate) announcement: String,
    pub(crate) address: SocketAddr,
}

#[derive(Default)]
struct Stderr {
    said: Mutex<(String, bool)>,
    news: Condvar,
}

impl Server {
    /// Serves `folder` on a free port, with one reactor unless `options` say otherwise.
    pub(crate) fn start(backend: &str, folder: &Folder, options: &[&str]) -> Server {
        let mut command = program();
        command.arg("serve").arg(folder.path());
        Server::of(command, backend, options)
    }

    /// As [`Server::start`], with at most `descriptors` open at once.
    pub(crate) fn start_with_descriptors(
        descriptors: u32,
        backend: &str,
        folder: &Folder,
        options: &[&str],
    ) -> Server {
        let mut command = limited(descriptors, descriptors);
        command.arg("serve").arg(folder.path());
        Server::of(command, backend, options)
    }

    /// The number of the process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Starts a command, which the last options are for.
    pub(crate) fn of(mut command: Command, backend: &str, options: &[&str]) -> Server {
        command.args(["--backend", backend]);
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !options.contains(&"--reactors") {
            command.args(["--reactors", "1"]);
        }
        command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = Arc::new(Stderr::default());
        let (theirs, mut pipe) = (Arc::clone(&stderr), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let n = pipe.read(&mut bytes).unwrap_or(0);
                let mut said = theirs.said.lock().unwrap();
                said.0.push_str(&String::from_utf8_lossy(&bytes[..n]));
                said.1 = n == 0;
                theirs.news.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut announcement = String::new();
        stdout.read_line(&mut announcement).unwrap();
        let address = announcement.split(' ').nth(2).and_then(|url| url.strip_prefix("http://"));
        let Some(address) = address.and_then(|address| address.parse().ok()) else {
            let _ = child.wait();
            panic!("no announcement: {announcement:?}, {}", stderr.said.lock().unwrap().0);
        };
        Server { child, stdout, stderr, announcement, address }
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address).unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has said `words` on stderr.
    pub(crate) fn wait_for_words(&self, words: &str) {
        let said = self.stderr.said.lock().unwrap();
        let waiting = |said: &mut (String, bool)| !said.0.contains(words) && !said.1;
        let said = self.stderr.news.wait_timeout_while(said, WATCHDOG, waiting).unwrap().0;
        assert!(said.0.contains(words), "not said: {words}, but: {}", said.0);
    }

    /// Everything it has said on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.said.lock().unwrap().0.clone()
    }

    /// Asks it to end, as a supervisor does, and waits until it has.
    pub(crate) fn end(self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits until it has ended.
    pub(crate) fn wait(mut self) -> Ended {
        let said = self.stderr.said.lock().unwrap();
        let (said, waited) =
            self.stderr.news.wait_timeout_while(said, WATCHDOG, |said| !said.1).unwrap();
        assert!(!waited.timed_out(), "it does not end; it said: {}", said.0);
        let stderr = said.0.clone();
        drop(said);
        let mut stdout = self.announcement.clone();
        self.stdout.read_to_string(&mut stdout).unwrap();
        Ended { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server said: {}", self.stderr());
        }
    }
}

/// Runs the program to its end.
pub(crate) fn run(mut command: Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Lets this process and its children have as many descriptors as they may.
pub(crate) fn raise_descriptor_limit(needed: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|most| most >= needed), "the hard limit is {limit:?}");
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
