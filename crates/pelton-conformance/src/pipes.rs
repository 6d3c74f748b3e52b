//! Pipes.

use std::io::ErrorKind;

use pelton_driver::{Backend, Fd, Interest, Submission};

use crate::registry::behaviours;
use crate::{Bench, Rig, errno, pattern};

behaviours! {
    "what is written to a pipe is read from it, and then comes the end" => what_is_written_to_a_pipe_is_read
        [Aws "pipe_open_close", Aws "pipe_read_write", Aws "pipe_read_write_large_buffer"];
    "a read waits for a write, and brings what there is" => a_read_from_a_pipe_waits
        [Aws "pipe_readable_event_sent_once"];
    "what does not fit into a pipe waits for its reader" => what_does_not_fit_waits_for_its_reader
        [Aws "pipe_writes_are_fifo"];
    "a write to a pipe that nobody reads is a broken pipe" => a_write_that_nobody_reads_is_a_broken_pipe
        [];
    "the end of a pipe ends a read that waits" => the_end_of_a_pipe_ends_a_read
        [Aws "pipe_error_event_sent_after_write_end_closed"];
    "a write that waits ends when its reader goes" => a_write_that_waits_ends_when_its_reader_goes
        [];
    "nothing that is written is no end" => nothing_that_is_written_is_no_end
        [];
    "a pipe that is waited for loses nothing" => a_pipe_that_is_waited_for_loses_nothing
        [Aws "pipe_readable_event_sent_again_after_all_data_read"];
    "a cancelled read from a pipe loses nothing" => a_cancelled_read_from_a_pipe_loses_nothing
        [];
    "a cancelled write to a pipe says how much it wrote" => a_cancelled_write_to_a_pipe_says_how_much
        [Aws "pipe_clean_up_cancels_pending_writes"];
    "what is in flight on a pipe ends when that is closed" => what_is_in_flight_on_a_pipe_ends_with_a_close
        [];
    "what is abandoned on a pipe leaves nothing" => what_is_abandoned_on_a_pipe_leaves_nothing
        [];
    "an end of a pipe does what it is for and nothing else" => an_end_does_what_it_is_for
        [];
}

fn pipe(driver: &Rig) -> (Fd, Fd) {
    let (from, to) = driver.pipe().unwrap();
    (driver.keep(from), driver.keep(to))
}

fn write(driver: &Rig, to: Fd, bytes: &[u8]) {
    let (n, buf) = driver.run(Submission::write_all(to, bytes.to_vec()));
    assert_eq!((n.unwrap(), &buf[..]), (bytes.len(), bytes), "the buffer comes back");
}

/// Reads so many bytes, or up to the end.
fn read(driver: &Rig, from: Fd, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let (n, back) = driver.run(Submission::read(from, bytes));
        bytes = back;
        if n.unwrap() == 0 {
            break;
        }
    }
    bytes
}

fn at_its_end(driver: &Rig, from: Fd) {
    assert_eq!(driver.run(Submission::read(from, [0; 8])).0.unwrap(), 0, "it is not the end");
}

/// Something that is more than any pipe holds.
fn large() -> Vec<u8> {
    pattern(5, 1 << 20)
}

fn what_is_written_to_a_pipe_is_read(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    write(&driver, to, b"one");
    write(&driver, to, b" and two");
    driver.run(Submission::close(to)).unwrap();
    assert_eq!(read(&driver, from, 100), b"one and two");
    at_its_end(&driver, from);
    at_its_end(&driver, from);
}

fn a_read_from_a_pipe_waits(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    for round in 0..3 {
        let key = driver.go(Submission::read(from, Vec::with_capacity(64)));
        driver.settle();
        assert!(!driver.is_done(&key), "there is nothing to read");
        write(&driver, to, &[round; 5]);
        let (n, mut bytes) = driver.end(key);
        assert_eq!(n.unwrap(), bytes.len());
        bytes.extend(read(&driver, from, 5 - bytes.len()));
        assert_eq!(bytes, [round; 5]);
    }
}

fn what_does_not_fit_waits_for_its_reader(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    let key = driver.go(Submission::write_all(to, large()));
    driver.settle();
    assert!(!driver.is_done(&key), "no pipe holds that much");
    assert!(read(&driver, from, large().len()) == large());
    assert_eq!(driver.end(key).0.unwrap(), large().len());
    // And of one that may write some, no less than one byte.
    let key = driver.go(Submission::write(to, large()));
    let first = read(&driver, from, 1);
    let n = driver.end(key).0.unwrap();
    assert!(n > 0 && first == large()[..1]);
    assert!(read(&driver, from, n - 1) == large()[1..n]);
}

fn a_write_that_nobody_reads_is_a_broken_pipe(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    write(&driver, to, b"never read");
    driver.run(Submission::close(from)).unwrap();
    for _ in 0..2 {
        let (n, buf) = driver.run(Submission::write_all(to, b"late".to_vec()));
        assert_eq!((n.unwrap_err().kind(), buf), (ErrorKind::BrokenPipe, b"late".to_vec()));
    }
}

fn the_end_of_a_pipe_ends_a_read(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    let key = driver.go(Submission::read(from, [0; 8]));
    driver.settle();
    driver.run(Submission::close(to)).unwrap();
    assert_eq!(driver.end(key).0.unwrap(), 0);
}

