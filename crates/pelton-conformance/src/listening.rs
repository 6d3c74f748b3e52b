//! Listening, accepting, connecting.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;

use pelton_driver::{Backend, Config, Driver, Fd, Key, ListenOptions, ManyAccepts, Submission};

use crate::registry::behaviours;
use crate::rig::{passes, small};
use crate::{Bench, Rig, errno};

behaviours! {
    "an accepted connection has the address of its client, in both families" => an_accepted_connection_has_its_clients_address
        [ReseauMain "connect completion and accept flags", ReseauMain "addresses"];
    "port 0 is one of the system's choice, and stays" => port_0_is_one_of_the_systems_choice
        [Aws "bind_on_zero_port_tcp_ipv4"];
    "a socket that is not connected has no peer" => a_socket_that_is_not_connected_has_no_peer
        [Aws "bind_on_zero_port_tcp_ipv4"];
    "an address in use is refused" => an_address_in_use_is_refused
        [Aws "incoming_duplicate_tcp_bind_errors"];
    "an address of nobody here is refused" => an_address_of_nobody_here_is_refused
        [Aws "incoming_tcp_sock_errors"];
    "two that want to share a port share it" => two_share_a_port
        [Ioxide "CoreTests: ExtraPorts"];
    "a connection to nobody is refused" => a_connection_to_nobody_is_refused
        [Aws "outgoing_tcp_sock_error", ReseauMain "refused connect", Ioxide "SyscallErrnoTests"];
    "a socket is connected once" => a_socket_is_connected_once
        [];
    "clients that come before the accept wait for it" => clients_wait_for_the_accept
        [Libxev "socket accept/connect/send/recv/close"];
    "one accept that goes on takes a hundred clients" => one_accept_takes_a_hundred_clients
        [Libxev "socket accept/connect/send/recv/close"]
        cannot bear AcceptRunsOut, AcceptAborted because "they end an accept, and the runtime makes another";
    "an accept that is cancelled takes nobody with it" => a_cancelled_accept_takes_nobody_with_it
        [Libxev "accept cancellation"];
    "a client that comes as one accept is cancelled is the other's" => the_accept_that_is_left_is_told
        []
        cannot bear AcceptRunsOut, AcceptAborted because "they end an accept, and the runtime makes another";
    "an accept ends when its listener is closed" => an_accept_ends_with_its_listener
        [ReseauMain "accept unblocks on close"];
    "a client that has gone before it was accepted harms nobody" => a_client_that_has_gone_harms_nobody
        [];
    "a connection that is accepted for nobody is closed" => a_connection_for_nobody_is_closed
        [Aws "cleanup_in_accept_doesnt_explode"];
    "a connection may be closed where it is told of" => a_connection_is_closed_where_it_is_told_of
        [Aws "cleanup_in_accept_doesnt_explode"]
        cannot bear AcceptRunsOut, AcceptAborted because "they end an accept, and the runtime makes another";
    "a connect that hangs can be cancelled" => a_connect_that_hangs_can_be_cancelled
        [Aws "connect_timeout_cancelation", Aws "cleanup_before_connect_or_timeout_doesnt_explode"];
    "a connect under way goes with its driver" => a_connect_under_way_goes_with_its_driver
        [Aws "cleanup_before_connect_or_timeout_doesnt_explode"];
    "a flood of clients passes a completion queue of eight" => a_flood_passes_a_small_queue
        [Ioxide "HardeningTests: CQ overflow"]
        cannot bear AcceptRunsOut, AcceptAborted because "they end an accept, and the runtime makes another";
    "who listens on every address of IPv6 is reached by IPv4 too" => every_address_of_ipv6_is_reached_by_ipv4
        [ReseauMain "dual-stack wildcard"];
    "an address that cannot be told is an error" => an_address_that_cannot_be_told_is_an_error
        [];
}

