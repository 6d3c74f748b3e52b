//! Descriptors: files, readiness, closing, detaching, and numbers that are used again.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
#[cfg(unix)]
use std::os::fd::OwnedFd;
use std::time::Duration;

use common::*;
use pelton_driver::*;

on_every_backend! {
    a_file_is_read_and_written_at_offsets_past_4_gib
    reading_past_the_end_of_a_file_reads_nothing
    a_file_is_synced_and_a_socket_is_not
    a_descriptor_that_is_ready_completes_a_poll_at_once_whatever_was_said_before
    a_poll_waits_for_the_level_it_asks_for
    a_close_cancels_what_is_in_flight_and_completes_when_the_descriptor_is_gone
    a_close_that_nobody_waits_for_closes
    a_descriptor_in_use_is_not_detached_and_a_free_one_is_as_it_was
    a_descriptor_that_is_closed_refuses_everything
    a_number_that_is_used_again_reaches_nobody_else
    a_callback_that_closes_another_ready_descriptor_stops_its_events
    more_ready_descriptors_than_one_wait_reports_are_all_served
    a_held_descriptor_is_closed_when_it_is_let_go
    cancelling_all_on_a_descriptor_counts_and_ends_them
}

#[cfg(unix)]
mod unix_alone {
    use super::*;

    on_every_backend! {
        accepted_and_internal_descriptors_do_not_survive_an_exec
        what_is_cached_is_read_without_an_operation_and_the_rest_is_left_to_a_submission
        what_a_duplicate_of_a_closed_descriptor_receives_reaches_nobody_and_does_not_spin
        a_file_that_is_not_open_for_it_refuses_reads_and_writes
    }
}

fn a_file_is_read_and_written_at_offsets_past_4_gib(on: &On) {
    let driver = on.driver();
    let fd = attach(&driver, file());
    for offset in [0, 4095, (4 << 30) - 3, (5 << 30) + 7, 1 << 40] {
        let bytes = pattern(offset as usize, 10_000);
        let (n, _) = driver.run(Submission::write_at(fd, bytes.clone(), offset));
        assert_eq!(n.unwrap(), bytes.len());
        let (n, buf) = driver.run(Submission::read_at(fd, Vec::with_capacity(10_000), offset));
        assert_eq!(n.unwrap(), bytes.len());
        assert!(buf == bytes, "at {offset}");
        let (n, buf) = driver.run(Submission::read_at(fd, [0; 100], offset + 50));
        assert_eq!(n.unwrap(), 100);
        assert!(buf[..] == bytes[50..150], "at {offset}");
    }
    if on.backend == Backend::Epoll {
        assert!(driver.snapshot().blocking_jobs >= 5, "the writes went to the pool of threads");
    }
}

fn reading_past_the_end_of_a_file_reads_nothing(on: &On) {
    let driver = on.driver();
    let fd = attach(&driver, file());
    assert_eq!(driver.run(Submission::write_at(fd, "0123456789", 0)).0.unwrap(), 10);
    let (n, buf) = driver.run(Submission::read_at(fd, [0; 8], 6));
    assert_eq!((n.unwrap(), &buf[..4]), (4, &b"6789"[..]));
    for offset in [10, 11, i64::MAX as u64 - 100] {
        assert_eq!(driver.run(Submission::read_at(fd, [0; 8], offset)).0.unwrap(), 0);
    }
    let refused = driver.submit(Submission::read_at(fd, [0; 8], u64::MAX), Token::NONE);
    assert_eq!(refused.unwrap_err().error.kind(), std::io::ErrorKind::InvalidInput);
}

#[cfg(unix)]
fn a_file_that_is_not_open_for_it_refuses_reads_and_writes(on: &On) {
    let driver = on.driver();
    let fd = attach(&driver, std::fs::File::open("/proc/self/exe").unwrap());
    assert_eq!(errno(driver.run(Submission::write_at(fd, "x", 0)).0), errno::EBADF);
    let (reader, _writer) = std::io::pipe().unwrap();
    let fd = attach(&driver, OwnedFd::from(reader));
    assert_eq!(errno(driver.run(Submission::recv(fd, [0; 8])).0), errno::ENOTSOCK);
    assert_eq!(errno(driver.run(Submission::accept(fd))), errno::ENOTSOCK);
}

