//! Places: files beyond four gibibytes, and sockets that are waited for in both directions at once by several. What
//! completion ports have numbers and polls of their own for.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pelton::fs::File;
use pelton::net::UdpSocket;
use pelton::sim::Sim;
use pelton::time;

use crate::hosted::{must, pause};
use crate::pattern;

/// A place that takes more than 32 bits.
const FAR: u64 = (5 << 32) + 7;
const LEN: usize = 96;
const ROUNDS: u64 = 6;

pub(crate) fn scenario(sim: &Sim) {
    sim.client("files", files());
    sim.host("echo", echo);
    let to = SocketAddr::new(sim.address("echo"), 7);
    sim.client("waits", waits(to));
}

/// What is written near and far in a file does not mix.
async fn files() -> io::Result<()> {
    for round in 0..ROUNDS {
        let file = loop {
            match File::create(format!("/places{round}")).await {
                Ok(file) => break file,
                Err(_) => pause().await,
            }
        };
        for (key, offset) in [(1, 7_u64), (2, FAR), (3, FAR + (1 << 33))] {
            let bytes = pattern::bytes(key, round, LEN);
            let mut written = 0;
            while written < LEN {
                match file.write_at(bytes[written..].to_vec(), offset + written as u64).await.0 {
                    Ok(n) => written += n,
                    Err(_) => pause().await,
                }
            }
        }
        for (key, offset) in [(1, 7_u64), (2, FAR), (3, FAR + (1 << 33))] {
            let mut back = Vec::new();
            while back.len() < LEN {
                let room = Vec::with_capacity(LEN - back.len());
                match file.read_at(room, offset + back.len() as u64).await {
                    (Ok(0), _) => break,
                    (Ok(n), bytes) => back.extend_from_slice(&bytes[..n]),
                    (Err(_), _) => pause().await,
                }
            }
            must!(
                back == pattern::bytes(key, round, LEN),
                "other bytes are at {offset} than were written there"
            );
        }
    }
    Ok(())
}

async fn bound(address: &str) -> UdpSocket {
    loop {
        match UdpSocket::bind(address).await {
            Ok(socket) => return socket,
            Err(_) => pause().await,
        }
    }
}

async fn echo() -> io::Result<()> {
    let socket = bound("0.0.0.0:7").await;
    loop {
        let (received, buf) = socket.recv_from([0_u8; 16]).await;
        if let Ok((n, from)) = received {
            let _ = socket.send_to(buf[..n].to_vec(), from).await;
        } else {
            pause().await;
        }
    }
}

/// One waits for a datagram, and others wait for room on the same socket, which is there at once, again and again.
async fn waits(to: SocketAddr) -> io::Result<()> {
    let socket = std::rc::Rc::new(bound("0.0.0.0:0").await);
    for round in 0..ROUNDS {
        let waits = socket.clone();
        let receive = pelton::spawn(async move { waits.recv_from([0_u8; 16]).await });
        for _ in 0..3 {
            time::sleep(Duration::from_micros(50)).await;
            let _ = socket.writable().await;
        }
        // A datagram may be lost: another one then.
        while !receive.is_finished() {
            let _ = socket.send_to(vec![round as u8; 3], to).await;
            time::sleep(Duration::from_millis(5)).await;
        }
        let _ = receive.await;
    }
    Ok(())
}
