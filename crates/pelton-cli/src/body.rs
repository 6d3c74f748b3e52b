//! The body of a response: bytes in memory, or parts of a file that is read while it is sent.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::cache::{Content, OpenFile};
use crate::exchange::Exchange;
use crate::response::Part;
use crate::runtime::{LocalBoxFuture, Runtime};

/// How much of a file is read at once. Large enough that the cost of a read is lost in that of its
/// bytes, small enough that ten thousand slow downloads do not fill the memory.
pub(crate) const CHUNK: u64 = 64 * 1024;

/// A read that is under way.
type Read = LocalBoxFuture<(io::Result<usize>, Vec<u8>)>;

/// A body with a known length. Reports to its [`Exchange`] what was handed out; the exchange ends
/// when the body is dropped, sent or not.
pub(crate) struct Body<R: Runtime> {
    parts: VecDeque<Part>,
    content: Option<Content<R::File>>,
    reading: Option<Read>,
    left: u64,
    exchange: Option<Exchange>,
}

impl<R: Runtime> Body<R> {
    /// No bytes.
    pub(crate) fn empty() -> Body<R> {
        Body { parts: VecDeque::new(), content: None, reading: None, left: 0, exchange: None }
    }

    /// These bytes.
    pub(crate) fn full(bytes: Bytes) -> Body<R> {
        let left = bytes.len() as u64;
        let parts = if bytes.is_empty() { VecDeque::new() } else { [Part::Literal(bytes)].into() };
        Body { parts, left, ..Body::empty() }
    }

    /// Parts of a file, in this order.
    pub(crate) fn of_file(file: &OpenFile<R::File>, parts: Vec<Part>) -> Body<R> {
        let parts: VecDeque<Part> = parts.into_iter().filter(|part| part.len() > 0).collect();
        let left = parts.iter().map(Part::len).sum();
        let content = if parts.is_empty() { None } else { Some(file.content.clone()) };
        Body { parts, content, left, ..Body::empty() }
    }

    /// Ties the end of an exchange to the end of this body.
    pub(crate) fn with_exchange(mut self, exchange: Exchange) -> Body<R> {
        self.exchange = Some(exchange);
        self
    }

    fn hand_out(&mut self, bytes: Bytes) -> Option<Result<Frame<Bytes>, io::Error>> {
        self.left -= bytes.len() as u64;
        if let Some(exchange) = &mut self.exchange {
            exchange.sent += bytes.len() as u64;
        }
        if self.left == 0 {
            // The descriptor is not kept until the last bytes have left the machine.
            self.content = None;
        }
        Some(Ok(Frame::data(bytes)))
    }

    /// After an error there is no more to come: the length that was announced cannot be kept, and
    /// hyper closes.
    fn fail(&mut self, error: io::Error) -> Option<Result<Frame<Bytes>, io::Error>> {
        self.parts.clear();
        self.content = None;
        self.left = 0;
        Some(Err(error))
    }
}

impl<R: Runtime> http_body::Body for Body<R> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        loop {
            if let Some(reading) = &mut this.reading {
                let (result, buf) = ready!(reading.as_mut().poll(cx));
                this.reading = None;
                let Some(Part::Span(span)) = this.parts.front_mut() else {
                    return Poll::Ready(None);
                };
                return Poll::Ready(match result {
                    Ok(0) => this.fail(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the file became shorter while it was sent",
                    )),
                    Ok(_) => {
                        // Not longer than the span, whatever the buffer had room for.
                        let bytes = Bytes::from(buf);
                        let take = (bytes.len() as u64).min(span.end - span.start);
                        span.start += take;
                        if span.is_empty() {
                            this.parts.pop_front();
                        }
                        this.hand_out(bytes.slice(..take as usize))
                    }
                    Err(error) => this.fail(error),
                });
            }
            match (this.parts.pop_front(), &this.content) {
                (None, _) => return Poll::Ready(None),
                (Some(Part::Literal(bytes)), _) => return Poll::Ready(this.hand_out(bytes)),
                (Some(Part::Span(Range { start, end })), Some(Content::Bytes(bytes))) => {
                    let bytes = bytes.slice(start as usize..end as usize);
                    return Poll::Ready(this.hand_out(bytes));
                }
                (Some(Part::Span(span)), Some(Content::File(file))) => {
                    let room = (span.end - span.start).min(CHUNK) as usize;
                    let buf = Vec::with_capacity(room);
                    this.reading = Some(R::read_at(Rc::clone(file), buf, span.start));
                    this.parts.push_front(Part::Span(span));
                }
                (Some(Part::Span(_)), None) => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty() && self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl<R: Runtime> fmt::Debug for Body<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("left", &self.left)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}
