//! Rules for NetworkPolicies (pkg/apis/networking/validation) and ClusterNetworkPolicies (the definition of
//! the kind).

use serde_json::{Value, json};
use weft_types::{IpNetwork, is_subnet_of};

use super::names::{is_label, labels};
use crate::apiserver::error::Cause;
use crate::apiserver::object::{items, text};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const TIERS: [&str; 2] = ["Admin", "Baseline"];
const ACTIONS: [&str; 3] = ["Accept", "Deny", "Pass"];
const IN_RANGE: &str = "must be between 1 and 65535, inclusive";
/// How many rules a direction of a ClusterNetworkPolicy has at most, and how many peers or ports a rule of
/// it.
const MOST: usize = 25;
const LAST_PRIORITY: i64 = 1000;

/// Checks the spec of a NetworkPolicy.
pub(super) fn network_policy(spec: &Value) -> Vec<Cause> {
    let mut causes = selector(&spec["podSelector"], "spec.podSelector");
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in items(&spec[direction]).iter().enumerate() {
            let at = format!("spec.{direction}[{index}]");
            for (index, port) in items(&rule["ports"]).iter().enumerate() {
                causes.extend(self::port(port, &format!("{at}.ports[{index}]")));
            }
            for (index, peer) in items(&rule[peers]).iter().enumerate() {
                causes.extend(self::peer(peer, &format!("{at}.{peers}[{index}]")));
            }
        }
    }
    let types = items(&spec["policyTypes"]);
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        causes.push(Cause::invalid("spec.policyTypes", &spec["policyTypes"], detail));
        return causes;
    }
    for (index, kind) in types.iter().enumerate() {
        if !["Ingress", "Egress"].contains(&text(kind)) {
            let at = format!("spec.policyTypes[{index}]");
            causes.push(Cause::unsupported(at, kind, &["Egress", "Ingress"]));
        }
    }
    causes
}

fn port(port: &Value, at: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if !PROTOCOLS.contains(&text(&port["protocol"])) {
        causes.push(Cause::unsupported(format!("{at}.protocol"), &port["protocol"], &PROTOCOLS));
    }
    let (first, last) = (&port["port"], &port["endPort"]);
    let mut refuse_last = |detail: &str| {
        if !last.is_null() {
            causes.push(Cause::invalid(format!("{at}.endPort"), last, detail));
        }
    };
    match first {
        Value::Null => refuse_last("may not be specified when `port` is not specified"),
        Value::Number(first) => {
            if last.as_i64() < first.as_i64() {
                refuse_last("must be greater than or equal to `port`");
            } else if !is_port(last) {
                refuse_last(IN_RANGE);
            }
        }
        _ => refuse_last("may not be specified when `port` is non-numeric"),
    }
    if first.is_number() && !is_port(first) {
        causes.push(Cause::invalid(format!("{at}.port"), first, IN_RANGE));
    }
    if first.is_string() && !is_port_name(text(first)) {
        let detail =
            "must be at most 15 lower case letters, digits and single dashes, with a letter among them";
        causes.push(Cause::invalid(format!("{at}.port"), first, detail));
    }
    causes
}

fn is_port(number: &Value) -> bool {
    number.as_i64().is_some_and(|number| (1..=65535).contains(&number))
}

/// The name of a port (RFC 6335 section 5.1, in lower case).
fn is_port_name(name: &str) -> bool {
    is_label(name)
        && name.len() <= 15
        && !name.contains("--")
        && name.contains(|letter: char| letter.is_ascii_lowercase())
}

fn peer(peer: &Value, at: &str) -> Vec<Cause> {
    let given = ["podSelector", "namespaceSelector", "ipBlock"].map(|field| !peer[field].is_null());
    let mut causes = Vec::new();
    if given == [false; 3] {
        return vec![Cause::required(at, "must specify a peer")];
    }
    if given[2] && (given[0] || given[1]) {
        causes.push(Cause::forbidden(at, "may not specify both ipBlock and another peer"));
    }
    for field in ["podSelector", "namespaceSelector"] {
        causes.extend(selector(&peer[field], &format!("{at}.{field}")));
    }
    if given[2] {
        causes.extend(ip_block(&peer["ipBlock"], &format!("{at}.ipBlock")));
    }
    causes
}

fn ip_block(block: &Value, at: &str) -> Vec<Cause> {
    let network = |value: &Value| text(value).parse::<IpNetwork>().ok().filter(|_| text(value).contains('/'));
    let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    if text(&block["cidr"]).is_empty() {
        return vec![Cause::required(format!("{at}.cidr"), "")];
    }
    let Some(whole) = network(&block["cidr"]) else {
        return vec![Cause::invalid(format!("{at}.cidr"), &block["cidr"], detail)];
    };
    let mut causes = Vec::new();
    for (index, except) in items(&block["except"]).iter().enumerate() {
        let at = format!("{at}.except[{index}]");
        match network(except) {
            None => causes.push(Cause::invalid(at, except, detail)),
            Some(part) if is_subnet_of(&part, &whole) && part.prefix() > whole.prefix() => {}
            Some(_) => causes.push(Cause::invalid(at, except, "must be a strict subset of `cidr`")),
        }
    }
    causes
}

