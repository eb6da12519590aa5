//! A thousand calls of the built plugin in random order, several at once and some of them killed, on real namespaces: after
//! each, the kernel and the reservations must be as a model of what ADD, DEL, CHECK and GC promise says. Runs as root.
//!
//! `WEFT_MODEL_SEED=7 cargo test -p weft-cni --test model` repeats the sequence of seed 7; with `WEFT_MODEL_STEPS=20`
//! only its beginning. The order of the calls is the same then; the instants of kills are so only where strace does
//! the killing.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod call;
mod dice;
mod model;
mod node;
mod walk;

use std::time::{SystemTime, UNIX_EPOCH};

use walk::walk;

/// Steps of each sequence. A step is one to three calls.
const STEPS: usize = 110;

#[test]
fn whatever_is_called_and_killed_only_what_must_exist_exists() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let steps = number("WEFT_MODEL_STEPS").map_or(STEPS, |steps| steps as usize);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let seeds = match number("WEFT_MODEL_SEED") {
        Some(seed) => vec![seed],
        // The last is another one each time.
        None => vec![1, 2, 3, 4, u64::from(clock)],
    };
    let walks: Vec<_> =
        seeds.into_iter().map(|seed| std::thread::spawn(move || (seed, walk(seed, steps)))).collect();
    let mut calls = 0;
    for walk in walks {
        let (seed, count) = walk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        println!("seed {seed}: {count} calls");
        calls += count;
    }
    println!("{calls} calls");
}
