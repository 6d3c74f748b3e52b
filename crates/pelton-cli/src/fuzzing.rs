//! What the fuzzer runs: a request out of bytes, and what must hold of the answer, whatever the bytes are.
//!
//! No file is opened: what a request does before that, and how the answer is planned, is all of it that
//! depends on the client alone.

use std::path::Component;
use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderValue, Method};

use crate::encoding::{Coding, Preference};
use crate::files::{Meta, Stamp};
use crate::path::{self, SitePath};
use crate::range::{self, Ranges};
use crate::response::{self, Part};

const HEADERS: [HeaderName; 7] = [
    RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    IF_RANGE,
    ACCEPT_ENCODING,
];

/// Lengths of files: the ends of what a number can be, and some between.
const LENGTHS: [u64; 8] = [0, 1, 2, 100, 1000, 1 << 32, i64::MAX as u64, u64::MAX];

/// A request: a byte for the method and the file's length, then lines. The first is the path, and each of the
/// others a header, by the number of its first byte.
///
/// # Panics
/// Something that must hold does not.
pub fn request(bytes: &[u8]) {
    let (choice, rest) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest));
    let len = LENGTHS[usize::from(choice >> 1) % LENGTHS.len()];
    let method = if choice & 1 == 0 { Method::GET } else { Method::HEAD };
    let mut lines = rest.split(|byte| *byte == b'\n');
    if let Some(Ok(path)) = lines.next().map(std::str::from_utf8) {
        a_path(path);
    }
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some((name, value)) = line.split_first() else { continue };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(&HEADERS[usize::from(*name) % HEADERS.len()], value);
        }
    }
    ranges(&headers, len);
    codings(&headers);
    // No system has a longer file: offsets are signed. Past that, several parts and their heads would be more
    // than a number.
    answer(&method, &headers, len.min(i64::MAX as u64));
}

fn a_path(path: &str) {
    let Ok(site) = SitePath::parse(path) else { return };
    if let Some(system) = site.to_path() {
        for part in system.components() {
            let Component::Normal(name) = part else { panic!("{path:?} leads to {system:?}") };
            let name = name.as_encoded_bytes();
            assert!(!path::is_hidden(name) && !name.contains(&0), "{path:?} leads to {system:?}");
        }
    }
    let target = site.folder_target();
    assert!(target.starts_with('/') && !target.starts_with("//"), "{path:?} becomes {target:?}");
    assert!(target.is_ascii() && HeaderValue::from_str(&target).is_ok(), "{target:?}");
    let again = SitePath::parse(&target).expect("a target of ours is one");
    assert_eq!((again.display(), again.is_folder()), (site.display(), true), "{path:?}");
    assert_eq!(again.folder_target(), target);
    let _ = (site.name(), site.with_suffix(".gz").display(), site.child(b"x").display());
}

fn ranges(headers: &HeaderMap, len: u64) {
    let Ranges::Some(ranges) = range::of_headers(headers, len) else { return };
    assert!((1..=range::MAX_RANGES).contains(&ranges.len()), "{ranges:?}");
    let mut sorted = ranges.clone();
    sorted.sort_by_key(|range| range.start);
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= len), "{ranges:?}");
    let apart = sorted.windows(2).all(|pair| pair[0].end < pair[1].start);
    assert!(apart, "{ranges:?} overlap or touch");
}

fn codings(headers: &HeaderMap) {
    let preference = Preference::of_headers(headers);
    let codings = preference.codings();
    for (at, coding) in codings.iter().enumerate() {
        assert!(!codings[..at].contains(coding), "{codings:?}");
    }
    let identity = codings.iter().position(|coding| *coding == Coding::Identity);
    assert!(identity.is_none_or(|at| at + 1 == codings.len()), "{codings:?}");
}

fn answer(method: &Method, headers: &HeaderMap, len: u64) {
    // Sat, 29 Oct 1994 19:43:31 GMT.
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(783_459_811);
    let meta = Meta {
        stamp: Stamp { len, modified, inode: 1, coding: Coding::Identity },
        settled: true,
        etag: HeaderValue::from_static("\"tag\""),
        last_modified: HeaderValue::from_static("Sat, 29 Oct 1994 19:43:31 GMT"),
        content_type: HeaderValue::from_static("text/plain; charset=utf-8"),
    };
    let now = modified + Duration::from_secs(60);
    let plan = response::of_file(method, headers, &meta, None, now);
    let status = plan.head.status().as_u16();
    assert!([200, 206, 304, 412, 416].contains(&status), "{status}");
    for part in &plan.parts {
        if let Part::Span(span) = part {
            assert!(span.start <= span.end && span.end <= len, "{span:?} of {len}");
        }
    }
    if method == Method::HEAD || status == 304 {
        return assert!(plan.parts.is_empty());
    }
    let told = plan.head.headers().get(CONTENT_LENGTH).and_then(|told| told.to_str().ok());
    let sum: u128 = plan.parts.iter().map(|part| u128::from(part.len())).sum();
    assert_eq!(told.map(str::to_owned), Some(sum.to_string()), "{status}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// What requests are made of, beside plain bytes.
    const WORDS: [&str; 30] = [
        "/",
        "..",
        "%2e",
        "%2f",
        "%00",
        "%5c",
        ".git",
        "a",
        "\n\0bytes=",
        "\n\0bytes=0-0,",
        "-",
        ",",
        "5",
        "18446744073709551615",
        "9223372036854775807",
        "\n\x01",
        "\n\x02",
        "\"tag\"",
        "W/",
        "*",
        " ",
        "\n\x03",
        "\n\x04",
        "\n\x05",
        "Sat, 29 Oct 1994 19:43:31 GMT",
        "\n\x06",
        "gzip",
        ";q=0.5",
        "br",
        ";q=0",
    ];

    #[test]
    fn the_requests_of_the_corpus_hold() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/request");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            super::request(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0);
    }

    #[test]
    fn random_requests_hold() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = move |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as usize % n
        };
        for _ in 0..20_000 {
            let mut bytes = vec![random(256) as u8];
            for _ in 0..random(24) {
                match random(8) {
                    0 => bytes.push(random(256) as u8),
                    _ => bytes.extend_from_slice(WORDS[random(WORDS.len())].as_bytes()),
                }
            }
            super::request(&bytes);
        }
    }
}
