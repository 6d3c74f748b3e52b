//! Connections in poll form: what hyper and rustls sit on.

mod common;

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::task::Poll;
use std::time::Duration;

use common::{inside_each_backend, join_all, on_each_backend, pair, pair_with_std, pattern, quiet};
use pelton::Handle;
use pelton::io::{AsyncRead, AsyncWrite, PollStream, Spare};

async fn write_all(stream: &mut PollStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| stream.poll_write(cx, bytes)).await?;
        assert!(n > 0 && n <= bytes.len());
        bytes = &bytes[n..];
    }
    Ok(())
}

async fn read(stream: &mut PollStream, buf: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_read(cx, Spare::from(&mut *buf))).await
}

async fn flush(stream: &mut PollStream) -> io::Result<()> {
    poll_fn(|cx| stream.poll_flush(cx)).await
}

async fn shut_down(stream: &mut PollStream) -> io::Result<()> {
    poll_fn(|cx| stream.poll_shutdown(cx)).await
}

#[test]
fn ten_mebibytes_reach_a_slow_reader_whole() {
    inside_each_backend(|_| async {
        const TOTAL: usize = 10 << 20;
        let (a, mut client) = pair_with_std().await;
        let reader = std::thread::spawn(move || {
            let (mut got, mut chunk) = (Vec::with_capacity(TOTAL), [0; 4093]);
            loop {
                match client.read(&mut chunk).unwrap() {
                    0 => return got,
                    n => got.extend_from_slice(&chunk[..n]),
                }
                if got.len() % 64 == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut stream = PollStream::new(a);
        write_all(&mut stream, &pattern(TOTAL)).await.unwrap();
        flush(&mut stream).await.unwrap();
        shut_down(&mut stream).await.unwrap();
        let got = pelton::spawn_blocking(|| common::join(reader)).await.unwrap();
        assert!(got == pattern(TOTAL));
    });
}

#[test]
fn a_stream_that_is_dropped_with_a_send_under_way_delivers_what_it_had_taken() {
    inside_each_backend(|_| async {
        let all = pattern(64 << 20);
        for _ in 0..3 {
            let (a, mut client) = pair_with_std().await;
            // A small window, so that the send is under way for as long as nobody reads.
            a.with_socket(|socket| socket.set_send_buffer_size(4096)).unwrap();
            let mut stream = PollStream::new(a);
            let mut taken = 0;
            // Until no more is taken: the last one is under way.
            loop {
                let poll = poll_fn(|cx| Poll::Ready(stream.poll_write(cx, &all[taken..]))).await;
                match poll {
                    Poll::Ready(n) => taken += n.unwrap(),
                    Poll::Pending => break,
                }
                pelton::yield_now().await;
            }
            drop(stream);
            let got = pelton::spawn_blocking(move || {
                let mut got = Vec::new();
                client.read_to_end(&mut got).unwrap();
                got
            });
            let got = got.await.unwrap();
            assert_eq!(got.len(), taken);
            assert!(got == all[..taken]);
            quiet().await;
        }
    });
}

#[test]
fn a_stream_that_is_dropped_when_nothing_is_under_way_closes_at_once() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let mut stream = PollStream::new(a);
        write_all(&mut stream, b"all of it").await.unwrap();
        flush(&mut stream).await.unwrap();
        drop(stream);
        assert_eq!(common::read_n(&b, 100).await, b"all of it");
        quiet().await;
    });
}

#[test]
fn tiny_buffers_read_the_same_as_large_ones() {
    inside_each_backend(|_| async {
        for size in [1, 3, 1000, 1 << 20] {
            let (a, b) = pair().await;
            let total = if size < 100 { 10_000 } else { 1 << 20 };
            let writer = pelton::spawn(async move { b.send_all(pattern(total)).await });
            let mut stream = PollStream::new(a);
            let (mut got, mut buf) = (Vec::new(), vec![0; size]);
            assert_eq!(read(&mut stream, &mut []).await.unwrap(), 0, "no room, no waiting");
            loop {
                match read(&mut stream, &mut buf).await.unwrap() {
                    0 => break,
                    n => got.extend_from_slice(&buf[..n]),
                }
            }
            assert!(got == pattern(total));
            assert_eq!(read(&mut stream, &mut buf).await.unwrap(), 0, "the end stays the end");
            writer.await.unwrap().unwrap();
            assert_eq!(Handle::current().snapshot().buffers_in_use, 0);
        }
    });
}

