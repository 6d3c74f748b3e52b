//! `#[pelton::sim_test]`: its seeds, its report, and the command that makes a failure happen again.
#![cfg(feature = "sim")]

use std::cell::{Cell, RefCell};
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pelton::net::{TcpListener, TcpStream};
use pelton::sim::{self, Faults, Kind, Options, Sim};

/// With this in the environment the example fails.
const BUG: &str = "PELTON_TEST_OF_SIM_HAS_A_BUG";

/// A client that takes a short receive for all there is, where it has the bug.
#[pelton::sim_test(seeds = 40, faults = "harmless", time_limit_secs = 20)]
fn a_receiver_waits_for_all_of_it(sim: &Sim) {
    receiver(sim);
}

fn receiver(sim: &Sim) {
    let has_bug = std::env::var_os(BUG).is_some();
    sim.host("server", || async {
        let listener = TcpListener::bind("0.0.0.0:80").await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let _ = stream.send_all("it's all: here; and=there").await;
        }
    });
    sim.client("client", async move {
        let stream = TcpStream::connect("server:80").await?;
        let mut all = Vec::new();
        while let Some(bytes) = stream.recv().await? {
            all.extend_from_slice(&bytes);
            if has_bug || all.len() == 25 {
                break;
            }
        }
        sim::current().tell("the client has what it wants");
        assert_eq!(all.len(), 25, "not all of it");
        Ok(())
    });
}

#[test]
fn a_receiver_without_the_macro_waits_too() {
    sim::run_seeds_with(
        40,
        |seed| Options::new(seed).faults(Faults::swarm(seed).harmless()),
        receiver,
    );
}

/// The line behind `again:`, and the lines of the story before it.
fn report(output: &Output) -> (String, Vec<String>) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = text + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it should have failed: {text}");
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().rposition(|line| *line == "again:");
    let at = at.unwrap_or_else(|| panic!("no command: {text}"));
    let from = lines[..at].iter().rposition(|line| line.starts_with("seed ")).unwrap();
    let is_story = |line: &&&str| line.starts_with("* ") || line.starts_with("  ");
    let head = lines[from].to_owned();
    let story = lines[from..at].iter().filter(is_story).map(|line| (*line).to_owned());
    (lines[at + 1].to_owned(), std::iter::once(head).chain(story).collect())
}

fn pasted(test: &str) {
    if std::env::var_os("RUSTFLAGS").is_some() {
        // A sanitizer's build, as a rule: what a person would paste builds another one.
        return println!("skipped: RUSTFLAGS is set");
    }
    let mut first = Command::new(std::env::current_exe().unwrap());
    first.args([test, "--exact"]).env(BUG, "1");
    first
        .env_remove("PELTON_SIM_SEED")
        .env_remove("PELTON_SIM_REPLAY")
        .env_remove("PELTON_SIM_SEEDS");
    let (command, story) = report(&first.output().unwrap());
    assert!(command.contains(test) && command.ends_with("-- --exact"), "{command}");
    assert!(story.iter().any(|line| line.contains("brought")), "{story:#?}");
    assert!(story.iter().any(|line| line.contains("the client has what it wants")), "{story:#?}");
    let command = match command.contains("--features") {
        true => command,
        // Only the macro can know them.
        false => command.replace("cargo test ", "cargo test --features sim "),
    };
    let mut again = Command::new("sh");
    again.args(["-c", &command]).env(BUG, "1").current_dir(env!("CARGO_MANIFEST_DIR"));
    let (same, replayed) = report(&again.output().unwrap());
    assert_eq!(replayed, story, "{command}");
    assert_eq!(same.split(" cargo ").next(), command.split(" cargo ").next());
}

#[test]
fn the_command_that_is_printed_shows_the_same_failure_with_the_same_story() {
    pasted("a_receiver_waits_for_all_of_it");
}

#[test]
fn so_does_the_command_of_a_test_without_the_macro() {
    pasted("a_receiver_without_the_macro_waits_too");
}

static RUNS: AtomicU64 = AtomicU64::new(0);

