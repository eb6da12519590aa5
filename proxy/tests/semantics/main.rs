//! What of a Service and its EndpointSlices leads where: one test for each rule of Kubernetes that needs no
//! kernel to be seen. From manifests to the planned maps, and to the planned rules of the mode iptables,
//! which must lead to the same; traffic is in `kernel/`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod iptables;
mod unusable;

use std::collections::BTreeMap;
use std::io::Write;

use weft_cluster::{WatchFilter, manifest};
use weft_proxy::config::Config;
use weft_proxy::dataplane::iptables::DesiredRules;
use weft_proxy::dataplane::nftables::DesiredTables;
use weft_proxy::services::planner::{Planner, everything};
use weft_types::Snapshot;

const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: here}, status: {addresses: \
                    [{type: InternalIP, address: 172.30.0.11}, {type: InternalIP, address: 'fd00:30::11'}]}}\n";
const NOBODY: [&str; 0] = [];

/// What these manifests come to, as `weft-proxy` sees the cluster.
fn snapshot(manifests: &[String]) -> Snapshot {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    write!(file, "{NODE}---\n{}", manifests.join("---\n")).unwrap();
    manifest::load(&WatchFilter::service_proxy(), &[file.path().to_owned()]).unwrap()
}

fn planner() -> (Planner, DesiredTables) {
    (Planner::new("here"), DesiredTables::new(&Config::default()))
}

/// The planned elements by their set, which is named as `ip frontends`, and the planned rules of the mode
/// iptables.
struct Plan {
    sets: BTreeMap<String, Vec<String>>,
    rules: iptables::Rules,
}

impl Plan {
    fn of(manifests: &[String]) -> Plan {
        let snapshot = snapshot(manifests);
        let (mut planner, mut tables) = planner();
        planner.start(&snapshot, &mut tables);
        let mut rules = DesiredRules::new(&Config::default());
        Planner::new("here").start(&snapshot, &mut rules);
        Plan { sets: Plan::sets(&tables), rules: iptables::Rules::of(&rules.render()) }
    }

    fn sets(tables: &DesiredTables) -> BTreeMap<String, Vec<String>> {
        let text: String = tables.tables().iter().map(ToString::to_string).collect();
        let (mut plan, mut family, mut set) = (BTreeMap::<_, Vec<_>>::new(), "", "");
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["table", name, ..] => family = name,
                ["set" | "map" | "chain", name, ..] => set = name,
                _ if line.starts_with("\t\t\t") => {
                    let element = line.trim().trim_end_matches(',').to_owned();
                    plan.entry(format!("{family} {set}")).or_default().push(element);
                }
                _ => {}
            }
        }
        plan
    }

    fn set(&self, name: &str) -> &[String] {
        self.sets.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Where a map of frontends and its map of endpoints lead: endpoints in order, or what else is said.
    fn led(&self, frontends: &str, endpoints: &str, key: &str) -> Vec<String> {
        let behind = |element: &String| {
            element.strip_prefix(key).and_then(|rest| Some(rest.split_once(" : ")?.1.to_owned()))
        };
        let direct = format!("{key} : ");
        let number = self.set(frontends).iter().find_map(|element| element.strip_prefix(&direct));
        let Some(number) = number else { return Vec::new() };
        let dispatch = format!("{} dispatch", frontends.split(' ').next().unwrap());
        let leads = format!("{number} : ");
        match self.set(&dispatch).iter().find_map(|element| element.strip_prefix(&leads)) {
            None => panic!("{key} : {number}, which leads nowhere"),
            Some(verdict) if verdict.contains("lb-") => {
                let mut led: Vec<String> = self.set(endpoints).iter().filter_map(behind).collect();
                assert!(verdict.ends_with(&format!("-{}", led.len())), "{verdict}: {led:?}");
                led.sort();
                led
            }
            Some(verdict) => vec![verdict.trim_start_matches("goto ").to_owned()],
        }
    }

    /// Where clients are led from an address and port such as `10.96.0.1 . tcp . 80`.
    fn at(&self, key: &str) -> Vec<String> {
        let family = if key.contains("::") { "ip6" } else { "ip" };
        let led = self.led(&format!("{family} frontends"), &format!("{family} endpoints"), key);
        assert_eq!(self.rules.at(key, false), led, "the mode iptables, at {key}");
        led
    }

    /// Where clients from outside are led from there, under an external policy Local.
    fn outside(&self, key: &str) -> Vec<String> {
        let led = self.led("ip local-frontends", "ip local-endpoints", key);
        assert_eq!(self.rules.at(key, true), led, "the mode iptables, from outside at {key}");
        led
    }

    /// Where clients are led from a NodePort of IPv4, such as `tcp . 30080`.
    fn node_port(&self, key: &str) -> Vec<String> {
        let led = self.led("ip nodeports", "ip nodeport-endpoints", key);
        assert_eq!(self.rules.at(key, false), led, "the mode iptables, at NodePort {key}");
        led
    }

    fn node_port_outside(&self, key: &str) -> Vec<String> {
        let led = self.led("ip local-nodeports", "ip local-nodeport-endpoints", key);
        assert_eq!(self.rules.at(key, true), led, "the mode iptables, from outside at NodePort {key}");
        led
    }
}

