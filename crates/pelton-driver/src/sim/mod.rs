//! A simulated operating system under the rooms.

pub(crate) mod calls;
