//! The cluster as kubectl shows it: objects, pods, nodes.

use serde_json::{Value, json};

use crate::lab::{Lab, Outcome, equal, holds, poll};

pub(crate) fn kubectl_gets_applies_and_deletes(lab: &Lab) -> Outcome {
    let nodes = lab.kubectl(&["get", "nodes", "-o", "wide"])?;
    for part in ["node1", "node3", "Ready", "172.30.0.13"] {
        holds("kubectl get nodes", &nodes, part)?;
    }
    let manifest = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{colour: {value}}}\n")
    };
    holds("the first apply", &lab.apply(&manifest("blue"))?, "created")?;
    holds("the same again", &lab.apply(&manifest("blue"))?, "unchanged")?;
    holds("another value", &lab.apply(&manifest("red"))?, "configured")?;
    let value = lab.kubectl(&["get", "configmap", "settings", "-o", "jsonpath={.data.colour}"])?;
    equal("the value", value.as_str(), "red")?;
    lab.kubectl(&["delete", "configmap", "settings"])?;
    let gone = lab.try_run(&["kubectl", "get", "configmap", "settings"])?;
    holds("after delete", &String::from_utf8_lossy(&gone.stderr), "not found")
}

/// Where a cloud's controller has put a taint on a Node until then, this takes it away.
pub(crate) fn every_node_says_that_its_network_works(lab: &Lab) -> Outcome {
    let path = "jsonpath={.items[*].status.conditions[?(@.type==\"NetworkUnavailable\")].status}";
    poll("the conditions", || {
        equal("conditions", lab.kubectl(&["get", "nodes", "-o", path])?.as_str(), "False False False")
    })
}

pub(crate) fn an_ended_container_is_started_again(lab: &Lab) -> Outcome {
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: restless}\nspec:\n  containers:\n  - name: main\n    \
         image: host\n    command: [sh, -c, 'echo started; exit 3']\n",
    )?;
    poll("two restarts", || {
        let path = "jsonpath={.status.containerStatuses[0].restartCount} \
                    {.status.containerStatuses[0].lastState.terminated.exitCode}";
        let seen = lab.kubectl(&["get", "pod", "restless", "-o", path])?;
        match seen.split_once(' ') {
            Some((restarts, "3")) if restarts.parse().is_ok_and(|restarts: u32| restarts >= 2) => Ok(()),
            _ => Err(seen),
        }
    })?;
    holds("its log", &lab.run(&["logs", "restless"])?, "started\nstarted")?;
    lab.kubectl(&["delete", "pod", "restless", "--grace-period", "1"]).map(drop)
}

pub(crate) fn a_pod_that_cannot_run_says_why(lab: &Lab) -> Outcome {
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: strange}\nspec:\n  containers:\n  - {name: main, image: nginx}\n",
    )?;
    poll("the reason", || {
        let seen =
            lab.kubectl(&["get", "pod", "strange", "-o", "jsonpath={.status.containerStatuses[0].state}"])?;
        holds("the reason", &seen, "CreateContainerError")?;
        holds("what to do", &seen, "weft/echo")
    })?;
    lab.kubectl(&["delete", "pod", "strange"]).map(drop)
}

pub(crate) fn a_host_network_pod(lab: &Lab) -> Outcome {
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: on-host, namespace: shop, labels: {app: on-host}}\nspec:\n  \
         hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet\n  nodeName: node2\n  containers:\n  \
         - {name: main, image: weft/echo, args: [--port, '9000']}\n",
    )?;
    lab.wait_for_pods("shop", "app=on-host", 1)?;
    let address = lab.kubectl(&["-n", "shop", "get", "pod", "on-host", "-o", "jsonpath={.status.podIP}"])?;
    equal("its address", address.as_str(), "172.30.0.12")?;
    holds("a Service from the node", &lab.exec("on-host", &["getent", "ahostsv4", "backend"])?, "10.96.")?;
    lab.kubectl(&["-n", "shop", "delete", "pod", "on-host", "--grace-period", "1"]).map(drop)
}

