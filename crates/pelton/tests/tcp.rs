//! Connections: every way to read, write, connect, shut down and split.

mod common;

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use common::{eventually, inside_each_backend, pair, pair_with_std, pattern, quiet, read_n};
use pelton::driver::{Config, Kind, Slice};
use pelton::net::{Addresses, TcpListener, TcpStream, ToSocketAddrs};
use pelton::{Builder, Handle};

#[test]
fn what_is_written_is_what_is_read() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        // Every kind of owner.
        let (sent, vec) = a.write_all(b"vec".to_vec()).await;
        sent.unwrap();
        assert_eq!(vec, b"vec");
        a.write_all("str").await.0.unwrap();
        a.write_all([b'a'; 3]).await.0.unwrap();
        a.write_all(Box::<[u8]>::from(*b"box")).await.0.unwrap();
        a.send_all(Rc::<[u8]>::from(*b"rc.")).await.unwrap();
        a.send_all(String::from("own")).await.unwrap();
        let (sent, slice) = a.write_all(Slice::range(b"..sli..".to_vec(), 2, 5)).await;
        sent.unwrap();
        assert_eq!(slice.into_inner(), b"..sli..");
        assert_eq!(read_n(&b, 21).await, b"vecstraaaboxrc.ownsli");

        let (written, buf) = b.write(pattern(100)).await;
        let written = written.unwrap();
        assert!(written > 0 && written <= 100);
        assert_eq!(buf, pattern(100));
        let (read, array) = a.read([0u8; 10]).await;
        let read = read.unwrap();
        assert_eq!(array[..read], pattern(100)[..read]);
        quiet().await;
    });
}

#[test]
fn a_vec_is_filled_behind_what_it_has_and_never_past_its_capacity() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        a.send_all("0123456789").await.unwrap();
        let mut buf = Vec::with_capacity(16);
        buf.extend_from_slice(b"start:");
        let capacity = buf.capacity();
        b.readable().await.unwrap();
        let (read, buf) = b.read(buf).await;
        assert_eq!(read.unwrap(), capacity - 6);
        assert_eq!(buf.len(), capacity);
        assert!(buf.starts_with(b"start:0123456789"));
    });
}

#[test]
fn a_buffer_without_room_is_an_error_and_not_the_end_of_the_stream() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        a.send_all("x").await.unwrap();
        let (read, buf) = b.read(Vec::new()).await;
        assert_eq!(read.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(buf.is_empty());
        let (read, _) = b.read([0u8; 0]).await;
        assert!(read.is_err());
        let (read, _) = b.read_vectored([Vec::new(), Vec::new()]).await;
        assert!(read.is_err());
        assert_eq!(&*b.recv().await.unwrap().unwrap(), b"x", "nothing was lost");
    });
}

#[test]
fn sending_nothing_ends_well() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        a.send_all("").await.unwrap();
        a.write_all(Vec::new()).await.0.unwrap();
        assert_eq!(a.write(Vec::new()).await.0.unwrap(), 0);
        assert_eq!(a.write_vectored_all([Vec::new(), Vec::new()]).await.0.unwrap(), 0);
        a.send_all("after").await.unwrap();
        assert_eq!(&*b.recv().await.unwrap().unwrap(), b"after");
    });
}

