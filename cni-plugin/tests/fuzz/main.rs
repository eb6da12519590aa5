//! The fuzzers' entry functions on their corpora, and on inputs made out of these by a seed: bounded, for
//! every test run. `cni-plugin/fuzz` gives the same functions and corpora to cargo-fuzz.
//!
//! `WEFT_FUZZ_SEED=7 WEFT_FUZZ_ROUNDS=1000000 cargo test -p weft-cni --test fuzz` goes on with others.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

#[path = "../../fuzz/entry/call.rs"]
mod call;
mod mutation;
#[path = "../../fuzz/entry/records.rs"]
mod records;

use std::fs;
use std::panic::{catch_unwind, resume_unwind};
use std::path::Path;

use mutation::Corpus;
use weft_testkit::dice::Dice;

fn corpus(name: &str) -> Corpus {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // A seed means the same inputs everywhere.
    paths.sort();
    Corpus::new(paths.into_iter().map(|path| fs::read(path).unwrap()).collect())
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn fuzz(name: &str, entry: fn(&[u8]), rounds: u64) {
    let corpus = corpus(name);
    let attempt = |input: &[u8]| {
        if let Err(panic) = catch_unwind(|| entry(input)) {
            eprintln!("To be added to fuzz/corpus/{name}, escaped:\n{}", input.escape_ascii());
            resume_unwind(panic);
        }
    };
    corpus.inputs.iter().for_each(|input| attempt(input));
    let mut dice = Dice::new(number("WEFT_FUZZ_SEED", 1));
    for _ in 0..number("WEFT_FUZZ_ROUNDS", rounds) {
        attempt(&corpus.mutated(&mut dice));
    }
}

#[test]
fn any_call_is_answered_by_the_protocol() {
    fuzz("call", call::run, 20_000);
}

#[test]
fn any_folder_of_records_gives_addresses_once_and_takes_them_back() {
    fuzz("records", records::run, 2_000);
}
