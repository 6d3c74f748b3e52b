//! The decomposition: one echo, four places for its continuation to run, and what each step costs.

use std::fmt::Write as _;

use super::model::{Count, RunResult};
use super::table::{interval, number, provenance};
use crate::cells::{MODES_MANY, MODES_ONE};
use crate::measure::{CONNECTIONS, allocations, instructions, syscalls};
use crate::roster::{COALESCED, MODES, OFFLOADED, QUEUED};

/// Whether a cell belongs to the decomposition.
pub(crate) fn is_mode(cell: &str) -> bool {
    [MODES_ONE, MODES_MANY].contains(&cell)
}

/// The decomposition alone, if it was measured.
pub(crate) fn of(result: &RunResult) -> Option<RunResult> {
    let mut own = result.clone();
    own.cells.retain(|cell| is_mode(&cell.id));
    own.counts.retain(|count| MODES.contains(&count.server.as_str()));
    own.details.retain(|server, _| MODES.contains(&server.as_str()));
    own.missing.retain(|server, _| MODES.contains(&server.as_str()));
    own.micro.clear();
    own.not_measured.clear();
    (!own.cells.is_empty()).then_some(own)
}

/// Whether a result is of nothing but the decomposition.
pub(crate) fn alone(result: &RunResult) -> bool {
    !result.cells.is_empty()
        && result.micro.is_empty()
        && result.cells.iter().all(|cell| is_mode(&cell.id))
}

/// Whether a count is there for the decomposition alone, and would only fill the tables of the others.
pub(crate) fn is_extra(count: &Count) -> bool {
    MODES[1..].contains(&count.server.as_str())
        || (count.metric == instructions::METRIC && count.connections == 1)
}

/// What each step costs and why, as a table; nothing if it was not measured.
pub(crate) fn table(result: &RunResult) -> Option<String> {
    let own = of(result)?;
    let mut out = provenance(&own);
    out.push_str(
        "\n| the continuation runs | time, 1 conn. | time, 64 conn. | calls, 1 / 64 | user instructions, \
         1 / 64 | allocations, 64 | what the step pays for |\n|---|---|---|---:|---:|---:|---|\n",
    );
    for server in MODES {
        let (place, why) = tells(server);
        let ratio = |id: &str| {
            let row = own.cell(id).and_then(|cell| cell.row(server));
            row.and_then(|row| row.ratio).map_or("not measured".to_owned(), interval)
        };
        let count = |metric: &str, connections: usize| {
            own.count(server, metric, connections).map_or("–".to_owned(), number)
        };
        let both = |metric: &str| format!("{} / {}", count(metric, 1), count(metric, CONNECTIONS));
        let _ = writeln!(
            out,
            "| {place} | {} | {} | {} | {} | {} | {why} |",
            ratio(MODES_ONE),
            ratio(MODES_MANY),
            both(syscalls::SATURATED),
            both(instructions::METRIC),
            count(allocations::METRIC, CONNECTIONS),
        );
    }
    for cell in own.cells.iter().filter(|cell| !cell.settled) {
        let _ = writeln!(out, "\n{} did not settle: {}.", cell.id, cell.notes.join("; "));
    }
    Some(out)
}

/// Where the continuation runs, and what that has to pay for that the row before it has not.
fn tells(server: &str) -> (&'static str, &'static str) {
    match server {
        QUEUED => (
            "(b) queued on the reactor",
            "into the queue and out again; no call, no lock, no other thread",
        ),
        OFFLOADED => (
            "(c) on a pool of threads, each by itself",
            "for each request: a closure and a cell for its answer on the heap, the pool's lock, a wake of a \
             thread of the pool through a futex, a switch there and back, and a wake home",
        ),
        COALESCED => (
            "(d) on one thread, a tick's together",
            "for each tick: one lock, one wake there, one posted closure and at most one wake home, divided by \
             the requests of the tick; with one connection a tick has one, and nothing is divided",
        ),
        _ => (
            "(a) inline in the tick",
            "nothing: the completion polls its task there and then, and what that submits leaves with the same \
             entry into the kernel",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::stats::Quartiles;
    use crate::report::model::Row;
    use crate::report::model::tests::{cell, result, slice};

    fn measured() -> RunResult {
        let mut one = cell(MODES_MANY, MODES[0], vec![slice(MODES[0], 0, 1, 5)]);
        one.rows = MODES
            .map(|server| Row {
                server: server.into(),
                detail: String::new(),
                failed: None,
                ratio: Some(Quartiles { p25: 1.0, median: 1.25, p75: 1.5 }),
                cpu_ns_min: None,
                cpu_ns_median: None,
                per_second: None,
                utilisation: None,
                client_utilisation: None,
                client_bound: false,
                latency: None,
            })
            .into();
        let mut all = result(vec![one, cell("echo-64b-c1", "raw-uring", Vec::new())]);
        all.counts.push(Count {
            server: COALESCED.into(),
            metric: syscalls::SATURATED.into(),
            connections: CONNECTIONS,
            value: 0.125,
            how: "tracepoint".into(),
        });
        all
    }

    #[test]
    fn every_mode_has_a_row_with_what_was_measured_and_what_was_not() {
        let text = table(&measured()).expect("a decomposition");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| (")).collect();
        assert_eq!(rows.len(), 4, "{text}");
        for (row, mark) in rows.iter().zip(["(a)", "(b)", "(c)", "(d)"]) {
            assert!(row.contains(mark) && row.contains("1.250 [1.000–1.500]"), "{row}");
            assert!(row.contains("not measured"), "one connection was not: {row}");
            assert_eq!(row.matches('|').count(), 8, "{row}");
        }
        assert!(rows[3].contains("– / 0.125"), "{}", rows[3]);
    }

    #[test]
    fn a_result_without_the_decomposition_has_no_table() {
        assert_eq!(table(&result(vec![cell("echo-64b-c1", "raw-uring", Vec::new())])), None);
        assert!(!alone(&measured()) && !alone(&result(Vec::new())));
        let own = of(&measured()).expect("a decomposition");
        assert!(alone(&own) && own.cells.len() == 1);
        assert!(own.counts.iter().all(is_extra));
    }
}
