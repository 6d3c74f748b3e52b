//! A process may end while its reactors run: nothing waits for them, and nothing hangs.

mod common;

use std::process::Command;
use std::time::Duration;

use common::on_each_backend;
use pelton::{Backend, Builder, FleetBuilder};

/// How the child is to end, and on which backend.
const HOW: &str = "PELTON_TEST_EXIT";

/// Reactors with a receive, a sleep and a blocking job in flight, which nobody ends.
fn leave_running(backend: Backend) {
    let (tell, told) = std::sync::mpsc::channel();
    let fleet = FleetBuilder::new()
        .reactors(2)
        .runtime(Builder::new().backend(backend))
        .start(move |_| {
            let tell = tell.clone();
            async move {
                let (stream, _other) = common::pair().await;
                let receive = pelton::spawn(async move { stream.recv().await.map(|_| ()) });
                drop(pelton::spawn_blocking(|| std::thread::sleep(Duration::from_secs(3600))));
                pelton::yield_now().await;
                tell.send(()).unwrap();
                pelton::time::sleep(Duration::from_secs(3600)).await;
                receive.await.unwrap()
            }
        })
        .unwrap();
    told.iter().take(2).for_each(drop);
    std::mem::forget(fleet);
}

/// What the child runs. Nothing, where this is no child.
#[test]
fn a_child_that_ends() {
    let Ok(how) = std::env::var(HOW) else { return };
    let (how, backend) = how.split_once(' ').unwrap();
    leave_running(backend.parse().unwrap());
    match how {
        // The thread that ends the process has no reactor.
        "elsewhere" => std::process::exit(7),
        // It is inside a task.
        "inside" => pelton::block_on(async {
            pelton::yield_now().await;
            std::process::exit(7)
        }),
        // The harness's `main` returns by itself.
        "return" => {}
        other => panic!("{other}?"),
    }
}

#[test]
fn a_process_with_live_reactors_ends() {
    on_each_backend(|backend| {
        for (how, code) in [("elsewhere", 7), ("inside", 7), ("return", 0)] {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "a_child_that_ends"])
                .env(HOW, format!("{how} {backend}"))
                // It ends in the middle of everything, on purpose: what nobody has freed by then is no leak.
                .env("ASAN_OPTIONS", "detect_leaks=0")
                .output()
                .unwrap();
            assert_eq!(child.status.code(), Some(code), "{how}: {child:?}");
        }
    });
}
