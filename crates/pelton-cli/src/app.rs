//! The service of one reactor: from a request to a response, with the pool for what blocks and the
//! cache for what does not have to.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, LOCATION, RETRY_AFTER, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use crate::access_log::{AccessLog, Record};
use crate::admin::Admin;
use crate::body::Body;
use crate::cache::{Cache, Content, Key, Limits, Lookup, OpenFile};
use crate::encoding::Preference;
use crate::exchange::{Exchange, Tally};
use crate::files::{self, Found, Missing, Opened, Site};
use crate::path::{PathError, SitePath};
use crate::response;
use crate::runtime::Runtime;
use crate::watch::Vitals;

/// A longer request target is answered with 414.
pub(crate) const MAX_TARGET: usize = 8 * 1024;

/// The body of a request is read and thrown away up to here; a longer one is answered with 413.
pub(crate) const MAX_BODY: u64 = 64 * 1024;

/// How long such a body may take.
const BODY_LIMIT: Duration = Duration::from_secs(10);

const CLOSE: HeaderValue = HeaderValue::from_static("close");

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// What all reactors have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) site: Site,
    pub(crate) log: Option<Arc<AccessLog>>,
    pub(crate) admin: Option<Admin>,
}

/// The service of one reactor.
#[derive(Debug)]
pub(crate) struct App<R: Runtime> {
    runtime: R,
    shared: Arc<Shared>,
    tally: Arc<Tally>,
    cache: RefCell<Cache<R::File>>,
}

impl<R: Runtime> App<R> {
    pub(crate) fn new(runtime: R, shared: Arc<Shared>, tally: Arc<Tally>) -> App<R> {
        App { runtime, shared, tally, cache: RefCell::new(Cache::new(Limits::default())) }
    }

    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Lets go of files that nobody asks for any more. Returns whether there are others.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let mut cache = self.cache.borrow_mut();
        cache.sweep(now);
        cache.len() > 0
    }

    /// Answers a request. The exchange ends, and is logged, when the body is dropped.
    pub(crate) async fn respond<B>(
        self: Rc<Self>,
        peer: Option<SocketAddr>,
        vitals: Option<Rc<Vitals>>,
        request: Request<B>,
    ) -> Response<Body<R>>
    where
        B: http_body::Body,
    {
        let started = Instant::now();
        let now = SystemTime::now();
        self.tally.requested();
        if let Some(vitals) = &vitals {
            vitals.asked(started);
        }
        let (head, body) = request.into_parts();
        let log = self.shared.log.as_ref().map(|log| {
            let ip = peer.map(|peer| peer.ip());
            let record = Record::new(ip, now, &head.method, &head.uri, head.version, &head.headers);
            (Arc::clone(log), record)
        });
        // From here on the exchange ends in every case, also when hyper drops this future.
        let mut exchange = Exchange {
            started,
            // What others log for a client that left before the answer.
            status: 499,
            sent: 0,
            tally: Arc::clone(&self.tally),
            vitals,
            log,
        };
        let response = match self.discard(body).await {
            Ok(()) => self.answer(&head, started, now).await,
            Err(status) => {
                if let Some(vitals) = &exchange.vitals {
                    vitals.let_linger();
                }
                let mut response = plain(status);
                response.headers_mut().insert(CONNECTION, CLOSE);
                response
            }
        };
        exchange.status = response.status().as_u16();
        let (mut parts, mut body) = response.into_parts();
        // A client that is told can send its next request elsewhere. One that is not would send it
        // into a connection that closes, and could not know whether anyone has read it.
        if let Some(vitals) = exchange.vitals.as_ref().filter(|it| it.is_asked_to_leave()) {
            vitals.let_linger();
            parts.headers.insert(CONNECTION, CLOSE);
        }
        if head.method == Method::HEAD {
            // The length stays in the head: it is that of the answer to a GET.
            body = Body::empty();
        }
        // Nothing may be announced for these (RFC 9110 §8.6).
        if matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            parts.headers.remove(CONTENT_LENGTH);
        }
        Response::from_parts(parts, body.with_exchange(exchange))
    }

    async fn answer(
        &self,
        head: &http::request::Parts,
        started: Instant,
        now: SystemTime,
    ) -> Response<Body<R>> {
        let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
        if target > MAX_TARGET {
            return plain(StatusCode::URI_TOO_LONG);
        }
        if head.method == Method::OPTIONS {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().insert(ALLOW, METHODS);
            return response;
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, METHODS);
            return response;
        }
        if let Some(admin) = &self.shared.admin
            && let Some((kind, body)) = admin.answer(head.uri.path())
        {
            return html_or_text(StatusCode::OK, kind, body);
        }
        let path = match SitePath::parse(head.uri.path()) {
            Ok(path) => path,
            Err(PathError::Malformed) => return plain(StatusCode::BAD_REQUEST),
            Err(PathError::Hidden) => return plain(StatusCode::NOT_FOUND),
        };
        let preference = Preference::of_headers(&head.headers);
        match self.find(Key { path, preference }, started, now).await {
            Ok(Answer::File(file)) => self.send(&file, &head.method, &head.headers, now),
            Ok(Answer::AddSlash(path)) => redirect(&path, head.uri.query()),
            Ok(Answer::Listing(page)) => {
                html_or_text(StatusCode::OK, "text/html; charset=utf-8", page.into())
            }
            Err(missing) => {
                let mut response = plain(missing.status());
                match missing {
                    Missing::Exhausted => {
                        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                    }
                    Missing::NotAcceptable => {
                        let value = HeaderValue::from_static("accept-encoding");
                        response.headers_mut().insert(VARY, value);
                    }
                    Missing::Failed(error) => {
                        eprintln!("pelton: {} cannot be served: {error}", head.uri.path());
                    }
                    Missing::NotFound | Missing::Forbidden => {}
                }
                response
            }
        }
    }

    /// Asks the cache, and the pool where the cache does not know.
    async fn find(
        &self,
        key: Key,
        started: Instant,
        now: SystemTime,
    ) -> Result<Answer<R>, Missing> {
        let lookup = self.cache.borrow_mut().get(&key, started);
        let held = match lookup {
            Lookup::Fresh(file) => {
                self.tally.cache_hit();
                return Ok(Answer::File(file));
            }
            Lookup::Stale(file) => {
                self.tally.cache_check();
                Some(file)
            }
            Lookup::Miss => {
                self.tally.cache_miss();
                None
            }
        };
        // Whatever happens to this future, another request must be able to look.
        let look = Look { cache: &self.cache, key: &key, over: false };
        // A stamp of a file that had just changed proves nothing: such a one is read again.
        let known = held.as_ref().filter(|file| file.meta.settled).map(|file| file.meta.stamp);
        let found = {
            let (shared, path) = (Arc::clone(&self.shared), key.path.clone());
            let preference = key.preference;
            let job = move || files::find(&shared.site, &path, preference, known, now);
            self.runtime.blocking(job).await.map_err(Missing::Failed)?
        };
        // The look began at `started`: what happened since then may be missing from it.
        match (found, held) {
            (Ok(Found::Unchanged), Some(file)) => {
                look.confirm(started);
                Ok(Answer::File(file))
            }
            (Ok(Found::File(meta, opened)), _) => {
                let content = match opened {
                    Opened::Bytes(bytes) => Content::Bytes(bytes),
                    Opened::File(file) => {
                        Content::File(Rc::new(self.runtime.adopt(file).map_err(Missing::Failed)?))
                    }
                };
                let file = Rc::new(OpenFile { meta, content });
                look.insert(Rc::clone(&file), started);
                Ok(Answer::File(file))
            }
            (Ok(Found::AddSlash), _) => {
                look.remove();
                Ok(Answer::AddSlash(key.path.clone()))
            }
            (Ok(Found::Listing(page)), _) => {
                look.remove();
                Ok(Answer::Listing(page))
            }
            (Err(missing), _) => {
                look.remove();
                Err(missing)
            }
            // Nobody said which version was held.
            (Ok(Found::Unchanged), None) => Err(Missing::NotFound),
        }
    }

    fn send(
        &self,
        file: &OpenFile<R::File>,
        method: &Method,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Response<Body<R>> {
        let cache_control = self.shared.site.cache_control.as_ref();
        let plan = response::of_file(method, headers, &file.meta, cache_control, now);
        plan.head.map(|()| Body::of_file(file, plan.parts))
    }

    /// Reads the body of a request and throws it away.
    async fn discard<B: http_body::Body>(&self, body: B) -> Result<(), StatusCode> {
        if body.is_end_stream() {
            return Ok(());
        }
        // Refused before the first byte: a client that waits for `100 Continue` need not send it.
        if body.size_hint().lower() > MAX_BODY {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let mut body = pin!(body);
        let mut limit = pin!(self.runtime.sleep(BODY_LIMIT));
        let mut read = 0;
        poll_fn(|cx| {
            loop {
                match body.as_mut().poll_frame(cx) {
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Ready(Some(Ok(frame))) => {
                        read +=
                            frame.data_ref().map_or(0, |data| bytes::Buf::remaining(data) as u64);
                        if read > MAX_BODY {
                            return Poll::Ready(Err(StatusCode::PAYLOAD_TOO_LARGE));
                        }
                    }
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(StatusCode::BAD_REQUEST)),
                    Poll::Pending => break,
                }
            }
            limit.as_mut().poll(cx).map(|()| Err(StatusCode::REQUEST_TIMEOUT))
        })
        .await
    }
}

