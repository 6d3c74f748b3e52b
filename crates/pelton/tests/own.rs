//! Operations of one's own as futures: awaited, limited, dropped, and left at the end.
#![cfg(unix)]

mod common;

use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use common::{inside_each_backend, on_each_backend, quiet, runtime};
use pelton::driver::{Interest, Ready, Seam};
use pelton::own::{self, Descriptor};
use pelton::time;

fn pipe() -> (Descriptor, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Descriptor::new(OwnedFd::from(reader)).unwrap(), writer)
}

fn read(buf: &mut [u8; 8], ready: &Ready<'_>) -> std::io::Result<usize> {
    Ok(rustix::io::read(ready.descriptor()?, &mut buf[..])?)
}

#[test]
fn a_call_waits_for_its_descriptor_and_gives_its_memory_back() {
    inside_each_backend(|_| async {
        let (reader, mut writer) = pipe();
        let reader = Rc::new(reader);
        let shared = reader.clone();
        let task =
            pelton::spawn(async move { shared.when_ready(Interest::Readable, [0; 8], read).await });
        quiet_but_for_one().await;
        writer.write_all(b"hello").unwrap();
        let (n, buf) = task.await.unwrap();
        assert_eq!(&buf[..n.unwrap()], b"hello");
        drop(writer);
        let (n, _) = reader.when_ready(Interest::Readable, [0; 8], read).await;
        assert_eq!(n.unwrap(), 0, "the end of a pipe is a success of nothing");
        let (error, memory) =
            reader.when_ready(Interest::Readable, 7, |_, _| Err(ErrorKind::Other.into())).await;
        assert_eq!((error.unwrap_err().kind(), memory), (ErrorKind::Other, 7));
        Rc::into_inner(reader).unwrap().close().await.unwrap();
        quiet().await;
    });
}

/// Lets the task that was spawned wait.
async fn quiet_but_for_one() {
    for _ in 0..3 {
        pelton::yield_now().await;
    }
}

#[test]
fn a_limit_and_a_drop_cancel_and_lose_no_bytes() {
    inside_each_backend(|_| async {
        let (reader, mut writer) = pipe();
        let memory = Rc::new(());
        for _ in 0..5 {
            let held = memory.clone();
            let call = reader.when_ready(Interest::Readable, [0; 8], move |buf, ready| {
                let _held = &held;
                read(buf, ready)
            });
            assert!(time::timeout(Duration::from_millis(1), call).await.is_err());
            // Never polled.
            drop(reader.when_ready(Interest::Readable, [0; 8], read));
        }
        quiet().await;
        assert_eq!(Rc::strong_count(&memory), 1, "what they owned has gone");
        writer.write_all(b"kept").unwrap();
        let (n, buf) = reader.when_ready(Interest::Readable, [0; 8], read).await;
        assert_eq!(&buf[..n.unwrap()], b"kept");
    });
}

#[test]
fn an_entry_goes_to_the_ring_or_is_refused_with_its_memory() {
    inside_each_backend(|_| async {
        let (reader, mut writer) = pipe();
        writer.write_all(b"by entry").unwrap();
        // SAFETY: `IORING_OP_READ` into the memory that it is given; it completes once.
        let call = unsafe {
            reader.entry(Box::new([0_u8; 8]), |memory, entry| {
                (entry.opcode, entry.len, entry.off) = (22, 8, u64::MAX);
                entry.addr = memory.as_mut_ptr().expose_provenance() as u64;
            })
        };
        let (said, memory) = call.await;
        if own::seam().unwrap() == Seam::Ring {
            assert_eq!((said.unwrap(), &memory[..]), (8, &b"by entry"[..]));
        } else {
            assert_eq!(said.unwrap_err().kind(), ErrorKind::Unsupported);
        }
        quiet().await;
    });
}

#[test]
fn a_call_that_outlives_its_reactor_says_so_and_an_associated_descriptor_stays_open() {
    on_each_backend(|backend| {
        let runtime = runtime(backend);
        let (reader, mut writer) = std::io::pipe().unwrap();
        let raw = reader.as_raw_fd();
        let left = runtime.block_on(async move {
            // SAFETY: it is open until the end of this test.
            let left = unsafe { Descriptor::associate(raw) }.unwrap();
            // SAFETY: as above.
            let closed = unsafe { Descriptor::associate(raw) };
            // Twice on one reactor: epoll refuses the second where it is first waited for, and that is all.
            drop(closed);
            left
        });
        drop(runtime);
        let mut call = std::pin::pin!(left.when_ready(Interest::Readable, [0; 8], read));
        let polled =
            call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        let std::task::Poll::Ready((error, _)) = polled else { panic!("it waits for nobody") };
        assert_eq!(error.unwrap_err().kind(), ErrorKind::BrokenPipe);
        writer.write_all(b"open").unwrap();
        let mut buf = [0; 8];
        assert_eq!(rustix::io::read(&reader, &mut buf[..]).unwrap(), 4);
    });
    assert_eq!(own::seam().unwrap_err().kind(), ErrorKind::NotConnected);
}
