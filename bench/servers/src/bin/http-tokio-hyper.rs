//! hyper on tokio, on one thread. The timer is set, as `pelton-http` sets its own: with it hyper limits how
//! long the head of a request may take.

use std::io;

use bench::args::Args;
use bench::{fail, http, listen, ready, versions};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pelton_bench_servers as bench;
use tokio::net::TcpListener;

const NAME: &str = "http-tokio-hyper";

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
    let (tokio, hyper) = (versions::named("tokio"), versions::named("hyper"));
    ready(NAME, address, &format!("{tokio} current_thread, {hyper}"));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(listen::PAUSE).await;
            continue;
        };
        let service = service_fn(|request| http::answer(request, tokio::time::sleep));
        let connection = server.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _ = connection.await;
        });
    }
}
