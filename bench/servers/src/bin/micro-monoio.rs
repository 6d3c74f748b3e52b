//! The micro-benchmarks on monoio's ring. `--tuned` as for `echo-monoio`. Wakes from other threads only with
//! the feature `monoio-sync`.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use bench::args::{Extra, Given};
use bench::fail;
use bench::micro::{self, BLOCK, Plan, Runtime};
use bench::system::Clock;
use monoio::fs::File;
use monoio::{IoUringDriver, RuntimeBuilder};
use pelton_bench_servers as bench;

const NAME: &str = "micro-monoio";

fn main() {
    let mut extras = micro::extras();
    extras.push(Extra::Flag("--tuned"));
    let given = Given::read(NAME, extras);
    let mut builder = RuntimeBuilder::<IoUringDriver>::new();
    let mut backend = "io_uring";
    if given.flag("--tuned") {
        let mut ring = io_uring_06::IoUring::builder();
        ring.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
        ring.setup_cqsize(16384);
        builder = builder.uring_builder(ring).with_entries(4096);
        backend = "io_uring tuned";
    }
    let plan = Plan::new(&given, "monoio", backend, Clock::Thread);
    let runtime = builder.enable_timer().build();
    let mut runtime = runtime.unwrap_or_else(|error| fail(NAME, error));
    runtime.block_on(micro::run::<Monoio>(&plan));
}

struct Monoio;

impl Runtime for Monoio {
    type File = File;

    const WOKEN_FROM_AFAR: bool = cfg!(feature = "monoio-sync");

    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> {
        monoio::spawn(task)
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> {
        monoio::time::sleep(duration)
    }

    async fn open(path: &Path) -> io::Result<File> {
        File::open(path).await
    }

    fn spawn_reader(file: File, count: usize) -> impl Future<Output = File> {
        monoio::spawn(async move {
            let mut block = Vec::with_capacity(BLOCK);
            for n in 0..count {
                let read;
                (read, block) = file.read_at(block, micro::offset(n)).await;
                assert_eq!(read.expect("the file can be read"), BLOCK);
                block.clear();
            }
            file
        })
    }
}
