//! A receive that is dropped loses nothing: the next one goes on with it.

mod common;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use common::{inside_each_backend, pair};

/// Polls a future once, and drops it if it is not ready.
async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn bytes_that_arrive_while_nobody_receives_are_the_next_ones() {
    inside_each_backend(|_| async {
        let (server, client) = pair().await;
        let mut received = Vec::new();
        let mut dropped = 0;
        for n in 0..200_u8 {
            // In flight before anything comes, and dropped.
            assert!(once(server.recv()).await.is_none(), "nothing has been sent yet");
            dropped += 1;
            client.send_all(vec![n; 3]).await.unwrap();
            // Long enough for the bytes to be received by what was left in flight.
            while pelton::Handle::current().snapshot().buffers_in_use == 0 && n % 2 == 0 {
                pelton::yield_now().await;
            }
            let mut chunk = 0;
            while chunk < 3 {
                // Any of the ways to receive goes on with it.
                chunk += match n % 4 {
                    0 | 1 => {
                        let lease = server.recv().await.unwrap().expect("the stream goes on");
                        received.extend_from_slice(&lease);
                        lease.len()
                    }
                    2 => {
                        let (read, buf) = server.read(Vec::with_capacity(2)).await;
                        received.extend_from_slice(&buf);
                        read.unwrap()
                    }
                    _ => {
                        server.readable().await.unwrap();
                        let parts = [Vec::with_capacity(1), Vec::with_capacity(1)];
                        let (read, parts) = server.read_vectored(parts).await;
                        received.extend_from_slice(&parts.concat());
                        read.unwrap()
                    }
                };
            }
        }
        assert_eq!(dropped, 200);
        let sent: Vec<u8> = (0..200_u8).flat_map(|n| [n; 3]).collect();
        assert_eq!(received, sent);
    });
}

#[test]
fn the_end_of_the_stream_is_not_lost_with_a_dropped_receive() {
    inside_each_backend(|_| async {
        let (server, client) = pair().await;
        assert!(once(server.recv()).await.is_none());
        drop(client);
        assert!(server.recv().await.unwrap().is_none());
        assert!(server.recv().await.unwrap().is_none());
    });
}

#[test]
fn a_connection_that_is_dropped_gives_up_the_receive_that_was_left() {
    inside_each_backend(|_| async {
        let (server, client) = pair().await;
        assert!(once(server.recv()).await.is_none());
        let handle = pelton::Handle::current();
        let pooled = pelton::driver::Kind::RecvPooled;
        assert_eq!(handle.snapshot().in_flight_of(pooled), 1);
        drop(server);
        assert!(client.recv().await.unwrap().is_none(), "the peer sees the close");
        assert_eq!(handle.snapshot().in_flight_of(pooled), 0);
    });
}

#[test]
fn a_buffer_without_room_is_refused_and_nothing_is_lost() {
    inside_each_backend(|_| async {
        let (server, client) = pair().await;
        assert!(once(server.recv()).await.is_none());
        client.send_all("abc").await.unwrap();
        let (refused, buf) = server.read(Vec::new()).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(buf.is_empty());
        assert_eq!(&*server.recv().await.unwrap().expect("still there"), b"abc");
    });
}
