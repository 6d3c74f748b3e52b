//! The bytes of a file, of which only what was written takes memory.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes that are kept together.
const CHUNK: usize = 4096;
/// The longest file, in bytes: that of ext4 with blocks of 4 KiB.
pub(super) const LONGEST: u64 = (1 << 44) - 4096;

/// A file's content. Chunks that were never written are zeroes. A clone shares them until one is written to.
#[derive(Clone, Default)]
pub(super) struct Sparse {
    len: u64,
    chunks: BTreeMap<u64, Rc<[u8; CHUNK]>>,
}

impl Sparse {
    /// Up to `len` bytes from `offset` on, fewer where the file ends.
    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = if mutant!("sim-read-beyond") { self.len + 64 } else { self.len };
        let there = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; there.min(len)];
        pieces(offset, bytes.len(), |number, from, at, n| {
            if let Some(chunk) = self.chunks.get(&number) {
                bytes[at..at + n].copy_from_slice(&chunk[from..from + n]);
            }
        });
        bytes
    }

    /// Writes, and lengthens the file where it has to be. The end is not beyond [`LONGEST`].
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        pieces(offset, bytes.len(), |number, from, at, n| {
            let chunk = self.chunks.entry(number).or_insert_with(|| Rc::new([0; CHUNK]));
            Rc::make_mut(chunk)[from..from + n].copy_from_slice(&bytes[at..at + n]);
        });
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    pub(super) fn clear(&mut self) {
        *self = Sparse::default();
    }
}

/// Cuts a range into what lies in each chunk: its number, where in it, where in the range, and how much.
fn pieces(offset: u64, len: usize, mut each: impl FnMut(u64, usize, usize, usize)) {
    let mut at = 0;
    while at < len {
        let (number, from) = {
            let place = offset + at as u64;
            (place / CHUNK as u64, (place % CHUNK as u64) as usize)
        };
        let n = (CHUNK - from).min(len - at);
        each(number, from, at, n);
        at += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_written_is_zero_and_takes_no_memory() {
        let mut file = Sparse::default();
        let far = LONGEST - 3;
        file.write(far, b"end");
        assert_eq!(file.chunks.len(), 1);
        assert_eq!(file.read(far - 2, 100), b"\0\0end");
        assert_eq!(file.read(0, 5), [0; 5]);
        assert_eq!(file.read(LONGEST, 5), b"");
        assert_eq!(file.read(u64::MAX, 5), b"");
    }

    #[test]
    fn a_write_across_chunks_is_read_as_it_was_and_leaves_a_clone_alone() {
        let mut file = Sparse::default();
        let bytes: Vec<u8> = (0..3 * CHUNK).map(|at| (at % 251) as u8).collect();
        file.write(100, &bytes);
        let before = file.clone();
        file.write(4000, &[0xEE; 500]);
        assert_eq!(before.read(100, 1 << 20), bytes);
        assert_eq!(file.read(3999, 2), [bytes[3899], 0xEE]);
        assert_eq!(file.read(4499, 2), [0xEE, bytes[4400]]);
        file.clear();
        assert_eq!(file.read(0, 10), b"");
    }
}
