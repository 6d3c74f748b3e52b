//! The `pelton` program: serve files, and look at what would run here.
//!
//! A library only for the program and for what fuzzes it: nothing here is for others to build on.
//!
//! # Where things are
//! A request goes through `connection` (hyper and the time limits) into `app` (the service of
//! one reactor), which asks `path`, `cache` and, on the pool, `files`; `response` plans the
//! head and the parts, and `body` reads them while they are sent. `runtime` is all that they
//! know of the runtime beneath, and `on_pelton` how it is Pelton. `reactor` is the life of one
//! reactor, `serve` the start and the end of all.

mod access_log;
mod admin;
mod app;
mod args;
mod bind;
mod body;
mod cache;
mod conditional;
mod connection;
mod date;
mod doctor;
mod encoding;
mod exchange;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod listing;
mod on_pelton;
mod open_files;
mod path;
mod range;
mod reactor;
mod response;
mod root;
mod runtime;
mod serve;
mod stop;
#[cfg(test)]
mod testing;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(options) => serve::run(&options),
        Command::Doctor(options) => {
            let diagnosis = pelton::driver::probe::diagnose();
            print(&doctor::report(&diagnosis, options.json));
            if diagnosis.backend.is_none() {
                // The report has said why; a script asks for the code.
                return ExitCode::FAILURE;
            }
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("pelton: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Prints, and does not mind that nobody reads: `pelton doctor | head -1` is no failure.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
