//! Echo and timers: clients that are idle for long, and now and then send a stream that a server sends back;
//! every byte is looked at on both ends, and every sleep, interval and time limit by the clock.

use std::io;
use std::time::Duration;

use pelton::net::{TcpListener, TcpStream};
use pelton::sim::Sim;
use pelton::time;

use crate::hosted::{must, pause};
use crate::pattern;

const SERVERS: usize = 2;
const CLIENTS: usize = 3;
const ROUNDS: u64 = 4;

pub(crate) fn scenario(sim: &Sim) {
    for server in 0..SERVERS {
        sim.host(&format!("server{server}"), serve);
    }
    for number in 0..CLIENTS {
        let idle = sim.choose("idle", 4, |n| format!("client {number} was idle {n}"));
        sim.client(
            &format!("client{number}"),
            client(number, [7, 600, 3_600, 20_000][idle as usize]),
        );
    }
}

pub(crate) async fn listen() -> TcpListener {
    loop {
        match TcpListener::bind("0.0.0.0:80").await {
            Ok(listener) => return listener,
            // Out of descriptors: the faults of this seed.
            Err(_) => pause().await,
        }
    }
}

async fn serve() -> io::Result<()> {
    let listener = listen().await;
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            pause().await;
            continue;
        };
        pelton::spawn(async move {
            let key = pattern::direction(pattern::connection(peer), true);
            let mut offset = 0;
            while let Ok(Some(bytes)) = stream.recv().await {
                must!(pattern::matches(key, offset, &bytes), "the server got other bytes");
                offset += bytes.len() as u64;
                if stream.send_all(bytes).await.is_err() {
                    break;
                }
            }
        })
        .detach();
    }
}

async fn sleep(span: Duration) {
    let until = time::now() + span;
    time::sleep(span).await;
    must!(time::now() >= until, "a sleep ended early");
}

async fn timers() {
    let mut interval = time::interval(Duration::from_millis(700));
    let first = interval.tick().await;
    for n in 1..4 {
        let tick = interval.tick().await;
        must!(tick >= first + n * Duration::from_millis(700), "an interval ticked early");
    }
    let until = time::now() + Duration::from_millis(30);
    let limited = time::timeout(Duration::from_millis(30), time::sleep(Duration::from_secs(60)));
    must!(limited.await.is_err(), "a minute passed in 30 ms");
    must!(time::now() >= until, "a time limit was over early");
}

async fn client(number: usize, idle: u64) -> io::Result<()> {
    let mut rounds = 0;
    while rounds < ROUNDS {
        sleep(Duration::from_secs(idle + number as u64)).await;
        timers().await;
        let server = format!("server{}:80", pelton::random() % SERVERS as u64);
        let connect = time::timeout(Duration::from_secs(60), TcpStream::connect(server));
        let Ok(Ok(stream)) = connect.await else { continue };
        let Ok(local) = stream.local_addr() else { continue };
        let key = pattern::direction(pattern::connection(local), true);
        if round(&stream, key).await.is_some() {
            rounds += 1;
        }
    }
    Ok(())
}

/// Sends a stream and gets it back; none where the connection broke.
async fn round(stream: &TcpStream, key: u64) -> Option<()> {
    let mut offset = 0;
    for _ in 0..4 {
        let len = 1 + pelton::random() as usize % 3_000;
        let sent = stream.send_all(pattern::bytes(key, offset, len)).await;
        sent.ok()?;
        let mut back = 0;
        while back < len {
            let received = time::timeout(Duration::from_secs(90), stream.recv()).await;
            let bytes = received.ok()?.ok()??;
            let at = offset + back as u64;
            must!(pattern::matches(key, at, &bytes), "what came back is not what was sent");
            back += bytes.len();
        }
        must!(back == len, "more came back than was sent");
        offset += len as u64;
        sleep(Duration::from_millis(pelton::random() % 500)).await;
    }
    Some(())
}
