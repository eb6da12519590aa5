//! A name as the rules of a Corefile see it: dotted, in lower case, with its last dot. On the stack.

use crate::wire::name::{QueryName, labels};

/// A name of 255 bytes, each of which may take four.
const LONGEST: usize = 1024;

/// The name.
pub(super) struct Text {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Text {
    /// That name. A byte that is no visible character, and a dot or backslash within a label, is written as
    /// in master files (RFC 1035 section 5.1).
    pub(super) fn of(name: &QueryName) -> Text {
        let mut text = Text { bytes: [0; LONGEST], length: 0 };
        for label in labels(name.wire(0, name.len())) {
            for &byte in label {
                match byte {
                    b'.' | b'\\' => {
                        text.push(b'\\');
                        text.push(byte);
                    }
                    b'!'..=b'~' => text.push(byte),
                    _ => {
                        text.push(b'\\');
                        [byte / 100, byte / 10 % 10, byte % 10]
                            .iter()
                            .for_each(|digit| text.push(b'0' + digit));
                    }
                }
            }
            text.push(b'.');
        }
        if text.length == 0 {
            text.push(b'.');
        }
        text
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    /// As text.
    pub(super) fn as_str(&self) -> &str {
        // All bytes are ASCII.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_bytes_are_escaped() {
        let name = QueryName::from_wire(b"\x04a.\\\x07\x07EXAMPLE").unwrap();
        assert_eq!(Text::of(&name).as_str(), "a\\.\\\\\\007.example.");
        assert_eq!(Text::of(&QueryName::root()).as_str(), ".");
        let longest = QueryName::from_wire(&[&[63][..], &[1; 63]].concat().repeat(3)).unwrap();
        assert_eq!(Text::of(&longest).as_str().len(), 3 * (63 * 4 + 1));
    }
}
