//! What goes over a connection, and how it ends.

use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pelton_driver::{Backend, Driver, Fd, IoBuf, IoBufMut, Slice, Submission, Token};

use crate::registry::behaviours;
use crate::{Bench, Rig, errno, pattern};

behaviours! {
    "bytes go both ways over TCP" => bytes_go_both_ways_over_tcp
        [Aws "tcp_socket_communication", Libxev "socket accept/connect/send/recv/close",
         Reseau "socket_tests, pipe_tests: as aws-c-io"];
    "bytes go both ways over a pair" => bytes_go_both_ways_over_a_pair
        [Aws "local_socket_communication", Aws "pipe_open_close", Aws "pipe_read_write",
         Reseau "socket_tests, pipe_tests: as aws-c-io"];
    "a receive that waits is ended by what is sent" => a_receive_that_waits_is_ended_by_a_send
        [ReseauMain "read waits then wakes"];
    "a receive takes what is there and does not wait for more" => a_receive_does_not_wait_for_more
        [ReseauMain "single read", ReseauMain "chunk bounds"];
    "every kind of buffer is sent and received" => every_kind_of_buffer
        [ReseauMain "read/write/recv/send wrappers"];
    "a buffer without room is refused and not taken for the end" => a_buffer_without_room_is_refused
        [Libxev "zero-length read"];
    "no bytes are sent as no bytes" => no_bytes_are_no_error
        [];
    "four MiB that need many sends arrive, byte exact" => four_mib_arrive
        [Aws "pipe_read_write_large_buffer", Ioxide "CoreTests: Grow/Segmented"];
    "sends one after the other end and arrive in order" => sends_arrive_in_order
        [Aws "pipe_writes_are_fifo", Libxev "queued writes"];
    "fifty connections one after the other echo" => fifty_fresh_connections_echo
        [Ioxide "CoreTests: 50 fresh", Ioxide "CoreTests: echo"];
    "one connection echoes a hundred messages" => one_connection_echoes_a_hundred_messages
        [Ioxide "CoreTests: keep-alive", Ioxide "CoreTests: pipelined", Aws "socket_handler: multi-frame data"];
    "a message that comes byte by byte is the same" => byte_by_byte
        [Ioxide "Chaos: byte by byte", Ioxide "CoreTests: fragmented"];
    "both directions at once do not disturb each other" => both_directions_at_once
        [Aws "socket_handler: echo_and_backpressure"];
    "a receiver that is slow holds its sender back and loses nothing" => a_slow_receiver_holds_its_sender_back
        [Aws "socket_handler: echo_and_backpressure"];
    "everything before a close is received before the end" => everything_before_a_close_is_received
        [Aws "socket_handler: read_to_eof_after_peer_hangup", ReseauMain "read before peer close",
         Aws "socket_handler: close"];
    "the end stays the end, for several who ask" => the_end_stays_the_end
        [ReseauMain "EOF serialization"];
    "a half close leaves the other direction" => a_half_close_leaves_the_other_direction
        [ReseauMain "half-close stress"];
    "sixty half closes in both orders lose nothing" => sixty_half_closes
        [ReseauMain "half-close stress"];
    "a receive that waits ends when its own side is shut" => a_receive_ends_when_its_side_is_shut
        [ReseauMain "shutdown closes waiters"];
    "a send to a peer that has gone is an error" => a_send_to_a_peer_that_has_gone_is_an_error
        [Reseau "syscall error mapping to ERROR event", Ioxide "SyscallErrnoTests"];
    "a send that waits ends with an error when its peer goes" => a_waiting_send_ends_when_its_peer_goes
        [Aws "pipe_clean_up_cancels_pending_writes"];
    "a connection that is cut off is an error at its peer" => a_connection_that_is_cut_off_is_an_error
        [];
    "a send that is cancelled says how much it has sent" => a_cancelled_send_says_how_much
        [Aws "pipe_clean_up_cancels_pending_writes"];
    "what a receive is cancelled for goes to the next one" => a_cancelled_receive_eats_nothing
        [ReseauMain "wait_canceled", ReseauMain "stale cancelled wake retried", Libxev "recv cancellation"];
    "several receives at once lose nothing" => several_receives_lose_nothing
        [ReseauMain "EOF serialization"];
    "options are told as they were set" => options_are_told_as_they_were_set
        [Aws "socket_tcp_nodelay", ReseauMain "NODELAY/KEEPALIVE defaults"];
    "an option that the system refuses is an error, also in the middle of a connect" => a_refused_option_is_an_error
        [];
}

