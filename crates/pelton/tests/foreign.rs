//! Futures that others poll, move and keep: combinators with wakers of their own, tasks that hand over what
//! is in flight, and objects that outlive their runtime.

mod common;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{
    CountingWaker, eventually, inside_each_backend, join_all, on_each_backend, open_descriptors,
    pair, pair_with_std, pattern, poll_once, quiet, runtime,
};
use pelton::io::{AsyncRead, AsyncWrite, PollStream};
use pelton::net::{TcpListener, TcpStream};

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

#[test]
fn a_combinator_with_wakers_of_its_own_drives_many_operations_of_one_task() {
    inside_each_backend(|_| async {
        let mut futures: Vec<Boxed<usize>> = Vec::new();
        let mut clients = Vec::new();
        for n in 0..50 {
            let (a, b) = pair().await;
            let (c, client) = pair_with_std().await;
            clients.push(client);
            futures.push(Box::pin(
                async move { a.send_all(vec![7; n + 1]).await.map(|()| 1).unwrap() },
            ));
            futures.push(Box::pin(async move { common::read_n(&b, n + 1).await.len() - n }));
            futures.push(Box::pin(async move { c.recv().await.unwrap().unwrap().len() }));
            futures.push(Box::pin(async move {
                pelton::time::sleep(Duration::from_micros(n as u64 * 50)).await;
                1
            }));
            futures.push(Box::pin(async { pelton::spawn_blocking(|| 1).await.unwrap() }));
            futures.push(Box::pin(async { pelton::spawn(async { 1 }).await.unwrap() }));
        }
        let task = pelton::spawn(join_all(futures));
        pelton::yield_now().await;
        for client in &mut clients {
            client.write_all(b"x").unwrap();
        }
        assert_eq!(task.await.unwrap().into_iter().sum::<usize>(), 300);
        quiet().await;
    });
}

#[test]
fn a_foreign_waker_is_kept_while_it_is_waited_with_and_no_longer() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let waker = CountingWaker::new();
        let task_waker = Waker::from(waker.clone());
        let base = Arc::strong_count(&waker);
        let mut cx = Context::from_waker(&task_waker);
        // Dropped while it waits.
        {
            let mut recv = Box::pin(a.recv());
            let mut read = Box::pin(b.read([0u8; 4]));
            let mut accept = Box::pin(listener.accept());
            let mut sleep = Box::pin(pelton::time::sleep(Duration::from_secs(100)));
            assert!(recv.as_mut().poll(&mut cx).is_pending());
            assert!(read.as_mut().poll(&mut cx).is_pending());
            assert!(accept.as_mut().poll(&mut cx).is_pending());
            assert!(sleep.as_mut().poll(&mut cx).is_pending());
            assert!(Arc::strong_count(&waker) >= base + 4, "each waits");
            pelton::yield_now().await;
        }
        drop(listener);
        quiet_but_for(1).await;
        assert_eq!(Arc::strong_count(&waker), base, "wakers of futures that were dropped are kept");
        // Ended.
        let mut recv = Box::pin(a.recv());
        assert!(recv.as_mut().poll(&mut cx).is_pending());
        b.send_all("x").await.unwrap();
        eventually("it is woken", || waker.woken() > 0).await;
        assert!(poll_once(recv.as_mut()).is_ready());
        drop(recv);
        assert_eq!(Arc::strong_count(&waker), base);
        // Polled by another since: the first is let go of, and not woken.
        let woken = waker.woken();
        let mut recv = Box::pin(a.recv());
        assert!(recv.as_mut().poll(&mut cx).is_pending());
        let other = CountingWaker::new();
        let other_waker = Waker::from(other.clone());
        assert!(recv.as_mut().poll(&mut Context::from_waker(&other_waker)).is_pending());
        assert_eq!(Arc::strong_count(&waker), base);
        b.send_all("y").await.unwrap();
        eventually("the other is woken", || other.woken() > 0).await;
        assert_eq!(waker.woken(), woken);
        assert!(poll_once(recv.as_mut()).is_ready());
    });
}

/// As [`quiet`], but for receives that their connections keep.
async fn quiet_but_for(kept: u64) {
    let handle = pelton::Handle::current();
    eventually("nothing else is in flight", || handle.snapshot().in_flight_total() == kept).await;
}

