//! A server's life: started, known by its line `ready`, recognised as the one that listens, ended.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crate::error::{During, Error, Result};
use crate::machine;
use crate::roster::Spec;

/// A started server. Dropped, it is ended: first asked, then killed.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    pub(crate) detail: String,
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: PathBuf,
    slot: Option<usize>,
}

/// How to start a server.
pub(crate) struct Start<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) bin_dir: &'a Path,
    pub(crate) cpus: &'a [usize],
    pub(crate) buffer: usize,
    pub(crate) stop_after: Option<u64>,
    /// A command to run the server under, such as `valgrind`; its own process becomes the server.
    pub(crate) under: &'a [String],
    /// Scheduled as a batch: it never takes the processor from the load that wakes it.
    pub(crate) batch: bool,
}

impl<'a> Start<'a> {
    pub(crate) fn new(spec: &'a Spec, bin_dir: &'a Path) -> Self {
        Self {
            spec,
            bin_dir,
            cpus: &[machine::SERVER_CPU],
            buffer: 16384,
            stop_after: None,
            under: &[],
            batch: false,
        }
    }
}

/// What a server says when it listens.
#[derive(Debug, PartialEq)]
pub(crate) struct Ready {
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    pub(crate) pid: i32,
    pub(crate) detail: String,
}

/// glibc gives the end of its heap back to the system whenever 128 KiB are free there, and takes it again, page by page.
/// Where the end is depends on what a server happened to allocate last: of two that allocate alike, one pays for it at
/// every burst of short connections and the other never. So none does.
const KEEPS_HEAP: (&str, &str) = ("MALLOC_TRIM_THRESHOLD_", "268435456");