#[test]
fn into_inner_gives_back_what_was_received_and_not_read() {
    inside_each_backend(|_| async {
        // Read in part.
        let (a, b) = pair().await;
        b.send_all("read and not read").await.unwrap();
        let mut stream = PollStream::new(a);
        let mut buf = [0; 9];
        stream.stream().readable().await.unwrap();
        assert_eq!(read(&mut stream, &mut buf).await.unwrap(), 9);
        assert_eq!(&buf, b"read and ");
        let (a, rest) = stream.into_inner().await.unwrap();
        assert_eq!(&*rest.unwrap(), b"not read");

        // A receive is in flight, with nothing or with something on the way.
        let mut a = a;
        for round in 0..50u8 {
            let mut stream = PollStream::new(a);
            let parked = poll_fn(|cx| Poll::Ready(stream.poll_recv(cx).is_pending())).await;
            assert!(parked);
            if round % 3 > 0 {
                b.send_all([round; 7]).await.unwrap();
            }
            if round % 3 > 1 {
                pelton::yield_now().await;
            }
            let rest;
            (a, rest) = stream.into_inner().await.unwrap();
            if round % 3 > 0 {
                let mut got = rest.map_or(Vec::new(), |lease| lease.to_vec());
                got.extend(common::read_n(&a, 7 - got.len()).await);
                assert_eq!(got, [round; 7]);
            } else {
                assert!(rest.is_none());
            }
        }
        drop((a, b));
        quiet().await;
    });
}

#[test]
fn slots_of_shutdowns_that_were_not_awaited_are_free_again() {
    // Many more than there are slots.
    on_each_backend(|backend| {
        let small = pelton::driver::Config { max_operations: 64, ..common::config(backend) };
        let runtime = pelton::Builder::new().driver(small).build().unwrap();
        runtime.block_on(async {
            for _ in 0..200 {
                let (a, _b) = pair().await;
                let mut stream = PollStream::new(a);
                poll_fn(|cx| Poll::Ready(stream.poll_shutdown(cx).is_pending())).await;
                stream.into_inner().await.unwrap();
            }
        });
    });
}

#[test]
fn a_shutdown_comes_after_what_was_written_and_can_be_asked_for_again() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let reader = pelton::spawn(async move {
            let got = common::read_n(&b, usize::MAX >> 32).await;
            // The other direction goes on.
            b.send_all("answer").await.unwrap();
            got
        });
        let mut stream = PollStream::new(a);
        write_all(&mut stream, &pattern(3 << 20)).await.unwrap();
        shut_down(&mut stream).await.unwrap();
        shut_down(&mut stream).await.unwrap();
        assert!(reader.await.unwrap() == pattern(3 << 20));
        let mut buf = [0; 16];
        assert_eq!(read(&mut stream, &mut buf).await.unwrap(), 6);
        let late = match write_all(&mut stream, b"late").await {
            Ok(()) => flush(&mut stream).await,
            late => late,
        };
        assert_eq!(late.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_shutdown_after_the_peer_has_gone_is_no_error() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        b.set_linger(Some(Duration::ZERO)).unwrap();
        drop(b);
        let mut stream = PollStream::new(a);
        let reset = poll_fn(|cx| stream.poll_recv(cx)).await.unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
        shut_down(&mut stream).await.unwrap();
    });
}

#[test]
fn an_error_of_a_send_is_told_by_the_next_call() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        b.set_linger(Some(Duration::ZERO)).unwrap();
        let mut stream = PollStream::new(a);
        drop(b);
        let error = async {
            loop {
                write_all(&mut stream, &pattern(10_000)).await?;
                flush(&mut stream).await?;
            }
            #[allow(unreachable_code)]
            io::Result::Ok(())
        };
        let error = error.await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            "{error}"
        );
        drop(stream);
        quiet().await;
    });
}

#[test]
fn several_slices_are_written_as_one() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let mut stream = PollStream::new(a);
        let parts = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
        assert_eq!(poll_fn(|cx| stream.poll_write_vectored(cx, &parts)).await.unwrap(), 7);
        assert_eq!(common::read_n(&b, 7).await, b"one two");
        assert_eq!(poll_fn(|cx| stream.poll_write_vectored(cx, &[])).await.unwrap(), 0);
        assert_eq!(poll_fn(|cx| stream.poll_write(cx, b"")).await.unwrap(), 0);
        // More than one write takes is taken in part.
        let large = pattern(1 << 20);
        let parts = [IoSlice::new(&large), IoSlice::new(&large)];
        let taken = poll_fn(|cx| stream.poll_write_vectored(cx, &parts)).await.unwrap();
        assert!(taken > 0 && taken < 1 << 20);
        assert!(common::read_n(&b, taken).await == large[..taken]);
    });
}