fn a_write_that_waits_ends_when_its_reader_goes(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    let key = driver.go(Submission::write_all(to, large()));
    driver.settle();
    assert!(!driver.is_done(&key), "no pipe holds that much");
    driver.run(Submission::close(from)).unwrap();
    assert_eq!(driver.end(key).0.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

fn nothing_that_is_written_is_no_end(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    let key = driver.go(Submission::read(from, Vec::with_capacity(8)));
    driver.settle();
    for _ in 0..2 {
        assert_eq!(driver.run(Submission::write_all(to, Vec::new())).0.unwrap(), 0);
    }
    driver.settle();
    assert!(!driver.is_done(&key), "nothing was written");
    write(&driver, to, b"x");
    assert_eq!(driver.end(key).1, b"x");
}

fn a_pipe_that_is_waited_for_loses_nothing(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    for round in 0..3 {
        let key = driver.go(Submission::poll(from, Interest::Readable));
        driver.settle();
        assert!(!driver.is_done(&key), "there is nothing to read");
        write(&driver, to, &[round; 7]);
        driver.end(key).unwrap();
        // It is still there, and ready as long as it is.
        driver.run(Submission::poll(from, Interest::Readable)).unwrap();
        assert_eq!(read(&driver, from, 7), [round; 7]);
    }
    let key = driver.go(Submission::poll(from, Interest::Readable));
    driver.settle();
    assert!(driver.cancel(key.id()));
    assert_eq!(errno(driver.end(key)), pelton_driver::errno::ECANCELED);
    let key = driver.go(Submission::poll(from, Interest::Readable));
    driver.settle();
    driver.run(Submission::close(to)).unwrap();
    driver.end(key).unwrap();
    at_its_end(&driver, from);
}

fn a_cancelled_read_from_a_pipe_loses_nothing(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    for round in 0..20_u8 {
        let key = driver.go(Submission::read(from, Vec::with_capacity(8)));
        if round % 3 == 0 {
            driver.settle_briefly();
        }
        let write = driver.go(Submission::write_all(to, [round; 4].to_vec()));
        if round % 2 == 0 {
            driver.tick(Some(std::time::Duration::ZERO), |_| {}).unwrap();
        }
        driver.cancel(key.id());
        let (n, mut bytes) = driver.end(key);
        assert!([0, pelton_driver::errno::ECANCELED].contains(&errno(n)));
        assert_eq!(driver.end(write).0.unwrap(), 4);
        bytes.extend(read(&driver, from, 4 - bytes.len()));
        assert_eq!(bytes, [round; 4]);
    }
}

fn a_cancelled_write_to_a_pipe_says_how_much(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    let key = driver.go(Submission::write_all(to, large()));
    // Some is written for sure, and not all.
    let first = read(&driver, from, 100_000);
    driver.settle();
    assert!(driver.cancel(key.id()));
    let told = driver.end(key).0.unwrap();
    assert!((1..large().len()).contains(&told));
    driver.run(Submission::close(to)).unwrap();
    let mut bytes = first;
    bytes.extend(read(&driver, from, large().len()));
    assert!(bytes == large()[..bytes.len()]);
    // What completion ports had in the kernel is not told where it has been read in part.
    let untold = if driver.backend() == Backend::Iocp { 64 * 1024 } else { 0 };
    assert!((told..=told + untold).contains(&bytes.len()), "{told} of {}", bytes.len());
}

fn what_is_in_flight_on_a_pipe_ends_with_a_close(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    let read = driver.go(Submission::read(from, [0; 8]));
    let wait = driver.go(Submission::poll(from, Interest::Readable));
    driver.settle();
    driver.run(Submission::close(from)).unwrap();
    assert_eq!(errno(driver.end(read).0), pelton_driver::errno::ECANCELED);
    assert_eq!(errno(driver.end(wait)), pelton_driver::errno::ECANCELED);
    let again = driver.submit(Submission::read(from, [0; 8]), pelton_driver::Token::NONE);
    assert_eq!(errno::<()>(Err(again.unwrap_err().error)), pelton_driver::errno::EBADF);
    let _ = to;
    let (_from, to) = pipe(&driver);
    let write = driver.go(Submission::write_all(to, large()));
    driver.settle();
    driver.run(Submission::close(to)).unwrap();
    let n = driver.end(write).0;
    assert!(
        n.as_ref().is_ok_and(|n| *n < large().len()) || errno(n) == pelton_driver::errno::ECANCELED
    );
}

fn what_is_abandoned_on_a_pipe_leaves_nothing(on: &Bench) {
    let driver = on.driver();
    for round in 0..6 {
        let (from, to) = pipe(&driver);
        let read = driver.go(Submission::read(from, Vec::with_capacity(64)));
        let wait = driver.go(Submission::poll(from, Interest::Readable));
        let (_other, full) = pipe(&driver);
        let write = driver.go(Submission::write_all(full, large()));
        if round % 2 == 0 {
            driver.settle();
        }
        if round % 3 == 0 {
            driver.run(Submission::write_all(to, b"for nobody".to_vec())).0.unwrap();
        }
        driver.abandon(read);
        driver.abandon(wait);
        driver.abandon(write);
        driver.until(|| driver.snapshot().orphans == 0);
        assert_eq!(driver.operations(), 0);
    }
}

fn an_end_does_what_it_is_for(on: &Bench) {
    let driver = on.driver();
    let (from, to) = pipe(&driver);
    use pelton_driver::errno::{EBADF, ENOTSOCK};
    assert_eq!(errno(driver.run(Submission::read(to, [0; 8])).0), EBADF);
    assert_eq!(errno(driver.run(Submission::write(from, b"x".to_vec())).0), EBADF);
    assert_eq!(errno(driver.run(Submission::recv(from, [0; 8])).0), ENOTSOCK);
    assert_eq!(errno(driver.run(Submission::send(to, b"x".to_vec())).0), ENOTSOCK);
    write(&driver, to, b"it still works");
    assert_eq!(read(&driver, from, 14), b"it still works");
}
