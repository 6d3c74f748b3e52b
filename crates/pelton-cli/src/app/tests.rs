//! Whole conversations, in memory: hyper, the service, the cache and real files.

use std::cell::RefCell as Cell;
use std::collections::VecDeque;
use std::io;

use super::*;
use crate::access_log::Target;
use crate::connection;
use crate::root::Root;
use crate::runtime::Listener;
use crate::stop::{Stage, Stop};
use crate::testing::{Folder, Inline, Pipe};
use crate::watch::{self, Connections};

struct Server {
    folder: Folder,
    runtime: Inline,
    app: Rc<App<Inline>>,
    connections: Rc<Connections>,
}

impl Server {
    fn new() -> Server {
        Server::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Shared)) -> Server {
        let folder = Folder::new();
        folder.write("site/a.txt", "0123456789");
        folder.write("site/big.bin", big());
        folder.write("site/sub/index.html", "<p>sub</p>");
        folder.write("site/bare/x.txt", "x");
        folder.write("site/app.js", "plain");
        folder.write("site/app.js.gz", "zipped");
        let root = Root::open(&folder.path().join("site")).unwrap();
        let site = Site { root, listing: true, cache_control: None };
        let mut shared = Shared { site, log: None, admin: Some(Admin::new(Vec::new)) };
        change(&mut shared);
        let runtime = Inline::default();
        let app = Rc::new(App::new(runtime.clone(), Arc::new(shared), Arc::default()));
        Server { folder, runtime, app, connections: Rc::default() }
    }

    fn connect(&self) -> Pipe {
        let pipe = Pipe::default();
        let place = self.connections.enter(10, Instant::now()).unwrap();
        let peer = Some("192.0.2.1:9".parse().unwrap());
        self.runtime.spawn(connection::serve(Rc::clone(&self.app), pipe.clone(), peer, place));
        pipe
    }

    /// All that a client hears who says `text` and then waits.
    fn talk(&self, text: impl AsRef<[u8]>) -> Heard {
        let pipe = self.connect();
        pipe.say(text);
        self.runtime.run();
        let heard = Heard::parse(&pipe.hear());
        pipe.hang_up();
        self.runtime.run();
        heard
    }

    fn get(&self, path: &str, headers: &str) -> Heard {
        self.talk(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n"))
    }
}

/// Several chunks, and no two alike.
fn big() -> Vec<u8> {
    (0..200_001u32).flat_map(|n| n.to_le_bytes()).take(200_001).collect()
}

