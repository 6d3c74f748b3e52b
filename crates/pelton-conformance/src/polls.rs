//! Readiness: waiting until a descriptor can be received from or sent to.

use std::cell::Cell;

use pelton_driver::{Interest, Submission, Token};

use crate::registry::behaviours;
use crate::{Bench, errno};

behaviours! {
    "a connection with room is writable at once" => a_connection_with_room_is_writable
        [Aws "event_loop_writable_event_on_subscribe"];
    "nothing is readable before something was sent" => nothing_is_readable_before_a_send
        [Aws "event_loop_no_readable_event_before_write"];
    "what was sent makes its receiver readable, once" => a_send_makes_readable_once
        [Aws "event_loop_readable_event_after_write", Aws "pipe_readable_event_sent_after_write",
         Aws "pipe_readable_event_sent_once"];
    "what is there already is readable" => what_is_there_already_is_readable
        [Aws "event_loop_readable_event_on_subscribe_if_data_present",
         Aws "pipe_readable_event_sent_on_subscribe_if_data_present"];
    "what nobody has received is readable again, for whoever asks again" => asking_again_is_answered_again
        [Aws "pipe_readable_event_sent_on_resubscribe_if_data_present"];
    "received and sent again is readable again" => received_and_sent_again_is_readable_again
        [Aws "event_loop_readable_event_on_2nd_time_readable",
         Aws "pipe_readable_event_sent_again_after_all_data_read"];
    "a poll that was cancelled is told of once, and of no event afterwards" => no_event_after_a_cancel
        [Aws "event_loop_subscribe_unsubscribe", Reseau "additional_data cleared after unsubscribe"];
    "a callback ends another poll that is ready in the same batch" => a_callback_ends_another_poll
        [Aws "event_loop_no_events_after_unsubscribe", Reseau "callback mutates another subscription"];
    "cancelling a poll that has ended finds nothing" => cancelling_an_ended_poll_finds_nothing
        [Reseau "unsubscribe when not subscribed"];
    "a peer that closes makes readable, before and after somebody asks" => a_peer_that_closes_makes_readable
        [Aws "pipe_error_event_sent_after_write_end_closed",
         Aws "pipe_error_event_sent_on_subscribe_if_write_end_already_closed",
         Reseau "syscall error mapping to ERROR event"];
    "a full connection is writable when its peer has received" => a_full_connection_becomes_writable
        [];
    "a listener is readable when a client has come" => a_listener_is_readable_when_a_client_has_come
        [];
    "reading and writing are waited for at the same time" => both_interests_at_the_same_time
        [ReseauMain "register/pollwait/deregister"];
    "five hundred polls and cancels leave nothing" => polls_and_cancels_leave_nothing
        [Reseau "pipe subscribe stress"];
    "a poll on what is closed is refused" => a_poll_on_what_is_closed_is_refused
        [ReseauMain "not-pollable mapping"];
}

fn a_connection_with_room_is_writable(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        for fd in [one, other] {
            driver.run(Submission::poll(fd, Interest::Writable)).unwrap();
        }
    }
}

fn nothing_is_readable_before_a_send(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let polls = [one, other].map(|fd| driver.go(Submission::poll(fd, Interest::Readable)));
        assert!(driver.settle().is_empty());
        for poll in polls {
            assert!(driver.cancel(poll.id()));
            assert_eq!(errno(driver.end(poll)), pelton_driver::errno::ECANCELED);
        }
    }
}

fn a_send_makes_readable_once(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let poll = driver.go_for(Submission::poll(other, Interest::Readable), 1);
        driver.settle();
        assert!(!driver.is_done(&poll));
        let send = driver.go_for(Submission::send_all(one, "hello"), 2);
        let mut told = driver.until(|| driver.is_done(&poll) && driver.is_done(&send));
        told.extend(driver.settle());
        assert_eq!(told.iter().filter(|told| told.token.as_number() == 1).count(), 1);
        driver.take(poll).unwrap().unwrap();
        driver.take(send).unwrap().0.unwrap();
        assert_eq!(driver.receive(other, 5), b"hello");
    }
}

fn what_is_there_already_is_readable(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        driver.send(one, "hello");
        driver.settle();
        driver.run(Submission::poll(other, Interest::Readable)).unwrap();
        assert_eq!(driver.receive(other, 5), b"hello");
    }
}

fn asking_again_is_answered_again(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        driver.send(one, "hello");
        for _ in 0..5 {
            driver.run(Submission::poll(other, Interest::Readable)).unwrap();
        }
        // A part of it is received: what is left counts.
        assert_eq!(driver.receive(other, 2), b"he");
        driver.run(Submission::poll(other, Interest::Readable)).unwrap();
        assert_eq!(driver.receive(other, 3), b"llo");
    }
}

fn received_and_sent_again_is_readable_again(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        for round in 0..10 {
            let poll = driver.go(Submission::poll(other, Interest::Readable));
            if round % 2 == 0 {
                driver.settle();
                assert!(!driver.is_done(&poll), "all has been received");
            }
            driver.send(one, [round; 3]);
            driver.end(poll).unwrap();
            assert_eq!(driver.receive(other, 3), [round; 3]);
        }
    }
}

fn no_event_after_a_cancel(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let poll = driver.go(Submission::poll(other, Interest::Readable));
        driver.settle();
        assert!(driver.cancel(poll.id()));
        assert_eq!(errno(driver.end(poll)), pelton_driver::errno::ECANCELED);
        let send = driver.go(Submission::send_all(one, "hello"));
        let id = send.id();
        let mut told = driver.until(|| driver.is_done(&send));
        told.extend(driver.settle());
        assert!(told.iter().all(|told| told.id == id), "the send's alone: {told:?}");
        driver.take(send).unwrap().0.unwrap();
        assert_eq!(driver.receive(other, 5), b"hello");
    }
}

