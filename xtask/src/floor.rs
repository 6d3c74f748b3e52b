//! The least number of tests that a whole run must have run.
//!
//! A suite that silently stopped running is worse than none. The number is committed, is raised
//! as tests are added, and a change that lowers it has to say why.

use std::path::Path;

use crate::Outcome;
use crate::tally::Tally;

const FILE: &str = ".ci/test-floor";

/// Reads the committed number.
pub(crate) fn read(root: &Path) -> Outcome<u64> {
    let text = std::fs::read_to_string(root.join(FILE))
        .map_err(|error| format!("{FILE}: {error}; it holds the least number of tests"))?;
    parse(&text)
}

/// Fails if fewer tests ran than the floor says.
pub(crate) fn hold(tally: Tally, floor: u64) -> Outcome {
    if tally.ran() >= floor {
        return Ok(());
    }
    Err(format!(
        "only {} tests ran, and {FILE} wants at least {floor}: find what stopped running",
        tally.ran()
    ))
}

fn parse(text: &str) -> Outcome<u64> {
    text.trim()
        .parse()
        .map_err(|_| format!("{FILE} must hold one number and nothing else, not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_one_number() {
        assert_eq!(parse("50\n"), Ok(50));
        for text in ["", "fifty", "-1", "50 tests", "5 0"] {
            assert!(parse(text).unwrap_err().contains(FILE), "{text:?}");
        }
    }

    #[test]
    fn a_run_below_the_floor_fails_and_skipped_tests_do_not_lift_it() {
        let tally = Tally { passed: 48, failed: 1, skipped: 100 };
        assert_eq!(hold(tally, 49), Ok(()));
        assert!(hold(tally, 50).unwrap_err().contains("only 49 tests ran"));
    }

    #[test]
    fn the_committed_floor_can_be_read() {
        assert!(read(&crate::run::root()).unwrap() > 0);
    }
}
