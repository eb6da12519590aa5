//! nf_tables: a typed model of tables, chains, rules, sets and maps; how they print as nft text; and the way
//! to the kernel and back, without any program in between. Which tables there should be is not decided here.
//!
//! ```text
//! plan: &[Table] ---------------------.
//! Client::observe() -> Observed ------+-> diff() -> Transaction -> Client::commit()
//! ```

mod client;
mod counter;
mod diff;
mod element;
mod encode;
pub mod evaluator;
mod expression;
mod facts;
mod family;
mod flowtable;
mod foreign;
mod hash;
mod heads;
mod hook;
mod known;
mod monitor;
mod observed;
mod owned;
mod register;
mod rule;
mod set;
mod shape;
mod table;
mod transaction;
mod userdata;
mod value;

pub use client::Client;
pub use counter::Counter;
pub use diff::diff;
pub use encode::digest;
pub use expression::{Ct, Expression, Fib, Header, Hton, Jhash, Meta, Numgen, Payload, XtState};
pub use family::TableFamily;
pub use flowtable::Flowtable;
pub use hash::hash;
pub use heads::RuleHead;
pub use hook::Hook;
pub use known::{KnownElement, KnownSet, KnownTable};
pub use monitor::{Announcement, Author, IsOurs, Monitor, Place};
pub use observed::{Observed, ObservedBase, ObservedChain, ObservedSet, ObservedTable, Refused};
pub use owned::Owned;
pub use rule::{
    Assign, Dynamic, Effect, Limit, Log, Match, Nat, Operand, Operation, Operator, Reject, Rule, Source,
    Statement, Translation, Verdict, Xt,
};
pub use set::{Data, Declaration, Detail, Element, Set, SetKind};
pub use shape::Shape;
pub use table::{
    Base, Chain, ChainKind, Device, PRIORITY_DSTNAT, PRIORITY_FILTER, PRIORITY_RAW, PRIORITY_SRCNAT, Policy,
    Table, TableKey,
};
pub use transaction::{Change, Transaction};
pub use value::{DataType, Field, Name, Tuple, Value};
pub use weft_netlink::Family;
