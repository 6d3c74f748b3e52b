//! The future of one connection: hyper, the verdicts of the watch, and a little patience at the
//! end.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use hyper::rt::{Read, ReadBuf, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;

use crate::app::App;
use crate::runtime::Runtime;
use crate::watch::{Place, Verdict, Watched};

/// All the headers of a request, in bytes. hyper answers 431 beyond it, and beyond 100 headers.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

/// How much is read from a peer that goes on sending what was refused.
const MAX_LINGER: usize = 1 << 20;

/// Serves one connection to its end.
pub(crate) async fn serve<R, I>(app: Rc<App<R>>, io: I, peer: Option<SocketAddr>, place: Place)
where
    R: Runtime,
    I: Read + Write + Unpin + 'static,
{
    let vitals = Rc::clone(place.vitals());
    app.tally().connected();
    let _connected = Connected(Rc::clone(&app));
    let service = service_fn(|request| {
        let (app, vitals) = (Rc::clone(&app), Rc::clone(&vitals));
        async move { Ok::<_, std::convert::Infallible>(app.respond(peer, Some(vitals), request).await) }
    });
    let io = Watched { io, vitals: Rc::clone(&vitals) };
    let mut connection = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        // Ours are kept by the watch. The limit on the number of headers stays hyper's own, 100: to
        // set it costs an allocation for each request.
        .header_read_timeout(None)
        .serve_connection(io, service);

    let mut told = false;
    let ended = poll_fn(|cx| {
        match vitals.verdict(cx) {
            Some(Verdict::End) => return Poll::Ready(Ended::Cut),
            // Nothing is lost: nobody has asked anything.
            Some(Verdict::Leave) if vitals.is_new() => return Poll::Ready(Ended::Cut),
            // hyper would close on half a head as on none. The response to it says that it is the
            // last.
            Some(Verdict::Leave) if !told && !vitals.is_being_asked() => {
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            _ => {}
        }
        // Errors are the client's: it left, or what it sent was no HTTP. hyper has answered what
        // can be.
        Pin::new(&mut connection).poll(cx).map(|result| match result {
            Ok(()) => Ended::Done,
            Err(_) => Ended::Broken,
        })
    })
    .await;
    if matches!(ended, Ended::Cut) {
        return;
    }
    let mut io = connection.into_parts().io;
    vitals.closed(Instant::now());
    let linger = vitals.lingers() || matches!(ended, Ended::Broken);
    // hyper has closed our side of what ended well, and leaves the rest to us.
    let mut closed = matches!(ended, Ended::Done);
    let mut left = MAX_LINGER;
    poll_fn(|cx| {
        if vitals.verdict(cx) == Some(Verdict::End) {
            return Poll::Ready(());
        }
        if !closed {
            match Pin::new(&mut io).poll_shutdown(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => closed = true,
            }
        }
        // To close a socket that holds unread bytes resets the connection, and the reset can
        // overtake our answer. So what was refused is read until the peer has seen the answer and
        // closes.
        while linger && left > 0 {
            let mut space = [0; 4096];
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut io).poll_read(cx, buf.unfilled()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => break,
                Poll::Ready(Ok(())) if buf.filled().is_empty() => break,
                Poll::Ready(Ok(())) => left = left.saturating_sub(buf.filled().len()),
            }
        }
        Poll::Ready(())
    })
    .await;
}

enum Ended {
    Done,
    Broken,
    Cut,
}

struct Connected<R: Runtime>(Rc<App<R>>);

impl<R: Runtime> Drop for Connected<R> {
    fn drop(&mut self) {
        self.0.tally().disconnected();
    }
}
