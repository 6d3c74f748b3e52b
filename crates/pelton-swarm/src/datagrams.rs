//! Datagrams: servers that several tasks receive for, clients with and without connections, sizes from nothing to
//! all that a packet holds, receives that are dropped at any moment, a server that loses power. A ledger knows what
//! was sent: whatever is received was sent to that address, by that sender, is whole or told to be cut, and comes
//! no more often than the faults of the seed allow.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use pelton::net::{Control, Received, ToSocketAddrs, UdpSocket};
use pelton::sim::{Failure, Fault, Sim};
use pelton::time;

use crate::hosted::{must, pause};
use crate::{Options, Stats, hosted, pattern};

const CLIENTS: u64 = 3;
const ROUNDS: u64 = 6;
const PORT: u16 = 53;
/// Where nobody is.
const NOBODY: u16 = 9;
/// What a datagram begins with: its number, twice, so that a cut cannot hide it.
const HEAD: usize = 16;
/// More tries than any loss of these worlds makes necessary.
const TRIES: u32 = 400;

thread_local! {
    static COPIES: Cell<u32> = const { Cell::new(1) };
}

pub(crate) fn run(seed: u64, options: &Options) -> Result<Stats, Box<Failure>> {
    let twice = options.replay.is_some() || options.faults.of(seed).rate(Fault::DatagramTwice) > 0;
    COPIES.set(if twice { 2 } else { 1 });
    hosted::run(seed, options, 24 * 60, scenario)
}

fn scenario(sim: &Sim) {
    let ledger = Ledger::default();
    let copy = ledger.clone();
    sim.host("server", move || serve(copy.clone()));
    for number in 0..CLIENTS {
        sim.client(&format!("client{number}"), client(ledger.clone()));
    }
    if sim.choose("power", 3, |_| "the server lost power".into()) == 1 {
        sim.at(Duration::from_millis(200), |sim| sim.crash("server"));
        sim.at(Duration::from_secs(2), |sim| sim.restart("server"));
    }
}

/// A datagram that was sent.
struct Sent {
    /// The port of whoever sent it, and its address as soon as one has been seen.
    from: (Option<IpAddr>, u16),
    to: SocketAddr,
    len: usize,
    received: u32,
}

/// Everything that was sent, by all.
#[derive(Clone, Default)]
struct Ledger {
    sent: Rc<RefCell<HashMap<u64, Sent>>>,
    /// Which question an answer is for.
    answers: Rc<RefCell<HashMap<u64, u64>>>,
}

impl Ledger {
    /// Writes a datagram of `len` bytes down before it is sent, and makes it.
    fn make(&self, from: u16, to: SocketAddr, len: usize) -> (u64, Vec<u8>) {
        let number = self.sent.borrow().len() as u64 + 1;
        let mut bytes = pattern::bytes(number, 0, len.max(HEAD));
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..HEAD].copy_from_slice(&pattern::mix(number).to_le_bytes());
        let sent = Sent { from: (None, from), to, len: bytes.len(), received: 0 };
        self.sent.borrow_mut().insert(number, sent);
        (number, bytes)
    }

    /// Looks at a datagram that has come: its number, or none for one of no bytes.
    fn look(
        &self,
        bytes: &[u8],
        received: &Received,
        to: Option<IpAddr>,
        port: u16,
    ) -> Option<u64> {
        must!(received.len == bytes.len(), "{} bytes of {}", bytes.len(), received.len);
        if bytes.is_empty() && !received.truncated {
            return None;
        }
        let head = bytes.first_chunk::<8>().copied().map_or(0, u64::from_le_bytes);
        let mut ledger = self.sent.borrow_mut();
        let Some(sent) = ledger.get_mut(&head) else {
            must!(false, "{} bytes came that nobody sent", bytes.len());
            return None;
        };
        let check = pattern::mix(head).to_le_bytes();
        let rest = bytes.get(HEAD..).unwrap_or_default();
        must!(bytes.get(8..HEAD) == Some(&check), "datagram {head} came with another head");
        must!(pattern::matches(head, HEAD as u64, rest), "datagram {head} came with other bytes");
        must!(
            received.truncated == (bytes.len() < sent.len),
            "datagram {head} of {} bytes came with {}, and cut: {}",
            sent.len,
            bytes.len(),
            received.truncated
        );
        must!(received.whole_len == Some(sent.len), "datagram {head} has another length");
        must!(to.is_none_or(|to| to == sent.to.ip()), "datagram {head} came to {to:?}");
        must!(port == sent.to.port(), "datagram {head} came to port {port}");
        let from = received.from.map(|from| (from.ip(), from.port()));
        let known = sent.from.0.or(from.map(|from| from.0));
        must!(from == known.map(|ip| (ip, sent.from.1)), "datagram {head} came from {from:?}");
        sent.from.0 = known;
        sent.received += 1;
        let most = COPIES.get();
        must!(sent.received <= most, "datagram {head} came {} times", sent.received);
        Some(head)
    }
}

async fn bind(address: &str) -> UdpSocket {
    loop {
        match UdpSocket::bind(address).await {
            Ok(socket) => return socket,
            // Out of descriptors: the faults of this seed.
            Err(_) => pause().await,
        }
    }
}

