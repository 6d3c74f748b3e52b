//! A load that makes a server's work the same each time.
//!
//! How much a server finds to do at each turn decides how many instructions and system calls it
//! spends on a request. Here it always finds all connections: the client runs on the server's own
//! processor, goes before it, sends on every connection while the server cannot run, and sleeps
//! until all the answers are there.

use std::time::Duration;

use crate::error::{During, Result};
use crate::load::Exchange;
use crate::machine::{self, LOAD_CPU, SERVER_CPU};
use crate::server::{Server, Start};

use super::plain_load;

/// A server and its connections, in lock-step.
pub(super) struct LockStep {
    pub(super) server: Server,
    exchange: Exchange,
    _place: Place,
}

const PATIENCE: Duration = Duration::from_secs(120);

impl LockStep {
    pub(super) fn start(start: Start<'_>, connections: usize) -> Result<Self> {
        let place = Place::take()?;
        let start = Start { cpus: &[SERVER_CPU], batch: true, ..start };
        let server = Server::start(&start)?;
        let exchange = Exchange::connect(server.addr, plain_load(start.spec), connections)?;
        Ok(Self { server, exchange, _place: place })
    }

    /// Makes `turns` times as many requests as there are connections.
    pub(super) fn turns(&mut self, turns: usize) -> Result<u64> {
        self.exchange.lock_step(turns, false, PATIENCE)?;
        Ok((turns * self.exchange.connections()) as u64)
    }

    /// The same for a server that was told to stop after them, and returns what it printed then.
    pub(super) fn finish(mut self, turns: usize) -> Result<String> {
        self.exchange.lock_step(turns, true, PATIENCE)?;
        drop(self.exchange);
        self.server.finish(PATIENCE)
    }
}

/// The client's place on the server's processor, before it; given back when dropped.
struct Place;

impl Place {
    fn take() -> Result<Self> {
        machine::pin(&[SERVER_CPU]).during("moving the client to the server's processor")?;
        // Not allowed to everyone. Without it the client can lose the processor between two sends,
        // when something else wants it: seldom, and not to the server, which runs as a batch.
        schedule(libc::SCHED_FIFO, 1);
        Ok(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        schedule(libc::SCHED_OTHER, 0);
        let _ = machine::pin(&[LOAD_CPU]);
    }
}

fn schedule(policy: i32, priority: i32) {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameter is live for the call; the policy of this thread alone is set.
    unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &parameter) };
}
