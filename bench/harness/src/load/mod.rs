//! The load: connections to one server, driven for a while at a time.
//!
//! The client must cost less than the server and must not disturb it: it runs on a processor of its
//! own, it spins instead of sleeping so that no server pays for waking it, and it keeps nothing of
//! what it receives. What servers answer is checked apart from the measurement, by [`check`].

pub(crate) mod check;
mod churn;
mod exchange;
mod http;
mod ring;
mod sockets;

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::cells::{Cell, Client, Load};
use crate::error::Result;
pub(crate) use churn::Churn;
pub(crate) use exchange::Exchange;

/// What a stretch of load did.
pub(crate) struct Driven {
    /// Answered requests, or closed connections where these are the request.
    pub(crate) requests: u64,
    pub(crate) wall: Duration,
    /// The part of it in which the client had nothing to do.
    pub(crate) idle: Duration,
    /// In nanoseconds, from the moment that each request was meant to be sent.
    pub(crate) latency: Histogram<u64>,
}

/// The connections of one cell to one server.
pub(crate) enum Driver {
    Exchange(Box<Exchange>),
    Churn(Box<Churn>),
}

impl Driver {
    pub(crate) fn connect(cell: &Cell, addr: SocketAddr) -> Result<Self> {
        Ok(match cell.load {
            Load::Churn { exchanges } => {
                Driver::Churn(Box::new(Churn::new(addr, cell.connections, exchanges)?))
            }
            load => {
                let mut exchange = Exchange::connect(addr, load, cell.connections)?;
                exchange.pace(cell.pace);
                exchange.sleeps(cell.client != Client::Spins);
                Driver::Exchange(Box::new(exchange))
            }
        })
    }

    /// Loads the server for this long, then waits for what is still under way.
    pub(crate) fn drive(&mut self, duration: Duration) -> Result<Driven> {
        match self {
            Driver::Exchange(exchange) => exchange.drive(duration),
            Driver::Churn(churn) => churn.drive(duration),
        }
    }
}

/// Latencies of up to a minute, to three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds that are in order")
}

/// How long a server may be silent before the load gives up on it.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::cells::{self, Pace};

    /// Echoes on every connection until its end; the thread ends with the process.
    fn echo_server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                std::thread::spawn(move || {
                    let mut piece = [0; 1500];
                    while let Ok(length @ 1..) = stream.read(&mut piece) {
                        if stream.write_all(&piece[..length]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        addr
    }

    fn cell(load: Load, connections: usize) -> Cell {
        let cell = cells::all().swap_remove(0);
        Cell { load, connections, pace: Pace::Closed, client: Client::Sleeps, ..cell }
    }

    /// No time to go on: every connection makes what it does at once, and the answers are awaited.
    fn one_turn(cell: &Cell, addr: SocketAddr) -> Driven {
        let mut driver = Driver::connect(cell, addr).expect("a connection");
        driver.drive(Duration::ZERO).expect("every answer")
    }

    #[test]
    fn every_echo_is_counted_once_in_whatever_pieces_it_comes() {
        let addr = echo_server();
        for (size, depth) in [(64, 1), (64, 16), (1, 3), (16384, 1), (5000, 2)] {
            let driven = one_turn(&cell(Load::Echo { size, depth }, 5), addr);
            assert_eq!(driven.requests, 5 * depth as u64, "{size} B, {depth} deep");
            assert_eq!(driven.latency.len(), driven.requests);
        }
    }

    #[test]
    fn short_connections_are_counted_by_exchange_or_by_themselves() {
        let addr = echo_server();
        for (exchanges, requests) in [(0, 4), (1, 4), (10, 40)] {
            let driven = one_turn(&cell(Load::Churn { exchanges }, 4), addr);
            assert_eq!(driven.requests, requests, "{exchanges} exchanges");
        }
    }

    #[test]
    fn echoes_and_short_connections_pass_the_check_and_a_liar_does_not() {
        check::echo("honest", echo_server()).expect("an echo");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            while let Ok(1..) = stream.read(&mut [0; 1]) {
                if stream.write_all(b"x").is_err() {
                    return;
                }
            }
        });
        let error = check::echo("liar", addr).expect_err("wrong bytes").to_string();
        assert!(error.contains("liar") && error.contains("byte 0"), "{error}");
    }

    #[test]
    fn a_server_that_closes_ends_the_load_with_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        std::thread::spawn(move || drop(listener.accept()));
        let mut driver = Driver::connect(&cell(Load::Echo { size: 64, depth: 1 }, 1), addr)
            .expect("a connection");
        let error = driver.drive(Duration::ZERO).err().expect("a closed connection").to_string();
        assert!(error.contains("closed 1 connection"), "{error}");
    }
}
