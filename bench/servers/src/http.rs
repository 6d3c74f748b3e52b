//! What every HTTP server on hyper answers: `GET /` and `GET /delay/MS`.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::count;

/// The answer to `GET /`.
pub const HELLO: &str = "Hello, World!";

/// The answer to `GET /delay/MS`, after MS milliseconds.
pub const DELAYED: &str = "ok";

/// Answers a request; `sleep` is the runtime's own.
///
/// A request is counted when its answer has been made: with `--stop-after` the last answer is not sent.
pub async fn answer<B, S>(
    request: Request<B>,
    sleep: impl FnOnce(Duration) -> S,
) -> Result<Response<Full<Bytes>>, Infallible>
where
    S: Future<Output = ()>,
{
    let path = request.uri().path();
    let (status, body) = if request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, "this server answers GET only\n")
    } else if path == "/" {
        (StatusCode::OK, HELLO)
    } else if let Some(delay) = path.strip_prefix("/delay/") {
        match delay.parse() {
            Ok(ms) => {
                sleep(Duration::from_millis(ms)).await;
                (StatusCode::OK, DELAYED)
            }
            Err(_) => (StatusCode::BAD_REQUEST, "the delay is a whole number of milliseconds\n"),
        }
    } else {
        (StatusCode::NOT_FOUND, "there are / and /delay/MS\n")
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    count::one();
    Ok(response)
}
