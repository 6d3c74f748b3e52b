//! Connections of the runtime: listeners, streams, halves, and the futures over them that are dropped.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use pelton::io::{AsyncRead, AsyncWrite, PollStream};
use pelton::net::{TcpListener, TcpStream};
use pelton::{spawn, time};

use crate::registry::behaviours;
use crate::{Bench, pattern};

behaviours! {
    "an echo server serves fifty clients at once" => an_echo_server_serves_fifty
        [Ioxide "CoreTests: echo", Ioxide "CoreTests: 50 fresh", Aws "tcp_socket_communication"];
    "a connection tells its addresses and options" => a_connection_tells_its_addresses
        [ReseauMain "addresses", Aws "socket_tcp_nodelay", ReseauMain "NODELAY/KEEPALIVE defaults"];
    "nobody there is an error, also of every address that was tried" => nobody_there_is_an_error
        [ReseauMain "refused connect", ReseauMain "both families fail", Aws "outgoing_tcp_sock_error"];
    "everything before a close is received before the end" => everything_before_a_close
        [ReseauMain "read before peer close", Aws "socket_handler: read_to_eof_after_peer_hangup"];
    "a half that is dropped ends its direction and leaves the other" => a_half_ends_its_direction
        [ReseauMain "half-close stress"];
    "halves of one connection are put together again, and of two are not" => halves_are_put_together
        [];
    "a read and a write at the same time do not disturb each other" => reading_and_writing_at_once
        [Aws "socket_handler: echo_and_backpressure"];
    "a receive that is dropped loses nothing of the stream" => a_dropped_receive_loses_nothing
        [ReseauMain "wait_canceled"];
    "an accept that is dropped loses no connection" => a_dropped_accept_loses_no_connection
        [Libxev "accept cancellation"];
    "several who accept each get a client" => several_accept
        [ReseauMain "fdlock close wakes queued"];
    "without a free buffer a receive waits for one and loses nothing" => a_receive_waits_for_a_buffer
        [Ioxide "CoreTests: recv-queue overflow"];
    "connections that come and go with tasks that are aborted leave nothing" => aborted_connections_leave_nothing
        [Ioxide "CoreTests: Stop teardown fd count", Ioxide "CoreTests: DecRef-then-throw"];
    "memory that is being sent is another's only when the kernel has let go" => sends_that_are_dropped
        [Ioxide "SendInFlightRecycleTests"];
    "readable and writable are told, and nothing is eaten" => readable_and_writable_are_told
        [Aws "event_loop_readable_event_after_write"];
    "a stream that is polled reads and writes as its traits say" => a_polled_stream
        [Ioxide "PipeReaderContract/StreamContract"];
    "a polled stream that is dropped delivers what it had taken" => a_polled_stream_that_is_dropped
        [Ioxide "CoreTests: flush/close race"];
    "messages that come in pieces and several at once are told apart" => messages_in_pieces
        [Ioxide "CoreTests: pipelined", Ioxide "CoreTests: fragmented"];
    "leases outlive the stream that they came from, and the runtime" => leases_outlive_their_runtime
        [ReseauMain "control refs delay destruction"];
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listener().await;
    let client = TcpStream::connect(address).await.unwrap();
    (client, listener.accept_stream().await.unwrap())
}

async fn received(stream: &TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let lease = stream.recv().await.unwrap().expect("not the end");
        bytes.extend_from_slice(&lease);
    }
    assert_eq!(bytes.len(), len);
    bytes
}

async fn all(stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(lease) = stream.recv().await.unwrap() {
        bytes.extend_from_slice(&lease);
    }
    bytes
}

