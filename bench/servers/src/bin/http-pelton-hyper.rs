//! hyper on Pelton, through `pelton-http`'s server.

use std::io;

use bench::args::{Args, Extra};
use bench::{fail, http, listen, ready, versions};
use pelton::net::TcpListener;
use pelton::{Backend, Builder};
use pelton_bench_servers as bench;

const NAME: &str = "http-pelton-hyper";

fn main() {
    let args = Args::server(NAME, &[Extra::OneOf("--backend", &["io_uring", "epoll"])]);
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
    let backend = pelton::Handle::current().backend();
    let (pelton, hyper) = (versions::named("pelton"), versions::named("hyper"));
    ready(NAME, address, &format!("{pelton} {backend}, {hyper}"));
    let service = pelton_http::service_fn(|request| http::answer(request, pelton::time::sleep));
    pelton_http::serve(listener, service).await
}