fn both_ways(driver: &Rig, one: Fd, other: Fd) {
    driver.send(one, "to the other");
    assert_eq!(driver.receive(other, 12), b"to the other");
    driver.send(other, "and back");
    assert_eq!(driver.receive(one, 8), b"and back");
}

fn bytes_go_both_ways_over_tcp(on: &Bench) {
    let driver = on.driver();
    let (client, server) = driver.pair();
    both_ways(&driver, client, server);
    assert_eq!(driver.peer_addr(client).unwrap(), driver.local_addr(server).unwrap());
    driver.run(Submission::close(client)).unwrap();
    driver.at_its_end(server);
    driver.run(Submission::close(server)).unwrap();
    assert_eq!(driver.snapshot().closes, 3, "the listener too");
}

fn bytes_go_both_ways_over_a_pair(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    both_ways(&driver, one, other);
    driver.run(Submission::close(one)).unwrap();
    driver.at_its_end(other);
    let (one, other) = driver.local_pair();
    driver.close(other);
    driver.close(one);
}

fn a_receive_that_waits_is_ended_by_a_send(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        for round in 0..5 {
            let recv = driver.go(Submission::recv(other, [0; 8]));
            driver.settle();
            assert!(!driver.is_done(&recv));
            driver.send(one, [round]);
            let (n, buf) = driver.end(recv);
            assert_eq!((n.unwrap(), buf[0]), (1, round));
        }
    }
}

fn a_receive_does_not_wait_for_more(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        driver.send(one, "hello");
        let (n, buf) = driver.run(Submission::recv(other, [0; 64]));
        let n = n.unwrap();
        assert!((1..=5).contains(&n) && b"hello".starts_with(&buf[..n]));
        driver.receive(other, 5 - n);
        // And never more than there is room for.
        driver.send(one, "hello");
        let (n, buf) = driver.run(Submission::recv(other, [0; 3]));
        let n = n.unwrap();
        assert!(b"hello".starts_with(&buf[..n]));
        assert_eq!(driver.receive(other, 5 - n), b"hello"[n..]);
    }
}

fn every_kind_of_buffer(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.pair();
    fn sent<B: IoBuf>(driver: &Rig, (one, other): (Fd, Fd), buf: B) {
        let expected = buf.as_init().to_vec();
        let (n, buf) = driver.run(Submission::send_all(one, buf));
        assert_eq!(n.unwrap(), expected.len());
        assert_eq!(buf.as_init(), expected, "it comes back as it was");
        assert_eq!(driver.receive(other, expected.len()), expected);
    }
    fn received<B: IoBufMut>(driver: &Rig, (one, other): (Fd, Fd), buf: B) -> B {
        driver.send(one, "x");
        let (n, buf) = driver.run(Submission::recv(other, buf));
        assert_eq!(n.unwrap(), 1);
        buf
    }
    let pair = (one, other);
    sent(&driver, pair, b"vec".to_vec());
    sent(&driver, pair, Box::<[u8]>::from(&b"box"[..]));
    sent(&driver, pair, *b"array");
    sent(&driver, pair, [b'x'; 100]);
    sent(&driver, pair, Rc::<[u8]>::from(&b"rc"[..]));
    sent(&driver, pair, "static");
    sent(&driver, pair, Slice::from(b"a slice".to_vec(), 2));
    sent(&driver, pair, Bytes::from_static(b"bytes"));
    assert_eq!(received(&driver, pair, Vec::with_capacity(64)), b"x");
    assert_eq!(received(&driver, pair, b"behind ".to_vec().tap_reserve()), b"behind x");
    assert_eq!(received(&driver, pair, vec![0; 64].into_boxed_slice())[0], b'x');
    assert_eq!(received(&driver, pair, [0; 16])[0], b'x');
    assert_eq!(received(&driver, pair, [0; 1000])[0], b'x');
    assert_eq!(received(&driver, pair, Box::new([0; 16]))[0], b'x');
    assert_eq!(&received(&driver, pair, BytesMut::with_capacity(16))[..], b"x");
    // The ones that give no number, or no buffer, back.
    let (sent, _) = driver.run(Submission::send_whole(one, "whole"));
    sent.unwrap();
    driver.run(Submission::send_away(one, b"away".to_vec())).unwrap();
    assert_eq!(driver.receive(other, 9), b"wholeaway");
}

