//! Writes docs/conformance.md, or checks that it has the rows that there are; or shows the cells of one backend, for a
//! page that is written elsewhere.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome =
        match (words.next().as_deref(), words.next(), words.next()) {
            (Some("write"), Some(path), shown) => {
                pelton_conformance::write(path.as_ref(), shown.as_deref().map(AsRef::as_ref))
            }
            (Some("check"), Some(path), None) => pelton_conformance::check(path.as_ref()),
            (Some("show"), Some(backend), None) => pelton_conformance::show(&backend),
            _ => Err("usage: pelton-conformance write PATH [SHOWN] | check PATH | show BACKEND"
                .to_owned()),
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
