//! Unix sockets: between processes of one host, by path and by name.
#![cfg(unix)]

mod common;

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use common::inside_each_backend;
use pelton::io::{AsyncRead, AsyncWrite, PollStream, Spare};
use pelton::net::{UnixAddr, UnixListener, UnixStream};

/// A path of this test's own, which is gone with it.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pelton-unix-{}-{number}", std::process::id());
        Place(std::env::temp_dir().join(name))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_client_connects_by_path_and_both_talk() {
    inside_each_backend(|_| async {
        let place = Place::new();
        let listener = UnixListener::bind(&place.0).unwrap();
        assert_eq!(listener.local_addr().unwrap().as_path(), Some(&*place.0));
        let client = UnixStream::connect(&place.0).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        assert!(peer.is_unnamed() && client.local_addr().unwrap().is_unnamed());
        assert_eq!(client.peer_addr().unwrap().as_path(), Some(&*place.0));
        assert_eq!(server.local_addr().unwrap().as_path(), Some(&*place.0));

        client.write_all("there").await.0.unwrap();
        assert_eq!(&*server.recv().await.unwrap().unwrap(), b"there");
        let (n, bytes) = {
            server.write_vectored_all(vec!["and ", "back"]).await.0.unwrap();
            client.read(Vec::with_capacity(16)).await
        };
        assert_eq!((n.unwrap(), &*bytes), (8, &b"and back"[..]));
        client.shutdown(std::net::Shutdown::Write).await.unwrap();
        assert!(server.recv().await.unwrap().is_none(), "the end of the stream");
        drop(client);
        let broken = loop {
            // The close is under way.
            match server.write_all(vec![0; 64]).await.0 {
                Err(error) => break error,
                Ok(()) => pelton::yield_now().await,
            }
        };
        assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn more_than_a_socket_holds_goes_through_whole_in_halves_and_in_poll_form() {
    inside_each_backend(|_| async {
        let (one, other) = UnixStream::pair().unwrap();
        let all: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = all.clone();
        let (read, mut write) = one.into_split();
        let sender = pelton::spawn(async move {
            write.write_all(all).await.0.unwrap();
            write
        });
        let mut other = PollStream::new(other);
        let mut got = Vec::new();
        while got.len() < expected.len() {
            got.extend_from_slice(&poll_fn(|cx| other.poll_recv(cx)).await.unwrap().unwrap());
        }
        assert!(got == expected);
        let write = sender.await.unwrap();
        poll_fn(|cx| other.poll_write(cx, b"done")).await.unwrap();
        let one: UnixStream = read.reunite(write).unwrap();
        assert_eq!(&*one.recv().await.unwrap().unwrap(), b"done");
        let (other, left) = other.into_inner().await.unwrap();
        assert!(left.is_none());
        drop(one);
        let mut end = [0; 1];
        let mut other = PollStream::new(other);
        let ended = poll_fn(|cx| other.poll_read(cx, Spare::from(&mut end[..]))).await;
        assert_eq!(ended.unwrap(), 0);
    });
}

#[test]
fn paths_that_cannot_be_are_refused_and_taken_ones_too() {
    inside_each_backend(|_| async {
        let place = Place::new();
        let missing = UnixStream::connect(&place.0).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(&place.0).unwrap();
        let taken = UnixListener::bind(&place.0).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let refused = loop {
            // The close is under way.
            match UnixStream::connect(&place.0).await {
                Err(error) => break error,
                Ok(_) => pelton::yield_now().await,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        // The longest path works, and one byte more says how long it may be.
        let folder = Place::new();
        std::fs::create_dir(&folder.0).unwrap();
        let room = UnixAddr::LONGEST_PATH - folder.0.as_os_str().len() - 1;
        let longest = folder.0.join("p".repeat(room));
        let listener = UnixListener::bind(&longest).unwrap();
        let _client = UnixStream::connect(&longest).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().as_path(), Some(&*longest));
        let longer = folder.0.join("p".repeat(room + 1));
        for error in [
            UnixListener::bind(&longer).unwrap_err(),
            UnixStream::connect(&longer).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&UnixAddr::LONGEST_PATH.to_string()), "{error}");
        }
        drop(listener);
        std::fs::remove_dir_all(&folder.0).unwrap();
        let unnamed = UnixListener::bind_addr(&UnixAddr::default()).unwrap_err();
        assert_eq!(unnamed.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn an_abstract_name_ends_with_its_listener() {
    inside_each_backend(|backend| async move {
        let name = format!("pelton-{}-{backend}\0with a zero", std::process::id());
        let address = UnixAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        let client = UnixStream::connect_addr(&address).await.unwrap();
        assert_eq!(client.peer_addr().unwrap(), address);
        drop((listener, client));
        while UnixListener::bind_addr(&address).is_err() {
            // The close is under way.
            pelton::yield_now().await;
        }
    });
}

#[test]
// Others refuse a connection that there is no room for.
#[cfg(target_os = "linux")]
fn a_connect_waits_for_room_at_the_listener_and_can_be_given_up() {
    use socket2::{Domain, SockAddr, Socket, Type};
    use std::task::Poll;
    inside_each_backend(|_| async {
        let place = Place::new();
        let address = UnixAddr::from_path(&place.0).unwrap();
        let listener = UnixListener::bind_with(&address, 1).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            match client.connect(&SockAddr::unix(&place.0).unwrap()) {
                Ok(()) => waiting.push(client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(!waiting.is_empty(), "there was room to begin with");
        let mut last = Box::pin(UnixStream::connect(&place.0));
        assert!(poll_fn(|cx| Poll::Ready(last.as_mut().poll(cx))).await.is_pending());
        // One that is given up is none.
        let mut given_up = Box::pin(UnixStream::connect(&place.0));
        assert!(poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx))).await.is_pending());
        drop(given_up);
        let accepted = listener.accept().await.unwrap();
        let connected = last.await.unwrap();
        connected.write_all("made it").await.0.unwrap();
        // Those that connected first, and perhaps the one that was given up: it may have been faster than its cancel.
        drop(waiting);
        loop {
            let (server, _) = listener.accept().await.unwrap();
            if let Some(lease) = server.recv().await.unwrap() {
                assert_eq!(&*lease, b"made it");
                break;
            }
        }
        drop(accepted);
    });
}

#[test]
fn connections_of_std_are_taken_over() {
    inside_each_backend(|_| async {
        let place = Place::new();
        let listener = std::os::unix::net::UnixListener::bind(&place.0).unwrap();
        let listener = UnixListener::from_std(listener).unwrap();
        let client = std::os::unix::net::UnixStream::connect(&place.0).unwrap();
        let client = UnixStream::from_std(client).unwrap();
        let (server, _) = listener.accept().await.unwrap();
        server.send_all("hi").await.unwrap();
        assert_eq!(&*client.recv().await.unwrap().unwrap(), b"hi");
    });
}
