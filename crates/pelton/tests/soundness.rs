//! Whatever user code does, memory stays sound: random programs, for the address sanitizer to watch.
//!
//! Each program starts operations of every kind on a few connections, polls them with all kinds of wakers,
//! moves them into tasks and between them, drops and aborts them, closes connections under them, and ends
//! its runtime at any moment, before or after the objects. Buffers poison themselves when they are dropped
//! and are counted. Run it with `-Zsanitizer=address` to see what a test cannot.

mod common;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use common::{CountingWaker, on_each_backend, open_descriptors, pair};
use pelton::driver::{Config, IoBuf, IoBufMut, Spare};
use pelton::io::{AsyncRead, AsyncWrite, PollStream};
use pelton::net::{TcpListener, TcpStream};
use pelton::{Builder, Dispatch, JoinHandle};

/// A small generator: the same programs everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A buffer that is counted, and poisons its memory when it goes. Kept in place or in a box of its own by
/// turns.
struct Guarded<T: AsMut<[u8]> + AsRef<[u8]> + 'static> {
    bytes: T,
    live: Rc<Cell<i64>>,
}

impl<T: AsMut<[u8]> + AsRef<[u8]>> Guarded<T> {
    fn new(bytes: T, live: &Rc<Cell<i64>>) -> Guarded<T> {
        live.set(live.get() + 1);
        Guarded { bytes, live: live.clone() }
    }
}

impl<T: AsMut<[u8]> + AsRef<[u8]>> Drop for Guarded<T> {
    fn drop(&mut self) {
        self.bytes.as_mut().fill(0xEE);
        self.live.set(self.live.get() - 1);
    }
}

impl<T: AsMut<[u8]> + AsRef<[u8]>> IoBuf for Guarded<T> {
    fn as_init(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<T: AsMut<[u8]> + AsRef<[u8]>> IoBufMut for Guarded<T> {
    fn spare(&mut self) -> Spare<'_> {
        self.bytes.as_mut().into()
    }

    unsafe fn advance(&mut self, _: usize) {}
}

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

struct World {
    random: Random,
    live: Rc<Cell<i64>>,
    streams: Vec<Rc<TcpStream>>,
    listener: Rc<TcpListener>,
    file: Rc<pelton::fs::File>,
    futures: Vec<Boxed>,
    tasks: Vec<JoinHandle<()>>,
    /// Futures on their way from one task to another.
    adrift: Rc<RefCell<Vec<Boxed>>>,
    wakers: Vec<Waker>,
    poll_streams: Vec<PollStream>,
}

impl World {
    async fn new(seed: u64, live: &Rc<Cell<i64>>) -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let file = pelton::fs::File::open(std::env::current_exe().unwrap()).await.unwrap();
        let mut world = World {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            live: live.clone(),
            streams: Vec::new(),
            listener: Rc::new(listener),
            file: Rc::new(file),
            futures: Vec::new(),
            tasks: Vec::new(),
            adrift: Rc::default(),
            wakers: vec![Waker::noop().clone(), CountingWaker::new().into()],
            poll_streams: Vec::new(),
        };
        for _ in 0..3 {
            world.connect().await;
        }
        world
    }

    async fn connect(&mut self) {
        let (a, b) = pair().await;
        self.streams.extend([Rc::new(a), Rc::new(b)]);
    }

