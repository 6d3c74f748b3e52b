//! Every future can be dropped at any moment: what it had in flight ends, and nothing is left behind.

mod common;

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use common::{
    inside_each_backend, on_each_backend, open_descriptors, pair, pair_with_std, pattern, quiet,
};
use pelton::Handle;
use pelton::driver::{IoBuf, IoBufMut, Spare};
use pelton::net::{TcpListener, TcpStream};

/// Polls a future `polls` times at most, with a turn of the loop between, and drops it there.
async fn poll_and_drop<F: Future>(polls: usize, future: F) {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await {
            return;
        }
        pelton::yield_now().await;
    }
}

type Named<'a> = (&'static str, Pin<Box<dyn Future<Output = ()> + 'a>>);

/// A future of every operation there is, on a connection whose peer does nothing.
fn every_future<'a>(
    stream: &'a TcpStream,
    listener: &'a TcpListener,
    file: &'a pelton::fs::File,
) -> Vec<Named<'a>> {
    let address = listener.local_addr().unwrap();
    macro_rules! futures {
        ($($name:literal: $future:expr,)+) => {
            vec![$(($name, Box::pin(async move { let _ = $future.await; }) as _),)+]
        };
    }
    futures! {
        "recv": stream.recv(),
        "read": stream.read(Vec::with_capacity(100)),
        "read into an array": stream.read([0u8; 8]),
        "read_vectored": stream.read_vectored([Vec::with_capacity(10), Vec::with_capacity(10)]),
        "write": stream.write(pattern(100)),
        "write_all": stream.write_all(pattern(4 << 20)),
        "write_vectored_all": stream.write_vectored_all([pattern(2 << 20), pattern(2 << 20)]),
        "readable": stream.readable(),
        "writable": stream.writable(),
        "accept": listener.accept(),
        "connect": TcpStream::connect(address),
        "connect to a name": TcpStream::connect(format!("localhost:{}", address.port())),
        "refused": TcpStream::connect("127.0.0.1:1"),
        "sleep": pelton::time::sleep(Duration::from_micros(50)),
        "long sleep": pelton::time::sleep(Duration::from_secs(1000)),
        "timeout": pelton::time::timeout(Duration::from_micros(100), stream.recv()),
        "read_at": file.read_at(Vec::with_capacity(4096), 0),
        "write_at": file.write_at(pattern(4096), 0),
        "blocking": pelton::spawn_blocking(|| ()),
        "shutdown": stream.shutdown(std::net::Shutdown::Write),
    }
}

fn scratch_file() -> std::fs::File {
    thread_local! { static NEXT: Cell<u32> = const { Cell::new(0) }; }
    let number = NEXT.replace(NEXT.get() + 1);
    let name =
        format!("pelton-drops-{}-{number}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    let file =
        std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    (&file).write_all(&pattern(8192)).unwrap();
    file
}

#[test]
fn any_future_can_be_dropped_after_any_number_of_polls() {
    inside_each_backend(|backend| async move {
        let handle = Handle::current();
        let before = open_descriptors();
        for polls in 0..6 {
            let kinds = {
                let (stream, _peer) = pair().await;
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let file = pelton::fs::File::from_std(scratch_file()).unwrap();
                every_future(&stream, &listener, &file).len()
            };
            for kind in 0..kinds {
                let (stream, _peer) = pair().await;
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let file = pelton::fs::File::from_std(scratch_file()).unwrap();
                let (name, future) = every_future(&stream, &listener, &file).swap_remove(kind);
                poll_and_drop(polls, future).await;
                println!("{name} dropped after {polls} polls on {backend}");
                drop((stream, listener, file));
                quiet().await;
            }
        }
        let counters = handle.snapshot();
        assert_eq!(counters.buffers_in_use, 0);
        assert_eq!(counters.orphans, 0);
        common::closed_down_to(before).await;
    });
}

#[test]
fn all_futures_at_once_can_be_dropped_with_their_objects_first() {
    inside_each_backend(|_| async {
        let handle = Handle::current();
        let before = open_descriptors();
        for polls in 0..4 {
            for _ in 0..5 {
                let (stream, _peer) = pair().await;
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let file = pelton::fs::File::from_std(scratch_file()).unwrap();
                // A task owns them all, and is aborted: the futures go before or after each other in the
                // order of the language, and the objects last.
                let task = pelton::spawn(async move {
                    let mut futures = every_future(&stream, &listener, &file);
                    let _last = futures.pop();
                    poll_fn(|cx| {
                        for (_, future) in &mut futures {
                            // Polling one that has ended would panic: each is polled until the abort.
                            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                                let _ = future.as_mut().poll(cx);
                            }));
                        }
                        Poll::<()>::Pending
                    })
                    .await;
                });
                for _ in 0..polls {
                    pelton::yield_now().await;
                }
                task.abort();
                drop(task);
                quiet().await;
            }
        }
        assert_eq!(handle.snapshot().buffers_in_use, 0);
        common::closed_down_to(before).await;
    });
}

