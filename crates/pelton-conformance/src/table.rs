//! docs/conformance.md: behaviours by backends, from a real run.

use std::collections::HashMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::behaviours;
use crate::bench::{Outcome, System};
use crate::registry::{Behaviour, Origin, Source};
use crate::rows::ROWS;

const BEGINS: &str = "\
# Conformance

One suite of behaviours for every backend, in `crates/pelton-conformance`. `cargo xtask conformance` runs it
and writes this file; the tests are `io_uring::…`, `epoll::…`, `kqueue::…`, `iocp::…`, `sim::ring::…`,
`sim::readiness::…` and `sim::faults::…` of that crate. Those of `iocp` were shown under Wine 8, and those of `kqueue` on
Linux, where epoll plays the kernel's queue (`cargo xtask kqueue`).

A cell says **yes** where the behaviour was shown by the run that wrote this file. On the simulated system a
behaviour is shown in several worlds: 2 for a ring, 2 for readiness, and 20, half of either, in which
everything goes wrong that Pelton must hide.
";

/// Behaviours that Wine 8 cannot show, and why.
const NOT_ON_WINE: &[(&str, &str)] = &[
    ("a_bad_address_is_refused", "Wine binds to any address"),
    ("a_socket_that_is_not_connected_has_no_peer", "Wine says that it was reset"),
    ("an_address_that_cannot_be_told_is_an_error", "Wine's closes reset nothing"),
    ("a_file_that_cannot_be_read_is_not_sent", "Wine sends it"),
    ("a_file_to_nobody_is_an_error", "Wine's `TransmitFile` never ends then"),
    ("a_refusal_is_a_value", "Wine swallows it"),
    ("hops_and_class_are_told", "Wine sends no control messages"),
    ("the_source_can_be_chosen", "Wine sends no control messages"),
    ("one_send_can_be_many", "Wine sends no control messages"),
    ("a_directory_is_removed", "Wine tells nobody of it"),
];

/// Runs everything on one backend and gives back its cells, a line for each: the backend, the behaviour's name and
/// what came of it, with tabulators between them. For [`write()`] in another build or on another system.
///
/// # Errors
/// There is no such backend, or a behaviour does not hold.
pub fn show(backend: &str) -> Result<String, String> {
    let system = System::ALL.into_iter().find(|system| system.name() == backend);
    let system = system.ok_or_else(|| format!("{backend} is no backend of the suite"))?;
    let (mut text, mut failed) = (String::new(), Vec::new());
    for behaviour in behaviours() {
        let known = NOT_ON_WINE.iter().find(|(name, _)| *name == behaviour.name);
        let cell = match known.filter(|_| system == System::Iocp) {
            Some((_, why)) => format!("not run: {why}"),
            None => match catch_unwind(AssertUnwindSafe(|| behaviour.run(system))) {
                Ok(outcome) => outcome.to_string(),
                Err(_) => {
                    failed.push(behaviour.name);
                    continue;
                }
            },
        };
        let _ = writeln!(text, "{backend}\t{}\t{cell}", behaviour.name);
    }
    if failed.is_empty() { Ok(text) } else { Err(format!("did not hold: {}", failed.join(", "))) }
}

/// Runs everything and writes the file. What backends of other builds and systems have [shown](show) is in the file
/// `shown`.
///
/// # Errors
/// A behaviour does not hold, or a file cannot be read or written.
pub fn write(path: &Path, shown: Option<&Path>) -> Result<String, String> {
    let elsewhere = match shown {
        Some(shown) => std::fs::read_to_string(shown)
            .map_err(|error| format!("{}: {error}", shown.display()))?,
        None => String::new(),
    };
    let elsewhere: HashMap<(&str, &str), &str> = elsewhere
        .lines()
        .filter_map(|line| {
            let (backend, line) = line.split_once('\t')?;
            let (name, cell) = line.split_once('\t')?;
            Some(((backend, name), cell))
        })
        .collect();
    let mut failed = Vec::new();
    let mut shown = 0;
    let text =
        page(
            &mut |behaviour, system| match catch_unwind(AssertUnwindSafe(|| behaviour.run(system)))
            {
                Ok(Outcome::NotRun(why)) => {
                    let shown = elsewhere.get(&(system.name(), behaviour.name));
                    shown.map_or(format!("not run: {why}"), |cell| (*cell).to_owned())
                }
                Ok(outcome) => {
                    shown += usize::from(outcome == Outcome::Holds);
                    outcome.to_string()
                }
                Err(_) => {
                    failed.push(format!("{} on {}", behaviour.name, system.name()));
                    "**no**".into()
                }
            },
        );
    if !failed.is_empty() {
        return Err(format!("{} did not hold:\n{}", failed.len(), failed.join("\n")));
    }
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(format!("{}: {shown} cells were shown", path.display()))
}

