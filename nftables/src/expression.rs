//! What a rule reads of a packet: expressions that put bytes into registers. All that is to say of a kind of
//! expression (its attributes, its words, its type, and what it finds in a packet) stands in one file below.

use std::fmt;

use weft_netlink::Family;
use weft_netlink::attribute::{Attributes, Writer};

use super::facts::Facts;
use super::hash::{HASH_MODULUS, HASH_SEED};
use super::register::{expression, register};
use super::value::{DataType, Tuple};

mod ct;
mod fib;
mod hton;
mod jhash;
mod meta;
mod numgen;
mod payload;
mod xt;

pub use ct::Ct;
pub use fib::Fib;
pub use hton::Hton;
pub use jhash::Jhash;
pub use meta::Meta;
pub use numgen::Numgen;
pub use payload::{Header, Payload};
pub use xt::XtState;

/// What is known of one key or field of a kind: nft's words for it, its type, and what it finds.
type Row<K> = (K, &'static str, DataType, fn(&Facts) -> Option<Vec<u8>>);

/// What each kind of expression says of itself.
trait Kind: fmt::Display + Sized {
    /// The kernel's name for it (`NFTA_EXPR_NAME`).
    const NAME: &str;

    /// The type of what it reads.
    fn data_type(&self) -> DataType;

    /// How many bytes it reads.
    fn len(&self) -> usize {
        self.data_type().len()
    }

    /// Its attributes but the first, which is the register that it fills.
    fn encode(&self, writer: &mut Writer<'_>);

    /// Reads its attributes; `None` where they do something else than read.
    fn decode(data: &Attributes<'_>) -> Option<Self>;

    /// What it reads of a packet; `None` where that is not known.
    fn evaluate(&self, facts: &Facts) -> Option<Vec<u8>>;

    /// The attribute of the register from which the same is written (`NFTA_META_SREG`), where rules may.
    const WRITTEN_FROM: Option<u16> = None;

    /// Writes what reads it into the register file at `target`. What it needs besides may stand from `free`
    /// on.
    fn load(&self, target: usize, _free: usize, writer: &mut Writer<'_>) {
        expression(Self::NAME, writer, |data| {
            data.u32(1, register(target));
            self.encode(data);
        });
    }
}

/// Makes the enum of all kinds, and the way from each of its variants to the kind's own file.
macro_rules! expressions {
    ($($(#[$about:meta])* $kind:ident),* $(,)?) => {
        /// What a rule reads of a packet, of its connection, or of elsewhere.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Expression { $($(#[$about])* $kind($kind)),* }

        $(impl From<$kind> for Expression {
            fn from(kind: $kind) -> Expression { Expression::$kind(kind) }
        })*

        impl Expression {
            /// The type of what it reads.
            pub fn data_type(&self) -> DataType {
                match self { $(Expression::$kind(kind) => kind.data_type()),* }
            }

            /// How many bytes it reads, without padding.
            pub(super) fn len(&self) -> usize {
                match self { $(Expression::$kind(kind) => kind.len()),* }
            }

            /// Writes what reads it into the register file at `target`; registers from `free` on hold
            /// nothing.
            pub(super) fn load(&self, target: usize, free: usize, writer: &mut Writer<'_>) {
                match self { $(Expression::$kind(kind) => kind.load(target, free, writer)),* }
            }

            /// Writes what writes it from the first registers; nothing where rules only read it.
            pub(super) fn store(&self, writer: &mut Writer<'_>) {
                match self { $(Expression::$kind(kind) => {
                    let Some(from) = $kind::WRITTEN_FROM else { return };
                    expression($kind::NAME, writer, |data| {
                        kind.encode(data);
                        data.u32(from, register(0));
                    });
                })* }
            }

            /// What an expression of that name writes, and the register from which it does, where it writes
            /// and is known.
            pub(super) fn decode_store(name: &str, data: &Attributes<'_>) -> Option<(Expression, u32)> {
                match name {
                    $($kind::NAME => {
                        let register = data.u32($kind::WRITTEN_FROM?)?;
                        Some((Expression::$kind($kind::decode(data)?), register))
                    })*
                    _ => None,
                }
            }

            /// The expression of that name, where it only reads and is known.
            pub(super) fn decode(name: &str, data: &Attributes<'_>) -> Option<Expression> {
                match name {
                    $($kind::NAME if $kind::WRITTEN_FROM.is_none_or(|from| data.get(from).is_none()) => {
                        $kind::decode(data).map(Expression::$kind)
                    })*
                    _ => None,
                }
            }

            /// What it reads of a packet; `None` where that is not known.
            pub(super) fn evaluate(&self, facts: &Facts) -> Option<Vec<u8>> {
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
    /// A hash of what other expressions read: `jhash ip saddr mod 16`
    Jhash,
    /// A number in network order, as sets of ranges compare it.
    Hton,
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
    /// The packet's mark: `meta mark`
    pub const MARK: Expression = Expression::Meta(Meta::MARK);
    /// The mark of the packet's connection: `ct mark`
    pub const CT_MARK: Expression = Expression::Ct(Ct::MARK);
    /// The port that the connection's first packet was sent to: `ct original proto-dst`. nft knows its type
    /// only behind a match on one transport protocol in the same rule.
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

    /// What of each connection the hash is that [`hash`](super::hash) makes:
    /// `jhash ... mod 2147483648 seed 0x1`
    pub fn hash_of(key: Vec<Expression>) -> Expression {
        Jhash { key, modulus: HASH_MODULUS, seed: HASH_SEED, offset: 0 }.into()
    }

    /// The same number in network order where it is one of the machine's own order: a key of ranges has them
    /// so.
    pub fn in_network_order(self) -> Expression {
        match self {
            Expression::Meta(meta) if meta.data_type().is_of_host_order() => Hton(meta).into(),
            other => other,
        }
    }

    /// Its length in a concatenation, where every field begins at a register.
    pub(super) fn padded_len(&self) -> usize {
        self.len().next_multiple_of(4)
    }
}

impl Facts {
    /// What an expression reads of it; `None` where that is not known.
    pub fn bytes(&self, expression: &Expression) -> Option<Vec<u8>> {
        expression.evaluate(self)
    }

    /// What a concatenation reads of it, as the key of a set.
    pub(crate) fn key(&self, expressions: &[Expression]) -> Option<Tuple> {
        let mut key = Vec::new();
        for expression in expressions {
            key.extend(self.bytes(expression)?);
            if expressions.len() > 1 {
                key.resize(key.len().next_multiple_of(4), 0);
            }
        }
        Some(Tuple::from_kernel(&key))
    }
}
