//! Datagrams: the header, the address and the control messages stand in the scratch block as long as the kernel
//! may look at them, the buffers in the slot, and all of it comes back or goes with the last completion.

use super::*;

fn control() -> Control {
    let mut control = Control::with_capacity(64);
    control.push(1, 2, b"three").unwrap();
    control
}

#[test]
fn a_datagram_is_written_where_the_buffer_stands_and_a_longer_one_is_told() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    let key = driver.submit(Submission::recv_from(fd, [b'.'; 4]), Token::NONE).unwrap();
    kernel.fill(key.id().user_data(), b"too long");
    tick(&driver);
    let (received, buf) = driver.take(key).unwrap();
    let received = received.unwrap();
    assert_eq!((received.len, received.truncated, received.whole_len), (4, true, Some(8)));
    assert_eq!((&buf[..], received.from.unwrap().port()), (&b"too "[..], 9));
    let bufs = [vec![b'.'; 3].into_boxed_slice(), vec![b'.'; 3].into_boxed_slice()];
    let recv = Submission::recv_msg(fd, bufs, control());
    let key = driver.submit(recv, Token::NONE).unwrap();
    kernel.fill(key.id().user_data(), b"four");
    tick(&driver);
    let (received, bufs, control) = driver.take(key).unwrap();
    assert_eq!((received.unwrap().len, bufs.concat()), (4, b"four..".to_vec()));
    assert!(control.is_empty(), "what was in it before is gone");
}

#[test]
fn buffers_and_control_messages_are_read_where_they_stand_and_come_back() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    let to = "127.0.0.1:9".parse().unwrap();
    let key = driver.submit(Submission::send_to(fd, census.plain(3), to), Token::NONE).unwrap();
    assert_eq!(kernel.bytes(key.id().user_data()), b"...");
    kernel.complete(key.id().user_data(), 3);
    tick(&driver);
    assert_eq!(driver.take(key).unwrap().0.unwrap(), 3);
    assert_eq!(census.alive(), 0);
    let send = Submission::send_msg(fd, ["one", "two"], Some(to), control());
    let key = driver.submit(send, Token::NONE).unwrap();
    assert_eq!(kernel.bytes(key.id().user_data()), b"onetwo");
    kernel.complete(key.id().user_data(), -errno::EINVAL);
    tick(&driver);
    let (sent, _, control) = driver.take(key).unwrap();
    assert_eq!(error_of(sent), errno::EINVAL);
    assert_eq!(control.iter().next().unwrap().data, b"three");
}

#[test]
fn whatever_is_given_up_stays_until_the_last_completion() {
    let (driver, kernel) = driver();
    let (fd, census) = (attach(&driver), Census::default());
    let recv = Submission::recv_from(fd, census.plain(8));
    let one = driver.submit(recv, Token::NONE).unwrap();
    let send = Submission::send_msg(fd, [census.plain(8)], None, control());
    let other = driver.submit(send, Token::NONE).unwrap();
    let (first, second) = (one.id().user_data(), other.id().user_data());
    driver.abandon(one);
    driver.abandon(other);
    assert_eq!(kernel.cancels(), [first, second]);
    tick(&driver);
    assert_eq!(census.alive(), 2, "asking to cancel frees nothing");
    kernel.fill(first, b"late");
    // Read by the kernel after it was given up.
    assert_eq!(kernel.bytes(second), b"........");
    kernel.complete(second, -ECANCELED);
    tick(&driver);
    assert_eq!((census.alive(), driver.operations()), (0, 0));
    // A second end finds nobody.
    kernel.complete(first, 4);
    let stale = driver.counters().snapshot().stale;
    tick(&driver);
    assert_eq!(driver.counters().snapshot().stale, stale + 1);
}

#[test]
fn a_block_that_is_used_again_remembers_nothing() {
    let (driver, kernel) = driver();
    let fd = attach(&driver);
    for _ in 0..3 {
        let recv = Submission::recv_msg(fd, [[0; 4]], control());
        let key = driver.submit(recv, Token::NONE).unwrap();
        kernel.complete(key.id().user_data(), -ECANCELED);
        tick(&driver);
        assert_eq!(driver.take(key).unwrap().2.capacity(), 64);
        let key = driver.submit(Submission::recv_from(fd, [0; 4]), Token::NONE).unwrap();
        kernel.fill(key.id().user_data(), b"x");
        tick(&driver);
        let received = driver.take(key).unwrap().0.unwrap();
        assert_eq!((received.len, received.control_truncated), (1, false));
        // Refused after it was placed: all of it comes back.
        let send = Submission::send_msg(fd, vec![[0; 1]; MAX_PARTS + 1], None, control());
        let refused = driver.submit(send, Token::NONE).unwrap_err();
        assert_eq!(refused.payload.2.iter().count(), 1);
    }
    kernel.obey();
}
