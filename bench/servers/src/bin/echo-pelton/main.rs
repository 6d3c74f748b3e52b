//! Echo on Pelton: reading into a buffer of the connection's own, or leasing from the pool.
//!
//! `--dispatch` says where a request's continuation runs, which is what the decomposition of the cost
//! compares: [`offload`] tells how. The driver's settings are the default ones but for `--batch-wait-us`.

mod offload;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bench::args::{Args, Extra};
use bench::{count, fail, listen, ready, versions};
use offload::Where;
use pelton::driver::Config;
use pelton::net::{TcpListener, TcpStream};
use pelton::{Backend, Builder, Dispatch};
use pelton_bench_servers as bench;

const NAME: &str = "echo-pelton";

fn main() {
    let args = Args::server(
        NAME,
        &[
            Extra::OneOf("--backend", &["io_uring", "epoll"]),
            Extra::OneOf("--mode", &["owned", "leased"]),
            Extra::OneOf("--dispatch", &["inline", "queued", "offload", "offload-coalesced"]),
            Extra::Count("--batch-wait-us", 0),
            Extra::Flag("--read-ahead"),
        ],
    );
    let backend = match args.one_of("--backend") {
        "epoll" => Backend::Epoll,
        _ => Backend::IoUring,
    };
    let dispatch = match args.one_of("--dispatch") {
        "queued" => Dispatch::Queued,
        _ => Dispatch::Inline,
    };
    if args.flag("--read-ahead")
        && (args.one_of("--mode") != "leased" || args.one_of("--dispatch").starts_with("offload"))
    {
        args.refuse("--read-ahead is for `--mode leased` with `--dispatch inline` or `queued`");
    }
    let batch_wait = Duration::from_micros(args.count("--batch-wait-us") as u64);
    let config = Config { backend, batch_wait, ..Config::default() };
    let runtime = Builder::new().driver(config).dispatch(dispatch).build();
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
    let read_ahead = args.flag("--read-ahead");
    let at = match args.one_of("--dispatch") {
        "offload" => Where::Pool,
        "offload-coalesced" => Where::Worker(offload::start()?),
        _ => Where::Here,
    };
    ready(NAME, address, &detail(args));
    let buffer = args.buffer;
    loop {
        let stream = listener.accept_stream().await?;
        let at = at.clone();
        // A connection's error concerns its client alone, who sees it. A task for each way, so that none
        // is as large as the largest.
        match (leased, at) {
            (true, Where::Here) if read_ahead => pelton::spawn(async move {
                let _ = echo_ahead(stream).await;
            })
            .detach(),
            (true, Where::Here) => pelton::spawn(echo_leased(stream)).detach(),
            (false, Where::Here) => pelton::spawn(echo_owned(stream, buffer)).detach(),
            (true, at) => pelton::spawn(async move {
                let _ = echo_leased_elsewhere(stream, at).await;
            })
            .detach(),
            (false, at) => pelton::spawn(async move {
                let _ = echo_owned_elsewhere(stream, buffer, at).await;
            })
            .detach(),
        }
    }
}

/// What this server says of itself: the settings that are not the default ones too.
fn detail(args: &Args) -> String {
    let backend = pelton::Handle::current().backend();
    let mut detail = format!("{} {backend} {}", versions::named("pelton"), args.one_of("--mode"));
    if args.one_of("--dispatch") != "inline" {
        detail.push_str(&format!(", dispatch {}", args.one_of("--dispatch")));
    }
    if args.count("--batch-wait-us") > 0 {
        detail.push_str(&format!(", batch wait {} µs", args.count("--batch-wait-us")));
    }
    if args.flag("--read-ahead") {
        detail.push_str(", reading ahead");
    }
    detail
}

/// A block and no `async fn`, which would keep its argument twice; and no `while let`, which would keep what
/// it matches on across the send. Each connection has one of these, or of the next. Nobody asks a task of
/// these how it ended, so it does not say.
#[allow(clippy::manual_async_fn)] // See above.
fn echo_leased(stream: TcpStream) -> impl Future<Output = ()> {
    async move {
        loop {
            // Every part is taken, so that nothing of it is left to be dropped.
            let chunk = match stream.recv().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return,
                Err(_error) => return,
            };
            if stream.send_all(chunk).await.is_err() {
                return;
            }
            count::one();
        }
    }
}

/// Submits the next receive together with the send, so that both go to the kernel with one entry.
async fn echo_ahead(stream: TcpStream) -> io::Result<()> {
    let mut chunk = stream.recv().await?;
    while let Some(received) = chunk {
        let (mut send, mut recv) = (pin!(stream.send_all(received)), pin!(stream.recv()));
        let (mut sent, mut next) = (None, None);
        let (sent, next) = poll_fn(|cx| {
            if sent.is_none()
                && let Poll::Ready(outcome) = send.as_mut().poll(cx)
            {
                count::one();
                sent = Some(outcome);
            }
            if next.is_none()
                && let Poll::Ready(outcome) = recv.as_mut().poll(cx)
            {
                next = Some(outcome);
            }
            match (sent.take(), next.take()) {
                (Some(sent), Some(next)) => Poll::Ready((sent, next)),
                (one, other) => {
                    (sent, next) = (one, other);
                    Poll::Pending
                }
            }
        })
        .await;
        sent?;
        chunk = next?;
    }
    Ok(())
}

#[allow(clippy::manual_async_fn)] // See above.
fn echo_owned(stream: TcpStream, buffer: usize) -> impl Future<Output = ()> {
    async move {
        let mut buf = Vec::with_capacity(buffer);
        loop {
            let read;
            (read, buf) = stream.read(buf).await;
            // Used up, and so not kept across the send.
            if read.unwrap_or(0) == 0 {
                return;
            }
            let sent;
            (sent, buf) = stream.write_all(buf).await;
            if sent.is_err() {
                return;
            }
            buf.clear();
            count::one();
        }
    }
}

/// A lease stays on its reactor's thread: what was received is copied out of it first.
async fn echo_leased_elsewhere(stream: TcpStream, at: Where) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        let copy = chunk.to_vec();
        drop(chunk);
        stream.send_all(at.go_on(copy).await?).await?;
        count::one();
    }
    Ok(())
}

/// An owned buffer goes there and comes back: nothing is copied.
async fn echo_owned_elsewhere(stream: TcpStream, buffer: usize, at: Where) -> io::Result<()> {
    let mut buf = Vec::with_capacity(buffer);
    loop {
        let read;
        (read, buf) = stream.read(buf).await;
        if read? == 0 {
            return Ok(());
        }
        buf = at.go_on(buf).await?;
        let sent;
        (sent, buf) = stream.write_all(buf).await;
        sent?;
        buf.clear();
        count::one();
    }
}
