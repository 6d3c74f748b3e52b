//! Functions of the system that are in no import library, or not in every version: looked up when they are first
//! needed, so that a program starts where they are missing.

use std::ffi::CStr;

use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};

/// A function as it is found, whose type is not known: who looked for it says which, by a `transmute`.
pub(super) type Found = unsafe extern "system" fn() -> isize;

/// The library of the system's own calls.
pub(super) const NTDLL: &CStr = c"ntdll.dll";
/// The library behind the documented ones.
pub(super) const KERNELBASE: &CStr = c"kernelbase.dll";

/// A function of a library that every process has loaded. None where this system's has no such function.
pub(super) fn find(library: &CStr, name: &CStr) -> Option<Found> {
    // SAFETY: both names end, and are only read; a library that every process has is never unloaded.
    unsafe {
        let library = GetModuleHandleA(library.as_ptr().cast());
        if library.is_null() { None } else { GetProcAddress(library, name.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_none() {
        assert!(find(NTDLL, c"NtCreateFile").is_some());
        assert!(find(NTDLL, c"NtPelton").is_none());
        assert!(find(c"pelton-is-not-loaded.dll", c"NtCreateFile").is_none());
    }
}
