//! The worked example of docs/simulation.md: a counter on two replicas, whose bug only a partition shows. The
//! last test holds the page to what is here.
#![cfg(feature = "sim")]

use std::io;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use pelton::net::{TcpListener, TcpStream};
use pelton::sim::{self, Sim};
use pelton::time::{sleep, timeout};
use pelton_http::Io;

/// One request to another host, and the body of its answer, if there is one in time.
async fn ask(
    host: &str,
    method: &str,
    path: &str,
    body: String,
    patience: Duration,
) -> io::Result<String> {
    let asked = async {
        let stream = TcpStream::connect(format!("{host}:80")).await?;
        let (mut sender, connection) =
            http1::handshake(Io::new(stream)).await.map_err(io::Error::other)?;
        pelton::spawn(connection).detach();
        let request = Request::builder().method(method).uri(path).header("host", host);
        let request = request.body(Full::new(Bytes::from(body))).map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    };
    timeout(patience, asked).await.map_err(io::Error::other)?
}

/// How long a client waits for a replica.
const SECOND: Duration = Duration::from_secs(1);
/// How long a replica waits for the other.
const SHORT: Duration = Duration::from_millis(100);

mod naive {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use axum::Router;
    use axum::extract::State;
    use axum::routing::{get, post};

    use super::{SHORT, ask};

    /// One of two replicas. Each counts what it is asked to, and tells the other.
    #[derive(Clone)]
    pub(super) struct Replica {
        count: Arc<AtomicU64>,
        other: &'static str,
    }

    pub(super) fn app(other: &'static str) -> Router {
        let replica = Replica { count: Arc::default(), other };
        Router::new()
            .route("/add", post(add))
            .route("/count", get(count).put(replace))
            .with_state(replica)
    }

    async fn add(State(replica): State<Replica>) -> String {
        let count = (replica.count.fetch_add(1, Relaxed) + 1).to_string();
        // Where the other one does not answer it is down, and will ask when it is back: go on.
        let told = ask(replica.other, "PUT", "/count", count.clone(), SHORT);
        let _ = pelton::sendable(told).await;
        count
    }

    async fn count(State(replica): State<Replica>) -> String {
        replica.count.load(Relaxed).to_string()
    }

    /// The last writer wins.
    async fn replace(State(replica): State<Replica>, count: String) {
        replica.count.store(count.parse().unwrap_or(0), Relaxed);
    }
}

mod fixed {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use axum::Router;
    use axum::extract::State;
    use axum::routing::{get, post};

    use super::{SHORT, ask};

    /// One of two replicas. Each counts its own increments, and remembers the most it has heard of the other's.
    #[derive(Clone)]
    pub(super) struct Replica {
        name: &'static str,
        other: &'static str,
        counts: Arc<Mutex<BTreeMap<String, u64>>>,
    }

    pub(super) fn app(name: &'static str, other: &'static str) -> Router {
        let replica = Replica { name, other, counts: Arc::default() };
        pelton::spawn(repeat(replica.clone())).detach();
        Router::new()
            .route("/add", post(add))
            .route("/count", get(count).put(merge))
            .with_state(replica)
    }

    async fn add(State(replica): State<Replica>) -> String {
        *replica.counts.lock().unwrap().entry(replica.name.into()).or_default() += 1;
        pelton::sendable(tell(&replica)).await;
        replica.total().to_string()
    }

    async fn count(State(replica): State<Replica>) -> String {
        replica.total().to_string()
    }

    /// Counts only grow, so the greater is the later, whatever came first.
    async fn merge(State(replica): State<Replica>, state: String) {
        let mut counts = replica.counts.lock().unwrap();
        for (name, count) in state.lines().filter_map(|line| line.split_once(' ')) {
            let ours = counts.entry(name.to_owned()).or_default();
            *ours = (*ours).max(count.parse().unwrap_or(0));
        }
    }

    /// Tells the other replica what this one knows.
    async fn tell(replica: &Replica) {
        let counts = replica.counts.lock().unwrap().clone();
        let state: Vec<String> = counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
        let _ = ask(replica.other, "PUT", "/count", state.join("\n"), SHORT).await;
    }

