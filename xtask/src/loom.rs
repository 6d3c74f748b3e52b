//! `loom` and `shuttle`: the models of what crosses threads, on the stable compiler.

use crate::Outcome;
use crate::args::Args;
use crate::nightly::{count, separate_target};
use crate::run::cargo;
use crate::suites;

pub(crate) fn verb(args: Args) -> Outcome {
    modelled(args, "loom", suites::LOOM)
}

pub(crate) fn shuttle(args: Args) -> Outcome {
    modelled(args, "shuttle", suites::SHUTTLE)
}

fn modelled(args: Args, checker: &str, suites: &[&[&str]]) -> Outcome {
    args.finish()?;
    let target = separate_target(checker)?;
    count(suites, |suite| {
        let mut command = cargo();
        // Optimized, because a model visits so many interleavings; but not for the last per cent,
        // which would cost more to link than it saves.
        command.args(["test", "--release", "--target-dir", &target]).args(suite);
        command.env("RUSTFLAGS", format!("--cfg {checker}"));
        command.env("CARGO_PROFILE_RELEASE_LTO", "off");
        command.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        command
    })
}
