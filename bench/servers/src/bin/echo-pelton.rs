//! Echo on Pelton: reading into a buffer of the connection's own, or leasing from the pool.

use std::io;

use bench::args::{Args, Extra};
use bench::{count, fail, listen, ready, versions};
use pelton::net::{TcpListener, TcpStream};
use pelton::{Backend, Builder};
use pelton_bench_servers as bench;

const NAME: &str = "echo-pelton";

fn main() {
    let args = Args::server(
        NAME,
        &[
            Extra::OneOf("--backend", &["io_uring", "epoll"]),
            Extra::OneOf("--mode", &["owned", "leased"]),
        ],
    );
    let backend = match args.one_of("--backend") {
        "epoll" => Backend::Epoll,
        _ => Backend::IoUring,
    };
    let runtime = Builder::new().backend(backend).build();
    let runtime = runtime.unwrap_or_else(|error| fail(NAME, error));
    if let Err(error) = runtime.block_on(serve(&args)) {
        fail(NAME, error);
    }
}

async fn serve(args: &Args) -> io::Result<()> {
    let listener = listen::listen(args.listen)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    let leased = args.one_of("--mode") == "leased";
    let backend = pelton::Handle::current().backend();
    let mode = if leased { "leased" } else { "owned" };
    ready(NAME, address, &format!("{} {backend} {mode}", versions::named("pelton")));
    let buffer = args.buffer;
    loop {
        let stream = listener.accept_stream().await?;
        // A connection's error concerns its client alone, who sees it.
        if leased {
            pelton::spawn(async move {
                let _ = echo_leased(stream).await;
            })
            .detach();
        } else {
            pelton::spawn(async move {
                let _ = echo_owned(stream, buffer).await;
            })
            .detach();
        }
    }
}

async fn echo_leased(stream: TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.send_all(chunk).await?;
        count::one();
    }
    Ok(())
}

async fn echo_owned(stream: TcpStream, buffer: usize) -> io::Result<()> {
    let mut buf = Vec::with_capacity(buffer);
    loop {
        let read;
        (read, buf) = stream.read(buf).await;
        if read? == 0 {
            return Ok(());
        }
        let sent;
        (sent, buf) = stream.write_all(buf).await;
        sent?;
        buf.clear();
        count::one();
    }
}
