//! One lab, made from the programs in `WEFT_BIN_DIR`, and what a user relies on in it. Scenarios are named
//! after what they show; those that mirror Kubernetes' own sig-network tests carry their names. Needs root,
//! and `nft`, `dig`, `getent`, `kubectl`, `musl-gcc` and a static busybox on the host.

mod access;
mod affinity;
mod announcements;
mod api;
mod application;
mod as_found;
mod bgp;
mod blocks;
mod broken;
mod case;
mod cluster;
mod connection;
mod conntrack;
mod daemons;
mod dns;
mod dual_stack;
mod explain;
mod faults;
mod flows;
mod granular_checks;
mod host_ports;
mod invalid;
mod lab;
mod load;
mod load_balancer_addresses;
mod load_balancers;
mod manifests;
mod modes;
mod network_policies;
mod node_local;
mod operations;
mod probe;
mod real_runtime;
mod removal;
mod resolvers;
mod services;
mod soak;
mod tour;
mod trace;
mod traffic_distribution;
mod upgrade;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use crate::lab::{Lab, Outcome};

/// A scenario: what it shows, and how.
type Scenario = (&'static str, fn(&Lab) -> Outcome);

/// The application of the demo, which later scenarios rely on. One after the other.
const FIRST: &[Scenario] = &[
    ("01 every check of the demo passes", application::every_check_of_the_demo_passes),
    ("02 glibc resolves a Service by short name and in full", application::glibc_resolves_services),
    ("03 dig inside a pod answers over UDP and TCP", application::dig_inside_a_pod),
    ("04 datagrams reach a Service", application::datagrams_reach_a_service),
    ("05 nft lists all rules, none of them for one Service", application::no_rule_for_one_service),
];

/// Each in a namespace of the cluster of its own, several at a time.
const TOGETHER: &[Scenario] = &[
    (
        "Netpol, ClusterNetworkPolicy and generated policies: truth tables over nine pods",
        network_policies::over_nine_pods,
    ),
    (
        "Netpol: ClusterIP, NodePort and hairpin traffic is judged by the real peer and port",
        network_policies::services_are_judged_by_the_real_peer,
    ),
    (
        "Netpol: the pod's own node is always allowed, other nodes and hostNetwork pods by address alone",
        network_policies::the_own_node_is_always_allowed,
    ),
    (
        "Netpol: a pod starts with its policies: nothing denied passes, nothing allowed is refused",
        network_policies::gap::a_pod_starts_with_its_policies,
    ),
    (
        "Netpol: pings follow rules without ports, and no rule with ports",
        network_policies::pings_follow_rules_without_ports,
    ),
    (
        "Netpol: externalTrafficPolicy Cluster shows the pod's own node's clients, and other nodes in their place",
        network_policies::clients_of_node_ports_by_traffic_policy,
    ),
    (
        "Netpol: clients of a load balancer's address, by externalTrafficPolicy Local and Cluster",
        network_policies::clients_of_a_load_balancer_by_traffic_policy,
    ),
    (
        "Netpol: pods that ended have no say, whatever addresses they had",
        network_policies::pods_that_ended_have_no_say,
    ),
    (
        "Netpol: what may not leave reaches its own node, and another one by its address alone",
        network_policies::egress_to_the_own_node_and_to_others,
    ),
    ("CNPAdminTierEgressNodePeers, CNPBaselineTierEgressNodePeers", network_policies::egress_to_nodes),
    ("Netpol: egress for names alone resolves them", network_policies::egress_for_names_alone),
    ("Services should serve a basic endpoint from pods", services::basic_endpoint),
    ("Services should serve multiport endpoints from pods", services::multiport_endpoints),
    ("Services should be able to create a functioning NodePort service", services::functioning_node_port),
    (
        "Services should be able to change the type between ExternalName, ClusterIP and NodePort",
        services::change_of_type,
    ),
    (
        "Services should be able to update service type to NodePort listening on same port number but different protocols",
        services::same_port_other_protocols,
    ),
    ("Services should serve endpoints after ports are added or deleted", services::ports_added_and_deleted),
    (
        "Services should preserve source pod IP for traffic thru service cluster IP",
        services::source_address_is_kept,
    ),
    ("Services should allow pods to hairpin back to themselves through services", services::hairpin),
    (
        "Services should be able to up and down services, and work after the service has been recreated",
        services::up_and_down,
    ),
    (
        "Services should be possible to connect to a service via ExternalIP when the external IP is not assigned to a node",
        services::external_ip,
    ),
    (
        "Services should release NodePorts on delete, prevent collisions and check that they are in range",
        services::node_ports_are_released,
    ),
    (
        "Services should be able to connect to terminating and unready endpoints if PublishNotReadyAddresses is true, and not if it is false",
        services::publish_not_ready_addresses,
    ),
    (
        "Services should implement service.kubernetes.io/service-proxy-name and headless",
        services::proxy_name_and_headless,
    ),
    ("Services should be rejected when no endpoints exist", services::rejected_without_endpoints),
    ("Services should be rejected for ended pods (no endpoints exist)", services::rejected_for_ended_pods),
    (
        "Services should support named targetPorts that resolve to different ports on different endpoints",
        services::named_target_ports,
    ),
    ("Services should program a basic SCTP service with pod and endpoints", services::sctp_is_programmed),
    (
        "Services should respect internalTrafficPolicy=Local, pod and node, to pod and to hostNetwork pod",
        services::internal_policy_local,
    ),
    (
        "Services should support externalTrafficPolicy=Local for type=NodePort",
        services::external_policy_local,
    ),
    (
        "Services should fallback to terminating endpoints when there are no ready endpoints, under every policy",
        services::terminating_endpoints,
    ),
    (
        "Services and Granular Checks: client-address affinity works for a clusterIP, http and udp, and moves on from a pod that is gone",
        affinity::for_a_cluster_ip,
    ),
    (
        "Services should be able to switch session affinity for service with type clusterIP",
        affinity::switched_for_a_cluster_ip,
    ),
    (
        "Services should be able to switch session affinity for NodePort service",
        affinity::switched_for_a_node_port,
    ),
    (
        "Services should have session affinity timeout work for service with type clusterIP",
        affinity::ends_with_its_timeout,
    ),
    (
        "Services should have session affinity timeout work for NodePort service",
        affinity::ends_with_its_timeout_at_a_node_port,
    ),
    ("Services should complete a service status lifecycle", services::status_lifecycle),
    (
        "Service CIDRs should create Services and serve on different Service CIDRs",
        services::on_different_service_cidrs,
    ),
    ("Granular Checks: pods and nodes, http and udp", granular_checks::pods_and_nodes),
    (
        "Granular Checks: Services: pod-, node- and endpoint-Service, several services on one selector",
        granular_checks::from_everywhere_to_a_service,
    ),
    ("Granular Checks: Services: should update endpoints and nodePort", granular_checks::updates),
    ("Granular Checks: Services: should be able to handle large requests", granular_checks::large_requests),
    (
        "Granular Checks: Services: should function for hostNetwork endpoints",
        granular_checks::host_network_endpoints,
    ),
    (
        "IPv6DualStack should have ipv4 and ipv6 internal node ip and pod ips",
        dual_stack::nodes_and_pods_have_both_families,
    ),
    (
        "IPv6DualStack should create services with cluster ips of one and of both families",
        dual_stack::single_and_dual_stack_services,
    ),
    (
        "NoSNAT should be able to send traffic between Pods without SNAT",
        dual_stack::between_pods_without_snat,
    ),
    (
        "EndpointSlice should support a Service with several ports and endpoint IPs in several EndpointSlices",
        dual_stack::endpoints_over_several_slices,
    ),
    ("EndpointSlice should follow a Service with a selector", dual_stack::slices_follow_the_service),
    (
        "EndpointSlice should have Endpoints and EndpointSlices pointing to API Server",
        dual_stack::api_server_s_endpoints,
    ),
    (
        "LoadBalancers ExternalTrafficPolicy Local: the node of the pod answers ARP, and tells when the pod moves",
        announcements::the_node_of_the_pod_answers,
    ),
    (
        "LoadBalancers should be able to change the type and ports of a TCP and UDP service",
        load_balancers::type_and_ports_change,
    ),
    (
        "LoadBalancers should be able to create a service without allocating NodePorts",
        load_balancers::without_node_port,
    ),
    (
        "LoadBalancers ExternalTrafficPolicy Local should only target nodes with endpoints, and keep the source",
        load_balancers::only_nodes_with_endpoints,
    ),
    (
        "LoadBalancers should only allow access from service loadbalancer source ranges",
        load_balancers::source_ranges,
    ),
    (
        "LoadBalancers ExternalTrafficPolicy Local should answer health checks, 503 with only terminating endpoints",
        load_balancers::health_check_node_port,
    ),
    (
        "LoadBalancers should not have connectivity disruption during rolling update",
        load_balancers::no_disruption_in_a_rolling_update,
    ),
    (
        "LoadBalancers should have session affinity work for LoadBalancer service",
        affinity::for_a_load_balancer,
    ),
    (
        "LoadBalancers should leave addresses of ipMode Proxy to the balancer",
        load_balancers::proxied_addresses_are_left_alone,
    ),
    (
        "Conntrack should be able to preserve UDP traffic when server pod cycles for a ClusterIP service",
        conntrack::pod_cycles_behind_a_cluster_ip,
    ),
    (
        "Conntrack should be able to preserve UDP traffic when server pod cycles for a ClusterIP service and client is hostNetwork",
        conntrack::pod_cycles_for_a_client_on_the_host_network,
    ),
    (
        "Conntrack should be able to preserve UDP traffic when server pod cycles for a NodePort service",
        conntrack::pod_cycles_behind_a_node_port,
    ),
    (
        "Conntrack should be able to preserve UDP traffic when server pod cycles for a service with internalTrafficPolicy=Local",
        conntrack::pod_cycles_under_internal_policy_local,
    ),
    (
        "Conntrack should be able to preserve UDP traffic when initial unready endpoints get ready",
        conntrack::unready_endpoints_get_ready,
    ),
    (
        "Conntrack should be able to preserve UDP traffic when the target port changes",
        conntrack::target_port_changes,
    ),
    ("Conntrack should drop INVALID conntrack entries", invalid::entries_are_dropped),
    ("KubeProxy should set TCP CLOSE_WAIT timeout", conntrack::close_wait_timeout),
    (
        "Traffic Distribution should route traffic to an endpoint in the same zone when using PreferSameZone",
        traffic_distribution::prefer_same_zone,
    ),
    (
        "Traffic Distribution should route traffic to an endpoint that is close to the client (PreferClose)",
        traffic_distribution::prefer_close,
    ),
    (
        "Traffic Distribution should route traffic to an endpoint on the same node when using PreferSameNode",
        traffic_distribution::prefer_same_node,
    ),
    (
        "HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol",
        host_ports::other_addresses_and_protocols,
    ),
    ("HostPort takes nothing from a NodePort of the same number", host_ports::node_ports_come_first),
    ("DNS should provide DNS for the cluster", dns::for_the_cluster),
    ("DNS should provide DNS for services", dns::for_services),
    (
        "DNS should resolve partial qualified names, of services that start with a digit too",
        dns::partially_qualified_names,
    ),
    (
        "DNS should provide DNS for pods for Hostname and Subdomain, and /etc/hosts entries",
        dns::hostname_and_subdomain,
    ),
    ("DNS should provide DNS for ExternalName services", dns::external_name),
    (
        "DNS should support configurable pod DNS, more than six search paths, underscores and a single dot",
        dns::pod_s_own_resolver,
    ),
    ("every Node says that its network works", cluster::every_node_says_that_its_network_works),
    ("docs/operations.md: every command answers", operations::every_command_answers),
    (
        "the self-test for any cluster passes, and names what fails",
        cluster::the_self_test_passes_and_names_what_fails,
    ),
    ("preflight looks at every node through a pod", cluster::preflight_looks_at_every_node_through_a_pod),
    (
        "DNS should be resolved by glibc, musl and busybox: short names, full names and SRV records",
        resolvers::glibc_musl_and_busybox,
    ),
    (
        "weft dns explain names every missing piece, asked through the API server",
        explain::every_missing_piece_is_named,
    ),
    (
        "weft trace tells where connections end and why, there and back, in both families",
        trace::where_a_connection_ends_and_why,
    ),
    (
        "weft flows tells who talks with whom, what is denied and what is asked, with names",
        flows::who_talks_with_whom,
    ),
    ("weft dns explain names an upstream that is silent", explain::an_upstream_that_is_silent_is_named),
    ("agents answer those alone who show a token made for them", access::only_with_a_token_made_for_agents),
    ("weft-lab tour shows at each step what it says", tour::every_step_shows_what_it_says),
];

/// Those that disturb the others, and the clean-up. One after the other.
const LAST: &[Scenario] = &[
    ("06 kubectl gets, applies and deletes", cluster::kubectl_gets_applies_and_deletes),
    ("07 a container that ends is started again", cluster::an_ended_container_is_started_again),
    ("08 a pod that cannot run says why", cluster::a_pod_that_cannot_run_says_why),
    ("09 a hostNetwork pod has its node's address", cluster::a_host_network_pod),
    ("10 a pod gets the kubelet's files and environment", cluster::files_and_environment),
    ("11 weft-agent is killed and nobody notices", daemons::agent_is_killed),
    (
        "LoadBalancers get addresses of a pool, which stay when the agent that gives them is killed, or stands still",
        load_balancer_addresses::of_a_pool,
    ),
    ("12 weft-proxy is killed and nobody notices", daemons::proxy_is_killed),
    ("13 weft-dns is killed and comes back", daemons::dns_is_killed),
    (
        "weft-dns on the node completes the searches of glibc and musl, and nothing of it is tracked",
        node_local::searches_are_completed_and_nothing_is_tracked,
    ),
    ("14 a Node's routes go and come with it", cluster::a_nodes_routes_go_and_come),
    ("15 the underlay is cut and healed", faults::the_underlay_is_cut_and_healed),
    (
        "LoadBalancers: another node answers ARP and NDP for an address when one falls silent, and gives it back",
        announcements::another_node_answers,
    ),
    ("15a what is under running pods is deleted and put back", faults::what_is_under_running_pods_is_deleted),
    ("16 the API server is away while pods are made and removed", faults::the_api_server_is_away),
    (
        "16a what network policies deny stays denied while agents are killed, pods, policies and labels change, and rules go",
        network_policies::what_is_denied_stays_denied,
    ),
    (
        "16b an address that is used again has the policies of the pod that has it now",
        network_policies::an_address_that_is_used_again,
    ),
    (
        "16c policies hold between pods of one bridge, with and without br_netfilter",
        network_policies::pods_of_one_bridge,
    ),
    (
        "17 a node is lost and back with another address, and leaks none",
        faults::a_node_is_lost_and_back_with_another_address,
    ),
    (
        "18 pods of containerd on two nodes are reached through a Service and by name, and a reboot leaks no address",
        real_runtime::pods_of_containerd,
    ),
    (
        "19 upgrades roll without dropped connections, and without Weft pods go on",
        upgrade::an_upgrade_drops_nothing,
    ),
    (
        "pods of all nodes, and load balancers from outside, are reached by BGP, also while an agent is dead",
        bgp::pods_and_load_balancers_are_routed,
    ),
    (
        "a cluster of IPv6 alone runs by the manifests' own arguments, and a dead DNS server of a node costs no answer",
        manifests::a_cluster_of_ipv6_alone,
    ),
    (
        "a node claims a block more when it fills, and what a lost node had is given up (--ipam blocks)",
        blocks::pods_beyond_the_first_block,
    ),
    ("uninstalled, a node is as it was found beside others", as_found::a_node_is_as_it_was_found),
    ("20 deleting everything leaves no element, route or reservation", removal::deleting_everything),
    ("21 two labs side by side, killed and removed, leave nothing", removal::nothing_is_left),
];

/// What `make soak` runs in the place of all others, one after the other.
const SOAK: &[Scenario] = &[
    ("daemons are killed at random under load", soak::daemons_are_killed_at_random),
    (
        "Netpol: a thousand pods start with their policies",
        network_policies::gap::a_pod_starts_with_its_policies,
    ),
    (
        "Netpol: what policies deny stays denied while agents are killed at random under churn",
        network_policies::what_is_denied_stays_denied,
    ),
    ("Netpol: truth tables of every generated policy over nine pods", network_policies::over_nine_pods),
    ("doctor finds nothing a hundred times while pods come and go", broken::many_runs),
    ("the API server is away under load", soak::the_api_server_is_away),
    ("the clocks jump under load", soak::the_clocks_jump),
];

/// How many scenarios run at a time: they wait more than they work.
const AT_A_TIME: usize = 8;

fn main() -> ExitCode {
    if let Some(code) = network_policies::gap::starter::from_arguments().or_else(modes::from_arguments) {
        return code;
    }
    let arguments = Arguments::from_args();
    if arguments.list {
        let all =
            [FIRST, TOGETHER, broken::SCENARIOS, LAST].concat().into_iter().map(|(name, _)| name.to_owned());
        let trials = all.chain(modes::names()).map(|name| Trial::test(name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let name = if soak::seconds().is_some() { "soak" } else { "e2e" };
    let lab = match Lab::up(name, 3, &[]) {
        Ok(lab) => Arc::new(lab),
        Err(error) => {
            eprintln!("lab tests: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = false;
    let suite = match soak::seconds() {
        Some(_) => vec![(SOAK, 1)],
        None => vec![(FIRST, 1), (TOGETHER, AT_A_TIME), (broken::SCENARIOS, 1), (LAST, 1)],
    };
    for (scenarios, at_a_time) in suite {
        failed |= run(&arguments, &lab, scenarios, at_a_time);
        if let Err(error) = lab.wait_for_scenarios() {
            eprintln!("lab tests: {error}");
            failed = true;
        }
    }
    if soak::seconds().is_none() {
        failed |= modes::run(&arguments, AT_A_TIME);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs scenarios, so many at a time, and tells whether any failed.
fn run(arguments: &Arguments, lab: &Arc<Lab>, scenarios: &[Scenario], at_a_time: usize) -> bool {
    let mut arguments = arguments.clone();
    arguments.test_threads = Some(at_a_time);
    let trial = |&(name, scenario): &Scenario| {
        let lab = lab.clone();
        Trial::test(name, move || scenario(&lab).map_err(Into::into))
    };
    libtest_mimic::run(&arguments, scenarios.iter().map(trial).collect()).has_failed()
}
