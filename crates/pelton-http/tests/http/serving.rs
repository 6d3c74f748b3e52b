//! Which connections a server keeps, and which it ends.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use pelton::driver::Kind;
use pelton::net::TcpListener;
use pelton::{Handle, JoinHandle};
use pelton_http::{Served, Server, ServiceFn, service_fn};

use crate::client::{Client, get};
use crate::runtime::{Event, eventually, inside_each_backend, pattern, quiet};

pub(crate) type Answer = Result<Response<Full<Bytes>>, Infallible>;

pub(crate) fn answer(body: impl Into<Bytes>) -> Answer {
    Ok(Response::new(Full::new(body.into())))
}

/// Serves with a function, until `stop`.
pub(crate) async fn start<F, Fut>(
    stop: &Event,
    settings: impl FnOnce(Server<ServiceFn<F>>) -> Server<ServiceFn<F>>,
    handler: F,
) -> (SocketAddr, JoinHandle<std::io::Result<Served>>)
where
    F: Fn(Request<Incoming>) -> Fut + Clone + 'static,
    Fut: Future<Output = Answer> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = settings(Server::new(listener, service_fn(handler)));
    let stop = stop.clone();
    let server = pelton::spawn(async move { server.run_until(stop.wait()).await });
    (address, server)
}

/// Who is served: each connection has a copy of its server's handler, and so of this, and a second one
/// while it is being answered.
#[derive(Clone, Default)]
pub(crate) struct Guests(Rc<()>);

impl Guests {
    /// A handler that counts who has a copy of it.
    pub(crate) fn counted<F, Fut>(
        &self,
        handler: F,
    ) -> impl Fn(Request<Incoming>) -> Fut + Clone + use<F, Fut>
    where
        F: Fn(Request<Incoming>) -> Fut + Clone,
    {
        let guests = self.clone();
        move |request| {
            let _ = &guests;
            handler(request)
        }
    }

    /// Waits until the server has so many connections, and nobody is being answered.
    pub(crate) async fn are(&self, count: usize) {
        // One reference is this, one the server's.
        eventually("the server has that many connections", || {
            Rc::strong_count(&self.0) == count + 2
        })
        .await;
    }
}

/// Answers with the path that was asked for.
async fn path(request: Request<Incoming>) -> Answer {
    answer(request.uri().path().to_owned())
}

/// A limit on heads that no test waits long for, and that has no part in those that are not about it.
const SHORT: Duration = Duration::from_millis(100);

#[test]
fn beyond_the_cap_connections_are_closed_and_counted_and_a_freed_place_is_usable() {
    inside_each_backend(|_| async {
        let stop = Event::default();
        let guests = Guests::default();
        let handler = guests.counted(path);
        let (address, server) = start(&stop, |it| it.max_connections(2), handler).await;
        let mut first = Client::known(address).await;
        let mut second = Client::known(address).await;
        let handle = Handle::current();
        assert_eq!(handle.snapshot().sheds, 0);
        for n in 1..=3 {
            Client::connect(address).await.hear_the_end().await;
            assert_eq!(handle.snapshot().sheds, n);
        }
        assert_eq!(first.get("/first").await.1, b"/first");
        assert_eq!(second.get("/second").await.1, b"/second");

        guests.are(2).await;
        drop(second);
        guests.are(1).await;
        let mut again = Client::known(address).await;
        assert_eq!(again.get("/again").await.1, b"/again");
        assert_eq!(first.get("/first").await.1, b"/first");
        assert_eq!(handle.snapshot().sheds, 3);
        drop((first, again));
        stop.set();
        assert_eq!(server.await.unwrap().unwrap(), Served { cut_short: 0 });
    });
}

#[test]
fn who_is_slow_with_a_head_is_closed_and_bytes_now_and_then_do_not_help() {
    inside_each_backend(|_| async {
        let stop = Event::default();
        let (address, server) = start(&stop, |it| it.header_timeout(Some(SHORT)), path).await;
        let silent = Client::connect(address).await;
        let half = Client::connect(address).await;
        half.say("GET / HTTP/1.1\r\nhost: te").await;
        silent.hear_the_end().await;
        half.hear_the_end().await;
        // Goes on for ever, unless it is closed. One that was closed before its second drip, because the
        // machine had no time for this test, has shown nothing.
        let mut drips = 0;
        while drips < 2 {
            drips = 0;
            let client = Client::connect(address).await;
            client.say("GET / HTTP/1.1\r\nx-drip: ").await;
            while client.stream().send_all("x").await.is_ok() {
                drips += 1;
                pelton::time::sleep(SHORT / 20).await;
            }
        }
        // Who is quick is served as ever.
        Client::known(address).await;
        stop.set();
        server.await.unwrap().unwrap();
    });
}

#[test]
fn the_limit_on_heads_is_the_limit_of_idle_connections_too() {
    inside_each_backend(|_| async {
        let stop = Event::default();
        let (address, server) = start(&stop, |it| it.header_timeout(Some(SHORT)), path).await;
        let idle = Client::known(address).await;
        idle.hear_the_end().await;
        stop.set();
        server.await.unwrap().unwrap();
    });
}

#[test]
fn a_slow_handler_is_not_the_clients_fault() {
    inside_each_backend(|_| async {
        let (stop, asked, go) = (Event::default(), Event::default(), Event::default());
        let wait = (asked.clone(), go.clone());
        let handler = move |request: Request<Incoming>| {
            let (asked, go) = wait.clone();
            async move {
                if request.uri().path() == "/slow" {
                    asked.set();
                    go.wait().await;
                }
                path(request).await
            }
        };
        let (address, server) = start(&stop, |it| it.header_timeout(Some(SHORT)), handler).await;
        let mut slow = Client::connect(address).await;
        slow.say(get("/slow")).await;
        asked.wait().await;
        // Came later, and its time is over.
        Client::connect(address).await.hear_the_end().await;
        go.set();
        assert_eq!(slow.hear().await.1, b"/slow");
        stop.set();
        server.await.unwrap().unwrap();
    });
}

