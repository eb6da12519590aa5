//! `cargo fuzz run message`: see `entry/message.rs`.

#![no_main]

#[path = "../entry/message.rs"]
mod message;

libfuzzer_sys::fuzz_target!(|input: &[u8]| message::run(input));
