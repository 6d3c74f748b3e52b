//! pelton-http