impl Server {
    pub(crate) fn start(start: &Start<'_>) -> Result<Self> {
        let name = &start.spec.name;
        let binary = start.bin_dir.join(start.spec.binary);
        if !binary.exists() {
            return Err(Error::server(
                name,
                format!(
                    // Not the whole path: this ends up in results that others read.
                    "no program `{}` in the directory of the servers: build it, or name another \
                     directory with --bin-dir or --counting-dir",
                    start.spec.binary
                ),
            ));
        }
        let mut command = match start.under.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&binary);
                command
            }
            None => Command::new(&binary),
        };
        command.args(start.spec.args.iter()).args(["--listen", "127.0.0.1:0"]);
        command.args(["--buffer", &start.buffer.to_string()]);
        if let Some(n) = start.stop_after {
            command.args(["--stop-after", &n.to_string()]);
        }
        let stderr = std::env::temp_dir().join(format!(
            "pelton-bench-{}-{}.err",
            std::process::id(),
            STARTED.fetch_add(1, Ordering::Relaxed)
        ));
        let errors = File::create(&stderr).during(format!("creating {}", stderr.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        command.env(KEEPS_HEAP.0, KEEPS_HEAP.1);
        let cpus = start.cpus.to_vec();
        let batch = start.batch;
        // SAFETY: the closure runs in the child between fork and exec and makes system calls only:
        // it neither allocates nor takes a lock (`pin` builds its set on the stack).
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if batch {
                    let none = libc::sched_param { sched_priority: 0 };
                    libc::sched_setscheduler(0, libc::SCHED_BATCH, &none);
                }
                machine::pin(&cpus)
            });
        }
        let mut child =
            command.spawn().during(format!("starting {name} ({})", start.spec.binary))?;
        let slot = register(child.id() as i32);
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut server = Self {
            name: name.clone(),
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            detail: String::new(),
            child,
            stdout,
            stderr,
            slot,
        };
        let ready = server.await_ready(Duration::from_secs(20))?;
        if ready.pid != server.pid() {
            return Err(Error::server(
                name,
                format!("says it is process {}, but {} was started", ready.pid, server.pid()),
            ));
        }
        server.addr = ready.addr;
        server.detail = ready.detail;
        server.identify()?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Checks that this process is the one that listens on the port, and not a leftover.
    pub(crate) fn identify(&self) -> Result<()> {
        let inodes = listening_inodes(self.addr.port());
        if inodes.is_empty() {
            return Err(Error::server(&self.name, format!("nothing listens on {}", self.addr)));
        }
        let dir = format!("/proc/{}/fd", self.pid());
        let own =
            std::fs::read_dir(&dir).during(format!("listing {dir}"))?.flatten().any(|entry| {
                let link = std::fs::read_link(entry.path()).unwrap_or_default();
                socket_inode(&link.to_string_lossy()).is_some_and(|inode| inodes.contains(&inode))
            });
        if own {
            return Ok(());
        }
        Err(Error::server(
            &self.name,
            format!("{} is another process's socket: end the server left over there", self.addr),
        ))
    }

    /// Fails when the process has ended by itself.
    pub(crate) fn alive(&mut self) -> Result<()> {
        match self.child.try_wait().during("asking for a server's state")? {
            None => Ok(()),
            Some(status) => {
                Err(Error::server(&self.name, format!("ended early, {status}{}", self.complaint())))
            }
        }
    }

    /// Waits for the server to end by itself and returns what it printed since it was ready.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().during("asking for a server's state")? {
                if !status.success() {
                    let complaint = self.complaint();
                    return Err(Error::server(&self.name, format!("ended, {status}{complaint}")));
                }
                let mut rest = String::new();
                self.stdout.read_to_string(&mut rest).during("reading a server's output")?;
                return Ok(rest);
            }
            if Instant::now() > deadline {
                return Err(Error::server(
                    &self.name,
                    format!(
                        "did not end by itself in {} s after its last request",
                        limit.as_secs()
                    ),
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn await_ready(&mut self, limit: Duration) -> Result<Ready> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd {
                fd: self.stdout.get_ref().as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one live pollfd, and its count is one.
            let ready = unsafe { libc::poll(&mut poll, 1, left.as_millis() as i32) };
            if ready <= 0 {
                return Err(Error::server(
                    &self.name,
                    format!("no line `ready` in {} s{}", limit.as_secs(), self.complaint()),
                ));
            }
            let mut line = String::new();
            let read = self.stdout.read_line(&mut line).during("reading a server's output")?;
            if read == 0 {
                let status = self.child.wait().during("waiting for a server")?;
                return Err(Error::server(
                    &self.name,
                    format!("ended before it was ready, {status}{}", self.complaint()),
                ));
            }
            if line.starts_with("ready ") {
                return parse_ready(&line).map_err(|what| Error::server(&self.name, what));
            }
        }
    }

    /// The end of what the server wrote to its standard error.
    fn complaint(&self) -> String {
        let text = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(6).collect();
        if lines.is_empty() {
            return String::new();
        }
        format!(": {}", lines.into_iter().rev().collect::<Vec<_>>().join(" / "))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // SAFETY: kill has no memory effects. The child has not been waited for, so the number
            // is still its own.
            unsafe { libc::kill(self.pid(), libc::SIGTERM) };
            let deadline = Instant::now() + Duration::from_secs(2);
            while matches!(self.child.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if let Some(slot) = self.slot {
            RUNNING[slot].store(0, Ordering::SeqCst);
        }
        let _ = std::fs::remove_file(&self.stderr);
    }
}

/// Reads `ready NAME addr=IP:PORT pid=PID detail="…"`.
pub(crate) fn parse_ready(line: &str) -> std::result::Result<Ready, String> {
    let bad = |what: &str| format!("its line `ready` {what}: {}", line.trim_end());
    let rest = line.trim_end().strip_prefix("ready ").ok_or_else(|| bad("does not begin so"))?;
    let (fields, detail) = match rest.split_once(" detail=\"") {
        Some((fields, detail)) => {
            (fields, detail.strip_suffix('"').ok_or_else(|| bad("has an open quote"))?)
        }
        None => (rest, ""),
    };
    let mut words = fields.split_whitespace();
    let name = words.next().ok_or_else(|| bad("has no name"))?;
    let (mut addr, mut pid) = (None, None);
    for word in words {
        match word.split_once('=') {
            Some(("addr", value)) => {
                addr = Some(value.parse().map_err(|_| bad("has an address that is none"))?);
            }
            Some(("pid", value)) => {
                pid = Some(value.parse().map_err(|_| bad("has a process that is none"))?);
            }
            _ => {}
        }
    }
    Ok(Ready {
        name: name.to_owned(),
        addr: addr.ok_or_else(|| bad("has no address"))?,
        pid: pid.ok_or_else(|| bad("has no process"))?,
        detail: detail.to_owned(),
    })
}

/// Makes SIGINT and SIGTERM kill the servers before they end this process.
pub(crate) fn kill_servers_on_signal() {
    // SAFETY: the handler makes only calls that are safe in a signal handler, and reads atomics.
    unsafe {
        let handler = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::signal(libc::SIGINT, handler);
        libc::signal(libc::SIGTERM, handler);
    }
}

static STARTED: AtomicI32 = AtomicI32::new(0);
/// The processes to kill on a signal; 0 is a free place.
static RUNNING: [AtomicI32; 64] = [const { AtomicI32::new(0) }; 64];

fn register(pid: i32) -> Option<usize> {
    RUNNING.iter().position(|place| {
        place.compare_exchange(0, pid, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    })
}

extern "C" fn on_signal(signal: libc::c_int) {
    for place in &RUNNING {
        let pid = place.load(Ordering::SeqCst);
        if pid > 0 {
            // SAFETY: kill and _exit are safe in a signal handler.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
    machine::give_precedence_back();
    // SAFETY: as above. Nothing else of this process has to be put in order.
    unsafe { libc::_exit(128 + signal) }
}

fn listening_inodes(port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|path| {
            machine::read(path)
                .lines()
                .skip(1)
                .filter_map(|line| {
                    let fields: Vec<&str> = line.split_whitespace().collect();
                    let local = fields.get(1)?.rsplit_once(':')?.1;
                    let here = u16::from_str_radix(local, 16).ok()? == port;
                    (here && *fields.get(3)? == LISTEN).then(|| fields.get(9)?.parse().ok())?
                })
                .collect::<Vec<u64>>()
        })
        .collect()
}

fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_is_read() {
        let line = "ready echo-tokio addr=127.0.0.1:41234 pid=77 detail=\"tokio 1.54.1, a b\"\n";
        let ready = parse_ready(line).expect("a good line");
        assert_eq!(ready.name, "echo-tokio");
        assert_eq!(ready.addr, SocketAddr::from(([127, 0, 0, 1], 41234)));
        assert_eq!(ready.pid, 77);
        assert_eq!(ready.detail, "tokio 1.54.1, a b");
    }

    #[test]
    fn a_ready_line_may_lack_a_detail_and_hold_unknown_fields() {
        let ready = parse_ready("ready x pid=1 new=2 addr=[::1]:80").expect("a good line");
        assert_eq!((ready.detail.as_str(), ready.addr.port()), ("", 80));
    }

    #[test]
    fn a_bad_ready_line_says_what_is_wrong() {
        for (line, what) in [
            ("hello", "does not begin so"),
            ("ready x pid=1", "no address"),
            ("ready x addr=127.0.0.1:1", "no process"),
            ("ready x addr=nowhere pid=1", "address that is none"),
            ("ready x addr=127.0.0.1:1 pid=me", "process that is none"),
            ("ready x addr=127.0.0.1:1 pid=1 detail=\"y", "open quote"),
        ] {
            let error = parse_ready(line).expect_err(line);
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_listener_is_found_by_its_inode() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd()));
        let own = socket_inode(&link.expect("an open file").to_string_lossy()).expect("a socket");
        assert_eq!(listening_inodes(port), [own]);
    }
}
