//! Where Pelton loses: every comparison in which another needs less, by more than the control can tell.

use std::fmt::Write as _;

use super::model::{CellResult, Micro, RunResult, Slice};
use super::table::{interval, number};
use crate::measure::stats::Quartiles;
use crate::roster::{self, COPY};

/// How much less a microbenchmark of another must take to be told of: minima are not that repeatable.
const MARGIN: f64 = 1.05;

/// The lists, as Markdown.
pub(crate) fn text(result: &RunResult) -> String {
    let mut out = String::from(
        "Processor time per request, Pelton's divided by the other's, wherever the whole middle half of the \
         ratios is above what two copies of one server differ by. The cheapest other server of each kind:\n\n",
    );
    let rows: Vec<Loss> = result.cells.iter().flat_map(of_cell).collect();
    if rows.is_empty() {
        out.push_str("None in this run.\n");
    } else {
        out.push_str(
            "| load | Pelton | cheaper: a raw loop | cheaper: a runtime |\n|---|---|---|---|\n",
        );
    }
    for loss in rows {
        let told = |loss: Option<(String, Quartiles)>| {
            loss.map_or(String::new(), |(name, ratio)| format!("{name} {}", interval(ratio)))
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            loss.cell,
            loss.own,
            told(loss.to_raw),
            told(loss.to_runtime)
        );
    }
    out.push_str(&of_micro(&result.micro));
    out
}

/// One of Pelton's servers in one cell, and the cheapest of those that are cheaper.
struct Loss {
    cell: String,
    own: String,
    to_raw: Option<(String, Quartiles)>,
    to_runtime: Option<(String, Quartiles)>,
}

fn of_cell(cell: &CellResult) -> Vec<Loss> {
    let band = cell.band(Slice::cost_ns);
    let names = || cell.rows.iter().map(|row| row.server.as_str()).filter(|name| *name != COPY);
    let worst = |own: &str, raw: bool| {
        names()
            .filter(|other| !roster::is_pelton(other) && !roster::is_variant(other))
            .filter(|other| roster::is_raw(other) == raw)
            .filter_map(|other| {
                Some((other.to_owned(), cell.ratio_to(own, other, Slice::cost_ns)?))
            })
            .filter(|(_, ratio)| ratio.p25 > band)
            .max_by(|a, b| a.1.median.total_cmp(&b.1.median))
    };
    names()
        .filter(|own| roster::is_pelton(own) && !roster::is_variant(own))
        .map(|own| Loss {
            cell: cell.id.clone(),
            own: own.to_owned(),
            to_raw: worst(own, true),
            to_runtime: worst(own, false),
        })
        .filter(|loss| loss.to_raw.is_some() || loss.to_runtime.is_some())
        .collect()
}

fn of_micro(lines: &[Micro]) -> String {
    let mut out = String::new();
    for own in lines.iter().filter(|line| line.server == "pelton") {
        let Some(time) = own.ns_min else { continue };
        let others =
            lines.iter().filter(|other| other.bench == own.bench && other.server != "pelton");
        let best = others
            .filter_map(|other| Some((other, other.ns_min?)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, least)| time > least * MARGIN);
        if let Some((other, least)) = best {
            if out.is_empty() {
                out.push_str(
                    "\nMicrobenchmarks in which another's least time is lower:\n\n\
                     | what | Pelton, ns | the least, ns | whose |\n|---|---:|---:|---|\n",
                );
            }
            let backend = |line: &Micro| line.backend.clone().unwrap_or_default();
            let _ = writeln!(
                out,
                "| {} ({}) | {} | {} | {} {} |",
                own.bench,
                backend(own),
                number(time),
                number(least),
                other.server,
                backend(other)
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Row;
    use crate::report::model::tests::{cell, result, slice};
    use crate::roster::{BATCHED, RAW_URING, TOKIO, URING_LEASED, URING_OWNED};

    fn row(server: &str) -> Row {
        Row {
            server: server.into(),
            detail: String::new(),
            failed: None,
            ratio: None,
            cpu_ns_min: None,
            cpu_ns_median: None,
            per_second: None,
            utilisation: None,
            client_utilisation: None,
            client_bound: false,
            latency: None,
        }
    }

    fn one_cell(costs: &[(&str, u64)]) -> CellResult {
        let mut slices = Vec::new();
        for round in 1..=4 {
            slices.extend(costs.iter().map(|(server, cost)| slice(server, 0, round, *cost)));
        }
        let mut cell = cell("echo-64b-c1", RAW_URING, slices);
        cell.rows = costs.iter().map(|(server, _)| row(server)).collect();
        cell
    }

    #[test]
    fn what_is_cheaper_by_more_than_the_control_is_told_with_the_cheapest() {
        let costs = [
            (RAW_URING, 1000),
            (COPY, 1010),
            (URING_OWNED, 1100),
            (URING_LEASED, 1005),
            (BATCHED, 5000),
            (TOKIO, 1000),
            ("smol", 1050),
        ];
        let losses = of_cell(&one_cell(&costs));
        assert_eq!(losses.len(), 1, "leased is within the control, and a variant is no loss");
        assert_eq!(losses[0].own, URING_OWNED);
        assert_eq!(losses[0].to_raw.as_ref().map(|(name, _)| name.as_str()), Some(RAW_URING));
        assert_eq!(losses[0].to_runtime.as_ref().map(|(name, _)| name.as_str()), Some(TOKIO));
        let text = text(&result(vec![one_cell(&costs)]));
        assert!(text.contains("tokio 1.100"), "{text}");
    }

    #[test]
    fn no_loss_is_said_too() {
        let all = result(vec![one_cell(&[(RAW_URING, 1000), (COPY, 1000), (URING_OWNED, 900)])]);
        assert!(text(&all).contains("None in this run"));
    }

    #[test]
    fn a_microbenchmark_that_another_does_faster_is_told() {
        let line = |server: &str, ns: f64| {
            let text =
                format!(r#"{{"bench":"b","server":"{server}","backend":"x","ns_min":{ns}}}"#);
            serde_json::from_str::<Micro>(&text).expect("a line")
        };
        assert!(of_micro(&[line("pelton", 10.0), line("tokio", 9.9)]).is_empty());
        let told = of_micro(&[line("pelton", 10.0), line("tokio", 9.0), line("smol", 5.0)]);
        assert!(told.contains("| b (x) | 10.0 | 5.00 | smol x |"), "{told}");
    }
}
