//! The command lines of the manifests, as the programs themselves read them: no flag of `weft install` leads
//! to a daemon that ends at its start.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use clap::Parser;
use serde_json::Value;
use weft_installer::manifests::{
    BACKENDS, BgpValues, CorefileValues, DhcpValues, EBPF_SCOPES, FastPathValues, FlowsValues, IpamMode,
    LoadBalancerValues, PROXY_MODES, PolicyValues, Values, WireGuardValues, render,
};

/// The command lines of all containers that stay.
fn commands(values: &Values) -> Vec<Vec<String>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(&render(values)).unwrap();
    let pods = all.iter().map(|object| &object["spec"]["template"]["spec"]);
    let containers = pods.filter_map(|pod| pod["containers"].as_array()).flatten();
    let words = |container: &Value| {
        let words = container["command"].as_array().unwrap().iter();
        words.map(|word| word.as_str().unwrap().replace("$(POD_IPS)", "fd00::5,10.244.0.5")).collect()
    };
    containers.map(words).collect()
}

fn parse(command: &[String]) -> Result<(), String> {
    match command[0].as_str() {
        "/weft-agent" => weft_agent::options::Options::try_parse_from(command).map(drop),
        "/weft-proxy" => weft_proxy::options::Options::try_parse_from(command).map(drop),
        "/weft-dns" => weft_dns::options::Options::try_parse_from(command).map(drop),
        other => panic!("no daemon: {other}"),
    }
    .map_err(|error| error.to_string())
}

/// All flags at once, as far as they go together.
fn everything() -> Values {
    Values {
        cluster_cidr: vec!["10.0.0.0/16".parse().unwrap(), "fd00::/48".parse().unwrap()],
        cluster_dns: "fd00:10:96::a".parse().unwrap(),
        node_local_dns: true,
        corefile: CorefileValues { corefile: Some("coredns".to_owned()) },
        cluster_network_policy: true,
        fast_path: FastPathValues { fast_path: "ebpf".to_owned() },
        wireguard: WireGuardValues {
            tunnel: "wireguard".to_owned(),
            encryption: "prefer".to_owned(),
            wireguard_port: Some(51821),
            wireguard_keepalive: Some(25),
        },
        dhcp: DhcpValues { dhcp: true },
        mtu: Some(1400),
        policy: PolicyValues {
            network_policy: false,
            policy_deny: "reject".to_owned(),
            policy_log: Some("count".to_owned()),
            policy_log_group: 9,
            policy_cut_connections: false,
            policy_timeout: Some(5),
        },
        flows: FlowsValues { flows: "always".to_owned(), flows_keep: 5 },
        load_balancers: LoadBalancerValues {
            lb_pool: vec!["192.0.2.10-192.0.2.20".parse().unwrap(), "2001:db8::/120".parse().unwrap()],
            lb_crds: true,
            lb_class: Some("example.com/lb".to_owned()),
            lb_l2: Some(true),
            lb_interface: vec!["eth1".to_owned(), "eth2".to_owned()],
            bgp: BgpValues {
                bgp_asn: Some(4_200_000_001),
                bgp_peers: vec!["192.0.2.1:65000".to_owned(), "[2001:db8::1]:65000".to_owned()],
                bgp_announce: vec!["load-balancers".to_owned(), "pod-cidrs".to_owned()],
                bgp_crds: true,
                bgp_secrets_namespace: vec!["metallb-system".to_owned()],
                bgp_community: vec!["65000:100".to_owned(), "no-export".to_owned()],
                bgp_import: vec!["10.0.0.0/8".parse().unwrap()],
                bgp_multihop: Some(2),
                bgp_restart_time: Some(0),
                bgp_mesh: Some(false),
            },
        },
        cni_bin_dir: "/var/lib/rancher/k3s/data/cni".into(),
        cni_conf_dir: "/var/lib/rancher/k3s/agent/etc/cni/net.d".into(),
        cri_socket: "/run/k3s/containerd/containerd.sock".into(),
        ..Values::default()
    }
}

