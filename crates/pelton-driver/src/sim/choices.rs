//! Every choice of a world, made by one seed, recorded, and made again.
//!
//! # How a choice is made
//!
//! A choice has a label, an object that it is about, and a number: the how-manieth of this label for this
//! object it is. Its value is a hash of these and of the seed, so that it depends on no other choice: a run
//! in which one fault is left out makes all its other choices as before, as far as they come up at all.
//! **0 is always the dull value**: no fault, no delay, the first in line. So a run is told by those of its
//! choices that are not 0, and a run that takes 0 wherever it is not told otherwise is the dull run with
//! just these faults in it. That is what shrinking works on.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

/// One choice that was not dull.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// What was chosen.
    pub label: &'static str,
    /// What it was about: a connection, a host, an operation, by number; 0 for the world itself.
    pub who: u64,
    /// The how-manieth choice of this kind for this object, from 0.
    pub nth: u32,
    /// What was chosen: at least 1.
    pub value: u64,
    /// The world's time in nanoseconds.
    pub at: u64,
    /// What it did, in words. Empty where another choice's words tell of it: how short a short receive was.
    pub story: String,
}

impl Decision {
    /// What names it in a replay.
    pub fn name(&self) -> Name {
        Name { label: self.label, who: self.who, nth: self.nth }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at as f64 / 1e6;
        if self.story.is_empty() {
            write!(f, "{at:.3} ms: {} of {} was {}", self.label, self.who, self.value)
        } else {
            write!(f, "{at:.3} ms: {}", self.story)
        }
    }
}

/// Names one choice of a run, whatever was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    label: &'static str,
    who: u64,
    nth: u32,
}

/// The choices that a replay is to make; every other one is dull.
pub(crate) type Script = HashMap<(u64, u64, u32), u64>;

/// A hash of the label, the same in every process.
pub(crate) fn label_hash(label: &str) -> u64 {
    label.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// A mixer with full avalanche (the finaliser of SplitMix64).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = mix(self.0 ^ n);
    }
}

pub(crate) struct Choices {
    seed: u64,
    /// How many choices of a label there have been for an object.
    counts: HashMap<(u64, u64), u32, BuildHasherDefault<Mixer>>,
    script: Option<Script>,
    hash: u64,
    made: u64,
    decisions: Vec<Decision>,
    keep: bool,
}