fn an_echo_server_serves_fifty(on: &Bench) {
    on.block_on(async {
        let (listener, address) = listener().await;
        let server = spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                spawn(async move {
                    while let Some(chunk) = stream.recv().await.unwrap() {
                        stream.send_all(chunk).await.unwrap();
                    }
                })
                .detach();
            }
        });
        let clients: Vec<_> = (0..50)
            .map(|n| {
                spawn(async move {
                    let stream = TcpStream::connect(address).await.unwrap();
                    for round in 0..3 {
                        let message = pattern(n + round, 100 + n * 37);
                        stream.send_all(message.clone()).await.unwrap();
                        assert!(received(&stream, message.len()).await == message);
                    }
                    stream.shutdown(Shutdown::Write).await.unwrap();
                    assert!(stream.recv().await.unwrap().is_none());
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        server.abort();
    });
}

fn a_connection_tells_its_addresses(on: &Bench) {
    on.block_on(async {
        let (listener, address) = listener().await;
        let client = TcpStream::connect(address).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        assert_eq!((client.peer_addr().unwrap(), server.local_addr().unwrap()), (address, address));
        assert_eq!((peer, server.peer_addr().unwrap()), (client.local_addr().unwrap(), peer));
        client.set_nodelay(true).unwrap();
        assert!(client.nodelay().unwrap());
        client.set_ttl(9).unwrap();
        assert_eq!(client.ttl().unwrap(), 9);
        client.set_linger(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(client.linger().unwrap(), Some(Duration::from_secs(1)));
        assert!(client.set_ttl(0).is_err());
    });
}

fn nobody_there_is_an_error(on: &Bench) {
    on.block_on(async {
        let (_one, one) = listener().await;
        let (_other, other) = listener().await;
        let (one, other) = (on.nobody_at(one), on.nobody_at(other));
        let error = TcpStream::connect(one).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let both = [one, other];
        let error = TcpStream::connect(&both[..]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // Of several the first that answers.
        let (listener, address) = listener().await;
        let client = TcpStream::connect(&[one, address][..]).await.unwrap();
        assert_eq!(client.peer_addr().unwrap(), address);
        drop(listener);
    });
}

fn everything_before_a_close(on: &Bench) {
    on.block_on(async {
        let (client, server) = pair().await;
        let sender = spawn(async move {
            client.send_all(pattern(1, 300_000)).await.unwrap();
            client.close().await.unwrap();
        });
        assert!(all(&server).await == pattern(1, 300_000));
        assert!(server.recv().await.unwrap().is_none(), "the end stays the end");
        sender.await.unwrap();
    });
}

fn a_half_ends_its_direction(on: &Bench) {
    on.block_on(async {
        for round in 0..10 {
            let (client, server) = pair().await;
            let (mut read, mut write) = client.into_split();
            write.send_all("the last").await.unwrap();
            if round % 2 == 0 {
                drop(write);
            } else {
                write.shutdown().await.unwrap();
            }
            assert_eq!(all(&server).await, b"the last");
            server.send_all("still").await.unwrap();
            let mut got = Vec::new();
            while got.len() < 5 {
                got.extend_from_slice(&read.recv().await.unwrap().unwrap());
            }
            assert_eq!(got, b"still");
        }
    });
}

fn halves_are_put_together(on: &Bench) {
    on.block_on(async {
        let (client, server) = pair().await;
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        let error = client_read.reunite(server_write).unwrap_err();
        let client = error.0.reunite(client_write).unwrap();
        let server = server_read.reunite(error.1).unwrap();
        client.send_all("whole").await.unwrap();
        assert_eq!(received(&server, 5).await, b"whole");
    });
}

fn reading_and_writing_at_once(on: &Bench) {
    const LEN: usize = 400_000;
    on.block_on(async {
        let (client, server) = pair().await;
        let ends = [client, server].map(|stream| {
            let (mut read, mut write) = stream.into_split();
            let sends = spawn(async move {
                write.send_all(pattern(3, LEN)).await.unwrap();
            });
            let receives = spawn(async move {
                let mut bytes = Vec::new();
                while let Some(lease) = read.recv().await.unwrap() {
                    bytes.extend_from_slice(&lease);
                }
                assert!(bytes == pattern(3, LEN), "byte exact");
            });
            [sends, receives]
        });
        for task in ends.into_iter().flatten() {
            task.await.unwrap();
        }
    });
}

fn a_dropped_receive_loses_nothing(on: &Bench) {
    on.block_on(async {
        let (client, server) = pair().await;
        let sender = spawn(async move {
            for n in 0..40 {
                client.send_all(pattern(n, 50)).await.unwrap();
                time::sleep(Duration::from_micros(300)).await;
            }
        });
        // What a receive has brought when it is dropped is the next one's.
        let mut bytes = Vec::new();
        loop {
            match time::timeout(Duration::from_micros(200), server.recv()).await {
                Ok(Ok(Some(lease))) => bytes.extend_from_slice(&lease),
                Ok(Ok(None)) => break,
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => {}
            }
        }
        sender.await.unwrap();
        assert!(bytes == (0..40).flat_map(|n| pattern(n, 50)).collect::<Vec<_>>());
    });
}

fn a_dropped_accept_loses_no_connection(on: &Bench) {
    on.block_on(async {
        let (listener, address) = listener().await;
        for _ in 0..10 {
            let client = spawn(TcpStream::connect(address));
            // Given up at any moment, before and after the client has come.
            let server = loop {
                let accept = listener.accept();
                match time::timeout(Duration::from_micros(50), accept).await {
                    Ok(accepted) => break accepted.unwrap().0,
                    Err(_) => pelton::yield_now().await,
                }
            };
            let client = client.await.unwrap().unwrap();
            assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
        }
    });
}

fn several_accept(on: &Bench) {
    on.block_on(async {
        let (listener, address) = listener().await;
        let listener = std::rc::Rc::new(listener);
        let servers: Vec<_> = (0..5)
            .map(|_| {
                let listener = listener.clone();
                spawn(async move { listener.accept().await.unwrap().1 })
            })
            .collect();
        pelton::yield_now().await;
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let mut peers = Vec::new();
        for server in servers {
            peers.push(server.await.unwrap());
        }
        let mut expected: Vec<_> = clients.iter().map(|c| c.local_addr().unwrap()).collect();
        peers.sort_unstable();
        expected.sort_unstable();
        if on.has_faults() {
            // One that was aborted before it was accepted is passed over; the others are there.
            peers.retain(|peer| !expected.contains(peer));
            assert!(peers.is_empty());
        } else {
            assert_eq!(peers, expected);
        }
    });
}

fn a_receive_waits_for_a_buffer(on: &Bench) {
    let config =
        pelton::driver::Config { pool_buffers: 4, pool_buffer_len: 1024, ..crate::small() };
    let runtime = on.builder_with(config).build().unwrap();
    on.run_on(runtime, async {
        let (client, server) = pair().await;
        client.send_all(pattern(2, 20_000)).await.unwrap();
        let (mut held, mut bytes) = (std::collections::VecDeque::new(), Vec::new());
        while bytes.len() < 20_000 {
            match time::timeout(Duration::from_millis(5), server.recv()).await {
                Ok(lease) => {
                    let lease = lease.unwrap().unwrap();
                    bytes.extend_from_slice(&lease);
                    held.push_back(lease);
                }
                // None is free, and one comes back; or nothing has come yet.
                Err(_) => drop(held.pop_front()),
            }
        }
        assert!(bytes == pattern(2, 20_000));
        assert!(pelton::Handle::current().snapshot().stalls > 0, "there was none at some time");
    });
}

fn aborted_connections_leave_nothing(on: &Bench) {
    on.block_on(async {
        let (listener, address) = listener().await;
        for round in 0..20 {
            let client = TcpStream::connect(address).await.unwrap();
            let server = listener.accept_stream().await.unwrap();
            let task = spawn(async move {
                if round % 4 == 0 {
                    std::panic::resume_unwind(Box::new("on purpose"));
                }
                let mut reads = std::pin::pin!(server.recv());
                let mut writes = std::pin::pin!(server.send_all(pattern(1, 16 << 20)));
                std::future::poll_fn::<(), _>(|cx| {
                    let _ = reads.as_mut().poll(cx);
                    let _ = writes.as_mut().poll(cx);
                    std::task::Poll::Pending
                })
                .await
            });
            if round % 2 == 0 {
                time::sleep(Duration::from_millis(1)).await;
            }
            task.abort();
            assert!(task.await.is_err());
            // The peer sees the end, after what was sent, or that it was cut off.
            while let Ok(Some(_)) = client.recv().await {}
        }
    });
}

fn sends_that_are_dropped(on: &Bench) {
    on.block_on(async {
        for round in 0..5 {
            let (client, server) = pair().await;
            let whole = pattern(round, 16 << 20);
            let send = client.send_all(whole.clone());
            assert!(time::timeout(Duration::from_millis(2), send).await.is_err(), "it waits");
            // Memory of the same size with other bytes in it, as an allocator would give it out again.
            let others = vec![0xEE_u8; 16 << 20];
            client.close().await.unwrap();
            let got = all(&server).await;
            assert!(whole.starts_with(&got) && got.len() < whole.len());
            drop(others);
        }
    });
}

fn readable_and_writable_are_told(on: &Bench) {
    on.block_on(async {
        let (client, server) = pair().await;
        client.writable().await.unwrap();
        assert!(time::timeout(Duration::from_millis(2), server.readable()).await.is_err());
        client.send_all("x").await.unwrap();
        server.readable().await.unwrap();
        server.readable().await.unwrap();
        assert_eq!(received(&server, 1).await, b"x");
        client.close().await.unwrap();
        server.readable().await.unwrap();
    });
}

async fn written(stream: &mut PollStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let part = [IoSlice::new(bytes)];
        let taken = poll_fn(|cx| stream.poll_write_vectored(cx, &part)).await.unwrap();
        assert!(taken > 0);
        bytes = &bytes[taken..];
    }
}

async fn read_to_end(stream: &mut PollStream) -> Vec<u8> {
    let (mut bytes, mut room) = (Vec::new(), [0_u8; 1000]);
    loop {
        let n = poll_fn(|cx| stream.poll_read(cx, (&mut room[..]).into())).await.unwrap();
        if n == 0 {
            return bytes;
        }
        bytes.extend_from_slice(&room[..n]);
    }
}

fn a_polled_stream(on: &Bench) {
    on.block_on(async {
        let (client, server) = pair().await;
        let (mut client, mut server) = (PollStream::new(client), PollStream::new(server));
        let message = pattern(4, 100_000);
        let expected = message.clone();
        let sender = spawn(async move {
            written(&mut client, &message).await;
            poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
            poll_fn(|cx| client.poll_shutdown(cx)).await.unwrap();
            read_to_end(&mut client).await
        });
        assert!(read_to_end(&mut server).await == expected);
        written(&mut server, b"answer").await;
        poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
        drop(server);
        assert_eq!(sender.await.unwrap(), b"answer");
    });
}

fn a_polled_stream_that_is_dropped(on: &Bench) {
    on.block_on(async {
        let (client, server) = pair().await;
        let mut client = PollStream::new(client);
        written(&mut client, b"taken, not flushed").await;
        drop(client);
        assert_eq!(all(&server).await, b"taken, not flushed");
    });
}

fn messages_in_pieces(on: &Bench) {
    on.block_on(async {
        let (client, server) = pair().await;
        let stream: Vec<u8> =
            (0..50_u8).flat_map(|n| [vec![n], pattern(n.into(), n.into())].concat()).collect();
        let sender = spawn(async move {
            for piece in stream.chunks(7) {
                client.send_all(piece.to_vec()).await.unwrap();
            }
        });
        let (mut rest, mut next) = (Vec::new(), 0_u8);
        while let Some(lease) = server.recv().await.unwrap() {
            rest.extend_from_slice(&lease);
            while let Some(len) = rest.first().map(|len| usize::from(*len))
                && rest.len() > len
            {
                let message: Vec<u8> = rest.drain(..=len).skip(1).collect();
                assert_eq!((len, message), (next.into(), pattern(next.into(), next.into())));
                next += 1;
            }
        }
        sender.await.unwrap();
        assert_eq!((next, rest.len()), (50, 0));
    });
}

fn leases_outlive_their_runtime(on: &Bench) {
    let lease = on.block_on(async {
        let (client, server) = pair().await;
        client.send_all("kept").await.unwrap();
        let lease = server.recv().await.unwrap().unwrap();
        drop((client, server));
        lease
    });
    assert!(b"kept".starts_with(&lease[..]) && !lease.is_empty());
}
