//! Scripts of operations on the simulator.
#![no_main]

#[path = "../../crates/pelton-driver/tests/scripts/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    body::run(bytes);
});