fn selector(selector: &Value, at: &str) -> Vec<Cause> {
    let mut causes = labels(&selector["matchLabels"], &format!("{at}.matchLabels"));
    for (index, expression) in items(&selector["matchExpressions"]).iter().enumerate() {
        let at = format!("{at}.matchExpressions[{index}]");
        let operator = text(&expression["operator"]);
        let has_values = !items(&expression["values"]).is_empty();
        match operator {
            "In" | "NotIn" if !has_values => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(format!("{at}.values"), detail));
            }
            "Exists" | "DoesNotExist" if has_values => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(format!("{at}.values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let detail = "not a valid selector operator";
                causes.push(Cause::invalid(format!("{at}.operator"), &expression["operator"], detail));
            }
        }
        let key = json!({text(&expression["key"]): ""});
        if !labels(&key, "").is_empty() {
            causes.push(Cause::invalid(format!("{at}.key"), &expression["key"], "must be a label's key"));
        }
    }
    causes
}

/// Checks the spec of a ClusterNetworkPolicy.
pub(super) fn cluster_network_policy(spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if !TIERS.contains(&text(&spec["tier"])) {
        causes.push(Cause::unsupported("spec.tier", &spec["tier"], &TIERS));
    }
    if !spec["priority"].as_i64().is_some_and(|number| (0..=LAST_PRIORITY).contains(&number)) {
        let detail = format!("must be between 0 and {LAST_PRIORITY}, inclusive");
        causes.push(Cause::invalid("spec.priority", &spec["priority"], &detail));
    }
    causes.extend(one_field(&spec["subject"], "spec.subject"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        causes.extend(at_most(&spec[direction], &format!("spec.{direction}")));
        for (index, rule) in items(&spec[direction]).iter().enumerate() {
            let at = format!("spec.{direction}[{index}]");
            if !ACTIONS.contains(&text(&rule["action"])) {
                causes.push(Cause::unsupported(format!("{at}.action"), &rule["action"], &ACTIONS));
            }
            if items(&rule[peers]).is_empty() {
                causes.push(Cause::required(format!("{at}.{peers}"), ""));
            }
            for list in [peers, "protocols"] {
                let at = format!("{at}.{list}");
                causes.extend(at_most(&rule[list], &at));
                for (index, item) in items(&rule[list]).iter().enumerate() {
                    causes.extend(one_field(item, &format!("{at}[{index}]")));
                }
            }
        }
    }
    causes
}

fn at_most(list: &Value, at: &str) -> Option<Cause> {
    let detail = format!("must have at most {MOST} items");
    (items(list).len() > MOST).then(|| Cause::invalid(at, &json!(items(list).len()), &detail))
}

/// A union: exactly one of its fields is set.
fn one_field(union: &Value, at: &str) -> Option<Cause> {
    let count = union.as_object().map_or(0, serde_json::Map::len);
    (count != 1).then(|| Cause::invalid(at, union, "exactly one of the fields must be set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(causes: Vec<Cause>) -> Vec<String> {
        causes.into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn ports_and_ranges_that_make_no_sense_are_named() {
        let port = |port: Value| {
            let mut port = port;
            port["protocol"] = json!("TCP");
            let spec = json!({"ingress": [{"ports": [port]}], "policyTypes": ["Ingress"]});
            fields(network_policy(&spec))
        };
        for good in [
            json!({}),
            json!({"port": 80}),
            json!({"port": "http"}),
            json!({"port": 80, "endPort": 80}),
            json!({"port": 1, "endPort": 65535}),
        ] {
            assert!(port(good.clone()).is_empty(), "{good}");
        }
        for (bad, field) in [
            (json!({"port": 0}), "port"),
            (json!({"port": 70000}), "port"),
            (json!({"port": "Not a name"}), "port"),
            (json!({"port": 81, "endPort": 80}), "endPort"),
            (json!({"port": 81, "endPort": 70000}), "endPort"),
            (json!({"endPort": 80}), "endPort"),
            (json!({"port": "http", "endPort": 80}), "endPort"),
        ] {
            assert_eq!(port(bad.clone()), [format!("spec.ingress[0].ports[0].{field}")], "{bad}");
        }
    }

    #[test]
    fn peers_are_one_thing_and_exceptions_within_their_network() {
        let peer = |peer: Value| {
            fields(network_policy(&json!({"egress": [{"to": [peer]}], "policyTypes": ["Egress"]})))
        };
        let within = "spec.egress[0].to[0]";
        assert!(peer(json!({"podSelector": {}, "namespaceSelector": {}})).is_empty());
        assert!(peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}})).is_empty());
        assert_eq!(peer(json!({})), [within]);
        assert_eq!(peer(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})), [within]);
        assert_eq!(peer(json!({"ipBlock": {"cidr": "10.0.0.0"}})), [format!("{within}.ipBlock.cidr")]);
        for outside in ["11.0.0.0/16", "10.0.0.0/8", "fd00::/64"] {
            let block = json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": [outside]}});
            assert_eq!(peer(block), [format!("{within}.ipBlock.except[0]")], "{outside}");
        }
        let expression = json!({"key": "a", "operator": "In"});
        let bad = peer(json!({"podSelector": {"matchExpressions": [expression]}}));
        assert_eq!(bad, [format!("{within}.podSelector.matchExpressions[0].values")]);
    }

    #[test]
    fn cluster_policies_have_a_tier_a_priority_and_one_kind_of_subject() {
        let mut spec = json!({"tier": "Admin", "priority": 1000, "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}], "protocols": [{"tcp": {}}]}]});
        assert!(fields(cluster_network_policy(&spec)).is_empty());
        spec["tier"] = json!("Middle");
        spec["priority"] = json!(1001);
        spec["subject"] = json!({});
        spec["ingress"][0] = json!({"action": "Allow", "from": []});
        let wrong = fields(cluster_network_policy(&spec));
        let at =
            ["spec.tier", "spec.priority", "spec.subject", "spec.ingress[0].action", "spec.ingress[0].from"];
        assert_eq!(wrong, at);
    }
}
