//! What only completion ports can get wrong.
#![cfg(windows)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::windows::io::AsRawHandle;

use common::*;
use pelton_driver::*;

fn driver() -> Driver {
    On { backend: Backend::Iocp }.driver()
}

#[test]
fn data_that_is_there_and_data_that_comes_complete_a_receive_once_each() {
    // On a handle whose successes post packets, and on one whose do not.
    let driver = driver();
    let (foreign, mut peer) = tcp(&driver);
    let (own, other) = driver.stream_pair().unwrap();
    for round in 0..200 {
        for (fd, early) in [(foreign, true), (foreign, false), (own, true), (own, false)] {
            let mut send = || {
                if fd == foreign {
                    peer.write_all(&pattern(round, 8)).unwrap();
                } else {
                    driver.run(Submission::send_all(other, pattern(round, 8))).0.unwrap();
                }
            };
            if early {
                send();
            }
            let key = driver.go_for(Submission::recv(fd, [0; 8]), 7);
            if !early {
                send();
            }
            let mut told = driver.until(|| driver.is_done(&key));
            told.extend(driver.settle());
            let ours = told.iter().filter(|told| told.id == key.id()).count();
            assert_eq!(ours, 1, "round {round}, early {early}");
            let (n, bytes) = driver.take(key).unwrap();
            assert_eq!((n.unwrap(), &bytes[..]), (8, &pattern(round, 8)[..]));
        }
    }
    assert_eq!(driver.snapshot().stale, 0);
}

#[test]
fn a_message_that_is_longer_than_its_buffer_ends_its_receive_once() {
    let driver = driver();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let (to, peer) = (socket.local_addr().unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    // Said to be a stream, by somebody who knows no better. An overlapped receive fails then at once, and whether
    // it posts a packet too is not the same on every system.
    let fd = driver.attach_stream(socket.into()).unwrap();
    for early in [true, false, true, false] {
        let send = || assert_eq!(peer.send_to(b"too long", to).unwrap(), 8);
        if early {
            send();
        }
        let key = driver.go_for(Submission::recv(fd, [0; 2]), 7);
        if !early {
            send();
        }
        let mut told = driver.until(|| driver.is_done(&key));
        told.extend(driver.settle());
        let ours = told.iter().filter(|told| told.id == key.id()).count();
        assert_eq!((ours, driver.snapshot().stale), (1, 0), "early {early}");
        let (n, bytes) = driver.take(key).unwrap();
        assert_eq!((n.unwrap(), &bytes), (2, b"to"));
    }
}

#[test]
fn a_handle_of_the_users_is_closed_as_what_it_is_and_only_once() {
    let driver = driver();
    let before = open_descriptors();
    for _ in 0..20 {
        let file = attach(&driver, file());
        let (socket, _peer) = tcp(&driver);
        driver.run(Submission::write_at(file, "x", 0)).0.unwrap();
        driver.run(Submission::send(socket, "x")).0.unwrap();
        driver.run(Submission::close(file)).unwrap();
        driver.run(Submission::close(socket)).unwrap();
    }
    assert!(open_descriptors() <= before + 4, "{} and {before}", open_descriptors());
}

#[test]
fn a_file_that_waits_goes_to_the_pool_and_one_that_does_not_to_the_port() {
    let driver = driver();
    let path = std::env::temp_dir().join(format!("pelton-waits-{}", std::process::id()));
    std::fs::write(&path, b"0123456789").unwrap();
    let waits = attach(&driver, std::fs::File::open(&path).unwrap());
    let before = driver.snapshot().blocking_jobs;
    let (n, buf) = driver.run(Submission::read_at(waits, [0; 4], 3));
    assert_eq!((n.unwrap(), &buf), (4, b"3456"));
    assert_eq!(driver.run(Submission::read_at(waits, [0; 4], 10)).0.unwrap(), 0, "the end");
    assert_eq!(driver.snapshot().blocking_jobs - before, 2);
    let at_once = attach(&driver, OpenOptions::new().read(true).open(&path).unwrap());
    let (n, buf) = driver.run(Submission::read_at(at_once, [0; 4], 8));
    assert_eq!((n.unwrap(), &buf[..2]), (2, &b"89"[..]));
    assert_eq!(driver.snapshot().blocking_jobs - before, 2, "not the pool's");
    driver.close(waits);
    driver.close(at_once);
    driver.settle();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn one_poll_of_a_socket_serves_a_reader_and_a_writer() {
    let driver = driver();
    let (fd, mut peer) = full(&driver);
    let reads = driver.go(Submission::poll(fd, Interest::Readable));
    driver.settle();
    let writes = driver.go(Submission::poll(fd, Interest::Writable));
    let also_reads = driver.go(Submission::poll(fd, Interest::Readable));
    driver.settle();
    assert!(![&reads, &writes, &also_reads].into_iter().any(|key| driver.is_done(key)));
    peer.write_all(b"x").unwrap();
    driver.until(|| driver.is_done(&reads) && driver.is_done(&also_reads));
    assert!(!driver.is_done(&writes), "still full");
    driver.take(reads).unwrap().unwrap();
    driver.take(also_reads).unwrap().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 65536];
        while matches!(peer.read(&mut bytes), Ok(1..)) {}
    });
    driver.end(writes).unwrap();
    driver.close(fd);
    driver.settle();
    reader.join().unwrap();
}

