//! Datagrams with addresses and control messages.

use std::io::ErrorKind;
use std::net::SocketAddr;

use pelton_driver::{Control, DatagramOption, Fd, Key, MAX_PARTS, Received, Submission};

use crate::registry::behaviours;
use crate::{Bench, Rig, errno, pattern};

behaviours! {
    "one socket receives from many and answers each" => one_socket_answers_many
        [Aws "udp_socket_communication", Ioxide "UdpTests"];
    "a datagram that does not fit is cut off, and that is told, with its length" => a_cut_is_told
        [Ioxide "UdpTests"];
    "datagrams may have no bytes or 65507, and more are an error that harms nothing" => any_size_goes
        [Ioxide "UdpTests"];
    "a connected socket hears that nobody is there, and lives on" => a_refusal_is_a_value
        [Aws "incoming_udp_sock_errors"];
    "receives in flight on one socket get one datagram each" => each_receive_gets_one
        [Aws "udp_socket_communication"];
    "a receive with an address can be cancelled, and eats no datagram" => a_cancelled_receive_eats_none
        [Libxev "recv cancellation"];
    "a receive with control messages can be given up at any moment" => a_receive_can_be_given_up
        [Libxev "recv cancellation"];
    "a close ends receives with an address" => a_close_ends_receives
        [Libxev "recv cancellation"];
    "a datagram is sent from and received into several buffers" => buffers_are_gathered_and_scattered
        [Ioxide "UdpTests"];
    "a datagram of more buffers than the system takes is refused whole" => too_many_buffers_are_refused
        [];
    "the address that a datagram was sent to comes with it, where that is asked for" => packet_info_is_told
        [];
    "hop limit and traffic class come with a datagram, as they were sent with it" => hops_and_class_are_told
        [];
    "a datagram is sent from the address that its control message says" => the_source_can_be_chosen
        [];
    "one send can be many datagrams" => one_send_can_be_many [];
    "control messages that do not fit are told to be missing" => missing_messages_are_told [];
    "control messages come back with a refusal" => control_comes_back_with_a_refusal [];
    "a receive at once takes what is there, and a look takes nothing" => at_once_or_not_at_all
        [Ioxide "UdpTests"];
    "a receive of a message on a stream takes its bytes and has no sender" => messages_on_a_stream [];
    "what a simulated network lacks says so, and groups can be joined elsewhere" => groups [];
}

fn bound(driver: &Rig) -> (Fd, SocketAddr) {
    bound_to(driver, "127.0.0.1:0").expect("an address of this host")
}

fn bound_to(driver: &Rig, address: &str) -> Option<(Fd, SocketAddr)> {
    let fd = driver.datagram_socket(address.parse().unwrap()).ok()?;
    Some((driver.keep(fd), driver.local_addr(fd).unwrap()))
}

/// Loopback of both families, where the system has both.
fn families(driver: &Rig) -> Vec<[(Fd, SocketAddr); 2]> {
    let both = |address| Some([bound_to(driver, address)?, bound_to(driver, address)?]);
    let pairs: Vec<_> = ["127.0.0.1:0", "[::1]:0"].into_iter().filter_map(both).collect();
    assert!(!pairs.is_empty());
    pairs
}

#[track_caller]
fn send(driver: &Rig, fd: Fd, bytes: &[u8], to: SocketAddr) {
    let (n, back) = driver.run(Submission::send_to(fd, bytes.to_vec(), to));
    assert_eq!((n.unwrap(), &back[..]), (bytes.len(), bytes));
}

#[track_caller]
fn receive(driver: &Rig, fd: Fd) -> (Vec<u8>, SocketAddr) {
    let (received, bytes) = driver.run(Submission::recv_from(fd, Vec::with_capacity(65_536)));
    let Received { len, from, truncated, whole_len, .. } = received.unwrap();
    assert_eq!((len, truncated), (bytes.len(), false));
    assert_eq!(whole_len, Some(len), "a datagram that fits is as long as what came");
    (bytes, from.expect("a sender"))
}

