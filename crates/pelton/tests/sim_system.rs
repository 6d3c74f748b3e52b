//! What an application asks of its system, in a simulation: the network and its troubles, time, names, files,
//! blocking calls, random numbers. Every run is made twice, and has to do the same both times.
#![cfg(feature = "sim")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use pelton::fs::File;
use pelton::net::{ListenOptions, TcpListener, TcpStream};
use pelton::sim::{self, Fault, Faults, Options, Sim};
use pelton::time::{sleep, timeout};

const MILLI: Duration = Duration::from_millis(1);

fn calm() -> Options {
    Options::new(1).faults(Faults::none()).vary(false)
}

// A database with a protocol of lines, and its driver, as an application has them.

/// `set KEY VALUE`, `get KEY`: one line each, answered by one line.
async fn database() -> io::Result<()> {
    let rows: Rc<RefCell<BTreeMap<String, u64>>> = Rc::default();
    let listener = TcpListener::bind("0.0.0.0:5432").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let rows = rows.clone();
        pelton::spawn(async move {
            let mut lines = Lines::new(stream);
            while let Ok(Some(line)) = lines.next().await {
                let mut words = line.split(' ');
                let answer = match (words.next(), words.next(), words.next()) {
                    (Some("set"), Some(key), Some(value)) => {
                        // A question of a connection that was given up may come after all: versions
                        // only grow.
                        let value: u64 = value.parse().unwrap_or(0);
                        let mut rows = rows.borrow_mut();
                        let row = rows.entry(key.to_owned()).or_default();
                        *row = value.max(*row);
                        "ok".to_owned()
                    }
                    (Some("get"), Some(key), None) => {
                        rows.borrow().get(key).copied().unwrap_or_default().to_string()
                    }
                    _ => "error".to_owned(),
                };
                if lines.stream.send_all(answer + "\n").await.is_err() {
                    break;
                }
            }
        })
        .detach();
    }
}

struct Lines {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Lines {
    fn new(stream: TcpStream) -> Lines {
        Lines { stream, rest: Vec::new() }
    }

