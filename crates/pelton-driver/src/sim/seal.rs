//! Seals on memory that the kernel holds: whoever touches it meanwhile is found out when it lets go.
//!
//! What is to be filled is filled with a pattern at once; a real kernel may write anywhere in it at any time
//! too. What is to be read is summed up. Both are looked at again when the operation goes on and when it ends.

/// Bytes of each part that are sealed: the front, where things are written.
const SEALED: usize = 16 * 1024;

pub(super) enum Seal {
    None,
    Filled(u8),
    Summed(u64),
}

impl Seal {
    pub(super) fn none() -> Seal {
        Seal::None
    }

    /// # Safety
    /// The parts are valid for reads, or for writes where they are to be filled, and nobody else touches
    /// them until the seal is dropped.
    pub(super) unsafe fn put(parts: &[(*mut u8, usize)], fills: bool, user_data: u64) -> Seal {
        if parts.is_empty() {
            return Seal::None;
        }
        if fills {
            let pattern = 0xE0 | (user_data as u8 & 0x0F);
            for (ptr, len) in parts {
                // SAFETY: by the caller.
                unsafe { ptr.write_bytes(pattern, (*len).min(SEALED)) };
            }
            return Seal::Filled(pattern);
        }
        // SAFETY: by the caller.
        Seal::Summed(unsafe { sum(parts) })
    }

    /// Looks whether the memory is as it was, the first `written` bytes apart.
    ///
    /// # Safety
    /// As for [`Seal::put`].
    pub(super) unsafe fn check(
        &self,
        parts: &[(*mut u8, usize)],
        mut written: usize,
    ) -> Result<(), &'static str> {
        match *self {
            Seal::None => Ok(()),
            Seal::Filled(pattern) => {
                for (ptr, len) in parts {
                    let skip = written.min(*len);
                    written -= skip;
                    let sealed = (*len).min(SEALED);
                    if skip < sealed {
                        // SAFETY: initialised by `put`, or written since; by the caller nobody else is at it.
                        let rest =
                            unsafe { std::slice::from_raw_parts(ptr.add(skip), sealed - skip) };
                        if rest.iter().any(|byte| *byte != pattern) {
                            return Err("its buffer was written to");
                        }
                    }
                }
                Ok(())
            }
            // SAFETY: by the caller.
            Seal::Summed(before) if unsafe { sum(parts) } != before => {
                Err("its bytes were changed")
            }
            Seal::Summed(_) => Ok(()),
        }
    }
}

/// # Safety
/// The parts are valid for reads, and initialised.
unsafe fn sum(parts: &[(*mut u8, usize)]) -> u64 {
    let mut sum = 0xCBF2_9CE4_8422_2325;
    for (ptr, len) in parts.iter().filter(|part| part.1 > 0) {
        // SAFETY: by the caller.
        let bytes = unsafe { std::slice::from_raw_parts(*ptr, (*len).min(SEALED)) };
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            sum ^= sum >> 29;
        }
    }
    sum
}
