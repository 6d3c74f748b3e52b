//! The emulated machine: what it needs, and how it is started and ended.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::{apt, guest};
use crate::Outcome;
use crate::run::{output_of, succeeds};

const QEMU: &str = "qemu-system-x86_64";

/// No word from the machine for so long, and it hangs: longer than the guest gives any test.
const SILENCE: Duration = Duration::from_secs(300);
/// A start that does not come to its end is tried again: emulated clocks do not always come up.
const TRIES: u32 = 2;

/// The kernel's image, or what is missing and the cure.
pub(super) fn lacks(given: Option<PathBuf>, folder: &Path) -> Outcome<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("the test programs are built for Linux on x86-64, on such a machine".into());
    }
    if !succeeds(Command::new(QEMU).arg("--version")) {
        return Err(format!("{QEMU} is not installed; `cargo xtask kernels --install`"));
    }
    if let Some(image) = given {
        let found = image.is_file();
        return if found { Ok(image) } else { Err(format!("{} is no file", image.display())) };
    }
    let images = images(&folder.join("boot")).into_iter().chain(images(Path::new("/boot")));
    images.into_iter().next().ok_or_else(|| {
        "no image of Linux 6.1 here; `cargo xtask kernels --install`, or `--kernel IMAGE`".into()
    })
}

fn images(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut images: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    images.retain(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-6.1."))
    });
    images.sort();
    images
}

/// Has the system's packages fetched: qemu is installed, the kernel only unpacked.
pub(super) fn install(folder: &Path) -> Outcome {
    if !succeeds(Command::new(QEMU).arg("--version")) {
        apt(&["apt-get", "update", "-qq"], folder)?;
        let words = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"];
        apt(&[&words[..], &["qemu-system-x86"]].concat(), folder)?;
    }
    if !images(&folder.join("boot")).is_empty() {
        return Ok(());
    }
    let depends =
        output_of(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
    let package =
        depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let package = match package {
        Some(version) if version.starts_with("6.1.") => format!("linux-image-{version}"),
        other => {
            let other = other.unwrap_or("none");
            return Err(format!("this system's packages have Linux {other}; Debian 12 has 6.1"));
        }
    };
    apt(&["apt-get", "download", "-qq", &package], folder)?;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut packages = entries.map(|entry| entry.path());
    let package = packages
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or("apt-get downloaded no package")?;
    let package = package.to_str().ok_or("the package's path is not text")?.to_owned();
    apt(&["dpkg-deb", "--extract", &package, "."], folder)
}

/// Starts the machine and gives back what it told.
pub(super) fn boot(image: &Path, initramfs: &Path) -> Outcome<Vec<String>> {
    eprintln!("$ {QEMU} -kernel {} -initrd {}", image.display(), initramfs.display());
    let mut told = Vec::new();
    for _ in 0..TRIES {
        told = run_once(image, initramfs)?;
        if told.iter().any(|line| line.starts_with(guest::BEGINS)) {
            break;
        }
        eprintln!("xtask: the machine did not come up");
    }
    Ok(told)
}

fn run_once(image: &Path, initramfs: &Path) -> Outcome<Vec<String>> {
    let mut command = Command::new(QEMU);
    command.args(["-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]);
    command.args(["-m", "2048", "-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-no-reboot", "-serial", "stdio"]);
    command.arg("-kernel").arg(image).arg("-initrd").arg(initramfs);
    command.args(["-append", "console=ttyS0 quiet panic=-1 reboot=t rdinit=/init"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run {QEMU}: {error}"))?;
    let from = BufReader::new(child.stdout.take().expect("stdout was piped just above"));
    let (send, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in from.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if send.send(line).is_err() {
                break;
            }
        }
    });
    let mut told = Vec::new();
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                if !line.starts_with(guest::RESULT) {
                    println!("| {line}");
                }
                told.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("xtask: no word from the machine for {SILENCE:?}");
                break;
            }
        }
    }
    // It has ended by itself, or is ended: either way nothing is left of it.
    let _ = child.kill();
    let _ = child.wait();
    drop(lines);
    let _ = reader.join();
    Ok(told)
}
