//! `conformance`: the table of behaviours by backends, from a real run or checked for its rows.

use crate::Outcome;
use crate::args::Args;
use crate::run::{cargo, run};

/// Where the table is.
const PAGE: &str = "docs/conformance.md";

pub(crate) fn verb(mut args: Args) -> Outcome {
    let check = args.flag("--check");
    args.finish()?;
    if check { self::check() } else { conformance("write") }
}

/// Fails where the page has not the rows that there are. Runs no behaviour, and needs no backend.
pub(crate) fn check() -> Outcome {
    conformance("check")
}

fn conformance(what: &str) -> Outcome {
    run(cargo().args(["run", "--quiet", "-p", "pelton-conformance", "--", what, PAGE]))
}
