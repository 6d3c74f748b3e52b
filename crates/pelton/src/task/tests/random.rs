//! Everything at once: seeded sequences of everything that user code may do, from outside, from within
//! polls and from within drops. What they check by themselves is that every future and every output is
//! dropped exactly once and that the reactor's memory goes; the memory checkers check the rest.

use super::*;

struct World {
    tasks: Tasks,
    random: Cell<u64>,
    handles: RefCell<Vec<JoinHandle<Output>>>,
    wakers: RefCell<Vec<Waker>>,
    tokens: RefCell<Vec<Token>>,
    /// Futures and outputs.
    made: Cell<usize>,
    dropped: Cell<usize>,
    /// How deep actions nest.
    depth: Cell<u32>,
}

struct Chaos {
    world: Rc<World>,
    polls: usize,
}

struct Output {
    world: Rc<World>,
}

impl World {
    fn new(seed: u64, bell: Bell) -> Rc<World> {
        Rc::new(World {
            tasks: Tasks::new(bell),
            random: Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            handles: RefCell::default(),
            wakers: RefCell::default(),
            tokens: RefCell::default(),
            made: Cell::new(0),
            dropped: Cell::new(0),
            depth: Cell::new(0),
        })
    }

    fn below(&self, limit: usize) -> usize {
        let mut value = self.random.get();
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
        self.random.set(value);
        (value % limit as u64) as usize
    }

    fn made(&self) {
        self.made.set(self.made.get() + 1);
    }

    fn spawn(self: &Rc<World>) {
        self.made();
        let handle = self.tasks.spawn(Chaos { world: self.clone(), polls: 0 });
        self.handles.borrow_mut().push(handle);
    }

    fn take<T>(&self, from: &RefCell<Vec<T>>) -> Option<T> {
        let len = from.borrow().len();
        (len > 0).then(|| {
            let index = self.below(len);
            from.borrow_mut().swap_remove(index)
        })
    }

    /// One thing that anybody may do at any time.
    fn act(self: &Rc<World>) {
        if self.depth.get() == 4 {
            return;
        }
        self.depth.set(self.depth.get() + 1);
        // Also when a drop below unwinds.
        let _back = OnDrop(|| self.depth.set(self.depth.get() - 1));
        match self.below(16) {
            0..3 => {
                if self.tasks.live() < 20 {
                    self.spawn();
                }
            }
            3 => drop(self.take(&self.handles)),
            4 => {
                if let Some(handle) = self.take(&self.handles) {
                    handle.abort();
                    self.handles.borrow_mut().push(handle);
                }
            }
            5 => {
                if let Some(mut handle) = self.take(&self.handles) {
                    let waker = self.wakers.borrow().first().cloned();
                    match poll_once(&mut handle, waker.as_ref().unwrap_or(Waker::noop())) {
                        Poll::Ready(result) => drop(result),
                        Poll::Pending => self.handles.borrow_mut().push(handle),
                    }
                }
            }
            6 => {
                if let Some(mut handle) = self.take(&self.handles) {
                    let waker = Waker::from(Arc::new(CountingWaker::default()));
                    let _ = poll_once(&mut handle, &waker);
                    self.handles.borrow_mut().push(handle);
                }
            }
            7 | 8 => {
                if let Some(waker) = self.take(&self.wakers) {
                    waker.wake();
                }
            }
            9 => {
                if let Some(waker) = self.take(&self.wakers) {
                    self.wakers.borrow_mut().push(waker.clone());
                    self.wakers.borrow_mut().push(waker);
                }
            }
            10 => drop(self.take(&self.wakers)),
            11 => {
                let wakers = [self.take(&self.wakers), self.take(&self.wakers)];
                if self.below(4) == 0 {
                    std::thread::scope(|scope| {
                        scope
                            .spawn(|| wakers.into_iter().flatten().for_each(Waker::wake))
                            .join()
                            .unwrap();
                    });
                }
            }
            12 | 13 => {
                // As the driver does: a token is followed once, or never.
                if let Some(token) = self.take(&self.tokens) {
                    resume(&self.tasks, token);
                }
            }
            14 => drop(self.tasks.drain_remote()),
            _ => drop(self.tasks.run_queued(self.below(4))),
        }
    }

    /// Drops that act. A panic in a drop while another unwinds would end the process, so none then.
    fn dropped(self: &Rc<World>) {
        self.dropped.set(self.dropped.get() + 1);
        self.act();
        if self.below(16) == 0 && !std::thread::panicking() {
            throw("in a drop");
        }
    }
}

impl Future for Chaos {
    type Output = Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Output> {
        self.polls += 1;
        let world = self.world.clone();
        world.tokens.borrow_mut().extend(world.tasks.token(cx.waker()));
        if world.below(2) == 0 {
            world.wakers.borrow_mut().push(cx.waker().clone());
        }
        if world.below(3) == 0 {
            cx.waker().wake_by_ref();
        }
        for _ in 0..world.below(3) {
            world.act();
        }
        match world.below(8) {
            0 => throw("in a poll"),
            1 | 2 => {
                world.made();
                Poll::Ready(Output { world })
            }
            _ => Poll::Pending,
        }
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.world.dropped();
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.world.dropped();
    }
}

#[test]
fn whatever_user_code_does_each_future_and_output_is_dropped_once() {
    let (seeds, steps) = if cfg!(miri) { (12, 80) } else { (300, 300) };
    let mut made = 0;
    for seed in 0..seeds {
        let bell = Bell::default();
        let world = World::new(seed, bell.clone());
        for _ in 0..steps {
            // What unwinds out of here is an output that was taken or a handle's result, dropped by `act`.
            contain(|| world.act());
            world.tasks.drain_remote();
            world.tasks.run_queued(3);
        }
        world.tasks.clear();
        assert_eq!((world.tasks.live(), world.tasks.counts().forgotten), (0, 0), "seed {seed}");
        while let Some(handle) = world.take(&world.handles) {
            drop(handle);
        }
        assert_eq!(world.made.get(), world.dropped.get(), "seed {seed}");
        made += world.made.get();
        world.tokens.borrow_mut().clear();
        let wakers = world.wakers.take();
        assert_eq!(Rc::strong_count(&world), 1, "seed {seed}");
        drop(world);
        assert_eq!(bell.is_held(), !wakers.is_empty());
        wakers.into_iter().for_each(Waker::wake);
        assert!(!bell.is_held(), "seed {seed}");
    }
    assert!(made > seeds as usize * steps / 4, "only {made} futures and outputs");
}
