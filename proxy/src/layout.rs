//! The layout of the tables `ip weft` and `ip6 weft`: fixed chains, and maps that hold everything about Services.
//!
//! ```text
//! frontends           { daddr . l4proto . dport        : goto pick-N }
//! endpoints           { daddr . l4proto . dport . slot : the endpoint }
//! nodeports           { l4proto . dport                : goto nodeport-N }
//! nodeport-endpoints  { l4proto . dport . slot         : the endpoint }
//! chain pick-3        { dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints }
//! ```
//!
//! There is one chain `pick-N` for each number N of endpoints that some Service has, and never one for a Service.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use weft_netlink::nft::{
    Base, DataType, Declaration, Family, Hook, Is, Name, PRIORITY_DSTNAT, PRIORITY_SRCNAT, Rule, Selector,
    Set, SetKind, Statement, Table, TableKey, Value, Verdict,
};
use weft_types::{Family as AddressFamily, IpNetwork, Ipv4Network, Protocol};

use crate::config::{Config, NodePortAddresses, of_family};

/// The name of both tables.
pub const TABLE: &str = "weft";
/// The chain that answers for Services without endpoints.
pub(crate) const NO_ENDPOINTS: &str = "no-endpoints";
const PICK: &str = "pick-";
const NODEPORT_PICK: &str = "nodeport-";
const LOOPBACK_V4: IpNetwork = match Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8) {
    Some(network) => IpNetwork::V4(network),
    None => panic!("8 is a prefix length"),
};
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// The sets and maps of each table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// Frontend and slot to endpoint.
    Endpoints,
    /// NodePort and slot to endpoint.
    NodePortEndpoints,
    /// Pairs of an endpoint's address with itself.
    Hairpins,
    /// The ClusterIPs.
    ClusterIps,
    /// The node's addresses that serve NodePorts.
    NodePortAddresses,
    /// NodePorts whose connections are masqueraded.
    NodePortMasquerade,
    /// Frontend to chain.
    Frontends,
    /// NodePort to chain.
    NodePorts,
}

impl SetName {
    /// All of them: what leads to endpoints comes behind the endpoints.
    pub const ALL: [SetName; 8] = [
        SetName::Endpoints,
        SetName::NodePortEndpoints,
        SetName::Hairpins,
        SetName::ClusterIps,
        SetName::NodePortAddresses,
        SetName::NodePortMasquerade,
        SetName::Frontends,
        SetName::NodePorts,
    ];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            SetName::Endpoints => "endpoints",
            SetName::NodePortEndpoints => "nodeport-endpoints",
            SetName::Hairpins => "hairpins",
            SetName::ClusterIps => "cluster-ips",
            SetName::NodePortAddresses => "nodeport-addresses",
            SetName::NodePortMasquerade => "nodeport-masquerade",
            SetName::Frontends => "frontends",
            SetName::NodePorts => "nodeports",
        }
    }

    fn comment(self) -> &'static str {
        match self {
            SetName::Endpoints => "Service address . protocol . port . slot : endpoint",
            SetName::NodePortEndpoints => "protocol . NodePort . slot : endpoint",
            SetName::Hairpins => "endpoints of this node that reach themselves through a Service",
            SetName::ClusterIps => "ClusterIPs of all Services",
            SetName::NodePortAddresses => "addresses of this node that serve NodePorts",
            SetName::NodePortMasquerade => "NodePorts whose connections get this node's address as source",
            SetName::Frontends => "Service address . protocol . port : choice among its endpoints",
            SetName::NodePorts => "protocol . NodePort : choice among its endpoints",
        }
    }

    fn key(self, address: DataType) -> Vec<DataType> {
        use DataType::{InetProto, InetService, Integer};
        match self {
            SetName::Endpoints => vec![address, InetProto, InetService, Integer],
            SetName::NodePortEndpoints => vec![InetProto, InetService, Integer],
            SetName::Hairpins => vec![address, address],
            SetName::ClusterIps | SetName::NodePortAddresses => vec![address],
            SetName::NodePortMasquerade | SetName::NodePorts => vec![InetProto, InetService],
            SetName::Frontends => vec![address, InetProto, InetService],
        }
    }

    fn kind(self, address: DataType) -> SetKind {
        match self {
            SetName::Endpoints | SetName::NodePortEndpoints => {
                SetKind::DataMap(vec![address, DataType::InetService])
            }
            SetName::Frontends | SetName::NodePorts => SetKind::VerdictMap,
            _ => SetKind::Set,
        }
    }

    /// How it is declared in the table of that family.
    pub fn declaration(self, family: Family) -> Declaration {
        let address = family.address_type();
        Declaration {
            family,
            table: TABLE.into(),
            name: self.name().into(),
            key: self.key(address),
            kind: self.kind(address),
            comment: Some(self.comment()),
        }
    }
}

/// The keys of both tables.
pub fn table_keys() -> [TableKey; 2] {
    Family::BOTH.map(|family| (family, TABLE.into()))
}

/// The chain that spreads connections to a ClusterIP over that many endpoints.
pub(crate) fn pick_chain(count: usize) -> Name {
    chain_name(PICK, count)
}

/// The chain that spreads connections to a NodePort over that many endpoints.
pub(crate) fn nodeport_chain(count: usize) -> Name {
    chain_name(NODEPORT_PICK, count)
}

fn chain_name(prefix: &str, count: usize) -> Name {
    match count {
        0 => NO_ENDPOINTS.into(),
        count => format!("{prefix}{count}").into(),
    }
}

