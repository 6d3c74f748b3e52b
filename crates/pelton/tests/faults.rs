//! Faults that no call returns to anyone: the hook of the runtime is told of them.
#![cfg(target_os = "linux")]

#[path = "../../pelton-driver/tests/common/kernel.rs"]
mod kernel;

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use common::*;
use kernel::with_answers;
use pelton::{Builder, Fault};

/// How many waits the kernel refuses, one after another.
const REFUSED: usize = 3;

/// Refuses waits, and lets a peer speak as it refuses the last: what waits for the peer cannot end before.
struct Refusing {
    left: usize,
    peer: TcpStream,
}

#[test]
fn a_wait_that_the_kernel_refuses_is_told_to_the_hook_and_the_reactor_goes_on() {
    on_each_backend(|backend| {
        let refusing = Mutex::new(None::<Refusing>);
        with_answers(
            &[libc::SYS_io_uring_enter, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2],
            |_| {
                let mut refusing = refusing.lock().unwrap();
                let Refusing { left, peer } = refusing.as_mut()?;
                *left = left.checked_sub(1)?;
                if *left == 0 {
                    peer.write_all(b"hello").unwrap();
                }
                Some(libc::ENXIO)
            },
            || {
                let told = Arc::new(Mutex::new(Vec::new()));
                let hook = told.clone();
                let builder = Builder::new().backend(backend).on_fault(move |fault| {
                    hook.lock().unwrap().push(match fault {
                        Fault::Wait(error) => Ok(error.raw_os_error()),
                        other => Err(other.to_string()),
                    });
                });
                builder.build().unwrap().block_on(async {
                    let (stream, peer) = pair_with_std().await;
                    *refusing.lock().unwrap() = Some(Refusing { left: REFUSED, peer });
                    assert_eq!(read_n(&stream, 5).await, b"hello");
                });
                let left = refusing.lock().unwrap().take().map(|refusing| refusing.left);
                assert_eq!(left, Some(0), "all of them were refused");
                let each = vec![Ok(Some(libc::ENXIO)); REFUSED];
                assert_eq!(*told.lock().unwrap(), each, "each once, with its cause");
            },
        );
    });
}
