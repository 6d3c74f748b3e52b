//! Named pipes of Windows: servers and clients, bytes and messages, and every way in which they end.
#![cfg(windows)]

mod common;

use std::io::ErrorKind;

use common::*;
use pelton_driver::*;

fn driver() -> Driver {
    On { backend: Backend::Iocp }.driver()
}

/// A server's instance and how to open it.
fn server(driver: &Driver, options: &PipeServerOptions) -> (String, Fd) {
    let (name, server) = options.create_unique().unwrap();
    (name, attach(driver, server))
}

fn client(driver: &Driver, name: &str, messages: bool) -> Fd {
    attach(driver, PipeClientOptions::new().messages(messages).open(name).unwrap())
}

/// Both ends, the server's first.
fn both(driver: &Driver, messages: bool) -> (Fd, Fd) {
    let (name, server) = server(driver, PipeServerOptions::new().messages(messages));
    let client = client(driver, &name, messages);
    driver.run(Submission::connect_pipe(server)).unwrap();
    (server, client)
}

fn write(driver: &Driver, to: Fd, bytes: &[u8]) {
    assert_eq!(driver.run(Submission::write_all(to, bytes.to_vec())).0.unwrap(), bytes.len());
}

fn read(driver: &Driver, from: Fd, room: usize) -> Vec<u8> {
    let (n, bytes) = driver.run(Submission::read(from, Vec::with_capacity(room)));
    assert_eq!(n.unwrap(), bytes.len());
    bytes
}

/// A part of a message, and whether there is more; none at the end.
fn message(driver: &Driver, from: Fd, room: usize) -> Option<(Vec<u8>, bool)> {
    let (part, bytes) =
        driver.run(Submission::read_message(from, vec![0; room].into_boxed_slice()));
    part.unwrap().map(|part| (bytes[..part.len].to_vec(), part.more))
}

fn nothing_is_left(driver: Driver) {
    driver.settle();
    assert_eq!((driver.operations(), driver.snapshot().stale), (0, 0));
    let notifier = driver.notifier();
    drop(driver);
    assert_eq!(notifier.counters().snapshot().leaked, 0);
}

#[test]
fn a_client_is_waited_for_before_and_after_it_has_come() {
    let driver = driver();
    let (name, end) = server(&driver, &PipeServerOptions::new());
    let connect = driver.go(Submission::connect_pipe(end));
    driver.settle();
    assert!(!driver.is_done(&connect), "there is no client");
    let early = client(&driver, &name, false);
    driver.end(connect).unwrap();
    // One that was faster is there at once.
    let (name, other_end) = server(&driver, &PipeServerOptions::new());
    let late = client(&driver, &name, false);
    for _ in 0..2 {
        driver.run(Submission::connect_pipe(other_end)).unwrap();
    }
    for (server, client) in [(end, early), (other_end, late)] {
        write(&driver, client, b"question");
        assert_eq!(read(&driver, server, 64), b"question");
        write(&driver, server, b"answer");
        assert_eq!(read(&driver, client, 64), b"answer");
    }
    nothing_is_left(driver);
}

#[test]
fn a_client_that_has_come_and_gone_is_one_and_what_it_wrote_is_read() {
    let driver = driver();
    let (name, end) = server(&driver, &PipeServerOptions::new());
    let client = client(&driver, &name, false);
    write(&driver, client, b"and away");
    driver.run(Submission::close(client)).unwrap();
    driver.run(Submission::connect_pipe(end)).unwrap();
    assert_eq!(read(&driver, end, 64), b"and away");
    assert_eq!(read(&driver, end, 64), b"");
    nothing_is_left(driver);
}

#[test]
fn instances_are_as_many_as_there_may_be_and_then_it_is_busy() {
    let driver = driver();
    let mut options = PipeServerOptions::new();
    let (name, first) = server(&driver, options.max_instances(Some(2)));
    let second = attach(&driver, options.create(&name).unwrap());
    assert_eq!(options.create(&name).unwrap_err().kind(), ErrorKind::ResourceBusy);
    let clients = [client(&driver, &name, false), client(&driver, &name, false)];
    let error = PipeClientOptions::new().open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    assert!(error.to_string().contains("try again"), "{error}");
    for end in [first, second] {
        driver.run(Submission::connect_pipe(end)).unwrap();
    }
    for (n, client) in clients.into_iter().enumerate() {
        write(&driver, client, &[n as u8; 3]);
    }
    let mut heard = [read(&driver, first, 8), read(&driver, second, 8)];
    heard.sort();
    assert_eq!(heard, [[0; 3], [1; 3]]);
    nothing_is_left(driver);
}

