//! DNS: its Service, its servers, whom these ask, and what pods search.

use serde_json::Value;

use super::lookup::{is_dns, is_live, key, list, namespace, pod_addresses, some, texts};
use super::services::ready_endpoints;
use crate::cluster::{DNS_SERVICE, NAMESPACE, name};
use crate::doctor::facts::Facts;
use crate::finding::{Finding, Id};

/// What kubelets give pods at most (k8s.io/kubernetes/pkg/apis/core/validation: `MaxDNSNameservers`,
/// `MaxDNSSearchPaths`, `MaxDNSSearchListChars`), and how many domains of the cluster come before the node's.
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 32;
const MOST_LETTERS: usize = 2048;
const CLUSTER_DOMAINS: usize = 3;
/// What kubelets give pods.
const NDOTS: u64 = 5;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![servers(facts)];
    findings.extend(facts.machines().map(|(node, _)| looped(facts, node)));
    findings.extend(facts.machines().map(|(node, _)| limits(facts, node)));
    findings.push(ndots(facts));
    findings.into_iter().flatten().collect()
}

/// The pods of DNS servers.
pub(super) fn dns_pods(facts: &Facts) -> impl Iterator<Item = &Value> {
    let is_server = |pod: &&Value| {
        namespace(pod) == NAMESPACE && pod["metadata"]["labels"]["k8s-app"] == DNS_SERVICE && is_live(pod)
    };
    facts.pods.iter().filter(is_server)
}

fn servers(facts: &Facts) -> Option<Finding> {
    let subject = format!("Service {NAMESPACE}/{DNS_SERVICE}");
    let all = facts.pods.len();
    let Some(service) = facts.services.iter().find(|service| is_dns(service)) else {
        return Some(
            Finding::error(Id::DnsMissing, subject, "it is not there: no pod finds any name")
                .reach(all)
                .fix("weft install, or apply what weft manifests prints"),
        );
    };
    if ready_endpoints(facts, service) > 0 {
        return None;
    }
    let pods: Vec<String> = dns_pods(facts).map(|pod| name(pod).to_owned()).collect();
    let what = match pods.is_empty() {
        true => "no DNS server runs: no pod finds any name".to_owned(),
        false => format!("no DNS server is ready ({}): no pod finds any name", some(&pods)),
    };
    let fix = format!("kubectl -n {NAMESPACE} describe pods -l k8s-app={DNS_SERVICE}, and their log");
    Some(Finding::error(Id::DnsWithoutServers, subject, what).reach(all).fix(fix))
}

/// Servers whose upstreams are those of the node ask what its resolv.conf names: an address of the loopback
/// interface is the server's own there, and the cluster's DNS address is the server itself.
fn looped(facts: &Facts, node: &str) -> Option<Finding> {
    let machine = facts.agents.get(node)?.as_ref().ok()?;
    let of_node = |pod: &&Value| {
        pod["spec"]["nodeName"] == node && pod["spec"]["dnsPolicy"].as_str() == Some("Default")
    };
    let server = dns_pods(facts).find(of_node)?;
    let service = facts.services.iter().find(|service| is_dns(service));
    let own: Vec<&str> = service.into_iter().flat_map(|it| texts(&it["spec"]["clusterIPs"])).collect();
    let own: Vec<&str> = own.into_iter().chain(pod_addresses(server)).collect();
    let is_loop =
        |server: &&String| server.starts_with("127.") || *server == "::1" || own.contains(&server.as_str());
    let upstream = machine.resolver.nameservers.iter().find(is_loop)?;
    let what = format!(
        "its resolv.conf names {upstream}, which the DNS server {} cannot ask but itself: names outside of the cluster do not \
         resolve",
        key(server)
    );
    let fix = "Give kubelets the real one: resolvConf: /run/systemd/resolve/resolv.conf in their configuration, then restart \
               them and the DNS servers; or name the upstreams (weft-dns --upstream)";
    Some(Finding::error(Id::DnsLoop, format!("Node {node}"), what).reach(facts.pods.len()).fix(fix))
}

