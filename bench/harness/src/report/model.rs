//! What a run found, as it is written to `result.json`.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::machine::{Build, Machine, Tree};
use crate::measure::stats::{self, Quartiles};
use crate::roster::{self, COPY};

/// The version of this format.
pub(crate) const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunResult {
    pub(crate) format: u32,
    /// In UTC.
    pub(crate) started: String,
    pub(crate) took_s: u64,
    pub(crate) command: String,
    pub(crate) tree: Tree,
    pub(crate) machine: Machine,
    #[serde(default)]
    pub(crate) build: Build,
    pub(crate) protocol: Used,
    /// What the servers said of themselves: versions and settings.
    pub(crate) details: BTreeMap<String, String>,
    /// Servers and programs that could not be measured, and why.
    pub(crate) missing: BTreeMap<String, String>,
    pub(crate) cells: Vec<CellResult>,
    pub(crate) counts: Vec<Count>,
    pub(crate) micro: Vec<Micro>,
    /// Whole measurements that could not be made, and why.
    pub(crate) not_measured: Vec<String>,
}

/// The protocol of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) quick: bool,
    pub(crate) seed: u64,
    pub(crate) rounds: usize,
    pub(crate) sets: usize,
    /// As many at most, of what goals judge, where the controls asked for more.
    #[serde(default)]
    pub(crate) most_sets: usize,
    /// The session was put before all others.
    pub(crate) precedence: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CellResult {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) reference: String,
    pub(crate) unit: String,
    pub(crate) open_loop: bool,
    /// The copy of the reference was within the tolerance.
    pub(crate) settled: bool,
    pub(crate) attempts: usize,
    pub(crate) notes: Vec<String>,
    pub(crate) rows: Vec<Row>,
    pub(crate) slices: Vec<Slice>,
}

/// One server in one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) server: String,
    pub(crate) detail: String,
    pub(crate) failed: Option<String>,
    /// Processor time per request, divided by the reference's in the same round.
    pub(crate) ratio: Option<Quartiles>,
    pub(crate) cpu_ns_min: Option<f64>,
    pub(crate) cpu_ns_median: Option<f64>,
    pub(crate) per_second: Option<f64>,
    pub(crate) utilisation: Option<f64>,
    pub(crate) client_utilisation: Option<f64>,
    pub(crate) client_bound: bool,
    /// Over all slices.
    pub(crate) latency: Option<Latency>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
}

/// One server, driven for one reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slice {
    pub(crate) server: String,
    pub(crate) set: usize,
    pub(crate) round: usize,
    /// Its place in the order of the round's first turn.
    pub(crate) order: usize,
    pub(crate) requests: u64,
    pub(crate) wall_ns: u64,
    /// The client's time without anything to do.
    pub(crate) idle_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) softirq_ns: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
}

/// A count per request, or bytes per connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) server: String,
    pub(crate) metric: String,
    pub(crate) connections: usize,
    pub(crate) value: f64,
    pub(crate) how: String,
}

/// A line of a microbenchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Micro {
    pub(crate) bench: String,
    pub(crate) server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backend: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ns_min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ns_median: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) n: Option<u64>,
    /// What else the benchmark says, such as `bytes` or `allocs`.
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, serde_json::Value>,
}

impl Slice {
    /// Processor time per request.
    pub(crate) fn cost_ns(&self) -> f64 {
        (self.cpu_ns + self.softirq_ns) as f64 / self.requests.max(1) as f64
    }
}

impl Micro {
    /// A number by its name, wherever it stands.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        match name {
            "ns_min" => self.ns_min,
            "ns_median" => self.ns_median,
            _ => self.rest.get(name)?.as_f64(),
        }
    }
}

impl CellResult {
    pub(crate) fn row(&self, server: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.server == server)
    }

    /// The quartiles of a server's readings divided by another's in the same rounds.
    pub(crate) fn ratio_to(
        &self,
        server: &str,
        other: &str,
        reading: impl Fn(&Slice) -> f64,
    ) -> Option<Quartiles> {
        Quartiles::of(&self.ratios_to(server, other, reading))
    }

    /// A server's readings divided by another's in the same rounds.
    pub(crate) fn ratios_to(
        &self,
        server: &str,
        other: &str,
        reading: impl Fn(&Slice) -> f64,
    ) -> Vec<f64> {
        ratios(&self.slices, server, other, reading)
    }

    /// The same for differences.
    pub(crate) fn difference_to(
        &self,
        server: &str,
        other: &str,
        reading: impl Fn(&Slice) -> f64,
    ) -> Option<Quartiles> {
        let pairs = pairs(&self.slices, server, other, reading);
        Quartiles::of(&pairs.iter().map(|(own, other)| own - other).collect::<Vec<_>>())
    }

    /// How much two copies of the reference differ here, as a factor.
    pub(crate) fn band(&self, reading: impl Fn(&Slice) -> f64) -> f64 {
        stats::band(self.ratio_to(COPY, &self.reference, reading))
    }

    /// How much two copies of what others are divided by differ here, as a factor; of the reference, where there is no
    /// copy of that.
    pub(crate) fn band_of(&self, other: &str, reading: impl Fn(&Slice) -> f64) -> f64 {
        let copy = roster::copy_for(other).and_then(|(copy, of)| self.ratio_to(copy, of, &reading));
        if copy.is_some() { stats::band(copy) } else { self.band(reading) }
    }
}