/// A Service `web` with that text in its spec.
fn service(spec: &str) -> String {
    named("web", "", spec)
}

fn named(name: &str, labels: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{namespace: shop, name: {name}, labels: {{{labels}}}}}, spec: {{{spec}}}}}\n"
    )
}

/// The commonest one.
fn http(more: &str) -> String {
    service(&format!("clusterIP: 10.96.0.1, ports: [{{name: http, port: 80, targetPort: web}}]{more}"))
}

/// An EndpointSlice of `web`: its name, its ports and its endpoints.
fn slice(name: &str, ports: &str, endpoints: &str) -> String {
    of_type("IPv4", name, ports, endpoints)
}

fn of_type(kind: &str, name: &str, ports: &str, endpoints: &str) -> String {
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: shop, name: {name}, labels: \
         {{kubernetes.io/service-name: web}}}}, addressType: {kind}, ports: [{ports}], endpoints: [{endpoints}]}}\n"
    )
}

const HTTP: &str = "{name: http, port: 8080, protocol: TCP}";
const AT: &str = "10.96.0.1 . tcp . 80";

/// An endpoint on a node in that condition.
fn on(node: &str, address: &str, conditions: &str) -> String {
    format!("{{addresses: [{address}], nodeName: {node}, conditions: {{{conditions}}}}}")
}

#[test]
fn services_with_the_label_service_proxy_name_are_another_proxys() {
    let spec = "clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]";
    let other = named("web", "service.kubernetes.io/service-proxy-name: other", spec);
    let endpoints = slice("a", HTTP, "{addresses: [10.244.1.2]}");
    assert_eq!(Plan::of(&[other, endpoints.clone()]).at(AT), NOBODY);
    assert_eq!(Plan::of(&[service(spec), endpoints]).at(AT), ["10.244.1.2 . 8080"]);
}

#[test]
fn headless_services_and_those_of_type_external_name_are_not_the_proxys() {
    let endpoints = slice("a", HTTP, "{addresses: [10.244.1.2]}");
    for (labels, spec) in [
        ("", "clusterIP: None, ports: [{name: http, port: 80}]"),
        ("service.kubernetes.io/headless: ''", "clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]"),
        ("", "type: ExternalName, externalName: example.test, externalIPs: [192.0.2.1], ports: [{port: 80}]"),
    ] {
        let plan = Plan::of(&[named("web", labels, spec), endpoints.clone()]);
        assert_eq!(plan.set("ip frontends"), NOBODY, "{spec}");
        assert_eq!(plan.set("ip cluster-ips"), NOBODY, "{spec}");
    }
}

#[test]
fn endpoint_slices_of_host_names_are_ignored() {
    let names = of_type("FQDN", "names", HTTP, "{addresses: [db.example.test]}");
    assert_eq!(Plan::of(&[http(""), names.clone()]).at(AT), ["no-endpoints"]);
    let with_addresses = [http(""), names, slice("a", HTTP, "{addresses: [10.244.1.2]}")];
    assert_eq!(Plan::of(&with_addresses).at(AT), ["10.244.1.2 . 8080"]);
}

