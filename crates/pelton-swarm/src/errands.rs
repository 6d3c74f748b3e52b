//! Errands: what one does with a runtime, on several hosts, under faults that nobody may notice. Whatever is
//! begun must come to its end, and bring what it should.
//!
//! Chaos knows what must not happen; this world knows what must. A wake, an edge, a buffer or a byte that is lost
//! leaves somebody waiting, and the run is stuck.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use pelton::Lease;
use pelton::net::{TcpListener, TcpStream};
use pelton::sim::{self, Failure, Sim};
use pelton::time::{now, sleep, sleep_until, timeout};

use crate::pattern::{self, mix};
use crate::{Options, Stats, Which, hosted};

/// Runs the world under a seed.
pub(crate) fn run(seed: u64, options: &Options) -> Result<Stats, Box<Failure>> {
    let faults = Which::These(options.faults.of(seed).harmless());
    let options = Options { faults, ..options.clone() };
    // The seed decides what is done.
    hosted::run(seed, &options, 2, town)
}

/// A server of errands, a clerk whom others post to, and two who run errands.
fn town(sim: &Sim) {
    let seed = sim.world().seed();
    sim.host("server", serve);
    sim.host("clerk", std::future::pending::<io::Result<()>>);
    for number in 0..2_u64 {
        let plan = mix(seed ^ mix(number));
        sim.client(&format!("runner{number}"), async move {
            for nth in 0..3 {
                // An errand that somebody gave up in between is run again; one that is stuck is never over.
                while errand(mix(plan ^ nth)).await.is_err() {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            let pauses = sim::current().handle("server", 0).counters().accept_pauses.get();
            let at_most = sim::current().elapsed().as_millis() as u64 / 100 + 2;
            assert!(
                pauses <= at_most,
                "the server paused {pauses} times in {at_most} tenths of a second"
            );
            Ok(())
        });
    }
}

async fn errand(word: u64) -> io::Result<()> {
    let size = 1 + (word >> 8) % 5_000;
    match word % 9 {
        0 => echo(word, size, false).await,
        1 => echo(word, size, true).await,
        2 => echo(word, 90_000, word & 256 != 0).await,
        3 => panics().await,
        4 => hang_up(word).await,
        5 => crowd().await,
        6 => {
            timers(word).await;
            Ok(())
        }
        7 => moved(word).await,
        _ => {
            posts(word).await;
            tasks(word).await;
            Ok(())
        }
    }
}

// The server.

async fn serve() -> io::Result<()> {
    let listener = loop {
        match TcpListener::bind("0.0.0.0:80").await {
            Ok(listener) => break listener,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    // Whoever comes early waits in line.
    sleep(Duration::from_millis(30)).await;
    loop {
        let stream = listener.accept_stream().await?;
        pelton::spawn(async move {
            let _ = answer(stream).await;
        })
        .detach();
    }
}

/// Does what the first byte asks for.
async fn answer(stream: TcpStream) -> io::Result<()> {
    let mut first = match stream.recv().await? {
        Some(first) => first,
        None => return Ok(()),
    };
    let what = first[0];
    first.advance(1);
    match what {
        b'p' => {
            // Nothing but the task owns what it holds: the unwinding of the poll releases none of it.
            let held = (first, stream);
            let panics = poll_fn(move |_| -> Poll<()> {
                let _held = &held;
                panic!("as it was asked to");
            });
            pelton::spawn(panics).detach();
            Ok(())
        }
        b'h' => {
            stream.send_all("!").await?;
            sleep(Duration::from_millis(5)).await;
            stream.send_all(vec![b'h'; 300]).await
        }
        _ => {
            stream.send_all(first).await?;
            while let Some(bytes) = stream.recv().await? {
                stream.send_all(bytes).await?;
            }
            Ok(())
        }
    }
}

// The errands.

async fn connect(what: &'static str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect("server:80").await?;
    stream.send_all(what).await?;
    Ok(stream)
}

/// Sends bytes and wants the same ones back. With `impatient` receives are dropped before they have ended.
async fn echo(key: u64, size: u64, impatient: bool) -> io::Result<()> {
    let stream = Rc::new(connect("e").await?);
    let sender = stream.clone();
    let sent = pelton::spawn(async move {
        let bytes = pattern::bytes(key, 0, size as usize);
        let (sent, _) = sender.write_all(bytes).await;
        sent?;
        sender.shutdown(Shutdown::Write).await
    });
    let mut back = 0;
    for round in 1_u64.. {
        if impatient && round % 4 == 0 {
            // Given up when it may have ended already.
            let mut given_up = Box::pin(stream.recv());
            let begun = poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx))).await;
            match begun {
                Poll::Ready(received) => match take(key, &mut back, received?) {
                    true => continue,
                    false => break,
                },
                Poll::Pending => sleep(Duration::from_millis(2)).await,
            }
        }
        let received = if impatient {
            match timeout(Duration::from_micros(400), stream.recv()).await {
                Ok(received) => received,
                Err(_) => continue,
            }
        } else {
            stream.recv().await
        };
        if !take(key, &mut back, received?) {
            break;
        }
    }
    sent.await??;
    assert_eq!(back, size, "an echo of {size} bytes ended early");
    Ok(())
}

/// Looks at a piece of an echo. False at its end.
fn take(key: u64, back: &mut u64, received: Option<Lease>) -> bool {
    let Some(bytes) = received else { return false };
    assert!(pattern::matches(key, *back, &bytes), "bytes from {back} on are not those of an echo");
    *back += bytes.len() as u64;
    true
}

/// A handler that panics lets go of its connection.
async fn panics() -> io::Result<()> {
    let stream = connect("p").await?;
    while let Ok(Some(_)) = stream.recv().await {}
    Ok(())
}

/// The last bytes and the end of a stream have both come before anybody looks.
async fn hang_up(word: u64) -> io::Result<()> {
    let stream = connect("h").await?;
    let (first, _) = stream.read([0_u8; 1]).await;
    first?;
    sleep(Duration::from_millis(40)).await;
    let mut came = 0;
    loop {
        let n = if word & 512 == 0 {
            stream.recv().await?.map_or(0, |bytes| bytes.len())
        } else {
            stream.read(Vec::with_capacity(400)).await.0?
        };
        if n == 0 {
            break;
        }
        came += n;
    }
    assert_eq!(came, 300, "the end of a stream came before its bytes");
    Ok(())
}

/// Many connections at once: nobody is left at the door.
async fn crowd() -> io::Result<()> {
    let all: Vec<_> = (0..40).map(|_| pelton::spawn(echo(7, 20, false))).collect();
    for one in all {
        one.await??;
    }
    Ok(())
}

/// Timers fire, all of them, never early, and the ones that are dropped take no others with them.
async fn timers(word: u64) {
    let start = now();
    let all: Vec<_> = (0..40)
        .map(|n| {
            let after = Duration::from_micros(mix(word ^ (n / 4)) % 30_000);
            pelton::spawn(async move {
                let deadline = start + after;
                if n % 4 == 3 {
                    // Given up just before it fires.
                    let _ = timeout(after / 2, sleep_until(deadline)).await;
                    return;
                }
                sleep_until(deadline).await;
                assert!(now() >= deadline, "a timer fired early");
            })
        })
        .collect();
    for one in all {
        one.await.expect("a timer's task");
    }
}

/// A receive that one task has begun, and another one ends.
async fn moved(word: u64) -> io::Result<()> {
    let stream = Rc::new(connect("e").await?);
    let receiver = stream.clone();
    let mut receive: Pin<Box<dyn Future<Output = io::Result<usize>>>> =
        Box::pin(async move { Ok(receiver.recv().await?.map_or(0, |bytes| bytes.len())) });
    let begun = poll_fn(|cx| Poll::Ready(receive.as_mut().poll(cx))).await;
    if let Poll::Ready(received) = begun {
        return received.map(drop);
    }
    let other = pelton::spawn(async move {
        for _ in 0..word % 3 {
            pelton::yield_now().await;
        }
        receive.await
    });
    stream.send_all("hello").await?;
    let n = other.await??;
    assert!((1..=5).contains(&n), "{n} bytes came back of five");
    Ok(())
}

/// Closures that another reactor runs, in order and all of them, and tasks there whose outcomes come back.
async fn posts(word: u64) {
    let clerk = sim::current().handle("clerk", 0);
    let ran = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    for n in 0..1 + word % 12 {
        let ran = ran.clone();
        let posted = clerk.post(move || {
            let before = ran.swap(n + 1, std::sync::atomic::Ordering::SeqCst);
            assert_eq!(before, n, "closures ran out of order");
        });
        posted.expect("the clerk is there");
    }
    for n in 0..1 + word % 5 {
        let outcome = clerk.spawn(async move { n }).await;
        assert_eq!(outcome.expect("the clerk's task"), n);
    }
}

/// Tasks that wake themselves, wait for each other, and are woken by one another.
async fn tasks(word: u64) {
    let counted = Rc::new(Cell::new(0));
    let waiting: Rc<RefCell<Option<std::task::Waker>>> = Rc::default();
    let (count, waker) = (counted.clone(), waiting.clone());
    let waiter = pelton::spawn(async move {
        poll_fn(|cx| {
            if count.get() >= 5 {
                return Poll::Ready(());
            }
            *waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    });
    let all: Vec<_> = (0..5)
        .map(|n| {
            let (count, waker) = (counted.clone(), waiting.clone());
            pelton::spawn(async move {
                for _ in 0..mix(word ^ n) % 4 {
                    pelton::yield_now().await;
                }
                count.set(count.get() + 1);
                let woken = waker.borrow_mut().take();
                if let Some(waker) = woken {
                    waker.wake();
                }
            })
        })
        .collect();
    for one in all {
        one.await.expect("a task");
    }
    waiter.await.expect("whoever waited");
}
