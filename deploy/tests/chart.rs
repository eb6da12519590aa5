//! The Helm chart as Helm renders it: for every flag of `weft install` what `weft manifests` says of it. And the base
//! for kustomize as kubectl builds it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::{Args, Parser};
use serde_json::Value;
use weft_installer::manifests::{Values, render};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    values: Values,
}

/// Flags of `weft install` and the chart's values that say the same. Together they are all flags that there are.
const SETS: [(&[&str], &[&str]); 11] = [
    (&[], &[]),
    (
        &[
            "--image=registry.test/weft:1",
            "--cluster-cidr=10.0.0.0/16,fd00::/48",
            "--cluster-dns=fd00:10:96::a",
            "--node-local-dns",
            "--cluster-domain=corp.test",
        ],
        &[
            "image=registry.test/weft:1",
            "clusterCidr={10.0.0.0/16,fd00::/48}",
            "clusterDns=fd00:10:96::a",
            "nodeLocalDns=true",
            "clusterDomain=corp.test",
        ],
    ),
    (
        &[
            "--cri-socket=/run/k3s/containerd/containerd.sock",
            "--cni-bin-dir=/var/lib/rancher/k3s/data/cni",
            "--cni-conf-dir=/k3s/net.d",
            "--api-port=443",
            "--tunnel=wireguard",
            "--mtu=1400",
        ],
        &[
            "criSocket=/run/k3s/containerd/containerd.sock",
            "cniBinDir=/var/lib/rancher/k3s/data/cni",
            "cniConfDir=/k3s/net.d",
            "apiPort=443",
            "tunnel=wireguard",
            "mtu=1400",
        ],
    ),
    (
        &[
            "--backend=wireguard",
            "--encryption=prefer",
            "--wireguard-port=51821",
            "--wireguard-keepalive=25",
            "--dhcp",
            "--ipam=blocks",
        ],
        &[
            "backend=wireguard",
            "encryption=prefer",
            "wireguardPort=51821",
            "wireguardKeepalive=25",
            "dhcp=true",
            "ipam=blocks",
        ],
    ),
    (
        &["--fast-path=ebpf", "--dhcp", "--proxy-mode=iptables"],
        &["fastPath=ebpf", "dhcp=true", "proxyMode=iptables"],
    ),
    (&["--proxy-ebpf", "--cluster-network-policy"], &["proxyEbpf=host", "clusterNetworkPolicy=true"]),
    (&["--corefile=coredns", "--node-local-dns"], &["corefile=coredns", "nodeLocalDns=true"]),
    (
        &["--proxy-ebpf=all", "--lb-l2=true", "--lb-interface=eth1,eth2"],
        &["proxyEbpf=all", "lbL2=true", "lbInterface={eth1,eth2}"],
    ),
    (
        &[
            "--network-policy=false",
            "--policy-deny=reject",
            "--policy-log=count",
            "--policy-log-group=9",
            "--policy-cut-connections=false",
            "--policy-timeout=0",
            "--flows=always",
            "--flows-keep=5",
        ],
        &[
            "networkPolicy=false",
            "policyDeny=reject",
            "policyLog=count",
            "policyLogGroup=9",
            "policyCutConnections=false",
            "policyTimeout=0",
            "flows=always",
            "flowsKeep=5",
        ],
    ),
    (
        &["--lb-pool=192.0.2.10-192.0.2.20", "--lb-crds", "--lb-class=example.com/lb", "--lb-l2=false"],
        &["lbPool={192.0.2.10-192.0.2.20}", "lbCrds=true", "lbClass=example.com/lb", "lbL2=false"],
    ),
    (
        &[
            "--backend=bgp",
            "--bgp-asn=4200000001",
            "--bgp-peer=192.0.2.1:65000,[2001:db8::1]:65000",
            "--bgp-announce=load-balancers,pod-cidrs",
            "--bgp-crds",
            "--bgp-secrets-namespace=metallb-system,routers",
            "--bgp-community=65000:100",
            "--bgp-import=10.0.0.0/8",
            "--bgp-multihop=2",
            "--bgp-restart-time=0",
            "--bgp-mesh=false",
        ],
        &[
            "backend=bgp",
            "bgpAsn=4200000001",
            "bgpPeer={192.0.2.1:65000,[2001:db8::1]:65000}",
            "bgpAnnounce={load-balancers,pod-cidrs}",
            "bgpCrds=true",
            "bgpSecretsNamespace={metallb-system,routers}",
            "bgpCommunity={65000:100}",
            "bgpImport={10.0.0.0/8}",
            "bgpMultihop=2",
            "bgpRestartTime=0",
            "bgpMesh=false",
        ],
    ),
];
const API: &str = "192.0.2.10";

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn helm(arguments: &[&str]) -> Output {
    let program = workspace("target/helm/helm");
    assert!(program.exists(), "{} is missing: scripts/helm target/helm", program.display());
    // Nothing of a user's own.
    let home = tempfile::tempdir().unwrap();
    Command::new(program).args(arguments).env("HOME", home.path()).output().unwrap()
}

