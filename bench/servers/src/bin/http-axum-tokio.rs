//! axum as everybody runs it: `axum::serve` on tokio with several threads.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use bench::args::{Args, Extra};
use bench::{count, fail, http, listen, ready, versions};
use pelton_bench_servers as bench;
use tokio::net::TcpListener;

const NAME: &str = "http-axum-tokio";

fn main() {
    let args = Args::server(NAME, &[Extra::Count("--threads", 2)]);
    let threads = args.count("--threads");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap_or_else(|error| fail(NAME, error));
    if let Err(error) = runtime.block_on(serve(&args, threads)) {
        fail(NAME, error);
    }
}

async fn serve(args: &Args, threads: usize) -> io::Result<()> {
    let listener = listen::listen(args.listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    let (axum, tokio) = (versions::named("axum"), versions::named("tokio"));
    ready(NAME, address, &format!("{axum}, {tokio} multi_thread, {threads} threads"));
    let app = Router::new().route("/", get(hello)).route("/delay/{ms}", get(delayed));
    axum::serve(listener, app).await
}

async fn hello() -> &'static str {
    count::one_of_many();
    http::HELLO
}

async fn delayed(Path(ms): Path<u64>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    count::one_of_many();
    http::DELAYED
}
