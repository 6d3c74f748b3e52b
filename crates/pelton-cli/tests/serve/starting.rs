//! The first words, and what keeps the program from starting.

use std::net::TcpListener;

use crate::on_each_backend;
use crate::server::{Folder, Server, program, run};

on_each_backend! {
    the_announcement_says_where_and_on_what
    a_port_that_is_taken_is_an_error_with_its_cure
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
    assert!(ended.stderr.contains("nonesuch") && ended.stderr.contains("io_uring or epoll"));
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
