//! Results as Markdown.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::model::{CellResult, Micro, Row, RunResult};
use super::modes;
use crate::measure::stats::Quartiles;
use crate::roster::COPY;

/// The whole result, cell by cell.
pub(crate) fn full(result: &RunResult) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "## Benchmark of {}\n", result.started);
    out.push_str(&provenance(result));
    for cell in &result.cells {
        let _ = writeln!(out, "\n### {}\n", cell.title);
        out.push_str(&one_cell(cell));
    }
    out.push_str(&counts(result));
    if let Some(table) = modes::table(result) {
        let _ = writeln!(out, "\n### What each step costs\n\n{table}");
    }
    out.push_str(&micro(&result.micro));
    out.push_str(&versions(result));
    out.push_str(&missing(result));
    out
}

/// One table of all ratios, for the page that people read.
pub(crate) fn summary(result: &RunResult) -> String {
    let mut out = ratios_and_counts(result);
    out.push_str(&micro_matrix(&result.micro));
    out.push_str(&versions(result));
    out.push_str(&missing(result));
    out
}

/// The part of the summary that is about requests.
pub(crate) fn ratios_and_counts(result: &RunResult) -> String {
    let mut out = provenance(result);
    for reference in references(result) {
        let cells: Vec<&CellResult> =
            result.cells.iter().filter(|cell| cell.reference == reference).collect();
        let _ = writeln!(out, "\nProcessor time per request, divided by that of {reference}:\n");
        out.push_str(&matrix(&cells));
    }
    out.push_str(&counts(result));
    out
}

/// When, where and how a result was measured.
pub(crate) fn provenance(result: &RunResult) -> String {
    let machine = &result.machine;
    let pressure =
        machine.pressure.map_or(String::new(), |p| format!("; pressure at the start {p} %"));
    format!(
        "{} UTC, commit {}, {} s. {}{}, {} processors, {} MiB, Linux {}, {}{pressure}. {}{}. {} rounds \
         in {}{} sets of processes, seed {}{}{}.\n",
        result.started,
        result.tree.label(),
        result.took_s,
        machine.cpu,
        if machine.virtualised { " (virtual)" } else { "" },
        machine.cpus,
        machine.memory_mib,
        machine.kernel,
        machine.congestion_control,
        if result.build.rustc.is_empty() { "rustc unknown" } else { &result.build.rustc },
        if result.build.rustflags.is_empty() {
            String::new()
        } else {
            format!(", RUSTFLAGS {}", result.build.rustflags)
        },
        result.protocol.rounds,
        result.protocol.sets,
        if result.protocol.most_sets > result.protocol.sets {
            format!(" to {}", result.protocol.most_sets)
        } else {
            String::new()
        },
        result.protocol.seed,
        if result.protocol.precedence { ", before other sessions" } else { "" },
        if result.protocol.quick { ". **A quick run: coarse**" } else { "" },
    )
}

fn one_cell(cell: &CellResult) -> String {
    let mut out = format!(
        "| server | ratio to {} | ns per {} (least) | per second | p50 / p99 / p99.9 µs | busy: server, client |\n\
         |---|---|---:|---:|---:|---:|\n",
        cell.reference, cell.unit
    );
    for row in &cell.rows {
        let _ = writeln!(out, "{}", line(row));
    }
    if cell.attempts > 1 && cell.settled {
        let _ = writeln!(out, "\nThe control was good at attempt {}.", cell.attempts);
    }
    for note in &cell.notes {
        let _ = writeln!(out, "\nNote: {note}.");
    }
    out
}

