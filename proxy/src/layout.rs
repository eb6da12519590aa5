//! The layout of the tables `ip weft` and `ip6 weft`: fixed chains, and maps that hold everything about Services.
//!
//! ```text
//! frontends           { daddr . l4proto . dport        : goto pick-N }
//! endpoints           { daddr . l4proto . dport . slot : the endpoint }
//! nodeports           { l4proto . dport                : goto nodeport-N }
//! nodeport-endpoints  { l4proto . dport . slot         : the endpoint }
//! local-*             { the same, asked first for clients outside of the cluster }
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
use crate::service::{Audience, Frontend};

/// The name of both tables.
pub const TABLE: &str = "weft";
/// The chain that answers for Services without endpoints.
pub(crate) const NO_ENDPOINTS: &str = "no-endpoints";
const SERVICES: &str = "services";
const OUTSIDE: &str = "outside";
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
    /// Frontend under an external policy Local and slot to endpoint of this node.
    LocalEndpoints,
    /// NodePort under an external policy Local and slot to endpoint of this node.
    LocalNodePortEndpoints,
    /// Pairs of an endpoint's address with itself.
    Hairpins,
    /// The ClusterIPs.
    ClusterIps,
    /// The node's addresses that serve NodePorts.
    NodePortAddresses,
    /// NodePorts whose connections are masqueraded.
    NodePortMasquerade,
    /// NodePorts of which only the node's own connections are masqueraded.
    NodePortMasqueradeOwn,
    /// External frontends whose connections are masqueraded.
    ExternalMasquerade,
    /// External frontends of which only the node's own connections are masqueraded.
    ExternalMasqueradeOwn,
    /// Frontend to chain.
    Frontends,
    /// NodePort to chain.
    NodePorts,
    /// Frontend under an external policy Local to chain.
    LocalFrontends,
    /// NodePort under an external policy Local to chain.
    LocalNodePorts,
}