    /// Again and again: what was lost on the way is told the next time.
    async fn repeat(replica: Replica) {
        loop {
            pelton::time::sleep(Duration::from_millis(200)).await;
            tell(&replica).await;
        }
    }

    impl Replica {
        fn total(&self) -> u64 {
            self.counts.lock().unwrap().values().sum()
        }
    }
}

/// Two replicas, and a client that increments on one and the other in turn.
fn two_replicas(sim: &Sim, app: fn(&'static str, &'static str) -> Router) {
    for (name, other) in [("a", "b"), ("b", "a")] {
        sim.host(name, move || async move {
            let listener = TcpListener::bind("0.0.0.0:80").await?;
            pelton_http::serve(listener, app(name, other)).await
        });
    }
    sim.client("client", async {
        let sim = sim::current();
        let mut acknowledged = 0;
        for round in 0..10 {
            if round == 8 {
                // Whatever was cut has healed by then: the time limit is over.
                sleep(5 * SECOND).await;
            }
            let replica = ["a", "b"][round % 2];
            if let Ok(count) = ask(replica, "POST", "/add", String::new(), SECOND).await {
                acknowledged += 1;
                sim.tell(format!("{replica} has counted {count}"));
            }
            sleep(SHORT).await;
        }
        sleep(SECOND).await;
        for replica in ["a", "b"] {
            let count = ask(replica, "GET", "/count", String::new(), SECOND).await?;
            let count: u64 = count.parse().unwrap();
            assert!(
                count >= acknowledged,
                "increments are lost: {acknowledged} were acknowledged, {replica} has {count}"
            );
        }
        Ok(())
    });
}

#[pelton::sim_test(seeds = 30, faults = "none", partitions = 300_000, time_limit_secs = 3)]
#[should_panic(expected = "increments are lost")]
fn naive_replicas_lose_nothing(sim: &Sim) {
    two_replicas(sim, |_, other| naive::app(other));
}

#[pelton::sim_test(seeds = 20, faults = "none")]
fn nor_do_they_without_a_partition(sim: &Sim) {
    two_replicas(sim, |_, other| naive::app(other));
}

#[pelton::sim_test(seeds = 30, faults = "none", partitions = 300_000, time_limit_secs = 3)]
fn fixed_replicas_lose_nothing(sim: &Sim) {
    two_replicas(sim, fixed::app);
}

const PAGE: &str = include_str!("../../../docs/simulation.md");
const THIS: &str = include_str!("replicated_counter.rs");

/// The blocks of the page in a language, without indentation.
fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let of = |part: &str| part.split("```").next().unwrap_or_default().to_owned();
    PAGE.split(&fence).skip(1).map(of).collect()
}

fn unindented(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_tutorial_shows_this_code_and_what_it_prints() {
    let this = unindented(THIS);
    let code = blocks("rust,ignore");
    assert!(code.len() >= 3, "the page has lost its code");
    for block in code {
        assert!(this.contains(&unindented(&block)), "this is not in the test any more:\n{block}");
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["naive_replicas_lose_nothing", "--exact", "--nocapture"]);
    for name in ["PELTON_SIM_SEED", "PELTON_SIM_SEEDS", "PELTON_SIM_REPLAY", "PELTON_BACKEND"] {
        child.env_remove(name);
    }
    let output = child.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = printed + &String::from_utf8_lossy(&output.stdout);
    let from = printed.find("seed ").unwrap_or_else(|| panic!("nothing failed: {printed}"));
    let printed = &printed[from..];
    let end = printed.find("-- --exact\n").expect("no command") + "-- --exact\n".len();
    let printed = &printed[..end];
    let [story] = &blocks("text")[..] else { panic!("the page shows one story") };
    if std::env::var_os("PELTON_BLESS").is_some() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/simulation.md");
        std::fs::write(page, PAGE.replace(story.as_str(), printed)).unwrap();
        return;
    }
    assert!(
        story == printed,
        "docs/simulation.md is stale (run this test with PELTON_BLESS=1 to renew it); it prints now:\n\n{printed}"
    );
}
