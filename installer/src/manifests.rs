//! The manifests that put Weft on a cluster: a text for people, with the few values that differ between
//! clusters filled in. Nothing here talks to a cluster.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use weft_types::IpNetwork;

use crate::Result;
pub use crate::corefile_values::CorefileValues;
pub use crate::dhcp_values::DhcpValues;
pub use crate::ebpf_parts::{EBPF_SCOPES, EbpfParts};
pub use crate::fast_path_values::FastPathValues;
pub use crate::flows_values::FlowsValues;
pub use crate::ipam_values::IpamMode;
pub use crate::load_balancer_values::{BgpValues, LoadBalancerValues};
pub use crate::policy_values::PolicyValues;
pub use crate::wireguard_values::{TUNNELS, WireGuardValues};

pub(crate) const TEMPLATE: &str = include_str!("weft.yaml");
pub(crate) const NODE_DNS: &str = include_str!("node_dns.yaml");
pub(crate) const LOAD_BALANCERS: &str = include_str!("load_balancers.yaml");
pub(crate) const CLUSTER_NETWORK_POLICY: &str = include_str!("cluster_network_policy.yaml");
/// The image where none is named.
pub const IMAGE: &str = concat!("localhost/weft:", env!("CARGO_PKG_VERSION"));

/// The name of the definition that `--cluster-network-policy` adds.
pub(crate) const CLUSTER_NETWORK_POLICIES: &str = "clusternetworkpolicies.policy.networking.k8s.io";
/// The folders of the CNI where no other is named.
pub(crate) const CNI_BIN: &str = "/opt/cni/bin";
pub(crate) const CNI_CONF: &str = "/etc/cni/net.d";
/// What the agent's flag `--backend` takes, its default first.
pub const BACKENDS: [&str; 5] = ["auto", "host-gw", "vxlan", "bgp", "wireguard"];
/// What the proxy's flag `--proxy-mode` takes, its default first.
pub const PROXY_MODES: [&str; 3] = ["nftables", "iptables", "ipvs"];

/// What differs from one cluster to the next.
#[derive(Args, Clone, Debug)]
pub struct Values {
    /// The image that holds the binaries.
    #[arg(long, default_value = IMAGE)]
    pub image: String,
    /// The pods' address ranges, as the control plane was given them (`--cluster-cidr`, kubeadm's podSubnet).
    #[arg(long, value_delimiter = ',', default_value = "10.244.0.0/16", value_name = "CIDR")]
    pub cluster_cidr: Vec<IpNetwork>,
    /// Where pods' addresses come from.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub ipam: IpamMode,
    /// The address of the cluster DNS Service, as the kubelets were given it (clusterDNS).
    #[arg(long, default_value = "10.96.0.10", value_name = "ADDRESS")]
    pub cluster_dns: IpAddr,
    /// Put a DNS server on every node besides, at the address of the DNS Service: pods' questions do not
    /// leave their node, and are not tracked.
    #[arg(long)]
    pub node_local_dns: bool,
    /// What DNS servers do besides.
    #[command(flatten)]
    pub corefile: CorefileValues,
    /// Put the definition of ClusterNetworkPolicy on the cluster besides, so that administrators can write
    /// such policies. It is never taken away again, as the policies would go with it.
    #[arg(long)]
    pub cluster_network_policy: bool,
    /// What agents and plugin do about network policies.
    #[command(flatten)]
    pub policy: PolicyValues,
    /// When agents look at flows.
    #[command(flatten)]
    pub flows: FlowsValues,
    /// What agents do about load balancer addresses, and by BGP.
    #[command(flatten)]
    pub load_balancers: LoadBalancerValues,
    /// The DNS zone of the cluster, as the kubelets were given it (clusterDomain).
    #[arg(long, default_value = "cluster.local", value_name = "ZONE")]
    pub cluster_domain: String,
    /// The socket of the container runtime: with CRI-O, /run/crio/crio.sock.
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH")]
    pub cri_socket: PathBuf,
    /// How packets get to the pods of other nodes: auto, host-gw, vxlan, bgp or wireguard.
    #[arg(long, default_value = BACKENDS[0], value_parser = BACKENDS, value_name = "BACKEND")]
    pub backend: String,
    /// How agents encrypt.
    #[command(flatten)]
    pub wireguard: WireGuardValues,
    /// What agents do about DHCP.
    #[command(flatten)]
    pub dhcp: DhcpValues,
    /// How packets of established connections between pods go.
    #[command(flatten)]
    pub fast_path: FastPathValues,
    /// How Services are put into the kernel: nftables, iptables or ipvs.
    #[arg(long, default_value = PROXY_MODES[0], value_parser = PROXY_MODES, value_name = "MODE")]
    pub proxy_mode: String,
    /// Have eBPF programs lead connections to ClusterIPs at the socket besides: those of the nodes
    /// themselves, or with "all" those of pods too.
    #[arg(long, num_args = 0..=1, default_missing_value = EBPF_SCOPES[0], value_parser = EBPF_SCOPES, value_name = "SCOPE")]
    pub proxy_ebpf: Option<String>,
    /// The pods' MTU, in bytes. Without it, what fits on the way to every other node.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1280..=65535))]
    pub mtu: Option<u32>,
    /// Where the nodes' container runtime finds CNI plugins: with k3s, /var/lib/rancher/k3s/data/cni.
    #[arg(long, default_value = CNI_BIN, value_name = "DIR")]
    pub cni_bin_dir: PathBuf,
    /// Where the nodes' container runtime reads CNI configurations: with k3s,
    /// /var/lib/rancher/k3s/agent/etc/cni/net.d.
    #[arg(long, default_value = CNI_CONF, value_name = "DIR")]
    pub cni_conf_dir: PathBuf,
    /// A name or address of the API server that works without Services, since Weft is what makes Services
    /// work. Without it, `weft install` takes that of the kubeconfig.
    #[arg(long, value_name = "HOST")]
    pub api_host: Option<String>,
    /// The API server's port.
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub api_port: u16,
}

