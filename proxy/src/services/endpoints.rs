//! Which endpoints may get new connections to a Service port.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use weft_types::{Endpoint, EndpointPort, EndpointSlice, Family, Hints, Protocol, ServicePort};

use super::node::NodeContext;

/// Endpoints that may get new connections. Each list is in order, and has nothing twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// Where those of all nodes listen.
    pub cluster: Vec<SocketAddr>,
    /// Where those of this node listen. Not always some of the others: where only other nodes have ready
    /// endpoints, this node's own ones may still be shutting down.
    pub local: Vec<SocketAddr>,
    /// Those of their addresses that may belong to this node, and so may send connections through this node
    /// to themselves.
    pub hairpins: Vec<IpAddr>,
}

/// Which EndpointSlices of a Service serve each of its ports, by the port's name and protocol, and at which
/// number there. A Service may have thousands of ports, which are not looked for among thousands one by one.
#[derive(Clone, Debug, Default)]
pub struct ServedBy<'a>(HashMap<(&'a str, Protocol), Vec<(&'a EndpointSlice, u16)>>);

impl<'a> ServedBy<'a> {
    /// What these slices serve, in their order.
    pub fn of(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> ServedBy<'a> {
        let mut served = ServedBy::default();
        for slice in slices {
            for EndpointPort { name, protocol, port } in &slice.ports {
                served.0.entry((name, *protocol)).or_default().push((slice, port.get()));
            }
        }
        served
    }

    /// Where a port is served.
    pub fn at<'b>(&'b self, port: &'b ServicePort) -> &'b [(&'b EndpointSlice, u16)] {
        self.0.get(&(&*port.name, port.protocol)).map(Vec::as_slice).unwrap_or_default()
    }
}

/// One endpoint of a Service port, merged from all slices.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    endpoint: &'a Endpoint,
    socket: SocketAddr,
}

/// The endpoints of one family that may get new connections to `port`, in the cluster and on this node.
pub fn backends(
    served: &ServedBy<'_>,
    port: &ServicePort,
    family: Family,
    node: NodeContext<'_>,
) -> Backends {
    let candidates = candidates(served.at(port), family, node);
    let cluster = hinted(usable(&candidates), node);
    let of_node: Vec<_> =
        candidates.iter().filter(|candidate| node.runs(candidate.endpoint)).copied().collect();
    let local = usable(&of_node);
    let may_be_here =
        |candidate: &&Candidate<'_>| candidate.endpoint.node.is_none() || node.runs(candidate.endpoint);
    let hairpins = cluster.iter().chain(&local).filter(may_be_here).map(|candidate| candidate.socket.ip());
    let mut hairpins: Vec<IpAddr> = hairpins.collect();
    hairpins.sort_unstable();
    hairpins.dedup();
    Backends { hairpins, cluster: listening(&cluster), local: listening(&local) }
}

/// The ready ones, and where there are none, those that are shutting down but still serve (KEP-1669).
fn usable<'a>(candidates: &[Candidate<'a>]) -> Vec<Candidate<'a>> {
    let select = |wanted: fn(&Endpoint) -> bool| {
        let selected = candidates.iter().filter(|candidate| wanted(candidate.endpoint));
        selected.copied().collect::<Vec<_>>()
    };
    let ready = select(|endpoint| endpoint.ready);
    match ready.is_empty() {
        false => ready,
        true => select(serves_to_the_end),
    }
}