#[test]
fn several_endpoint_slices_are_merged_and_what_is_in_two_of_them_counts_once() {
    let plan = Plan::of(&[
        http(""),
        slice("a", HTTP, "{addresses: [10.244.1.2]}, {addresses: [10.244.1.3]}, {addresses: [10.244.1.2]}"),
        slice("b", HTTP, "{addresses: [10.244.1.3]}, {addresses: [10.244.1.4]}"),
    ]);
    assert_eq!(plan.at(AT), ["10.244.1.2 . 8080", "10.244.1.3 . 8080", "10.244.1.4 . 8080"]);
}

#[test]
fn an_endpoint_that_moves_to_another_slice_changes_nothing() {
    let (one, both, none) =
        ("{addresses: [10.244.1.2]}", "{addresses: [10.244.1.2]}, {addresses: [10.244.1.3]}", "");
    let (mut planner, mut tables) = planner();
    let mut update = |a: &str, b: &str| {
        let snapshot = snapshot(&[http(""), slice("a", HTTP, a), slice("b", HTTP, b)]);
        planner.update(&snapshot, &everything(&snapshot), &mut tables);
        tables.take_changes().to_string()
    };
    assert_ne!(update(one, "{addresses: [10.244.1.3]}"), "");
    // In both slices for a moment, as the control plane writes them one after the other; and the other way
    // round.
    for (a, b) in [(one, both), (none, both), (both, both), (both, none)] {
        assert_eq!(update(a, b), "", "{a} | {b}");
    }
}

#[test]
fn of_two_entries_for_an_endpoint_in_two_slices_the_one_that_is_not_terminating_counts() {
    let (ending, ready) = ("ready: false, serving: true, terminating: true", "ready: true");
    for (a, b) in [(ending, ready), (ready, ending)] {
        let plan = Plan::of(&[
            http(""),
            slice("a", HTTP, &on("here", "10.244.1.2", a)),
            slice("b", HTTP, &[on("here", "10.244.1.2", b), on("here", "10.244.1.3", "")].join(", ")),
        ]);
        assert_eq!(plan.at(AT), ["10.244.1.2 . 8080", "10.244.1.3 . 8080"]);
    }
}

#[test]
fn only_the_first_address_of_an_endpoint_counts() {
    let plan = Plan::of(&[http(""), slice("a", HTTP, "{addresses: [10.244.1.2, 10.244.1.3]}")]);
    assert_eq!(plan.at(AT), ["10.244.1.2 . 8080"]);
}

#[test]
fn endpoints_without_conditions_are_ready_and_serve() {
    for conditions in ["", "ready: null, serving: null, terminating: null"] {
        let plan = Plan::of(&[http(""), slice("a", HTTP, &on("there", "10.244.1.2", conditions))]);
        assert_eq!(plan.at(AT), ["10.244.1.2 . 8080"], "{conditions}");
    }
    let unready = slice("a", HTTP, &on("there", "10.244.1.2", "ready: false"));
    assert_eq!(Plan::of(&[http(""), unready]).at(AT), ["no-endpoints"]);
}

#[test]
fn ports_of_slices_without_a_number_or_of_number_0_are_skipped() {
    let ports = "{name: http, port: null}, {name: http, port: 0}";
    let plan = Plan::of(&[http(""), slice("a", ports, "{addresses: [10.244.1.2]}")]);
    assert_eq!(plan.at(AT), ["no-endpoints"]);
}

/// No API server sends a port without a name: it writes an empty one, which is what people mean who leave it
/// out.
#[test]
fn a_port_without_a_name_is_the_one_of_a_service_whose_port_has_none() {
    let unnamed = service("clusterIP: 10.96.0.1, ports: [{port: 80}]");
    let endpoints = "{addresses: [10.244.1.2]}";
    for port in ["{port: 8080}", "{name: '', port: 8080}"] {
        assert_eq!(Plan::of(&[unnamed.clone(), slice("a", port, endpoints)]).at(AT), ["10.244.1.2 . 8080"]);
        assert_eq!(Plan::of(&[http(""), slice("a", port, endpoints)]).at(AT), ["no-endpoints"]);
    }
}