impl Choices {
    pub(crate) fn new(seed: u64, script: Option<Script>, keep: bool) -> Choices {
        let decisions = Vec::new();
        Choices { seed, counts: HashMap::default(), script, hash: seed, made: 0, decisions, keep }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below `n`; `tell` says in words what it does, where it is not 0.
    pub(crate) fn choose(
        &mut self,
        at: u64,
        label: &'static str,
        who: u64,
        n: u64,
        tell: impl FnOnce(u64) -> String,
    ) -> u64 {
        self.decide(at, label, who, |random| if n <= 1 { 0 } else { random % n }, tell)
    }

    /// True once in `1_000_000 / rate`, and where a script says so.
    pub(crate) fn chance(
        &mut self,
        at: u64,
        label: &'static str,
        who: u64,
        rate: u32,
        tell: impl FnOnce() -> String,
    ) -> bool {
        let fires = |random: u64| u64::from(random % 1_000_000 < u64::from(rate));
        self.decide(at, label, who, fires, |_| tell()) != 0
    }

    fn decide(
        &mut self,
        at: u64,
        label: &'static str,
        who: u64,
        value: impl FnOnce(u64) -> u64,
        tell: impl FnOnce(u64) -> String,
    ) -> u64 {
        let hash = label_hash(label);
        let count = self.counts.entry((hash, who)).or_insert(0);
        let nth = *count;
        *count = nth.wrapping_add(1);
        let value = match &self.script {
            Some(script) => script.get(&(hash, who, nth)).copied().unwrap_or(0),
            None => value(mix(mix(self.seed ^ hash) ^ mix(who ^ (u64::from(nth) << 40)))),
        };
        self.made += 1;
        self.note(hash ^ mix(who));
        self.note(value);
        if value != 0 && self.keep {
            let story = tell(value);
            self.decisions.push(Decision { label, who, nth, value, at, story });
        }
        value
    }

    /// Puts other words to the last choice of this label about this object, which must not have been dull:
    /// what it comes to is often known only when others have been made.
    pub(crate) fn retell(&mut self, label: &'static str, who: u64, story: String, at: Option<u64>) {
        let is = |one: &&mut Decision| one.who == who && one.label == label;
        if let Some(one) = self.decisions.iter_mut().rev().take(8).find(is) {
            one.story = story;
            one.at = at.unwrap_or(one.at);
        }
    }

    /// True when choices that are not dull are remembered: words for others are wasted.
    pub(crate) fn keeps(&self) -> bool {
        self.keep
    }

    /// Makes something that happened part of the hash of the run.
    pub(crate) fn note(&mut self, what: u64) {
        self.hash = mix(self.hash ^ what);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Choices made, the dull ones too.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    pub(crate) fn decisions(&self) -> &[Decision] {
        &self.decisions
    }
}

/// The script that makes just these decisions.
pub(crate) fn script(decisions: &[Decision]) -> Script {
    decisions.iter().map(|one| ((label_hash(one.label), one.who, one.nth), one.value)).collect()
}

/// The decisions as text, for [`World::replay_text`](super::World::replay_text): `label/who/nth=value`, with
/// semicolons between.
pub fn script_text(decisions: &[Decision]) -> String {
    let one = |one: &Decision| format!("{}/{}/{}={}", one.label, one.who, one.nth, one.value);
    decisions.iter().map(one).collect::<Vec<_>>().join(";")
}

/// The script that [`script_text`] wrote.
pub(crate) fn parse_script(text: &str) -> Result<Script, String> {
    let one = |entry: &str| {
        let (name, value) = entry.rsplit_once('=')?;
        let (rest, nth) = name.rsplit_once('/')?;
        let (label, who) = rest.rsplit_once('/')?;
        let key = (label_hash(label), who.parse().ok()?, nth.parse().ok()?);
        Some((key, value.parse().ok()?))
    };
    text.split(';')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| one(entry).ok_or_else(|| format!("{entry:?} is not label/who/nth=value")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, script: Option<Script>) -> (Vec<u64>, u64, Vec<Decision>) {
        let mut choices = Choices::new(seed, script, true);
        let values = (0..100)
            .map(|n| choices.choose(n, "thing", n % 3, 5, |value| format!("thing {value}")))
            .collect();
        (values, choices.hash(), choices.decisions().to_vec())
    }

    #[test]
    fn the_same_seed_makes_the_same_choices_and_another_does_not() {
        assert_eq!(run(1, None), run(1, None));
        assert_ne!(run(1, None).1, run(2, None).1);
    }

    #[test]
    fn a_script_of_all_decisions_is_the_run_and_one_decision_less_changes_only_that() {
        let (values, hash, mut decisions) = run(7, None);
        assert_eq!(run(7, Some(script(&decisions))).1, hash);
        let gone = decisions.remove(decisions.len() / 2);
        let (others, ..) = run(7, Some(script(&decisions)));
        let at = gone.at as usize;
        assert_eq!(others[at], 0);
        assert!((0..100).all(|n| n == at || others[n] == values[n]));
    }

    #[test]
    fn a_script_survives_being_text_and_bad_text_is_refused() {
        let (.., decisions) = run(7, None);
        let text = script_text(&decisions);
        assert_eq!(parse_script(&text).unwrap(), script(&decisions));
        assert!(parse_script("").unwrap().is_empty());
        for bad in ["x", "x=1", "x/1=1", "x/1/2=", "x/a/1=1", "x/1/2=3;y"] {
            assert!(parse_script(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_choice_is_told_again_when_more_is_known() {
        let mut choices = Choices::new(3, None, true);
        while choices.choose(0, "fault", 1, 2, |_| String::new()) == 0 {}
        while choices.choose(0, "by how much", 1, 9, |_| String::new()) == 0 {}
        choices.retell("fault", 1, "by 5".into(), None);
        let told: Vec<&str> = choices.decisions().iter().map(|one| &*one.story).collect();
        assert_eq!(told, ["by 5", ""]);
    }

    #[test]
    fn a_chance_comes_about_as_often_as_it_says() {
        let mut choices = Choices::new(3, None, false);
        let hits = (0..10_000).filter(|_| choices.chance(0, "x", 1, 100_000, String::new)).count();
        assert!((800..1200).contains(&hits), "{hits} of about 1000");
    }
}
