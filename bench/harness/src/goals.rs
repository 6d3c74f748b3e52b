//! The project's performance goals, and whether a result meets them.
//!
//! A goal has parts: one for each load and server that it speaks of. A part that compares is met
//! when the whole middle half of its paired ratios is at or below the goal, or above it by no more
//! than two copies of the reference differ in that cell. Latencies have tails that no neighbour is kept out of:
//! of them the median is judged, by its interval. Pelton on io_uring stands for Pelton where
//! a goal does not name a backend, because it is what Pelton chooses by itself.

use std::fmt;

use crate::limits::Limits;
use crate::measure::stats::{self, Quartiles};
use crate::measure::{instructions, memory, syscalls};
use crate::report::model::{Micro, RunResult, Slice};
use crate::report::table::{interval, number};
use crate::roster::{
    AHEAD, AXUM_PELTON, AXUM_TOKIO, BATCHED, COPY, EPOLL_LEASED, EPOLL_OWNED, HTTP_TOKIO,
    HTTP_URING, PELTON_ECHO, RAW_EPOLL, RAW_EPOLL_OWNED, RAW_SINGLE, RAW_URING, TOKIO,
    URING_LEASED, URING_OWNED,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Met,
    ProvenLimit,
    NotMeasured,
    Missed,
}

/// One line of the table of goals.
pub(crate) struct Goal {
    pub(crate) number: u32,
    pub(crate) what: &'static str,
    /// As the table of goals has it.
    pub(crate) goal: &'static str,
    pub(crate) parts: Vec<Part>,
}

/// What one goal says of one server under one load.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) limit: f64,
    pub(crate) value: Value,
    pub(crate) verdict: Verdict,
    /// Where a proven limit is proven.
    pub(crate) proof: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    Ratio {
        ratio: Quartiles,
        band: f64,
    },
    /// A median and its interval, and how far the control's reaches.
    Median {
        ratio: Quartiles,
        band: f64,
    },
    Number(f64),
    None,
}

/// Every goal, judged.
pub(crate) fn judge(result: &RunResult, limits: &Limits) -> Vec<Goal> {
    let judge = Judge { result };
    let mut goals = judge.echo();
    goals.extend(judge.counted());
    goals.extend(judge.loads());
    goals.extend(judge.micro());
    goals.sort_by_key(|goal| goal.number);
    for goal in &mut goals {
        for part in &mut goal.parts {
            part.judge(goal.number, limits);
        }
    }
    goals
}

/// Whether none is missed; one that was not measured is.
pub(crate) fn all_met(goals: &[Goal]) -> bool {
    goals.iter().all(|goal| goal.verdict() <= Verdict::ProvenLimit)
}

impl Goal {
    pub(crate) fn verdict(&self) -> Verdict {
        self.parts.iter().map(|part| part.verdict).max().unwrap_or(Verdict::NotMeasured)
    }

    /// The part that decides the verdict: of the worst ones, the one farthest beyond its goal.
    pub(crate) fn worst(&self) -> Option<&Part> {
        self.parts
            .iter()
            .max_by(|a, b| a.verdict.cmp(&b.verdict).then(a.excess().total_cmp(&b.excess())))
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value =
            self.worst().map_or(String::new(), |part| format!("{} ({})", part.value, part.name));
        write!(
            f,
            "{:>2}  {}: {value}; goal {}: {}",
            self.number,
            self.what,
            self.goal,
            self.verdict()
        )?;
        for part in self.parts.iter().filter(|part| part.verdict != Verdict::Met) {
            write!(
                f,
                "\n      {}: {}, goal ≤ {}: {}",
                part.name,
                part.value,
                number(part.limit),
                part.verdict
            )?;
            if let Some(proof) = &part.proof {
                write!(f, " ({proof})")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Met => "met",
            Verdict::ProvenLimit => "proven limit",
            Verdict::NotMeasured => "not measured",
            Verdict::Missed => "missed",
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Ratio { ratio, band } | Value::Median { ratio, band } => {
                write!(f, "{} (±{:.1} %)", interval(*ratio), (band - 1.0) * 100.0)
            }
            Value::Number(value) => f.write_str(&number(*value)),
            Value::None => f.write_str("–"),
        }
    }
}

impl Part {
    fn new(name: impl Into<String>, limit: f64, value: Value) -> Self {
        Self { name: name.into(), limit, value, verdict: Verdict::NotMeasured, proof: None }
    }

