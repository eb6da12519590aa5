//! Rules for Services.

use serde_json::Value;

use super::names::{is_label, is_subdomain};
use crate::apiserver::error::Cause;
use crate::apiserver::object::{items, text};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// Checks the spec of a Service.
pub(super) fn spec(spec: &Value) -> Vec<Cause> {
    let kind = text(&spec["type"]);
    let mut causes = Vec::new();
    if !TYPES.contains(&kind) {
        causes.push(Cause::unsupported("spec.type", &spec["type"], &TYPES));
    }
    if kind == "ExternalName" && !is_subdomain(text(&spec["externalName"]).trim_end_matches('.')) {
        causes.push(Cause::invalid("spec.externalName", &spec["externalName"], "must be a DNS subdomain"));
    }
    let headless = spec["clusterIP"] == "None";
    if headless && (kind == "NodePort" || kind == "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {kind} services");
        causes.push(Cause::invalid("spec.clusterIPs[0]", &spec["clusterIP"], &detail));
    }
    if !["None", "ClientIP"].contains(&text(&spec["sessionAffinity"])) {
        let affinity = &spec["sessionAffinity"];
        causes.push(Cause::unsupported("spec.sessionAffinity", affinity, &["ClientIP", "None"]));
    }
    let distribution = text(&spec["trafficDistribution"]);
    if !distribution.is_empty() && !DISTRIBUTIONS.contains(&distribution) {
        let given = &spec["trafficDistribution"];
        causes.push(Cause::unsupported("spec.trafficDistribution", given, &DISTRIBUTIONS));
    }
    let ports = items(&spec["ports"]);
    if ports.is_empty() && !headless && kind != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        causes.extend(self::port(port, index, ports));
    }
    causes
}

fn port(port: &Value, index: usize, all: &[Value]) -> Vec<Cause> {
    let at = |field: &str| format!("spec.ports[{index}].{field}");
    let mut causes = Vec::new();
    let in_range = |value: &Value| value.as_i64().is_some_and(|number| (1..=65535).contains(&number));
    if !in_range(&port["port"]) {
        causes.push(Cause::invalid(at("port"), &port["port"], "must be between 1 and 65535, inclusive"));
    }
    if port["targetPort"].is_number() && !in_range(&port["targetPort"]) {
        let detail = "must be between 1 and 65535, inclusive";
        causes.push(Cause::invalid(at("targetPort"), &port["targetPort"], detail));
    }
    if !PROTOCOLS.contains(&text(&port["protocol"])) {
        causes.push(Cause::unsupported(at("protocol"), &port["protocol"], &PROTOCOLS));
    }
    let name = text(&port["name"]);
    if name.is_empty() && all.len() > 1 {
        causes.push(Cause::required(at("name"), ""));
    } else if !name.is_empty() && !is_label(name) {
        causes.push(Cause::invalid(at("name"), &port["name"], "must be a DNS label"));
    }
    let before = &all[..index];
    if !name.is_empty() && before.iter().any(|other| other["name"] == name) {
        causes.push(Cause::duplicate(at("name"), &port["name"]));
    }
    if before.iter().any(|other| other["port"] == port["port"] && other["protocol"] == port["protocol"]) {
        causes.push(Cause::duplicate(format!("spec.ports[{index}]"), &port["port"]));
    }
    causes
}

/// Checks a change: an address once given stays, as long as the Service has one at all.
pub(super) fn update(old: &Value, new: &Value) -> Vec<Cause> {
    let (before, now) = (text(&old["clusterIP"]), text(&new["clusterIP"]));
    let is_kept = before.is_empty() || before == now;
    if is_kept || old["type"] == "ExternalName" || new["type"] == "ExternalName" {
        return Vec::new();
    }
    vec![Cause::invalid("spec.clusterIPs[0]", &new["clusterIP"], "may not change once set")]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(spec: &Value) -> Vec<String> {
        super::spec(spec).into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn ports_are_in_range_named_and_different() {
        let spec = json!({"type": "ClusterIP", "sessionAffinity": "None", "ports": [
            {"port": 80, "protocol": "TCP", "name": "a"},
            {"port": 80, "protocol": "TCP", "name": "a"},
            {"port": 70000, "protocol": "ICMP", "targetPort": 0},
        ]});
        assert_eq!(
            fields(&spec),
            [
                "spec.ports[1].name",
                "spec.ports[1]",
                "spec.ports[2].port",
                "spec.ports[2].targetPort",
                "spec.ports[2].protocol",
                "spec.ports[2].name",
            ]
        );
    }

    #[test]
    fn only_headless_and_external_services_have_no_ports() {
        let base = json!({"type": "ClusterIP", "sessionAffinity": "None", "trafficDistribution": "Far"});
        assert_eq!(fields(&base), ["spec.trafficDistribution", "spec.ports"]);
        let headless = json!({"type": "ClusterIP", "sessionAffinity": "None", "clusterIP": "None"});
        assert!(fields(&headless).is_empty());
        let external =
            json!({"type": "ExternalName", "sessionAffinity": "None", "externalName": "a.example."});
        assert!(fields(&external).is_empty());
    }

    #[test]
    fn an_address_stays() {
        let with = |address: &str| json!({"type": "ClusterIP", "clusterIP": address});
        assert!(update(&with("10.96.0.1"), &with("10.96.0.1")).is_empty());
        assert_eq!(update(&with("10.96.0.1"), &with("10.96.0.2")).len(), 1);
        assert_eq!(update(&with("None"), &with("10.96.0.2")).len(), 1);
        assert!(update(&with("10.96.0.1"), &json!({"type": "ExternalName"})).is_empty());
    }
}
