//! `cargo xtask VERB`: the project's chores, one verb each.
//!
//! A verb is one row of [`VERBS`], which is also its help. CONTRIBUTING.md describes the same list,
//! and a test holds the two together. Nothing here is published; it needs no tool beyond a stable
//! toolchain, and a verb that wants more says what to install.

mod args;
mod bench;
mod check;
mod ci;
mod conformance;
mod floor;
mod fuzz;
mod interrupted;
mod iocp;
mod kernels;
#[cfg(unix)]
mod kit;
mod kqueue;
mod loom;
mod metadata;
mod mutants;
mod nightly;
mod no_uring;
mod run;
mod seccomp;
mod sim;
mod suites;
mod tally;
#[cfg(unix)]
mod targets;
mod test;
#[cfg(unix)]
mod windows;

use std::ffi::OsString;
use std::process::ExitCode;

use args::Args;

/// What a verb gives back. The error is a sentence for the person who typed the command.
type Outcome<T = ()> = Result<T, String>;

struct Verb {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(Args) -> Outcome,
}

const VERBS: &[Verb] = &[
    Verb {
        name: "test",
        usage: "test [--backend NAME | --all] [-- CARGO-TEST-ARGS…]",
        about: "every test of the workspace; --all repeats them on epoll and with io_uring refused",
        run: test::verb,
    },
    Verb {
        name: "check",
        usage: "check",
        about: "formatting, lints, documentation, every feature by itself, rust-version",
        run: check::verb,
    },
    Verb {
        name: "miri",
        usage: "miri [--require]",
        about: "the ownership tests under Miri (nightly; skipped where Miri is missing)",
        run: nightly::miri,
    },
    Verb {
        name: "asan",
        usage: "asan [--require]",
        about: "the tests under AddressSanitizer (nightly; skipped where it is missing)",
        run: nightly::asan,
    },
    Verb {
        name: "tsan",
        usage: "tsan [--require]",
        about: "the tests under ThreadSanitizer (nightly with rust-src; skipped where missing)",
        run: nightly::tsan,
    },
    Verb {
        name: "loom",
        usage: "loom",
        about: "the models of what crosses threads, every interleaving, under loom",
        run: loom::verb,
    },
    Verb {
        name: "shuttle",
        usage: "shuttle",
        about: "the same models with more threads, in many random interleavings, under shuttle",
        run: loom::shuttle,
    },
    Verb {
        name: "sim",
        usage: "sim [--seeds N] [--world NAME] [-- OPTIONS…]",
        about: "the simulator's worlds under as many seeds as asked, and how fast that went",
        run: sim::verb,
    },
    Verb {
        name: "mutants",
        usage: "mutants [--seeds N] [--write] [-- NAME…]",
        about: "puts known bugs back and says what finds each; fails where nothing does",
        run: mutants::verb,
    },
    Verb {
        name: "no-uring",
        usage: "no-uring [--errno EPERM|ENOSYS] -- COMMAND…",
        about: "run a command in a process where the kernel refuses io_uring (Linux)",
        run: no_uring::verb,
    },
    Verb {
        name: "interrupted",
        usage: "interrupted [--only CALL] [--require] [-- CARGO-TEST-ARGS…]",
        about: "the tests while every third wait is interrupted, and with io_uring refused (strace)",
        run: interrupted::verb,
    },
    Verb {
        name: "fuzz",
        usage: "fuzz [script] [request] [parse] [--seconds N] [--require]",
        about: "libFuzzer on the targets of fuzz/, a minute each (nightly; skipped where missing)",
        run: fuzz::verb,
    },
    Verb {
        name: "kernels",
        usage: "kernels [--install] [--require] [--kernel IMAGE] [--only NAME]",
        about: "the tests on Linux 6.1 in an emulated machine (qemu; skipped where it is missing)",
        run: kernels::verb,
    },
    Verb {
        name: "iocp",
        usage: "iocp [-- CARGO-TEST-ARGS…]",
        about: "the tests on the room of Windows, on the simulated system (Linux)",
        run: iocp::verb,
    },
    Verb {
        name: "kqueue",
        usage: "kqueue [-- CARGO-TEST-ARGS…]",
        about: "the tests on kqueue's room, on a queue that epoll plays (Linux)",
        run: kqueue::verb,
    },
    #[cfg(unix)]
    Verb {
        name: "targets",
        usage: "targets [--install] [--require] [--only NAME]",
        about: "lints and types for macOS and the BSDs (skipped where their libraries are missing)",
        run: targets::verb,
    },
    #[cfg(unix)]
    Verb {
        name: "windows",
        usage: "windows [--install] [--require] [--check | --build] [--only NAME] [-- CARGO-TEST-ARGS…]",
        about: "the tests of Windows under Wine; --check lints its targets (skipped where missing)",
        run: windows::verb,
    },
    Verb {
        name: "conformance",
        usage: "conformance [--check]",
        about: "run every behaviour on every backend and write docs/conformance.md; or check its rows",
        run: conformance::verb,
    },
    Verb {
        name: "bench",
        usage: "bench [--quick] [-- OPTIONS…]",
        about: "the whole comparison with the other runtimes, into bench/results (Linux)",
        run: bench::bench,
    },
    Verb {
        name: "goals",
        usage: "goals [--quick] [-- OPTIONS…]",
        about: "a line for each performance goal; fails when one is missed (Linux)",
        run: bench::goals,
    },
    Verb {
        name: "gate",
        usage: "gate [--update]",
        about: "instructions, system calls and allocations per request against bench/baseline.json",
        run: bench::gate,
    },
    Verb {
        name: "ci",
        usage: "ci",
        about: "everything that .ci/run does, in its order",
        run: ci::verb,
    },
    Verb { name: "help", usage: "help", about: "this list", run: help },
];