#[test]
fn a_server_goes_on_with_the_next_client_after_it_has_disconnected_one() {
    let driver = driver();
    let (name, end) = server(&driver, PipeServerOptions::new().max_instances(Some(1)));
    for round in 0..3_u8 {
        // One that has been disconnected takes no client before it waits for one.
        let connect = driver.go(Submission::connect_pipe(end));
        let client = client(&driver, &name, false);
        driver.end(connect).unwrap();
        write(&driver, client, &[round; 4]);
        assert_eq!(read(&driver, end, 8), [round; 4]);
        let waits = driver.go(Submission::read(client, [0; 8]));
        driver.settle();
        driver.disconnect_pipe(end).unwrap();
        assert_eq!(driver.end(waits).0.unwrap_err().kind(), ErrorKind::NotConnected);
        let (n, _) = driver.run(Submission::write(client, b"late".to_vec()));
        assert_eq!(n.unwrap_err().kind(), ErrorKind::BrokenPipe);
        driver.run(Submission::close(client)).unwrap();
        assert_eq!(
            driver.run(Submission::read(end, [0; 8])).0.unwrap_err().kind(),
            ErrorKind::NotConnected
        );
    }
    nothing_is_left(driver);
}

#[test]
fn what_nobody_has_opened_is_not_connected() {
    let driver = driver();
    let (_, end) = server(&driver, &PipeServerOptions::new());
    let (n, _) = driver.run(Submission::read(end, [0; 8]));
    assert_eq!(n.unwrap_err().kind(), ErrorKind::NotConnected);
    let (n, _) = driver.run(Submission::write(end, b"x".to_vec()));
    assert_eq!(n.unwrap_err().kind(), ErrorKind::NotConnected);
    nothing_is_left(driver);
}

#[test]
fn messages_keep_their_bounds_and_a_part_of_one_says_so() {
    let driver = driver();
    let (end, client) = both(&driver, true);
    let large = pattern(3, 200_000);
    let sent = driver.go(Submission::write_all(client, large.clone()));
    let (first, more) = message(&driver, end, 150_000).unwrap();
    assert!(first == large[..150_000] && more);
    let (rest, more) = message(&driver, end, 150_000).unwrap();
    assert!(rest == large[150_000..] && !more, "one message, however many bytes");
    assert_eq!(driver.end(sent).0.unwrap(), large.len());
    for part in [&b"one"[..], b"two", b""] {
        write(&driver, client, part);
    }
    assert_eq!(message(&driver, end, 8), Some((b"one".to_vec(), false)));
    assert_eq!(message(&driver, end, 2), Some((b"tw".to_vec(), true)));
    assert_eq!(message(&driver, end, 8), Some((b"o".to_vec(), false)));
    assert_eq!(
        message(&driver, end, 8),
        Some((Vec::new(), false)),
        "it has no bytes, and is no end"
    );
    driver.run(Submission::close(client)).unwrap();
    assert_eq!(message(&driver, end, 8), None);
    nothing_is_left(driver);
}

#[test]
fn a_part_of_a_message_that_is_waited_for_is_told_as_one() {
    let driver = driver();
    let (end, client) = both(&driver, true);
    let waits = driver.go(Submission::read_message(end, [0; 4]));
    driver.settle();
    assert!(!driver.is_done(&waits));
    write(&driver, client, b"longer");
    let (part, bytes) = driver.end(waits);
    assert_eq!((part.unwrap().unwrap().more, bytes), (true, *b"long"));
    assert_eq!(message(&driver, end, 8), Some((b"er".to_vec(), false)));
    nothing_is_left(driver);
}

#[test]
fn messages_are_read_as_bytes_by_those_who_ask_for_bytes() {
    let driver = driver();
    let (end, client) = both(&driver, true);
    for part in [&b""[..], b"one", b"", b"and two"] {
        write(&driver, client, part);
    }
    assert_eq!(read(&driver, end, 64), b"one");
    assert_eq!(read(&driver, end, 4), b"and ");
    assert_eq!(read(&driver, end, 4), b"two");
    nothing_is_left(driver);
}

#[test]
fn waiting_for_a_message_takes_none_of_it() {
    let driver = driver();
    let (end, client) = both(&driver, true);
    for part in [&b"a message"[..], b"", b"x"] {
        let wait = driver.go(Submission::poll(end, Interest::Readable));
        driver.settle();
        assert!(!driver.is_done(&wait), "there is none");
        write(&driver, client, part);
        driver.end(wait).unwrap();
        driver.run(Submission::poll(end, Interest::Readable)).unwrap();
        assert_eq!(message(&driver, end, 64), Some((part.to_vec(), false)));
    }
    let error = driver.run(Submission::poll(end, Interest::Writable)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(errno::EOPNOTSUPP));
    nothing_is_left(driver);
}

