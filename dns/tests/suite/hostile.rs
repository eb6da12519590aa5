//! Hostile datagrams: a corpus of odd ones, and as many more as a seed makes of them; what must be said to
//! some, by name. `dns/fuzz` gives the same corpus and the same entry function to cargo-fuzz.
//!
//! `WEFT_FUZZ_SEED=7 WEFT_FUZZ_ROUNDS=1000000 cargo test -p weft-dns --test suite hostile` goes on with
//! others.

#[path = "../../fuzz/entry/datagram.rs"]
mod datagram;

use std::fs;
use std::panic::{catch_unwind, resume_unwind};
use std::path::Path;
use std::thread;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use weft_dns::pipeline::parse::{Parsed, parse};
use weft_dns::wire::format::Transport;
use weft_testkit::dice::Dice;

use crate::fixture::{ask_message, query, zone};

/// So many datagrams are made of the corpus where nobody asks for more: half of them by each of two threads.
const ROUNDS: u64 = 1_000_000;
/// So many changes are made of one at most.
const CHANGES: usize = 4;
/// Values at which parsers stumble: lengths of labels, pointers, counts.
const EXTREMES: [&[u8]; 8] =
    [b"\0", b"\x3f", b"\x40", b"\xc0\x0c", b"\xc0\0", b"\xff\xff", b"\0\0\x29", b"\0\x29\x10\0\0\0\0\0\0\0"];

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/datagram");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // A seed means the same datagrams everywhere.
    paths.sort();
    let named = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.into_iter().map(|path| (named(&path), fs::read(path).unwrap())).collect()
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn attempt(datagram: &[u8]) {
    if let Err(panic) = catch_unwind(|| datagram::run(datagram)) {
        eprintln!("To be added to fuzz/corpus/datagram, escaped:\n{}", datagram.escape_ascii());
        resume_unwind(panic);
    }
}

/// One datagram of the corpus, changed.
fn mutated(dice: &mut Dice, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = dice.pick(corpus).1.clone();
    for _ in 0..=dice.below(CHANGES) {
        if dice.one_in(40) {
            bytes.clone_from(&dice.pick(corpus).1);
        }
        if bytes.is_empty() {
            continue;
        }
        let place = dice.below(bytes.len());
        match dice.below(8) {
            0 => bytes[place] = dice.below(256) as u8,
            1 => bytes[place] ^= 1 << dice.below(8),
            // The header's counts and flags decide most of what is read.
            2 => bytes[place.min(11)] ^= 1 << dice.below(3),
            3 => bytes.truncate(place),
            4 => drop(bytes.splice(place..place, dice.pick(&EXTREMES).iter().copied())),
            5 => {
                let extreme = dice.pick(&EXTREMES);
                let end = (place + extreme.len()).min(bytes.len());
                drop(bytes.splice(place..end, extreme.iter().copied()));
            }
            6 => bytes.extend_from_slice(&dice.pick(corpus).1[..]),
            _ => bytes[place] = bytes[place].to_ascii_uppercase(),
        }
    }
    bytes
}

#[test]
fn whatever_comes_is_answered_alike_and_well_and_leaves_nothing_behind() {
    let (corpus, rounds) = (corpus(), number("WEFT_FUZZ_ROUNDS", ROUNDS) / 2);
    let many = |seed| {
        corpus.iter().for_each(|(_, datagram)| attempt(datagram));
        let mut dice = Dice::new(seed);
        // What is kept once for all is there by now.
        let used = allocation_counter::measure(|| {
            (0..rounds).for_each(|_| attempt(&mutated(&mut dice, &corpus)));
        });
        assert_eq!((used.count_current, used.bytes_current), (0, 0), "after {rounds} datagrams");
    };
    let seed = number("WEFT_FUZZ_SEED", 1);
    thread::scope(|threads| {
        let other = threads.spawn(|| many(seed + 1));
        many(seed);
        other.join().unwrap_or_else(|panic| resume_unwind(panic));
    });
}

#[test]
fn oddities_are_answered_as_they_should_be() {
    let zone = zone();
    let code_of = |name: &str, bytes: &[u8]| match parse(bytes, Transport::Udp) {
        Parsed::Ignored => None,
        Parsed::Rejected(reply) => Some(Message::from_vec(&reply).unwrap().metadata.response_code),
        Parsed::Question(_) => {
            let message = Message::from_vec(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            Some(ask_message(&zone, &message).metadata.response_code)
        }
    };
    let expected = [
        ("answer", None),
        ("too-short", None),
        ("two-opts", Some(ResponseCode::FormErr)),
        // RFC 6891 section 6.1.1: OPT stands among the additional records.
        ("opt-as-answer", Some(ResponseCode::FormErr)),
        ("opt-as-authority", Some(ResponseCode::FormErr)),
        ("opt-version-1", Some(ResponseCode::BADVERS)),
        ("opt-cut-off", Some(ResponseCode::FormErr)),
        ("opt-not-at-root", Some(ResponseCode::FormErr)),
        ("compression-loop", Some(ResponseCode::FormErr)),
        ("compression-ahead", Some(ResponseCode::FormErr)),
        ("name-of-256-bytes", Some(ResponseCode::FormErr)),
        ("label-of-64-bytes", Some(ResponseCode::FormErr)),
        ("two-questions", Some(ResponseCode::FormErr)),
        ("no-question", Some(ResponseCode::FormErr)),
        ("more-counted-than-there", Some(ResponseCode::FormErr)),
        ("update", Some(ResponseCode::NotImp)),
        ("class-any", Some(ResponseCode::Refused)),
        ("transfer", Some(ResponseCode::Refused)),
        // The suite's cluster has no such name.
        ("payload-of-0", Some(ResponseCode::NXDomain)),
        ("payload-of-65535", Some(ResponseCode::NXDomain)),
        ("name-of-255-bytes", Some(ResponseCode::NXDomain)),
    ];
    let corpus = corpus();
    for (name, code) in expected {
        let (_, bytes) = corpus.iter().find(|(file, _)| file == name).unwrap_or_else(|| panic!("no {name}"));
        // As numbers: TSIG's BADSIG is BADVERS too.
        assert_eq!(code_of(name, bytes).map(u16::from), code.map(u16::from), "{name}");
    }
    // The plain query with which all of these begin.
    let plain = query("web.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    assert!(corpus.iter().any(|(_, bytes)| *bytes == plain));
}