    fn ratio(name: String, limit: f64, ratio: Option<Quartiles>, band: f64) -> Self {
        Self::new(name, limit, ratio.map_or(Value::None, |ratio| Value::Ratio { ratio, band }))
    }

    fn number(name: impl Into<String>, limit: f64, value: Option<f64>) -> Self {
        Self::new(name, limit, value.map_or(Value::None, Value::Number))
    }

    fn judge(&mut self, goal: u32, limits: &Limits) {
        let meets = |limit: f64| match self.value {
            Value::Ratio { ratio, band } => Some(stats::meets(ratio, limit, band)),
            Value::Median { ratio, band } => stats::median_meets(ratio, limit, band),
            Value::Number(value) => Some(value <= limit),
            Value::None => None,
        };
        let reached = limits.of(goal, &self.name);
        self.verdict = match meets(self.limit) {
            None => Verdict::NotMeasured,
            Some(true) => Verdict::Met,
            Some(false) => match reached.filter(|limit| meets(limit.reached) == Some(true)) {
                Some(limit) => {
                    self.proof = Some(limit.proof.clone());
                    Verdict::ProvenLimit
                }
                None => Verdict::Missed,
            },
        };
    }

    fn excess(&self) -> f64 {
        match self.value {
            Value::Ratio { ratio, band } => ratio.p75 / (self.limit * band).max(1e-9),
            Value::Median { ratio, band } => ratio.p25 / (self.limit * band).max(1e-9),
            Value::Number(value) => value / self.limit.max(1e-9),
            Value::None => 0.0,
        }
    }
}

/// The echoes with many connections; those with one have goals of their own.
const ECHO_MANY: [&str; 7] = [
    "echo-64b-c64",
    "echo-64b-c512",
    "echo-64b-c64-d16",
    "echo-16k-c64",
    "echo-16k-c512",
    "echo-64b-c64-20k",
    "echo-64b-c64-100k",
];
const ECHO_ONE: [&str; 2] = ["echo-64b-c1", "echo-16k-c1"];
const URING: [&str; 2] = [URING_OWNED, URING_LEASED];
const EPOLL: [&str; 2] = [EPOLL_OWNED, EPOLL_LEASED];

/// Whether a goal speaks of this cell.
pub(crate) fn names(cell: &str) -> bool {
    const OTHERS: [&str; 8] = [
        "batching",
        "latency-50k",
        "accept-close",
        "churn-10",
        "http-plain",
        "http-pipelined",
        "http-delay",
        "axum-both-cores",
    ];
    ECHO_MANY.contains(&cell) || ECHO_ONE.contains(&cell) || OTHERS.contains(&cell)
}

struct Judge<'a> {
    result: &'a RunResult,
}

