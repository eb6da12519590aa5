//! Netlink attributes: writing nested ones straight into a buffer, and reading them back. Numbers are
//! big-endian, as those of netfilter (`linux/netfilter/nfnetlink.h`), where their name does not say that they
//! are the machine's own. What an attribute means is for the subsystems.

/// Set in the type of an attribute that holds attributes.
const NLA_F_NESTED: u16 = 1 << 15;
/// What is left of an attribute's type without its flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Appends attributes to a buffer.
#[derive(Debug)]
pub struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    /// An attribute with that payload, padded to four bytes.
    pub fn bytes(&mut self, kind: u16, payload: &[u8]) {
        let length = (4 + payload.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// A string, with the NUL at its end that the kernel wants.
    pub fn string(&mut self, kind: u16, text: &str) {
        let mut payload = Vec::with_capacity(text.len() + 1);
        payload.extend_from_slice(text.as_bytes());
        payload.push(0);
        self.bytes(kind, &payload);
    }

    /// One byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// A number of four bytes.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A number of two bytes, in the machine's own byte order.
    pub fn u16_native(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// A number of four bytes, in the machine's own byte order.
    pub fn u32_native(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// An attribute that holds what `fill` writes. All of it together must stay below 64 KiB: the length has
    /// 16 bits.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Writer<'_>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        fill(&mut Writer(self.0));
        let length = self.0.len() - start;
        debug_assert!(length <= usize::from(u16::MAX), "an attribute of {length} bytes");
        self.0[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
    }
}

/// The attributes in a buffer, as pairs of type and payload. Reading ends at the first one that overruns the
/// buffer.
#[derive(Clone, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let &[a, b, c, d] = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let payload = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & NLA_TYPE_MASK, payload))
    }
}

impl<'a> Attributes<'a> {
    /// The payload of the first attribute of that type.
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find_map(|(found, payload)| (found == kind).then_some(payload))
    }

    /// The attributes within the first attribute of that type; none where it is missing.
    pub fn nested(&self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    /// A string without its NUL.
    pub fn string(&self, kind: u16) -> Option<&'a str> {
        let payload = self.get(kind)?;
        std::str::from_utf8(payload.strip_suffix(&[0]).unwrap_or(payload)).ok()
    }

    /// A number of two bytes, in the machine's own byte order.
    pub fn u16_native(&self, kind: u16) -> Option<u16> {
        self.get(kind)?.try_into().ok().map(u16::from_ne_bytes)
    }

    /// A number of four bytes, in the machine's own byte order.
    pub fn u32_native(&self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_ne_bytes)
    }

    /// A number of four bytes.
    pub fn u32(&self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back_as_they_were_written() {
        let mut buffer = Vec::new();
        let mut writer = Writer(&mut buffer);
        writer.string(1, "weft");
        writer.nest(2, |inner| {
            inner.u32(1, 7);
            inner.nest(2, |inner| inner.u32(3, 9));
            inner.u8(4, 5);
        });
        let read = Attributes(&buffer);
        assert_eq!(read.string(1), Some("weft"));
        assert_eq!(read.nested(2).u32(1), Some(7));
        assert_eq!(read.nested(2).nested(2).u32(3), Some(9));
        assert_eq!(read.nested(2).get(4), Some(&[5u8][..]));
        assert_eq!(read.get(3), None);
        assert_eq!(buffer.len() % 4, 0);
    }

    #[test]
    fn an_attribute_that_overruns_its_buffer_ends_the_reading() {
        assert_eq!(Attributes(&[200, 0, 1, 0, 9]).next(), None);
        assert_eq!(Attributes(&[0, 0, 1, 0]).next(), None, "a length below its own header");
    }
}
