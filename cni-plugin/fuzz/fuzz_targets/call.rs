//! `cargo fuzz run call`: see `entry/call.rs`.

#![no_main]

#[path = "../entry/call.rs"]
mod call;

libfuzzer_sys::fuzz_target!(|input: &[u8]| call::run(input));
