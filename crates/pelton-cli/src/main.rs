//! The `pelton` program.
#![allow(dead_code)]

mod access_log;
mod admin;
mod app;
mod body;
mod cache;
mod conditional;
mod connection;
mod date;
mod encoding;
mod exchange;
mod files;
mod listing;
mod path;
mod range;
mod response;
mod root;
mod runtime;
#[cfg(test)]
mod testing;
mod watch;

fn main() {}