#[test]
fn a_socket_that_goes_while_it_is_polled_leaves_nothing_behind() {
    let driver = driver();
    for _ in 0..50 {
        let (fd, _peer) = tcp(&driver);
        let poll = driver.go(Submission::poll(fd, Interest::Readable));
        driver.abandon(poll);
        driver.close(fd);
    }
    driver.settle();
    assert_eq!((driver.descriptors(), driver.operations()), (0, 0));
    let counters = driver.notifier();
    drop(driver);
    assert_eq!(counters.counters().snapshot().leaked, 0);
}

#[test]
fn several_drivers_share_one_listener_and_each_is_served() {
    let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    let drivers = [driver(), driver()];
    let first = drivers[0].listen("127.0.0.1:0".parse().unwrap(), options).unwrap();
    let address = drivers[0].local_addr(first).unwrap();
    let second = drivers[1].listen(address, options).unwrap();
    let keys = [
        drivers[0].go(Submission::accept_multi(first)),
        drivers[1].go(Submission::accept_multi(second)),
    ];
    let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut served = [0; 2];
    while served[0] + served[1] < clients.len() {
        for (at, driver) in drivers.iter().enumerate() {
            driver.tick(Some(std::time::Duration::from_millis(5)), |_| {}).unwrap();
            while driver.next(&keys[at]).is_some() {
                served[at] += 1;
            }
        }
    }
    assert!(served[0] > 0 && served[1] > 0, "{served:?}");
    // The one that goes leaves the other its listener.
    let [gone, stays] = drivers;
    let [key, other] = keys;
    gone.abandon(key);
    drop(gone);
    let _client = TcpStream::connect(address).unwrap();
    stays.until(|| stays.waiting(&other) > 0);
    stays.abandon(other);
    drop(stays);
    assert!(std::net::TcpListener::bind(address).is_ok(), "the address is free again");
}

#[test]
fn a_socket_that_is_associated_elsewhere_is_refused_and_not_waited_for() {
    use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
    use windows_sys::Win32::System::IO::CreateIoCompletionPort;
    let (mine, _peer) = tcp_pair();
    // SAFETY: plain arguments; the port is left to the end of the process.
    let port = unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, std::ptr::null_mut(), 0, 1) };
    let socket = std::os::windows::io::AsRawSocket::as_raw_socket(&mine) as usize;
    // SAFETY: both are open.
    let associated =
        unsafe { CreateIoCompletionPort(std::ptr::without_provenance_mut(socket), port, 7, 0) };
    assert!(!associated.is_null());
    let driver = driver();
    let fd = attach(&driver, mine);
    assert_eq!(errno(driver.run(Submission::recv(fd, [0; 8])).0), errno::EINVAL);
}

#[test]
fn a_handle_of_any_kind_is_open_after_the_driver_that_it_was_associated_with() {
    use std::os::windows::io::AsRawSocket;
    let (socket, mut peer) = tcp_pair();
    let opened = file();
    let (name, end) = PipeServerOptions::new().create_unique().unwrap();
    let _client = PipeClientOptions::new().open(&name).unwrap();
    let driver = driver();
    let raw = [
        RawDescriptor::Socket(socket.as_raw_socket()),
        RawDescriptor::Handle(opened.as_raw_handle()),
        end.as_raw(),
    ];
    // SAFETY: each is open until the end of this, which is after the driver.
    let fds = raw.map(|raw| unsafe { driver.associate(raw) }.unwrap());
    let recv = driver.go(Submission::recv(fds[0], [0; 8]));
    driver.run(Submission::write_at(fds[1], *b"kept", 0)).0.unwrap();
    let read = driver.go(Submission::read(fds[2], Vec::with_capacity(8)));
    driver.settle();
    assert!(!driver.is_done(&recv) && !driver.is_done(&read), "vacuous: nothing was in flight");
    drop(driver);
    // All are open, and another driver is told at once what it may do with them: nothing hangs.
    peer.write_all(b"open").unwrap();
    let mut buf = [0; 8];
    assert_eq!((&socket).read(&mut buf).unwrap(), 4);
    assert_eq!(opened.metadata().unwrap().len(), 4);
    let other = On { backend: Backend::Iocp }.driver();
    // SAFETY: as above.
    let fds = raw.map(|raw| unsafe { other.associate(raw) }.unwrap());
    peer.write_all(b"more").unwrap();
    match other.run(Submission::recv(fds[0], [0; 8])).0 {
        Ok(n) => assert_eq!(n, 4, "the system has ended the association"),
        refused => assert_eq!(errno(refused), errno::EINVAL),
    }
    // A file does not need the port.
    assert_eq!(other.run(Submission::read_at(fds[1], [0; 8], 0)).0.unwrap(), 4);
    drop(other);
    assert_eq!(opened.metadata().unwrap().len(), 4);
    drop((end, socket));
}

