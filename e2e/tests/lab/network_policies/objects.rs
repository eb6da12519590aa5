//! Objects of the API server as the oracle takes them. Read by the letter of the API's documentation: the
//! server has checked them already.

use std::net::IpAddr;

use serde_json::Value;
use weft_testkit::policy_oracle::Cluster;
use weft_types::{
    Action, ClusterNetworkPolicy, ClusterRule, ContainerPort, IpBlock, LabelSelector, Labels, Namespace,
    NamespacedName, NetworkPolicy, Node, Peers, Pod, PodDetails, PodPeer, PolicyPeer, PolicyRule, PortMatch,
    PortMatches, Protocol, Requirement, Tier,
};

use crate::api::{Api, collection};

/// Everything in the cluster that policies ask about, as it is now.
pub(super) fn cluster(api: &Api) -> Result<Cluster, String> {
    let list = |plural: &str| -> Result<Vec<Value>, String> {
        let list = api.get(&collection("", plural))?;
        Ok(items(&list["items"]).to_vec())
    };
    let mut cluster = Cluster::default();
    for object in list("pods")? {
        cluster.pods.insert(key(&object), pod(&object));
    }
    for object in list("namespaces")? {
        let name = text(&object["metadata"]["name"]);
        let namespace = Namespace { labels: labels(&object), ..Namespace::new(name) };
        cluster.namespaces.insert(name.to_owned(), namespace);
    }
    for object in list("nodes")? {
        let name = text(&object["metadata"]["name"]).to_owned();
        let addresses = items(&object["status"]["addresses"]).iter();
        let all_addresses = addresses.filter_map(|address| text(&address["address"]).parse().ok()).collect();
        let node = Node { name: name.clone(), labels: labels(&object), all_addresses, ..Node::default() };
        cluster.nodes.insert(name, node);
    }
    for object in list("networkpolicies")? {
        cluster.policies.insert(key(&object), network_policy(&object)?);
    }
    for object in list("clusternetworkpolicies")? {
        let policy = cluster_network_policy(&object)?;
        cluster.cluster_policies.insert(policy.name.clone(), policy);
    }
    Ok(cluster)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn key(object: &Value) -> NamespacedName {
    NamespacedName::new(text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

fn labels(object: &Value) -> Labels {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels.map(|(key, value)| (key.as_str(), text(value))).collect()
}

fn pod(object: &Value) -> Pod {
    let ended = ["Succeeded", "Failed"].contains(&text(&object["status"]["phase"]));
    let addresses = items(&object["status"]["podIPs"]).iter().filter(|_| !ended);
    let ports = items(&object["spec"]["containers"]).iter().flat_map(|container| items(&container["ports"]));
    let port = |port: &Value| {
        let protocol = protocol(&port["protocol"]).ok()?;
        Some(ContainerPort {
            name: text(&port["name"]).into(),
            protocol,
            port: number(&port["containerPort"]),
        })
    };
    Pod {
        key: key(object),
        addresses: addresses.filter_map(|ip| text(&ip["ip"]).parse::<IpAddr>().ok()).collect(),
        searches: false,
        labels: labels(object),
        details: Some(Box::new(PodDetails {
            node: object["spec"]["nodeName"].as_str().map(Into::into),
            host_network: object["spec"]["hostNetwork"] == true,
            ports: ports.filter(|port| port["name"].is_string()).filter_map(port).collect(),
            ..PodDetails::default()
        })),
    }
}

fn number(value: &Value) -> u16 {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).unwrap_or_default()
}

fn protocol(value: &Value) -> Result<Protocol, String> {
    match text(value) {
        "" | "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(format!("{other:?} is no protocol")),
    }
}

fn selector(value: &Value) -> Result<LabelSelector, String> {
    let labels = value["matchLabels"].as_object().into_iter().flatten();
    let equal = labels.map(|(key, value)| Requirement::equals(key, text(value)));
    let expressions = items(&value["matchExpressions"]).iter().map(|one| {
        let values = items(&one["values"]).iter().map(text);
        Requirement::new(text(&one["key"]), text(&one["operator"]), values)
    });
    equal.chain(expressions).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

fn network_policy(object: &Value) -> Result<NetworkPolicy, String> {
    let spec = &object["spec"];
    // A list that is left out has no rules; whether it isolates is said by the types, which the server
    // completes.
    let rules = |direction: &str, field: &str, peers: &str| {
        let is_named = items(&spec["policyTypes"]).iter().any(|kind| kind == direction);
        let rules = || items(&spec[field]).iter().map(|one| rule(one, peers)).collect();
        is_named.then(rules).transpose()
    };
    Ok(NetworkPolicy {
        key: key(object),
        pods: selector(&spec["podSelector"])?,
        ingress: rules("Ingress", "ingress", "from")?,
        egress: rules("Egress", "egress", "to")?,
    })
}

/// An empty list of peers or ports means all.
fn rule(rule: &Value, peers: &str) -> Result<PolicyRule, String> {
    let peers = match items(&rule[peers]) {
        [] => Peers::All,
        list => Peers::Any(list.iter().map(peer).collect::<Result<_, _>>()?),
    };
    let ports = match items(&rule["ports"]) {
        [] => PortMatches::All,
        list => PortMatches::Any(list.iter().map(port).collect::<Result<_, _>>()?),
    };
    Ok(PolicyRule { peers, ports })
}

fn peer(peer: &Value) -> Result<PolicyPeer, String> {
    if peer["ipBlock"].is_object() {
        return network(&peer["ipBlock"]["cidr"], &peer["ipBlock"]["except"]);
    }
    let namespaces = &peer["namespaceSelector"];
    let namespaces = namespaces.is_object().then(|| selector(namespaces)).transpose()?;
    Ok(PolicyPeer::Pods(PodPeer { namespaces, pods: selector(&peer["podSelector"])? }))
}

fn network(cidr: &Value, except: &Value) -> Result<PolicyPeer, String> {
    let network = |value: &Value| text(value).parse().map_err(|error| format!("{value}: {error}"));
    let except = items(except).iter().map(network).collect::<Result<_, _>>()?;
    Ok(PolicyPeer::Network(IpBlock { cidr: network(cidr)?, except }))
}

fn port(port: &Value) -> Result<PortMatch, String> {
    let protocol = protocol(&port["protocol"])?;
    Ok(match &port["port"] {
        Value::Null => PortMatch::protocol(protocol),
        Value::String(name) => PortMatch::Named { protocol: Some(protocol), name: name.as_str().into() },
        first if port["endPort"].is_null() => numbers(protocol, first, first),
        first => numbers(protocol, first, &port["endPort"]),
    })
}

fn numbers(protocol: Protocol, first: &Value, last: &Value) -> PortMatch {
    PortMatch::Numbers { protocol, first: number(first), last: number(last) }
}

fn cluster_network_policy(object: &Value) -> Result<ClusterNetworkPolicy, String> {
    let spec = &object["spec"];
    let rules = |field: &str, peers: &str| {
        items(&spec[field]).iter().map(|rule| cluster_rule(rule, peers)).collect::<Result<_, String>>()
    };
    let subject = pods(&spec["subject"])?;
    Ok(ClusterNetworkPolicy {
        name: text(&object["metadata"]["name"]).to_owned(),
        tier: if spec["tier"] == "Admin" { Tier::Admin } else { Tier::Baseline },
        priority: number(&spec["priority"]),
        namespaces: subject.namespaces.unwrap_or_default(),
        pods: subject.pods,
        ingress: rules("ingress", "from")?,
        egress: rules("egress", "to")?,
    })
}

fn pods(object: &Value) -> Result<PodPeer, String> {
    if object["namespaces"].is_object() {
        let namespaces = Some(selector(&object["namespaces"])?);
        return Ok(PodPeer { namespaces, pods: LabelSelector::default() });
    }
    let pods = &object["pods"];
    let namespaces = Some(selector(&pods["namespaceSelector"])?);
    Ok(PodPeer { namespaces, pods: selector(&pods["podSelector"])? })
}

fn cluster_rule(rule: &Value, peers: &str) -> Result<ClusterRule, String> {
    let action = match text(&rule["action"]) {
        "Accept" => Action::Accept,
        "Deny" => Action::Deny,
        "Pass" => Action::Pass,
        other => return Err(format!("{other:?} is no action")),
    };
    let mut found = Vec::new();
    for peer in items(&rule[peers]) {
        match (items(&peer["networks"]), &peer["nodes"]) {
            ([], Value::Null) => found.push(PolicyPeer::Pods(pods(peer)?)),
            ([], nodes) => found.push(PolicyPeer::Nodes(selector(nodes)?)),
            (networks, _) => {
                for cidr in networks {
                    found.push(network(cidr, &Value::Null)?);
                }
            }
        }
    }
    let ports = match items(&rule["protocols"]) {
        [] => PortMatches::All,
        list => PortMatches::Any(list.iter().map(cluster_port).collect()),
    };
    let traffic = PolicyRule { peers: Peers::Any(found.into()), ports };
    Ok(ClusterRule { name: text(&rule["name"]).into(), action, traffic })
}

fn cluster_port(port: &Value) -> PortMatch {
    if port["destinationNamedPort"].is_string() {
        return PortMatch::Named { protocol: None, name: text(&port["destinationNamedPort"]).into() };
    }
    let numbered = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
    let found = numbered.into_iter().find(|(field, _)| port[field].is_object());
    let (field, protocol) = found.unwrap_or(("tcp", Protocol::Tcp));
    let given = &port[field]["destinationPort"];
    match (&given["number"], &given["range"]) {
        (Value::Null, Value::Null) => PortMatch::protocol(protocol),
        (Value::Null, range) => numbers(protocol, &range["start"], &range["end"]),
        (number, _) => numbers(protocol, number, number),
    }
}
