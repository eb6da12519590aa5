//! EndpointSlices: the addresses behind every Service that selects pods (discovery/v1).

mod topology;

use serde_json::{Value, json};
use weft_types::well_known::label::{HEADLESS, SERVICE_NAME};

use self::topology::Zones;
use super::{Action, Controller, is_ready};
use crate::apiserver::history::Event;
use crate::apiserver::object::{
    self, Key, controller_reference, is_terminating, items, label, name, namespace, text,
};
use crate::apiserver::selector::LabelSelector;
use crate::apiserver::store::Store;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The most endpoints of one slice, as kube-controller-manager has it by default.
const MOST: usize = 100;

pub(super) struct EndpointSlices;

impl Controller for EndpointSlices {
    fn concerns(&self, store: &Store, event: &Event) -> Vec<Key> {
        match event.plural {
            "services" => vec![Key::of("services", event.object())],
            "pods" => selecting(store, event),
            "nodes" if topology::moved(event) => {
                let services = store.list("services", "", None).filter(|service| selects(service));
                services.map(|service| Key::of("services", service)).collect()
            }
            "endpointslices" => {
                let slice = event.object();
                let service =
                    label(slice, SERVICE_NAME).filter(|_| label(slice, MANAGED_BY) == Some(MANAGER));
                service.map(|service| Key::new("services", namespace(slice), service)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let Some(service) = store.get(key).filter(|service| selects(service) && !is_terminating(service))
        else {
            return Vec::new();
        };
        let groups = groups(service, &pods_of(store, service), &topology::zones(store));
        let slices = store.dependents(object::uid(service));
        let slices =
            slices.iter().filter(|key| key.plural == "endpointslices").filter_map(|key| store.get(key));
        let slices: Vec<&Value> =
            slices.map(|slice| &**slice).filter(|slice| label(slice, MANAGED_BY) == Some(MANAGER)).collect();
        reconcile(service, groups, &slices)
    }
}

/// The Services whose selector takes a pod, as it is or as it was.
pub(super) fn selecting(store: &Store, event: &Event) -> Vec<Key> {
    let pods = [&event.old, &event.new];
    let takes = |service: &Value| {
        let selector = LabelSelector::of_labels(&service["spec"]["selector"]);
        pods.iter().any(|pod| pod.as_ref().is_some_and(|pod| selector.matches(pod)))
    };
    let services = store.list("services", namespace(event.object()), None);
    services
        .filter(|service| selects(service) && takes(service))
        .map(|one| Key::of("services", one))
        .collect()
}

/// Does the Service select pods at all?
pub(super) fn selects(service: &Value) -> bool {
    let has_selector = service["spec"]["selector"].as_object().is_some_and(|selector| !selector.is_empty());
    has_selector && service["spec"]["type"] != "ExternalName"
}

/// The pods that a Service selects and that may be reached: with an address, and not ended.
pub(super) fn pods_of<'a>(store: &'a Store, service: &'a Value) -> Vec<&'a Value> {
    let selector = LabelSelector::of_labels(&service["spec"]["selector"]);
    let ended = |pod: &Value| ["Succeeded", "Failed"].contains(&text(&pod["status"]["phase"]));
    let pods = store.list("pods", namespace(service), None).map(|pod| &**pod);
    pods.filter(|pod| selector.matches(pod) && !ended(pod)).collect()
}

/// Endpoints of one family that share their ports: what one slice can hold.
#[derive(Debug, PartialEq)]
struct Group {
    address_type: String,
    ports: Value,
    endpoints: Vec<Value>,
}

/// Groups the pods of a Service. Every family of the Service has a group, if only an empty one.
fn groups(service: &Value, pods: &[&Value], zones: &Zones) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for family in items(&service["spec"]["ipFamilies"]).iter().map(text) {
        for pod in pods {
            let Some(address) = address(pod, family) else { continue };
            let ports = ports(service, pod);
            let mut endpoint = endpoint(service, pod, address);
            topology::place(service, zones, &mut endpoint);
            match groups.iter_mut().find(|group| group.address_type == family && group.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => {
                    groups.push(Group { address_type: family.to_owned(), ports, endpoints: vec![endpoint] })
                }
            }
        }
        if !groups.iter().any(|group| group.address_type == family) {
            groups.push(Group { address_type: family.to_owned(), ports: json!([]), endpoints: Vec::new() });
        }
    }
    groups
}

/// The pod's address of that family.
pub(super) fn address<'a>(pod: &'a Value, family: &str) -> Option<&'a str> {
    let list = items(&pod["status"]["podIPs"]).iter().map(|address| text(&address["ip"]));
    let mut all = list.chain([text(&pod["status"]["podIP"])]).filter(|address| !address.is_empty());
    all.find(|address| address.contains(':') == (family == "IPv6"))
}

