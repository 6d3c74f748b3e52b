//! What the systems write of changes, as bytes. Every byte is doubted: what does not make sense ends the reading, and
//! whoever asked looks at the directory anew.
//!
//! All of it is read on every system, so that it is tested wherever the tests run.

/// One thing that was told. Names are bytes as the system writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told<'a> {
    Created(&'a [u8]),
    Removed(&'a [u8]),
    Modified(&'a [u8]),
    /// The old name of an entry, and a number that its new one comes with.
    OldName(&'a [u8], u32),
    NewName(&'a [u8], u32),
    /// More has happened than the system kept.
    Lost,
    /// The directory itself.
    Gone,
    /// Nothing that was asked for.
    Nothing,
}

/// Reads the records of inotify (`struct inotify_event`): a number, the mask, the cookie, the length of the name, and
/// the name, filled up with zeros. False where they do not make sense to the end.
pub(crate) fn inotify<'a>(mut bytes: &'a [u8], mut on: impl FnMut(Told<'a>)) -> bool {
    const MODIFY: u32 = 0x2;
    const MOVED_FROM: u32 = 0x40;
    const MOVED_TO: u32 = 0x80;
    const CREATE: u32 = 0x100;
    const DELETE: u32 = 0x200;
    const OVERFLOW: u32 = 0x4000;
    const IGNORED: u32 = 0x8000;
    while !bytes.is_empty() {
        let (Some(mask), Some(cookie), Some(len)) =
            (word_at(bytes, 4), word_at(bytes, 8), word_at(bytes, 12))
        else {
            return false;
        };
        let Some(end) = (len as usize).checked_add(16) else { return false };
        let Some(name) = bytes.get(16..end) else { return false };
        let name = name.split(|&byte| byte == 0).next().unwrap_or(name);
        bytes = &bytes[end..];
        let is = |bit| mask & bit != 0;
        on(if is(OVERFLOW) {
            Told::Lost
        } else if is(IGNORED) {
            Told::Gone
        } else if name.is_empty() {
            // Of the directory itself.
            Told::Nothing
        } else if is(CREATE) {
            Told::Created(name)
        } else if is(DELETE) {
            Told::Removed(name)
        } else if is(MOVED_FROM) {
            Told::OldName(name, cookie)
        } else if is(MOVED_TO) {
            Told::NewName(name, cookie)
        } else if is(MODIFY) {
            Told::Modified(name)
        } else {
            Told::Nothing
        });
    }
    true
}

/// Reads the records of Windows (`FILE_NOTIFY_INFORMATION`): where the next one begins, or 0, what has happened, the
/// length of the name in bytes, and the name. False where they do not make sense to the end.
pub(crate) fn records<'a>(mut bytes: &'a [u8], mut on: impl FnMut(Told<'a>)) -> bool {
    const HEAD: usize = 12;
    loop {
        let (Some(next), Some(action), Some(len)) =
            (word_at(bytes, 0), word_at(bytes, 4), word_at(bytes, 8))
        else {
            return false;
        };
        let (next, len) = (next as usize, len as usize);
        let Some(end) = len.checked_add(HEAD) else { return false };
        let Some(name) = bytes.get(HEAD..end) else { return false };
        if name.is_empty() || !len.is_multiple_of(2) {
            return false;
        }
        on(match action {
            1 => Told::Created(name),
            2 => Told::Removed(name),
            3 => Told::Modified(name),
            // Of the two names of an entry the second follows the first.
            4 => Told::OldName(name, 0),
            5 => Told::NewName(name, 0),
            _ => Told::Nothing,
        });
        if next == 0 {
            return true;
        }
        // Behind this one, so that there is an end to them. Windows aligns them, and Wine does not.
        if next < end {
            return false;
        }
        let Some(rest) = bytes.get(next..) else { return false };
        bytes = rest;
    }
}

/// The word that a kernel queue's changes are told in: something in the directory has changed.
pub(crate) const CHANGED: u32 = 1;
/// And this one that it has gone itself.
pub(crate) const GONE: u32 = 2;

/// Reads that word.
pub(crate) fn word<'a>(bytes: &[u8], mut on: impl FnMut(Told<'a>)) -> bool {
    let (Some(word), 4) = (word_at(bytes, 0), bytes.len()) else { return false };
    if word & CHANGED != 0 {
        on(Told::Lost);
    }
    if word & GONE != 0 {
        on(Told::Gone);
    }
    true
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn event(mask: u32, cookie: u32, name: &str, padded: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [1, mask, cookie, padded as u32] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.resize(16 + padded, 0);
        bytes
    }

    fn wide(name: &str) -> Vec<u8> {
        name.encode_utf16().flat_map(u16::to_ne_bytes).collect()
    }

    fn record(action: u32, name: &str, last: bool) -> Vec<u8> {
        let name = wide(name);
        let len = 12 + name.len();
        let next = if last { 0 } else { len.next_multiple_of(4) };
        let mut bytes = Vec::new();
        for word in [next, action as usize, name.len()] {
            bytes.extend_from_slice(&(word as u32).to_ne_bytes());
        }
        bytes.extend_from_slice(&name);
        bytes.resize(if last { len } else { next }, 0xEE);
        bytes
    }

    #[test]
    fn events_of_inotify_are_read_in_their_order() {
        let bytes = [
            event(0x100, 0, "new", 16),
            event(0x4000_0100, 0, "directory", 16),
            event(0x2, 0, "sixteen-bytes-16", 16),
            event(0x40, 7, "old", 16),
            event(0x80, 7, "other", 32),
            event(0x200, 0, "new", 16),
            event(0x400, 0, "", 0),
            event(0x4000, 0, "", 0),
            event(0x8000, 0, "", 0),
        ]
        .concat();
        let mut told = Vec::new();
        assert!(inotify(&bytes, |one| told.push(one)));
        assert_eq!(
            told,
            [
                Told::Created(b"new"),
                Told::Created(b"directory"),
                Told::Modified(b"sixteen-bytes-16"),
                Told::OldName(b"old", 7),
                Told::NewName(b"other", 7),
                Told::Removed(b"new"),
                Told::Nothing,
                Told::Lost,
                Told::Gone,
            ]
        );
    }

    #[test]
    fn records_of_windows_are_read_in_their_order() {
        let bytes = [
            record(1, "new", false),
            record(3, "n\u{e9}w \u{1f980}", false),
            record(4, "old", false),
            record(5, "other", false),
            record(2, "new", false),
            record(99, "x", true),
        ]
        .concat();
        let mut told = Vec::new();
        assert!(records(&bytes, |one| told.push(one)));
        let (new, crab) = (wide("new"), wide("n\u{e9}w \u{1f980}"));
        let (old, other) = (wide("old"), wide("other"));
        assert_eq!(
            told,
            [
                Told::Created(&new),
                Told::Modified(&crab),
                Told::OldName(&old, 0),
                Told::NewName(&other, 0),
                Told::Removed(&new),
                Told::Nothing,
            ]
        );
    }

    #[test]
    fn what_is_cut_off_is_not_believed_further_than_it_goes() {
        let good = [event(0x100, 0, "one", 16), event(0x200, 0, "two", 16)].concat();
        for len in 1..good.len() {
            let mut told = 0;
            let whole = inotify(&good[..len], |_| told += 1);
            assert_eq!((whole, told), (len == 32, usize::from(len >= 32)), "{len}");
        }
        let good = [record(1, "one", false), record(2, "two", true)].concat();
        let first = record(1, "one", false).len();
        for len in 0..good.len() {
            let mut told = 0;
            assert!(!records(&good[..len], |_| told += 1), "{len}");
            // The first one's name is whole before what fills it up.
            assert_eq!(told, usize::from(len >= first - 2), "{len}");
        }
    }

    #[test]
    fn lengths_and_places_that_lie_are_found_out() {
        let with = |at: usize, word: u32| {
            let mut bytes = [record(1, "one", false), record(2, "two", true)].concat();
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
            let mut told = 0;
            (records(&bytes, |_| told += 1), told)
        };
        assert_eq!(with(0, 20), (true, 2));
        // Records that are not aligned are records.
        let mut bytes = record(1, "one", false);
        bytes.truncate(18);
        bytes[0] = 18;
        bytes.extend(record(2, "two", true));
        let mut told = 0;
        assert!(records(&bytes, |_| told += 1) && told == 2);
        // Into itself, back to itself, beyond the end, to where no record begins.
        for next in [1, 4, 8, 12, 17, 19, 21, 22, 1000, u32::MAX, u32::MAX - 3] {
            let (whole, told) = with(0, next);
            assert!(!whole && told <= 1, "{next}: {told}");
        }
        for len in [0, 3, 5, 1000, u32::MAX, u32::MAX - 11] {
            assert!(!with(8, len).0, "{len}");
        }
        let mut bytes = event(0x100, 0, "one", 16);
        for len in [17, 1000, u32::MAX, u32::MAX - 15] {
            bytes[12..16].copy_from_slice(&len.to_ne_bytes());
            assert!(!inotify(&bytes, |_| panic!("nothing is whole")), "{len}");
        }
    }

    /// Bytes that nobody has written, and good ones of which some are changed: it ends, and names nothing that is not
    /// there.
    #[test]
    fn hostile_bytes_are_survived() {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let good = [
            [event(0x100, 0, "one", 16), event(0x40, 3, "two", 32)].concat(),
            [record(1, "one", false), record(5, "two", false), record(4, "x", true)].concat(),
        ];
        let rounds = if cfg!(miri) { 200 } else { 50_000 };
        for round in 0..rounds {
            let mut bytes = if round % 3 == 0 {
                (0..random() % 96).map(|_| random() as u8).collect()
            } else {
                good[round % 2].clone()
            };
            for _ in 0..random() % 4 {
                if !bytes.is_empty() {
                    let at = random() as usize % bytes.len();
                    bytes[at] = [0, 1, 4, 12, 0x7F, 0xFF, random() as u8][random() as usize % 7];
                }
            }
            crate::fuzzing::changes(&bytes);
        }
    }
}
