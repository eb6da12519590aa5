//! Services and what stands behind them: selectors, pods, ports.

use serde_json::Value;
use weft_types::well_known::label::SERVICE_NAME;

use super::lookup::{condition, equals, is_dns, is_live, is_ready, key, labels, list, namespace, some};
use crate::cluster::name;
use crate::doctor::facts::Facts;
use crate::finding::{Finding, Id};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let selecting = facts.services.iter().filter(|service| {
        equals(&service["spec"]["selector"]).next().is_some() && service["spec"]["type"] != "ExternalName"
    });
    // What is wrong with the DNS servers is said as such.
    selecting.filter(|service| !is_dns(service)).filter_map(|service| fault(facts, service)).collect()
}

fn fault(facts: &Facts, service: &Value) -> Option<Finding> {
    let pods: Vec<&Value> = selected(facts, service).collect();
    if pods.is_empty() {
        return without_pods(facts, service);
    }
    if let Some(finding) = ports(service, &pods) {
        return Some(finding);
    }
    let not_ready: Vec<&Value> = pods.iter().copied().filter(|pod| !is_ready(pod)).collect();
    if ready_endpoints(facts, service) > 0 {
        return None;
    }
    match not_ready.len() == pods.len() && service["spec"]["publishNotReadyAddresses"] != true {
        true => Some(none_ready(service, &not_ready)),
        false => Some(
            about(service, Id::EndpointsMissing, "its pods are ready, and no EndpointSlice has them")
                .reach(pods.len())
                .fix("Look at kube-controller-manager (its endpointslice controller): kubectl -n kube-system get pods, and its log"),
        ),
    }
}

/// The live pods that a Service's selector matches.
pub(super) fn selected<'a>(facts: &'a Facts, service: &'a Value) -> impl Iterator<Item = &'a Value> {
    facts.pods.iter().filter(move |pod| {
        namespace(pod) == namespace(service)
            && is_live(pod)
            && equals(&service["spec"]["selector"]).all(|(key, value)| labels(pod)[key] == value)
    })
}

/// How many endpoints of a Service are ready.
pub(super) fn ready_endpoints(facts: &Facts, service: &Value) -> usize {
    let own = facts.slices.iter().filter(|slice| {
        namespace(slice) == namespace(service) && labels(slice)[SERVICE_NAME] == name(service)
    });
    own.flat_map(|slice| list(&slice["endpoints"])).filter(|one| one["conditions"]["ready"] != false).count()
}

fn about(service: &Value, id: Id, what: impl Into<String>) -> Finding {
    Finding::error(id, format!("Service {}", key(service)), what)
}

/// The pod that misses a selector by the fewest labels, and these: what is asked for, and what it has.
fn nearest<'a>(facts: &'a Facts, service: &'a Value) -> Option<(&'a Value, Vec<(&'a str, &'a str)>)> {
    let pods = facts.pods.iter().filter(|pod| namespace(pod) == namespace(service) && is_live(pod));
    let missed = pods.map(|pod| {
        let missing = equals(&service["spec"]["selector"]).filter(|(key, value)| labels(pod)[*key] != *value);
        (pod, missing.collect::<Vec<_>>())
    });
    missed.min_by_key(|(pod, missing)| (missing.len(), !is_alike(pod, missing), key(pod)))
}

/// Whether a pod has those labels at all, with other values.
fn is_alike(pod: &Value, missing: &[(&str, &str)]) -> bool {
    missing.iter().any(|(key, _)| labels(pod)[*key].is_string())
}

fn without_pods(facts: &Facts, service: &Value) -> Option<Finding> {
    if is_scaled_to_nothing(facts, service) {
        return None;
    }
    let selector: Vec<String> =
        equals(&service["spec"]["selector"]).map(|(key, value)| format!("{key}={value}")).collect();
    let near = nearest(facts, service);
    // By one label, of several or of one that the pod has with another value that is nearly the same.
    if let Some((pod, missing)) = near
        && let [(label, wanted)] = missing[..]
        && (selector.len() > 1 || labels(pod)[label].as_str().is_some_and(|has| is_similar(has, wanted)))
    {
        let has = match labels(pod)[label].as_str() {
            Some(value) => format!("has {label}={value}"),
            None => format!("has no label {label}"),
        };
        let what = format!(
            "its selector {} misses by one label: it asks for {label}={wanted}, and the nearest Pod {} {has}",
            selector.join(","),
            key(pod)
        );
        let fix = format!(
            "Correct the label: kubectl -n {} edit service {}, or the labels of the pods' template",
            namespace(service),
            name(service)
        );
        return Some(about(service, Id::SelectorMisses, what).fix(fix));
    }
    let what =
        format!("its selector {} matches no pod of namespace {}", selector.join(","), namespace(service));
    let fix = format!("Compare it with kubectl -n {} get pods --show-labels", namespace(service));
    Some(about(service, Id::SelectorMatchesNothing, what).fix(fix))
}

