//! Sockets and files that the driver makes itself: the same on the system's backends and, with the feature
//! `sim`, on a simulated system.

mod common;

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use common::*;
use pelton_driver::*;

/// [`on_every_backend`], and the simulated one.
macro_rules! on_every_system {
    ($($name:ident)+) => {
        on_every_backend! { $($name)+ }
        #[cfg(feature = "sim")]
        mod sim {
            $(#[test] fn $name() { $crate::common::run(pelton_driver::Backend::Sim, super::$name) })+
        }
    };
}

on_every_system! {
    a_socket_connects_to_a_listener_and_bytes_go_both_ways
    an_address_that_is_taken_is_refused_unless_it_is_shared
    an_address_of_nobody_here_is_refused
    the_ends_of_a_pair_are_connected_to_each_other_alone
    datagrams_go_to_where_a_socket_is_connected
    options_are_what_was_said_last
    a_close_that_must_not_linger_resets_the_connection
    a_shutdown_on_the_spot_ends_the_stream_for_the_peer
    what_is_closed_is_no_descriptor_for_any_call
    a_full_table_refuses_a_socket_and_keeps_none
    a_file_is_opened_as_the_options_say
    the_clock_is_the_one_that_timers_fire_by
}

#[cfg(unix)]
mod of_the_system {
    use super::*;
    on_every_backend! { sockets_neither_block_where_they_must_not_nor_survive_an_exec }
}

const ANY: &str = "127.0.0.1:0";

fn any() -> SocketAddr {
    ANY.parse().unwrap()
}

/// Both ends of a connection over TCP, the client's first.
fn connected(driver: &Driver) -> (Fd, Fd) {
    connected_on(driver, any()).unwrap()
}

fn connected_on(driver: &Driver, address: SocketAddr) -> io::Result<(Fd, Fd)> {
    let listener = driver.listen(address, ListenOptions::default())?;
    let address = driver.local_addr(listener)?;
    let client = driver.stream_socket(address)?;
    let accept = driver.go(Submission::accept(listener));
    driver.run(Submission::connect(client, address))?;
    let server = driver.attach_stream(driver.end(accept)?.descriptor)?;
    driver.close(listener);
    Ok((client, server))
}

fn a_socket_connects_to_a_listener_and_bytes_go_both_ways(on: &On) {
    let driver = on.driver();
    for address in [ANY, "[::1]:0"] {
        let address: SocketAddr = address.parse().unwrap();
        let (client, server) = match connected_on(&driver, address) {
            Ok(both) => both,
            Err(error) if address.is_ipv6() => {
                skipped(&format!("no {address} here: {error}"));
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(driver.peer_addr(server).unwrap(), driver.local_addr(client).unwrap());
        assert_eq!(driver.peer_addr(client).unwrap(), driver.local_addr(server).unwrap());
        assert_eq!(driver.local_addr(client).unwrap().ip(), address.ip());
        for (from, to) in [(client, server), (server, client)] {
            let recv = driver.go(Submission::recv(to, Vec::with_capacity(16)));
            driver.run(Submission::send_all(from, "hello")).0.unwrap();
            let (n, buf) = driver.end(recv);
            assert_eq!((n.unwrap(), &buf[..]), (5, &b"hello"[..]));
        }
        driver.close(client);
        assert_eq!(driver.run(Submission::recv(server, [0; 16])).0.unwrap(), 0, "the end");
    }
}

fn an_address_that_is_taken_is_refused_unless_it_is_shared(on: &On) {
    let driver = on.driver();
    let alone = driver.listen(any(), ListenOptions::default()).unwrap();
    let address = driver.local_addr(alone).unwrap();
    assert_ne!(address.port(), 0, "the system chooses");
    let error = driver.listen(address, ListenOptions::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);

    let shared = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    let one = driver.listen(any(), shared).unwrap();
    let other = driver.listen(driver.local_addr(one).unwrap(), shared).unwrap();
    assert_eq!(driver.local_addr(one).unwrap(), driver.local_addr(other).unwrap());
}

fn an_address_of_nobody_here_is_refused(on: &On) {
    let driver = on.driver();
    // For documentation (RFC 5737): nobody has it.
    let error = driver.listen("192.0.2.1:0".parse().unwrap(), ListenOptions::default());
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    let error = driver.datagram_socket("192.0.2.1:0".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    assert_eq!(driver.descriptors(), 0, "what was refused is closed");
}

fn the_ends_of_a_pair_are_connected_to_each_other_alone(on: &On) {
    let driver = on.driver();
    let (one, other) = driver.stream_pair().unwrap();
    for (from, to) in [(one, other), (other, one)] {
        driver.run(Submission::send_all(from, "hello")).0.unwrap();
        let lease = driver.run(Submission::recv_pooled(to)).unwrap();
        assert_eq!(&lease.expect("not the end")[..], b"hello");
    }
    driver.run(Submission::close(one)).unwrap();
    assert!(driver.run(Submission::recv_pooled(other)).unwrap().is_none(), "the end");
}

fn datagrams_go_to_where_a_socket_is_connected(on: &On) {
    let driver = on.driver();
    let (one, other) =
        (driver.datagram_socket(any()).unwrap(), driver.datagram_socket(any()).unwrap());
    let (here, there) = (driver.local_addr(one).unwrap(), driver.local_addr(other).unwrap());
    driver.run(Submission::connect(one, there)).unwrap();
    driver.run(Submission::connect(other, here)).unwrap();
    assert_eq!(driver.peer_addr(one).unwrap(), there);
    for text in ["first", "second"] {
        let recv = driver.go(Submission::recv(other, Vec::with_capacity(16)));
        assert_eq!(driver.run(Submission::send(one, text)).0.unwrap(), text.len());
        let (n, buf) = driver.end(recv);
        assert_eq!((n.unwrap(), &buf[..]), (text.len(), text.as_bytes()));
    }
}

fn options_are_what_was_said_last(on: &On) {
    let driver = on.driver();
    let (client, _server) = connected(&driver);
    for nodelay in [true, false, true] {
        driver.set_nodelay(client, nodelay).unwrap();
        assert_eq!(driver.nodelay(client).unwrap(), nodelay);
    }
    for ttl in [1, 255, 7] {
        driver.set_ttl(client, ttl).unwrap();
        assert_eq!(driver.ttl(client).unwrap(), ttl);
    }
    for linger in [Some(Duration::from_secs(3)), None, Some(Duration::ZERO)] {
        driver.set_linger(client, linger).unwrap();
        assert_eq!(driver.linger(client).unwrap(), linger);
    }
}

fn a_close_that_must_not_linger_resets_the_connection(on: &On) {
    let driver = on.driver();
    let (client, server) = connected(&driver);
    driver.set_linger(client, Some(Duration::ZERO)).unwrap();
    driver.run(Submission::close(client)).unwrap();
    let error = driver.run(Submission::recv(server, [0; 16])).0.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

fn a_shutdown_on_the_spot_ends_the_stream_for_the_peer(on: &On) {
    let driver = on.driver();
    let (client, server) = connected(&driver);
    driver.shutdown(client, Shutdown::Write).unwrap();
    assert_eq!(driver.run(Submission::recv(server, [0; 16])).0.unwrap(), 0, "the end");
    // The other direction goes on.
    driver.run(Submission::send_all(server, "hello")).0.unwrap();
    assert_eq!(driver.run(Submission::recv(client, [0; 16])).0.unwrap(), 5);
    let nobody = driver.stream_socket(any()).unwrap();
    let error = driver.shutdown(nobody, Shutdown::Write).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
}

fn what_is_closed_is_no_descriptor_for_any_call(on: &On) {
    let driver = on.driver();
    let (fd, _other) = driver.stream_pair().unwrap();
    driver.close(fd);
    let results = [
        driver.local_addr(fd).map(drop),
        driver.peer_addr(fd).map(drop),
        driver.set_nodelay(fd, true),
        driver.nodelay(fd).map(drop),
        driver.set_ttl(fd, 1),
        driver.ttl(fd).map(drop),
        driver.set_linger(fd, None),
        driver.linger(fd).map(drop),
        driver.shutdown(fd, Shutdown::Both),
        driver.with_descriptor(fd, |_| ()),
    ];
    for (number, result) in results.into_iter().enumerate() {
        assert_eq!(errno(result), errno::EBADF, "call {number}");
    }
}

fn a_full_table_refuses_a_socket_and_keeps_none(on: &On) {
    let driver = on.driver_with(Config { max_descriptors: 256, ..small() });
    let full = |error: io::Error| assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    for _ in 0..255 {
        driver.stream_socket(any()).unwrap();
    }
    full(driver.stream_pair().unwrap_err());
    // Its first end is given up again, with the next tick at the latest.
    driver.until(|| driver.descriptors() == 255);
    let last = driver.listen(any(), ListenOptions::default()).unwrap();
    full(driver.stream_socket(any()).unwrap_err());
    full(driver.datagram_socket(any()).unwrap_err());
    full(driver.listen(any(), ListenOptions::default()).unwrap_err());
    driver.run(Submission::close(last)).unwrap();
    driver.datagram_socket(any()).unwrap();
}

fn a_file_is_opened_as_the_options_say(on: &On) {
    let driver = on.driver();
    let path = std::env::temp_dir().join(format!(
        "pelton-sockets-api-{}-{}",
        std::process::id(),
        on.backend
    ));
    let open = |options: &mut OpenOptions| options.open(&path);
    let missing = open(OpenOptions::new().read(true)).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);

    let fresh = open(OpenOptions::new().read(true).write(true).create_new(true)).unwrap();
    assert_eq!(fresh.is_simulated(), driver.is_simulated());
    let file = attach(&driver, fresh);
    assert_eq!(driver.run(Submission::write_at(file, "hello", 0)).0.unwrap(), 5);
    driver.run(Submission::sync(file, false)).unwrap();
    driver.run(Submission::close(file)).unwrap();
    let there = open(OpenOptions::new().write(true).create_new(true)).unwrap_err();
    assert_eq!(there.kind(), io::ErrorKind::AlreadyExists);

    let file = attach(&driver, open(OpenOptions::new().read(true)).unwrap());
    let (n, buf) = driver.run(Submission::read_at(file, Vec::with_capacity(16), 0));
    assert_eq!((n.unwrap(), &buf[..]), (5, &b"hello"[..]));
    assert_eq!(errno(driver.run(Submission::write_at(file, "x", 0)).0), errno::EBADF);
    let emptied = open(OpenOptions::new().write(true).create(true).truncate(true)).unwrap();
    assert_eq!(driver.run(Submission::read_at(file, [0; 16], 0)).0.unwrap(), 0);
    drop(emptied);
    if !driver.is_simulated() {
        std::fs::remove_file(path).unwrap();
    }
}

fn the_clock_is_the_one_that_timers_fire_by(on: &On) {
    let driver = on.driver();
    assert!(driver.now() >= driver.start_time());
    let due = driver.now() + Duration::from_millis(1);
    driver.run(Submission::timeout(due)).unwrap();
    assert!(driver.now() >= due);
    assert!(system::now() >= due, "this thread's clock is the driver's");
    assert_eq!(
        driver.is_simulated(),
        !matches!(on.backend, Backend::IoUring | Backend::Epoll | Backend::Kqueue | Backend::Iocp)
    );
}

#[cfg(unix)]
fn sockets_neither_block_where_they_must_not_nor_survive_an_exec(on: &On) {
    let driver = on.driver();
    let (one, other) = driver.stream_pair().unwrap();
    let all = [
        one,
        other,
        driver.stream_socket(any()).unwrap(),
        driver.datagram_socket(any()).unwrap(),
        driver.listen(any(), ListenOptions::default()).unwrap(),
    ];
    for fd in all {
        let flags = driver.with_descriptor(fd, |fd| {
            (rustix::io::fcntl_getfd(fd).unwrap(), rustix::fs::fcntl_getfl(fd).unwrap())
        });
        let (flags, state) = flags.unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let nonblocking = state.contains(rustix::fs::OFlags::NONBLOCK);
        assert_eq!(nonblocking, driver.wants_nonblocking());
    }
}

#[cfg(feature = "sim")]
#[test]
fn a_simulated_descriptor_is_none_of_the_systems() {
    let driver = Driver::new(Config { backend: Backend::Sim, ..small() }).unwrap();
    assert_eq!((driver.backend(), driver.is_simulated()), (Backend::Sim, true));
    let (one, _other) = driver.stream_pair().unwrap();
    let error = driver.with_descriptor(one, |_| unreachable!()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    let descriptor = driver.detach(one).unwrap();
    assert!(descriptor.is_simulated());
    let back = std::os::fd::OwnedFd::try_from(descriptor).unwrap_err();
    // It is still what it was.
    let one = driver.attach(back).unwrap();
    driver.run(Submission::send_all(one, "hello")).0.unwrap();
}

#[cfg(feature = "sim")]
#[test]
fn a_backend_that_is_forced_in_a_world_runs_on_the_simulated_system() {
    let first = Driver::new(Config { backend: Backend::Sim, ..small() }).unwrap();
    for backend in [Backend::IoUring, Backend::Epoll, Backend::Auto] {
        let driver = Driver::new(Config { backend, ..small() }).unwrap();
        assert_eq!(driver.backend(), Backend::Sim, "{backend} was asked for");
        assert!(driver.stream_pair().is_ok());
        if backend != Backend::Auto {
            assert_eq!(driver.wants_nonblocking(), backend == Backend::Epoll);
        }
    }
    drop(first);
}
