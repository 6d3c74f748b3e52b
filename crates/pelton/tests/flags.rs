//! Flags of sockets: none survives an `exec`, and they block only where the backend wants that.
#![cfg(target_os = "linux")]

mod common;

use std::process::Command;

use common::{inside_each_backend, on_each_backend};
use pelton::net::{ListenOptions, TcpListener, TcpStream};
use pelton::{Backend, Handle};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd};

/// Whether a socket blocks. It must not survive an `exec`.
fn blocks(socket: &socket2::SockRef<'_>) -> std::io::Result<bool> {
    assert!(fcntl_getfd(&**socket)?.contains(FdFlags::CLOEXEC), "it survives an exec");
    Ok(!fcntl_getfl(&**socket)?.contains(OFlags::NONBLOCK))
}

#[test]
fn sockets_do_not_survive_an_exec_and_block_where_the_backend_wants_that_alone() {
    inside_each_backend(|backend| async move {
        let shared = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let inherited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind_with("127.0.0.1:0", shared).await.unwrap(),
            TcpListener::bind_now("127.0.0.1:0".parse().unwrap(), shared).unwrap(),
            TcpListener::from_std(inherited).unwrap(),
        ];
        let mut streams = Vec::new();
        for listener in &listeners {
            let address = listener.local_addr().unwrap();
            let client = pelton::spawn(TcpStream::connect(address));
            streams.push(listener.accept().await.unwrap().0);
            streams.push(client.await.unwrap().unwrap());
            let client = std::net::TcpStream::connect(address).unwrap();
            streams.push(listener.accept_stream().await.unwrap());
            streams.push(TcpStream::from_std(client).unwrap());
        }
        let all = listeners.iter().map(|listener| listener.with_socket(|it| blocks(&it)));
        let all = all.chain(streams.iter().map(|stream| stream.with_socket(|it| blocks(&it))));
        let all: Vec<bool> = all.map(Result::unwrap).collect();
        assert_eq!(all.len(), 20);
        // The ring waits for a socket that blocks by itself; one that does not it gives up at once.
        let wanted = Handle::current().backend() == Backend::IoUring;
        assert!(all.iter().all(|blocks| *blocks == wanted), "on {backend}: {all:?}");
    });
}

#[test]
fn a_child_process_gets_no_descriptor_of_a_reactor() {
    on_each_backend(|backend| {
        let list = || {
            let output = Command::new("ls").arg("-l").arg("/proc/self/fd").output().unwrap();
            assert!(output.status.success());
            let listed = String::from_utf8(output.stdout).unwrap();
            // Without the names of its own pipes and its own directory, which differ each time.
            listed.lines().filter(|line| line.contains(" -> ")).count()
        };
        let before = list();
        common::runtime(backend).block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = pelton::spawn(TcpStream::connect(listener.local_addr().unwrap()));
            let _server = listener.accept().await.unwrap();
            let _client = client.await.unwrap().unwrap();
            let _file = pelton::fs::File::open("/proc/self/exe").await.unwrap();
            assert_eq!(list(), before, "on {backend}");
        });
    });
}
