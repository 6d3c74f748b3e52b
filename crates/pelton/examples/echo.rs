//! A TCP echo server: each connection a task, each chunk leased from the pool and sent without a copy.
//!
//! `cargo run --release -p pelton --example echo -- 127.0.0.1:9292 [owned] [REQUESTS]`
//!
//! With `owned` each connection reads into a buffer of its own. With a number the program ends after that
//! many echoes, which is what one wants when counting instructions.

use std::cell::Cell;
use std::rc::Rc;

use pelton::net::{TcpListener, TcpStream};

#[pelton::main]
async fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = arguments.first().map_or("127.0.0.1:9292", String::as_str);
    let owned = arguments.iter().any(|argument| argument == "owned");
    let left = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(u64::MAX);

    let listener = TcpListener::bind(address).await?;
    let backend = pelton::Handle::current().backend();
    println!("echo on {} backend={backend}", listener.local_addr()?);
    let left = Rc::new(Cell::new(left));
    while left.get() > 0 {
        let stream = listener.accept_stream().await?;
        stream.set_nodelay(true)?;
        let left = left.clone();
        if owned {
            pelton::spawn(echo_owned(stream, left)).detach();
        } else {
            pelton::spawn(echo_leased(stream, left)).detach();
        }
    }
    Ok(())
}

async fn echo_leased(stream: TcpStream, left: Rc<Cell<u64>>) -> std::io::Result<()> {
    loop {
        let Some(chunk) = stream.recv().await? else { return Ok(()) };
        stream.send_all(chunk).await?;
        count(&left);
    }
}

async fn echo_owned(stream: TcpStream, left: Rc<Cell<u64>>) -> std::io::Result<()> {
    let mut buf = Vec::with_capacity(16 * 1024);
    loop {
        let read;
        (read, buf) = stream.read(buf).await;
        if read? == 0 {
            return Ok(());
        }
        let sent;
        (sent, buf) = stream.write_all(buf).await;
        sent?;
        buf.clear();
        count(&left);
    }
}

fn count(left: &Cell<u64>) {
    left.set(left.get() - 1);
    if left.get() == 0 {
        std::process::exit(0);
    }
}