#[test]
fn a_future_in_flight_can_be_moved_from_task_to_task() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let a = Rc::new(a);
        for round in 0..20u8 {
            let stream = a.clone();
            let mut recv: Boxed<Vec<u8>> = Box::pin(async move {
                let (read, buf) = stream.read(Vec::with_capacity(100)).await;
                assert_eq!(read.unwrap(), buf.len());
                buf
            });
            // The first task polls it, hands it over and ends; its header may be used by the next.
            for _ in 0..3 {
                let mut here = recv;
                recv = pelton::spawn(async move {
                    assert!(poll_fn(|cx| Poll::Ready(here.as_mut().poll(cx).is_pending())).await);
                    Some(here)
                })
                .await
                .unwrap()
                .expect("handed over");
            }
            // Once by the root with a waker that is nobody's.
            assert!(poll_once(recv.as_mut()).is_pending());
            let last = pelton::spawn(recv);
            pelton::yield_now().await;
            b.send_all([round; 9]).await.unwrap();
            assert_eq!(last.await.unwrap(), [round; 9]);
        }
        quiet().await;
    });
}

#[test]
fn a_completion_for_a_task_that_has_ended_disturbs_nobody() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let (a, kept) = (Rc::new(a), Rc::new(RefCell::new(Vec::<Boxed<()>>::new())));
        for _ in 0..50 {
            let (stream, keeps) = (a.clone(), kept.clone());
            // It leaves what is in flight to somebody who never polls it.
            pelton::spawn(async move {
                let mut recv: Boxed<()> = Box::pin(async move {
                    let _ = stream.read([0u8; 1]).await;
                });
                assert!(poll_fn(|cx| Poll::Ready(recv.as_mut().poll(cx).is_pending())).await);
                keeps.borrow_mut().push(recv);
            })
            .await
            .unwrap();
        }
        // New tasks take the places of those that have ended.
        let others: Vec<_> = (0..50)
            .map(|n| {
                pelton::spawn(async move {
                    pelton::time::sleep(Duration::from_micros(n * 20)).await;
                    n
                })
            })
            .collect();
        b.send_all(vec![1; 50]).await.unwrap();
        for (n, other) in (0..).zip(others) {
            assert_eq!(other.await.unwrap(), n);
        }
        kept.borrow_mut().clear();
        drop((a, b));
        quiet().await;
    });
}

#[test]
fn whoever_selects_takes_the_first_and_drops_the_other() {
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        for round in 0..50u8 {
            let recv = a.read(Vec::with_capacity(1));
            let sleep =
                pelton::time::sleep(Duration::from_secs(if round % 2 == 0 { 100 } else { 0 }));
            if round % 2 == 0 {
                b.send_all([round]).await.unwrap();
            }
            let (mut recv, mut sleep) = (Box::pin(recv), Box::pin(sleep));
            let first = poll_fn(|cx| {
                if let Poll::Ready((read, buf)) = recv.as_mut().poll(cx) {
                    return Poll::Ready(Some((read.unwrap(), buf)));
                }
                sleep.as_mut().poll(cx).map(|()| None)
            })
            .await;
            assert_eq!(first, (round % 2 == 0).then(|| (1, vec![round])));
        }
        quiet().await;
    });
}

#[test]
fn another_executor_may_poll_what_is_in_flight_here() {
    // One that runs inside a task of this reactor: its own queue, its own wakers.
    inside_each_backend(|_| async {
        let (a, b) = pair().await;
        let (a, b) = (Rc::new(a), Rc::new(b));
        let mut futures: Vec<Boxed<()>> = Vec::new();
        for _ in 0..2 {
            let (a, b) = (a.clone(), b.clone());
            futures.push(Box::pin(async move {
                for _ in 0..100 {
                    a.send_all("ping").await.unwrap();
                    pelton::yield_now().await;
                }
                drop(b);
            }));
        }
        futures.push(Box::pin(async move {
            assert_eq!(common::read_n(&b, 800).await, b"ping".repeat(200));
        }));
        join_all(futures).await;
    });
}

