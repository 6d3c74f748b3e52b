//! The microbenchmarks: programs that measure themselves and print one JSON object a line.

use std::path::Path;
use std::process::{Command, Stdio};

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

/// Runs one program, group by group, and reads what it measured.
pub(crate) fn measure(&(name, program, args): &Row, bin_dir: &Path) -> Result<Vec<Micro>> {
    let binary = bin_dir.join(program);
    if !binary.exists() {
        return Err(Error::server(
            name,
            format!("no program `{program}` in the directory of the servers"),
        ));
    }
    let mut all = Vec::new();
    for (group, cpus) in GROUPS {
        machine::pin(cpus).during("pinning a microbenchmark")?;
        let mut command = Command::new(&binary);
        command.args(args).args(["--only", group]).stdin(Stdio::null());
        let output = command.output();
        machine::pin(&[LOAD_CPU]).during("pinning the client")?;
        let output = output.during(format!("starting {program}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or_default().to_owned();
            return Err(Error::server(name, format!("{group}: ended, {}: {last}", output.status)));
        }
        all.extend(parse(name, &String::from_utf8_lossy(&output.stdout))?);
    }
    if all.is_empty() {
        return Err(Error::server(name, "printed no measurement"));
    }
    Ok(all)
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
}
