//! Echo on smol: `async-io` and a local executor on the main thread. `async-io` has a thread of its own
//! besides.

use std::io;

use bench::args::Args;
use bench::{count, fail, listen, ready, versions};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use pelton_bench_servers as bench;
use smol::net::TcpStream;
use smol::{Async, LocalExecutor, Timer};

const NAME: &str = "echo-smol";

fn main() {
    let args = Args::server(NAME, &[]);
    let executor = LocalExecutor::new();
    if let Err(error) = smol::block_on(executor.run(serve(&args, &executor))) {
        fail(NAME, error);
    }
}

async fn serve(args: &Args, executor: &LocalExecutor<'_>) -> io::Result<()> {
    let listener = Async::new(listen::listen(args.listen)?)?;
    let address = listener.get_ref().local_addr()?;
    let (smol, io, tasks) =
        (versions::named("smol"), versions::named("async-io"), versions::named("async-executor"));
    ready(NAME, address, &format!("{smol}, {io}, {tasks}, LocalExecutor"));
    let listener = smol::net::TcpListener::from(listener);
    let buffer = args.buffer;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            Timer::after(listen::PAUSE).await;
            continue;
        };
        executor
            .spawn(async move {
                let _ = echo(stream, buffer).await;
            })
            .detach();
    }
}

async fn echo(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    // Its `read` takes a slice, so the buffer has to be written once before it is used.
    let mut buf = vec![0; buffer];
    loop {
        let read = stream.read(&mut buf).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buf[..read]).await?;
        count::one();
    }
}