/// What stands in the manifests where no address of the API server is known.
pub const NO_API_HOST: &str = "API_SERVER_ADDRESS";

/// The values where no flag is given.
impl Default for Values {
    fn default() -> Values {
        /// A command line of nothing but the values, so that each default stands in one place.
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            values: Values,
        }
        Flags::parse_from(["weft"]).values
    }
}

impl Values {
    /// Whether the daemons take what the manifests give them.
    ///
    /// # Errors
    /// Which flags do not fit together.
    pub fn check(&self) -> Result<()> {
        self.wireguard.check(&self.backend)
    }
}

/// The manifests, as one YAML text of several documents.
pub fn render(values: &Values) -> String {
    let cluster_cidr = values.cluster_cidr.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let ebpf = EbpfParts::of(values.proxy_ebpf.as_deref());
    [
        ("{{image}}", values.image.as_str()),
        ("{{cluster_cidr}}", &cluster_cidr),
        ("{{cluster_dns}}", &values.cluster_dns.to_string()),
        ("{{cluster_dns_socket}}", &SocketAddr::new(values.cluster_dns, 53).to_string()),
        ("{{cluster_domain}}", &values.cluster_domain),
        ("{{agent_flags}}", &agent_flags(values)),
        ("{{agent_capabilities}}", &agent_capabilities(values)),
        ("{{agent_mounts}}", values.dhcp.mounts()),
        ("{{agent_volumes}}", values.dhcp.volumes()),
        ("{{bgp_capability}}", values.load_balancers.bgp.agent_capability(&values.backend)),
        ("{{proxy_flags}}", &proxy_flags(values)),
        ("{{proxy_capabilities}}", ebpf.capabilities),
        ("{{proxy_mounts}}", &ebpf.mounts),
        ("{{proxy_volumes}}", &ebpf.volumes),
        ("{{cni_bin_dir}}", &values.cni_bin_dir.display().to_string()),
        ("{{cni_conf_dir}}", &values.cni_conf_dir.display().to_string()),
        ("{{cri_socket}}", &values.cri_socket.display().to_string()),
        ("{{cri_folder}}", &values.cri_socket.parent().unwrap_or(Path::new("/run")).display().to_string()),
        ("{{api_host}}", values.api_host.as_deref().unwrap_or(NO_API_HOST)),
        ("{{api_port}}", &values.api_port.to_string()),
    ]
    .into_iter()
    .fold(
        values.corefile.fill(TEMPLATE.to_owned() + if values.node_local_dns { NODE_DNS } else { "" }),
        |text, (placeholder, value)| text.replace(placeholder, value),
    ) + &values.load_balancers.bgp.manifests()
        + if values.load_balancers.are_given() { LOAD_BALANCERS } else { "" }
        + values.ipam.manifests()
        + if values.cluster_network_policy { CLUSTER_NETWORK_POLICY } else { "" }
}

/// What agents may do besides, as the rest of a list in YAML.
fn agent_capabilities(values: &Values) -> String {
    let fast_path = values.fast_path.agent_capabilities();
    // Which may have it already.
    let dhcp = if fast_path.is_empty() { values.dhcp.agent_capabilities() } else { "" };
    [fast_path, dhcp, values.load_balancers.agent_capabilities()].concat()
}

