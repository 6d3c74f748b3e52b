//! The micro-benchmarks on smol: a local executor on the main thread. It has threads besides: process time.

use std::cell::Cell;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bench::args::Given;
use bench::micro::{self, BLOCK, Plan, Runtime};
use bench::system::Clock;
use pelton_bench_servers as bench;
use smol::{LocalExecutor, Timer};

const NAME: &str = "micro-smol";

thread_local! {
    static EXECUTOR: Cell<Option<&'static LocalExecutor<'static>>> = const { Cell::new(None) };
}

fn main() {
    let given = Given::read(NAME, micro::extras());
    let plan = Plan::new(&given, "smol", "epoll", Clock::Process);
    let executor: &'static LocalExecutor<'static> = Box::leak(Box::new(LocalExecutor::new()));
    EXECUTOR.set(Some(executor));
    smol::block_on(executor.run(micro::run::<Smol>(&plan)));
}

fn executor() -> &'static LocalExecutor<'static> {
    EXECUTOR.get().expect("`main` sets it")
}

struct Smol;

impl Runtime for Smol {
    type File = Arc<File>;

    const WOKEN_FROM_AFAR: bool = true;

    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> {
        executor().spawn(task)
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> {
        let timer = Timer::after(duration);
        async {
            timer.await;
        }
    }

    fn kept_sleep(duration: Duration) -> impl Future<Output = ()> + Unpin {
        Kept(Timer::after(duration))
    }

    async fn open(path: &Path) -> io::Result<Arc<File>> {
        Ok(Arc::new(File::open(path)?))
    }

    /// Each read on its pool of threads: its own `File` reads ahead on another thread, and would measure that.
    fn spawn_reader(file: Arc<File>, count: usize) -> impl Future<Output = Arc<File>> {
        executor().spawn(async move {
            let mut block = vec![0; BLOCK];
            for n in 0..count {
                let (file, mut taken) = (file.clone(), std::mem::take(&mut block));
                block = smol::unblock(move || {
                    file.read_exact_at(&mut taken, micro::offset(n)).expect("the file can be read");
                    taken
                })
                .await;
            }
            file
        })
    }
}

/// A timer without the moment at which it fired.
struct Kept(Timer);

impl Future for Kept {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}