#[test]
fn every_daemon_takes_what_the_manifests_give_it() {
    let (usual, all) = (Values::default(), everything());
    let backends = BACKENDS.map(|backend| Values { backend: backend.to_owned(), ..Values::default() });
    let modes = PROXY_MODES.map(|mode| Values { proxy_mode: mode.to_owned(), ..Values::default() });
    let ebpf = EBPF_SCOPES.map(|scope| Values { proxy_ebpf: Some(scope.to_owned()), ..Values::default() });
    let ipam = [Values { ipam: IpamMode::Blocks, ..Values::default() }];
    for values in [usual, all].into_iter().chain(backends).chain(modes).chain(ebpf).chain(ipam) {
        let commands = commands(&values);
        assert_eq!(commands.len(), 4 + usize::from(values.node_local_dns));
        values.check().unwrap();
        for command in commands {
            parse(&command).unwrap_or_else(|problem| panic!("{command:?}: {problem}"));
        }
    }
    assert!(parse(&["/weft-agent".to_owned(), "--backend=udp".to_owned()]).is_err());
}

#[test]
fn the_fast_path_comes_with_the_capabilities_and_the_setting_that_it_needs() {
    let fast = Values { fast_path: FastPathValues { fast_path: "ebpf".to_owned() }, ..Values::default() };
    let [usual, fast] = [Values::default(), fast].map(|values| render(&values));
    for text in ["--fast-path=ebpf", "BPF, PERFMON, SYS_ADMIN]", "--conntrack-tcp-be-liberal=true"] {
        assert!(!usual.contains(text) && fast.contains(text), "{text}");
    }
}

#[test]
fn the_proxy_gets_what_ebpf_takes_and_nothing_of_it_without() {
    let proxy = |scope: Option<&str>| {
        let proxy_ebpf = scope.map(str::to_owned);
        let text = render(&Values { proxy_ebpf, ..Values::default() });
        let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let is_proxy = |it: &&Value| it["kind"] == "DaemonSet" && it["metadata"]["name"] == "weft-proxy";
        all.iter().find(is_proxy).unwrap()["spec"]["template"]["spec"].clone()
    };
    let added = |pod: &Value| pod["containers"][0]["securityContext"]["capabilities"]["add"].clone();
    let names = |list: &Value| -> Vec<String> {
        let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
        list.as_array().into_iter().flatten().map(name).collect()
    };
    for (scope, capabilities, mounts) in [
        (None, &["NET_ADMIN"][..], &[][..]),
        (Some("host"), &["NET_ADMIN", "BPF"], &["bpf", "cgroup"]),
        (Some("all"), &["NET_ADMIN", "BPF", "SYS_ADMIN"], &["bpf", "cgroup", "netns"]),
    ] {
        let pod = proxy(scope);
        assert_eq!(added(&pod), serde_json::json!(capabilities));
        assert_eq!(names(&pod["containers"][0]["volumeMounts"]), mounts);
        // Programs of an earlier installation are taken away by the one that prepares the node.
        assert_eq!(names(&pod["initContainers"][0]["volumeMounts"]), ["bpf", "cni-data"]);
        let volumes = names(&pod["volumes"]);
        assert!(mounts.iter().all(|mount| volumes.iter().any(|volume| volume == mount)), "{volumes:?}");
        assert_eq!(volumes.len(), 2 + mounts.len().saturating_sub(1), "{volumes:?}");
    }
}

#[test]
fn the_mode_of_the_proxy_goes_to_the_one_that_prepares_the_node_too() {
    assert!(!render(&Values::default()).contains("--proxy-mode"));
    let text = render(&Values { proxy_mode: "ipvs".to_owned(), ..Values::default() });
    assert!(text.contains(r#"/.settings, "--proxy-mode=ipvs"]"#), "{text}");
    assert_eq!(text.matches("--proxy-mode=ipvs").count(), 2);
}