fn line(row: &Row) -> String {
    if row.ratio.is_none()
        && let Some(why) = &row.failed
    {
        return format!("| {} | not measured: {} | | | | |", row.server, cell_text(why));
    }
    let latency = row.latency.map_or(String::new(), |l| {
        let us = |ns: u64| number(ns as f64 / 1000.0);
        format!("{} / {} / {}", us(l.p50_ns), us(l.p99_ns), us(l.p999_ns))
    });
    let share = |share: Option<f64>| share.map_or("?".into(), |s| format!("{:.0} %", s * 100.0));
    let failed =
        row.failed.as_deref().map_or(String::new(), |w| format!(" (failed: {})", cell_text(w)));
    format!(
        "| {}{failed} | {} | {} | {} | {latency} | {}, {}{} |",
        row.server,
        row.ratio.map_or("?".into(), interval),
        row.cpu_ns_min.map_or("?".into(), number),
        row.per_second.map_or("?".into(), number),
        share(row.utilisation),
        share(row.client_utilisation),
        if row.client_bound { " *client-bound*" } else { "" },
    )
}

fn matrix(cells: &[&CellResult]) -> String {
    let mut servers: Vec<&str> = Vec::new();
    for row in cells.iter().flat_map(|cell| &cell.rows) {
        if !servers.contains(&row.server.as_str()) {
            servers.push(&row.server);
        }
    }
    let mut out = String::from("| server |");
    for cell in cells {
        let mark = if cell.settled { "" } else { " (unsettled)" };
        let _ = write!(out, " {}{mark} |", cell.id);
    }
    let _ = writeln!(out, "\n|---|{}", "---|".repeat(cells.len()));
    for server in servers {
        let _ = write!(out, "| {} |", if server == COPY { "*a/a control*" } else { server });
        for cell in cells {
            let ratio = cell.row(server).and_then(|row| row.ratio);
            let _ = write!(out, " {} |", ratio.map_or(String::new(), interval));
        }
        out.push('\n');
    }
    out
}

fn counts(result: &RunResult) -> String {
    if result.counts.is_empty() {
        return String::new();
    }
    let mut columns: Vec<(&str, usize)> = Vec::new();
    let mut servers: Vec<&str> = Vec::new();
    for count in result.counts.iter().filter(|count| !modes::is_extra(count)) {
        let column = (count.metric.as_str(), count.connections);
        if !columns.contains(&column) {
            columns.push(column);
        }
        if !servers.contains(&count.server.as_str()) {
            servers.push(&count.server);
        }
    }
    let mut out = String::from("\n### Counts\n\n| server |");
    for (metric, connections) in &columns {
        let _ = write!(out, " {}, {connections} conn. |", metric.replace('-', " "));
    }
    let _ = writeln!(out, "\n|---|{}", "---:|".repeat(columns.len()));
    for server in servers {
        let _ = write!(out, "| {server} |");
        for (metric, connections) in &columns {
            let value = result.count(server, metric, *connections);
            let _ = write!(out, " {} |", value.map_or(String::new(), number));
        }
        out.push('\n');
    }
    out
}

fn micro(lines: &[Micro]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let benches: BTreeSet<&str> = lines.iter().map(|line| line.bench.as_str()).collect();
    let mut out = String::from(
        "\n### Microbenchmarks\n\n| what | server | ns, least | ns, median | else |\n|---|---|---:|---:|---|\n",
    );
    for bench in benches {
        for line in lines.iter().filter(|line| line.bench == bench) {
            let backend = line.backend.as_deref().map_or(String::new(), |b| format!(" ({b})"));
            let rest: Vec<String> = line.rest.iter().map(|(k, v)| format!("{k} {v}")).collect();
            let _ = writeln!(
                out,
                "| {bench} | {}{backend} | {} | {} | {} |",
                line.server,
                line.ns_min.map_or(String::new(), number),
                line.ns_median.map_or(String::new(), number),
                rest.join(", ")
            );
        }
    }
    out
}

