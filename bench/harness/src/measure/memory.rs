//! Resident bytes for each idle connection.

use std::time::Duration;

use super::{Programs, plain_load};
use crate::error::{Error, Result};
use crate::load::Exchange;
use crate::machine;
use crate::report::model::Count;
use crate::roster::Spec;
use crate::server::{Server, Start};

pub(crate) const METRIC: &str = "resident-bytes";

const WANTED: usize = 9000;

/// What the resident set grows by, for each of many connections that made one exchange. The
/// kernel's own memory for sockets is not in it, and is the same for every server.
pub(crate) fn measure(spec: &Spec, programs: &Programs, file_limit: u64) -> Result<Count> {
    // The client gives its descriptors away only when all are connected.
    let connections = WANTED.min((file_limit as usize).saturating_sub(200));
    let mut server = Server::start(&Start::new(spec, &programs.dir))?;
    let before = resident(&server)?;
    let mut exchange = Exchange::connect(server.addr, plain_load(spec), connections)?;
    exchange.drive(Duration::ZERO)?;
    let after = resident(&server)?;
    server.alive()?;
    Ok(Count {
        server: spec.name.clone(),
        metric: METRIC.into(),
        connections,
        value: (after as f64 - before as f64) / connections as f64,
        how: "VmRSS".into(),
    })
}

fn resident(server: &Server) -> Result<u64> {
    machine::read(&format!("/proc/{}/status", server.pid()))
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| Error::server(&server.name, "its resident memory cannot be read"))
}