fn without_twice(options: Options) -> Options {
    RUNS.fetch_add(1, Ordering::Relaxed);
    assert!(options.seed() < 3);
    options.twice(false)
}

#[pelton::sim_test(seeds = 3, faults = "none", options = without_twice)]
fn the_options_of_each_seed_can_be_changed(sim: &Sim) {
    sim.client("alone", async { Ok(()) });
    // In the last run, as far as the environment asks for no others.
    if sim.world().seed() == 2 && std::env::var_os("PELTON_SIM_SEED").is_none() {
        assert!(RUNS.load(Ordering::Relaxed) >= 3);
    }
}

mod inside {
    #[pelton::sim_test(seeds = 2)]
    #[should_panic(expected = "--test sim_test inside::a_module_is_part_of_the_name -- --exact")]
    fn a_module_is_part_of_the_name(sim: &pelton::sim::Sim) {
        sim.client("client", async { Err(std::io::Error::other("on purpose")) });
    }
}

fn failure(options: Options, scenario: impl Fn(&Sim)) -> sim::Failure {
    match sim::try_run(options, scenario) {
        Ok(report) => panic!("it should have failed: {report:?}"),
        Err(failure) => *failure,
    }
}

fn calm() -> Options {
    Options::new(1).faults(Faults::none()).vary(false)
}

#[test]
fn a_panic_is_told_with_its_place() {
    let failed = failure(calm(), |sim| {
        sim.client("client", async { panic!("no {}", "way") });
    });
    assert_eq!(failed.kind, Kind::Panic);
    let start = "client panicked at crates/pelton/tests/sim_test.rs:";
    assert!(failed.what.starts_with(start) && failed.what.ends_with(": no way"), "{failed}");
    assert!(
        failed.story.is_empty() && failed.to_string().contains("without any fault"),
        "{failed}"
    );
}

#[test]
fn a_panic_of_a_task_that_nobody_awaits_fails_the_run_unless_it_may() {
    let scenario = |sim: &Sim| {
        sim.client("client", async {
            let task = pelton::spawn(async { panic!("in a task") });
            pelton::time::sleep(Duration::from_millis(1)).await;
            assert!(task.await.is_err());
            Ok(())
        });
    };
    let failed = failure(calm(), scenario);
    assert!(failed.what.starts_with("a task of client panicked at "), "{failed}");
    sim::run_with(calm().allow_panics(true), scenario);
}

#[test]
fn a_name_that_nobody_has_is_told_with_those_that_there_are() {
    let failed = failure(calm(), |sim| {
        sim.host("server", || async { Ok(()) });
        sim.client("client", async { TcpStream::connect("sever:80").await.map(drop) });
    });
    assert_eq!(failed.kind, Kind::Error);
    assert!(
        failed.what.contains("\"sever\"") && failed.what.contains("client, localhost, server"),
        "{failed}"
    );
    type Wrong = fn(&Sim);
    let wrongs: [Wrong; 6] = [
        |sim| sim.partition("server", "sever"),
        |sim| sim.isolate("sever"),
        |sim| sim.crash("sever"),
        |sim| sim.restart("sever"),
        |sim| drop(sim.handle("sever", 0)),
        |sim| sim.add_name("db", ["server", "sever"]),
    ];
    for wrong in wrongs {
        let failed = failure(calm(), |sim| {
            sim.host("server", || async { Ok(()) });
            sim.client("client", async { Ok(()) });
            wrong(sim);
        });
        let says = "no host or client is named \"sever\": there is server and client";
        assert!(
            failed.what.starts_with("the test itself panicked at ") && failed.what.contains(says),
            "{failed}"
        );
    }
    let failed = failure(calm(), |sim| {
        sim.client("client", async { Ok(()) });
        sim.crash("client");
    });
    assert!(failed.what.contains("only hosts crash and restart"), "{failed}");
    let failed = failure(calm(), |sim| {
        sim.client("twin", async { Ok(()) });
        sim.host("twin", || async { Ok(()) });
    });
    assert!(failed.what.contains("named \"twin\" already"), "{failed}");
}

