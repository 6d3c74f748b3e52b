//! An axum application and hyper's client, as they are, in a simulation. Every seed is run twice, and has to
//! do the same both times.
#![cfg(feature = "sim")]

use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::routing::{get, post};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::Timer;
use pelton::net::{ListenOptions, TcpListener, TcpStream};
use pelton::sim::{self, Faults, Options, Sim};
use pelton_http::{Io, Server, serve};

type Body = Full<Bytes>;

/// What the server is: nothing in it knows of the simulation.
fn app() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/delay/{ms}", get(delayed))
        .layer(axum::extract::DefaultBodyLimit::disable())
}

async fn delayed(Path(ms): Path<u64>) -> &'static str {
    pelton_http::Timer.sleep(Duration::from_millis(ms)).await;
    "at last"
}

/// A listener, as soon as there are descriptors for one.
async fn listen() -> TcpListener {
    loop {
        let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        match TcpListener::bind_with("0.0.0.0:80", options).await {
            Ok(listener) => return listener,
            Err(_) => pelton::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

fn servers(sim: &Sim) {
    sim.fleet("server", 2, |_| async { serve(listen().await, app()).await });
}

/// A connection of hyper's client.
async fn connect() -> io::Result<SendRequest<Body>> {
    let stream = TcpStream::connect("server:80").await?;
    let (sender, connection) = http1::handshake(Io::new(stream)).await.map_err(io::Error::other)?;
    pelton::spawn(connection).detach();
    Ok(sender)
}

async fn ask(
    sender: &mut SendRequest<Body>,
    request: Request<Body>,
) -> io::Result<Response<Bytes>> {
    sender.ready().await.map_err(io::Error::other)?;
    let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Response::from_parts(head, body))
}

fn request(path: &str, body: Option<Vec<u8>>) -> Request<Body> {
    let method = if body.is_some() { "POST" } else { "GET" };
    let request = Request::builder().method(method).uri(path).header("host", "server");
    request.body(Full::new(Bytes::from(body.unwrap_or_default()))).unwrap()
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + seed) as u8).collect()
}

/// Requests one after the other on a connection that is kept, and on a new one where that has failed.
async fn visit(number: usize) -> io::Result<()> {
    let mut open: Option<SendRequest<Body>> = None;
    let mut round = 0;
    while round < 4 {
        let bytes = pattern([0, 10, 5_000, 150_000][round], number);
        let asked = async {
            let sender = match &mut open {
                Some(sender) => sender,
                closed => closed.insert(connect().await?),
            };
            let hello = ask(sender, request("/", None)).await?;
            assert_eq!((hello.status(), &hello.body()[..]), (StatusCode::OK, &b"hello"[..]));
            let echo = ask(sender, request("/echo", Some(bytes.clone()))).await?;
            assert!(echo.body()[..] == bytes, "the echo is another");
            io::Result::Ok(())
        };
        match pelton::time::timeout(Duration::from_secs(20), asked).await {
            Ok(Ok(())) => round += 1,
            _ => {
                open = None;
                pelton::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(())
}

#[pelton::sim_test(seeds = 12, grace_secs = 200)]
fn axum_and_hypers_client_get_through_every_swarm(sim: &Sim) {
    servers(sim);
    for number in 0..2 {
        sim.client(&format!("visitor-{number}"), visit(number));
    }
}

#[pelton::sim_test(seeds = 10, faults = "harmless", partitions = 30_000, crashes = 20_000)]
fn and_through_partitions_and_crashes(sim: &Sim) {
    servers(sim);
    sim.client("visitor", visit(0));
}

#[pelton::sim_test(seeds = 30, faults = "harmless")]
fn pipelined_requests_are_answered_in_order_on_one_connection(sim: &Sim) {
    servers(sim);
    sim.client("client", async {
        let stream = loop {
            match TcpStream::connect("server:80").await {
                Ok(stream) => break stream,
                Err(_) => pelton::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let mut all = String::new();
        for number in 0..20 {
            let end = if number == 19 { "connection: close\r\n" } else { "" };
            let body = format!("request {number}");
            let head =
                format!("POST /echo HTTP/1.1\r\nhost: x\r\n{end}content-length: {}", body.len());
            all += &format!("{head}\r\n\r\n{body}");
        }
        stream.send_all(all).await?;
        let mut answers = Vec::new();
        while let Some(bytes) = stream.recv().await? {
            answers.extend_from_slice(&bytes);
        }
        let answers = String::from_utf8(answers).unwrap();
        let mut at = 0;
        for number in 0..20 {
            let body = format!("\r\n\r\nrequest {number}");
            at += answers[at..].find(&body).unwrap_or_else(|| panic!("no {number}: {answers}"));
        }
        Ok(())
    });
}

#[pelton::sim_test(seeds = 10, faults = "none")]
fn a_head_that_does_not_come_costs_the_connection_in_virtual_time(sim: &Sim) {
    sim.host("server", || async {
        let server = Server::new(listen().await, app());
        let server = server.header_timeout(Some(Duration::from_secs(5)));
        server.run_until(std::future::pending()).await.map(drop)
    });
    sim.client("client", async {
        let stream = TcpStream::connect("server:80").await?;
        stream.send_all("GET / HT").await?;
        let began = sim::current().elapsed();
        while stream.recv().await?.is_some() {}
        let waited = sim::current().elapsed() - began;
        assert!(waited >= Duration::from_secs(4) && waited < Duration::from_secs(6), "{waited:?}");
        let mut sender = connect().await?;
        let late = ask(&mut sender, request("/delay/2000", None)).await?;
        assert_eq!(&late.body()[..], b"at last");
        Ok(())
    });
}

#[test]
fn the_date_of_an_answer_is_the_simulations() {
    let options = Options::new(1).faults(Faults::none()).time_limit(Duration::from_secs(9000));
    sim::run_with(options, |sim| {
        servers(sim);
        sim.client("client", async {
            for date in ["Sun, 17 Mar 2030 17:46", "Sun, 17 Mar 2030 18:46"] {
                let answer = ask(&mut connect().await?, request("/", None)).await?;
                assert!(answer.headers()["date"].to_str().unwrap().starts_with(date), "{answer:?}");
                pelton::time::sleep(Duration::from_secs(3600)).await;
            }
            Ok(())
        });
    });
}

#[test]
fn a_handler_that_panics_fails_the_run() {
    let scenario = |sim: &Sim| {
        sim.host("server", || async {
            let app = Router::new().route("/", get(|| async { fails() }));
            serve(listen().await, app).await
        });
        sim.client("client", async {
            let _ = ask(&mut connect().await?, request("/", None)).await;
            Ok(())
        });
    };
    let options = || Options::new(1).faults(Faults::none());
    let failed = sim::try_run(options(), scenario).unwrap_err();
    assert!(failed.what.contains("a task of server panicked at "), "{failed}");
    assert!(failed.what.ends_with(": in a handler"), "{failed}");
    sim::run_with(options().allow_panics(true), scenario);
}

fn fails() -> &'static str {
    panic!("in a handler")
}

#[test]
fn seeds_differ_in_what_they_do() {
    let mut all = Vec::new();
    for seed in 0..3 {
        all.push(
            sim::run(seed, |sim| {
                servers(sim);
                sim.client("visitor", visit(0));
            })
            .trace_hash,
        );
    }
    all.dedup();
    assert_eq!(all.len(), 3);
}