async fn serve(ledger: Ledger) -> io::Result<()> {
    let socket = Rc::new(bind("0.0.0.0:53").await);
    socket.set_recv_packet_info(true)?;
    let workers: Vec<_> =
        (0..3).map(|_| pelton::spawn(answer(socket.clone(), ledger.clone()))).collect();
    for worker in workers {
        let _ = worker.await;
    }
    Ok(())
}

/// Receives and answers, for ever. An answer is a datagram of its own that names the question.
async fn answer(socket: Rc<UdpSocket>, ledger: Ledger) {
    loop {
        let room = if pelton::random().is_multiple_of(8) { HEAD + 100 } else { 65_536 };
        let parts = [Vec::with_capacity(HEAD), Vec::with_capacity(room - HEAD)];
        let recv = socket.recv_msg(parts, Control::with_capacity(64));
        if pelton::random().is_multiple_of(6) {
            // Given up: a datagram may go with it.
            let _ = time::timeout(Duration::from_micros(pelton::random() % 900), recv).await;
            continue;
        }
        let (received, parts, control) = recv.await;
        let Ok(received) = received else {
            pause().await;
            continue;
        };
        let to = control.iter().find_map(|message| message.packet_info()).map(|info| info.0);
        must!(to.is_some(), "a datagram came without what was asked for");
        let Some(question) = ledger.look(&parts.concat(), &received, to, PORT) else { continue };
        let (Some(from), Some(to)) = (received.from, to) else { continue };
        let (number, bytes) = ledger.make(PORT, from, HEAD + 8);
        ledger.answers.borrow_mut().insert(number, question);
        let mut control = Control::with_capacity(64);
        // From the address that was asked, which is what this is for.
        if control.push_source(to, 0).is_ok() {
            let _ = socket.send_msg([bytes], Some(from), control).await;
        }
    }
}

async fn client(ledger: Ledger) -> io::Result<()> {
    let addresses = "server:53".to_addresses().resolve().await?;
    let server = addresses[0];
    for round in 0..ROUNDS {
        let socket = bind("0.0.0.0:0").await;
        let Ok(own) = socket.local_addr() else { continue };
        let connected = pelton::random().is_multiple_of(2);
        if connected {
            refused(&socket, SocketAddr::new(server.ip(), NOBODY)).await;
            let connect = socket.connect(server).await;
            must!(connect.is_ok(), "a socket could not be connected: {connect:?}");
        }
        let answered = ask(&socket, &ledger, own.port(), server, connected).await;
        must!(answered, "round {round}: no answer after {TRIES} questions");
        time::sleep(Duration::from_millis(pelton::random() % 400)).await;
    }
    Ok(())
}

/// Asks until it is answered.
async fn ask(
    socket: &UdpSocket,
    ledger: &Ledger,
    port: u16,
    server: SocketAddr,
    connected: bool,
) -> bool {
    let mut asked = Vec::new();
    for _ in 0..TRIES {
        let len = match pelton::random() % 8 {
            0 => 65_507,
            1 => 20_000,
            _ => HEAD + pelton::random() as usize % 1_400,
        };
        let (number, bytes) = ledger.make(port, server, len);
        asked.push(number);
        let sent = match (connected, pelton::random() % 3) {
            (true, _) => socket.send(bytes).await.0,
            (false, 0) => {
                socket.send_to("", server).await.0.and(socket.send_to(bytes, server).await.0)
            }
            (false, 1) => {
                let (head, tail) = bytes.split_at(HEAD);
                let parts = [head.to_vec(), tail.to_vec()];
                socket.send_msg(parts, Some(server), Control::none()).await.0
            }
            (false, _) => socket.send_to(bytes, server).await.0,
        };
        match sent {
            Ok(n) => must!(n == len.max(HEAD), "{n} bytes of {len} were sent"),
            // The server was down for an earlier one.
            Err(error) => {
                let refused = connected && error.kind() == ErrorKind::ConnectionRefused;
                must!(refused, "a datagram could not be sent: {error}");
            }
        }
        let limit = Duration::from_millis(30 + pelton::random() % 300);
        let recv = socket.recv_msg([Vec::with_capacity(2048)], Control::none());
        let Ok((received, parts, _)) = time::timeout(limit, recv).await else { continue };
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                let refused = connected && error.kind() == ErrorKind::ConnectionRefused;
                must!(refused, "a receive failed: {error}");
                pause().await;
                continue;
            }
        };
        if connected {
            must!(received.from == Some(server), "a connected socket heard {:?}", received.from);
        }
        let Some(answer) = ledger.look(&parts[0], &received, None, port) else { continue };
        let question = ledger.answers.borrow().get(&answer).copied();
        must!(question.is_some_and(|q| asked.contains(&q)), "an answer to a question of nobody");
        return true;
    }
    false
}

/// A port where nobody is: the next call may say so, and the socket goes on.
async fn refused(socket: &UdpSocket, nobody: SocketAddr) {
    if socket.connect(nobody).await.is_err() {
        return;
    }
    let _ = socket.send("anybody?").await;
    let recv = time::timeout(Duration::from_millis(50), socket.recv([0; 16])).await;
    if let Ok((received, _)) = recv {
        let error = received.err().map(|error| error.kind());
        must!(error == Some(ErrorKind::ConnectionRefused), "nobody answered: {error:?}");
    }
}