/// As far as typing errors go: of one letter more, less or other, or in upper case, or a prefix.
fn is_similar(a: &str, b: &str) -> bool {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    a.starts_with(&b) || b.starts_with(&a) || distance(&a, &b) <= 2
}

/// How many letters have to be put in, taken out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let changed = corner + usize::from(letter != *other);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

/// Whether somebody wants no pods that the Service would have.
fn is_scaled_to_nothing(facts: &Facts, service: &Value) -> bool {
    facts.deployments.iter().chain(&facts.stateful_sets).any(|workload| {
        let template = &workload["spec"]["template"]["metadata"]["labels"];
        namespace(workload) == namespace(service)
            && workload["spec"]["replicas"] == 0
            && equals(&service["spec"]["selector"]).all(|(key, value)| template[key] == value)
    })
}

/// Every port of every container of a pod: its name, number and protocol.
fn container_ports(pod: &Value) -> impl Iterator<Item = (&str, u64, &str)> {
    // Init containers that go on are containers too.
    let containers = list(&pod["spec"]["containers"]).chain(list(&pod["spec"]["initContainers"]));
    containers.flat_map(|container| list(&container["ports"])).map(|port| {
        let number = port["containerPort"].as_u64().unwrap_or_default();
        (port["name"].as_str().unwrap_or_default(), number, port["protocol"].as_str().unwrap_or("TCP"))
    })
}

fn ports(service: &Value, pods: &[&Value]) -> Option<Finding> {
    let all: Vec<&Value> = list(&service["spec"]["ports"]).collect();
    let fix = format!(
        "kubectl -n {} edit service {}, or the ports of the pods' containers",
        namespace(service),
        name(service)
    );
    for port in &all {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let of_protocol = |pod: &&Value| -> Vec<(String, u64)> {
            let ports = container_ports(pod).filter(|(.., of)| *of == protocol);
            ports.map(|(name, number, _)| (name.to_owned(), number)).collect()
        };
        let declared: Vec<(String, u64)> = pods.iter().flat_map(of_protocol).collect();
        let shown = |port: &(String, u64)| match port.0.is_empty() {
            true => port.1.to_string(),
            false => format!("{} ({})", port.0, port.1),
        };
        let mut theirs: Vec<String> = declared.iter().map(shown).collect();
        theirs.sort_unstable();
        theirs.dedup();
        let theirs = if theirs.is_empty() { "none".to_owned() } else { some(&theirs) };
        let number = port["port"].as_u64().unwrap_or_default();
        if let Some(target) = port["targetPort"].as_str() {
            if !declared.iter().any(|(name, _)| name == target) {
                let what = format!(
                    "its port {number} leads to the port named {target}, and no container of its pods has one of that name \
                     ({protocol}: {theirs})"
                );
                return Some(about(service, Id::PortNameMissing, what).reach(pods.len()).fix(fix));
            }
        } else if let [_] = all[..]
            && pods.iter().all(|pod| !of_protocol(pod).is_empty())
        {
            // Containers may serve on ports that they do not declare: it is only likely to be wrong.
            let target = port["targetPort"].as_u64().unwrap_or(number);
            if !declared.iter().any(|(_, number)| *number == target) {
                let what = format!(
                    "its port {number} leads to port {target}, which no container of its pods declares ({protocol}: {theirs})"
                );
                return Some(
                    Finding::warning(Id::PortMismatch, format!("Service {}", key(service)), what)
                        .reach(pods.len())
                        .fix(fix),
                );
            }
        }
    }
    None
}

fn none_ready(service: &Value, pods: &[&Value]) -> Finding {
    let each: Vec<String> = pods.iter().map(|pod| format!("{} ({})", name(pod), why(pod))).collect();
    let since = pods.iter().filter_map(|pod| condition(pod, "Ready")["lastTransitionTime"].as_str()).min();
    let what = format!("none of its pods is ready: {}", some(&each));
    let first = pods.first().map(|pod| name(pod)).unwrap_or_default();
    let fix =
        format!("kubectl -n {0} describe pod {first}, and kubectl -n {0} logs {first}", namespace(service));
    about(service, Id::PodsNotReady, what).reach(pods.len()).since(since).fix(fix)
}

