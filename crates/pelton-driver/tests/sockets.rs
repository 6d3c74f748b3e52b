//! Accepting, connecting, and what goes over a connection.

mod common;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;

use common::*;
use pelton_driver::*;

on_every_backend! {
    a_nop_completes_with_zero_at_the_next_tick
    an_accepted_connection_has_the_address_of_its_client
    one_multishot_accept_takes_a_hundred_clients
    a_connection_to_nobody_is_refused
    a_connect_that_succeeds_carries_bytes_both_ways
    a_connect_that_hangs_can_be_cancelled
    every_kind_of_buffer_is_sent_and_received
    a_buffer_without_room_is_refused_and_not_taken_for_the_end
    all_of_32_mib_goes_to_a_slow_reader_with_one_submission
    parts_of_more_than_64_kib_in_all_arrive_in_order
    more_than_2_gib_at_once_is_refused
    a_receive_into_several_parts_fills_them_in_order
    a_stream_that_ends_is_read_to_its_last_byte
    a_shutdown_of_one_half_leaves_the_other
    a_send_to_a_peer_that_has_gone_is_an_error_and_no_signal
    a_cancelled_send_says_how_much_it_has_sent
    sockets_that_do_not_block_wait_like_any_other
    duplicates_of_one_socket_are_cancelled_each_for_itself
    several_receives_on_one_connection_lose_nothing
    datagrams_keep_their_bounds
}

fn a_nop_completes_with_zero_at_the_next_tick(on: &On) {
    let driver = on.driver();
    let nop = driver.go_for(Submission::nop(), 7);
    let mut told = Vec::new();
    let tick = driver.tick(None, |completion| told.push(completion)).unwrap();
    assert_eq!((tick.completions, told.len()), (1, 1));
    assert_eq!((told[0].id, told[0].token.as_number(), told[0].more), (nop.id(), 7, false));
    assert_eq!(driver.take(nop).unwrap().unwrap(), 0);
    assert_eq!(driver.operations(), 0);
}

fn an_accepted_connection_has_the_address_of_its_client(on: &On) {
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = std::net::TcpListener::bind(bind) else {
            eprintln!("skipped: no {bind} here");
            continue;
        };
        let driver = on.driver();
        let address = listener.local_addr().unwrap();
        let listener = attach(&driver, listener);
        // Once with the accept waiting for the client, and once the other way round.
        let early = driver.go(Submission::accept(listener));
        driver.settle();
        assert!(!driver.is_done(&early), "nobody has come yet");
        for accept in [Some(early), None] {
            let client = TcpStream::connect(address).unwrap();
            let accept = accept.unwrap_or_else(|| driver.go(Submission::accept(listener)));
            let accepted = driver.end(accept).unwrap();
            assert_eq!(accepted.peer, Some(client.local_addr().unwrap()));
            let accepted = system::<TcpStream>(accepted.descriptor);
            assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
        }
        assert_eq!(driver.snapshot().accepts, 2);
    }
}

fn one_multishot_accept_takes_a_hundred_clients(on: &On) {
    let driver = on.driver();
    let (listener, address) = listener();
    let listener = attach(&driver, listener);
    let key = driver.go(Submission::accept_multi(listener));
    let mut peers = HashSet::new();
    let mut clients = Vec::new();
    for n in 0..100 {
        clients.push(TcpStream::connect(address).unwrap());
        if n % 10 == 9 {
            // Ten at a time, and all the items of a notice at once.
            driver.until(|| {
                while let Some(connection) = driver.next(&key) {
                    peers.insert(system::<TcpStream>(connection).peer_addr().unwrap());
                }
                peers.len() == n + 1
            });
        }
    }
    assert!(clients.iter().all(|client| peers.contains(&client.local_addr().unwrap())));
    assert!(driver.cancel(key.id()));
    assert_eq!(errno(driver.end(key)), errno::ECANCELED);
    assert_eq!((driver.snapshot().accepts, driver.operations()), (100, 0));
}

fn tcp_socket(driver: &Driver) -> Fd {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    attach(driver, OwnedSystem::from(socket))
}

