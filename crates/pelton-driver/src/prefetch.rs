//! Having memory come near before it is looked at.
//!
//! A tick that has many completions goes from one connection to the next, and each has its slot, its task and its
//! future in lines of memory that the kernel's work for the others has driven out of the nearer caches. Who is next is
//! known, so their lines are asked for some completions ahead, and many are on their way at a time.

/// From how many descriptors on it is worth the while: a connection has eight lines here and more than a hundred in the
/// kernel, and a near cache thousands in all.
pub(crate) const CROWD: u32 = 256;

/// From how many completions at a time on: what is asked for has to come while the others are told of.
pub(crate) const FEW: usize = 4;

/// Asks for the line of memory at an address, which may be any: nothing is read.
#[inline(always)]
pub fn prefetch<T>(at: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint to the caches, which fails for no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    // Elsewhere there is no stable way to ask.
    let _ = at;
}
