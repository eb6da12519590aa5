//! `numgen`: a number that is drawn or counted (`NFTA_NG_*`).

use std::fmt;

use weft_netlink::attribute::{Attributes, Writer};

use super::Kind;
use crate::facts::Facts;
use crate::value::DataType;

/// `NFT_NG_INCREMENTAL`, `NFT_NG_RANDOM`
const INCREMENTAL: u32 = 0;
const RANDOM: u32 = 1;

/// A number that is drawn or counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Numgen {
    /// It is below this, before the offset is added.
    pub modulus: u32,
    /// Added to it.
    pub offset: u32,
    /// It is drawn; else each packet gets the next.
    pub is_random: bool,
}

impl Kind for Numgen {
    const NAME: &str = "numgen";

    fn data_type(&self) -> DataType {
        DataType::Integer
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(2, self.modulus);
        writer.u32(3, if self.is_random { RANDOM } else { INCREMENTAL });
        if self.offset != 0 {
            writer.u32(4, self.offset);
        }
    }

    fn decode(data: &Attributes<'_>) -> Option<Numgen> {
        let is_random = match data.u32(3)? {
            INCREMENTAL => false,
            RANDOM => true,
            _ => return None,
        };
        Some(Numgen { modulus: data.u32(2)?, offset: data.u32(4).unwrap_or_default(), is_random })
    }

    fn evaluate(&self, facts: &Facts) -> Option<Vec<u8>> {
        let number = (facts.draw? % self.modulus.max(1)).wrapping_add(self.offset);
        Some(number.to_ne_bytes().to_vec())
    }
}

impl fmt::Display for Numgen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.is_random { "random" } else { "inc" };
        write!(f, "numgen {how} mod {}", self.modulus)?;
        match self.offset {
            0 => Ok(()),
            offset => write!(f, " offset {offset}"),
        }
    }
}
