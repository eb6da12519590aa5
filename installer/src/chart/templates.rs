//! The chart's templates: the texts of the manifests, with Helm's language where a value goes.

use std::fmt::Write;

use super::{Kind, Value};
use crate::bgp_values::SECRETS;
use crate::manifests::{
    BgpValues, CLUSTER_NETWORK_POLICY, CorefileValues, DhcpValues, EBPF_SCOPES, EbpfParts, FastPathValues,
    IpamMode, LOAD_BALANCERS, LoadBalancerValues, NODE_DNS, TEMPLATE,
};

/// The agent's flags, in the order of the manifests.
const AGENT_FLAGS: [&str; 33] = [
    "ipam",
    "backend",
    "fast_path",
    "dhcp",
    "mtu",
    "cni_bin_dir",
    "cni_conf_dir",
    "tunnel",
    "encryption",
    "wireguard_port",
    "wireguard_keepalive",
    "network_policy",
    "policy_deny",
    "policy_log",
    "policy_log_group",
    "policy_cut_connections",
    "policy_timeout",
    "flows",
    "flows_keep",
    "lb_pool",
    "lb_crds",
    "lb_class",
    "lb_l2",
    "lb_interface",
    "bgp_asn",
    "bgp_peers",
    "bgp_announce",
    "bgp_crds",
    "bgp_community",
    "bgp_import",
    "bgp_multihop",
    "bgp_restart_time",
    "bgp_mesh",
];
const NO_API_HOST: &str = "apiHost is not set: give an address of the API server that nodes reach without Services, as \
                           `kubectl config view --minify` shows it, unless that is 127.0.0.1";
/// Where agents would end at their start.
const MISFIT: &str =
    "and (ne .Values.tunnel \"vxlan\") (ne .Values.backend \"auto\") (ne .Values.backend .Values.tunnel)";
const NO_TUNNEL: &str =
    "tunnel has no effect with that backend: it says what backend auto leads through; leave one of them out";
/// Whether agents give load balancer addresses, and whether they announce any.
const GIVES: &str = "or .Values.lbPool .Values.lbCrds";
const ANNOUNCES: &str =
    "or .Values.lbPool .Values.lbCrds (eq (toString .Values.lbL2) \"true\") .Values.bgpCrds";
const SPEAKS_BGP: &str = "or (eq .Values.backend \"bgp\") .Values.bgpCrds .Values.bgpPeer";

/// The templates, by their paths in the chart's folder.
pub(super) fn all(values: &[Value]) -> Vec<(&'static str, String)> {
    let part = |condition: &str, text: &str| {
        format!("{{{{- if {condition} }}}}\n{}{{{{- end }}}}\n", filled_in(text))
    };
    let secrets = SECRETS.replace("{{namespace}}", "{{ . }}");
    let secrets = format!("{{{{- range .Values.bgpSecretsNamespace }}}}\n{secrets}{{{{- end }}}}\n");
    vec![
        ("templates/_flags.tpl", flags(values)),
        ("templates/weft.yaml", filled_in(TEMPLATE)),
        ("templates/node-dns.yaml", part(".Values.nodeLocalDns", NODE_DNS)),
        ("templates/bgp-secrets.yaml", secrets),
        ("templates/load-balancers.yaml", part(GIVES, LOAD_BALANCERS)),
        ("templates/ipam-blocks.yaml", part("eq .Values.ipam \"blocks\"", IpamMode::Blocks.manifests())),
        (
            "templates/cluster-network-policy.yaml",
            part(".Values.clusterNetworkPolicy", CLUSTER_NETWORK_POLICY),
        ),
    ]
}

/// A text of the manifests with Helm's language in the places of its values.
fn filled_in(text: &str) -> String {
    let ebpf = EBPF_SCOPES.map(|scope| EbpfParts::of(Some(scope)));
    let dhcp = DhcpValues { dhcp: true };
    let with_dhcp = |text: &str| format!("{{{{ if .Values.dhcp }}}}{text}{{{{ end }}}}");
    let by_scope = |part: fn(&EbpfParts) -> &str| {
        let [host, all] = ebpf.each_ref().map(part);
        let [first, _] = EBPF_SCOPES;
        format!(
            "{{{{ if eq .Values.proxyEbpf {first:?} }}}}{host}{{{{ else if .Values.proxyEbpf }}}}{all}{{{{ end }}}}"
        )
    };
    let corefile = CorefileValues { corefile: Some("{{ .Values.corefile }}".to_owned()) };
    let with_corefile = |text: &str| format!("{{{{ if .Values.corefile }}}}{text}{{{{ end }}}}");
    let corefile = corefile.parts().map(|(place, part)| (place, with_corefile(&part)));
    [
        ("image", "{{ .Values.image }}".to_owned()),
        ("cluster_cidr", "{{ join \",\" .Values.clusterCidr }}".to_owned()),
        ("cluster_dns", "{{ .Values.clusterDns }}".to_owned()),
        ("cluster_dns_socket", "{{ include \"weft.dnsSocket\" . }}".to_owned()),
        ("cluster_domain", "{{ .Values.clusterDomain }}".to_owned()),
        ("agent_flags", "{{ include \"weft.agentFlags\" . }}".to_owned()),
        ("agent_capabilities", "{{ include \"weft.agentCapabilities\" . }}".to_owned()),
        ("agent_mounts", with_dhcp(dhcp.mounts())),
        ("agent_volumes", with_dhcp(dhcp.volumes())),
        (
            "bgp_capability",
            format!("{{{{ if {SPEAKS_BGP} }}}}{}{{{{ end }}}}", BgpValues::default().agent_capability("bgp")),
        ),
        ("proxy_flags", "{{ include \"weft.proxyFlags\" . }}".to_owned()),
        ("proxy_capabilities", by_scope(|parts| parts.capabilities)),
        ("proxy_mounts", by_scope(|parts| &parts.mounts)),
        ("proxy_volumes", by_scope(|parts| &parts.volumes)),
        ("cni_bin_dir", "{{ .Values.cniBinDir }}".to_owned()),
        ("cni_conf_dir", "{{ .Values.cniConfDir }}".to_owned()),
        ("cri_socket", "{{ .Values.criSocket }}".to_owned()),
        ("cri_folder", "{{ dir .Values.criSocket }}".to_owned()),
        ("api_host", format!("{{{{ required {NO_API_HOST:?} .Values.apiHost }}}}")),
        ("api_port", "{{ int64 .Values.apiPort }}".to_owned()),
    ]
    .into_iter()
    .chain(corefile)
    .fold(text.to_owned(), |text, (placeholder, helm)| text.replace(&format!("{{{{{placeholder}}}}}"), &helm))
}

