//! What `weft install` has agents do about BGP: the agent's own flags, by the same names.

use clap::{ArgAction, Args};
use weft_types::IpNetwork;

/// What routers are told of, the agent's default first.
const ANNOUNCE: [&str; 2] = ["load-balancers", "pod-cidrs"];

pub(crate) const SECRETS: &str = include_str!("bgp_secrets.yaml");

/// What differs from one cluster to the next.
#[derive(Args, Clone, Debug, Default)]
pub struct BgpValues {
    /// The AS number of the nodes, for BGP. Without it, 64512.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub bgp_asn: Option<u32>,
    /// Routers that are told by BGP which addresses lead to each node, each with its AS number:
    /// 192.0.2.1:65000, [2001:db8::1]:65000.
    #[arg(long = "bgp-peer", value_name = "ADDRESS:ASN", value_delimiter = ',')]
    pub bgp_peers: Vec<String>,
    /// What those routers are told of: addresses of load balancers, the pods of each node, or both.
    #[arg(long, value_name = "WHAT", value_delimiter = ',', default_value = ANNOUNCE[0], value_parser = ANNOUNCE)]
    pub bgp_announce: Vec<String>,
    /// Speak BGP as MetalLB's BGPPeers, BGPAdvertisements and Communities say, too. MetalLB's speaker itself
    /// must not run.
    #[arg(long)]
    pub bgp_crds: bool,
    /// The namespaces of BGPPeers that take passwords from Secrets (spec.passwordSecret): agents may read the
    /// Secrets of these by name, and no others.
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',', requires = "bgp_crds", value_parser = namespace)]
    pub bgp_secrets_namespace: Vec<String>,
    /// Communities that the routes bear which those routers are told of.
    #[arg(long, value_name = "COMMUNITY", value_delimiter = ',')]
    pub bgp_community: Vec<String>,
    /// Ranges within which routes are taken from those routers; without it none are.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub bgp_import: Vec<IpNetwork>,
    /// How many routers, and one, may be between nodes and routers of another AS. Without it, none.
    #[arg(long, value_name = "HOPS", value_parser = clap::value_parser!(u8).range(1..))]
    pub bgp_multihop: Option<u8>,
    /// For how many seconds BGP peers keep a node's routes while its agent restarts; 0 for not at all.
    /// Without it, 60.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(..=4095))]
    pub bgp_restart_time: Option<u16>,
    /// With --backend bgp, let all nodes speak with each other (true, as without it), or only with the peers
    /// that are named, which then are route reflectors.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub bgp_mesh: Option<bool>,
}

impl BgpValues {
    /// What agents may do besides, as the rest of a list in YAML: peers connect to a port below 1024.
    pub(crate) fn agent_capability(&self, backend: &str) -> &'static str {
        let speaks_bgp = backend == "bgp" || self.bgp_crds || !self.bgp_peers.is_empty();
        if speaks_bgp { ", NET_BIND_SERVICE" } else { "" }
    }

    /// What lets agents read Secrets.
    pub(crate) fn manifests(&self) -> String {
        self.bgp_secrets_namespace
            .iter()
            .map(|namespace| SECRETS.replace("{{namespace}}", namespace))
            .collect()
    }

    /// The agent's flags, as far as they differ from its defaults.
    pub(crate) fn flags(&self) -> [Option<String>; 9] {
        let list = |flag: &str, values: &[String]| {
            (!values.is_empty()).then(|| format!("--bgp-{flag}={}", values.join(",")))
        };
        let imports: Vec<String> = self.bgp_import.iter().map(ToString::to_string).collect();
        [
            self.bgp_asn.map(|number| format!("--bgp-asn={number}")),
            list("peer", &self.bgp_peers),
            list("announce", &self.bgp_announce).filter(|_| self.bgp_announce != ANNOUNCE[..1]),
            self.bgp_crds.then(|| "--bgp-crds".to_owned()),
            list("community", &self.bgp_community),
            list("import", &imports),
            self.bgp_multihop.map(|hops| format!("--bgp-multihop={hops}")),
            self.bgp_restart_time.map(|seconds| format!("--bgp-restart-time={seconds}")),
            (self.bgp_mesh == Some(false)).then(|| "--bgp-mesh=false".to_owned()),
        ]
    }
}

/// It becomes a part of manifests.
fn namespace(text: &str) -> Result<String, String> {
    let is_inside = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    match !text.is_empty() && text.len() <= 63 && text.chars().all(is_inside) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a namespace".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        values: BgpValues,
    }

    fn flags(line: &[&str]) -> Vec<String> {
        let cli = Cli::parse_from(["weft"].iter().chain(line));
        cli.values.flags().into_iter().flatten().collect()
    }

    #[test]
    fn an_agent_that_speaks_bgp_may_listen_where_peers_connect() {
        let added = |line: &[&str], backend| {
            Cli::parse_from(["weft"].iter().chain(line)).values.agent_capability(backend)
        };
        assert_eq!([added(&[], "auto"), added(&[], "bgp")], ["", ", NET_BIND_SERVICE"]);
        for flag in ["--bgp-crds", "--bgp-peer=192.0.2.1:65000"] {
            assert_eq!(added(&[flag], "auto"), ", NET_BIND_SERVICE");
        }
    }

    #[test]
    fn agents_may_read_secrets_by_name_in_the_namespaces_that_are_named_alone() {
        let of = |line: &[&str]| {
            Cli::try_parse_from(["weft"].iter().chain(line)).map(|cli| cli.values.manifests())
        };
        assert_eq!(of(&["--bgp-crds"]).unwrap(), "");
        let text = of(&["--bgp-crds", "--bgp-secrets-namespace=metallb-system,routers"]).unwrap();
        let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
        let kinds: Vec<&str> = all.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["Role", "RoleBinding", "Role", "RoleBinding"]);
        assert_eq!(all[3]["metadata"]["namespace"], "routers");
        let rule = serde_json::json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
        assert_eq!(all[0]["rules"], rule);
        for wrong in ["--bgp-secrets-namespace=a/b", "--bgp-secrets-namespace="] {
            assert!(of(&["--bgp-crds", wrong]).is_err(), "{wrong}");
        }
        assert!(of(&["--bgp-secrets-namespace=metallb-system"]).is_err(), "nothing names a Secret then");
    }

    #[test]
    fn only_what_differs_from_the_agent_s_defaults_is_given_to_it() {
        assert!(flags(&["--bgp-mesh=true", "--bgp-announce=load-balancers"]).is_empty());
        let all = [
            "--bgp-asn=65010",
            "--bgp-peer=192.0.2.1:65000,[2001:db8::1]:65000",
            "--bgp-announce=load-balancers,pod-cidrs",
            "--bgp-crds",
            "--bgp-community=65000:100",
            "--bgp-import=10.0.0.0/8",
            "--bgp-multihop=2",
            "--bgp-restart-time=0",
            "--bgp-mesh=false",
        ];
        assert_eq!(flags(&all), all);
    }
}