/// The agent's flags that differ from its defaults, as the rest of a list in YAML.
fn agent_flags(values: &Values) -> String {
    let folder = |flag: &str, folder: &Path, default: &str| {
        (folder != Path::new(default)).then(|| format!("--{flag}={}", folder.display()))
    };
    let flags = [
        values.ipam.flag(),
        (values.backend != BACKENDS[0]).then(|| format!("--backend={}", values.backend)),
        values.fast_path.agent_flag(),
        values.dhcp.agent_flag(),
        values.mtu.map(|mtu| format!("--mtu={mtu}")),
        folder("cni-bin-dir", &values.cni_bin_dir, CNI_BIN),
        folder("cni-conf-dir", &values.cni_conf_dir, CNI_CONF),
    ];
    let flags = flags.into_iter().chain(values.wireguard.flags());
    listed(
        flags
            .chain(values.policy.flags())
            .chain(values.flows.flags())
            .chain(values.load_balancers.flags())
            .flatten(),
    )
}

/// The same for the proxy.
fn proxy_flags(values: &Values) -> String {
    let mode = (values.proxy_mode != PROXY_MODES[0]).then(|| format!("--proxy-mode={}", values.proxy_mode));
    let ebpf = EbpfParts::of(values.proxy_ebpf.as_deref()).flags;
    listed(mode.into_iter().chain(values.fast_path.proxy_flag()).chain(ebpf))
}

