//! Plans as golden texts, and what refuses to be planned.

use std::time::Duration;

use serde_json::json;
use weft_cni_spec::{Dns, Route};

use super::*;
use super::{BridgeState, Limits, Vlans};

fn pod() -> Pod {
    Pod {
        network: "weft".parse().unwrap(),
        attachment: Attachment { container: "c1".parse().unwrap(), ifname: "eth0".parse().unwrap() },
        netns: "/run/netns/blue".into(),
        waits: None,
    }
}

/// What the agent's configuration asks for.
fn options() -> Options {
    Options {
        bridge: "cni0".parse().unwrap(),
        gateway_link: "cni0".parse().unwrap(),
        gateway: true,
        default_route: true,
        force_address: false,
        masquerade: false,
        mtu: Some(1450),
        hairpin: false,
        promiscuous: false,
        isolated: true,
        up: true,
        spoof_check: false,
        detect_duplicates: false,
        mac: None,
        ports: Vec::new(),
        vlans: None,
        limits: Limits::default(),
        dns: Dns::default(),
        retired: Vec::new(),
        policy_timeout: Duration::from_secs(2),
    }
}

fn lease(addresses: &[&str]) -> Success {
    let ip = |text: &&str| IpConfig { address: text.parse().unwrap(), gateway: None, interface: None };
    Success { ips: addresses.iter().map(ip).collect(), ..Success::default() }
}

fn with_bridge(addresses: &[&str]) -> HostState {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    HostState { bridge: Some(BridgeState { addresses, ..BridgeState::default() }), ..HostState::default() }
}

