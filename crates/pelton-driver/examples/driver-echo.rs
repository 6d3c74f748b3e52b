//! A TCP echo server on the bare driver: no executor, no async.
//!
//! `cargo run --release -p pelton-driver --example driver-echo -- 127.0.0.1:9292`

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;

use pelton_driver::*;

/// What a connection waits for.
enum Waiting {
    Recv(Key<Leasing>),
    Send(Key<Sending<Lease>>),
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9292".into());
    let driver = Driver::new(Config::default())?;
    let listener = TcpListener::bind(address)?;
    println!("echo on {} backend={}", listener.local_addr()?, driver.backend());
    let listener = driver.attach(listener.into())?;

    // A token says whom a completion is for: 0 is the listener, others are connections.
    let mut connections: HashMap<usize, (Fd, Waiting)> = HashMap::new();
    let mut last = 0;
    let mut accepts = Some(accept(&driver, listener)?);
    loop {
        let mut told = Vec::new();
        driver.tick(None, |completion| told.push(completion))?;
        for completion in told {
            let token = completion.token.as_number();
            if token == 0 {
                let key = accepts.take().expect("there is always one");
                while let Some(connection) = driver.next(&key) {
                    last += 1;
                    let fd = driver.attach_stream(connection)?;
                    connections.insert(last, (fd, recv(&driver, fd, last)?));
                }
                accepts = Some(match driver.take(key) {
                    Err(goes_on) => goes_on,
                    Ok(_ended) => accept(&driver, listener)?,
                });
            } else if let Some((fd, waiting)) = connections.remove(&token) {
                match step(&driver, fd, waiting, token) {
                    Ok(Some(waiting)) => drop(connections.insert(token, (fd, waiting))),
                    Ok(None) | Err(_) => driver.close(fd),
                }
            }
        }
    }
}

/// Sends what was received, or receives again after a send; nothing at the end of the stream.
fn step(driver: &Driver, fd: Fd, waiting: Waiting, token: usize) -> io::Result<Option<Waiting>> {
    match waiting {
        Waiting::Recv(key) => {
            let Some(lease) = driver.take(key).expect("it is done")? else { return Ok(None) };
            let send = Submission::send_all(fd, lease);
            let key = driver.submit(send, Token::number(token)).map_err(|refused| refused.error)?;
            Ok(Some(Waiting::Send(key)))
        }
        Waiting::Send(key) => {
            driver.take(key).expect("it is done").0?;
            recv(driver, fd, token).map(Some)
        }
    }
}

fn accept(driver: &Driver, listener: Fd) -> io::Result<Key<ManyAccepts>> {
    driver
        .submit(Submission::accept_multi(listener), Token::number(0))
        .map_err(|refused| refused.error)
}

fn recv(driver: &Driver, fd: Fd, token: usize) -> io::Result<Waiting> {
    let key = driver.submit(Submission::recv_pooled(fd), Token::number(token));
    Ok(Waiting::Recv(key.map_err(|refused| refused.error)?))
}