#[test]
fn who_waits_for_what_is_told_when_nothing_goes_on() {
    let limit = calm().time_limit(Duration::from_secs(1)).grace(Duration::from_secs(1));
    let failed = failure(limit, |sim| {
        sim.host("server", || async {
            let listener = TcpListener::bind("0.0.0.0:80").await?;
            let (_stream, _) = listener.accept().await?;
            std::future::pending().await
        });
        sim.client("client", async {
            TcpStream::connect("server:80").await?.recv().await.map(drop)
        });
        sim.client("dreamer", std::future::pending());
    });
    assert_eq!(failed.kind, Kind::Stuck);
    let text = failed.to_string();
    assert!(text.contains("client and dreamer did not end within 1s"), "{text}");
    assert!(text.contains("client waits for recv on connection 1 (client -> server:80)"), "{text}");
    assert!(text.contains("server waits for accept on the listener server:80"), "{text}");
    assert!(text.contains("dreamer waits for nothing but timers and tasks"), "{text}");
}

#[test]
fn a_run_that_is_not_deterministic_is_told_with_where_it_parts() {
    let runs = Cell::new(0);
    let failed = failure(calm(), |sim| {
        runs.set(runs.get() + 1);
        let wait = Duration::from_millis(runs.get());
        sim.client("client", async move {
            pelton::time::sleep(wait).await;
            TcpStream::connect("nowhere:1").await.unwrap_err();
            sim::current().choose("anything", 1000, |value| format!("anything was {value}"));
            Ok(())
        });
    });
    assert_eq!(failed.kind, Kind::NotDeterministic);
    assert!(failed.what.contains("the first run: "), "{failed}");
    assert!(!failed.again.contains("REPLAY"), "{failed}");
}

#[test]
fn a_choice_of_the_test_is_told_shrunk_and_one_with_a_semicolon_refused() {
    let failed = failure(calm(), |sim| {
        let many = sim.choose("it's many", 1_000, |value| format!("there were {value}"));
        let other = sim.choose("another", 1_000, |value| format!("another {value}"));
        sim.client("client", async move {
            assert!(many < 5 || other == u64::MAX, "too many");
            Ok(())
        });
    });
    assert_eq!(failed.story.len(), 1, "{failed}");
    assert!(failed.lines()[0].contains("there were ") && !failed.to_string().contains("another"));
    assert!(failed.again.contains(r"it'\''s many/0/0="), "{failed}");
    let failed = failure(calm(), |sim| {
        sim.choose("a;b", 2, |_| String::new());
    });
    assert!(failed.what.contains("has no semicolon"), "{failed}");
}

#[test]
fn partitions_and_crashes_by_chance_are_told_in_one_line_each() {
    let scenario = |sim: &Sim| {
        for name in ["a", "b", "c"] {
            sim.host(name, std::future::pending);
        }
        sim.client("client", async {
            let sim = sim::current();
            while sim.is_up("a") && sim.is_up("b") && sim.is_up("c") {
                pelton::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("a host is down");
        });
    };
    let failed = failure(calm().crashes(20_000).partitions(20_000), scenario);
    let lines = failed.lines();
    assert_eq!(lines.len(), 1, "{failed}");
    assert!(lines[0].contains(" lost power for "), "{failed}");
}

#[test]
fn the_network_is_cut_by_chance_and_healed_again() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let seen = told.clone();
    let options = Options::new(2).faults(Faults::none()).vary(false).partitions(100_000);
    sim::run_with(options, move |sim| {
        for name in ["a", "b"] {
            sim.host(name, std::future::pending);
        }
        let seen = seen.clone();
        sim.client("client", async move {
            pelton::time::sleep(Duration::from_secs(5)).await;
            let decisions = sim::current().world().decisions();
            *seen.borrow_mut() = decisions.into_iter().map(|one| one.story).collect();
            Ok(())
        });
    });
    let told = told.borrow();
    assert!(told.iter().any(|story| story.starts_with("the network between ")), "{told:#?}");
    assert!(
        told.iter().any(|story| story.contains(" was cut off from all others for ")),
        "{told:#?}"
    );
}
