//! Buffers whose own code runs the driver at the moment at which the driver asks them for their memory.
//!
//! A backend that waits for readiness asks once more when the descriptor is ready. A ring seldom has to:
//! there the tests show that nothing happens.

mod common;

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use common::*;
use pelton_driver::*;

on_every_backend! {
    a_buffer_may_cancel_its_own_receive_when_it_is_asked_again
    a_buffer_may_abandon_its_own_receive_when_it_is_asked_again
    a_buffer_may_close_its_own_descriptor_when_it_is_asked_again
    a_buffer_may_cancel_all_on_its_own_descriptor_when_it_is_asked_again
    a_buffer_is_not_taken_from_under_itself
    a_buffer_that_panics_when_it_is_asked_again_ends_its_receive
    a_buffer_that_waits_alone_may_cancel_its_receive_when_it_is_asked_again
    a_buffer_that_waits_alone_may_abandon_its_receive_when_it_is_asked_again
    a_buffer_that_waits_alone_may_close_its_descriptor_when_it_is_asked_again
    a_buffer_that_waits_alone_may_submit_another_receive_when_it_is_asked_again
    a_buffer_that_waits_alone_and_panics_when_it_is_asked_again_ends_its_receive
}

type Recv = Key<Filling<Asked>>;

/// Does something when it is asked for its memory the second time.
struct Asked {
    bytes: [u8; 4],
    asked: Cell<u32>,
    second: RefCell<Option<Box<dyn FnOnce()>>>,
    alive: Rc<Cell<bool>>,
}

impl IoBuf for Asked {
    fn as_init(&self) -> &[u8] {
        &self.bytes
    }
}

impl IoBufMut for Asked {
    fn spare(&mut self) -> Spare<'_> {
        self.asked.set(self.asked.get() + 1);
        if self.asked.get() == 2 {
            let second = self.second.take();
            second.into_iter().for_each(|second| second());
            assert!(self.alive.get(), "dropped while it was asked");
        }
        (&mut self.bytes[..]).into()
    }

    unsafe fn advance(&mut self, _: usize) {}
}

impl Drop for Asked {
    fn drop(&mut self) {
        assert!(self.alive.replace(false), "dropped twice");
    }
}

struct World {
    driver: Rc<Driver>,
    fd: Fd,
    peer: Local,
    key: Rc<RefCell<Option<Recv>>>,
    behind: Option<Key<Filling<[u8; 4]>>>,
    alive: Rc<Cell<bool>>,
    ran: Rc<Cell<bool>>,
}

/// A receive that waits and does `what` when it is asked again, and another one behind it.
fn world(on: &On, what: impl FnOnce(&Driver, Fd, &RefCell<Option<Recv>>) + 'static) -> World {
    let mut world = alone_in_its_world(on, what);
    let behind = world.driver.go_for(Submission::recv(world.fd, [0; 4]), 2);
    world.driver.settle();
    assert!(!world.driver.is_done(&behind));
    world.behind = Some(behind);
    world
}

/// A receive that waits, alone, and does `what` when it is asked again.
fn alone_in_its_world(
    on: &On,
    what: impl FnOnce(&Driver, Fd, &RefCell<Option<Recv>>) + 'static,
) -> World {
    let driver = Rc::new(on.driver());
    let (fd, peer) = unix(&driver);
    let (key, alive, ran) =
        (Rc::new(RefCell::new(None)), Rc::new(Cell::new(true)), Rc::new(Cell::new(false)));
    let (weak, own, done) = (Rc::downgrade(&driver), key.clone(), ran.clone());
    let second = move || {
        done.set(true);
        what(&weak.upgrade().unwrap(), fd, &own);
    };
    let buf = Asked {
        bytes: [0; 4],
        asked: Cell::new(0),
        second: RefCell::new(Some(Box::new(second))),
        alive: alive.clone(),
    };
    *key.borrow_mut() = Some(driver.go_for(Submission::recv(fd, buf), 1));
    driver.settle();
    assert!(!driver.is_done(key.borrow().as_ref().unwrap()));
    World { driver, fd, peer, key, behind: None, alive, ran }
}