/// The Service's ports as that pod serves them. A named target port that the pod lacks is left out.
pub(super) fn ports(service: &Value, pod: &Value) -> Value {
    let ports = items(&service["spec"]["ports"]).iter().filter_map(|port| {
        let target = match &port["targetPort"] {
            Value::String(target) => json!(container_port(pod, target, text(&port["protocol"]))?),
            Value::Null => port["port"].clone(),
            number => number.clone(),
        };
        let mut entry = json!({"name": text(&port["name"]), "protocol": port["protocol"], "port": target});
        if let Some(protocol) = port.get("appProtocol") {
            entry["appProtocol"] = protocol.clone();
        }
        Some(entry)
    });
    Value::Array(ports.collect())
}

fn container_port(pod: &Value, wanted: &str, protocol: &str) -> Option<i64> {
    let containers = items(&pod["spec"]["containers"]).iter();
    let mut ports = containers.flat_map(|container| items(&container["ports"]));
    let found = ports.find(|port| port["name"] == wanted && port["protocol"] == protocol)?;
    found["containerPort"].as_i64()
}

fn endpoint(service: &Value, pod: &Value, address: &str) -> Value {
    let terminating = is_terminating(pod);
    let serving = is_ready(pod);
    let ready = service["spec"]["publishNotReadyAddresses"] == true || serving && !terminating;
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": object::uid(pod)},
    });
    if let Some(node) = pod["spec"].get("nodeName") {
        endpoint["nodeName"] = node.clone();
    }
    let hostname = text(&pod["spec"]["hostname"]);
    if !hostname.is_empty() && pod["spec"]["subdomain"] == name(service) {
        endpoint["hostname"] = json!(hostname);
    }
    endpoint
}

/// The fewest writes that make the slices say the groups: an endpoint stays in the slice that has it.
fn reconcile(service: &Value, groups: Vec<Group>, slices: &[&Value]) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut kept: Vec<&str> = Vec::new();
    for group in groups {
        let fits = |slice: &&&Value| {
            slice["addressType"] == *group.address_type
                && slice.get("ports").unwrap_or(&json!([])) == &group.ports
                && !is_terminating(slice)
        };
        let existing: Vec<&Value> = slices.iter().filter(fits).copied().collect();
        let contents = distribute(group.endpoints, &existing);
        // An empty slice stays only where its whole group is empty.
        let fullest = contents.iter().map(Vec::len).max().unwrap_or_default();
        for (index, endpoints) in contents.into_iter().enumerate() {
            let is_needed = !endpoints.is_empty() || fullest == 0 && index == 0;
            match existing.get(index) {
                Some(_) if !is_needed => {}
                Some(slice) => {
                    kept.push(name(slice));
                    let wanted = slice_of(service, Value::clone(slice), endpoints);
                    let action = Action::Update("endpointslices", wanted.clone());
                    actions.extend((wanted != **slice).then_some(action));
                }
                None => {
                    let fresh = json!({"addressType": group.address_type, "ports": group.ports});
                    actions.push(Action::Create("endpointslices", slice_of(service, fresh, endpoints)));
                }
            }
        }
    }
    let unused = slices.iter().filter(|slice| !kept.contains(&name(slice)) && !is_terminating(slice));
    actions.extend(unused.map(|slice| Action::Delete(Key::of("endpointslices", slice))));
    actions
}

/// What each existing slice is to hold, and after those the contents of the slices to be made.
fn distribute(mut endpoints: Vec<Value>, existing: &[&Value]) -> Vec<Vec<Value>> {
    let mut contents: Vec<Vec<Value>> = Vec::new();
    for slice in existing {
        let mut stay = Vec::new();
        for held in items(&slice["endpoints"]) {
            // By its pod: pods of the host's network share their address.
            let found = endpoints.iter().position(|one| one["targetRef"]["uid"] == held["targetRef"]["uid"]);
            stay.extend(found.map(|place| endpoints.remove(place)));
        }
        contents.push(stay);
    }
    let mut rest = endpoints.into_iter().peekable();
    for content in &mut contents {
        let room = MOST.saturating_sub(content.len());
        content.extend(rest.by_ref().take(room));
    }
    while rest.peek().is_some() {
        contents.push(rest.by_ref().take(MOST).collect());
    }
    if contents.is_empty() {
        contents.push(Vec::new());
    }
    contents
}

/// A slice of the Service with those endpoints.
fn slice_of(service: &Value, mut slice: Value, endpoints: Vec<Value>) -> Value {
    let mut labels = service["metadata"]["labels"].clone();
    let fields = object::fields(&mut labels);
    fields.remove(HEADLESS);
    fields.insert(SERVICE_NAME.to_owned(), json!(name(service)));
    fields.insert(MANAGED_BY.to_owned(), json!(MANAGER));
    if service["spec"]["clusterIP"] == "None" {
        fields.insert(HEADLESS.to_owned(), json!(""));
    }
    slice["metadata"]["labels"] = labels;
    if slice["metadata"]["name"].is_null() {
        slice["metadata"]["generateName"] = json!(format!("{}-", name(service)));
        slice["metadata"]["namespace"] = json!(namespace(service));
        slice["metadata"]["ownerReferences"] = json!([controller_reference(service)]);
    }
    slice["endpoints"] = Value::Array(endpoints);
    slice
}

#[cfg(test)]
mod tests;
