//! The gate against regressions: counts per request that come out the same each time, compared
//! with a committed baseline.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Result};
use crate::measure::{CONNECTIONS, Programs, allocations, instructions, syscalls};
use crate::report::files;
use crate::report::table::number;
use crate::roster::{self, HTTP_EPOLL, HTTP_URING, PELTON_ECHO};

/// How far a count may move, either way: a count that fell is a new baseline.
const TOLERANCE: f64 = 0.05;

/// The committed counts: for each server, for each metric.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// How to write this file again.
    pub(crate) update: String,
    pub(crate) counts: BTreeMap<String, BTreeMap<String, f64>>,
}

pub(crate) const UPDATE: &str = "cargo xtask gate --update";

/// What became of a comparison.
pub(crate) struct Outcome {
    pub(crate) lines: Vec<String>,
    pub(crate) failures: usize,
}

/// What the gate cannot do here, and the cure.
pub(crate) fn lacks(programs: &Programs) -> Option<String> {
    if !instructions::available() {
        return Some(instructions::NEEDS.to_string());
    }
    if let Err(error) = syscalls::Counter::find() {
        return Some(error.to_string());
    }
    (!programs.counting.is_dir()).then(|| {
        format!(
            "no directory {}: build the servers with the feature `count-allocs` there, or name theirs with \
             --counting-dir",
            programs.counting.display()
        )
    })
}

/// Counts everything that the gate guards.
pub(crate) fn measure(programs: &Programs) -> Result<Baseline> {
    let counter = syscalls::Counter::find()?;
    let mut counts = BTreeMap::new();
    for name in PELTON_ECHO.into_iter().chain([HTTP_URING, HTTP_EPOLL]) {
        eprintln!("counting: {name}");
        let spec = roster::spec(name).expect("a constant of the roster");
        let mut own = BTreeMap::new();
        let instructions = instructions::measure(&spec, programs, CONNECTIONS, 200)?;
        let [allocations, bytes] = allocations::measure(&spec, programs, 200)?;
        let many = syscalls::lock_step(&spec, programs, counter, CONNECTIONS, 200)?;
        let one = syscalls::lock_step(&spec, programs, counter, 1, 2000)?;
        for count in [instructions, allocations, bytes, many, one] {
            let key = match count.metric.as_str() {
                syscalls::LOCK_STEP => format!("syscalls-c{}", count.connections),
                metric => metric.to_owned(),
            };
            own.insert(key, round(count.value));
        }
        counts.insert(name.to_owned(), own);
    }
    Ok(Baseline { update: UPDATE.to_owned(), counts })
}

