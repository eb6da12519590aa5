//! Defaults of Services (core/v1). Addresses and nodePorts are handed out by `allocation`.

use serde_json::Value;

use crate::apiserver::object::{fields, set_default, text};

/// The fields that only a Service of type LoadBalancer has.
const BALANCER_FIELDS: [&str; 2] = ["allocateLoadBalancerNodePorts", "loadBalancerClass"];

/// The defaults of one Service. What does not go with its type goes.
pub(super) fn service(object: &mut Value) {
    let spec = &mut object["spec"];
    set_default(spec, "type", "ClusterIP");
    set_default(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        set_default(&mut spec["sessionAffinityConfig"]["clientIP"], "timeoutSeconds", 10800);
    } else {
        fields(spec).remove("sessionAffinityConfig");
    }
    let kind = text(&spec["type"]).to_owned();
    if kind != "ExternalName" {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    } else if spec["externalIPs"].as_array().is_none_or(Vec::is_empty) {
        fields(spec).remove("externalTrafficPolicy");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    } else {
        // Left over from another type, as a patch of the type alone leaves them.
        BALANCER_FIELDS.iter().for_each(|field| drop(fields(spec).remove(*field)));
    }
    if let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) {
        ports.iter_mut().for_each(port);
    }
    set_default(&mut object["status"], "loadBalancer", serde_json::json!({}));
}

fn port(port: &mut Value) {
    set_default(port, "protocol", "TCP");
    let number = port["port"].clone();
    if port["targetPort"] == "" || port["targetPort"] == 0 {
        port["targetPort"] = Value::Null;
    }
    set_default(port, "targetPort", number);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_of_one_port_is_filled_in() {
        let mut object =
            json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}});
        service(&mut object);
        let spec = &object["spec"];
        assert_eq!((&spec["type"], &spec["sessionAffinity"]), (&json!("ClusterIP"), &json!("None")));
        assert_eq!(spec["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
        assert_eq!(spec["ports"][1], json!({"port": 53, "protocol": "UDP", "targetPort": "dns"}));
        assert!(spec.get("externalTrafficPolicy").is_none());
    }

    #[test]
    fn what_another_type_left_over_goes() {
        let mut object = json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}});
        service(&mut object);
        object["spec"]["type"] = json!("ClusterIP");
        object["spec"]["sessionAffinity"] = json!("None");
        service(&mut object);
        for field in ["externalTrafficPolicy", "allocateLoadBalancerNodePorts", "sessionAffinityConfig"] {
            assert!(object["spec"].get(field).is_none(), "{field}");
        }
    }

    #[test]
    fn affinity_lasts_three_hours_unless_said_otherwise() {
        let mut object = json!({"spec": {"sessionAffinity": "ClientIP", "type": "NodePort"}});
        service(&mut object);
        assert_eq!(object["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
        assert_eq!(object["spec"]["externalTrafficPolicy"], "Cluster");
    }
}
