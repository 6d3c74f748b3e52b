//! What must not compile: each of these programs takes something of a reactor's to another thread.
//!
//! ```compile_fail,E0277
//! fn send<T: Send>(_: T) {}
//! fn stream(stream: pelton::net::TcpStream) {
//!     send(stream);
//! }
//! ```
//!
//! ```compile_fail,E0277
//! fn send<T: Send>(_: T) {}
//! fn future(stream: &'static pelton::net::TcpStream) {
//!     send(stream.recv());
//! }
//! ```
//!
//! ```compile_fail,E0277
//! async fn task() -> std::io::Result<()> {
//!     let stream = pelton::net::TcpStream::connect("127.0.0.1:1").await?;
//!     stream.send_all("bytes").await
//! }
//! fn elsewhere(handle: &pelton::Handle) {
//!     // `spawn_with` takes a closure that makes it there.
//!     handle.spawn(task()).detach();
//! }
//! ```
//!
//! ```compile_fail,E0277
//! fn thread(runtime: pelton::Runtime) {
//!     std::thread::spawn(move || runtime.run());
//! }
//! ```
//!
//! ```compile_fail,E0277
//! fn thread(lease: pelton::Lease) {
//!     std::thread::spawn(move || lease.len());
//! }
//! ```
//!
//! And these do compile, so that it is not for another reason that those do not:
//!
//! ```
//! fn send<T: Send>(_: T) {}
//! async fn task() -> std::io::Result<()> {
//!     let stream = pelton::net::TcpStream::connect("127.0.0.1:1").await?;
//!     stream.send_all("bytes").await
//! }
//! fn elsewhere(handle: &pelton::Handle) {
//!     handle.spawn_with(task).detach();
//!     send(handle.clone());
//! }
//! fn thread(lease: pelton::Lease) {
//!     let bytes = lease.to_vec();
//!     std::thread::spawn(move || bytes.len());
//! }
//! ```
