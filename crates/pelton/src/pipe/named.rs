//! Named pipes of Windows.

use std::fmt;
use std::io;
use std::time::Duration;

use pelton_driver::{
    Interest, IoBuf, IoBufMut, MessagePart, OwnedDescriptor, PipeClientOptions, PipeServerOptions,
    Submission,
};

use crate::reactor::Reactor;
use crate::socket::Socket;

/// How soon an open is tried again while every instance has a client, at first and later.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// One end of a named pipe: an instance of the server's, or a client.
///
/// A server makes an instance, waits for its client, and makes the next instance for the next one; or
/// [disconnects](NamedPipe::disconnect) and waits again. Every call takes `&self`: a pipe may be read and written at
/// the same time. Dropping it closes it; operations in flight on it are cancelled.
///
/// ```no_run
/// use pelton::pipe::{NamedPipe, PipeClientOptions, PipeServerOptions};
///
/// # pelton::block_on(async {
/// let (name, server) = NamedPipe::create_unique(PipeServerOptions::new().messages(true))?;
/// let client = NamedPipe::open(&name, PipeClientOptions::new().messages(true)).await?;
/// server.connect().await?;
///
/// client.write_all("a question").await.0?;
/// let (message, buf) = server.read_message(Vec::with_capacity(64)).await;
/// assert!(message?.is_some_and(|part| !part.more));
/// assert_eq!(buf, b"a question");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct NamedPipe {
    socket: Socket,
}

impl NamedPipe {
    /// Makes a server's instance. Does not wait.
    ///
    /// # Errors
    /// As for [`PipeServerOptions::create`]; or no reactor runs on this thread, or its table of descriptors is full.
    pub fn create(name: &str, options: &PipeServerOptions) -> io::Result<NamedPipe> {
        NamedPipe::new(options.create(name)?)
    }

    /// Makes the first instance of a pipe under a name that nobody has, and says which.
    ///
    /// # Errors
    /// As for [`PipeServerOptions::create_unique`]; or as [`NamedPipe::create`].
    pub fn create_unique(options: &PipeServerOptions) -> io::Result<(String, NamedPipe)> {
        let (name, pipe) = options.create_unique()?;
        Ok((name, NamedPipe::new(pipe)?))
    }

    /// Opens a client's end, on the blocking pool. Where every instance has a client it is an error of kind
    /// `ResourceBusy`, at once.
    ///
    /// # Errors
    /// As for [`PipeClientOptions::open`]; or no reactor runs on this thread, or its table of descriptors is full.
    pub async fn open(name: &str, options: &PipeClientOptions) -> io::Result<NamedPipe> {
        let (name, options) = (name.to_owned(), *options);
        NamedPipe::new(crate::spawn_blocking(move || options.open(&name)).await??)
    }

    /// Opens a client's end, and tries again as long as every instance has a client: after a millisecond, and up to
    /// fifty later. Around it, [`time::timeout`](crate::time::timeout) is a limit.
    ///
    /// # Errors
    /// As for [`NamedPipe::open`], but for `ResourceBusy`.
    pub async fn open_when_free(name: &str, options: &PipeClientOptions) -> io::Result<NamedPipe> {
        let mut pause = PAUSE;
        loop {
            match NamedPipe::open(name, options).await {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                opened => return opened,
            }
            crate::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Takes over an end that somebody else has made, for overlapped calls.
    ///
    /// # Errors
    /// No reactor runs on this thread, or its table of descriptors is full.
    pub fn new(descriptor: impl Into<OwnedDescriptor>) -> io::Result<NamedPipe> {
        Ok(NamedPipe { socket: Socket::attach(Reactor::here()?, descriptor.into())? })
    }

    /// Waits until a client has opened this instance. One that has done so already, even if it has gone again, is
    /// the client: what it wrote is read.
    ///
    /// Cancelled: no client is lost, the next call finds it.
    ///
    /// # Errors
    /// What the pipe failed with: it is no server's end, for instance.
    pub async fn connect(&self) -> io::Result<()> {
        self.socket.operation((), |fd, ()| Submission::connect_pipe(fd)).await.map(drop)
    }

    /// Ends the connection to this instance's client, so that the next one can [connect](NamedPipe::connect). What
    /// the client has not read yet is thrown away. Does not wait.
    ///
    /// # Errors
    /// What the system said: it is no server's end, or there is no client.
    pub fn disconnect(&self) -> io::Result<()> {
        self.socket.reactor.driver.disconnect_pipe(self.socket.fd)
    }

    /// Reads once into a buffer; 0 bytes are the end, when the other end has been closed. Messages are read as a
    /// stream of their bytes. A `Vec` is filled behind what it has.
    ///
    /// Cancelled: what had been read into the buffer is lost with it.
    ///
    /// # Errors
    /// `NotConnected`: there is no client yet, or the server has ended the connection. Or what the pipe failed with,
    /// or the buffer has no room. The buffer comes back in any case.
    pub fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> {
        self.socket.operation(buf, Submission::read)
    }

    /// Reads one message into a buffer, or as much of it as there is room for: then it says so, and the next read
    /// goes on. None is the end. Cancelled as [`NamedPipe::read`].
    ///
    /// # Errors
    /// As for [`NamedPipe::read`].
    pub fn read_message<B: IoBufMut>(
        &self,
        buf: B,
    ) -> impl Future<Output = (io::Result<Option<MessagePart>>, B)> {
        self.socket.operation(buf, Submission::read_message)
    }

    /// Waits until something can be read, or the end has come. Takes nothing; cancelled, it has done nothing.
    ///
    /// # Errors
    /// The pipe cannot be watched.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.operation(Interest::Readable, Submission::poll).await.map(drop)
    }

    /// Writes some of a buffer, and says how much; to a pipe of messages all of it, as one message.
    ///
    /// # Errors
    /// `BrokenPipe`: the other end has gone. `NotConnected`: there is no client yet. Or what the pipe failed with.
    /// The buffer comes back in any case.
    pub fn write<B: IoBuf>(&self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> {
        self.socket.operation(buf, Submission::write)
    }

    /// Writes all of a buffer, at most 2 GiB (less 4 KiB); to a pipe of messages as one message.
    ///
    /// Cancelled: an unknown part of the buffer has been written; of a message nothing or all, or the system's word
    /// is that nothing is known.
    ///
    /// # Errors
    /// As for [`NamedPipe::write`]; an unknown part has been written then.
    pub async fn write_all<B: IoBuf>(&self, buf: B) -> (io::Result<()>, B) {
        let (written, buf) = self.socket.operation(buf, Submission::write_all).await;
        (written.map(drop), buf)
    }

    /// Closes this end and waits until that is done. Dropping it closes it too, and does not wait.
    ///
    /// # Errors
    /// What the system said; the handle is gone in any case.
    pub async fn close(self) -> io::Result<()> {
        self.socket.operation((), |fd, ()| Submission::close(fd)).await.map(drop)
    }
}

impl fmt::Debug for NamedPipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedPipe").field("fd", &self.socket.fd).finish_non_exhaustive()
    }
}
