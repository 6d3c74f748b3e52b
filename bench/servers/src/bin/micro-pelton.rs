//! The micro-benchmarks on Pelton.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bench::args::{Extra, Given};
use bench::fail;
use bench::micro::{self, BLOCK, Closure, Plan, Runtime, Turns};
use bench::system::Clock;
use pelton::fs::File;
use pelton::{Backend, Builder, Handle};
use pelton_bench_servers as bench;

const NAME: &str = "micro-pelton";

fn main() {
    let mut extras = micro::extras();
    extras.push(Extra::OneOf("--backend", &["io_uring", "epoll"]));
    let given = Given::read(NAME, extras);
    let backend = match given.one_of("--backend") {
        "epoll" => Backend::Epoll,
        _ => Backend::IoUring,
    };
    let runtime = Builder::new().backend(backend).build();
    let runtime = runtime.unwrap_or_else(|error| fail(NAME, error));
    let plan = Plan::new(&given, "pelton", &runtime.backend().to_string(), Clock::Thread);
    runtime.block_on(micro::run::<Pelton>(&plan));
}

struct Pelton;

impl Runtime for Pelton {
    type File = File;

    const WOKEN_FROM_AFAR: bool = true;

    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> {
        let task = pelton::spawn(task);
        async { task.await.expect("it does not panic") }
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> {
        pelton::time::sleep(duration)
    }

    fn kept_sleep(duration: Duration) -> impl Future<Output = ()> + Unpin {
        pelton::time::sleep(duration)
    }

    async fn open(path: &Path) -> io::Result<File> {
        File::open(path).await
    }

    fn spawn_reader(file: File, count: usize) -> impl Future<Output = File> {
        let task = pelton::spawn(async move {
            let mut block = Vec::with_capacity(BLOCK);
            for n in 0..count {
                let read;
                (read, block) = file.read_at(block, micro::offset(n)).await;
                assert_eq!(read.expect("the file can be read"), BLOCK);
                block.clear();
            }
            file
        });
        async { task.await.expect("it does not panic") }
    }

    fn remote() -> Option<Arc<dyn Fn(Closure) + Send + Sync>> {
        let handle = Handle::current();
        Some(Arc::new(move |closure| handle.post(closure).expect("the reactor runs")))
    }

    fn turns() -> Option<Arc<dyn Fn() -> Turns + Send + Sync>> {
        let handle = Handle::current();
        Some(Arc::new(move || {
            let now = handle.counters();
            Turns {
                ticks: now.ticks.get(),
                enters: now.enters.get(),
                kernel_wakes: now.wakes_sent.get(),
            }
        }))
    }

    fn in_flight() -> Option<u64> {
        Some(Handle::current().snapshot().in_flight_total())
    }
}
