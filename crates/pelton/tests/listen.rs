//! Accepting: several at once, given up at any moment, and without descriptors.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
#[cfg(unix)]
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{eventually, inside_each_backend, on_each_backend, open_descriptors, quiet};
#[cfg(unix)]
use pelton::Fault;
use pelton::net::{ListenOptions, TcpListener, TcpStream};
use pelton::{Builder, Handle};
#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

async fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn two_tasks_that_accept_on_one_listener_are_both_served() {
    inside_each_backend(|_| async {
        let (listener, address) = listen().await;
        let listener = Rc::new(listener);
        let peers = Rc::new(RefCell::new(HashSet::new()));
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let (listener, peers) = (listener.clone(), peers.clone());
                pelton::spawn(async move {
                    let (_stream, peer) = listener.accept().await.unwrap();
                    peers.borrow_mut().insert(peer);
                })
            })
            .collect();
        pelton::yield_now().await;
        let mut clients = Vec::new();
        for served in 1..=2 {
            // One connection at a time: the one that waits longer must not be forgotten.
            clients.push(std::net::TcpStream::connect(address).unwrap());
            eventually("one of them is served", || peers.borrow().len() == served).await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        let peers = peers.take();
        let expected: HashSet<_> = clients.iter().map(|c| c.local_addr().unwrap()).collect();
        assert_eq!(peers, expected);
    });
}

#[test]
fn many_tasks_that_accept_at_once_lose_none_of_many_connections() {
    inside_each_backend(|_| async {
        const CONNECTIONS: usize = 300;
        let (listener, address) = listen().await;
        let listener = Rc::new(listener);
        let peers = Rc::new(RefCell::new(HashSet::new()));
        for _ in 0..10 {
            let (listener, peers) = (listener.clone(), peers.clone());
            pelton::spawn(async move {
                loop {
                    let (_stream, peer) = listener.accept().await.unwrap();
                    assert!(peers.borrow_mut().insert(peer), "{peer} came twice");
                    pelton::yield_now().await;
                }
            })
            .detach();
        }
        let clients = pelton::spawn_blocking(move || {
            (0..CONNECTIONS)
                .map(|_| std::net::TcpStream::connect(address).unwrap())
                .collect::<Vec<_>>()
        })
        .await
        .unwrap();
        eventually("all are accepted", || peers.borrow().len() == CONNECTIONS).await;
        assert_eq!(Handle::current().snapshot().accepts, CONNECTIONS as u64);
        drop(clients);
    });
}

#[test]
fn an_accept_that_is_given_up_loses_no_connection() {
    inside_each_backend(|_| async {
        let (listener, address) = listen().await;
        for round in 0..200u32 {
            // Armed or not, told already or not.
            let mut accept = Box::pin(listener.accept());
            if round % 4 > 0 {
                assert!(
                    std::future::poll_fn(|cx| {
                        std::task::Poll::Ready(accept.as_mut().poll(cx).is_pending())
                    })
                    .await
                );
            }
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.write_all(&round.to_le_bytes()).unwrap();
            for _ in 0..round % 3 {
                pelton::yield_now().await;
            }
            drop(accept);
            let (stream, peer) = listener.accept().await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
            assert_eq!(common::read_n(&stream, 4).await, round.to_le_bytes());
        }
        drop(listener);
        quiet().await;
    });
}

#[test]
fn one_that_waits_and_is_aborted_passes_its_turn_on() {
    inside_each_backend(|_| async {
        let (listener, address) = listen().await;
        let listener = Rc::new(listener);
        for round in 0..50 {
            let accepted = Rc::new(Cell::new(0));
            let tasks: Vec<_> = (0..3)
                .map(|_| {
                    let (listener, accepted) = (listener.clone(), accepted.clone());
                    pelton::spawn(async move {
                        listener.accept().await.unwrap();
                        accepted.set(accepted.get() + 1);
                    })
                })
                .collect();
            pelton::yield_now().await;
            let client = std::net::TcpStream::connect(address).unwrap();
            // The one that the completion will be told to is among those that go.
            let (stays, goes) = (round % 3, [(round + 1) % 3, (round + 2) % 3]);
            if round % 2 == 0 {
                goes.iter().for_each(|task| tasks[*task].abort());
            }
            eventually("one has accepted", || accepted.get() == 1).await;
            if round % 2 == 0 {
                assert!(tasks[stays].is_finished());
            }
            tasks.iter().for_each(pelton::JoinHandle::abort);
            drop(client);
        }
    });
}

