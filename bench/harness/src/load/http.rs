//! Counting the responses in a stream of bytes.

use crate::error::{Error, Result};

/// A request as it is sent.
pub(crate) fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bench.test\r\nAccept: */*\r\n\r\n").into_bytes()
}

/// Counts the complete responses of one connection. A response is a status line, headers with a
/// `Content-Length`, and as many bytes; the status must be 200.
#[derive(Debug, Default)]
pub(crate) struct ResponseCounter {
    /// The beginning of a head whose end has not come.
    head: Vec<u8>,
    /// Bytes of the body that are still to come; `None` while in a head.
    body: Option<usize>,
}

/// A head longer than this is no answer to what was asked.
const LONGEST_HEAD: usize = 16 * 1024;

impl ResponseCounter {
    /// Takes the next bytes of the stream and returns how many responses they complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<usize> {
        let mut complete = 0;
        loop {
            if let Some(left) = self.body {
                let taken = left.min(bytes.len());
                bytes = &bytes[taken..];
                if taken < left {
                    self.body = Some(left - taken);
                    return Ok(complete);
                }
                self.body = None;
                complete += 1;
            }
            if bytes.is_empty() {
                return Ok(complete);
            }
            bytes = match self.take_head(bytes)? {
                Some(rest) => rest,
                None => return Ok(complete),
            };
        }
    }

    /// Whether the stream is between two responses.
    pub(crate) fn between(&self) -> bool {
        self.head.is_empty() && self.body.is_none()
    }

    /// Reads a head, and returns what follows it once its end is there.
    fn take_head<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>> {
        if self.head.is_empty() {
            // Nearly always a head comes in one piece, and is not copied.
            if let Some(end) = head_end(bytes, 0) {
                self.body = Some(content_length(&bytes[..end])?);
                return Ok(Some(&bytes[end..]));
            }
            self.head.extend_from_slice(bytes);
        } else {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            // The end's four bytes may lie on both sides of the seam.
            if let Some(end) = head_end(&self.head, before.saturating_sub(3)) {
                self.body = Some(content_length(&self.head[..end])?);
                self.head.clear();
                return Ok(Some(&bytes[end - before..]));
            }
        }
        if self.head.len() > LONGEST_HEAD {
            return Err(Error::Load(format!("a response's head is longer than {LONGEST_HEAD} B")));
        }
        Ok(None)
    }
}

fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4)
}

fn content_length(head: &[u8]) -> Result<usize> {
    const NAME: &[u8] = b"content-length:";
    let mut lines = head.split(|&byte| byte == b'\n');
    let status = lines.next().unwrap_or_default();
    if !status.starts_with(b"HTTP/1.1 200") {
        let status = String::from_utf8_lossy(status).trim().to_owned();
        return Err(Error::Load(format!("the answer is not 200: {status}")));
    }
    lines
        .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
        .and_then(|line| std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok())
        .ok_or_else(|| Error::Load("a response has no Content-Length that is a number".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\ndate: today\r\n\r\nHello, World!";

    #[test]
    fn whole_responses_are_counted() {
        let mut counter = ResponseCounter::default();
        assert_eq!(counter.feed(ONE).unwrap(), 1);
        assert_eq!(counter.feed(&ONE.repeat(16)).unwrap(), 16);
        assert!(counter.between());
    }

    #[test]
    fn a_response_may_be_cut_anywhere() {
        let stream = ONE.repeat(3);
        for first in 0..stream.len() {
            for second in [first, (first + 2).min(stream.len()), stream.len() - 1] {
                let second = second.max(first);
                let mut counter = ResponseCounter::default();
                let count = counter.feed(&stream[..first]).unwrap()
                    + counter.feed(&stream[first..second]).unwrap()
                    + counter.feed(&stream[second..]).unwrap();
                assert_eq!((count, counter.between()), (3, true), "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_response_in_single_bytes_counts_at_its_last() {
        let mut counter = ResponseCounter::default();
        for &byte in &ONE[..ONE.len() - 1] {
            assert_eq!(counter.feed(&[byte]).unwrap(), 0);
        }
        assert!(!counter.between());
        assert_eq!(counter.feed(b"!").unwrap(), 1);
    }

    #[test]
    fn an_empty_body_is_complete_with_its_head() {
        let mut counter = ResponseCounter::default();
        assert_eq!(counter.feed(b"HTTP/1.1 200 OK\r\nContent-LENGTH:0\r\n\r\n").unwrap(), 1);
    }

    #[test]
    fn other_answers_are_errors() {
        for (bytes, what) in [
            (&b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"[..], "not 200"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "Content-Length"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", "Content-Length"),
        ] {
            let error = ResponseCounter::default().feed(bytes).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        let endless = ResponseCounter::default().feed(&[b'x'; LONGEST_HEAD + 1]).unwrap_err();
        assert!(endless.to_string().contains("longer"), "{endless}");
    }
}
