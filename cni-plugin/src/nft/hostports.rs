//! Ports of the host that lead to a container (`portMappings`): fixed rules, and for each mapping elements of
//! a map and a set. Only says what they are; `nft` tells the kernel.
//!
//! ```text
//! map hostports { host address . protocol . port : container address . port }
//! set hairpins  { sender . container address . protocol . host port }          senders that are masqueraded
//! ```
//! An element's owner is the name of the host's end of the container's veth pair: DEL finds what is its own,
//! and nothing that another container has mapped since.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use weft_nftables::{
    Base, Data, DataType, Declaration, Expression, Family, Field, Hook, Operator, Owned, PRIORITY_DSTNAT,
    PRIORITY_RAW, PRIORITY_SRCNAT, Rule, Set, SetKind, Statement, Table, Transaction, Tuple, Value, Verdict,
};

use crate::plan::network;
use crate::{HostPorts, PortMapping};

/// The name of the tables, one per family. `weft-proxy` reads the map below, to tell of NodePorts of the same
/// number.
const TABLE: &str = weft_types::well_known::table::HOST_PORTS;
/// The map from the host's ports to the containers'.
const HOSTPORTS: &str = "hostports";
/// Senders who would not get an answer, or not from whom they asked, if the container saw their own address.
const HAIRPINS: &str = "hairpins";
/// TCP, UDP and SCTP.
const PROTOCOLS: [u8; 3] = [6, 17, 132];
/// 127.0.0.0/8
const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);

/// The table of a family without any element.
pub(crate) fn layout(family: Family) -> Table {
    let mut table = Table::new(family, TABLE);
    let dispatch =
        Rule::new([Statement::fib_daddr_local(), Statement::Verdict(Verdict::Jump("dispatch".into()))]);
    let nat = |hook, priority| Some(Base::nat(hook, priority));
    table.chain("prerouting", nat(Hook::Prerouting, PRIORITY_DSTNAT), vec![dispatch.clone()]);
    table.chain("output", nat(Hook::Output, PRIORITY_DSTNAT), vec![dispatch]);
    table.chain("dispatch", None, PROTOCOLS.map(|protocol| translate(family, protocol)).into());
    let hairpins = PROTOCOLS.map(|protocol| masquerade(family, protocol)).into();
    table.chain("postrouting", nat(Hook::Postrouting, PRIORITY_SRCNAT), hairpins);
    if family == Family::Ip {
        table.chain("martians", Some(Base::filter(Hook::Prerouting, PRIORITY_RAW)), vec![martians()]);
    }
    sets(family).into_iter().for_each(|set| table.set(Set::new(set)));
    table
}

fn translate(family: Family, protocol: u8) -> Rule {
    let key = vec![Expression::daddr(family), Expression::L4PROTO, Expression::DPORT];
    // Where keys are ranges, nft reads a transport port behind a match on one protocol only.
    let protocol = Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(protocol));
    Rule::new([protocol, Statement::dnat(family, key, HOSTPORTS.into())])
}

fn masquerade(family: Family, protocol: u8) -> Rule {
    let key = vec![
        Expression::saddr(family),
        Expression::daddr(family),
        Expression::L4PROTO,
        Expression::ORIGINAL_DPORT,
    ];
    let protocol = Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(protocol));
    let lookup = Statement::lookup(key, Operator::Equal, HAIRPINS.into());
    Rule::new([protocol, Statement::ct_status_dnat(), lookup, Statement::masquerade()])
}

/// With route_localnet on, which a mapping of 127.0.0.1 needs, the kernel would take packets for 127.0.0.1
/// from containers. Answers are not among them: here they are still for the bridge's address.
fn martians() -> Rule {
    let loopback = network(LOOPBACK.0.into(), LOOPBACK.1);
    Rule::new([
        Statement::compare(Expression::daddr(Family::Ip), Operator::Equal, loopback),
        Statement::compare(Expression::IIFNAME, Operator::NotEqual, "lo"),
        Statement::Verdict(Verdict::Drop),
    ])
}

/// The map and the set of a family, in the order of [`HostPorts::elements`].
pub(crate) fn sets(family: Family) -> [Arc<Declaration>; 2] {
    use DataType::{InetProto, InetService};
    let address = DataType::address(family);
    let set = |name: &str, key, kind| {
        let (table, name) = (TABLE.into(), name.into());
        let family = family.into();
        Arc::new(Declaration { family, table, name, key, kind, comment: None })
    };
    let data = SetKind::RangeMap(vec![address, InetService]);
    [
        set(HOSTPORTS, vec![address, InetProto, InetService], data),
        set(HAIRPINS, vec![address, address, InetProto, InetService], SetKind::RangeSet),
    ]
}

