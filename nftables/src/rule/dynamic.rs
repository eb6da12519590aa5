//! What rules write into sets: `update @seen { ip saddr timeout 1h }` (`NFTA_DYNSET_*`)

use std::fmt;

use weft_netlink::attribute::{Attributes, Writer};

use crate::expression::Expression;
use crate::register::{expression, register};
use crate::value::{Name, Seconds, concatenation};

/// What a rule does with an element of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Adds it; one that is there stays as it is.
    Add,
    /// Adds it; one that is there only lives on.
    Update,
    /// Deletes it, whatever it holds.
    Delete,
}

/// Changes an element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dynamic {
    /// What is done.
    pub operation: Operation,
    /// The set.
    pub set: Name,
    /// The key of the element.
    pub key: Vec<Expression>,
    /// It expires after so many seconds, where that is not for the set to say.
    pub timeout: Option<u32>,
    /// What a map holds for the key. The kernel wants it also for what is deleted.
    pub data: Vec<Expression>,
}

/// The registers of a change: where the key begins, and where the data does.
pub(super) struct Registers {
    pub(super) key: u32,
    pub(super) data: Option<u32>,
}

impl Operation {
    const ALL: [Operation; 3] = [Operation::Add, Operation::Update, Operation::Delete];

    fn word(self) -> &'static str {
        match self {
            Operation::Add => "add",
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }
}

impl Dynamic {
    /// The key stands in the first registers, the data of a map behind it.
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        let all = [&self.key[..], &self.data].concat();
        super::lookup::load_all(&all, writer);
        let end: usize = self.key.iter().map(Expression::padded_len).sum();
        expression("dynset", writer, |data| {
            data.string(1, &self.set);
            data.u32(3, self.operation as u32);
            data.u32(4, register(0));
            if !self.data.is_empty() {
                data.u32(5, register(end));
            }
            if let Some(seconds) = self.timeout {
                data.bytes(6, &(u64::from(seconds) * 1000).to_be_bytes());
            }
        });
    }

    /// The registers that it reads; `None` where each element gets expressions of its own, which are not
    /// known here.
    pub(super) fn registers(data: &Attributes<'_>) -> Option<Registers> {
        let is_known = data.get(7).is_none() && data.get(10).is_none();
        is_known.then(|| Some(Registers { key: data.u32(4)?, data: data.u32(5) }))?
    }

    /// The statement over what was read into these registers.
    pub(super) fn read(
        data: &Attributes<'_>,
        key: Vec<Expression>,
        held: Vec<Expression>,
    ) -> Option<Dynamic> {
        let operation = *Operation::ALL.get(data.u32(3)? as usize)?;
        let timeout = data.get(6).and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        let timeout = timeout.filter(|milliseconds| *milliseconds > 0);
        let timeout = timeout.map(|milliseconds| u32::try_from(milliseconds / 1000)).transpose().ok()?;
        Some(Dynamic { operation, set: data.string(1)?.into(), key, timeout, data: held })
    }
}

impl fmt::Display for Dynamic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} @{} {{ ", self.operation.word(), self.set)?;
        concatenation(f, &self.key)?;
        if let Some(timeout) = self.timeout {
            write!(f, " timeout {}", Seconds(timeout.into()))?;
        }
        if !self.data.is_empty() {
            f.write_str(" : ")?;
            concatenation(f, &self.data)?;
        }
        f.write_str(" }")
    }
}
