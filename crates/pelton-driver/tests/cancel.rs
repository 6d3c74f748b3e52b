//! Every kind of operation, given up in every way: each ends exactly once, and nothing is left.

mod common;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::*;
use pelton_driver::*;

on_every_backend! {
    each_kind_that_is_cancelled_ends_exactly_once
    each_kind_that_is_cancelled_before_it_reaches_the_kernel_ends_exactly_once
    each_kind_that_is_abandoned_in_flight_leaves_nothing
    each_kind_that_is_abandoned_before_it_reaches_the_kernel_leaves_nothing
    each_kind_that_is_abandoned_when_it_has_ended_leaves_nothing
    each_kind_that_is_left_in_flight_goes_with_its_driver
    a_cancel_finds_what_is_in_flight_and_nothing_else
    a_cancel_in_a_callback_ends_what_is_ready_in_the_same_batch_once
}

/// Something that an operation needs for as long as it is in flight.
type Keep = Box<dyn std::any::Any>;

/// An operation of any kind that waits for something that does not happen.
struct Waiting {
    kind: Kind,
    /// It is over before it can be cancelled.
    at_once: bool,
    id: OpId,
    /// Gives the key up.
    abandon: Box<dyn FnOnce(&Driver)>,
    /// Takes the outcome and says with which error it ended.
    take: Box<dyn FnOnce(&Driver) -> i32>,
    _keep: Keep,
}

trait Outcome {
    fn errno(self) -> i32;
}
impl<T> Outcome for std::io::Result<T> {
    fn errno(self) -> i32 {
        errno(self)
    }
}
impl<T, B> Outcome for (std::io::Result<T>, B) {
    fn errno(self) -> i32 {
        errno(self.0)
    }
}

impl<T, B, C> Outcome for (std::io::Result<T>, B, C) {
    fn errno(self) -> i32 {
        errno(self.0)
    }
}

fn waiting<P>(driver: &Driver, submission: Submission<P>, keep: Keep) -> Waiting
where
    P: Payload,
    P::Output: Outcome,
{
    let kind = submission.op().kind();
    waiting_for(driver.go_for(submission, kind as usize), kind, keep)
}

fn waiting_for<P>(key: Key<P>, kind: Kind, keep: Keep) -> Waiting
where
    P: Payload,
    P::Output: Outcome,
{
    let id = key.id();
    // One key, two ways to use it.
    let key = std::rc::Rc::new(std::cell::RefCell::new(Some(key)));
    let same = key.clone();
    Waiting {
        kind,
        at_once: matches!(
            kind,
            Kind::Nop
                | Kind::Cancel
                | Kind::CancelFd
                | Kind::Shutdown
                | Kind::ReadAt
                | Kind::WriteAt
                | Kind::Sync
        ) || (cfg!(unix) && kind == Kind::ConnectPipe),
        id,
        abandon: Box::new(move |driver| driver.abandon(key.take().unwrap())),
        take: Box::new(move |driver| {
            driver.take(same.take().unwrap()).unwrap_or_else(|_| panic!("{kind:?}")).errno()
        }),
        _keep: keep,
    }
}

fn hanging_address() -> (std::net::SocketAddr, Keep) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let first = TcpStream::connect(address).unwrap();
    (address, Box::new((socket, first)))
}

/// A pipe that holds no more.
fn full_pipe(driver: &Driver) -> Fd {
    let (_from, to) = driver.pipe().unwrap();
    let fills = driver.go(Submission::write_all(to, vec![1; 1_000_000]));
    driver.settle();
    assert!(driver.cancel(fills.id()), "no pipe holds that much");
    assert_ne!(driver.end(fills).0.unwrap(), 0);
    to
}

/// A server's end that no client has opened; where there are none, something that is none.
fn pipe_without_client(driver: &Driver) -> Fd {
    #[cfg(windows)]
    return attach(driver, PipeServerOptions::new().create_unique().unwrap().1);
    #[cfg(unix)]
    driver.pipe().unwrap().0
}

