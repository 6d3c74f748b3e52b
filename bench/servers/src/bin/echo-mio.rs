//! Echo on mio: the raw epoll loop again, through mio's types. As there, all connections share one buffer,
//! and a read that does not fill it has emptied the socket.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

use bench::args::Args;
use bench::{count, fail, listen, ready, versions};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use pelton_bench_servers as bench;

const NAME: &str = "echo-mio";

fn main() {
    let args = Args::server(NAME, &[]);
    if let Err(error) = serve(&args) {
        fail(NAME, error);
    }
}

struct Connection {
    stream: TcpStream,
    /// Read, and not taken by the socket yet: nothing more is read before it is.
    rest: Vec<u8>,
}

fn serve(args: &Args) -> io::Result<()> {
    let listener = listen::listen(args.listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let mut listener = TcpListener::from_std(listener);
    let listening = token(&listener);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, listening, Interest::READABLE)?;
    ready(NAME, address, &versions::named("mio"));

    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; args.buffer];
    let mut paused = false;
    loop {
        match poll.poll(&mut events, paused.then_some(listen::PAUSE)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        if std::mem::take(&mut paused) {
            paused = accept(&poll, &listener, &mut connections).is_err();
        }
        for event in &events {
            if event.token() == listening {
                // Its edge has come: what is left in the queue has to be asked for after a while.
                paused = accept(&poll, &listener, &mut connections).is_err();
                continue;
            }
            let place = &mut connections[event.token().0];
            let Some(connection) = place else { continue };
            if echo(connection, &mut buffer, event).is_err() {
                *place = None;
            }
        }
    }
}

fn token(socket: &impl AsRawFd) -> Token {
    Token(socket.as_raw_fd() as usize)
}

/// Accepts everything there is. The errors that are left to the caller are those of the whole process.
fn accept(
    poll: &Poll,
    listener: &TcpListener,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    return Err(error);
                }
                // Of the connection that is gone before it was accepted.
                _ => continue,
            },
        };
        let token = token(&stream);
        poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        if token.0 >= connections.len() {
            connections.resize_with(token.0 + 1, || None);
        }
        connections[token.0] = Some(Connection { stream, rest: Vec::new() });
    }
}

/// Goes on with a connection until it would block. An error is its end, of whatever kind.
fn echo(connection: &mut Connection, buffer: &mut [u8], event: &Event) -> io::Result<()> {
    let mut to_the_end = event.is_read_closed() || event.is_error();
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
    } else if !event.is_readable() && !to_the_end {
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