trait TapReserve {
    fn tap_reserve(self) -> Self;
}

impl TapReserve for Vec<u8> {
    fn tap_reserve(mut self) -> Vec<u8> {
        self.reserve(8);
        self
    }
}

fn a_buffer_without_room_is_refused(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let refused = driver.submit(Submission::recv(other, Vec::<u8>::new()), Token::NONE);
        assert_eq!(refused.unwrap_err().error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(driver.operations(), 0);
        both_ways(&driver, one, other);
    }
}

fn no_bytes_are_no_error(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        assert_eq!(driver.run(Submission::send_all(one, Vec::new())).0.unwrap(), 0);
        assert_eq!(driver.run(Submission::send(one, "")).0.unwrap(), 0);
        both_ways(&driver, one, other);
    }
}

fn four_mib_arrive(on: &Bench) {
    const LEN: usize = 4 << 20;
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let sent = pattern(1, LEN);
        let send = driver.go(Submission::send_all(one, sent.clone()));
        driver.settle();
        if !on.is_simulated() && driver.is_done(&send) {
            panic!("it was to need several sends");
        }
        let received = driver.receive(other, LEN);
        assert!(received == sent, "byte exact");
        let (n, buf) = driver.end(send);
        assert_eq!((n.unwrap(), buf.len()), (LEN, LEN));
    }
}

fn sends_arrive_in_order(on: &Bench) {
    const COUNT: usize = 200;
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        // Each is begun where the one before it is told of.
        let mut send = Some(driver.go_for(Submission::send_all(one, pattern(0, 777)), 0));
        let mut recv = Some(driver.go_for(Submission::recv(other, Vec::with_capacity(1000)), 1));
        let (mut ended, mut received) = (0, Vec::new());
        driver.until(|| {
            if let Some((sent, _)) = driver.take_if_done(&mut send) {
                assert_eq!(sent.unwrap(), 777);
                ended += 1;
                if ended < COUNT {
                    send = Some(driver.go(Submission::send_all(one, pattern(ended, 777))));
                }
            }
            if let Some((n, mut part)) = driver.take_if_done(&mut recv) {
                assert_eq!(n.unwrap(), part.len());
                received.append(&mut part);
                if received.len() < COUNT * 777 {
                    recv = Some(driver.go(Submission::recv(other, part)));
                }
            }
            ended == COUNT && received.len() == COUNT * 777
        });
        assert!(received.chunks(777).enumerate().all(|(n, part)| part == pattern(n, 777)));
    }
}

fn echo(driver: &Rig, client: Fd, server: Fd, message: &[u8]) {
    driver.send(client, message);
    let there = driver.receive(server, message.len());
    driver.send(server, there);
    assert_eq!(driver.receive(client, message.len()), message);
}

fn fifty_fresh_connections_echo(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    for n in 0..50 {
        let client = driver.connected(address);
        let server = driver.adopt(driver.accepted(listener));
        echo(&driver, client, server, &pattern(n, 10 + n));
        driver.run(Submission::close(client)).unwrap();
        driver.at_its_end(server);
        driver.run(Submission::close(server)).unwrap();
        assert_eq!(driver.descriptors(), 1, "the listener");
    }
}