#[test]
fn several_buffers_are_sent_and_received_in_order() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let parts = [pattern(10), Vec::new(), pattern(300), pattern(1)];
        let flat: Vec<u8> = parts.concat();
        let (sent, back) = a.write_vectored_all(parts.clone()).await;
        assert_eq!(sent.unwrap(), 311);
        assert_eq!(back, parts);
        let mut got = Vec::new();
        while got.len() < 311 {
            let bufs = [Vec::with_capacity(7), Vec::with_capacity(100), Vec::with_capacity(13)];
            let (read, bufs) = b.read_vectored(bufs).await;
            let parts: Vec<u8> = bufs.concat();
            assert_eq!(read.unwrap(), parts.len());
            got.extend_from_slice(&parts);
        }
        assert_eq!(got, flat);
        let (sent, _) = a.write_vectored([pattern(5), pattern(5)]).await;
        assert_eq!(sent.unwrap(), 10);
        // Large: more than the socket takes at once.
        let large: Vec<Vec<u8>> = (0..16).map(|_| pattern(1 << 18)).collect();
        let expected = large.concat();
        let reader = pelton::spawn(async move { read_n(&b, 10 + (16 << 18)).await });
        assert_eq!(a.write_vectored_all(large).await.0.unwrap(), 16 << 18);
        assert_eq!(reader.await.unwrap()[10..], expected);
        quiet().await;
    });
}

#[test]
fn more_than_the_socket_holds_is_written_whole_while_the_other_end_reads_slowly() {
    inside_each_backend(|_| async {
        let (a, mut client) = pair_with_std().await;
        let total = 8 << 20;
        let thread = std::thread::spawn(move || {
            let mut got = Vec::new();
            let mut chunk = [0; 8191];
            loop {
                match client.read(&mut chunk).unwrap() {
                    0 => return got,
                    n => got.extend_from_slice(&chunk[..n]),
                }
            }
        });
        let (sent, buf) = a.write_all(pattern(total)).await;
        sent.unwrap();
        a.close().await.unwrap();
        let got = pelton::spawn_blocking(|| common::join(thread)).await.unwrap();
        assert!(got == buf, "{} of {total}", got.len());
    });
}

#[test]
fn everything_that_was_sent_before_a_close_is_received_before_the_end() {
    inside_each_backend(|_| async {
        for size in [1, 100, 1 << 20] {
            for leased in [true, false] {
                let (a, mut client) = pair_with_std().await;
                // The peer has gone before the first look, where all of it fits into the socket.
                let thread = std::thread::spawn(move || {
                    client.write_all(&pattern(size)).unwrap();
                });
                if size < 1 << 20 {
                    common::join(thread);
                }
                let mut got = Vec::new();
                loop {
                    if leased {
                        let Some(chunk) = a.recv().await.unwrap() else { break };
                        assert!(!chunk.is_empty());
                        got.extend_from_slice(&chunk);
                    } else {
                        let (read, buf) = a.read(Vec::with_capacity(1000)).await;
                        if read.unwrap() == 0 {
                            break;
                        }
                        got.extend_from_slice(&buf);
                    }
                }
                assert!(got == pattern(size), "{} of {size} leased {leased}", got.len());
                // The end stays the end.
                assert!(a.recv().await.unwrap().is_none());
                assert_eq!(a.read([0u8; 8]).await.0.unwrap(), 0);
                a.readable().await.unwrap();
            }
        }
        quiet().await;
    });
}

#[test]
fn a_half_closed_connection_still_carries_the_other_direction() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let task = pelton::spawn(async move {
            let got = read_n(&b, usize::MAX >> 32).await;
            // The peer has ended its half; this one is open.
            b.send_all(got).await.unwrap();
            b
        });
        a.send_all(pattern(1 << 20)).await.unwrap();
        a.shutdown(Shutdown::Write).await.unwrap();
        let late = a.send_all("too late").await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::BrokenPipe);
        assert!(read_n(&a, 1 << 20).await == pattern(1 << 20));
        let b = task.await.unwrap();
        b.shutdown(Shutdown::Both).await.unwrap();
        assert!(a.recv().await.unwrap().is_none());
        assert!(b.recv().await.unwrap().is_none());
    });
}

