//! What is to be measured, how often, and how it is told.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use crate::args::{Extra, Given};
use crate::system::Clock;

/// Batches that are run and not counted.
const WARM_UP: usize = 2;

/// What every program of micro-benchmarks takes.
pub fn extras() -> Vec<Extra> {
    vec![Extra::Text("--only"), Extra::Count("--repeat", 15)]
}

/// What to measure.
#[derive(Debug)]
pub struct Plan {
    server: String,
    backend: String,
    only: Option<String>,
    repeat: usize,
    clock: Clock,
}

impl Plan {
    /// What the command line asks for. `server` and `backend` are what the lines say.
    pub fn new(given: &Given, server: &str, backend: &str, clock: Clock) -> Plan {
        Plan {
            server: server.to_owned(),
            backend: backend.to_owned(),
            only: given.text("--only").map(str::to_owned),
            repeat: given.count("--repeat"),
            clock,
        }
    }

    /// The same, for another way of doing it.
    pub fn with_backend(&self, backend: &str) -> Plan {
        let (server, only) = (self.server.clone(), self.only.clone());
        Plan { server, backend: backend.to_owned(), only, repeat: self.repeat, clock: self.clock }
    }

    /// Whether a benchmark is asked for: those whose names begin with what `--only` says.
    pub fn wants(&self, bench: &str) -> bool {
        self.only.as_deref().is_none_or(|only| bench.starts_with(only))
    }

    /// Whose processor time is counted, unless a benchmark says otherwise.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Measures batches of `n` operations on this thread's clock, or the process's if that was asked for,
    /// and tells of it.
    pub async fn measure(&self, bench: &str, n: u64, run: impl AsyncFnMut(u64)) {
        let times = self.times(self.clock, n, run).await;
        self.tell(bench, self.clock, &times, n, &[]);
    }

    /// The times of the batches, per operation, in nanoseconds and sorted.
    pub async fn times(&self, clock: Clock, n: u64, mut run: impl AsyncFnMut(u64)) -> Vec<f64> {
        for _ in 0..WARM_UP {
            run(n).await;
        }
        let mut times = Vec::with_capacity(self.repeat);
        for _ in 0..self.repeat {
            let start = clock.now();
            run(n).await;
            times.push(per_operation(clock.now() - start, n));
        }
        times.sort_by(f64::total_cmp);
        times
    }

    /// As [`Plan::measure`], for what does not need a runtime.
    pub fn measure_blocking(&self, bench: &str, n: u64, mut run: impl FnMut(u64)) {
        for _ in 0..WARM_UP {
            run(n);
        }
        let mut times = Vec::with_capacity(self.repeat);
        for _ in 0..self.repeat {
            let start = self.clock.now();
            run(n);
            times.push(per_operation(self.clock.now() - start, n));
        }
        times.sort_by(f64::total_cmp);
        self.tell(bench, self.clock, &times, n, &[]);
    }

    /// Prints a line of times.
    pub fn tell(&self, bench: &str, clock: Clock, times: &[f64], n: u64, more: &[(&str, f64)]) {
        let clock = match clock {
            Clock::Thread => "thread",
            Clock::Process => "process",
        };
        let mut line = format!(
            "\"ns_min\":{:.1},\"ns_median\":{:.1},\"n\":{n},\"batches\":{},\"clock\":\"{clock}\"",
            times[0],
            times[times.len() / 2],
            times.len(),
        );
        for (name, value) in more {
            line.push_str(&format!(",\"{name}\":{value:.4}"));
        }
        self.line(bench, line);
    }

    /// Prints a line of other fields.
    pub fn line(&self, bench: &str, fields: impl Display) {
        let (server, backend) = (&self.server, &self.backend);
        let mut out = std::io::stdout().lock();
        let _ = writeln!(
            out,
            "{{\"bench\":\"{bench}\",\"server\":\"{server}\",\"backend\":\"{backend}\",{fields}}}"
        );
        let _ = out.flush();
    }

    /// Says on stderr that something cannot be measured here.
    pub fn skip(&self, bench: &str, why: &str) {
        eprintln!("{} {}: no {bench}: {why}", self.server, self.backend);
    }
}

fn per_operation(time: Duration, n: u64) -> f64 {
    time.as_nanos() as f64 / n as f64
}
