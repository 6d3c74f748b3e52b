//! Kernels that lack newer calls, interrupt, are busy or refuse: each call is answered by the test.
#![cfg(target_os = "linux")]

#[path = "common/kernel.rs"]
mod kernel;

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::*;
use kernel::with_answers;
use pelton_driver::*;

on_every_backend! {
    every_descriptor_has_its_flags_from_its_first_moment
    interrupted_calls_are_made_again_and_lose_nothing
    a_wait_that_fails_is_told_of_and_the_next_one_goes_on
    a_wake_that_the_kernel_refuses_is_told_of_and_the_next_one_wakes
    without_an_eventfd_a_pipe_wakes
    an_accept_that_fails_says_why_and_loses_no_connection
    a_socket_of_which_the_system_tells_nothing_is_not_attached
}

/// What all the tests here go through: bytes there and back on ten connections that were accepted.
fn echo(driver: &Driver, listener: Fd, address: std::net::SocketAddr) {
    for n in 0..10 {
        let mut peer = TcpStream::connect(address).unwrap();
        let fd = driver.attach_stream(driver.run(Submission::accept(listener)).unwrap().descriptor);
        let fd = fd.unwrap();
        for round in 0..5 {
            let bytes = pattern(n * 5 + round, 300);
            let recv = driver.go(Submission::recv(fd, Vec::with_capacity(300)));
            driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
            peer.write_all(&bytes).unwrap();
            let (received, buf) = driver.end(recv);
            assert_eq!((received.unwrap(), buf == bytes), (300, true));
            // One send for each answer: a second one would wait for the peer to acknowledge the first.
            if round % 2 == 0 {
                driver.run(Submission::send_all(fd, buf)).0.unwrap();
            } else {
                driver.run(Submission::send_vectored_all(fd, vec![buf])).0.unwrap();
            }
            let mut back = [0; 300];
            peer.read_exact(&mut back).unwrap();
            assert!(back[..] == bytes);
        }
        driver.close(fd);
    }
}

/// The flags of each descriptor of this process that `which` picks by what it is.
fn flags_of(which: impl Fn(&str) -> bool) -> Vec<(String, i32)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let number = entry.file_name().into_string().unwrap();
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else {
            continue;
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        if which(&target) {
            all.push((target, i32::from_str_radix(flags, 8).unwrap()));
        }
    }
    all
}

