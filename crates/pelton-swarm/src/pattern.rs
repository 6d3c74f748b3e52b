//! Bytes that tell where they belong: each byte of a stream is a function of the stream and the offset, so that a
//! byte of another stream, one that came twice and one that is missing are all seen.

use std::net::SocketAddr;

/// A mixer with full avalanche (the finaliser of SplitMix64).
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A number for the connection that a client's address names.
pub fn connection(client: SocketAddr) -> u64 {
    let ip = match client.ip() {
        std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()),
        std::net::IpAddr::V6(ip) => ip.to_bits() as u64,
    };
    mix(ip << 16 | u64::from(client.port()))
}

/// The key of one direction of a connection.
pub fn direction(connection: u64, from_client: bool) -> u64 {
    mix(connection ^ (u64::from(from_client) << 63) ^ 0xD1EC)
}

fn word(key: u64, at: u64) -> [u8; 8] {
    mix(key ^ at.wrapping_mul(0xA24B_AED4_963E_E407)).to_le_bytes()
}

/// The byte of a stream at an offset.
pub fn byte(key: u64, offset: u64) -> u8 {
    word(key, offset / 8)[(offset % 8) as usize]
}

/// Fills `bytes` with a stream's bytes from an offset on.
pub fn fill(key: u64, offset: u64, bytes: &mut [u8]) {
    let mut at = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let skip = (at % 8) as usize;
        let n = rest.len().min(8 - skip);
        rest[..n].copy_from_slice(&word(key, at / 8)[skip..skip + n]);
        rest = &mut rest[n..];
        at += n as u64;
    }
}

/// A stream's bytes from an offset on.
pub fn bytes(key: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(key, offset, &mut bytes);
    bytes
}

/// Whether these are a stream's bytes from an offset on.
pub fn matches(key: u64, offset: u64, bytes: &[u8]) -> bool {
    let mut at = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let skip = (at % 8) as usize;
        let n = rest.len().min(8 - skip);
        if rest[..n] != word(key, at / 8)[skip..skip + n] {
            return false;
        }
        rest = &rest[n..];
        at += n as u64;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_in_whatever_pieces_it_is_made_and_unlike_others() {
        let whole = bytes(7, 0, 100);
        for cut in 0..100 {
            assert_eq!(bytes(7, cut, 100 - cut as usize), whole[cut as usize..]);
            assert!(matches(7, cut, &whole[cut as usize..]));
            assert_eq!(byte(7, cut), whole[cut as usize]);
        }
        assert!(!matches(7, 1, &whole));
        assert!(!matches(8, 0, &whole));
        assert_ne!(direction(1, true), direction(1, false));
    }
}