#[test]
fn reading_and_writing_with_different_wakers_wakes_the_right_ones() {
    inside_each_backend(|_| async {
        use std::cell::RefCell;
        use std::rc::Rc;
        let (a, mut client) = pair_with_std().await;
        let stream = Rc::new(RefCell::new(PollStream::new(a)));
        let (reads, writes) = (stream.clone(), stream.clone());
        let total = 2 << 20;
        let reader: std::pin::Pin<Box<dyn Future<Output = usize>>> = Box::pin(async move {
            let (mut got, mut buf) = (0, [0; 1000]);
            while got < 100_000 {
                got += poll_fn(|cx| reads.borrow_mut().poll_read(cx, Spare::from(&mut buf[..])))
                    .await
                    .unwrap();
            }
            got
        });
        let writer: std::pin::Pin<Box<dyn Future<Output = usize>>> = Box::pin(async move {
            let bytes = pattern(total);
            let mut sent = 0;
            while sent < total {
                sent +=
                    poll_fn(|cx| writes.borrow_mut().poll_write(cx, &bytes[sent..])).await.unwrap();
            }
            poll_fn(|cx| writes.borrow_mut().poll_flush(cx)).await.unwrap();
            sent
        });
        let peer = std::thread::spawn(move || {
            client.write_all(&pattern(100_000)).unwrap();
            let mut got = vec![0; total];
            client.read_exact(&mut got).unwrap();
            assert!(got == pattern(total));
        });
        assert_eq!(join_all(vec![reader, writer]).await, [100_000, total]);
        pelton::spawn_blocking(|| common::join(peer)).await.unwrap();
    });
}

#[test]
fn dropping_a_stream_at_any_moment_of_a_write_closes_it_in_the_end() {
    inside_each_backend(|_| async {
        let rounds = if cfg!(debug_assertions) { 500 } else { 5000 };
        let before = common::open_descriptors();
        for round in 0..rounds {
            let (a, b) = pair().await;
            let mut stream = PollStream::new(a);
            let parked = poll_fn(|cx| Poll::Ready(stream.poll_recv(cx).is_pending())).await;
            assert!(parked);
            // The close races the send, the flush and the peer's bytes.
            write_all(&mut stream, &pattern(1000)).await.unwrap();
            if round % 2 == 0 {
                poll_fn(|cx| Poll::Ready(stream.poll_flush(cx).is_pending())).await;
            }
            if round % 3 == 0 {
                b.send_all("x").await.unwrap();
            }
            if round % 5 == 0 {
                flush(&mut stream).await.unwrap();
            }
            drop(stream);
            if round % 3 > 0 {
                assert_eq!(common::read_n(&b, 1000).await, pattern(1000));
            }
        }
        quiet().await;
        common::closed_down_to(before).await;
    });
}

/// Writes until the sockets are full and a send is parked.
async fn write_until_full(stream: &mut PollStream, sent: &mut Vec<u8>) {
    let mut refusals = 0;
    while refusals < 100 {
        let more = pattern(sent.len() + 100_000)[sent.len()..].to_vec();
        let mut noop = std::task::Context::from_waker(std::task::Waker::noop());
        match stream.poll_write(&mut noop, &more) {
            Poll::Ready(n) => {
                sent.extend_from_slice(&more[..n.unwrap()]);
                refusals = 0;
            }
            Poll::Pending => refusals += 1,
        }
        // So that what is in flight reaches the kernel, and ends if there is room.
        pelton::yield_now().await;
    }
}

#[test]
fn a_peer_that_half_closes_while_a_send_is_parked_gets_all_of_it_and_what_comes_next() {
    inside_each_backend(|_| async {
        let (server, client) = pair_with_std().await;
        // Of fixed sizes, or they grow when an acknowledgement comes, and the close brings one.
        server.with_socket(|socket| socket.set_send_buffer_size(64 << 10)).unwrap();
        socket2::SockRef::from(&client).set_recv_buffer_size(64 << 10).unwrap();
        let handle = Handle::current();
        let sending = || handle.snapshot().in_flight_of(pelton::driver::Kind::Send);
        let mut stream = PollStream::new(server);
        let mut sent = Vec::new();
        write_until_full(&mut stream, &mut sent).await;
        assert_eq!(sending(), 1, "nothing is parked");
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(poll_fn(|cx| stream.poll_recv(cx)).await.unwrap().is_none(), "the end");
        // The close may have made a little room, and no more than that.
        write_until_full(&mut stream, &mut sent).await;
        assert_eq!(sending(), 1, "the send waits as before");

        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            (&client).read_to_end(&mut received).unwrap();
            received
        });
        // More than what was parked, into what may be the same memory.
        let next: Vec<u8> = pattern(2 << 20).into_iter().map(|byte| !byte).collect();
        write_all(&mut stream, &next).await.unwrap();
        shut_down(&mut stream).await.unwrap();
        let received = pelton::spawn_blocking(|| common::join(reader)).await.unwrap();
        assert_eq!(received.len(), sent.len() + next.len());
        assert!(received[..sent.len()] == sent && received[sent.len()..] == next);
    });
}
