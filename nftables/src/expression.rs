//! What a rule reads of a packet: expressions that put bytes into registers. All that is to say of a kind of expression (its
//! attributes, its words, its type, and what it finds in a packet) stands in one file below.

use std::fmt;

use weft_netlink::Family;
use weft_netlink::attribute::{Attributes, Writer};

use super::evaluator::Facts;
use super::value::DataType;

mod ct;
mod fib;
mod meta;
mod numgen;
mod payload;
mod xt;

pub use ct::Ct;
pub use fib::Fib;
pub use meta::Meta;
pub use numgen::Numgen;
pub use payload::{Header, Payload};
pub use xt::XtState;

/// What is known of one key or field of a kind: nft's words for it, its type, and what it finds.
type Row<K> = (K, &'static str, DataType, fn(&Facts) -> Option<Vec<u8>>);

/// What each kind of expression says of itself.
trait Kind: Copy + fmt::Display {
    /// The kernel's name for it (`NFTA_EXPR_NAME`).
    const NAME: &str;

    /// The type of what it reads.
    fn data_type(self) -> DataType;

    /// How many bytes it reads.
    fn len(self) -> usize {
        self.data_type().len()
    }

    /// Its attributes but the first, which is the register that it fills.
    fn encode(self, writer: &mut Writer<'_>);

    /// Reads its attributes; `None` where they do something else than read.
    fn decode(data: &Attributes<'_>) -> Option<Self>;

    /// What it reads of a packet; `None` where that is not known.
    fn evaluate(self, facts: &Facts) -> Option<Vec<u8>>;
}

/// Makes the enum of all kinds, and the way from each of its variants to the kind's own file.
macro_rules! expressions {
    ($($(#[$about:meta])* $kind:ident),* $(,)?) => {
        /// What a rule reads of a packet, of its connection, or of elsewhere.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Expression { $($(#[$about])* $kind($kind)),* }

        $(impl From<$kind> for Expression {
            fn from(kind: $kind) -> Expression { Expression::$kind(kind) }
        })*

        impl Expression {
            /// The type of what it reads.
            pub fn data_type(self) -> DataType {
                match self { $(Expression::$kind(kind) => kind.data_type()),* }
            }

            /// How many bytes it reads, without padding.
            pub(super) fn len(self) -> usize {
                match self { $(Expression::$kind(kind) => kind.len()),* }
            }

            /// The kernel's name for its kind.
            pub(super) fn name(self) -> &'static str {
                match self { $(Expression::$kind(_) => $kind::NAME),* }
            }

            /// Writes its attributes behind the register that it fills.
            pub(super) fn encode(self, writer: &mut Writer<'_>) {
                match self { $(Expression::$kind(kind) => kind.encode(writer)),* }
            }

            /// The expression of that name, where it only reads and is known.
            pub(super) fn decode(name: &str, data: &Attributes<'_>) -> Option<Expression> {
                match name {
                    $($kind::NAME => $kind::decode(data).map(Expression::$kind),)*
                    _ => None,
                }
            }

            /// What it reads of a packet; `None` where that is not known.
            pub(super) fn evaluate(self, facts: &Facts) -> Option<Vec<u8>> {
                match self { $(Expression::$kind(kind) => kind.evaluate(facts)),* }
            }
        }

        impl fmt::Display for Expression {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Expression::$kind(kind) => kind.fmt(f)),* }
            }
        }
    };
}

expressions! {
    /// A field of a header: `ip saddr`
    Payload,
    /// What the kernel knows of the packet: `iifname`
    Meta,
    /// What connection tracking knows: `ct state`
    Ct,
    /// What the routes say: `fib daddr type`
    Fib,
    /// A number that is drawn: `numgen random mod 2`
    Numgen,
    /// A connection's state as iptables has it.
    XtState,
}

impl Expression {
    /// The transport protocol: `meta l4proto`
    pub const L4PROTO: Expression = Expression::Meta(Meta::L4PROTO);
    /// The transport source port: `th sport`
    pub const SPORT: Expression = Expression::Payload(Payload::SPORT);
    /// The transport destination port: `th dport`
    pub const DPORT: Expression = Expression::Payload(Payload::DPORT);
    /// The interface that a packet came in by, empty where there was none: `iifname`
    pub const IIFNAME: Expression = Expression::Meta(Meta::IIFNAME);
    /// The interface that a packet leaves by: `oifname`
    pub const OIFNAME: Expression = Expression::Meta(Meta::OIFNAME);
    /// The packet's priority: `meta priority`. Rules use it to hand a number on to the next rule.
    pub const PRIORITY: Expression = Expression::Meta(Meta::PRIORITY);
    /// The port that the connection's first packet was sent to: `ct original proto-dst`. nft knows its type only
    /// behind a match on one transport protocol in the same rule.
    pub const ORIGINAL_DPORT: Expression = Expression::Ct(Ct::ORIGINAL_DPORT);

    /// The packet's source address: `ip saddr`
    pub fn saddr(family: Family) -> Expression {
        Payload::saddr(family).into()
    }

    /// The packet's destination address: `ip daddr`
    pub fn daddr(family: Family) -> Expression {
        Payload::daddr(family).into()
    }

    /// The address that the connection's first packet was sent to: `ct original ip daddr`
    pub fn original_daddr(family: Family) -> Expression {
        Ct::original_daddr(family).into()
    }

    /// A random number from 0 to one below this: `numgen random mod N`
    pub fn random(modulus: u32) -> Expression {
        Numgen { modulus, offset: 0, is_random: true }.into()
    }

    /// Its length in a concatenation, where every field begins at a register.
    pub(super) fn padded_len(self) -> usize {
        self.len().next_multiple_of(4)
    }
}