#[test]
fn a_connection_that_outlives_its_runtime_gives_errors_and_closes() {
    on_each_backend(|backend| {
        for in_flight in [false, true] {
            let before = open_descriptors();
            let runtime = runtime(backend);
            let (stream, mut client) = runtime.block_on(async {
                let (stream, client) = pair_with_std().await;
                if in_flight {
                    // Something is under way in both directions, and its futures are gone.
                    let mut recv = Box::pin(stream.recv());
                    let mut read = Box::pin(stream.read([0u8; 4]));
                    let mut send = Box::pin(stream.write_all(pattern(8 << 20)));
                    assert!(
                        poll_fn(|cx| Poll::Ready(
                            recv.as_mut().poll(cx).is_pending()
                                && read.as_mut().poll(cx).is_pending()
                                && send.as_mut().poll(cx).is_pending()
                        ))
                        .await
                    );
                }
                (stream, client)
            });
            drop(runtime);
            let ended = |error: std::io::Error| {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                assert!(error.to_string().contains("has ended"), "{error}");
            };
            let again = common::runtime(backend);
            if !in_flight {
                ended(again.block_on(stream.recv()).unwrap_err());
                ended(again.block_on(stream.read([0u8; 4])).0.unwrap_err());
                let (sent, buf) = again.block_on(stream.write_all(vec![1, 2]));
                ended(sent.unwrap_err());
                assert_eq!(buf, [1, 2], "the buffer comes back in any case");
                ended(again.block_on(stream.readable()).unwrap_err());
                ended(again.block_on(stream.shutdown(std::net::Shutdown::Both)).unwrap_err());
                assert!(common::park_on(stream.recv()).is_err(), "on any executor");
            }
            stream.peer_addr().unwrap();
            drop(stream);
            drop(again);
            // The last object that held the reactor has gone, and all of it with it.
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest);
            drop(client);
            assert_eq!(open_descriptors(), before);
        }
    });
}

#[test]
fn of_several_objects_that_outlive_their_runtime_each_closes_when_it_is_dropped() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let (first, mut one, second, mut two, listener) = runtime.block_on(async {
            let (first, one) = pair_with_std().await;
            let (second, two) = pair_with_std().await;
            // A receive that was dropped stays with its connection.
            let mut recv = Box::pin(first.recv());
            assert!(poll_fn(|cx| Poll::Ready(recv.as_mut().poll(cx).is_pending())).await);
            drop(recv);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            (first, one, second, two, listener)
        });
        let address = listener.local_addr().unwrap();
        drop(runtime);
        drop(first);
        assert_eq!(one.read(&mut [0]).unwrap(), 0, "the peer sees the end");
        drop(listener);
        assert!(std::net::TcpStream::connect(address).is_err());
        drop(second);
        assert_eq!(two.read(&mut [0]).unwrap(), 0, "the peer sees the end");
    });
}

#[test]
fn everything_else_that_outlives_its_runtime_does_too() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let (listener, file, poll_stream, halves, lease, signal) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut accept = Box::pin(listener.accept());
            assert!(poll_fn(|cx| Poll::Ready(accept.as_mut().poll(cx).is_pending())).await);
            drop(accept);
            let file = pelton::fs::File::open("Cargo.toml").await.unwrap();
            let (a, b) = pair().await;
            a.send_all("kept").await.unwrap();
            let lease = b.recv().await.unwrap().unwrap();
            let mut poll_stream = PollStream::new(a);
            poll_fn(|cx| poll_stream.poll_write(cx, &pattern(1 << 17))).await.unwrap();
            let signal = pelton::signal::signal(common::SIGNAL).unwrap();
            (listener, file, poll_stream, b.into_split(), lease, signal)
        });
        drop(runtime);
        assert_eq!(&*lease, b"kept", "a lease stays readable");
        assert!(common::park_on(listener.accept()).is_err());
        assert!(common::park_on(file.read_at([0u8; 8], 0)).0.is_err());
        let (mut poll_stream, (read, mut write), mut signal) = (poll_stream, halves, signal);
        assert!(common::park_on(write.send_all("x")).is_err());
        let failed = common::park_on(poll_fn(|cx| {
            std::task::ready!(poll_stream.poll_flush(cx))?;
            poll_stream.poll_recv(cx).map_ok(drop)
        }));
        assert!(failed.is_err());
        assert!(common::park_on(signal.recv()).is_err());
        drop((read, write, poll_stream, file, listener, lease, signal));
    });
}

