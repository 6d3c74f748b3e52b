//! `test`: the whole suite, on the backend that is asked for, counted.

use std::ffi::OsString;
use std::process::Command;

use crate::args::Args;
use crate::run::{cargo, count_tests, root};
use crate::tally::Tally;
use crate::{Outcome, floor};

/// The variable that forces a backend. Pelton reads it; this program only sets it.
const BACKEND: &str = "PELTON_BACKEND";

/// What the tests find when they look for a backend.
#[derive(Debug, PartialEq, Eq)]
enum Kernel {
    /// The caller's environment, whatever it says.
    AsCalled,
    /// The choice that Pelton makes by itself.
    Unforced,
    Forced(String),
    /// `io_uring_setup` fails, as in a container that forbids it, and nothing is forced.
    UringRefused,
}

pub(crate) fn verb(mut args: Args) -> Outcome {
    let all = args.flag("--all");
    let backend = args.value("--backend")?;
    let narrowed = args.rest()?;
    let kernels = match (all, backend) {
        (true, Some(_)) => return Err("--all picks the backends itself; drop --backend".into()),
        (true, None) => {
            vec![Kernel::Unforced, Kernel::Forced("epoll".into()), Kernel::UringRefused]
        }
        (false, Some(name)) => vec![Kernel::Forced(name)],
        (false, None) => vec![Kernel::AsCalled],
    };
    let floor = floor::read(&root())?;

    let mut total = Tally::default();
    let mut results = Vec::new();
    for kernel in &kernels {
        let (tally, verdict) = count_tests(&mut command(kernel, &narrowed)?)?;
        let verdict = verdict
            .and_then(|()| if narrowed.is_empty() { floor::hold(tally, floor) } else { Ok(()) });
        total += tally;
        results.push((kernel.label(), tally, verdict));
    }

    if !narrowed.is_empty() {
        println!("the floor of {floor} tests was not checked: arguments narrowed the run");
    }
    let mut failures = Vec::new();
    for (label, tally, verdict) in results {
        if kernels.len() > 1 {
            println!("{label}: {tally}");
        }
        if let Err(message) = verdict {
            eprintln!("xtask: {label}: {message}");
            failures.push(label);
        }
    }
    // The last line of the output, for people and for .ci/run: the reasons stand above it.
    println!("{total}");
    if failures.is_empty() { Ok(()) } else { Err(format!("failed: {}", failures.join(", "))) }
}

impl Kernel {
    fn label(&self) -> String {
        match self {
            Kernel::AsCalled | Kernel::Unforced => "default".into(),
            Kernel::Forced(name) => format!("{BACKEND}={name}"),
            Kernel::UringRefused => "io_uring refused".into(),
        }
    }
}

fn command(kernel: &Kernel, narrowed: &[OsString]) -> Outcome<Command> {
    let cargo = cargo();
    let mut command = match kernel {
        // This program again, because a seccomp filter is put on by the process that keeps it.
        Kernel::UringRefused => {
            let xtask = std::env::current_exe()
                .map_err(|error| format!("cannot find this program: {error}"))?;
            let mut command = Command::new(xtask);
            command.args(["no-uring", "--"]).arg(cargo.get_program()).current_dir(root());
            command
        }
        _ => cargo,
    };
    match kernel {
        Kernel::AsCalled => {}
        Kernel::Unforced | Kernel::UringRefused => {
            command.env_remove(BACKEND);
        }
        Kernel::Forced(name) => {
            command.env(BACKEND, name);
        }
    }
    command.arg("test");
    // Cargo would let `--workspace` win over a package that the caller named.
    if !names_a_package(narrowed) {
        command.arg("--workspace");
    }
    // Every binary runs even if one fails, or the count would depend on the order.
    command.args(["--all-features", "--no-fail-fast"]).args(narrowed);
    Ok(command)
}

fn names_a_package(narrowed: &[OsString]) -> bool {
    let for_cargo = narrowed.iter().take_while(|word| *word != "--");
    for_cargo
        .filter_map(|word| word.to_str())
        .any(|word| word == "--package" || word.starts_with("--package=") || word.starts_with("-p"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    fn backend(command: &Command) -> Option<Option<OsString>> {
        let (_, value) = command.get_envs().find(|(name, _)| *name == BACKEND)?;
        Some(value.map(OsString::from))
    }

    #[test]
    fn a_plain_run_leaves_the_callers_choice_of_backend_alone() {
        let command = command(&Kernel::AsCalled, &[]).unwrap();
        assert_eq!(backend(&command), None);
        assert_eq!(words(&command), ["test", "--workspace", "--all-features", "--no-fail-fast"]);
    }

    #[test]
    fn a_named_package_is_run_alone_and_a_filter_is_looked_for_everywhere() {
        for package in [&["-p", "pelton"][..], &["-ppelton"], &["--package=pelton"]] {
            let narrowed: Vec<OsString> = package.iter().map(OsString::from).collect();
            let command = command(&Kernel::AsCalled, &narrowed).unwrap();
            assert!(!words(&command).contains(&"--workspace".into()), "{package:?}");
        }
        let narrowed = ["timer".into(), "--".into(), "-p".into()];
        let command = command(&Kernel::AsCalled, &narrowed).unwrap();
        assert!(words(&command).contains(&"--workspace".into()));
    }

    #[test]
    fn a_forced_backend_reaches_the_tests_and_an_unforced_one_is_cleared() {
        let forced = command(&Kernel::Forced("epoll".into()), &[]).unwrap();
        assert_eq!(backend(&forced), Some(Some("epoll".into())));
        let unforced = command(&Kernel::Unforced, &[]).unwrap();
        assert_eq!(backend(&unforced), Some(None));
    }

    #[test]
    fn the_refused_run_goes_through_no_uring_with_the_same_arguments() {
        let narrowed = ["tcp".into(), "--".into(), "--nocapture".into()];
        let refused = words(&command(&Kernel::UringRefused, &narrowed).unwrap());
        let plain = words(&command(&Kernel::Unforced, &narrowed).unwrap());
        assert_eq!(refused[..2], ["no-uring", "--"]);
        assert_eq!(refused[3..], plain[..]);
    }

    #[test]
    fn all_and_a_backend_together_are_refused_before_anything_runs() {
        let words = ["--all", "--backend", "epoll"].into_iter().map(OsString::from);
        assert!(verb(Args::parse(words).unwrap()).unwrap_err().contains("--backend"));
    }
}