fn an_accepted_connection_has_its_clients_address(on: &Bench) {
    let driver = on.driver();
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let bind: SocketAddr = bind.parse().unwrap();
        let listener = match driver.listen(bind, ListenOptions::default()) {
            Ok(listener) => driver.keep(listener),
            // A system without IPv6.
            Err(error) if bind.is_ipv6() && error.kind() == io::ErrorKind::AddrNotAvailable => {
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let address = driver.local_addr(listener).unwrap();
        let client = driver.connected(address);
        let accepted = driver.accepted(listener);
        assert_eq!(accepted.peer, Some(driver.local_addr(client).unwrap()));
        let server = driver.adopt(accepted);
        assert_eq!(driver.peer_addr(server).unwrap(), driver.local_addr(client).unwrap());
        assert_eq!(driver.peer_addr(client).unwrap(), address);
        assert_eq!(driver.local_addr(server).unwrap(), address);
    }
}

fn port_0_is_one_of_the_systems_choice(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    assert_ne!(address.port(), 0);
    let (_other, elsewhere) = driver.listening();
    assert_ne!(address, elsewhere);
    driver.connected(address);
    let _server = driver.adopt(driver.accepted(listener));
    assert_eq!(driver.local_addr(listener).unwrap(), address);
}

fn a_socket_that_is_not_connected_has_no_peer(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    let socket = driver.socket(address);
    for fd in [socket, listener] {
        assert_eq!(driver.peer_addr(fd).unwrap_err().kind(), io::ErrorKind::NotConnected);
    }
    assert_eq!(driver.local_addr(socket).unwrap().port(), 0, "not bound either");
    assert_eq!(errno(driver.run(Submission::send(socket, "x")).0), pelton_driver::errno::EPIPE);
    assert_eq!(
        errno(driver.run(Submission::recv(socket, [0; 8])).0),
        pelton_driver::errno::ENOTCONN
    );
}

fn an_address_in_use_is_refused(on: &Bench) {
    let driver = on.driver();
    let (_listener, address) = driver.listening();
    let error = driver.listen(address, ListenOptions::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

fn an_address_of_nobody_here_is_refused(on: &Bench) {
    let driver = on.driver();
    // Set aside for documentation: no host has it.
    let error = driver.listen("192.0.2.77:0".parse().unwrap(), ListenOptions::default());
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    assert_eq!(driver.descriptors(), 0);
}

fn two_share_a_port(on: &Bench) {
    let driver = on.driver();
    let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    let (one, address) = driver.listening_on("127.0.0.1:0", options);
    let other = driver.keep(driver.listen(address, options).unwrap());
    let accepts = [one, other].map(|fd| driver.go(Submission::accept_multi(fd)));
    let mut accepts = accepts.map(Some);
    let clients: Vec<_> = (0..20).map(|_| driver.connected(address)).collect();
    let mut servers = HashSet::new();
    driver.until(|| {
        for (accept, fd) in accepts.iter_mut().zip([one, other]) {
            take_accepted(&driver, accept, fd, |server| {
                servers.insert(driver.peer_addr(server).unwrap());
            });
        }
        servers.len() == clients.len()
    });
    for accept in accepts.into_iter().flatten() {
        driver.abandon(accept);
    }
}

/// Takes what an accept that goes on has brought, and begins another where it has ended.
fn take_accepted(
    driver: &Rig,
    accept: &mut Option<Key<ManyAccepts>>,
    listener: Fd,
    mut each: impl FnMut(Fd),
) {
    let Some(key) = accept.as_ref() else { return };
    while let Some(connection) = driver.next(key) {
        each(driver.keep(driver.attach_stream(connection).unwrap()));
    }
    if let Some(outcome) = driver.take_if_done(accept) {
        let error = outcome.unwrap_err();
        assert!(
            passes(&error) || error.raw_os_error() == Some(pelton_driver::errno::ECANCELED),
            "{error}"
        );
        *accept = Some(driver.go(Submission::accept_multi(listener)));
    }
}

fn a_connection_to_nobody_is_refused(on: &Bench) {
    let driver = on.driver();
    let (_listener, address) = driver.listening();
    let address = on.nobody_at(address);
    for _ in 0..3 {
        let fd = driver.socket(address);
        assert_eq!(
            errno(driver.run(Submission::connect(fd, address))),
            pelton_driver::errno::ECONNREFUSED
        );
        driver.run(Submission::close(fd)).unwrap();
    }
}

fn a_socket_is_connected_once(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    let fd = driver.connected(address);
    assert_eq!(errno(driver.run(Submission::connect(fd, address))), pelton_driver::errno::EISCONN);
    let server = driver.adopt(driver.accepted(listener));
    driver.send(fd, "still");
    assert_eq!(driver.receive(server, 5), b"still");
}

fn clients_wait_for_the_accept(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    let clients: Vec<_> = (0..10).map(|_| driver.connected(address)).collect();
    for (n, client) in clients.iter().enumerate() {
        driver.send(*client, [n as u8]);
    }
    for _ in &clients {
        let accepted = driver.accepted(listener);
        let from = accepted.peer.unwrap();
        let server = driver.adopt(accepted);
        let n = driver.receive(server, 1)[0];
        assert_eq!(driver.local_addr(clients[n as usize]).unwrap(), from);
    }
    assert_eq!(driver.snapshot().accepts, 10);
}

fn one_accept_takes_a_hundred_clients(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    let mut accept = Some(driver.go(Submission::accept_multi(listener)));
    let (mut clients, mut peers) = (HashSet::new(), HashSet::new());
    for n in 1..=100 {
        clients.insert(driver.local_addr(driver.connected(address)).unwrap());
        if n % 10 == 0 {
            driver.until(|| {
                take_accepted(&driver, &mut accept, listener, |server| {
                    peers.insert(driver.peer_addr(server).unwrap());
                });
                peers.len() == n
            });
        }
    }
    assert_eq!(clients, peers);
    let accept = accept.unwrap();
    assert!(driver.cancel(accept.id()));
    assert_eq!(errno(driver.end(accept)), pelton_driver::errno::ECANCELED);
    assert_eq!(driver.snapshot().accepts, 100);
}

fn a_cancelled_accept_takes_nobody_with_it(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    let accept = driver.go(Submission::accept(listener));
    let multi = driver.go(Submission::accept_multi(listener));
    driver.settle();
    for outcome in [
        driver.cancel(accept.id()).then(|| errno(driver.end(accept))),
        driver.cancel(multi.id()).then(|| errno(driver.end(multi))),
    ] {
        assert_eq!(outcome, Some(pelton_driver::errno::ECANCELED));
    }
    let client = driver.connected(address);
    let server = driver.adopt(driver.accepted(listener));
    driver.send(client, "x");
    assert_eq!(driver.receive(server, 1), b"x");
}

/// The kernel wakes one accept for a connection: it must not be the cancelled one alone.
fn the_accept_that_is_left_is_told(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    for round in 0..20 {
        let accepts = [0, 1].map(|_| driver.go(Submission::accept(listener)));
        let multi = (round % 2 == 1).then(|| driver.go(Submission::accept_multi(listener)));
        if round % 4 < 2 {
            driver.settle();
        }
        let [cancelled, left] = accepts;
        assert!(driver.cancel(cancelled.id()));
        let client = driver.socket(address);
        let connect = driver.go(Submission::connect(client, address));
        // Whoever of them has it: the cancel may have come too late.
        let multi_has = || multi.as_ref().and_then(|multi| driver.next(multi));
        let mut has = None;
        driver.until(|| {
            has = has.take().or_else(multi_has);
            has.is_some() || driver.is_done(&left) || driver.is_done(&cancelled)
        });
        let early = driver.end(cancelled).ok();
        if has.is_none() && early.is_none() {
            driver.until(|| {
                has = has.take().or_else(multi_has);
                has.is_some() || driver.is_done(&left)
            });
        }
        driver.run(Submission::close(client)).unwrap();
        let _ = driver.end(connect);
        for key in [left.id()].into_iter().chain(multi.iter().map(|multi| multi.id())) {
            driver.cancel(key);
        }
        let taken = [early.is_some(), driver.end(left).is_ok(), has.is_some()];
        assert!(
            taken.into_iter().filter(|taken| *taken).count() <= 1,
            "one client came: {taken:?}"
        );
        if let Some(multi) = multi {
            drop(driver.end(multi));
        }
    }
}

fn an_accept_ends_with_its_listener(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    let accept = driver.go(Submission::accept(listener));
    let multi = driver.go(Submission::accept_multi(listener));
    driver.settle();
    driver.run(Submission::close(listener)).unwrap();
    assert_eq!(errno(driver.end(accept)), pelton_driver::errno::ECANCELED);
    assert_eq!(errno(driver.end(multi)), pelton_driver::errno::ECANCELED);
    // It is free for the next one, unless somebody else has taken it already.
    match driver.listen(address, ListenOptions::default()) {
        Ok(again) => {
            driver.keep(again);
        }
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
    }
}

fn a_client_that_has_gone_harms_nobody(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    for abort in [false, true] {
        let gone = driver.connected(address);
        if abort {
            driver.set_linger(gone, Some(std::time::Duration::ZERO)).unwrap();
        }
        driver.run(Submission::close(gone)).unwrap();
        driver.settle();
        let client = driver.connected(address);
        driver.send(client, "here");
        // The kernel gives out the one that has gone, or passes it over; the other one comes in any case.
        loop {
            let server = driver.adopt(driver.accepted(listener));
            let (n, buf) = driver.run(Submission::recv(server, [0; 8]));
            match n {
                Ok(n) if n > 0 => {
                    assert!(b"here".starts_with(&buf[..n]));
                    break;
                }
                Ok(_) => assert!(!abort, "a reset is no end"),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(pelton_driver::errno::ECONNRESET))
                }
            }
        }
    }
}

fn a_connection_for_nobody_is_closed(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    // One that is abandoned when it has ended.
    let accept = driver.go(Submission::accept(listener));
    let client = driver.connected(address);
    driver.until(|| driver.is_done(&accept));
    let refused = driver.take(accept);
    match refused.unwrap() {
        // Taken and dropped.
        Ok(accepted) => drop(accepted),
        Err(error) if passes(&error) => drop(driver.accepted(listener)),
        Err(error) => panic!("{error}"),
    }
    driver.at_its_end(client);
    // And one that goes on, abandoned with somebody in it.
    let multi = driver.go(Submission::accept_multi(listener));
    let client = driver.connected(address);
    driver.until(|| driver.waiting(&multi) == 1 || driver.is_done(&multi));
    let came = driver.waiting(&multi) == 1;
    driver.abandon(multi);
    if came {
        driver.at_its_end(client);
    }
}

fn a_connection_is_closed_where_it_is_told_of(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    let accept = driver.go(Submission::accept_multi(listener));
    let client = driver.connected(address);
    let closed = Cell::new(false);
    let close = || {
        while let Some(connection) = driver.next(&accept) {
            let fd = driver.attach_stream(connection).unwrap();
            let recv = driver.go(Submission::recv(fd, [0; 8]));
            Driver::close(&driver, fd);
            driver.abandon(recv);
            closed.set(true);
        }
    };
    // It may have come, and been told of, with the connect.
    close();
    driver.watch(|_| close(), || closed.get());
    driver.at_its_end(client);
    driver.abandon(accept);
}

/// A listener with room for one client, and somebody in it: the next one's first packet is dropped.
fn hanging(driver: &Rig) -> SocketAddr {
    let options = ListenOptions { backlog: 0, ..ListenOptions::default() };
    let (_listener, address) = driver.listening_on("127.0.0.1:0", options);
    driver.connected(address);
    address
}

fn a_connect_that_hangs_can_be_cancelled(on: &Bench) {
    let driver = on.driver();
    let address = hanging(&driver);
    for closed in [false, true] {
        let fd = driver.socket(address);
        let key = driver.go(Submission::connect(fd, address));
        assert!(driver.settle().is_empty(), "it hangs");
        if closed {
            driver.close(fd);
        } else {
            assert!(driver.cancel(key.id()));
        }
        assert_eq!(errno(driver.end(key)), pelton_driver::errno::ECANCELED);
    }
}

fn a_connect_under_way_goes_with_its_driver(on: &Bench) {
    let driver = on.driver();
    let address = hanging(&driver);
    let fd = driver.socket(address);
    let _key = driver.go(Submission::connect(fd, address));
    assert!(driver.settle().is_empty(), "it hangs");
    let left = driver.abandon_all();
    assert_eq!((left.leaked, left.in_flight_total()), (0, 0));
}

fn a_flood_passes_a_small_queue(on: &Bench) {
    const COUNT: usize = 60;
    let driver = on.driver_with(Config { ring_entries: 4, completion_entries: 8, ..small() });
    let (listener, address) = driver.listening();
    let accept = RefCell::new(Some(driver.go(Submission::accept_multi(listener))));
    let connects: Vec<_> = (0..COUNT)
        .map(|_| driver.go(Submission::connect(driver.socket(address), address)))
        .collect();
    let mut servers = 0;
    driver.until(|| {
        take_accepted(&driver, &mut accept.borrow_mut(), listener, |_| servers += 1);
        servers == COUNT
    });
    for connect in connects {
        driver.end(connect).unwrap();
    }
    driver.abandon(accept.into_inner().unwrap());
}

fn every_address_of_ipv6_is_reached_by_ipv4(on: &Bench) {
    let driver = on.driver();
    let all = "[::]:0".parse().unwrap();
    let listener = match driver.listen(all, ListenOptions::default()) {
        Ok(listener) => driver.keep(listener),
        // A system without IPv6.
        Err(error) if error.raw_os_error() == Some(pelton_driver::errno::EAFNOSUPPORT) => return,
        Err(error) => panic!("{error}"),
    };
    let port = driver.local_addr(listener).unwrap().port();
    let client = driver.connected(SocketAddr::from(([127, 0, 0, 1], port)));
    let accepted = driver.accepted(listener);
    let from = accepted.peer.unwrap();
    assert_eq!(from.port(), driver.local_addr(client).unwrap().port());
    let _server = driver.adopt(accepted);
}

fn an_address_that_cannot_be_told_is_an_error(on: &Bench) {
    let driver = on.driver();
    // Not an IP address, where there are such pairs.
    let (one, _other) = driver.local_pair();
    if on.backend() != Backend::Iocp {
        assert_eq!(driver.local_addr(one).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
    // A peer that has reset the connection has no address any more.
    let (client, server) = driver.pair();
    driver.set_linger(client, Some(std::time::Duration::ZERO)).unwrap();
    driver.run(Submission::close(client)).unwrap();
    assert_eq!(
        errno(driver.run(Submission::recv(server, [0; 8])).0),
        pelton_driver::errno::ECONNRESET
    );
    assert_eq!(driver.peer_addr(server).unwrap_err().kind(), io::ErrorKind::NotConnected);
    // Nothing there at all.
    driver.run(Submission::close(server)).unwrap();
    assert_eq!(errno(driver.local_addr(server)), pelton_driver::errno::EBADF);
    assert_eq!(errno(driver.peer_addr(server)), pelton_driver::errno::EBADF);
}
