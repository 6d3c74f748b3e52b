//! Tasks: spawned, awaited, aborted, let run, panicking; futures that are dropped at any moment; work for the
//! blocking pool. Every task drops what it owns, once.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use pelton::net::{TcpListener, TcpStream};
use pelton::sim::Sim;
use pelton::time;

use crate::echo::listen;
use crate::hosted::{must, pause};
use crate::pattern;

pub(crate) fn scenario(sim: &Sim) {
    sim.host("source", || async {
        let listener = listen().await;
        loop {
            match impatient(&listener).await {
                Some(stream) => pelton::spawn(pour(stream)).detach(),
                None => time::sleep(Duration::from_millis(pelton::random() % 300)).await,
            }
        }
    });
    for number in 0..3 {
        sim.client(&format!("client{number}"), client());
    }
}

/// Drops the accept after some polls: no connection may be lost by that.
async fn impatient(listener: &TcpListener) -> Option<TcpStream> {
    give_up(pelton::random() % 4, listener.accept()).await?.ok().map(|(stream, _)| stream)
}

/// Awaits a future for at most so many polls of it, or a little time, and drops it then.
async fn give_up<F: Future>(polls: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let spans = [20, 20, 2_000];
    let span = 1 + pelton::random() % spans[(pelton::random() % 3) as usize];
    let mut limit = pin!(time::sleep(Duration::from_millis(span)));
    let mut left = polls;
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if left == 0 && polls > 0 {
            return Poll::Ready(None);
        }
        left = left.saturating_sub(1);
        limit.as_mut().poll(cx).map(|()| None)
    })
    .await
}

const LEN: u64 = 6_000;

async fn pour(stream: TcpStream) {
    let Ok(peer) = stream.peer_addr() else { return };
    let key = pattern::direction(pattern::connection(peer), false);
    let mut offset = 0;
    while offset < LEN {
        let len = (1 + pelton::random() % 900).min(LEN - offset);
        if stream.send_all(pattern::bytes(key, offset, len as usize)).await.is_err() {
            return;
        }
        offset += len;
        if pelton::random().is_multiple_of(3) {
            pause().await;
        }
    }
}

struct Owned(Rc<Cell<i64>>);

impl Owned {
    fn new(count: &Rc<Cell<i64>>) -> Owned {
        count.set(count.get() + 1);
        Owned(count.clone())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn client() -> io::Result<()> {
    let alive = Rc::new(Cell::new(0));
    for _ in 0..6 {
        drink().await;
        herd(&alive).await;
    }
    // Those that were let run end by themselves.
    for _ in 0..200 {
        if alive.get() == 0 {
            return Ok(());
        }
        pause().await;
    }
    Err(io::Error::other(format!("{} tasks have not dropped what they owned", alive.get())))
}

/// Receives with receives that are dropped at random: none of them loses a byte.
async fn drink() {
    let connect = time::timeout(Duration::from_secs(70), TcpStream::connect("source:80"));
    let Ok(Ok(stream)) = connect.await else { return };
    let Ok(local) = stream.local_addr() else { return };
    let key = pattern::direction(pattern::connection(local), false);
    let mut offset = 0;
    let mut kept = Vec::new();
    let until = time::now() + Duration::from_secs(60);
    while time::now() < until {
        match give_up(pelton::random() % 4, stream.recv()).await {
            None => time::sleep(Duration::from_millis(pelton::random() % 40)).await,
            Some(Ok(Some(lease))) => {
                must!(pattern::matches(key, offset, &lease), "a dropped receive lost bytes");
                offset += lease.len() as u64;
                if pelton::random().is_multiple_of(2) && kept.len() < 3 {
                    kept.push(lease);
                } else {
                    kept.clear();
                }
            }
            Some(Ok(None)) => {
                must!(offset <= LEN, "more came than was sent");
                return;
            }
            Some(Err(_)) => return,
        }
    }
}

/// Many tasks, ended in every manner.
async fn herd(alive: &Rc<Cell<i64>>) {
    let mut handles = Vec::new();
    for number in 0..8_u64 {
        let owned = Owned::new(alive);
        let span = Duration::from_millis(pelton::random() % 30);
        let kind = pelton::random() % 6;
        let task = pelton::spawn(async move {
            let _owned = owned;
            match kind {
                0 => time::sleep(span).await,
                1 => {
                    time::sleep(span).await;
                    panic!("as asked");
                }
                2 => {
                    let squared = pelton::spawn_blocking(move || number * number).await;
                    if let Ok(squared) = squared {
                        must!(squared == number * number, "the pool answered another");
                    }
                }
                3 => {
                    let inner = pelton::spawn(async { time::sleep(Duration::from_secs(5)).await });
                    time::sleep(span).await;
                    inner.abort();
                    must!(
                        inner.await.is_err_and(|error| error.is_cancelled()),
                        "an aborted task went on"
                    );
                }
                4 => {
                    for _ in 0..number {
                        pelton::yield_now().await;
                    }
                }
                _ => drop(give_up(2, time::sleep(Duration::from_secs(1))).await),
            }
            number
        });
        handles.push((kind, number, task));
    }
    for (kind, number, handle) in handles {
        match pelton::random() % 4 {
            0 => handle.abort(),
            1 => handle.detach(),
            _ => match handle.await {
                Ok(back) => must!(back == number && kind != 1, "another task's output"),
                Err(error) => must!(kind == 1 && error.is_panic(), "{error}"),
            },
        }
    }
}