fn a_file_is_synced_and_a_socket_is_not(on: &On) {
    let driver = on.driver();
    let fd = attach(&driver, file());
    driver.run(Submission::write_at(fd, "bytes", 0)).0.unwrap();
    driver.run(Submission::sync(fd, false)).unwrap();
    driver.run(Submission::sync(fd, true)).unwrap();
    let (fd, _peer) = tcp(&driver);
    assert_eq!(errno(driver.run(Submission::sync(fd, false))), errno::EINVAL);
}

fn a_descriptor_that_is_ready_completes_a_poll_at_once_whatever_was_said_before(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let poll = || Submission::poll(fd, Interest::Readable);
    peer.write_all(b"xy").unwrap();
    for _ in 0..3 {
        assert!(driver.run(poll()).unwrap() > 0, "nothing was read, so it is ready again");
    }
    // A receive takes a part, and the rest is still a level.
    assert_eq!(driver.run(Submission::recv(fd, [0; 1])).0.unwrap(), 1);
    assert!(driver.run(poll()).unwrap() > 0);
    assert_eq!(driver.run(Submission::recv(fd, [0; 8])).0.unwrap(), 1);
    let waits = driver.go(poll());
    assert!(driver.settle().is_empty(), "now it is empty");
    drop(peer);
    assert!(driver.end(waits).unwrap() > 0, "the end of the stream is something to read");
}

fn a_poll_waits_for_the_level_it_asks_for(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = full(&driver);
    let writable = driver.go(Submission::poll(fd, Interest::Writable));
    let readable = driver.go(Submission::poll(fd, Interest::Readable));
    assert!(driver.settle().is_empty());
    peer.write_all(b"x").unwrap();
    assert!(driver.end(readable).unwrap() > 0);
    assert!(!driver.is_done(&writable));
    peer.set_nonblocking(true).unwrap();
    while peer.read(&mut [0; 65536]).is_ok_and(|n| n > 0) {}
    assert!(driver.end(writable).unwrap() > 0);
    // The test reads by itself, and the driver's receive still finds what comes next.
    let recv = driver.go(Submission::recv(fd, [0; 8]));
    assert_eq!(driver.end(recv).0.unwrap(), 1);
    let recv = driver.go(Submission::recv(fd, [0; 8]));
    driver.settle();
    peer.write_all(b"y").unwrap();
    assert_eq!(driver.end(recv).0.unwrap(), 1);
}

fn a_close_cancels_what_is_in_flight_and_completes_when_the_descriptor_is_gone(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = full(&driver);
    let recv = driver.go_for(Submission::recv(fd, [0; 8]), 1);
    let pooled = driver.go_for(Submission::recv_pooled(fd), 2);
    let multi = driver.go_for(Submission::recv_multi(fd), 3);
    let send = driver.go_for(Submission::send_all(fd, vec![0; 100]), 4);
    let poll = driver.go_for(Submission::poll(fd, Interest::Writable), 5);
    assert!(driver.settle().is_empty());
    let close = driver.go_for(Submission::close(fd), 6);
    assert!(!driver.cancel(close.id()) || !driver.is_done(&close), "a close is not cancelled");
    let refused = driver.submit(Submission::recv(fd, [0; 8]), Token::NONE).unwrap_err();
    assert_eq!(refused.error.raw_os_error(), Some(errno::EBADF), "closed for what comes now");
    let told = driver.settle();
    let order: Vec<_> = told.iter().map(|told| told.token.as_number()).collect();
    assert_eq!(order.len(), 6, "each once: {order:?}");
    assert_eq!(order[5], 6, "the close last: {order:?}");
    assert_eq!(errno(driver.take(recv).unwrap().0), errno::ECANCELED);
    assert_eq!(errno(driver.take(pooled).unwrap()), errno::ECANCELED);
    assert_eq!(errno(driver.take(multi).unwrap()), errno::ECANCELED);
    assert_eq!(errno(driver.take(send).unwrap().0), errno::ECANCELED);
    assert_eq!(errno(driver.take(poll).unwrap()), errno::ECANCELED);
    assert_eq!(driver.take(close).unwrap().unwrap(), 0);
    // Really closed: the peer sees the end.
    peer.set_nonblocking(true).unwrap();
    while peer.read(&mut [0; 65536]).unwrap() > 0 {}
    assert_eq!((driver.descriptors(), driver.snapshot().closes), (0, 1));
}