/// What is put together from several values.
fn flags(values: &[Value]) -> String {
    let of =
        |id: &str| values.iter().find(|value| value.id == id).expect("each flag is one of `weft install`");
    let mut text = "{{- /* Made by `weft chart`; not to be edited. Each begins with a comma: they are the rest of a list. */ -}}\n".to_owned();
    let mut agent = format!("{{{{- if {MISFIT} }}}}{{{{ fail {NO_TUNNEL:?} }}}}{{{{ end -}}}}\n");
    agent.extend(AGENT_FLAGS.iter().map(|id| flag(of(id))));
    define(&mut text, "agentFlags", &agent);
    let fast = FastPathValues { fast_path: "ebpf".to_owned() };
    let conntrack = fast.proxy_flag().unwrap_or_default();
    let mut proxy = flag(of("proxy_mode"));
    let _ = writeln!(proxy, "{{{{- if ne .Values.fastPath \"none\" }}}}, {conntrack:?}{{{{ end -}}}}");
    let [host, all] = EBPF_SCOPES.map(|scope| {
        let flags = EbpfParts::of(Some(scope)).flags;
        flags.iter().map(|flag| format!(", {flag:?}")).collect::<String>()
    });
    let first = EBPF_SCOPES[0];
    let _ = writeln!(
        proxy,
        "{{{{- if eq .Values.proxyEbpf {first:?} }}}}{host}{{{{ else if .Values.proxyEbpf }}}}{all}{{{{ end -}}}}"
    );
    define(&mut text, "proxyFlags", &proxy);
    let with_crds = LoadBalancerValues { lb_crds: true, ..LoadBalancerValues::default() };
    let capabilities = format!(
        "{{{{- if ne .Values.fastPath \"none\" }}}}{}{{{{ else if .Values.dhcp }}}}{}{{{{ end -}}}}\n\
         {{{{- if {ANNOUNCES} }}}}{}{{{{ end -}}}}\n",
        fast.agent_capabilities(),
        DhcpValues { dhcp: true }.agent_capabilities(),
        with_crds.agent_capabilities(),
    );
    define(&mut text, "agentCapabilities", &capabilities);
    let socket = "{{- if contains \":\" .Values.clusterDns }}[{{ .Values.clusterDns }}]:53{{ else }}{{ .Values.clusterDns }}:53{{ end -}}\n";
    define(&mut text, "dnsSocket", socket);
    text
}

fn define(text: &mut String, name: &str, body: &str) {
    let _ = write!(text, "{{{{- define \"weft.{name}\" -}}}}\n{body}{{{{- end -}}}}\n");
}

/// A flag where it is not the daemon's default.
fn flag(value: &Value) -> String {
    let (key, name) = (format!(".Values.{}", value.key), value.id.replace('_', "-"));
    // Two fields are called after what a list of theirs holds.
    let name = name.strip_suffix("peers").map_or(name.clone(), |rest| format!("{rest}peer"));
    let (condition, words) = match (value.kind, value.default.first()) {
        (Kind::Switch, _) if value.id == "dhcp" => (key.clone(), format!("--{name}=true")),
        (Kind::Switch, _) => (key.clone(), format!("--{name}")),
        (Kind::Bool, Some(_)) => (format!("not {key}"), format!("--{name}=false")),
        (Kind::Bool, None) if value.id == "bgp_mesh" => {
            (format!("eq (toString {key}) \"false\""), format!("--{name}=false"))
        }
        (Kind::Bool, None) => {
            (format!("not (kindIs \"invalid\" {key})"), format!("--{name}={{{{ {key} }}}}"))
        }
        (Kind::Number, Some(default)) => {
            (format!("ne (int64 {key}) (int64 {default})"), format!("--{name}={{{{ int64 {key} }}}}"))
        }
        (Kind::Number, None) => {
            (format!("not (kindIs \"invalid\" {key})"), format!("--{name}={{{{ int64 {key} }}}}"))
        }
        (Kind::List, Some(_)) => {
            let default = value.default.join(",");
            (format!("ne (join \",\" {key}) {default:?}"), format!("--{name}={{{{ join \",\" {key} }}}}"))
        }
        (Kind::List, None) => (key.clone(), format!("--{name}={{{{ join \",\" {key} }}}}")),
        (Kind::Text, Some(default)) => (format!("ne {key} {default:?}"), format!("--{name}={{{{ {key} }}}}")),
        (Kind::Text, None) => (key.clone(), format!("--{name}={{{{ {key} }}}}")),
    };
    format!("{{{{- if {condition} }}}}, \"{words}\"{{{{ end -}}}}\n")
}
