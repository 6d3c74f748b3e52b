//! Echo on monoio's ring. `--tuned` sets `SINGLE_ISSUER`, `DEFER_TASKRUN`, `COOP_TASKRUN` and a larger
//! completion queue through its builder.

use std::io;

use bench::args::{Args, Extra};
use bench::{count, fail, listen, ready, versions};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
use pelton_bench_servers as bench;

const NAME: &str = "echo-monoio";

fn main() {
    let args = Args::server(NAME, &[Extra::Flag("--tuned")]);
    let mut builder = RuntimeBuilder::<IoUringDriver>::new();
    if args.flag("--tuned") {
        let mut ring = io_uring_06::IoUring::builder();
        ring.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
        ring.setup_cqsize(16384);
        builder = builder.uring_builder(ring).with_entries(4096);
    }
    let runtime = builder.enable_timer().build();
    let mut runtime = runtime.unwrap_or_else(|error| fail(NAME, error));
    if let Err(error) = runtime.block_on(serve(&args)) {
        fail(NAME, error);
    }
}

async fn serve(args: &Args) -> io::Result<()> {
    let listener = listen::listen(args.listen)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    let flags = if args.flag("--tuned") {
        "SINGLE_ISSUER|DEFER_TASKRUN|COOP_TASKRUN"
    } else {
        "default ring"
    };
    ready(NAME, address, &format!("{} io_uring {flags}", versions::named("monoio")));
    let buffer = args.buffer;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            monoio::time::sleep(listen::PAUSE).await;
            continue;
        };
        monoio::spawn(async move {
            let _ = echo(stream, buffer).await;
        });
    }
}

async fn echo(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    let mut buf = Vec::with_capacity(buffer);
    loop {
        let read;
        (read, buf) = stream.read(buf).await;
        if read? == 0 {
            return Ok(());
        }
        let written;
        (written, buf) = stream.write_all(buf).await;
        written?;
        buf.clear();
        count::one();
    }
}