fn every_descriptor_has_its_flags_from_its_first_moment(on: &On) {
    let _alone = alone();
    let (socket, address) = listener();
    socket.set_nonblocking(true).unwrap();
    let setting = AtomicU64::new(0);
    with_answers(
        &[libc::SYS_fcntl, libc::SYS_ioctl],
        |call| {
            // Whoever has to set a flag afterwards had a moment without it.
            let sets = match call.number {
                libc::SYS_fcntl => [libc::F_SETFD, libc::F_SETFL].contains(&(call.args[1] as i32)),
                _ => [libc::FIONBIO, libc::FIOCLEX].contains(&(call.args[1] as _)),
            };
            setting.fetch_add(u64::from(sets), SeqCst);
            sets.then_some(libc::EPERM)
        },
        || {
            let driver = on.driver();
            let listener = driver.attach(socket.try_clone().unwrap().into()).unwrap();
            let _clients =
                [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
            let one = driver.run(Submission::accept(listener)).unwrap().descriptor;
            let multi = driver.go(Submission::accept_multi(listener));
            driver.until(|| driver.waiting(&multi) > 0);
            for accepted in [one, driver.next(&multi).unwrap()] {
                let accepted: std::os::fd::OwnedFd = system(accepted);
                let flags = rustix::io::fcntl_getfd(&accepted).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
                let flags = rustix::fs::fcntl_getfl(&accepted).unwrap();
                let blocks = !flags.contains(rustix::fs::OFlags::NONBLOCK);
                assert_eq!(blocks, !driver.wants_nonblocking());
            }
            let internal = flags_of(|target| target.contains("anon_inode:"));
            assert!(internal.len() >= 2, "an eventfd, and a ring or an epoll: {internal:?}");
            for (target, flags) in internal {
                // The test's own, which the kernel makes so as well, is among them.
                assert!(flags & libc::O_CLOEXEC != 0, "{target} survives an exec");
                let is_wake = target.contains("eventfd");
                assert!(!is_wake || flags & libc::O_NONBLOCK != 0, "{target} blocks");
            }
            assert_eq!(setting.load(SeqCst), 0, "a flag was set afterwards");
        },
    );
}

fn interrupted_calls_are_made_again_and_lose_nothing(on: &On) {
    let _alone = alone();
    let (socket, address) = listener();
    // The test's own sends and receives are among them: the standard library makes them again too.
    let calls = [
        libc::SYS_io_uring_enter,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_accept4,
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
    ];
    let interrupted = std::sync::Mutex::new(std::collections::BTreeMap::<i64, u64>::new());
    with_answers(
        &calls,
        |call| {
            let mut interrupted = interrupted.lock().unwrap();
            let times = interrupted.entry(call.number).or_default();
            *times += 1;
            // Twice in a row, and the third time the kernel has it.
            (!times.is_multiple_of(3)).then_some(libc::EINTR)
        },
        || {
            let driver = on.driver();
            let listener = attach(&driver, socket.try_clone().unwrap());
            echo(&driver, listener, address);
            driver.settle();
        },
    );
    let interrupted = interrupted.into_inner().unwrap();
    if interrupted.is_empty() {
        return; // Skipped, and said so.
    }
    let expected: &[i64] = match on.is_uring() {
        true => &[libc::SYS_io_uring_enter],
        // Half of the sends and receives are the test's.
        false => &calls[1..],
    };
    for call in expected {
        let times = interrupted.get(call).copied().unwrap_or(0);
        assert!(times > 20, "call {call} was interrupted {times} times");
    }
}

fn a_wait_that_fails_is_told_of_and_the_next_one_goes_on(on: &On) {
    let _alone = alone();
    let (socket, address) = listener();
    let fail = AtomicBool::new(false);
    with_answers(
        &[libc::SYS_io_uring_enter, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2],
        |_| fail.load(SeqCst).then_some(libc::ENXIO),
        || {
            let driver = on.driver();
            let listener = attach(&driver, socket.try_clone().unwrap());
            let mut peer = TcpStream::connect(address).unwrap();
            let accepted = driver.run(Submission::accept(listener)).unwrap().descriptor;
            let fd = driver.attach_stream(accepted).unwrap();
            let recv = driver.go(Submission::recv(fd, [0; 5]));
            peer.write_all(b"hello").unwrap();
            fail.store(true, SeqCst);
            for _ in 0..10 {
                let result = driver.tick(Some(WATCHDOG), |_| panic!("nothing was submitted"));
                assert_eq!(errno(result), libc::ENXIO, "neither a panic nor silence");
            }
            fail.store(false, SeqCst);
            assert_eq!(&driver.end(recv).1, b"hello");
            echo(&driver, listener, address);
        },
    );
}

fn a_wake_that_the_kernel_refuses_is_told_of_and_the_next_one_wakes(on: &On) {
    let _alone = alone();
    let (give, given) = mpsc::channel();
    let done = AtomicBool::new(false);
    let (done, refused) = (&done, AtomicU64::new(0));
    std::thread::scope(|scope| {
        let driving = scope.spawn(move || {
            let driver = on.driver();
            give.send(driver.notifier()).unwrap();
            // With no limit: only a wake ends a wait.
            while !done.load(SeqCst) {
                driver.tick(None, |_| {}).unwrap();
            }
        });
        let notifier = given.recv().unwrap();
        let beside = notifier.clone();
        with_answers(
            &[libc::SYS_write],
            |_| (refused.fetch_add(1, SeqCst) < 3).then_some(libc::EIO),
            move || {
                // A driver that is awake needs no wake, so this goes on until it sleeps.
                for failed in 1..=3 {
                    let error = loop {
                        if let Err(error) = notifier.notify() {
                            break error;
                        }
                    };
                    assert_eq!(error.raw_os_error(), Some(libc::EIO));
                    assert_eq!(notifier.counters().snapshot().wakes_failed, failed);
                }
                done.store(true, SeqCst);
                notifier.notify().unwrap();
            },
        );
        if refused.load(SeqCst) == 0 {
            // Skipped, and said so.
            done.store(true, SeqCst);
            beside.notify().unwrap();
            return;
        }
        driving.join().unwrap();
        let counters = beside.counters().snapshot();
        assert_eq!(counters.wakes_failed, 3);
        assert!(counters.wakes_sent > 0);
    });
}

fn without_an_eventfd_a_pipe_wakes(on: &On) {
    let _alone = alone();
    // Where `pipe2` is missing too, its flags are set afterwards. Only x86 still has the older call, and a C library
    // may use the newer one for it.
    let older = cfg!(all(target_arch = "x86_64", not(rustix_use_libc)));
    for missing in [&[libc::SYS_eventfd2][..], &[libc::SYS_eventfd2, libc::SYS_pipe2]] {
        if missing.len() > 1 && !older {
            continue;
        }
        let asked = AtomicU64::new(0);
        with_answers(
            missing,
            |_| {
                asked.fetch_add(1, SeqCst);
                Some(libc::ENOSYS)
            },
            || {
                let pipes = |target: &str| target.starts_with("pipe:");
                let before = flags_of(pipes).len();
                let driver = on.driver();
                assert_eq!(asked.load(SeqCst), missing.len() as u64, "each is tried first");
                let ends = flags_of(pipes);
                assert_eq!(ends.len(), before + 2, "two ends: {ends:?}");
                let wanted = libc::O_CLOEXEC | libc::O_NONBLOCK;
                let right = ends.iter().filter(|(_, flags)| flags & wanted == wanted).count();
                assert!(right >= 2, "they do not block and do not survive an exec: {ends:?}");
                // More than a pipe holds, were it never emptied.
                for _ in 0..200 {
                    let notifier = driver.notifier();
                    let thread = std::thread::spawn(move || notifier.notify().unwrap());
                    while !driver.tick(None, |_| {}).unwrap().woken {}
                    thread.join().unwrap();
                }
                assert_eq!(driver.snapshot().wakes_failed, 0);
                driver.settle();
                assert!(!driver.tick(Some(Duration::ZERO), |_| {}).unwrap().woken);
            },
        );
    }
}

fn an_accept_that_fails_says_why_and_loses_no_connection(on: &On) {
    if on.is_uring() {
        // There the kernel itself accepts, without a call that could be answered.
        return;
    }
    let _alone = alone();
    let (socket, address) = listener();
    let errors = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ECONNABORTED];
    let (mut next, asked) = (0, AtomicU64::new(0));
    with_answers(
        &[libc::SYS_accept4],
        |_| {
            asked.fetch_add(1, SeqCst);
            next += 1;
            errors.get(next - 1).copied()
        },
        || {
            let driver = on.driver();
            let listener = attach(&driver, socket.try_clone().unwrap());
            let _peer = TcpStream::connect(address).unwrap();
            for expected in errors {
                let multi = driver.go(Submission::accept_multi(listener));
                assert_eq!(errno(driver.end(multi)), expected);
            }
            assert!(driver.run(Submission::accept(listener)).is_ok(), "it is still there");
            assert_eq!(driver.snapshot().accepts, 1);
        },
    );
}

