//! How connections live: many requests on one, requests in pieces, and clients that are slow or
//! leave.

use crate::client::{Answer, Client, request};
use crate::ending::stuck;
use crate::on_each_backend;
use crate::server::{Folder, Server, pattern};

on_each_backend! {
    pipelined_requests_are_answered_in_their_order
    a_request_may_be_split_anywhere
    who_is_slow_to_ask_or_idle_is_closed_and_others_are_not
    who_takes_nothing_of_an_answer_is_cut_and_others_are_not
    a_limit_of_0_is_no_limit
    who_leaves_in_the_middle_is_forgotten
    any_reactor_answers_for_all
}

fn pipelined_requests_are_answered_in_their_order(backend: &str) {
    let folder = Folder::new();
    let large = pattern(200_000);
    folder.write("large", &large);
    for n in 0..50 {
        folder.write(&format!("{n}.txt"), format!("number {n}"));
    }
    let server = Server::start(backend, &folder, &[]);
    let mut client = server.connect();
    let mut all = String::new();
    for n in 0..50 {
        all += &request("GET", &format!("/{n}.txt"), "");
        all += &request("GET", "/none", "");
    }
    all += &request("GET", "/large", "");
    all += &request("GET", "/0.txt", "Connection: close\r\n");
    all += &request("GET", "/1.txt", "");
    client.say(&all);
    for n in 0..50 {
        assert_eq!(client.hear().text(), format!("number {n}"));
        assert_eq!(client.hear().status, 404);
    }
    assert!(client.hear().body == large);
    assert_eq!(client.hear().text(), "number 0");
    client.hear_the_end();

    // And one after the other on one connection.
    let mut client = server.connect();
    for n in (0..50).chain(0..50) {
        assert_eq!(client.get(&format!("/{n}.txt"), "").text(), format!("number {n}"));
    }
    assert_eq!(client.numbers().of("accepts"), 2);
}

fn a_request_may_be_split_anywhere(backend: &str) {
    let folder = Folder::new();
    folder.write("small.txt", "0123456789");
    folder.write("large.bin", pattern(100_000));
    let server = Server::start(backend, &folder, &[]);
    let filler = |n| format!("X-Filler: {}\r\n", "x".repeat(n));
    let body =
        "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n";
    let requests = [
        request("GET", "/small.txt", &filler(640)),
        request("GET", "/large.bin", &format!("Range: bytes=70000-80000\r\n{}", filler(600))),
        request("GET", "/small.txt", &format!("{}{body}", filler(520))),
    ];
    let mut probe = server.connect();
    let mut splits = 0;
    for text in requests {
        let text = text.as_bytes();
        let mut whole = server.connect();
        whole.say(text);
        let want = whole.hear().without_date();
        assert!(matches!(want.status, 200 | 206));
        for wave in (1..text.len()).collect::<Vec<_>>().chunks(256) {
            let mut clients: Vec<(Client, usize)> =
                wave.iter().map(|&at| (server.connect(), at)).collect();
            for (client, at) in &mut clients {
                client.say(&text[..*at]);
            }
            // The one reactor has read all of these before it answers the second time: what came
            // first is not in the queue of the socket any more when the rest comes.
            let _ = probe.numbers();
            let _ = probe.numbers();
            for (client, at) in &mut clients {
                client.say(&text[*at..]);
            }
            for (mut client, at) in clients {
                let got: Answer = client.hear().without_date();
                assert!(got == want, "split at {at}: {got:?}");
                splits += 1;
            }
        }
    }
    assert!(splits > 2000, "{splits}");
}

fn who_is_slow_to_ask_or_idle_is_closed_and_others_are_not(backend: &str) {
    let folder = Folder::new();
    folder.write("a.txt", "a");
    let server = Server::start(backend, &folder, &["--header-timeout", "1", "--idle-timeout", "1"]);
    let (silent, mut slow, mut idle) = (server.connect(), server.connect(), server.connect());
    slow.say("GET /a.txt HTTP/1.1\r\nHost: te");
    assert_eq!(idle.get("/a.txt", "").text(), "a");
    silent.hear_the_end();
    slow.hear_the_end();
    idle.hear_the_end();
    let numbers = server.connect().numbers_when(|it| it.of("http_connections") == 1);
    assert_eq!(numbers.of("http_timeouts"), 3);
}