fn a_callback_ends_another_poll(on: &Bench) {
    let driver = on.driver();
    let pairs = driver.pairs();
    let keys: Vec<_> = pairs
        .iter()
        .enumerate()
        .map(|(n, (_, fd))| driver.go_for(Submission::poll(*fd, Interest::Readable), n))
        .collect();
    driver.settle();
    let sends = pairs.map(|(fd, _)| driver.go_for(Submission::send_all(fd, "x"), 9));
    let first = Cell::new(None);
    let ends = Cell::new([0; 2]);
    driver.watch(
        |completion| {
            let n = completion.token.as_number();
            if n == 9 {
                return;
            }
            let mut counts = ends.get();
            counts[n] += 1;
            ends.set(counts);
            if first.get().is_none() {
                first.set(Some(n));
                driver.cancel(keys[1 - n].id());
            }
        },
        || ends.get().iter().sum::<u32>() >= 2,
    );
    assert!(driver.settle().iter().all(|told| told.token.as_number() == 9));
    assert_eq!(ends.get(), [1, 1], "each once");
    for (n, key) in keys.into_iter().enumerate() {
        let error = errno(driver.take(key).unwrap());
        if first.get() == Some(n) {
            assert_eq!(error, 0);
        } else {
            // It may have been told apart already when the cancel came.
            assert!([0, pelton_driver::errno::ECANCELED].contains(&error), "{error}");
        }
    }
    for send in sends {
        driver.end(send).0.unwrap();
    }
}

fn cancelling_an_ended_poll_finds_nothing(on: &Bench) {
    let driver = on.driver();
    let (one, _other) = driver.local_pair();
    let poll = driver.go(Submission::poll(one, Interest::Writable));
    let id = poll.id();
    driver.until(|| driver.is_done(&poll));
    assert!(!driver.cancel(id));
    assert_eq!(errno(driver.run(Submission::cancel(id))), pelton_driver::errno::ENOENT);
    driver.take(poll).unwrap().unwrap();
    assert!(!driver.cancel(id));
}

fn a_peer_that_closes_makes_readable(on: &Bench) {
    let driver = on.driver();
    for asked_before in [true, false] {
        for (one, other) in driver.pairs() {
            let poll = asked_before.then(|| {
                let poll = driver.go(Submission::poll(other, Interest::Readable));
                driver.settle();
                assert!(!driver.is_done(&poll));
                poll
            });
            driver.close(one);
            let poll = poll.unwrap_or_else(|| {
                driver.settle();
                driver.go(Submission::poll(other, Interest::Readable))
            });
            driver.end(poll).unwrap();
            driver.at_its_end(other);
        }
    }
}

fn a_full_connection_becomes_writable(on: &Bench) {
    let driver = on.driver();
    for (one, other) in driver.pairs() {
        let sent = driver.fill(one);
        let poll = driver.go(Submission::poll(one, Interest::Writable));
        driver.settle();
        assert!(!driver.is_done(&poll), "there is no room");
        assert!(driver.receive(other, sent.len()) == sent);
        driver.end(poll).unwrap();
        driver.send(one, "room");
        assert_eq!(driver.receive(other, 4), b"room");
    }
}

fn a_listener_is_readable_when_a_client_has_come(on: &Bench) {
    let driver = on.driver();
    let (listener, address) = driver.listening();
    let poll = driver.go(Submission::poll(listener, Interest::Readable));
    driver.settle();
    assert!(!driver.is_done(&poll));
    let client = driver.connected(address);
    driver.end(poll).unwrap();
    let server = driver.adopt(driver.accepted(listener));
    driver.send(client, "x");
    assert_eq!(driver.receive(server, 1), b"x");
}

fn both_interests_at_the_same_time(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    let sent = driver.fill(one);
    let readable = driver.go(Submission::poll(one, Interest::Readable));
    let writable = driver.go(Submission::poll(one, Interest::Writable));
    driver.settle();
    assert!(!driver.is_done(&readable) && !driver.is_done(&writable));
    driver.send(other, "x");
    driver.end(readable).unwrap();
    assert!(!driver.is_done(&writable), "its peer has received nothing");
    assert!(driver.receive(other, sent.len()) == sent);
    driver.end(writable).unwrap();
    assert_eq!(driver.receive(one, 1), b"x");
}

fn polls_and_cancels_leave_nothing(on: &Bench) {
    let driver = on.driver();
    let (one, other) = driver.local_pair();
    for round in 0..500 {
        let poll = driver.go(Submission::poll(other, Interest::Readable));
        if round % 3 == 0 {
            driver.tick(Some(std::time::Duration::ZERO), |_| {}).unwrap();
        }
        if round % 2 == 0 {
            driver.abandon(poll);
        } else {
            driver.cancel(poll.id());
            assert_eq!(errno(driver.end(poll)), pelton_driver::errno::ECANCELED);
        }
    }
    driver.settle();
    assert_eq!(driver.operations(), 0);
    driver.send(one, "x");
    assert_eq!(driver.receive(other, 1), b"x");
}

fn a_poll_on_what_is_closed_is_refused(on: &Bench) {
    let driver = on.driver();
    let (one, _other) = driver.local_pair();
    driver.close(one);
    let refused = driver.submit(Submission::poll(one, Interest::Readable), Token::NONE);
    assert_eq!(refused.unwrap_err().error.raw_os_error(), Some(pelton_driver::errno::EBADF));
}