fn a_connection_to_nobody_is_refused(on: &On) {
    let driver = on.driver();
    let address = listener().1;
    let fd = tcp_socket(&driver);
    assert_eq!(errno(driver.run(Submission::connect(fd, address))), errno::ECONNREFUSED);
    driver.close(fd);
    assert_eq!(driver.descriptors(), 0);
}

fn a_connect_that_succeeds_carries_bytes_both_ways(on: &On) {
    let driver = on.driver();
    let (listener, address) = listener();
    let fd = tcp_socket(&driver);
    driver.run(Submission::connect(fd, address)).unwrap();
    let (mut peer, from) = listener.accept().unwrap();
    let mine =
        driver.with_descriptor(fd, |fd| socket2::SockRef::from(&fd).local_addr().unwrap()).unwrap();
    assert_eq!(mine.as_socket(), Some(from));
    driver.run(Submission::send_all(fd, "to the peer")).0.unwrap();
    let mut bytes = [0; 11];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"to the peer");
    peer.write_all(b"and back").unwrap();
    let (n, buf) = driver.run(Submission::recv(fd, [0; 64]));
    assert_eq!(&buf[..n.unwrap()], b"and back");
    // Once more on the same socket: connected already.
    assert_eq!(errno(driver.run(Submission::connect(fd, address))), errno::EISCONN);
}

fn a_connect_that_hangs_can_be_cancelled(on: &On) {
    let driver = on.driver();
    // Nobody accepts, and there is room for one: the next one's first packet is dropped.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let _first = TcpStream::connect(address).unwrap();
    let fd = tcp_socket(&driver);
    let key = driver.go(Submission::connect(fd, address));
    assert!(driver.settle().is_empty(), "it hangs");
    // And nothing hangs with it.
    for _ in 0..20 {
        let soon = std::time::Instant::now() + std::time::Duration::from_millis(1);
        driver.run(Submission::timeout(soon)).unwrap();
    }
    assert!(!driver.is_done(&key), "it still hangs");
    assert!(driver.cancel(key.id()));
    assert_eq!(errno(driver.end(key)), errno::ECANCELED);
    driver.close(fd);
    driver.settle();
    assert_eq!((driver.operations(), driver.descriptors()), (0, 0));
}

fn every_kind_of_buffer_is_sent_and_received(on: &On) {
    fn sent<B: IoBuf>(driver: &Driver, fd: Fd, peer: &mut TcpStream, buf: B) -> Vec<u8> {
        let len = buf.as_init().len();
        let (n, _) = driver.run(Submission::send_all(fd, buf));
        assert_eq!(n.unwrap(), len);
        let mut bytes = vec![0; len];
        peer.read_exact(&mut bytes).unwrap();
        bytes
    }
    fn received<B: IoBufMut>(driver: &Driver, fd: Fd, peer: &mut TcpStream, buf: B) -> (usize, B) {
        // Once with the bytes there already, and once with the receive waiting for them.
        peer.write_all(b"early").unwrap();
        let (n, buf) = driver.run(Submission::recv(fd, buf));
        assert_eq!(n.unwrap(), 5);
        let key = driver.go(Submission::recv(fd, buf));
        driver.settle();
        assert!(!driver.is_done(&key));
        peer.write_all(b"late").unwrap();
        let (n, buf) = driver.end(key);
        (n.unwrap(), buf)
    }
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let peer = &mut peer;
    assert_eq!(sent(&driver, fd, peer, b"vec".to_vec()), b"vec");
    assert_eq!(sent(&driver, fd, peer, Box::<[u8]>::from(&b"box"[..])), b"box");
    assert_eq!(sent(&driver, fd, peer, *b"array"), b"array");
    assert_eq!(sent(&driver, fd, peer, [b'x'; 100]), [b'x'; 100], "too large for the slot");
    assert_eq!(sent(&driver, fd, peer, Rc::<[u8]>::from(&b"rc"[..])), b"rc");
    assert_eq!(sent(&driver, fd, peer, "static"), b"static");
    assert_eq!(sent(&driver, fd, peer, Slice::from(b"a slice".to_vec(), 2)), b"slice");
    assert_eq!(sent(&driver, fd, peer, Vec::new()), b"", "no bytes are no error");

    let (n, buf) = received(&driver, fd, peer, Vec::with_capacity(64));
    assert_eq!((n, &buf[..]), (4, &b"earlylate"[..]));
    let (n, buf) = received(&driver, fd, peer, vec![0; 64].into_boxed_slice());
    assert_eq!((n, &buf[..5]), (4, &b"latey"[..]));
    let (n, buf) = received(&driver, fd, peer, [0; 16]);
    assert_eq!((n, &buf[..5]), (4, &b"latey"[..]));
    let (n, buf) = received(&driver, fd, peer, [0; 1000]);
    assert_eq!((n, &buf[..5]), (4, &b"latey"[..]));
    let (n, buf) = received(&driver, fd, peer, Box::new([0; 16]));
    assert_eq!((n, &buf[..5]), (4, &b"latey"[..]));
    assert_eq!(driver.operations(), 0);
}

