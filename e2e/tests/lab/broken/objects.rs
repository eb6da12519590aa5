//! Faults of objects in the cluster.

use serde_json::{Value, json};

use super::Named::{Doctor, Trace};
use super::{Fault, Mend, Stage};
use crate::api::collection;
use crate::case::{Case, echo};
use crate::lab::{Outcome, poll};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "a Service's selector matches no pod",
        named: Doctor("selector-matches-nothing", "Service broken-selector/web"),
        breaks: |stage| in_namespace(stage, "broken-selector", selector_matches_nothing),
    },
    Fault {
        what: "the same, asked for the way to it",
        named: Trace(
            "broken/client svc/broken-selector/web:80",
            "no endpoints: Service broken-selector/web: its selector app=payments matches no pod of the namespace",
        ),
        breaks: |stage| in_namespace(stage, "broken-selector", selector_matches_nothing),
    },
    Fault {
        what: "a Service's selector misses by one label",
        named: Doctor("selector-misses", "Service broken-label/web"),
        breaks: |stage| {
            in_namespace(stage, "broken-label", |case| {
                case.run([echo("server").labels(json!({"app": "server", "tier": "front"}))])?;
                let selector = json!({"selector": {"app": "server", "tier": "fronted"}});
                case.service("web", selector).map(drop)
            })
        },
    },
    Fault {
        what: "a readiness probe fails",
        named: Doctor("pods-not-ready", "Service broken-probe/web"),
        breaks: |stage| in_namespace(stage, "broken-probe", readiness_fails),
    },
    Fault {
        what: "the same, asked for the way to it",
        named: Trace(
            "broken/client svc/broken-probe/web:80",
            "no endpoints: Service broken-probe/web: its selector app=server matches server (running, but not ready)",
        ),
        breaks: |stage| in_namespace(stage, "broken-probe", readiness_fails),
    },
    Fault {
        what: "no node has room for the pod of a Service",
        named: Doctor("pods-not-ready", "Service broken-pending/web"),
        breaks: |stage| {
            in_namespace(stage, "broken-pending", |case| {
                case.start(echo("server").spec(json!({"nodeSelector": {"disk": "none"}})))?;
                case.service("web", json!({})).map(drop)
            })
        },
    },
    Fault {
        what: "a Service names a port that no container has",
        named: Doctor("port-name-missing", "Service broken-name/web"),
        breaks: |stage| {
            in_namespace(stage, "broken-name", |case| {
                case.run([echo("server")])?;
                case.service("web", json!({"ports": [{"port": 80, "targetPort": "web"}]})).map(drop)
            })
        },
    },
    Fault {
        what: "a Service leads to a port that no container declares",
        named: Doctor("port-mismatch", "Service broken-port/web"),
        breaks: |stage| in_namespace(stage, "broken-port", port_mismatch),
    },
    Fault {
        what: "the same, asked for the way to it: nobody listens there",
        named: Trace(
            "broken/client svc/broken-port/web:80",
            "nothing listens on TCP port 8081 in Pod broken-port/server",
        ),
        breaks: |stage| in_namespace(stage, "broken-port", port_mismatch),
    },
    Fault {
        what: "a policy lets pods send to port 443 alone",
        named: Doctor("dns-denied", "NetworkPolicy broken-dns/deny"),
        breaks: |stage| {
            in_namespace(stage, "broken-dns", |case| {
                case.run([echo("server")])?;
                let policy = json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {},
                    "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443}]}]}});
                case.create("networkpolicies", &policy).map(drop)
            })
        },
    },
    Fault {
        what: "a pod asks with ndots 9",
        named: Doctor("dns-ndots", "Pod broken-ndots/server"),
        breaks: |stage| {
            in_namespace(stage, "broken-ndots", |case| {
                let config = json!({"options": [{"name": "ndots", "value": "9"}]});
                case.run([echo("server").spec(json!({"dnsConfig": config}))]).map(drop)
            })
        },
    },
    Fault {
        what: "two pods have one address",
        named: Doctor("pod-address-duplicate", "Pod broken-twice/a"),
        breaks: |stage| in_namespace(stage, "broken-twice", same_address),
    },
    Fault {
        what: "Flannel's DaemonSet is applied",
        named: Doctor("other-network", "DaemonSet broken-cni/kube-flannel-ds"),
        breaks: |stage| {
            in_namespace(stage, "broken-cni", |case| daemon_set(case, "kube-flannel-ds", "/etc/cni/net.d"))
        },
    },
    Fault {
        what: "Cilium's DaemonSet is applied",
        named: Doctor("other-network", "DaemonSet broken-cilium/cilium"),
        breaks: |stage| {
            in_namespace(stage, "broken-cilium", |case| daemon_set(case, "cilium", "/opt/cni/bin"))
        },
    },
    Fault {
        what: "a Node's pod CIDR is that of Services",
        named: Doctor("ranges-overlap", "Node ghost"),
        breaks: |stage| ghost(stage, "10.96.0.0/24", "True", &json!([])),
    },
    Fault {
        what: "two Nodes have one address",
        named: Doctor("node-address-duplicate", "Nodes ghost, node1"),
        breaks: |stage| {
            let addresses = json!([{"type": "InternalIP", "address": "172.30.0.11"}]);
            ghost(stage, "10.244.250.0/24", "True", &addresses)
        },
    },
    Fault {
        what: "a Node is not ready",
        named: Doctor("node-not-ready", "Node ghost"),
        breaks: |stage| ghost(stage, "10.244.250.0/24", "False", &json!([])),
    },
    Fault {
        what: "a Node's kubelet is silent",
        named: Doctor("node-not-ready", "Node ghost"),
        breaks: |stage| ghost(stage, "10.244.250.0/24", "Unknown", &json!([])),
    },
    Fault {
        what: "the Service kube-dns is deleted",
        named: Doctor("dns-missing", "Service kube-system/kube-dns"),
        breaks: dns_deleted,
    },
    Fault {
        what: "no DNS server is ready",
        named: Doctor("dns-without-servers", "Service kube-system/kube-dns"),
        breaks: dns_without_servers,
    },
];