/// A kernel that is busy keeps what was staged, and is asked again.
fn a_socket_of_which_the_system_tells_nothing_is_not_attached(on: &On) {
    let asked = AtomicU64::new(0);
    let (one, mut other) = local_pair();
    with_answers(
        &[libc::SYS_getsockopt],
        |_| {
            asked.fetch_add(1, SeqCst);
            Some(libc::EPERM)
        },
        || {
            let driver = on.driver();
            let error = driver.attach(one.into()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            // It was given away, and is closed.
            assert_eq!(other.read(&mut [0; 1]).unwrap(), 0);
        },
    );
    assert!(asked.load(SeqCst) <= 1, "it is asked once, or this was skipped, and said so");
}

#[test]
fn io_uring_that_is_busy_keeps_everything_and_is_counted() {
    common::run(Backend::IoUring, |on| {
        let _alone = alone();
        let (socket, address) = listener();
        let (mut asked, busy) = (0_u64, AtomicU64::new(0));
        with_answers(
            &[libc::SYS_io_uring_enter],
            |_| {
                asked += 1;
                let error = [Some(libc::EBUSY), Some(libc::EAGAIN), None, None][asked as usize % 4];
                busy.fetch_add(u64::from(error.is_some()), SeqCst);
                error
            },
            || {
                // Four entries: refused in the middle of a tick, the rest waits in a backlog.
                let driver = on.driver_with(Config { ring_entries: 4, ..small() });
                let listener = attach(&driver, socket.try_clone().unwrap());
                echo(&driver, listener, address);
                let (fd, mut peer) = tcp(&driver);
                let keys: Vec<_> =
                    (0..64).map(|n| driver.go(Submission::send_all(fd, pattern(n, 10)))).collect();
                for key in keys {
                    assert_eq!(driver.end(key).0.unwrap(), 10);
                }
                let mut received = vec![0; 640];
                peer.read_exact(&mut received).unwrap();
                let expected: Vec<u8> = (0..64).flat_map(|n| pattern(n, 10)).collect();
                assert!(received == expected, "in the order of their submission");
                let counted = driver.snapshot().busy;
                // A flush in the middle of a tick that is refused is not among them.
                assert!((50..=busy.load(SeqCst)).contains(&counted), "{counted} of {busy:?}");
            },
        );
    });
}

#[test]
fn memory_that_a_ring_needs_is_waited_for() {
    common::run(Backend::IoUring, |on| {
        let _alone = alone();
        let mut asked = 0;
        with_answers(
            &[libc::SYS_io_uring_setup],
            |_| {
                asked += 1;
                (asked <= 3).then_some(libc::ENOMEM)
            },
            || drop(on.driver()),
        );
        assert!(asked == 0 || asked > 3, "it was asked {asked} times");
    });
}

#[test]
fn without_the_newer_calls_epoll_takes_the_older_ones() {
    // Other machines never had the older ones.
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    common::run(Backend::Epoll, |on| {
        let _alone = alone();
        let newer = [libc::SYS_epoll_create1, libc::SYS_accept4, libc::SYS_epoll_pwait2];
        // A filter that does not know `epoll_pwait2` answers with EPERM.
        for unknown in [libc::ENOSYS, libc::EPERM] {
            let (socket, address) = listener();
            let asked: [AtomicU64; 3] = Default::default();
            with_answers(
                &newer,
                |call| {
                    let which = newer.iter().position(|number| *number == call.number).unwrap();
                    asked[which].fetch_add(1, SeqCst);
                    Some(if call.number == libc::SYS_epoll_pwait2 { unknown } else { libc::ENOSYS })
                },
                || {
                    let driver = on.driver();
                    let epolls = flags_of(|target| target.contains("eventpoll"));
                    assert!(!epolls.is_empty());
                    assert!(epolls.iter().all(|(_, flags)| flags & libc::O_CLOEXEC != 0));
                    let listener = attach(&driver, socket.try_clone().unwrap());
                    let _peer = TcpStream::connect(address).unwrap();
                    let accepted = driver.run(Submission::accept(listener)).unwrap().descriptor;
                    let accepted: std::os::fd::OwnedFd = system(accepted);
                    let flags = rustix::io::fcntl_getfd(&accepted).unwrap();
                    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
                    let flags = rustix::fs::fcntl_getfl(&accepted).unwrap();
                    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
                    echo(&driver, listener, address);
                    // Waits are whole milliseconds now: rounded up, or this would be a spin.
                    for _ in 0..20 {
                        let before = driver.snapshot().enters;
                        let due = Instant::now() + Duration::from_micros(300);
                        driver.run(Submission::timeout(due)).unwrap();
                        assert!(Instant::now() >= due);
                        let enters = driver.snapshot().enters - before;
                        assert!(enters <= 3, "{enters} entries");
                    }
                },
            );
            let asked = asked.map(|asked| asked.load(SeqCst));
            if asked == [0; 3] {
                return; // Skipped, and said so.
            }
            assert!(asked[0] == 1 && asked[1] > 0, "they are tried first: {asked:?}");
            assert_eq!(asked[2], 1, "it is asked once, and then known not to be there");
        }
    });
}