fn a_buffer_without_room_is_refused_and_not_taken_for_the_end(on: &On) {
    let driver = on.driver();
    let (fd, _peer) = tcp(&driver);
    let refused = driver.submit(Submission::recv(fd, Vec::<u8>::new()), Token::NONE).unwrap_err();
    assert_eq!(refused.error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(driver.operations(), 0);
}

fn all_of_32_mib_goes_to_a_slow_reader_with_one_submission(on: &On) {
    const LEN: usize = 32 << 20;
    let driver = on.driver();
    let (fd, peer) = tcp(&driver);
    let sent = pattern(1, LEN);
    let expected = sent.clone();
    let (go, started) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        started.recv().unwrap();
        let (mut peer, mut received, mut at) = (peer, vec![0; LEN], 0);
        while at < LEN {
            let end = LEN.min(at + 100_000);
            at += peer.read(&mut received[at..end]).unwrap();
        }
        assert!(received == expected, "byte exact");
    });
    let key = driver.go(Submission::send_all(fd, sent));
    driver.settle();
    assert!(!driver.is_done(&key), "more than the socket holds: it was cut short");
    go.send(()).unwrap();
    let (n, buf) = driver.end(key);
    assert_eq!((n.unwrap(), buf.len()), (LEN, LEN));
    reader.join().unwrap();
}

fn parts_of_more_than_64_kib_in_all_arrive_in_order(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    // Of different lengths, an empty one among them, and more than a socket holds.
    let parts: Vec<Vec<u8>> =
        (0..MAX_PARTS).map(|n| pattern(n, if n == 5 { 0 } else { 100_000 + n * 977 })).collect();
    let expected = parts.concat();
    let key = driver.go(Submission::send_vectored_all(fd, parts));
    driver.settle();
    assert!(!driver.is_done(&key), "it was cut short, within a part");
    let len = expected.len();
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; len];
        peer.read_exact(&mut received).unwrap();
        assert!(received == expected, "byte exact");
    });
    assert_eq!(driver.end(key).0.unwrap(), len);
    reader.join().unwrap();
}

