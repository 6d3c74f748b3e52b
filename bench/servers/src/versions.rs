//! The versions that were linked, out of the lock file.

include!(concat!(env!("OUT_DIR"), "/versions.rs"));

/// "tokio 1.2.3", for a program's first line.
pub fn named(package: &str) -> String {
    format!("{package} {}", version(package))
}
