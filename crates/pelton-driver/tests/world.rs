//! What a simulated system answers, asked by drivers on it: where it must do as a real one does.
#![cfg(feature = "sim")]

mod common;

use std::time::Duration;

use common::{More, small};
use pelton_driver::sim::{Fault, Faults, World, WorldOptions};
use pelton_driver::{
    Backend, Config, Driver, Error, Fd, Filling, Key, ListenOptions, OpenOptions, Submission,
};

const BOTH: [Backend; 2] = [Backend::IoUring, Backend::Epoll];
const ALWAYS: u32 = 1_000_000;

fn world(seed: u64, faults: Faults) -> World {
    World::new(&WorldOptions { faults, ..WorldOptions::new(seed) })
}

fn driver(backend: Backend) -> Driver {
    Driver::new(Config { backend, ..small() }).unwrap()
}

/// The two ends of a connection, the connecting one first.
fn pair(driver: &Driver) -> (Fd, Fd) {
    let listener = driver.listen("127.0.0.1:0".parse().unwrap(), ListenOptions::default()).unwrap();
    let address = driver.local_addr(listener).unwrap();
    let client = driver.stream_socket(address).unwrap();
    driver.run(Submission::connect(client, address)).unwrap();
    let server = driver.run(Submission::accept(listener)).unwrap().descriptor;
    driver.close(listener);
    (client, driver.attach_stream(server).unwrap())
}

fn receive(driver: &Driver, fd: Fd) -> Key<Filling<Vec<u8>>> {
    driver.go(Submission::recv(fd, Vec::with_capacity(16)))
}

#[test]
fn what_spills_while_a_wait_looks_ends_the_wait() {
    let world = world(12, Faults::none().with(Fault::Overflow, ALWAYS));
    let _entered = world.enter();
    let driver = driver(Backend::IoUring);
    let (one, other) = driver.stream_pair().unwrap();
    let mut key = receive(&driver, other);
    driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
    let begun = world.now();
    driver.run(Submission::send_all(one, "x")).0.unwrap();
    loop {
        key = match driver.take(key) {
            Ok((received, _)) => break assert_eq!(received.unwrap(), 1),
            Err(key) => key,
        };
        driver.tick(Some(Duration::from_secs(60)), |_| {}).unwrap();
    }
    assert!(world.now() - begun < Duration::from_secs(1), "it slept over it");
    assert!(driver.counters().snapshot().cq_overflows > 0, "nothing spilled");
}

#[test]
fn a_cancel_that_does_not_find_its_operation_is_made_again() {
    for seed in 0..20 {
        let world = world(seed, Faults::none().with(Fault::CancelMissed, ALWAYS * 3 / 4));
        let _entered = world.enter();
        let driver = driver(Backend::IoUring);
        let (one, other) = driver.stream_pair().unwrap();
        // Nobody ever sends, so that nothing but a cancel ends them.
        let keys: Vec<_> = (0..8).map(|_| receive(&driver, one)).collect();
        driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        // One by one, or all that are in flight there, by a close.
        if seed % 2 == 0 {
            for key in &keys {
                assert!(driver.cancel(key.id()));
            }
        } else {
            driver.close(one);
        }
        for key in keys {
            let error = driver.end(key).0.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        }
        assert!(format!("{:?}", world.decisions()).contains("cancel-missed"), "none was missed");
        driver.close(one);
        driver.close(other);
        drop(driver);
        assert_eq!(world.leftovers(), [""; 0]);
    }
}

#[test]
fn a_connection_that_loses_its_way_fails_with_what_routers_say() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..8 {
        for backend in BOTH {
            let world = world(seed, Faults::none().with(Fault::WayLost, ALWAYS));
            let _entered = world.enter();
            let driver = driver(backend);
            let (client, server) = pair(&driver);
            let (one, other) = (receive(&driver, client), receive(&driver, server));
            driver.run(Submission::send_all(client, "x")).0.unwrap();
            for ended in [driver.end(one), driver.end(other)] {
                let error = ended.0.unwrap_err().raw_os_error().unwrap();
                assert!([libc::EHOSTUNREACH, libc::ENETUNREACH].contains(&error), "{error}");
                seen.insert(error);
            }
            assert!(world.now() > Duration::from_secs(10), "TCP hopes for a while");
            driver.close(client);
            driver.close(server);
            drop(driver);
            assert_eq!(world.leftovers(), [""; 0]);
        }
    }
    assert_eq!(seen.len(), 2, "of the two errors");
}

