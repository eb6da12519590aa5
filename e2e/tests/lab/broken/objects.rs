//! Faults of objects in the cluster.

use serde_json::{Value, json};

use super::{first, silent};
use crate::case::{Case, echo};
use crate::lab::{Lab, Outcome, poll};

/// Runs a scenario in a namespace of its own, which is mended by its removal.
fn in_namespace(
    lab: &Lab,
    namespace: &str,
    (id, subject): (&str, &str),
    make: impl FnOnce(&Case) -> Outcome,
) -> Outcome {
    let case = Case::new(lab, namespace)?;
    make(&case)?;
    first(lab, id, subject)?;
    drop(case);
    silent(lab)
}

pub(super) fn selector_matches_nothing(lab: &Lab) -> Outcome {
    let named = ("selector-matches-nothing", "Service broken-selector/web");
    in_namespace(lab, "broken-selector", named, |case| {
        case.run([echo("server")])?;
        case.service("web", json!({"selector": {"app": "payments"}})).map(drop)
    })
}

pub(super) fn selector_misses(lab: &Lab) -> Outcome {
    let named = ("selector-misses", "Service broken-label/web");
    in_namespace(lab, "broken-label", named, |case| {
        case.run([echo("server").labels(json!({"app": "server", "tier": "front"}))])?;
        case.service("web", json!({"selector": {"app": "server", "tier": "fronted"}})).map(drop)
    })
}

pub(super) fn readiness_fails(lab: &Lab) -> Outcome {
    in_namespace(lab, "broken-probe", ("pods-not-ready", "Service broken-probe/web"), |case| {
        case.start(echo("server").ready_while(&lab.state.path().join("never")))?;
        case.service("web", json!({}))?;
        case.with_condition("server", "False").map(drop)
    })
}

pub(super) fn not_scheduled(lab: &Lab) -> Outcome {
    in_namespace(lab, "broken-pending", ("pods-not-ready", "Service broken-pending/web"), |case| {
        case.start(echo("server").spec(json!({"nodeSelector": {"disk": "none"}})))?;
        case.service("web", json!({})).map(drop)
    })
}

pub(super) fn port_name_missing(lab: &Lab) -> Outcome {
    in_namespace(lab, "broken-name", ("port-name-missing", "Service broken-name/web"), |case| {
        case.run([echo("server")])?;
        case.service("web", json!({"ports": [{"port": 80, "targetPort": "web"}]})).map(drop)
    })
}

pub(super) fn port_mismatch(lab: &Lab) -> Outcome {
    in_namespace(lab, "broken-port", ("port-mismatch", "Service broken-port/web"), |case| {
        case.run([echo("server")])?;
        case.service("web", json!({"ports": [{"port": 80, "targetPort": 8081}]})).map(drop)
    })
}

pub(super) fn dns_denied(lab: &Lab) -> Outcome {
    in_namespace(lab, "broken-dns", ("dns-denied", "NetworkPolicy broken-dns/deny"), |case| {
        case.run([echo("server")])?;
        let policy = json!({"metadata": {"name": "deny"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443}]}]}});
        let path = format!("/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies", case.namespace);
        case.api.create(&path, &policy).map(drop)
    })
}

pub(super) fn ndots(lab: &Lab) -> Outcome {
    in_namespace(lab, "broken-ndots", ("dns-ndots", "Pod broken-ndots/server"), |case| {
        let config = json!({"options": [{"name": "ndots", "value": "9"}]});
        case.run([echo("server").spec(json!({"dnsConfig": config}))]).map(drop)
    })
}

/// No node runs it, but it is there.
pub(super) fn other_network(lab: &Lab) -> Outcome {
    in_namespace(lab, "broken-cni", ("other-network", "DaemonSet broken-cni/kube-flannel-ds"), |case| {
        let labels = json!({"app": "flannel"});
        let set = json!({"metadata": {"name": "kube-flannel-ds"}, "spec": {"selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"nodeSelector": {"disk": "none"},
                "volumes": [{"name": "cni", "hostPath": {"path": "/etc/cni/net.d"}}],
                "containers": [{"name": "flannel", "image": "host", "command": ["sleep", "1000"]}]}}}});
        let path = format!("/apis/apps/v1/namespaces/{}/daemonsets", case.namespace);
        case.api.create(&path, &set).map(drop)
    })
}

const GHOST: &str = "/api/v1/nodes/ghost";

/// A Node without a machine, and what doctor says of it.
fn ghost(lab: &Lab, spec: &Value, addresses: &Value, named: (&str, &str)) -> Outcome {
    let api = lab.api()?;
    let make = || {
        api.create("/api/v1/nodes", &json!({"metadata": {"name": "ghost"}, "spec": spec}))?;
        let status =
            json!({"status": {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}]}});
        api.patch(&format!("{GHOST}/status"), &status).map(drop)
    };
    let mend = || {
        api.delete(GHOST)?;
        poll("the Node gone", || match api.get(GHOST) {
            Err(_) => Ok(()),
            Ok(node) => Err(node.to_string()),
        })
    };
    super::named(lab, named, make, mend)
}

pub(super) fn ranges_overlap(lab: &Lab) -> Outcome {
    let spec = json!({"podCIDR": "10.96.0.0/24", "podCIDRs": ["10.96.0.0/24"]});
    ghost(lab, &spec, &json!([]), ("ranges-overlap", "Node ghost"))
}

pub(super) fn node_address_duplicate(lab: &Lab) -> Outcome {
    let spec = json!({"podCIDR": "10.244.250.0/24", "podCIDRs": ["10.244.250.0/24"]});
    let addresses = json!([{"type": "InternalIP", "address": "172.30.0.11"}]);
    ghost(lab, &spec, &addresses, ("node-address-duplicate", "Nodes ghost, node1"))
}
