//! Conditional requests (RFC 9110 §13): which of the validators that a client sent still hold.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{
    HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};

/// The validators of the representation that would be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validators<'a> {
    /// A strong entity tag with its quotes.
    pub(crate) etag: &'a str,
    /// The time of the last change. Only whole seconds count: HTTP has no finer dates.
    pub(crate) modified: SystemTime,
}

/// What the preconditions of a GET or HEAD lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer as if there were no precondition.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Evaluates the preconditions of a GET or HEAD in the order of RFC 9110 §13.2.2.
pub(crate) fn evaluate(headers: &HeaderMap, of: Validators<'_>) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !any_tag(headers, IF_MATCH, |tag| strong_match(tag, of.etag)) {
            return Verdict::PreconditionFailed;
        }
    } else if let Some(limit) = date(headers, IF_UNMODIFIED_SINCE)
        && seconds(of.modified) > seconds(limit)
    {
        return Verdict::PreconditionFailed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if any_tag(headers, IF_NONE_MATCH, |tag| weak_match(tag, of.etag)) {
            return Verdict::NotModified;
        }
    } else if let Some(since) = date(headers, IF_MODIFIED_SINCE)
        && seconds(of.modified) <= seconds(since)
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether a `Range` header may be honoured: there is no `If-Range`, or it names exactly this
/// representation.
pub(crate) fn range_applies(headers: &HeaderMap, of: Validators<'_>, now: SystemTime) -> bool {
    let mut lines = headers.get_all(IF_RANGE).iter();
    let value = match (lines.next(), lines.next()) {
        (None, _) => return true,
        (Some(value), None) => value,
        _ => return false,
    };
    let Ok(value) = value.to_str() else { return false };
    if value.starts_with('"') || value.starts_with("W/") {
        return strong_match(value.trim_end(), of.etag);
    }
    // A date is a strong validator only when the file cannot have changed twice within its second
    // (RFC 9110 §8.8.2.2), and it must be this very date: a later one names some other version.
    let settled = of.modified + Duration::from_secs(1) <= now;
    settled && httpdate::parse_http_date(value).is_ok_and(|t| seconds(t) == seconds(of.modified))
}

/// Whether any tag of a list satisfies `matches`; `*` stands for any representation.
fn any_tag(headers: &HeaderMap, name: HeaderName, matches: impl Fn(&str) -> bool) -> bool {
    headers.get_all(name).iter().any(|line| {
        // A tag may hold bytes above 0x7f, which `to_str` would refuse. Ours never does, so a list
        // in a strange charset cannot match, but its other elements can.
        let line = String::from_utf8_lossy(line.as_bytes());
        line.trim() == "*" || tags(&line).any(&matches)
    })
}

/// The tags of a list such as `W/"a", "b,c"`. The walk ends at the first thing that is no tag.
fn tags(mut rest: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let open = if rest.starts_with("W/") { 2 } else { 0 };
        let opaque = rest.get(open..)?.strip_prefix('"')?;
        let end = open + 1 + opaque.find('"')? + 1;
        let tag = &rest[..end];
        rest = &rest[end..];
        Some(tag)
    })
}

fn strong_match(theirs: &str, ours: &str) -> bool {
    !theirs.starts_with("W/") && theirs == ours
}

fn weak_match(theirs: &str, ours: &str) -> bool {
    theirs.strip_prefix("W/").unwrap_or(theirs) == ours
}

/// A date header, if there is exactly one and it is a date. A recipient must ignore any other.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => httpdate::parse_http_date(line.to_str().ok()?).ok(),
        _ => None,
    }
}

