//! pelton