fn main() -> ExitCode {
    match dispatch(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(mut words: impl Iterator<Item = OsString>) -> Outcome {
    if kernels::is_guest() {
        return kernels::guest();
    }
    let Some(name) = words.next() else {
        print!("{}", help_text());
        return Err("which verb?".into());
    };
    let name = match name.to_str() {
        Some("-h" | "--help") => "help",
        Some(name) => name,
        None => "",
    };
    match VERBS.iter().find(|verb| verb.name == name) {
        Some(verb) => {
            let args = Args::parse(words)?;
            if args.asks_for_help() {
                println!("cargo xtask {}\n    {}", verb.usage, verb.about);
                return Ok(());
            }
            (verb.run)(args).map_err(|message| format!("{name}: {message}"))
        }
        None => Err(format!("no verb `{name}`; `cargo xtask help` lists them")),
    }
}

fn help(args: Args) -> Outcome {
    args.finish()?;
    print!("{}", help_text());
    Ok(())
}

fn help_text() -> String {
    let mut text = String::from("cargo xtask VERB\n\n");
    for verb in VERBS {
        text.push_str(&format!("  {}\n      {}\n", verb.usage, verb.about));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_the_table_of_contributing() {
        let contributing = include_str!("../../CONTRIBUTING.md");
        for verb in VERBS {
            let row = format!("| `{}", verb.name);
            assert!(contributing.contains(&row), "CONTRIBUTING.md has no row for `{}`", verb.name);
        }
    }

    #[test]
    fn help_names_every_verb_with_its_usage() {
        let text = help_text();
        for verb in VERBS {
            assert!(verb.usage.starts_with(verb.name));
            assert!(text.contains(verb.usage) && text.contains(verb.about));
        }
    }

    #[test]
    fn an_unknown_verb_is_an_error_that_points_to_help() {
        let error = dispatch(["tset".into()].into_iter()).unwrap_err();
        assert!(error.contains("tset") && error.contains("cargo xtask help"), "{error}");
    }

    #[test]
    fn an_option_that_a_verb_does_not_know_is_an_error_before_anything_runs() {
        let error = dispatch(["check".into(), "--fast".into()].into_iter()).unwrap_err();
        assert!(error.contains("--fast"), "{error}");
    }
}