enum Answer<R: Runtime> {
    File(Rc<OpenFile<R::File>>),
    AddSlash(SitePath),
    Listing(String),
}

/// A look at a file that the cache waits for. Given up unless it comes to an end.
struct Look<'a, F> {
    cache: &'a RefCell<Cache<F>>,
    key: &'a Key,
    over: bool,
}

impl<F> Look<'_, F> {
    fn confirm(mut self, now: Instant) {
        self.over = true;
        self.cache.borrow_mut().confirm(self.key, now);
    }

    fn insert(mut self, file: Rc<OpenFile<F>>, now: Instant) {
        self.over = true;
        self.cache.borrow_mut().insert(self.key.clone(), file, now);
    }

    fn remove(mut self) {
        self.over = true;
        self.cache.borrow_mut().remove(self.key);
    }
}

impl<F> Drop for Look<'_, F> {
    fn drop(&mut self) {
        if !self.over {
            self.cache.borrow_mut().give_up(self.key);
        }
    }
}

fn plain<R: Runtime>(status: StatusCode) -> Response<Body<R>> {
    let (head, bytes) = response::of_status(status);
    head.map(|()| Body::full(bytes))
}

/// A page that we made: it may use what is in it and talk to its own server, and nothing else.
fn html_or_text<R: Runtime>(
    status: StatusCode,
    kind: &'static str,
    body: Bytes,
) -> Response<Body<R>> {
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    let (head, bytes) = response::of_text(status, kind, body);
    let mut response = head.map(|()| Body::full(bytes));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}

fn redirect<R: Runtime>(path: &SitePath, query: Option<&str>) -> Response<Body<R>> {
    let mut target = path.folder_target();
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    let Ok(target) = HeaderValue::try_from(target) else { return plain(StatusCode::BAD_REQUEST) };
    let mut response = plain(StatusCode::PERMANENT_REDIRECT);
    response.headers_mut().insert(LOCATION, target);
    response
}

#[cfg(test)]
mod tests;
