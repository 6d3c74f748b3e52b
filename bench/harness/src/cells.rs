//! The cells: one load, and the servers that are measured under it.

use std::time::Duration;

use crate::roster::{
    self, AHEAD, AXUM_PELTON, AXUM_TOKIO, BATCHED, HTTP_COMPIO, HTTP_EPOLL, HTTP_TOKIO, HTTP_URING,
    MODES, RAW_BATCHED, RAW_EPOLL, RAW_EPOLL_OWNED, RAW_SINGLE, RAW_URING, TOKIO, URING_LEASED,
};

/// One load and its servers.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) load: Load,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    pub(crate) client: Client,
    /// How long one server is driven for one reading.
    pub(crate) slice: Duration,
    /// In how many turns, between which the others have theirs: what a neighbour does for a moment is then in a part of
    /// many slices, and not in the whole of one.
    pub(crate) turns: u32,
    /// How many times as many slices as usual.
    pub(crate) slices: usize,
    /// The server that the others are divided by.
    pub(crate) reference: &'static str,
    pub(crate) servers: Vec<&'static str>,
    /// The cell belongs to the short run.
    pub(crate) quick: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Load {
    /// `size` bytes there and back, `depth` of them in one send.
    Echo { size: usize, depth: usize },
    /// `depth` requests in one send.
    Http { path: &'static str, depth: usize },
    /// A connection for every `exchanges` echoes of 64 bytes. With none it is only accepted and
    /// closed, and the connection is the request.
    Churn { exchanges: usize },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// The next request follows the answer.
    Closed,
    /// Requests a second, whatever the server does.
    Open { rate: u64 },
}

/// How the client waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Client {
    /// It spins on a processor of its own, so that no server pays for waking it.
    Spins,
    /// It sleeps, as clients do.
    Sleeps,
    /// It sleeps, and the server has every processor.
    SleepsBeside,
}

/// The cells of the decomposition.
pub(crate) const MODES_ONE: &str = "modes-c1";
pub(crate) const MODES_MANY: &str = "modes-c64";

const SLICE: Duration = Duration::from_millis(100);
const TURNS: u32 = 4;
/// Where few requests share a wait, readings spread most: more of them, for quartiles that are known.
const MORE: usize = 2;

impl Cell {
    /// How far the median of the copy may be from 1 before the cell is discarded.
    pub(crate) fn tolerance(&self) -> f64 {
        match self.load {
            Load::Echo { size, depth } if size * depth >= 16384 => 0.025,
            // Not pinned, or thousands of connections: both move more than a saturated echo.
            Load::Http { .. } | Load::Churn { .. } => 0.025,
            Load::Echo { .. } => 0.015,
        }
    }

    pub(crate) fn unit(&self) -> &'static str {
        match self.load {
            Load::Churn { exchanges: 0 } => "connection",
            _ => "request",
        }
    }
}

