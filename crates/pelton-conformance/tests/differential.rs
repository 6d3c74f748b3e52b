//! Random scripts of operations over two connections and a file, on every backend and on the simulated system.
//! Every outcome must be one that the model allows, and what no race decides must be the same everywhere.
//!
//! The model says what a script may do, not what it does: how bytes are cut, and which of a cancel and its
//! target comes first, is the kernel's affair.

use pelton_conformance::{Bench, Rig, System, errno, on, pattern};
use pelton_driver::{Fd, Filling, Interest, Key, Plain, Sending, SendingAll, Submission, Token};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// An end of one of the two connections: 0 and 1 are one, 2 and 3 the other.
type End = usize;

#[derive(Clone, Debug)]
enum Step {
    Send(End, usize),
    SendParts(End, usize, usize),
    Receive(End, usize),
    Readable(End),
    Writable(End),
    Shutdown(End),
    Close(End),
    /// Cancels one of those that are in flight.
    Cancel(usize),
    Timeout,
    WriteAt(usize, usize),
    ReadAt(usize, usize),
    Sync,
    /// Lets what is on its way come.
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let end = 0..4_usize;
    prop_oneof![
        4 => (end.clone(), 1..5000_usize).prop_map(|(end, len)| Step::Send(end, len)),
        1 => (end.clone(), Just(400_000)).prop_map(|(end, len)| Step::Send(end, len)),
        2 => (end.clone(), 0..900_usize, 1..900_usize)
            .prop_map(|(end, one, other)| Step::SendParts(end, one, other)),
        6 => (end.clone(), 1..6000_usize).prop_map(|(end, room)| Step::Receive(end, room)),
        1 => end.clone().prop_map(Step::Readable),
        1 => end.clone().prop_map(Step::Writable),
        1 => end.clone().prop_map(Step::Shutdown),
        1 => end.prop_map(Step::Close),
        2 => (0..8_usize).prop_map(Step::Cancel),
        1 => Just(Step::Timeout),
        2 => (0..3000_usize, 1..2000_usize).prop_map(|(at, len)| Step::WriteAt(at, len)),
        2 => (0..6000_usize, 1..2000_usize).prop_map(|(at, len)| Step::ReadAt(at, len)),
        1 => Just(Step::Sync),
        4 => Just(Step::Settle),
    ]
}

enum Pending {
    Send(Key<Sending<Vec<u8>>>, usize),
    SendParts(Key<SendingAll<Vec<Vec<u8>>>>, usize),
    Receive(Key<Filling<Vec<u8>>>, usize),
    Poll(Key<Plain>),
    Timeout(Key<Plain>),
}

struct InFlight {
    end: Option<End>,
    pending: Pending,
    cancelled: bool,
}

/// What has happened at one end.
#[derive(Default)]
struct Side {
    /// Bytes of all sends, in their order.
    sent: Vec<u8>,
    /// How many of them the system has taken.
    taken: usize,
    received: Vec<u8>,
    /// A send was cut short: what comes after it follows on what was taken.
    shut: bool,
    closed: bool,
}

/// What no race decides. Not what the connections carried: a send is left out where the one before it is under
/// way, which one system still has and another has ended; there the model alone judges.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    file: Vec<u8>,
    reads: Vec<Vec<u8>>,
}

struct Play<'a> {
    driver: &'a Rig,
    ends: [Fd; 4],
    sides: [Side; 4],
    in_flight: Vec<InFlight>,
    raced: [bool; 4],
}

