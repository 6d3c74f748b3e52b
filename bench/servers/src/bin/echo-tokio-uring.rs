//! Echo on tokio-uring. `--tuned` sets `COOP_TASKRUN`, `TASKRUN_FLAG` and larger queues: it waits for its
//! ring with epoll, which rules `DEFER_TASKRUN` out.

use std::io;

use bench::args::{Args, Extra};
use bench::{count, fail, listen, ready, versions};
use pelton_bench_servers as bench;
use tokio_uring::net::{TcpListener, TcpStream};

const NAME: &str = "echo-tokio-uring";

fn main() {
    let args = Args::server(NAME, &[Extra::Flag("--tuned")]);
    let mut builder = tokio_uring::builder();
    if args.flag("--tuned") {
        let mut ring = tokio_uring::uring_builder();
        ring.setup_coop_taskrun().setup_taskrun_flag().setup_cqsize(16384);
        builder.entries(4096).uring_builder(&ring);
    }
    if let Err(error) = builder.start(serve(&args)) {
        fail(NAME, error);
    }
}

async fn serve(args: &Args) -> io::Result<()> {
    let listener = listen::listen(args.listen)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener);
    let flags = if args.flag("--tuned") { "COOP_TASKRUN|TASKRUN_FLAG" } else { "default ring" };
    let (uring, tokio) = (versions::named("tokio-uring"), versions::named("tokio"));
    ready(NAME, address, &format!("{uring} {flags}, {tokio}"));
    let buffer = args.buffer;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(listen::PAUSE).await;
            continue;
        };
        tokio_uring::spawn(async move {
            let _ = echo(stream, buffer).await;
        });
    }
}

async fn echo(stream: TcpStream, buffer: usize) -> io::Result<()> {
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
