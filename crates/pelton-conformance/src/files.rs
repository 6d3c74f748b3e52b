//! Files: reading and writing at an offset.

use pelton_driver::{OpenOptions, Submission, Token};

use crate::registry::behaviours;
use crate::{Bench, errno, pattern};

behaviours! {
    "what was written is read" => what_was_written_is_read
        [Libxev "file IO"];
    "offsets are bytes, also past 4 GiB, and holes are zeros" => offsets_are_bytes
        [Libxev "offset IO"];
    "a read at the end and behind it brings no bytes" => a_read_behind_the_end_brings_nothing
        [Libxev "zero-length read"];
    "what was written over is what is read" => what_was_written_over_is_read
        [Libxev "offset IO"];
    "what was synced is read as before" => what_was_synced_is_read
        [Libxev "file IO"];
    "reads at several offsets at once each bring their own" => reads_at_once_bring_their_own
        [Libxev "offset IO"];
    "opening says what is not there, and what is there already" => opening_says_what_is_not_there
        [Ioxide "SyscallErrnoTests"];
    "a file that was opened to be read is not written" => a_file_to_be_read_is_not_written
        [Ioxide "SyscallErrnoTests"];
    "an offset that no file has is refused, and the buffer comes back" => an_offset_that_no_file_has_is_refused
        [];
    "what is abandoned on a file leaves nothing" => what_is_abandoned_on_a_file_leaves_nothing
        [ReseauMain "close evicts blocked waiters"];
    "a file is seen by whoever opens it again" => a_file_is_seen_by_whoever_opens_it_again
        [Libxev "file IO"];
}

fn what_was_written_is_read(on: &Bench) {
    let driver = on.driver();
    let file = driver.file(on, "file");
    let (n, buf) = driver.run(Submission::write_at(file, b"hello".to_vec(), 0));
    assert_eq!(buf, b"hello", "the buffer comes back");
    driver.write(file, &b"hello"[n.unwrap()..], 0);
    driver.write(file, b"hello", 0);
    assert_eq!(driver.read(file, 5, 0), b"hello");
    let large = pattern(3, 1_000_000);
    driver.write(file, &large, 5);
    assert!(driver.read(file, large.len() + 100, 5) == large);
    driver.run(Submission::close(file)).unwrap();
}

fn offsets_are_bytes(on: &Bench) {
    let driver = on.driver();
    let file = driver.file(on, "file");
    // A simulated file is in memory, holes and all, and ends at 1 GiB.
    let far = (1 << 32) + 7;
    driver.write(file, b"far", far);
    driver.write(file, b"near", 3);
    assert_eq!(driver.read(file, 3, far), b"far");
    assert_eq!(driver.read(file, 9, 0), b"\0\0\0near\0\0");
    assert_eq!(driver.read(file, 100, far + 1), b"ar");
}

fn a_read_behind_the_end_brings_nothing(on: &Bench) {
    let driver = on.driver();
    let file = driver.file(on, "file");
    assert_eq!(driver.run(Submission::read_at(file, [0; 8], 0)).0.unwrap(), 0, "an empty file");
    driver.write(file, b"12345", 0);
    for offset in [5, 6, 1 << 40] {
        assert_eq!(driver.run(Submission::read_at(file, [0; 8], offset)).0.unwrap(), 0);
    }
    assert_eq!(driver.read(file, 8, 3), b"45");
    let refused = driver.submit(Submission::read_at(file, Vec::new(), 0), Token::NONE);
    assert_eq!(refused.unwrap_err().error.kind(), std::io::ErrorKind::InvalidInput);
}

fn what_was_written_over_is_read(on: &Bench) {
    let driver = on.driver();
    let file = driver.file(on, "file");
    driver.write(file, b"aaaaaaaaaa", 0);
    driver.write(file, b"bbb", 2);
    driver.write(file, b"cc", 9);
    assert_eq!(driver.read(file, 20, 0), b"aabbbaaaacc");
}

fn what_was_synced_is_read(on: &Bench) {
    let driver = on.driver();
    let file = driver.file(on, "file");
    driver.write(file, b"to the disk", 0);
    driver.run(Submission::sync(file, false)).unwrap();
    driver.run(Submission::sync(file, true)).unwrap();
    assert_eq!(driver.read(file, 11, 0), b"to the disk");
}

