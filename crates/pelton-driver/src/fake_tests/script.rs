//! Random histories against a model: every operation ends exactly once, and every owner goes exactly once.

use super::*;

/// xorshift64*.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }
}

/// A key of any type.
enum Any {
    Recv(Key<Filling<Counted>>),
    Send(Key<Sending<Counted>>),
    RecvParts(Key<FillingAll<Vec<Counted>>>),
    SendParts(Key<SendingAll<Vec<Counted>>>),
    Array(Key<Filling<[u8; 20]>>),
    Pooled(Key<Leasing>),
    Multi(Key<ManyLeases>),
    Accept(Key<Accepting>),
    Connect(Key<Connecting>),
    Plain(Key<Plain>),
}

macro_rules! each {
    ($any:expr, $key:ident => $do:expr) => {
        match $any {
            Any::Recv($key) => $do,
            Any::Send($key) => $do,
            Any::RecvParts($key) => $do,
            Any::SendParts($key) => $do,
            Any::Array($key) => $do,
            Any::Pooled($key) => $do,
            Any::Multi($key) => $do,
            Any::Accept($key) => $do,
            Any::Connect($key) => $do,
            Any::Plain($key) => $do,
        }
    };
}

#[derive(Default)]
struct History {
    /// Keys that live, by token.
    live: Vec<(usize, Any)>,
    /// How many last completions each token has been told of.
    ends: Vec<u32>,
    leases: Vec<Lease>,
    /// Numbers that a kernel has carried at some time.
    seen: Vec<u64>,
}

struct World {
    driver: Rc<Driver>,
    kernel: FakeKernel,
    census: Census,
    fds: Vec<Fd>,
}

fn submit(world: &World, random: &mut Random, history: &mut History) {
    let World { driver, census, fds, .. } = world;
    let fd = fds[random.below(fds.len())];
    let token = Token::number(history.ends.len());
    let far = std::time::Instant::now() + Duration::from_secs(3600);
    let part = |n| (0..n).map(|_| census.plain(6)).collect::<Vec<_>>();
    let target = history.seen.last().map(|seen| OpId::from_user_data(*seen));
    macro_rules! go {
        ($any:ident, $submission:expr) => {
            driver.submit($submission, token).ok().map(Any::$any)
        };
    }
    let key = match random.below(16) {
        0 | 1 => go!(Recv, Submission::recv(fd, census.plain(8))),
        2 => go!(Recv, Submission::read_at(fd, census.plain(8), 1 << 40)),
        3 => go!(Send, Submission::send_all(fd, census.plain(8))),
        4 => go!(Send, Submission::write_at(fd, census.plain(8), 9)),
        5 => go!(RecvParts, Submission::recv_vectored(fd, part(3))),
        6 => go!(SendParts, Submission::send_vectored(fd, part(2))),
        7 => go!(Array, Submission::recv(fd, [0; 20])),
        8 | 9 => go!(Pooled, Submission::recv_pooled(fd)),
        10 => go!(Multi, Submission::recv_multi(fd)),
        11 => go!(Accept, Submission::accept(fd)),
        12 => go!(Plain, Submission::timeout(far)),
        13 => go!(Plain, Submission::wake()),
        14 => go!(Connect, Submission::connect(fd, ([127, 0, 0, 1], 9).into())),
        _ => match (random.below(3), target) {
            (0, _) => go!(Plain, Submission::nop()),
            (1, Some(target)) => go!(Plain, Submission::cancel(target)),
            _ => go!(Plain, Submission::cancel_fd(fd)),
        },
    };
    if let Some(key) = key {
        history.seen.push(each!(&key, key => key.id().user_data()));
        history.live.push((history.ends.len(), key));
        history.ends.push(0);
    }
}

fn kernel_acts(world: &World, random: &mut Random, history: &History) {
    let kernel = &world.kernel;
    let held = kernel.held();
    if random.below(6) == 0 {
        // A kernel, or a bug in one, that completes something old.
        if !history.seen.is_empty() {
            let old = history.seen[random.below(history.seen.len())];
            if held.iter().all(|held| held.user_data != old) {
                kernel.complete(old, -5);
            }
        }
        return;
    }
    if held.is_empty() {
        return;
    }
    let held = &held[random.below(held.len())];
    let (id, n) = (held.user_data, random.below(30) as i32);
    match held.kind {
        Kind::Recv | Kind::ReadAt | Kind::RecvVectored if n > 10 => {
            kernel.fill(id, &[b'd'; 30][..n as usize]);
        }
        Kind::Recv | Kind::Send if n > 5 => kernel.complete(id, -crate::errno::EAGAIN),
        Kind::Recv | Kind::ReadAt | Kind::RecvVectored => kernel.complete(id, n),
        Kind::RecvMulti if n > 8 => kernel.complete_more(id, n),
        Kind::RecvPooled | Kind::RecvMulti if n > 4 => kernel.complete(id, -crate::errno::ENOBUFS),
        Kind::RecvPooled | Kind::RecvMulti => kernel.complete(id, n),
        Kind::Accept if n > 20 => kernel.connect(id, descriptor(), false),
        Kind::Send | Kind::WriteAt => kernel.complete(id, n.min(8)),
        Kind::SendVectored => {
            assert!(kernel.bytes(id).iter().all(|byte| *byte == b'.'));
            kernel.complete(id, n.min(12));
        }
        _ => kernel.complete(id, -n),
    }
}

