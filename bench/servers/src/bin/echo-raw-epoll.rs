//! Echo on epoll and nothing else: edge-triggered, read and written until the socket has no more.
//!
//! All connections share one buffer: only what a socket does not take at once is kept, in a buffer of the
//! connection's. With `--mode owned` each connection reads into a buffer of its own instead, as a runtime
//! with owned buffers does, and pays for the memory that this touches. A read that does not fill the buffer has emptied the socket, so no second read asks for
//! `EAGAIN`, unless the event said that the peer has ended.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use bench::args::{Args, Extra};
use bench::{count, fail, listen, ready};
use pelton_bench_servers as bench;

const NAME: &str = "echo-raw-epoll";
const EVENTS: usize = 1024;

fn main() {
    let args = Args::server(NAME, &[Extra::OneOf("--mode", &["shared", "owned"])]);
    if let Err(error) = serve(&args) {
        fail(NAME, error);
    }
}

struct Connection {
    stream: TcpStream,
    /// Read, and not taken by the socket yet: nothing more is read before it is.
    rest: Vec<u8>,
    /// What it reads into, where it does not share.
    own: Option<Box<[u8]>>,
}

fn serve(args: &Args) -> io::Result<()> {
    let listener = listen::listen(args.listen)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), libc::EPOLLIN as u32)?;
    let own = (args.one_of("--mode") == "owned").then_some(args.buffer);
    let buffers = if own.is_some() { "a buffer for each connection" } else { "one buffer" };
    ready(NAME, listener.local_addr()?, &format!("epoll, edge-triggered, {buffers}"));

    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    let mut buffer = vec![0; args.buffer];
    let mut paused = false;
    loop {
        let happened = epoll.wait(&mut events, paused.then_some(listen::PAUSE))?;
        if paused {
            epoll.add(listener.as_raw_fd(), libc::EPOLLIN as u32)?;
            paused = false;
        }
        for event in &events[..happened] {
            let (fd, flags) = (event.u64 as RawFd, event.events);
            if fd == listener.as_raw_fd() {
                if accept(&epoll, &listener, &mut connections, own).is_err() {
                    // Descriptors have run out, and the listener stays ready: look away for a while.
                    epoll.remove(fd)?;
                    paused = true;
                }
                continue;
            }
            let place = &mut connections[fd as usize];
            let Some(connection) = place else { continue };
            // Out of the connection for the call, and back: two words each way.
            let mut own = connection.own.take();
            let place_to_read = own.as_deref_mut().unwrap_or(&mut buffer);
            let outcome = echo(connection, place_to_read, flags);
            connection.own = own;
            if outcome.is_err() {
                // Closing takes it out of the epoll instance too, as it has no duplicates.
                *place = None;
            }
        }
    }
}

/// Accepts everything there is. The errors that are left to the caller are those of the whole process.
fn accept(
    epoll: &Epoll,
    listener: &TcpListener,
    connections: &mut Vec<Option<Connection>>,
    own: Option<usize>,
) -> io::Result<()> {
    loop {
        // SAFETY: a listening socket, and no address is asked for.
        let fd = unsafe {
            libc::accept4(
                listener.as_raw_fd(),
                ptr::null_mut(),
                ptr::null_mut(),
                libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            )
        };
        if fd < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(()),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    return Err(error);
                }
                // Of the connection that is gone before it was accepted.
                _ => continue,
            }
        }
        // SAFETY: `accept4` has just made it, and nobody else has it.
        let stream = unsafe { TcpStream::from_raw_fd(fd) };
        let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        epoll.add(fd, interest as u32)?;
        let index = fd as usize;
        if index >= connections.len() {
            connections.resize_with(index + 1, || None);
        }
        let own = own.map(|bytes| vec![0; bytes].into_boxed_slice());
        connections[index] = Some(Connection { stream, rest: Vec::new(), own });
    }
}

/// Goes on with a connection until it would block. An error is its end, of whatever kind.
fn echo(connection: &mut Connection, buffer: &mut [u8], flags: u32) -> io::Result<()> {
    let readable = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;
    let ended = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;
    let mut to_the_end = flags & ended as u32 != 0;
    if !connection.rest.is_empty() {
        let written = write(&mut connection.stream, &connection.rest)?;
        connection.rest.drain(..written);
        if !connection.rest.is_empty() {
            return Ok(());
        }
        connection.rest = Vec::new();
        count::one();
        // Edges that came meanwhile were passed over, the peer's end among them.
        to_the_end = true;
    } else if flags & readable as u32 == 0 {
        return Ok(());
    }
    loop {
        let read = match connection.stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let written = write(&mut connection.stream, &buffer[..read])?;
        if written < read {
            connection.rest.extend_from_slice(&buffer[written..read]);
            return Ok(());
        }
        count::one();
        if read < buffer.len() && !to_the_end {
            return Ok(());
        }
    }
}

/// Writes until everything is written or the socket is full.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> io::Result<Epoll> {
        // SAFETY: takes no memory of ours.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `epoll_create1` has just made it, and nobody else has it.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn add(&self, fd: RawFd, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest, u64: fd as u64 };
        // SAFETY: the event is read during the call only.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) })?;
        Ok(())
    }

    fn remove(&self, fd: RawFd) -> io::Result<()> {
        let epoll = self.0.as_raw_fd();
        // SAFETY: a removal reads no event.
        check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, ptr::null_mut()) })?;
        Ok(())
    }

    fn wait(&self, events: &mut [libc::epoll_event], most: Option<Duration>) -> io::Result<usize> {
        let timeout = most.map_or(-1, |most| most.as_millis() as libc::c_int);
        let room = events.len() as libc::c_int;
        let epoll = self.0.as_raw_fd();
        // SAFETY: the kernel writes at most `room` events, and there is place for so many.
        match check(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), room, timeout) }) {
            Ok(happened) => Ok(happened as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
