//! The blocking pool, name lookup, and files of the runtime, which use it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use pelton::fs::File;
use pelton::net::{TcpListener, TcpStream};
use pelton::{spawn, spawn_blocking, time};

use crate::registry::behaviours;
use crate::{Bench, pattern};

behaviours! {
    "a call that blocks runs elsewhere and its result comes home" => a_call_that_blocks
        [Aws "socket_handler: pinned_event_loop"];
    "a hundred calls at once all come back" => a_hundred_calls
        [Reseau "stress scheduling"];
    "a panic in such a call goes on in who awaits it" => a_panic_goes_on
        [];
    "nobody who waits for a call keeps the reactor from others" => a_call_keeps_nobody_waiting
        [Reseau "epoll task pre-queue drain"];
    "addresses are looked up as they are written, and nonsense is an error" => addresses_are_looked_up
        [Aws "host_resolver: ipv4/ipv6 literals", Aws "socket_handler: pinned_event_loop_dns_failure"];
    "a name is connected to" => a_name_is_connected_to
        [Aws "tcp_socket_communication"];
    "a file is written and read" => a_file_is_written_and_read
        [Libxev "file IO", Libxev "offset IO"];
    "a file that is not there is an error" => a_file_that_is_not_there
        [Ioxide "SyscallErrnoTests"];
    "tasks read one file at once, each its own part" => tasks_read_one_file
        [Libxev "offset IO"];
    "what is dropped on a file leaves nothing" => what_is_dropped_on_a_file
        [Ioxide "CoreTests: DecRef-then-throw"];
}

fn a_call_that_blocks(on: &Bench) {
    on.block_on(async {
        let local = Rc::new(Cell::new(0));
        for n in 1..=10 {
            let doubled = spawn_blocking(move || n * 2).await.unwrap();
            local.set(local.get() + doubled);
        }
        assert_eq!(local.get(), 110);
    });
}

fn a_hundred_calls(on: &Bench) {
    on.block_on(async {
        let calls: Vec<_> = (0..100_u64).map(|n| spawn_blocking(move || n * n)).collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), (n * n) as u64);
        }
        assert_eq!(pelton::Handle::current().snapshot().blocking_jobs, 100);
    });
}

fn a_panic_goes_on(on: &Bench) {
    on.block_on(async {
        let call = spawn(async {
            let call = || -> u32 { std::panic::resume_unwind(Box::new("on purpose")) };
            spawn_blocking(call).await.unwrap()
        });
        let panic = call.await.unwrap_err().into_panic();
        assert_eq!(*panic.downcast::<&str>().unwrap(), "on purpose");
        assert_eq!(spawn_blocking(|| 1).await.unwrap(), 1, "the pool goes on");
    });
}

fn a_call_keeps_nobody_waiting(on: &Bench) {
    on.block_on(async {
        let slow = spawn(async {
            for _ in 0..20 {
                spawn_blocking(|| ()).await.unwrap();
            }
        });
        for _ in 0..5 {
            time::sleep(Duration::from_micros(100)).await;
        }
        slow.await.unwrap();
        // One that nobody awaits any more harms nobody.
        drop(spawn_blocking(|| 1));
        assert_eq!(spawn_blocking(|| 2).await.unwrap(), 2);
    });
}

fn addresses_are_looked_up(on: &Bench) {
    on.block_on(async {
        let four = spawn_blocking(|| pelton::driver::lookup("127.0.0.1", 80)).await.unwrap();
        assert_eq!(four.unwrap(), ["127.0.0.1:80".parse().unwrap()]);
        let six = spawn_blocking(|| pelton::driver::lookup("::1", 80)).await.unwrap();
        assert_eq!(six.unwrap(), ["[::1]:80".parse().unwrap()]);
        for nonsense in ["no port here", "127.0.0.1:notaport", ":::"] {
            let error = TcpStream::connect(nonsense).await.unwrap_err();
            assert!(!error.to_string().is_empty(), "{nonsense}");
        }
    });
}

fn a_name_is_connected_to(on: &Bench) {
    on.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // It may mean IPv6 first, where nobody listens.
        let client = TcpStream::connect(("localhost", port)).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.send_all("x").await.unwrap();
        assert_eq!(&server.recv().await.unwrap().unwrap()[..], b"x");
        let text = format!("localhost:{port}");
        drop(TcpStream::connect(&*text).await.unwrap());
    });
}

async fn write(file: &File, bytes: &[u8], offset: u64) {
    let mut at = 0;
    while at < bytes.len() {
        let (n, _) = file.write_at(bytes[at..].to_vec(), offset + at as u64).await;
        at += n.unwrap();
    }
}

async fn read(file: &File, len: usize, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let room = vec![0; len - bytes.len()].into_boxed_slice();
        let (n, part) = file.read_at(room, offset + bytes.len() as u64).await;
        match n.unwrap() {
            0 => break,
            n => bytes.extend_from_slice(&part[..n]),
        }
    }
    bytes
}

fn a_file_is_written_and_read(on: &Bench) {
    let path = on.path("file");
    on.block_on(async {
        let file = File::create(&path).await.unwrap();
        let content = pattern(1, 100_000);
        write(&file, &content, 10).await;
        file.sync_all().await.unwrap();
        file.sync_data().await.unwrap();
        assert!(read(&file, 200_000, 10).await == content);
        drop(file);
        let again = File::open(&path).await.unwrap();
        assert_eq!(read(&again, 12, 0).await, [&[0; 10][..], &content[..2]].concat());
        let (error, buf) = again.write_at("x", 0).await;
        assert_eq!(
            (error.unwrap_err().raw_os_error(), buf),
            (Some(pelton_driver::errno::EBADF), "x")
        );
        // Creating it again empties it.
        drop(File::create(&path).await.unwrap());
        assert_eq!(read(&again, 10, 0).await, b"");
    });
}

fn a_file_that_is_not_there(on: &Bench) {
    let path = on.path("nowhere");
    on.block_on(async {
        let error = File::open(&path).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
}

fn tasks_read_one_file(on: &Bench) {
    let path = on.path("file");
    on.block_on(async {
        let file = Rc::new(File::create(&path).await.unwrap());
        let content = Rc::new(pattern(6, 64_000));
        write(&file, &content, 0).await;
        let tasks: Vec<_> = (0..64)
            .map(|n| {
                let (file, content) = (file.clone(), content.clone());
                spawn(async move {
                    let part = read(&file, 1000, n * 1000).await;
                    let at = n as usize * 1000;
                    assert!(part == content[at..at + 1000]);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn what_is_dropped_on_a_file(on: &Bench) {
    let path = on.path("file");
    on.block_on(async {
        let file = File::create(&path).await.unwrap();
        write(&file, &pattern(1, 10_000), 0).await;
        for _ in 0..10 {
            let room = vec![0; 10_000].into_boxed_slice();
            let _ = time::timeout(Duration::ZERO, file.read_at(room, 0)).await;
            let _ = time::timeout(Duration::ZERO, file.write_at(pattern(1, 10_000), 0)).await;
            let _ = time::timeout(Duration::ZERO, file.sync_all()).await;
        }
        assert!(read(&file, 10_000, 0).await == pattern(1, 10_000));
    });
}
