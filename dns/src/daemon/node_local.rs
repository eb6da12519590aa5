//! On a node of its own a server has its addresses on an interface that leads nowhere, and keeps what is
//! asked there out of connection tracking: no entry is made for a query, none can be lost in a race, and no
//! rule rewrites its destination, so that the DNS Service's own address can be one of them. The rules belong
//! to the process: with them goes all that leads queries to it, and a service proxy leads them to the
//! cluster's servers again. What this takes is planned here; the kernel hears of it in [`kernel`].

pub mod kernel;

use std::net::{IpAddr, SocketAddr};

use weft_nftables::{
    Base, Expression, Family, Hook, Operator, PRIORITY_RAW, Rule, Statement, Table, TableKey, Value,
};

/// The name of the interface, and of tables that belong to no process, one per family: those of kernels that
/// know no others.
pub const NAME: &str = weft_types::well_known::device::DNS;
/// The names of tables that belong to a process. In an upgrade there are those of two servers.
pub const HELD: [&str; 3] = ["weft-dns-1", "weft-dns-2", "weft-dns-3"];
/// TCP and UDP.
const PROTOCOLS: [u8; 2] = [6, 17];

/// What there has to be on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The addresses of the interface.
    pub addresses: Vec<IpAddr>,
    /// The rules, as far as there are addresses of a family.
    pub tables: Vec<Table>,
}

/// The keys of the tables that a killed server can leave.
pub fn left() -> [TableKey; 2] {
    Family::BOTH.map(|family| (family.into(), NAME.into()))
}

/// Plans for a server that listens there. None where an address is nobody's in particular, or the machine's
/// already.
pub fn plan(listen: &[SocketAddr]) -> Option<Plan> {
    let fit = |address: &SocketAddr| !address.ip().is_unspecified() && !address.ip().is_loopback();
    if !listen.iter().all(fit) {
        return None;
    }
    let mut addresses: Vec<IpAddr> = listen.iter().map(SocketAddr::ip).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Some(Plan {
        addresses,
        tables: Family::BOTH.into_iter().filter_map(|family| table(family, listen)).collect(),
    })
}

/// Pods' queries come through prerouting, the node's own leave through output; both sides of both are left
/// alone.
fn table(family: Family, listen: &[SocketAddr]) -> Option<Table> {
    let own = listen.iter().filter(|address| address.is_ipv4() == (family == Family::Ip));
    let rules: Vec<Rule> = own.flat_map(|&address| both_ways(family, address)).collect();
    let mut table = Table::new(family, NAME);
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        table.chain(chain, Some(Base::filter(hook, PRIORITY_RAW)), rules.clone());
    }
    (!rules.is_empty()).then_some(table)
}

fn both_ways(family: Family, address: SocketAddr) -> impl Iterator<Item = Rule> {
    let ends =
        [(Expression::daddr(family), Expression::DPORT), (Expression::saddr(family), Expression::SPORT)];
    ends.into_iter().flat_map(move |(end, port)| {
        PROTOCOLS.map(|protocol| {
            Rule::new([
                Statement::compare(end.clone(), Operator::Equal, Value::Address(address.ip())),
                Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(protocol)),
                Statement::compare(port.clone(), Operator::Equal, Value::Port(address.port())),
                Statement::Notrack,
            ])
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(listen: &[&str]) -> Option<Plan> {
        plan(&listen.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn each_address_is_left_alone_in_both_directions() {
        let plan = plan_of(&["169.254.20.10:53", "[fd00::a]:53", "10.96.0.10:53"]).unwrap();
        assert_eq!(
            plan.addresses,
            ["10.96.0.10", "169.254.20.10", "fd00::a"].map(|text| text.parse::<IpAddr>().unwrap())
        );
        let [v4, v6] = [0, 1].map(|place| plan.tables[place].to_string());
        for line in [
            "type filter hook prerouting priority raw; policy accept;",
            "type filter hook output priority raw; policy accept;",
            "ip daddr 169.254.20.10 meta l4proto udp th dport 53 notrack",
            "ip saddr 169.254.20.10 meta l4proto tcp th sport 53 notrack",
        ] {
            assert!(v4.contains(line), "{line} in {v4}");
        }
        assert_eq!(v4.matches("notrack").count(), 2 * 2 * 4, "{v4}");
        assert!(v6.contains("ip6 daddr fd00::a meta l4proto udp th dport 53 notrack"), "{v6}");
    }

    #[test]
    fn an_address_that_cannot_be_the_servers_own_is_refused() {
        assert_eq!(plan_of(&["169.254.20.10:53", "0.0.0.0:53"]), None);
        assert_eq!(plan_of(&["127.0.0.1:53"]), None);
        assert_eq!(plan_of(&["169.254.20.10:53"]).unwrap().tables.len(), 1, "no table without a rule");
    }
}
