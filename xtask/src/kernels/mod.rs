//! `kernels`: the tests on an older kernel, in a machine that qemu emulates.
//!
//! What a kernel has is found out at run time, so every path for a kernel that lacks something must run
//! somewhere. Debian's 6.1 is the oldest that Pelton supports: no incremental buffers, no bundles, no shorter
//! waits, no ring without its array. The machine is emulated in software (TCG), because that works everywhere;
//! it is some twenty times slower, and the time that each test may take is measured for that.
//!
//! The tests are linked statically and packed into an initramfs together with a first process of our own
//! (`guest.rs`), which runs each test by itself and tells of it on the serial line. Nothing is mounted, and
//! no network is needed.

mod build;
mod cpio;
mod guest;
mod machine;
mod report;

use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::args::Args;
use crate::metadata;
use crate::run::{root, run};

pub(crate) use guest::{is_here as is_guest, run_everything as guest};

pub(crate) fn verb(mut args: Args) -> Outcome {
    let (require, install) = (args.flag("--require"), args.flag("--install"));
    let image = args.value("--kernel")?.map(PathBuf::from);
    let only = args.value("--only")?;
    args.finish()?;
    let folder = metadata::read()?.target_directory.join("kernels");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    if install {
        machine::install(&folder)?;
    }
    let image = match machine::lacks(image, &folder) {
        Ok(image) => image,
        Err(lacking) if require => return Err(lacking),
        Err(lacking) => {
            println!("skipped: kernels: {lacking}");
            return Ok(());
        }
    };
    let programs = build::test_programs(&folder)?;
    let initramfs = folder.join("initramfs.cpio");
    pack(&initramfs, &programs, only.as_deref())?;
    let told = machine::boot(&image, &initramfs)?;
    report::of(&told)
}

/// Writes the image: our own program as the first process, and the tests in `/t`.
fn pack(to: &Path, programs: &build::Programs, only: Option<&str>) -> Outcome {
    let mut archive = cpio::Archive::new();
    for folder in ["dev", "proc", "sys", "tmp", "etc", "t"] {
        archive.folder(folder);
    }
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n");
    archive.file("only", 0o644, only.unwrap_or("").as_bytes());
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()))
    };
    archive.file("init", 0o755, &read(&programs.init)?);
    for (name, path) in &programs.tests {
        archive.file(&format!("t/{name}"), 0o755, &read(path)?);
    }
    // Some tests read what lies beside their package.
    archive.file("Cargo.toml", 0o644, &read(&root().join("Cargo.toml"))?);
    std::fs::write(to, archive.finish()).map_err(|error| format!("{}: {error}", to.display()))
}

/// A command of the system's package manager.
fn apt(words: &[&str], folder: &Path) -> Outcome {
    run(std::process::Command::new(words[0]).args(&words[1..]).current_dir(folder))
}