fn tick_and_count(world: &World, history: &mut History) {
    for completion in tick(&world.driver) {
        if !completion.more {
            history.ends[completion.token.as_number()] += 1;
        }
    }
}

fn take(world: &World, history: &mut History, at: usize) {
    let driver = &world.driver;
    if let (_, Any::Multi(key)) = &history.live[at]
        && let Some(lease) = driver.next(key)
    {
        assert!(lease.iter().all(|byte| *byte == 0xAB));
        history.leases.push(lease);
    }
    let (token, key) = history.live.swap_remove(at);
    let done = each!(&key, key => driver.is_done(key));
    macro_rules! take {
        ($key:expr, $any:ident, $then:expr) => {
            match driver.take($key) {
                Ok(outcome) => {
                    assert!(done);
                    #[allow(clippy::redundant_closure_call)]
                    $then(outcome);
                    None
                }
                Err(key) => Some(Any::$any(key)),
            }
        };
    }
    let back = match key {
        Any::Recv(key) => take!(key, Recv, drop),
        Any::Send(key) => take!(key, Send, drop),
        Any::RecvParts(key) => take!(key, RecvParts, drop),
        Any::SendParts(key) => take!(key, SendParts, drop),
        Any::Array(key) => take!(key, Array, drop),
        Any::Pooled(key) => take!(key, Pooled, |lease: std::io::Result<Option<Lease>>| {
            history.leases.extend(lease.ok().flatten());
        }),
        Any::Multi(key) => take!(key, Multi, drop),
        Any::Accept(key) => take!(key, Accept, drop),
        Any::Connect(key) => take!(key, Connect, drop),
        Any::Plain(key) => take!(key, Plain, drop),
    };
    match back {
        Some(key) => {
            assert!(!done);
            history.live.push((token, key));
        }
        // Told of before, or not any more: a taken operation is told of once at most.
        None => assert!(history.ends[token] <= 1),
    }
}

fn run(seed: u64, steps: usize) {
    let (driver, kernel) = driver();
    let fds = (0..3).map(|_| attach(&driver)).collect();
    let mut world = World { driver, kernel, census: Census::default(), fds };
    let mut random = Random::new(seed);
    let mut history = History::default();
    for step in 0..steps {
        match random.below(12) {
            0..=2 => submit(&world, &mut random, &mut history),
            3..=5 => kernel_acts(&world, &mut random, &history),
            6 | 7 => tick_and_count(&world, &mut history),
            8 if !history.live.is_empty() => {
                let at = random.below(history.live.len());
                take(&world, &mut history, at);
            }
            9 if !history.live.is_empty() => {
                let (_, key) = &history.live[random.below(history.live.len())];
                let in_flight = each!(key, key => !world.driver.is_done(key));
                assert_eq!(world.driver.cancel(each!(key, key => key.id())), in_flight);
            }
            10 if !history.live.is_empty() => {
                let (token, key) = history.live.swap_remove(random.below(history.live.len()));
                each!(key, key => world.driver.abandon(key));
                // Nobody is told any more, so it counts as ended from here on.
                assert!(history.ends[token] <= 1);
                history.ends[token] = 1;
            }
            11 => match random.below(4) {
                0 => {
                    let at = random.below(3);
                    world.driver.close(world.fds[at]);
                    world.fds[at] = attach(&world.driver);
                }
                1 => drop(world.driver.notifier().notify()),
                _ if !history.leases.is_empty() => {
                    history.leases.swap_remove(random.below(history.leases.len()));
                }
                _ => {}
            },
            _ => {}
        }
        for (token, key) in &history.live {
            let (ends, done) = (history.ends[*token], each!(key, key => world.driver.is_done(key)));
            assert!(ends <= 1, "seed {seed} step {step}: ended {ends} times");
            assert!(ends == 0 || done, "seed {seed} step {step}: told of before it ended");
        }
    }
    // The end: everything is cancelled, the kernel obeys, and everything ends once.
    history.leases.clear();
    world.kernel.obey();
    for (_, key) in &history.live {
        world.driver.cancel(each!(key, key => key.id()));
    }
    for _ in 0..6 {
        tick_and_count(&world, &mut history);
    }
    for (token, key) in &history.live {
        assert!(each!(key, key => world.driver.is_done(key)), "seed {seed}: it has not ended");
        assert_eq!(history.ends[*token], 1, "seed {seed}");
    }
    assert_eq!(world.driver.operations() as usize, history.live.len(), "seed {seed}");
    let half = history.live.len() / 2;
    for at in (0..half).rev() {
        take(&world, &mut history, at);
    }
    history.leases.clear();
    let counters = world.driver.counters().snapshot();
    assert_eq!((counters.orphans, counters.in_flight_total()), (0, 0), "seed {seed}");
    let notifier = world.driver.notifier();
    let World { driver, census, .. } = world;
    drop(driver);
    assert_eq!(census.alive(), 0, "seed {seed}: every owner has gone");
    let counters = notifier.counters().snapshot();
    assert_eq!((counters.leaked, counters.buffers_in_use), (0, 0), "seed {seed}");
}

#[test]
fn any_history_ends_every_operation_once_and_drops_every_owner_once() {
    let (seeds, steps) = if cfg!(miri) { (2, 150) } else { (60, 2000) };
    for seed in 1..=seeds {
        run(seed, steps);
    }
}