#[test]
fn named_target_ports_may_be_other_numbers_for_each_endpoint() {
    let plan = Plan::of(&[
        http(""),
        slice("a", "{name: http, port: 8080}, {name: metrics, port: 9090}", "{addresses: [10.244.1.2]}"),
        slice("b", "{name: http, port: 8181}", "{addresses: [10.244.1.3]}"),
        // The same pod under two numbers is two endpoints.
        slice("c", "{name: http, port: 8282}", "{addresses: [10.244.1.3]}"),
    ]);
    assert_eq!(plan.at(AT), ["10.244.1.2 . 8080", "10.244.1.3 . 8181", "10.244.1.3 . 8282"]);
}

#[test]
fn several_ports_and_one_port_of_three_protocols_have_their_own_endpoints() {
    let ports = "{name: a, port: 53, protocol: UDP}, {name: b, port: 53}, {name: c, port: 53, protocol: SCTP}, {name: d, port: 54}";
    let plan = Plan::of(&[
        service(&format!(
            "type: NodePort, clusterIP: 10.96.0.1, ports: [{}]",
            ports
                .replace("port: 53,", "port: 53, nodePort: 30053,")
                .replace("port: 53}", "port: 53, nodePort: 30053}")
        )),
        slice(
            "a",
            "{name: a, port: 5353, protocol: UDP}, {name: c, port: 5355, protocol: SCTP}",
            "{addresses: [10.244.1.2]}",
        ),
        // The right name with another protocol is not the right port.
        slice(
            "b",
            "{name: b, port: 5354, protocol: TCP}, {name: a, port: 1, protocol: TCP}",
            "{addresses: [10.244.1.3]}",
        ),
    ]);
    for (protocol, endpoint) in
        [("udp", "10.244.1.2 . 5353"), ("tcp", "10.244.1.3 . 5354"), ("sctp", "10.244.1.2 . 5355")]
    {
        assert_eq!(plan.at(&format!("10.96.0.1 . {protocol} . 53")), [endpoint]);
        assert_eq!(plan.node_port(&format!("{protocol} . 30053")), [endpoint]);
    }
    assert_eq!(plan.at("10.96.0.1 . tcp . 54"), ["no-endpoints"]);
    assert_eq!(plan.set("ip cluster-ips"), ["10.96.0.1"], "ports that it lacks are refused there");
}

#[test]
fn a_service_without_a_selector_leads_to_whatever_somebody_wrote_into_its_slices() {
    let manual =
        "{addresses: [192.0.2.7]}, {addresses: [10.244.1.2], nodeName: here, conditions: {ready: true}}";
    let plan = Plan::of(&[
        service("clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]"),
        slice("by-hand", HTTP, manual),
    ]);
    assert_eq!(plan.at(AT), ["10.244.1.2 . 8080", "192.0.2.7 . 8080"]);
    // One whose node nobody knows may be this node, and reach itself.
    assert_eq!(plan.set("ip hairpins"), ["10.244.1.2 . 10.244.1.2", "192.0.2.7 . 192.0.2.7"]);
}

#[test]
fn published_addresses_that_are_not_ready_get_connections_as_ready_ones() {
    // What the control plane makes of publishNotReadyAddresses.
    let published = on("here", "10.244.1.2", "ready: true, serving: false, terminating: true");
    let plan = Plan::of(&[http(", publishNotReadyAddresses: true"), slice("a", HTTP, &published)]);
    assert_eq!(plan.at(AT), ["10.244.1.2 . 8080"]);
}

#[test]
fn each_family_of_a_dual_stack_service_has_its_own_endpoints() {
    let dual = service("clusterIPs: [10.96.0.1, 'fd00:96::1'], ports: [{name: http, port: 80}]");
    let v4 = slice("a", HTTP, "{addresses: [10.244.1.2]}");
    let v6 = of_type("IPv6", "b", HTTP, "{addresses: ['fd00:244:1::2']}");
    let plan = Plan::of(&[dual.clone(), v4.clone(), v6]);
    assert_eq!(plan.at(AT), ["10.244.1.2 . 8080"]);
    assert_eq!(plan.at("fd00:96::1 . tcp . 80"), ["fd00:244:1::2 . 8080"]);
    assert_eq!(Plan::of(&[dual, v4]).at("fd00:96::1 . tcp . 80"), ["no-endpoints"]);
}

