//! The few words that a verb takes: `--flag`, `--option VALUE`, and everything behind `--`.
//!
//! A verb takes what it knows and then calls [`Args::finish`], so that a word that nobody asked
//! for is an error and not silently ignored.

use std::ffi::OsString;

use crate::Outcome;

#[derive(Debug)]
pub(crate) struct Args {
    own: Vec<String>,
    rest: Vec<OsString>,
}

impl Args {
    /// Splits the words at the first `--`. What stands before it must be text.
    pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Outcome<Args> {
        let mut words = words;
        let mut own = Vec::new();
        for word in words.by_ref() {
            if word == "--" {
                break;
            }
            own.push(word.into_string().map_err(|word| format!("{word:?} is not text"))?);
        }
        Ok(Args { own, rest: words.collect() })
    }

    pub(crate) fn asks_for_help(&self) -> bool {
        self.own.iter().any(|word| word == "-h" || word == "--help")
    }

    /// Takes `--flag`; says whether it was there.
    pub(crate) fn flag(&mut self, flag: &str) -> bool {
        let before = self.own.len();
        self.own.retain(|word| word != flag);
        self.own.len() != before
    }

    /// Takes `--option VALUE` or `--option=VALUE`.
    pub(crate) fn value(&mut self, option: &str) -> Outcome<Option<String>> {
        let Some(at) = self.own.iter().position(|word| {
            word.strip_prefix(option).is_some_and(|tail| tail.is_empty() || tail.starts_with('='))
        }) else {
            return Ok(None);
        };
        let word = self.own.remove(at);
        let value = match word.split_once('=') {
            Some((_, value)) => value.to_owned(),
            None if at < self.own.len() => self.own.remove(at),
            None => String::new(),
        };
        if value.is_empty() { Err(format!("{option} wants a value")) } else { Ok(Some(value)) }
    }

    /// The words behind `--`, once the ones before it are all taken.
    pub(crate) fn rest(self) -> Outcome<Vec<OsString>> {
        match self.own.first() {
            Some(word) => Err(format!("`{word}` means nothing here; `cargo xtask help` tells")),
            None => Ok(self.rest),
        }
    }

    /// For a verb that takes nothing more, before `--` or behind it.
    pub(crate) fn finish(self) -> Outcome {
        match self.rest()?.first() {
            Some(word) => Err(format!("{word:?} behind `--` means nothing here")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Args {
        Args::parse(words.iter().map(OsString::from)).unwrap()
    }

    #[test]
    fn words_behind_the_first_double_dash_are_passed_on_as_they_are() {
        let mut args = args(&["--all", "--", "-p", "pelton", "--", "--nocapture"]);
        assert!(args.flag("--all"));
        assert_eq!(args.rest().unwrap(), ["-p", "pelton", "--", "--nocapture"]);
    }

    #[test]
    fn a_value_comes_as_the_next_word_or_behind_an_equals_sign() {
        for words in [&["--backend", "epoll"][..], &["--backend=epoll"][..]] {
            let mut args = args(words);
            assert_eq!(args.value("--backend").unwrap().as_deref(), Some("epoll"));
            args.finish().unwrap();
        }
    }

    #[test]
    fn an_option_without_its_value_is_an_error() {
        for words in [&["--backend"][..], &["--backend="][..]] {
            assert!(args(words).value("--backend").unwrap_err().contains("--backend"));
        }
    }

    #[test]
    fn an_option_is_not_taken_for_a_longer_one_that_begins_alike() {
        let mut args = args(&["--backends=epoll"]);
        assert_eq!(args.value("--backend").unwrap(), None);
        assert!(args.finish().is_err());
    }

    #[test]
    fn a_word_that_nobody_took_is_an_error() {
        assert!(args(&["--faster"]).finish().unwrap_err().contains("--faster"));
        assert!(args(&["--", "x"]).finish().is_err());
    }
}
