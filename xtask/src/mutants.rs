//! `mutants`: puts bugs back, one after the other, and says what finds each and how soon.
//!
//! One build has all of them (`--cfg pelton_mutants`), and a variable switches one on. Those of memory order are
//! for the models under loom, those that may be the simulator's own for the scripts that every system plays, and all
//! others for the simulated worlds.

use crate::Outcome;
use crate::args::Args;
use crate::nightly::separate_target;
use crate::run::{cargo, output_of, run, succeeds};
use crate::suites;

/// The file that `--write` makes.
const TABLE: &str = "docs/mutants.md";

/// The build that has them, with the room of Windows on the simulated system.
const WORLDS: &str = "--cfg pelton_mutants --cfg pelton_iocp_elsewhere";

const VARIABLE: &str = "PELTON_MUTANT";

pub(crate) fn verb(mut args: Args) -> Outcome {
    let write = args.flag("--write");
    let seeds = args.value("--seeds")?;
    let names: Vec<String> = args
        .rest()?
        .into_iter()
        .map(|name| name.into_string().map_err(|name| format!("{name:?} is not text")))
        .collect::<Outcome<_>>()?;
    if write && !names.is_empty() {
        return Err("--write is for the whole table: name no mutant".into());
    }
    let target = separate_target("mutants")?;
    let models = output_of(swarm(&target).arg("--models"))?;
    let wanted = |name: &&str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let models: Vec<&str> = models.lines().filter(wanted).collect();
    let mut command = swarm(&target);
    for name in found_by_models(&models)? {
        command.args(["--tested", name]);
    }
    let scripts = output_of(swarm(&target).arg("--scripts"))?;
    let scripts: Vec<&str> = scripts.lines().filter(wanted).collect();
    for name in found_by_scripts(&scripts, &target)? {
        command.args(["--tested", name]);
    }
    if let Some(seeds) = seeds {
        command.args(["--seeds", &seeds]);
    }
    if write {
        command.args(["--write", TABLE]);
    }
    run(command.args(names))
}

/// `pelton-swarm mutants`, in a build that has them.
fn swarm(target: &str) -> std::process::Command {
    let mut command = cargo();
    command.args(["run", "--release", "--target-dir", target, "-p", "pelton-swarm", "--"]);
    command.arg("mutants");
    command.env("RUSTFLAGS", WORLDS);
    cheap(&mut command);
    command
}

/// Optimized, but not for the last per cent, which would cost more to link than it saves.
fn cheap(command: &mut std::process::Command) {
    command.env("CARGO_PROFILE_RELEASE_LTO", "off");
    command.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
}

/// Those of the mutants under which a model fails. Without any of them all must pass.
fn found_by_models<'a>(mutants: &[&'a str]) -> Outcome<Vec<&'a str>> {
    if mutants.is_empty() {
        return Ok(Vec::new());
    }
    let target = separate_target("mutants-loom")?;
    let model = |suite: &[&str], mutant: Option<&str>| {
        let mut command = cargo();
        command.args(["test", "--release", "--target-dir", &target]).args(suite);
        command.env("RUSTFLAGS", "--cfg loom --cfg pelton_mutants");
        cheap(&mut command);
        match mutant {
            Some(mutant) => command.env(VARIABLE, mutant),
            None => command.env_remove(VARIABLE),
        };
        command
    };
    for suite in suites::LOOM {
        run(&mut model(suite, None))?;
    }
    let mut found = Vec::new();
    for mutant in mutants {
        let fails = suites::LOOM.iter().any(|suite| !succeeds(&mut model(suite, Some(mutant))));
        println!("{mutant}: {}", if fails { "a model fails" } else { "every model passes" });
        if fails {
            found.push(*mutant);
        }
    }
    Ok(found)
}

/// Those of the mutants under which a script has an outcome that its model does not allow. Without any of them there
/// must be none.
fn found_by_scripts<'a>(mutants: &[&'a str], target: &str) -> Outcome<Vec<&'a str>> {
    if mutants.is_empty() {
        return Ok(Vec::new());
    }
    let scripts = |mutant: Option<&str>| {
        let mut command = cargo();
        command.args(["test", "--release", "--target-dir", target]).args(suites::SCRIPTS);
        command.env("RUSTFLAGS", WORLDS);
        cheap(&mut command);
        match mutant {
            Some(mutant) => command.env(VARIABLE, mutant),
            None => command.env_remove(VARIABLE),
        };
        command
    };
    run(&mut scripts(None))?;
    let mut found = Vec::new();
    for mutant in mutants {
        let fails = !succeeds(&mut scripts(Some(mutant)));
        println!("{mutant}: {}", if fails { "a script fails" } else { "every script passes" });
        if fails {
            found.push(*mutant);
        }
    }
    Ok(found)
}
