//! `jhash`: a hash of what other expressions read (`NFTA_HASH_*`).

use std::fmt;

use weft_netlink::attribute::{Attributes, Writer};

use super::{Expression, Kind};
use crate::facts::Facts;
use crate::hash::jhash;
use crate::register::{expression, register};
use crate::value::{DataType, concatenation};

/// `NFT_HASH_JENKINS`
const JENKINS: u32 = 0;

/// A hash of a concatenation, scaled to a modulus.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Jhash {
    /// What is hashed.
    pub key: Vec<Expression>,
    /// The hash is below this, before the offset is added.
    pub modulus: u32,
    /// What every hash begins with.
    pub seed: u32,
    /// Added to it.
    pub offset: u32,
}

impl Jhash {
    /// The register that holds what is hashed, how long that is, and the register that the hash goes to.
    pub(crate) fn registers(data: &Attributes<'_>) -> Option<(u32, usize, u32)> {
        let is_jenkins = data.u32(7).unwrap_or(JENKINS) == JENKINS;
        is_jenkins.then(|| Some((data.u32(1)?, data.u32(3)? as usize, data.u32(2)?)))?
    }

    /// The hash that these attributes make of what was read.
    pub(crate) fn of(key: Vec<Expression>, data: &Attributes<'_>) -> Option<Jhash> {
        let number = |kind| data.u32(kind).unwrap_or_default();
        Some(Jhash { key, modulus: data.u32(4)?, seed: number(5), offset: number(6) })
    }

    fn hashed_len(&self) -> usize {
        match &self.key[..] {
            [single] => single.len(),
            key => key.iter().map(Expression::padded_len).sum(),
        }
    }
}

impl Kind for Jhash {
    const NAME: &str = "hash";

    fn data_type(&self) -> DataType {
        DataType::Integer
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(3, self.hashed_len() as u32);
        writer.u32(4, self.modulus);
        writer.u32(5, self.seed);
        if self.offset != 0 {
            writer.u32(6, self.offset);
        }
        writer.u32(7, JENKINS);
    }

    fn decode(_: &Attributes<'_>) -> Option<Jhash> {
        None
    }

    fn load(&self, target: usize, free: usize, writer: &mut Writer<'_>) {
        let mut at = free;
        let end = free + self.key.iter().map(Expression::padded_len).sum::<usize>();
        for part in &self.key {
            part.load(at, end, writer);
            at += part.padded_len();
        }
        expression(Self::NAME, writer, |data| {
            data.u32(1, register(free));
            data.u32(2, register(target));
            self.encode(data);
        });
    }

    /// The kernel scales by multiplication (`reciprocal_scale`).
    fn evaluate(&self, facts: &Facts) -> Option<Vec<u8>> {
        let hash = jhash(facts.key(&self.key)?.bytes(), self.seed);
        let scaled = (u64::from(hash) * u64::from(self.modulus)) >> 32;
        Some((scaled as u32).wrapping_add(self.offset).to_ne_bytes().to_vec())
    }
}

impl fmt::Display for Jhash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("jhash ")?;
        concatenation(f, &self.key)?;
        write!(f, " mod {}", self.modulus)?;
        if self.seed != 0 {
            write!(f, " seed {:#x}", self.seed)?;
        }
        match self.offset {
            0 => Ok(()),
            offset => write!(f, " offset {offset}"),
        }
    }
}
