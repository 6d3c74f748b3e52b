//! The table: a line for each mutant as it is found, and the whole as Markdown.

use std::fmt;

use pelton_driver::mutant::{Finder, Mutant};

use super::child::Found;

pub(super) struct Row {
    pub(super) mutant: &'static Mutant,
    pub(super) found: Option<Found>,
}

impl Row {
    pub(super) fn is_found(&self) -> bool {
        self.found.is_some()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.mutant.name;
        match &self.found {
            Some(found) => {
                let seeds = found.seeds.map_or("-".into(), |seeds| seeds.to_string());
                let Found { world, how, what, .. } = found;
                write!(f, "{name:<32} {seeds:>5}  {world:<10} {how}: {what}")
            }
            None => write!(f, "{name:<32}     -  NOT FOUND"),
        }
    }
}

/// The whole table. What it says is the same on every machine, hangs apart.
pub(super) fn markdown(rows: &[Row], seeds: u64) -> String {
    let others = seeds.div_ceil(super::child::DEARER);
    let mut text = format!(
        "# Mutants\n\n\
         Bugs that other systems shipped, and breaches of Pelton's own invariants, each put back behind a\n\
         switch that only `cargo xtask mutants` builds. Every one must be found: by the worlds of the\n\
         simulator within {seeds} seeds of `chaos` and {others} of each other world (those of the room of Windows\n\
         by the worlds that run on it, `…-ports`), by the models under loom, or by\n\
         the random scripts that are played on every system beside a model (the first 128).\n\
         `cargo xtask mutants --write` makes this file.\n\n\
         Seeds are counted from 0, every world under each. With no mutant nothing fails under any of them.\n\n"
    );
    let worst = rows.iter().filter_map(|row| row.found.as_ref()?.seeds).max().unwrap_or(0);
    let found = rows.iter().filter(|row| row.is_found()).count();
    text.push_str(&format!(
        "{found} of {} are found; the worlds need {worst} seeds at most.\n\n",
        rows.len()
    ));
    text.push_str("| mutant | origin | what it does | what it breaks | found by | seeds | how |\n");
    text.push_str("|---|---|---|---|---|--:|---|\n");
    for Row { mutant, found } in rows {
        let Mutant { name, origin, does, breaks, finder } = mutant;
        let (by, seeds, how) = match found {
            Some(found) => {
                let seeds = found.seeds.map_or("all".to_owned(), |seeds| seeds.to_string());
                let by = match finder {
                    Finder::Loom => "loom".to_owned(),
                    Finder::Scripts => "scripts".to_owned(),
                    Finder::Simulator | Finder::Ports => format!("world `{}`", found.world),
                };
                (by, seeds, format!("{}: {}", found.how, short(&found.what)))
            }
            None => ("**nothing**".to_owned(), String::new(), String::new()),
        };
        text.push_str(&format!(
            "| `{name}` | {origin} | {does} | {breaks} | {by} | {seeds} | {how} |\n"
        ));
    }
    text
}

/// As much of what a checker said as a cell of the table has room for, without what would be taken for Markdown.
fn short(what: &str) -> String {
    const MOST: usize = 110;
    // Addresses, and what has one for a name, are others in each run.
    let is_long = |word: &&str| word.len() > 12 && word.bytes().all(|byte| byte.is_ascii_digit());
    let words = what.split_inclusive([' ', ',']);
    let words = words.map(|word| {
        let number = word.trim_end_matches([' ', ',']);
        if is_long(&number) { word.replace(number, "…") } else { word.to_owned() }
    });
    let mut text: String = words
        .collect::<String>()
        .chars()
        .map(|c| if matches!(c, '|' | '<' | '>') { '/' } else { c })
        .collect();
    if text.chars().count() > MOST {
        text = text.chars().take(MOST).collect();
        text.push('…');
    }
    text
}
