//! `ci`: the script of the same name, so that the list of its steps exists once.

use std::process::Command;

use crate::Outcome;
use crate::args::Args;
use crate::run::{root, run};

pub(crate) fn verb(args: Args) -> Outcome {
    args.finish()?;
    run(Command::new("bash").arg(".ci/run").current_dir(root()))
}