#[derive(Debug)]
struct Heard {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Heard {
    fn parse(bytes: &[u8]) -> Heard {
        let text = String::from_utf8_lossy(bytes);
        let end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {text}"));
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Heard { status, head, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|line| line.0 == name).map_or("", |line| line.1)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[test]
fn each_path_gets_its_status() {
    let server = Server::new();
    for (path, status) in [
        ("/a.txt", 200),
        ("/a.txt?x=1", 200),
        ("http://elsewhere.example/a.txt", 200),
        ("/sub", 308),
        ("/sub/", 200),
        ("/bare/", 200),
        ("/none", 404),
        ("/a.txt/", 404),
        ("/../a.txt", 400),
        ("/%2e%2e/a.txt", 400),
        ("/..%2fa.txt", 400),
        ("/a%00", 400),
        ("/.git/config", 404),
        ("/_pelton", 200),
        ("/_pelton/metrics", 200),
        ("/_pelton/none", 404),
    ] {
        assert_eq!(server.get(path, "").status, status, "{path}");
    }
    let quiet = Server::with(|shared| shared.admin = None);
    assert_eq!(quiet.get("/_pelton", "").status, 404);
}

#[test]
fn a_file_has_its_length_type_and_validators() {
    let server = Server::new();
    let heard = server.get("/a.txt", "");
    assert_eq!(heard.text(), "0123456789");
    assert_eq!(heard.header("content-length"), "10");
    assert_eq!(heard.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(heard.header("accept-ranges"), "bytes");
    assert!(
        heard.header("date").ends_with("gmt") && heard.header("last-modified").ends_with("gmt")
    );
    let etag = heard.header("etag");
    let again = server.get("/a.txt", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!((again.status, again.text().as_str()), (304, ""));
    assert_eq!(again.header("etag"), etag);
    assert_eq!(again.header("content-length"), "");
    assert_eq!(server.get("/a.txt", "If-Match: \"x\"\r\n").status, 412);
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::new();
    for path in ["/a.txt", "/big.bin", "/sub", "/none", "/bare/", "/_pelton"] {
        let get = server.get(path, "");
        let head = server.talk(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(head.text(), "", "{path}");
        assert_eq!(head.status, get.status);
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
    }
}

#[test]
fn ranges_are_sent_from_memory_and_from_files_alike() {
    let server = Server::new();
    let big = big();
    let heard = server.get("/a.txt", "Range: bytes=2-4\r\n");
    assert_eq!((heard.status, heard.text().as_str()), (206, "234"));
    assert_eq!(heard.header("content-range"), "bytes 2-4/10");
    let heard = server.get("/big.bin", "Range: bytes=100-180000\r\n");
    assert_eq!(heard.header("content-range"), "bytes 100-180000/200001");
    assert!(heard.body == big[100..=180_000]);
    let heard = server.get("/big.bin", "Range: bytes=-5\r\n");
    assert!(heard.body == big[big.len() - 5..]);
    assert!(server.get("/big.bin", "").body == big);
    let heard = server.get("/a.txt", "Range: bytes=20-\r\n");
    assert_eq!((heard.status, heard.header("content-range")), (416, "bytes */10"));
    let heard = server.get("/a.txt", "Range: bytes=0-1,8-9\r\n");
    assert_eq!(heard.status, 206);
    assert!(heard.header("content-type").starts_with("multipart/byteranges; boundary="));
    assert_eq!(heard.header("content-length"), heard.body.len().to_string());
    assert!(heard.text().contains("Content-Range: bytes 8-9/10\r\n\r\n89\r\n--"));
    let heard = server.get("/big.bin", "Range: bytes=0-99999,150000-200000\r\n");
    assert_eq!(heard.header("content-length"), heard.body.len().to_string());
    assert!(heard.body.windows(50_001).any(|w| w == &big[150_000..]));
}

#[test]
fn a_twin_is_sent_to_who_takes_it_and_is_another_representation() {
    let server = Server::new();
    let plain = server.get("/app.js", "");
    let zipped = server.get("/app.js", "Accept-Encoding: gzip\r\n");
    assert_eq!((plain.text().as_str(), zipped.text().as_str()), ("plain", "zipped"));
    assert_eq!((plain.header("content-encoding"), zipped.header("content-encoding")), ("", "gzip"));
    assert_eq!(plain.header("vary"), "accept-encoding");
    assert_ne!(plain.header("etag"), zipped.header("etag"));
    assert_eq!(zipped.header("content-type"), "text/javascript; charset=utf-8");
    let refused = server.get("/app.js", "Accept-Encoding: identity;q=0\r\n");
    assert_eq!((refused.status, refused.header("vary")), (406, "accept-encoding"));
}

#[test]
fn a_redirect_keeps_the_query_and_stays_here() {
    let server = Server::new();
    assert_eq!(server.get("/sub?a=b", "").header("location"), "/sub/?a=b");
    std::fs::create_dir(server.folder.path().join("site/elsewhere.example")).unwrap();
    assert_eq!(server.get("//elsewhere.example", "").header("location"), "/elsewhere.example/");
}

#[test]
fn other_methods_are_told_which_there_are() {
    let server = Server::new();
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        let heard = server.talk(format!("{method} /a.txt HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!((heard.status, heard.header("allow")), (405, "get, head, options"), "{method}");
    }
    for target in ["/a.txt", "*"] {
        let heard = server.talk(format!("OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!((heard.status, heard.header("allow")), (204, "get, head, options"));
        assert_eq!(heard.header("content-length"), "");
    }
}

#[test]
fn a_connection_goes_on_after_answers_and_after_small_bodies() {
    let server = Server::new();
    let pipe = server.connect();
    let request = |extra: &str| format!("GET /a.txt HTTP/1.1\r\nHost: h\r\n{extra}");
    let chunked = request("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let all = [
        request("\r\n"),
        request("Content-Length: 5\r\n\r\nhello"),
        chunked,
        "GET /none HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        request("\r\n"),
    ];
    pipe.say(all.concat());
    server.runtime.run();
    let heard = String::from_utf8(pipe.hear()).unwrap();
    assert_eq!(heard.matches("HTTP/1.1 200").count(), 4, "{heard}");
    assert_eq!(heard.matches("HTTP/1.1 404").count(), 1);
    assert!(!pipe.is_closed());
    pipe.say("GET /a.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    server.runtime.run();
    assert!(pipe.is_closed());
}

#[test]
fn a_body_too_large_is_refused_and_read_for_a_while() {
    let server = Server::new();
    let announced = "GET /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 70_000, "x".repeat(70_000));
    let chunked =
        format!("GET /a.txt HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
    for request in [announced, &chunked] {
        let pipe = server.connect();
        pipe.say(request);
        server.runtime.run();
        let heard = Heard::parse(&pipe.hear());
        assert_eq!((heard.status, heard.header("connection")), (413, "close"));
        assert!(pipe.is_closed());
        pipe.say("x".repeat(100_000));
        assert_eq!(server.runtime.run(), 1, "it lingers");
        assert_eq!(pipe.unread(), 0);
        pipe.hang_up();
        assert_eq!(server.runtime.run(), 0);
    }
    let at_most = format!(
        "GET /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n{}",
        "x".repeat(65_536)
    );
    assert_eq!(server.talk(at_most).status, 200);
}

#[test]
fn a_body_that_does_not_come_is_a_timeout() {
    let server = Server::new();
    let pipe = server.connect();
    pipe.say("GET /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab");
    server.runtime.run();
    assert!(pipe.hear().is_empty());
    server.runtime.let_pass(BODY_LIMIT);
    server.runtime.run();
    assert_eq!(Heard::parse(&pipe.hear()).status, 408);
}

#[test]
fn heads_too_large_get_their_status() {
    let server = Server::new();
    let long = "x".repeat(MAX_TARGET);
    assert_eq!(server.get(&format!("/{long}"), "").status, 414);
    assert_eq!(server.get(&format!("/{}", &long[1..]), "").status, 404);
    assert_eq!(server.get("/a.txt", &format!("X: {}\r\n", "x".repeat(17_000))).status, 431);
    assert_eq!(server.get("/a.txt", &"X: y\r\n".repeat(101)).status, 431);
    assert_eq!(server.get("/a.txt", &"X: y\r\n".repeat(90)).status, 200);
    assert_eq!(server.talk("no http at all\r\n\r\n").status, 400);
}

#[test]
fn a_hot_file_costs_no_job() {
    let server = Server::new();
    for path in ["/a.txt", "/big.bin", "/sub/"] {
        let before = server.runtime.jobs();
        for _ in 0..5 {
            assert_eq!(server.get(path, "").status, 200);
        }
        // One, unless the five took longer than a file is fresh, on a machine that is very busy.
        let looks = server.app.tally().get("http_cache_misses")
            + server.app.tally().get("http_cache_checks");
        assert_eq!(server.runtime.jobs() as u64, looks);
        assert!(server.runtime.jobs() > before);
    }
    assert_eq!(server.app.tally().get("http_cache_misses"), 3);
}

#[test]
fn a_stale_file_is_looked_at_and_the_new_one_is_sent() {
    let server = Server::new();
    let key =
        |path: &str| Key { path: SitePath::parse(path).unwrap(), preference: Preference::IDENTITY };
    let find = |at: Instant| {
        let found = crate::testing::now(server.app.find(key("/a.txt"), at, SystemTime::now()));
        match found {
            Ok(Answer::File(file)) => match &file.content {
                Content::Bytes(bytes) => Ok(bytes.clone()),
                Content::File(_) => panic!("small files are read"),
            },
            Ok(_) => panic!("no file"),
            Err(missing) => Err(missing.status()),
        }
    };
    let t0 = Instant::now();
    assert_eq!(find(t0).unwrap(), "0123456789");
    server.folder.write("site/a.txt", "changed");
    assert_eq!(find(t0 + crate::cache::FRESH / 2).unwrap(), "0123456789");
    assert_eq!(find(t0 + crate::cache::FRESH).unwrap(), "changed");
    std::fs::remove_file(server.folder.path().join("site/a.txt")).unwrap();
    assert_eq!(find(t0 + crate::cache::FRESH * 2), Err(StatusCode::NOT_FOUND));
    assert_eq!(find(t0 + crate::cache::FRESH * 2), Err(StatusCode::NOT_FOUND));
}

#[test]
fn a_client_that_leaves_during_a_look_does_not_keep_others_from_looking() {
    let server = Server::new();
    let key = Key { path: SitePath::parse("/a.txt").unwrap(), preference: Preference::IDENTITY };
    let t0 = Instant::now();
    assert!(crate::testing::now(server.app.find(key.clone(), t0, SystemTime::now())).is_ok());
    let t1 = t0 + crate::cache::FRESH;
    server.runtime.let_the_pool_hang(true);
    {
        let mut look = pin!(server.app.find(key.clone(), t1, SystemTime::now()));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(look.as_mut().poll(&mut cx).is_pending());
        assert!(matches!(server.app.cache.borrow_mut().get(&key, t1), Lookup::Fresh(_)));
    }
    assert!(matches!(server.app.cache.borrow_mut().get(&key, t1), Lookup::Stale(_)));
}

#[test]
fn a_file_that_becomes_shorter_ends_the_connection() {
    let server = Server::new();
    assert_eq!(server.get("/big.bin", "").status, 200);
    // The cache holds it open and with its length.
    let path = server.folder.path().join("site/big.bin");
    std::fs::File::options().write(true).open(path).unwrap().set_len(100_000).unwrap();
    let pipe = server.connect();
    pipe.say("GET /big.bin HTTP/1.1\r\nHost: h\r\n\r\n");
    server.runtime.run();
    let heard = Heard::parse(&pipe.hear());
    // On a machine so slow that the entry has become stale, the new length is announced and kept.
    if heard.header("content-length") == "200001" {
        assert_eq!(heard.body.len(), 100_000);
        assert!(pipe.is_closed());
    }
}

#[test]
fn the_log_and_the_numbers_say_what_was_really_sent() {
    let logs = Folder::new();
    let path = logs.path().join("access.log");
    let log = Arc::new(AccessLog::open(&Target::File(path.clone())).unwrap());
    let server = Server::with(|shared| shared.log = Some(Arc::clone(&log)));
    server.get("/a.txt?q", "User-Agent: test\r\n");
    server.talk("HEAD /big.bin HTTP/1.0\r\n\r\n");
    server.get("/none", "");
    // One that leaves before it is answered.
    server.runtime.let_the_pool_hang(true);
    let pipe = server.connect();
    pipe.say("GET /other HTTP/1.1\r\nHost: h\r\n\r\n");
    server.runtime.run();
    server.connections.end();
    assert_eq!(server.runtime.run(), 0);
    assert!(log.close(Duration::MAX));
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    for (line, want) in lines.iter().zip([
        "\"GET /a.txt?q HTTP/1.1\" 200 10 \"-\" \"test\" ",
        "\"HEAD /big.bin HTTP/1.0\" 200 0 \"-\" \"-\" ",
        "\"GET /none HTTP/1.1\" 404 14 \"-\" \"-\" ",
        "\"GET /other HTTP/1.1\" 499 0 \"-\" \"-\" ",
    ]) {
        assert!(line.starts_with("192.0.2.1 - - [") && line.contains(want), "{line}");
    }
    let tally = server.app.tally();
    assert_eq!((tally.get("http_requests"), tally.get("http_connections")), (4, 0));
    assert_eq!((tally.get("http_responses_ok"), tally.get("http_responses_client_error")), (2, 2));
    assert_eq!(tally.get("http_bytes_sent"), 24);
}

/// A listener that hands out what a test puts into it.
#[derive(Clone, Default)]
struct Waiting(Rc<Cell<VecDeque<io::Result<Pipe>>>>);

impl Waiting {
    fn connect(&self) -> Pipe {
        let pipe = Pipe::default();
        self.0.borrow_mut().push_back(Ok(pipe.clone()));
        pipe
    }
}

impl Listener for Waiting {
    type Io = Pipe;

    async fn accept(&self) -> io::Result<(Pipe, Option<SocketAddr>)> {
        let pipe = poll_fn(|_| match self.0.borrow_mut().pop_front() {
            Some(next) => Poll::Ready(next),
            None => Poll::Pending,
        });
        Ok((pipe.await?, Some("192.0.2.1:9".parse().unwrap())))
    }
}

struct Running {
    server: Server,
    listener: Waiting,
    stop: Stop,
    cut: Rc<Cell<Option<usize>>>,
}

const DRAIN: Duration = Duration::from_secs(30);

fn running(max_connections: usize) -> Running {
    let server = Server::new();
    let (listener, stop, cut) = (Waiting::default(), Stop::default(), Rc::new(Cell::new(None)));
    let limits = watch::Limits::default();
    let settings = crate::reactor::Settings { max_connections, drain: DRAIN, limits };
    let (runtime, app) = (server.runtime.clone(), Rc::clone(&server.app));
    let reactor = crate::reactor::run(runtime, listener.clone(), app, settings, stop.clone());
    let result = Rc::clone(&cut);
    server.runtime.spawn(async move {
        let cut = reactor.await;
        *result.borrow_mut() = Some(cut);
    });
    Running { server, listener, stop, cut }
}

const REQUEST: &str = "GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn a_reactor_serves_up_to_its_cap_and_sheds_the_rest() {
    let run = running(2);
    let pipes: Vec<_> = (0..3).map(|_| run.listener.connect()).collect();
    pipes.iter().for_each(|pipe| pipe.say(REQUEST));
    run.server.runtime.run();
    let answered: Vec<_> = pipes.iter().map(|pipe| !pipe.hear().is_empty()).collect();
    assert_eq!(answered, [true, true, false]);
    assert_eq!(run.server.runtime.sheds(), 1);
    pipes[0].hang_up();
    run.server.runtime.run();
    let next = run.listener.connect();
    next.say(REQUEST);
    run.server.runtime.run();
    assert_eq!(Heard::parse(&next.hear()).status, 200);
}

#[test]
fn draining_answers_what_is_asked_and_tells_everyone_that_it_was_the_last() {
    let run = running(10);
    let pipes: Vec<_> = (0..5).map(|_| run.listener.connect()).collect();
    let [new, idle, asking, late, busy] = &pipes[..] else { unreachable!() };
    for pipe in [idle, asking, late] {
        pipe.say(REQUEST);
    }
    busy.say("GET /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n");
    run.server.runtime.run();
    for pipe in [idle, asking, late] {
        let heard = Heard::parse(&pipe.hear());
        assert_eq!((heard.status, heard.header("connection")), (200, ""));
    }
    assert_eq!(run.stop.raise(), Stage::Draining);
    // The system has accepted this one already.
    let waiting = run.listener.connect();
    waiting.say(REQUEST);
    // This one's request and the word of the end cross, with another one behind it.
    late.say([REQUEST, REQUEST].concat());
    asking.say(&REQUEST[..10]);
    run.server.runtime.run();
    run.server.runtime.let_pass(Duration::from_millis(1));
    run.server.runtime.run();
    for pipe in [late, &waiting] {
        let heard = Heard::parse(&pipe.hear());
        assert_eq!((heard.status, heard.header("connection")), (200, "close"));
        assert!(pipe.is_closed());
        assert_eq!(heard.text(), "0123456789", "one answer");
        pipe.hang_up();
    }
    assert!(![new, idle, asking, busy].iter().any(|pipe| pipe.is_closed()));
    run.server.runtime.let_pass(Duration::from_millis(500));
    run.server.runtime.run();
    assert!(idle.is_closed() && run.server.app.tally().get("http_connections") == 2);
    assert_eq!(*run.cut.borrow(), None, "two are at work");
    busy.say("ab");
    asking.say(&REQUEST[10..]);
    run.server.runtime.run();
    for pipe in [busy, asking] {
        let heard = Heard::parse(&pipe.hear());
        assert_eq!((heard.status, heard.header("connection")), (200, "close"));
        pipe.hang_up();
    }
    run.server.runtime.run();
    assert_eq!(*run.cut.borrow(), Some(0));
}

#[test]
fn a_drain_is_over_in_time_or_at_the_second_signal() {
    for impatient in [true, false] {
        let run = running(10);
        let stuck = run.listener.connect();
        stuck.say("GET /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n");
        run.server.runtime.run();
        run.stop.raise();
        run.server.runtime.run();
        assert_eq!(*run.cut.borrow(), None);
        if impatient {
            run.stop.raise();
        } else {
            run.server.runtime.let_pass(DRAIN);
        }
        run.server.runtime.run();
        assert_eq!(*run.cut.borrow(), Some(1));
        assert_eq!(run.server.app.tally().get("http_connections"), 0);
    }
}

#[test]
fn an_error_of_the_listener_is_not_the_end() {
    let run = running(10);
    run.listener.0.borrow_mut().push_back(Err(io::ErrorKind::Other.into()));
    let pipe = run.listener.connect();
    pipe.say(REQUEST);
    run.server.runtime.run();
    assert!(pipe.hear().is_empty());
    run.server.runtime.let_pass(Duration::from_secs(1));
    run.server.runtime.run();
    assert_eq!(Heard::parse(&pipe.hear()).status, 200);
}