impl HostPorts {
    /// The families that the container has mappings of.
    pub(crate) fn families(&self) -> impl Iterator<Item = Family> + '_ {
        Family::BOTH.into_iter().filter(|family| !self.elements(*family)[0].is_empty())
    }

    /// What the map and the set of a family must hold.
    pub(crate) fn elements(&self, family: Family) -> [Vec<Owned>; 2] {
        let mut elements = [Vec::new(), Vec::new()];
        for (container, neighbours) in self.of_family(family) {
            for mapping in self.mappings.iter().filter(|mapping| mapping.is_of(family)) {
                elements[0].push(self.translation(mapping, family, container));
                elements[1].push(self.hairpin(mapping, neighbours, container));
                if mapping.is_reachable_by_loopback() && family == Family::Ip {
                    let loopback = network(LOOPBACK.0.into(), LOOPBACK.1);
                    elements[1].push(self.hairpin(mapping, loopback, container));
                }
            }
        }
        elements
    }

    fn translation(&self, mapping: &PortMapping, family: Family, container: IpAddr) -> Owned {
        let one = mapping.host.filter(|host| !host.is_unspecified());
        let host = one.map_or_else(|| everywhere(family), IpNetwork::from);
        let to = [Value::Address(container), Value::Port(mapping.container_port)];
        self.element(&[Field::Network(host)], mapping, Data::Tuple(Tuple::new(&to)))
    }

    fn hairpin(&self, mapping: &PortMapping, sender: IpNetwork, container: IpAddr) -> Owned {
        let ends = [Field::Network(sender), Field::One(Value::Address(container))];
        self.element(&ends, mapping, Data::None)
    }

    fn element(&self, addresses: &[Field], mapping: &PortMapping, data: Data) -> Owned {
        let port = [Value::Protocol(mapping.protocol), Value::Port(mapping.host_port)].map(Field::One);
        let (key, end) = Tuple::span(&[addresses, &port].concat());
        Owned { key, end: Some(end), data, owner: self.owner.as_str().into() }
    }
}

