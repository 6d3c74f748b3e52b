//! The simulator under the runtime.
#![cfg(feature = "sim")]

use std::time::Duration;

use pelton::net::{TcpListener, TcpStream};
use pelton::sim::{self, Faults, Options, Sim};

fn echo(sim: &Sim) {
    sim.host("server", || async {
        let listener = loop {
            match TcpListener::bind("0.0.0.0:80").await {
                Ok(listener) => break listener,
                // Out of descriptors: the faults of this seed.
                Err(_) => pelton::time::sleep(Duration::from_millis(10)).await,
            }
        };
        loop {
            let (stream, _) = listener.accept().await?;
            drop(pelton::spawn(async move {
                while let Ok(Some(bytes)) = stream.recv().await {
                    if stream.send_all(bytes).await.is_err() {
                        break;
                    }
                }
            }));
        }
    });
    for number in 0..3_u8 {
        sim.client(&format!("client{number}"), async move {
            let mut round = 0_u32;
            while round < 5 {
                let Ok(stream) = TcpStream::connect("server:80").await else {
                    pelton::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let message: Vec<u8> = (0..2000_u32).map(|n| (n + round) as u8 ^ number).collect();
                let (sent, message) = stream.write_all(message).await;
                if sent.is_err() {
                    continue;
                }
                let mut back = Vec::new();
                while back.len() < message.len() {
                    match pelton::time::timeout(Duration::from_secs(30), stream.recv()).await {
                        Ok(Ok(Some(bytes))) => back.extend_from_slice(&bytes),
                        _ => break,
                    }
                }
                assert!(message.starts_with(&back), "what came back is not what was sent");
                if back.len() == message.len() {
                    round += 1;
                }
            }
            Ok(())
        });
    }
}

#[test]
fn an_echo_without_faults_ends_and_leaves_nothing() {
    let report = sim::run_with(Options::new(1).faults(Faults::none()), echo);
    assert!(report.events > 50, "{report:?}");
}

#[test]
fn an_echo_survives_a_hundred_swarms() {
    for seed in 0..100 {
        sim::run_with(Options::new(seed).time_limit(Duration::from_secs(1)), echo);
    }
}

#[test]
fn virtual_time_is_not_real_time() {
    let real = std::time::Instant::now();
    let report = sim::run_with(
        Options::new(3).faults(Faults::none()).time_limit(Duration::from_secs(100_000)),
        |sim| {
            sim.client("sleeper", async {
                pelton::time::sleep(Duration::from_secs(86_400)).await;
                Ok(())
            });
        },
    );
    assert!(report.elapsed >= Duration::from_secs(86_400));
    assert!(real.elapsed() < Duration::from_secs(60));
}

#[test]
fn outside_of_a_simulation_a_runtime_on_the_simulated_system_runs_its_jobs_itself() {
    let runtime = pelton::Builder::new().backend(pelton::Backend::Sim).build().unwrap();
    let written = runtime.block_on(async {
        let file = pelton::fs::File::create("/data").await?;
        let (written, _) = file.write_at("hello", 0).await;
        file.sync_all().await?;
        let (read, bytes) = file.read_at(Vec::with_capacity(16), 0).await;
        assert_eq!((read?, &bytes[..]), (5, &b"hello"[..]));
        written
    });
    assert_eq!(written.unwrap(), 5);
}
