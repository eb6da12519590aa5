//! What stands behind the Services of a walk that the DNS server finds nothing behind: selectors and pods,
//! which the server does not watch. Pure.

use serde_json::Value;

use crate::cluster::name;

/// What the server says where nothing ready stands behind a Service.
const NOTHING_BEHIND: [&str; 3] =
    ["no ready endpoint stands behind", "the headless service has no", "no such endpoint, hostname or port"];

/// The Services, as namespace and name, that the server found nothing behind, in order and once each.
pub(super) fn suspects(walk: &str) -> Vec<(String, String)> {
    let mut suspects: Vec<(String, String)> = Vec::new();
    let mut service = None;
    for line in walk.lines() {
        if let Some((_, step)) = line.split_once(". ").filter(|(number, _)| number.parse::<u8>().is_ok()) {
            service = of_name(step.split(' ').next().unwrap_or_default());
        } else if NOTHING_BEHIND.iter().any(|reason| line.contains(reason)) {
            suspects.extend(service.take().filter(|service| !suspects.contains(service)));
        }
    }
    suspects
}

/// The Service of `[…]service.namespace.svc.zone.`
fn of_name(name: &str) -> Option<(String, String)> {
    let (before, _) = name.split_once(".svc.")?;
    let mut labels = before.rsplit('.');
    let (namespace, service) = (labels.next()?, labels.next()?);
    Some((namespace.to_owned(), service.to_owned()))
}

/// A Service's selector as the API takes it; empty where it has none.
pub(crate) fn selector(service: &Value) -> String {
    let labels = service["spec"]["selector"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    labels.collect::<Vec<_>>().join(",")
}

/// What is to be said of a Service whose selector matches these pods.
pub(crate) fn verdict(service: &str, selector: &str, pods: &[Value]) -> String {
    if selector.is_empty() {
        return format!("{service} has no selector: whoever made it must write its EndpointSlices");
    }
    if pods.is_empty() {
        return format!("{service}: its selector {selector} matches no pod of the namespace");
    }
    let state = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        let phase = pod["status"]["phase"].as_str().unwrap_or("Unknown");
        format!("{} ({})", name(pod), if ready { "ready" } else { phase_or_not_ready(phase) })
    };
    let pods: Vec<String> = pods.iter().map(state).collect();
    format!("{service}: its selector {selector} matches {}", pods.join(", "))
}

fn phase_or_not_ready(phase: &str) -> &str {
    if phase == "Running" { "running, but not ready" } else { phase }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_without_anything_behind_are_found_in_the_walk() {
        let walk = "db A, asked by a pod in namespace shop (ndots:5):\n\
                    1. db.shop.svc.cluster.local. NXDOMAIN\n     the headless service has no ready endpoint\n\
                    2. db.svc.cluster.local. NXDOMAIN\n     no such namespace\n\
                    3. _a._tcp.web.b.svc.cluster.local. NOERROR\n     no ready endpoint stands behind 10.96.0.1: x\n";
        assert_eq!(
            suspects(walk),
            [("shop".to_owned(), "db".to_owned()), ("b".to_owned(), "web".to_owned())]
        );
    }

    #[test]
    fn the_missing_piece_is_named() {
        let service = json!({"spec": {"selector": {"app": "web", "tier": "front"}}});
        assert_eq!(selector(&service), "app=web,tier=front");
        assert!(verdict("shop/web", "", &[]).contains("has no selector"));
        assert!(verdict("shop/web", "app=web", &[]).contains("its selector app=web matches no pod"));
        let pod = |name: &str, phase: &str| json!({"metadata": {"name": name}, "status": {"phase": phase}});
        let text = verdict("shop/web", "app=web", &[pod("web-0", "Pending"), pod("web-1", "Running")]);
        assert!(text.ends_with("matches web-0 (Pending), web-1 (running, but not ready)"), "{text}");
    }
}
