//! The older Endpoints object of every Service that selects pods (core/v1), which people still read.

use serde_json::{Value, json};

use super::endpoint_slices::{address, pods_of, ports, selecting, selects};
use super::{Action, Controller, is_ready};
use crate::apiserver::history::Event;
use crate::apiserver::object::{
    Key, controller_reference, is_terminating, items, name, namespace, text, uid,
};
use crate::apiserver::store::Store;

pub(super) struct Endpoints;

impl Controller for Endpoints {
    fn concerns(&self, store: &Store, event: &Event) -> Vec<Key> {
        match event.plural {
            "services" => vec![Key::of("services", event.object())],
            "pods" => selecting(store, event),
            "endpoints" => vec![Key { plural: "services", ..Key::of("endpoints", event.object()) }],
            _ => Vec::new(),
        }
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let Some(service) = store.get(key).filter(|service| selects(service) && !is_terminating(service))
        else {
            return Vec::new();
        };
        let subsets = subsets(service, &pods_of(store, service));
        match store.get(&Key { plural: "endpoints", ..key.clone() }) {
            None => vec![Action::Create("endpoints", endpoints(service, subsets))],
            Some(old) if old["subsets"] == subsets => Vec::new(),
            Some(old) => {
                let mut new = Value::clone(old);
                new["subsets"] = subsets;
                vec![Action::Update("endpoints", new)]
            }
        }
    }
}

fn endpoints(service: &Value, subsets: Value) -> Value {
    json!({
        "metadata": {
            "name": name(service), "namespace": namespace(service), "labels": service["metadata"]["labels"],
            "ownerReferences": [controller_reference(service)],
        },
        "subsets": subsets,
    })
}

/// The addresses of the Service's first family, grouped by their ports. Pods that are leaving are not there.
fn subsets(service: &Value, pods: &[&Value]) -> Value {
    let family = text(&service["spec"]["ipFamilies"][0]);
    let everyone = service["spec"]["publishNotReadyAddresses"] == true;
    let mut subsets: Vec<Value> = Vec::new();
    for pod in pods.iter().filter(|pod| !is_terminating(pod)) {
        let Some(ip) = address(pod, family) else { continue };
        let ports = ports(service, pod);
        let list = if everyone || is_ready(pod) { "addresses" } else { "notReadyAddresses" };
        let entry = json!({
            "ip": ip, "nodeName": pod["spec"]["nodeName"],
            "targetRef": {"kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": uid(pod)},
        });
        let index = subsets.iter().position(|subset| subset["ports"] == ports).unwrap_or_else(|| {
            subsets.push(json!({"ports": ports}));
            subsets.len() - 1
        });
        let mut addresses = items(&subsets[index][list]).to_vec();
        addresses.push(entry);
        subsets[index][list] = Value::Array(addresses);
    }
    Value::Array(subsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_and_other_addresses_stand_apart() {
        let service = json!({
            "metadata": {"name": "web", "namespace": "a"},
            "spec": {"ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]},
        });
        let pod = |ip: &str, ready: &str| {
            json!({"spec": {"nodeName": "n1"},
                   "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let (one, two) = (pod("10.0.0.1", "True"), pod("10.0.0.2", "False"));
        let subsets = subsets(&service, &[&one, &two]);
        assert_eq!(items(&subsets).len(), 1);
        assert_eq!(subsets[0]["addresses"][0]["ip"], "10.0.0.1");
        assert_eq!(subsets[0]["notReadyAddresses"][0]["ip"], "10.0.0.2");
        assert_eq!(subsets[0]["ports"][0]["port"], 8080);
    }
}
