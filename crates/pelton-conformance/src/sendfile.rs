//! Sending from files.

use std::io::ErrorKind;

use pelton_driver::{Backend, Fd, OpenOptions, Submission, Token};

use crate::registry::behaviours;
use crate::{Bench, Rig, errno, pattern};

behaviours! {
    "a file is sent, from where one says and as much as one says" => a_file_is_sent
        [];
    "a file that ends before is sent up to its end" => a_file_is_sent_up_to_its_end
        [];
    "a large file arrives byte exact, whatever the socket takes at a time" => a_large_file_arrives
        [];
    "files and bytes that are sent one after the other arrive in order" => files_and_bytes_arrive_in_order
        [];
    "a file that is sent to several at once is sent to each" => a_file_is_sent_to_several_at_once
        [];
    "what is sent from a file waits for its receiver, and says how much when it is cancelled" =>
        a_cancelled_file_says_how_much
        [];
    "closing the file ends what is sent from it, and leaves the connection" => closing_the_file_ends_it
        [];
    "closing the connection ends what is sent to it, and leaves the file" => closing_the_connection_ends_it
        [];
    "a file to a peer that has gone is an error" => a_file_to_nobody_is_an_error
        [];
    "what is abandoned while a file is sent leaves nothing" => what_is_abandoned_while_a_file_is_sent
        [];
    "a file that cannot be read is not sent" => a_file_that_cannot_be_read_is_not_sent
        [];
    "what is no file, or no stream, is refused" => what_cannot_be_sent_is_refused
        [];
}

fn file_of(driver: &Rig, on: &Bench, content: &[u8]) -> Fd {
    let file = driver.file(on, "to-send");
    driver.write(file, content, 0);
    file
}

fn a_file_is_sent(on: &Bench) {
    let driver = on.driver();
    let content = pattern(4, 100_000);
    let file = file_of(&driver, on, &content);
    for (one, other) in driver.pairs() {
        for (offset, len) in [(0, 1), (0, 5000), (4097, 70_000), (99_999, 1)] {
            let key = driver.go(Submission::send_file(one, file, offset as u64, len));
            assert!(driver.receive(other, len) == content[offset..offset + len]);
            assert_eq!(driver.end(key).unwrap(), len);
        }
        assert_eq!(driver.run(Submission::send_file(one, file, 0, 0)).unwrap(), 0);
        driver.run(Submission::close(one)).unwrap();
        driver.at_its_end(other);
    }
}

fn a_file_is_sent_up_to_its_end(on: &Bench) {
    let driver = on.driver();
    let content = pattern(4, 10_000);
    let file = file_of(&driver, on, &content);
    let (one, other) = driver.pair();
    assert_eq!(driver.run(Submission::send_file(one, file, 6000, 100_000)).unwrap(), 4000);
    assert!(driver.receive(other, 4000) == content[6000..]);
    for offset in [10_000, 1 << 40] {
        assert_eq!(driver.run(Submission::send_file(one, file, offset, 10)).unwrap(), 0);
    }
    driver.run(Submission::close(one)).unwrap();
    driver.at_its_end(other);
}

fn a_large_file_arrives(on: &Bench) {
    let driver = on.driver();
    let content = pattern(9, 3_000_001);
    let file = file_of(&driver, on, &content);
    for (one, other) in driver.pairs() {
        let key = driver.go(Submission::send_file(one, file, 1, content.len()));
        assert!(driver.receive(other, content.len() - 1) == content[1..]);
        assert_eq!(driver.end(key).unwrap(), content.len() - 1);
    }
}

fn files_and_bytes_arrive_in_order(on: &Bench) {
    let driver = on.driver();
    let content = pattern(2, 20_000);
    let file = file_of(&driver, on, &content);
    let (one, other) = driver.pair();
    for round in 0..5_u8 {
        driver.send(one, [round; 10]);
        let key = driver.go(Submission::send_file(one, file, 0, content.len()));
        assert_eq!(driver.receive(other, 10), [round; 10]);
        assert!(driver.receive(other, content.len()) == content);
        assert_eq!(driver.end(key).unwrap(), content.len());
    }
}

fn a_file_is_sent_to_several_at_once(on: &Bench) {
    let driver = on.driver();
    let content = pattern(6, 300_000);
    let file = file_of(&driver, on, &content);
    let pairs: Vec<_> = (0..4).map(|_| driver.pair()).collect();
    let keys: Vec<_> = pairs
        .iter()
        .map(|(one, _)| driver.go(Submission::send_file(*one, file, 0, content.len())))
        .collect();
    for (_, other) in &pairs {
        assert!(driver.receive(*other, content.len()) == content);
    }
    for key in keys {
        assert_eq!(driver.end(key).unwrap(), content.len());
    }
}

/// A file that no connection holds.
fn huge(driver: &Rig, on: &Bench) -> (Fd, Vec<u8>) {
    let content = pattern(7, if on.is_simulated() { 512 << 10 } else { 16 << 20 });
    (file_of(driver, on, &content), content)
}

