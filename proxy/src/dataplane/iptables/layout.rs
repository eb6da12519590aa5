//! The chains that are there whatever Services there are: kube-proxy's, with the rules that lead to them from
//! the chains in which packets enter (`iptablesJumpChains` of kube-proxy).

use std::net::{Ipv4Addr, Ipv6Addr};

use weft_nftables::{
    Base, Family, Hook, Name, PRIORITY_DSTNAT, PRIORITY_FILTER, PRIORITY_SRCNAT, TableKey, Xt,
};
use weft_types::IpNetwork;

use super::rule::{Is, MASQUERADE_MARK, Matching, Rule, State, Target};
use crate::config::{NodePortAddresses, of_family};
use crate::dataplane::nftables::ruleset::address_family;
use crate::dataplane::settings::Settings;

pub(super) const MARK_MASQ: &str = "KUBE-MARK-MASQ";
const POSTROUTING: &str = "KUBE-POSTROUTING";
/// Where clients of Services are led, and in the table `filter` which of them lead nowhere.
pub(crate) const SERVICES: &str = "KUBE-SERVICES";
const NODE_PORTS: &str = "KUBE-NODEPORTS";
const EXTERNAL_SERVICES: &str = "KUBE-EXTERNAL-SERVICES";
const FIREWALL: &str = "KUBE-PROXY-FIREWALL";
const FORWARD: &str = "KUBE-FORWARD";
/// What the names of chains begin with that belong to one Service port.
const OF_SERVICES: [&str; 5] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-"];
/// kube-proxy's remark about the rules behind which no other may stand.
const LAST: &str = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";

/// A table, of which there is one for each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    Nat,
    Filter,
}

/// A chain in which rules of many Services stand, in whatever order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Shared {
    /// Where clients of addresses are led.
    Services,
    /// Where clients of NodePorts are led.
    NodePorts,
    /// Which ClusterIPs lead nowhere.
    Refused,
    /// Which external addresses and NodePorts lead nowhere.
    ExternalRefused,
    /// Which ports answer load balancers.
    HealthChecks,
    /// Which addresses of load balancers are not for everybody.
    Firewall,
}

/// A chain with all its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) table: Table,
    pub(super) name: Name,
    pub(super) rules: Vec<Rule>,
}

/// A rule by which packets come from a chain of iptables' own to one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Portal {
    pub(super) table: Table,
    pub(super) from: &'static str,
    pub(super) rule: Rule,
}

impl Table {
    pub(super) const ALL: [Table; 2] = [Table::Nat, Table::Filter];

    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Nat => "nat",
            Table::Filter => "filter",
        }
    }

    pub(super) fn key(self, family: Family) -> TableKey {
        (family.into(), self.name().into())
    }

    /// The chains in which packets enter, as `iptables-nft` makes them.
    pub(super) fn entries(self) -> Vec<(&'static str, Base)> {
        match self {
            Table::Nat => vec![
                ("PREROUTING", Base::nat(Hook::Prerouting, PRIORITY_DSTNAT)),
                ("INPUT", Base::nat(Hook::Input, PRIORITY_SRCNAT)),
                ("OUTPUT", Base::nat(Hook::Output, PRIORITY_DSTNAT)),
                ("POSTROUTING", Base::nat(Hook::Postrouting, PRIORITY_SRCNAT)),
            ],
            Table::Filter => vec![
                ("INPUT", Base::filter(Hook::Input, PRIORITY_FILTER)),
                ("FORWARD", Base::filter(Hook::Forward, PRIORITY_FILTER)),
                ("OUTPUT", Base::filter(Hook::Output, PRIORITY_FILTER)),
            ],
        }
    }

    /// Whether a chain of that name is ours alone.
    pub(super) fn owns(self, chain: &str) -> bool {
        let is_fixed = match self {
            Table::Nat => [SERVICES, NODE_PORTS, POSTROUTING, MARK_MASQ].contains(&chain),
            Table::Filter => [SERVICES, NODE_PORTS, EXTERNAL_SERVICES, FIREWALL, FORWARD].contains(&chain),
        };
        is_fixed || (self == Table::Nat && is_of_service(chain))
    }
}

/// Whether a chain of that name belongs to one Service port.
pub(super) fn is_of_service(chain: &str) -> bool {
    OF_SERVICES.iter().any(|prefix| chain.starts_with(prefix))
}

impl Shared {
    pub(super) const ALL: [Shared; 6] = [
        Shared::Services,
        Shared::NodePorts,
        Shared::Refused,
        Shared::ExternalRefused,
        Shared::HealthChecks,
        Shared::Firewall,
    ];

    pub(super) fn table(self) -> Table {
        match self {
            Shared::Services | Shared::NodePorts => Table::Nat,
            Shared::Refused | Shared::ExternalRefused | Shared::HealthChecks | Shared::Firewall => {
                Table::Filter
            }
        }
    }

