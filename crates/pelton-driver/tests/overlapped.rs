//! Overlapped calls of the user's own: named pipes, of which the list of operations knows nothing.
#![cfg(windows)]

mod common;

#[path = "../examples/own_operation/windows.rs"]
mod example;

use std::io::{ErrorKind, Write};
use std::rc::Rc;
use std::time::Duration;

use common::*;
use example::{Called, Pipe};
use pelton_driver::*;
use windows_sys::Win32::Foundation::{ERROR_MORE_DATA, ERROR_PIPE_CONNECTED};
use windows_sys::Win32::Networking::WinSock::{WSABUF, WSARecv};

fn driver() -> Driver {
    On { backend: Backend::Iocp }.driver()
}

fn begun<T>(called: std::io::Result<Called<T>>) -> Key<Own<T>> {
    called.unwrap().begun().unwrap()
}

#[test]
fn the_example_works() {
    example::run(&driver()).unwrap();
}

#[test]
fn a_call_is_told_of_once_with_its_bytes_and_its_status() {
    let driver = driver();
    assert_eq!(driver.seam(), Seam::Overlapped);
    let pipe = Pipe::new(&driver, "told-of-once").unwrap();
    let connect = begun(pipe.connect(&driver, "memory"));
    let mut client = pipe.client().unwrap();
    let (said, memory) = driver.finish(connect, None, |_| {}).unwrap();
    assert_eq!((said.unwrap(), memory), (0, "memory"), "a success of nothing is one");
    for early in [true, false, true, false] {
        let mut write = || client.write_all(b"message").unwrap();
        if early {
            write();
        }
        let read = begun(pipe.read(&driver, vec![0; 16]));
        if !early {
            write();
        }
        let mut told = driver.until(|| driver.is_done(&read));
        told.extend(driver.settle());
        assert_eq!(told.iter().filter(|told| told.id == read.id()).count(), 1);
        let (n, bytes) = driver.take(read).unwrap();
        assert_eq!(&bytes[..n.unwrap()], b"message");
    }
    // A warning is its outcome, as it is.
    client.write_all(b"longer than that").unwrap();
    let (said, bytes) = driver.finish(begun(pipe.read(&driver, vec![0; 4])), None, |_| {}).unwrap();
    assert_eq!((errno(said), &bytes[..]), (ERROR_MORE_DATA as i32, &b"long"[..]));
    assert_eq!(driver.snapshot().stale, 0);
}

#[test]
fn a_call_that_fails_at_once_gives_the_memory_back_and_posts_nothing() {
    let driver = driver();
    let pipe = Pipe::new(&driver, "fails-at-once").unwrap();
    let _client = pipe.client().unwrap();
    for _ in 0..3 {
        match pipe.connect(&driver, "memory").unwrap() {
            Called::Failed(error, memory) => {
                assert_eq!((error, memory), (ERROR_PIPE_CONNECTED, "memory"));
            }
            Called::Begun(_) => panic!("the client is there"),
        }
    }
    driver.settle();
    assert_eq!((driver.operations(), driver.snapshot().stale), (0, 0));
}

#[test]
fn a_call_ends_when_it_is_cancelled_closed_or_given_up_and_then_lets_go_of_its_memory() {
    let driver = driver();
    let pipe = Pipe::new(&driver, "cancelled").unwrap();
    let memory = Rc::new(());
    // By a limit.
    let key = begun(pipe.connect(&driver, memory.clone()));
    let limit = Some(Duration::from_millis(1));
    let (said, back) = driver.finish(key, limit, |_| {}).unwrap();
    assert_eq!(errno(said), pelton_driver::errno::ECANCELED);
    drop(back);
    // Given up.
    driver.abandon(begun(pipe.connect(&driver, memory.clone())));
    driver.until(|| driver.operations() == 0);
    assert_eq!(Rc::strong_count(&memory), 1);
    // With its descriptor.
    let key = begun(pipe.connect(&driver, memory.clone()));
    driver.run(Submission::close(pipe.fd)).unwrap();
    let (said, back) = driver.take(key).unwrap();
    assert_eq!(errno(said), pelton_driver::errno::ECANCELED);
    drop(back);
    // With its driver.
    let pipe = Pipe::new(&driver, "goes").unwrap();
    let left = begun(pipe.connect(&driver, memory.clone()));
    let counters = driver.notifier();
    drop(driver);
    drop(left);
    assert_eq!((Rc::strong_count(&memory), counters.counters().leaked.get()), (1, 0));
}

