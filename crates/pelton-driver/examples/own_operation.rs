//! Operations that Pelton has never heard of, in its own slots: a timer descriptor that is read when it is ready,
//! on every backend, and on io_uring bytes that are spliced from one pipe into another by a submission entry;
//! on Windows the overlapped calls of a named pipe.
//!
//! ```sh
//! cargo run -p pelton-driver --example own_operation
//! PELTON_BACKEND=epoll cargo run -p pelton-driver --example own_operation
//! ```

#[cfg(target_os = "linux")]
#[path = "own_operation/linux.rs"]
mod native;

#[cfg(windows)]
#[path = "own_operation/windows.rs"]
mod native;

#[cfg(any(target_os = "linux", windows))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    native::run(&pelton_driver::Driver::new(pelton_driver::Config::default())?)
}

#[cfg(not(any(target_os = "linux", windows)))]
fn main() {
    println!(
        "this example uses a timer descriptor and a splice, or a named pipe: it needs Linux or Windows"
    );
}