impl World {
    /// Lets bytes come for both receives and returns whom the driver has told of its end.
    fn go(&mut self, on: &On) -> Vec<usize> {
        self.peer.write_all(b"one two ").unwrap();
        let told = self.driver.settle();
        assert!(self.ran.get() || on.is_completing(), "it was never asked again");
        let told: Vec<_> = told.iter().map(|told| told.token.as_number()).collect();
        assert!(told.iter().filter(|token| **token == 1).count() <= 1, "told of twice");
        told
    }

    /// Whatever has happened: the one behind has its bytes or its cancel, and nothing is left.
    fn end(mut self, behind_goes_on: bool) {
        let Some(behind) = self.behind.take() else { return self.end_all() };
        if behind_goes_on {
            let (n, buf) = self.driver.end(behind);
            assert_eq!((n.unwrap(), buf[3]), (4, b' '));
            let _ = self.peer.write_all(b"rest");
        } else {
            let (n, _) = self.driver.end(behind);
            assert!(matches!(errno(n), 0 | errno::ECANCELED));
        }
        self.end_all();
    }

    /// Nothing is left.
    fn end_all(self) {
        if let Some(key) = self.key.take() {
            assert!(self.driver.take(key).is_ok(), "it has ended");
        }
        assert!(!self.alive.get(), "the buffer has gone");
        self.driver.close(self.fd);
        self.driver.settle();
        assert_eq!((self.driver.operations(), self.driver.descriptors()), (0, 0));
    }
}

fn a_buffer_may_cancel_its_own_receive_when_it_is_asked_again(on: &On) {
    let mut world = world(on, |driver, _, key| {
        assert!(driver.cancel(key.borrow().as_ref().unwrap().id()));
    });
    assert!(world.go(on).contains(&1));
    let key = world.key.take().unwrap();
    let (result, _) = world.driver.take(key).unwrap();
    assert_eq!(errno(result), if world.ran.get() { errno::ECANCELED } else { 0 });
    world.end(true);
}

fn a_buffer_may_abandon_its_own_receive_when_it_is_asked_again(on: &On) {
    let mut world = world(on, |driver, _, key| driver.abandon(key.take().unwrap()));
    let told = world.go(on);
    assert!(!world.ran.get() || !told.contains(&1), "nobody is told");
    world.end(true);
}

fn a_buffer_may_close_its_own_descriptor_when_it_is_asked_again(on: &On) {
    let mut world = world(on, |driver, fd, _| driver.close(fd));
    assert!(world.go(on).contains(&1));
    let key = world.key.take().unwrap();
    let (result, _) = world.driver.take(key).unwrap();
    assert_eq!(errno(result), if world.ran.get() { errno::ECANCELED } else { 0 });
    world.end(false);
}

fn a_buffer_may_cancel_all_on_its_own_descriptor_when_it_is_asked_again(on: &On) {
    let mut world = world(on, |driver, fd, _| {
        let Ok(Started::Done(found)) = driver.start_now(Submission::cancel_fd(fd), Token::NONE)
        else {
            panic!("it ends at once")
        };
        assert_eq!(found.unwrap(), 2);
    });
    assert!(world.go(on).contains(&1));
    world.end(false);
}

fn a_buffer_is_not_taken_from_under_itself(on: &On) {
    let mut world = world(on, |driver, _, shared| {
        let key = shared.take().unwrap();
        driver.cancel(key.id());
        assert!(!driver.is_done(&key));
        *shared.borrow_mut() = Some(driver.take(key).map(drop).expect_err("it is being asked"));
    });
    assert!(world.go(on).contains(&1));
    world.end(true);
}