#[test]
fn a_driver_that_is_refused_its_descriptors_says_what_helps_and_leaves_nothing() {
    for backend in [Backend::IoUring, Backend::Epoll, Backend::Auto] {
        let (mut refused, mut made) = (0, 0);
        for seed in 0..40 {
            // Half of them: the first may be given, and the second refused.
            let world = world(seed, Faults::none().with(Fault::NoDriver, ALWAYS / 2));
            let _entered = world.enter();
            for _ in 0..40 {
                let error = match Driver::new(Config { backend, ..small() }) {
                    Ok(driver) => {
                        drop(driver);
                        made += 1;
                        break;
                    }
                    Err(error) => error,
                };
                refused += 1;
                assert_eq!(world.leftovers(), [""; 0], "{error}");
                let forced = backend == Backend::IoUring;
                assert!(
                    matches!(error, Error::Os { .. })
                        || (forced && matches!(error, Error::Unsupported { .. })),
                    "{error:?}"
                );
                assert!(error.to_string().contains("try again"), "{error}");
            }
            // And again, when there are some.
            world.set_faults(false);
            drop(driver(backend));
            assert_eq!(world.leftovers(), [""; 0]);
        }
        assert!(refused > 10 && made > 10, "{refused} refused, {made} made");
    }
}

#[test]
fn an_address_is_taken_by_itself_and_by_what_covers_it() {
    let listen = |driver: &Driver, address: &str, reuse_port: bool| {
        let options = ListenOptions { reuse_port, ..ListenOptions::default() };
        driver.listen(address.parse().unwrap(), options).map_err(|error| error.raw_os_error())
    };
    let taken = Some(libc::EADDRINUSE);
    for backend in BOTH {
        let world = world(1, Faults::none());
        let _entered = world.enter();
        let driver = driver(backend);
        listen(&driver, "127.0.0.1:7000", false).unwrap();
        assert_eq!(listen(&driver, "127.0.0.1:7000", false).unwrap_err(), taken);
        assert_eq!(listen(&driver, "0.0.0.0:7000", false).unwrap_err(), taken);
        assert_eq!(listen(&driver, "[::]:7000", false).unwrap_err(), taken);
        listen(&driver, "127.0.0.2:7000", false).unwrap();
        listen(&driver, "[::1]:7000", false).unwrap();
        listen(&driver, "0.0.0.0:7001", false).unwrap();
        assert_eq!(listen(&driver, "127.0.0.3:7001", false).unwrap_err(), taken);
        listen(&driver, "[::1]:7001", false).unwrap();
        // Only where both have said so.
        listen(&driver, "127.0.0.1:7002", true).unwrap();
        listen(&driver, "127.0.0.1:7002", true).unwrap();
        assert_eq!(listen(&driver, "127.0.0.1:7002", false).unwrap_err(), taken);
        // Another host has addresses of its own.
        let other = world.add_host("other", [10, 0, 0, 9].into());
        world.on_host(other, || {
            let driver = Driver::new(Config { backend, ..small() }).unwrap();
            listen(&driver, "127.0.0.1:7000", false).unwrap();
        });
    }
}