/// Every cell, in the order of a run.
pub(crate) fn all() -> Vec<Cell> {
    let echo = |id, title, size, depth, connections, quick| Cell {
        id,
        title,
        load: Load::Echo { size, depth },
        connections,
        pace: Pace::Closed,
        client: Client::Spins,
        slice: SLICE,
        turns: TURNS,
        slices: 1,
        reference: RAW_URING,
        servers: echo_servers(),
        quick,
    };
    let open = |id, title, connections, rate| Cell {
        pace: Pace::Open { rate },
        slices: MORE,
        ..echo(id, title, 64, 1, connections, false)
    };
    let modes = |id, title, connections| Cell {
        reference: MODES[0],
        servers: MODES.into(),
        ..echo(id, title, 64, 1, connections, false)
    };
    let http = |id, title, path, depth, connections, quick| Cell {
        id,
        title,
        load: Load::Http { path, depth },
        connections,
        pace: Pace::Closed,
        client: Client::Spins,
        slice: SLICE,
        turns: TURNS,
        slices: 1,
        reference: HTTP_TOKIO,
        servers: vec![HTTP_TOKIO, HTTP_URING, HTTP_EPOLL, HTTP_COMPIO],
        quick,
    };
    vec![
        Cell { slices: MORE, ..echo("echo-64b-c1", "Echo, 64 B, 1 connection", 64, 1, 1, true) },
        echo("echo-64b-c64", "Echo, 64 B, 64 connections", 64, 1, 64, true),
        echo("echo-64b-c512", "Echo, 64 B, 512 connections", 64, 1, 512, false),
        echo("echo-64b-c64-d16", "Echo, 16 × 64 B in one send, 64 connections", 64, 16, 64, false),
        echo("echo-16k-c1", "Echo, 16 KiB, 1 connection", 16384, 1, 1, false),
        echo("echo-16k-c64", "Echo, 16 KiB, 64 connections", 16384, 1, 64, true),
        echo("echo-16k-c512", "Echo, 16 KiB, 512 connections", 16384, 1, 512, false),
        open("echo-64b-c64-20k", "Echo, 64 B, 64 connections, 20 000 a second", 64, 20_000),
        open("echo-64b-c64-100k", "Echo, 64 B, 64 connections, 100 000 a second", 64, 100_000),
        Cell {
            reference: URING_LEASED,
            servers: vec![URING_LEASED, BATCHED, RAW_URING, RAW_BATCHED],
            ..open(
                "batching",
                "Batching wait: echo, 64 B, 64 connections, 50 000 a second",
                64,
                50_000,
            )
        },
        modes(MODES_ONE, "Where a continuation runs: echo, 64 B, 1 connection", 1),
        modes(MODES_MANY, "Where a continuation runs: echo, 64 B, 64 connections", 64),
        Cell {
            reference: TOKIO,
            ..open("latency-50k", "Echo, 64 B, 256 connections, 50 000 a second", 256, 50_000)
        },
        Cell {
            load: Load::Churn { exchanges: 0 },
            servers: echo_servers(),
            ..echo("accept-close", "Connections accepted and closed", 0, 1, 16, true)
        },
        Cell {
            load: Load::Churn { exchanges: 10 },
            reference: TOKIO,
            ..echo("churn-10", "Echo, 64 B, a new connection every 10 requests", 64, 1, 64, false)
        },
        http("http-plain", "HTTP/1.1 on hyper, 64 connections", "/", 1, 64, true),
        http(
            "http-pipelined",
            "HTTP/1.1 on hyper, 16 pipelined, 64 connections",
            "/",
            16,
            64,
            true,
        ),
        Cell {
            client: Client::Sleeps,
            ..http(
                "http-plain-asleep",
                "HTTP/1.1 on hyper, 64 connections, a client that sleeps",
                "/",
                1,
                64,
                false,
            )
        },
        Cell {
            slice: Duration::from_millis(250),
            turns: 1,
            servers: vec![HTTP_TOKIO, HTTP_URING, HTTP_EPOLL],
            ..http(
                "http-delay",
                "HTTP /delay/10 on hyper, 8 000 connections",
                "/delay/10",
                1,
                8000,
                false,
            )
        },
        Cell {
            client: Client::SleepsBeside,
            // Two threads on two processors settle slowly.
            slice: Duration::from_millis(400),
            turns: 1,
            reference: AXUM_TOKIO,
            servers: vec![AXUM_TOKIO, AXUM_PELTON],
            ..http("axum-both-cores", "axum, 64 connections, both processors", "/", 1, 64, true)
        },
    ]
}

/// The servers of the short run: the limits, Pelton, and the peers nearest to it.
pub(crate) fn quick_servers() -> Vec<&'static str> {
    let mut servers = vec![RAW_URING, RAW_EPOLL, TOKIO, "compio-tuned", "monoio-tuned"];
    servers.extend(roster::PELTON_ECHO);
    servers.extend([HTTP_TOKIO, HTTP_URING, HTTP_EPOLL, AXUM_TOKIO, AXUM_PELTON]);
    servers
}

/// The servers that the goals speak of.
pub(crate) fn goal_servers() -> Vec<&'static str> {
    let mut servers =
        vec![RAW_URING, RAW_SINGLE, RAW_BATCHED, RAW_EPOLL, RAW_EPOLL_OWNED, TOKIO, BATCHED, AHEAD];
    servers.extend(roster::PELTON_ECHO);
    servers.extend([HTTP_TOKIO, HTTP_URING, HTTP_EPOLL, AXUM_TOKIO, AXUM_PELTON]);
    servers
}

fn echo_servers() -> Vec<&'static str> {
    let mut servers = vec![RAW_URING, RAW_SINGLE, RAW_EPOLL, RAW_EPOLL_OWNED];
    servers.extend(roster::PELTON_ECHO);
    servers.extend([
        TOKIO,
        "mio",
        "compio",
        "compio-tuned",
        "monoio",
        "monoio-tuned",
        "glommio",
        "tokio-uring",
        "tokio-uring-tuned",
        "smol",
    ]);
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_names_known_servers_and_its_reference_among_them() {
        for cell in all() {
            assert!(cell.servers.contains(&cell.reference), "{}", cell.id);
            for name in &cell.servers {
                assert!(roster::spec(name).is_some(), "{}: {name}", cell.id);
            }
        }
    }

    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<_> = all().iter().map(|cell| cell.id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn the_short_selections_name_known_servers() {
        for name in quick_servers().into_iter().chain(goal_servers()) {
            assert!(roster::spec(name).is_some(), "{name}");
        }
    }
}