fn one_connection_echoes_a_hundred_messages(on: &Bench) {
    let driver = on.driver();
    for (client, server) in driver.pairs() {
        for n in 0..100 {
            echo(&driver, client, server, &pattern(n, 1 + n * 13));
        }
        // Several on their way before the first is answered.
        let all: Vec<u8> = (0..20).flat_map(|n| pattern(n, 50)).collect();
        driver.send(client, &all);
        for n in 0..20 {
            let message = driver.receive(server, 50);
            assert_eq!(message, pattern(n, 50));
            driver.send(server, message);
        }
        assert_eq!(driver.receive(client, all.len()), all);
    }
}

fn byte_by_byte(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let message = pattern(2, 100);
        for byte in &message {
            driver.send(one, [*byte]);
        }
        assert_eq!(driver.receive(other, 100), message);
        // And taken byte by byte.
        driver.send(one, &message);
        let taken: Vec<u8> = (0..100).flat_map(|_| driver.receive(other, 1)).collect();
        assert_eq!(taken, message);
    }
}

fn both_directions_at_once(on: &Bench) {
    const LEN: usize = 500_000;
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let sends = [one, other]
            .map(|fd| driver.go(Submission::send_all(fd, pattern(fd_seed(fd == one), LEN))));
        let mut recvs =
            [one, other].map(|fd| Some(driver.go(Submission::recv(fd, Vec::with_capacity(LEN)))));
        driver.until(|| {
            let mut all = true;
            for (recv, fd) in recvs.iter_mut().zip([one, other]) {
                if let Some((n, buf)) = driver.take_if_done(recv) {
                    assert!(n.unwrap() > 0);
                    if buf.len() == LEN {
                        assert!(buf == pattern(fd_seed(fd == other), LEN), "byte exact");
                    } else {
                        *recv = Some(driver.go(Submission::recv(fd, buf)));
                    }
                }
                all &= recv.is_none();
            }
            all
        });
        for send in sends {
            assert_eq!(driver.end(send).0.unwrap(), LEN);
        }
    }
}

fn fd_seed(first: bool) -> usize {
    if first { 21 } else { 22 }
}

fn a_slow_receiver_holds_its_sender_back(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let sent = driver.fill(one);
        let more = driver.go(Submission::send_all(one, pattern(5, 300_000)));
        driver.settle();
        assert!(!driver.is_done(&more), "there is no room");
        let mut received = Vec::new();
        while received.len() < sent.len() + 300_000 {
            let most = (sent.len() + 300_000 - received.len()).min(10_000);
            received.extend(driver.receive(other, most));
        }
        assert_eq!(driver.end(more).0.unwrap(), 300_000);
        assert!(received[..sent.len()] == sent && received[sent.len()..] == pattern(5, 300_000));
    }
}

fn everything_before_a_close_is_received(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        driver.send(one, pattern(3, 30_000));
        driver.run(Submission::close(one)).unwrap();
        driver.settle();
        assert!(driver.receive_all(other) == pattern(3, 30_000));
    }
}

fn the_end_stays_the_end(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let waiting = [1, 2, 3].map(|_| driver.go(Submission::recv(other, [0; 8])));
        driver.settle();
        driver.close(one);
        for recv in waiting {
            assert_eq!(driver.end(recv).0.unwrap(), 0);
        }
        for _ in 0..3 {
            driver.at_its_end(other);
        }
        assert!(driver.run(Submission::recv_pooled(other)).unwrap().is_none());
    }
}

fn a_half_close_leaves_the_other_direction(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        driver.send(one, "the last");
        driver.run(Submission::shutdown(one, Shutdown::Write)).unwrap();
        assert_eq!(driver.receive_all(other), b"the last");
        driver.send(other, "still here");
        assert_eq!(driver.receive(one, 10), b"still here");
        assert_eq!(errno(driver.run(Submission::send(one, "x")).0), pelton_driver::errno::EPIPE);
        // The call that does not wait does the same.
        Driver::shutdown(&driver, other, Shutdown::Write).unwrap();
        driver.at_its_end(one);
    }
}