#[test]
fn more_connections_than_may_wait_here_wait_in_the_system() {
    inside_each_backend(|_| async {
        const CONNECTIONS: usize = pelton::driver::MOST_WAITING as usize * 3;
        let (listener, address) = listen().await;
        // Armed, and then nobody takes what comes.
        let first = std::net::TcpStream::connect(address).unwrap();
        listener.accept().await.unwrap();
        let mut clients = vec![first];
        for _ in 0..CONNECTIONS {
            clients.push(std::net::TcpStream::connect(address).unwrap());
        }
        for _ in 0..50 {
            pelton::yield_now().await;
        }
        let hoarded = Handle::current().snapshot().accepts - 1;
        assert!(hoarded <= 2 * u64::from(pelton::driver::MOST_WAITING), "{hoarded} are hoarded");
        let mut peers = HashSet::new();
        for _ in 0..CONNECTIONS {
            peers.insert(listener.accept().await.unwrap().1);
        }
        assert_eq!(peers.len(), CONNECTIONS, "none is lost and none comes twice");
    });
}

#[test]
fn a_listener_that_is_dropped_closes_what_it_had_accepted_for_nobody() {
    inside_each_backend(|_| async {
        let before = open_descriptors();
        let (listener, address) = listen().await;
        let first = std::net::TcpStream::connect(address).unwrap();
        listener.accept().await.unwrap();
        let mut waiting: Vec<_> =
            (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let handle = Handle::current();
        let accepted = handle.snapshot().accepts;
        eventually("some wait in the driver", || handle.snapshot().accepts > accepted).await;
        drop(listener);
        quiet().await;
        let ended = pelton::spawn_blocking(move || {
            for client in &mut waiting {
                let _ = client.read(&mut [0]);
            }
            waiting.len()
        });
        assert_eq!(ended.await.unwrap(), 20, "every peer sees that it is gone");
        drop(first);
        common::closed_down_to(before).await;
        assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
    });
}

#[test]
fn a_listener_can_be_dropped_while_somebody_connects() {
    inside_each_backend(|_| async {
        for _ in 0..50 {
            let (listener, address) = listen().await;
            let client = pelton::spawn(TcpStream::connect(address));
            let accept = pelton::spawn(async move { listener.accept().await.map(drop) });
            pelton::yield_now().await;
            accept.abort();
            let _ = client.await.unwrap();
        }
        quiet().await;
    });
}

#[test]
fn options_of_a_listener_hold() {
    inside_each_backend(|_| async {
        let options = ListenOptions { reuse_port: true, backlog: 16, ..ListenOptions::default() };
        let first = TcpListener::bind_with("127.0.0.1:0", options).await.unwrap();
        let address = first.local_addr().unwrap();
        let second = TcpListener::bind_with(address, options).await.unwrap();
        assert_eq!(second.local_addr().unwrap(), address);
        assert!(TcpListener::bind(address).await.is_err(), "without the option it is taken");
        #[cfg(unix)]
        assert!(first.with_socket(|socket| socket.reuse_port()).unwrap());
        assert!(format!("{first:?}").contains("TcpListener"));
    });
}

#[test]
fn a_peer_that_has_gone_before_it_was_accepted_harms_nobody() {
    inside_each_backend(|_| async {
        let (listener, address) = listen().await;
        for _ in 0..50 {
            let gone = std::net::TcpStream::connect(address).unwrap();
            socket2::SockRef::from(&gone).set_linger(Some(Duration::ZERO)).unwrap();
            drop(gone);
        }
        let stays = std::net::TcpStream::connect(address).unwrap();
        let (_stream, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, stays.local_addr().unwrap(), "those that were reset are passed over");
    });
}

#[cfg(unix)]
#[test]
fn without_descriptors_accepting_pauses_tells_of_it_once_and_goes_on() {
    on_each_backend(|backend| {
        let told = Arc::new(AtomicU32::new(0));
        let texts: Arc<Mutex<Vec<String>>> = Arc::default();
        let (tells, keeps) = (told.clone(), texts.clone());
        let runtime = Builder::new()
            .backend(backend)
            .on_fault(move |fault| {
                assert!(matches!(fault, Fault::AcceptPaused(_)), "{fault}");
                tells.fetch_add(1, Ordering::Relaxed);
                keeps.lock().unwrap().push(fault.to_string());
            })
            .build()
            .unwrap();
        runtime.block_on(async {
            let handle = Handle::current();
            // First, because the ring keeps the limit that was there when an accept was armed.
            let limit = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: Some(128), ..limit }).unwrap();
            let (listener, address) = listen().await;
            let mut clients: Vec<_> =
                (0..5).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            // One is served before the shortage.
            let (served, _) = listener.accept().await.unwrap();
            let waiting: Vec<_> = (0..4)
                .map(|_| std::net::TcpStream::connect(address))
                .collect::<Result<_, _>>()
                .unwrap();
            clients.extend(waiting);

            let mut hoard = Vec::new();
            while let Ok(duplicate) = rustix::io::dup(std::io::stderr()) {
                hoard.push(duplicate);
            }
            let accepted = Rc::new(RefCell::new(HashSet::new()));
            let inner = accepted.clone();
            let accepts = pelton::spawn(async move {
                let mut streams = Vec::new();
                for _ in 0..8 {
                    let (stream, peer) = listener.accept().await.unwrap();
                    inner.borrow_mut().insert(peer);
                    streams.push(stream);
                }
                streams
            });
            // Those that had been accepted before the shortage come first; then it pauses, more than once.
            while handle.snapshot().accept_pauses < 2 {
                pelton::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(!accepts.is_finished(), "there were descriptors left: nothing was proved");
            // Others go on meanwhile, and the reactor does not spin.
            let before = handle.snapshot();
            pelton::time::sleep(Duration::from_millis(50)).await;
            assert!(handle.snapshot().enters - before.enters < 20, "{before:?}");
            clients[0].write_all(b"ping").unwrap();
            assert_eq!(&*served.recv().await.unwrap().unwrap(), b"ping");

            drop(hoard);
            let streams = accepts.await.unwrap();
            setrlimit(Resource::Nofile, limit).unwrap();
            assert_eq!(streams.len(), 8);
            let peers: HashSet<_> = clients[1..].iter().map(|c| c.local_addr().unwrap()).collect();
            assert_eq!(*accepted.borrow(), peers);
        });
        assert_eq!(told.load(Ordering::Relaxed), 1, "{:?}", texts.lock().unwrap());
        assert!(texts.lock().unwrap()[0].contains("ulimit -n"), "the cure is told");
    });
}