    pub(super) fn chain(self) -> &'static str {
        match self {
            Shared::Services | Shared::Refused => SERVICES,
            Shared::NodePorts | Shared::HealthChecks => NODE_PORTS,
            Shared::ExternalRefused => EXTERNAL_SERVICES,
            Shared::Firewall => FIREWALL,
        }
    }

    /// The rules that stand behind those of all Services.
    pub(super) fn last_rules(self, settings: &Settings, family: Family) -> Vec<Rule> {
        match self {
            Shared::Services => to_node_ports(settings, family),
            _ => Vec::new(),
        }
    }
}

/// The chains whose rules do not depend on Services.
pub(super) fn fixed_chains(settings: &Settings, family: Family) -> Vec<Chain> {
    let mark = |mask| Target::Xt(Xt::Mark { value: MASQUERADE_MARK, mask });
    let chain = |table, name: &str, rules| Chain { table, name: name.into(), rules };
    let postrouting = vec![
        Rule::default().and(Matching::Marked(Is::Not(()))).then(Target::Return),
        // Lest it be masqueraded once more where it comes by again.
        Rule::default().then(mark(0)),
        Rule::commented("kubernetes service traffic requiring SNAT").then(Target::Xt(Xt::Masquerade(family))),
    ];
    let invalid = Rule::default().and(Matching::State(State::Invalid)).then(Target::Drop);
    let marked = Rule::commented("kubernetes forwarding rules").and(Matching::Marked(Is::Equal(())));
    let known = Rule::commented("kubernetes forwarding conntrack rule")
        .and(Matching::State(State::RelatedOrEstablished));
    let liberal = settings.config.conntrack_be_liberal;
    let mut forward: Vec<Rule> = (!liberal).then_some(invalid).into_iter().collect();
    forward.extend([marked, known].map(|rule| rule.then(Target::Accept)));
    vec![
        chain(Table::Nat, MARK_MASQ, vec![Rule::default().then(mark(MASQUERADE_MARK))]),
        chain(Table::Nat, POSTROUTING, postrouting),
        chain(Table::Filter, FORWARD, forward),
    ]
}

/// The rules by which packets come to our chains, in the order in which they stand in each chain.
pub(super) fn portals() -> Vec<Portal> {
    let portal = |table, from, to: &str, new, comment: &str| {
        let rule = if new { Rule::default().and(Matching::State(State::New)) } else { Rule::default() };
        let rule = rule.and(Matching::Xt(Xt::Comment(comment.into()))).jump(&to.into());
        Portal { table, from, rule }
    };
    let nat = |from, to, comment| portal(Table::Nat, from, to, false, comment);
    let filter = |from, to, new, comment| portal(Table::Filter, from, to, new, comment);
    let (services, external) =
        ("kubernetes service portals", "kubernetes externally-visible service portals");
    let firewall = "kubernetes load balancer firewall";
    vec![
        nat("PREROUTING", SERVICES, services),
        nat("OUTPUT", SERVICES, services),
        nat("POSTROUTING", POSTROUTING, "kubernetes postrouting rules"),
        filter("INPUT", FIREWALL, true, firewall),
        filter("INPUT", NODE_PORTS, false, "kubernetes health check service ports"),
        filter("INPUT", EXTERNAL_SERVICES, true, external),
        filter("FORWARD", FIREWALL, true, firewall),
        filter("FORWARD", FORWARD, false, "kubernetes forwarding rules"),
        filter("FORWARD", SERVICES, true, services),
        filter("FORWARD", EXTERNAL_SERVICES, true, external),
        filter("OUTPUT", FIREWALL, true, firewall),
        filter("OUTPUT", SERVICES, true, services),
    ]
}

/// Leads what is for this node to NodePorts: for all its addresses, which loopback ones are never among, for
/// those in some networks, or for its first one.
fn to_node_ports(settings: &Settings, family: Family) -> Vec<Rule> {
    let of_family = address_family(family);
    let loopback = match family {
        Family::Ip => IpNetwork::new(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        Family::Ip6 => IpNetwork::new(Ipv6Addr::LOCALHOST.into(), 128),
    };
    let local = |rule: Rule| rule.and(Matching::Xt(Xt::DestinationIsLocal));
    let rules: Vec<Rule> = match &settings.config.nodeport_addresses {
        NodePortAddresses::Primary => {
            let of = |address: &std::net::IpAddr| weft_types::Family::of(*address) == of_family;
            let addresses = settings.nodeport_addresses().into_iter().filter(of);
            addresses.map(|address| Rule::commented(LAST).to(Is::Equal(address.into()))).collect()
        }
        NodePortAddresses::Networks(networks) => {
            let rule = |network: IpNetwork| match (network.prefix(), &loopback) {
                (0, Ok(loopback)) => Some(local(Rule::commented(LAST).to(Is::Not(*loopback)))),
                (_, Ok(loopback)) if loopback.contains(network.network()) => None,
                _ => Some(local(Rule::commented(LAST).to(Is::Equal(network)))),
            };
            of_family_networks(networks, family).filter_map(rule).collect()
        }
    };
    rules.into_iter().map(|rule| rule.jump(&NODE_PORTS.into())).collect()
}

fn of_family_networks(networks: &[IpNetwork], family: Family) -> impl Iterator<Item = IpNetwork> {
    of_family(networks, address_family(family))
}
