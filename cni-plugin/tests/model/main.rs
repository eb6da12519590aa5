//! A thousand calls of the built plugin in random order, several at once and some of them killed, on real
//! namespaces: after each, the kernel and the reservations must be as a model of what ADD, DEL, CHECK and GC
//! promise says. Runs as root.
//!
//! `WEFT_MODEL_SEED=7 cargo test -p weft-cni --test model` repeats the sequence of seed 7; with
//! `WEFT_MODEL_STEPS=20` only its beginning. The order of the calls is the same then; the instants of kills
//! are so only where strace does the killing. `WEFT_MODEL_SEQUENCES=1000` makes as many sequences.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod call;
mod model;
mod node;
mod walk;

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use walk::walk;

/// Steps of each sequence. A step is one to three calls.
const STEPS: u64 = 110;
/// Sequences, each on a node of its own.
const SEQUENCES: u64 = 5;
/// So many are made at once: most of the time is the kernel's wait for links that go.
const AT_ONCE: usize = 5;

#[test]
fn whatever_is_called_and_killed_only_what_must_exist_exists() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let steps = number("WEFT_MODEL_STEPS").unwrap_or(STEPS);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let seeds = match number("WEFT_MODEL_SEED") {
        Some(seed) => vec![seed],
        // The last is another one each time.
        None => (1..number("WEFT_MODEL_SEQUENCES").unwrap_or(SEQUENCES)).chain([u64::from(clock)]).collect(),
    };
    let todo = Mutex::new(seeds.iter());
    let next = || todo.lock().unwrap().next();
    let work = || {
        let mut calls = 0;
        while let Some(seed) = next() {
            calls += walk(*seed, steps);
        }
        calls
    };
    // All of them end before one that failed ends the test: namespaces of a walk that is cut off would stay.
    let calls: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        let count = |outcome: thread::Result<usize>| outcome.unwrap_or_else(|panic| resume_unwind(panic));
        outcomes.into_iter().map(count).sum()
    });
    println!("{} sequences, the last of seed {clock}: {calls} calls", seeds.len());
}
