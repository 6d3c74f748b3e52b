//! `conformance`: the table of behaviours by backends, from a real run or checked for its rows.

use crate::Outcome;
use crate::args::Args;
use crate::run::{cargo, run};

/// Where the table is.
const PAGE: &str = "docs/conformance.md";

pub(crate) fn verb(mut args: Args) -> Outcome {
    let check = args.flag("--check");
    args.finish()?;
    if check { self::check() } else { conformance(&["write", PAGE, &shown_elsewhere()?]) }
}

/// What other builds have shown, in a file: kqueue's room on Linux, and completion ports under Wine where that is.
#[cfg(unix)]
fn shown_elsewhere() -> Outcome<String> {
    let path = crate::metadata::read()?.target_directory.join("conformance-elsewhere.txt");
    let shown = crate::kqueue::shown()? + &crate::windows::shown()?;
    std::fs::write(&path, shown).map_err(|error| format!("{}: {error}", path.display()))?;
    path.into_os_string().into_string().map_err(|path| format!("{path:?} is not text"))
}

#[cfg(windows)]
fn shown_elsewhere() -> Outcome<String> {
    Err("the page is written on Linux, which has all of its columns".into())
}

/// Fails where the page has not the rows that there are. Runs no behaviour, and needs no backend.
pub(crate) fn check() -> Outcome {
    conformance(&["check", PAGE])
}

fn conformance(words: &[&str]) -> Outcome {
    run(cargo().args(["run", "--quiet", "-p", "pelton-conformance", "--"]).args(words))
}
