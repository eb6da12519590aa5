//! Which names a message holds already, so that others can point to them (RFC 1035 section 4.1.4).

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::wire::format::HEADER;

/// The bits that make an offset a pointer, which leads no further.
pub(super) const POINTER: u16 = 0xc000;
/// So many names are found without a table.
const FEW: usize = 16;

/// Where the names are. Each is also the end of those that begin before it.
pub(super) struct Names {
    root: usize,
    /// Whether those of the question are noted: they are not, until a name is looked for.
    is_begun: bool,
    few: [u16; FEW],
    count: usize,
    /// All above the first few.
    many: Option<Box<Many>>,
}

#[derive(Default)]
struct Many {
    places: HashTable<Place>,
    hasher: DefaultHashBuilder,
}

/// Where a name is, and the hash of how it reads.
struct Place {
    hash: u64,
    offset: u16,
}

impl Names {
    /// None but the name of the question, of which the message has the root at `root`.
    pub(super) fn new(root: usize) -> Names {
        Names { root, is_begun: false, few: [0; FEW], count: 0, many: None }
    }

    /// A pointer to the name that reads so: labels without the root.
    pub(super) fn find(&mut self, message: &[u8], name: &[u8]) -> Option<u16> {
        if !self.is_begun {
            self.begin(message);
        }
        // Most differ in the length of their first label, or in its first letter.
        let start = name.first_chunk::<2>();
        let may_read_so = |place: usize| message.get(place..place + 2).and_then(<[u8]>::first_chunk) == start;
        for &offset in &self.few[..self.count] {
            if may_read_so(usize::from(offset)) && is_at(message, offset, name) {
                return Some(POINTER | offset);
            }
        }
        let many = self.many.as_deref()?;
        let hash = many.hasher.hash_one(name);
        let reads_so = |place: &Place| place.hash == hash && is_at(message, place.offset, name);
        many.places.find(hash, reads_so).map(|place| POINTER | place.offset)
    }

    /// A name begins at that place of the message.
    pub(super) fn note(&mut self, place: usize, name: &[u8]) {
        let Some(offset) = u16::try_from(place).ok().filter(|&offset| offset <= !POINTER) else { return };
        if self.count < FEW {
            self.few[self.count] = offset;
            self.count += 1;
            return;
        }
        let many = self.many.get_or_insert_default();
        let hash = many.hasher.hash_one(name);
        many.places.insert_unique(hash, Place { hash, offset }, |place| place.hash);
    }

    /// Notes the name of the question and its ends.
    fn begin(&mut self, message: &[u8]) {
        self.is_begun = true;
        let mut place = HEADER;
        while let Some(&length) = message.get(place).filter(|_| place < self.root) {
            self.note(place, &message[place..self.root]);
            place += 1 + usize::from(length);
        }
    }
}

/// Whether the name at that place of a message reads so: labels without the root. One that is not whole yet
/// does not.
fn is_at(message: &[u8], place: u16, labels: &[u8]) -> bool {
    let mut name = message.get(usize::from(place)..).unwrap_or_default();
    let mut labels = labels;
    loop {
        match *name {
            [0, ..] => return labels.is_empty(),
            [high @ 0xc0..=0xff, low, ..] => {
                let place = u16::from_be_bytes([high, low]) & !POINTER;
                name = message.get(usize::from(place)..).unwrap_or_default();
            }
            [length, ..] => {
                let Some((label, rest)) = name.split_at_checked(1 + usize::from(length)) else {
                    return false;
                };
                let Some(others) = labels.strip_prefix(label) else { return false };
                (name, labels) = (rest, others);
            }
            [] => return false,
        }
    }
}