/// A server's readings divided by another's in the same rounds.
pub(crate) fn ratios(
    slices: &[Slice],
    server: &str,
    other: &str,
    reading: impl Fn(&Slice) -> f64,
) -> Vec<f64> {
    pairs(slices, server, other, reading).iter().map(|(own, other)| own / other).collect()
}

fn pairs(
    slices: &[Slice],
    server: &str,
    other: &str,
    reading: impl Fn(&Slice) -> f64,
) -> Vec<(f64, f64)> {
    let of = |name: &str| -> HashMap<(usize, usize), f64> {
        let own = slices.iter().filter(|s| s.server == name && s.requests > 0);
        own.map(|s| ((s.set, s.round), reading(s))).collect()
    };
    let others = of(other);
    let mut pairs: Vec<_> = of(server)
        .into_iter()
        .filter_map(|(at, own)| others.get(&at).map(|other| (at, own, *other)))
        .collect();
    pairs.sort_by_key(|(at, ..)| *at);
    pairs.into_iter().map(|(_, own, other)| (own, other)).collect()
}

impl RunResult {
    pub(crate) fn cell(&self, id: &str) -> Option<&CellResult> {
        self.cells.iter().find(|cell| cell.id == id)
    }

    pub(crate) fn count(&self, server: &str, metric: &str, connections: usize) -> Option<f64> {
        let own =
            |c: &&Count| c.server == server && c.metric == metric && c.connections == connections;
        self.counts.iter().find(own).map(|count| count.value)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn slice(server: &str, set: usize, round: usize, cost: u64) -> Slice {
        Slice {
            server: server.into(),
            set,
            round,
            order: 0,
            requests: 10,
            wall_ns: 1000,
            idle_ns: 100,
            cpu_ns: cost * 10,
            softirq_ns: 0,
            p50_ns: cost,
            p99_ns: 2 * cost,
        }
    }

    pub(crate) fn cell(id: &str, reference: &str, slices: Vec<Slice>) -> CellResult {
        CellResult {
            id: id.into(),
            title: id.into(),
            reference: reference.into(),
            unit: "request".into(),
            open_loop: false,
            settled: true,
            attempts: 1,
            notes: Vec::new(),
            rows: Vec::new(),
            slices,
        }
    }

    pub(crate) fn result(cells: Vec<CellResult>) -> RunResult {
        RunResult {
            format: FORMAT,
            started: "2030-01-02 03:04:05".into(),
            took_s: 1,
            command: "run".into(),
            tree: Tree { commit: "abc".into(), dirty: false },
            machine: Machine {
                kernel: "6.1".into(),
                cpu: "a processor".into(),
                cpus: 2,
                memory_mib: 1024,
                virtualised: true,
                congestion_control: "cubic".into(),
                pressure: Some(0.5),
            },
            build: Build::default(),
            protocol: Used {
                quick: true,
                seed: 7,
                rounds: 1,
                sets: 1,
                most_sets: 1,
                precedence: false,
            },
            details: BTreeMap::new(),
            missing: BTreeMap::new(),
            cells,
            counts: Vec::new(),
            micro: Vec::new(),
            not_measured: Vec::new(),
        }
    }

    #[test]
    fn ratios_pair_the_slices_of_a_round() {
        let slices = vec![
            slice("a", 0, 1, 100),
            slice("b", 0, 1, 110),
            slice("b", 0, 2, 300),
            slice("a", 0, 2, 200),
            slice("a", 1, 1, 100),
            // No partner in its round.
            slice("b", 1, 2, 9999),
        ];
        let cell = cell("x", "a", slices);
        let ratio = cell.ratio_to("b", "a", Slice::cost_ns).expect("two pairs");
        assert_eq!(ratio.median, 1.3);
        let difference = cell.difference_to("b", "a", |s| s.p50_ns as f64).expect("two pairs");
        assert_eq!(difference.median, 55.0);
        assert!(cell.ratio_to("c", "a", Slice::cost_ns).is_none());
    }

    #[test]
    fn a_result_survives_json() {
        let mut result = result(vec![cell("x", "a", vec![slice("a", 0, 1, 5)])]);
        result.counts.push(Count {
            server: "a".into(),
            metric: "instructions".into(),
            connections: 64,
            value: 81.5,
            how: "callgrind".into(),
        });
        let line = r#"{"bench":"timer","server":"pelton","backend":"epoll","ns_min":1.5,"ns_median":2,"n":3,"bytes":96}"#;
        result.micro.push(serde_json::from_str(line).expect("a line of a microbenchmark"));
        assert_eq!(result.micro[0].number("bytes"), Some(96.0));
        let text = serde_json::to_string(&result).expect("plain data");
        let back: RunResult = serde_json::from_str(&text).expect("what was written");
        assert_eq!(back, result);
    }
}