#[track_caller]
fn message(driver: &Rig, fd: Fd, control: usize) -> (Vec<u8>, Received, Control) {
    let control = Control::with_capacity(control);
    let recv = Submission::recv_msg(fd, [Vec::with_capacity(4096)], control);
    let (received, [bytes], control) = driver.run(recv);
    (bytes, received.unwrap(), control)
}

fn one_socket_answers_many(on: &Bench) {
    let driver = on.driver();
    let (server, address) = bound(&driver);
    let clients: Vec<_> = (0..5).map(|_| bound(&driver)).collect();
    for round in 0..10_u8 {
        for (n, (client, from)) in clients.iter().enumerate() {
            send(&driver, *client, &[round, n as u8], address);
            let (bytes, sender) = receive(&driver, server);
            assert_eq!((&bytes[..], sender), (&[round, n as u8][..], *from));
            send(&driver, server, &bytes, sender);
            assert_eq!(receive(&driver, *client), (bytes, address));
        }
    }
}

fn a_cut_is_told(on: &Bench) {
    let driver = on.driver();
    for [(one, _), (other, to)] in families(&driver) {
        for (len, room) in [(10, 4), (3000, 100), (4, 4), (3, 4)] {
            let sent = pattern(len, len);
            send(&driver, one, &sent, to);
            let room = vec![0; room].into_boxed_slice();
            let (received, bytes) = driver.run(Submission::recv_from(other, room));
            let received = received.unwrap();
            let fits = len.min(bytes.len());
            assert_eq!((received.len, &bytes[..fits]), (fits, &sent[..fits]));
            assert_eq!(received.truncated, len > bytes.len());
            // Windows does not tell how long it was.
            let is_told = !received.truncated || cfg!(unix);
            assert_eq!(received.whole_len, is_told.then_some(len));
        }
        // Nothing of the rest is left behind.
        send(&driver, one, b"next", to);
        assert_eq!(receive(&driver, other).0, b"next");
    }
}

fn any_size_goes(on: &Bench) {
    let driver = on.driver();
    let ((one, from), (other, to)) = (bound(&driver), bound(&driver));
    for len in [0, 1, 1472, 9000, 65_507] {
        let sent = pattern(len, len);
        send(&driver, one, &sent, to);
        assert_eq!(receive(&driver, other), (sent, from), "{len} bytes");
    }
    let (n, back) = driver.run(Submission::send_to(one, vec![7; 65_508], to));
    assert_eq!((errno(n), back.len()), (pelton_driver::errno::EMSGSIZE, 65_508));
    let (received, _) = driver.run(Submission::recv_from(other, {
        send(&driver, one, b"goes on", to);
        [0; 16]
    }));
    assert_eq!(received.unwrap().len, 7);
    let refused =
        driver.submit(Submission::recv_from(other, Vec::new()), pelton_driver::Token::NONE);
    assert_eq!(refused.unwrap_err().error.kind(), ErrorKind::InvalidInput);
}

