//! Datagrams: every way to send and receive them, and sockets that are shared and given away.

mod common;

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{inside_each_backend, quiet};
use pelton::net::{Control, UdpSocket};

async fn bound() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn datagrams_find_their_way_and_say_where_they_come_from() {
    inside_each_backend(|_| async {
        let ((one, from), (other, to)) = (bound().await, bound().await);
        for n in 0..20_u8 {
            let (sent, buf) = one.send_to(vec![n; 5], to).await;
            assert_eq!((sent.unwrap(), buf), (5, vec![n; 5]));
            let (received, buf) = other.recv_from(Vec::with_capacity(16)).await;
            assert_eq!((received.unwrap(), buf), ((5, from), vec![n; 5]));
        }
        assert_eq!(one.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        one.connect(to).await.unwrap();
        other.connect(from).await.unwrap();
        assert_eq!(one.peer_addr().unwrap(), to);
        one.send("connected").await.0.unwrap();
        let (n, buf) = other.recv([0; 16]).await;
        assert_eq!(&buf[..n.unwrap()], b"connected");
        one.send("").await.0.unwrap();
        assert_eq!(other.recv([0; 16]).await.0.unwrap(), 0, "no bytes are no end");
        one.close().await.unwrap();
        quiet().await;
    });
}

#[test]
fn what_is_there_can_be_looked_at_and_taken_at_once() {
    inside_each_backend(|_| async {
        let ((one, from), (other, to)) = (bound().await, bound().await);
        let mut buf = Vec::with_capacity(16);
        assert_eq!(other.try_recv(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        one.writable().await.unwrap();
        assert_eq!(one.try_send_to(b"look", to).unwrap(), 4);
        for _ in 0..2 {
            let (looked, buf) = other.peek_from(Vec::with_capacity(16)).await;
            assert_eq!((looked.unwrap(), &buf[..]), ((4, from), &b"look"[..]));
        }
        assert_eq!(other.try_recv_from(&mut buf).unwrap(), (4, from));
        assert_eq!(buf, b"look");
        one.connect(to).await.unwrap();
        assert_eq!(one.try_send(b"again").unwrap(), 5);
        other.readable().await.unwrap();
        assert_eq!(other.try_recv(&mut buf).unwrap(), 5);
        quiet().await;
    });
}

#[test]
fn tasks_that_share_a_socket_each_get_datagrams_of_their_own() {
    inside_each_backend(|_| async {
        let (one, _) = bound().await;
        let (other, to) = bound().await;
        let other = Rc::new(other);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let other = other.clone();
                pelton::spawn(async move {
                    let mut seen = Vec::new();
                    for _ in 0..5 {
                        let (received, buf) = other.recv_from([0; 8]).await;
                        assert_eq!(received.unwrap().0, 1);
                        seen.push(buf[0]);
                    }
                    seen
                })
            })
            .collect();
        for n in 0..20 {
            one.send_to([n], to).await.0.unwrap();
        }
        let mut seen = Vec::new();
        for task in tasks {
            seen.extend(task.await.unwrap());
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
        quiet().await;
    });
}

#[test]
fn a_receive_that_is_dropped_eats_nothing_that_came_later() {
    inside_each_backend(|_| async {
        let ((one, _), (other, to)) = (bound().await, bound().await);
        for n in 0..10_u8 {
            {
                let mut recv = pin!(other.recv_from([0; 16]));
                let polled = recv.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(polled, Poll::Pending), "it waits, or this shows nothing");
                if n % 2 == 0 {
                    pelton::yield_now().await;
                }
            }
            let control = Control::with_capacity(64);
            let limited = pelton::time::timeout(Duration::ZERO, other.recv_msg([[0; 4]], control));
            assert!(limited.await.is_err());
            quiet().await;
            one.send_to([n], to).await.0.unwrap();
            let (received, buf) = other.recv_from([0; 16]).await;
            assert_eq!((received.unwrap().0, buf[0]), (1, n));
        }
    });
}

#[test]
fn nobody_there_is_told_to_a_connected_socket_which_goes_on() {
    inside_each_backend(|_| async {
        let ((deaf, deaf_at), (_elsewhere, elsewhere)) = (bound().await, bound().await);
        deaf.connect(elsewhere).await.unwrap();
        let (one, at) = bound().await;
        one.connect(deaf_at).await.unwrap();
        for _ in 0..3 {
            one.send("anybody?").await.0.unwrap();
            let (error, _) = one.recv([0; 16]).await;
            assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
        deaf.connect(at).await.unwrap();
        one.send("you there").await.0.unwrap();
        assert_eq!(deaf.recv([0; 16]).await.0.unwrap(), 9);
        deaf.send("yes").await.0.unwrap();
        assert_eq!(one.recv([0; 16]).await.0.unwrap(), 3);
        quiet().await;
    });
}

#[test]
fn sockets_come_from_and_go_to_the_standard_library() {
    inside_each_backend(|_| async {
        let std = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (one, to) = (UdpSocket::from_std(std).unwrap(), bound().await);
        let at = one.local_addr().unwrap();
        one.send_to("from std", to.1).await.0.unwrap();
        assert_eq!(to.0.recv_from([0; 16]).await.0.unwrap(), (8, at));
        {
            // Abandoned, and perhaps in flight still.
            let mut recv = pin!(one.recv_from([0; 16]));
            assert!(recv.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let std = one.into_std().await.unwrap();
        assert_eq!(std.local_addr().unwrap(), at);
        assert_eq!(std.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(std.send_to(b"to std", to.1).unwrap(), 6);
        assert_eq!(to.0.recv_from([0; 16]).await.0.unwrap(), (6, at));
        quiet().await;
    });
}

#[test]
fn options_are_remembered() {
    inside_each_backend(|_| async {
        let (socket, _) = bound().await;
        socket.set_ttl(7).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_multicast_loop_v4(false).unwrap();
        socket.set_multicast_ttl_v4(3).unwrap();
        assert_eq!(socket.ttl().unwrap(), 7);
        assert!(socket.broadcast().unwrap() && !socket.multicast_loop_v4().unwrap());
        assert_eq!(socket.multicast_ttl_v4().unwrap(), 3);
        let (group, interface) = ("239.255.77.8".parse().unwrap(), "127.0.0.1".parse().unwrap());
        socket.join_multicast_v4(group, interface).unwrap();
        socket.leave_multicast_v4(group, interface).unwrap();
        assert!(socket.leave_multicast_v4(group, interface).is_err(), "it has left already");
        assert!(socket.with_socket(|socket| socket.recv_buffer_size()).unwrap() > 0);
    });
}

#[test]
fn a_bad_address_is_an_error_that_says_so() {
    inside_each_backend(|_| async {
        let (socket, taken) = bound().await;
        let error = UdpSocket::bind(taken).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let error = UdpSocket::bind("192.0.2.77:0").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert!(UdpSocket::bind("no port").await.is_err());
        let v6 = "[::1]:9".parse().unwrap();
        assert!(socket.send_to("other family", v6).await.0.is_err());
        let (sent, buf) = socket.send_to(vec![0; 70_000], taken).await;
        assert!(sent.is_err());
        assert_eq!(buf.len(), 70_000);
    });
    let outside = UdpSocket::bind_now("127.0.0.1:0".parse().unwrap()).unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::NotConnected);
}