#[test]
fn reading_and_writing_at_the_same_time_do_not_disturb_each_other() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let (a, b) = (Rc::new(a), Rc::new(b));
        let total = 1 << 20;
        let mut tasks = Vec::new();
        for stream in [a, b] {
            let writer = stream.clone();
            tasks.push(pelton::spawn(async move {
                for part in pattern(total).chunks(10_007) {
                    writer.send_all(part.to_vec()).await.unwrap();
                }
            }));
            tasks.push(pelton::spawn(async move {
                assert!(read_n(&stream, total).await == pattern(total));
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        quiet().await;
    });
}

#[test]
fn halves_that_borrow_and_halves_that_own_work_like_the_whole() {
    inside_each_backend(|_| async {
        let (mut a, b) = pair().await;
        {
            let (mut read, mut write) = a.split();
            write.send_all("one").await.unwrap();
            write.write_all("two").await.0.unwrap();
            assert_eq!(write.write("3").await.0.unwrap(), 1);
            assert_eq!(write.write_vectored_all(["4", "5"]).await.0.unwrap(), 2);
            assert_eq!(read_n(&b, 9).await, b"onetwo345");
            b.send_all("back").await.unwrap();
            read.readable().await.unwrap();
            assert_eq!(&*read.recv().await.unwrap().unwrap(), b"back");
            b.send_all("x").await.unwrap();
            assert_eq!(read.read([0u8; 4]).await.0.unwrap(), 1);
        }
        let (mut read, mut write) = a.into_split();
        let task = pelton::spawn(async move {
            let chunk = read.recv().await.unwrap().unwrap().to_vec();
            (read, chunk)
        });
        write.send_all("owned").await.unwrap();
        assert_eq!(&*b.recv().await.unwrap().unwrap(), b"owned");
        b.send_all("to the half").await.unwrap();
        let (read, chunk) = task.await.unwrap();
        assert_eq!(chunk, b"to the half");

        let (other, _other_end) = pair().await;
        let (other_read, other_write) = other.into_split();
        let mixed = read.reunite(other_write).unwrap_err();
        assert!(mixed.to_string().contains("two different connections"));
        let (read, other_write) = (mixed.0, mixed.1);
        other_read.reunite(other_write).unwrap();
        let a = read.reunite(write).unwrap();
        a.send_all("whole again").await.unwrap();
        assert_eq!(&*b.recv().await.unwrap().unwrap(), b"whole again", "and nobody was shut down");
    });
}

#[test]
fn dropping_the_write_half_ends_the_stream_for_the_peer_and_forgetting_it_does_not() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let (mut read, mut write) = a.into_split();
        write.send_all("last").await.unwrap();
        drop(write);
        assert_eq!(&*b.recv().await.unwrap().unwrap(), b"last");
        assert!(b.recv().await.unwrap().is_none());
        b.send_all("answer").await.unwrap();
        assert_eq!(&*read.recv().await.unwrap().unwrap(), b"answer");

        let (a, b) = pair().await;
        let (read, write) = a.into_split();
        write.forget();
        assert!(pelton::time::timeout(Duration::from_millis(5), b.recv()).await.is_err());
        drop(read);
        assert!(b.recv().await.unwrap().is_none(), "with both halves the connection has gone");

        let (a, b) = pair().await;
        let (mut read, mut write) = a.into_split();
        write.shutdown().await.unwrap();
        assert!(b.recv().await.unwrap().is_none());
        b.send_all("x").await.unwrap();
        assert_eq!(&*read.recv().await.unwrap().unwrap(), b"x");
    });
}