#[test]
fn a_full_table_of_descriptors_pauses_accepting_too() {
    on_each_backend(|backend| {
        let told = Arc::new(AtomicU32::new(0));
        let tells = told.clone();
        let small = pelton::driver::Config { max_descriptors: 256, ..common::config(backend) };
        let runtime = Builder::new()
            .driver(small)
            .on_fault(move |_| _ = tells.fetch_add(1, Ordering::Relaxed))
            .build()
            .unwrap();
        runtime.block_on(async {
            let (listener, address) = listen().await;
            let mut held = Vec::new();
            let clients: Vec<_> =
                (0..255).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            for _ in 0..255 {
                held.push(listener.accept().await.unwrap().0);
            }
            let refused = TcpStream::connect(address).await.unwrap_err();
            assert!(refused.to_string().contains("max_descriptors"), "{refused}");
            let one_more = std::net::TcpStream::connect(address).unwrap();
            let accept = pelton::spawn(async move { listener.accept().await.unwrap().1 });
            while told.load(Ordering::Relaxed) == 0 {
                pelton::time::sleep(Duration::from_millis(1)).await;
            }
            // With room again the next one is served; the one that found none was shed.
            held.clear();
            let next = std::net::TcpStream::connect(address).unwrap();
            let peer = accept.await.unwrap();
            let local = [&one_more, &next].map(|stream| stream.local_addr().unwrap());
            assert!(local.contains(&peer));
            drop(clients);
        });
    });
}