fn sixty_half_closes(on: &Bench) {
    let driver = on.driver();
    for round in 0..30 {
        for (one, other) in driver.pairs() {
            let recv = (round % 3 == 0).then(|| driver.go(Submission::recv(one, [0; 8])));
            driver.send(one, "question");
            driver.run(Submission::shutdown(one, Shutdown::Write)).unwrap();
            assert_eq!(driver.receive_all(other), b"question");
            driver.send(other, "y");
            driver.run(Submission::shutdown(other, Shutdown::Write)).unwrap();
            match recv {
                Some(recv) => assert_eq!(driver.end(recv).0.unwrap(), 1),
                None => assert_eq!(driver.receive(one, 1), b"y"),
            }
            driver.at_its_end(one);
            driver.run(Submission::close(one)).unwrap();
            driver.run(Submission::close(other)).unwrap();
        }
    }
}

fn a_receive_ends_when_its_side_is_shut(on: &Bench) {
    let driver = on.driver();
    for (one, _other) in driver.pairs() {
        let recv = driver.go(Submission::recv(one, [0; 8]));
        driver.settle();
        driver.run(Submission::shutdown(one, Shutdown::Read)).unwrap();
        assert_eq!(driver.end(recv).0.unwrap(), 0);
    }
    // Nobody is connected: there is nothing to shut.
    let (_listener, address) = driver.listening();
    let socket = driver.socket(address);
    let error = errno(driver.run(Submission::shutdown(socket, Shutdown::Both)));
    assert_eq!(error, pelton_driver::errno::ENOTCONN);
}

fn a_send_to_a_peer_that_has_gone_is_an_error(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    driver.run(Submission::close(other)).unwrap();
    if on.backend() == Backend::Iocp {
        // The pair is one of TCP, which has to hear of it first: told once, and then it is over.
        while driver.run(Submission::send_all(one, vec![0; 100])).0.is_ok() {}
    }
    assert_eq!(
        errno(driver.run(Submission::send_all(one, vec![0; 100])).0),
        pelton_driver::errno::EPIPE
    );
    let parts = [vec![0; 100], vec![0; 100]];
    assert_eq!(
        errno(driver.run(Submission::send_vectored_all(one, parts)).0),
        pelton_driver::errno::EPIPE
    );
    // Over a network the first send may be on its way before the peer says that it has gone.
    let (one, other) = driver.pair();
    driver.run(Submission::close(other)).unwrap();
    let error = loop {
        if let Err(error) = driver.run(Submission::send_all(one, vec![0; 100])).0 {
            break error.raw_os_error().unwrap();
        }
        driver.settle();
    };
    assert!(
        [pelton_driver::errno::EPIPE, pelton_driver::errno::ECONNRESET].contains(&error),
        "{error}"
    );
}

fn a_waiting_send_ends_when_its_peer_goes(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let send = driver.go(Submission::send_all(one, pattern(1, 16 << 20)));
        driver.settle();
        assert!(!driver.is_done(&send), "it waits for its peer to receive");
        driver.run(Submission::close(other)).unwrap();
        let (sent, _) = driver.end(send);
        let error = errno(sent);
        assert!(
            [pelton_driver::errno::EPIPE, pelton_driver::errno::ECONNRESET].contains(&error),
            "{error}"
        );
    }
}

fn a_connection_that_is_cut_off_is_an_error(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.pair();
    let recv = driver.go(Submission::recv(other, [0; 8]));
    driver.settle();
    driver.set_linger(one, Some(Duration::ZERO)).unwrap();
    driver.run(Submission::close(one)).unwrap();
    assert_eq!(errno(driver.end(recv).0), pelton_driver::errno::ECONNRESET);
    // Told once; then it is over.
    driver.at_its_end(other);
    assert_eq!(errno(driver.run(Submission::send(other, "x")).0), pelton_driver::errno::EPIPE);
}

