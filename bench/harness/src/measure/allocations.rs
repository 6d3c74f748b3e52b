//! Allocations per request, counted by the server itself in a build for it.

use super::lock_step::LockStep;
use super::{CONNECTIONS, Programs};
use crate::error::{Error, Result};
use crate::report::model::Count;
use crate::roster::Spec;
use crate::server::Start;

pub(crate) const METRIC: &str = "allocations";
pub(crate) const BYTES: &str = "allocated-bytes";

/// Counts in the second half of `turns`.
pub(crate) fn measure(spec: &Spec, programs: &Programs, turns: usize) -> Result<[Count; 2]> {
    let requests = (turns * CONNECTIONS) as u64;
    let mut counting = spec.clone();
    counting.args = [spec.args, &["--count-allocs"]].concat().leak();
    let start = Start { stop_after: Some(requests), ..Start::new(&counting, &programs.counting) };
    let printed = LockStep::start(start, CONNECTIONS)?.finish(turns)?;
    let (allocs, bytes) = parse(&printed)
        .ok_or_else(|| Error::server(&spec.name, "printed no `allocs=N bytes=M` at its end"))?;
    let count = |metric: &str, value: u64| Count {
        server: spec.name.clone(),
        metric: metric.to_owned(),
        connections: CONNECTIONS,
        value: value as f64 / (requests / 2) as f64,
        how: "counting allocator".into(),
    };
    Ok([count(METRIC, allocs), count(BYTES, bytes)])
}

fn parse(printed: &str) -> Option<(u64, u64)> {
    let line = printed.lines().find(|line| line.starts_with("allocs="))?;
    let (allocs, bytes) = line.strip_prefix("allocs=")?.split_once(" bytes=")?;
    Some((allocs.parse().ok()?, bytes.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_counts_is_read() {
        assert_eq!(parse("x\nallocs=12 bytes=3400\n"), Some((12, 3400)));
        assert_eq!(parse("allocs=12\n"), None);
        assert_eq!(parse(""), None);
    }
}
