//! The tick: how completions become polls, how few entries a batch costs, and that nobody starves.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use common::{
    Event, config, eventually, inside_each_backend, on_each_backend, pair, pair_with_std,
};
use pelton::{Builder, Dispatch, Handle, Runtime};

fn with(backend: pelton::Backend, dispatch: Dispatch) -> Runtime {
    Builder::new().backend(backend).dispatch(dispatch).build().unwrap()
}

#[test]
fn a_batch_of_requests_is_answered_with_a_handful_of_entries_into_the_kernel() {
    const CONNECTIONS: usize = 100;
    on_each_backend(|backend| {
        for dispatch in [Dispatch::Inline, Dispatch::Queued] {
            let runtime = with(backend, dispatch);
            runtime.block_on(async {
                let handle = Handle::current();
                let (served, parked) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
                let all_served = Event::default();
                let mut clients = Vec::new();
                for _ in 0..CONNECTIONS {
                    let (stream, client) = pair_with_std().await;
                    clients.push(client);
                    let (served, parked, all) =
                        (served.clone(), parked.clone(), all_served.clone());
                    pelton::spawn(async move {
                        loop {
                            parked.set(parked.get() + 1);
                            let Some(chunk) = stream.recv().await? else { break };
                            stream.send_all(chunk).await?;
                            served.set(served.get() + 1);
                            if served.get() % CONNECTIONS == 0 {
                                all.set();
                            }
                        }
                        std::io::Result::Ok(())
                    })
                    .detach();
                }
                eventually("all wait for a request", || parked.get() == CONNECTIONS).await;
                // The receives have reached the kernel, and it has nothing else to tell of.
                pelton::time::sleep(Duration::from_millis(1)).await;
                for client in &mut clients {
                    client.write_all(b"request").unwrap();
                }
                let before = handle.snapshot();
                all_served.wait().await;
                let after = handle.snapshot();
                assert_eq!(served.get(), CONNECTIONS);
                let enters = after.enters - before.enters;
                assert!(
                    enters <= 6,
                    "{enters} entries for {CONNECTIONS} requests with {dispatch:?} on {backend}"
                );
                for client in &mut clients {
                    let mut answer = [0; 7];
                    client.read_exact(&mut answer).unwrap();
                    assert_eq!(&answer, b"request");
                }
            });
        }
    });
}

#[test]
fn inline_dispatch_polls_in_the_tick_and_queued_dispatch_after_it() {
    on_each_backend(|backend| {
        for (dispatch, expected) in
            [(Dispatch::Inline, ["task", "post"]), (Dispatch::Queued, ["post", "task"])]
        {
            let runtime = with(backend, dispatch);
            runtime.block_on(async {
                thread_local! { static LOG: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) }; }
                LOG.take();
                let (stream, mut client) = pair_with_std().await;
                let done = Event::default();
                let ends = done.clone();
                pelton::spawn(async move {
                    stream.recv().await.unwrap();
                    LOG.with_borrow_mut(|log| log.push("task"));
                    ends.set();
                })
                .detach();
                // It waits in the kernel.
                pelton::time::sleep(Duration::from_millis(1)).await;
                client.write_all(b"x").unwrap();
                // Posted closures run between the tick and the queue.
                Handle::current().post(|| LOG.with_borrow_mut(|log| log.push("post"))).unwrap();
                done.wait().await;
                eventually("both have run", || LOG.with_borrow(|log| log.len() == 2)).await;
                assert_eq!(LOG.take(), expected, "{dispatch:?} on {backend}");
            });
        }
    });
}

