//! What one reactor does from its start to its end: it accepts, looks after its connections, and
//! drains.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::connection;
use crate::runtime::{Listener, Runtime};
use crate::stop::{Stage, Stop};
use crate::watch::{Connections, Limits};

/// How often connections are held against their limits, while there are any.
const SWEEP: Duration = Duration::from_secs(1);

/// How long to wait after an error of the listener before it is asked again.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// The settings of a reactor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) max_connections: usize,
    pub(crate) drain: Duration,
    pub(crate) limits: Limits,
}

/// Serves until `stop` says otherwise. Returns how many connections had to be cut.
pub(crate) async fn run<R: Runtime, L: Listener>(
    runtime: R,
    listener: L,
    app: Rc<App<R>>,
    settings: Settings,
    stop: Stop,
) -> usize {
    let connections = Rc::new(Connections::default());
    runtime.spawn(look_after(
        runtime.clone(),
        Rc::clone(&app),
        Rc::clone(&connections),
        settings.limits,
    ));
    while let Some(accepted) = accept(&listener, &stop).await {
        match accepted {
            Ok((io, peer)) => match connections.enter(settings.max_connections, Instant::now()) {
                Some(place) => {
                    runtime.spawn(connection::serve(Rc::clone(&app), io, Some(peer), place));
                }
                None => app.tally().refused(),
            },
            Err(error) => {
                eprintln!("pelton: the listener reports an error, and is asked again: {error}");
                let mut pause = pin!(runtime.sleep(ACCEPT_AGAIN));
                poll_fn(|cx| match stop.poll(Stage::Draining, cx) {
                    Poll::Ready(()) => Poll::Ready(()),
                    Poll::Pending => pause.as_mut().poll(cx),
                })
                .await;
            }
        }
    }
    // Closed first: who comes now is sent elsewhere, by a reset or by a balancer.
    drop(listener);
    connections.drain();
    let mut limit = pin!(runtime.sleep(settings.drain));
    poll_fn(|cx| {
        if connections.poll_empty(cx).is_ready() || stop.poll(Stage::Ending, cx).is_ready() {
            return Poll::Ready(());
        }
        limit.as_mut().poll(cx)
    })
    .await;
    let cut = connections.len();
    connections.end();
    // Each ends as soon as it is polled, so this does not take long.
    poll_fn(|cx| connections.poll_empty(cx)).await;
    cut
}

/// The next connection, or `None` at the end.
async fn accept<L: Listener>(
    listener: &L,
    stop: &Stop,
) -> Option<io::Result<(L::Io, std::net::SocketAddr)>> {
    let mut accept = pin!(listener.accept());
    poll_fn(|cx| match stop.poll(Stage::Draining, cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => accept.as_mut().poll(cx).map(Some),
    })
    .await
}

/// Ends connections over their limits, and lets files go. Without either there is nothing to look
/// at, and an idle reactor is not woken.
async fn look_after<R: Runtime>(
    runtime: R,
    app: Rc<App<R>>,
    connections: Rc<Connections>,
    limits: Limits,
) {
    let mut files = false;
    loop {
        if !files {
            poll_fn(|cx| connections.poll_any(cx)).await;
        }
        runtime.sleep(SWEEP).await;
        let now = Instant::now();
        app.tally().timed_out(connections.sweep(&limits, now));
        files = app.sweep(now);
    }
}
