//! The processor time of a server.

use std::time::{Duration, Instant};

use crate::error::{During, Result};
use crate::machine;

/// The processor time of a process and of the softirq threads of its processors.
///
/// The process clock covers threads that have ended and the kernel's workers, which a sum over
/// `/proc/PID/task` loses. What the network does in softirq context is charged to whoever was
/// interrupted, and to `ksoftirqd` under load: the latter is added.
pub(crate) struct Clocks {
    pid: i32,
    softirq: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    pub(crate) process: u64,
    pub(crate) softirq: u64,
}

impl Clocks {
    pub(crate) fn new(pid: i32, cpus: &[usize]) -> Self {
        let softirq = cpus
            .iter()
            .filter_map(|cpu| kernel_thread(&format!("ksoftirqd/{cpu}")))
            .map(|pid| format!("/proc/{pid}/schedstat"))
            .collect();
        Self { pid, softirq }
    }

    /// Reads the clocks once the process rests. The time of a thread that is running on another
    /// processor is only as fresh as the last tick, up to 4 ms old; that of a sleeping one is
    /// exact. A process that does not rest is read after a millisecond.
    pub(crate) fn settled(&self) -> Result<Reading> {
        let give_up = Instant::now() + Duration::from_millis(1);
        let mut before = process_time(self.pid)?;
        loop {
            let pause = Instant::now() + Duration::from_micros(60);
            while Instant::now() < pause {
                std::hint::spin_loop();
            }
            let process = process_time(self.pid)?;
            if process == before || Instant::now() > give_up {
                let softirq = self.softirq.iter().filter_map(|path| run_time(path)).sum();
                return Ok(Reading { process, softirq });
            }
            before = process;
        }
    }
}

impl Reading {
    pub(crate) fn since(self, before: Reading) -> Reading {
        Reading {
            process: self.process.saturating_sub(before.process),
            softirq: self.softirq.saturating_sub(before.softirq),
        }
    }
}

impl std::ops::AddAssign for Reading {
    fn add_assign(&mut self, more: Reading) {
        self.process += more.process;
        self.softirq += more.softirq;
    }
}

fn process_time(pid: i32) -> Result<u64> {
    // What clock_getcpuclockid(3) computes: the process's clock, scheduler's own count.
    let clock = (!pid << 3) | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is live for the call that fills it.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(std::io::Error::last_os_error())
            .during(format!("reading the processor time of process {pid}"));
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn kernel_thread(name: &str) -> Option<u32> {
    // Kernel threads are made at the start, so that theirs are among the lowest numbers.
    (2..2000).find(|pid| machine::read(&format!("/proc/{pid}/comm")).trim_end() == name)
}

fn run_time(schedstat: &str) -> Option<u64> {
    machine::read(schedstat).split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_this_process_grows() {
        let pid = std::process::id() as i32;
        let before = process_time(pid).expect("the clock of a live process");
        let mut sum = 0u64;
        let mut now = before;
        while now == before {
            sum = sum.wrapping_add(std::hint::black_box(1));
            now = process_time(pid).expect("the clock of a live process");
        }
        assert!(now > before, "{sum}");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().expect("true");
        let pid = child.id() as i32;
        child.wait().expect("its end");
        let error = process_time(pid).expect_err("no such process").to_string();
        assert!(error.contains(&pid.to_string()), "{error}");
    }
}