fn a_refusal_is_a_value(on: &Bench) {
    let driver = on.driver();
    // A socket that is connected elsewhere is deaf to strangers, so that to them nobody has its port.
    let ((deaf, deaf_at), (_, elsewhere)) = (bound(&driver), bound(&driver));
    driver.run(Submission::connect(deaf, elsewhere)).unwrap();
    let (one, at) = bound(&driver);
    driver.run(Submission::connect(one, deaf_at)).unwrap();
    for _ in 0..3 {
        let recv = driver.go(Submission::recv(one, [0; 16]));
        driver.settle();
        assert!(!driver.is_done(&recv), "it waits, or this shows nothing");
        driver.run(Submission::send(one, "anybody?")).0.unwrap();
        assert_eq!(errno(driver.end(recv).0), pelton_driver::errno::ECONNREFUSED);
        let recv = driver.go(Submission::recv_from(one, [0; 16]));
        driver.settle();
        driver.run(Submission::send(one, "anybody?")).0.unwrap();
        assert_eq!(errno(driver.end(recv).0), pelton_driver::errno::ECONNREFUSED);
    }
    // The peer turns around, and the socket has not suffered.
    driver.run(Submission::connect(deaf, at)).unwrap();
    driver.run(Submission::send(one, "you there")).0.unwrap();
    assert_eq!(receive(&driver, deaf), (b"you there".to_vec(), at));
    // One that is not connected is told nothing.
    let (stranger, _) = bound(&driver);
    send(&driver, stranger, b"hello?", deaf_at);
    let recv = driver.go(Submission::recv_from(stranger, [0; 16]));
    driver.settle();
    assert!(!driver.is_done(&recv));
    driver.abandon(recv);
}

fn each_receive_gets_one(on: &Bench) {
    let driver = on.driver();
    let ((one, from), (other, to)) = (bound(&driver), bound(&driver));
    let mut receives: Vec<Key<_>> =
        (0..4).map(|_| driver.go(Submission::recv_from(other, [0_u8; 8]))).collect();
    driver.settle();
    let mut seen = Vec::new();
    for n in 0..4_u8 {
        send(&driver, one, &[n], to);
        driver.until(|| receives.iter().any(|key| driver.is_done(key)));
        let at = receives.iter().position(|key| driver.is_done(key)).unwrap();
        let (received, bytes) = driver.end(receives.swap_remove(at));
        let received = received.unwrap();
        assert_eq!((received.len, received.from), (1, Some(from)));
        seen.push(bytes[0]);
        assert!(!receives.iter().any(|key| driver.is_done(key)), "one datagram ends one receive");
    }
    assert_eq!(seen, [0, 1, 2, 3]);
}

fn a_cancelled_receive_eats_none(on: &Bench) {
    let driver = on.driver();
    let ((one, _), (other, to)) = (bound(&driver), bound(&driver));
    for n in 0..10_u8 {
        let recv = driver.go(Submission::recv_from(other, [0; 16]));
        if n % 2 == 0 {
            driver.settle();
        }
        assert!(driver.cancel(recv.id()));
        let (received, buf) = driver.end(recv);
        assert_eq!(
            (errno(received), buf.len()),
            (pelton_driver::errno::ECANCELED, 16),
            "the buffer comes back"
        );
        send(&driver, one, &[n; 3], to);
        assert_eq!(receive(&driver, other).0, [n; 3]);
    }
}

fn a_receive_can_be_given_up(on: &Bench) {
    let driver = on.driver();
    let ((one, _), (other, to)) = (bound(&driver), bound(&driver));
    driver.set_datagram_option(other, DatagramOption::ReceivePacketInfo(true)).unwrap();
    let recv = || {
        let bufs = [Vec::with_capacity(8), Vec::with_capacity(8)];
        driver.go(Submission::recv_msg(other, bufs, Control::with_capacity(64)))
    };
    for n in 0..12_u8 {
        let given_up = recv();
        match n % 4 {
            0 => {}
            1 => drop(driver.settle()),
            // While a datagram is on its way to it: it has it, or the next one gets it.
            2 => driver.abandon(driver.go(Submission::send_to(one, "lost or not", to))),
            _ => {
                send(&driver, one, b"done", to);
                driver.until(|| driver.is_done(&given_up));
            }
        }
        driver.abandon(given_up);
        driver.settle();
        while driver.try_recv_from(other, &mut [0; 16], false).is_ok() {}
    }
    let cancelled = recv();
    driver.cancel(cancelled.id());
    let (received, bufs, control) = driver.end(cancelled);
    assert_eq!(errno(received), pelton_driver::errno::ECANCELED);
    assert!(bufs.iter().all(|buf| buf.is_empty() && buf.capacity() >= 8));
    assert!(control.is_empty() && control.capacity() == 64, "it comes back as it was");
    send(&driver, one, b"in the end", to);
    let (received, bufs, control) = driver.end(recv());
    assert_eq!((received.unwrap().len, bufs.concat()), (10, b"in the end".to_vec()));
    assert_eq!(control.iter().count(), 1);
}

