//! Writes docs/conformance.md, or checks that it has the rows that there are.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match (words.next().as_deref(), words.next()) {
        (Some("write"), Some(path)) => pelton_conformance::write(path.as_ref()),
        (Some("check"), Some(path)) => pelton_conformance::check(path.as_ref()),
        _ => Err("usage: pelton-conformance write|check PATH".to_owned()),
    };
    match outcome {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
