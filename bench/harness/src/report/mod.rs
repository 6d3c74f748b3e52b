//! Results: the data, and what is made of it for people.

pub(crate) mod files;
pub(crate) mod losses;
pub(crate) mod model;
pub(crate) mod modes;
pub(crate) mod plot;
pub(crate) mod progress;
pub(crate) mod table;
