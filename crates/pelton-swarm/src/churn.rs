//! Churn: a listener with room for one, clients that come all at once and leave in every manner: at once, after
//! half a close, both sides together, without reading, or reading one byte at a time.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use pelton::driver::ListenOptions;
use pelton::net::{TcpListener, TcpStream};
use pelton::sim::Sim;
use pelton::time;

use crate::hosted::{must, pause};
use crate::pattern;

const CLIENTS: usize = 4;
const VISITS: u64 = 8;
/// Bytes that each side sends.
const LEN: usize = 9_000;

pub(crate) fn scenario(sim: &Sim) {
    let backlog =
        if sim.choose("roomy", 2, |_| "the backlog was large".into()) == 0 { 1 } else { 64 };
    sim.host("server", move || serve(backlog));
    for number in 0..CLIENTS {
        sim.client(&format!("client{number}"), client());
    }
}

async fn serve(backlog: i32) -> io::Result<()> {
    let options = ListenOptions { backlog, ..ListenOptions::default() };
    let listener = loop {
        match TcpListener::bind_with("0.0.0.0:80", options).await {
            Ok(listener) => break listener,
            Err(_) => pause().await,
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                pelton::spawn(visit(stream, pattern::connection(peer), false)).detach();
            }
            Err(_) => pause().await,
        }
    }
}

async fn client() -> io::Result<()> {
    let mut visits = 0;
    while visits < VISITS {
        let connect = time::timeout(Duration::from_secs(70), TcpStream::connect("server:80"));
        let Ok(Ok(stream)) = connect.await else {
            pause().await;
            continue;
        };
        let Ok(local) = stream.local_addr() else { continue };
        let limit = Duration::from_secs(60);
        let _ = time::timeout(limit, visit(stream, pattern::connection(local), true)).await;
        visits += 1;
    }
    Ok(())
}

/// One side of a connection: what it does with it is as random as the other's.
async fn visit(stream: TcpStream, connection: u64, client: bool) {
    let (out, inward) =
        (pattern::direction(connection, client), pattern::direction(connection, !client));
    match pelton::random() % 7 {
        // Leaves at once.
        0 => {}
        // Never reads.
        1 => {
            let _ = stream.send_all(pattern::bytes(out, 0, LEN)).await;
            time::sleep(Duration::from_millis(40)).await;
        }
        // Closes for writing first, and reads what comes.
        2 => {
            let _ = stream.send_all(pattern::bytes(out, 0, LEN / 3)).await;
            let _ = stream.shutdown(Shutdown::Write).await;
            read(&stream, inward, 4_000).await;
        }
        // Reads drop by drop.
        3 => {
            let _ = stream.send_all(pattern::bytes(out, 0, 100)).await;
            read_slowly(&stream, inward).await;
        }
        // A reset.
        4 => {
            let _ = stream.set_linger(Some(Duration::ZERO));
            let _ = stream.send_all(pattern::bytes(out, 0, 500)).await;
        }
        // Both directions at once, closed together.
        _ => {
            let (mut reader, mut writer) = stream.into_split();
            let writing = pelton::spawn(async move {
                let mut sent = 0;
                while sent < LEN {
                    let len = 1 + pelton::random() as usize % 2_000;
                    let bytes = pattern::bytes(out, sent as u64, len.min(LEN - sent));
                    let n = bytes.len();
                    if writer.send_all(bytes).await.is_err() {
                        return;
                    }
                    sent += n;
                }
                let _ = writer.shutdown().await;
            });
            let mut offset = 0;
            while let Ok(Some(bytes)) = reader.recv().await {
                check(inward, &mut offset, &bytes);
            }
            writing.abort();
        }
    }
}

fn check(key: u64, offset: &mut u64, bytes: &[u8]) {
    must!(pattern::matches(key, *offset, bytes), "bytes of another stream at {offset}");
    *offset += bytes.len() as u64;
    must!(*offset <= LEN as u64, "more came than was sent");
}

async fn read(stream: &TcpStream, key: u64, room: usize) {
    let mut offset = 0;
    let mut buffer = Vec::with_capacity(room);
    loop {
        let (read, back) = stream.read(buffer).await;
        buffer = back;
        match read {
            Ok(n) if n > 0 => check(key, &mut offset, &buffer),
            _ => return,
        }
        buffer.clear();
    }
}

async fn read_slowly(stream: &TcpStream, key: u64) {
    let mut offset = 0;
    for _ in 0..40 {
        let (read, byte) = stream.read([0; 1]).await;
        match read {
            Ok(1) => check(key, &mut offset, &byte),
            _ => return,
        }
        time::sleep(Duration::from_millis(1)).await;
    }
}
