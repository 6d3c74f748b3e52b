//! A compiler for other systems' targets, where rustup cannot fetch them: Debian's, with the standard library
//! built once from Debian's source and kept outside of the tree.
//!
//! The kit is a sysroot: Debian's own libraries for this machine, and beside them those of each target. Wrappers
//! name it to the compiler and to its linter, so that no build needs a nightly flag and none builds the library
//! again.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::metadata;
use crate::run::{cargo, output_of, run, succeeds};

const RUSTC: &str = "/usr/bin/rustc";
const RUSTDOC: &str = "/usr/bin/rustdoc";
const CLIPPY: &str = "/usr/bin/clippy-driver";
/// The packages of Debian that make a kit.
pub(crate) const PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "rust-web-clippy"];

/// Installs what is missing, and what else is named, with the system's package manager.
pub(crate) fn install(others: &[&str]) -> Outcome {
    // Its lists may be old, which is no reason to give up.
    let _ = run(Command::new("apt-get").args(["update", "-qq"]));
    // Somebody else may be installing, which ends.
    let wait = ["-o", "DPkg::Lock::Timeout=600"];
    let mut words = vec!["install", "-y", "-qq", "--no-install-recommends"];
    words.extend(wait);
    words.extend(PACKAGES.iter().chain(others));
    run(Command::new("apt-get").args(words).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// True where the system's package manager has what a kit needs.
pub(crate) fn can_install() -> bool {
    PACKAGES.iter().all(|name| succeeds(Command::new("apt-cache").args(["show", name])))
}

/// What a kit lacks here, with the cure.
pub(crate) fn lacks() -> Option<String> {
    let there = [RUSTC, RUSTDOC, CLIPPY].iter().all(|path| Path::new(path).is_file())
        && sysroot_of_debian().is_ok_and(|root| root.join(SOURCE).is_file());
    let cure = format!("`apt-get install {}` (Debian 12), or --install", PACKAGES.join(" "));
    (!there).then(|| format!("Debian's Rust with its source and linter is not here; {cure}"))
}

const SOURCE: &str = "lib/rustlib/src/rust/library/std/Cargo.toml";

pub(crate) struct Kit {
    folder: PathBuf,
    host: String,
}

impl Kit {
    /// Finds the kit of this compiler, or makes it, with the library of no target yet.
    pub(crate) fn ready() -> Outcome<Kit> {
        let version = output_of(Command::new(RUSTC).arg("-vV"))?;
        let field = |name: &str| {
            let line = version.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
                .ok_or_else(|| format!("`{RUSTC} -vV` has no line `{name}`"))
        };
        let (release, host) = (field("release:")?, field("host:")?);
        let folder = cache()?.join("pelton/kit").join(release);
        let kit = Kit { folder, host };
        kit.lay_out()?;
        Ok(kit)
    }

    /// Where it is kept, with room for what else a target needs.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn sysroot(&self) -> PathBuf {
        self.folder.join("tc")
    }

    /// The wrappers, and the library of this machine, for what runs inside of the compiler.
    fn lay_out(&self) -> Outcome {
        let bin = self.sysroot().join("bin");
        make_folder(&bin)?;
        let sysroot = self.sysroot();
        let sysroot = sysroot.display();
        let rustc = format!("#!/bin/sh\nexec {RUSTC} --sysroot '{sysroot}' \"$@\"\n");
        let rustdoc = format!("#!/bin/sh\nexec {RUSTDOC} --sysroot '{sysroot}' \"$@\"\n");
        // As a wrapper it is told the compiler first.
        let clippy =
            format!("#!/bin/sh\nshift\nexec {CLIPPY} rustc --sysroot '{sysroot}' \"$@\"\n");
        for (name, text) in [("rustc", rustc), ("rustdoc", rustdoc), ("clippy-driver", clippy)] {
            let path = bin.join(name);
            if fs::read_to_string(&path).is_ok_and(|there| there == text) {
                continue;
            }
            write(&path, &text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .map_err(|error| about(&path, &error))?;
        }
        let libraries = self.sysroot().join("lib/rustlib");
        make_folder(&libraries)?;
        let (own, link) =
            (sysroot_of_debian()?.join("lib/rustlib").join(&self.host), libraries.join(&self.host));
        if link.exists() {
            return Ok(());
        }
        symlink(&own, &link).map_err(|error| about(&link, &error))
    }

    /// The standard library of a target to link programs with, made where it is not there yet: a minute or two.
    pub(crate) fn library(&self, target: &str) -> Outcome {
        self.made(target, "complete", &["rlib", "rmeta"], &[("RUSTFLAGS", "")])
    }

    /// What a check needs of the standard library of a target, which is no code: made in half of the time.
    pub(crate) fn types(&self, target: &str) -> Outcome {
        if self.libraries(target).join("complete").exists() {
            return Ok(());
        }
        let less = [("RUSTFLAGS", "-Zno-codegen"), ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")];
        self.made(target, "types", &["rmeta"], &less)
    }

    fn libraries(&self, target: &str) -> PathBuf {
        self.sysroot().join("lib/rustlib").join(target).join("lib")
    }

    /// Makes a standard library, and leaves a mark that it is there with all its files of some kinds.
    fn made(&self, target: &str, mark: &str, kinds: &[&str], how: &[(&str, &str)]) -> Outcome {
        let libraries = self.libraries(target);
        if libraries.join(mark).exists() {
            return Ok(());
        }
        let empty = self.folder.join("std");
        make_folder(&empty.join("src"))?;
        let manifest =
            "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n";
        write(&empty.join("Cargo.toml"), manifest)?;
        write(&empty.join("src/lib.rs"), "#![no_std]\n")?;
        let mut command = cargo();
        command.current_dir(&empty).args(["build", "--release", "--target", target]);
        command.arg("-Zbuild-std=std,test,panic_abort,panic_unwind");
        command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", RUSTC);
        command.envs(how.iter().copied()).env("CARGO_TARGET_DIR", empty.join("target"));
        run(&mut command)?;
        // Types without code must not lie beside the same with it: the compiler would not know which to take.
        if libraries.exists() {
            fs::remove_dir_all(&libraries).map_err(|error| about(&libraries, &error))?;
        }
        make_folder(&libraries)?;
        let built = empty.join("target").join(target).join("release/deps");
        for entry in fs::read_dir(&built).map_err(|error| about(&built, &error))? {
            let path = entry.map_err(|error| about(&built, &error))?.path();
            let name = path.file_name().expect("it has a name").to_owned();
            let is_wanted =
                path.extension().is_some_and(|end| kinds.iter().any(|kind| end == *kind));
            if is_wanted && !name.to_string_lossy().starts_with("libempty-") {
                fs::copy(&path, libraries.join(name)).map_err(|error| about(&path, &error))?;
            }
        }
        write(&libraries.join(mark), "")?;
        // What it was made from is of no use any more.
        let made = empty.join("target").join(target);
        fs::remove_dir_all(&made).map_err(|error| about(&made, &error))
    }

    /// A cargo that compiles for a target.
    pub(crate) fn cargo(&self, target: &str, words: &[&str]) -> Command {
        let bin = self.sysroot().join("bin");
        let mut command = cargo();
        command.args(words).args(["--target", target]);
        command.env("RUSTC", bin.join("rustc")).env("RUSTDOC", bin.join("rustdoc"));
        command.env_remove("RUSTFLAGS");
        // Another compiler's files, in a folder of their own.
        if let Ok(workspace) = metadata::read() {
            command.env("CARGO_TARGET_DIR", workspace.target_directory.join("kit"));
        }
        command
    }

    /// The variables by which a check is one with lints, none of which may be broken.
    pub(crate) fn lints(&self) -> [(&'static str, String); 2] {
        let driver = self.sysroot().join("bin/clippy-driver");
        let wrapper = ("RUSTC_WORKSPACE_WRAPPER", driver.display().to_string());
        // One of them does not see on Windows that the initializer is constant already.
        let flags = ["-Dwarnings", "-Aclippy::missing_const_for_thread_local"];
        let flags = flags.map(|flag| format!("{flag}__CLIPPY_HACKERY__")).concat();
        [wrapper, ("CLIPPY_ARGS", flags)]
    }
}

fn sysroot_of_debian() -> Outcome<PathBuf> {
    Ok(output_of(Command::new(RUSTC).args(["--print", "sysroot"]))?.trim().into())
}

/// Where things are kept that can be made again.
fn cache() -> Outcome<PathBuf> {
    if let Some(cache) = std::env::var_os("XDG_CACHE_HOME").filter(|cache| !cache.is_empty()) {
        return Ok(cache.into());
    }
    let home = std::env::var_os("HOME").ok_or("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cache"))
}

fn make_folder(path: &Path) -> Outcome {
    fs::create_dir_all(path).map_err(|error| about(path, &error))
}

pub(crate) fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(|error| about(path, &error))
}

fn about(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
