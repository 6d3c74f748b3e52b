//! The server and hyper's bridge over TCP, each behaviour by the same test on every backend: which
//! connections are kept and which are not, how a server ends, and what passes through the bridge.

mod bridge;
mod client;
mod ending;
#[path = "../../../pelton/tests/common/mod.rs"]
mod runtime;
mod serving;