fn reads_at_once_bring_their_own(on: &Bench) {
    let driver = on.driver();
    let file = driver.file(on, "file");
    let content = pattern(8, 64 * 1024);
    driver.write(file, &content, 0);
    let keys: Vec<_> = (0..64)
        .map(|n| driver.go(Submission::read_at(file, vec![0; 512].into_boxed_slice(), n * 1024)))
        .collect();
    for (n, key) in keys.into_iter().enumerate() {
        let (got, buf) = driver.end(key);
        let got = got.unwrap();
        assert!(got > 0 && buf[..got] == content[n * 1024..n * 1024 + got]);
    }
    // And writes, each to its own place.
    let keys: Vec<_> = (0..64_u64)
        .map(|n| driver.go(Submission::write_at(file, vec![n as u8; 1], n * 1024)))
        .collect();
    for key in keys {
        assert_eq!(driver.end(key).0.unwrap(), 1);
    }
    for n in 0..64 {
        let byte = driver.read(file, 2, n * 1024);
        assert_eq!(byte, [n as u8, content[n as usize * 1024 + 1]]);
    }
}

fn opening_says_what_is_not_there(on: &Bench) {
    use std::io::ErrorKind::{AlreadyExists, InvalidInput, NotFound};
    let mut options = OpenOptions::new();
    let missing = options.read(true).open(on.path("missing"));
    assert_eq!(missing.unwrap_err().kind(), NotFound);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    drop(options.open(on.path("new")).unwrap());
    assert_eq!(options.open(on.path("new")).unwrap_err().kind(), AlreadyExists);
    assert_eq!(OpenOptions::new().open(on.path("new")).unwrap_err().kind(), InvalidInput);
}

fn a_file_to_be_read_is_not_written(on: &Bench) {
    let driver = on.driver();
    let file = driver.file(on, "file");
    driver.write(file, b"as it was", 0);
    let readable = OpenOptions::new().read(true).open(on.path("file")).unwrap();
    let readable = driver.keep(driver.attach(readable).unwrap());
    let (n, buf) = driver.run(Submission::write_at(readable, b"x".to_vec(), 0));
    assert_eq!((errno(n), buf), (pelton_driver::errno::EBADF, b"x".to_vec()));
    let writable = OpenOptions::new().write(true).open(on.path("file")).unwrap();
    let writable = driver.keep(driver.attach(writable).unwrap());
    assert_eq!(
        errno(driver.run(Submission::read_at(writable, [0; 8], 0)).0),
        pelton_driver::errno::EBADF
    );
    assert_eq!(driver.read(readable, 20, 0), b"as it was");
}

fn an_offset_that_no_file_has_is_refused(on: &Bench) {
    let driver = on.driver();
    let file = driver.file(on, "file");
    let write = Submission::write_at(file, b"mine".to_vec(), 1 << 63);
    let refused = driver.submit(write, Token::NONE).unwrap_err();
    assert_eq!(refused.error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(refused.payload.0, b"mine");
}

fn what_is_abandoned_on_a_file_leaves_nothing(on: &Bench) {
    let driver = on.driver();
    let file = driver.file(on, "file");
    driver.write(file, &pattern(1, 10_000), 0);
    for n in 0..20 {
        let read = driver.go(Submission::read_at(file, Vec::with_capacity(5000), n * 100));
        let write = driver.go(Submission::write_at(file, pattern(1, 1000), 0));
        let sync = driver.go(Submission::sync(file, true));
        if n % 2 == 0 {
            driver.tick(Some(std::time::Duration::ZERO), |_| {}).unwrap();
        }
        driver.cancel(read.id());
        driver.abandon(read);
        driver.abandon(write);
        driver.abandon(sync);
    }
    driver.until(|| driver.snapshot().orphans == 0);
    assert_eq!(driver.operations(), 0);
    // Whatever was written of it is what stood there before.
    assert!(driver.read(file, 10_000, 0) == pattern(1, 10_000));
    // And a close waits for what is under way.
    let write = driver.go(Submission::write_at(file, b"x".to_vec(), 0));
    driver.run(Submission::close(file)).unwrap();
    let (n, _) = driver.end(write);
    assert!([0, pelton_driver::errno::ECANCELED].contains(&errno(n)));
}

fn a_file_is_seen_by_whoever_opens_it_again(on: &Bench) {
    let driver = on.driver();
    let file = driver.file(on, "file");
    driver.write(file, b"content", 0);
    driver.run(Submission::close(file)).unwrap();
    let again = OpenOptions::new().read(true).open(on.path("file")).unwrap();
    let again = driver.keep(driver.attach(again).unwrap());
    assert_eq!(driver.read(again, 20, 0), b"content");
    let emptied = OpenOptions::new().write(true).truncate(true).open(on.path("file")).unwrap();
    drop(emptied);
    assert_eq!(driver.read(again, 20, 0), b"");
}