fn a_close_that_nobody_waits_for_closes(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    driver.close(fd);
    driver.close(fd);
    assert_eq!(driver.settle().len(), 0);
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    let (fd, mut peer) = tcp(&driver);
    let recv = driver.go(Submission::recv(fd, [0; 8]));
    driver.close(fd);
    let close = driver.submit(Submission::close(fd), Token::NONE).unwrap_err();
    assert_eq!(close.error.raw_os_error(), Some(errno::EBADF), "it is closing already");
    assert_eq!(errno(driver.end(recv).0), errno::ECANCELED);
    driver.settle();
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    // A close whose key is abandoned closes all the same.
    let (fd, mut peer) = tcp(&driver);
    let recv = driver.go(Submission::recv(fd, [0; 8]));
    let close = driver.go(Submission::close(fd));
    driver.abandon(close);
    driver.abandon(recv);
    driver.settle();
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!((driver.descriptors(), driver.operations()), (0, 0));
}

fn a_descriptor_in_use_is_not_detached_and_a_free_one_is_as_it_was(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    let key = driver.go(Submission::recv(fd, [0; 8]));
    driver.settle();
    assert_eq!(driver.detach(fd).unwrap_err().kind(), std::io::ErrorKind::ResourceBusy);
    peer.write_all(b"1").unwrap();
    driver.end(key).0.unwrap();
    let mine = system::<TcpStream>(driver.detach(fd).unwrap());
    assert_eq!(errno(driver.detach(fd)), errno::EBADF);
    mine.set_nonblocking(false).unwrap();
    (&mine).write_all(b"mine again").unwrap();
    let mut buf = [0; 10];
    peer.read_exact(&mut buf).unwrap();
    // It may be given to a driver once more.
    let fd = attach(&driver, mine);
    let key = driver.go(Submission::recv(fd, [0; 8]));
    driver.settle();
    peer.write_all(b"2").unwrap();
    assert_eq!(driver.end(key).0.unwrap(), 1);
    assert_eq!(driver.descriptors(), 1);
}

fn a_descriptor_that_is_closed_refuses_everything(on: &On) {
    let driver = on.driver();
    let (fd, _peer) = tcp(&driver);
    driver.close(fd);
    let refused = driver.submit(Submission::recv(fd, [1; 8]), Token::NONE).unwrap_err();
    assert_eq!((refused.error.raw_os_error(), refused.payload.0), (Some(errno::EBADF), [1; 8]));
    let refused = driver.submit(Submission::send(fd, "x"), Token::NONE).unwrap_err();
    assert_eq!(refused.error.raw_os_error(), Some(errno::EBADF));
    let address = "127.0.0.1:1".parse().unwrap();
    let refused = driver.submit(Submission::connect(fd, address), Token::NONE).unwrap_err();
    assert_eq!(refused.error.raw_os_error(), Some(errno::EBADF));
    assert_eq!(refused.payload.0, address);
    assert_eq!(errno(driver.with_descriptor(fd, |_| ())), errno::EBADF);
    assert_eq!(errno(driver.detach(fd)), errno::EBADF);
    assert_eq!(driver.operations(), 0);
}

