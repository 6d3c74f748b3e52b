//! hyper on compio, through `cyper-core`.

use std::io;

use bench::args::{Args, Extra};
use bench::{fail, http, listen, ready, versions};
use compio::driver::ProactorBuilder;
use compio::net::TcpListener;
use compio::runtime::Runtime;
use cyper_core::{CompioTimer, HyperStream};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use pelton_bench_servers as bench;

const NAME: &str = "http-compio-hyper";

fn main() {
    let args = Args::server(NAME, &[Extra::Flag("--tuned")]);
    let mut ring = ProactorBuilder::new();
    if args.flag("--tuned") {
        ring.single_issuer(true).defer_taskrun(true).coop_taskrun(true);
        ring.capacity(4096).cqsize(16384);
    }
    let runtime = Runtime::builder().with_proactor(ring).build();
    let runtime = runtime.unwrap_or_else(|error| fail(NAME, error));
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
    let (compio, cyper, hyper) =
        (versions::named("compio"), versions::named("cyper-core"), versions::named("hyper"));
    ready(NAME, address, &format!("{compio} {flags}, {cyper}, {hyper}"));
    let mut server = http1::Builder::new();
    server.timer(CompioTimer);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            compio::time::sleep(listen::PAUSE).await;
            continue;
        };
        let service = service_fn(|request| http::answer(request, compio::time::sleep));
        let connection = server.serve_connection(HyperStream::new_plain(stream), service);
        compio::runtime::spawn(async move {
            let _ = connection.await;
        })
        .detach();
    }
}
