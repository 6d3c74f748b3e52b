//! Unix sockets by path, on the driver and on the runtime.

use std::io;

use pelton::net::{UnixAddr, UnixListener, UnixStream};
use pelton_driver::{Backend, Submission};

use crate::Bench;
use crate::registry::behaviours;

behaviours! {
    "a client connects to a path and both ends know it" => a_client_connects_to_a_path
        [Aws "local_socket_communication"];
    "a path that is taken, missing or too long is an error" => bad_paths_are_errors
        [];
    "a connect to a path waits for room at its listener" => a_connect_waits_for_room
        [];
    "what is in flight on a Unix socket is dropped with it" => what_is_in_flight_is_dropped
        [];
}

/// Older versions of Windows have no Unix sockets, and say so.
fn served(on: &Bench) -> bool {
    if on.backend() != Backend::Iocp || on.driver().unix_socket().is_ok() {
        return true;
    }
    let address = UnixAddr::from_path("unused").unwrap();
    let driver = on.driver();
    for refused in [driver.unix_socket(), driver.unix_listen(&address, 1)] {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
    false
}

fn address(on: &Bench, name: &str) -> UnixAddr {
    UnixAddr::from_path(on.path(name)).unwrap()
}

fn a_client_connects_to_a_path(on: &Bench) {
    if !served(on) {
        return;
    }
    let driver = on.driver();
    let address = address(on, "s");
    let listener = driver.keep(driver.unix_listen(&address, 16).unwrap());
    assert_eq!(driver.unix_local_addr(listener).unwrap(), address);
    let client = driver.keep(driver.unix_socket().unwrap());
    // Before anybody accepts.
    driver.run(Submission::connect_unix(client, address.clone())).unwrap();
    assert_eq!(driver.unix_peer_addr(client).unwrap(), address);
    assert!(driver.unix_local_addr(client).unwrap().is_unnamed());
    let accepted = driver.accepted(listener);
    assert_eq!(accepted.peer, None, "it is no IP address");
    let server = driver.adopt(accepted);
    assert_eq!(driver.unix_local_addr(server).unwrap(), address);
    assert!(driver.unix_peer_addr(server).unwrap().is_unnamed());
    for fd in [listener, client, server] {
        assert_eq!(driver.local_addr(fd).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
    driver.send(client, "there");
    assert_eq!(driver.receive(server, 5), b"there");
    driver.send(server, "and back");
    assert_eq!(driver.receive(client, 8), b"and back");
    driver.run(Submission::close(client)).unwrap();
    driver.at_its_end(server);
}

fn bad_paths_are_errors(on: &Bench) {
    if !served(on) {
        return;
    }
    let driver = on.driver();
    let address = address(on, "s");
    let client = driver.keep(driver.unix_socket().unwrap());
    let missing = driver.run(Submission::connect_unix(client, address.clone()));
    // Windows does not tell a path that is not there from one on which nobody listens.
    let missing = missing.unwrap_err().kind();
    let refused = cfg!(windows) && missing == io::ErrorKind::ConnectionRefused;
    assert!(refused || missing == io::ErrorKind::NotFound, "{missing}");
    driver.keep(driver.unix_listen(&address, 16).unwrap());
    let taken = driver.unix_listen(&address, 16).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    // The one that was refused can still be used.
    driver.run(Submission::connect_unix(client, address.clone())).unwrap();
    let again = driver.run(Submission::connect_unix(client, address));
    assert!(again.is_err(), "it is connected already");

    let long = UnixAddr::from_path("p".repeat(UnixAddr::LONGEST_PATH + 1)).unwrap_err();
    assert_eq!(long.kind(), io::ErrorKind::InvalidInput);
    let unnamed = driver.unix_listen(&UnixAddr::default(), 16).unwrap_err();
    assert_eq!(unnamed.kind(), io::ErrorKind::InvalidInput);
}

fn a_connect_waits_for_room(on: &Bench) {
    // Other systems refuse a connection that there is no room for.
    if !served(on) || !cfg!(target_os = "linux") {
        return;
    }
    let path = on.path("s");
    on.block_on(async {
        let listener = UnixListener::bind_with(&UnixAddr::from_path(&path).unwrap(), 0).unwrap();
        let clients: Vec<_> = (0..5_u8)
            .map(|n| {
                let path = path.clone();
                pelton::spawn(async move {
                    let stream = UnixStream::connect(&path).await.unwrap();
                    stream.write_all([n]).await.0.unwrap();
                    stream.recv().await.unwrap().unwrap()[0]
                })
            })
            .collect();
        // More than there is room for; each is served in its turn.
        let mut seen = Vec::new();
        for _ in 0..5 {
            let (stream, _) = listener.accept().await.unwrap();
            let n = stream.recv().await.unwrap().unwrap()[0];
            seen.push(n);
            stream.write_all([n + 100]).await.0.unwrap();
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        for (n, client) in clients.into_iter().enumerate() {
            assert_eq!(usize::from(client.await.unwrap()), n + 100);
        }
    });
}

fn what_is_in_flight_is_dropped(on: &Bench) {
    if !served(on) {
        return;
    }
    let path = on.path("s");
    on.block_on(async {
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let waits = pelton::spawn(async move { client.recv().await });
        let accepts = pelton::spawn(async move { listener.accept().await });
        pelton::yield_now().await;
        waits.abort();
        accepts.abort();
        assert!(waits.await.is_err() && accepts.await.is_err());
        assert!(server.recv().await.unwrap().is_none(), "the client has gone");
    });
}
