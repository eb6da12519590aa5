//! The BGP speaker against Debian's routing daemons, each in a network namespace of its own beside the node.
//! Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod bird;
mod frr;
mod gobgp;
mod world;

#[path = "../../fuzz/entry/message.rs"]
mod message;

use std::fs;
use std::path::Path;

#[test]
fn what_once_was_found_by_fuzzing_is_read_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/message");
    let inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(inputs.len() >= 5);
    for input in inputs {
        message::run(&fs::read(input).unwrap());
    }
}