#[test]
fn a_file_takes_the_memory_of_what_was_written_and_ends_where_a_real_one_does() {
    const LONGEST: u64 = (1 << 44) - 4096;
    for backend in BOTH {
        let world = world(1, Faults::none());
        let _entered = world.enter();
        let driver = driver(backend);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).open("/large").unwrap();
        let file = driver.attach(file).unwrap();
        let write = |at: u64, bytes: Vec<u8>| driver.run(Submission::write_at(file, bytes, at)).0;
        assert_eq!(write(LONGEST - 3, b"abc".to_vec()).unwrap(), 3);
        assert_eq!(write(LONGEST - 2, b"xyz".to_vec()).unwrap(), 2, "up to the limit");
        for at in [LONGEST, LONGEST + 1] {
            assert_eq!(write(at, b"x".to_vec()).unwrap_err().raw_os_error(), Some(libc::EFBIG));
        }
        let room = Vec::with_capacity(16);
        let (n, bytes) = driver.run(Submission::read_at(file, room, LONGEST - 5));
        assert_eq!((n.unwrap(), &bytes[..]), (5, &b"\0\0axy"[..]));
    }
}

#[test]
fn an_end_that_reads_no_more_is_sent_to_no_more_on_a_pair_and_drained_on_a_network() {
    for backend in BOTH {
        let world = world(1, Faults::none());
        let _entered = world.enter();
        let driver = driver(backend);
        let shut = |fd| driver.run(Submission::shutdown(fd, std::net::Shutdown::Read)).unwrap();
        let (one, other) = driver.stream_pair().unwrap();
        driver.run(Submission::send_all(one, "before")).0.unwrap();
        shut(other);
        let error = driver.run(Submission::send_all(one, "after")).0.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
        let received = |fd| driver.run(Submission::recv(fd, Vec::with_capacity(16))).1;
        assert_eq!(received(other), b"before");
        assert_eq!(received(other), b"", "the end");
        // The other direction goes on.
        driver.run(Submission::send_all(other, "back")).0.unwrap();
        assert_eq!(received(one), b"back");

        let (client, server) = pair(&driver);
        shut(server);
        assert_eq!(received(server), b"", "nothing is there");
        driver.run(Submission::send_all(client, "late")).0.unwrap();
        let timer = Submission::timeout(driver.now() + Duration::from_millis(10));
        driver.run(timer).unwrap();
        assert_eq!(received(server), b"late");
        assert_eq!(received(server), b"");
    }
}

#[test]
fn a_socket_call_that_the_system_refuses_is_an_error_on_every_path() {
    let refused = Some(libc::ENOBUFS);
    for backend in BOTH {
        let world = world(1, Faults::none().with(Fault::SocketCall, ALWAYS));
        let _entered = world.enter();
        world.set_faults(false);
        let driver = driver(backend);
        let any = "127.0.0.1:0".parse().unwrap();
        let (client, server) = pair(&driver);
        let datagrams = driver.datagram_socket(any).unwrap();

        world.set_faults(true);
        let listen = |options| driver.listen(any, options).unwrap_err().raw_os_error();
        assert_eq!(listen(ListenOptions::default()), refused);
        assert_eq!(listen(ListenOptions { reuse_port: true, ..Default::default() }), refused);
        for fd in [client, server] {
            assert_eq!(driver.set_nodelay(fd, true).unwrap_err().raw_os_error(), refused);
            assert_eq!(driver.set_ttl(fd, 3).unwrap_err().raw_os_error(), refused);
            let linger = Some(Duration::ZERO);
            assert_eq!(driver.set_linger(fd, linger).unwrap_err().raw_os_error(), refused);
            assert_eq!(driver.peer_addr(fd).unwrap_err().raw_os_error(), refused);
        }
        for fd in [client, server, datagrams] {
            assert_eq!(driver.local_addr(fd).unwrap_err().raw_os_error(), refused);
        }

        // What was refused has changed nothing, and left nothing.
        world.set_faults(false);
        assert_eq!(driver.ttl(client).unwrap(), 64);
        assert!(driver.linger(client).unwrap().is_none());
        driver.run(Submission::send_all(client, "x")).0.unwrap();
        assert_eq!(driver.run(Submission::recv(server, Vec::with_capacity(16))).1, b"x");
        for fd in [client, server, datagrams] {
            driver.close(fd);
        }
        drop(driver);
        assert_eq!(world.leftovers(), [""; 0]);
    }
}
