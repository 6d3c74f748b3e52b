//! What servers answer, checked apart from the measurement.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::http::{ResponseCounter, request};
use crate::error::{Error, Result};

const PATIENCE: Duration = Duration::from_secs(10);

/// Echoes of many sizes come back as they were sent, on several connections, and the server closes
/// after the client does.
pub(crate) fn echo(name: &str, addr: SocketAddr) -> Result<()> {
    let fault = |what: String| Error::server(name, what);
    const SIZES: [usize; 10] = [1, 63, 64, 65, 1000, 4096, 16383, 16384, 16385, 100_003];
    for round in 0..3u8 {
        let mut stream = open(addr).map_err(|e| fault(format!("connecting: {e}")))?;
        for size in SIZES {
            let sent: Vec<u8> = (0..size).map(|at| (at % 251) as u8 ^ round).collect();
            let received = exchange(&mut stream, &sent)
                .map_err(|e| fault(format!("an echo of {size} B: {e}")))?;
            if let Some(at) = (0..size).find(|&at| sent[at] != received[at]) {
                return Err(fault(format!("byte {at} of an echo of {size} B is another one")));
            }
        }
        ends(&mut stream).map_err(|what| fault(format!("after the client's end: {what}")))?;
    }
    Ok(())
}

/// `GET /`, plain and pipelined, and `GET /delay/10`, which takes as long.
pub(crate) fn http(name: &str, addr: SocketAddr) -> Result<()> {
    let fault = |what: String| Error::server(name, what);
    let mut stream = open(addr).map_err(|e| fault(format!("connecting: {e}")))?;
    for count in [1, 1, 16, 3] {
        let body = answers(&mut stream, "/", count)
            .map_err(|e| fault(format!("{count} requests in one send: {e}")))?;
        let bodies = body.windows(13).filter(|w| *w == b"Hello, World!").count();
        if bodies != count {
            return Err(fault(format!("{bodies} bodies `Hello, World!` instead of {count}")));
        }
    }
    let start = Instant::now();
    answers(&mut stream, "/delay/10", 1).map_err(|e| fault(format!("/delay/10: {e}")))?;
    let took = start.elapsed();
    if took < Duration::from_millis(10) {
        return Err(fault(format!("/delay/10 took {} µs", took.as_micros())));
    }
    Ok(())
}

/// Sends and receives at the same time: a message may be larger than all buffers on its way.
fn exchange(stream: &mut TcpStream, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut received = vec![0; sent.len()];
    let mut sender = stream.try_clone()?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || sender.write_all(sent));
        stream.read_exact(&mut received)?;
        sending.join().expect("the sender does not panic")
    })?;
    Ok(received)
}

fn answers(stream: &mut TcpStream, path: &str, count: usize) -> Result<Vec<u8>> {
    let fault = |e: std::io::Error| Error::Load(e.to_string());
    stream.write_all(&request(path).repeat(count)).map_err(fault)?;
    let mut counter = ResponseCounter::default();
    let (mut all, mut complete) = (Vec::new(), 0);
    let mut piece = [0; 8192];
    while complete < count {
        let length = stream.read(&mut piece).map_err(fault)?;
        if length == 0 {
            return Err(Error::Load(format!("closed after {complete} answers of {count}")));
        }
        complete += counter.feed(&piece[..length])?;
        all.extend_from_slice(&piece[..length]);
    }
    if complete > count || !counter.between() {
        return Err(Error::Load("the answers are more than was asked".into()));
    }
    Ok(all)
}

fn ends(stream: &mut TcpStream) -> std::result::Result<(), String> {
    stream.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
    match stream.read(&mut [0; 16]) {
        Ok(0) => Ok(()),
        Ok(n) => Err(format!("{n} bytes that nobody sent")),
        Err(e) => Err(format!("the server does not close: {e}")),
    }
}

fn open(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
