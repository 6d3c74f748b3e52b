//! System calls per request.
//!
//! Counted by the kernel's tracepoint where it can be used: that takes `CAP_PERFMON` and tracefs.
//! Elsewhere `strace -c` counts between two runs, in lock-step only, since it slows a server too
//! much to saturate it otherwise.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::cpu::Clocks;
use super::instructions::on_path;
use super::lock_step::LockStep;
use super::{Programs, plain_load, stats};
use crate::error::{During, Error, Result};
use crate::load::Exchange;
use crate::report::model::Count;
use crate::roster::Spec;
use crate::server::{Server, Start};

/// All connections find the server busy, as much as they can.
pub(crate) const SATURATED: &str = "syscalls";
/// All connections send, then all are answered: the same each time.
pub(crate) const LOCK_STEP: &str = "syscalls-in-lock-step";

/// How system calls are counted here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Counter {
    Tracepoint(u64),
    Strace,
}

impl Counter {
    pub(crate) fn find() -> Result<Self> {
        if let Some(id) = tracepoint_id()
            && Events::open(std::process::id() as i32, id).is_ok()
        {
            return Ok(Counter::Tracepoint(id));
        }
        if on_path("strace") {
            return Ok(Counter::Strace);
        }
        Err(Error::Missing {
            tool: "a counter of system calls",
            cure: "run as root where tracefs can be mounted, or install the package `strace`",
        })
    }
}

/// With `connections` and a client that spins, for as long.
pub(crate) fn saturated(
    spec: &Spec,
    programs: &Programs,
    counter: Counter,
    connections: usize,
    time: Duration,
) -> Result<Count> {
    let Counter::Tracepoint(id) = counter else {
        return lock_step(spec, programs, counter, connections, 64)
            .map(|count| Count { metric: SATURATED.into(), ..count });
    };
    let server = Server::start(&Start::new(spec, &programs.dir))?;
    let mut exchange = Exchange::connect(server.addr, plain_load(spec), connections)?;
    exchange.drive(time / 4)?;
    let events = Events::of_process(server.pid(), id)?;
    let clocks = Clocks::new(server.pid(), &[]);
    // When something else takes the client's processor, the server runs dry and makes more calls.
    // The windows in which it was busiest are those in which it was saturated; where even those are
    // not, there may be better ones later.
    let mut windows = Vec::new();
    for _ in 0..if connections == 1 { 1 } else { ATTEMPTS } {
        for _ in 0..WINDOWS {
            let (before, clock) = (events.count()?, clocks.settled()?);
            let driven = exchange.drive(time / WINDOWS)?;
            let calls = (events.count()? - before) as f64;
            let busy =
                clocks.settled()?.since(clock).process as f64 / driven.wall.as_nanos() as f64;
            windows.push((busy, calls / driven.requests.max(1) as f64));
        }
        windows.sort_by(|a, b| b.0.total_cmp(&a.0));
        if windows[SATURATED_WINDOWS - 1].0 >= SATURATED_SHARE {
            break;
        }
    }
    let readings: Vec<f64> = windows.iter().take(SATURATED_WINDOWS).map(|w| w.1).collect();
    let value = stats::median(&readings).ok_or_else(|| {
        Error::server(&spec.name, "answered nothing while its calls were counted")
    })?;
    Ok(Count {
        server: spec.name.clone(),
        metric: SATURATED.into(),
        connections,
        value,
        how: "tracepoint".into(),
    })
}

const WINDOWS: u32 = 15;
const SATURATED_WINDOWS: usize = 5;
const ATTEMPTS: u32 = 4;
/// The share of its processor that a saturated server uses.
const SATURATED_SHARE: f64 = 0.97;

/// The same number each time.
pub(crate) fn lock_step(
    spec: &Spec,
    programs: &Programs,
    counter: Counter,
    connections: usize,
    turns: usize,
) -> Result<Count> {
    let value = match counter {
        Counter::Tracepoint(id) => {
            let mut running = LockStep::start(Start::new(spec, &programs.dir), connections)?;
            running.turns(turns / 4 + 1)?;
            let events = Events::of_process(running.server.pid(), id)?;
            let before = events.count()?;
            let requests = running.turns(turns)?;
            (events.count()? - before) as f64 / requests as f64
        }
        Counter::Strace => {
            let few = traced(spec, programs, connections, turns)?;
            let many = traced(spec, programs, connections, turns * 3)?;
            (many as f64 - few as f64) / (turns * 2 * connections) as f64
        }
    };
    Ok(Count {
        server: spec.name.clone(),
        metric: LOCK_STEP.into(),
        connections,
        value,
        how: if counter == Counter::Strace { "strace" } else { "tracepoint" }.into(),
    })
}