pub(crate) fn files_and_environment(lab: &Lab) -> Outcome {
    let resolv = lab.exec("database-0", &["cat", "/etc/resolv.conf"])?;
    holds("resolv.conf", &resolv, "search shop.svc.cluster.local svc.cluster.local cluster.local\n")?;
    holds("resolv.conf", &resolv, "nameserver 10.96.0.10\nnameserver fd00:10:96::a\noptions ndots:5\n")?;
    let hosts = lab.exec("database-0", &["cat", "/etc/hosts"])?;
    holds("hosts", &hosts, "\tdatabase-0.database.shop.svc.cluster.local\tdatabase-0\n")?;
    equal("hostname", lab.exec("database-0", &["hostname"])?.trim(), "database-0")?;
    let links = lab.exec("database-0", &["ls", "/sys/class/net"])?;
    equal("links", links.split_whitespace().collect::<Vec<_>>(), vec!["eth0", "lo"])?;
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: curious, namespace: shop, labels: {app: curious}}\nspec:\n  \
         containers:\n  - name: main\n    image: host\n    command: [sh, -c, 'echo $(NODE) $IP; exec sleep 1000']\n    env:\n    \
         - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}\n    \
         - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n",
    )?;
    lab.wait_for_pods("shop", "app=curious", 1)?;
    let path = "jsonpath={.spec.nodeName} {.status.podIP}";
    let expected = lab.kubectl(&["-n", "shop", "get", "pod", "curious", "-o", path])?;
    poll("its environment", || {
        equal("node and address", lab.run(&["logs", "-n", "shop", "curious"])?.trim(), expected.trim())
    })?;
    lab.kubectl(&["-n", "shop", "delete", "pod", "curious", "--grace-period", "1"]).map(drop)
}

pub(crate) fn a_nodes_routes_go_and_come(lab: &Lab) -> Outcome {
    let ranges = lab.kubectl(&["get", "node", "node3", "-o", "jsonpath={.spec.podCIDRs[*]}"])?;
    let ranges: Vec<&str> = ranges.split_whitespace().collect();
    equal("ranges", ranges.len(), 2)?;
    let has_routes = |wanted: bool| {
        ranges.iter().zip([("-4", "172.30.0.13"), ("-6", "fd00:30::13")]).try_for_each(
            |(range, (family, via))| {
                poll(&format!("route to {range}: {wanted}"), || {
                    let routes = lab.on_node("node1", &["ip", family, "route"])?;
                    match routes.contains(&format!("{range} via {via}")) == wanted {
                        true => Ok(()),
                        false => Err(routes),
                    }
                })
            },
        )
    };
    has_routes(true)?;
    lab.kubectl(&["delete", "node", "node3"])?;
    has_routes(false)?;
    lab.apply(&format!(
        "apiVersion: v1\nkind: Node\nmetadata: {name}\nspec: {{podCIDR: {first}, podCIDRs: {ranges}}}\n",
        name = "{name: node3, labels: {topology.kubernetes.io/zone: zone-a}}",
        first = json!(ranges[0]),
        ranges = json!(ranges),
    ))?;
    has_routes(true)
}

/// As on a cluster whose nodes have no `weft` program.
pub(crate) fn preflight_looks_at_every_node_through_a_pod(lab: &Lab) -> Outcome {
    let text = lab.preflight()?;
    let reports: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    for node in lab.nodes()? {
        let checks =
            reports[&node]["checks"].as_array().ok_or_else(|| format!("no report on {node}: {text}"))?;
        let passes =
            |name: &str| checks.iter().any(|check| check["name"] == name && check["verdict"] == "pass");
        // These are of the node's own network, and of what listens there.
        for check in ["net.ipv4.ip_forward", "port tcp/10256", "port tcp/10246"] {
            if !passes(check) {
                return Err(format!("{node}: {check} does not pass: {text}"));
            }
        }
    }
    Ok(())
}

/// The suite for clusters that are no labs: kind, Vagrant, anybody's.
pub(crate) fn the_self_test_passes_and_names_what_fails(lab: &Lab) -> Outcome {
    let passed = lab.self_test(&[])?;
    holds("the self-test", &passed, "self-test passed")?;
    match lab.self_test(&["--cluster-domain", "elsewhere.example", "--timeout", "10"]) {
        Ok(text) => Err(format!("a zone that is not served passed: {text}")),
        Err(text) => {
            lab.nodes()?.iter().try_for_each(|node| holds("the failure", &text, &format!("{node} (service)")))
        }
    }
}