fn everywhere(family: Family) -> IpNetwork {
    match family {
        Family::Ip => network(Ipv4Addr::UNSPECIFIED.into(), 0),
        Family::Ip6 => network(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

/// The port and the protocol of an element, for people.
pub(crate) fn describe(element: &Owned, set: &Declaration) -> String {
    match element.key.values(&set.key).as_deref() {
        Some([.., protocol, port]) => format!("{port}/{protocol}"),
        _ => format!("{:?}", element.key),
    }
}

/// The container that an element of the map leads UDP to.
pub(crate) fn udp_container(element: &Owned, map: &Declaration) -> Option<IpAddr> {
    let key = element.key.values(&map.key)?;
    let (SetKind::RangeMap(types), Data::Tuple(data)) = (&map.kind, &element.data) else { return None };
    match data.values(types)?.first() {
        Some(Value::Address(address)) if key.contains(&Value::Protocol(17)) => Some(*address),
        _ => None,
    }
}

/// The held elements that stand where wanted ones are to go. Those of the same owner are left from a call
/// that died.
pub(crate) fn in_the_way(set: &Declaration, held: &[Owned], wanted: &[Owned]) -> Vec<Owned> {
    let overlaps = |held: &&Owned| wanted.iter().any(|wanted| wanted.overlaps(held, set));
    held.iter().filter(overlaps).cloned().collect()
}

/// As commands of nft.
impl fmt::Display for HostPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for family in self.families() {
            for (set, elements) in sets(family).iter().zip(self.elements(family)) {
                let mut transaction = Transaction::default();
                transaction.add_owned(set, elements);
                write!(f, "nft {transaction}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_cni_spec::PortMapping as Asked;
    use weft_nftables::Change;

    use super::*;
    use crate::plan::port_mapping;

    fn mapping(protocol: u8, host_port: u16, host: Option<&str>) -> PortMapping {
        let host = host.map(|text| text.parse().unwrap());
        PortMapping { protocol, host, host_port, container_port: 80 }
    }

    fn ports(mappings: &[PortMapping]) -> HostPorts {
        let pair = |address: &str, network: &str| (address.parse().unwrap(), network.parse().unwrap());
        HostPorts {
            container: "c1".parse().unwrap(),
            owner: "veth1".into(),
            mappings: mappings.to_vec(),
            containers: vec![pair("10.1.0.5", "10.1.0.5/32"), pair("fd00::5", "fd00::/64")],
        }
    }

    /// A few ports and addresses, so that most lists have some of them twice.
    fn asked() -> impl Strategy<Value = Asked> {
        let host = prop::sample::select(vec![
            "",
            "0.0.0.0",
            "::",
            "192.0.2.1",
            "192.0.2.2",
            "127.0.0.1",
            "::ffff:192.0.2.1",
            "fd00:9::1",
        ]);
        let protocol = prop::sample::select(vec!["tcp", "udp", "sctp"]);
        (80..83i64, protocol, host, 80..82i64).prop_map(|(host_port, protocol, host, container_port)| Asked {
            host_port,
            container_port,
            protocol: protocol.into(),
            host_ip: host.into(),
        })
    }

    proptest! {
        /// The kernel refuses a transaction with two elements of which some key is of both.
        #[test]
        fn any_set_of_valid_mappings_is_a_transaction_that_the_kernel_takes(
            asked in prop::collection::vec(asked(), 0..8)
        ) {
            let Ok(mappings) = port_mapping::read(&asked) else { return Ok(()) };
            let ports = ports(&mappings);
            for family in Family::BOTH {
                let mut transaction = Transaction::default();
                for (set, elements) in sets(family).iter().zip(ports.elements(family)) {
                    transaction.add_owned(set, elements);
                }
                for change in &transaction.changes {
                    let Change::AddOwned(set, elements) = change else { unreachable!() };
                    for (place, one) in elements.iter().enumerate() {
                        let twice = elements[..place].iter().find(|other| one.overlaps(other, set));
                        prop_assert!(twice.is_none(), "{transaction}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_rules_are_fixed() {
        insta::assert_snapshot!(layout(Family::Ip), @r#"
        table ip weft-cni-hostports {
        	set hairpins {
        		type ipv4_addr . ipv4_addr . inet_proto . inet_service
        		flags interval
        	}

        	map hostports {
        		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        		flags interval
        	}

        	chain dispatch {
        		meta l4proto tcp dnat ip to ip daddr . meta l4proto . th dport map @hostports
        		meta l4proto udp dnat ip to ip daddr . meta l4proto . th dport map @hostports
        		meta l4proto sctp dnat ip to ip daddr . meta l4proto . th dport map @hostports
        	}

        	chain martians {
        		type filter hook prerouting priority raw; policy accept;
        		ip daddr 127.0.0.0/8 iifname != "lo" drop
        	}

        	chain output {
        		type nat hook output priority -100; policy accept;
        		fib daddr type local jump dispatch
        	}

        	chain postrouting {
        		type nat hook postrouting priority srcnat; policy accept;
        		meta l4proto tcp ct status dnat ip saddr . ip daddr . meta l4proto . ct original proto-dst @hairpins masquerade fully-random
        		meta l4proto udp ct status dnat ip saddr . ip daddr . meta l4proto . ct original proto-dst @hairpins masquerade fully-random
        		meta l4proto sctp ct status dnat ip saddr . ip daddr . meta l4proto . ct original proto-dst @hairpins masquerade fully-random
        	}

        	chain prerouting {
        		type nat hook prerouting priority dstnat; policy accept;
        		fib daddr type local jump dispatch
        	}
        }
        "#);
        assert!(!layout(Family::Ip6).to_string().contains("martians"));
    }

    #[test]
    fn a_mapping_is_an_element_in_each_family_with_those_who_are_masqueraded() {
        let both = ports(&[mapping(6, 8080, None)]);
        insta::assert_snapshot!(both, @r#"
        nft add element ip weft-cni-hostports hostports { 0.0.0.0/0 . tcp . 8080 comment "veth1" : 10.1.0.5 . 80 }
        nft add element ip weft-cni-hostports hairpins { 10.1.0.5 . 10.1.0.5 . tcp . 8080 comment "veth1", 127.0.0.0/8 . 10.1.0.5 . tcp . 8080 comment "veth1" }
        nft add element ip6 weft-cni-hostports hostports { ::/0 . tcp . 8080 comment "veth1" : fd00::5 . 80 }
        nft add element ip6 weft-cni-hostports hairpins { fd00::/64 . fd00::5 . tcp . 8080 comment "veth1" }
        "#);
        assert!(both.needs_local_routes());
    }

    #[test]
    fn a_host_address_is_of_one_family_and_may_be_out_of_loopbacks_reach() {
        let ipv6 = ports(&[mapping(17, 53, Some("fd00:9::1"))]);
        assert_eq!(ipv6.families().collect::<Vec<_>>(), [Family::Ip6]);
        let elsewhere = ports(&[mapping(17, 53, Some("192.0.2.1"))]);
        insta::assert_snapshot!(elsewhere, @r#"
        nft add element ip weft-cni-hostports hostports { 192.0.2.1 . udp . 53 comment "veth1" : 10.1.0.5 . 80 }
        nft add element ip weft-cni-hostports hairpins { 10.1.0.5 . 10.1.0.5 . udp . 53 comment "veth1" }
        "#);
        assert!(!elsewhere.needs_local_routes());
        assert!(ports(&[mapping(17, 53, Some("127.0.0.1"))]).needs_local_routes());
    }

    #[test]
    fn a_port_of_all_addresses_is_in_the_way_of_one_of_a_single_address() {
        let set = &sets(Family::Ip)[0];
        let [held, _] = ports(&[mapping(6, 8080, None)]).elements(Family::Ip);
        let wanted =
            |protocol, port| ports(&[mapping(protocol, port, Some("192.0.2.1"))]).elements(Family::Ip);
        assert_eq!(in_the_way(set, &held, &wanted(6, 8080)[0]), held);
        assert_eq!(in_the_way(set, &held, &wanted(17, 8080)[0]), []);
        assert_eq!(in_the_way(set, &held, &wanted(6, 8081)[0]), []);
    }
}
