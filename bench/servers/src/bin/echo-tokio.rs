//! Echo on tokio, on one thread.

use std::io;

use bench::args::Args;
use bench::{count, fail, listen, ready, versions};
use pelton_bench_servers as bench;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const NAME: &str = "echo-tokio";

fn main() {
    let args = Args::server(NAME, &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| fail(NAME, error));
    if let Err(error) = runtime.block_on(serve(&args)) {
        fail(NAME, error);
    }
}

async fn serve(args: &Args) -> io::Result<()> {
    let listener = listen::listen(args.listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    ready(NAME, address, &format!("{} current_thread", versions::named("tokio")));
    let buffer = args.buffer;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(listen::PAUSE).await;
            continue;
        };
        tokio::spawn(async move {
            let _ = echo(stream, buffer).await;
        });
    }
}

async fn echo(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    let mut buf = Vec::with_capacity(buffer);
    loop {
        if stream.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
        stream.write_all(&buf).await?;
        buf.clear();
        count::one();
    }
}
