//! What the file server does with a request before it opens a file, and how it plans the answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pelton_cli::fuzzing::request(bytes));