#[test]
fn a_refused_connection_is_an_error_and_leaves_nothing_behind() {
    inside_each_backend(|_| async {
        let before = common::open_descriptors();
        let nobody = Nobody::new();
        for _ in 0..20 {
            let error = TcpStream::connect(nobody.address()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        drop(nobody);
        quiet().await;
        common::closed_down_to(before).await;
    });
}

/// An address at which nobody listens, nor can: it is taken by a socket that does not.
struct Nobody(socket2::Socket);

impl Nobody {
    fn new() -> Nobody {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Nobody(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}

#[test]
fn of_several_addresses_the_first_that_answers_is_connected_to() {
    inside_each_backend(|_| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = listener.local_addr().unwrap();
        let nobodies = [Nobody::new(), Nobody::new()];
        let addresses = [nobodies[0].address(), nobodies[1].address(), answers];
        let stream = TcpStream::connect(&addresses[..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answers);
        let (accepted, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, stream.local_addr().unwrap());
        assert_eq!(accepted.local_addr().unwrap(), answers);

        let error = TcpStream::connect(&addresses[..2]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let error = TcpStream::connect(&addresses[..0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = TcpListener::bind(&addresses[..0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        // Binding passes over what does not work too.
        let taken_then_free = [answers, "127.0.0.1:0".parse().unwrap()];
        TcpListener::bind(&taken_then_free[..]).await.unwrap();
        assert_eq!(TcpListener::bind(answers).await.unwrap_err().kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn names_are_looked_up() {
    inside_each_backend(|_| async {
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = format!("localhost:{port}");
        for address in [&name as &dyn ToAddresses, &("localhost", port)] {
            let stream = address.connect().await.unwrap();
            assert_eq!(stream.peer_addr().unwrap().port(), port);
            let (server, _) = listener.accept().await.unwrap();
            server.send_all("found").await.unwrap();
            assert_eq!(&*stream.recv().await.unwrap().unwrap(), b"found");
        }
        assert!(TcpStream::connect("no port").await.is_err());
        assert!(TcpStream::connect("127.0.0.1:99999").await.is_err());
        assert!(TcpStream::connect("").await.is_err());
        assert_eq!(
            "127.0.0.1:80".to_addresses(),
            Addresses::Known(vec![([127, 0, 0, 1], 80).into()])
        );
        assert_eq!(("::1", 80).to_addresses(), Addresses::Known(vec!["[::1]:80".parse().unwrap()]));
        assert_eq!(
            (Ipv4Addr::LOCALHOST, 80).to_addresses(),
            Addresses::Known(vec![([127, 0, 0, 1], 80).into()])
        );
        assert_eq!("name:80".to_addresses(), Addresses::Name("name:80".into()));
    });
}

trait ToAddresses {
    fn connect<'a>(
        &'a self,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + 'a>>;
}

impl<T: ToSocketAddrs> ToAddresses for T {
    fn connect<'a>(
        &'a self,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + 'a>> {
        Box::pin(TcpStream::connect(self))
    }
}

#[test]
fn ipv6_works_where_the_system_has_it() {
    inside_each_backend(|_| async {
        let listener = match TcpListener::bind("[::1]:0").await {
            Ok(listener) => listener,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "no IPv6 here: {error}");
                return;
            }
        };
        let client = pelton::spawn(TcpStream::connect(listener.local_addr().unwrap()));
        let (server, peer) = listener.accept().await.unwrap();
        assert!(peer.is_ipv6());
        server.send_all("six").await.unwrap();
        assert_eq!(&*client.await.unwrap().unwrap().recv().await.unwrap().unwrap(), b"six");
    });
}

#[test]
fn a_reset_is_an_error_of_whatever_is_in_flight() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let reads = pelton::spawn(async move {
            let error = a.recv().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            let (read, buf) = a.read(vec![0; 10].into_boxed_slice()).await;
            assert_eq!(buf.len(), 10, "the buffer comes back in any case");
            assert_eq!(read.unwrap_or(0), 0, "an error has been told of, then comes the end");
            let (sent, buf) = a.write_all(pattern(10)).await;
            assert!(sent.is_err());
            assert_eq!(buf, pattern(10));
            assert_eq!(a.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        });
        pelton::yield_now().await;
        b.set_linger(Some(Duration::ZERO)).unwrap();
        drop(b);
        reads.await.unwrap();
        quiet().await;
    });
}

#[test]
fn options_are_set_and_asked_for() {
    inside_each_backend(|_| async {
        let (a, _b) = pair().await;
        for on in [true, false] {
            a.set_nodelay(on).unwrap();
            assert_eq!(a.nodelay().unwrap(), on);
        }
        a.set_ttl(33).unwrap();
        assert_eq!(a.ttl().unwrap(), 33);
        a.set_linger(Some(Duration::from_secs(2))).unwrap();
        assert_eq!(a.linger().unwrap(), Some(Duration::from_secs(2)));
        a.with_socket(|socket| socket.set_keepalive(true)).unwrap();
        assert!(a.with_socket(|socket| socket.keepalive()).unwrap());
        assert!(format!("{a:?}").contains("TcpStream"));
    });
}

#[test]
fn sockets_of_the_standard_library_can_be_taken_over() {
    inside_each_backend(|_| async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        // A duplicate, which shares its open file with what the runtime has.
        let mut duplicate = client.try_clone().unwrap();
        let client = TcpStream::from_std(client).unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.send_all("from here").await.unwrap();
        assert_eq!(&*server.recv().await.unwrap().unwrap(), b"from here");
        server.send_all("and back").await.unwrap();
        assert_eq!(&*client.recv().await.unwrap().unwrap(), b"and back");
        // Closing ours ends neither the duplicate nor what is in flight elsewhere.
        let recv = pelton::spawn(async move { drop(client.recv().await) });
        pelton::yield_now().await;
        recv.abort();
        drop(listener);
        quiet().await;
        duplicate.set_nonblocking(false).unwrap();
        let written = pelton::spawn_blocking(move || {
            duplicate.write_vectored(&[IoSlice::new(b"still "), IoSlice::new(b"open")]).unwrap()
        });
        assert_eq!(written.await.unwrap(), 10);
        assert_eq!(read_n(&server, 10).await, b"still open");
        assert!(server.recv().await.unwrap().is_none());
    });
}

#[test]
fn close_says_when_it_is_done() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let before = common::open_descriptors();
        a.close().await.unwrap();
        assert_eq!(common::open_descriptors(), before - 1);
        assert!(b.recv().await.unwrap().is_none());
    });
}

#[test]
fn readable_and_writable_wait_for_what_they_say() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        a.writable().await.unwrap();
        assert!(pelton::time::timeout(Duration::from_millis(2), a.readable()).await.is_err());
        b.send_all("x").await.unwrap();
        a.readable().await.unwrap();
        a.readable().await.unwrap();
        assert_eq!(&*a.recv().await.unwrap().unwrap(), b"x");
        assert!(pelton::time::timeout(Duration::from_millis(2), a.readable()).await.is_err());
        // Full: not writable until the other end reads.
        let filler = pelton::time::timeout(Duration::from_millis(50), async {
            loop {
                a.send_all(vec![0; 1 << 20]).await.unwrap();
            }
        });
        assert!(filler.await.is_err());
        assert!(pelton::time::timeout(Duration::from_millis(2), a.writable()).await.is_err());
        let reader = pelton::spawn(async move { while let Ok(Some(_)) = b.recv().await {} });
        a.writable().await.unwrap();
        drop(a);
        reader.await.unwrap();
        quiet().await;
    });
}

#[test]
fn a_receive_without_a_free_buffer_waits_for_one_and_loses_nothing() {
    common::on_each_backend(|backend| {
        let small = Config { pool_buffers: 8, pool_buffer_len: 1024, ..common::config(backend) };
        let runtime = Builder::new().driver(small).build().unwrap();
        runtime.block_on(async {
            let handle = Handle::current();
            let (a, mut client) = pair_with_std().await;
            client.write_all(&pattern(24 << 10)).unwrap();
            // Hold every buffer that there is.
            let mut held = Vec::new();
            let mut got = Vec::new();
            let patience = Duration::from_millis(20);
            while let Ok(chunk) = pelton::time::timeout(patience, a.recv()).await {
                held.push(chunk.unwrap().unwrap());
            }
            assert!(handle.snapshot().stalls > 0, "it never ran out: {:?}", handle.snapshot());
            // Parked: the reactor sleeps for all it has to wait.
            let parked = pelton::spawn(async move {
                let chunk = a.recv().await.unwrap().unwrap();
                (a, chunk)
            });
            pelton::time::sleep(Duration::from_millis(1)).await;
            let before = handle.snapshot().enters;
            pelton::time::sleep(Duration::from_millis(20)).await;
            assert!(handle.snapshot().enters - before < 10, "it spins while it waits for a buffer");
            assert!(!parked.is_finished());
            for lease in held.drain(..) {
                got.extend_from_slice(&lease);
            }
            let (a, chunk) = parked.await.unwrap();
            got.extend_from_slice(&chunk);
            drop(chunk);
            while got.len() < 24 << 10 {
                got.extend_from_slice(&a.recv().await.unwrap().unwrap());
            }
            assert!(got == pattern(24 << 10));
            assert_eq!(handle.snapshot().buffers_in_use, 0);
        });
    });
}

#[test]
fn buffers_come_back_when_the_connection_dies_under_a_reader_that_holds_some() {
    common::on_each_backend(|backend| {
        let small = Config { pool_buffers: 16, pool_buffer_len: 1024, ..common::config(backend) };
        let runtime = Builder::new().driver(small).build().unwrap();
        runtime.block_on(async {
            let handle = Handle::current();
            for _ in 0..20 {
                let (a, b) = pair().await;
                let task = pelton::spawn(async move {
                    let mut held = Vec::new();
                    loop {
                        match a.recv().await {
                            Ok(Some(chunk)) => held.push(chunk),
                            _ => panic!("with {} in hand", held.len()),
                        }
                    }
                });
                for _ in 0..4 {
                    b.send_all(pattern(1024)).await.unwrap();
                    pelton::yield_now().await;
                }
                eventually("some are held", || handle.snapshot().buffers_in_use > 0).await;
                b.set_linger(Some(Duration::ZERO)).unwrap();
                drop(b);
                assert!(task.await.unwrap_err().is_panic());
                quiet().await;
                assert_eq!(handle.snapshot().buffers_in_use, 0);
            }
        });
    });
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    inside_each_backend(|_| async {
        let mut streams = Vec::new();
        let mut tasks = Vec::new();
        for _ in 0..200 {
            let (a, b) = pair().await;
            streams.push(b);
            tasks.push(pelton::spawn(async move {
                let lease = a.recv().await.unwrap().unwrap();
                lease.len()
            }));
        }
        pelton::time::sleep(Duration::from_millis(1)).await;
        let counters = Handle::current().snapshot();
        assert_eq!(counters.in_flight_of(Kind::RecvPooled), 200, "they all wait");
        assert_eq!(counters.buffers_in_use, 0);
        for stream in &streams {
            stream.send_all("x").await.unwrap();
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), 1);
        }
    });
}

#[test]
fn tasks_that_panic_give_back_connections_buffers_and_slots() {
    inside_each_backend(|_| async {
        let handle = Handle::current();
        let before = common::open_descriptors();
        for round in 0..200 {
            let (a, b) = pair().await;
            let task = pelton::spawn(async move {
                let chunk = a.recv().await.unwrap().unwrap();
                let mut parked = Box::pin(a.recv());
                let sends = a.send_all(pattern(64));
                assert!(common::poll_once(parked.as_mut()).is_pending());
                sends.await.unwrap();
                panic!("with {} bytes, a receive in flight, in round {round}", chunk.len());
            });
            b.send_all("x").await.unwrap();
            assert!(task.await.unwrap_err().is_panic());
            drop(b);
        }
        quiet().await;
        assert_eq!(handle.snapshot().buffers_in_use, 0);
        common::closed_down_to(before).await;
    });
}
