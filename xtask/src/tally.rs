//! Counting tests by the line that each test binary ends with.

use std::fmt;
use std::ops::AddAssign;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// The tests that really ran.
    pub(crate) fn ran(&self) -> u64 {
        self.passed + self.failed
    }

    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`, the same with `FAILED.`, and
    /// nothing else.
    fn of_line(line: &str) -> Option<Tally> {
        let verdict = line.trim_end().strip_prefix("test result: ")?;
        let counts = verdict.strip_prefix("ok. ").or_else(|| verdict.strip_prefix("FAILED. "))?;
        let mut tally = Tally::default();
        let mut found = 0;
        for part in counts.split(';') {
            let Some((number, what)) = part.trim().split_once(' ') else { continue };
            let count = match what {
                "passed" => &mut tally.passed,
                "failed" => &mut tally.failed,
                "ignored" => &mut tally.skipped,
                _ => continue,
            };
            *count = number.parse().ok()?;
            found += 1;
        }
        (found == 3).then_some(tally)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Sums the result lines of an output that arrives in chunks of any size.
#[derive(Default)]
pub(crate) struct Meter {
    sum: Tally,
    line: Vec<u8>,
}

impl Meter {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else {
                self.line.push(byte);
            }
        }
    }

    pub(crate) fn finish(mut self) -> Tally {
        self.end_line();
        self.sum
    }

    fn end_line(&mut self) {
        if let Some(tally) = Tally::of_line(&String::from_utf8_lossy(&self.line)) {
            self.sum += tally;
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 4 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s

running 2 tests
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.01s
all doctests ran in 0.51s; merged doctests compilation took 0.40s
";

    fn count(chunks: impl Iterator<Item = Vec<u8>>) -> Tally {
        let mut meter = Meter::default();
        chunks.for_each(|chunk| meter.feed(&chunk));
        meter.finish()
    }

    #[test]
    fn the_result_lines_of_all_binaries_are_summed_however_the_output_is_cut() {
        for size in [1, 2, 7, 64, OUTPUT.len()] {
            let tally = count(OUTPUT.as_bytes().chunks(size).map(<[u8]>::to_vec));
            assert_eq!(tally, Tally { passed: 4, failed: 1, skipped: 1 }, "chunks of {size}");
            assert_eq!(tally.ran(), 5);
        }
    }

    #[test]
    fn a_last_line_without_its_newline_still_counts() {
        let line = b"test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured".to_vec();
        assert_eq!(count([line].into_iter()).passed, 2);
    }

    #[test]
    fn a_line_that_only_looks_like_a_result_counts_nothing() {
        for line in [
            "",
            "test result: ok.",
            "test result: ok. 2 passed",
            "test result: ok. two passed; 0 failed; 0 ignored",
            "test result: maybe. 2 passed; 0 failed; 0 ignored",
            "it printed: test result: ok. 2 passed; 0 failed; 0 ignored",
            "test result: ok. 99999999999999999999 passed; 0 failed; 0 ignored",
        ] {
            assert_eq!(Tally::of_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_summary_is_one_plain_line() {
        let tally = Tally { passed: 12, failed: 0, skipped: 3 };
        assert_eq!(tally.to_string(), "12 passed, 0 failed, 3 skipped");
    }
}
