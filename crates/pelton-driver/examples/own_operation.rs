//! Operations that Pelton has never heard of, in its own slots: a timer descriptor that is read when it is ready,
//! on every backend, and on io_uring bytes that are spliced from one pipe into another by a submission entry.
//!
//! ```sh
//! cargo run -p pelton-driver --example own_operation
//! PELTON_BACKEND=epoll cargo run -p pelton-driver --example own_operation
//! ```

#[cfg(target_os = "linux")]
#[path = "own_operation/linux.rs"]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::run(&pelton_driver::Driver::new(pelton_driver::Config::default())?)
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this example uses a timer descriptor and a splice: it needs Linux");
}
