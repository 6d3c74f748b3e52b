//! The first words, and what keeps the program from starting.

use std::net::TcpListener;

use crate::client::Client;
use crate::on_each_backend;
use crate::server::{Folder, Server, limited, program, run};

on_each_backend! {
    the_announcement_says_where_and_on_what
    a_port_that_is_taken_is_an_error_with_its_cure
    the_soft_limit_on_open_files_is_raised_to_the_hard_one
}

fn the_announcement_says_where_and_on_what(backend: &str) {
    let folder = Folder::new();
    for (listen, start) in [("127.0.0.1:0", "127.0.0.1:"), ("[::1]:0", "[::1]:"), (":0", "[::]:")] {
        let server = Server::start(backend, &folder, &["--listen", listen, "--reactors", "2"]);
        let want = format!("listening on http://{} backend={backend} reactors=2\n", server.address);
        assert_eq!(server.announcement, want);
        assert!(server.address.to_string().starts_with(start), "{}", server.address);
        assert_ne!(server.address.port(), 0);
        let ended = server.end();
        assert_eq!((ended.code, ended.stdout, ended.stderr), (Some(0), want, String::new()));
    }
}

fn a_port_that_is_taken_is_an_error_with_its_cure(backend: &str) {
    let folder = Folder::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    // A second server may not share the port of a first one either, though both could.
    let first = Server::start(backend, &folder, &["--reactors", "2"]);
    for address in [other.local_addr().unwrap(), first.address] {
        for reactors in ["1", "2"] {
            let mut command = program();
            command.arg("serve").arg(folder.path()).args(["--backend", backend]);
            command.args(["--listen", &address.to_string(), "--reactors", reactors]);
            let ended = run(command);
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
            let cure = format!("sport = :{}", address.port());
            assert!(ended.stderr.contains(&cure), "{}", ended.stderr);
            assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        }
    }
    assert_eq!(first.connect().get("/", "").status, 200);
}

/// The soft and the hard limit on open files of a process.
fn open_files(process: u32) -> (u32, u32) {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn the_soft_limit_on_open_files_is_raised_to_the_hard_one(backend: &str) {
    let folder = Folder::new();
    folder.write("a.txt", "a");
    let start = |soft, hard, options: &[&str]| {
        let mut command = limited(soft, hard);
        command.arg("serve").arg(folder.path());
        Server::of(command, backend, options)
    };
    let server = start(64, 512, &["--verbose"]);
    assert_eq!(open_files(server.process()), (512, 512));
    // More at once than the soft limit had allowed.
    let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/a.txt", "").text(), "a");
    }
    assert_eq!(clients[0].numbers().of("accept_pauses"), 0);
    drop(clients);
    let said = server.end().stderr;
    let words = "512 open files are allowed, the hard limit; the soft limit was 64";
    assert!(said.contains(words), "{said}");

    // Where there is nothing to raise, that is said; and without being asked nothing is.
    let server = start(300, 300, &["--verbose"]);
    assert_eq!(open_files(server.process()), (300, 300));
    assert!(server.end().stderr.contains("300 open files are allowed, which is the hard limit"));
    assert_eq!(start(64, 512, &[]).end().stderr, "");
}

#[test]
fn what_cannot_be_served_is_told_in_a_sentence() {
    let folder = Folder::new();
    let file = folder.write("file", "x");
    for (path, word) in [(folder.path().join("none"), "no folder"), (file, "not a folder")] {
        let mut command = program();
        command.arg("serve").arg(path).args(["--listen", "127.0.0.1:0"]);
        let ended = run(command);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
    let mut command = program();
    command.env("PELTON_BACKEND", "nonesuch").arg("serve").arg(folder.path());
    command.args(["--listen", "127.0.0.1:0"]);
    let ended = run(command);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("nonesuch") && ended.stderr.contains("io_uring, epoll"));
}

#[test]
fn the_environment_names_the_backend_where_the_command_line_does_not() {
    let folder = Folder::new();
    let mut command = program();
    command.env("PELTON_BACKEND", "epoll").arg("serve").arg(folder.path());
    let server = Server::of(command, "auto", &[]);
    assert!(server.announcement.contains(" backend=epoll "), "{}", server.announcement);
}

#[test]
fn where_the_first_choice_cannot_run_a_second_line_says_why() {
    let folder = Folder::new();
    let works = crate::io_uring_works("the line without a fallback");
    let server = Server::start("auto", &folder, &["--reactors", "2"]);
    let (address, ended) = (server.address, server.end());
    let backend = if works { "io_uring" } else { "epoll" };
    let first = format!("listening on http://{address} backend={backend} reactors=2\n");
    let second = ended.stdout.strip_prefix(&first).unwrap();
    if works {
        assert_eq!(second, "");
        return;
    }
    assert!(second.starts_with("fallback: ") && second.lines().count() == 1, "{second}");
    // Who asked for it by name is not given another.
    let mut command = program();
    command.arg("serve").arg(folder.path()).args(["--backend", "io_uring"]);
    let ended = run(command);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.starts_with("pelton: io_uring cannot run here: "), "{}", ended.stderr);
}

#[test]
fn doctor_fails_where_nothing_would_run() {
    let mut command = program();
    command.arg("doctor");
    let well = run(command);
    assert_eq!(well.code, Some(0), "{}", well.stdout);
    for option in [&[][..], &["--json"]] {
        let mut command = program();
        command.env("PELTON_BACKEND", "nonesuch").arg("doctor").args(option);
        let ended = run(command);
        assert_eq!(ended.code, Some(1));
        assert!(ended.stdout.contains("nonesuch") && ended.stderr.is_empty());
    }
}

#[test]
fn doctor_says_that_serve_raises_the_limit_on_open_files() {
    let mut command = limited(64, 8192);
    command.arg("doctor");
    let text = run(command).stdout;
    assert!(text.contains("open files 64, at most 8192"), "doctor itself changes nothing: {text}");
    assert!(text.contains("note: RLIMIT_NOFILE is 64"), "{text}");
    assert!(text.contains("`pelton serve` raises it"), "{text}");
    let mut command = limited(64, 512);
    command.arg("doctor");
    let text = run(command).stdout;
    assert!(text.contains("warning: RLIMIT_NOFILE is 64"), "{text}");
}

#[test]
fn doctor_gives_each_reason_once() {
    for backend in ["", "epoll", "io_uring"] {
        let mut command = program();
        command.env("PELTON_BACKEND", backend).args(["doctor", "--json"]);
        let found: serde_json::Value = serde_json::from_str(&run(command).stdout).unwrap();
        let mut command = program();
        command.env("PELTON_BACKEND", backend).arg("doctor");
        let text = run(command).stdout;
        for reason in [&found["backend_reason"], &found["io_uring"]["reason"]] {
            let Some(reason) = reason.as_str() else { continue };
            assert_eq!(text.matches(reason).count(), 1, "{reason}: {text}");
        }
        if found["backend"] == "epoll" {
            assert!(!text.contains("let the epoll backend"), "it does the work already: {text}");
        }
    }
}
