//! A server for a tower service, on one listener of one reactor.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use pelton::net::{TcpListener, TcpStream};
use tower_service::Service;

use crate::bridge::{Io, Timer};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves HTTP/1 on a listener for ever. Settings and a graceful end are [`Server`]'s.
///
/// # Errors
/// The listener failed.
pub async fn serve<S, B>(listener: TcpListener, service: S) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body + 'static,
    B::Data: Buf,
    B::Error: Into<BoxError>,
{
    Server::new(listener, service).run_until(pending()).await.map(drop)
}

/// A server and its settings.
#[derive(Debug)]
pub struct Server<S> {
    listener: TcpListener,
    service: S,
    max_connections: usize,
    header_timeout: Option<Duration>,
    drain: Duration,
    nodelay: bool,
    keep_alive: bool,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Connections that had not finished when the time to drain was over, and were cut.
    pub cut_short: usize,
}

impl<S> Server<S> {
    /// Serves `service` on `listener`, with the default settings.
    pub fn new(listener: TcpListener, service: S) -> Server<S> {
        Server {
            listener,
            service,
            max_connections: usize::MAX,
            header_timeout: Some(Duration::from_secs(30)),
            drain: Duration::from_secs(30),
            nodelay: true,
            keep_alive: true,
        }
    }

    /// The most connections at once: one more is closed as soon as it has been accepted, and counted as
    /// shed.
    #[must_use]
    pub fn max_connections(mut self, most: usize) -> Server<S> {
        self.max_connections = most;
        self
    }

    /// How long the head of a request may take to come, from the start of the connection or from the end of
    /// the answer before it: so it is also how long a connection may be idle. No time counts while a
    /// request is being answered. 30 seconds by default; `None` is for ever.
    #[must_use]
    pub fn header_timeout(mut self, timeout: Option<Duration>) -> Server<S> {
        self.header_timeout = timeout;
        self
    }

    /// How long connections may take to finish when the server is to end. 30 seconds by default; zero cuts
    /// them at once.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Server<S> {
        self.drain = timeout;
        self
    }

    /// Whether responses are sent without waiting to gather more. On by default.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Server<S> {
        self.nodelay = nodelay;
        self
    }

    /// Whether a connection may bring more than one request. On by default.
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: bool) -> Server<S> {
        self.keep_alive = keep_alive;
        self
    }

    /// Serves until `stop` ends. Then it accepts no more, lets every connection finish the request that it
    /// is at, and cuts those that take longer than the drain timeout. A connection that waits for its next
    /// request is closed at once, also where a part of the head has come.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn run_until<B>(self, stop: impl Future<Output = ()>) -> io::Result<Served>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + 'static,
        S::Error: Into<BoxError>,
        S::Future: 'static,
        B: Body + 'static,
        B::Data: Buf,
        B::Error: Into<BoxError>,
    {
        let Server {
            listener,
            service,
            max_connections,
            header_timeout,
            drain,
            nodelay,
            keep_alive,
        } = self;
        let mut http = http1::Builder::new();
        http.timer(Timer).header_read_timeout(header_timeout).keep_alive(keep_alive);
        let state = Rc::new(State::default());
        let counters = pelton::Handle::current();
        let mut stop = pin!(stop);
        loop {
            let accepted = {
                let mut accept = pin!(listener.accept_stream());
                poll_fn(|cx| {
                    if stop.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(None);
                    }
                    accept.as_mut().poll(cx).map(Some)
                })
                .await
            };
            let Some(stream) = accepted else { break };
            let stream = stream?;
            if state.open.get() >= max_connections {
                counters.counters().sheds.add(1);
                drop(stream);
                continue;
            }
            if nodelay {
                // A connection that has failed already says so at its first read.
                let _ = stream.set_nodelay(true);
            }
            let open = Open::new(&state);
            let (http, service) = (http.clone(), service.clone());
            pelton::spawn(connection(http, stream, service, open)).detach();
        }
        drop(listener);
        state.begin_drain();
        let drained = poll_fn(|cx| state.poll_drained(cx));
        let _ = pelton::time::timeout(drain, drained).await;
        let cut_short = state.open.get();
        state.cut.set(true);
        state.wake_all();
        if cut_short > 0 {
            poll_fn(|cx| state.poll_drained(cx)).await;
        }
        Ok(Served { cut_short })
    }
}

