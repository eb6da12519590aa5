//! What is recognised of a cluster's distribution, by example.

use std::path::Path;

use clap::Parser;
use serde_json::json;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    values: Values,
}

fn node(version: &str, pod_cidrs: &[&str], more: Value) -> Value {
    let mut node = json!({"metadata": {"name": "one", "labels": {"kubernetes.io/os": "linux"}},
        "spec": {"podCIDRs": pod_cidrs}, "status": {"nodeInfo": {"kubeletVersion": version}}});
    for (pointer, value) in more.as_object().into_iter().flatten() {
        let at = node.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
        at.extend(value.as_object().cloned().unwrap());
    }
    node
}

fn service(ip: &str) -> Option<Value> {
    Some(json!({"spec": {"clusterIP": ip}}))
}

fn kubelet(socket: &str, dns: &str, zone: &str) -> Value {
    json!({"kubeletconfig": {"containerRuntimeEndpoint": socket, "clusterDNS": [dns], "clusterDomain": zone}})
}

fn listed(ranges: &[IpNetwork]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// What is told, and the values, with those flags given.
fn adapted(facts: &Facts, flags: &[&str]) -> (String, Values) {
    let mut values = Cli::parse_from([&"weft"].into_iter().chain(flags)).values;
    let given = |id: &str| flags.iter().any(|flag| flag.replace('-', "_").starts_with(&format!("__{id}=")));
    let found = Found::adapt(facts, &mut values, &given);
    (found.to_string(), values)
}

#[test]
fn k3s_is_known_and_all_of_its_paths() {
    let facts = Facts {
        nodes: vec![node("v1.33.4+k3s1", &["10.42.0.0/24"], json!({}))],
        kubelet: kubelet("unix:///run/k3s/containerd/containerd.sock", "10.43.0.10", "cluster.local"),
        service: service("10.43.0.1"),
        slices: vec![json!({"endpoints": [{"addresses": ["192.0.2.10"]}], "ports": [{"port": 6443}]})],
    };
    let (told, values) = adapted(&facts, &[]);
    let expected = "found k3s (kubelet v1.33.4+k3s1 of one)
  --cni-bin-dir /var/lib/rancher/k3s/data/cni: there its runtime finds plugins
  --cni-conf-dir /var/lib/rancher/k3s/agent/etc/cni/net.d: there its runtime reads configurations
  --cri-socket /run/k3s/containerd/containerd.sock: its runtime listens there
  --cluster-cidr 10.42.0.0/16: its Nodes' pod CIDRs are within
  --cluster-dns 10.43.0.10: its kubelets give that to pods";
    assert_eq!(told, expected);
    assert_eq!(values.cni_bin_dir, Path::new("/var/lib/rancher/k3s/data/cni"));
    assert_eq!(
        (values.cluster_dns.to_string().as_str(), listed(&values.cluster_cidr).as_str()),
        ("10.43.0.10", "10.42.0.0/16")
    );
    assert_eq!(facts.api_server(), Some(("192.0.2.10".to_owned(), 6443)));
}

#[test]
fn k3s_had_its_plugins_elsewhere_before_october_2024() {
    let folder = |versions: &[&str]| {
        let nodes = versions.iter().map(|version| node(version, &[], json!({}))).collect();
        adapted(&Facts { nodes, ..Facts::default() }, &[]).1.cni_bin_dir.display().to_string()
    };
    for (version, is_old) in [
        ("v1.27.16+k3s1", true),
        ("v1.28.14+k3s1", true),
        ("v1.28.15+k3s1", false),
        ("v1.31.1+k3s1", true),
        ("v1.31.2+k3s1", false),
        ("v1.32.0-rc1+k3s1", false),
        ("v2.0.0+k3s1", false),
        ("odd+k3s1", false),
    ] {
        assert_eq!(folder(&[version]), if is_old { OLD_K3S_BIN } else { K3S.bin_dir }, "{version}");
    }
    assert_eq!(
        folder(&["v1.31.1+k3s1", "v1.31.2+k3s1"]),
        CNI_BIN,
        "nodes of both need a flag: none is right"
    );
}

#[test]
fn rke2_has_the_usual_folders_and_the_socket_of_k3s() {
    let nodes = vec![node("v1.33.4+rke2r1", &["10.42.1.0/24"], json!({}))];
    let (told, _) = adapted(&Facts { nodes, service: service("10.43.0.1"), ..Facts::default() }, &[]);
    let expected = "found RKE2 (kubelet v1.33.4+rke2r1 of one)
  --cri-socket /run/k3s/containerd/containerd.sock: its runtime listens there
  --cluster-cidr 10.42.0.0/16: its Nodes' pod CIDRs are within
  --cluster-dns 10.43.0.10: its kubelets give that to pods";
    assert_eq!(told, expected);
}

#[test]
fn microk8s_has_no_pod_cidrs_so_that_nodes_claim_blocks() {
    let labels = json!({"/metadata/labels": {"microk8s.io/cluster": "true"}});
    let nodes = vec![node("v1.32.3", &[], labels)];
    let facts = Facts { nodes, service: service("10.152.183.1"), ..Facts::default() };
    let (told, values) = adapted(&facts, &[]);
    let expected = "found MicroK8s (label microk8s.io/cluster of one)
  --cni-bin-dir /var/snap/microk8s/current/opt/cni/bin: there its runtime finds plugins
  --cni-conf-dir /var/snap/microk8s/current/args/cni-network: there its runtime reads configurations
  --cri-socket /var/snap/microk8s/common/run/containerd.sock: its runtime listens there
  --cluster-cidr 10.1.0.0/16: its Nodes' pod CIDRs are within
  --cluster-dns 10.152.183.10: its kubelets give that to pods
  --ipam blocks: its Nodes have no pod CIDRs";
    assert_eq!(told, expected);
    assert_eq!(values.ipam, IpamMode::Blocks);
}

#[test]
fn kubeadm_is_left_as_it_is_but_for_what_its_kubelets_say() {
    let nodes = vec![node("v1.36.2", &["10.244.0.0/24"], json!({}))];
    let usual = kubelet("unix:///var/run/containerd/containerd.sock", "10.96.0.10", "cluster.local");
    let facts = Facts { nodes, kubelet: usual, service: service("10.96.0.1"), ..Facts::default() };
    let (told, values) = adapted(&facts, &[]);
    assert_eq!(told, "found no distribution with ways of its own");
    assert_eq!(format!("{values:?}"), format!("{:?}", Values::default()));
    let other = Facts { kubelet: kubelet("unix:///run/crio/crio.sock", "fd00::a", "corp.test"), ..facts };
    let expected = "found no distribution with ways of its own
  --cri-socket /run/crio/crio.sock: its runtime listens there
  --cluster-dns fd00::a: its kubelets give that to pods
  --cluster-domain corp.test: its kubelets give that to pods";
    assert_eq!(adapted(&other, &[]).0, expected);
}

#[test]
fn kind_and_cri_o_are_known_without_a_kubelet_s_word() {
    let more = json!({"/spec": {"providerID": "kind://docker/weft/weft-control-plane"}, "/status/nodeInfo": {"containerRuntimeVersion": "cri-o://1.31"}});
    let facts = Facts { nodes: vec![node("v1.36.2", &["10.244.0.0/24"], more)], ..Facts::default() };
    let expected = "found kind (provider kind://docker/weft/weft-control-plane)
  --cri-socket /run/crio/crio.sock: its runtime listens there";
    assert_eq!(adapted(&facts, &[]).0, expected);
}

#[test]
fn what_a_person_gave_stays() {
    let nodes = vec![node("v1.33.4+k3s1", &["10.244.3.0/24"], json!({}))];
    let facts = Facts { nodes, service: service("10.43.0.1"), ..Facts::default() };
    let flags = [
        "--cni-bin-dir=/opt/cni/bin",
        "--cluster-dns=10.96.0.10",
        "--cri-socket=/run/containerd/containerd.sock",
    ];
    let (told, values) = adapted(&facts, &flags);
    // Nor is a range put in the place of one that the Nodes are not in.
    let expected = "found k3s (kubelet v1.33.4+k3s1 of one)
  --cni-conf-dir /var/lib/rancher/k3s/agent/etc/cni/net.d: there its runtime reads configurations";
    assert_eq!(told, expected);
    assert_eq!(listed(&values.cluster_cidr), "10.244.0.0/16");
}

#[test]
fn odd_objects_tell_nothing() {
    let odd = json!({"metadata": {"name": null, "labels": []}, "spec": {"podCIDRs": [7, "x"], "providerID": 3}, "status": null});
    let kubelet = json!({"kubeletconfig": {"containerRuntimeEndpoint": "npipe:////./pipe", "clusterDNS": "10.0.0.1", "clusterDomain": ""}});
    for service in [service(""), service("None"), service("255.255.255.255"), Some(Value::Null), None] {
        let facts = Facts {
            nodes: vec![odd.clone()],
            kubelet: kubelet.clone(),
            service,
            slices: vec![json!({}), Value::Null],
        };
        let (told, values) = adapted(&facts, &[]);
        assert_eq!(told, "found no distribution with ways of its own");
        assert_eq!(format!("{values:?}"), format!("{:?}", Values::default()));
        assert_eq!(facts.api_server(), None);
    }
}