/// One of each kind.
fn every_kind(driver: &Driver) -> Vec<Waiting> {
    let readable = || -> (Fd, Keep) {
        let (fd, peer): (Fd, Local) = unix(driver);
        (fd, Box::new(peer))
    };
    let writable = || -> (Fd, Keep) {
        let (fd, peer) = full(driver);
        (fd, Box::new(peer))
    };
    let listening = || attach(driver, listener().0);
    let none = || -> Keep { Box::new(()) };
    let file = || attach(driver, file());
    let far = Instant::now() + Duration::from_secs(3600);
    // What takes ticks, before there is something to be told of.
    let full_pipe = full_pipe(driver);
    let mut all = Vec::new();
    all.push(waiting(driver, Submission::nop(), none()));
    all.push(waiting(driver, Submission::accept(listening()), none()));
    all.push(waiting(driver, Submission::accept_multi(listening()), none()));
    let (address, keep) = hanging_address();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let fd = attach(driver, OwnedSystem::from(socket));
    all.push(waiting(driver, Submission::connect(fd, address), keep));
    let (fd, keep) = readable();
    all.push(waiting(driver, Submission::recv(fd, vec![0; 8].into_boxed_slice()), keep));
    let (fd, keep) = readable();
    all.push(waiting(driver, Submission::recv_pooled(fd), keep));
    let (fd, keep) = readable();
    all.push(waiting(driver, Submission::recv_multi(fd), keep));
    let (fd, keep) = readable();
    all.push(waiting(driver, Submission::recv_vectored(fd, [[0; 8]; 2]), keep));
    let (fd, keep) = writable();
    all.push(waiting(driver, Submission::send_all(fd, vec![1; 100_000]), keep));
    let (fd, keep) = writable();
    all.push(waiting(driver, Submission::send_vectored(fd, vec![vec![1; 1000]; 2]), keep));
    let (fd, keep) = readable();
    let control = Control::with_capacity(64);
    all.push(waiting(driver, Submission::recv_msg(fd, [[0; 8]; 2], control), keep));
    let (fd, keep) = writable();
    let send = Submission::send_msg(fd, vec![vec![1; 1000]; 2], None, Control::none());
    all.push(waiting(driver, send, keep));
    let (from, _to) = driver.pipe().unwrap();
    all.push(waiting(driver, Submission::read(from, [0; 8]), none()));
    all.push(waiting(driver, Submission::write_all(full_pipe, vec![1; 1000]), none()));
    all.push(waiting(driver, Submission::connect_pipe(pipe_without_client(driver)), none()));
    all.push(waiting(driver, Submission::read_at(file(), [0; 8], 0), none()));
    all.push(waiting(driver, Submission::write_at(file(), [0; 8], 0), none()));
    all.push(waiting(driver, Submission::sync(file(), false), none()));
    let (fd, keep) = writable();
    all.push(waiting(driver, Submission::poll(fd, Interest::Writable), keep));
    let (fd, keep) = readable();
    all.push(waiting(driver, Submission::shutdown(fd, std::net::Shutdown::Both), keep));
    let (fd, keep) = readable();
    let recv = driver.go(Submission::recv(fd, [0; 8]));
    driver.abandon(recv);
    all.push(waiting(driver, Submission::close(fd), keep));
    all.push(waiting(driver, Submission::timeout(far), none()));
    let target = all[0].id;
    all.push(waiting(driver, Submission::cancel(target), none()));
    let (fd, keep) = readable();
    all.push(waiting(driver, Submission::cancel_fd(fd), keep));
    all.push(waiting(driver, Submission::wake(), none()));
    let (fd, keep) = readable();
    let own = driver.prepare(Some(fd), [0_u8; 8]).unwrap().submit_when(
        Token::number(Kind::Own as usize),
        Interest::Readable,
        |_, _| Err(std::io::ErrorKind::WouldBlock.into()),
    );
    all.push(waiting_for(own.unwrap(), Kind::Own, keep));
    let kinds: Vec<Kind> = all.iter().map(|waiting| waiting.kind).collect();
    for kind in Kind::ALL {
        assert!(kinds.contains(&kind), "{kind:?} is missing: add it");
    }
    all
}

/// Nothing may be left: no slot, no orphan, no buffer, and the driver closes whatever it has.
fn nothing_is_left(driver: Driver) {
    driver.settle();
    let counters = driver.snapshot();
    assert_eq!(driver.operations(), 0);
    assert_eq!((counters.orphans, counters.in_flight_total(), counters.buffers_in_use), (0, 0, 0));
    let notifier = driver.notifier();
    drop(driver);
    assert_eq!(notifier.counters().snapshot().leaked, 0);
}

/// Ticks until what needs nobody else is over, threads of the kernel's and of the pool's included.
fn only_waiting_is_left(driver: &Driver) -> Vec<Completion> {
    let work = [Kind::Shutdown, Kind::ReadAt, Kind::WriteAt, Kind::Sync, Kind::Close];
    let mut told = driver.until(|| {
        let counters = driver.snapshot();
        work.iter().all(|kind| counters.in_flight_of(*kind) == 0)
    });
    told.extend(driver.settle());
    told
}

fn cancel_each(on: &On, in_the_kernel: bool) {
    let driver = on.driver();
    let all = every_kind(&driver);
    let mut told = if in_the_kernel { only_waiting_is_left(&driver) } else { Vec::new() };
    for waiting in &all {
        let found = driver.cancel(waiting.id);
        if in_the_kernel && waiting.kind != Kind::Wake {
            let over = waiting.at_once || waiting.kind == Kind::Close;
            assert_eq!(found, !over, "{:?}", waiting.kind);
        }
        driver.cancel(waiting.id);
    }
    told.extend(driver.until(|| driver.snapshot().in_flight_total() == 0));
    told.extend(driver.settle());
    for waiting in all {
        let ends = told.iter().filter(|told| told.id == waiting.id && !told.more).count();
        assert_eq!(ends, 1, "{:?} ends once", waiting.kind);
        let error = (waiting.take)(&driver);
        match waiting.kind {
            // It found the nop over.
            Kind::Cancel => assert_eq!(error, errno::ENOENT),
            // There are no such pipes here.
            Kind::ConnectPipe if waiting.at_once => assert_eq!(error, errno::EOPNOTSUPP),
            _ if waiting.at_once || waiting.kind == Kind::Close => {
                assert!(error == 0 || error == errno::ECANCELED, "{:?}: {error}", waiting.kind);
            }
            // Without a ring the results of file operations come home through a wake.
            Kind::Wake => assert!(error == 0 || error == errno::ECANCELED),
            kind => assert_eq!(error, errno::ECANCELED, "{kind:?}"),
        }
    }
    nothing_is_left(driver);
}