async fn connection<S, B>(http: http1::Builder, stream: TcpStream, service: S, open: Open)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: Body + 'static,
    B::Data: Buf,
    B::Error: Into<BoxError>,
{
    let service = hyper::service::service_fn(move |request| {
        let mut service = service.clone();
        async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await.map(dated)
        }
    });
    let mut connection = pin!(http.serve_connection(Io::new(stream), service));
    let mut draining = false;
    poll_fn(|cx| {
        if open.state.cut.get() {
            return Poll::Ready(());
        }
        if open.state.draining.get() && !draining {
            draining = true;
            connection.as_mut().graceful_shutdown();
        }
        open.watch(cx);
        // A connection's error concerns its peer alone, who has seen it.
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// hyper takes the date from the system, whatever time it is in a simulated world: there it is given one.
fn dated<B>(response: Response<B>) -> Response<B> {
    #[cfg(feature = "sim")]
    if pelton::driver::sim::World::current().is_some() {
        let mut response = response;
        let date = httpdate::fmt_http_date(pelton::time::wall());
        if let Ok(date) = http::HeaderValue::from_str(&date) {
            response.headers_mut().entry(http::header::DATE).or_insert(date);
        }
        return response;
    }
    response
}

/// What the connections of a server share with it.
#[derive(Default)]
struct State {
    open: Cell<usize>,
    draining: Cell<bool>,
    cut: Cell<bool>,
    connections: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    drained: RefCell<Option<Waker>>,
}

impl State {
    fn begin_drain(&self) {
        self.draining.set(true);
        self.wake_all();
    }

    fn wake_all(&self) {
        let wakers: Vec<Waker> = self.connections.borrow().iter().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.open.get() == 0 {
            return Poll::Ready(());
        }
        let before = self.drained.borrow_mut().replace(cx.waker().clone());
        drop(before);
        Poll::Pending
    }
}

/// One connection's place among those that are open.
struct Open {
    state: Rc<State>,
    place: usize,
    watched: Cell<bool>,
}

impl Open {
    fn new(state: &Rc<State>) -> Open {
        state.open.set(state.open.get() + 1);
        let place = state.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut connections = state.connections.borrow_mut();
            connections.push(None);
            connections.len() - 1
        });
        Open { state: state.clone(), place, watched: Cell::new(false) }
    }

    /// Remembers whom to wake when the server is to end. A connection is polled by one task for its whole
    /// life, so once is enough.
    fn watch(&self, cx: &Context<'_>) {
        if !self.watched.replace(true) {
            self.state.connections.borrow_mut()[self.place] = Some(cx.waker().clone());
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let waker = self.state.connections.borrow_mut()[self.place].take();
        drop(waker);
        self.state.free.borrow_mut().push(self.place);
        self.state.open.set(self.state.open.get() - 1);
        if self.state.open.get() == 0
            && let Some(waker) = self.state.drained.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// A tower service of a function that is not `Send`.
pub fn service_fn<F>(f: F) -> ServiceFn<F> {
    ServiceFn(f)
}

/// See [`service_fn`].
#[derive(Clone, Copy, Debug)]
pub struct ServiceFn<F>(F);

impl<F, Fut, B, E> Service<Request<Incoming>> for ServiceFn<F>
where
    F: FnMut(Request<Incoming>) -> Fut,
    Fut: Future<Output = Result<Response<B>, E>> + 'static,
{
    type Response = Response<B>;
    type Error = E;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, E>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        Box::pin((self.0)(request))
    }
}
