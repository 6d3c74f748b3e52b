//! hyper's `rt` traits on Pelton's types: what is read, what is written, and timers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBuf, Write};
use pelton::io::{AsyncWrite, PollStream};
use pelton::net::TcpStream;
use pelton_http::{Executor, Io, Timer};

use crate::runtime::{Event, inside_each_backend, pair, pattern, poll_once, read_n};

/// Reads as hyper does, into a buffer of `room` bytes.
async fn read<S: Read + Unpin>(io: &mut S, room: usize) -> io::Result<Vec<u8>> {
    let mut space = vec![0; room];
    poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut space);
        match Pin::new(&mut *io).poll_read(cx, buf.unfilled()) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buf.filled().to_vec())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Writes all of it, in as many parts as `cuts` make, as hyper does: what was not taken comes again.
async fn write_parts<S: Write + Unpin>(io: &mut S, bytes: &[u8], part: usize) -> usize {
    let (mut at, mut calls) = (0, 0);
    while at < bytes.len() {
        let parts: Vec<IoSlice<'_>> = bytes[at..].chunks(part).take(32).map(IoSlice::new).collect();
        let n = poll_fn(|cx| Pin::new(&mut *io).poll_write_vectored(cx, &parts)).await.unwrap();
        assert!(n > 0, "nothing was taken of {} parts", parts.len());
        at += n;
        calls += 1;
    }
    calls
}

#[test]
fn what_does_not_fit_into_hypers_buffer_is_there_for_its_next_read() {
    inside_each_backend(|_| async {
        let (server, client) = pair().await;
        let mut io = Io::new(server);
        let sent = pattern(1000);
        client.send_all(sent.clone()).await.unwrap();
        let mut received = Vec::new();
        // No room is no end, and takes nothing.
        assert!(read(&mut io, 0).await.unwrap().is_empty());
        for room in (1..8).cycle() {
            let part = read(&mut io, room).await.unwrap();
            assert!(!part.is_empty() && part.len() <= room);
            received.extend(part);
            if received.len() >= 500 {
                break;
            }
        }
        // What was received and not read goes with the stream that was wrapped.
        let (stream, rest) = io.into_inner();
        received.extend_from_slice(&rest.expect("a lease was cut in the middle"));
        let mut io = Io::from_poll(stream);
        while received.len() < sent.len() {
            received.extend(read(&mut io, 4096).await.unwrap());
        }
        assert!(received == sent);
        drop(client);
        assert!(read(&mut io, 10).await.unwrap().is_empty(), "the end");
        assert!(read(&mut io, 10).await.unwrap().is_empty(), "the end stays the end");
    });
}

#[test]
fn a_read_that_waits_is_woken_by_what_comes() {
    inside_each_backend(|_| async {
        let (server, client) = pair().await;
        let mut io = Io::new(server);
        let (waits, done) = (Event::default(), Event::default());
        let (waiting, finished) = (waits.clone(), done.clone());
        let reader = pelton::spawn(async move {
            {
                let mut first = Box::pin(read(&mut io, 100));
                assert!(poll_once(first.as_mut()).is_pending());
            }
            waiting.set();
            let bytes = read(&mut io, 100).await.unwrap();
            finished.set();
            bytes
        });
        waits.wait().await;
        pelton::yield_now().await;
        assert!(!done.is_set());
        client.send_all("at last").await.unwrap();
        assert_eq!(reader.await.unwrap(), b"at last");
    });
}

#[test]
fn many_small_parts_and_large_ones_arrive_in_order() {
    inside_each_backend(|_| async {
        let (server, client) = pair().await;
        let mut io = Io::new(server);
        assert!(io.is_write_vectored());
        let small = pattern(10_000);
        // Larger than one write takes and than the sockets hold.
        let large = pattern(4 << 20);
        let (want, length) = ([&small[..], &large].concat(), small.len() + large.len());
        let reader = pelton::spawn(async move { read_n(&client, length).await });
        let calls = write_parts(&mut io, &small, 7).await;
        assert!(calls <= small.len() / (7 * 32) + 1, "each call takes all of its parts: {calls}");
        let calls = write_parts(&mut io, &large, 300_000).await;
        assert!(calls > 10, "{calls} calls are no back-pressure");
        poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx)).await.unwrap();
        assert!(reader.await.unwrap() == want);
    });
}

#[test]
fn parts_that_are_all_empty_are_nothing_and_not_the_end() {
    inside_each_backend(|_| async {
        let (server, client) = pair().await;
        let mut io = Io::new(server);
        let nothing = [IoSlice::new(&[]), IoSlice::new(&[])];
        let n = poll_fn(|cx| Pin::new(&mut io).poll_write_vectored(cx, &nothing)).await.unwrap();
        assert_eq!(n, 0);
        assert_eq!(poll_fn(|cx| Pin::new(&mut io).poll_write(cx, b"")).await.unwrap(), 0);
        assert_eq!(poll_fn(|cx| Pin::new(&mut io).poll_write(cx, b"abc")).await.unwrap(), 3);
        poll_fn(|cx| Pin::new(&mut io).poll_flush(cx)).await.unwrap();
        assert_eq!(read_n(&client, 3).await, b"abc");
    });
}