fn traced(spec: &Spec, programs: &Programs, connections: usize, turns: usize) -> Result<u64> {
    let out = std::env::temp_dir().join(format!("pelton-bench-{}.strace", std::process::id()));
    // With -D the server stays this process's child, and strace is nobody's.
    let under = ["strace", "-D", "-f", "-c", "-o", &out.to_string_lossy()].map(str::to_owned);
    let requests = (turns * connections) as u64;
    let start =
        Start { under: &under, stop_after: Some(requests), ..Start::new(spec, &programs.dir) };
    let ran = LockStep::start(start, connections).and_then(|server| server.finish(turns));
    ran?;
    // strace ends a little after the server.
    let mut text = String::new();
    for _ in 0..200 {
        text = std::fs::read_to_string(&out).unwrap_or_default();
        if total(&text).is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = std::fs::remove_file(&out);
    total(&text).ok_or_else(|| Error::server(&spec.name, "strace wrote no total"))
}

/// The calls in strace's last line, `100.00 SECONDS [USECS] CALLS [ERRORS] total`.
fn total(text: &str) -> Option<u64> {
    let header = text.lines().find(|line| line.contains("% time"))?;
    let line = text.lines().rev().find(|line| line.trim_end().ends_with(" total"))?;
    let at = header.split_whitespace().filter(|word| *word != "%").position(|w| w == "calls")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    words.get(at)?.parse().ok()
}

/// The tracepoint's number in tracefs. Where that is not mounted, a thread mounts it for itself
/// alone: nobody else sees it, and it is gone with the thread.
fn tracepoint_id() -> Option<u64> {
    const AT: &str = "/sys/kernel/tracing";
    let id = || -> Option<u64> {
        let path = format!("{AT}/events/raw_syscalls/sys_enter/id");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    id().or_else(|| {
        std::thread::spawn(move || {
            // SAFETY: these calls change the mounts of this thread alone, which has a namespace of
            // its own after the first; all strings are constants that end in a zero.
            let mounted = unsafe {
                libc::unshare(libc::CLONE_NEWNS) == 0
                    && libc::mount(
                        c"none".as_ptr(),
                        c"/".as_ptr(),
                        std::ptr::null(),
                        libc::MS_REC | libc::MS_PRIVATE,
                        std::ptr::null(),
                    ) == 0
                    && libc::mount(
                        c"tracefs".as_ptr(),
                        c"/sys/kernel/tracing".as_ptr(),
                        c"tracefs".as_ptr(),
                        0,
                        std::ptr::null(),
                    ) == 0
            };
            if mounted { id() } else { None }
        })
        .join()
        .ok()?
    })
}

/// Counters of a tracepoint for every thread of a process, and the threads that these start.
struct Events(Vec<OwnedFd>);

/// The first version of the kernel's `perf_event_attr`, which is enough to count.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

impl Events {
    fn of_process(pid: i32, id: u64) -> Result<Self> {
        let dir = format!("/proc/{pid}/task");
        let threads = std::fs::read_dir(&dir).during(format!("listing {dir}"))?;
        let mut all = Vec::new();
        for thread in threads.flatten() {
            if let Ok(thread) = thread.file_name().to_string_lossy().parse() {
                all.extend(Self::open(thread, id).during("opening a counter of system calls")?.0);
            }
        }
        Ok(Self(all))
    }

    fn open(thread: i32, id: u64) -> io::Result<Self> {
        const TRACEPOINT: u32 = 2;
        const INHERIT: u64 = 1 << 1;
        const CLOSE_ON_EXEC: u64 = 1 << 3;
        let attributes = Attributes {
            kind: TRACEPOINT,
            size: size_of::<Attributes>() as u32,
            config: id,
            flags: INHERIT,
            ..Attributes::default()
        };
        // SAFETY: the attributes are live for the call and carry their own size; no group (-1) and
        // every processor (-1).
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                thread,
                -1,
                -1,
                CLOSE_ON_EXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(vec![unsafe { OwnedFd::from_raw_fd(fd as i32) }]))
    }

    fn count(&self) -> Result<u64> {
        let mut sum = 0;
        for fd in &self.0 {
            let mut value = [0; 8];
            // SAFETY: eight bytes are live, which is what a counter without a format gives.
            let read = unsafe { libc::read(fd.as_raw_fd(), value.as_mut_ptr().cast(), 8) };
            if read != 8 {
                return Err(io::Error::last_os_error()).during("reading a counter of system calls");
            }
            sum += u64::from_ne_bytes(value);
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_strace_is_read_with_and_without_errors() {
        let head = "% time     seconds  usecs/call     calls    errors syscall\n";
        let rule = "------ ----------- ----------- --------- --------- ----------------\n";
        let text =
            format!("{head}{rule}100.00    0.000123           1       129         4 total\n");
        assert_eq!(total(&text), Some(129));
        let text =
            format!("{head}{rule}100.00    0.000123           1       130           total\n");
        assert_eq!(total(&text), Some(130));
        assert_eq!(total("nothing"), None);
    }

    #[test]
    fn the_attributes_have_the_kernel_s_first_size() {
        assert_eq!(size_of::<Attributes>(), 64);
    }
}
