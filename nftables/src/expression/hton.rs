//! `byteorder`: a number in network order (`NFTA_BYTEORDER_*`). Sets of ranges compare byte by byte, from the
//! first on; nft hides the conversion in its text, and so does this.

use std::fmt;

use weft_netlink::attribute::{Attributes, Writer};

use super::{Kind, Meta};
use crate::facts::Facts;
use crate::register::{expression, register};
use crate::value::DataType;

/// `NFT_BYTEORDER_HTON`
const HTON: u32 = 1;

/// What `meta` reads, in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hton(pub Meta);

impl Hton {
    /// What the conversion of something that was read comes to; `None` where it is another one.
    pub(crate) fn of(read: Meta, data: &Attributes<'_>) -> Option<Hton> {
        let is_known = data.u32(3) == Some(HTON) && data.u32(5) == Some(4);
        is_known.then_some(Hton(read))
    }
}

impl Kind for Hton {
    const NAME: &str = "byteorder";

    fn data_type(&self) -> DataType {
        self.0.data_type()
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(3, HTON);
        writer.u32(4, self.len() as u32);
        writer.u32(5, self.len() as u32);
    }

    fn decode(_: &Attributes<'_>) -> Option<Hton> {
        None
    }

    fn load(&self, target: usize, free: usize, writer: &mut Writer<'_>) {
        self.0.load(target, free, writer);
        expression(Self::NAME, writer, |data| {
            data.u32(1, register(target));
            data.u32(2, register(target));
            self.encode(data);
        });
    }

    fn evaluate(&self, facts: &Facts) -> Option<Vec<u8>> {
        let number = u32::from_ne_bytes(self.0.evaluate(facts)?.try_into().ok()?);
        Some(number.to_be_bytes().to_vec())
    }
}

impl fmt::Display for Hton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