#[test]
fn a_shutdown_ends_our_direction_and_leaves_the_other() {
    inside_each_backend(|_| async {
        let (server, client) = pair().await;
        let mut io = Io::new(server);
        poll_fn(|cx| Pin::new(&mut io).poll_write(cx, b"bye")).await.unwrap();
        poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx)).await.unwrap();
        poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx)).await.unwrap();
        assert_eq!(read_n(&client, 100).await, b"bye", "all of it, and then the end");
        client.send_all("still here").await.unwrap();
        assert_eq!(read(&mut io, 100).await.unwrap(), b"still here");
    });
}

#[test]
fn a_peer_that_has_gone_is_an_error_of_a_write_soon() {
    inside_each_backend(|_| async {
        let (server, client) = pair().await;
        server.send_all("never read, so that the close is a reset").await.unwrap();
        client.readable().await.unwrap();
        drop(client);
        let mut io = Io::new(server);
        // Taken once or twice, before the reset is known.
        let error = loop {
            match poll_fn(|cx| Pin::new(&mut io).poll_write(cx, b"hello")).await {
                Ok(_) => pelton::yield_now().await,
                Err(error) => break error,
            }
        };
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        assert!(matches!(error.kind(), BrokenPipe | ConnectionReset), "{error}");
    });
}

/// Counts what hyper hands over at once.
struct Counting {
    stream: PollStream,
    parts: Rc<RefCell<Vec<usize>>>,
}

impl AsyncWrite for Counting {
    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.parts.borrow_mut().push(parts.len());
        self.stream.poll_write_vectored(cx, parts)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }
}

impl pelton::io::AsyncRead for Counting {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: pelton::io::Spare<'_>,
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_read(cx, into)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<pelton::Lease>>> {
        self.stream.poll_recv(cx)
    }
}

#[test]
fn hyper_hands_over_head_and_body_in_one_vectored_write() {
    inside_each_backend(|_| async {
        let (server, client) = pair().await;
        let parts = Rc::new(RefCell::new(Vec::new()));
        let counting = Counting { stream: PollStream::new(server), parts: parts.clone() };
        // Large enough that hyper does not copy it behind the head.
        let body = bytes::Bytes::from(pattern(100_000));
        let sent = body.clone();
        let service = hyper::service::service_fn(move |_| {
            std::future::ready(crate::serving::answer(sent.clone()))
        });
        let http = hyper::server::conn::http1::Builder::new();
        let serving = http.serve_connection(Io::from_poll(counting), service);
        let serving = pelton::spawn(serving);
        client.send_all(crate::client::get("/")).await.unwrap();
        let mut received = Vec::new();
        while received.len() < body.len() || !received.ends_with(&body) {
            received.extend_from_slice(&client.recv().await.unwrap().expect("the answer goes on"));
        }
        assert!(parts.borrow().contains(&2), "{parts:?}");
        drop(client);
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn hypers_timers_fire_and_are_reset() {
    use hyper::rt::Timer as _;
    inside_each_backend(|_| async {
        let moment = Duration::from_millis(5);
        let hour = Duration::from_secs(3600);
        let began = Instant::now();
        Timer.sleep(moment).await;
        Timer.sleep_until(began + 2 * moment).await;
        assert!(began.elapsed() >= 2 * moment);
        // One that would not fire while this test runs, and then does.
        let mut sleep = Timer.sleep(hour);
        assert!(poll_once(sleep.as_mut()).is_pending());
        Timer.reset(&mut sleep, Instant::now() + moment);
        sleep.await;
        // And the other way round: it is set to later before it has fired.
        let mut sleep = Timer.sleep(moment);
        assert!(poll_once(sleep.as_mut()).is_pending());
        Timer.reset(&mut sleep, Instant::now() + hour);
        Timer.sleep(2 * moment).await;
        assert!(poll_once(sleep.as_mut()).is_pending(), "it was set to later");
        // A timer of another kind is replaced by one that works here.
        let mut foreign: Pin<Box<dyn hyper::rt::Sleep>> = Box::pin(Foreign);
        Timer.reset(&mut foreign, Instant::now() + moment);
        foreign.await;
    });
}

/// A timer that never fires.
struct Foreign;

impl std::future::Future for Foreign {
    type Output = ();
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl hyper::rt::Sleep for Foreign {}

#[test]
fn a_timer_may_be_moved_to_another_thread_and_is_refused_there() {
    use hyper::rt::Timer as _;
    inside_each_backend(|_| async {
        let mut sleep = Timer.sleep(Duration::from_secs(3600));
        let (back, refused) = std::thread::spawn(move || {
            let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                poll_once(sleep.as_mut()).is_ready()
            }));
            (sleep, polled.is_err())
        })
        .join()
        .unwrap();
        assert!(refused, "it was polled on another thread");
        drop(back);
    });
}

#[test]
fn hypers_tasks_run_on_this_reactor() {
    use hyper::rt::Executor as _;
    inside_each_backend(|_| async {
        let event = Event::default();
        let (done, here) = (event.clone(), std::thread::current().id());
        Executor.execute(async move {
            pelton::yield_now().await;
            assert_eq!(std::thread::current().id(), here);
            // Not `Send`, and need not be.
            done.set();
        });
        event.wait().await;
    });
}

/// A connection is wrapped without a copy of what it had received.
#[test]
fn the_wrapped_stream_can_be_looked_at() {
    inside_each_backend(|_| async {
        let (server, client): (TcpStream, TcpStream) = pair().await;
        let address = server.peer_addr().unwrap();
        let io = Io::new(server);
        assert_eq!(io.get_ref().stream().peer_addr().unwrap(), address);
        assert_eq!(client.local_addr().unwrap(), address);
    });
}
