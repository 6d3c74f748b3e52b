//! Places in files, as overlapped calls take them.

use windows_sys::Win32::System::IO::{OVERLAPPED_0, OVERLAPPED_0_0};

/// The place in a file as an overlapped call takes it: all 64 bits.
pub(crate) fn at_offset(offset: u64) -> OVERLAPPED_0 {
    let high = if mutant!("iocp-offset-truncated") { 0 } else { (offset >> 32) as u32 };
    OVERLAPPED_0 { Anonymous: OVERLAPPED_0_0 { Offset: offset as u32, OffsetHigh: high } }
}