fn template(values: &[&str]) -> Output {
    let chart = workspace("deploy/chart/weft").display().to_string();
    let set: Vec<String> =
        values.iter().flat_map(|value| ["--set".to_owned(), (*value).to_owned()]).collect();
    let line = ["template", "weft", &chart, "--namespace", "kube-system"].into_iter();
    helm(&line.chain(set.iter().map(String::as_str)).collect::<Vec<_>>())
}

/// Objects by their kinds and names.
fn objects(yaml: &str) -> BTreeMap<String, Value> {
    let all: Vec<Value> =
        serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}:\n{yaml}"));
    let named = all.into_iter().filter(|object| !object.is_null());
    named.map(|object| (format!("{} {}", object["kind"], object["metadata"]["name"]), object)).collect()
}

#[test]
fn helm_says_of_every_value_what_weft_manifests_says_of_its_flag() {
    std::thread::scope(|scope| {
        for (flags, values) in SETS {
            scope.spawn(move || {
                let line = ["weft", "--api-host", API].into_iter().chain(flags.iter().copied());
                let expected = objects(&render(&Cli::parse_from(line).values));
                let host = format!("apiHost={API}");
                let output = template(&[&[host.as_str()], values].concat());
                assert!(output.status.success(), "{values:?}: {}", String::from_utf8_lossy(&output.stderr));
                let seen = objects(&String::from_utf8(output.stdout).unwrap());
                assert_eq!(
                    seen.keys().collect::<Vec<_>>(),
                    expected.keys().collect::<Vec<_>>(),
                    "{values:?}"
                );
                for (name, object) in &expected {
                    assert_eq!(seen[name], *object, "{values:?}: {name}");
                }
            });
        }
    });
}

/// Or a new flag would have no value, and nobody would notice.
#[test]
fn every_flag_has_been_tried() {
    let command = Values::augment_args(clap::Command::new("weft"));
    for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
        let given = format!("--{flag}");
        let is_it = |tried: &&str| **tried == given || tried.starts_with(&format!("{given}="));
        let tried = SETS.iter().flat_map(|(flags, _)| *flags).any(is_it);
        assert!(tried || flag == "api-host", "{given}");
    }
}

#[test]
fn values_that_no_flag_would_take_are_refused_with_their_names() {
    for (values, expected) in [
        (&[][..], "apiHost is not set"),
        (&["apiHost=x", "proxyMode=ebpf"], "proxyMode"),
        (&["apiHost=x", "mtu=big"], "mtu"),
        (&["apiHost=x", "tunnel=wireguard", "backend=bgp"], "tunnel has no effect"),
        (&["apiHost=x", "cniBinDir=opt/cni"], "cniBinDir"),
        (&["apiHost=x", r#"clusterDomain=a"b"#], "clusterDomain"),
        (&["apiHost=x", "lbPool=192.0.2.1"], "lbPool"),
        (&["apiHost=x", "proxymode=ipvs"], "proxymode"),
    ] {
        let output = template(values);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(expected), "{values:?}: {told}");
    }
}

#[test]
fn the_chart_is_as_helm_wants_charts_to_be() {
    let output = helm(&[
        "lint",
        "--strict",
        &workspace("deploy/chart/weft").display().to_string(),
        "--set",
        "apiHost=x",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_base_for_kustomize_is_the_manifests() {
    let output = Command::new("kubectl").arg("kustomize").arg(workspace("deploy")).output();
    let output = output.expect("kubectl runs (Debian: apt-get install kubernetes-client)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(objects(&String::from_utf8(output.stdout).unwrap()), objects(&render(&Values::default())));
}