fn a_buffer_that_panics_when_it_is_asked_again_ends_its_receive(on: &On) {
    let mut world = world(on, |_, _, _| std::panic::resume_unwind(Box::new("on purpose")));
    world.peer.write_all(b"one two ").unwrap();
    let mut panics = 0;
    while !world.driver.is_done(world.behind.as_ref().unwrap()) {
        let tick = catch_unwind(AssertUnwindSafe(|| {
            world.driver.tick(Some(Duration::from_secs(20)), |_| {}).unwrap()
        }));
        panics += u32::from(tick.is_err());
    }
    assert_eq!(panics, u32::from(world.ran.get()));
    world.driver.settle();
    let key = world.key.take().unwrap();
    let (result, _) = world.driver.take(key).expect("it has ended");
    assert_eq!(errno(result), if world.ran.get() { errno::ECANCELED } else { 0 });
    assert!(world.ran.get() || on.is_completing());
    world.end(true);
}

fn a_buffer_that_waits_alone_may_cancel_its_receive_when_it_is_asked_again(on: &On) {
    let mut world = alone_in_its_world(on, |driver, _, key| {
        assert!(driver.cancel(key.borrow().as_ref().unwrap().id()));
    });
    assert_eq!(world.go(on), [1]);
    let key = world.key.take().unwrap();
    let (result, _) = world.driver.take(key).unwrap();
    assert_eq!(errno(result), if world.ran.get() { errno::ECANCELED } else { 0 });
    world.end(true);
}

fn a_buffer_that_waits_alone_may_abandon_its_receive_when_it_is_asked_again(on: &On) {
    let mut world = alone_in_its_world(on, |driver, _, key| driver.abandon(key.take().unwrap()));
    let told = world.go(on);
    assert_eq!(told.contains(&1), !world.ran.get(), "nobody is told of what was abandoned");
    world.end(true);
}

fn a_buffer_that_waits_alone_may_close_its_descriptor_when_it_is_asked_again(on: &On) {
    let mut world = alone_in_its_world(on, |driver, fd, _| driver.close(fd));
    assert_eq!(world.go(on), [1]);
    let key = world.key.take().unwrap();
    let (result, _) = world.driver.take(key).unwrap();
    assert_eq!(errno(result), if world.ran.get() { errno::ECANCELED } else { 0 });
    world.end(false);
}

fn a_buffer_that_waits_alone_may_submit_another_receive_when_it_is_asked_again(on: &On) {
    let another = Rc::new(RefCell::new(None));
    let shared = another.clone();
    let mut world = alone_in_its_world(on, move |driver, fd, _| {
        *shared.borrow_mut() = Some(driver.go_for(Submission::recv(fd, [0; 4]), 2));
    });
    let told = world.go(on);
    let key = world.key.take().unwrap();
    let (result, buf) = world.driver.take(key).unwrap();
    assert_eq!((result.unwrap(), buf.bytes), (4, *b"one "));
    drop(buf);
    if let Some(another) = another.take() {
        assert_eq!(told, [1, 2]);
        let (result, bytes) = world.driver.take(another).unwrap();
        assert_eq!((result.unwrap(), bytes), (4, *b"two "));
    }
    world.end(true);
}

fn a_buffer_that_waits_alone_and_panics_when_it_is_asked_again_ends_its_receive(on: &On) {
    let mut world =
        alone_in_its_world(on, |_, _, _| std::panic::resume_unwind(Box::new("on purpose")));
    world.peer.write_all(b"one two ").unwrap();
    let key = world.key.take().unwrap();
    let mut panics = 0;
    while !world.driver.is_done(&key) {
        let tick = catch_unwind(AssertUnwindSafe(|| {
            world.driver.tick(Some(Duration::from_secs(20)), |_| {}).unwrap()
        }));
        panics += u32::from(tick.is_err());
    }
    assert_eq!(panics, u32::from(world.ran.get()));
    let (result, _) = world.driver.take(key).expect("it has ended");
    assert_eq!(errno(result), if world.ran.get() { errno::ECANCELED } else { 0 });
    // What was ready when it panicked is ready still.
    let next = world.driver.go(Submission::recv(world.fd, [0; 4]));
    assert_eq!(world.driver.end(next).0.unwrap(), 4);
    world.end(true);
}