#[test]
fn a_load_balancer_without_node_ports_is_served_at_its_addresses() {
    let spec = "type: LoadBalancer, allocateLoadBalancerNodePorts: false, clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]";
    let status = "}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}";
    let plan =
        Plan::of(&[service(&format!("{spec}{status}")), slice("a", HTTP, "{addresses: [10.244.1.2]}")]);
    assert_eq!(plan.at("192.0.2.1 . tcp . 80"), ["10.244.1.2 . 8080"]);
    assert_eq!(plan.set("ip nodeports"), NOBODY);
}

#[test]
fn of_a_load_balancer_only_addresses_whose_ip_mode_is_vip_or_not_given_are_served() {
    let spec = "type: LoadBalancer, clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]";
    let ingress = "[{ip: 192.0.2.1}, {ip: 192.0.2.2, ipMode: VIP}, {ip: 192.0.2.3, ipMode: Proxy}, {hostname: lb.example.test}]";
    let balanced = service(&format!("{spec}}}, status: {{loadBalancer: {{ingress: {ingress}}}"));
    let plan = Plan::of(&[balanced, slice("a", HTTP, "{addresses: [10.244.1.2]}")]);
    let served = |last: u8| plan.at(&format!("192.0.2.{last} . tcp . 80"));
    assert_eq!([served(1), served(2)], [["10.244.1.2 . 8080"]; 2]);
    assert_eq!(served(3), NOBODY);
}

/// All frontends of a Service, under both policies Cluster or both Local.
fn everywhere(policy: &str, endpoints: &str) -> Plan {
    let spec = "type: LoadBalancer, clusterIP: 10.96.0.1, externalIPs: [192.0.2.1], ports: [{name: http, port: 80, nodePort: 30080}]";
    let policies = format!("internalTrafficPolicy: {policy}, externalTrafficPolicy: {policy}");
    let status = "}, status: {loadBalancer: {ingress: [{ip: 192.0.2.2}]}";
    Plan::of(&[service(&format!("{spec}, {policies}{status}")), slice("a", HTTP, endpoints)])
}

const READY: &str = "ready: true";
const ENDING: &str = "ready: false, serving: true, terminating: true";
const DEAD: &str = "ready: false, serving: false, terminating: true";
const UNREADY: &str = "ready: false, serving: true, terminating: false";

#[test]
fn under_policies_cluster_terminating_endpoints_serve_where_none_is_ready_and_nobody_is_told_no_endpoints() {
    let (ours, theirs) = ("10.244.1.2 . 8080", "10.244.2.2 . 8080");
    for (here, there, expected) in [
        (READY, READY, &[ours, theirs][..]),
        (ENDING, READY, &[theirs]),
        (READY, ENDING, &[ours]),
        (ENDING, ENDING, &[ours, theirs]),
        (ENDING, DEAD, &[ours]),
        (UNREADY, ENDING, &[theirs]),
        (UNREADY, DEAD, &["no-endpoints"]),
        (DEAD, DEAD, &["no-endpoints"]),
    ] {
        let plan = everywhere(
            "Cluster",
            &[on("here", "10.244.1.2", here), on("there", "10.244.2.2", there)].join(", "),
        );
        for address in ["10.96.0.1", "192.0.2.1", "192.0.2.2"] {
            assert_eq!(plan.at(&format!("{address} . tcp . 80")), expected, "{address}: {here} | {there}");
        }
        assert_eq!(plan.node_port("tcp . 30080"), expected, "{here} | {there}");
        assert_eq!((plan.set("ip local-frontends"), plan.set("ip local-nodeports")), (&[][..], &[][..]));
    }
}

