//! The server's two traits on Pelton: the one place where the server meets the runtime.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use pelton::net::TcpListener;
use pelton_http::Io;

use crate::runtime::{Listener, LocalBoxFuture, Runtime};

/// The reactor of the calling thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnPelton;

impl Runtime for OnPelton {
    type File = pelton::fs::File;

    fn adopt(&self, file: File) -> io::Result<pelton::fs::File> {
        pelton::fs::File::from_std(file)
    }

    fn read_at(
        file: Rc<pelton::fs::File>,
        buf: Vec<u8>,
        offset: u64,
    ) -> LocalBoxFuture<(io::Result<usize>, Vec<u8>)> {
        Box::pin(async move { file.read_at(buf, offset).await })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        // Caught there, because a panic that went on here would take the connection with it: its
        // client is to see a 500 like any other failure.
        let caught = pelton::spawn_blocking(|| catch_unwind(AssertUnwindSafe(job))).await?;
        caught.map_err(|_| io::Error::other("the job on the pool panicked"))
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        pelton::time::sleep(duration)
    }

    fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        pelton::spawn(future).detach();
    }

    fn shed(&self) {
        pelton::Handle::current().counters().sheds.add(1);
    }
}

/// A listener of the calling thread's reactor.
#[derive(Debug)]
pub(crate) struct OnListener {
    listener: TcpListener,
    /// Only a log needs to know whose a connection is, and to ask is a system call.
    ask_peer: bool,
}

impl OnListener {
    /// Takes a listener over. Connections are told to have their peer if `ask_peer`.
    ///
    /// # Errors
    /// No reactor runs on this thread, or its table of descriptors is full.
    pub(crate) fn new(listener: std::net::TcpListener, ask_peer: bool) -> io::Result<OnListener> {
        Ok(OnListener { listener: TcpListener::from_std(listener)?, ask_peer })
    }
}

impl Listener for OnListener {
    type Io = Io;

    async fn accept(&self) -> io::Result<(Io, Option<SocketAddr>)> {
        let stream = self.listener.accept_stream().await?;
        // One that has been reset already has no address any more; its first read says the rest.
        let peer = if self.ask_peer { stream.peer_addr().ok() } else { None };
        Ok((Io::new(stream), peer))
    }
}
