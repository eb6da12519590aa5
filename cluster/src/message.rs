//! Messages of Kubernetes' API in protobuf, trimmed to the fields that are read, and how their bytes are
//! taken apart (<https://protobuf.dev/programming-guides/encoding/>). What the fields mean is said by the
//! kinds.

use std::fmt;

/// The fields that are read of a message: number and type as `generated.proto` of the API has them, and the
/// name in JSON.
pub(crate) type Message = &'static [(u64, &'static str, Type)];

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Type {
    /// A string.
    Text,
    /// An int32 or int64.
    Number,
    /// A bool.
    Flag,
    /// A Time or MicroTime of `meta/v1`.
    Time,
    /// A message.
    Nested(Message),
    /// A repeated field.
    List(&'static Type),
    /// A map of strings to strings.
    Map,
}

/// The value of a field as it stands in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The bytes are no message: they end within a field, or hold what Kubernetes does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotWellFormed;

impl fmt::Display for NotWellFormed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("protobuf that is not well-formed")
    }
}

/// The fields of a message one after the other, known and unknown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field: its number and value.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Raw<'a>)>, NotWellFormed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        self.field().map(Some).ok_or(NotWellFormed)
    }

    fn field(&mut self) -> Option<(u64, Raw<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Raw::Number(self.varint()?),
            1 => Raw::Number(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?)),
            2 => {
                let length = self.varint()?;
                Raw::Bytes(self.bytes(usize::try_from(length).ok()?)?)
            }
            5 => Raw::Number(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?).into()),
            // Groups, which are no more, and what never was.
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for (place, &byte) in self.0.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.0 = &self.0[place + 1..];
                return Some(number);
            }
        }
        None
    }
}

/// The bytes of a field of a message; none where it has none of this number.
pub(crate) fn bytes_of(message: &[u8], wanted: u64) -> Result<&[u8], NotWellFormed> {
    let (mut fields, mut found) = (Fields(message), &[][..]);
    while let Some((number, value)) = fields.next()? {
        match value {
            Raw::Bytes(bytes) if number == wanted => found = bytes,
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u64, Raw<'_>)>, NotWellFormed> {
        let (mut fields, mut all) = (Fields(bytes), Vec::new());
        while let Some(field) = fields.next()? {
            all.push(field);
        }
        Ok(all)
    }

    #[test]
    fn fields_of_every_form_are_taken_apart() {
        let bytes = b"\x08\x96\x01\x12\x02hi\x1d\x01\x00\x00\x00\x21\x02\x00\x00\x00\x00\x00\x00\x00";
        let expected =
            [(1, Raw::Number(150)), (2, Raw::Bytes(b"hi")), (3, Raw::Number(1)), (4, Raw::Number(2))];
        assert_eq!(all(bytes).unwrap(), expected);
        assert_eq!((bytes_of(bytes, 2), bytes_of(bytes, 9)), (Ok(&b"hi"[..]), Ok(&[][..])));
    }

    #[test]
    fn what_is_cut_off_or_of_no_known_form_is_not_well_formed() {
        for bytes in [&b"\x08"[..], b"\x08\x96", b"\x12\x05hi", b"\x1d\x01", b"\x0b", b"\x0f", &[0xff; 12]] {
            assert_eq!(all(bytes), Err(NotWellFormed), "{bytes:?}");
        }
        let endless = [b"\x12".as_slice(), &[0xff; 9], b"\x01"].concat();
        assert_eq!(all(&endless), Err(NotWellFormed), "a length beyond all bytes");
    }
}