#[test]
fn a_wait_for_a_client_can_be_given_up_and_the_next_one_finds_it() {
    let driver = driver();
    let (name, end) = server(&driver, &PipeServerOptions::new());
    for round in 0..4 {
        let connect = driver.go(Submission::connect_pipe(end));
        if round % 2 == 0 {
            driver.settle();
        }
        if round < 2 {
            assert!(driver.cancel(connect.id()));
            assert_eq!(errno(driver.end(connect)), errno::ECANCELED);
        } else {
            driver.abandon(connect);
            driver.until(|| driver.snapshot().orphans == 0);
        }
    }
    let client = client(&driver, &name, false);
    driver.run(Submission::connect_pipe(end)).unwrap();
    write(&driver, client, b"here");
    assert_eq!(read(&driver, end, 8), b"here");
    // And a close ends it.
    let (_, end) = server(&driver, &PipeServerOptions::new());
    let connect = driver.go(Submission::connect_pipe(end));
    driver.run(Submission::close(end)).unwrap();
    assert_eq!(errno(driver.end(connect)), errno::ECANCELED);
    nothing_is_left(driver);
}

#[test]
fn what_waits_goes_with_its_driver() {
    let driver = driver();
    let (end, client) = both(&driver, false);
    let reads = driver.go(Submission::read(end, vec![0; 64].into_boxed_slice()));
    let writes = driver.go(Submission::write_all(end, vec![1; 4 << 20]));
    let (_, lonely) = server(&driver, &PipeServerOptions::new());
    let connects = driver.go(Submission::connect_pipe(lonely));
    driver.settle();
    let _ = client;
    let notifier = driver.notifier();
    drop(driver);
    drop((reads, writes, connects));
    assert_eq!(notifier.counters().snapshot().leaked, 0);
}

#[test]
fn a_pipe_of_one_direction_refuses_the_other() {
    let driver = driver();
    let (name, end) = server(&driver, PipeServerOptions::new().write(false));
    assert_eq!(
        PipeClientOptions::new().open(&name).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
    let client = attach(&driver, PipeClientOptions::new().read(false).open(&name).unwrap());
    driver.run(Submission::connect_pipe(end)).unwrap();
    write(&driver, client, b"this way");
    assert_eq!(read(&driver, end, 64), b"this way");
    assert_eq!(errno(driver.run(Submission::write(end, b"x".to_vec())).0), errno::EBADF);
    assert_eq!(errno(driver.run(Submission::read(client, [0; 8])).0), errno::EBADF);
    nothing_is_left(driver);
}

#[test]
fn names_and_options_that_are_none_are_refused_with_a_word_why() {
    let server = PipeServerOptions::new();
    for name in
        ["", "pelton", r"\\.\pipe\", r"\\.\pipe\a\b", r"\\other\pipe\a", "\\\\.\\pipe\\a\0b"]
    {
        let error = server.create(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}: {error}");
    }
    let good = r"\\.\pipe\pelton-options";
    for options in [
        *PipeServerOptions::new().read(false).write(false),
        *PipeServerOptions::new().max_instances(Some(0)),
        *PipeServerOptions::new().max_instances(Some(255)),
    ] {
        assert_eq!(options.create(good).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let nobody = PipeClientOptions::new().open(r"\\.\pipe\pelton-nobody-has-this");
    assert_eq!(nobody.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn there_is_no_first_instance_where_there_is_one_already() {
    let (name, _first) = PipeServerOptions::new().create_unique().unwrap();
    let error = PipeServerOptions::new().first_instance(true).create(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn what_is_no_pipe_or_waits_is_refused() {
    let driver = driver();
    let (socket, _peer) = tcp(&driver);
    let file = attach(&driver, file());
    for fd in [socket, file] {
        assert_eq!(errno(driver.run(Submission::read(fd, [0; 8])).0), errno::EOPNOTSUPP);
        assert_eq!(errno(driver.run(Submission::write(fd, b"x".to_vec())).0), errno::EOPNOTSUPP);
        assert_eq!(errno(driver.run(Submission::connect_pipe(fd))), errno::EOPNOTSUPP);
    }
    // One of the standard library's, whose calls wait.
    let (from, _to) = std::io::pipe().unwrap();
    let from = attach(&driver, from);
    let error = driver.run(Submission::read(from, [0; 8])).0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    nothing_is_left(driver);
}

#[test]
fn the_pipes_of_a_child_are_read_and_written() {
    use std::process::{Command, Stdio};
    let driver = driver();
    let mut child = Command::new("cmd")
        .args(["/c", "echo from the child"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = attach(&driver, child.stdout.take().unwrap());
    let mut said = Vec::new();
    loop {
        let (n, part) = driver.run(Submission::read(output, Vec::with_capacity(64)));
        if n.unwrap() == 0 {
            break;
        }
        said.extend(part);
    }
    assert_eq!(String::from_utf8(said).unwrap().trim(), "from the child");
    child.wait().unwrap();
}
