//! Seals on memory that the kernel holds: whoever touches it meanwhile is found out when it lets go.
//!
//! What is to be filled is filled with a pattern at once; a real kernel may write anywhere in it at any time
//! too. What is to be read is copied. Both are looked at again when the operation goes on and when it ends, by
//! comparing whole slices: Miri runs that as one step, where a loop over the bytes would be most of its time.

/// Bytes of each part that are sealed: the front, where things are written.
const SEALED: usize = 16 * 1024;

pub(super) enum Seal {
    None,
    Filled(u8),
    Copied(Vec<u8>),
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
        let mut copy = Vec::new();
        for (ptr, len) in parts.iter().filter(|part| part.1 > 0) {
            // SAFETY: by the caller.
            copy.extend_from_slice(unsafe { sealed(*ptr, *len) });
        }
        Seal::Copied(copy)
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
        match self {
            Seal::None => Ok(()),
            Seal::Filled(pattern) => {
                for (ptr, len) in parts {
                    let skip = written.min(*len);
                    written -= skip;
                    // SAFETY: initialised by `put`, or written since; by the caller nobody else is at it.
                    let rest = unsafe { sealed(*ptr, *len) }.get(skip..).unwrap_or_default();
                    if let [first, others @ ..] = rest
                        && (first != pattern || *others != rest[..others.len()])
                    {
                        return Err("its buffer was written to");
                    }
                }
                Ok(())
            }
            Seal::Copied(before) => {
                let mut before = &before[..];
                for (ptr, len) in parts.iter().filter(|part| part.1 > 0) {
                    // SAFETY: by the caller.
                    let now = unsafe { sealed(*ptr, *len) };
                    match before.strip_prefix(now) {
                        Some(rest) => before = rest,
                        None => return Err("its bytes were changed"),
                    }
                }
                Ok(())
            }
        }
    }
}

/// The sealed front of a part.
///
/// # Safety
/// The part is valid for reads, initialised, and written by nobody while the slice lives.
unsafe fn sealed<'a>(ptr: *mut u8, len: usize) -> &'a [u8] {
    // SAFETY: by the caller.
    unsafe { std::slice::from_raw_parts(ptr, len.min(SEALED)) }
}
