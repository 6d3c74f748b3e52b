//! Scripts of operations on the simulator: those that the fuzzer's corpus keeps, and random ones.
//!
//! `cargo xtask fuzz script` looks for more of them. Under Miri these tests run the whole driver, io_uring's
//! room and epoll's, with every access to memory checked.
#![cfg(feature = "sim")]

#[path = "scripts/body.rs"]
mod body;

use std::path::Path;

/// A small generator (xorshift), so that a failure is the same one tomorrow.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn script(number: u64, most: u64) -> Vec<u8> {
    let mut state = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let len = 8 + random(&mut state) % most;
    (0..len).map(|_| (random(&mut state) >> 32) as u8).collect()
}

#[test]
fn the_scripts_of_the_corpus_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/script");
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty(), "{} is empty", folder.display());
    names.truncate(if cfg!(miri) { 4 } else { usize::MAX });
    for name in names {
        println!("{}", name.display());
        body::run(&std::fs::read(&name).unwrap());
    }
}

#[test]
fn random_scripts_hold_and_do_the_same_again() {
    let (scripts, most) = if cfg!(miri) { (12, 80) } else { (3000, 600) };
    let scripts = std::env::var("PELTON_SCRIPTS").map_or(scripts, |n| n.parse().expect("a number"));
    for number in 0..scripts {
        println!("random script {number}");
        let script = script(number, most);
        let first = body::run(&script);
        if number % 8 == 0 && !cfg!(miri) {
            assert_eq!(first, body::run(&script), "the same bytes did two things");
        }
    }
}