impl SetName {
    /// All of them: what leads to endpoints comes behind the endpoints.
    pub const ALL: [SetName; 15] = [
        SetName::Endpoints,
        SetName::NodePortEndpoints,
        SetName::LocalEndpoints,
        SetName::LocalNodePortEndpoints,
        SetName::Hairpins,
        SetName::ClusterIps,
        SetName::NodePortAddresses,
        SetName::NodePortMasquerade,
        SetName::NodePortMasqueradeOwn,
        SetName::ExternalMasquerade,
        SetName::ExternalMasqueradeOwn,
        SetName::Frontends,
        SetName::NodePorts,
        SetName::LocalFrontends,
        SetName::LocalNodePorts,
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
            SetName::LocalEndpoints => "local-endpoints",
            SetName::LocalNodePortEndpoints => "local-nodeport-endpoints",
            SetName::NodePortMasqueradeOwn => "nodeport-masquerade-own",
            SetName::ExternalMasquerade => "external-masquerade",
            SetName::ExternalMasqueradeOwn => "external-masquerade-own",
            SetName::LocalFrontends => "local-frontends",
            SetName::LocalNodePorts => "local-nodeports",
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
            SetName::LocalEndpoints => "external address . protocol . port . slot : endpoint of this node",
            SetName::LocalNodePortEndpoints => "protocol . NodePort . slot : endpoint of this node",
            SetName::NodePortMasqueradeOwn => {
                "NodePorts of which only this node's own connections get its address"
            }
            SetName::ExternalMasquerade => {
                "external frontends whose connections get this node's address as source"
            }
            SetName::ExternalMasqueradeOwn => {
                "external frontends of which only this node's own connections get its address"
            }
            SetName::LocalFrontends => "external address . protocol . port : choice for clients from outside",
            SetName::LocalNodePorts => "protocol . NodePort : choice for clients from outside",
        }
    }

    fn key(self, address: DataType) -> Vec<DataType> {
        use DataType::{InetProto, InetService, Integer};
        match self {
            SetName::Endpoints | SetName::LocalEndpoints => vec![address, InetProto, InetService, Integer],
            SetName::NodePortEndpoints | SetName::LocalNodePortEndpoints => {
                vec![InetProto, InetService, Integer]
            }
            SetName::Hairpins => vec![address, address],
            SetName::ClusterIps | SetName::NodePortAddresses => vec![address],
            SetName::NodePortMasquerade
            | SetName::NodePortMasqueradeOwn
            | SetName::NodePorts
            | SetName::LocalNodePorts => vec![InetProto, InetService],
            SetName::ExternalMasquerade
            | SetName::ExternalMasqueradeOwn
            | SetName::Frontends
            | SetName::LocalFrontends => vec![address, InetProto, InetService],
        }
    }

    fn kind(self, address: DataType) -> SetKind {
        match self {
            SetName::Endpoints
            | SetName::NodePortEndpoints
            | SetName::LocalEndpoints
            | SetName::LocalNodePortEndpoints => SetKind::DataMap(vec![address, DataType::InetService]),
            SetName::Frontends | SetName::NodePorts | SetName::LocalFrontends | SetName::LocalNodePorts => {
                SetKind::VerdictMap
            }
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

/// The way from a kind of frontend, for an audience, to its endpoints: a map of frontends, chains that choose, and a map
/// of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// From an address.
    Address,
    /// From a NodePort.
    NodePort,
    /// From an address under an external policy Local, for those from outside.
    LocalAddress,
    /// From a NodePort under an external policy Local, for those from outside.
    LocalNodePort,
}

impl Path {
    /// All of them.
    pub const ALL: [Path; 4] = [Path::Address, Path::NodePort, Path::LocalAddress, Path::LocalNodePort];

    /// The way of a frontend's connections.
    pub fn of(frontend: &Frontend, audience: Audience) -> Path {
        match (frontend, audience) {
            (Frontend::Address(..), Audience::Everyone) => Path::Address,
            (Frontend::NodePort(..), Audience::Everyone) => Path::NodePort,
            (Frontend::Address(..), Audience::Outside) => Path::LocalAddress,
            (Frontend::NodePort(..), Audience::Outside) => Path::LocalNodePort,
        }
    }

    /// Who goes that way.
    pub fn audience(self) -> Audience {
        match self {
            Path::Address | Path::NodePort => Audience::Everyone,
            Path::LocalAddress | Path::LocalNodePort => Audience::Outside,
        }
    }

    /// The map that it begins with.
    pub fn frontends(self) -> SetName {
        match self {
            Path::Address => SetName::Frontends,
            Path::NodePort => SetName::NodePorts,
            Path::LocalAddress => SetName::LocalFrontends,
            Path::LocalNodePort => SetName::LocalNodePorts,
        }
    }

    /// The map that it ends with.
    pub fn endpoints(self) -> SetName {
        match self {
            Path::Address => SetName::Endpoints,
            Path::NodePort => SetName::NodePortEndpoints,
            Path::LocalAddress => SetName::LocalEndpoints,
            Path::LocalNodePort => SetName::LocalNodePortEndpoints,
        }
    }

    /// The chain that spreads its connections over that many endpoints.
    pub(crate) fn chain(self, count: usize) -> Name {
        format!("{}{count}", self.prefix()).into()
    }

    fn prefix(self) -> &'static str {
        match self {
            Path::Address => "pick-",
            Path::NodePort => "nodeport-",
            Path::LocalAddress => "local-pick-",
            Path::LocalNodePort => "local-nodeport-",
        }
    }

    fn key(self, family: Family) -> Vec<Selector> {
        match self {
            Path::Address | Path::LocalAddress => frontend_key(family),
            Path::NodePort | Path::LocalNodePort => nodeport_key(),
        }
    }
}

/// The rule of a chain that exists only while elements lead to it; `None` for the fixed chains.
pub(crate) fn pick_rule(family: Family, chain: &str) -> Option<Rule> {
    let count = |path: Path| chain.strip_prefix(path.prefix())?.parse().ok();
    let (path, count) = Path::ALL.into_iter().find_map(|path| Some((path, count(path)?)))?;
    let mut key = path.key(family);
    key.push(Selector::Random(count));
    Some(Rule::new([Statement::Dnat(family, key, path.endpoints().name().into())]))
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
    let enter = Rule::new([jump(SERVICES)]);
    let mut from_outside = from_outside(config, family);
    from_outside.push(jump(OUTSIDE));
    let arrive = vec![Rule::new(from_outside), enter.clone()];
    table.chain("prerouting", Some(Base::nat(Hook::Prerouting, PRIORITY_DSTNAT)), arrive);
    table.chain("output", Some(Base::nat(Hook::Output, PRIORITY_DSTNAT)), vec![enter]);
    table.chain(OUTSIDE, None, outside(config, family));
    table.chain(SERVICES, None, services(config, family));
    table.chain(NO_ENDPOINTS, None, vec![Rule::new([Statement::Reject(family)])]);
    let leave = vec![Rule::new([Statement::Dnatted, jump("masquerading")])];
    table.chain("postrouting", Some(Base::nat(Hook::Postrouting, PRIORITY_SRCNAT)), leave);
    table.chain("masquerading", None, masquerading(config, family));
    table
}