/// A connection whose other end is the standard library's, where the system holds little of what has been
/// sent and not read. It would else hold as much as it likes, tens of mebibytes where the peer reads, and a
/// large send could end before a test wants it to.
async fn tight_pair_with_std() -> (TcpStream, std::net::TcpStream) {
    const LITTLE: usize = 64 << 10;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // What is accepted has the sizes of its listener.
    listener.with_socket(|socket| socket.set_send_buffer_size(LITTLE)).unwrap();
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    // Before it is connected: the window is agreed on then.
    client.set_recv_buffer_size(LITTLE).unwrap();
    client.connect(&listener.local_addr().unwrap().into()).unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (server, client.into())
}

/// Counts how many of it live, and poisons its memory when it goes: whoever still reads or writes that
/// shows.
struct Guarded {
    bytes: Box<[u8]>,
    live: Rc<Cell<i32>>,
}

const MARK: u8 = b'm';
const POISON: u8 = b'!';

impl Guarded {
    fn new(len: usize, live: &Rc<Cell<i32>>) -> Guarded {
        live.set(live.get() + 1);
        Guarded { bytes: vec![MARK; len].into(), live: live.clone() }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.bytes.fill(POISON);
        self.live.set(self.live.get() - 1);
    }
}

impl IoBuf for Guarded {
    fn as_init(&self) -> &[u8] {
        &self.bytes
    }
}

impl IoBufMut for Guarded {
    fn spare(&mut self) -> Spare<'_> {
        (&mut self.bytes[..]).into()
    }

    unsafe fn advance(&mut self, _: usize) {}
}

#[test]
fn memory_that_is_being_sent_stays_as_it_is_until_the_kernel_has_let_go() {
    inside_each_backend(|_| async {
        let live = Rc::new(Cell::new(0));
        for polls in 1..8 {
            let (stream, mut client) = tight_pair_with_std().await;
            let mut send = Box::pin(stream.write_all(Guarded::new(8 << 20, &live)));
            for _ in 0..polls {
                assert!(poll_fn(|cx| Poll::Ready(send.as_mut().poll(cx).is_pending())).await);
                pelton::yield_now().await;
            }
            drop(send);
            // The peer reads while the send is being cancelled, and sees marks and nothing else. The memory
            // of the next send may be that of this one.
            let next = Guarded::new(8 << 20, &live);
            drop(stream);
            let got = pelton::spawn_blocking(move || {
                let mut got = Vec::new();
                let _ = client.read_to_end(&mut got);
                got
            });
            let got = got.await.unwrap();
            assert!(!got.is_empty(), "nothing was under way");
            assert!(got.len() < 8 << 20, "it had been sent: nothing was proved");
            assert!(got.iter().all(|byte| *byte == MARK), "memory was given up while it was sent");
            drop(next);
            quiet().await;
            assert_eq!(live.get(), 0);
        }
    });
}

#[test]
fn what_was_cancelled_in_the_middle_never_reaches_the_next_connection() {
    inside_each_backend(|_| async {
        for _ in 0..20 {
            let (old, mut old_peer) = tight_pair_with_std().await;
            let mut send = Box::pin(old.write_all(vec![b'o'; 4 << 20]));
            assert!(poll_fn(|cx| Poll::Ready(send.as_mut().poll(cx).is_pending())).await);
            drop(send);
            drop(old);
            // The number of the descriptor is free at some moment, and the next connections take it.
            let mut streams = Vec::new();
            for _ in 0..3 {
                streams.push(pair_with_std().await);
            }
            let drained = pelton::spawn_blocking(move || {
                let mut got = Vec::new();
                let _ = old_peer.read_to_end(&mut got);
                got
            });
            assert!(drained.await.unwrap().iter().all(|byte| *byte == b'o'));
            for (stream, mut peer) in streams {
                stream.send_all(vec![b'n'; 1000]).await.unwrap();
                drop(stream);
                let got = pelton::spawn_blocking(move || {
                    let mut got = Vec::new();
                    peer.read_to_end(&mut got).unwrap();
                    got
                });
                assert_eq!(got.await.unwrap(), vec![b'n'; 1000]);
            }
            quiet().await;
        }
    });
}

