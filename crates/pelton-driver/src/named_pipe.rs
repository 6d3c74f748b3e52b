//! Named pipes of Windows: how one is made and how it is opened. What is done with one afterwards are operations:
//! [`Submission::connect_pipe`](crate::Submission::connect_pipe), [`read`](crate::Submission::read),
//! [`write`](crate::Submission::write), [`poll`](crate::Submission::poll).

use std::io;

use crate::descriptor::Fd;
use crate::driver::Driver;
use crate::sys::{OwnedDescriptor, pipe};

/// How a server makes an instance of a named pipe.
///
/// ```
/// use pelton_driver::{Config, Driver, PipeClientOptions, PipeServerOptions, Submission, Token};
/// let driver = Driver::new(Config::default())?;
/// let (name, server) = PipeServerOptions::new().create_unique()?;
/// let server = driver.attach(server)?;
/// let connect = Submission::connect_pipe(server);
/// let connect = driver.submit(connect, Token::NONE).map_err(|r| r.error)?;
/// let client = driver.attach(PipeClientOptions::new().open(&name)?)?;
/// while !driver.is_done(&connect) {
///     driver.tick(None, |_completion| {})?;
/// }
/// driver.take(connect).expect("it is done")?;
/// # let _ = client;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PipeServerOptions {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) messages: bool,
    pub(crate) first: bool,
    pub(crate) instances: Option<u8>,
    pub(crate) buffer: u32,
    pub(crate) remote: bool,
}

impl Default for PipeServerOptions {
    fn default() -> PipeServerOptions {
        PipeServerOptions::new()
    }
}

impl PipeServerOptions {
    /// A pipe of bytes, both ways, of any number of instances, for clients on this machine.
    pub fn new() -> PipeServerOptions {
        PipeServerOptions {
            reads: true,
            writes: true,
            messages: false,
            first: false,
            instances: None,
            buffer: 64 * 1024,
            remote: false,
        }
    }

    /// Whether the server reads: what clients write. All instances of a pipe agree on that, and on the next.
    pub fn read(&mut self, reads: bool) -> &mut PipeServerOptions {
        self.reads = reads;
        self
    }

    /// Whether the server writes: what clients read.
    pub fn write(&mut self, writes: bool) -> &mut PipeServerOptions {
        self.writes = writes;
        self
    }

    /// What is written at once is one message, and is read as such.
    pub fn messages(&mut self, messages: bool) -> &mut PipeServerOptions {
        self.messages = messages;
        self
    }

    /// It is an error (`PermissionDenied`) that there is a pipe of that name: whoever has it could have the
    /// clients.
    pub fn first_instance(&mut self, first: bool) -> &mut PipeServerOptions {
        self.first = first;
        self
    }

    /// At most so many instances at a time, from 1 to 254; none is any number. The first instance decides.
    pub fn max_instances(&mut self, instances: Option<u8>) -> &mut PipeServerOptions {
        self.instances = instances;
        self
    }

    /// How many bytes the system is asked to hold for each direction. What is written beyond waits for a reader.
    pub fn buffer_len(&mut self, bytes: u32) -> &mut PipeServerOptions {
        self.buffer = bytes;
        self
    }

    /// Whether clients on other machines may open it.
    pub fn remote_clients(&mut self, remote: bool) -> &mut PipeServerOptions {
        self.remote = remote;
        self
    }

    /// Makes an instance, for [`Driver::attach`]. Its name begins with `\\.\pipe\`. Does not wait.
    ///
    /// # Errors
    /// `PermissionDenied`: there is a pipe of that name, and this was to be the
    /// [first](PipeServerOptions::first_instance), or it is somebody else's. `ResourceBusy`: it has as many instances
    /// as it [may have](PipeServerOptions::max_instances). `InvalidInput`: the name is none, or the options
    /// contradict each other. Or what the system said.
    pub fn create(&self, name: &str) -> io::Result<OwnedDescriptor> {
        pipe::create(name, *self).map_err(busy)
    }

    /// Makes the first instance of a pipe under a name that nobody has, and says which. Ten names are tried.
    ///
    /// # Errors
    /// As for [`PipeServerOptions::create`]; the last one, where all ten names were taken.
    pub fn create_unique(&self) -> io::Result<(String, OwnedDescriptor)> {
        pipe::create_unique(*self).map_err(busy)
    }
}

/// How a client opens a named pipe. See [`PipeServerOptions`] for an example.
#[derive(Clone, Copy, Debug)]
pub struct PipeClientOptions {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) messages: bool,
}

impl Default for PipeClientOptions {
    fn default() -> PipeClientOptions {
        PipeClientOptions::new()
    }
}

impl PipeClientOptions {
    /// To read bytes and to write.
    pub fn new() -> PipeClientOptions {
        PipeClientOptions { reads: true, writes: true, messages: false }
    }

    /// Whether to read: what the server writes.
    pub fn read(&mut self, reads: bool) -> &mut PipeClientOptions {
        self.reads = reads;
        self
    }

    /// Whether to write: what the server reads.
    pub fn write(&mut self, writes: bool) -> &mut PipeClientOptions {
        self.writes = writes;
        self
    }

    /// Messages are read as such; the pipe is one of messages. Without this their bytes are read, as of a stream.
    pub fn messages(&mut self, messages: bool) -> &mut PipeClientOptions {
        self.messages = messages;
        self
    }

    /// Opens the pipe, for [`Driver::attach`]. Does not wait for an instance that is free; to another machine the
    /// system may take its time, so open such a one on the [blocking pool](crate::blocking).
    ///
    /// # Errors
    /// `NotFound`: nobody has a pipe of that name. `ResourceBusy`: all of its instances have clients; try again
    /// later. `PermissionDenied`. `InvalidInput`: the name or the options are none. Or what the system said.
    pub fn open(&self, name: &str) -> io::Result<OwnedDescriptor> {
        pipe::open(name, *self).map_err(busy)
    }
}

impl Driver {
    /// Ends the connection to the client of a named pipe, so that the next one can be
    /// [waited for](crate::Submission::connect_pipe). What that client has not read yet is thrown away: it reads an
    /// error of kind `NotConnected`. Does not wait.
    ///
    /// # Errors
    /// `EBADF`: the driver has no such descriptor. Or what the system said, where it is no server's end.
    pub fn disconnect_pipe(&self, fd: Fd) -> io::Result<()> {
        self.with_raw(fd, pipe::disconnect)
    }
}

/// The system's word for what passes, as a kind of error that says so.
fn busy(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(crate::sys::errno::PIPE_BUSY) {
        return error;
    }
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        "all instances of the pipe are taken: try again later, or have the server make more of them",
    )
}