fn more_than_2_gib_at_once_is_refused(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let part = Rc::<[u8]>::from(vec![0; 64 << 20]);
    let parts = vec![part; 33];
    let refused = driver.submit(Submission::send_vectored_all(fd, parts), Token::NONE).unwrap_err();
    assert_eq!(refused.error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!((refused.payload.0.len(), driver.operations()), (33, 0));
    // Some of them are sent all the same by a submission that asks for no more.
    let (n, parts) = driver.run(Submission::send_vectored(fd, refused.payload.0));
    assert!(n.unwrap() > 0);
    drop(parts);
    peer.read_exact(&mut [0; 1]).unwrap();
}

fn a_receive_into_several_parts_fills_them_in_order(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let parts = || [Vec::with_capacity(3), Vec::with_capacity(4), Vec::with_capacity(100)];
    let key = driver.go(Submission::recv_vectored(fd, parts()));
    driver.settle();
    peer.write_all(b"abcdefgh").unwrap();
    let (n, bufs) = driver.end(key);
    assert_eq!(n.unwrap(), 8);
    assert_eq!(bufs, [b"abc".to_vec(), b"defg".to_vec(), b"h".to_vec()]);
    peer.write_all(b"xy").unwrap();
    let (n, bufs) = driver.run(Submission::recv_vectored(fd, bufs.map(|_| [0_u8; 1])));
    assert_eq!((n.unwrap(), bufs), (2, [*b"x", *b"y", [0]]));
}

fn a_stream_that_ends_is_read_to_its_last_byte(on: &On) {
    const LEN: usize = 1 << 20;
    let driver = on.driver();
    for unix_socket in [false, true] {
        let (fd, mut writer): (Fd, Box<dyn Write + Send>) = if unix_socket {
            let (fd, peer) = unix(&driver);
            (fd, Box::new(peer))
        } else {
            let (fd, peer) = tcp(&driver);
            (fd, Box::new(peer))
        };
        let writer = std::thread::spawn(move || writer.write_all(&pattern(3, LEN)).unwrap());
        let (mut all, mut buf) = (Vec::new(), Vec::with_capacity(1500));
        loop {
            let n;
            (n, buf) = driver.run(Submission::recv(fd, buf));
            all.append(&mut buf);
            if n.unwrap() == 0 {
                break;
            }
        }
        writer.join().unwrap();
        assert!(all == pattern(3, LEN));
        let (n, _) = driver.run(Submission::recv(fd, buf));
        assert_eq!(n.unwrap(), 0, "the end stays the end");
    }
}

fn a_shutdown_of_one_half_leaves_the_other(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    driver.run(Submission::shutdown(fd, Shutdown::Write)).unwrap();
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    peer.write_all(b"still here").unwrap();
    let (n, buf) = driver.run(Submission::recv(fd, [0; 16]));
    assert_eq!(&buf[..n.unwrap()], b"still here");
    assert_eq!(errno(driver.run(Submission::send(fd, "x")).0), errno::EPIPE);

    let (fd, _peer) = tcp(&driver);
    let recv = driver.go(Submission::recv(fd, [0; 16]));
    driver.settle();
    driver.run(Submission::shutdown(fd, Shutdown::Read)).unwrap();
    assert_eq!(driver.end(recv).0.unwrap(), 0, "the receive that waits sees the end");
    driver.run(Submission::shutdown(fd, Shutdown::Both)).unwrap();
}

fn a_send_to_a_peer_that_has_gone_is_an_error_and_no_signal(on: &On) {
    let driver = on.driver();
    let fd = left(&driver);
    assert!(has_left(errno(driver.run(Submission::send_all(fd, vec![0; 100])).0)));
    let parts = [vec![0; 100], vec![0; 100]];
    assert!(has_left(errno(driver.run(Submission::send_vectored_all(fd, parts)).0)));
}

fn a_cancelled_send_says_how_much_it_has_sent(on: &On) {
    let driver = on.driver();
    for vectored in [false, true] {
        let (fd, mut peer) = unix(&driver);
        let sent = pattern(9, 8 << 20);
        let n = if vectored {
            let key = driver.go(Submission::send_vectored_all(fd, [sent.clone(), sent.clone()]));
            driver.settle();
            assert!(driver.cancel(key.id()), "it waits for its peer to read");
            driver.end(key).0.unwrap()
        } else {
            let key = driver.go(Submission::send_all(fd, sent.clone()));
            driver.settle();
            assert!(driver.cancel(key.id()), "it waits for its peer to read");
            driver.end(key).0.unwrap()
        };
        assert!(n > 0 && n < sent.len(), "{n} bytes");
        driver.close(fd);
        driver.settle();
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert!(received == sent[..n], "as many as it says");
    }
    // One that got rid of nothing says that it was cancelled.
    let (fd, _peer) = full(&driver);
    let key = driver.go(Submission::send_all(fd, "nothing of this"));
    driver.settle();
    assert!(driver.cancel(key.id()));
    assert_eq!(errno(driver.end(key).0), errno::ECANCELED);
}

fn sockets_that_do_not_block_wait_like_any_other(on: &On) {
    let driver = on.driver();
    let (mine, mut peer) = tcp_pair();
    mine.set_nonblocking(true).unwrap();
    let fd = attach(&driver, mine);
    let recv = driver.go(Submission::recv(fd, [0; 8]));
    let pooled = driver.go(Submission::recv_pooled(fd));
    assert!(driver.settle().is_empty(), "nothing to receive is no error");
    peer.write_all(b"first").unwrap();
    driver.until(|| driver.is_done(&recv) || driver.is_done(&pooled));
    driver.settle();
    peer.write_all(b"second").unwrap();
    let (n, _) = driver.end(recv);
    let lease = driver.end(pooled).unwrap().unwrap();
    assert_eq!(n.unwrap() + lease.len(), 11);

    let send = driver.go(Submission::send_all(fd, pattern(2, 16 << 20)));
    assert!(driver.settle().is_empty());
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; 16 << 20];
        peer.read_exact(&mut received).unwrap();
        assert!(received == pattern(2, 16 << 20));
    });
    driver.end(send).0.unwrap();
    reader.join().unwrap();

    let (listener, address) = listener();
    listener.set_nonblocking(true).unwrap();
    let listener = attach(&driver, listener);
    let one = driver.go(Submission::accept(listener));
    assert!(driver.settle().is_empty());
    let _first = TcpStream::connect(address).unwrap();
    driver.end(one).unwrap();
    let many = driver.go(Submission::accept_multi(listener));
    assert!(driver.settle().is_empty());
    let _second = TcpStream::connect(address).unwrap();
    let mut accepted = None;
    driver.until(|| {
        accepted = accepted.take().or_else(|| driver.next(&many));
        accepted.is_some()
    });
}

