//! What compiles and runs programs of Windows on this machine, made once and kept outside of the tree.
//!
//! The kit is a sysroot: Debian's own for this machine, and beside it the standard library of each target,
//! built from Debian's source. Wrappers name it to the compiler, so that no build needs a nightly flag. Wine gets
//! a prefix of its own, with the one library that Wine 8 lacks: `bcryptprimitives.dll`, whose single function
//! the standard library asks for random numbers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::TARGET;
use crate::Outcome;
use crate::metadata;
use crate::run::{cargo, output_of, run, succeeds};

const RUSTC: &str = "/usr/bin/rustc";
const RUSTDOC: &str = "/usr/bin/rustdoc";
const CLIPPY: &str = "/usr/bin/clippy-driver";
const GCC: &str = "x86_64-w64-mingw32-gcc";
const PACKAGES: &[&str] = &[
    "rustc-web",
    "rust-web-src",
    "rust-web-clippy",
    "gcc-mingw-w64-x86-64-win32",
    "wine",
    "wine64",
];

/// What the standard library of Windows takes its random numbers from, and Wine 8 has not.
const SHIM: &str = "\
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T len) {
    while (len > 0) {
        ULONG now = len > 0x10000000 ? 0x10000000 : (ULONG)len;
        if (!SystemFunction036(data, now)) return FALSE;
        data += now;
        len -= now;
    }
    return TRUE;
}
";

/// Installs what is missing, with the system's package manager.
pub(super) fn install() -> Outcome {
    if lacks().is_none() {
        return Ok(());
    }
    // Its lists may be old, which is no reason to give up.
    let _ = run(Command::new("apt-get").args(["update", "-qq"]));
    let mut words = vec!["install", "-y", "-qq", "--no-install-recommends"];
    words.extend(PACKAGES);
    run(Command::new("apt-get").args(words).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// What is missing here, with the cure.
pub(super) fn lacks() -> Option<String> {
    let there = [RUSTC, RUSTDOC, CLIPPY].iter().all(|path| Path::new(path).is_file())
        && succeeds(Command::new(GCC).arg("--version"))
        && succeeds(Command::new("wine").arg("--version"))
        && source().is_some();
    let cure = format!("`apt-get install {}` (Debian 12), or --install", PACKAGES.join(" "));
    (!there).then(|| format!("Debian's Rust, mingw and Wine are not all here; {cure}"))
}

/// Where the source of the standard library is.
fn source() -> Option<PathBuf> {
    let sysroot = output_of(Command::new(RUSTC).args(["--print", "sysroot"])).ok()?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    source.join("std/Cargo.toml").is_file().then_some(source)
}

pub(super) struct Kit {
    folder: PathBuf,
    host: String,
}

impl Kit {
    /// Finds the kit of this compiler, or makes it.
    pub(super) fn ready() -> Outcome<Kit> {
        let version = output_of(Command::new(RUSTC).arg("-vV"))?;
        let field = |name: &str| {
            let line = version.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
                .ok_or_else(|| format!("`{RUSTC} -vV` has no line `{name}`"))
        };
        let (release, host) = (field("release:")?, field("host:")?);
        let folder = cache()?.join("pelton/windows-kit").join(release);
        let kit = Kit { folder, host };
        kit.lay_out()?;
        kit.library(TARGET)?;
        kit.prefix()?;
        Ok(kit)
    }

    fn sysroot(&self) -> PathBuf {
        self.folder.join("tc")
    }

    fn libraries(&self, target: &str) -> PathBuf {
        self.sysroot().join("lib/rustlib").join(target).join("lib")
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
            fs::write(&path, text).map_err(|error| about(&path, &error))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .map_err(|error| about(&path, &error))?;
        }
        let own = sysroot_of_debian()?.join("lib/rustlib").join(&self.host);
        let link = self.sysroot().join("lib/rustlib").join(&self.host);
        make_folder(link.parent().expect("it has a name"))?;
        if !link.exists() {
            symlink(&own, &link).map_err(|error| about(&link, &error))?;
        }
        Ok(())
    }

    /// The standard library of a target, built where it is not there yet: a minute or two.
    pub(super) fn library(&self, target: &str) -> Outcome {
        let libraries = self.libraries(target);
        if libraries.join("complete").exists() {
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
        command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", RUSTC).env("RUSTFLAGS", "");
        command.env("CARGO_TARGET_DIR", empty.join("target"));
        run(&mut command)?;
        make_folder(&libraries)?;
        let built = empty.join("target").join(target).join("release/deps");
        for entry in fs::read_dir(&built).map_err(|error| about(&built, &error))? {
            let path = entry.map_err(|error| about(&built, &error))?.path();
            let is_library = path.extension().is_some_and(|end| end == "rlib" || end == "rmeta");
            let name = path.file_name().expect("it has a name").to_owned();
            if is_library && !name.to_string_lossy().starts_with("libempty-") {
                fs::copy(&path, libraries.join(name)).map_err(|error| about(&path, &error))?;
            }
        }
        write(&libraries.join("complete"), "")
    }

    /// Wine's own folder, with the library that it lacks.
    fn prefix(&self) -> Outcome {
        let shim = self.prefix_folder().join("drive_c/windows/system32/bcryptprimitives.dll");
        if shim.exists() {
            return Ok(());
        }
        run(self.wine("wineboot").arg("--init"))?;
        let source = self.folder.join("prng.c");
        write(&source, SHIM)?;
        let mut compile = Command::new(GCC);
        compile.args(["-shared", "-O2", "-o"]).arg(&shim).arg(&source).arg("-ladvapi32");
        run(&mut compile)
    }

    fn prefix_folder(&self) -> PathBuf {
        self.folder.join("prefix")
    }

    /// A program of Wine's, in this kit's prefix.
    pub(super) fn wine(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("WINEPREFIX", self.prefix_folder()).env("WINEDEBUG", "-all");
        // Nothing here shows anything.
        command.env_remove("DISPLAY");
        command
    }

    /// A cargo that compiles for a target of Windows.
    pub(super) fn cargo(&self, target: &str, words: &[&str]) -> Command {
        let bin = self.sysroot().join("bin");
        let mut command = cargo();
        command.args(words).args(["--target", target]);
        command.env("RUSTC", bin.join("rustc")).env("RUSTDOC", bin.join("rustdoc"));
        command.env_remove("RUSTFLAGS");
        // Another compiler's files, in a folder of their own.
        if let Ok(workspace) = metadata::read() {
            command.env("CARGO_TARGET_DIR", workspace.target_directory.join("windows"));
        }
        command
    }

    /// The variables by which a check is one with lints, none of which may be broken.
    pub(super) fn lints(&self) -> [(String, String); 2] {
        let driver = self.sysroot().join("bin/clippy-driver");
        let wrapper = ("RUSTC_WORKSPACE_WRAPPER".into(), driver.display().to_string());
        [wrapper, ("CLIPPY_ARGS".into(), "-Dwarnings__CLIPPY_HACKERY__".into())]
    }

    /// Ends what Wine has left running for this kit.
    pub(super) fn end(&self) {
        let _ = succeeds(self.wine("wineserver").arg("-k"));
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

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(|error| about(path, &error))
}

fn about(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