fn listed(flags: impl Iterator<Item = String>) -> String {
    flags.map(|flag| format!(r#", "{flag}""#)).collect()
}

#[cfg(test)]
mod definitions;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        values: Values,
    }

    pub(super) fn rendered(flags: &[&str]) -> String {
        let cli = Cli::parse_from([&"weft"].into_iter().chain(flags));
        render(&cli.values)
    }

    pub(super) fn documents(yaml: &str) -> Vec<Value> {
        serde_saphyr::from_multiple(yaml).expect("the manifests are YAML")
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        let text = rendered(&["--api-host=192.0.2.1"]);
        assert!(!text.contains("{{"), "{text}");
        assert_eq!(documents(&text).len(), 18);
        let text = rendered(&["--api-host=192.0.2.1", "--node-local-dns", "--cluster-dns=fd00:10:96::a"]);
        assert!(!text.contains("{{"), "{text}");
        assert_eq!(documents(&text).len(), 19);
        assert!(text.contains(r#""--listen=[fd00:10:96::a]:53""#), "{text}");
        assert_eq!(documents(&rendered(&["--cluster-network-policy"])).len(), 19);
    }

    /// Or the scheduler would not put the next server beside the one before.
    #[test]
    fn the_dns_server_of_a_node_can_be_replaced_by_one_beside_it() {
        let all = documents(&rendered(&["--api-host=192.0.2.1", "--node-local-dns"]));
        let set = all.iter().find(|document| document["metadata"]["name"] == "weft-dns-node").unwrap();
        let update = &set["spec"]["updateStrategy"]["rollingUpdate"];
        assert_eq!((&update["maxSurge"], &update["maxUnavailable"]), (&1.into(), &0.into()));
        for container in set["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
            assert!(container["ports"].is_null(), "{container}");
            assert!(container["command"].as_array().unwrap().contains(&"--handover".into()));
        }
    }

    #[test]
    fn flags_reach_the_manifests() {
        let text = rendered(&[
            "--api-host=192.0.2.1",
            "--cluster-cidr=10.0.0.0/16,fd00::/48",
            "--cluster-dns=10.43.0.10",
        ]);
        assert!(text.contains(r#""--cluster-cidr=10.0.0.0/16,fd00::/48""#));
        assert!(text.contains(r#"clusterIP: "10.43.0.10""#));
    }

    /// As k3s, RKE2 and MicroK8s have them.
    #[test]
    fn the_folders_of_other_distributions_are_those_of_the_nodes() {
        let all = documents(&rendered(&[
            "--backend=vxlan",
            "--mtu=1400",
            "--cni-bin-dir=/var/lib/cni-bin",
            "--cni-conf-dir=/var/lib/conf",
        ]));
        let agent = all
            .iter()
            .find(|document| document["metadata"]["name"] == "weft-agent" && document["kind"] == "DaemonSet");
        let pod = &agent.unwrap()["spec"]["template"]["spec"];
        let command = pod["containers"][0]["command"].as_array().unwrap();
        for flag in [
            "--backend=vxlan",
            "--mtu=1400",
            "--cni-bin-dir=/var/lib/cni-bin",
            "--cni-conf-dir=/var/lib/conf",
        ] {
            assert!(command.contains(&flag.into()), "{command:?}");
        }
        for (name, path) in [("cni-bin", "/var/lib/cni-bin"), ("cni-conf", "/var/lib/conf")] {
            let named = |list: &Value| {
                list.as_array().unwrap().iter().find(|one| one["name"] == name).cloned().unwrap()
            };
            assert_eq!(named(&pod["volumes"])["hostPath"]["path"], path);
            // What the agent says of a file is true on the node.
            assert_eq!(named(&pod["containers"][0]["volumeMounts"])["mountPath"], path);
        }
    }

    /// The role, the API group, the resource and the verb: an agent says of its Node that the network works, and
    /// asks whose tokens are. Nobody is bound to the last, and such tokens are for agents alone.
    const WRITES: [(&str, &str, &str, &str); 5] = [
        ("weft-proxy", "events.k8s.io", "events", "create"),
        ("weft-agent", "events.k8s.io", "events", "create"),
        ("weft-agent", "", "nodes/status", "patch"),
        ("weft-agent", "authentication.k8s.io", "tokenreviews", "create"),
        ("weft-reader", "", "serviceaccounts/token", "create"),
    ];

    #[test]
    fn roles_only_read_but_for_events_and_the_node_s_condition() {
        for role in documents(&rendered(&["--api-host=192.0.2.1"]))
            .iter()
            .filter(|document| document["kind"] == "ClusterRole" || document["kind"] == "Role")
        {
            for rule in role["rules"].as_array().unwrap() {
                let may_write = WRITES.iter().any(|(name, group, resource, verb)| {
                    let allowed = [("apiGroups", group), ("resources", resource), ("verbs", verb)];
                    role["metadata"]["name"] == *name
                        && allowed.iter().all(|(field, only)| rule[*field] == serde_json::json!([only]))
                });
                let only_reads = |verb: &Value| ["get", "list", "watch"].map(Value::from).contains(verb);
                assert!(may_write || rule["verbs"].as_array().unwrap().iter().all(only_reads), "{role}");
            }
        }
    }

    #[test]
    fn the_agent_may_read_all_that_policies_are_made_of() {
        let all = documents(&rendered(&[]));
        let named =
            |object: &&Value| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "weft-agent";
        let role = all.iter().find(named).unwrap();
        let may_watch = |group: &str, resource: &str| {
            role["rules"].as_array().unwrap().iter().any(|rule| {
                let has = |list: &str, word: &str| rule[list].as_array().unwrap().contains(&word.into());
                has("apiGroups", group) && has("resources", resource) && has("verbs", "watch")
            })
        };
        for (group, resource) in [
            ("", "pods"),
            ("", "namespaces"),
            ("", "nodes"),
            ("networking.k8s.io", "networkpolicies"),
            ("policy.networking.k8s.io", "clusternetworkpolicies"),
        ] {
            assert!(may_watch(group, resource), "{resource}: {role}");
        }
    }

    /// A capability that is only permitted does not reach a program of another user than root
    /// (capabilities(7), "Transformation of capabilities during execve"), and CRI knows no ambient ones.
    #[test]
    fn the_dns_server_is_not_root_and_may_listen_on_its_port() {
        let all = documents(&rendered(&["--api-host=192.0.2.1"]));
        let deployment = all.iter().find(|document| document["kind"] == "Deployment").unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["runAsNonRoot"], true);
            assert_eq!(context["capabilities"], serde_json::json!({"drop": ["ALL"]}));
        }
        let sysctl = serde_json::json!({"name": "net.ipv4.ip_unprivileged_port_start", "value": "53"});
        assert_eq!(pod["securityContext"]["sysctls"], serde_json::json!([sysctl]));
        assert!(pod["hostNetwork"].is_null(), "a node's own settings are not a pod's");
    }

    #[test]
    fn no_container_that_stays_is_privileged_and_every_root_is_read_only() {
        for document in documents(&rendered(&["--api-host=192.0.2.1", "--node-local-dns"])) {
            let pod = &document["spec"]["template"]["spec"];
            let lists = [&pod["initContainers"], &pod["containers"]];
            for container in lists.into_iter().filter_map(Value::as_array).flatten() {
                let context = &container["securityContext"];
                assert_eq!(context["readOnlyRootFilesystem"], true, "{container}");
                // It sets the limits of connection tracking, which nothing less allows, and ends.
                if container["name"] == "connection-tracking" {
                    let line = container["command"].to_string();
                    assert!(line.starts_with(r#"["/weft-proxy","--init-only","#), "{line}");
                    assert_eq!(pod["initContainers"].as_array().map(Vec::len), Some(1));
                    continue;
                }
                assert!(context["privileged"].is_null(), "{container}");
                assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]), "{container}");
            }
        }
    }

    /// A kubelet that looks for the first time a moment too early looks again ten seconds later: with every
    /// pod that is replaced.
    #[test]
    fn a_server_that_has_just_started_is_looked_at_every_second() {
        let mut count = 0;
        for document in documents(&rendered(&["--api-host=192.0.2.1", "--node-local-dns"])) {
            let containers = &document["spec"]["template"]["spec"]["containers"];
            for container in containers.as_array().into_iter().flatten() {
                let [startup, readiness] = ["startupProbe", "readinessProbe"].map(|name| &container[name]);
                assert_eq!(startup["httpGet"], readiness["httpGet"], "{container}");
                assert_eq!(startup["periodSeconds"], 1, "{container}");
                assert!(startup["failureThreshold"].as_u64() >= Some(600), "the API server may be away");
                count += 1;
            }
        }
        assert_eq!(count, 5);
    }

    #[test]
    fn dns_servers_stand_on_different_nodes_where_they_can() {
        let all = documents(&rendered(&["--api-host=192.0.2.1"]));
        let deployment = all.iter().find(|document| document["kind"] == "Deployment").unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        let own = &deployment["spec"]["selector"];
        for spread in pod["topologySpreadConstraints"].as_array().unwrap() {
            assert_eq!((&spread["labelSelector"], &spread["maxSkew"]), (own, &1.into()));
            assert_eq!(
                spread["whenUnsatisfiable"], "ScheduleAnyway",
                "or one node alone would have one server"
            );
        }
        assert_eq!(pod["topologySpreadConstraints"][0]["topologyKey"], "kubernetes.io/hostname");
        let apart = &pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(apart[0]["podAffinityTerm"]["topologyKey"], "kubernetes.io/hostname");
        assert_eq!(&apart[0]["podAffinityTerm"]["labelSelector"], own);
    }

    /// Killed, it is replaced by the one beside it; told to stop, it may take its time.
    #[test]
    fn the_dns_servers_of_a_pod_stand_by_for_each_other_and_may_end_in_order() {
        let all = documents(&rendered(&["--api-host=192.0.2.1"]));
        let deployment = all.iter().find(|document| document["kind"] == "Deployment").unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        let containers = pod["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 2);
        assert_eq!(containers[0]["command"], containers[1]["command"]);
        let command = containers[0]["command"].as_array().unwrap();
        assert!(command.contains(&"--handover".into()) && command.contains(&"--standby".into()));
        assert!(
            pod["terminationGracePeriodSeconds"].as_u64() > Some(4 * 5 + 2),
            "four lameducks and the last answers"
        );
    }

    /// Kubernetes gives a pod its addresses without brackets.
    /// The kubelet's own defaults, a second and three times, end servers of a machine that is merely short of
    /// time.
    #[test]
    fn a_busy_machine_is_no_reason_to_restart_a_server() {
        for document in documents(&rendered(&["--api-host=192.0.2.1", "--node-local-dns"])) {
            let containers = &document["spec"]["template"]["spec"]["containers"];
            for container in containers.as_array().into_iter().flatten() {
                let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|name| &container[name]);
                for probe in probes.into_iter().filter(|probe| !probe.is_null()) {
                    assert!(probe["timeoutSeconds"].as_u64() >= Some(5), "{container}");
                }
                let liveness = &container["livenessProbe"];
                assert!(
                    liveness.is_null() || liveness["failureThreshold"].as_u64() >= Some(5),
                    "{container}"
                );
            }
        }
    }

    /// `kubectl apply -k deploy`, and bases of others on it, are the same objects.
    #[test]
    fn the_kustomization_in_deploy_is_what_the_command_prints() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
        let output = std::process::Command::new("kubectl").args(["kustomize", folder]).output();
        let output = output.expect("kubectl runs (Debian: apt-get install kubernetes-client)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let sorted = |yaml: &str| {
            let mut texts: Vec<String> = documents(yaml).iter().map(Value::to_string).collect();
            texts.sort();
            texts
        };
        assert_eq!(sorted(&String::from_utf8(output.stdout).unwrap()), sorted(&rendered(&[])));
    }

    /// `deploy/weft.yaml` is for `kubectl apply -f` and must say what `weft manifests` says.
    #[test]
    fn the_file_in_deploy_is_what_the_command_prints() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/weft.yaml");
        let text = rendered(&[]);
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(stored == text, "deploy/weft.yaml is stale: weft manifests >deploy/weft.yaml");
    }
}
