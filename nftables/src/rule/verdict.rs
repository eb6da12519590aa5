//! Verdicts: where a packet goes on (`NFTA_VERDICT_*`).

use std::fmt;

use weft_netlink::attribute::{Attributes, Writer};

use crate::register::{DATA_VERDICT, VERDICT_REGISTER, immediate};
use crate::value::Name;

/// `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`
const CODE: u16 = 1;
const CHAIN: u16 = 2;
/// `NF_DROP`, `NF_ACCEPT`, `NFT_CONTINUE`, `NFT_JUMP`, `NFT_GOTO`, `NFT_RETURN`
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const CONTINUE: i32 = -1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

/// Where a packet goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Through: `accept`
    Accept,
    /// Nowhere: `drop`
    Drop,
    /// To what the rule says next: `continue`. Of use as an element of a map.
    Continue,
    /// Back to the calling chain: `return`
    Return,
    /// To a chain, and back: `jump`
    Jump(Name),
    /// To a chain, for good: `goto`
    Goto(Name),
}

impl Verdict {
    /// The chain that it names.
    pub fn chain(&self) -> Option<&Name> {
        match self {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
            Verdict::Accept | Verdict::Drop | Verdict::Continue | Verdict::Return => None,
        }
    }

    /// Writes it as the payload of `NFTA_DATA_VERDICT`.
    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        let code = match self {
            Verdict::Accept => ACCEPT,
            Verdict::Drop => DROP,
            Verdict::Continue => CONTINUE,
            Verdict::Return => RETURN,
            Verdict::Jump(_) => JUMP,
            Verdict::Goto(_) => GOTO,
        };
        writer.u32(CODE, code as u32);
        self.chain().iter().for_each(|chain| writer.string(CHAIN, chain));
    }

    /// Writes the statement.
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        immediate(VERDICT_REGISTER, writer, |data| data.nest(DATA_VERDICT, |data| self.encode(data)));
    }

    /// Reads the payload of `NFTA_DATA_VERDICT`.
    pub(crate) fn decode(verdict: &Attributes<'_>) -> Option<Verdict> {
        Some(match verdict.u32(CODE)? as i32 {
            ACCEPT => Verdict::Accept,
            DROP => Verdict::Drop,
            CONTINUE => Verdict::Continue,
            RETURN => Verdict::Return,
            JUMP => Verdict::Jump(verdict.string(CHAIN)?.into()),
            GOTO => Verdict::Goto(verdict.string(CHAIN)?.into()),
            // `break` and `queue` can stand here only if somebody else put them there.
            _ => return None,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Continue => f.write_str("continue"),
            Verdict::Return => f.write_str("return"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}