#[test]
fn memory_that_is_being_received_into_stays_until_the_kernel_has_let_go() {
    inside_each_backend(|_| async {
        let live = Rc::new(Cell::new(0));
        for round in 0..100 {
            let (stream, peer) = pair().await;
            let mut read = Box::pin(stream.read(Guarded::new(64 << 10, &live)));
            assert!(poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await);
            if round % 2 == 0 {
                pelton::yield_now().await;
            }
            // The bytes come while the receive is being given up.
            peer.send_all(pattern(1000)).await.unwrap();
            drop(read);
            drop(stream);
            quiet().await;
            assert_eq!(live.get(), 0);
        }
    });
}

#[test]
fn a_receive_that_is_dropped_at_any_moment_loses_no_byte() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let total = 200_000;
        let writer = pelton::spawn(async move {
            for (at, part) in pattern(total).chunks(701).enumerate() {
                b.send_all(part.to_vec()).await.unwrap();
                if at % 3 == 0 {
                    pelton::yield_now().await;
                }
            }
        });
        let mut got = Vec::new();
        for round in 0.. {
            // Given up before anything has come, while it comes, and after it has come.
            poll_and_drop(round % 3, async {
                // What this one brings before it is dropped is no loss.
                if let Some(chunk) = a.recv().await.unwrap() {
                    got.extend_from_slice(&chunk);
                }
            })
            .await;
            if got.len() == total {
                break;
            }
            // Whatever was left behind is the next thing to be read, in every way of reading.
            match round % 4 {
                0 => {
                    let (read, buf) = a.read(Vec::with_capacity(97)).await;
                    assert_eq!(read.unwrap(), buf.len());
                    got.extend_from_slice(&buf);
                }
                1 => {
                    let bufs =
                        [Vec::with_capacity(13), Vec::with_capacity(0), Vec::with_capacity(29)];
                    let (read, bufs) = a.read_vectored(bufs).await;
                    assert_eq!(read.unwrap(), bufs.concat().len());
                    got.extend_from_slice(&bufs.concat());
                }
                2 => {
                    a.readable().await.unwrap();
                    poll_and_drop(1, a.readable()).await;
                }
                _ => {}
            }
            if got.len() == total {
                break;
            }
        }
        assert!(got == pattern(total));
        writer.await.unwrap();
        drop(a);
        quiet().await;
    });
}

#[test]
fn a_buffer_without_room_is_an_error_also_where_a_dropped_receive_has_left_something() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        poll_and_drop(1, a.recv()).await;
        b.send_all("left").await.unwrap();
        let (read, _) = a.read_vectored([Vec::new(), Vec::new()]).await;
        assert!(read.is_err(), "no room looks like the end of the stream");
        let (read, _) = a.read(Vec::new()).await;
        assert!(read.is_err(), "no room looks like the end of the stream");
        assert_eq!(common::read_n(&a, 4).await, b"left");
    });
}

#[test]
fn what_a_dropped_receive_has_left_goes_with_the_connection_wherever_that_goes() {
    inside_each_backend(|_| async {
        for into in 0..5 {
            let (a, b) = pair().await;
            poll_and_drop(1, a.recv()).await;
            b.send_all("left").await.unwrap();
            pelton::yield_now().await;
            match into {
                0 => drop(a),
                1 => a.close().await.unwrap(),
                2 => {
                    let (mut read, write) = a.into_split();
                    assert_eq!(&*read.recv().await.unwrap().unwrap(), b"left");
                    read.reunite(write).unwrap();
                }
                3 => {
                    let mut stream = pelton::io::PollStream::new(a);
                    let chunk = poll_fn(|cx| pelton::io::AsyncRead::poll_recv(&mut stream, cx));
                    assert_eq!(&*chunk.await.unwrap().unwrap(), b"left");
                }
                _ => {
                    let stream = pelton::io::PollStream::new(a);
                    let (a, lease) = stream.into_inner().await.unwrap();
                    let mut got = lease.map_or(Vec::new(), |lease| lease.to_vec());
                    got.extend(common::read_n(&a, 4 - got.len()).await);
                    assert_eq!(got, b"left");
                }
            }
            drop(b);
            quiet().await;
            assert_eq!(Handle::current().snapshot().buffers_in_use, 0);
        }
    });
}