fn each_kind_that_is_cancelled_ends_exactly_once(on: &On) {
    cancel_each(on, true);
}

fn each_kind_that_is_cancelled_before_it_reaches_the_kernel_ends_exactly_once(on: &On) {
    cancel_each(on, false);
}

fn each_kind_that_is_abandoned_in_flight_leaves_nothing(on: &On) {
    let driver = on.driver();
    let all = every_kind(&driver);
    only_waiting_is_left(&driver);
    all.into_iter().for_each(|waiting| (waiting.abandon)(&driver));
    assert!(driver.settle().is_empty(), "nobody is told");
    nothing_is_left(driver);
}

fn each_kind_that_is_abandoned_before_it_reaches_the_kernel_leaves_nothing(on: &On) {
    let driver = on.driver();
    let all = every_kind(&driver);
    all.into_iter().for_each(|waiting| (waiting.abandon)(&driver));
    assert!(driver.settle().is_empty(), "nobody is told");
    nothing_is_left(driver);
}

fn each_kind_that_is_abandoned_when_it_has_ended_leaves_nothing(on: &On) {
    let driver = on.driver();
    let all = every_kind(&driver);
    only_waiting_is_left(&driver);
    for waiting in &all {
        driver.cancel(waiting.id);
    }
    let ids: Vec<OpId> = all.iter().map(|waiting| waiting.id).collect();
    driver.until(|| driver.snapshot().in_flight_total() == 0);
    driver.settle();
    all.into_iter().for_each(|waiting| (waiting.abandon)(&driver));
    assert!(driver.settle().is_empty());
    assert!(ids.into_iter().all(|id| !driver.cancel(id)), "their names name nothing now");
    nothing_is_left(driver);
}

fn each_kind_that_is_left_in_flight_goes_with_its_driver(on: &On) {
    for in_the_kernel in [true, false] {
        let driver = on.driver();
        let all = every_kind(&driver);
        if in_the_kernel {
            driver.settle();
        }
        let notifier = driver.notifier();
        drop(driver);
        let counters = notifier.counters().snapshot();
        assert_eq!((counters.leaked, counters.orphans, counters.in_flight_total()), (0, 0, 0));
        assert!(notifier.is_closed());
        drop(all);
    }
}

fn a_cancel_finds_what_is_in_flight_and_nothing_else(on: &On) {
    let driver = on.driver();
    let (fd, _peer) = tcp(&driver);
    let key = driver.go_for(Submission::recv(fd, [0; 8]), 1);
    driver.settle();
    assert_eq!(driver.run(Submission::cancel(key.id())).unwrap(), 0);
    let id = key.id();
    assert_eq!(errno(driver.end(key).0), errno::ECANCELED);
    assert_eq!(errno(driver.run(Submission::cancel(id))), errno::ENOENT);
    // Another operation in the same slot is not the one that the old name named.
    let key = driver.go_for(Submission::recv(fd, [0; 8]), 2);
    driver.settle();
    assert!(!driver.cancel(id));
    driver.settle();
    assert!(!driver.is_done(&key));
    driver.abandon(key);
    nothing_is_left(driver);
}

fn a_cancel_in_a_callback_ends_what_is_ready_in_the_same_batch_once(on: &On) {
    let driver = on.driver();
    for round in 0..20 {
        let connections: Vec<_> = (0..4).map(|_| unix(&driver)).collect();
        let keys: Vec<_> = connections
            .iter()
            .enumerate()
            .map(|(n, (fd, _))| driver.go_for(Submission::recv(*fd, [0; 8]), n))
            .collect();
        driver.settle();
        for (_, peer) in &connections {
            std::io::Write::write_all(&mut &*peer, b"ready").unwrap();
        }
        let mut ends = [0; 4];
        while ends.contains(&0) {
            driver
                .tick(Some(WATCHDOG), |told| {
                    ends[told.token.as_number()] += 1;
                    for key in &keys {
                        driver.cancel(key.id());
                    }
                })
                .unwrap();
        }
        assert!(driver.settle().is_empty());
        assert_eq!(ends, [1; 4], "round {round}");
        for key in keys {
            let (result, _) = driver.take(key).unwrap();
            assert!(matches!(errno(result), 0 | errno::ECANCELED));
        }
        connections.into_iter().for_each(|(fd, _)| driver.close(fd));
    }
    nothing_is_left(driver);
}
