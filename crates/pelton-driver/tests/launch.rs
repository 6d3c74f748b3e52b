//! Operations of a runtime's, which hold their slot by its address, and the half-written entries of the ring.

mod common;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use pelton_driver::*;

on_every_backend! {
    a_send_that_is_over_at_once_is_counted_and_leaves_nothing
    a_send_that_is_cut_short_goes_on_where_it_was_and_behind_nobody
    a_send_that_fails_at_once_gives_its_error_and_its_buffer
    entries_that_say_much_leave_nothing_behind_for_those_that_say_little
    a_close_that_has_landed_at_once_is_told_of_by_no_tick
    a_buffer_that_is_sent_away_and_ticks_in_its_drop_is_not_told_of_its_own_send
}

/// Launches, and takes the outcome when it is there.
fn launch<P: Payload>(driver: &Driver, submission: Submission<P>) -> P::Output {
    // SAFETY: the tests close nothing that they have launched on, and have one driver.
    match unsafe { driver.launch(submission, Token::number(1)) } {
        Ok(Launched::Over(output) | Launched::Landed(output)) => output,
        Ok(Launched::Flying(flight)) => {
            // SAFETY: as above, and only what has landed is taken.
            driver.until(|| unsafe { driver.has_landed(&flight) });
            // SAFETY: as above.
            unsafe { driver.land(flight) }
        }
        Err(refused) => refused.into_output(),
    }
}

fn a_send_that_is_over_at_once_is_counted_and_leaves_nothing(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = unix(&driver);
    let before = driver.snapshot();
    // SAFETY: as in `launch`.
    let launched =
        unsafe { driver.launch(Submission::send_whole(fd, b"hello".to_vec()), Token::number(1)) };
    match launched {
        Ok(Launched::Over((sent, buf)) | Launched::Landed((sent, buf))) => {
            assert!(!on.is_uring());
            sent.unwrap();
            assert_eq!((buf, driver.operations()), (b"hello".to_vec(), 0));
        }
        Ok(Launched::Flying(flight)) => {
            assert!(on.is_uring());
            // SAFETY: as in `launch`.
            driver.until(|| unsafe { driver.has_landed(&flight) });
            // SAFETY: as above.
            let (sent, buf) = unsafe { driver.land(flight) };
            sent.unwrap();
            assert_eq!(buf, b"hello");
        }
        Err(refused) => panic!("refused: {}", refused.error),
    }
    let after = driver.snapshot();
    assert_eq!(after.submissions - before.submissions, 1);
    assert_eq!(after.in_flight_of(Kind::Send), 0);
    assert!(after.completions > before.completions);
    let mut bytes = [0; 5];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
}

fn a_send_that_is_cut_short_goes_on_where_it_was_and_behind_nobody(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let (first, second) = (pattern(1, 16 << 20), pattern(2, 4096));
    let expected = [first.clone(), second.clone()].concat();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all)
    });
    let (sent, buf) = launch(&driver, Submission::send_whole(fd, first));
    sent.unwrap();
    assert_eq!(buf.len(), 16 << 20);
    launch(&driver, Submission::send_away(fd, second)).unwrap();
    launch(&driver, Submission::shutdown(fd, Shutdown::Write)).unwrap();
    assert!(reader.join().unwrap().unwrap() == expected, "bytes are missing or out of order");
    assert_eq!(driver.operations(), 0);
}

fn a_send_that_fails_at_once_gives_its_error_and_its_buffer(on: &On) {
    let driver = on.driver();
    let fd = left(&driver);
    let (sent, buf) = launch(&driver, Submission::send_whole(fd, vec![1, 2, 3]));
    assert!(has_left(errno(sent)));
    assert_eq!(buf, [1, 2, 3]);
    assert_eq!((driver.operations(), driver.snapshot().in_flight_total()), (0, 0));
}

/// A receive whose entry had an offset left in it would be refused by the kernel.
fn entries_that_say_much_leave_nothing_behind_for_those_that_say_little(on: &On) {
    let driver = on.driver_with(Config { ring_entries: 16, ..small() });
    let file = std::env::temp_dir().join(format!("pelton-entries-{}", std::process::id()));
    let handle =
        std::fs::File::options().create(true).truncate(true).write(true).open(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let file = attach(&driver, handle);
    let (fd, mut peer) = unix(&driver);
    for round in 0..64 {
        // Each at another place of the ring in each round, and more of them than it has places.
        let writes: Vec<_> = (0..20 + round % 3)
            .map(|n| driver.go(Submission::write_at(file, vec![7; 8], 4096 + n)))
            .collect();
        for write in writes {
            assert_eq!(driver.end(write).0.unwrap(), 8);
        }
        for _ in 0..3 {
            peer.write_all(b"ask").unwrap();
            let (n, bytes) = launch(&driver, Submission::recv(fd, [0; 8]));
            assert_eq!((n.unwrap(), &bytes[..3]), (3, &b"ask"[..]));
            peer.write_all(b"again").unwrap();
            let lease = launch(&driver, Submission::recv_pooled(fd)).unwrap().unwrap();
            assert_eq!(&lease[..], b"again");
            launch(&driver, Submission::send_away(fd, lease)).unwrap();
            let mut answer = [0; 5];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"again");
        }
    }
}

fn a_close_that_has_landed_at_once_is_told_of_by_no_tick(on: &On) {
    let driver = on.driver();
    let (fd, _peer) = unix(&driver);
    // SAFETY: nothing else is in flight on it.
    let launched = unsafe { driver.launch(Submission::close(fd), Token::number(7)) };
    match launched {
        Ok(Launched::Over(closed) | Launched::Landed(closed)) => {
            assert!(!on.is_uring(), "on the ring it goes with the next entry");
            closed.unwrap();
            let mut told = 0;
            driver.tick(Some(Duration::ZERO), |_| told += 1).unwrap();
            assert_eq!(told, 0, "whoever launched it knew");
        }
        Ok(Launched::Flying(flight)) => {
            assert!(on.is_uring());
            // SAFETY: this driver has launched it.
            driver.until(|| unsafe { driver.has_landed(&flight) });
            // SAFETY: as above, and it has landed.
            unsafe { driver.land(flight) }.unwrap();
        }
        Err(refused) => panic!("{refused:?}"),
    }
}

/// Runs the driver when it is dropped, and counts what it is told of.
struct Ticks {
    driver: Rc<Driver>,
    told: Rc<Cell<usize>>,
    dropped: Rc<Cell<bool>>,
}

impl IoBuf for Ticks {
    fn as_init(&self) -> &[u8] {
        b"away"
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.dropped.set(true);
        let told = &self.told;
        self.driver.tick(Some(Duration::ZERO), |_| told.set(told.get() + 1)).unwrap();
    }
}

fn a_buffer_that_is_sent_away_and_ticks_in_its_drop_is_not_told_of_its_own_send(on: &On) {
    let driver = Rc::new(on.driver());
    let (fd, _peer) = unix(&driver);
    let (told, dropped) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let buf = Ticks { driver: driver.clone(), told: told.clone(), dropped: dropped.clone() };
    let key = driver.submit(Submission::send_away(fd, buf), Token::number(3)).unwrap();
    if !driver.is_done(&key) {
        assert!(on.is_uring());
        driver.until(|| driver.is_done(&key));
    }
    assert!(!dropped.get());
    driver.take(key).unwrap().unwrap();
    // Its slot was released before its drop, so that there was nobody left to tell.
    assert!(dropped.get());
    assert_eq!(told.get(), 0);
}