/// Whether it is shutting down but still serves.
fn serves_to_the_end(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

/// Those that the cluster means for clients of this node, else for clients of its zone, else all (KEP-2433,
/// KEP-3015). Hints count only where every ready endpoint has some: otherwise those without would get nothing
/// from anybody.
fn hinted<'a>(candidates: Vec<Candidate<'a>>, node: NodeContext<'_>) -> Vec<Candidate<'a>> {
    if candidates.iter().any(|candidate| !candidate.endpoint.ready) {
        return candidates; // None is ready: all that still serve do.
    }
    let meant = |names: fn(&Hints) -> &Vec<String>, name: &str| {
        let names = |candidate: &Candidate<'a>| candidate.endpoint.hints.as_deref().map(names);
        let all_have =
            candidates.iter().all(|candidate| names(candidate).is_some_and(|names| !names.is_empty()));
        let is_meant = |candidate: &&Candidate<'a>| {
            names(candidate).is_some_and(|names| names.iter().any(|meant| meant == name))
        };
        let selected: Vec<_> = candidates.iter().filter(is_meant).copied().collect();
        (all_have && !selected.is_empty()).then_some(selected)
    };
    let same_node = meant(|hints| &hints.nodes, node.node);
    let same_zone = || meant(|hints| &hints.zones, node.zone?);
    same_node.or_else(same_zone).unwrap_or(candidates)
}