fn duplicates_of_one_socket_are_cancelled_each_for_itself(on: &On) {
    let driver = on.driver();
    let (mine, mut peer) = tcp_pair();
    let (one, other) = (attach(&driver, mine.try_clone().unwrap()), attach(&driver, mine));
    let gone = driver.go(Submission::recv(one, [0; 8]));
    let stays = driver.go(Submission::recv(other, [0; 8]));
    driver.settle();
    driver.close(one);
    assert_eq!(errno(driver.end(gone).0), errno::ECANCELED);
    driver.settle();
    assert!(!driver.is_done(&stays), "the other descriptor's operations go on");
    peer.write_all(b"x").unwrap();
    assert_eq!(driver.end(stays).0.unwrap(), 1);
}

fn several_receives_on_one_connection_lose_nothing(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let keys: Vec<_> = (0..4).map(|n| driver.go_for(Submission::recv(fd, [0; 2]), n)).collect();
    driver.settle();
    peer.write_all(b"aabbccdd").unwrap();
    // Which of them gets which part is the kernel's affair: io_uring serves the last one first.
    let mut all = Vec::new();
    for key in keys {
        let (n, buf) = driver.end(key);
        assert_eq!(n.unwrap(), 2);
        all.extend(buf);
    }
    all.sort_unstable();
    assert_eq!(all, b"aabbccdd");
}

#[cfg(unix)]
fn datagram_pair() -> (std::os::unix::net::UnixDatagram, std::os::unix::net::UnixDatagram) {
    std::os::unix::net::UnixDatagram::pair().unwrap()
}

#[cfg(windows)]
fn datagram_pair() -> (std::net::UdpSocket, std::net::UdpSocket) {
    let [one, other] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    one.connect(other.local_addr().unwrap()).unwrap();
    other.connect(one.local_addr().unwrap()).unwrap();
    (one, other)
}

fn datagrams_keep_their_bounds(on: &On) {
    let driver = on.driver();
    let (mine, peer) = datagram_pair();
    let fd = attach(&driver, mine);
    peer.send(b"one").unwrap();
    peer.send(b"").unwrap();
    peer.send(b"three").unwrap();
    for (expected, n) in [("one", 3), ("", 0), ("thr", 3)] {
        let key = driver.go(Submission::recv(fd, [0; 3]));
        let (received, buf) = driver.end(key);
        assert_eq!((received.unwrap(), &buf[..n]), (n, expected.as_bytes()));
    }
    let late = driver.go(Submission::recv_pooled(fd));
    driver.settle();
    driver.run(Submission::send(fd, "back")).0.unwrap();
    assert_eq!(peer.recv(&mut [0; 16]).unwrap(), 4);
    peer.send(b"pooled").unwrap();
    assert_eq!(&driver.end(late).unwrap().unwrap()[..], b"pooled");
}