#[test]
fn opening_and_closing_in_a_storm_mixes_nothing_up() {
    inside_each_backend(|_| async {
        let before = open_descriptors();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = pelton::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                pelton::spawn(async move {
                    // Echoes with two operations in flight.
                    while let Ok(Some(chunk)) = stream.recv().await {
                        if stream.send_all(chunk).await.is_err() {
                            break;
                        }
                    }
                })
                .detach();
            }
        });
        let clients: Vec<_> = (0..8u8)
            .map(|client| {
                pelton::spawn(async move {
                    for round in 0..60u8 {
                        let stream = TcpStream::connect(address).await.unwrap();
                        let mine = [client, round, client ^ round, 7];
                        stream.send_all(mine).await.unwrap();
                        match round % 4 {
                            // Gone at once, with the answer on its way.
                            0 => {}
                            1 => {
                                poll_and_drop(1, stream.recv()).await;
                            }
                            2 => {
                                stream.set_linger(Some(Duration::ZERO)).unwrap();
                                poll_and_drop(1, stream.read([0u8; 4])).await;
                            }
                            _ => assert_eq!(
                                common::read_n(&stream, 4).await,
                                mine,
                                "another's bytes"
                            ),
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        server.abort();
        drop(server);
        quiet().await;
        assert_eq!(Handle::current().snapshot().task_panics, 0);
        common::closed_down_to(before).await;
    });
}

#[test]
fn a_runtime_that_ends_with_everything_in_flight_leaves_nothing_behind() {
    on_each_backend(|backend| {
        let before = open_descriptors();
        for _ in 0..10 {
            let live = Rc::new(Cell::new(0));
            let runtime = common::runtime(backend);
            let handle = runtime.handle();
            for polls in 0..3 {
                let live = live.clone();
                runtime
                    .spawn(async move {
                        let (stream, _peer) = pair().await;
                        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                        let file = pelton::fs::File::from_std(scratch_file()).unwrap();
                        let mut futures: Vec<_> = every_future(&stream, &listener, &file)
                            .into_iter()
                            .filter(|(name, _)| *name != "shutdown")
                            .map(|(_, future)| Some(future))
                            .collect();
                        let mut guarded = Box::pin(stream.read(Guarded::new(100, &live)));
                        let mut sends = Box::pin(stream.write_all(Guarded::new(4 << 20, &live)));
                        poll_fn(|cx| {
                            for slot in &mut futures {
                                if slot.as_mut().is_some_and(|f| f.as_mut().poll(cx).is_ready()) {
                                    *slot = None;
                                }
                            }
                            let _ = guarded.as_mut().poll(cx);
                            let _ = sends.as_mut().poll(cx);
                            Poll::<()>::Pending
                        })
                        .await;
                    })
                    .detach();
                runtime.block_on(async {
                    for _ in 0..polls {
                        pelton::yield_now().await;
                    }
                });
            }
            drop(runtime);
            assert_eq!(live.get(), 0, "buffers are left over");
            let counters = handle.snapshot();
            assert_eq!(counters.leaked, 0);
            assert_eq!(counters.in_flight_total(), 0);
            assert_eq!(counters.buffers_in_use, 0);
            drop(handle);
            // The blocking pool may still be looking a name up, for which it has a socket for a moment.
            while open_descriptors() != before {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn futures_that_are_forgotten_end_with_their_runtime() {
    on_each_backend(|backend| {
        let live = Rc::new(Cell::new(0));
        let runtime = common::runtime(backend);
        let handle = runtime.handle();
        let kept = runtime.block_on(async {
            let (stream, peer) = pair().await;
            // Gone without a drop, which safe code may do: what they own stays with the driver.
            let mut read = ManuallyDrop::new(stream.read(Guarded::new(100, &live)));
            let mut send = ManuallyDrop::new(peer.write_all(Guarded::new(8 << 20, &live)));
            let mut recv = ManuallyDrop::new(peer.recv());
            poll_fn(|cx| {
                assert!(Pin::new(&mut *read).poll(cx).is_pending());
                assert!(Pin::new(&mut *recv).poll(cx).is_pending());
                assert!(Pin::new(&mut *send).poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            for _ in 0..10 {
                pelton::yield_now().await;
            }
            assert!(handle.snapshot().in_flight_total() > 0, "some are in flight");
            assert!(live.get() > 0);
            (stream, peer)
        });
        drop(kept);
        drop(runtime);
        assert_eq!(handle.snapshot().in_flight_total(), 0);
        assert_eq!(handle.snapshot().leaked, 0);
        drop(handle);
        assert_eq!(live.get(), 0, "buffers are left over");
    });
}