/// Why a pod is not ready, as far as its status says.
fn why(pod: &Value) -> String {
    let containers =
        list(&pod["status"]["initContainerStatuses"]).chain(list(&pod["status"]["containerStatuses"]));
    let mut reasons = containers.filter_map(|one| one["state"]["waiting"]["reason"].as_str());
    if let Some(reason) = reasons.next() {
        return reason.to_owned();
    }
    let scheduled = condition(pod, "PodScheduled");
    if scheduled["status"] == "False" {
        return format!("not scheduled: {}", scheduled["message"].as_str().unwrap_or("no reason given"));
    }
    if pod["status"]["phase"] == "Pending" {
        return "pending".to_owned();
    }
    match condition(pod, "Ready")["message"].as_str() {
        Some(message) => format!("running, {message}"),
        None => "running, its readiness probe fails".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{only, pod, service};
    use super::*;

    #[test]
    fn a_selector_that_misses_by_one_label_is_named_with_the_label_and_the_nearest_pod() {
        let finding = only(Id::SelectorMisses, |facts| {
            facts.services[1]["spec"]["selector"]["tier"] = json!("fronts");
            facts.pods.push(pod("shop", "other", "node1", "10.244.1.3", json!({"app": "other"})));
        });
        assert_eq!(finding.subject, "Service shop/web");
        let what = "its selector app=web,tier=fronts misses by one label: it asks for tier=fronts, and the nearest Pod \
                    shop/web-0 has tier=front";
        assert_eq!(finding.what, what);
        let finding = only(Id::SelectorMisses, |facts| {
            facts.services[1]["spec"]["selector"] = json!({"app": "wbe"});
        });
        assert!(finding.what.contains("asks for app=wbe") && finding.what.ends_with("has app=web"));
        let finding = only(Id::SelectorMisses, |facts| {
            facts.services[1]["spec"]["selector"]["zone"] = json!("a");
        });
        assert!(finding.what.ends_with("Pod shop/web-0 has no label zone"), "{finding}");
    }

    #[test]
    fn a_selector_that_matches_nothing_is_named_unless_nobody_wants_pods() {
        let change = |facts: &mut Facts| facts.services[1]["spec"]["selector"] = json!({"app": "payments"});
        let finding = only(Id::SelectorMatchesNothing, change);
        assert_eq!(finding.what, "its selector app=payments matches no pod of namespace shop");
        let none = super::super::tests::after(|facts| {
            change(facts);
            facts.deployments.push(json!({"metadata": {"namespace": "shop"}, "spec": {"replicas": 0,
                "template": {"metadata": {"labels": {"app": "payments", "x": "y"}}}}}));
        });
        assert_eq!(none, []);
    }

    #[test]
    fn a_named_port_that_no_container_has_is_named() {
        let finding = only(Id::PortNameMissing, |facts| {
            facts.services[1]["spec"]["ports"][0]["targetPort"] = json!("web");
            facts.slices[1]["endpoints"] = json!([]);
        });
        let what = "its port 80 leads to the port named web, and no container of its pods has one of that name (TCP: 53, http \
                    (8080))";
        assert_eq!(finding.what, what);
    }

    #[test]
    fn a_port_that_no_container_declares_is_suspected() {
        let finding =
            only(Id::PortMismatch, |facts| facts.services[1]["spec"]["ports"][0]["targetPort"] = json!(8081));
        assert!(finding.what.starts_with("its port 80 leads to port 8081, which no container"), "{finding}");
        let none = super::super::tests::after(|facts| {
            facts.services[1]["spec"]["ports"][0]["targetPort"] = json!(8081);
            facts.pods[1]["spec"]["containers"] = json!([{"name": "declares nothing"}]);
        });
        assert_eq!(none, []);
    }

    #[test]
    fn pods_that_are_not_ready_are_named_with_the_reason_and_since_when() {
        let not_ready = |facts: &mut Facts| {
            facts.slices[1]["endpoints"] = json!([{"conditions": {"ready": false}}]);
            facts.pods[1]["status"]["conditions"] = json!([{"type": "Ready", "status": "False",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "containers with unready status: [a]"}]);
        };
        let finding = only(Id::PodsNotReady, not_ready);
        assert_eq!(
            finding.what,
            "none of its pods is ready: web-0 (running, containers with unready status: [a])"
        );
        assert_eq!(finding.since.as_deref(), Some("2026-01-01T00:00:00Z"));
        let finding = only(Id::PodsNotReady, |facts| {
            not_ready(facts);
            facts.pods[1]["status"]["containerStatuses"] =
                json!([{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]);
        });
        assert!(finding.what.ends_with("web-0 (ImagePullBackOff)"));
    }

    #[test]
    fn ready_pods_that_no_slice_has_point_at_the_control_plane() {
        let finding = only(Id::EndpointsMissing, |facts| facts.slices[1]["endpoints"] = json!([]));
        assert!(finding.fix.contains("kube-controller-manager"));
    }

    #[test]
    fn services_without_selectors_and_external_names_are_their_makers_affair() {
        let none = super::super::tests::after(|facts| {
            facts.services.push(json!({"metadata": {"namespace": "shop", "name": "a"}, "spec": {}}));
            let mut external = service("shop", "b", json!({"app": "nobody"}), json!(80));
            external["spec"]["type"] = json!("ExternalName");
            facts.services.push(external);
        });
        assert_eq!(none, []);
    }

    #[test]
    fn letters_are_counted() {
        for (a, b, expected) in [("", "", 0), ("web", "wbe", 2), ("front", "fronts", 1), ("a", "", 1)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
