//! Several buffers in one operation.

use pelton_driver::{MAX_PARTS, Submission, Token};

use crate::registry::behaviours;
use crate::{Bench, errno, pattern};

behaviours! {
    "a receive into several parts fills them in order" => a_receive_fills_its_parts_in_order
        [ReseauMain "read/write/recv/send wrappers"];
    "parts arrive as one, in order, an empty one among them" => parts_arrive_in_order
        [Ioxide "CoreTests: Grow/Segmented"];
    "more parts than a connection holds are cut in the middle and go on" => parts_that_are_cut_go_on
        [Ioxide "CoreTests: Grow/Segmented"];
    "a send of several parts that is cancelled says how much" => a_cancelled_send_of_parts_says_how_much
        [Aws "pipe_clean_up_cancels_pending_writes"];
    "parts without room are refused" => parts_without_room_are_refused
        [Libxev "zero-length read"];
    "a receive into several parts that waits can be cancelled" => a_receive_into_parts_can_be_cancelled
        [Libxev "recv cancellation"];
}

fn a_receive_fills_its_parts_in_order(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let mut got = Vec::new();
        driver.send(one, "abcdefghij");
        while got.len() < 10 {
            let parts =
                [Vec::with_capacity(3), b"has".to_vec(), Vec::with_capacity(4)].map(|mut part| {
                    part.reserve_exact(3);
                    crate::rig::limited(part, 3)
                });
            let (n, parts) = driver.run(Submission::recv_vectored(other, parts.to_vec_of()));
            let n = n.unwrap();
            assert!(n > 0);
            let parts: Vec<Vec<u8>> = parts.into_iter().map(|part| part.0).collect();
            assert!(parts[1].starts_with(b"has"), "behind what it has");
            let filled = [&parts[0][..], &parts[1][3..], &parts[2][..]];
            // A part is begun when the one before it is full.
            for at in 0..2 {
                assert!(filled[at].len() == 3 || filled[at + 1].is_empty(), "{filled:?}");
            }
            assert_eq!(filled.concat().len(), n);
            got.extend(filled.concat());
        }
        assert_eq!(got, b"abcdefghij");
    }
}

trait ToVecOf<T> {
    fn to_vec_of(self) -> Vec<T>;
}

impl<T, const N: usize> ToVecOf<T> for [T; N] {
    fn to_vec_of(self) -> Vec<T> {
        self.into_iter().collect()
    }
}

fn parts_arrive_in_order(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let parts = [b"one ".to_vec(), Vec::new(), b"two ".to_vec(), b"three".to_vec()];
        let (n, parts) = driver.run(Submission::send_vectored_all(one, parts));
        assert_eq!((n.unwrap(), parts[0].len()), (13, 4));
        assert_eq!(driver.receive(other, 13), b"one two three");
        // One that need not send all of it says how much it did.
        let (n, _) = driver.run(Submission::send_vectored(one, ["four ", "five"].to_vec_of()));
        let n = n.unwrap();
        assert!((1..=9).contains(&n));
        assert_eq!(driver.receive(other, n), b"four five"[..n]);
    }
}

fn parts_that_are_cut_go_on(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let parts: Vec<Vec<u8>> = (0..MAX_PARTS)
            .map(|n| pattern(n, if n == 5 { 0 } else { 200_000 + n * 977 }))
            .collect();
        let expected = parts.concat();
        let send = driver.go(Submission::send_vectored_all(one, parts));
        driver.settle();
        assert!(driver.receive(other, expected.len()) == expected, "byte exact");
        assert_eq!(driver.end(send).0.unwrap(), expected.len());
    }
}

fn a_cancelled_send_of_parts_says_how_much(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let parts = [pattern(1, 8 << 20), pattern(2, 8 << 20)];
        let expected = parts.concat();
        let send = driver.go(Submission::send_vectored_all(one, parts));
        driver.settle();
        assert!(driver.cancel(send.id()), "it waits for its peer to receive");
        let sent = driver.end(send).0.unwrap();
        assert!(sent > 0 && sent < expected.len());
        driver.run(Submission::shutdown(one, std::net::Shutdown::Write)).unwrap();
        assert!(driver.receive_all(other) == expected[..sent]);
    }
}

fn parts_without_room_are_refused(on: &Bench) {
    let driver = on.driver();
    let (_one, other) = driver.local_pair();
    let parts = [Vec::<u8>::new(), Vec::new()];
    let refused = driver.submit(Submission::recv_vectored(other, parts), Token::NONE).unwrap_err();
    assert_eq!(refused.error.kind(), std::io::ErrorKind::InvalidInput);
}

fn a_receive_into_parts_can_be_cancelled(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let recv = driver.go(Submission::recv_vectored(other, [[0; 4]; 2]));
        driver.settle();
        assert!(driver.cancel(recv.id()));
        assert_eq!(errno(driver.end(recv).0), pelton_driver::errno::ECANCELED);
        driver.send(one, "x");
        assert_eq!(driver.receive(other, 1), b"x");
    }
}