    async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..at]).into_owned()));
            }
            match self.stream.recv().await? {
                Some(bytes) => self.rest.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

/// The driver: it connects again when a connection has failed.
struct Database {
    address: &'static str,
    open: Option<Lines>,
}

impl Database {
    async fn ask(&mut self, question: String) -> String {
        loop {
            match timeout(2000 * MILLI, self.try_ask(&question)).await {
                Ok(Ok(answer)) => return answer,
                _ => self.open = None,
            }
            sleep(20 * MILLI).await;
        }
    }

    async fn try_ask(&mut self, question: &str) -> io::Result<String> {
        let lines = match &mut self.open {
            Some(lines) => lines,
            closed => closed.insert(Lines::new(TcpStream::connect(self.address).await?)),
        };
        lines.stream.send_all(format!("{question}\n")).await?;
        lines.next().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn shop(sim: &Sim) {
    sim.host("db-1", || async {
        loop {
            // Out of descriptors, where the seed has that fault.
            let Err(_) = database().await else { continue };
            sleep(10 * MILLI).await;
        }
    });
    sim.add_name("db.example.com", "db-1");
    for number in 0..2 {
        sim.client(&format!("buyer-{number}"), async move {
            let mut database = Database { address: "db.example.com:5432", open: None };
            for round in 0..10 {
                let key = format!("key-{number}");
                assert_eq!(database.ask(format!("set {key} {round}")).await, "ok");
                assert_eq!(database.ask(format!("get {key}")).await, round.to_string());
            }
            Ok(())
        });
    }
}

#[pelton::sim_test(seeds = 60)]
fn a_driver_of_a_database_gets_through_every_swarm(sim: &Sim) {
    shop(sim);
}

#[pelton::sim_test(seeds = 30, faults = "harmless", partitions = 50_000)]
fn and_through_partitions(sim: &Sim) {
    shop(sim);
}

#[test]
fn a_name_may_have_several_addresses_and_an_unknown_one_is_an_error() {
    sim::run_with(calm(), |sim| {
        for name in ["a", "b"] {
            sim.host(name, || async {
                TcpListener::bind("0.0.0.0:80").await?.accept().await.map(drop)
            });
        }
        sim.add_name("both", ["a", "b"]);
        let (a, b) = (sim.address("a"), sim.address("b"));
        sim.client("client", async move {
            let both = pelton::driver::lookup("both", 80)?;
            assert_eq!(both, [SocketAddr::new(a, 80), SocketAddr::new(b, 80)]);
            // The first that answers is taken: nobody listens at the client's own address.
            let stream =
                TcpStream::connect(&[SocketAddr::new(a, 81), SocketAddr::new(b, 80)][..]).await?;
            assert_eq!(stream.peer_addr()?.ip(), b);
            drop(TcpStream::connect("both:80").await?);
            let error = TcpStream::connect("neither:80").await.unwrap_err();
            assert!(error.to_string().contains("a, b, both, client, localhost"), "{error}");
            Ok(())
        });
    });
}

// Time.

#[test]
fn time_passes_only_where_somebody_waits_for_it() {
    sim::run_with(calm(), |sim| {
        sim.client("client", async {
            let (now, wall) = (pelton::time::now(), pelton::time::wall());
            sleep(Duration::from_secs(3)).await;
            let passed = pelton::time::now() - now;
            assert!(
                passed >= Duration::from_secs(3) && passed < Duration::from_millis(3001),
                "{passed:?}"
            );
            assert_eq!(pelton::time::wall().duration_since(wall).unwrap().as_secs(), 3);
            // The same in every run: a date of the world's own.
            let epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(epoch.as_secs(), 1_900_000_000);
            Ok(())
        });
    });
}

#[test]
fn the_wall_clock_may_jump_and_the_other_never_goes_back() {
    let jumps = Faults::none().with(Fault::WallJump, 500_000).with(Fault::ClockStall, 100_000);
    let back = Rc::new(Cell::new(false));
    let seen = back.clone();
    sim::run_with(Options::new(3).faults(jumps), move |sim| {
        let seen = seen.clone();
        sim.client("client", async move {
            let (mut now, mut wall) = (pelton::time::now(), pelton::time::wall());
            for _ in 0..50 {
                sleep(MILLI).await;
                assert!(pelton::time::now() >= now);
                let before = std::mem::replace(&mut wall, pelton::time::wall());
                seen.set(seen.get() || wall < before);
                now = pelton::time::now();
            }
            Ok(())
        });
    });
    assert!(back.get(), "no jump went back: the test shows nothing");
}

#[test]
fn random_numbers_are_the_seeds() {
    let numbers = |seed| {
        let numbers = Rc::new(RefCell::new(Vec::new()));
        let into = numbers.clone();
        sim::run(seed, move |sim| {
            let into = into.clone();
            sim.client("client", async move {
                *into.borrow_mut() = vec![pelton::random(), pelton::random()];
                Ok(())
            });
        });
        numbers.take()
    };
    assert_eq!(numbers(4), numbers(4));
    assert_ne!(numbers(4), numbers(5));
    assert_ne!(numbers(4)[0], numbers(4)[1]);
}

// Blocking calls and files.

#[test]
fn blocking_calls_run_in_the_simulations_order_on_its_thread() {
    sim::run(6, |sim| {
        let thread = std::thread::current().id();
        sim.client("client", async move {
            let before = sim::current().elapsed();
            let calls: Vec<_> = (0..4)
                .map(|n| {
                    pelton::spawn(pelton::spawn_blocking(move || (n, std::thread::current().id())))
                })
                .collect();
            for (number, call) in calls.into_iter().enumerate() {
                assert_eq!(call.await.unwrap()?, (number, thread));
            }
            assert!(sim::current().elapsed() > before, "a blocking call takes time");
            Ok(())
        });
    });
}

async fn write(file: &File, bytes: &'static [u8], offset: u64) -> io::Result<()> {
    let (written, _) = file.write_at(bytes, offset).await;
    assert_eq!(written?, bytes.len());
    Ok(())
}

#[test]
fn a_file_keeps_over_a_crash_what_was_synced_and_perhaps_more() {
    let (lost, kept) = (Cell::new(0), Cell::new(0));
    for seed in 0..20 {
        let found = Rc::new(RefCell::new(Vec::new()));
        let into = found.clone();
        sim::run_with(Options::new(seed).faults(Faults::none()), move |sim| {
            let into = into.clone();
            sim.host("store", move || {
                let into = into.clone();
                async move {
                    let Ok(file) = File::open("/data/log").await else {
                        let file = File::create("/data/log").await?;
                        write(&file, b"synced,", 0).await?;
                        file.sync_all().await?;
                        write(&file, b"not synced", 7).await?;
                        // From inside, at the next moment.
                        sim::current().crash("store");
                        return std::future::pending().await;
                    };
                    let (read, bytes) = file.read_at(Vec::with_capacity(100), 0).await;
                    read?;
                    *into.borrow_mut() = bytes;
                    Ok(())
                }
            });
            sim.at(Duration::from_secs(1), |sim| {
                assert!(!sim.is_up("store"));
                sim.restart("store");
            });
            sim.client("client", sleep_for(Duration::from_secs(2)));
        });
        let found = found.borrow();
        assert!(found.starts_with(b"synced,"), "{}", String::from_utf8_lossy(&found));
        let count = if found.len() > 7 { &kept } else { &lost };
        count.set(count.get() + 1);
    }
    assert!(lost.get() > 0 && kept.get() > 0, "a crash is to do both: {lost:?}, {kept:?}");
}

async fn sleep_for(time: Duration) -> io::Result<()> {
    sleep(time).await;
    Ok(())
}

#[test]
fn a_disk_may_fail_and_hosts_have_disks_of_their_own() {
    sim::run_with(calm().faults(Faults::none().with(Fault::NoSpace, 1_000_000)), |sim| {
        sim.client("one", async {
            let file = File::create("/f").await?;
            let (written, _) = file.write_at(b"bytes", 0).await;
            assert_eq!(written.unwrap_err().raw_os_error(), Some(28));
            Ok(())
        });
        sim.client("other", async {
            sleep(MILLI).await;
            assert_eq!(File::open("/f").await.unwrap_err().kind(), io::ErrorKind::NotFound);
            Ok(())
        });
    });
}

// The network.

/// A host that sends back what it gets.
fn echo(sim: &Sim, name: &str) {
    sim.host(name, || async {
        let listener = TcpListener::bind("0.0.0.0:80").await?;
        loop {
            let (stream, _) = listener.accept().await?;
            pelton::spawn(async move {
                while let Ok(Some(bytes)) = stream.recv().await {
                    if stream.send_all(bytes).await.is_err() {
                        break;
                    }
                }
            })
            .detach();
        }
    });
}

async fn call(to: &str) -> io::Result<()> {
    let stream = TcpStream::connect(to).await?;
    stream.send_all("x").await?;
    assert_eq!(&*stream.recv().await?.expect("an echo"), b"x");
    Ok(())
}

#[test]
fn a_partition_lasts_until_it_is_healed_and_concerns_whom_it_names() {
    sim::run_with(calm(), |sim| {
        for name in ["a", "b", "c"] {
            echo(sim, name);
        }
        sim.client("client", async {
            let sim = sim::current();
            let within = 100 * MILLI;
            sim.partition("client", ["a", "b"]);
            assert!(timeout(within, call("a:80")).await.is_err());
            assert!(timeout(within, call("b:80")).await.is_err());
            timeout(within, call("c:80")).await.expect("c is not cut off")?;
            sim.heal("client", "a");
            timeout(within, call("a:80")).await.expect("a is healed")?;
            sim.isolate("client");
            for name in ["a:80", "b:80", "c:80"] {
                assert!(timeout(within, call(name)).await.is_err(), "{name}");
            }
            sim.heal_all();
            for name in ["a:80", "b:80", "c:80"] {
                timeout(within, call(name)).await.expect("all are healed")?;
            }
            Ok(())
        });
    });
}

#[test]
fn what_is_held_is_only_late_and_a_lost_first_packet_is_sent_again() {
    sim::run_with(calm(), |sim| {
        echo(sim, "server");
        sim.client("client", async {
            let sim = sim::current();
            let began = |after| sim.elapsed() + after;
            let heal = began(500 * MILLI);
            sim.hold("client", "server");
            sim.at(heal, |sim| sim.release("client", "server"));
            call("server:80").await?;
            let late = sim.elapsed() - heal;
            assert!(late < 10 * MILLI, "held, not lost: {late:?}");
            let heal = began(500 * MILLI);
            sim.partition("client", "server");
            sim.at(heal, |sim| sim.heal("client", "server"));
            call("server:80").await?;
            let late = sim.elapsed() - heal;
            assert!(
                late > 400 * MILLI,
                "the packet was lost, and sent again after a second: {late:?}"
            );
            Ok(())
        });
    });
}

#[test]
fn a_crash_is_silent_and_a_restart_begins_anew() {
    let boots = Rc::new(Cell::new(0));
    let count = boots.clone();
    sim::run_with(calm().twice(false), move |sim| {
        let count = count.clone();
        sim.host("server", move || {
            count.set(count.get() + 1);
            async {
                let listener = TcpListener::bind("0.0.0.0:80").await?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    pelton::spawn(async move { while let Ok(Some(_)) = stream.recv().await {} })
                        .detach();
                }
            }
        });
        sim.client("client", async {
            let sim = sim::current();
            let stream = TcpStream::connect("server:80").await?;
            sim.crash("server");
            // One that is down stays down, and one crash more is none.
            sim.crash("server");
            assert!(timeout(5000 * MILLI, stream.recv()).await.is_err(), "silence");
            assert!(!sim.is_up("server"));
            sim.restart("server");
            sim.restart("server");
            sleep(MILLI).await;
            assert!(sim.is_up("server"));
            // Its former life's connection is unknown to it.
            stream.send_all("hello?").await?;
            assert_eq!(stream.recv().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            TcpStream::connect("server:80").await.map(drop)
        });
    });
    assert_eq!(boots.get(), 2);
}

#[test]
fn each_reactor_of_a_host_gets_connections_at_a_listener_of_its_own() {
    let counts = Rc::new(RefCell::new([0; 3]));
    let into = counts.clone();
    sim::run_with(calm().twice(false), move |sim| {
        let into = into.clone();
        sim.fleet("server", 3, move |reactor| {
            let into = into.clone();
            async move {
                let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
                let listener = TcpListener::bind_with("0.0.0.0:80", options).await?;
                loop {
                    drop(listener.accept().await?);
                    into.borrow_mut()[reactor] += 1;
                }
            }
        });
        sim.client("client", async {
            for _ in 0..60 {
                drop(TcpStream::connect("server:80").await?);
            }
            Ok(())
        });
    });
    let counts = *counts.borrow();
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn a_handle_reaches_another_reactor_in_the_simulations_order() {
    sim::run(8, |sim| {
        sim.fleet("server", 2, |reactor| async move {
            if reactor == 0 {
                // When the other one runs.
                sleep(10 * MILLI).await;
                let there = sim::current().handle("server", 1);
                let answer = there.spawn(async { 6 * 7 });
                assert_eq!(answer.await.unwrap(), 42);
                sim::current().tell("answered");
            }
            std::future::pending().await
        });
        sim.client("client", sleep_for(Duration::from_secs(1)));
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_from_its_first_byte() {
    // Its bytes once overtook the answer to the connection, and were lost.
    for seed in 0..200 {
        sim::run_with(Options::new(seed).faults(Faults::none()).twice(false), |sim| {
            sim.host("server", || async {
                let listener = TcpListener::bind("0.0.0.0:80").await?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    stream.send_all("hello").await?;
                }
            });
            sim.client("client", async {
                let stream = TcpStream::connect("server:80").await?;
                let mut all = Vec::new();
                while let Some(bytes) = stream.recv().await? {
                    all.extend_from_slice(&bytes);
                }
                assert_eq!(all, b"hello");
                Ok(())
            });
        });
    }
}

/// Choices that only say how much of another one: its words tell of both.
const DETAILS: [&str; 17] = [
    "accept runs out of",
    "clock-stall length",
    "crash tears at",
    "datagram overtaken by",
    "late-completion by",
    "reset after",
    "short-file to",
    "short-receive to",
    "short-send to",
    "short-submit to",
    "slow by",
    "unseen for",
    "wake-late by",
    "wake-spurious after",
    "wake-twice after",
    "no-driver as",
    "way-lost as",
];

#[test]
fn every_choice_has_words_or_details_another_that_has() {
    let told = Rc::new(RefCell::new(BTreeMap::new()));
    for seed in 0..60 {
        let told = told.clone();
        sim::run_with(Options::new(seed).twice(false), move |sim| {
            shop(sim);
            let told = told.clone();
            sim.client("reader", async move {
                sleep(Duration::from_secs(1)).await;
                for decision in sim::current().world().decisions() {
                    told.borrow_mut().insert(decision.label, decision.story);
                }
                Ok(())
            });
        });
    }
    let told = told.borrow();
    for (label, story) in told.iter() {
        assert_eq!(story.is_empty(), DETAILS.contains(label), "{label}: {story:?}");
    }
    assert!(told.len() > 30, "too few kinds of choices for this to show anything: {told:#?}");
    for (label, words) in [
        ("short-receive", ["recv of ", " bytes of "]),
        ("short-send", ["send of ", " took "]),
        ("reset", ["connection ", " was reset"]),
        ("late-completion", [" late", " on "]),
        ("runs first", [" ran before ", " others"]),
        ("overtakes", [" before ", " others"]),
    ] {
        let story = told.get(label).unwrap_or_else(|| panic!("no {label}: {told:#?}"));
        assert!(words.iter().all(|word| story.contains(word)), "{label}: {story}");
    }
}

#[test]
fn what_a_short_receive_or_send_leaves_makes_an_edge() {
    // On epoll a short receive means that there is no more, until an edge says so. Once none did.
    let faults = [Fault::ShortReceive, Fault::ShortSend, Fault::RingRefused];
    let always = |faults: Faults, fault: &Fault| faults.with(*fault, 1_000_000);
    for seed in 0..20 {
        let options = Options::new(seed).faults(faults.iter().fold(Faults::none(), always));
        sim::run_with(options, |sim| {
            echo(sim, "server");
            sim.client("client", async {
                let sent = vec![7; 2000];
                let stream = TcpStream::connect("server:80").await?;
                stream.send_all(sent.clone()).await?;
                let mut all = Vec::new();
                while all.len() < sent.len() {
                    let more = timeout(5000 * MILLI, stream.recv()).await.expect("no edge came")?;
                    all.extend_from_slice(&more.expect("the server goes on"));
                }
                assert_eq!(all, sent);
                Ok(())
            });
        });
    }
}

#[test]
fn a_host_that_is_refused_its_descriptors_is_started_again() {
    let mut refused = 0;
    for seed in 0..20 {
        let faults = Faults::none().with(Fault::NoDriver, 400_000);
        let options = Options::new(seed).faults(faults).vary(false);
        let report = sim::run_with(options, |sim| {
            sim.fleet("server", 2, |_| async {
                let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
                let listener = TcpListener::bind_with("0.0.0.0:80", options).await?;
                loop {
                    listener.accept().await?.0.send_all("x").await?;
                }
            });
            sim.client("client", async {
                while call("server:80").await.is_err() {
                    sleep(10 * MILLI).await;
                }
                Ok(())
            });
        });
        // Whatever could not start is started after a tenth of a second.
        refused += u32::from(report.elapsed >= 100 * MILLI);
    }
    assert!(refused > 10, "something was refused under {refused} of 20 seeds");
}