    fn operation(&mut self) -> Boxed {
        let at = self.random.below(self.streams.len());
        let stream = self.streams[at].clone();
        let size = [1, 16, 100, 5000, 300_000][self.random.below(5)];
        let live = &self.live;
        let small = Guarded::new([7u8; 12], live);
        let wide = Guarded::new([7u8; 200], live);
        let long = Guarded::new(vec![7u8; size], live);
        let boxed = Guarded::new(vec![7u8; size].into_boxed_slice(), live);
        let (listener, file) = (self.listener.clone(), self.file.clone());
        let address = self.listener.local_addr().unwrap();
        let micros = self.random.below(300) as u64;
        match self.random.below(20) {
            0 => Box::pin(async move { drop(stream.read(small).await) }),
            1 => Box::pin(async move { drop(stream.read(wide).await) }),
            2 => Box::pin(async move { drop(stream.read(long).await) }),
            3 => Box::pin(async move { drop(stream.read(boxed).await) }),
            4 => Box::pin(async move { drop(stream.write_all(small).await) }),
            5 => Box::pin(async move { drop(stream.write_all(wide).await) }),
            6 => Box::pin(async move { drop(stream.write_all(long).await) }),
            7 => Box::pin(async move { drop(stream.write(boxed).await) }),
            8 => Box::pin(async move {
                let _ = stream.write_vectored_all([long.bytes.clone(), vec![1; 3]]).await;
            }),
            9 => Box::pin(async move {
                let bufs = [Vec::with_capacity(5), Vec::with_capacity(50)];
                let _ = stream.read_vectored(bufs).await;
            }),
            10 => Box::pin(async move { drop(stream.recv().await) }),
            11 => Box::pin(async move {
                // What is received goes out again from where it is.
                if let Ok(Some(lease)) = stream.recv().await {
                    let _ = stream.send_all(lease).await;
                }
            }),
            12 => Box::pin(async move { drop(stream.readable().await) }),
            13 => Box::pin(async move { drop(listener.accept().await) }),
            14 => Box::pin(async move { drop(TcpStream::connect(address).await) }),
            15 => Box::pin(async move { drop(file.read_at(boxed, 100).await) }),
            16 => Box::pin(async move { drop(pelton::spawn_blocking(move || micros).await) }),
            17 => Box::pin(pelton::time::sleep(Duration::from_micros(micros))),
            18 => Box::pin(async move {
                let _ =
                    pelton::time::timeout(Duration::from_micros(micros), stream.read(long)).await;
            }),
            _ => Box::pin(async move {
                let reads = pelton::spawn(async move { drop(stream.read(wide).await) });
                pelton::time::sleep(Duration::from_micros(micros)).await;
                reads.abort();
                let _ = reads.await;
            }),
        }
    }

    /// Polls with one of the wakers; a future that has ended is dropped.
    fn poll(&mut self, at: usize) {
        let waker = self.wakers[self.random.below(self.wakers.len())].clone();
        if self.futures[at].as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            drop(self.futures.swap_remove(at));
        }
    }

    async fn step(&mut self) {
        match self.random.below(24) {
            0..6 => {
                let future = self.operation();
                self.futures.push(future);
            }
            6..11 if !self.futures.is_empty() => {
                let at = self.random.below(self.futures.len());
                self.poll(at);
            }
            11..13 if !self.futures.is_empty() => {
                let at = self.random.below(self.futures.len());
                drop(self.futures.swap_remove(at));
            }
            13..15 if !self.futures.is_empty() => {
                let at = self.random.below(self.futures.len());
                let future = self.futures.swap_remove(at);
                self.tasks.push(pelton::spawn(future));
            }
            15 if !self.futures.is_empty() => {
                // Polled by a task that ends and hands it on.
                let at = self.random.below(self.futures.len());
                let mut future = self.futures.swap_remove(at);
                let adrift = self.adrift.clone();
                self.tasks.push(pelton::spawn(async move {
                    if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await {
                        adrift.borrow_mut().push(future);
                    }
                }));
            }
            16 => {
                let adrift = self.adrift.take();
                self.futures.extend(adrift);
            }
            17 if !self.tasks.is_empty() => {
                let at = self.random.below(self.tasks.len());
                let task = self.tasks.swap_remove(at);
                if self.random.one_in(2) {
                    task.abort();
                }
            }
            18 if self.streams.len() > 2 => {
                let at = self.random.below(self.streams.len());
                let stream = self.streams.swap_remove(at);
                if self.random.one_in(3) {
                    let _ = stream.set_linger(Some(Duration::ZERO));
                }
                // With nothing else on it, it may go on in poll form.
                if let Ok(stream) = Rc::try_unwrap(stream)
                    && self.random.one_in(2)
                {
                    self.poll_streams.push(PollStream::new(stream));
                }
            }
            19 if self.streams.len() < 8 => self.connect().await,
            20 if !self.poll_streams.is_empty() => self.poll_stream(),
            21 => {
                let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
                self.wakers.push(waker);
                if self.wakers.len() > 5 {
                    self.wakers.swap_remove(2);
                }
            }
            22 => {
                let live = self.live.clone();
                // It drops a buffer in the end of the loop's turn, or with the runtime.
                let guarded = Guarded::new([1u8; 64], &live);
                self.tasks.push(pelton::spawn(async move {
                    pelton::yield_now().await;
                    drop(guarded);
                }));
            }
            _ => pelton::yield_now().await,
        }
    }

    fn poll_stream(&mut self) {
        let at = self.random.below(self.poll_streams.len());
        let waker = self.wakers[self.random.below(self.wakers.len())].clone();
        let cx = &mut Context::from_waker(&waker);
        let stream = &mut self.poll_streams[at];
        match self.random.below(7) {
            0 | 1 => drop(stream.poll_write(cx, &vec![7; 200_000])),
            2 => drop(stream.poll_read(cx, Spare::from(&mut [0u8; 10][..]))),
            3 => drop(stream.poll_recv(cx)),
            4 => drop(stream.poll_flush(cx)),
            5 => drop(stream.poll_shutdown(cx)),
            _ => drop(self.poll_streams.swap_remove(at)),
        }
    }
}