impl Judge<'_> {
    fn echo(&self) -> Vec<Goal> {
        let mut against_tokio = self.against(&ECHO_MANY, &PELTON_ECHO, TOKIO, 1.00);
        against_tokio.extend(self.against(&ECHO_ONE, &EPOLL, TOKIO, 1.00));
        against_tokio.extend(self.against(&ECHO_ONE, &[URING_LEASED], TOKIO, 1.02));
        against_tokio.extend(self.against(&ECHO_ONE, &[URING_OWNED], RAW_SINGLE, 1.02));
        let mut large = self.against(&["echo-16k-c64", "echo-16k-c512"], &URING, RAW_URING, 1.03);
        large.extend(self.against(
            &["echo-16k-c64", "echo-16k-c512"],
            &[URING_LEASED],
            URING_OWNED,
            1.00,
        ));
        // Like with like: leases come from a pool that all connections share, as the raw loop's buffer
        // does; owned buffers are one for each connection.
        let mut epoll = Vec::new();
        for cells in [&ECHO_MANY[..], &ECHO_ONE[..]] {
            epoll.extend(self.against(cells, &[EPOLL_LEASED], RAW_EPOLL, 1.03));
            epoll.extend(self.against(cells, &[EPOLL_OWNED], RAW_EPOLL_OWNED, 1.03));
        }
        vec![
            Goal {
                number: 1,
                what: "echo 64 B saturated, vs raw io_uring",
                goal: "≤ 1.02",
                parts: self.against(&["echo-64b-c64", "echo-64b-c512"], &URING, RAW_URING, 1.02),
            },
            Goal {
                number: 2,
                what: "echo 16 KiB, vs raw io_uring; leased vs owned",
                goal: "≤ 1.03; ≤ 1.00",
                parts: large,
            },
            Goal {
                number: 3,
                what: "every echo vs tokio",
                goal: "≤ 1.00; one connection: leased ≤ 1.02, owned ≤ 1.02 of the one-shot loop",
                parts: against_tokio,
            },
            Goal {
                number: 4,
                what: "epoll vs raw epoll, every echo",
                goal: "≤ 1.03",
                parts: epoll,
            },
        ]
    }

    fn counted(&self) -> Vec<Goal> {
        let count = |server: &str, metric: &str, connections: usize, limit: f64| {
            let value = self.result.count(server, metric, connections);
            Part::number(format!("{server} {metric} c{connections}"), limit, value)
        };
        let instructions =
            PELTON_ECHO.iter().map(|server| count(server, instructions::METRIC, 64, 400.0));
        let mut calls: Vec<Part> = Vec::new();
        for server in URING {
            calls.push(count(server, syscalls::SATURATED, 64, 0.1));
            calls.push(count(server, syscalls::SATURATED, 1, 2.0));
        }
        // Where the settings ask for it: a batching wait, and the next receive beside the send. A window of
        // the count begins and ends in the middle of a request, so a little more than 1 is 1.
        calls.push(count(AHEAD, syscalls::SATURATED, 1, 1.02));
        for server in EPOLL {
            calls.push(count(server, syscalls::SATURATED, 64, 2.05));
            calls.push(count(server, syscalls::SATURATED, 1, 3.0));
        }
        let resident = |server: &str, limit| {
            let of_server =
                |c: &&crate::report::model::Count| c.server == server && c.metric == memory::METRIC;
            let value = self.result.counts.iter().find(of_server).map(|count| count.value);
            Part::number(server, limit, value)
        };
        vec![
            Goal {
                number: 5,
                what: "user instructions per echo, 64 connections",
                goal: "≤ 400",
                parts: instructions.collect(),
            },
            Goal {
                number: 6,
                what: "system calls per request, saturated / one connection",
                goal: "io_uring ≤ 0.1 / ≤ 2.0 (1.0 where settings ask for it), epoll ≤ 2.05 / ≤ 3",
                parts: calls,
            },
            Goal {
                number: 13,
                what: "resident bytes per idle connection, pooled receives",
                goal: "io_uring ≤ 600, epoll ≤ 300",
                parts: vec![resident(URING_LEASED, 600.0), resident(EPOLL_LEASED, 300.0)],
            },
        ]
    }

    fn loads(&self) -> Vec<Goal> {
        let mut batching = self.against(&["batching"], &[BATCHED], URING_LEASED, 0.50);
        let more = self
            .result
            .cell("batching")
            .and_then(|cell| cell.difference_to(BATCHED, URING_LEASED, |s| s.p50_ns as f64));
        batching.push(Part::number("p50, µs more", 40.0, more.map(|d| d.median / 1000.0)));
        vec![
            Goal {
                number: 7,
                what: "batching wait at 50 000/s: processor time of its own without, p50",
                goal: "≤ 0.50, ≤ 40 µs more",
                parts: batching,
            },
            Goal {
                number: 8,
                what: "hyper on Pelton vs on tokio, plain and pipelined",
                goal: "≤ 0.95",
                parts: self.against(
                    &["http-plain", "http-pipelined"],
                    &[HTTP_URING],
                    HTTP_TOKIO,
                    0.95,
                ),
            },
            Goal {
                number: 9,
                what: "axum on a Pelton fleet vs multi-thread tokio, both processors",
                goal: "≤ 0.70",
                parts: self.against(&["axum-both-cores"], &[AXUM_PELTON], AXUM_TOKIO, 0.70),
            },
            Goal {
                number: 14,
                what: "accepted and closed connections vs raw io_uring",
                goal: "≤ 1.05",
                parts: self.against(&["accept-close"], &URING, RAW_URING, 1.05),
            },
            Goal {
                number: 16,
                what: "50 000/s, 256 connections: p50 and p99 vs tokio",
                goal: "≤ 1.00",
                parts: self.latencies(),
            },
            Goal {
                number: 17,
                what: "a new connection every 10 requests, vs tokio",
                goal: "≤ 0.85",
                parts: self.against(&["churn-10"], &URING, TOKIO, 0.85),
            },
            Goal {
                number: 18,
                what: "8 000 sleeps of 10 ms behind HTTP, vs tokio",
                goal: "≤ 0.90",
                parts: self.against(&["http-delay"], &[HTTP_URING], HTTP_TOKIO, 0.90),
            },
        ]
    }

    fn micro(&self) -> Vec<Goal> {
        let ns = |bench: &str, limit| self.bench(bench, "ns_min", limit);
        let flat = |all: Vec<Vec<Part>>| all.into_iter().flatten().collect::<Vec<_>>();
        vec![
            Goal {
                number: 10,
                what: "ns: spawn+await / batched spawn+join / yield alone / of two",
                goal: "≤ 120 / 35 / 25 / 20",
                parts: flat(vec![
                    ns("spawn_await", 120.0),
                    ns("spawn_join_1000", 35.0),
                    ns("yield_one", 25.0),
                    ns("yield_two", 20.0),
                ]),
            },
            Goal {
                number: 11,
                what: "timers: insert+cancel with 100 000 pending; bytes each; insert+fire",
                goal: "≤ 50 ns; ≤ 100 B; no allocation",
                parts: flat(vec![
                    ns("timer_cancel_100k", 50.0),
                    self.bench("timer_bytes", "bytes", 100.0),
                    self.bench("timer_fire", "allocs_each", 0.0),
                ]),
            },
            Goal {
                number: 12,
                what: "cached 4 KiB read, depth 1 / 32, vs raw io_uring",
                goal: "≤ 0.75 / ≤ 1.03",
                parts: vec![self.file("file_read_1", 0.75), self.file("file_read_32", 1.03)],
            },
            Goal {
                number: 15,
                what: "kernel wakes: per 1 000 posts to a busy reactor / to one asleep, per sleep",
                goal: "0 / ≤ 1",
                parts: flat(vec![
                    self.bench("cross_busy", "kernel_wakes_each", 0.0),
                    self.bench("cross_asleep", "kernel_wakes_each", 1.0),
                ]),
            },
        ]
    }

    /// Processor time per request, servers against one other in each of these cells.
    fn against(&self, cells: &[&str], servers: &[&str], other: &str, limit: f64) -> Vec<Part> {
        let mut parts = Vec::new();
        for id in cells {
            let cell = self.result.cell(id);
            for server in servers {
                let name = format!("{id} {server} vs {other}");
                let ratio = cell.and_then(|cell| cell.ratio_to(server, other, Slice::cost_ns));
                let band = cell.map_or(1.0, |cell| cell.band_of(other, Slice::cost_ns));
                parts.push(Part::ratio(name, limit, ratio, band));
            }
        }
        parts
    }

    fn latencies(&self) -> Vec<Part> {
        type Reading = (&'static str, fn(&Slice) -> f64);
        const READINGS: [Reading; 2] = [("p50", |s| s.p50_ns as f64), ("p99", |s| s.p99_ns as f64)];
        let cell = self.result.cell("latency-50k");
        let mut parts = Vec::new();
        for (quantile, reading) in READINGS {
            for server in URING {
                let median = |server| {
                    let ratios = cell?.ratios_to(server, TOKIO, reading);
                    stats::median_interval(&ratios)
                };
                let band = stats::band(median(COPY));
                let value = median(server).map(|ratio| Value::Median { ratio, band });
                let name = format!("{quantile} {server}");
                parts.push(Part::new(name, 1.00, value.unwrap_or(Value::None)));
            }
        }
        parts
    }

    /// A number of Pelton's microbenchmark, one part for each backend.
    fn bench(&self, bench: &str, number: &str, limit: f64) -> Vec<Part> {
        let own: Vec<&Micro> = self.lines(bench, "pelton");
        if own.is_empty() {
            return vec![Part::number(bench, limit, None)];
        }
        own.into_iter()
            .map(|line| {
                let backend = line.backend.as_deref().map_or(String::new(), |b| format!(" {b}"));
                Part::number(format!("{bench}{backend}"), limit, line.number(number))
            })
            .collect()
    }

    /// Pelton's read through io_uring against the raw ring's.
    fn file(&self, bench: &str, limit: f64) -> Part {
        let least = |server: &str| {
            let lines = self.lines(bench, server);
            let uring = |line: &&&Micro| line.backend.as_deref() == Some("io_uring");
            lines.iter().find(uring).and_then(|line| line.ns_min)
        };
        let ratio = least("pelton").zip(least("raw")).map(|(own, raw)| own / raw);
        Part::number(bench, limit, ratio)
    }

    fn lines(&self, bench: &str, server: &str) -> Vec<&Micro> {
        self.result.micro.iter().filter(|l| l.bench == bench && l.server == server).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells;
    use crate::report::model::tests::{cell, result, slice};
    use crate::roster::COPY_EPOLL;

    /// A cell in which each server costs this much, and the copy as much as the reference.
    fn measured(
        id: &str,
        reference: &str,
        costs: &[(&str, u64)],
    ) -> crate::report::model::CellResult {
        let mut slices = Vec::new();
        for round in 1..=4 {
            for (server, cost) in costs {
                slices.push(slice(server, 0, round, *cost));
            }
            slices.push(slice(COPY, 0, round, costs[0].1));
        }
        cell(id, reference, slices)
    }

    fn goal(number: u32, result: &RunResult, limits: &str) -> Goal {
        let limits = Limits::parse(limits).expect("good limits");
        judge(result, &limits).into_iter().find(|g| g.number == number).expect("a goal")
    }

    fn first_goal(own: u64) -> RunResult {
        let costs = [(RAW_URING, 1000), (URING_OWNED, own), (URING_LEASED, 1000)];
        result(["echo-64b-c64", "echo-64b-c512"].map(|id| measured(id, RAW_URING, &costs)).into())
    }

    #[test]
    fn all_eighteen_goals_are_judged() {
        let goals = judge(&result(Vec::new()), &Limits::default());
        let numbers: Vec<u32> = goals.iter().map(|goal| goal.number).collect();
        assert_eq!(numbers, (1..=18).collect::<Vec<_>>());
        assert!(goals.iter().all(|goal| goal.verdict() == Verdict::NotMeasured));
        assert!(!all_met(&goals));
    }

    #[test]
    fn a_goal_is_met_when_every_part_is() {
        assert_eq!(goal(1, &first_goal(1020), "").verdict(), Verdict::Met);
        let missed = goal(1, &first_goal(1030), "");
        assert_eq!(missed.verdict(), Verdict::Missed);
        let worst = missed.worst().expect("parts");
        assert!(worst.name.contains(URING_OWNED), "{}", worst.name);
    }

    #[test]
    fn what_is_compared_with_epoll_is_judged_by_the_copy_of_epoll() {
        let costs = [(RAW_URING, 1000), (RAW_EPOLL, 1000), (EPOLL_LEASED, 1050)];
        let verdict = |copies: [u64; 4]| {
            let mut measured = measured("echo-64b-c1", RAW_URING, &costs);
            for (round, cost) in (1..).zip(copies) {
                measured.slices.push(slice(COPY_EPOLL, 0, round, cost));
            }
            let goal = goal(4, &result(vec![measured]), "");
            let name = format!("echo-64b-c1 {EPOLL_LEASED} vs {RAW_EPOLL}");
            goal.parts.iter().find(|part| part.name == name).expect("a part").verdict
        };
        assert_eq!(verdict([1000; 4]), Verdict::Missed);
        assert_eq!(verdict([960, 960, 1040, 1040]), Verdict::Met);
    }

    #[test]
    fn a_part_without_a_reading_is_not_measured() {
        let mut result = first_goal(1000);
        result.cells.pop();
        assert_eq!(goal(1, &result, "").verdict(), Verdict::NotMeasured);
    }

    #[test]
    fn a_proven_limit_excuses_what_was_reached_and_nothing_worse() {
        let limits = "[[limit]]\ngoal = 1\nreached = 1.04\nproof = \"docs/x.md\"";
        let limited = goal(1, &first_goal(1040), limits);
        assert_eq!(limited.verdict(), Verdict::ProvenLimit);
        assert!(limited.to_string().contains("docs/x.md"), "{limited}");
        assert_eq!(goal(1, &first_goal(1050), limits).verdict(), Verdict::Missed);
        assert_eq!(goal(1, &first_goal(1000), limits).verdict(), Verdict::Met);
    }

    #[test]
    fn micro_numbers_are_found_by_server_and_backend() {
        let mut result = result(Vec::new());
        for line in [
            r#"{"bench":"timer_bytes","server":"pelton","backend":"io_uring","bytes":96}"#,
            r#"{"bench":"timer_bytes","server":"pelton","backend":"epoll","bytes":104}"#,
            r#"{"bench":"file_read_1","server":"pelton","backend":"io_uring","ns_min":75}"#,
            r#"{"bench":"file_read_1","server":"raw","backend":"io_uring","ns_min":100}"#,
        ] {
            result.micro.push(serde_json::from_str(line).expect("a line"));
        }
        let timers = goal(11, &result, "");
        let bytes: Vec<Verdict> = timers
            .parts
            .iter()
            .filter(|part| part.name.starts_with("timer_bytes"))
            .map(|part| part.verdict)
            .collect();
        assert_eq!(bytes, [Verdict::Met, Verdict::Missed]);
        let files = goal(12, &result, "");
        assert_eq!(files.parts[0].value, Value::Number(0.75));
        assert_eq!(files.verdict(), Verdict::NotMeasured);
    }

    #[test]
    fn the_cells_that_goals_name_exist_with_their_servers() {
        let cells = cells::all();
        for goal in judge(&result(Vec::new()), &Limits::default()) {
            for part in &goal.parts {
                let words: Vec<&str> = part.name.split(' ').collect();
                let [id, server, "vs", other] = words[..] else { continue };
                assert!(names(id), "{id} is not measured for the goals");
                let cell = cells.iter().find(|cell| cell.id == id).expect(id);
                assert!(
                    cell.servers.contains(&server) && cell.servers.contains(&other),
                    "{}",
                    part.name
                );
            }
        }
    }
}
