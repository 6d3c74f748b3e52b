//! Datagrams.

use std::io;

use pelton_driver::{Fd, Submission};

use crate::registry::behaviours;
use crate::{Bench, Rig, errno};

behaviours! {
    "datagrams go both ways between sockets that are connected to each other" => datagrams_go_both_ways
        [Aws "udp_socket_communication", Aws "udp_bind_connect_communication", Ioxide "UdpTests"];
    "datagrams keep their bounds, and one of no bytes is no end" => datagrams_keep_their_bounds
        [Ioxide "UdpTests"];
    "port 0 is one of the system's choice for datagrams too" => port_0_is_one_of_the_systems_choice
        [Aws "bind_on_zero_port_udp_ipv4"];
    "a datagram socket on an address of nobody here or in use is refused" => a_bad_address_is_refused
        [Aws "incoming_udp_sock_errors"];
    "a connected socket receives from its peer alone" => a_connected_socket_receives_from_its_peer_alone
        [Aws "udp_bind_connect_communication"];
    "a receive of a datagram can be cancelled, and eats none" => a_receive_of_a_datagram_can_be_cancelled
        [Libxev "recv cancellation"];
}

fn bound(driver: &Rig) -> Fd {
    driver.keep(driver.datagram_socket("127.0.0.1:0".parse().unwrap()).unwrap())
}

fn connect(driver: &Rig, fd: Fd, to: Fd) {
    let address = driver.local_addr(to).unwrap();
    driver.run(Submission::connect(fd, address)).unwrap();
}

fn pair(driver: &Rig) -> (Fd, Fd) {
    let (one, other) = (bound(driver), bound(driver));
    connect(driver, one, other);
    connect(driver, other, one);
    (one, other)
}

fn datagrams_go_both_ways(on: &Bench) {
    let driver = on.driver();
    let (one, other) = pair(&driver);
    assert_eq!(driver.peer_addr(one).unwrap(), driver.local_addr(other).unwrap());
    for n in 0..20 {
        let recv = driver.go(Submission::recv(other, [0; 16]));
        assert_eq!(driver.run(Submission::send(one, [n; 5])).0.unwrap(), 5);
        let (got, buf) = driver.end(recv);
        assert_eq!((got.unwrap(), &buf[..5]), (5, &[n; 5][..]));
        assert_eq!(driver.run(Submission::send(other, [n; 3])).0.unwrap(), 3);
        let (got, buf) = driver.run(Submission::recv(one, [0; 16]));
        assert_eq!((got.unwrap(), &buf[..3]), (3, &[n; 3][..]));
    }
}

fn datagrams_keep_their_bounds(on: &Bench) {
    let driver = on.driver();
    let (one, other) = pair(&driver);
    // One at a time: which of several comes first nobody promises.
    for (message, room) in [(&b"first"[..], 64), (b"", 64), (b"third one", 5), (b"fourth", 64)] {
        let (n, _) = driver.run(Submission::send(one, message.to_vec()));
        assert_eq!(n.unwrap(), message.len());
        let (n, buf) = driver.run(Submission::recv(other, Vec::with_capacity(room)));
        let whole = &message[..message.len().min(room)];
        assert_eq!((n.unwrap(), &buf[..]), (whole.len(), whole), "what does not fit is cut off");
    }
    // Two that wait are two.
    driver.run(Submission::send(one, "aaa")).0.unwrap();
    driver.run(Submission::send(one, "aaa")).0.unwrap();
    driver.settle();
    for _ in 0..2 {
        assert_eq!(driver.run(Submission::recv(other, [0; 64])).0.unwrap(), 3);
    }
}

fn port_0_is_one_of_the_systems_choice(on: &Bench) {
    let driver = on.driver();
    let (one, other) = (bound(&driver), bound(&driver));
    let (one, other) = (driver.local_addr(one).unwrap(), driver.local_addr(other).unwrap());
    assert!(one.port() != 0 && other.port() != 0 && one != other);
}

fn a_bad_address_is_refused(on: &Bench) {
    let driver = on.driver();
    // Set aside for documentation: no host has it.
    let error = driver.datagram_socket("192.0.2.77:0".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    let taken = driver.local_addr(bound(&driver)).unwrap();
    let error = driver.datagram_socket(taken).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

fn a_connected_socket_receives_from_its_peer_alone(on: &Bench) {
    let driver = on.driver();
    let (one, other) = pair(&driver);
    let stranger = bound(&driver);
    connect(&driver, stranger, other);
    let _ = driver.run(Submission::send(stranger, "from nobody")).0;
    driver.settle();
    driver.run(Submission::send(one, "from the peer")).0.unwrap();
    let (n, buf) = driver.run(Submission::recv(other, [0; 64]));
    assert_eq!(&buf[..n.unwrap()], b"from the peer");
}

fn a_receive_of_a_datagram_can_be_cancelled(on: &Bench) {
    let driver = on.driver();
    let (one, other) = pair(&driver);
    for _ in 0..5 {
        let recv = driver.go(Submission::recv(other, [0; 16]));
        driver.settle();
        assert!(driver.cancel(recv.id()));
        assert_eq!(errno(driver.end(recv).0), pelton_driver::errno::ECANCELED);
        driver.run(Submission::send(one, "kept")).0.unwrap();
        let (n, buf) = driver.run(Submission::recv(other, [0; 16]));
        assert_eq!(&buf[..n.unwrap()], b"kept");
    }
}