#[test]
fn the_default_in_both_families() {
    let plan =
        plan(&pod(), &options(), lease(&["10.244.1.5/24", "fd00:1::5/64"]), &HostState::default()).unwrap();
    insta::assert_snapshot!(plan, @r"
    ip link add cni0 address 0a:58:0a:f4:01:01 mtu 1450 type bridge
    ip link set cni0 alias weft up
    ip address add 10.244.1.1/24 dev cni0
    ip address add fd00:1::1/64 dev cni0
    sysctl -w net/ipv6/conf/cni0/accept_ra=0
    sysctl -w net/ipv4/ip_forward=1
    sysctl -w net/ipv6/conf/all/forwarding=1
    sysctl -w net/ipv6/conf/cni0/accept_dad=0
    sysctl -w net/ipv4/conf/all/send_redirects=0
    sysctl -w net/ipv4/conf/cni0/send_redirects=0
    ip link add name veth9e27a0abdbb address fe:9e:27:a0:ab:db mtu 1450 group 516262267 up master cni0 type veth peer name eth0 address 0a:58:0a:f4:01:05 mtu 1450 netns /run/netns/blue
    bridge link set dev veth9e27a0abdbb isolated on hairpin off
    ip link set veth9e27a0abdbb alias weft/c1/eth0
    nsenter --net=/run/netns/blue sysctl -w net/ipv6/conf/eth0/accept_dad=0
    nsenter --net=/run/netns/blue sysctl -w net/ipv6/conf/eth0/accept_ra=0
    nsenter --net=/run/netns/blue sysctl -w net/ipv6/conf/eth0/disable_ipv6=0
    nsenter --net=/run/netns/blue sysctl -w net/ipv6/conf/lo/disable_ipv6=0
    nsenter --net=/run/netns/blue sysctl -w net/ipv6/conf/eth0/keep_addr_on_down=1
    nsenter --net=/run/netns/blue sysctl -w net/ipv4/conf/all/accept_redirects=0
    nsenter --net=/run/netns/blue sysctl -w net/ipv4/conf/eth0/accept_redirects=0
    nsenter --net=/run/netns/blue sysctl -w net/ipv6/conf/eth0/accept_redirects=0
    nsenter --net=/run/netns/blue ip link set eth0 up
    nsenter --net=/run/netns/blue ip address add 10.244.1.5/24 dev eth0 noprefixroute
    nsenter --net=/run/netns/blue ip address add fd00:1::5/64 dev eth0 noprefixroute
    nsenter --net=/run/netns/blue ip route add 10.244.1.1/32 dev eth0
    nsenter --net=/run/netns/blue ip route add fd00:1::1/128 dev eth0
    nsenter --net=/run/netns/blue ip route add default via 10.244.1.1 dev eth0
    nsenter --net=/run/netns/blue ip route add default via fd00:1::1 dev eth0
    ");
}

#[test]
fn a_pod_that_waits_for_its_policies_is_closed_before_all_else() {
    let waits = WaitingPod { namespace: "shop".into(), name: "web".into(), uid: "0a1b".into() };
    let pod = Pod { waits: Some(waits), ..pod() };
    let steps = |addresses: &[&str]| {
        let plan = plan(&pod, &options(), lease(addresses), &HostState::default()).unwrap();
        plan.to_string().lines().take(3).map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(steps(&["10.244.1.5/24", "fd00:1::5/64"]), @r#"
    nft add element ip weft-policy pending { 10.244.1.5 comment "shop/web/0a1b" }
    nft add element ip6 weft-policy pending { fd00:1::5 comment "shop/web/0a1b" }
    ip link add cni0 address 0a:58:0a:f4:01:01 mtu 1450 type bridge
    "#);
    assert!(steps(&[]).starts_with("ip link add"), "without an address there is nothing to reach");
}

#[test]
fn a_plain_bridge_as_the_reference_makes_it() {
    let options = Options { isolated: false, mtu: None, default_route: false, hairpin: true, ..options() };
    let mut lease = lease(&["10.244.1.5/24"]);
    lease.ips[0].gateway = "10.244.1.254".parse().ok();
    let priority = Some(7);
    lease.routes = vec![
        Route {
            priority,
            mtu: Some(1300),
            table: Some(100),
            ..Route::new("10.0.0.0/8".parse().unwrap(), None)
        },
        Route::new("192.0.2.0/24".parse().unwrap(), "10.244.1.9".parse().ok()),
        Route { scope: Some(253), ..Route::new("198.51.100.0/24".parse().unwrap(), None) },
    ];
    let plan = plan(&pod(), &options, lease, &HostState::default()).unwrap();
    insta::assert_snapshot!(plan, @r"
    ip link add cni0 address 0a:58:0a:f4:01:fe type bridge
    ip link set cni0 alias weft up
    ip address add 10.244.1.254/24 dev cni0
    sysctl -w net/ipv6/conf/cni0/accept_ra=0
    sysctl -w net/ipv4/ip_forward=1
    ip link add name veth9e27a0abdbb address fe:9e:27:a0:ab:db group 516262267 up master cni0 type veth peer name eth0 address 0a:58:0a:f4:01:05 netns /run/netns/blue
    bridge link set dev veth9e27a0abdbb isolated off hairpin on
    ip link set veth9e27a0abdbb alias weft/c1/eth0
    nsenter --net=/run/netns/blue sysctl -w net/ipv6/conf/eth0/accept_dad=0
    nsenter --net=/run/netns/blue sysctl -w net/ipv6/conf/eth0/accept_ra=0
    nsenter --net=/run/netns/blue ip link set eth0 up
    nsenter --net=/run/netns/blue ip address add 10.244.1.5/24 dev eth0
    nsenter --net=/run/netns/blue ip route add 10.0.0.0/8 via 10.244.1.254 dev eth0 metric 7 mtu 1300 table 100
    nsenter --net=/run/netns/blue ip route add 192.0.2.0/24 via 10.244.1.9 dev eth0
    nsenter --net=/run/netns/blue ip route add 198.51.100.0/24 dev eth0 scope 253
    ");
}

#[test]
fn what_macspoofchk_and_enabledad_change() {
    let options = Options { isolated: false, spoof_check: true, detect_duplicates: true, ..options() };
    let plan = plan(&pod(), &options, lease(&["fd00:1::5/64"]), &HostState::default()).unwrap().to_string();
    let lines: Vec<&str> = plan
        .lines()
        .filter(|line| ["bridge fdb", "locked", "eth0/accept_dad"].iter().any(|word| line.contains(word)))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    bridge fdb replace 0e:53:ba:b8:19:05 dev veth9e27a0abdbb master static sticky
    bridge link set dev veth9e27a0abdbb locked on
    nsenter --net=/run/netns/blue sysctl -w net/ipv6/conf/eth0/accept_dad=1
    ");
}

#[test]
fn a_port_in_vlans() {
    let vlans = Some(Vlans { untagged: 5, tagged: vec![(10, 20)], keep_default: false });
    let options = Options { gateway: false, default_route: false, isolated: false, vlans, ..options() };
    let plan = plan(&pod(), &options, Success::default(), &HostState::default()).unwrap().to_string();
    let lines: Vec<&str> = plan.lines().filter(|line| line.contains("vlan")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    ip link set cni0 type bridge vlan_filtering 1
    bridge vlan add dev veth9e27a0abdbb vid 5 pvid untagged
    bridge vlan add dev veth9e27a0abdbb vid 10-20
    bridge vlan del dev veth9e27a0abdbb vid 1
    ");
}

#[test]
fn the_gateway_of_a_vlan_is_tied_to_the_bridge_by_a_port_of_that_vlan() {
    let vlans = Some(Vlans { untagged: 5, tagged: Vec::new(), keep_default: false });
    let gateway_link = "cni0.5".parse().unwrap();
    let options = Options { isolated: false, mtu: None, vlans, gateway_link, ..options() };
    let plan = plan(&pod(), &options, lease(&["10.244.1.5/24"]), &with_bridge(&["10.9.0.1/24"]));
    let error = plan.unwrap_err().to_string();
    assert_eq!(error, "bridge cni0.5 already has an IP address different from 10.244.1.1/24: 10.9.0.1/24");
    let options = Options { force_address: true, ..options };
    let plan = super::plan(&pod(), &options, lease(&["10.244.1.5/24"]), &with_bridge(&["10.9.0.1/24"]));
    insta::assert_snapshot!(plan.unwrap().bridge, @r"
    ip link add cni0 type bridge
    ip link set cni0 alias weft up
    ip link set cni0 type bridge vlan_filtering 1
    ip link add name vlan1841cdafcb1 group 2003134068 up master cni0 type veth peer name cni0.5 address 0a:58:0a:f4:01:01
    bridge vlan add dev vlan1841cdafcb1 vid 5 pvid untagged
    bridge vlan del dev vlan1841cdafcb1 vid 1
    ip link set cni0.5 up
    ip address delete 10.9.0.1/24 dev cni0.5
    ip address add 10.244.1.1/24 dev cni0.5
    sysctl -w net/ipv6/conf/cni0/accept_ra=0
    sysctl -w net/ipv6/conf/cni0.5/accept_ra=0
    sysctl -w net/ipv4/ip_forward=1
    ");
}

#[test]
fn a_network_without_addresses() {
    let options = Options { gateway: false, default_route: false, isolated: false, up: false, ..options() };
    let plan = plan(&pod(), &options, Success::default(), &HostState::default()).unwrap();
    insta::assert_snapshot!(plan, @r"
    ip link add cni0 mtu 1450 type bridge
    ip link set cni0 alias weft up
    sysctl -w net/ipv6/conf/cni0/accept_ra=0
    ip link add name veth9e27a0abdbb address fe:9e:27:a0:ab:db mtu 1450 group 516262267 up master cni0 type veth peer name eth0 mtu 1450 netns /run/netns/blue
    bridge link set dev veth9e27a0abdbb isolated off hairpin off
    ip link set veth9e27a0abdbb alias weft/c1/eth0
    nsenter --net=/run/netns/blue sysctl -w net/ipv6/conf/eth0/accept_dad=0
    ");
}

#[test]
fn where_bridged_packets_pass_netfilter_the_port_stays_open() {
    let state = HostState { bridge_netfilter: true, ..HostState::default() };
    let plan = plan(&pod(), &options(), lease(&["10.244.1.5/24"]), &state).unwrap();
    assert_eq!(plan.veth.port, BridgePort { hairpin: true, isolated: false });
    // Without a gateway nobody routes: isolation is all that was asked for.
    let alone = Options { gateway: false, default_route: false, ..options() };
    let plan = super::plan(&pod(), &alone, Success::default(), &state).unwrap();
    assert_eq!(plan.veth.port, BridgePort { hairpin: false, isolated: true });
}

#[test]
fn a_bridge_gets_only_what_it_lacks() {
    let found = with_bridge(&["10.244.1.1/24", "fe80::1/64"]);
    let plan = plan(&pod(), &options(), lease(&["10.244.1.5/24", "fd00:1::5/64"]), &found).unwrap();
    assert_eq!(plan.bridge.add, ["fd00:1::1/64".parse().unwrap()]);
    assert_eq!(plan.bridge.delete, []);
}

#[test]
fn an_address_in_the_way_is_an_error_or_goes() {
    for (found, lease_of) in [("10.9.0.1/24", "10.244.1.5/24"), ("fd00:1::9/60", "fd00:1::5/64")] {
        let state = with_bridge(&[found]);
        let error = plan(&pod(), &options(), lease(&[lease_of]), &state).unwrap_err();
        assert_eq!(error.failure().code.number(), 7);
        assert!(error.to_string().ends_with(found), "{error}");
        let forced = Options { force_address: true, ..options() };
        let plan = plan(&pod(), &forced, lease(&[lease_of]), &state).unwrap();
        assert_eq!(plan.bridge.delete, [found.parse().unwrap()]);
    }
    let elsewhere = with_bridge(&["fd00:9::1/64"]);
    assert!(plan(&pod(), &options(), lease(&["fd00:1::5/64"]), &elsewhere).unwrap().bridge.delete.is_empty());
}

#[test]
fn the_gateways_of_one_networks_ranges_go_together() {
    let gateways = vec!["10.244.1.1/24".parse().unwrap(), "10.244.2.1/24".parse().unwrap()];
    let state = HostState { gateways, ..with_bridge(&["10.244.1.1/24"]) };
    let forced = Options { force_address: true, ..options() };
    let plan = plan(&pod(), &forced, lease(&["10.244.2.5/24"]), &state).unwrap();
    assert_eq!((plan.bridge.add.len(), plan.bridge.delete.len()), (1, 0));
}

#[test]
fn ipams_own_default_route_stays_the_only_one() {
    let mut lease = lease(&["10.244.1.5/24"]);
    lease.routes = vec![Route::new("0.0.0.0/0".parse().unwrap(), "10.244.1.9".parse().ok())];
    let plan = plan(&pod(), &options(), lease, &HostState::default()).unwrap();
    let defaults: Vec<_> = plan.pod.routes.iter().filter(|path| path.destination.prefix() == 0).collect();
    assert_eq!(defaults.len(), 1);
    assert_eq!(defaults[0].gateway, "10.244.1.9".parse().ok());
}

#[test]
fn an_interface_that_stays_down_cannot_have_addresses() {
    let down = Options { up: false, ..options() };
    let error = plan(&pod(), &down, lease(&["10.244.1.5/24"]), &HostState::default()).unwrap_err();
    assert!(error.to_string().contains("disableContainerInterface"), "{error}");
}

#[test]
fn the_result_names_bridge_host_and_container_in_this_order() {
    let link = |name: &str, mac: u8| Link {
        index: 1,
        name: name.into(),
        kind: None,
        mac: Some(Mac([2, 0, 0, 0, 0, mac])),
        mtu: 1450,
        up: true,
        promiscuous: false,
        carrier: true,
        master: None,
        alias: None,
        group: 0,
        ..Link::default()
    };
    let options =
        Options { dns: Dns { nameservers: vec!["10.96.0.10".into()], ..Dns::default() }, ..options() };
    let plan = plan(&pod(), &options, lease(&["10.244.1.5/24"]), &HostState::default()).unwrap();
    let result = plan.result(&link("cni0", 1), None, &link("veth1", 2), &link("eth0", 3));
    assert_eq!(
        serde_json::to_value(result).unwrap(),
        json!({
            "interfaces": [
                {"name": "cni0", "mac": "02:00:00:00:00:01", "mtu": 1450},
                {"name": "veth1", "mac": "02:00:00:00:00:02", "mtu": 1450},
                {"name": "eth0", "mac": "02:00:00:00:00:03", "mtu": 1450, "sandbox": "/run/netns/blue"},
            ],
            "ips": [{"address": "10.244.1.5/24", "gateway": "10.244.1.1", "interface": 2}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}],
            "dns": {"nameservers": ["10.96.0.10"]},
        })
    );
    let gateway = link("cni0.5", 4);
    let result = plan.result(&link("cni0", 1), Some(&gateway), &link("veth1", 2), &link("eth0", 3));
    assert_eq!((result.interfaces[3].name.as_str(), result.ips[0].interface), ("cni0.5", Some(2)));
}
