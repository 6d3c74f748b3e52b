//! Echo on compio. `--tuned` sets what its ring can be told: `SINGLE_ISSUER`, `DEFER_TASKRUN`,
//! `COOP_TASKRUN` and larger queues. `--mode managed` receives into its pool of buffers.

use std::io;
use std::num::NonZero;

use bench::args::{Args, Extra};
use bench::{count, fail, listen, ready, versions};
use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncReadManaged, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::Runtime;
use pelton_bench_servers as bench;

const NAME: &str = "echo-compio";

/// Buffers of the pool, as many as the raw loop has.
const POOL: NonZero<u16> = NonZero::new(1024).unwrap();

fn main() {
    let args = Args::server(
        NAME,
        &[Extra::Flag("--tuned"), Extra::OneOf("--mode", &["owned", "managed"])],
    );
    let mut ring = ProactorBuilder::new();
    if args.flag("--tuned") {
        ring.single_issuer(true).defer_taskrun(true).coop_taskrun(true);
        ring.capacity(4096).cqsize(16384);
    }
    if managed(&args) {
        ring.buffer_pool_size(POOL).buffer_pool_buffer_len(args.buffer);
    }
    let runtime = Runtime::builder().with_proactor(ring).build();
    let runtime = runtime.unwrap_or_else(|error| fail(NAME, error));
    if let Err(error) = runtime.block_on(serve(&args)) {
        fail(NAME, error);
    }
}

fn managed(args: &Args) -> bool {
    args.one_of("--mode") == "managed"
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
    let mode = args.one_of("--mode");
    let driver = compio::runtime::Runtime::with_current(|runtime| runtime.driver_type());
    let compio = versions::named("compio");
    ready(NAME, address, &format!("{compio} {driver:?} {flags} {mode}"));
    let (buffer, managed) = (args.buffer, managed(args));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            compio::time::sleep(listen::PAUSE).await;
            continue;
        };
        if managed {
            compio::runtime::spawn(async move {
                let _ = echo_managed(stream, buffer).await;
            })
            .detach();
        } else {
            compio::runtime::spawn(async move {
                let _ = echo(stream, buffer).await;
            })
            .detach();
        }
    }
}

async fn echo(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    let mut buf = Vec::with_capacity(buffer);
    loop {
        let BufResult(read, filled) = stream.read(buf).await;
        if read? == 0 {
            return Ok(());
        }
        let BufResult(written, emptied) = stream.write_all(filled).await;
        written?;
        buf = emptied;
        buf.clear();
        count::one();
    }
}

async fn echo_managed(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    loop {
        // 0 means: as much as a buffer takes.
        let chunk = match stream.read_managed(0).await {
            Ok(Some(chunk)) if !chunk.is_empty() => chunk,
            Ok(_) => return Ok(()),
            // It does not wait for a buffer: when all are in use, read into one of our own.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                let BufResult(read, chunk) = stream.read(Vec::with_capacity(buffer)).await;
                if read? == 0 {
                    return Ok(());
                }
                stream.write_all(chunk).await.0?;
                count::one();
                continue;
            }
            Err(error) => return Err(error),
        };
        stream.write_all(chunk).await.0?;
        count::one();
    }
}