/// Breaks something in a namespace of its own, which is mended by its removal.
fn in_namespace<'a>(
    stage: &'a Stage<'a>,
    namespace: &'static str,
    make: impl FnOnce(&Case) -> Outcome,
) -> Result<Mend<'a>, String> {
    // The same fault may have been made before, and be on its way out.
    let case = poll("the namespace", || Case::new(stage.lab, namespace))?;
    make(&case)?;
    Ok(Box::new(move || {
        drop(case);
        Ok(())
    }))
}

fn selector_matches_nothing(case: &Case) -> Outcome {
    case.run([echo("server")])?;
    case.service("web", json!({"selector": {"app": "payments"}})).map(drop)
}

fn readiness_fails(case: &Case) -> Outcome {
    case.start(echo("server").ready_while(&case.lab.state.path().join("never")))?;
    case.service("web", json!({}))?;
    case.with_condition("server", "False").map(drop)
}

fn port_mismatch(case: &Case) -> Outcome {
    case.run([echo("server")])?;
    case.service("web", json!({"ports": [{"port": 80, "targetPort": 8081}]})).map(drop)
}

/// No node runs them, but that is what the API server has.
fn same_address(case: &Case) -> Outcome {
    for name in ["a", "b"] {
        case.start(echo(name).spec(json!({"nodeSelector": {"disk": "none"}})))?;
        let status = json!({"status": {"phase": "Running", "podIP": "10.244.200.9", "podIPs": [{"ip": "10.244.200.9"}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let path = format!("{}/{name}/status", collection(&case.namespace, "pods"));
        case.api.patch(&path, &status)?;
    }
    Ok(())
}

/// No node runs it, but it is there.
fn daemon_set(case: &Case, name: &str, folder: &str) -> Outcome {
    let labels = json!({"app": "other"});
    let set = json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"nodeSelector": {"disk": "none"},
            "volumes": [{"name": "cni", "hostPath": {"path": folder}}],
            "containers": [{"name": "other", "image": "host", "command": ["sleep", "1000"]}]}}}});
    case.create("daemonsets", &set).map(drop)
}

const GHOST: &str = "/api/v1/nodes/ghost";

/// A Node without a machine.
fn ghost<'a>(stage: &'a Stage<'a>, range: &str, ready: &str, addresses: &Value) -> Result<Mend<'a>, String> {
    let api = stage.case.api;
    let spec = json!({"podCIDR": range, "podCIDRs": [range]});
    api.create("/api/v1/nodes", &json!({"metadata": {"name": "ghost"}, "spec": spec}))?;
    let conditions = json!([{"type": "Ready", "status": ready, "message": "made by a test"}]);
    let status = json!({"status": {"addresses": addresses, "conditions": conditions}});
    let mend = move || {
        api.delete(GHOST)?;
        poll("the Node gone", || match api.get(GHOST) {
            Err(_) => Ok(()),
            Ok(node) => Err(node.to_string()),
        })
    };
    if let Err(error) = api.patch(&format!("{GHOST}/status"), &status) {
        let _ = mend();
        return Err(error);
    }
    Ok(Box::new(mend))
}

const DNS: &str = "/api/v1/namespaces/kube-system/services/kube-dns";

fn dns_deleted<'a>(stage: &'a Stage<'a>) -> Result<Mend<'a>, String> {
    let api = stage.case.api;
    let mut service = api.get(DNS)?;
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        service["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
    }
    api.delete(DNS)?;
    Ok(Box::new(move || {
        poll("the Service kube-dns back", || {
            api.create(&collection("kube-system", "services"), &service).map(drop)
        })
    }))
}

fn dns_without_servers<'a>(stage: &'a Stage<'a>) -> Result<Mend<'a>, String> {
    let api = stage.case.api;
    let path = |name: &str| format!("{}/{name}", collection("kube-system", "endpointslices"));
    let held = ["kube-dns-ipv4", "kube-dns-ipv6"].map(|name| (path(name), api.get(&path(name))));
    let mut endpoints = Vec::new();
    for (path, slice) in held {
        endpoints.push((path.clone(), slice?["endpoints"].clone()));
        api.patch(&path, &json!({"endpoints": []}))?;
    }
    Ok(Box::new(move || {
        let put = |(path, held): &(String, Value)| api.patch(path, &json!({"endpoints": held})).map(drop);
        endpoints.iter().try_for_each(put)
    }))
}
