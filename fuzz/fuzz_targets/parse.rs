//! What the driver reads that others have written: addresses, changes in a directory, and the text of a simulation to
//! play again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match bytes.split_first() {
    Some((0, rest)) => pelton_driver::fuzzing::replay(rest),
    Some((2, rest)) => pelton_driver::fuzzing::changes(rest),
    Some((_, rest)) => pelton_driver::fuzzing::address(rest),
    None => {}
});
