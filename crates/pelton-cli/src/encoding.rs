//! `Accept-Encoding` (RFC 9110 §12.5.3): which of the codings that lie beside a file a client would
//! take, best first.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// A content coding that a file can have on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Coding {
    /// Brotli, in a `.br` beside the file.
    Brotli,
    /// Zstandard, in a `.zst` beside the file.
    Zstd,
    /// Gzip, in a `.gz` beside the file.
    Gzip,
    /// The file itself.
    Identity,
}

impl Coding {
    /// In the order that settles a tie: the smallest body first.
    const ALL: [Coding; 4] = [Coding::Brotli, Coding::Zstd, Coding::Gzip, Coding::Identity];

    /// What is appended to the name of the file.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
            Coding::Identity => "",
        }
    }

    /// The value of `Content-Encoding`, if there is one to send.
    pub(crate) fn token(self) -> Option<&'static str> {
        match self {
            Coding::Brotli => Some("br"),
            Coding::Zstd => Some("zstd"),
            Coding::Gzip => Some("gzip"),
            Coding::Identity => None,
        }
    }
}

/// The codings that a client takes, best first. Nothing stands behind the identity: every file has
/// that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Preference {
    order: [Coding; 4],
    len: u8,
}

impl Preference {
    /// Only the file itself.
    #[cfg(test)]
    pub(crate) const IDENTITY: Preference = Preference { order: [Coding::Identity; 4], len: 1 };

    /// Reads the `Accept-Encoding` lines of a request.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Preference {
        let lines = headers.get_all(ACCEPT_ENCODING);
        Preference::parse(lines.iter().filter_map(|line| line.to_str().ok()))
    }

    /// Reads the lines of an `Accept-Encoding`. An element that is not well formed is passed over.
    pub(crate) fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Preference {
        let mut named = [None::<u16>; 4];
        let mut others = None::<u16>;
        for element in lines.flat_map(|line| line.split(',')) {
            let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
            let Some(weight) = weight(parameters) else { continue };
            let name = name.trim();
            let place = match () {
                () if name == "*" => &mut others,
                () if name.eq_ignore_ascii_case("br") => &mut named[0],
                () if name.eq_ignore_ascii_case("zstd") => &mut named[1],
                () if name.eq_ignore_ascii_case("gzip") => &mut named[2],
                () if name.eq_ignore_ascii_case("x-gzip") => &mut named[2],
                () if name.eq_ignore_ascii_case("identity") => &mut named[3],
                () => continue,
            };
            // Of two statements the first counts, so that nothing behind can turn a coding on
            // again.
            place.get_or_insert(weight);
        }
        // What nobody mentioned is refused, but for the identity, which is then taken before
        // nothing at all. Weights are doubled to leave a place for it beneath the smallest.
        let weights: [u16; 4] = std::array::from_fn(|at| match (named[at].or(others), at) {
            (Some(weight), _) => weight * 2,
            (None, 3) => 1,
            (None, _) => 0,
        });
        let mut found: Vec<usize> = (0..4).filter(|&at| weights[at] > 0).collect();
        found.sort_by_key(|&at| std::cmp::Reverse(weights[at]));
        if let Some(identity) = found.iter().position(|&at| at == 3) {
            found.truncate(identity + 1);
        }
        let mut order = [Coding::Identity; 4];
        for (place, &at) in order.iter_mut().zip(&found) {
            *place = Coding::ALL[at];
        }
        Preference { order, len: found.len() as u8 }
    }

    /// The codings, best first. Empty for a client that refuses everything.
    pub(crate) fn codings(&self) -> &[Coding] {
        &self.order[..self.len as usize]
    }
}

/// The weight in thousandths from the parameters of an element: `q=0.5`, or nothing for 1.
fn weight(parameters: &str) -> Option<u16> {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return Some(1000);
    }
    let (name, value) = parameters.split_once('=')?;
    if !name.trim_end().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, fraction) = match value.trim_start().split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (value.trim_start(), ""),
    };
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Coding::{Brotli, Gzip, Identity, Zstd};
    use super::*;

    #[test]
    fn accept_encoding_is_ordered_by_weight_and_then_by_the_servers_taste() {
        let table: &[(&str, &[Coding])] = &[
            ("", &[Identity]),
            ("gzip", &[Gzip, Identity]),
            ("GZIP", &[Gzip, Identity]),
            ("x-gzip", &[Gzip, Identity]),
            ("gzip, deflate, br, zstd", &[Brotli, Zstd, Gzip, Identity]),
            ("gzip;q=1.0, br;q=0.5", &[Gzip, Brotli, Identity]),
            ("gzip;q=0.001,br;q=0.002", &[Brotli, Gzip, Identity]),
            ("gzip;q=0, br", &[Brotli, Identity]),
            ("*", &[Brotli, Zstd, Gzip, Identity]),
            ("*;q=0.5, gzip", &[Gzip, Brotli, Zstd, Identity]),
            ("*;q=0, gzip", &[Gzip]),
            ("identity;q=0, gzip", &[Gzip]),
            ("identity;q=0", &[]),
            ("*;q=0", &[]),
            ("*;q=0, identity;q=0.1", &[Identity]),
            // What stands behind the identity is never reached.
            ("identity, gzip;q=0.5", &[Identity]),
            ("identity;q=0.7, gzip;q=0.9, br;q=0.5", &[Gzip, Identity]),
            ("br ; q = 0.3 , gzip ;q=0.2", &[Brotli, Gzip, Identity]),
            // Not well formed: passed over.
            ("gzip;q=2", &[Identity]),
            ("gzip;q=-1", &[Identity]),
            ("gzip;q=0.1234", &[Identity]),
            ("gzip;q=1.001", &[Identity]),
            ("gzip;q=", &[Identity]),
            ("gzip;x=1", &[Identity]),
            ("gzip;q=0,gzip", &[Identity]),
            (",,gzip,,", &[Gzip, Identity]),
            ("deflate, compress", &[Identity]),
        ];
        for (value, want) in table {
            let got = Preference::parse(std::iter::once(*value));
            assert_eq!(got.codings(), *want, "{value}");
        }
        assert_eq!(Preference::parse(std::iter::empty()), Preference::IDENTITY);
    }

    #[test]
    fn several_lines_are_one_list() {
        let got = Preference::parse(["gzip;q=0.5", "br"].into_iter());
        assert_eq!(got.codings(), [Brotli, Gzip, Identity]);
    }

    #[test]
    fn the_same_wish_is_the_same_preference_however_it_is_spelled() {
        let one = Preference::parse(std::iter::once("gzip, br"));
        let two = Preference::parse(std::iter::once("br;q=0.9, gzip;q=0.9, deflate"));
        assert_eq!(one, two);
    }
}