#[test]
fn a_handler_may_wait_for_whatever_needs_the_loop_to_turn() {
    on_each_backend(|backend| {
        for dispatch in [Dispatch::Inline, Dispatch::Queued] {
            with(backend, dispatch).block_on(async {
                // Every task is woken by input in one batch, and then waits for all the others, a timer, the
                // pool, and more input.
                const TASKS: usize = 20;
                let (arrived, all) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
                let mut clients = Vec::new();
                let mut tasks = Vec::new();
                for _ in 0..TASKS {
                    let (stream, client) = pair_with_std().await;
                    clients.push(client);
                    let event = Event::default();
                    all.borrow_mut().push(event.clone());
                    let (arrived, all) = (arrived.clone(), all.clone());
                    tasks.push(pelton::spawn(async move {
                        stream.recv().await.unwrap().unwrap();
                        arrived.set(arrived.get() + 1);
                        if arrived.get() == TASKS {
                            all.borrow().iter().for_each(Event::set);
                        }
                        event.wait().await;
                        pelton::time::sleep(Duration::from_micros(100)).await;
                        pelton::spawn_blocking(|| ()).await.unwrap();
                        let inner = pelton::spawn(async move {
                            stream.send_all("more").await.unwrap();
                            stream.recv().await.unwrap().unwrap().len()
                        });
                        inner.await.unwrap()
                    }));
                }
                for client in &mut clients {
                    client.write_all(b"x").unwrap();
                }
                for client in clients {
                    let (mut client, mut answer) = (client, [0; 4]);
                    pelton::spawn_blocking(move || {
                        client.read_exact(&mut answer).unwrap();
                        client.write_all(b"yy").unwrap();
                        client
                    })
                    .await
                    .unwrap();
                }
                for task in tasks {
                    assert_eq!(task.await.unwrap(), 2);
                }
            });
        }
    });
}

#[test]
fn a_task_that_is_always_ready_does_not_starve_input() {
    inside_each_backend(|_| async {
        let (stream, mut client) = pair_with_std().await;
        let turns = Rc::new(Cell::new(0u64));
        let counts = turns.clone();
        let busy = pelton::spawn(async move {
            loop {
                counts.set(counts.get() + 1);
                pelton::yield_now().await;
            }
        });
        let thread = std::thread::spawn(move || {
            for _ in 0..100 {
                let mut answer = [0; 4];
                client.write_all(b"ping").unwrap();
                client.read_exact(&mut answer).unwrap();
            }
        });
        for _ in 0..100 {
            let chunk = stream.recv().await.unwrap().unwrap();
            stream.send_all(chunk).await.unwrap();
            // It fires although nobody ever waits.
            pelton::time::sleep(Duration::from_micros(10)).await;
        }
        pelton::spawn_blocking(|| common::join(thread)).await.unwrap();
        assert!(turns.get() > 100, "the other one was busy all the while");
        busy.abort();
    });
}