fn play(on: &Bench, script: &[Step]) -> Seen {
    let driver = on.driver();
    let (a, b) = (driver.pair(), driver.local_pair());
    let file = driver.file(on, "file");
    let mut model: Vec<u8> = Vec::new();
    let mut reads = Vec::new();
    let mut play = Play {
        driver: &driver,
        ends: [a.0, a.1, b.0, b.1],
        sides: Default::default(),
        in_flight: Vec::new(),
        raced: [false; 4],
    };
    for (n, step) in script.iter().enumerate() {
        match *step {
            Step::WriteAt(at, len) => {
                let bytes = pattern(n, len);
                driver.write(file, &bytes, at as u64);
                model.resize(model.len().max(at + len), 0);
                model[at..at + len].copy_from_slice(&bytes);
            }
            Step::ReadAt(at, len) => {
                let expected = &model[at.min(model.len())..(at + len).min(model.len())];
                let read = driver.read(file, len, at as u64);
                assert_eq!(read, expected, "step {n}");
                reads.push(read);
            }
            Step::Sync => drop(driver.run(Submission::sync(file, n % 2 == 0)).unwrap()),
            _ => play.step(n, step),
        }
    }
    play.finish();
    let read = driver.read(file, model.len() + 10, 0);
    assert_eq!(read, model, "the file at the end");
    Seen { file: read, reads }
}

