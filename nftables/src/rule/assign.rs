//! What rules write into a packet's metadata or its connection: `meta mark set 0x1`

use std::fmt;

use weft_netlink::attribute::Writer;

use super::lookup::{self, Found};
use crate::expression::Expression;
use crate::register::{DATA_VALUE, bitwise, immediate, register};
use crate::value::{Name, Tuple, Value, concatenation};

/// Writes a value where rules read it again. The rule ends where a map has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Assign {
    /// What is written: `meta mark`, `meta priority`, `ct mark`.
    pub target: Expression,
    /// What with.
    pub source: Source,
}

/// Where a value that is written comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A constant.
    Value(Value),
    /// What a map holds for a concatenation.
    Map(Vec<Expression>, Name),
    /// What another expression reads.
    Expression(Expression),
    /// The same with other bits: those of the mask stay, and then these are flipped.
    Bits {
        /// What is read.
        of: Expression,
        /// The bits that stay.
        mask: u32,
        /// Those that are flipped.
        flipped: u32,
    },
}

impl Assign {
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        match &self.source {
            Source::Value(value) => immediate(register(0), writer, |data| {
                data.bytes(DATA_VALUE, Tuple::new(&[*value]).bytes());
            }),
            Source::Map(key, map) => lookup::write(key, map, Found::Register(register(0)), writer),
            Source::Expression(read) => read.load(0, read.padded_len(), writer),
            Source::Bits { of, mask, flipped } => {
                of.load(0, of.padded_len(), writer);
                bitwise(&mask.to_ne_bytes(), &flipped.to_ne_bytes(), writer);
            }
        }
        self.target.store(writer);
    }
}

impl fmt::Display for Assign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} set ", self.target)?;
        match &self.source {
            Source::Value(value) => value.fmt(f),
            Source::Map(key, map) => {
                concatenation(f, key)?;
                write!(f, " map @{map}")
            }
            Source::Expression(read) => read.fmt(f),
            Source::Bits { of, mask, flipped } => {
                // A bit that does not stay and is flipped is set.
                let (kept, set, flipped) = (mask | flipped, flipped & !mask, flipped & mask);
                of.fmt(f)?;
                if kept != u32::MAX {
                    write!(f, " & {kept:#010x}")?;
                }
                if set != 0 {
                    write!(f, " | {set:#010x}")?;
                }
                if flipped != 0 {
                    write!(f, " ^ {flipped:#010x}")?;
                }
                Ok(())
            }
        }
    }
}