#[test]
fn random_programs_leave_nothing_behind_and_touch_nothing_that_has_gone() {
    let (most, steps, enough) = if cfg!(debug_assertions) { (60, 250, 20) } else { (400, 400, 30) };
    on_each_backend(|backend| {
        let began = Instant::now();
        for seed in 1..=most {
            // Bounded in time too, for machines on which all this is slow; the first ones always run.
            if seed > 10 && began.elapsed().as_secs() > enough {
                println!("{seed} programs on {backend}");
                break;
            }
            let live = Rc::new(Cell::new(0));
            let before = open_descriptors();
            // Scarce in everything, so that every queue is full now and then.
            let config = Config {
                backend,
                ring_entries: 4,
                completion_entries: 8,
                pool_buffers: 4,
                pool_buffer_len: 2048,
                ..Config::default()
            };
            let dispatch = if seed % 2 == 0 { Dispatch::Inline } else { Dispatch::Queued };
            let runtime = Builder::new().driver(config).dispatch(dispatch).build().unwrap();
            let handle = runtime.handle();
            let mut world = runtime.block_on(World::new(seed, &live));
            for _ in 0..3 {
                runtime.block_on(async {
                    for _ in 0..steps / 3 {
                        world.step().await;
                    }
                });
            }
            match seed % 3 {
                0 => {
                    drop(world);
                    drop(runtime);
                }
                1 => {
                    drop(runtime);
                    // What was in flight is polled once more, inside another reactor.
                    common::runtime(backend).block_on(async {
                        while let Some(at) = world.futures.len().checked_sub(1) {
                            world.poll(at);
                            world.futures.truncate(at);
                        }
                    });
                    drop(world);
                }
                _ => {
                    runtime.block_on(async {
                        drop(world);
                        // Tasks that were detached hold connections, and go on.
                        let orphans = || handle.snapshot().orphans;
                        common::eventually("what was given up ends", || orphans() == 0).await;
                    });
                    drop(runtime);
                }
            }
            let counters = handle.snapshot();
            drop(handle);
            assert_eq!(live.get(), 0, "seed {seed}: buffers are left over on {backend}");
            assert_eq!(counters.in_flight_total(), 0, "seed {seed}");
            assert_eq!(counters.leaked, 0, "seed {seed}");
            assert_eq!(counters.orphans, 0, "seed {seed}");
            assert_eq!(counters.buffers_in_use, 0, "seed {seed}");
            assert_eq!(counters.task_panics, 0, "seed {seed}");
            while open_descriptors() > before {
                // The pool may still hold a notifier.
                std::thread::yield_now();
            }
        }
    });
}
