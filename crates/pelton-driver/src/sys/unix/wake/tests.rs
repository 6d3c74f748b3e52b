use super::*;

/// Whether there is something to read.
fn is_readable(raw: RawFd) -> bool {
    let mut poll = libc::pollfd { fd: raw, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry; the call returns at once.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}

fn flags(raw: RawFd) -> (bool, bool) {
    // SAFETY: the source that has it is open in the tests below.
    let fd = unsafe { borrow(raw) };
    let cloexec = rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC);
    (cloexec, rustix::fs::fcntl_getfl(fd).unwrap().contains(rustix::fs::OFlags::NONBLOCK))
}

#[test]
fn a_pipe_wakes_as_often_as_it_is_drained_and_never_blocks() {
    let source = WakeSource::pipe().unwrap();
    let Object::Pipe { read, write } = &source.0 else { panic!("{source:?}") };
    let read = read.as_raw();
    assert_eq!(source.watch(), read);
    assert_eq!((flags(read), flags(write.as_raw())), ((true, true), (true, true)));
    for signals in [1, 2, 63, 64, 65, 100_000, 1] {
        assert!(!is_readable(read));
        // The last but one is more than a pipe holds: the rest finds it full, which is as good.
        for _ in 0..signals {
            source.signal().unwrap();
        }
        assert!(is_readable(read), "after {signals} signals");
        source.drain();
    }
    assert!(!is_readable(read));
    // Nobody to be woken is an error and no signal of the system's.
    let Object::Pipe { read, write } = source.0 else { unreachable!("it is a pipe still") };
    drop(read);
    let alone = WakeSource(Object::Event(write));
    assert_eq!(alone.signal().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn an_eventfd_is_one_descriptor_that_keeps_its_count() {
    let source = WakeSource::new(false).unwrap();
    let Object::Event(event) = &source.0 else { return }; // There is none here.
    assert_eq!(source.watch(), event.as_raw());
    assert_eq!(flags(source.watch()), (true, true));
    assert!(!is_readable(source.watch()));
    for _ in 0..3 {
        source.signal().unwrap();
        source.drain();
    }
    let mut count = [0; 8];
    // SAFETY: the source is open.
    rustix::io::read(unsafe { borrow(source.watch()) }, &mut count[..]).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 3, "each signal is an edge, and none is taken out");
}
