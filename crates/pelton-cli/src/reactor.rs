//! What one reactor does from its start to its end: it accepts, looks after its connections, and
//! drains.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
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

/// At the end, how long nobody must have come before it is believed that nobody waits any more.
const ACCEPT_LAST: Duration = Duration::from_millis(1);

/// At the end, how long a connection without a request may still bring one. A client that has not
/// heard of the end may have one under way: it is answered, and told that it was the last.
const LAST_CALL: Duration = Duration::from_millis(500);

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
            Ok((io, peer)) => welcome(&runtime, &app, &connections, settings, io, peer),
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
    connections.drain();
    let last_call = pin!(runtime.sleep(LAST_CALL.min(settings.drain)));
    let limit = pin!(runtime.sleep(settings.drain));
    for _ in 0..settings.max_connections {
        let Some((io, peer)) = accept_waiting(&runtime, &listener, &stop).await else { break };
        welcome(&runtime, &app, &connections, settings, io, peer);
    }
    // Who comes now is sent elsewhere, by a reset or by a balancer.
    drop(listener);
    emptied(&connections, &stop, last_call).await;
    connections.leave();
    emptied(&connections, &stop, limit).await;
    let cut = connections.len();
    connections.end();
    // Each ends as soon as it is polled, so this does not take long.
    poll_fn(|cx| connections.poll_empty(cx)).await;
    cut
}

/// Serves a connection, if there is a place for it.
fn welcome<R: Runtime, I>(
    runtime: &R,
    app: &Rc<App<R>>,
    connections: &Rc<Connections>,
    settings: Settings,
    io: I,
    peer: Option<SocketAddr>,
) where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    match connections.enter(settings.max_connections, Instant::now()) {
        Some(place) => runtime.spawn(connection::serve(Rc::clone(app), io, peer, place)),
        None => runtime.shed(),
    }
}

type Accepted<L> = (<L as Listener>::Io, Option<SocketAddr>);

/// The next connection, or `None` at the end.
async fn accept<L: Listener>(listener: &L, stop: &Stop) -> Option<io::Result<Accepted<L>>> {
    let mut accept = pin!(listener.accept());
    poll_fn(|cx| match stop.poll(Stage::Draining, cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => accept.as_mut().poll(cx).map(Some),
    })
    .await
}

/// A connection that waits to be accepted already, if there is one. The system has told its client
/// that it is connected, who may have asked something: to close the listener resets it.
async fn accept_waiting<R: Runtime, L: Listener>(
    runtime: &R,
    listener: &L,
    stop: &Stop,
) -> Option<Accepted<L>> {
    let (mut accept, mut pause) = (pin!(listener.accept()), pin!(runtime.sleep(ACCEPT_LAST)));
    poll_fn(|cx| {
        if let Poll::Ready(accepted) = accept.as_mut().poll(cx) {
            return Poll::Ready(accepted.ok());
        }
        if stop.poll(Stage::Ending, cx).is_ready() {
            return Poll::Ready(None);
        }
        pause.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Waits until no connection is open, the end is wanted at once or the time is up.
async fn emptied(
    connections: &Connections,
    stop: &Stop,
    mut limit: Pin<&mut impl Future<Output = ()>>,
) {
    poll_fn(|cx| {
        if connections.poll_empty(cx).is_ready() || stop.poll(Stage::Ending, cx).is_ready() {
            return Poll::Ready(());
        }
        limit.as_mut().poll(cx)
    })
    .await;
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