/// The system's number of a socket.
fn socket_of(driver: &Driver, fd: Fd) -> usize {
    let prepared = driver.prepare(Some(fd), ()).unwrap();
    let key = prepared.submit_when(Token::NONE, Interest::Writable, |(), ready| {
        match ready.descriptor()?.as_raw() {
            RawDescriptor::Socket(socket) => Ok(socket as usize),
            RawDescriptor::Handle(_) => Err(ErrorKind::InvalidInput.into()),
        }
    });
    driver.finish(key.unwrap(), None, |_| {}).unwrap().0.unwrap()
}

/// Begins a receive that the list has, but the seam does not know that. `between` runs when it has been made, before
/// the driver is told.
fn receive(driver: &Driver, fd: Fd, socket: usize, between: impl FnOnce()) -> Key<Own<[u8; 8]>> {
    let call = driver.prepare(Some(fd), [0_u8; 8]).unwrap().in_call().unwrap();
    let (mut n, mut flags) = (0, 0);
    let part = WSABUF { len: 8, buf: call.memory().cast() };
    let overlapped = call.overlapped().cast().as_ptr();
    // SAFETY: the memory is the operation's, and the driver keeps the socket open.
    let failed = unsafe { WSARecv(socket, &part, 1, &mut n, &mut flags, overlapped, None) };
    assert!(failed == 0 || std::io::Error::last_os_error().raw_os_error() == Some(997));
    between();
    // SAFETY: it was made, and has succeeded or is pending.
    unsafe { call.submitted(Token::NONE, failed == 0) }
}

#[test]
fn successes_at_once_are_told_of_once_whether_they_post_or_not() {
    let driver = driver();
    let (foreign, mut peer) = tcp(&driver);
    let (own, other) = driver.stream_pair().unwrap();
    for fd in [foreign, own] {
        let socket = socket_of(&driver, fd);
        // One of the list first: the driver's own socket skips from then on.
        for round in 0..4 {
            if fd == foreign {
                peer.write_all(&[round; 8]).unwrap();
            } else {
                driver.run(Submission::send_all(other, vec![round; 8])).0.unwrap();
            }
            if round % 2 == 0 {
                driver.run(Submission::poll(fd, Interest::Readable)).unwrap();
            }
            let key = receive(&driver, fd, socket, || {
                if round == 3 {
                    // The packet comes before its word, and cancelling then asks for nothing.
                    driver.settle();
                }
            });
            let (n, bytes) = driver.finish(key, None, |_| {}).unwrap();
            assert_eq!((n.unwrap(), bytes), (8, [round; 8]));
        }
    }
    assert_eq!((driver.snapshot().stale, driver.operations()), (0, 0));
}

#[test]
fn a_call_on_nothing_or_on_what_waits_is_refused_before_it_is_made() {
    let driver = driver();
    let refused = driver.prepare(None, "memory").unwrap().in_call().unwrap_err();
    assert_eq!((refused.error.kind(), refused.payload.0), (ErrorKind::InvalidInput, "memory"));
    let path = std::env::temp_dir().join(format!("pelton-waits-{}", std::process::id()));
    let file = attach(&driver, std::fs::File::create(&path).unwrap());
    let refused = driver.prepare(Some(file), "memory").unwrap().in_call().unwrap_err();
    assert_eq!((refused.error.kind(), refused.payload.0), (ErrorKind::InvalidInput, "memory"));
    assert_eq!(driver.operations(), 0);
    drop(driver);
    std::fs::remove_file(path).unwrap();
}
