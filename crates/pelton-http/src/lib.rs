//! hyper on Pelton: the bridge to hyper's `rt` traits, and a server for tower services, one for each
//! reactor.
//!
//! An axum application runs unchanged; the line that serves it is this one:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use pelton::net::{TcpListener, TcpStream};
//!
//! # fn main() -> std::io::Result<()> {
//! pelton::block_on(async {
//!     let listener = TcpListener::bind("127.0.0.1:0").await?;
//!     let address = listener.local_addr()?;
//!     let app = pelton_http::service_fn(|_request: Request<hyper::body::Incoming>| async {
//!         Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("hello"))))
//!     });
//!     pelton::spawn(pelton_http::serve(listener, app)).detach();
//! #   let client = TcpStream::connect(address).await?;
//! #   client.send_all("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
//! #   let answer = client.recv().await?.unwrap();
//! #   assert!(answer.starts_with(b"HTTP/1.1 200"));
//!     Ok(())
//! })
//! # }
//! ```

mod bridge;
mod server;

pub use bridge::{Executor, Io, Timer};
pub use server::{Served, Server, ServiceFn, serve, service_fn};
