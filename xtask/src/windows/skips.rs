//! The tests that are not run under Wine, each with the defect of Wine's that is the cause.

use std::path::Path;

use crate::Outcome;

const FILE: &str = ".ci/windows-skips";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Skip {
    /// The program, as `package.target`.
    program: String,
    /// The test, or what its name begins with where this ends in `*`.
    test: String,
    /// What Wine does not do.
    pub(super) because: String,
}

impl Skip {
    fn covers(&self, program: &str, test: &str) -> bool {
        self.program == program
            && match self.test.strip_suffix('*') {
                Some(begin) => test.starts_with(begin),
                None => self.test == test,
            }
    }
}

pub(super) struct Skips(Vec<Skip>);

impl Skips {
    /// Reads the committed list.
    pub(super) fn read(root: &Path) -> Outcome<Skips> {
        let text = std::fs::read_to_string(root.join(FILE))
            .map_err(|error| format!("{FILE}: {error}; it names the tests that Wine cannot run"))?;
        parse(&text)
    }

    /// Why a test is not run, if it is not.
    pub(super) fn of(&self, program: &str, test: &str) -> Option<&Skip> {
        self.0.iter().find(|skip| skip.covers(program, test))
    }
}

fn parse(text: &str) -> Outcome<Skips> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| one(number + 1, line)).collect::<Outcome<_>>().map(Skips)
}

fn one(number: usize, line: &str) -> Outcome<Skip> {
    let form = || format!("{FILE}:{number}: not `package.target test: what Wine does not do`");
    let (name, because) = line.split_once(": ").ok_or_else(form)?;
    let (program, test) = name.split_once(' ').ok_or_else(form)?;
    if because.trim().is_empty() {
        return Err(form());
    }
    let [program, test, because] = [program, test, because].map(|word| word.trim().to_owned());
    Ok(Skip { program, test, because })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_names_one_test_or_all_that_begin_alike() {
        let skips =
            parse("# a comment\n\na.t one::x: Wine has no such thing\na.t two::*: nor that\n");
        let skips = skips.unwrap();
        assert_eq!(skips.of("a.t", "one::x").unwrap().because, "Wine has no such thing");
        assert!(skips.of("a.t", "one::xy").is_none() && skips.of("b.t", "one::x").is_none());
        assert!(skips.of("a.t", "two::y").is_some() && skips.of("a.t", "three").is_none());
    }

    #[test]
    fn a_skip_without_its_reason_is_an_error_that_names_the_line() {
        for text in ["a.t one", "a.t one: ", "one: because"] {
            let error = parse(&format!("# first\n{text}\n")).err().unwrap();
            assert!(error.contains(":2:"), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_committed_list_can_be_read() {
        Skips::read(&crate::run::root()).unwrap();
    }
}
