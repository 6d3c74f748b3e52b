//! What the server says of itself: `/_pelton` for people, `/_pelton/counters.json` for that page,
//! and `/_pelton/metrics` for Prometheus.

pub(crate) mod metrics;

use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// A plain number: its name, what it is now, and what it means.
pub(crate) type Counter = (&'static str, u64, &'static str);

/// The state of one reactor at one moment.
#[derive(Clone, Debug)]
pub(crate) struct ReactorReport {
    pub(crate) id: usize,
    /// The backend that runs, such as `io_uring`.
    pub(crate) backend: String,
    /// Why it is not the one that was asked for first, if so.
    pub(crate) fallback: Option<String>,
    /// The numbers of the driver and of the runtime.
    pub(crate) counters: Vec<Counter>,
    /// Operations in flight, by kind.
    pub(crate) in_flight: Vec<(&'static str, u64)>,
    /// The numbers of the server on top, named `http_…`.
    pub(crate) http: Vec<Counter>,
}

/// Numbers that go down as well as up. All others only grow.
const GAUGES: [&str; 6] = [
    "orphans",
    "buffers_in_use",
    "buffers_high_water",
    "buffers_total",
    "tasks_live",
    "http_connections",
];

/// Whether a number of this name can go down.
pub(crate) fn is_gauge(name: &str) -> bool {
    GAUGES.contains(&name)
}

/// The admin routes.
pub(crate) struct Admin {
    started: Instant,
    reports: Box<dyn Fn() -> Vec<ReactorReport> + Send + Sync>,
}

impl Admin {
    /// `reports` is called on the reactor that answers, for all reactors: it must only read.
    pub(crate) fn new(reports: impl Fn() -> Vec<ReactorReport> + Send + Sync + 'static) -> Admin {
        Admin { started: Instant::now(), reports: Box::new(reports) }
    }

    /// The content type and the body for the path of a request, if it is one of ours.
    pub(crate) fn answer(&self, path: &str) -> Option<(&'static str, Bytes)> {
        match path.strip_prefix("/_pelton")? {
            "" | "/" => Some(("text/html; charset=utf-8", Bytes::from_static(PAGE.as_bytes()))),
            "/counters.json" => {
                let uptime = self.started.elapsed().as_secs();
                let json = counters(&(self.reports)(), uptime).to_string();
                Some(("application/json", json.into()))
            }
            "/metrics" => Some((metrics::CONTENT_TYPE, metrics::render(&(self.reports)()).into())),
            _ => None,
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("started", &self.started).finish_non_exhaustive()
    }
}

const PAGE: &str = include_str!("page.html");

/// What the page polls. Numbers beyond 2^53 lose digits in a browser, which no rate on a page
/// shows.
fn counters(reports: &[ReactorReport], uptime_seconds: u64) -> Value {
    let numbers = |counters: &[Counter]| -> Map<String, Value> {
        counters.iter().map(|(name, value, _)| ((*name).to_owned(), json!(value))).collect()
    };
    // The meanings are the same for all reactors, and said once.
    let help: Map<String, Value> = reports
        .first()
        .into_iter()
        .flat_map(|report| report.counters.iter().chain(&report.http))
        .map(|(name, _, help)| ((*name).to_owned(), json!(help)))
        .collect();
    let reactors: Vec<Value> = reports
        .iter()
        .map(|report| {
            let in_flight: Map<String, Value> =
                report.in_flight.iter().map(|(kind, n)| ((*kind).to_owned(), json!(n))).collect();
            json!({
                "id": report.id,
                "backend": report.backend,
                "fallback": report.fallback,
                "counters": numbers(&report.counters),
                "http": numbers(&report.http),
                "in_flight": in_flight,
            })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": uptime_seconds,
        "help": help,
        "reactors": reactors,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report(id: usize) -> ReactorReport {
        ReactorReport {
            id,
            backend: "epoll".to_owned(),
            fallback: Some("io_uring: \"forbidden\"\nhere \\".to_owned()),
            counters: vec![
                ("completions", 10 + id as u64, "Completions reaped."),
                ("buffers_in_use", 3, "Buffers held."),
            ],
            in_flight: vec![("accept", 1), ("recv", 0)],
            http: vec![("http_requests", 7, "Requests.")],
        }
    }

    #[test]
    fn only_our_own_paths_are_answered() {
        let admin = Admin::new(|| vec![report(0)]);
        for path in ["/_pelton", "/_pelton/", "/_pelton/counters.json", "/_pelton/metrics"] {
            assert!(admin.answer(path).is_some(), "{path}");
        }
        for path in ["/", "/_peltonic", "/_pelton/x", "/_pelton/metrics/", "/a/_pelton", "/_PELTON"]
        {
            assert!(admin.answer(path).is_none(), "{path}");
        }
    }

    #[test]
    fn the_counters_are_json_with_a_meaning_for_each() {
        let admin = Admin::new(|| vec![report(0), report(1)]);
        let (kind, body) = admin.answer("/_pelton/counters.json").unwrap();
        assert_eq!(kind, "application/json");
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["reactors"][1]["counters"]["completions"], 11);
        assert_eq!(value["reactors"][0]["in_flight"]["accept"], 1);
        assert_eq!(value["reactors"][0]["http"]["http_requests"], 7);
        assert_eq!(value["reactors"][0]["fallback"], "io_uring: \"forbidden\"\nhere \\");
        assert_eq!(value["help"]["completions"], "Completions reaped.");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            let found = PAGE.match_indices(outside).count();
            // The one name of a namespace that SVG needs is no address.
            let allowed = PAGE.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(found, if outside == "http://" { allowed } else { 0 }, "{outside}");
        }
    }
}
