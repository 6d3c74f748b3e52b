//! What happens when there is too much of something.

use std::time::Instant;

use crate::client::{Client, request};
use crate::on_each_backend;
use crate::server::{Folder, Server, raise_descriptor_limit};

on_each_backend! {
    a_thousand_connections_are_held_and_all_are_answered
    beyond_the_cap_connections_are_shed_and_the_others_live
    out_of_descriptors_it_waits_without_a_spin_and_recovers
}

fn a_thousand_connections_are_held_and_all_are_answered(backend: &str) {
    raise_descriptor_limit(4096);
    let folder = Folder::new();
    folder.write("a.txt", "a thousand times");
    let server = Server::start(backend, &folder, &["--reactors", "2"]);
    let text = request("GET", "/a.txt", "");
    let (most, last) = text.split_at(text.len() - 1);
    let mut clients: Vec<Client> = (0..1000).map(|_| server.connect()).collect();
    let mut probe = server.connect();
    probe.numbers_when(|it| it.of("http_connections") == 1001);
    for round in 1..=2 {
        for client in &mut clients {
            client.say(most);
        }
        // Nobody has been answered yet, and nobody is waited for.
        let _ = probe.numbers();
        for client in &mut clients {
            client.say(last);
        }
        for client in &mut clients {
            assert_eq!(client.hear().text(), "a thousand times", "round {round}");
        }
    }
    let numbers = probe.numbers();
    assert_eq!((numbers.of("accepts"), numbers.of("sheds")), (1001, 0));
    drop(clients);
    probe.numbers_when(|it| it.of("http_connections") == 1);
}

fn beyond_the_cap_connections_are_shed_and_the_others_live(backend: &str) {
    let folder = Folder::new();
    folder.write("a.txt", "a");
    let server = Server::start(backend, &folder, &["--max-connections", "4"]);
    let mut held: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = server.connect();
            // Answered, and therefore among those that are held.
            assert_eq!(client.get("/a.txt", "").text(), "a");
            client
        })
        .collect();
    for _ in 0..3 {
        server.connect().hear_the_end();
    }
    for client in &mut held {
        assert_eq!(client.get("/a.txt", "").text(), "a");
    }
    let numbers = held[0].numbers();
    assert_eq!((numbers.of("sheds"), numbers.of("http_connections")), (3, 4));
    drop(held.pop());
    held[0].numbers_when(|it| it.of("http_connections") == 3);
    assert_eq!(server.connect().get("/a.txt", "").text(), "a");
    assert_eq!(held[0].numbers().of("sheds"), 3);
}

fn out_of_descriptors_it_waits_without_a_spin_and_recovers(backend: &str) {
    let folder = Folder::new();
    folder.write("a.txt", "a");
    let server = Server::start_with_descriptors(64, backend, &folder, &[]);
    let mut probe = server.connect();
    assert_eq!(probe.numbers().of("accept_pauses"), 0);
    // Before the first of them: the last ones may take longer than some pauses.
    let begun = Instant::now();
    let crowd: Vec<Client> = (0..100).map(|_| server.connect()).collect();

    let first = probe.numbers_when(|it| it.of("accept_pauses") > 0).of("accept_pauses");
    let then = probe.numbers_when(|it| it.of("accept_pauses") >= first + 4).of("accept_pauses");
    // A pause takes 100 ms, and more on a busy machine: never less.
    let most = begun.elapsed().as_millis() / 100 + 1;
    assert!(u128::from(then) <= most, "{then} pauses where {most} have room");
    // Those that are connected live on. Where a file would have to be opened they are told when to
    // ask again.
    let refused = probe.get("/a.txt", "");
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    let said = server.stderr();
    assert_eq!(said.lines().filter(|line| line.contains("accepting pauses")).count(), 1, "{said}");

    drop(crowd);
    assert_eq!(server.connect().get("/a.txt", "").text(), "a");
    assert_eq!(probe.get("/a.txt", "").text(), "a");
    probe.numbers_when(|it| it.of("http_connections") == 1);
    assert_eq!(server.stderr().lines().count(), 1, "{}", server.stderr());
}