impl Baseline {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(Error::Usage(format!(
                "there is no baseline {}: write one with `{UPDATE}`",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(path).during(format!("reading {}", path.display()))?;
        serde_json::from_str(&text).map_err(|e| {
            Error::Usage(format!(
                "{} is not understood ({e}): write it again with `{UPDATE}`",
                path.display()
            ))
        })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::System { what: "writing the baseline".into(), source: e.into() })?;
        files::save(path, &(text + "\n"))
    }

    /// Takes from another measurement what is nearer to a baseline there.
    pub(crate) fn keep_nearer(&mut self, to: &Baseline, other: &Baseline) {
        for (server, counts) in &mut self.counts {
            for (metric, value) in counts {
                let of =
                    |all: &Baseline| all.counts.get(server).and_then(|c| c.get(metric)).copied();
                if let (Some(to), Some(other)) = (of(to), of(other))
                    && (other - to).abs() < (*value - to).abs()
                {
                    *value = other;
                }
            }
        }
    }

    /// Compares what was measured with this baseline.
    pub(crate) fn compare(&self, now: &Baseline) -> Outcome {
        let mut outcome = Outcome { lines: Vec::new(), failures: 0 };
        let fail = |outcome: &mut Outcome, line: String| {
            outcome.failures += 1;
            outcome.lines.push(line);
        };
        for (server, counts) in &now.counts {
            for (metric, value) in counts {
                let Some(before) = self.counts.get(server).and_then(|c| c.get(metric)) else {
                    fail(
                        &mut outcome,
                        format!("{server} {metric}: {} has no baseline", number(*value)),
                    );
                    continue;
                };
                let change = if *before == 0.0 { 0.0 } else { (value / before - 1.0) * 100.0 };
                let line = format!(
                    "{server} {metric}: {} → {} ({change:+.1} %)",
                    number(*before),
                    number(*value)
                );
                if within(*before, *value, metric) {
                    outcome.lines.push(format!("{line} ok"));
                } else {
                    let word =
                        if value > before { "WORSE" } else { "better: keep it in the baseline" };
                    fail(&mut outcome, format!("{line} {word}"));
                }
            }
        }
        for (server, counts) in &self.counts {
            for metric in counts.keys() {
                if now.counts.get(server).and_then(|c| c.get(metric)).is_none() {
                    fail(
                        &mut outcome,
                        format!("{server} {metric}: in the baseline, but not measured"),
                    );
                }
            }
        }
        outcome
    }
}

fn within(before: f64, now: f64, metric: &str) -> bool {
    // Some counts are close to zero, where five per cent is less than one call in a whole run.
    let slack = match metric {
        instructions::METRIC => 2.0,
        allocations::BYTES => 1.0,
        allocations::METRIC => 0.002,
        // Half a call in each turn of 64 connections.
        _ => 0.008,
    };
    (now - before).abs() <= (before * TOLERANCE).max(slack)
}

/// Digits that mean something, so that a baseline's diff is quiet.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(counts: &[(&str, f64)]) -> Baseline {
        let own = counts.iter().map(|(metric, value)| ((*metric).to_owned(), *value)).collect();
        Baseline { update: UPDATE.into(), counts: BTreeMap::from([("s".to_owned(), own)]) }
    }

    #[test]
    fn of_two_measurements_the_nearer_counts() {
        let before = baseline(&[("instructions", 400.0), ("allocations", 2.0)]);
        let mut now = baseline(&[("instructions", 500.0), ("allocations", 2.0)]);
        now.keep_nearer(&before, &baseline(&[("instructions", 401.0), ("allocations", 3.0)]));
        assert_eq!(now, baseline(&[("instructions", 401.0), ("allocations", 2.0)]));
    }

    #[test]
    fn five_per_cent_either_way_fails() {
        let before = baseline(&[("instructions", 400.0)]);
        for (now, failures) in [(400.0, 0), (420.0, 0), (380.0, 0), (421.0, 1), (379.0, 1)] {
            let outcome = before.compare(&baseline(&[("instructions", now)]));
            assert_eq!(outcome.failures, failures, "{now}: {:?}", outcome.lines);
        }
    }

    #[test]
    fn nothing_stays_nothing() {
        let before = baseline(&[("allocations", 0.0), ("syscalls-c64", 0.0156)]);
        let same = baseline(&[("allocations", 0.001), ("syscalls-c64", 0.02)]);
        assert_eq!(before.compare(&same).failures, 0);
        let one = baseline(&[("allocations", 1.0), ("syscalls-c64", 0.0312)]);
        assert_eq!(before.compare(&one).failures, 2);
    }

    #[test]
    fn a_metric_on_one_side_only_fails() {
        let (with, without) = (baseline(&[("instructions", 1.0)]), baseline(&[]));
        assert_eq!(with.compare(&without).failures, 1);
        assert_eq!(without.compare(&with).failures, 1);
    }

    #[test]
    fn a_baseline_survives_its_file() {
        let path =
            std::env::temp_dir().join(format!("pelton-bench-baseline-{}", std::process::id()));
        let written = baseline(&[("instructions", 400.25)]);
        written.write(&path).expect("a file");
        assert_eq!(Baseline::read(&path).expect("what was written"), written);
        std::fs::remove_file(&path).expect("its end");
        assert!(Baseline::read(&path).expect_err("gone").to_string().contains(UPDATE));
    }
}
