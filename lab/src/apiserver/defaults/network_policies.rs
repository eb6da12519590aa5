//! Defaults of NetworkPolicies (networking/v1 `SetDefaults_NetworkPolicy`, `SetDefaults_NetworkPolicyPort`).

use serde_json::{Value, json};

use crate::apiserver::object::{items, set_default};

/// Ports are of TCP. A policy is for ingress, and for egress where it has rules for that.
pub(super) fn network_policy(object: &mut Value) {
    let spec = &mut object["spec"];
    for direction in ["ingress", "egress"] {
        for rule in spec.get_mut(direction).and_then(Value::as_array_mut).into_iter().flatten() {
            for port in rule.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                set_default(port, "protocol", "TCP");
            }
        }
    }
    if items(&spec["policyTypes"]).is_empty() {
        let has_egress = !items(&spec["egress"]).is_empty();
        spec["policyTypes"] = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_and_protocols() {
        let mut object =
            json!({"spec": {"egress": [{"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}]}});
        network_policy(&mut object);
        assert_eq!(object["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(object["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(object["spec"]["egress"][0]["ports"][1]["protocol"], "UDP");
        let mut plain = json!({"spec": {"egress": []}});
        network_policy(&mut plain);
        assert_eq!(plain["spec"]["policyTypes"], json!(["Ingress"]));
    }
}