/// Where new connections from outside of the cluster go, if the way that all go is not for them.
fn outside(config: &Config, family: Family) -> Vec<Rule> {
    let frontends = Statement::Vmap(frontend_key(family), SetName::LocalFrontends.name().into());
    let mut rules = vec![Rule::new([frontends])];
    rules.extend(nodeports(config, family, SetName::LocalNodePorts));
    rules
}

/// Where new connections go.
fn services(config: &Config, family: Family) -> Vec<Rule> {
    let cluster_ip =
        Statement::Lookup(vec![Selector::Daddr(family)], Is::Equal, SetName::ClusterIps.name().into());
    let mut rules = vec![
        Rule::new([Statement::Vmap(frontend_key(family), SetName::Frontends.name().into())]),
        Rule::new([cluster_ip, Statement::Reject(family)]).comment("no Service has this port"),
    ];
    rules.extend(nodeports(config, family, SetName::NodePorts));
    rules
}

fn nodeports(config: &Config, family: Family, map: SetName) -> impl Iterator<Item = Rule> {
    let to_local = config.nodeport_addresses != NodePortAddresses::Primary;
    let destinations = nodeport_destinations(config, family, Selector::Daddr(family));
    destinations.into_iter().map(move |mut statements| {
        if to_local {
            statements.insert(0, Statement::ToLocal);
        }
        statements.push(Statement::Vmap(nodeport_key(), map.name().into()));
        Rule::new(statements)
    })
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
    for protocol in PROTOCOLS {
        rules.extend(external_masquerading(config, family, protocol));
    }
    rules.extend(cluster_ip_masquerading(config, family));
    rules
}

/// The rules for NodePorts and external addresses. nft can print a port only where the protocol is fixed.
fn external_masquerading(config: &Config, family: Family, protocol: Protocol) -> Vec<Rule> {
    let is_protocol = Statement::Match(Selector::L4Proto, Is::Equal, Value::Protocol(protocol.number()));
    let port = vec![Selector::L4Proto, Selector::OriginalDport];
    let frontend = [&[Selector::OriginalDaddr(family)], &port[..]].concat();
    let rule = |destination: &[Statement], key: &[Selector], set: SetName| {
        let (own, comment) = match set {
            SetName::ExternalMasqueradeOwn => (true, "external address, from this node"),
            SetName::NodePortMasqueradeOwn => (true, "NodePort, from this node"),
            SetName::NodePortMasquerade => (false, "NodePort"),
            _ => (false, "external address"),
        };
        let mut statements = vec![is_protocol.clone()];
        statements.extend(own.then_some(Statement::FromLocal));
        statements.extend_from_slice(destination);
        statements.push(Statement::Lookup(key.to_vec(), Is::Equal, set.name().into()));
        statements.push(Statement::Masquerade);
        Rule::new(statements).comment(comment)
    };
    let external = [SetName::ExternalMasquerade, SetName::ExternalMasqueradeOwn];
    let mut rules = external.map(|set| rule(&[], &frontend, set)).to_vec();
    for destination in nodeport_destinations(config, family, Selector::OriginalDaddr(family)) {
        let sets = [SetName::NodePortMasquerade, SetName::NodePortMasqueradeOwn];
        rules.extend(sets.map(|set| rule(&destination, &port, set)));
    }
    rules
}

/// Matches for what comes from outside of the pod network, where that is known.
fn from_outside(config: &Config, family: Family) -> Vec<Statement> {
    let outside = |network| Statement::MatchNetwork(Selector::Saddr(family), Is::NotEqual, network);
    config.cluster_cidrs(address_family(family)).map(outside).collect()
}

/// Traffic to a ClusterIP from outside of the pod network, where that is known.
fn cluster_ip_masquerading(config: &Config, family: Family) -> Option<Rule> {
    let mut statements = from_outside(config, family);
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

/// The family of addresses in that table.
pub(crate) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::Ip => AddressFamily::V4,
        Family::Ip6 => AddressFamily::V6,
    }
}

/// The family of the table for such addresses.
pub(crate) fn table_family(family: AddressFamily) -> Family {
    match family {
        AddressFamily::V4 => Family::Ip,
        AddressFamily::V6 => Family::Ip6,
    }
}