/// The least time of every microbenchmark, one column for each runtime.
fn micro_matrix(lines: &[Micro]) -> String {
    let name = |line: &Micro| match &line.backend {
        Some(backend) => format!("{} ({backend})", line.server),
        None => line.server.clone(),
    };
    let value = |line: &Micro| {
        let bytes = || line.number("bytes").map(|bytes| format!("{} B", number(bytes)));
        let wakes =
            || line.number("kernel_wakes_each").map(|wakes| format!("{} wakes", number(wakes)));
        line.ns_min.map(number).or_else(bytes).or_else(wakes)
    };
    let (mut servers, mut benches): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    for line in lines.iter().filter(|line| value(line).is_some()) {
        if !servers.contains(&name(line)) {
            servers.push(name(line));
        }
        if !benches.contains(&line.bench.as_str()) {
            benches.push(&line.bench);
        }
    }
    if benches.is_empty() {
        return String::new();
    }
    let mut out =
        String::from("\n### Microbenchmarks\n\nThe least time of one, in ns.\n\n| what |");
    for server in &servers {
        let _ = write!(out, " {server} |");
    }
    let _ = writeln!(out, "\n|---|{}", "---:|".repeat(servers.len()));
    for bench in benches {
        let _ = write!(out, "| {bench} |");
        for server in &servers {
            let line = lines.iter().find(|line| line.bench == bench && name(line) == *server);
            let _ = write!(out, " {} |", line.and_then(value).unwrap_or_default());
        }
        out.push('\n');
    }
    out
}

fn versions(result: &RunResult) -> String {
    let mut out =
        String::from("\n### Versions\n\n| server | what it says of itself |\n|---|---|\n");
    for (server, detail) in &result.details {
        let _ = writeln!(out, "| {server} | {} |", cell_text(detail));
    }
    out
}

fn missing(result: &RunResult) -> String {
    let mut out = String::new();
    if !result.missing.is_empty() || !result.not_measured.is_empty() {
        out.push_str("\n### Not measured\n\n");
    }
    for (server, why) in &result.missing {
        let _ = writeln!(out, "- {server}: {why}");
    }
    for what in &result.not_measured {
        let _ = writeln!(out, "- {what}");
    }
    out
}

fn references(result: &RunResult) -> Vec<&str> {
    let mut references: Vec<&str> = Vec::new();
    for cell in &result.cells {
        if !references.contains(&cell.reference.as_str()) {
            references.push(&cell.reference);
        }
    }
    references
}

pub(crate) fn interval(q: Quartiles) -> String {
    format!("{:.3} [{:.3}–{:.3}]", q.median, q.p25, q.p75)
}

/// Three digits or so, without an exponent.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => {
            let digits = format!("{value:.0}");
            let (sign, digits) =
                digits.strip_prefix('-').map_or(("", digits.as_str()), |d| ("-", d));
            let mut out = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    out.push('\u{a0}');
                }
                out.push(digit);
            }
            format!("{sign}{out}")
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}

fn cell_text(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::tests::{cell, result, slice};

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(1_234_567.0), "1\u{a0}234\u{a0}567");
        assert_eq!(number(-12_345.0), "-12\u{a0}345");
        assert_eq!(number(215.4), "215");
        assert_eq!(number(2.034), "2.03");
        assert_eq!(number(0.0314), "0.031");
    }

    #[test]
    fn every_row_of_a_table_has_as_many_columns() {
        let mut one = cell("x", "a", vec![slice("a", 0, 1, 5)]);
        one.rows = ["a", "b"]
            .map(|server| Row {
                server: server.into(),
                detail: String::new(),
                failed: (server == "b").then(|| "no | program".into()),
                ratio: (server == "a").then_some(Quartiles { p25: 1.0, median: 1.0, p75: 1.0 }),
                cpu_ns_min: None,
                cpu_ns_median: None,
                per_second: None,
                utilisation: None,
                client_utilisation: None,
                client_bound: false,
                latency: None,
            })
            .into();
        let mut all = result(vec![one]);
        all.micro.push(
            serde_json::from_str(r#"{"bench":"b","server":"s","ns_min":2}"#).expect("a line"),
        );
        for text in [full(&all), summary(&all)] {
            let mut columns = None;
            for line in text.lines() {
                if !line.starts_with('|') {
                    columns = None;
                    continue;
                }
                let here = line.replace("\\|", "").matches('|').count();
                assert_eq!(*columns.get_or_insert(here), here, "{line}");
            }
        }
    }
}