fn a_close_ends_receives(on: &Bench) {
    let driver = on.driver();
    let fd = driver.datagram_socket("127.0.0.1:0".parse().unwrap()).unwrap();
    let from = driver.go(Submission::recv_from(fd, [0; 16]));
    let message = driver.go(Submission::recv_msg(fd, [[0; 16]], Control::with_capacity(64)));
    driver.settle();
    driver.run(Submission::close(fd)).unwrap();
    assert_eq!(errno(driver.end(from).0), pelton_driver::errno::ECANCELED);
    assert_eq!(errno(driver.end(message).0), pelton_driver::errno::ECANCELED);
}

fn buffers_are_gathered_and_scattered(on: &Bench) {
    let driver = on.driver();
    for [(one, from), (other, to)] in families(&driver) {
        let parts = [b"one, ".to_vec(), Vec::new(), b"two, ".to_vec(), b"three".to_vec()];
        let sent = parts.concat();
        let send = Submission::send_msg(one, parts, Some(to), Control::none());
        let (n, parts, _) = driver.run(send);
        assert_eq!((n.unwrap(), parts.concat()), (sent.len(), sent.clone()));
        let bufs = [Vec::with_capacity(4), Vec::with_capacity(1), Vec::with_capacity(64)];
        let recv = Submission::recv_msg(other, bufs, Control::none());
        let (received, bufs, control) = driver.run(recv);
        let received = received.unwrap();
        assert_eq!((received.len, received.from), (sent.len(), Some(from)));
        assert_eq!(bufs.concat(), sent);
        assert_eq!(
            (bufs[0].len(), bufs[1].len()),
            (4, 1),
            "in order, each one full before the next"
        );
        assert!(control.is_empty() && !received.control_truncated);
    }
    // Where it is connected to, without an address.
    let ((one, _), (other, to)) = (bound(&driver), bound(&driver));
    let nowhere = Submission::send_msg(one, [b"x".to_vec()], None, Control::none());
    assert_eq!(errno(driver.run(nowhere).0), pelton_driver::errno::EDESTADDRREQ);
    driver.run(Submission::connect(one, to)).unwrap();
    let there = Submission::send_msg(one, [b"x".to_vec()], None, Control::none());
    assert_eq!(driver.run(there).0.unwrap(), 1);
    assert_eq!(receive(&driver, other).0, b"x");
}

fn too_many_buffers_are_refused(on: &Bench) {
    let driver = on.driver();
    let ((one, _), (other, to)) = (bound(&driver), bound(&driver));
    let send = |n: usize| Submission::send_msg(one, vec![vec![1]; n], Some(to), Control::none());
    let refused = driver.submit(send(MAX_PARTS + 1), pelton_driver::Token::NONE).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::InvalidInput);
    assert_eq!(refused.payload.0.len(), MAX_PARTS + 1, "they come back");
    assert_eq!(driver.run(send(MAX_PARTS)).0.unwrap(), MAX_PARTS);
    assert_eq!(receive(&driver, other).0, [1; MAX_PARTS]);
}

fn packet_info_is_told(on: &Bench) {
    let driver = on.driver();
    for [(one, from), (other, to)] in families(&driver) {
        send(&driver, one, b"before", to);
        let (_, _, control) = message(&driver, other, 256);
        assert!(control.is_empty(), "nobody has asked for any");
        driver.set_datagram_option(other, DatagramOption::ReceivePacketInfo(true)).unwrap();
        send(&driver, one, b"after", to);
        let (bytes, received, control) = message(&driver, other, 256);
        assert_eq!((&bytes[..], received.from), (&b"after"[..], Some(from)));
        let (address, interface) = control.iter().find_map(|m| m.packet_info()).unwrap();
        assert_eq!(address, to.ip());
        assert_ne!(interface, 0);
    }
}

