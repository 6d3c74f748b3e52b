//! One request and its response, from the moment the head is read to the moment the last byte is
//! handed over, and the numbers that a reactor keeps of them.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::access_log::{AccessLog, Record};
use crate::watch::Vitals;

/// Ends when dropped: then the numbers are written, the line is logged and the connection is idle
/// again.
pub(crate) struct Exchange {
    pub(crate) started: Instant,
    /// The status that was answered.
    pub(crate) status: u16,
    /// Bytes of the body handed over so far.
    pub(crate) sent: u64,
    pub(crate) tally: Arc<Tally>,
    pub(crate) vitals: Option<Rc<Vitals>>,
    pub(crate) log: Option<(Arc<AccessLog>, Record)>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        self.tally.answered(self.status, self.sent);
        if let Some(vitals) = &self.vitals {
            vitals.answered(now);
        }
        if let Some((log, record)) = self.log.take() {
            let took = now.saturating_duration_since(self.started);
            log.write(&record, self.status, self.sent, took);
        }
    }
}

macro_rules! tally {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What one reactor counts of its own serving. One thread writes, any thread reads.
        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            $($(#[doc = $doc])+ $name: AtomicU64,)+
        }

        impl Tally {
            /// Every number with its name and its meaning.
            pub(crate) fn fields(&self) -> Vec<(&'static str, u64, &'static str)> {
                vec![$((
                    concat!("http_", stringify!($name)),
                    self.$name.load(Relaxed),
                    concat!($($doc),+).trim_ascii(),
                ),)+]
            }
        }
    };
}

tally! {
    /// Requests whose head was read.
    requests,
    /// Connections open now.
    connections,
    /// Responses that were not errors.
    responses_ok,
    /// Responses 304: the client had it already.
    responses_not_modified,
    /// Responses 4xx.
    responses_client_error,
    /// Responses 5xx.
    responses_server_error,
    /// Bytes of bodies handed to connections.
    bytes_sent,
    /// Requests answered from an open file, without a system call to find it.
    cache_hits,
    /// Requests for which a file was opened.
    cache_misses,
    /// Files that the cache looked at again.
    cache_checks,
    /// Connections closed because they were idle, slow to send a head, or stuck.
    timeouts,
}

/// Adds, from the one thread that writes: a load and a store are enough.
fn add(number: &AtomicU64, n: u64) {
    number.store(number.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Tally {
    pub(crate) fn requested(&self) {
        add(&self.requests, 1);
    }

    pub(crate) fn connected(&self) {
        add(&self.connections, 1);
    }

    pub(crate) fn disconnected(&self) {
        add(&self.connections, u64::MAX);
    }

    pub(crate) fn cache_hit(&self) {
        add(&self.cache_hits, 1);
    }

    pub(crate) fn cache_miss(&self) {
        add(&self.cache_misses, 1);
    }

    pub(crate) fn cache_check(&self) {
        add(&self.cache_checks, 1);
    }

    pub(crate) fn timed_out(&self, n: u64) {
        add(&self.timeouts, n);
    }

    fn answered(&self, status: u16, sent: u64) {
        add(&self.bytes_sent, sent);
        let of_kind = match status {
            304 => &self.responses_not_modified,
            400..500 => &self.responses_client_error,
            500.. => &self.responses_server_error,
            _ => &self.responses_ok,
        };
        add(of_kind, 1);
    }

    /// One number by its name in [`Tally::fields`].
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.fields().iter().find(|field| field.0 == name).map_or(0, |field| field.1)
    }
}
