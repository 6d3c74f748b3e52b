//! Whole reactors on the simulator, small enough for Miri: tasks, buffers, the pool, timers, files and the
//! blocking pool, with every access to memory checked, and dropped in the middle of it all.
//!
//! Compiled as usual it is one more test of the simulator, under more seeds.
#![cfg(feature = "sim")]

use std::io;
use std::time::Duration;

use pelton::net::{TcpListener, TcpStream};
use pelton::sim::{self, Faults, Options, Sim};

const SEEDS: u64 = if cfg!(miri) { 3 } else { 20 };
const ROUNDS: usize = if cfg!(miri) { 1 } else { 2 };
const BYTES: usize = if cfg!(miri) { 100 } else { 3000 };

/// Miri runs a simulation once: that it does the same twice is for others to show.
fn options(seed: u64) -> Options {
    Options::new(seed).twice(!cfg!(miri))
}

async fn serve() -> io::Result<()> {
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
}

/// What came back, which is what was sent or the beginning of it.
async fn echoed(message: Vec<u8>) -> io::Result<usize> {
    let stream = TcpStream::connect("server:80").await?;
    let (sent, message) = stream.write_all(message).await;
    sent?;
    let mut back = Vec::new();
    while back.len() < message.len() {
        match pelton::time::timeout(Duration::from_secs(10), stream.recv()).await {
            Ok(Ok(Some(bytes))) => back.extend_from_slice(&bytes),
            _ => break,
        }
    }
    assert!(message.starts_with(&back), "what came back is not what was sent");
    Ok(back.len())
}

fn echo(sim: &Sim) {
    sim.host("server", serve);
    sim.client("client", async {
        let mut round = 0;
        while round < ROUNDS {
            let message: Vec<u8> = (0..BYTES).map(|n| (n + round) as u8).collect();
            match echoed(message).await {
                Ok(n) if n == BYTES => round += 1,
                _ => pelton::time::sleep(Duration::from_millis(10)).await,
            }
        }
        Ok(())
    });
}

#[test]
fn an_echo_touches_only_its_own_memory() {
    sim::run_with(options(0).faults(Faults::none()), echo);
    for seed in 0..SEEDS {
        sim::run_with(options(seed), echo);
    }
}

/// Operations of every kind that owns memory, given up half-way or not waited for at all.
async fn given_up() -> io::Result<()> {
    let soon = Duration::from_micros(200);
    for _ in 0..ROUNDS {
        if let Ok(stream) = TcpStream::connect("server:80").await {
            let _ = pelton::time::timeout(soon, stream.recv()).await;
            let _ = pelton::time::timeout(soon, stream.write_all(vec![1; 10 * BYTES])).await;
            let _ = pelton::time::timeout(soon, stream.read(Vec::with_capacity(64))).await;
        }
        if let Ok(file) = pelton::fs::File::create("/kept").await {
            let _ = file.write_at(vec![9; BYTES], 5).await;
            let _ = pelton::time::timeout(Duration::ZERO, file.sync_all()).await;
            let _ = pelton::time::timeout(soon, file.read_at(vec![0; BYTES], 0)).await;
        }
        let answer = pelton::spawn_blocking(|| vec![7_u8; 8]).await;
        assert!(answer.is_ok_and(|answer| answer == [7; 8]));
        let _ = pelton::time::timeout(Duration::ZERO, pelton::spawn_blocking(|| ())).await;
        let task = pelton::spawn(async {
            let held = [3_u8; 40];
            pelton::time::sleep(Duration::from_secs(3600)).await;
            held
        });
        pelton::time::sleep(soon).await;
        task.abort();
        assert!(task.await.is_err());
    }
    Ok(())
}

#[test]
fn what_is_given_up_half_way_touches_only_its_own_memory() {
    for seed in 0..SEEDS {
        sim::run_with(options(seed), |sim| {
            sim.host("server", serve);
            sim.client("client", given_up());
        });
    }
}

#[test]
fn a_host_that_crashes_with_everything_in_flight_leaves_no_memory_to_anybody() {
    for seed in 0..SEEDS {
        sim::run_with(options(seed), |sim| {
            sim.host("server", serve);
            sim.client("client", async {
                for _ in 0..ROUNDS {
                    let _ =
                        pelton::time::timeout(Duration::from_secs(1), echoed(vec![1; BYTES])).await;
                }
                Ok(())
            });
            sim.at(Duration::from_micros(700), |sim| sim.crash("server"));
            sim.at(Duration::from_millis(5), |sim| sim.restart("server"));
        });
    }
}