#[test]
fn without_a_limit_no_timer_is_armed() {
    inside_each_backend(|_| async {
        for (limit, timers) in [(Some(Duration::from_secs(3600)), 1), (None, 0)] {
            let stop = Event::default();
            let (address, server) = start(&stop, |it| it.header_timeout(limit), path).await;
            let mut client = Client::known(address).await;
            client.say("GET /half HTTP/1.1\r\nhost: ").await;
            let handle = Handle::current();
            // The server waits for the rest: a receive is in flight here and none has anything to bring.
            eventually("the half is read", || {
                handle.snapshot().in_flight_of(Kind::RecvPooled) == 1
            })
            .await;
            assert_eq!(handle.snapshot().in_flight_of(Kind::Timeout), timers);
            client.say("test\r\n\r\n").await;
            assert_eq!(client.hear().await.1, b"/half");
            drop(client);
            stop.set();
            server.await.unwrap().unwrap();
            quiet().await;
        }
    });
}

#[test]
fn a_handler_that_panics_ends_its_own_connection_and_no_other() {
    inside_each_backend(|_| async {
        let stop = Event::default();
        let handler = |request: Request<Incoming>| {
            // Before there is a future, in its first poll, and later.
            assert_ne!(request.uri().path(), "/at-once", "on purpose");
            async move {
                assert_ne!(request.uri().path(), "/first", "on purpose");
                pelton::yield_now().await;
                assert_ne!(request.uri().path(), "/later", "on purpose");
                path(request).await
            }
        };
        let (address, server) = start(&stop, |it| it.max_connections(2), handler).await;
        let mut other = Client::known(address).await;
        let handle = Handle::current();
        for (n, path) in (1..).zip(["/at-once", "/first", "/later"]) {
            let client = Client::known(address).await;
            client.say(get(path)).await;
            client.hear_the_end().await;
            assert_eq!(handle.snapshot().task_panics, n);
            assert_eq!(other.get("/other").await.1, b"/other");
        }
        // Each has given back its place: with one of two taken for good the next would be shed.
        assert_eq!(handle.snapshot().sheds, 0);
        drop(other);
        stop.set();
        assert_eq!(server.await.unwrap().unwrap(), Served { cut_short: 0 });
    });
}

#[test]
fn an_error_of_the_service_ends_its_connection_and_no_other() {
    inside_each_backend(|_| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = service_fn(|request: Request<Incoming>| async move {
            match request.uri().path() {
                "/fails" => Err(std::io::Error::other("on purpose")),
                path => Ok(Response::new(Full::new(Bytes::from(path.to_owned())))),
            }
        });
        let server = pelton::spawn(Server::new(listener, service).run_until(pending()));
        let mut other = Client::known(address).await;
        let client = Client::known(address).await;
        client.say(get("/fails")).await;
        client.hear_the_end().await;
        assert_eq!(other.get("/other").await.1, b"/other");
        assert_eq!(Handle::current().snapshot().task_panics, 0);
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
    });
}

#[test]
fn without_keep_alive_a_connection_brings_one_request() {
    inside_each_backend(|_| async {
        let stop = Event::default();
        let (address, server) = start(&stop, |it| it.keep_alive(false), path).await;
        let mut client = Client::connect(address).await;
        let (head, body) = client.get("/once").await;
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(body, b"/once");
        client.hear_the_end().await;
        stop.set();
        server.await.unwrap().unwrap();
    });
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    inside_each_backend(|_| async {
        let stop = Event::default();
        let (address, server) = start(&stop, |it| it, path).await;
        let mut client = Client::connect(address).await;
        let all: String = (0..100).map(|n| get(&format!("/{n}"))).collect();
        client.say(all).await;
        for n in 0..100 {
            assert_eq!(client.hear().await.1, format!("/{n}").into_bytes());
        }
        drop(client);
        stop.set();
        server.await.unwrap().unwrap();
    });
}

#[test]
fn large_bodies_pass_in_both_directions_at_once() {
    inside_each_backend(|_| async {
        const SIZE: usize = 8 << 20;
        let most = Rc::new(Cell::new(0));
        let frames = most.clone();
        // Sent back frame by frame, so that neither side has it all at any time.
        let service = service_fn(move |request: Request<Incoming>| {
            let frames = frames.clone();
            async move {
                let body = request.into_body().map_frame(move |frame| {
                    frames.set(frames.get() + 1);
                    frame
                });
                Ok::<_, Infallible>(
                    Response::builder().header("content-length", SIZE).body(body).unwrap(),
                )
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = pelton::spawn(Server::new(listener, service).run_until(pending()));
        let mut client = Client::connect(address).await;
        let body = pattern(SIZE);
        let head = format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {SIZE}\r\n\r\n");
        client.say(head).await;
        let (stream, sent) = (client.stream(), body.clone());
        let sender = pelton::spawn(async move { stream.send_all(sent).await });
        let (head, received) = client.hear().await;
        sender.await.unwrap().unwrap();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(received == body, "{} of {SIZE} bytes, or in another order", received.len());
        assert!(most.get() > 10, "in {} frames", most.get());
        drop(client);
        server.abort();
        let _ = server.await;
    });
}