fn a_number_that_is_used_again_reaches_nobody_else(on: &On) {
    let driver = on.driver();
    let mut old = Vec::new();
    for round in 0..300 {
        let (fd, mut peer) = tcp(&driver);
        // Something is in flight when it is closed, and completes at the same moment.
        let recv = driver.go(Submission::recv(fd, [0; 8]));
        let send = driver.go(Submission::send_all(fd, pattern(round, 100)));
        if round % 2 == 0 {
            driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        }
        let _ = peer.write_all(b"late");
        driver.close(fd);
        if round % 3 == 0 {
            driver.abandon(recv);
        } else {
            let _ = driver.end(recv);
        }
        let sent = driver.end(send).0.unwrap_or(0);
        let mut received = Vec::new();
        driver.settle();
        let _ = peer.read_to_end(&mut received);
        assert!(received == pattern(round, 100)[..sent], "its own bytes and no others");
        for fd in &old {
            assert_eq!(errno(driver.with_descriptor(*fd, |_| ())), errno::EBADF);
        }
        old.push(fd);
        if old.len() > 20 {
            old.remove(0);
        }
    }
    assert_eq!((driver.descriptors(), driver.operations()), (0, 0));
}

fn a_callback_that_closes_another_ready_descriptor_stops_its_events(on: &On) {
    let driver = on.driver();
    let connections: Vec<_> = (0..2).map(|_| tcp(&driver)).collect();
    let _keys: Vec<_> = connections
        .iter()
        .enumerate()
        .map(|(n, (fd, _))| driver.go_for(Submission::recv_multi(*fd), n))
        .collect();
    driver.settle();
    for (_, peer) in &connections {
        (&mut &*peer).write_all(b"ready").unwrap();
    }
    // Both are ready in one batch by the time that this waits.
    let (mut first, mut ends) = (None, 0);
    while ends == 0 {
        driver
            .tick(Some(WATCHDOG), |completion| {
                let n = completion.token.as_number();
                let first = *first.get_or_insert_with(|| {
                    driver.close(connections[1 - n].0);
                    n
                });
                if n != first {
                    // The kernel may have received for it before the close. It ends once.
                    ends += u32::from(!completion.more);
                    assert!(on.is_uring() || !completion.more, "an event after the close");
                }
            })
            .unwrap();
    }
    assert!(driver.settle().is_empty(), "nothing after its end");
    assert_eq!((ends, driver.descriptors()), (1, 1));
}

#[cfg(unix)]
fn room_for_connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum },
    )
    .unwrap();
    limit.maximum.unwrap_or(1 << 20).saturating_sub(1000) as usize / 4
}

/// More than one wait brings.
#[cfg(windows)]
fn room_for_connections() -> usize {
    400
}

fn more_ready_descriptors_than_one_wait_reports_are_all_served(on: &On) {
    // Two descriptors for each connection, and 4096 of those where the system allows it.
    let count = room_for_connections().min(4096);
    let driver = on.driver();
    let connections: Vec<_> = (0..count).map(|_| unix(&driver)).collect();
    let keys: Vec<_> = connections
        .iter()
        .enumerate()
        .map(|(n, (fd, _))| driver.go_for(Submission::recv(*fd, [0; 8]), n))
        .collect();
    driver.settle();
    let before = driver.snapshot();
    for (_, peer) in &connections {
        (&mut &*peer).write_all(b"x").unwrap();
    }
    let mut told = vec![0; count];
    while told.contains(&0) {
        let tick = driver.tick(Some(WATCHDOG), |told_of| told[told_of.token.as_number()] += 1);
        assert!(tick.unwrap().completions > 0, "nothing more comes");
    }
    driver.settle();
    assert!(told.iter().all(|n| *n == 1), "each once");
    let ticks = driver.snapshot().ticks - before.ticks;
    // io_uring hands out about twenty deferred completions for each entry into the kernel.
    let most = if on.is_uring() { 12 + count / 10 } else { 12 };
    assert!(ticks <= most as u64, "{ticks} ticks for {count} ready descriptors");
    for key in keys {
        assert_eq!(driver.take(key).unwrap().0.unwrap(), 1);
    }
}

fn a_held_descriptor_is_closed_when_it_is_let_go(on: &On) {
    let driver = on.driver();
    let (fd, mut peer) = tcp(&driver);
    driver
        .with_descriptor(fd, |held| {
            driver.close(fd);
            driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
            assert_eq!(driver.descriptors(), 1, "not under its user's feet");
            socket2::SockRef::from(&held).send(b"still open").unwrap();
        })
        .unwrap();
    driver.settle();
    assert_eq!(driver.descriptors(), 0);
    let mut received = Vec::new();
    peer.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"still open");
}