fn limits(facts: &Facts, node: &str) -> Option<Finding> {
    let resolver = &facts.agents.get(node)?.as_ref().ok()?.resolver;
    let letters: usize = resolver.search.iter().map(|domain| domain.len() + 1).sum();
    let mut found = Vec::new();
    if resolver.nameservers.len() > MOST_SERVERS {
        found.push(format!("{} nameservers, of which pods get {MOST_SERVERS}", resolver.nameservers.len()));
    }
    if resolver.search.len() + CLUSTER_DOMAINS > MOST_DOMAINS || letters > MOST_LETTERS {
        found.push(format!(
            "{} search domains of {letters} letters, of which pods get what fits into {MOST_DOMAINS} and {MOST_LETTERS} with \
             the cluster's own",
            resolver.search.len()
        ));
    }
    let what = format!("its resolv.conf has {}", found.join(", and "));
    let finding = Finding::warning(Id::DnsLimits, format!("Node {node}"), what).reach(facts.pods_on(node));
    (!found.is_empty()).then(|| finding.fix("Shorten it, or give kubelets another one (resolvConf)"))
}

/// Each name with fewer dots than that is tried with every search domain first.
fn ndots(facts: &Facts) -> Option<Finding> {
    let asked = |pod: &Value| {
        let mut options = list(&pod["spec"]["dnsConfig"]["options"]).filter(|one| one["name"] == "ndots");
        options.next()?["value"].as_str()?.parse::<u64>().ok()
    };
    let pods: Vec<String> = facts
        .pods
        .iter()
        .filter(|pod| is_live(pod) && asked(pod).is_some_and(|dots| dots > NDOTS))
        .map(key)
        .collect();
    let first = pods.first()?;
    let what = format!(
        "dnsConfig has ndots above {NDOTS} in {}: nearly each name is asked for with every search domain first",
        some(&pods)
    );
    let finding = Finding::warning(Id::DnsNdots, format!("Pod {first}"), what).reach(pods.len());
    Some(finding.fix("Lower ndots in the pods' dnsConfig, or end names with a dot"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{machine_of, only};
    use super::*;

    #[test]
    fn a_cluster_without_dns_is_told_so_first_of_all() {
        let finding = only(Id::DnsMissing, |facts| drop(facts.services.remove(0)));
        assert_eq!(finding.reach, 2);
        let finding = only(Id::DnsWithoutServers, |facts| facts.slices[0]["endpoints"] = json!([]));
        assert!(finding.what.contains("(dns)"), "{finding}");
        let finding = only(Id::DnsWithoutServers, |facts| {
            facts.slices.remove(0);
            facts.pods.remove(0);
        });
        assert!(finding.what.starts_with("no DNS server runs"));
    }

    #[test]
    fn a_server_that_would_ask_itself_is_named_with_its_node() {
        for server in ["127.0.0.53", "::1", "10.96.0.10"] {
            let finding = only(Id::DnsLoop, |facts| {
                facts.pods[0]["spec"]["dnsPolicy"] = json!("Default");
                machine_of(facts, "node1").resolver.nameservers = vec![server.to_owned()];
            });
            assert!(finding.subject == "Node node1" && finding.what.contains(server), "{finding}");
        }
        let none = super::super::tests::after(|facts| {
            machine_of(facts, "node1").resolver.nameservers = vec!["127.0.0.53".to_owned()];
        });
        assert_eq!(none, [], "servers with upstreams of their own do not ask it");
    }

    #[test]
    fn what_does_not_fit_into_a_pod_s_resolv_conf_is_told() {
        let many = |count: usize| (0..count).map(|number| format!("d{number}.example")).collect::<Vec<_>>();
        for change in [(4, 1), (1, 30)] {
            let finding = only(Id::DnsLimits, |facts| {
                let resolver = &mut machine_of(facts, "node2").resolver;
                (resolver.nameservers, resolver.search) = (many(change.0), many(change.1));
            });
            assert_eq!(finding.subject, "Node node2");
        }
    }

    #[test]
    fn more_dots_than_kubernetes_asks_for_are_named() {
        let config = |dots: &str| json!({"options": [{"name": "ndots", "value": dots}]});
        let finding = only(Id::DnsNdots, |facts| facts.pods[1]["spec"]["dnsConfig"] = config("7"));
        assert_eq!(finding.subject, "Pod shop/web-0");
        let none = super::super::tests::after(|facts| facts.pods[1]["spec"]["dnsConfig"] = config("2"));
        assert_eq!(none, []);
    }
}
