//! Takes the versions of what is measured from the lock file, so that what a program says of itself is true.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const THIS: &str = "pelton-bench-servers";

fn main() {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let lock = here.parent().expect("the workspace is above").join("Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    println!("cargo::rerun-if-changed=build.rs");
    let lock = fs::read_to_string(&lock).unwrap_or_default();

    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut ours: Vec<&str> = Vec::new();
    for package in lock.split("[[package]]") {
        let (Some(name), Some(version)) = (field(package, "name"), field(package, "version"))
        else {
            continue;
        };
        versions.entry(name).or_default().push(version);
        if name == THIS {
            ours = package.lines().filter_map(dependency).collect();
        }
    }

    let mut code = String::from(
        "/// The versions of a package in the lock file, the one that these programs use first.\n\
         pub fn version(package: &str) -> &'static str {\n    match package {\n",
    );
    for (name, versions) in &versions {
        // The lock file names a dependency's version only where there are several.
        let direct = |version: &&&str| ours.contains(&format!("{name} {version}").as_str());
        let text = match versions.iter().filter(direct).max() {
            Some(newest) => newest,
            None => versions.last().expect("each name came with one"),
        };
        writeln!(code, "        {name:?} => {text:?},").expect("a string takes everything");
    }
    code.push_str("        _ => \"unknown\",\n    }\n}\n");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&out).join("versions.rs"), code).expect("OUT_DIR can be written");
}

/// The value of `key = "value"`.
fn field<'a>(package: &'a str, key: &str) -> Option<&'a str> {
    package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")).map(unquoted)
}

/// A line of a list of dependencies.
fn dependency(line: &str) -> Option<&str> {
    line.strip_prefix(" \"")?.strip_suffix("\",")
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches('"')
}
