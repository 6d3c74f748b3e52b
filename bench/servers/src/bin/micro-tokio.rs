//! The micro-benchmarks on tokio, on one thread. Files go to its pool of threads: process time.

use std::future::Future;
use std::io::{self, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bench::args::Given;
use bench::fail;
use bench::micro::{self, BLOCK, BLOCKS, Closure, Plan, Runtime};
use bench::system::Clock;
use pelton_bench_servers as bench;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::runtime::Handle;

const NAME: &str = "micro-tokio";

fn main() {
    let given = Given::read(NAME, micro::extras());
    let plan = Plan::new(&given, "tokio", "current_thread", Clock::Process);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| fail(NAME, error));
    runtime.block_on(micro::run::<Tokio>(&plan));
}

struct Tokio;

impl Runtime for Tokio {
    type File = File;

    const WOKEN_FROM_AFAR: bool = true;

    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> {
        let task = tokio::spawn(task);
        async { task.await.expect("it does not panic") }
    }

    /// Without its budget, which after 128 polls of one task would leave a timer unarmed.
    fn sleep(duration: Duration) -> impl Future<Output = ()> {
        tokio::task::unconstrained(tokio::time::sleep(duration))
    }

    async fn open(path: &Path) -> io::Result<File> {
        File::open(path).await
    }

    /// It has no read at an offset: reads in order, and goes back to the start at the end.
    fn spawn_reader(mut file: File, count: usize) -> impl Future<Output = File> {
        let task = tokio::spawn(async move {
            let mut block = vec![0; BLOCK];
            for n in 0..count {
                if n % BLOCKS == 0 {
                    file.seek(SeekFrom::Start(0)).await.expect("a file can be rewound");
                }
                file.read_exact(&mut block).await.expect("the file can be read");
            }
            file
        });
        async { task.await.expect("it does not panic") }
    }

    fn remote() -> Option<Arc<dyn Fn(Closure) + Send + Sync>> {
        let handle = Handle::current();
        Some(Arc::new(move |closure| drop(handle.spawn(async move { closure() }))))
    }
}
