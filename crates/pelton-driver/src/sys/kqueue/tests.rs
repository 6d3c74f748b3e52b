use super::*;

const READ: u16 = flags::READABLE;
const WRITE: u16 = flags::WRITABLE;
const GONE: u16 = flags::HUNG_UP;

fn told(filter: Filter, flags: u32, fflags: u32) -> u16 {
    ready(&Event { filter, flags, fflags, ..Event::NOTHING })
}

#[test]
fn an_event_says_what_epolls_would() {
    use kevent::flags::{CLEAR, EOF, ERROR};
    assert_eq!(told(Filter::Read, CLEAR, 0), READ);
    assert_eq!(told(Filter::Write, CLEAR, 0), WRITE);
    // The peer has closed its sending side: there may be bytes, and no edge comes any more.
    assert_eq!(told(Filter::Read, CLEAR | EOF, 0), READ | GONE);
    // The own sending side is shut down: whoever sends finds out, and whoever receives goes on as before.
    assert_eq!(told(Filter::Write, CLEAR | EOF, 0), WRITE);
    // A connection that is reset, or refused, by either filter.
    assert_eq!(told(Filter::Read, CLEAR | EOF, 54), READ | WRITE | GONE);
    assert_eq!(told(Filter::Write, CLEAR | EOF, 61), READ | WRITE | GONE);
    assert_eq!(told(Filter::Read, ERROR, 0), READ | WRITE | GONE);
    assert_eq!(told(Filter::Other, CLEAR, 0), 0);
}

#[cfg(all(target_os = "linux", not(any(miri, loom, shuttle))))] // epoll plays the queue.
mod played;