#[test]
fn a_future_in_flight_that_outlives_its_runtime_ends_with_an_error() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let mut futures: Vec<Boxed<bool>> = runtime.block_on(async {
            let (a, b) = pair().await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let file = pelton::fs::File::open("Cargo.toml").await.unwrap();
            let mut futures: Vec<Boxed<bool>> = vec![
                Box::pin(async move { a.recv().await.is_err() }),
                Box::pin(async move { b.read([0u8; 4]).await.0.is_err() }),
                Box::pin(async move { listener.accept().await.is_err() }),
                // It may have been read before the end.
                Box::pin(async move {
                    let _ = file.read_at([0u8; 4], 0).await;
                    true
                }),
            ];
            poll_fn(|cx| {
                futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            futures
        });
        assert!(futures.len() >= 3, "they are in flight");
        drop(runtime);
        for future in &mut futures {
            assert!(common::park_on(future.as_mut()), "it says that its reactor has ended");
        }
    });
}

#[test]
fn a_runtime_can_be_used_while_objects_of_another_live_on_the_same_thread() {
    on_each_backend(|backend| {
        let (first, second) = (runtime(backend), runtime(backend));
        let (a, b) = first.block_on(pair());
        second.block_on(async {
            let (c, d) = pair().await;
            c.send_all("of the second").await.unwrap();
            assert_eq!(&*d.recv().await.unwrap().unwrap(), b"of the second");
        });
        first.block_on(async {
            a.send_all("of the first").await.unwrap();
            assert_eq!(&*b.recv().await.unwrap().unwrap(), b"of the first");
        });
        drop(second);
        first.block_on(async move {
            a.send_all("still").await.unwrap();
            assert_eq!(&*b.recv().await.unwrap().unwrap(), b"still");
        });
    });
}

#[test]
fn dropping_a_buffer_may_use_the_reactor_again() {
    // A buffer whose drop spawns a task that submits, inside a dispatch.
    struct Spawns(Vec<u8>, Rc<RefCell<Vec<pelton::JoinHandle<()>>>>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            let address = "127.0.0.1:1";
            self.1.borrow_mut().push(pelton::spawn(async move {
                assert!(TcpStream::connect(address).await.is_err());
                pelton::time::sleep(Duration::from_micros(10)).await;
            }));
        }
    }
    impl pelton::driver::IoBuf for Spawns {
        fn as_init(&self) -> &[u8] {
            &self.0
        }
    }
    inside_each_backend(|_| async {
        let spawned = Rc::default();
        for round in 0..20 {
            let (stream, client) = pair_with_std().await;
            let mut send =
                Box::pin(stream.write_all(Spawns(vec![1; 8 << 20], Rc::clone(&spawned))));
            assert!(poll_fn(|cx| Poll::Ready(send.as_mut().poll(cx).is_pending())).await);
            if round % 2 == 0 {
                pelton::yield_now().await;
            }
            drop(send);
            drop((stream, client));
        }
        quiet().await;
        let tasks = spawned.take();
        assert_eq!(tasks.len(), 20, "each buffer was dropped once");
        for task in tasks {
            task.await.unwrap();
        }
        quiet().await;
    });
}

#[cfg(unix)]
#[test]
fn a_first_poll_that_panics_keeps_no_foreign_waker() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::Pin;

    use pelton::driver::{Interest, Seam};
    inside_each_backend(|_| async {
        let (reader, _writer) = std::io::pipe().unwrap();
        let reader = pelton::own::Descriptor::new(std::os::fd::OwnedFd::from(reader)).unwrap();
        let waker = CountingWaker::new();
        let task_waker = Waker::from(waker.clone());
        let base = Arc::strong_count(&waker);
        for _ in 0..3 {
            fn on_purpose<T>() -> T {
                std::panic::resume_unwind(Box::new("on purpose"))
            }
            let mut call: Pin<Box<dyn Future<Output = _>>> = match pelton::own::seam().unwrap() {
                // SAFETY: it is never submitted.
                Seam::Ring => Box::pin(unsafe { reader.entry((), |(), _| on_purpose()) }),
                _ => Box::pin(reader.when_ready(Interest::Readable, (), |(), _| on_purpose())),
            };
            let mut cx = Context::from_waker(&task_waker);
            let poll = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut cx).is_ready()));
            assert!(poll.is_err(), "the first poll begins the call");
            drop(call);
        }
        for _ in 0..3 {
            pelton::yield_now().await;
        }
        assert_eq!(Arc::strong_count(&waker), base, "wakers of what never began are kept");
        reader.close().await.unwrap();
        quiet().await;
    });
}
