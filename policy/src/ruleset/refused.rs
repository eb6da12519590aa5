//! Connections that were cut: what their ends still send is refused for a while.
//!
//! TCP needs none of this, as only a SYN begins a connection. A datagram of the end that answered would look
//! like the first one of a new flow, which may be allowed, and let the other end's datagrams in as its
//! answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weft_nftables::{
    Change, Data, DataType, Declaration, Detail, Expression, Family, KnownSet, KnownTable, Operator, Rule,
    SetKind, Statement, Transaction, Tuple, Value, Verdict,
};
use weft_types::Protocol;

use super::TABLE;

/// The set of both ways of these connections.
pub const REFUSED: &str = "refused";
/// For how long they are refused: longer than an end that hears nothing goes on sending, mostly.
const TIME: Duration = Duration::from_secs(60);
/// How many elements the set takes, two a connection. Connections beyond are only forgotten by conntrack.
const MOST: u32 = 65_536;

/// A connection between two pods' or other addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// Its protocol.
    pub protocol: Protocol,
    /// Both ends, as packets have them where they are forwarded.
    pub ends: [SocketAddr; 2],
}

/// What a key is made of: where a packet comes from, where it goes to, and its protocol.
fn types(family: Family) -> Vec<DataType> {
    let address = DataType::address(family);
    vec![address, DataType::InetService, address, DataType::InetService, DataType::InetProto]
}

pub(super) fn declaration(family: Family) -> Arc<Declaration> {
    Arc::new(Declaration {
        family: family.into(),
        table: TABLE.into(),
        name: REFUSED.into(),
        key: types(family),
        kind: SetKind::ExpiringSet(MOST),
        comment: None,
    })
}

/// The rule that refuses them. TCP, which is most of what comes, is not looked for.
pub(super) fn rule(family: Family) -> Rule {
    let key = vec![
        Expression::saddr(family),
        Expression::SPORT,
        Expression::daddr(family),
        Expression::DPORT,
        Expression::L4PROTO,
    ];
    let tcp = Value::Protocol(Protocol::Tcp.number());
    let is_other = Statement::compare(Expression::L4PROTO, Operator::NotEqual, tcp);
    let is_refused = Statement::lookup(key, Operator::Equal, REFUSED.into());
    Rule::new([is_other, is_refused, Statement::Verdict(Verdict::Drop)])
}

/// The change that refuses connections from now on.
pub fn refuse(connections: &[Connection]) -> Transaction {
    let mut transaction = Transaction::default();
    for family in Family::BOTH {
        let is_of = |it: &&Connection| it.ends[0].is_ipv6() == (family == Family::Ip6);
        let detail = Detail { comment: None, timeout: Some(TIME) };
        let ways = connections.iter().filter(is_of).flat_map(|connection| {
            let [one, other] = connection.ends;
            [(one, other), (other, one)].map(|(from, to)| key(from, to, connection.protocol))
        });
        let elements: Vec<_> = ways.map(|key| (key, Data::None, detail.clone())).collect();
        if !elements.is_empty() {
            transaction.changes.push(Change::AddDetailed(declaration(family), elements));
        }
    }
    transaction
}

/// The ports from which a sender's packets to that end are refused, by what is known of a table.
pub(crate) fn ports(table: &KnownTable, from: IpAddr, to: SocketAddr, protocol: Protocol) -> BTreeSet<u16> {
    let family = if from.is_ipv4() { Family::Ip } else { Family::Ip6 };
    let port = |key: Tuple| match key.values(&types(family))?[..] {
        [
            Value::Address(source),
            Value::Port(port),
            Value::Address(target),
            Value::Port(end),
            Value::Protocol(of),
        ] => {
            let is_it = (source, target, end, of) == (from, to.ip(), to.port(), protocol.number());
            is_it.then_some(port)
        }
        _ => None,
    };
    table.sets.get(REFUSED).into_iter().flat_map(KnownSet::keys).filter_map(port).collect()
}

fn key(from: SocketAddr, to: SocketAddr, protocol: Protocol) -> Tuple {
    Tuple::new(&[
        Value::Address(from.ip()),
        Value::Port(from.port()),
        Value::Address(to.ip()),
        Value::Port(to.port()),
        Value::Protocol(protocol.number()),
    ])
}
