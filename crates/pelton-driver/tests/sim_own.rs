//! Operations of one's own on the simulator, small enough for Miri: closures in both rooms, entries on a ring, whose
//! memory crosses it as an address, given up at every moment, with every access to memory checked.
#![cfg(all(unix, feature = "sim"))]

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use pelton_driver::sim::{Faults, World, WorldOptions};
use pelton_driver::*;

const SEEDS: u64 = if cfg!(miri) { 2 } else { 50 };
/// Bytes, and a count of who has them.
type Memory = Box<([u8; 8], Rc<()>)>;

/// `IORING_OP_RECV`.
const RECV: u8 = 27;

fn recv(driver: &Driver, fd: Fd, memory: Memory) -> Key<Own<Memory>> {
    let prepared = driver.prepare(Some(fd), memory).unwrap();
    if driver.seam() == Seam::Ring {
        // SAFETY: the bytes are the memory's own, which nobody else reaches; it completes once.
        let key = unsafe {
            prepared.submit_entry(Token::NONE, |memory, entry| {
                entry.opcode = RECV;
                entry.addr = memory.0.as_mut_ptr().expose_provenance() as u64;
                entry.len = 8;
            })
        };
        return key.unwrap();
    }
    let call = |memory: &mut Memory, ready: &Ready<'_>| ready.recv(&mut memory.0);
    prepared.submit_when(Token::NONE, Interest::Readable, call).unwrap()
}

fn closure(driver: &Driver, fd: Fd, alive: &Rc<()>) -> Key<Own<Rc<()>>> {
    let prepared = driver.prepare(Some(fd), alive.clone()).unwrap();
    let call = |_: &mut Rc<()>, ready: &Ready<'_>| ready.recv(&mut [0; 3]);
    prepared.submit_when(Token::NONE, Interest::Readable, call).unwrap()
}

fn play(backend: Backend, seed: u64) -> bool {
    let faults = Faults::swarm(seed).harmless();
    let world = World::new(&WorldOptions { faults, ..WorldOptions::new(seed) });
    let entered = world.enter();
    let config = Config {
        backend,
        ring_entries: 8,
        completion_entries: 64,
        max_operations: 64,
        max_descriptors: 256,
        pool_buffers: 2,
        pool_buffer_len: 64,
        ..Config::default()
    };
    let driver = match Driver::new(config) {
        Ok(driver) => driver,
        Err(Error::Unsupported { .. }) => return false,
        Err(error) => panic!("{error}"),
    };
    let alive = Rc::new(());
    let memory = || Box::new(([0; 8], alive.clone()));
    let (one, other) = driver.stream_pair().unwrap();
    for moment in 0..6 {
        let own = recv(&driver, other, memory());
        let given_up = closure(&driver, other, &alive);
        let cancelled = recv(&driver, other, memory());
        drop(driver.prepare(Some(other), memory()).unwrap());
        for _ in 0..moment {
            driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        }
        let sent = driver.submit(Submission::send_all(one, "eight of"), Token::NONE).unwrap();
        for _ in 0..moment {
            driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        }
        driver.abandon(given_up);
        driver.cancel(cancelled.id());
        drop(driver.finish(cancelled, None, |_| {}).unwrap());
        driver.finish(sent, None, |_| {}).unwrap().0.unwrap();
        let (said, memory) = driver.finish(own, Some(Duration::from_millis(20)), |_| {}).unwrap();
        match said {
            Ok(n) => assert!(n <= 8 && memory.0[..n].iter().all(u8::is_ascii)),
            Err(error) => assert!(
                error.kind() == ErrorKind::Interrupted
                    || error.raw_os_error() == Some(libc::ECANCELED),
                "{error}"
            ),
        }
    }
    // And with some in flight at the end.
    drop((recv(&driver, other, memory()), closure(&driver, other, &alive)));
    driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
    let notifier = driver.notifier();
    drop(driver);
    assert_eq!((notifier.counters().leaked.get(), Rc::strong_count(&alive)), (0, 1));
    drop(notifier);
    assert_eq!(world.leftovers(), [""; 0]);
    assert_eq!(world.violations(), [""; 0]);
    drop(entered);
    true
}

fn play_all(backend: Backend) {
    let played = (1..=SEEDS).filter(|seed| play(backend, *seed)).count() as u64;
    assert!(played * 2 >= SEEDS, "{played} of {SEEDS} seeds had a driver");
}

#[test]
fn calls_of_ones_own_on_a_ring_hold_their_memory_to_the_end() {
    play_all(Backend::IoUring);
}

#[test]
fn calls_of_ones_own_on_readiness_hold_their_memory_to_the_end() {
    play_all(Backend::Epoll);
}