impl Play<'_> {
    fn step(&mut self, n: usize, step: &Step) {
        let driver = self.driver;
        match *step {
            Step::Send(end, len) if !self.sending(end) => {
                let bytes = pattern(n, len);
                let send = Submission::send_all(self.ends[end], bytes.clone());
                match driver.submit(send, Token::NONE) {
                    Ok(key) => {
                        self.sides[end].sent.extend(bytes);
                        self.begin(end, Pending::Send(key, len));
                    }
                    Err(refused) => self.refused(end, refused.error),
                }
            }
            Step::SendParts(end, one, other) if !self.sending(end) => {
                let parts = vec![pattern(n, one), pattern(n + 1, other)];
                let (whole, len) = (parts.concat(), one + other);
                match driver
                    .submit(Submission::send_vectored_all(self.ends[end], parts), Token::NONE)
                {
                    Ok(key) => {
                        self.sides[end].sent.extend(whole);
                        self.begin(end, Pending::SendParts(key, len));
                    }
                    Err(refused) => self.refused(end, refused.error),
                }
            }
            Step::Receive(end, room) if !self.receiving(end) => {
                let recv = Submission::recv(self.ends[end], Vec::with_capacity(room));
                match driver.submit(recv, Token::NONE) {
                    Ok(key) => self.begin(end, Pending::Receive(key, room)),
                    Err(refused) => self.refused(end, refused.error),
                }
            }
            Step::Readable(end) => self.poll(end, Interest::Readable),
            Step::Writable(end) => self.poll(end, Interest::Writable),
            Step::Shutdown(end) => {
                let shutdown = Submission::shutdown(self.ends[end], std::net::Shutdown::Write);
                match driver.submit(shutdown, Token::NONE) {
                    Ok(key) => {
                        // A send that is under way ends there.
                        self.raced[end] |= self.sending(end);
                        self.sides[end].shut = true;
                        let error = errno(driver.end(key));
                        let gone = self.sides[end ^ 1].closed;
                        assert!(error == 0 || (gone && error == libc::ENOTCONN), "{error}");
                    }
                    Err(refused) => self.refused(end, refused.error),
                }
            }
            Step::Close(end) => {
                self.sides[end].closed = true;
                driver.close(self.ends[end]);
            }
            Step::Cancel(which) if !self.in_flight.is_empty() => {
                let which = which % self.in_flight.len();
                let id = match &self.in_flight[which].pending {
                    Pending::Send(key, _) => key.id(),
                    Pending::SendParts(key, _) => key.id(),
                    Pending::Receive(key, _) => key.id(),
                    Pending::Poll(key) | Pending::Timeout(key) => key.id(),
                };
                if driver.cancel(id) {
                    let one = &mut self.in_flight[which];
                    one.cancelled = true;
                    // A receive may be ended before or after its bytes came; they are the next one's then.
                    if let (Some(end), Pending::Send(..) | Pending::SendParts(..)) =
                        (one.end, &one.pending)
                    {
                        self.raced[end] = true;
                    }
                }
            }
            Step::Timeout => {
                let key = driver.go(Submission::timeout(driver.now()));
                let pending = Pending::Timeout(key);
                self.in_flight.push(InFlight { end: None, pending, cancelled: false });
            }
            Step::Settle => {
                driver.settle();
                self.collect();
            }
            _ => {}
        }
    }

    fn begin(&mut self, end: End, pending: Pending) {
        self.in_flight.push(InFlight { end: Some(end), pending, cancelled: false });
    }

    fn poll(&mut self, end: End, interest: Interest) {
        match self.driver.submit(Submission::poll(self.ends[end], interest), Token::NONE) {
            Ok(key) => self.begin(end, Pending::Poll(key)),
            Err(refused) => self.refused(end, refused.error),
        }
    }

    fn refused(&self, end: End, error: std::io::Error) {
        assert!(self.sides[end].closed, "{error}");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }

    fn sending(&mut self, end: End) -> bool {
        self.collect();
        let sends =
            |one: &InFlight| matches!(one.pending, Pending::Send(..) | Pending::SendParts(..));
        self.in_flight.iter().any(|one| one.end == Some(end) && sends(one))
    }

    fn receiving(&mut self, end: End) -> bool {
        self.collect();
        let receives = |one: &InFlight| matches!(one.pending, Pending::Receive(..));
        self.in_flight.iter().any(|one| one.end == Some(end) && receives(one))
    }

    /// Takes the outcomes of what has ended, and holds each against the model.
    fn collect(&mut self) {
        for InFlight { end, pending, cancelled } in std::mem::take(&mut self.in_flight) {
            let driver = self.driver;
            let still = match pending {
                Pending::Send(key, len) => match driver.take(key) {
                    Ok((n, _)) => {
                        self.sent(end, n, len, cancelled);
                        None
                    }
                    Err(key) => Some(Pending::Send(key, len)),
                },
                Pending::SendParts(key, len) => match driver.take(key) {
                    Ok((n, _)) => {
                        self.sent(end, n, len, cancelled);
                        None
                    }
                    Err(key) => Some(Pending::SendParts(key, len)),
                },
                Pending::Receive(key, room) => match driver.take(key) {
                    Ok((n, bytes)) => {
                        self.received(end, n, bytes, room, cancelled);
                        None
                    }
                    Err(key) => Some(Pending::Receive(key, room)),
                },
                Pending::Poll(key) => match driver.take(key) {
                    Ok(outcome) => {
                        let given_up = cancelled || self.sides[end.unwrap()].closed;
                        let error = errno(outcome);
                        assert!(error == 0 || (given_up && error == libc::ECANCELED), "{error}");
                        None
                    }
                    Err(key) => Some(Pending::Poll(key)),
                },
                Pending::Timeout(key) => match driver.take(key) {
                    Ok(outcome) => {
                        let error = errno(outcome);
                        assert!(error == 0 || (cancelled && error == libc::ECANCELED), "{error}");
                        None
                    }
                    Err(key) => Some(Pending::Timeout(key)),
                },
            };
            if let Some(pending) = still {
                self.in_flight.push(InFlight { end, pending, cancelled });
            }
        }
    }

    fn sent(&mut self, end: Option<End>, n: std::io::Result<usize>, len: usize, cancelled: bool) {
        let end = end.unwrap();
        let given_up = cancelled || self.sides[end].closed;
        let gone = self.sides[end ^ 1].closed;
        let side = &mut self.sides[end];
        let n = match n {
            Ok(n) => {
                assert!(n == len || (n < len && (given_up || side.shut)), "{n} of {len}");
                n
            }
            Err(error) => {
                let error = error.raw_os_error().unwrap_or(-1);
                let allowed = (given_up && error == libc::ECANCELED)
                    || ((side.shut || gone) && error == libc::EPIPE)
                    || (gone && error == libc::ECONNRESET);
                assert!(allowed, "a send ended with {error}");
                // How much of it was taken nobody says: the stream is at its end.
                if error != libc::ECANCELED {
                    self.raced[end] = true;
                    self.raced[end ^ 1] = true;
                    side.taken = side.sent.len();
                    return;
                }
                0
            }
        };
        let not_taken = len - n;
        side.sent.truncate(side.sent.len() - not_taken);
        side.taken += n;
    }

    fn received(
        &mut self,
        end: Option<End>,
        n: std::io::Result<usize>,
        bytes: Vec<u8>,
        room: usize,
        cancelled: bool,
    ) {
        let end = end.unwrap();
        let given_up = cancelled || self.sides[end].closed;
        let (gone, ended) = (self.sides[end ^ 1].closed, self.sides[end ^ 1].shut);
        match n {
            Ok(0) => assert!(gone || ended, "the end of a stream that goes on"),
            Ok(n) => {
                assert!(n <= room && n == bytes.len());
                self.sides[end].received.extend(bytes);
            }
            Err(error) => {
                let error = error.raw_os_error().unwrap_or(-1);
                let allowed =
                    (given_up && error == libc::ECANCELED) || (gone && error == libc::ECONNRESET);
                assert!(allowed, "a receive ended with {error}");
            }
        }
        let got = &self.sides[end].received;
        assert!(self.sides[end ^ 1].sent.starts_with(got), "bytes that were not sent");
    }

    /// Ends everything: sends that wait are let go, and what is on its way is received.
    fn finish(&mut self) {
        for _ in 0..100_000 {
            self.collect();
            for end in 0..4 {
                if !self.sides[end].closed && !self.receiving(end) {
                    self.step(0, &Step::Receive(end, 65536));
                }
            }
            let driver = self.driver;
            driver.tick(Some(std::time::Duration::ZERO), |_| {}).unwrap();
            // Nothing is sent any more, and all that was taken has been received, or its end has been seen.
            let open = |end: End| !self.sides[end].closed && !self.sides[end ^ 1].closed;
            let sends =
                |one: &InFlight| matches!(one.pending, Pending::Send(..) | Pending::SendParts(..));
            let done = self.in_flight.iter().all(|one| !sends(one))
                && (0..4).all(|end| {
                    !open(end)
                        || self.sides[end].received.len() >= self.sides[end ^ 1].sent.len()
                        || self.raced[end ^ 1]
                });
            if done {
                break;
            }
            driver.settle_briefly();
        }
        self.driver.settle();
        self.driver.cancel_all();
        self.driver.until(|| self.driver.snapshot().in_flight_total() == 0);
        for one in &mut self.in_flight {
            one.cancelled = true;
        }
        self.collect();
        assert!(self.in_flight.is_empty());
        for end in 0..4 {
            let quiet = [end, end ^ 1].iter().all(|e| !self.sides[*e].closed && !self.raced[*e]);
            if quiet {
                assert!(self.sides[end].received == self.sides[end ^ 1].sent, "not all has come");
            }
        }
    }
}

#[test]
fn every_outcome_is_one_that_the_model_allows_and_what_no_race_decides_is_the_same() {
    let config = Config { cases: 16, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let scripts = proptest::collection::vec(step(), 1..40);
    let outcome = runner.run(&scripts, |script| {
        let systems = [System::IoUring, System::Epoll, System::SimRing, System::SimReadiness];
        let seen: Vec<_> = systems
            .into_iter()
            .filter_map(|system| on(system, 1, |bench| play(bench, &script)).map(|s| (system, s)))
            .collect();
        assert!(seen.len() >= 3, "epoll and the simulated system run everywhere");
        for (system, other) in &seen[1..] {
            assert!(*other == seen[0].1, "{} is not as {}", system.name(), seen[0].0.name());
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
