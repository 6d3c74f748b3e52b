//! An archive in the form that the kernel unpacks at its start ("newc").

pub(super) struct Archive {
    bytes: Vec<u8>,
    number: u32,
}

impl Archive {
    pub(super) fn new() -> Archive {
        Archive { bytes: Vec::new(), number: 1 }
    }

    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, b"");
    }

    pub(super) fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.entry(name, 0o100_000 | mode, bytes);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }

    /// Thirteen numbers in hexadecimal, the name, and the contents, each part filled up to four bytes.
    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) {
        let (number, size) = (self.number, contents.len() as u32);
        self.number += 1;
        let name_len = name.len() as u32 + 1;
        let head = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_len, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in head {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.fill();
        self.bytes.extend_from_slice(contents);
        self.fill();
    }

    fn fill(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_its_head_its_name_and_its_bytes_in_fours() {
        let mut archive = Archive::new();
        archive.file("a", 0o644, b"hello");
        let bytes = archive.bytes;
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000081A4", "an ordinary file");
        assert_eq!(&bytes[54..62], b"00000005", "its size");
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..], b"hello\0\0\0");
    }

    #[test]
    fn the_archive_ends_with_its_trailer() {
        let bytes = Archive::new().finish();
        assert!(bytes.len().is_multiple_of(4));
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