fn listening(candidates: &[Candidate<'_>]) -> Vec<SocketAddr> {
    candidates.iter().map(|candidate| candidate.socket).collect()
}

/// The endpoints of all slices, in order. A pod may stand in two slices for a while, in one of them as it was
/// before. Where two have the same address and port, the one that is ready counts, else the one that still
/// serves; of two alike, the one that is known to be on this node.
fn candidates<'a>(
    served: &[(&'a EndpointSlice, u16)],
    family: Family,
    node: NodeContext<'_>,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for &(slice, port) in served {
        let endpoints = slice.endpoints.iter().filter(|endpoint| is_usable(endpoint.address, family));
        let candidate = |endpoint| Candidate { endpoint, socket: SocketAddr::new(endpoint.address, port) };
        candidates.extend(endpoints.map(candidate));
    }
    candidates.sort_by_key(|Candidate { endpoint, socket }| {
        (*socket, !endpoint.ready, !serves_to_the_end(endpoint), !node.runs(endpoint))
    });
    candidates.dedup_by_key(|candidate| candidate.socket);
    candidates
}

/// Whether connections may be sent to that address.
fn is_usable(address: IpAddr, family: Family) -> bool {
    Family::of(address) == family && !is_special(address)
}

/// Whether an address is none that a Service may have or lead to. What the API server refuses is refused here
/// too: a Service must not lead into the node's own loopback or link-local networks, nor take them over.
pub(crate) fn is_special(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    local || address.is_unspecified() || address.is_loopback() || address.is_multicast()
}

#[cfg(test)]
mod tests {
    use weft_types::NamespacedName;

    use super::*;

    const HERE: NodeContext<'static> = NodeContext { node: "here", zone: Some("north"), addresses: &[] };

    fn port(name: &str, number: u16) -> EndpointPort {
        EndpointPort { name: name.into(), protocol: Protocol::Tcp, port: number.try_into().unwrap() }
    }

    fn endpoint(address: &str) -> Endpoint {
        Endpoint { node: Some("here".into()), ..Endpoint::ready(address.parse().unwrap()) }
    }

    fn slice(ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let key = NamespacedName::new("shop", "web-1");
        EndpointSlice { key, service: NamespacedName::new("shop", "web"), ports, endpoints }
    }

    fn http() -> ServicePort {
        let (protocol, port) = (Protocol::Tcp, 80.try_into().unwrap());
        ServicePort { name: "http".into(), protocol, port, node_port: None }
    }

    fn chosen(slices: &[EndpointSlice], family: Family) -> Vec<String> {
        let backends = backends(&ServedBy::of(slices), &http(), family, HERE);
        backends.cluster.iter().map(SocketAddr::to_string).collect()
    }

    fn terminating(address: &str) -> Endpoint {
        Endpoint { ready: false, terminating: true, ..endpoint(address) }
    }

    #[test]
    fn slices_are_merged_and_ports_may_differ_between_them() {
        let slices = [
            slice(vec![port("http", 8080), port("metrics", 9)], vec![endpoint("10.244.0.2")]),
            slice(vec![port("http", 8081)], vec![endpoint("10.244.0.3"), endpoint("10.244.0.3")]),
        ];
        assert_eq!(chosen(&slices, Family::V4), ["10.244.0.2:8080", "10.244.0.3:8081"]);
        assert!(chosen(&slices, Family::V6).is_empty());
    }

    #[test]
    fn unready_endpoints_get_nothing() {
        let unready = Endpoint { ready: false, serving: false, ..endpoint("10.244.0.2") };
        assert!(chosen(&[slice(vec![port("http", 80)], vec![unready])], Family::V4).is_empty());
    }

    #[test]
    fn terminating_endpoints_serve_only_where_none_is_ready() {
        let mut endpoints = vec![terminating("10.244.0.2"), endpoint("10.244.0.3")];
        let slices = [slice(vec![port("http", 80)], endpoints.clone())];
        assert_eq!(chosen(&slices, Family::V4), ["10.244.0.3:80"]);
        endpoints.pop();
        let slices = [slice(vec![port("http", 80)], endpoints)];
        assert_eq!(chosen(&slices, Family::V4), ["10.244.0.2:80"]);
    }

    #[test]
    fn of_two_entries_for_one_endpoint_the_one_that_is_not_terminating_counts() {
        let endpoints = vec![terminating("10.244.0.2"), endpoint("10.244.0.2"), terminating("10.244.0.2")];
        let slices = [slice(vec![port("http", 80)], endpoints)];
        assert_eq!(chosen(&slices, Family::V4), ["10.244.0.2:80"]);
    }

    #[test]
    fn of_two_entries_for_one_endpoint_the_one_that_may_get_connections_counts_in_whatever_order() {
        let entry =
            |ready, serving, terminating| Endpoint { ready, serving, terminating, ..endpoint("10.244.0.2") };
        let unready = entry(false, true, false);
        let ending = entry(false, true, true);
        let ended = entry(false, false, true);
        for (one, other) in [
            (&unready, &endpoint("10.244.0.2")),
            (&ended, &ending),
            (&unready, &ending),
            (&ended, &endpoint("10.244.0.2")),
        ] {
            for entries in [[one, other], [other, one]] {
                let together = [slice(vec![port("http", 80)], entries.map(Clone::clone).to_vec())];
                assert_eq!(chosen(&together, Family::V4), ["10.244.0.2:80"], "{entries:?}");
                let apart = entries.map(|entry| slice(vec![port("http", 80)], vec![entry.clone()]));
                assert_eq!(chosen(&apart, Family::V4), ["10.244.0.2:80"], "{entries:?}");
            }
        }
    }

    #[test]
    fn of_two_entries_for_one_endpoint_the_one_on_this_node_counts_for_a_local_policy() {
        let elsewhere = Endpoint { node: None, ..endpoint("10.244.0.2") };
        let slices = [slice(vec![port("http", 80)], vec![elsewhere, endpoint("10.244.0.2")])];
        assert_eq!(
            backends(&ServedBy::of(&slices), &http(), Family::V4, HERE).local,
            sockets_at(&["10.244.0.2:80"])
        );
    }

    #[test]
    fn no_service_leads_into_the_nodes_own_networks() {
        let bad = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255"];
        let slices = [slice(vec![port("http", 80)], bad.map(endpoint).to_vec())];
        assert!(chosen(&slices, Family::V4).is_empty());
        let bad = ["::1", "fe80::1", "::", "ff02::1", "::ffff:127.0.0.1"];
        let slices = [slice(vec![port("http", 80)], bad.map(endpoint).to_vec())];
        assert!(chosen(&slices, Family::V6).is_empty());
    }

    #[test]
    fn only_endpoints_that_may_be_here_are_hairpins() {
        let elsewhere = Endpoint { node: Some("there".into()), ..endpoint("10.244.1.2") };
        let unknown = Endpoint { node: None, ..endpoint("192.0.2.1") };
        let slices = [slice(vec![port("", 80)], vec![endpoint("10.244.0.2"), elsewhere, unknown])];
        let port = ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80.try_into().unwrap(),
            node_port: None,
        };
        let hairpins = backends(&ServedBy::of(&slices[..1]), &port, Family::V4, HERE).hairpins;
        assert_eq!(hairpins, ["10.244.0.2", "192.0.2.1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn terminating_endpoints_of_this_node_serve_a_local_policy_though_others_are_ready_elsewhere() {
        let elsewhere = Endpoint { node: Some("there".into()), ..endpoint("10.244.1.2") };
        let slices = [slice(vec![port("", 80)], vec![terminating("10.244.0.2"), elsewhere])];
        let port = ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80.try_into().unwrap(),
            node_port: None,
        };
        let backends = backends(&ServedBy::of(&slices[..1]), &port, Family::V4, HERE);
        assert_eq!(backends.cluster, sockets_at(&["10.244.1.2:80"]));
        assert_eq!(backends.local, sockets_at(&["10.244.0.2:80"]));
        assert_eq!(backends.hairpins, ["10.244.0.2".parse::<IpAddr>().unwrap()]);
    }

    /// A ready endpoint that is meant for clients of these nodes and zones.
    fn meant_for(address: &str, nodes: &[&str], zones: &[&str]) -> Endpoint {
        let names = |names: &[&str]| names.iter().copied().map(str::to_owned).collect();
        let hints = Hints { nodes: names(nodes), zones: names(zones) };
        Endpoint { hints: Some(Box::new(hints)), ..endpoint(address) }
    }

    /// The last bytes of the addresses of those that get connections.
    fn hinted_of(endpoints: &[Endpoint]) -> Vec<u8> {
        let slices = [slice(vec![port("http", 80)], endpoints.to_vec())];
        let last = |text: &String| text.split(['.', ':']).nth(3).unwrap().parse().unwrap();
        chosen(&slices, Family::V4).iter().map(last).collect()
    }

    #[test]
    fn endpoints_meant_for_this_node_are_preferred_to_those_meant_for_its_zone() {
        let mut endpoints = vec![
            meant_for("10.244.0.1", &["here", "there"], &["north"]),
            meant_for("10.244.0.2", &["there"], &["north"]),
            meant_for("10.244.0.3", &["there"], &["south"]),
        ];
        assert_eq!(hinted_of(&endpoints), [1]);
        endpoints.remove(0);
        assert_eq!(hinted_of(&endpoints), [2], "none for the node: those for the zone");
        endpoints.remove(0);
        assert_eq!(hinted_of(&endpoints), [3], "none for the zone either: all");
    }

    #[test]
    fn hints_count_only_where_every_ready_endpoint_has_some() {
        let mut endpoints = vec![
            meant_for("10.244.0.1", &["here"], &["north"]),
            meant_for("10.244.0.2", &[], &["south"]),
            Endpoint { ready: false, serving: false, ..endpoint("10.244.0.3") },
        ];
        assert_eq!(hinted_of(&endpoints), [1], "not all have node hints, but all have zone hints");
        endpoints.push(endpoint("10.244.0.4"));
        assert_eq!(hinted_of(&endpoints), [1, 2, 4], "one has no hints at all");
    }

    #[test]
    fn hints_of_endpoints_that_shut_down_do_not_count_where_none_is_ready() {
        let ending = |endpoint| Endpoint { ready: false, terminating: true, ..endpoint };
        let endpoints = [
            ending(meant_for("10.244.0.1", &["here"], &["north"])),
            ending(meant_for("10.244.0.2", &["there"], &["south"])),
        ];
        assert_eq!(hinted_of(&endpoints), [1, 2]);
    }

    #[test]
    fn zone_hints_say_nothing_to_a_node_without_a_zone_and_a_local_policy_ignores_hints() {
        let endpoints =
            vec![meant_for("10.244.0.1", &[], &["north"]), meant_for("10.244.0.2", &[], &["south"])];
        let slices = slice(vec![port("", 80)], endpoints);
        let port = ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80.try_into().unwrap(),
            node_port: None,
        };
        let in_zone =
            |zone| backends(&ServedBy::of([&slices]), &port, Family::V4, NodeContext { zone, ..HERE });
        assert_eq!(in_zone(None).cluster.len(), 2);
        assert_eq!(in_zone(Some("south")).cluster, sockets_at(&["10.244.0.2:80"]));
        assert_eq!(in_zone(Some("south")).local.len(), 2);
    }

    fn sockets_at(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }
}
