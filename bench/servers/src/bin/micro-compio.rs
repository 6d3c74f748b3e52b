//! The micro-benchmarks on compio. `--tuned` as for `echo-compio`.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use bench::args::{Extra, Given};
use bench::fail;
use bench::micro::{self, BLOCK, Plan, Runtime};
use bench::system::Clock;
use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::fs::File;
use compio::io::AsyncReadAt;
use pelton_bench_servers as bench;

const NAME: &str = "micro-compio";

fn main() {
    let mut extras = micro::extras();
    extras.push(Extra::Flag("--tuned"));
    let given = Given::read(NAME, extras);
    let mut ring = ProactorBuilder::new();
    let mut backend = "io_uring";
    if given.flag("--tuned") {
        ring.single_issuer(true).defer_taskrun(true).coop_taskrun(true);
        ring.capacity(4096).cqsize(16384);
        backend = "io_uring tuned";
    }
    let plan = Plan::new(&given, "compio", backend, Clock::Thread);
    let runtime = compio::runtime::Runtime::builder().with_proactor(ring).build();
    let runtime = runtime.unwrap_or_else(|error| fail(NAME, error));
    runtime.block_on(micro::run::<Compio>(&plan));
}

struct Compio;

impl Runtime for Compio {
    type File = File;

    const WOKEN_FROM_AFAR: bool = true;

    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> {
        let task = compio::runtime::spawn(task);
        async { task.await.expect("it does not panic") }
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> {
        compio::time::sleep(duration)
    }

    async fn open(path: &Path) -> io::Result<File> {
        File::open(path).await
    }

    fn spawn_reader(file: File, count: usize) -> impl Future<Output = File> {
        let task = compio::runtime::spawn(async move {
            let mut block = Vec::with_capacity(BLOCK);
            for n in 0..count {
                let BufResult(read, filled) = file.read_at(block, micro::offset(n)).await;
                assert_eq!(read.expect("the file can be read"), BLOCK);
                block = filled;
                block.clear();
            }
            file
        });
        async { task.await.expect("it does not panic") }
    }
}