#[test]
fn under_policies_local_this_nodes_terminating_endpoints_serve_where_none_of_its_own_is_ready() {
    let (ours, theirs) = ("10.244.1.2 . 8080", "10.244.2.2 . 8080");
    // Where those from outside and clients of the ClusterIP go, and where the node and pods go to external
    // frontends.
    for (here, there, local, cluster) in [
        (READY, READY, ours, &[ours, theirs][..]),
        (ENDING, READY, ours, &[theirs]),
        (DEAD, READY, "drop", &[theirs]),
        (UNREADY, READY, "drop", &[theirs]),
        (READY, DEAD, ours, &[ours]),
        (ENDING, ENDING, ours, &[ours, theirs]),
        (DEAD, ENDING, "drop", &[theirs]),
        (UNREADY, DEAD, "no-endpoints", &["no-endpoints"]),
    ] {
        let plan = everywhere(
            "Local",
            &[on("here", "10.244.1.2", here), on("there", "10.244.2.2", there)].join(", "),
        );
        assert_eq!(plan.at(AT), [local], "ClusterIP: {here} | {there}");
        for address in ["192.0.2.1 . tcp . 80", "192.0.2.2 . tcp . 80"] {
            assert_eq!(plan.outside(address), [local], "{address}: {here} | {there}");
            assert_eq!(plan.at(address), cluster, "{address}: {here} | {there}");
        }
        assert_eq!(plan.node_port_outside("tcp . 30080"), [local], "{here} | {there}");
        assert_eq!(plan.node_port("tcp . 30080"), cluster, "{here} | {there}");
    }
}

#[test]
fn a_change_of_the_affinity_timeout_is_a_change_of_one_element_and_clients_stay_where_they_are() {
    let (mut planner, mut tables) = planner();
    let mut update = |seconds: u32| {
        let affinity = format!(
            ", sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"
        );
        let snapshot = snapshot(&[http(&affinity), slice("a", HTTP, "{addresses: [10.244.1.2]}")]);
        planner.update(&snapshot, &everything(&snapshot), &mut tables);
        tables.take_changes().to_string()
    };
    update(10_800);
    let changes = update(30);
    let touched: Vec<&str> = changes.lines().map(|line| line.split(" {").next().unwrap()).collect();
    let timeouts = ["delete element ip weft affinity-timeouts", "add element ip weft affinity-timeouts"];
    assert_eq!(touched.iter().filter(|line| line.contains("element")).copied().collect::<Vec<_>>(), timeouts);
    assert!(
        changes.contains("goto remember-30 }") && changes.contains("delete chain ip weft remember-10800"),
        "{changes}"
    );
}

/// What several Services put into one set must be known as shared: nothing of the one that stays may go with
/// the other.
#[test]
fn of_two_services_on_one_selector_one_goes_and_takes_nothing_of_the_other() {
    let own = |name: &str, last: u8, port: u16| {
        let spec = format!(
            "type: LoadBalancer, clusterIPs: [10.96.0.{last}, 'fd00:96::{last}'], externalIPs: [192.0.2.{last}], \
             externalTrafficPolicy: Local, sessionAffinity: ClientIP, loadBalancerSourceRanges: [198.51.100.0/24], \
             ports: [{{name: http, port: 80, nodePort: {port}}}]}}, status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.{last}}}]}}"
        );
        let slice = slice("x", HTTP, &on("here", "10.244.1.2", READY));
        let slice = slice
            .replace("name: x", &format!("name: {name}-1"))
            .replace("service-name: web", &format!("service-name: {name}"));
        [named(name, "", &spec), slice]
    };
    let (first, second) = (own("first", 1, 30001), own("second", 2, 30002));
    let (both, one) = (snapshot(&[first, second.clone()].concat()), snapshot(&second));
    let (mut planner, mut tables) = planner();
    let mut kernel = weft_nftables::Observed::default();
    kernel.apply(&weft_nftables::diff(&tables.tables(), &kernel)).unwrap();
    for snapshot in [&both, &one] {
        planner.update(snapshot, &everything(&both), &mut tables);
        kernel.apply(&tables.take_changes()).unwrap();
    }
    assert_eq!(kernel, weft_nftables::Observed::of(&tables.tables()));
}

#[test]
fn a_node_with_an_external_address_only_has_node_ports() {
    let node = NODE.replace("InternalIP, address: 172.30.0.11", "ExternalIP, address: 192.0.2.11");
    assert_eq!(Plan::of(&[node]).set("ip nodeport-addresses"), ["192.0.2.11"]);
}