/// The rule of a chain that exists only while elements lead to it; `None` for the fixed chains.
pub(crate) fn pick_rule(family: Family, chain: &str) -> Option<Rule> {
    let (mut key, set, count) = match (chain.strip_prefix(PICK), chain.strip_prefix(NODEPORT_PICK)) {
        (Some(count), _) => (frontend_key(family), SetName::Endpoints, count),
        (None, Some(count)) => (nodeport_key(), SetName::NodePortEndpoints, count),
        (None, None) => return None,
    };
    key.push(Selector::Random(count.parse().ok()?));
    Some(Rule::new([Statement::Dnat(family, key, set.name().into())]))
}

fn frontend_key(family: Family) -> Vec<Selector> {
    vec![Selector::Daddr(family), Selector::L4Proto, Selector::Dport]
}

fn nodeport_key() -> Vec<Selector> {
    vec![Selector::L4Proto, Selector::Dport]
}

/// The table of one family without any Service in it.
pub(crate) fn table(config: &Config, family: Family) -> Table {
    let mut table = Table::new(family, TABLE);
    for set in SetName::ALL {
        table.set(Set::new(Arc::new(set.declaration(family))));
    }
    let jump = |chain: &str| Statement::Verdict(Verdict::Jump(chain.into()));
    let enter = vec![Rule::new([jump("services")])];
    table.chain("prerouting", Some(Base::nat(Hook::Prerouting, PRIORITY_DSTNAT)), enter.clone());
    table.chain("output", Some(Base::nat(Hook::Output, PRIORITY_DSTNAT)), enter);
    table.chain("services", None, services(config, family));
    table.chain(NO_ENDPOINTS, None, vec![Rule::new([Statement::Reject(family)])]);
    let leave = vec![Rule::new([Statement::Dnatted, jump("masquerading")])];
    table.chain("postrouting", Some(Base::nat(Hook::Postrouting, PRIORITY_SRCNAT)), leave);
    table.chain("masquerading", None, masquerading(config, family));
    table
}

/// Where new connections go.
fn services(config: &Config, family: Family) -> Vec<Rule> {
    let cluster_ip =
        Statement::Lookup(vec![Selector::Daddr(family)], Is::Equal, SetName::ClusterIps.name().into());
    let mut rules = vec![
        Rule::new([Statement::Vmap(frontend_key(family), SetName::Frontends.name().into())]),
        Rule::new([cluster_ip, Statement::Reject(family)]).comment("no Service has this port"),
    ];
    for mut statements in nodeport_destinations(config, family, Selector::Daddr(family)) {
        if config.nodeport_addresses != NodePortAddresses::Primary {
            statements.insert(0, Statement::ToLocal);
        }
        statements.push(Statement::Vmap(nodeport_key(), SetName::NodePorts.name().into()));
        rules.push(Rule::new(statements));
    }
    rules
}

/// Matches, each a rule's beginning, for the addresses of this node that serve NodePorts.
fn nodeport_destinations(config: &Config, family: Family, address: Selector) -> Vec<Vec<Statement>> {
    match &config.nodeport_addresses {
        NodePortAddresses::Primary => {
            let set = SetName::NodePortAddresses.name().into();
            vec![vec![Statement::Lookup(vec![address], Is::Equal, set)]]
        }
        NodePortAddresses::Networks(networks) => {
            let matches = |network| {
                let not_loopback = Statement::MatchNetwork(address, Is::NotEqual, loopback(family));
                vec![Statement::MatchNetwork(address, Is::Equal, network), not_loopback]
            };
            of_family(networks, address_family(family)).map(matches).collect()
        }
    }
}

/// Connections that must come back through this node get its address as their source. They are told by what they were
/// sent to first, which conntrack knows; no mark on the packet is needed.
fn masquerading(config: &Config, family: Family) -> Vec<Rule> {
    let hairpin = vec![Selector::Saddr(family), Selector::Daddr(family)];
    let mut rules = vec![
        Rule::new([
            Statement::Lookup(hairpin, Is::Equal, SetName::Hairpins.name().into()),
            Statement::Masquerade,
        ])
        .comment("an endpoint that reached itself"),
    ];
    let original_port = vec![Selector::L4Proto, Selector::OriginalDport];
    for protocol in PROTOCOLS {
        for destination in nodeport_destinations(config, family, Selector::OriginalDaddr(family)) {
            let mut statements =
                vec![Statement::Match(Selector::L4Proto, Is::Equal, Value::Protocol(protocol.number()))];
            statements.extend(destination);
            let set = SetName::NodePortMasquerade.name().into();
            statements.push(Statement::Lookup(original_port.clone(), Is::Equal, set));
            statements.push(Statement::Masquerade);
            rules.push(Rule::new(statements).comment("NodePort"));
        }
    }
    rules.extend(from_outside(config, family));
    rules
}

/// Traffic to a ClusterIP from outside of the pod network, where that is known.
fn from_outside(config: &Config, family: Family) -> Option<Rule> {
    let outside = |network| Statement::MatchNetwork(Selector::Saddr(family), Is::NotEqual, network);
    let mut statements: Vec<_> = config.cluster_cidrs(address_family(family)).map(outside).collect();
    if statements.is_empty() {
        return None;
    }
    let cluster_ip = vec![Selector::OriginalDaddr(family)];
    statements.push(Statement::Lookup(cluster_ip, Is::Equal, SetName::ClusterIps.name().into()));
    statements.push(Statement::Masquerade);
    Some(Rule::new(statements).comment("ClusterIP from outside of the pod network"))
}

fn loopback(family: Family) -> IpNetwork {
    match family {
        Family::Ip => LOOPBACK_V4,
        Family::Ip6 => IpNetwork::V6(Ipv6Addr::LOCALHOST.into()),
    }
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::Ip => AddressFamily::V4,
        Family::Ip6 => AddressFamily::V6,
    }
}
