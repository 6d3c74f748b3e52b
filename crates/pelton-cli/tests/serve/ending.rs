//! The end: what is under way is finished, and everyone else is told.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, request};
use crate::on_each_backend;
use crate::server::{Folder, Server, WATCHDOG, pattern};

on_each_backend! {
    at_the_end_no_request_fails
    the_second_signal_cuts_what_is_left
    a_drain_has_its_time_and_no_more
    the_log_is_complete_at_the_end
}

/// How long a connection without a request is kept at the end, by the program's own word.
const LAST_CALL: Duration = Duration::from_millis(500);

/// Asks again and again until it is told that this was the last time. Returns how often it was
/// answered.
fn ask_until_told(address: SocketAddr, path: &str, want: &[u8], answered: &AtomicUsize) -> usize {
    let mut client = Client::connect(address).unwrap();
    let mut count = 0;
    let mut last = Instant::now();
    loop {
        match client.try_say(request("GET", path, "")).and_then(|()| client.try_hear()) {
            Ok(answer) => {
                assert!(answer.status == 200 && answer.body == want, "{path}: {}", answer.status);
                last = Instant::now();
                count += 1;
                answered.fetch_add(1, SeqCst);
                if answer.header("connection") == "close" {
                    client.hear_the_end();
                    return count;
                }
            }
            // A client that got no turn for so long was idle, and idle connections are closed.
            Err(error) => {
                let unheard = !client.has_heard_something();
                assert!(unheard && last.elapsed() >= LAST_CALL, "{path}: {error}");
                return count;
            }
        }
    }
}

fn at_the_end_no_request_fails(backend: &str) {
    let folder = Folder::new();
    let (small, large) = (b"small".to_vec(), pattern(1 << 20));
    let huge = pattern(20 << 20);
    folder.write("small", &small);
    folder.write("large", &large);
    folder.write("huge", &huge);
    let server = Server::start(backend, &folder, &["--reactors", "2"]);
    let address = server.address;
    // One in the middle of an answer, and one in the middle of a question.
    let mut downloading = server.connect();
    downloading.say(request("GET", "/huge", ""));
    assert_eq!(downloading.hear_head().unwrap().header("content-length"), huge.len().to_string());
    let mut asking = server.connect();
    assert_eq!(asking.get("/small", "").body, small);
    let text = request("GET", "/small", "");
    asking.say(&text[..20]);
    let mut idle = server.connect();
    assert_eq!(idle.get("/small", "").body, small);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let loads =
            [("/small", &small), ("/large", &large), ("/small", &small), ("/small", &small)];
        let clients = loads.map(|(path, want)| {
            let answered = &answered;
            scope.spawn(move || ask_until_told(address, path, want, answered))
        });
        let begun = Instant::now();
        while answered.load(SeqCst) < 200 {
            assert!(begun.elapsed() < WATCHDOG && !clients.iter().any(|it| it.is_finished()));
            std::thread::yield_now();
        }
        server.signal(Signal::TERM);
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
    // Those that have asked nothing are closed last: from now on only two are left.
    idle.hear_the_end();
    refused(address);
    asking.say(&text[20..]);
    let answer = asking.hear();
    assert_eq!((answer.header("connection"), &answer.body), ("close", &small));
    drop(asking);
    downloading.hear_body(&huge);
    drop(downloading);
    let ended = server.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("finishing "), "{}", ended.stderr);
    assert!(!ended.stderr.contains("cut before"), "{}", ended.stderr);
}

/// Waits until nobody listens any more.
fn refused(address: SocketAddr) {
    let begun = Instant::now();
    while let Ok(late) = Client::connect(address) {
        assert!(begun.elapsed() < WATCHDOG, "it goes on listening");
        drop(late);
    }
    let error = Client::connect(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// A server with a download that nobody reads.
pub(crate) fn stuck(backend: &str, options: &[&str]) -> (Folder, Server, Client) {
    let folder = Folder::new();
    // More than the buffers of a connection on this machine can hold.
    let file = std::fs::File::create(folder.path().join("huge")).unwrap();
    file.set_len(1 << 30).unwrap();
    let server = Server::start(backend, &folder, options);
    let mut client = server.connect();
    client.say(request("GET", "/huge", ""));
    assert_eq!(client.hear_head().unwrap().status, 200);
    (folder, server, client)
}

fn the_second_signal_cuts_what_is_left(backend: &str) {
    let (_folder, server, _client) = stuck(backend, &["--drain-seconds", "3600"]);
    server.signal(Signal::TERM);
    server.wait_for_words("finishing 1 connection");
    server.signal(Signal::INT);
    let ended = server.wait();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("1 connection was cut"), "{}", ended.stderr);
}

fn a_drain_has_its_time_and_no_more(backend: &str) {
    let (_folder, server, _client) = stuck(backend, &["--drain-seconds", "1"]);
    let begun = Instant::now();
    server.signal(Signal::INT);
    let ended = server.wait();
    assert!(begun.elapsed() >= Duration::from_secs(1), "it was not given its time");
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("1 connection was cut"), "{}", ended.stderr);
}

fn the_log_is_complete_at_the_end(backend: &str) {
    let (folder, logs) = (Folder::new(), Folder::new());
    folder.write("a.txt", "0123456789");
    let path = logs.path().join("access.log");
    for target in [path.to_str().unwrap(), "-"] {
        let server = Server::start(backend, &folder, &["--access-log", target, "--reactors", "2"]);
        let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        for client in &mut clients {
            for n in 0..5 {
                assert_eq!(client.get(&format!("/a.txt?{n}"), "").status, 200);
            }
        }
        // Closed, so that the last words are those of the log.
        drop(clients);
        let ended = server.end();
        assert_eq!((ended.code, ended.stderr.contains("log")), (Some(0), false));
        let text = match target {
            "-" => ended.stdout.split_once('\n').unwrap().1.to_owned(),
            path => std::fs::read_to_string(path).unwrap(),
        };
        assert_eq!(text.lines().count(), 100, "{text}");
        for line in text.lines() {
            assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
            assert!(
                line.contains("\"GET /a.txt?") && line.contains(" HTTP/1.1\" 200 10 "),
                "{line}"
            );
        }
    }
}