fn a_cancelled_file_says_how_much(on: &Bench) {
    let driver = on.driver();
    let (file, content) = huge(&driver, on);
    let (one, other) = driver.local_pair();
    let key = driver.go(Submission::send_file(one, file, 0, content.len()));
    let first = driver.receive(other, 100_000);
    driver.settle();
    assert!(!driver.is_done(&key), "no connection holds that much");
    assert!(driver.cancel(key.id()));
    let told = driver.end(key).unwrap();
    assert!((100_000..content.len()).contains(&told), "{told}");
    driver.run(Submission::close(one)).unwrap();
    let mut got = first;
    got.extend(driver.receive_all(other));
    assert!(got == content[..got.len()]);
    // The piece that a completion port had in the kernel may have been sent in part.
    let untold = if driver.backend() == Backend::Iocp { 1 << 20 } else { 0 };
    assert!((told..=told + untold).contains(&got.len()), "{told} of {}", got.len());
}

fn closing_the_file_ends_it(on: &Bench) {
    let driver = on.driver();
    let (file, content) = huge(&driver, on);
    let (one, other) = driver.local_pair();
    let key = driver.go(Submission::send_file(one, file, 0, content.len()));
    driver.settle();
    assert!(!driver.is_done(&key), "no connection holds that much");
    driver.run(Submission::close(file)).unwrap();
    assert!(driver.is_done(&key), "a close waits for what is in flight");
    let told = driver.end(key);
    assert!(
        told.as_ref().is_ok_and(|n| *n < content.len())
            || errno(told) == pelton_driver::errno::ECANCELED
    );
    let again = driver.submit(Submission::send_file(one, file, 0, 1), Token::NONE);
    assert_eq!(errno::<()>(Err(again.unwrap_err().error)), pelton_driver::errno::EBADF);
    // The connection goes on.
    let key = driver.go(Submission::send_all(one, b"and then this".to_vec()));
    driver.run(Submission::shutdown(one, std::net::Shutdown::Write)).ok();
    let got = driver.receive_all(other);
    let sent = driver.end(key).0;
    assert!(sent.is_err() || got.ends_with(b"and then this"));
}

fn closing_the_connection_ends_it(on: &Bench) {
    let driver = on.driver();
    let (file, content) = huge(&driver, on);
    let (one, _other) = driver.local_pair();
    let key = driver.go(Submission::send_file(one, file, 0, content.len()));
    driver.settle();
    driver.run(Submission::close(one)).unwrap();
    let told = driver.end(key);
    assert!(
        told.as_ref().is_ok_and(|n| *n < content.len())
            || errno(told) == pelton_driver::errno::ECANCELED
    );
    assert!(driver.read(file, 1000, 0) == content[..1000]);
    driver.run(Submission::close(file)).unwrap();
}

fn a_file_to_nobody_is_an_error(on: &Bench) {
    let driver = on.driver();
    let (file, content) = huge(&driver, on);
    let (one, other) = driver.local_pair();
    driver.run(Submission::close(other)).unwrap();
    let failed = driver.run(Submission::send_file(one, file, 0, content.len()));
    let kind = failed.unwrap_err().kind();
    let gone = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
    assert!(gone.contains(&kind), "{kind}");
}

fn what_is_abandoned_while_a_file_is_sent(on: &Bench) {
    let driver = on.driver();
    let (file, content) = huge(&driver, on);
    for round in 0..4 {
        let (one, other) = driver.local_pair();
        let key = driver.go(Submission::send_file(one, file, 0, content.len()));
        match round {
            0 => {}
            1 => drop(driver.tick(Some(std::time::Duration::ZERO), |_| {}).unwrap()),
            2 => drop(driver.settle()),
            _ => drop(driver.receive(other, 10_000)),
        }
        driver.abandon(key);
        driver.until(|| driver.snapshot().orphans == 0);
        assert_eq!(driver.operations(), 0);
    }
    driver.run(Submission::close(file)).unwrap();
}

fn a_file_that_cannot_be_read_is_not_sent(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.pair();
    file_of(&driver, on, b"content");
    let mut options = OpenOptions::new();
    let unreadable = options.write(true).open(on.path("to-send")).unwrap();
    let unreadable = driver.keep(driver.attach(unreadable).unwrap());
    assert_ne!(errno(driver.run(Submission::send_file(one, unreadable, 0, 5))), 0);
    driver.run(Submission::close(one)).unwrap();
    driver.at_its_end(other);
}

fn what_cannot_be_sent_is_refused(on: &Bench) {
    let driver = on.driver();
    let file = file_of(&driver, on, b"content");
    let (one, other) = driver.pair();
    let (from, to) = driver.pipe().unwrap();
    let (from, to) = (driver.keep(from), driver.keep(to));
    let datagrams = driver.keep(driver.datagram_socket("127.0.0.1:0".parse().unwrap()).unwrap());
    // A length of 2 GiB, what is no file, and what is no stream.
    for (to, from, len) in [
        (one, file, 1 << 31),
        (one, from, 5),
        (one, other, 5),
        (file, file, 5),
        (to, file, 5),
        (datagrams, file, 5),
    ] {
        let refused = driver.submit(Submission::send_file(to, from, 0, len), Token::NONE);
        assert_eq!(refused.unwrap_err().error.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(driver.read(file, 100, 0), b"content");
    // None of which has done anything to the connection.
    driver.send(one, b"still there");
    assert_eq!(driver.receive(other, 11), b"still there");
}
