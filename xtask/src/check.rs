//! `check`: what can be said of the code without running it.

use std::process::Command;

use crate::Outcome;
use crate::args::Args;
use crate::conformance;
use crate::metadata::{self, Package, Workspace};
use crate::run::{cargo, run};

pub(crate) fn verb(args: Args) -> Outcome {
    args.finish()?;
    let workspace = metadata::read()?;
    println!("rust-version {}", one_rust_version(&workspace)?);
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(deny_warnings(cargo().args(["clippy", "--workspace", "--all-features", "--all-targets"])))?;
    // Libraries only: the program is called `pelton` too, and its pages would overwrite the library's.
    let doc = ["doc", "--workspace", "--lib", "--no-deps", "--all-features"];
    run(cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    conformance::check()?;
    for words in feature_checks(&workspace.packages) {
        run(deny_warnings(cargo().arg("clippy").args(words)))?;
    }
    Ok(())
}

fn deny_warnings(clippy: &mut Command) -> &mut Command {
    clippy.args(["--", "-D", "warnings"])
}

/// Every library with no feature, then with each one alone. Clippy rather than check, because a
/// warning that only a subset of the features shows is the first thing that its user would see.
fn feature_checks(packages: &[Package]) -> Vec<Vec<String>> {
    let mut checks = Vec::new();
    for package in packages.iter().filter(|package| package.is_library) {
        let bare = vec!["-p".into(), package.name.clone(), "--no-default-features".into()];
        checks.push(bare.clone());
        for feature in &package.features {
            let mut alone = bare.clone();
            alone.extend(["--features".into(), feature.clone()]);
            checks.push(alone);
        }
    }
    checks
}

/// The oldest compiler that every package promises, which must be the same for all.
fn one_rust_version(workspace: &Workspace) -> Outcome<&str> {
    let mut promised = None;
    for package in &workspace.packages {
        let Some(version) = package.rust_version.as_deref() else {
            let cure = "add `rust-version.workspace = true`";
            return Err(format!("{} declares no rust-version: {cure}", package.name));
        };
        match promised {
            None => promised = Some((version, &package.name)),
            Some((first, _)) if first == version => {}
            Some((first, name)) => {
                let other = &package.name;
                return Err(format!("{name} promises Rust {first}, {other} promises {version}"));
            }
        }
    }
    promised.map(|(version, _)| version).ok_or_else(|| "the workspace has no packages".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, rust_version: Option<&str>, library: bool, has: &[&str]) -> Package {
        Package {
            name: name.into(),
            rust_version: rust_version.map(Into::into),
            is_library: library,
            features: has.iter().map(|&feature| feature.into()).collect(),
        }
    }

    fn workspace(packages: Vec<Package>) -> Workspace {
        Workspace { target_directory: "target".into(), packages }
    }

    #[test]
    fn each_feature_of_each_library_is_checked_alone_and_programs_are_left_out() {
        let packages = [
            package("driver", None, true, &["bytes", "fake-kernel"]),
            package("program", None, false, &["tls"]),
        ];
        let checks: Vec<String> = feature_checks(&packages).iter().map(|c| c.join(" ")).collect();
        assert_eq!(
            checks,
            [
                "-p driver --no-default-features",
                "-p driver --no-default-features --features bytes",
                "-p driver --no-default-features --features fake-kernel",
            ]
        );
    }

    #[test]
    fn every_package_promises_the_same_compiler() {
        let agreed = workspace(vec![
            package("a", Some("1.88"), true, &[]),
            package("b", Some("1.88"), true, &[]),
        ]);
        assert_eq!(one_rust_version(&agreed), Ok("1.88"));
        let differ = workspace(vec![
            package("a", Some("1.88"), true, &[]),
            package("b", Some("1.90"), true, &[]),
        ]);
        assert!(one_rust_version(&differ).unwrap_err().contains("b promises 1.90"));
        let silent = workspace(vec![package("a", None, true, &[])]);
        assert!(one_rust_version(&silent).unwrap_err().contains("rust-version.workspace"));
        assert!(one_rust_version(&workspace(vec![])).is_err());
    }
}
