//! The microbenchmarks: programs that measure themselves and print one JSON object a line.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Programs;
use crate::error::{During, Error, Result};
use crate::machine::{self, LOAD_CPU, SERVER_CPU};
use crate::report::model::Micro;
use crate::roster::Row;

/// The groups that a program measures, each in a process of its own: what one leaves behind in
/// memory is not in the next one's numbers.
const GROUPS: [(&str, &[usize]); 5] = [
    ("spawn", &[SERVER_CPU]),
    ("yield", &[SERVER_CPU]),
    ("timer", &[SERVER_CPU]),
    // Threads of a pool, or another thread that posts, may have the other processor.
    ("file", &[SERVER_CPU, LOAD_CPU]),
    ("cross", &[SERVER_CPU, LOAD_CPU]),
];

/// The benchmark whose allocations are counted, and the name of that count.
const COUNTED: (&str, &str) = ("timer_fire", "allocs_each");

/// Runs one program, group by group, and reads what it measured.
pub(crate) fn measure(row: &Row, programs: &Programs) -> Result<Vec<Micro>> {
    let (name, program, _) = *row;
    let mut all = Vec::new();
    for (group, cpus) in GROUPS {
        all.extend(run(row, &programs.dir, &["--only", group], cpus)?);
    }
    if all.is_empty() {
        return Err(Error::server(name, "printed no measurement"));
    }
    // Counting costs time, so it is another build's, and its times are not used.
    if programs.counting.join(program).exists() {
        let wish = ["--only", COUNTED.0, "--repeat", "1"];
        let counted = run(row, &programs.counting, &wish, &[SERVER_CPU])?;
        merge(&mut all, &counted);
    }
    Ok(all)
}

fn run(
    &(name, program, args): &Row,
    dir: &Path,
    wish: &[&str],
    cpus: &[usize],
) -> Result<Vec<Micro>> {
    let binary = dir.join(program);
    if !binary.exists() {
        return Err(Error::server(
            name,
            format!("no program `{program}` in the directory of the servers"),
        ));
    }
    machine::pin(cpus).during("pinning a microbenchmark")?;
    let mut command = Command::new(&binary);
    command.args(args).args(wish).stdin(Stdio::null());
    let output = command.output();
    machine::pin(&[LOAD_CPU]).during("pinning the client")?;
    let output = output.during(format!("starting {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default().to_owned();
        let what = wish.join(" ");
        return Err(Error::server(name, format!("{what}: ended, {}: {last}", output.status)));
    }
    parse(name, &String::from_utf8_lossy(&output.stdout))
}

/// Puts the lines of another round where they are faster than those that are there, or new.
pub(crate) fn keep_least(kept: &mut Vec<Micro>, round: Vec<Micro>) {
    for line in round {
        let same = |other: &&mut Micro| {
            (&other.bench, &other.server, &other.backend)
                == (&line.bench, &line.server, &line.backend)
        };
        match kept.iter_mut().find(same) {
            None => kept.push(line),
            Some(other) if line.ns_min < other.ns_min => *other = line,
            Some(_) => {}
        }
    }
}

/// Puts what the counting build counted into the lines of the same benchmark.
fn merge(lines: &mut [Micro], counted: &[Micro]) {
    let (bench, count) = COUNTED;
    for line in lines.iter_mut().filter(|line| line.bench == bench) {
        let same = |other: &&Micro| other.bench == bench && other.backend == line.backend;
        if let Some(value) = counted.iter().find(same).and_then(|other| other.rest.get(count)) {
            line.rest.insert(count.to_owned(), value.clone());
        }
    }
}

fn parse(name: &str, text: &str) -> Result<Vec<Micro>> {
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let read = |line| {
        serde_json::from_str(line)
            .map_err(|e| Error::server(name, format!("its line is not understood: {e}: {line}")))
    };
    lines.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_measurements_are_read_and_others_passed_over() {
        let text =
            "hello\n{\"bench\":\"a\",\"server\":\"s\",\"ns_min\":1.5,\"clock\":\"thread\"}\n";
        let lines = parse("s", text).expect("one good line");
        assert_eq!((lines.len(), lines[0].ns_min), (1, Some(1.5)));
        assert!(parse("s", "{\"bench\":1}\n").is_err());
    }

    #[test]
    fn of_several_rounds_the_fastest_line_of_each_stays_as_a_whole() {
        let line = |bench: &str, ns: f64, median: f64| {
            format!(
                "{{\"bench\":\"{bench}\",\"server\":\"s\",\"ns_min\":{ns},\"ns_median\":{median}}}"
            )
        };
        let round = |text: &str| parse("s", text).expect("lines");
        let mut kept = Vec::new();
        keep_least(&mut kept, round(&line("a", 5.0, 9.0)));
        keep_least(&mut kept, round(&format!("{}\n{}", line("a", 4.0, 10.0), line("b", 1.0, 1.0))));
        keep_least(&mut kept, round(&line("a", 6.0, 6.0)));
        let told: Vec<_> = kept.iter().map(|line| (line.ns_min, line.ns_median)).collect();
        assert_eq!(told, [(Some(4.0), Some(10.0)), (Some(1.0), Some(1.0))]);
    }

    #[test]
    fn counts_of_the_other_build_go_to_the_line_of_the_same_backend_and_times_stay() {
        let own = "{\"bench\":\"timer_fire\",\"server\":\"s\",\"backend\":\"epoll\",\"ns_min\":1.5}\n\
                   {\"bench\":\"spawn\",\"server\":\"s\",\"backend\":\"epoll\",\"ns_min\":2}";
        let other = "{\"bench\":\"timer_fire\",\"server\":\"s\",\"backend\":\"epoll\",\"ns_min\":9,\
                     \"allocs_each\":0.25}";
        let mut lines = parse("s", own).expect("two lines");
        merge(&mut lines, &parse("s", other).expect("a line"));
        assert_eq!((lines[0].ns_min, lines[0].number("allocs_each")), (Some(1.5), Some(0.25)));
        assert_eq!(lines[1].number("allocs_each"), None);
        let uring = other.replace("epoll", "io_uring");
        let mut lines = parse("s", own).expect("two lines");
        merge(&mut lines, &parse("s", &uring).expect("a line"));
        assert_eq!(lines[0].number("allocs_each"), None, "another backend's");
    }
}
