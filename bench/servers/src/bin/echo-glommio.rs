//! Echo on glommio: one executor, not pinned by it (whoever measures pins the process).

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};

use bench::args::Args;
use bench::{count, fail, listen, ready, versions};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use pelton_bench_servers as bench;

const NAME: &str = "echo-glommio";

fn main() {
    let args = Args::server(NAME, &[]);
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make();
    let executor = executor.unwrap_or_else(|error| fail(NAME, error));
    if let Err(error) = executor.run(serve(&args)) {
        fail(NAME, error);
    }
}

async fn serve(args: &Args) -> io::Result<()> {
    let listener = listen::listen(args.listen)?;
    let address = listener.local_addr()?;
    // SAFETY: the descriptor is a listening socket, and given away here.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    ready(NAME, address, &format!("{} unbound", versions::named("glommio")));
    let buffer = args.buffer;
    loop {
        let Ok(stream) = listener.accept().await else {
            glommio::timer::sleep(listen::PAUSE).await;
            continue;
        };
        glommio::spawn_local(async move {
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