#[test]
fn operations_that_end_at_once_do_not_starve_the_others() {
    inside_each_backend(|_| async {
        // What the page cache has never waits (on epoll): only the budget makes this give way.
        let name = format!("pelton-dispatch-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, [7; 4096]).unwrap();
        let file = pelton::fs::File::open(&path).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let reads = Rc::new(Cell::new(0u64));
        let counts = reads.clone();
        let greedy = pelton::spawn(async move {
            let mut buf = Vec::with_capacity(64);
            loop {
                buf.clear();
                let (read, back) = file.read_at(buf, 0).await;
                assert_eq!(read.unwrap(), 64);
                buf = back;
                counts.set(counts.get() + 1);
            }
        });
        let (a, b) = pair().await;
        // Few rounds, because the greedy one makes thousands of calls in each.
        for _ in 0..20 {
            a.send_all("ping").await.unwrap();
            assert_eq!(&*b.recv().await.unwrap().unwrap(), b"ping");
            pelton::time::sleep(Duration::from_micros(10)).await;
        }
        // Where the system cannot say what it has in its cache each read waits for its packet.
        let least = if cfg!(windows) { 5 } else { 100 };
        assert!(reads.get() > least, "the other one read all the while");
        assert!(!greedy.is_finished());
        greedy.abort();
    });
}

#[test]
fn a_stream_that_is_always_ready_does_not_starve_the_others() {
    inside_each_backend(|_| async {
        let (flooded, mut flood) = pair_with_std().await;
        let thread = std::thread::spawn(move || {
            let chunk = vec![0; 1 << 16];
            while flood.write_all(&chunk).is_ok() {}
        });
        let received = Rc::new(Cell::new(0u64));
        let counts = received.clone();
        let greedy = pelton::spawn(async move {
            let mut buf = Vec::with_capacity(256);
            loop {
                buf.clear();
                let (read, back) = flooded.read(buf).await;
                assert!(read.unwrap() > 0);
                buf = back;
                counts.set(counts.get() + 1);
            }
        });
        eventually("the flood is there", || received.get() > 1000).await;
        let (a, b) = pair().await;
        // Few rounds, because the greedy one makes thousands of calls in each.
        for _ in 0..20 {
            a.send_all("ping").await.unwrap();
            assert_eq!(&*b.recv().await.unwrap().unwrap(), b"ping");
        }
        greedy.abort();
        // Not on this thread: the close that ends the flood goes out with a tick of this reactor.
        pelton::spawn_blocking(|| common::join(thread)).await.unwrap();
    });
}

#[test]
fn a_batch_of_one_poll_is_enough_to_get_on() {
    on_each_backend(|backend| {
        let runtime = Builder::new().backend(backend).batch(1).build().unwrap();
        let done = Rc::new(Cell::new(0));
        for _ in 0..100 {
            let done = done.clone();
            runtime
                .spawn(async move {
                    pelton::yield_now().await;
                    pelton::time::sleep(Duration::from_micros(50)).await;
                    done.set(done.get() + 1);
                })
                .detach();
        }
        runtime.block_on(eventually("all are done", || done.get() == 100));
    });
}

#[test]
fn more_ready_at_once_than_one_wait_can_tell_of_is_all_told_of() {
    // More than the first wait's room for events (epoll), and more than a small ring's entries.
    const CONNECTIONS: usize = 400;
    on_each_backend(|backend| {
        let small =
            pelton::driver::Config { ring_entries: 8, completion_entries: 16, ..config(backend) };
        let runtime = Builder::new().driver(small).build().unwrap();
        runtime.block_on(async {
            let served = Rc::new(Cell::new(0));
            let mut clients = Vec::new();
            let mut tasks = Vec::new();
            for _ in 0..CONNECTIONS {
                let (stream, client) = pair_with_std().await;
                clients.push(client);
                let served = served.clone();
                tasks.push(pelton::spawn(async move {
                    let (read, buf) = stream.read([0u8; 16]).await;
                    assert_eq!(&buf[..read.unwrap()], b"x");
                    served.set(served.get() + 1);
                    stream
                }));
            }
            pelton::time::sleep(Duration::from_millis(1)).await;
            for client in &mut clients {
                client.write_all(b"x").unwrap();
            }
            for task in tasks {
                drop(task.await.unwrap());
            }
            assert_eq!(served.get(), CONNECTIONS);
            common::quiet().await;
        });
    });
}

#[test]
fn one_that_is_woken_may_end_another_that_is_ready_in_the_same_batch() {
    on_each_backend(|backend| {
        for dispatch in [Dispatch::Inline, Dispatch::Queued] {
            with(backend, dispatch).block_on(async {
                for _ in 0..20 {
                    let (first, mut one) = pair_with_std().await;
                    let (second, mut two) = pair_with_std().await;
                    let finished = Rc::new(Cell::new(0));
                    type Slot = Rc<RefCell<Option<pelton::JoinHandle<()>>>>;
                    let others: [Slot; 2] = Default::default();
                    for (at, stream) in [first, second].into_iter().enumerate() {
                        let (finished, other) = (finished.clone(), others[1 - at].clone());
                        let task = pelton::spawn(async move {
                            stream.recv().await.unwrap();
                            finished.set(finished.get() + 1);
                            // Whoever comes first drops the other, with its connection and receive.
                            if let Some(other) = other.take() {
                                other.abort();
                            }
                        });
                        *others[at].borrow_mut() = Some(task);
                    }
                    pelton::time::sleep(Duration::from_micros(200)).await;
                    one.write_all(b"x").unwrap();
                    two.write_all(b"x").unwrap();
                    eventually("one came first", || finished.get() > 0).await;
                    common::quiet().await;
                    assert_eq!(finished.get(), 1, "what was aborted did not run any more");
                }
            });
        }
    });
}

#[test]
fn a_task_that_never_waits_gives_way_to_the_kernel_after_each_budget() {
    // What a task may do in one go, with room for the other operations of the test.
    const BUDGET: u64 = 128 + 16;
    common::inside_each_backend(|_| async {
        let file = pelton::fs::File::open("Cargo.toml").await.unwrap();
        // Cached from here on, so that no read waits.
        let mut buf = file.read_at(vec![0; 64], 0).await.1;
        let counters = || pelton::Handle::current().snapshot();
        let before = counters();
        const READS: u64 = 5_000;
        for _ in 0..READS {
            buf.clear();
            let read;
            (read, buf) = file.read_at(buf, 0).await;
            assert_eq!(read.unwrap(), 64);
        }
        let after = counters();
        assert!(after.submissions - before.submissions >= READS);
        let ticks = after.ticks - before.ticks;
        assert!(ticks >= READS / BUDGET, "{ticks} ticks in {READS} reads");
    });
}
