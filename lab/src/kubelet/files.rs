//! The files that the kubelet makes for a pod: /etc/resolv.conf and /etc/hosts. Pure: text from the pod's
//! spec.

use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};

use crate::addressing::{CLUSTER_DOMAIN, IpFamily};

/// A resolver configuration, before it is text.
#[derive(Default)]
struct Resolver {
    nameservers: Vec<String>,
    searches: Vec<String>,
    /// Name and value, in order.
    options: Vec<(String, Option<String>)>,
}

/// The pod's /etc/resolv.conf, by its dnsPolicy and dnsConfig.
pub(super) fn resolv_conf(namespace: &str, spec: &PodSpec, families: IpFamily) -> String {
    let mut resolver = by_policy(namespace, spec, families);
    if let Some(config) = &spec.dns_config {
        resolver.merge(config);
    }
    resolver.text()
}

fn by_policy(namespace: &str, spec: &PodSpec, families: IpFamily) -> Resolver {
    let host_network = spec.host_network == Some(true);
    match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => Resolver::default(),
        // A pod on the node's network has the node's resolver unless it asks for the cluster's.
        "ClusterFirst" if host_network => of_node(families),
        "Default" => of_node(families),
        _ => of_cluster(namespace, families),
    }
}

fn of_node(families: IpFamily) -> Resolver {
    Resolver { nameservers: texts(&families.gateways()), ..Resolver::default() }
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(IpAddr::to_string).collect()
}

fn of_cluster(namespace: &str, families: IpFamily) -> Resolver {
    Resolver {
        nameservers: texts(&families.cluster_dns()),
        searches: vec![
            format!("{namespace}.svc.{CLUSTER_DOMAIN}"),
            format!("svc.{CLUSTER_DOMAIN}"),
            CLUSTER_DOMAIN.to_owned(),
        ],
        options: vec![("ndots".to_owned(), Some("5".to_owned()))],
    }
}

impl Resolver {
    /// dnsConfig adds servers and search domains, and adds or replaces options.
    fn merge(&mut self, config: &PodDNSConfig) {
        append_new(&mut self.nameservers, config.nameservers.iter().flatten());
        append_new(&mut self.searches, config.searches.iter().flatten());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            self.options.retain(|(known, _)| known != name);
            self.options.push((name.clone(), option.value.clone()));
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            let _ = writeln!(text, "search {}", self.searches.join(" "));
        }
        for server in &self.nameservers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let option = |(name, value): &(String, Option<String>)| match value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            };
            let options: Vec<String> = self.options.iter().map(option).collect();
            let _ = writeln!(text, "options {}", options.join(" "));
        }
        text
    }
}

fn append_new<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// What a pod is called by itself: its hostname field, else its name, cut to the length of a DNS label.
pub(super) fn hostname(pod_name: &str, spec: &PodSpec) -> String {
    let name = spec.hostname.as_deref().unwrap_or(pod_name);
    name.get(..63).unwrap_or(name).trim_end_matches(['-', '.']).to_owned()
}

/// The pod's /etc/hosts: the fixed part, the pod under its own name, and its hostAliases.
pub(super) fn hosts(namespace: &str, hostname: &str, spec: &PodSpec, addresses: &[IpAddr]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for address in addresses {
        let names = match &spec.subdomain {
            Some(subdomain) => {
                format!("{hostname}.{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}\t{hostname}")
            }
            None => hostname.to_owned(),
        };
        let _ = writeln!(text, "{address}\t{names}");
    }
    let aliases = spec.host_aliases.iter().flatten();
    for (position, alias) in aliases.enumerate() {
        if position == 0 {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfigOption};

    use super::*;

    fn policy(policy: &str) -> PodSpec {
        PodSpec { dns_policy: Some(policy.to_owned()), ..PodSpec::default() }
    }

    #[test]
    fn a_pod_asks_the_cluster_first() {
        let expected = "search shop.svc.cluster.local svc.cluster.local cluster.local\n\
                        nameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(resolv_conf("shop", &PodSpec::default(), IpFamily::Ipv4), expected);
        let on_host = PodSpec { host_network: Some(true), ..policy("ClusterFirstWithHostNet") };
        assert_eq!(resolv_conf("shop", &on_host, IpFamily::Ipv4), expected);
        let both = resolv_conf("shop", &on_host, IpFamily::Dual);
        assert!(both.contains("nameserver 10.96.0.10\nnameserver fd00:10:96::a\n"), "{both}");
    }

    #[test]
    fn the_node_s_resolver_for_default_and_host_network() {
        let on_host = PodSpec { host_network: Some(true), ..PodSpec::default() };
        for spec in [policy("Default"), on_host] {
            assert_eq!(resolv_conf("shop", &spec, IpFamily::Ipv4), "nameserver 172.30.0.1\n");
        }
    }

    #[test]
    fn dns_config_adds_and_replaces() {
        let option = |name: &str, value: Option<&str>| PodDNSConfigOption {
            name: Some(name.to_owned()),
            value: value.map(str::to_owned),
        };
        let config = PodDNSConfig {
            nameservers: Some(vec!["1.1.1.1".to_owned(), "10.96.0.10".to_owned()]),
            searches: Some(vec!["example.test".to_owned()]),
            options: Some(vec![option("ndots", Some("2")), option("edns0", None)]),
        };
        let spec = PodSpec { dns_config: Some(config.clone()), ..PodSpec::default() };
        let text = resolv_conf("a", &spec, IpFamily::Ipv4);
        assert_eq!(
            text,
            "search a.svc.cluster.local svc.cluster.local cluster.local example.test\n\
             nameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:2 edns0\n"
        );
        let spec = PodSpec { dns_config: Some(config), ..policy("None") };
        let alone = resolv_conf("a", &spec, IpFamily::Ipv4);
        assert!(alone.starts_with("search example.test\nnameserver 1.1.1.1\n"), "{alone}");
    }

    #[test]
    fn hosts_has_the_pod_s_own_names_and_aliases() {
        let spec = PodSpec {
            subdomain: Some("database".to_owned()),
            host_aliases: Some(vec![HostAlias {
                ip: "192.0.2.1".to_owned(),
                hostnames: Some(vec!["a.test".to_owned(), "b.test".to_owned()]),
            }]),
            ..PodSpec::default()
        };
        let text = hosts("shop", "database-0", &spec, &["10.244.1.2".parse().unwrap()]);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{text}");
        let ending = "10.244.1.2\tdatabase-0.database.shop.svc.cluster.local\tdatabase-0\n\n\
                      # Entries added by HostAliases.\n192.0.2.1\ta.test\tb.test\n";
        assert!(text.ends_with(ending), "{text}");
    }

    #[test]
    fn a_hostname_fits_a_dns_label() {
        let long = format!("{}-{}", "x".repeat(62), "tail");
        assert_eq!(hostname(&long, &PodSpec::default()), "x".repeat(62));
        assert_eq!(hostname("p", &PodSpec { hostname: Some("h".to_owned()), ..PodSpec::default() }), "h");
    }
}
