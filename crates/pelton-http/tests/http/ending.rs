//! How a server ends: what is under way is answered, and who asks nothing is let go.

use std::cell::Cell;
use std::future::ready;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use pelton::net::TcpStream;
use pelton_http::Served;

use crate::client::{Client, get};
use crate::runtime::{Event, eventually, inside_each_backend, pattern};
use crate::serving::{Guests, answer, start};

/// A handler that says when it was asked for `/held`, and answers that when it may.
#[derive(Clone, Default)]
struct Held {
    asked: Event,
    times: Rc<Cell<usize>>,
    go: Event,
}

impl Held {
    async fn answer(self, request: Request<Incoming>) -> crate::serving::Answer {
        if request.uri().path() == "/held" {
            self.times.set(self.times.get() + 1);
            self.asked.set();
            self.go.wait().await;
        }
        answer(request.uri().path().to_owned())
    }
}

#[test]
fn at_the_end_what_is_under_way_is_answered_and_idle_connections_are_closed() {
    inside_each_backend(|_| async {
        let (stop, held) = (Event::default(), Held::default());
        let handler = held.clone();
        let (address, server) = start(&stop, |it| it, move |it| handler.clone().answer(it)).await;
        let idle = Client::known(address).await;
        let silent = Client::connect(address).await;
        let half = Client::known(address).await;
        half.say("GET / HTTP/1.1\r\nhost: te").await;
        let mut first_half = Client::connect(address).await;
        first_half.say("GET /half HTTP/1.1\r\nhost: te").await;
        let mut busy = Client::connect(address).await;
        busy.say(get("/held")).await;
        held.asked.wait().await;
        // That one came last: all of them are the server's.
        stop.set();
        idle.hear_the_end().await;
        silent.hear_the_end().await;
        half.hear_the_end().await;
        // Its first request is one that it is at.
        first_half.say("st\r\n\r\n").await;
        assert_eq!(first_half.hear().await.1, b"/half");
        first_half.hear_the_end().await;
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(!server.is_finished(), "one is still to be answered");
        held.go.set();
        let (head, body) = busy.hear().await;
        assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
        assert_eq!(body, b"/held");
        busy.hear_the_end().await;
        assert_eq!(server.await.unwrap().unwrap(), Served { cut_short: 0 });
    });
}

#[test]
fn a_body_that_is_being_sent_at_the_end_arrives_whole() {
    inside_each_backend(|_| async {
        const SIZE: usize = 16 << 20;
        let stop = Event::default();
        let body = pattern(SIZE);
        let sent = bytes::Bytes::from(body.clone());
        let (address, server) = start(&stop, |it| it, move |_| ready(answer(sent.clone()))).await;
        let client = Client::connect(address).await;
        client.say(get("/")).await;
        // More than the sockets hold: the server is in the middle of it and waits for this client.
        client.stream().readable().await.unwrap();
        stop.set();
        eventually("the server closes its listener", || {
            std::net::TcpStream::connect(address).is_err()
        })
        .await;
        assert!(!server.is_finished(), "nobody has read it");
        let received = client.hear_all().await;
        assert!(received.ends_with(&body), "{} bytes of {SIZE}", received.len());
        assert_eq!(server.await.unwrap().unwrap(), Served { cut_short: 0 });
    });
}

#[test]
fn who_takes_longer_than_the_drain_may_take_is_cut_and_counted() {
    inside_each_backend(|_| async {
        for limit in [Duration::ZERO, Duration::from_millis(20)] {
            let (stop, held) = (Event::default(), Held::default());
            let handler = held.clone();
            let handler = move |it| handler.clone().answer(it);
            let (address, server) = start(&stop, |it| it.drain_timeout(limit), handler).await;
            let mut all = Vec::new();
            for _ in 0..3 {
                let client = Client::connect(address).await;
                client.say(get("/held")).await;
                all.push(client);
            }
            eventually("all have asked", || held.times.get() == 3).await;
            stop.set();
            // Not answered, for nobody lets the handler go on.
            for client in all {
                client.hear_the_end().await;
            }
            assert_eq!(server.await.unwrap().unwrap(), Served { cut_short: 3 });
            assert!(!held.go.is_set());
        }
    });
}

#[test]
fn a_server_that_nobody_has_come_to_ends_at_once() {
    inside_each_backend(|_| async {
        let stop = Event::default();
        stop.set();
        let (_, server) = start(&stop, |it| it, |_| ready(answer("never"))).await;
        assert_eq!(server.await.unwrap().unwrap(), Served { cut_short: 0 });
    });
}

#[test]
fn who_has_come_and_gone_before_the_end_is_not_waited_for() {
    inside_each_backend(|_| async {
        let (stop, guests) = (Event::default(), Guests::default());
        let handler =
            guests.counted(|it: Request<Incoming>| ready(answer(it.uri().path().to_owned())));
        let (address, server) = start(&stop, |it| it, handler).await;
        for _ in 0..20 {
            drop(Client::known(address).await);
        }
        guests.are(0).await;
        stop.set();
        assert_eq!(server.await.unwrap().unwrap(), Served { cut_short: 0 });
    });
}