/// Whole seconds since the epoch; a file from before it counts as from the epoch.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"ours\"";
    /// Sat, 29 Oct 1994 19:43:31 GMT, and half a second.
    const MODIFIED: Duration = Duration::from_millis(783_459_811_500);
    const EARLIER: &str = "Sat, 29 Oct 1994 19:43:30 GMT";
    const SAME: &str = "Sat, 29 Oct 1994 19:43:31 GMT";
    const LATER: &str = "Sat, 29 Oct 1994 19:43:32 GMT";

    fn of() -> Validators<'static> {
        Validators { etag: ETAG, modified: SystemTime::UNIX_EPOCH + MODIFIED }
    }

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    #[test]
    fn preconditions_are_evaluated_in_the_order_of_the_rfc() {
        use Verdict::{NotModified, PreconditionFailed, Proceed};
        let table: &[(&[(HeaderName, &str)], Verdict)] = &[
            (&[], Proceed),
            (&[(IF_MATCH, "\"ours\"")], Proceed),
            (&[(IF_MATCH, "*")], Proceed),
            (&[(IF_MATCH, "\"a\", \"ours\"")], Proceed),
            (&[(IF_MATCH, "\"a\""), (IF_MATCH, "\"ours\"")], Proceed),
            (&[(IF_MATCH, "W/\"ours\"")], PreconditionFailed),
            (&[(IF_MATCH, "\"a\"")], PreconditionFailed),
            (&[(IF_MATCH, "ours")], PreconditionFailed),
            (&[(IF_MATCH, "")], PreconditionFailed),
            (&[(IF_UNMODIFIED_SINCE, EARLIER)], PreconditionFailed),
            (&[(IF_UNMODIFIED_SINCE, SAME)], Proceed),
            (&[(IF_UNMODIFIED_SINCE, LATER)], Proceed),
            (&[(IF_UNMODIFIED_SINCE, "yesterday")], Proceed),
            // If-Match rules If-Unmodified-Since out.
            (&[(IF_MATCH, "\"ours\""), (IF_UNMODIFIED_SINCE, EARLIER)], Proceed),
            (&[(IF_NONE_MATCH, "\"ours\"")], NotModified),
            (&[(IF_NONE_MATCH, "W/\"ours\"")], NotModified),
            (&[(IF_NONE_MATCH, "*")], NotModified),
            (&[(IF_NONE_MATCH, " * ")], NotModified),
            (&[(IF_NONE_MATCH, "\"a\",W/\"b\" ,\t\"ours\"")], NotModified),
            (&[(IF_NONE_MATCH, "\"a,\", \"ours\"")], NotModified),
            (&[(IF_NONE_MATCH, "\"\u{e9}\", \"ours\"")], NotModified),
            (&[(IF_NONE_MATCH, "\"a\"")], Proceed),
            (&[(IF_NONE_MATCH, "\"a, \"ours\"")], Proceed),
            (&[(IF_NONE_MATCH, "w/\"ours\"")], Proceed),
            (&[(IF_NONE_MATCH, "\"ours")], Proceed),
            (&[(IF_NONE_MATCH, "")], Proceed),
            (&[(IF_MODIFIED_SINCE, EARLIER)], Proceed),
            (&[(IF_MODIFIED_SINCE, SAME)], NotModified),
            (&[(IF_MODIFIED_SINCE, LATER)], NotModified),
            (&[(IF_MODIFIED_SINCE, "Saturday, 29-Oct-94 19:43:31 GMT")], NotModified),
            (&[(IF_MODIFIED_SINCE, "Sat Oct 29 19:43:31 1994")], NotModified),
            (&[(IF_MODIFIED_SINCE, "")], Proceed),
            (&[(IF_MODIFIED_SINCE, LATER), (IF_MODIFIED_SINCE, LATER)], Proceed),
            // If-None-Match rules If-Modified-Since out, both ways.
            (&[(IF_NONE_MATCH, "\"a\""), (IF_MODIFIED_SINCE, LATER)], Proceed),
            (&[(IF_NONE_MATCH, "\"ours\""), (IF_MODIFIED_SINCE, EARLIER)], NotModified),
            // 412 comes before 304.
            (&[(IF_MATCH, "\"a\""), (IF_NONE_MATCH, "\"ours\"")], PreconditionFailed),
            (&[(IF_MATCH, "\"ours\""), (IF_NONE_MATCH, "\"ours\"")], NotModified),
        ];
        for (lines, want) in table {
            assert_eq!(evaluate(&headers(lines), of()), *want, "{lines:?}");
        }
    }

    #[test]
    fn if_range_takes_only_a_strong_validator_of_this_representation() {
        let table: &[(&str, bool)] = &[
            ("\"ours\"", true),
            ("W/\"ours\"", false),
            ("\"a\"", false),
            ("*", false),
            (SAME, true),
            (EARLIER, false),
            (LATER, false),
            ("nonsense", false),
        ];
        let now = of().modified + Duration::from_secs(1);
        assert!(range_applies(&headers(&[]), of(), now));
        for (value, want) in table {
            let headers = headers(&[(IF_RANGE, value)]);
            assert_eq!(range_applies(&headers, of(), now), *want, "{value}");
        }
        let twice = headers(&[(IF_RANGE, ETAG), (IF_RANGE, ETAG)]);
        assert!(!range_applies(&twice, of(), now));
    }

    #[test]
    fn a_date_is_no_strong_validator_of_a_file_changed_this_second() {
        let headers = headers(&[(IF_RANGE, SAME)]);
        assert!(!range_applies(&headers, of(), of().modified + Duration::from_millis(999)));
        assert!(!range_applies(&headers, of(), SystemTime::UNIX_EPOCH));
    }
}
