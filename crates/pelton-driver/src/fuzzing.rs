//! What the fuzzer runs of the driver's own parsers, and what must hold whatever the bytes are.

use std::mem::MaybeUninit;

use crate::sys::{AddressLength, AddressStorage, socket_address, write_address};

/// An address as a system has written it into that many bytes: it is none, or it can be written and read again.
///
/// # Panics
/// Something that must hold does not.
pub fn address(bytes: &[u8]) {
    // On the heap and no longer than it says, so that a sanitizer sees who reads beyond.
    let exact: Box<[u8]> = bytes[..bytes.len().min(size_of::<AddressStorage>())].into();
    let len = exact.len() as AddressLength;
    // SAFETY: `len` bytes, all initialised.
    let Some(first) = (unsafe { socket_address(exact.as_ptr().cast(), len) }) else { return };
    let mut storage = MaybeUninit::<AddressStorage>::zeroed();
    // SAFETY: a whole storage, which is ours.
    let again = unsafe {
        let len = write_address(&first, storage.as_mut_ptr());
        socket_address(storage.as_ptr(), len)
    };
    assert_eq!(again, Some(first));
}

/// Bytes in which a system tells of changes in a directory, in each of the ways: reading them ends, and no name reaches
/// beyond what is there.
///
/// # Panics
/// Something that must hold does not.
pub fn changes(bytes: &[u8]) {
    use crate::directory::notes::{self, Told};
    let mut count = 0;
    let mut hear = |told: Told<'_>| {
        count += 1;
        if let Told::Created(name)
        | Told::Removed(name)
        | Told::Modified(name)
        | Told::OldName(name, _)
        | Told::NewName(name, _) = told
        {
            let (all, name) = (bytes.as_ptr_range(), name.as_ptr_range());
            assert!(all.start < name.start && name.start < name.end && name.end <= all.end);
        }
    };
    notes::inotify(bytes, &mut hear);
    notes::records(bytes, &mut hear);
    notes::word(bytes, &mut hear);
    // A record is no shorter than its head.
    assert!(count <= bytes.len() / 16 + bytes.len() / 12 + 2);
}

/// The text by which a failed simulation is played again: it is refused with words, or it is one.
///
/// # Panics
/// Something that must hold does not.
#[cfg(feature = "sim")]
pub fn replay(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let options = crate::sim::WorldOptions::new(1);
    if let Err(error) = crate::sim::World::replay_text(&options, text) {
        assert!(!error.is_empty());
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use crate::sys::{AddressFamily, FAMILY_AT};

    #[test]
    fn random_addresses_hold() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..if cfg!(miri) { 300 } else { 50_000 } {
            let mut bytes = [0; 40];
            for byte in &mut bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = (state >> 32) as u8;
            }
            let len = usize::from(bytes[39]) % 40;
            // The families of IP, by the system's numbers, that of Unix, and none.
            let (v4, v6) = (socket2::Domain::IPV4, socket2::Domain::IPV6);
            let family = [v4.into(), v6.into(), 1, 77_i32][usize::from(bytes[38]) % 4];
            let family = (family as AddressFamily).to_ne_bytes();
            bytes[FAMILY_AT..][..family.len()].copy_from_slice(&family);
            super::address(&bytes[..len]);
        }
    }
}
