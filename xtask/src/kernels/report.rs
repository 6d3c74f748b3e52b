//! What the machine told, as a table.

use super::guest::{BEGINS, ENDS, RESULT};
use crate::Outcome;
use crate::tally::Tally;

#[derive(Default)]
struct Program {
    name: String,
    tally: Tally,
    millis: u64,
}

/// Prints the table. A machine that did not come to its end has failed, whatever it told before.
pub(super) fn of(told: &[String]) -> Outcome {
    let Some(release) = told.iter().find_map(|line| line.strip_prefix(BEGINS)) else {
        return Err("the machine did not come up".into());
    };
    let programs = programs(told);
    println!("Linux {release}, emulated\n");
    println!("| program | passed | failed | skipped | seconds |");
    println!("|---|---:|---:|---:|---:|");
    let mut total = Tally::default();
    for Program { name, tally, millis } in &programs {
        let Tally { passed, failed, skipped } = tally;
        let seconds = *millis as f64 / 1e3;
        println!("| {name} | {passed} | {failed} | {skipped} | {seconds:.1} |");
        total += *tally;
    }
    println!();
    let failed: Vec<&str> = told
        .iter()
        .filter_map(|line| line.strip_prefix(RESULT)?.strip_prefix("failed "))
        .filter_map(|line| line.split_once(' ').map(|(_, name)| name))
        .collect();
    for name in &failed {
        println!("failed: {name}");
    }
    println!("{total}");
    if !told.iter().any(|line| line == ENDS) {
        return Err("the machine did not come to its end; the table is what it told before".into());
    }
    if total.ran() == 0 {
        return Err("no test ran".into());
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("{} failed on {release}", failed.len())) }
}

fn programs(told: &[String]) -> Vec<Program> {
    let mut programs: Vec<Program> = Vec::new();
    for line in told.iter().filter_map(|line| line.strip_prefix(RESULT)) {
        let mut words = line.splitn(4, ' ');
        let (Some(verdict), Some(millis), Some(name)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if programs.last().is_none_or(|program| program.name != name) {
            programs.push(Program { name: name.to_owned(), ..Program::default() });
        }
        let Some(program) = programs.last_mut() else { continue };
        program.millis += millis.parse().unwrap_or(0);
        match verdict {
            "passed" => program.tally.passed += 1,
            "skipped" => program.tally.skipped += 1,
            _ => program.tally.failed += 1,
        }
    }
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_report_is_counted_by_program() {
        let told = lines(
            "@kernel 6.1.0\nnoise\n@test passed 10 a.lib one\n@test skipped 1 a.lib two\n@test passed 5 b.tcp x\n@end",
        );
        let programs = programs(&told);
        assert_eq!(programs.len(), 2);
        assert_eq!(programs[0].tally, Tally { passed: 1, failed: 0, skipped: 1 });
        assert_eq!((programs[1].name.as_str(), programs[1].millis), ("b.tcp", 5));
        assert_eq!(of(&told), Ok(()));
    }

    #[test]
    fn a_failure_a_silent_machine_and_one_without_tests_are_errors() {
        for told in [
            "",
            "@kernel 6.1.0\n@end",
            "@kernel 6.1.0\n@test passed 1 a.lib one",
            "@kernel 6.1.0\n@test failed 1 a.lib one\n@end",
        ] {
            assert!(of(&lines(told)).is_err(), "{told}");
        }
    }
}
