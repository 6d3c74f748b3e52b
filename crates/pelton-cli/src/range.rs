//! The `Range` header (RFC 9110 §14): from a header and a length to the byte ranges to send.

use std::ops::Range;

use http::HeaderMap;
use http::header::RANGE;

/// More ranges than this in one request and the header is ignored: nobody who means well asks for
/// so many, and each costs a part header that is longer than the bytes asked for.
pub(crate) const MAX_RANGES: usize = 32;

/// What a `Range` header asks of a representation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// No header, or one that a server must or may ignore: send everything.
    Whole,
    /// At least one range, none empty, none overlapping or touching another, in the order of the
    /// request.
    Some(Vec<Range<u64>>),
    /// A valid header of which nothing lies inside the representation: 416.
    Unsatisfiable,
}

/// Reads the `Range` header of a request for a representation of `len` bytes.
pub(crate) fn of_headers(headers: &HeaderMap, len: u64) -> Ranges {
    let mut lines = headers.get_all(RANGE).iter();
    match (lines.next().map(|line| line.to_str()), lines.next()) {
        (Some(Ok(line)), None) => parse(line, len),
        // The header is not a list across lines: two of them contradict each other.
        _ => Ranges::Whole,
    }
}

/// Reads one `Range` value, such as `bytes=0-99,-500`.
pub(crate) fn parse(value: &str, len: u64) -> Ranges {
    let Some((unit, set)) = value.split_once('=') else { return Ranges::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Ranges::Whole;
    }
    let mut asked = 0;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for spec in set.split(',').map(|spec| spec.trim_matches([' ', '\t'])) {
        // A list may hold empty elements (RFC 9110 §5.6.1.2).
        if spec.is_empty() {
            continue;
        }
        asked += 1;
        if asked > MAX_RANGES {
            return Ranges::Whole;
        }
        match one(spec, len) {
            Spec::Invalid => return Ranges::Whole,
            Spec::Outside => {}
            Spec::Inside(range) => merge(&mut ranges, range),
        }
    }
    match (asked, ranges.is_empty()) {
        (0, _) => Ranges::Whole,
        // No `Content-Range` can name the suffix of nothing, and nothing is all there is.
        (_, true) if len == 0 => Ranges::Whole,
        (_, true) => Ranges::Unsatisfiable,
        (_, false) => Ranges::Some(ranges),
    }
}

enum Spec {
    Invalid,
    Outside,
    Inside(Range<u64>),
}

fn one(spec: &str, len: u64) -> Spec {
    let Some((first, last)) = spec.split_once('-') else { return Spec::Invalid };
    if first.is_empty() {
        return match number(last) {
            None => Spec::Invalid,
            Some(suffix) if suffix == 0 || len == 0 => Spec::Outside,
            Some(suffix) => Spec::Inside(len.saturating_sub(suffix)..len),
        };
    }
    let Some(first) = number(first) else { return Spec::Invalid };
    let end = match last {
        "" => len,
        last => match number(last) {
            Some(last) if last >= first => last.saturating_add(1).min(len),
            _ => return Spec::Invalid,
        },
    };
    if first >= len { Spec::Outside } else { Spec::Inside(first..end) }
}

/// Digits only; a number too large for 64 bits is as good as the largest.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Adds a range, joining it with all that it overlaps or touches, so that no byte is sent twice.
fn merge(ranges: &mut Vec<Range<u64>>, mut range: Range<u64>) {
    let mut place = ranges.len();
    // A join can reach a range that was passed over before, so look again after each.
    while let Some(at) = ranges.iter().position(|r| r.start <= range.end && range.start <= r.end) {
        let other = ranges.remove(at);
        range = range.start.min(other.start)..range.end.max(other.end);
        place = place.min(at);
    }
    ranges.insert(place.min(ranges.len()), range);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn a_range_header_is_read_as_the_rfc_says() {
        use Ranges::{Some as Got, Unsatisfiable, Whole};
        let table: &[(&str, u64, Ranges)] = &[
            ("bytes=0-0", 10, Got(vec![0..1])),
            ("bytes=0-9", 10, Got(vec![0..10])),
            ("bytes=2-5", 10, Got(vec![2..6])),
            ("BYTES=2-5", 10, Got(vec![2..6])),
            ("bytes=2-", 10, Got(vec![2..10])),
            ("bytes=-3", 10, Got(vec![7..10])),
            ("bytes=-30", 10, Got(vec![0..10])),
            ("bytes=5-99999999999999999999999", 10, Got(vec![5..10])),
            ("bytes=5-18446744073709551615", 10, Got(vec![5..10])),
            ("bytes=0-1, 4-5 ,-1", 10, Got(vec![0..2, 4..6, 9..10])),
            ("bytes=8-9,0-1", 10, Got(vec![8..10, 0..2])),
            ("bytes=,0-1,,", 10, Got(vec![0..2])),
            ("bytes=0-1,50-60", 10, Got(vec![0..2])),
            // Overlapping and touching ranges are joined.
            ("bytes=0-4,3-6", 10, Got(vec![0..7])),
            ("bytes=0-4,5-6", 10, Got(vec![0..7])),
            ("bytes=0-1,8-9,4-5,1-8", 10, Got(vec![0..10])),
            ("bytes=0-,0-,0-", 10, Got(vec![0..10])),
            // Nothing of it lies inside.
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            // Not a range header at all: ignored.
            ("", 10, Whole),
            ("bytes", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=,", 10, Whole),
            ("items=0-1", 10, Whole),
            ("bytes=5-2", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1 - 2", 10, Whole),
            ("bytes=--1", 10, Whole),
            ("bytes=1", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=0-1,x", 10, Whole),
            // An empty file has no ranges.
            ("bytes=0-", 0, Whole),
            ("bytes=-5", 0, Whole),
        ];
        for (value, len, want) in table {
            assert_eq!(&parse(value, *len), want, "{value} of {len}");
        }
    }

    #[test]
    fn too_many_ranges_are_ignored_rather_than_served() {
        let value = |n: usize| {
            let specs: Vec<_> = (0..n).map(|i| format!("{0}-{0}", i * 2)).collect();
            format!("bytes={}", specs.join(","))
        };
        let Ranges::Some(most) = parse(&value(MAX_RANGES), 1000) else { panic!("refused") };
        assert_eq!(most.len(), MAX_RANGES);
        assert_eq!(parse(&value(MAX_RANGES + 1), 1000), Ranges::Whole);
    }

    #[test]
    fn two_range_headers_contradict_each_other() {
        let mut headers = HeaderMap::new();
        assert_eq!(of_headers(&headers, 10), Ranges::Whole);
        headers.append(RANGE, "bytes=0-1".parse().unwrap());
        assert_eq!(of_headers(&headers, 10), Ranges::Some(std::iter::once(0..2).collect()));
        headers.append(RANGE, "bytes=4-5".parse().unwrap());
        assert_eq!(of_headers(&headers, 10), Ranges::Whole);
    }
}
