//! `cargo fuzz run records`: see `entry/records.rs`.

#![no_main]

#[path = "../entry/records.rs"]
mod records;

libfuzzer_sys::fuzz_target!(|input: &[u8]| records::run(input));
