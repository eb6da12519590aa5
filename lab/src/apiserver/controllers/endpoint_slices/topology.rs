//! Where endpoints stand, and for whom they are meant first: zones from the labels of Nodes, hints from a
//! Service's `trafficDistribution` (KEP-4444, KEP-3015).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::apiserver::history::Event;
use crate::apiserver::object::{label, name, text};
use crate::apiserver::store::Store;

/// The label of a Node that names its zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// The zone of every Node that has one, by the Node's name.
pub(super) type Zones = BTreeMap<String, String>;

/// The zones as they are now.
pub(super) fn zones(store: &Store) -> Zones {
    let zone = |node: &Value| Some((name(node).to_owned(), label(node, ZONE)?.to_owned()));
    store.list("nodes", "", None).filter_map(|node| zone(node)).collect()
}

/// Did a Node come, go or move to another zone?
pub(super) fn moved(event: &Event) -> bool {
    let zone =
        |node: &Option<_>| node.as_deref().and_then(|node: &Value| label(node, ZONE).map(str::to_owned));
    event.plural == "nodes" && zone(&event.old) != zone(&event.new)
}

/// Says where the endpoint stands, and for whom it is meant first.
pub(super) fn place(service: &Value, zones: &Zones, endpoint: &mut Value) {
    let node = text(&endpoint["nodeName"]).to_owned();
    let zone = zones.get(&node);
    if let Some(zone) = zone {
        endpoint["zone"] = json!(zone);
    }
    if endpoint["conditions"]["ready"] != true {
        return;
    }
    let for_zones = zone.map(|zone| json!([{"name": zone}]));
    match (text(&service["spec"]["trafficDistribution"]), for_zones) {
        ("PreferClose" | "PreferSameZone", Some(zones)) => endpoint["hints"] = json!({"forZones": zones}),
        ("PreferSameNode", zones) if !node.is_empty() => {
            endpoint["hints"] = json!({"forNodes": [{"name": node}]});
            if let Some(zones) = zones {
                endpoint["hints"]["forZones"] = zones;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(distribution: &str, node: &str, ready: bool) -> Value {
        let service = json!({"spec": {"trafficDistribution": distribution}});
        let zones = Zones::from([("n1".to_owned(), "a".to_owned())]);
        let mut endpoint = json!({"nodeName": node, "conditions": {"ready": ready}});
        place(&service, &zones, &mut endpoint);
        endpoint["hints"].clone()
    }

    #[test]
    fn hints_follow_the_traffic_distribution() {
        for distribution in ["PreferClose", "PreferSameZone"] {
            assert_eq!(hints(distribution, "n1", true), json!({"forZones": [{"name": "a"}]}));
            assert_eq!(hints(distribution, "n2", true), Value::Null, "a node without a zone");
        }
        let near = json!({"forNodes": [{"name": "n1"}], "forZones": [{"name": "a"}]});
        assert_eq!(hints("PreferSameNode", "n1", true), near);
        assert_eq!(hints("PreferSameNode", "n2", true), json!({"forNodes": [{"name": "n2"}]}));
        assert_eq!(hints("", "n1", true), Value::Null);
    }

    #[test]
    fn who_is_not_ready_is_meant_for_nobody() {
        assert_eq!(hints("PreferSameZone", "n1", false), Value::Null);
    }
}
