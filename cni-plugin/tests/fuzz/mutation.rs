//! Inputs out of inputs: bytes, spans and words of a corpus, changed, dropped, doubled and put where others
//! stood.

use weft_testkit::dice::Dice;

/// Values at which parsers stumble.
const EXTREMES: [&str; 22] = [
    "0",
    "-1",
    "1e400",
    "4294967296",
    "18446744073709551615",
    "null",
    "true",
    "\"\"",
    "[]",
    "{}",
    "[[]]",
    "::/0",
    "0.0.0.0/0",
    "255.255.255.255",
    "::ffff:10.1.0.3",
    "\0",
    "\r\n",
    "\u{fffd}",
    "\\ud800",
    "..",
    "{\"a\":",
    "\n\n",
];
/// So many changes are made at most.
const CHANGES: usize = 6;
/// The longest span that is dropped or doubled, in bytes.
const SPAN: usize = 40;

/// The inputs to begin with, and the words in them.
pub(crate) struct Corpus {
    pub(crate) inputs: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Corpus {
    pub(crate) fn new(inputs: Vec<Vec<u8>>) -> Corpus {
        let found = inputs
            .iter()
            .flat_map(|input| spans(input).into_iter().map(|(from, to)| input[from..to].to_vec()));
        let mut words: Vec<Vec<u8>> =
            found.chain(EXTREMES.iter().map(|word| word.as_bytes().to_vec())).collect();
        words.sort();
        words.dedup();
        Corpus { inputs, words }
    }

    /// One of the inputs, changed.
    pub(crate) fn mutated(&self, dice: &mut Dice) -> Vec<u8> {
        let mut input = dice.pick(&self.inputs).clone();
        for _ in 0..=dice.below(CHANGES) {
            self.change(dice, &mut input);
        }
        input
    }

    fn change(&self, dice: &mut Dice, input: &mut Vec<u8>) {
        if dice.one_in(2) {
            return self.replace_a_word(dice, input);
        }
        let place = dice.below(input.len() + 1);
        let span = place..(place + dice.below(SPAN)).min(input.len());
        match dice.below(5) {
            0 if place < input.len() => input[place] = dice.below(256) as u8,
            0 | 1 => drop(input.drain(span)),
            2 => {
                let copy = input[span].to_vec();
                insert(input, place, &copy);
            }
            3 => insert(input, place, dice.pick::<Vec<u8>>(&self.words)),
            _ => {
                let other = dice.pick(&self.inputs);
                let from = dice.below(other.len() + 1);
                insert(input, place, &other[from..(from + dice.below(4 * SPAN)).min(other.len())]);
            }
        }
    }

    /// What stays is mostly well-formed, so that it gets past the first parser.
    fn replace_a_word(&self, dice: &mut Dice, input: &mut Vec<u8>) {
        let spans = spans(input);
        if !spans.is_empty() {
            let (from, to) = *dice.pick(&spans);
            input.splice(from..to, dice.pick(&self.words).iter().copied());
        }
    }
}

fn insert(input: &mut Vec<u8>, place: usize, bytes: &[u8]) {
    input.splice(place..place, bytes.iter().copied());
}

/// Where the words are: runs of letters, digits and what stands inside addresses and names.
fn spans(input: &[u8]) -> Vec<(usize, usize)> {
    let is_inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"./:_-@".contains(byte);
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for (place, _) in input.iter().enumerate().filter(|(_, byte)| is_inside(byte)) {
        match spans.last_mut() {
            Some((_, to)) if *to == place => *to += 1,
            _ => spans.push((place, place + 1)),
        }
    }
    spans
}