fn hops_and_class_are_told(on: &Bench) {
    let driver = on.driver();
    for [(one, _), (other, to)] in families(&driver) {
        driver.set_datagram_option(other, DatagramOption::ReceiveHopLimit(true)).unwrap();
        driver.set_datagram_option(other, DatagramOption::ReceiveTrafficClass(true)).unwrap();
        let mut control = Control::with_capacity(128);
        control.push_hop_limit(to, 9).unwrap();
        control.push_traffic_class(to, 0b10).unwrap();
        let sent = Submission::send_msg(one, [b"marked".to_vec()], Some(to), control);
        let (n, _, control) = driver.run(sent);
        assert_eq!((n.unwrap(), control.iter().count()), (6, 2), "what was to be sent comes back");
        let (_, _, control) = message(&driver, other, 256);
        assert_eq!(control.iter().find_map(|m| m.hop_limit()), Some(9));
        assert_eq!(control.iter().find_map(|m| m.traffic_class()), Some(0b10));
        // Of the socket, where the message does not say.
        driver.set_datagram_option(one, DatagramOption::TrafficClass(0b01)).unwrap();
        send(&driver, one, b"as usual", to);
        let (_, _, control) = message(&driver, other, 256);
        assert_eq!(control.iter().find_map(|m| m.traffic_class()), Some(0b01));
    }
}

fn the_source_can_be_chosen(on: &Bench) {
    let driver = on.driver();
    let (one, any) = bound_to(&driver, "0.0.0.0:0").unwrap();
    let (other, to) = bound(&driver);
    for source in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        let mut control = Control::with_capacity(64);
        control.push_source(source.parse().unwrap(), 0).unwrap();
        let sent = Submission::send_msg(one, [b"from me".to_vec()], Some(to), control);
        driver.run(sent).0.unwrap();
        assert_eq!(receive(&driver, other).1, SocketAddr::new(source.parse().unwrap(), any.port()));
    }
}

fn one_send_can_be_many(on: &Bench) {
    let driver = on.driver();
    let ((one, from), (other, to)) = (bound(&driver), bound(&driver));
    let sent = pattern(1, 2500);
    let mut control = Control::with_capacity(Control::space(2));
    control.push_segment_len(1000).unwrap();
    let send = Submission::send_msg(one, [sent.clone()], Some(to), control);
    assert_eq!(driver.run(send).0.unwrap(), 2500);
    let mut seen: Vec<_> = (0..3).map(|_| receive(&driver, other)).collect();
    assert!(seen.iter().all(|(_, sender)| *sender == from));
    let mut whole: Vec<_> = sent.chunks(1000).map(<[u8]>::to_vec).collect();
    // In which order they come nobody promises.
    seen.sort_unstable();
    whole.sort_unstable();
    assert_eq!(seen.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>(), whole);
}

fn missing_messages_are_told(on: &Bench) {
    let driver = on.driver();
    let ((one, _), (other, to)) = (bound(&driver), bound(&driver));
    driver.set_datagram_option(other, DatagramOption::ReceivePacketInfo(true)).unwrap();
    driver.set_datagram_option(other, DatagramOption::ReceiveHopLimit(true)).unwrap();
    for room in [0, 8, 32] {
        send(&driver, one, b"much to say", to);
        let (bytes, received, control) = message(&driver, other, room);
        assert_eq!(bytes, b"much to say");
        assert!(received.control_truncated, "room for {room} bytes");
        assert!(control.iter().count() <= 1);
    }
    send(&driver, one, b"much to say", to);
    let (_, received, control) = message(&driver, other, 256);
    assert!(!received.control_truncated);
    assert_eq!(control.iter().count(), 2);
}

