//! The machine: what it is, where threads run on it, and the state of the source tree.

use std::fs;
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{During, Result};

/// The processor that servers run on.
pub(crate) const SERVER_CPU: usize = 0;
/// The processor that the load generator runs on.
pub(crate) const LOAD_CPU: usize = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) virtualised: bool,
    pub(crate) congestion_control: String,
    /// The share of the last minute in which something waited for a processor, in per cent, when
    /// the run began.
    pub(crate) pressure: Option<f64>,
}

/// The commit that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tree {
    pub(crate) commit: String,
    pub(crate) dirty: bool,
}

/// What built the programs, as far as it can be asked now.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Build {
    pub(crate) rustc: String,
    pub(crate) rustflags: String,
}

impl Build {
    pub(crate) fn read() -> Self {
        let rustc = Command::new("rustc").arg("--version").output();
        let rustc =
            rustc.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned());
        Self {
            rustc: rustc.trim().to_owned(),
            rustflags: std::env::var("RUSTFLAGS").unwrap_or_default(),
        }
    }
}

impl Machine {
    pub(crate) fn read() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            cpuinfo
                .lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        let memory_kib = read("/proc/meminfo")
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()))
            .unwrap_or(0);
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_kib / 1024,
            virtualised: field("flags").is_some_and(|f| f.split(' ').any(|x| x == "hypervisor")),
            congestion_control: congestion_control().to_owned(),
            pressure: pressure(),
        }
    }
}

impl Tree {
    /// Of the tree that holds `dir`.
    pub(crate) fn read(dir: &Path) -> Self {
        let git = |arguments: &[&str]| {
            let output = Command::new("git").arg("-C").arg(dir).args(arguments).output().ok()?;
            output
                .status
                .success()
                .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        Self {
            commit: git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(|| "unknown".into()),
            // Results are written into the tree, and are no change of what is measured.
            dirty: git(&["status", "--porcelain", "--", ":/", ":(exclude,top)bench/results"])
                .is_none_or(|changes| !changes.is_empty()),
        }
    }

    pub(crate) fn label(&self) -> String {
        format!("{}{}", self.commit, if self.dirty { "-dirty" } else { "" })
    }
}

/// The congestion control that the load's sockets ask for, where it may be chosen. BBR paces its
/// sends, which on loopback measures the pacing timer.
pub(crate) fn congestion_control() -> &'static str {
    static CHOSEN: OnceLock<&'static str> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        // Which ones a process may choose depends on its capabilities: a socket knows.
        // SAFETY: plain system calls. The descriptor is this function's own, and the option's
        // value is live and five bytes long.
        let chosen = unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            let (level, name) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
            let set = libc::setsockopt(fd, level, name, c"cubic".as_ptr().cast(), 5);
            libc::close(fd);
            set == 0
        };
        if chosen { "cubic" } else { "default" }
    })
}

/// Keeps the calling thread, and what it starts later, on these processors.
pub(crate) fn pin(cpus: &[usize]) -> std::io::Result<()> {
    // SAFETY: a cpu_set_t is plain bits, for which all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: CPU_SET writes inside the set that it is given and ignores what is out of range.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the set is live for the call, and its true size is given.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Raises the limit of open files to what is allowed, for this process and those it starts.
pub(crate) fn raise_file_limit() -> Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is live and of the type that the call fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(std::io::Error::last_os_error()).during("reading the limit of open files");
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above; the call only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(std::io::Error::last_os_error()).during("raising the limit of open files");
    }
    Ok(limit.rlim_cur)
}

/// Puts this session before all others, where that is allowed, until dropped. With autogroups the
/// scheduler shares a processor between sessions first, so that `nice` does nothing against a
/// neighbour in another one.
pub(crate) struct Precedence(());

const AUTOGROUP: &str = "/proc/self/autogroup";

/// The open file and the nice value to put back into it, for a signal handler; -1 when there is
/// nothing to put back.
static BEFORE: (AtomicI32, AtomicI32) = (AtomicI32::new(-1), AtomicI32::new(0));

impl Precedence {
    pub(crate) fn take() -> Self {
        let before =
            read(AUTOGROUP).split("nice ").nth(1).and_then(|nice| nice.trim().parse().ok());
        let file = fs::OpenOptions::new().write(true).open(AUTOGROUP);
        if let (Some(before), Ok(mut file)) = (before, file)
            && file.write_all(b"-20").is_ok()
        {
            BEFORE.1.store(before, Ordering::SeqCst);
            BEFORE.0.store(file.into_raw_fd(), Ordering::SeqCst);
        }
        Self(())
    }

    pub(crate) fn taken(&self) -> bool {
        BEFORE.0.load(Ordering::SeqCst) >= 0
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        give_precedence_back();
    }
}

/// Undoes [`Precedence::take`], once. Safe in a signal handler.
pub(crate) fn give_precedence_back() {
    let fd = BEFORE.0.swap(-1, Ordering::SeqCst);
    if fd < 0 {
        return;
    }
    let nice = BEFORE.1.load(Ordering::SeqCst).clamp(-20, 19);
    // Written by hand: formatting is not for signal handlers. No zero in front, which would make
    // the number octal.
    let (mut text, mut length) = ([0u8; 3], 0);
    let digits = nice.unsigned_abs() as u8;
    for (wanted, byte) in
        [(nice < 0, b'-'), (digits > 9, b'0' + digits / 10), (true, b'0' + digits % 10)]
    {
        if wanted {
            text[length] = byte;
            length += 1;
        }
    }
    // SAFETY: the descriptor was given up by its owner in `take` and is closed here alone, after
    // the swap; the bytes are live for the call.
    unsafe {
        libc::write(fd, text.as_ptr().cast(), length);
        libc::close(fd);
    }
}

fn pressure() -> Option<f64> {
    let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
    text.split_whitespace().find_map(|word| word.strip_prefix("avg60="))?.parse().ok()
}

/// A file of the kernel's as text; empty where there is none.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
