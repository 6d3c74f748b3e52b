//! The same axum application on a fleet of Pelton's reactors, each with a listener of its own.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use bench::args::{Args, Extra};
use bench::{count, fail, http, listen, ready, versions};
use hyper::rt::Timer;
use pelton::net::TcpListener;
use pelton::{Backend, Builder, FleetBuilder};
use pelton_bench_servers as bench;

const NAME: &str = "http-axum-pelton";

fn main() {
    let args = Args::server(
        NAME,
        &[Extra::OneOf("--backend", &["io_uring", "epoll"]), Extra::Count("--reactors", 2)],
    );
    if let Err(error) = serve(&args) {
        fail(NAME, error);
    }
}

fn serve(args: &Args) -> io::Result<()> {
    let backend = match args.one_of("--backend") {
        "epoll" => Backend::Epoll,
        _ => Backend::IoUring,
    };
    let reactors = args.count("--reactors");
    let listeners = listen::listen_shared(args.listen, reactors)?;
    let address = listeners[0].local_addr()?;
    let listeners = Mutex::new(listeners);
    let fleet = FleetBuilder::new()
        .reactors(reactors)
        .runtime(Builder::new().backend(backend))
        .start(move |_member| {
            let mine = listeners.lock().unwrap_or_else(PoisonError::into_inner).pop();
            async move {
                let mine = mine.expect("there is a listener for each member");
                let listener = TcpListener::from_std(mine)?;
                let app = Router::new().route("/", get(hello)).route("/delay/{ms}", get(delayed));
                pelton_http::serve(listener, app).await
            }
        })?;
    let (axum, pelton) = (versions::named("axum"), versions::named("pelton"));
    ready(NAME, address, &format!("{axum}, {pelton} {backend}, {reactors} reactors"));
    fleet.join()?;
    Ok(())
}

async fn hello() -> &'static str {
    count::one_of_many();
    http::HELLO
}

/// axum wants its handlers' futures to be `Send`, which `pelton::time::sleep` is not; hyper's timer is.
async fn delayed(Path(ms): Path<u64>) -> &'static str {
    pelton_http::Timer.sleep(Duration::from_millis(ms)).await;
    count::one_of_many();
    http::DELAYED
}
