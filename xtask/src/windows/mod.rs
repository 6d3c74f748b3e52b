//! `windows`: the tests of Windows, run under Wine on a Linux machine, and its targets checked.
//!
//! Nothing here needs Windows, rustup's targets or a network beyond the system's packages: Debian's compiler
//! and its sources make the standard library once (`kit.rs`), mingw links, and Wine runs each test in a process
//! of its own with a limit to its time (`suite.rs`), because a completion that never comes is a hang and not a
//! failure. What Wine cannot do is in a list with its reasons (`.ci/windows-skips`), and so is how many tests
//! must have run (`.ci/windows-floor`).

mod kit;
mod skips;
mod suite;

use crate::Outcome;
use crate::args::Args;
use crate::run::run;

pub(crate) const TARGET: &str = "x86_64-pc-windows-gnu";
/// Targets that are checked and neither linked nor run.
const CHECKED: &[&str] = &["x86_64-pc-windows-msvc", "aarch64-pc-windows-msvc"];

/// The packages of the workspace that are for Windows too.
pub(crate) const PORTABLE: &[&str] =
    &["pelton-driver", "pelton", "pelton-http", "pelton-cli", "pelton-conformance"];

pub(crate) fn verb(mut args: Args) -> Outcome {
    let (require, install) = (args.flag("--require"), args.flag("--install"));
    let (check, build) = (args.flag("--check"), args.flag("--build"));
    let only = args.value("--only")?;
    let rest = args.rest()?;
    if install && let Err(error) = kit::install() {
        if require {
            return Err(error);
        }
        println!("skipped: windows: what it needs could not be installed: {error}");
        return Ok(());
    }
    if let Some(lacking) = kit::lacks() {
        if require {
            return Err(lacking);
        }
        println!("skipped: windows: {lacking}");
        return Ok(());
    }
    let kit = kit::Kit::ready()?;
    if check {
        return checked(&kit);
    }
    if build {
        return suite::built(&kit, &rest).map(|_| ());
    }
    suite::of(&kit, only.as_deref(), &rest)
}

/// The cells of the page of behaviours that completion ports have shown under Wine; none where there is no Wine.
pub(crate) fn shown() -> Outcome<String> {
    if let Some(lacking) = kit::lacks() {
        println!("skipped: the column iocp: {lacking}");
        return Ok(String::new());
    }
    let kit = kit::Kit::ready()?;
    let mut command = kit.cargo(TARGET, &["run", "--quiet", "--package", "pelton-conformance"]);
    command.args(["--", "show", "iocp"]);
    command.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", "wine");
    for (name, value) in kit.wine("wine").get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let shown = crate::run::output_of(&mut command)?;
    kit.end();
    Ok(shown.replace('\r', ""))
}

/// Lints for the target that runs, and types for those that only compile.
fn checked(kit: &kit::Kit) -> Outcome {
    for package in PORTABLE {
        let words = ["check", "--package", package, "--all-targets"];
        run(kit.cargo(TARGET, &words).envs(kit.lints()))?;
    }
    for target in CHECKED {
        kit.types(target)?;
        for package in PORTABLE {
            run(&mut kit.cargo(target, &["check", "--package", package]))?;
        }
    }
    Ok(())
}
