//! Names in canonical wire form: lower case, uncompressed, without the closing root byte. What they mean is
//! decided elsewhere.

use hickory_proto::ProtoError;
use hickory_proto::rr::Name;
use thiserror::Error;

/// The longest name without its root byte (RFC 1035 section 3.1: 255 bytes with it).
const LONGEST: usize = 254;
/// A name of one-letter labels has this many.
const MOST_LABELS: usize = LONGEST / 2;
/// The longest label (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// A name or label that the wire form cannot hold.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// A label is empty or longer than 63 bytes.
    #[error("a label of {0:?} is empty or longer than 63 bytes")]
    Label(String),
    /// The whole is longer than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    Length,
}

/// A name as it is looked up: on the stack, in lower case, with the starts of its labels at hand.
#[derive(Clone)]
pub struct QueryName {
    bytes: [u8; LONGEST],
    starts: [u8; MOST_LABELS],
    length: u8,
    labels: u8,
}

impl QueryName {
    /// The root.
    pub fn root() -> QueryName {
        QueryName { bytes: [0; LONGEST], starts: [0; MOST_LABELS], length: 0, labels: 0 }
    }

    /// The name of a decoded question. Fails only where the name is longer than a message can carry.
    pub fn from_name(name: &Name) -> Result<QueryName, NameError> {
        let mut this = QueryName::root();
        name.iter().try_for_each(|label| this.push(label))?;
        Ok(this)
    }

    /// The name of stored labels, such as an alias's target.
    pub fn from_wire(wire: &[u8]) -> Result<QueryName, NameError> {
        let mut this = QueryName::root();
        labels(wire).try_for_each(|label| this.push(label))?;
        Ok(this)
    }

    /// Appends the uncompressed name at the start of `message`, and returns what follows its root byte. In
    /// place: a name is too large to be handed around for each question.
    pub fn read<'m>(&mut self, mut message: &'m [u8]) -> Option<&'m [u8]> {
        loop {
            let (&length, rest) = message.split_first()?;
            if length == 0 {
                return Some(rest);
            }
            // The length of a compressed label is over 63, which `push` refuses.
            let (label, rest) = rest.split_at_checked(usize::from(length))?;
            self.push(label).ok()?;
            message = rest;
        }
    }

    fn push(&mut self, label: &[u8]) -> Result<(), NameError> {
        let start = usize::from(self.length);
        let end = start + 1 + label.len();
        if label.is_empty() || label.len() > LONGEST_LABEL || end > LONGEST {
            return Err(NameError::Length);
        }
        let (length, letters) = self.bytes[start..end].split_at_mut(1);
        length[0] = label.len() as u8;
        letters.copy_from_slice(label);
        letters.make_ascii_lowercase();
        self.starts[usize::from(self.labels)] = self.length;
        self.labels += 1;
        self.length = end as u8;
        Ok(())
    }

    /// How many labels there are; none for the root.
    pub fn len(&self) -> usize {
        usize::from(self.labels)
    }

    /// Whether this is the root.
    pub fn is_empty(&self) -> bool {
        self.labels == 0
    }

    /// The text of one label, the leftmost being number 0.
    ///
    /// # Panics
    /// Where there is no such label.
    pub fn label(&self, number: usize) -> &[u8] {
        &self.wire(number, number + 1)[1..]
    }

    /// The labels `from..to` in wire form.
    ///
    /// # Panics
    /// Where there are no such labels.
    pub fn wire(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[self.offset(from)..self.offset(to)]
    }

    fn offset(&self, number: usize) -> usize {
        if number < self.len() { usize::from(self.starts[number]) } else { usize::from(self.length) }
    }
}

/// The labels of a name in wire form, from the left.
pub fn labels(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    std::iter::from_fn(move || {
        let (&length, rest) = wire.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        wire = rest;
        Some(label)
    })
}

/// One label in wire form, in lower case.
pub fn wire_label(text: &str) -> Result<Box<[u8]>, NameError> {
    if text.is_empty() || text.len() > LONGEST_LABEL {
        return Err(NameError::Label(text.to_owned()));
    }
    let mut wire = vec![text.len() as u8];
    wire.extend(text.bytes().map(|byte| byte.to_ascii_lowercase()));
    Ok(wire.into())
}

/// A dotted name in wire form, in lower case, with or without its last dot. Knows no escapes: Kubernetes has
/// none.
pub fn wire_name(text: &str) -> Result<Box<[u8]>, NameError> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut wire = Vec::with_capacity(text.len() + 1);
    for label in text.split('.') {
        wire.extend_from_slice(&wire_label(label)?);
    }
    if wire.len() > LONGEST {
        return Err(NameError::Length);
    }
    Ok(wire.into())
}

/// The message codec's form of a name whose wire form is the concatenation of `parts`.
pub fn to_name(parts: &[&[u8]]) -> Result<Name, ProtoError> {
    Name::from_labels(parts.iter().flat_map(|part| labels(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_name_is_lower_case_and_sliced_by_label() {
        let name =
            QueryName::from_name(&Name::from_ascii("BackEnd.Shop.svc.cluster.local.").unwrap()).unwrap();
        assert_eq!(name.len(), 5);
        assert_eq!(name.label(0), b"backend");
        assert_eq!(name.wire(0, 2), b"\x07backend\x04shop");
        assert_eq!(name.wire(4, 5), b"\x05local");
        assert_eq!(name.wire(5, 5), b"");
    }

    #[test]
    fn a_name_goes_to_the_codec_and_back() {
        let wire = wire_name("Backend.shop.svc.").unwrap();
        let name = to_name(&[&wire, b"\x07cluster", b"\x05local"]).unwrap();
        assert_eq!(name.to_ascii(), "backend.shop.svc.cluster.local.");
        assert_eq!(QueryName::from_wire(&wire).unwrap().wire(0, 3), &*wire);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        for text in ["", ".", "a..b", ".a", &"x".repeat(64)] {
            assert!(wire_name(text).is_err(), "{text:?}");
        }
        assert_eq!(wire_name(&"abc.".repeat(64)), Err(NameError::Length));
    }

    #[test]
    fn the_longest_names_fit() {
        let one_letter = "a.".repeat(MOST_LABELS);
        let name = QueryName::from_name(&Name::from_ascii(&one_letter).unwrap()).unwrap();
        assert_eq!((name.len(), name.wire(0, MOST_LABELS).len()), (MOST_LABELS, LONGEST));
    }
}
