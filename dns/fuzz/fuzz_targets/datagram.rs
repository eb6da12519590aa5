//! `cargo fuzz run datagram`: see `entry/datagram.rs`.

#![no_main]

#[path = "../entry/datagram.rs"]
mod datagram;

libfuzzer_sys::fuzz_target!(|input: &[u8]| datagram::run(input));
