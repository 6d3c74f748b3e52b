//! What compiles and runs programs of Windows on this machine: the compiler's kit (`xtask/src/kit.rs`), mingw to
//! link, and Wine with a prefix of its own.
//!
//! The prefix has the one library that Wine 8 lacks: `bcryptprimitives.dll`, whose single function the standard
//! library asks for random numbers.

use std::path::PathBuf;
use std::process::Command;

use super::TARGET;
use crate::Outcome;
use crate::kit::{self, write};
use crate::run::{run, succeeds};

const GCC: &str = "x86_64-w64-mingw32-gcc";
/// Beyond those of the compiler's kit.
const PACKAGES: &[&str] = &["gcc-mingw-w64-x86-64-win32", "wine", "wine64"];

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
    if lacks().is_none() { Ok(()) } else { kit::install(PACKAGES) }
}

/// What is missing here, with the cure.
pub(super) fn lacks() -> Option<String> {
    let runs = succeeds(Command::new(GCC).arg("--version"))
        && succeeds(Command::new("wine").arg("--version"));
    let cure = format!("`apt-get install {}` (Debian 12), or --install", PACKAGES.join(" "));
    kit::lacks().or_else(|| (!runs).then(|| format!("mingw and Wine are not both here; {cure}")))
}

pub(super) struct Kit {
    compiler: kit::Kit,
}

impl Kit {
    /// Finds the kit of this compiler, or makes it.
    pub(super) fn ready() -> Outcome<Kit> {
        let kit = Kit { compiler: kit::Kit::ready()? };
        kit.compiler.library(TARGET)?;
        kit.prefix()?;
        Ok(kit)
    }

    /// What a check needs of the standard library of a target.
    pub(super) fn types(&self, target: &str) -> Outcome {
        self.compiler.types(target)
    }

    /// Wine's own folder, with the library that it lacks.
    fn prefix(&self) -> Outcome {
        let shim = self.prefix_folder().join("drive_c/windows/system32/bcryptprimitives.dll");
        if shim.exists() {
            return Ok(());
        }
        run(self.wine("wineboot").arg("--init"))?;
        let source = self.compiler.folder().join("prng.c");
        write(&source, SHIM)?;
        let mut compile = Command::new(GCC);
        compile.args(["-shared", "-O2", "-o"]).arg(&shim).arg(&source).arg("-ladvapi32");
        run(&mut compile)
    }

    fn prefix_folder(&self) -> PathBuf {
        self.compiler.folder().join("prefix")
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
        self.compiler.cargo(target, words)
    }

    /// The variables by which a check is one with lints, none of which may be broken.
    pub(super) fn lints(&self) -> [(&'static str, String); 2] {
        self.compiler.lints()
    }

    /// Ends what Wine has left running for this kit.
    pub(super) fn end(&self) {
        let _ = succeeds(self.wine("wineserver").arg("-k"));
    }
}
