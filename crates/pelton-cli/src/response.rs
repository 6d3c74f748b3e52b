//! From a request and a file to the head of a response and the parts of its body. Nothing here
//! reads anything.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderName, LAST_MODIFIED, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::conditional::{self, Validators, Verdict};
use crate::files::Meta;
use crate::range::{self, Ranges};

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// These bytes.
    Literal(Bytes),
    /// These of the file.
    Span(Range<u64>),
}

impl Part {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Part::Literal(bytes) => bytes.len() as u64,
            Part::Span(span) => span.end - span.start,
        }
    }
}

/// What to send. The head has its `Content-Length` already; for HEAD, `parts` is empty
/// nevertheless.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) head: Response<()>,
    pub(crate) parts: Vec<Part>,
}

/// Plans the answer to a GET or HEAD for a file.
pub(crate) fn of_file(
    method: &Method,
    request: &HeaderMap,
    meta: &Meta,
    cache_control: Option<&HeaderValue>,
    now: SystemTime,
) -> Plan {
    let mut head = Response::new(());
    let headers = head.headers_mut();
    headers.insert(ETAG, meta.etag.clone());
    headers.insert(LAST_MODIFIED, meta.last_modified.clone());
    // Always, because a twin may lie beside the file the next time.
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(value) = cache_control {
        headers.insert(CACHE_CONTROL, value.clone());
    }

    let etag = meta.etag.to_str().unwrap_or("\"\"");
    let validators = Validators { etag, modified: meta.stamp.modified };
    match conditional::evaluate(request, validators) {
        Verdict::Proceed => {}
        Verdict::NotModified => {
            *head.status_mut() = StatusCode::NOT_MODIFIED;
            return Plan { head, parts: Vec::new() };
        }
        Verdict::PreconditionFailed => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            *head.status_mut() = StatusCode::PRECONDITION_FAILED;
            return Plan { head, parts: Vec::new() };
        }
    }

    let len = meta.stamp.len;
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Ranges are defined for GET alone (RFC 9110 §14.2).
    let ranges = if method == Method::GET && conditional::range_applies(request, validators, now) {
        range::of_headers(request, len)
    } else {
        Ranges::Whole
    };
    let content_type = &meta.content_type;
    let (status, parts) = match ranges {
        Ranges::Whole => (StatusCode::OK, vec![Part::Span(0..len)]),
        Ranges::Some(ranges) if ranges.len() == 1 => {
            let range = ranges[0].clone();
            headers.insert(CONTENT_RANGE, value(content_range(&range, len)));
            (StatusCode::PARTIAL_CONTENT, vec![Part::Span(range)])
        }
        Ranges::Some(ranges) => {
            let boundary = boundary();
            let parts = multipart(&ranges, len, content_type, &boundary);
            let kind = value(format!("multipart/byteranges; boundary={boundary}"));
            headers.insert(CONTENT_TYPE, kind);
            (StatusCode::PARTIAL_CONTENT, parts)
        }
        Ranges::Unsatisfiable => {
            headers.insert(CONTENT_RANGE, value(format!("bytes */{len}")));
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            *head.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Plan { head, parts: Vec::new() };
        }
    };
    if !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, content_type.clone());
    }
    if let Some(token) = meta.stamp.coding.token() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(token));
    }
    headers.insert(CONTENT_LENGTH, parts.iter().map(Part::len).sum::<u64>().into());
    *head.status_mut() = status;
    Plan { head, parts: if method == Method::HEAD { Vec::new() } else { parts } }
}

/// A short answer in plain text, such as an error.
pub(crate) fn of_status(status: StatusCode) -> (Response<()>, Bytes) {
    let reason = status.canonical_reason().unwrap_or("");
    let text = format!("{} {reason}\n", status.as_u16());
    of_text(status, "text/plain; charset=utf-8", text.into())
}