fn who_takes_nothing_of_an_answer_is_cut_and_others_are_not(backend: &str) {
    let (folder, server, client) = stuck(backend, &["--send-timeout", "1"]);
    folder.write("a.txt", "a");
    let mut other = server.connect();
    assert_eq!(other.get("/a.txt", "").text(), "a");
    // The one that does not read has gone, and the one that asks now and then has not.
    let numbers = other.numbers_when(|it| it.of("http_connections") == 1);
    assert_eq!(numbers.of("http_timeouts"), 1);
    assert_eq!(other.get("/a.txt", "").text(), "a");
    drop(client);
}

fn a_limit_of_0_is_no_limit(backend: &str) {
    // Each time one limit is short, and shows that there was time enough to meet the others.
    let folder = Folder::new();
    folder.write("a.txt", "a");
    let no_head = ["--header-timeout", "0", "--idle-timeout", "1"];
    let server = Server::start(backend, &folder, &no_head);
    let mut silent = server.connect();
    let mut half = server.connect();
    half.say("GET /a.txt HTTP/1.1\r\nHost: te");
    let mut idle = server.connect();
    assert_eq!(idle.get("/a.txt", "").text(), "a");
    idle.hear_the_end();
    half.say("st\r\n\r\n");
    assert_eq!(half.hear().text(), "a");
    assert_eq!(silent.get("/a.txt", "").text(), "a");

    let no_idle = ["--header-timeout", "1", "--idle-timeout", "0", "--send-timeout", "0"];
    let (folder, server, mut unread) = stuck(backend, &no_idle);
    folder.write("a.txt", "a");
    let mut idle = server.connect();
    assert_eq!(idle.get("/a.txt", "").text(), "a");
    server.connect().hear_the_end();
    assert_eq!(idle.get("/a.txt", "").text(), "a");
    unread.hear_body(&vec![0; 8 << 20]);
    assert_eq!(idle.numbers().of("http_timeouts"), 1);
}

fn who_leaves_in_the_middle_is_forgotten(backend: &str) {
    let folder = Folder::new();
    folder.write("large", pattern(20 << 20));
    let server = Server::start(backend, &folder, &[]);
    let mut probe = server.connect();
    let clients: Vec<Client> = (0..50)
        .map(|_| {
            let mut client = server.connect();
            client.say(request("GET", "/large", ""));
            assert_eq!(client.hear_head().unwrap().status, 200);
            client
        })
        .collect();
    assert_eq!(probe.numbers().of("http_connections"), 51);
    // With bytes unread, so that this is a reset.
    drop(clients);
    let after = probe.numbers_when(|it| it.of("http_connections") == 1 && it.of("orphans") == 0);
    assert_eq!(after.of("buffers_in_use"), 0);
    assert_eq!(after.of("task_panics"), 0);
    // The one that accepts, the one that looks after connections, and that of the probe: all others
    // have ended, those too that give a last send of who left a moment.
    probe.numbers_when(|it| it.of("tasks_live") == 3);
}

fn any_reactor_answers_for_all(backend: &str) {
    let folder = Folder::new();
    folder.write("a.txt", "a");
    let server = Server::start(backend, &folder, &["--reactors", "3"]);
    let mut clients: Vec<Client> = (0..30).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/a.txt", "").text(), "a");
    }
    for client in &mut clients {
        let numbers = client.numbers();
        let reactors = numbers.0["reactors"].as_array().unwrap();
        assert_eq!(reactors.len(), 3);
        assert!(reactors.iter().all(|it| it["backend"] == backend && it["fallback"].is_null()));
        assert_eq!(numbers.of("http_connections"), 30);
        assert!(numbers.of("http_responses_ok") >= 30);
    }
    let metrics = clients[0].get("/_pelton/metrics", "").text();
    for reactor in 0..3 {
        let sample = format!("pelton_http_requests_total{{reactor=\"{reactor}\"}} ");
        assert!(metrics.contains(&sample), "{metrics}");
    }
    // Every number that a reactor counts, whatever it is called.
    for (name, ..) in pelton::driver::Snapshot::default().fields() {
        let families = [format!("\npelton_{name}{{"), format!("\npelton_{name}_total{{")];
        let found = families.iter().map(|family| metrics.matches(family).count()).sum::<usize>();
        assert_eq!(found, 3, "{name}, once for each reactor: {metrics}");
    }
    assert_eq!(clients[0].get("/_pelton", "").header("content-type"), "text/html; charset=utf-8");
}
