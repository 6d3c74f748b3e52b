//! The real program, started on a port of its own, and clients that talk to it over TCP: what is
//! served, how connections live and end, and what happens under pressure. Each behaviour is shown
//! on each backend by the same test.

#![cfg(target_os = "linux")]

mod client;
mod connections;
mod ending;
mod files;
mod pressure;
mod server;
mod starting;

/// Makes a test for each backend of each function that is named.
macro_rules! on_each_backend {
    ($($name:ident)+) => {
        mod io_uring {
            $(#[test]
            fn $name() {
                if crate::io_uring_works(stringify!($name)) {
                    super::$name("io_uring");
                }
            })+
        }

        mod epoll {
            $(#[test]
            fn $name() {
                super::$name("epoll");
            })+
        }
    };
}
pub(crate) use on_each_backend;

/// Whether io_uring works here. Where it does not, says which test is skipped, past the capture of
/// the test harness, so that nobody takes a skip for a pass.
fn io_uring_works(test: &str) -> bool {
    use std::io::Write;
    let found = pelton::driver::probe::diagnose().io_uring;
    if !found.works {
        let reason = found.reason.unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "skipped: {test} on io_uring: {reason}");
    }
    found.works
}
