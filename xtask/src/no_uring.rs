//! `no-uring`: a command in a process that the kernel refuses io_uring to.
//!
//! Containers and hardened hosts do this, with one of two answers. The filter goes onto this
//! process, which then becomes the command; everything that the command starts inherits it.

use crate::args::Args;
use crate::{Outcome, seccomp};

pub(crate) fn verb(mut args: Args) -> Outcome {
    let errno =
        args.value("--errno")?.map_or(Ok(seccomp::Refusal::NotPermitted), |name| parse(&name))?;
    let command = args.rest()?;
    let Some((program, arguments)) = command.split_first() else {
        return Err("which command? `cargo xtask no-uring -- COMMAND…`".into());
    };
    seccomp::refuse_io_uring(errno)?;
    become_command(program, arguments)
}

fn parse(name: &str) -> Outcome<seccomp::Refusal> {
    match name {
        "EPERM" => Ok(seccomp::Refusal::NotPermitted),
        "ENOSYS" => Ok(seccomp::Refusal::NotImplemented),
        _ => Err(format!(
            "--errno {name}: only EPERM (a policy forbids it) and ENOSYS (the kernel has none)"
        )),
    }
}

#[cfg(unix)]
fn become_command(program: &std::ffi::OsStr, arguments: &[std::ffi::OsString]) -> Outcome {
    use std::os::unix::process::CommandExt;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(format!("cannot run {program:?}: {error}"))
}

#[cfg(not(unix))]
fn become_command(program: &std::ffi::OsStr, _: &[std::ffi::OsString]) -> Outcome {
    Err(format!("cannot become {program:?} on this system"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_that_no_kernel_answers_with_is_refused() {
        assert_eq!(parse("ENOSYS"), Ok(seccomp::Refusal::NotImplemented));
        assert!(parse("EINVAL").unwrap_err().contains("EPERM"));
    }

    #[test]
    fn without_a_command_nothing_is_filtered_and_the_usage_is_told() {
        let args = Args::parse(std::iter::empty()).unwrap();
        assert!(verb(args).unwrap_err().contains("-- COMMAND"));
    }
}