/// Says whether the file has the rows and columns that there are, whatever its cells say. Runs nothing.
///
/// # Errors
/// It has not.
pub fn check(path: &Path) -> Result<String, String> {
    let stands = std::fs::read_to_string(path).unwrap_or_default();
    let due = page(&mut |_, _| String::new());
    match rows_of(&stands).zip_longest(rows_of(&due)) {
        None => Ok(format!("{} has every row", path.display())),
        Some((stands, due)) => Err(format!(
            "{} is not what it should be: run `cargo xtask conformance`\n  it says    {stands}\n  it should  {due}",
            path.display()
        )),
    }
}

/// The lines, without the cells of the backends that a run fills.
fn rows_of(text: &str) -> Vec<String> {
    let cells = System::ALL.len();
    text.lines()
        .map(|line| {
            let columns: Vec<&str> = line.split(" | ").collect();
            if columns.len() == cells + 2 {
                format!("{} | {}", columns[0], columns[1])
            } else {
                line.trim_end().to_owned()
            }
        })
        .collect()
}

trait ZipLongest {
    /// The first two that differ.
    fn zip_longest(self, other: Vec<String>) -> Option<(String, String)>;
}

impl ZipLongest for Vec<String> {
    fn zip_longest(self, other: Vec<String>) -> Option<(String, String)> {
        let len = self.len().max(other.len());
        let line = |lines: &[String], at: usize| {
            lines.get(at).cloned().unwrap_or_else(|| "(nothing more)".to_owned())
        };
        (0..len).map(|at| (line(&self, at), line(&other, at))).find(|(a, b)| a != b)
    }
}

fn page(cell: &mut dyn FnMut(&Behaviour, System) -> String) -> String {
    let mut text = String::from(BEGINS);
    let columns: Vec<&str> = System::ALL.iter().map(|system| system.name()).collect();
    let mut subject = "";
    for behaviour in behaviours() {
        if behaviour.subject != subject {
            subject = behaviour.subject;
            let (first, rest) = subject.split_at(1);
            let _ = write!(text, "\n## {}{rest}\n\n", first.to_uppercase());
            let _ = writeln!(text, "| Behaviour | From | {} |", columns.join(" | "));
            let _ = writeln!(text, "|---|---|{}", "---|".repeat(columns.len()));
        }
        let cells: Vec<String> =
            System::ALL.iter().map(|system| cell(behaviour, *system)).collect();
        let from = origins(behaviour.origins);
        let _ = writeln!(text, "| {} | {from} | {} |", behaviour.text, cells.join(" | "));
    }
    without(&mut text);
    elsewhere(&mut text);
    text
}

fn origins(origins: &[Origin]) -> String {
    let mut said = String::new();
    let mut last = None;
    for origin in origins {
        if last != Some(origin.source) {
            let begins = if said.is_empty() { "" } else { "; " };
            let _ = write!(said, "{begins}{}: ", origin.source.name());
        } else {
            said.push_str(", ");
        }
        said.push_str(&origin.row.replace('|', "/"));
        last = Some(origin.source);
    }
    if said.is_empty() { "Pelton".into() } else { said }
}

/// The faults that behaviours run without.
fn without(text: &mut String) {
    text.push_str("\n## Faults left off\n\nIn `sim, faults` a few behaviours run without a fault that is theirs to see:\n\n");
    for behaviour in behaviours().iter().filter(|behaviour| !behaviour.unbearable.is_empty()) {
        let faults: Vec<_> = behaviour.unbearable.iter().map(|fault| fault.name()).collect();
        let (faults, why) = (faults.join(", "), behaviour.because);
        let _ = writeln!(text, "- {}: {faults} ({why})", behaviour.text);
    }
}

/// The rows of older systems that no behaviour comes from.
fn elsewhere(text: &mut String) {
    text.push_str(
        "\n## Not in this suite\n\nWhat the older systems test and this suite does not, and why.\n",
    );
    for source in [Source::Aws, Source::Reseau, Source::ReseauMain, Source::Ioxide, Source::Libxev]
    {
        let _ = write!(text, "\n{}:\n\n", source.name());
        for row in ROWS.iter().filter(|row| row.source == source && !row.not.is_empty()) {
            let _ = writeln!(text, "- {}: {}", row.name, row.not);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_has_every_row() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
        check(&path).unwrap();
    }

    #[test]
    fn a_row_that_is_missing_is_found_and_cells_do_not_count() {
        let page = page(&mut |_, _| "yes".into());
        let other = page.replace("| yes |", "| not run: a reason |");
        assert_eq!(rows_of(&page).zip_longest(rows_of(&other)), None);
        let line = page.lines().find(|line| line.contains("| yes |")).unwrap();
        let without = page.replace(&format!("{line}\n"), "");
        assert!(rows_of(&without).zip_longest(rows_of(&page)).is_some());
    }
}
