//! Hundreds of completions in one tick, of which each may undo others that are still to be told of.

mod common;

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::Write;

use common::*;
use pelton_driver::*;

on_every_backend! {
    each_of_many_is_told_of_once_whatever_those_before_it_undo
    what_comes_is_told_of
}

/// More than is asked for ahead of its time at once, several times over.
const MANY: usize = 300;

type Recv = Key<Filling<Vec<u8>>>;

/// Receives on as many connections, each with its number for a token, and something there for each of them.
fn receiving(driver: &Driver) -> (Vec<Option<Recv>>, Vec<Fd>, Vec<Local>) {
    let (fds, mut peers): (Vec<Fd>, Vec<Local>) = (0..MANY).map(|_| unix(driver)).unzip();
    let receive = |(at, fd): (usize, &Fd)| {
        Some(driver.go_for(Submission::recv(*fd, Vec::with_capacity(8)), at))
    };
    let keys = fds.iter().enumerate().map(receive).collect();
    // They all wait in the kernel, or for it, before there is anything.
    driver.tick(Some(std::time::Duration::ZERO), |_| {}).unwrap();
    peers.iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
    (keys, fds, peers)
}

fn each_of_many_is_told_of_once_whatever_those_before_it_undo(on: &On) {
    let driver = on.driver();
    let (keys, fds, _peers) = receiving(&driver);
    let keys = RefCell::new(keys);
    let (told, mut undone) = (RefCell::new(HashSet::new()), 0);
    while told.borrow().len() + undone < MANY {
        let before = told.borrow().len();
        driver
            .tick(Some(WATCHDOG), |completion| {
                let at = completion.token.as_number();
                assert!(at < MANY && told.borrow_mut().insert(at), "{at} is told of twice");
                let key = keys.borrow_mut()[at].take().expect("it is wanted");
                let outcome = driver.take(key).expect("it is done").0;
                assert!(matches!(outcome, Ok(1)) || at % 3 != 0 && outcome.is_err(), "{outcome:?}");
                // Somebody who was about to be told of.
                let other = (at * 7 + 1) % MANY;
                let Some(key) = keys.borrow_mut()[other].take() else { return };
                if other % 3 == 2 {
                    undone += 1;
                    driver.abandon(key);
                    driver.close(fds[other]);
                    return;
                }
                if other % 3 == 1 {
                    driver.cancel(key.id());
                }
                keys.borrow_mut()[other] = Some(key);
            })
            .unwrap();
        assert!(told.borrow().len() > before, "nothing came");
    }
    assert!(undone > 0 && told.borrow().len() > MANY / 2);
    driver.settle();
    assert_eq!(driver.snapshot().in_flight_total(), 0);
}

/// Writes down what it is told.
#[derive(Default)]
struct Listener {
    far: Vec<usize>,
    near: Vec<usize>,
    told: Vec<usize>,
}

impl OnCompletion for &mut Listener {
    fn on_completion(&mut self, completion: Completion) {
        self.told.push(completion.token.as_number());
    }

    fn comes(&mut self, token: Token, distance: Distance) {
        match distance {
            Distance::Far => self.far.push(token.as_number()),
            Distance::Near => self.near.push(token.as_number()),
        }
    }
}

fn what_comes_is_told_of(on: &On) {
    let driver = on.driver();
    let (keys, ..) = receiving(&driver);
    let mut listener = Listener::default();
    while listener.told.len() < MANY {
        driver.tick_with(Some(WATCHDOG), &mut listener).unwrap();
    }
    assert_eq!(listener.told.len(), MANY);
    assert_eq!(listener.far, listener.near, "from afar first, and then near");
    let told: HashSet<_> = listener.told.iter().collect();
    assert!(listener.far.iter().all(|comes| told.contains(comes)));
    match on.backend {
        Backend::Epoll => assert!(!listener.far.is_empty(), "of so many somebody comes"),
        // A ring looks at no completion before it tells of it.
        Backend::IoUring => assert!(listener.far.is_empty()),
        _ => {}
    }
    for key in keys.into_iter().flatten() {
        driver.end(key).0.unwrap();
    }
}