fn a_cancelled_send_says_how_much(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let sent = driver.fill(one);
        assert!(!sent.is_empty() && sent.len() < 16 << 20);
        driver.run(Submission::shutdown(one, Shutdown::Write)).unwrap();
        assert!(driver.receive_all(other) == sent, "just that much, and just those bytes");
    }
    // One that got rid of nothing says that it was cancelled.
    let (one, _other) = driver.local_pair();
    driver.fill(one);
    let send = driver.go(Submission::send_all(one, "x"));
    driver.settle();
    assert!(driver.cancel(send.id()));
    assert_eq!(errno(driver.end(send).0), pelton_driver::errno::ECANCELED);
}

fn a_cancelled_receive_eats_nothing(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        for round in 0..20 {
            let recv = driver.go(Submission::recv(other, Vec::with_capacity(16)));
            if round % 2 == 0 {
                driver.settle();
            }
            // The one is sent and the other is cancelled in the same entry, in either order.
            let send = driver.go(Submission::send_all(one, "payload"));
            driver.cancel(recv.id());
            assert_eq!(driver.end(send).0.unwrap(), 7);
            let (n, mut buf) = driver.end(recv);
            match n {
                Ok(n) => assert_eq!(n, buf.len()),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(pelton_driver::errno::ECANCELED));
                    assert!(buf.is_empty());
                }
            }
            buf.extend(driver.receive(other, 7 - buf.len()));
            assert_eq!(buf, b"payload");
        }
    }
}

fn several_receives_lose_nothing(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let recvs: Vec<_> = (0..4).map(|_| driver.go(Submission::recv(other, [0; 1]))).collect();
        driver.settle();
        driver.send(one, "abcd");
        let mut got: Vec<u8> = recvs
            .into_iter()
            .map(|recv| {
                let (n, buf) = driver.end(recv);
                assert_eq!(n.unwrap(), 1);
                buf[0]
            })
            .collect();
        got.sort_unstable();
        assert_eq!(got, b"abcd", "each byte to one of them");
    }
}

fn options_are_told_as_they_were_set(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.pair();
    for nodelay in [true, false, true] {
        driver.set_nodelay(one, nodelay).unwrap();
        assert_eq!(driver.nodelay(one).unwrap(), nodelay);
    }
    assert!(!driver.nodelay(other).unwrap(), "the other end has its own");
    for ttl in [1, 7, 255] {
        driver.set_ttl(one, ttl).unwrap();
        assert_eq!(driver.ttl(one).unwrap(), ttl);
    }
    assert_eq!(driver.linger(one).unwrap(), None);
    for linger in [Some(Duration::ZERO), Some(Duration::from_secs(3)), None] {
        driver.set_linger(one, linger).unwrap();
        assert_eq!(driver.linger(one).unwrap(), linger);
    }
    both_ways(&driver, one, other);
}

fn a_refused_option_is_an_error(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    let client = driver.socket(address);
    let connect = driver.go(Submission::connect(client, address));
    for ttl in [0, 256, 1 << 20] {
        assert_eq!(driver.set_ttl(client, ttl).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    driver.end(connect).unwrap();
    assert!((1..=255).contains(&driver.ttl(client).unwrap()), "as it was");
    // Not for this kind of socket.
    let (pair, _other) = driver.local_pair();
    let refused = errno(driver.set_nodelay(pair, true));
    if cfg!(windows) {
        assert_eq!(refused, 0, "such a pair is one of TCP there");
    } else if cfg!(target_os = "linux") {
        assert_eq!(refused, pelton_driver::errno::EOPNOTSUPP);
    } else {
        assert_ne!(refused, 0, "in the system's own words");
    }
    // Not there.
    driver.close(client);
    assert_eq!(errno(driver.set_nodelay(client, true)), pelton_driver::errno::EBADF);
    let _server = driver.adopt(driver.accepted(listener));
}