/// An answer that is made in memory and must not be kept by anyone.
pub(crate) fn of_text(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
) -> (Response<()>, Bytes) {
    let mut head = Response::new(());
    *head.status_mut() = status;
    let fixed: [(HeaderName, &'static str); 3] = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        head.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    head.headers_mut().insert(CONTENT_LENGTH, (body.len() as u64).into());
    (head, body)
}

fn content_range(range: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", range.start, range.end - 1)
}

/// The parts of a `multipart/byteranges` (RFC 9110 §14.6).
fn multipart(ranges: &[Range<u64>], len: u64, kind: &HeaderValue, boundary: &str) -> Vec<Part> {
    let kind = kind.to_str().unwrap_or("application/octet-stream");
    let mut parts = Vec::with_capacity(ranges.len() * 2 + 1);
    for (at, range) in ranges.iter().enumerate() {
        let line_end = if at == 0 { "" } else { "\r\n" };
        let place = content_range(range, len);
        let header = format!(
            "{line_end}--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {place}\r\n\r\n"
        );
        parts.push(Part::Literal(header.into()));
        parts.push(Part::Span(range.clone()));
    }
    parts.push(Part::Literal(format!("\r\n--{boundary}--\r\n").into()));
    parts
}

/// A boundary that cannot be foreseen, so that no file can be made to contain it.
fn boundary() -> String {
    let half = || RandomState::new().hash_one(0);
    format!("pelton{:016x}{:016x}", half(), half())
}

/// A value made of what is known to be fit for a header.
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::{ACCEPT_ENCODING, IF_NONE_MATCH, IF_RANGE, RANGE};

    use super::*;
    use crate::encoding::Coding;
    use crate::files::Stamp;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn meta(coding: Coding) -> Meta {
        Meta {
            stamp: Stamp { len: 100, modified: NOW - Duration::from_secs(60), inode: 1, coding },
            settled: true,
            etag: HeaderValue::from_static("\"tag\""),
            last_modified: HeaderValue::from_static("date"),
            content_type: HeaderValue::from_static("text/plain; charset=utf-8"),
        }
    }

    fn plan(method: Method, lines: &[(HeaderName, &str)]) -> Plan {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().unwrap());
        }
        of_file(&method, &headers, &meta(Coding::Identity), None, NOW)
    }

    fn header(plan: &Plan, name: HeaderName) -> &str {
        plan.head.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn each_status_has_its_headers_and_parts() {
        let whole = || vec![Part::Span(0..100)];
        type Row = (Method, &'static [(HeaderName, &'static str)], u16, &'static str, &'static str);
        let table: &[(Row, Vec<Part>)] = &[
            ((Method::GET, &[], 200, "100", ""), whole()),
            ((Method::HEAD, &[], 200, "100", ""), vec![]),
            (
                (Method::GET, &[(RANGE, "bytes=0-9")], 206, "10", "bytes 0-9/100"),
                vec![Part::Span(0..10)],
            ),
            (
                (Method::GET, &[(RANGE, "bytes=-1")], 206, "1", "bytes 99-99/100"),
                vec![Part::Span(99..100)],
            ),
            ((Method::GET, &[(RANGE, "bytes=0-")], 206, "100", "bytes 0-99/100"), whole()),
            ((Method::HEAD, &[(RANGE, "bytes=0-9")], 200, "100", ""), vec![]),
            ((Method::GET, &[(RANGE, "bytes=100-")], 416, "0", "bytes */100"), vec![]),
            ((Method::GET, &[(RANGE, "lines=1")], 200, "100", ""), whole()),
            ((Method::GET, &[(IF_NONE_MATCH, "\"tag\"")], 304, "", ""), vec![]),
            ((Method::HEAD, &[(IF_NONE_MATCH, "\"tag\"")], 304, "", ""), vec![]),
            // 304 comes before 206.
            ((Method::GET, &[(IF_NONE_MATCH, "*"), (RANGE, "bytes=0-9")], 304, "", ""), vec![]),
            ((Method::GET, &[(http::header::IF_MATCH, "\"x\"")], 412, "0", ""), vec![]),
            // A part of another version is of no use.
            (
                (Method::GET, &[(IF_RANGE, "\"old\""), (RANGE, "bytes=0-9")], 200, "100", ""),
                whole(),
            ),
            (
                (
                    Method::GET,
                    &[(IF_RANGE, "\"tag\""), (RANGE, "bytes=0-9")],
                    206,
                    "10",
                    "bytes 0-9/100",
                ),
                vec![Part::Span(0..10)],
            ),
        ];
        for ((method, lines, status, length, range), parts) in table {
            let plan = plan(method.clone(), lines);
            assert_eq!(plan.head.status().as_u16(), *status, "{method} {lines:?}");
            assert_eq!(header(&plan, CONTENT_LENGTH), *length, "{method} {lines:?}");
            assert_eq!(header(&plan, CONTENT_RANGE), *range, "{method} {lines:?}");
            assert_eq!(plan.parts, *parts, "{method} {lines:?}");
            assert_eq!(header(&plan, ETAG), "\"tag\"");
            assert_eq!(header(&plan, VARY), "accept-encoding");
            let typed = matches!(status, 200 | 206);
            assert_eq!(plan.head.headers().contains_key(CONTENT_TYPE), typed);
        }
    }

    #[test]
    fn several_ranges_are_a_multipart_of_the_announced_length() {
        let plan = plan(Method::GET, &[(RANGE, "bytes=0-9,50-59")]);
        assert_eq!(plan.head.status(), 206);
        assert_eq!(header(&plan, CONTENT_RANGE), "");
        let kind = header(&plan, CONTENT_TYPE);
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let mut text = String::new();
        for part in &plan.parts {
            match part {
                Part::Literal(bytes) => text.push_str(std::str::from_utf8(bytes).unwrap()),
                Part::Span(span) => text.push_str(&"x".repeat((span.end - span.start) as usize)),
            }
        }
        let x = "x".repeat(10);
        let kind = "Content-Type: text/plain; charset=utf-8";
        let want = format!(
            "--{boundary}\r\n{kind}\r\nContent-Range: bytes 0-9/100\r\n\r\n{x}\r\n\
             --{boundary}\r\n{kind}\r\nContent-Range: bytes 50-59/100\r\n\r\n{x}\r\n--{boundary}--\r\n"
        );
        assert_eq!(text, want);
        assert_eq!(header(&plan, CONTENT_LENGTH), want.len().to_string());
        assert_ne!(super::boundary(), super::boundary());
    }

    #[test]
    fn a_twin_says_its_coding_and_the_file_does_not() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, "br".parse().unwrap());
        let cache = HeaderValue::from_static("max-age=60");
        let twin = of_file(&Method::GET, &headers, &meta(Coding::Brotli), Some(&cache), NOW);
        assert_eq!(header(&twin, CONTENT_ENCODING), "br");
        assert_eq!(header(&twin, CACHE_CONTROL), "max-age=60");
        assert_eq!(header(&plan(Method::GET, &[]), CONTENT_ENCODING), "");
    }
}
