//! Shrinking: finding the fewest choices that still make a run fail.
//!
//! A run that makes only some of its choices is the same run with the others dull (`choices.rs`
//! says why), so choices can be taken out in any combination: first all of a kind, then by delta debugging in
//! smaller and smaller pieces, then their values are brought down.

use std::collections::BTreeMap;

use super::choices::Decision;

/// How many runs at most.
const MOST_RUNS: usize = 600;

/// The fewest of `decisions` with which `fails` is still true, as far as that was found; and in how many runs.
pub fn shrink(
    decisions: Vec<Decision>,
    mut fails: impl FnMut(&[Decision]) -> bool,
) -> (Vec<Decision>, usize) {
    if cfg!(pelton_mutants) {
        // A mutant is found, and not explained.
        return (decisions, 0);
    }
    let mut runs = 0;
    let mut fails = |some: &[Decision]| {
        runs += 1;
        runs <= MOST_RUNS && fails(some)
    };
    if fails(&[]) {
        return (Vec::new(), runs);
    }
    let mut left = decisions;
    without_kinds(&mut left, &mut fails);
    without_pieces(&mut left, &mut fails);
    smaller(&mut left, &mut fails);
    (left, runs)
}

/// Takes out all choices of a kind at once, the most frequent kind first.
fn without_kinds(left: &mut Vec<Decision>, fails: &mut impl FnMut(&[Decision]) -> bool) {
    let mut kinds: BTreeMap<&'static str, usize> = BTreeMap::new();
    for decision in left.iter() {
        *kinds.entry(decision.label).or_default() += 1;
    }
    let mut kinds: Vec<(usize, &'static str)> =
        kinds.into_iter().map(|(label, count)| (count, label)).collect();
    kinds.sort_unstable_by(|a, b| b.cmp(a));
    for (_, label) in kinds {
        let without: Vec<Decision> =
            left.iter().filter(|decision| decision.label != label).cloned().collect();
        if fails(&without) {
            *left = without;
        }
    }
}

/// Delta debugging: takes out halves, quarters, and so on, down to single choices.
fn without_pieces(left: &mut Vec<Decision>, fails: &mut impl FnMut(&[Decision]) -> bool) {
    let mut piece = left.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        let mut any = false;
        while at < left.len() {
            let end = (at + piece).min(left.len());
            let without: Vec<Decision> = left[..at].iter().chain(&left[end..]).cloned().collect();
            if fails(&without) {
                *left = without;
                any = true;
            } else {
                at = end;
            }
        }
        if piece == 1 && !any {
            break;
        }
        piece = if piece == 1 { 1 } else { piece.div_ceil(2) };
    }
}

/// Brings values down to 1, or halfway there.
fn smaller(left: &mut Vec<Decision>, fails: &mut impl FnMut(&[Decision]) -> bool) {
    for at in 0..left.len() {
        let before = left[at].value;
        for value in [1, before / 4, before / 2] {
            if value >= 1 && value < left[at].value {
                let mut other = left.clone();
                other[at].value = value;
                if fails(&other) {
                    *left = other;
                    break;
                }
            }
        }
    }
}