/// As [`file`], but that its calls wait.
fn waiting_file() -> std::fs::File {
    use std::os::windows::fs::OpenOptionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_DELETE_ON_CLOSE;
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("pelton-test-waiting-{}-{number}", std::process::id());
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create_new(true).custom_flags(FILE_FLAG_DELETE_ON_CLOSE);
    options.open(std::env::temp_dir().join(name)).unwrap()
}

#[test]
fn a_file_that_is_associated_elsewhere_is_read_and_written_all_the_same() {
    use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
    use windows_sys::Win32::System::IO::{CreateIoCompletionPort, GetQueuedCompletionStatus};
    let driver = driver();
    let opened = file();
    let fd = attach(&driver, opened.try_clone().unwrap());
    // SAFETY: plain arguments; the port is left to the end of the process.
    let port = unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, std::ptr::null_mut(), 0, 1) };
    // SAFETY: both are open.
    let associated = unsafe { CreateIoCompletionPort(opened.as_raw_handle(), port, 7, 0) };
    assert!(!associated.is_null());
    let offset = 5 << 32 | 3;
    assert_eq!(driver.run(Submission::write_at(fd, *b"beyond", offset)).0.unwrap(), 6);
    let (n, buf) = driver.run(Submission::read_at(fd, [0; 8], offset));
    assert_eq!((n.unwrap(), &buf[..6]), (6, &b"beyond"[..]));
    assert_eq!(driver.run(Submission::read_at(fd, [0; 8], offset + 6)).0.unwrap(), 0);
    let (mut n, mut key, mut overlapped) = (0, 0, std::ptr::null_mut());
    // SAFETY: the port is open; the places are ours.
    let packet = unsafe { GetQueuedCompletionStatus(port, &mut n, &mut key, &mut overlapped, 0) };
    assert_eq!(packet, 0, "whose port it is hears nothing of that");
}

#[test]
fn a_file_is_not_taken_for_one_that_was_given_back_under_its_number() {
    let driver = driver();
    // Other tests open files too, and one of theirs may get the number.
    let again = (0..50).find_map(|_| {
        let overlapped = file();
        let number = overlapped.as_raw_handle();
        let fd = attach(&driver, overlapped);
        driver.run(Submission::write_at(fd, *b"old", 0)).0.unwrap();
        let back = driver.detach(fd).unwrap();
        assert_eq!(back.as_raw(), RawDescriptor::Handle(number));
        drop(back);
        // Of those whose calls wait.
        let others: Vec<_> = (0..20).map(|_| waiting_file()).collect();
        others.into_iter().find(|other| other.as_raw_handle() == number)
    });
    let fd = attach(&driver, again.expect("vacuous: no number comes again"));
    driver.run(Submission::write_at(fd, *b"new", 0)).0.unwrap();
    let (n, buf) = driver.run(Submission::read_at(fd, [0; 8], 0));
    assert_eq!((n.unwrap(), &buf[..3]), (3, &b"new"[..]));
}

#[test]
fn an_accept_that_goes_on_ends_once_though_a_callback_panics_and_it_is_cancelled() {
    let driver = driver();
    let listener = driver.listen("127.0.0.1:0".parse().unwrap(), ListenOptions::default()).unwrap();
    let address = driver.local_addr(listener).unwrap();
    let key = driver.go_for(Submission::accept_multi(listener), 7);
    let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut panics = 0;
    while panics == 0 {
        let tick = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            driver.tick(Some(WATCHDOG), |_| std::panic::resume_unwind(Box::new("on purpose")))
        }));
        panics += usize::from(tick.is_err());
    }
    assert!(driver.cancel(key.id()));
    let mut told = driver.until(|| driver.is_done(&key));
    told.extend(driver.settle());
    assert_eq!(told.iter().filter(|told| !told.more).count(), 1, "it ends once");
    while driver.next(&key).is_some() {}
    assert_eq!(errno(driver.take(key).unwrap()), errno::ECANCELED);
    assert_eq!((driver.operations(), driver.snapshot().stale), (0, 0));
}

#[test]
fn a_pipe_has_no_places_to_read_at() {
    let driver = driver();
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = attach(&driver, reader);
    assert_eq!(errno(driver.run(Submission::read_at(pipe, [0; 8], 0)).0), errno::ESPIPE);
    assert_eq!(errno(driver.run(Submission::recv(pipe, [0; 8])).0), errno::ENOTSOCK);
    assert_eq!(errno(driver.run(Submission::accept(pipe))), errno::ENOTSOCK);
}

#[test]
fn a_socket_and_a_handle_are_told_apart() {
    let (mine, _peer) = tcp_pair();
    let socket = OwnedDescriptor::from(mine);
    assert!(matches!(socket.as_raw(), RawDescriptor::Socket(_)));
    let file = file();
    let number = file.as_raw_handle();
    let file = OwnedDescriptor::from(file);
    assert_eq!(file.as_raw(), RawDescriptor::Handle(number));
    let file = std::os::windows::io::OwnedSocket::try_from(file).unwrap_err();
    assert!(std::os::windows::io::OwnedHandle::try_from(file).is_ok());
    assert!(std::os::windows::io::OwnedSocket::try_from(socket).is_ok());
}