#[cfg(unix)]
fn accepted_and_internal_descriptors_do_not_survive_an_exec(on: &On) {
    let driver = on.driver();
    let (listener, address) = listener();
    let listener = attach(&driver, listener);
    let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
    let one = driver.run(Submission::accept(listener)).unwrap().descriptor;
    let multi = driver.go(Submission::accept_multi(listener));
    driver.until(|| driver.waiting(&multi) > 0);
    let two = driver.next(&multi).unwrap();
    for fd in [&system::<OwnedFd>(one), &system::<OwnedFd>(two)] {
        let flags = rustix::io::fcntl_getfd(fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        if driver.wants_nonblocking() {
            let flags = rustix::fs::fcntl_getfl(fd).unwrap();
            assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
        }
    }
    // The internal ones: whatever is an eventfd, a ring or an epoll, of this driver or another test's.
    let mut seen = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let number = entry.file_name().into_string().unwrap();
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        if !target.contains("anon_inode:") {
            continue;
        }
        let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else {
            continue;
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let flags = i32::from_str_radix(flags, 8).unwrap();
        assert!(flags & libc::O_CLOEXEC != 0, "{target} survives an exec");
        if target.contains("eventfd") {
            assert!(flags & libc::O_NONBLOCK != 0, "{target} blocks");
        }
        seen += 1;
    }
    assert!(seen >= 2, "an eventfd, and a ring or an epoll");
    let output = std::process::Command::new("ls").arg("-l").arg("/proc/self/fd").output().unwrap();
    let inherited = String::from_utf8(output.stdout).unwrap();
    assert!(!inherited.contains("anon_inode"), "a child has {inherited}");
}

fn cancelling_all_on_a_descriptor_counts_and_ends_them(on: &On) {
    let driver = on.driver();
    let (fd, _peer) = full(&driver);
    let (other, mut other_peer) = tcp(&driver);
    let recv = driver.go(Submission::recv(fd, [0; 8]));
    let send = driver.go(Submission::send_all(fd, pattern(1, 1000)));
    let poll = driver.go(Submission::poll(fd, Interest::Writable));
    let stays = driver.go(Submission::recv(other, [0; 8]));
    driver.settle();
    assert_eq!(driver.run(Submission::cancel_fd(fd)).unwrap(), 3);
    assert_eq!(errno(driver.end(recv).0), errno::ECANCELED);
    assert_eq!(errno(driver.end(send).0), errno::ECANCELED);
    assert_eq!(errno(driver.end(poll)), errno::ECANCELED);
    assert_eq!(driver.run(Submission::cancel_fd(fd)).unwrap(), 0);
    assert!(!driver.is_done(&stays));
    // The descriptor itself is as good as before.
    let recv = driver.go(Submission::recv(fd, [0; 8]));
    driver.settle();
    assert!(!driver.is_done(&recv));
    other_peer.write_all(b"x").unwrap();
    assert_eq!(driver.end(stays).0.unwrap(), 1);
    // A send that had got rid of a part is not taken up again.
    let (fd, _peer) = unix(&driver);
    let send = driver.go(Submission::send_all(fd, pattern(1, 8 << 20)));
    driver.settle();
    assert_eq!(driver.run(Submission::cancel_fd(fd)).unwrap(), 1);
    assert!(driver.end(send).0.unwrap() < 8 << 20);
}

#[cfg(unix)]
fn what_a_duplicate_of_a_closed_descriptor_receives_reaches_nobody_and_does_not_spin(on: &On) {
    let driver = on.driver();
    for was_given in [true, false] {
        let (mine, mut peer) = tcp_pair();
        peer.set_nodelay(true).unwrap();
        // Two ways to a duplicate: the test keeps one of what it gives away, or asks the driver for one.
        let (fd, duplicate) = if was_given {
            let duplicate = OwnedFd::from(mine.try_clone().unwrap());
            (attach(&driver, mine), duplicate)
        } else {
            let fd = driver.attach_stream(mine.into()).unwrap();
            (fd, driver.with_descriptor(fd, |fd| fd.try_clone_to_owned().unwrap()).unwrap())
        };
        // In flight, so that the kernel watches the descriptor, and then closed.
        let recv = driver.go(Submission::recv(fd, [0; 8]));
        driver.settle();
        assert!(!driver.is_done(&recv));
        driver.abandon(recv);
        driver.close(fd);
        driver.settle();
        assert_eq!(driver.descriptors(), 0);

        // Its place in the table has a new owner, who waits for something of its own.
        let (other, mut other_peer) = tcp(&driver);
        let waits = driver.go_for(Submission::recv(other, [0; 8]), 7);
        driver.settle();
        let before = driver.snapshot();
        const WRITES: u64 = 20;
        for _ in 0..WRITES {
            peer.write_all(b"x").unwrap();
            let timer = driver.go(Submission::timeout(std::time::Instant::now()));
            driver.until(|| driver.is_done(&timer));
            driver.take(timer).unwrap().unwrap();
        }
        assert!(!driver.is_done(&waits), "it was not sent anything");
        let after = driver.snapshot();
        let stale = after.stale - before.stale;
        assert!(stale <= if was_given { 0 } else { WRITES }, "{stale} events for nobody");
        assert!(
            after.enters - before.enters <= 4 * WRITES,
            "{} entries",
            after.enters - before.enters
        );

        // There is still something to read that nobody will, and the driver sleeps.
        let timer = Submission::timeout(std::time::Instant::now() + Duration::from_millis(30));
        let (timer, before) = (driver.go(timer), driver.snapshot().enters);
        driver.until(|| driver.is_done(&timer));
        driver.take(timer).unwrap().unwrap();
        let enters = driver.snapshot().enters - before;
        assert!(enters <= 3, "{enters} entries in one wait");

        other_peer.write_all(b"mine").unwrap();
        assert_eq!(driver.end(waits).0.unwrap(), 4);
        assert_eq!(rustix::io::read(&duplicate, &mut [0; 100][..]).unwrap(), WRITES as usize);
        driver.close(other);
        driver.settle();
    }
}

#[cfg(unix)]
fn what_is_cached_is_read_without_an_operation_and_the_rest_is_left_to_a_submission(on: &On) {
    let driver = on.driver();
    // It has just been read as a whole, so the page cache has it.
    let path = std::env::current_exe().unwrap();
    let content = std::fs::read(&path).unwrap();
    let end = content.len() as u64;
    let fd = attach(&driver, std::fs::File::open(&path).unwrap());
    let submissions = driver.snapshot().submissions;
    let mut buf = Vec::with_capacity(5000);
    buf.push(1);
    let room = buf.spare_capacity_mut().len();
    assert_eq!(driver.read_cached(fd, &mut buf, 100), Some(room));
    assert!(buf[0] == 1 && buf[1..] == content[100..100 + room], "behind what it had");
    let mut rest = [9; 64];
    assert_eq!(driver.read_cached(fd, &mut rest, end - 10), Some(10));
    assert!(rest[..10] == content[content.len() - 10..] && rest[10..] == [9; 54]);
    assert_eq!(driver.read_cached(fd, &mut rest, end + 10_000), Some(0), "the end of the file");
    assert_eq!((driver.operations(), driver.snapshot().submissions - submissions), (0, 3));

    assert_eq!(driver.read_cached(fd, &mut buf, 0), None, "no room");
    assert_eq!(driver.read_cached(fd, &mut rest, u64::MAX), None);
    let (pipe, _other_end) = std::io::pipe().unwrap();
    let pipe = attach(&driver, std::fs::File::from(OwnedFd::from(pipe)));
    assert_eq!(driver.read_cached(pipe, &mut rest, 0), None, "no file");
    driver.close(fd);
    assert_eq!(driver.read_cached(fd, &mut rest, 0), None, "closed");
}
