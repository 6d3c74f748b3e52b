//! User instructions per request: the slope between two counts of requests under callgrind, so
//! that starting and accepting cancel out.

use super::Programs;
use super::lock_step::LockStep;
use crate::error::{During, Error, Result};
use crate::report::model::Count;
use crate::roster::Spec;
use crate::server::Start;

/// The metric's name in results.
pub(crate) const METRIC: &str = "instructions";

pub(crate) const NEEDS: Error = Error::Missing {
    tool: "valgrind",
    cure: "instructions per request are counted under it; install the package `valgrind`",
};

pub(crate) fn available() -> bool {
    on_path("valgrind")
}

/// Counts with `turns` and with twice as many again.
pub(crate) fn measure(
    spec: &Spec,
    programs: &Programs,
    connections: usize,
    turns: usize,
) -> Result<Count> {
    let few = run(spec, programs, connections, turns)?;
    let many = run(spec, programs, connections, turns * 3)?;
    let requests = (turns * 2 * connections) as f64;
    Ok(Count {
        server: spec.name.clone(),
        metric: METRIC.into(),
        connections,
        value: (many as f64 - few as f64) / requests,
        how: "callgrind".into(),
    })
}

fn run(spec: &Spec, programs: &Programs, connections: usize, turns: usize) -> Result<u64> {
    let out = std::env::temp_dir().join(format!("pelton-bench-{}.callgrind", std::process::id()));
    let under = [
        "valgrind",
        "--tool=callgrind",
        "--quiet",
        &format!("--callgrind-out-file={}", out.display()),
    ]
    .map(str::to_owned);
    let requests = (turns * connections) as u64;
    let start =
        Start { under: &under, stop_after: Some(requests), ..Start::new(spec, &programs.dir) };
    let ran = LockStep::start(start, connections).and_then(|server| server.finish(turns));
    let text = std::fs::read_to_string(&out).during(format!("reading {}", out.display()));
    let _ = std::fs::remove_file(&out);
    ran?;
    total(&text?).ok_or_else(|| Error::server(&spec.name, "callgrind wrote no total"))
}

fn total(text: &str) -> Option<u64> {
    // One `summary` for each part, and `totals` once at the end.
    let line = text.lines().rev().find(|line| line.starts_with("totals:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

pub(super) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_total_is_read() {
        let text = "version: 1\nsummary: 5\nfn=(1)\n1 2\ntotals: 123456 7\n";
        assert_eq!(total(text), Some(123_456));
        assert_eq!(total("summary: 5\n"), None);
    }
}