fn control_comes_back_with_a_refusal(on: &Bench) {
    let driver = on.driver();
    let (fd, at) = bound(&driver);
    let control = || {
        let mut control = Control::with_capacity(64);
        control.push(1, 2, b"three").unwrap();
        control
    };
    let refused = driver
        .submit(Submission::recv_msg(fd, [Vec::new()], control()), pelton_driver::Token::NONE)
        .unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::InvalidInput);
    let (error, _, back) = refused.into_output();
    assert!(error.is_err() && back.iter().count() == 1);
    driver.run(Submission::close(fd)).unwrap();
    let refused = driver
        .submit(
            Submission::send_msg(fd, [b"x".to_vec()], Some(at), control()),
            pelton_driver::Token::NONE,
        )
        .unwrap_err();
    assert_eq!(refused.error.raw_os_error(), Some(pelton_driver::errno::EBADF));
    assert_eq!((refused.payload.1, refused.payload.2.iter().count()), (Some(at), 1));
}

fn at_once_or_not_at_all(on: &Bench) {
    let driver = on.driver();
    let ((one, from), (other, to)) = (bound(&driver), bound(&driver));
    // A call that is tried may be interrupted by the faults of some worlds; it is made again inside.
    let nothing = driver.try_recv_from(other, &mut [0; 16], true).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    assert_eq!(driver.try_send_to(one, b"look", Some(to)).unwrap(), 4);
    driver.run(Submission::poll(other, pelton_driver::Interest::Readable)).unwrap();
    for peek in [true, true, false] {
        let mut buf = Vec::with_capacity(16);
        let received = driver.try_recv_from(other, &mut buf, peek).unwrap();
        assert_eq!((&buf[..], received.from), (&b"look"[..], Some(from)));
        assert_eq!((received.truncated, received.whole_len), (false, Some(4)));
    }
    let gone = driver.try_recv_from(other, &mut [0; 16], false).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::WouldBlock);
    // And what comes later is received as ever.
    let recv = driver.go(Submission::recv_from(other, [0; 16]));
    assert_eq!(driver.try_send_to(one, b"later", Some(to)).unwrap(), 5);
    assert_eq!(driver.end(recv).0.unwrap().len, 5);
}

fn messages_on_a_stream(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let mut seen = Vec::new();
        driver.send(one, b"a stream has no bounds");
        while seen.len() < 22 {
            let (bytes, received, _) = message(&driver, other, 64);
            assert_eq!((received.from, received.truncated), (None, false));
            seen.extend(bytes);
        }
        assert_eq!(seen, b"a stream has no bounds");
    }
}

fn groups(on: &Bench) {
    let driver = on.driver();
    let (fd, _) = bound(&driver);
    let group = "239.255.77.7".parse().unwrap();
    let loopback = "127.0.0.1".parse().unwrap();
    let joined = driver.set_datagram_option(fd, DatagramOption::JoinV4(group, loopback));
    if on.is_simulated() {
        let error = joined.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("multicast"), "{error}");
    } else {
        joined.unwrap();
        driver.set_datagram_option(fd, DatagramOption::LeaveV4(group, loopback)).unwrap();
    }
    driver.set_datagram_option(fd, DatagramOption::MulticastLoopV4(false)).unwrap();
    driver.set_datagram_option(fd, DatagramOption::MulticastTtlV4(7)).unwrap();
    assert!(!driver.multicast_loop(fd, false).unwrap());
    assert_eq!(driver.multicast_hops(fd, false).unwrap(), 7);
    assert!(driver.set_datagram_option(fd, DatagramOption::MulticastTtlV4(256)).is_err());
    assert!(!driver.broadcast(fd).unwrap());
    driver.set_datagram_option(fd, DatagramOption::Broadcast(true)).unwrap();
    assert!(driver.broadcast(fd).unwrap());
}
