//! What a Service gets: virtual addresses of its families, and ports on the nodes (core/v1 ServiceSpec).

use std::net::IpAddr;

use serde_json::{Value, json};
use weft_types::Family;

use super::address_pool::AddressPool;
use super::node_ports::NodePorts;
use crate::apiserver::error::{ApiError, Cause, Result};
use crate::apiserver::object::{self, fields, items, set_default, text};

/// The virtual addresses that a Service holds.
pub(super) fn addresses(service: &Value) -> impl Iterator<Item = IpAddr> {
    items(&service["spec"]["clusterIPs"]).iter().filter_map(|address| text(address).parse().ok())
}

/// The ports of the nodes that a Service holds.
pub(super) fn node_ports(service: &Value) -> impl Iterator<Item = u16> {
    let spec = &service["spec"];
    let ports = items(&spec["ports"]).iter().map(|port| &port["nodePort"]);
    ports.chain([&spec["healthCheckNodePort"]]).filter_map(number)
}

/// Gives a Service what it lacks.
pub(super) fn assign(
    pools: &[AddressPool],
    node_ports: &NodePorts,
    old: Option<&Value>,
    service: &mut Value,
) -> Result<()> {
    let name = object::name(service).to_owned();
    let refuse = |cause| ApiError::Invalid { kind: "Service", name, causes: vec![cause] };
    let spec = &mut service["spec"];
    let old_spec = old.map_or(&Value::Null, |old| &old["spec"]);
    assign_addresses(pools, old_spec, spec)
        .and_then(|()| assign_ports(node_ports, old_spec, spec))
        .map_err(refuse)
}

fn assign_addresses(pools: &[AddressPool], old: &Value, spec: &mut Value) -> std::result::Result<(), Cause> {
    const ADDRESS_FIELDS: [&str; 4] = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"];
    if spec["type"] == "ExternalName" {
        ADDRESS_FIELDS.iter().for_each(|field| drop(fields(spec).remove(*field)));
        return Ok(());
    }
    if old["type"] != "ExternalName" && text(&spec["clusterIP"]).is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            copy(old, spec, field);
        }
    }
    if old["clusterIP"] == spec["clusterIP"] {
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            copy(old, spec, field);
        }
    }
    if spec["ipFamilyPolicy"] == "SingleStack" && !old.is_null() {
        // A Service that is made single stack gives back its second address.
        for field in ["clusterIPs", "ipFamilies"] {
            spec[field].as_array_mut().into_iter().for_each(|list| list.truncate(1));
        }
    }
    let requested = requested_addresses(spec);
    let families = families(pools, spec, &requested)?;
    let policy = if families.len() > 1 { "PreferDualStack" } else { "SingleStack" };
    set_default(spec, "ipFamilyPolicy", policy);
    let words: Vec<String> = families.iter().map(Family::to_string).collect();
    spec["ipFamilies"] = json!(words);
    let given = if requested.first().is_some_and(|address| address == "None") {
        vec!["None".to_owned()]
    } else {
        let held: Vec<IpAddr> =
            items(&old["clusterIPs"]).iter().filter_map(|ip| text(ip).parse().ok()).collect();
        let one = |(index, family)| one_address(pools, family, index, requested.get(index), &held);
        families.into_iter().enumerate().map(one).collect::<std::result::Result<_, _>>()?
    };
    spec["clusterIP"] = json!(given[0]);
    spec["clusterIPs"] = json!(given);
    Ok(())
}

/// Takes over a field of the old object that the new one leaves out.
fn copy(old: &Value, spec: &mut Value, field: &str) {
    if let Some(value) = old.get(field) {
        set_default(spec, field, value.clone());
    }
}

/// The addresses that the client asks for, the primary one first.
fn requested_addresses(spec: &Value) -> Vec<String> {
    let list: Vec<String> =
        items(&spec["clusterIPs"]).iter().map(|address| text(address).to_owned()).collect();
    match text(&spec["clusterIP"]) {
        "" => list,
        address if list.is_empty() => vec![address.to_owned()],
        _ => list,
    }
}

/// The families that the Service is to have: those it names, those of its addresses, or by its policy.
fn families(
    pools: &[AddressPool],
    spec: &Value,
    requested: &[String],
) -> std::result::Result<Vec<Family>, Cause> {
    let mut available: Vec<Family> = Vec::new();
    for family in pools.iter().map(AddressPool::family) {
        if !available.contains(&family) {
            available.push(family);
        }
    }
    let mut chosen: Vec<Family> = Vec::new();
    for (index, word) in items(&spec["ipFamilies"]).iter().enumerate() {
        let family = available.iter().find(|family| family.to_string() == text(word));
        let field = format!("spec.ipFamilies[{index}]");
        chosen.push(*family.ok_or_else(|| Cause::invalid(field, word, "not configured on this cluster"))?);
    }
    if chosen.is_empty() {
        chosen = requested.iter().filter_map(|ip| ip.parse().ok()).map(Family::of).collect();
    }
    if chosen.is_empty() {
        chosen.extend(available.first());
    }
    let policy = text(&spec["ipFamilyPolicy"]);
    if policy == "PreferDualStack" || policy == "RequireDualStack" {
        let missing: Vec<Family> =
            available.iter().copied().filter(|family| !chosen.contains(family)).collect();
        chosen.extend(missing);
    }
    if policy == "RequireDualStack" && chosen.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        return Err(Cause::invalid("spec.ipFamilyPolicy", &json!(policy), detail));
    }
    Ok(chosen)
}

/// The address of that family: the one asked for, if it can be had, or a free one.
fn one_address(
    pools: &[AddressPool],
    family: Family,
    index: usize,
    requested: Option<&String>,
    held: &[IpAddr],
) -> std::result::Result<String, Cause> {
    let field = format!("spec.clusterIPs[{index}]");
    let of_family = || pools.iter().filter(|pool| pool.family() == family);
    let first = of_family().next();
    let first =
        first.ok_or_else(|| Cause::required(field.clone(), "the cluster has no range of this family"))?;
    let Some(text) = requested else {
        let none = || Cause::required(field, &format!("the range {} has no free address", first.cidr()));
        return of_family().find_map(AddressPool::free).map(|address| address.to_string()).ok_or_else(none);
    };
    let wrong = |detail: &str| {
        let detail = format!("failed to allocate IP {text}: {detail}");
        Cause::invalid(field.clone(), &json!(text), &detail)
    };
    let address: IpAddr = text.parse().map_err(|_| wrong("must be a valid IP address"))?;
    if held.contains(&address) {
        return Ok(address.to_string());
    }
    let Some(pool) = of_family().find(|pool| pool.contains(address)) else {
        return Err(wrong(&format!("the provided IP is not in the valid range {}", first.cidr())));
    };
    if pool.is_taken(address) {
        return Err(wrong("provided IP is already allocated"));
    }
    Ok(address.to_string())
}

fn assign_ports(node_ports: &NodePorts, old: &Value, spec: &mut Value) -> std::result::Result<(), Cause> {
    let kind = text(&spec["type"]).to_owned();
    let is_balanced = kind == "LoadBalancer";
    let wants_ports = kind == "NodePort" || is_balanced && spec["allocateLoadBalancerNodePorts"] != false;
    let wants_health = is_balanced && spec["externalTrafficPolicy"] == "Local";
    let held: Vec<u16> = node_ports_of(old);
    let mut picked: Vec<u16> = Vec::new();
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for (index, port) in ports.into_iter().flatten().enumerate() {
        if !wants_ports {
            port.as_object_mut().into_iter().for_each(|fields| drop(fields.remove("nodePort")));
            continue;
        }
        let field = format!("spec.ports[{index}].nodePort");
        let wanted = number(&port["nodePort"]).or_else(|| earlier(old, port));
        let number = one_port(node_ports, &field, wanted, &held, &picked)?;
        picked.push(number);
        port["nodePort"] = json!(number);
    }
    if wants_health {
        let wanted = number(&spec["healthCheckNodePort"]).or(number(&old["healthCheckNodePort"]));
        let number = one_port(node_ports, "spec.healthCheckNodePort", wanted, &held, &picked)?;
        spec["healthCheckNodePort"] = json!(number);
    } else {
        fields(spec).remove("healthCheckNodePort");
    }
    Ok(())
}

fn node_ports_of(spec: &Value) -> Vec<u16> {
    let ports = items(&spec["ports"]).iter().map(|port| &port["nodePort"]);
    ports.chain([&spec["healthCheckNodePort"]]).filter_map(number).collect()
}

/// The node port that the same port had before.
fn earlier(old: &Value, port: &Value) -> Option<u16> {
    let same = |other: &&Value| other["port"] == port["port"] && other["protocol"] == port["protocol"];
    items(&old["ports"]).iter().find(same).and_then(|other| number(&other["nodePort"]))
}

/// One port may serve several protocols of the same Service, and no other Service.
fn one_port(
    node_ports: &NodePorts,
    field: &str,
    wanted: Option<u16>,
    held: &[u16],
    picked: &[u16],
) -> std::result::Result<u16, Cause> {
    let Some(port) = wanted else {
        let none = || Cause::required(field, "no free port is left in the range of node ports");
        return node_ports.free(picked).ok_or_else(none);
    };
    let (first, last) = (node_ports.range().start(), node_ports.range().end());
    if !node_ports.range().contains(&port) {
        let detail =
            format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
        return Err(Cause::invalid(field, &json!(port), &detail));
    }
    if node_ports.is_taken(port) && !held.contains(&port) {
        return Err(Cause::invalid(field, &json!(port), "provided port is already allocated"));
    }
    Ok(port)
}

/// A port number; zero stands for none.
fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::allocation::Allocations;
    use crate::apiserver::resource::named;

    fn allocations(cidrs: &[&str]) -> Allocations {
        let cidrs: Vec<_> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        Allocations::new(&cidrs, 30000..=32767)
    }

    fn service(spec: Value) -> Value {
        let mut service =
            json!({"kind": "Service", "metadata": {"name": "x"}, "spec": {"type": "ClusterIP"}});
        for (field, value) in spec.as_object().unwrap() {
            service["spec"][field] = value.clone();
        }
        service
    }

    fn give(allocations: &mut Allocations, old: Option<&Value>, spec: Value) -> Result<Value> {
        let mut service = service(spec);
        allocations.assign(named("services"), old, &mut service)?;
        allocations.observe(old, Some(&service));
        Ok(service)
    }

    fn field(result: Result<Value>) -> String {
        match result {
            Err(ApiError::Invalid { causes, .. }) => causes[0].field.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_are_given_kept_and_refused() {
        let mut all = allocations(&["10.96.0.0/16"]);
        let first = give(&mut all, None, json!({})).unwrap();
        assert_eq!(first["spec"]["clusterIPs"], json!(["10.96.1.1"]));
        assert_eq!(first["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(first["spec"]["ipFamilyPolicy"], "SingleStack");
        let dns = give(&mut all, None, json!({"clusterIP": "10.96.0.10"})).unwrap();
        assert_eq!(dns["spec"]["clusterIP"], "10.96.0.10");
        for taken_or_foreign in ["10.96.0.10", "10.97.0.1", "10.96.0.0", "x"] {
            assert_eq!(
                field(give(&mut all, None, json!({"clusterIP": taken_or_foreign}))),
                "spec.clusterIPs[0]"
            );
        }
        let kept = give(&mut all, Some(&first), json!({})).unwrap();
        assert_eq!(kept["spec"]["clusterIP"], "10.96.1.1");
        all.observe(Some(&kept), None);
        assert!(give(&mut all, None, json!({"clusterIP": "10.96.1.1"})).is_ok());
    }

    #[test]
    fn further_ranges_come_and_go_as_service_cidrs() {
        let mut all = allocations(&["10.96.0.0/16", "fd00::/112"]);
        let range = json!({"kind": "ServiceCIDR", "spec": {"cidrs": ["10.98.0.0/24", "fd00:98::/112"]}});
        let wanted =
            || json!({"clusterIPs": ["10.98.0.7", "fd00:98::7"], "ipFamilyPolicy": "RequireDualStack"});
        assert_eq!(field(give(&mut all, None, wanted())), "spec.clusterIPs[0]");
        all.observe(None, Some(&range));
        let given = give(&mut all, None, wanted()).unwrap();
        assert_eq!(given["spec"]["clusterIPs"], json!(["10.98.0.7", "fd00:98::7"]));
        assert_eq!(field(give(&mut all, None, wanted())), "spec.clusterIPs[0]", "taken");
        assert_eq!(give(&mut all, None, json!({})).unwrap()["spec"]["clusterIP"], "10.96.1.1");
        all.observe(Some(&given), None);
        all.observe(Some(&range), None);
        assert_eq!(field(give(&mut all, None, wanted())), "spec.clusterIPs[0]");
        let configured = json!({"kind": "ServiceCIDR", "spec": {"cidrs": ["10.96.0.0/16", "fd00::/112"]}});
        all.observe(None, Some(&configured));
        all.observe(Some(&configured), None);
        assert!(give(&mut all, None, json!({})).is_ok(), "what the cluster is configured with stays");
    }

    #[test]
    fn headless_and_external_services_take_none() {
        let mut all = allocations(&["10.96.0.0/16"]);
        let headless = give(&mut all, None, json!({"clusterIP": "None"})).unwrap();
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
        let plain = give(&mut all, None, json!({})).unwrap();
        let external = json!({"type": "ExternalName", "externalName": "a.b"});
        let external = give(&mut all, Some(&plain), external).unwrap();
        assert!(external["spec"].get("clusterIP").is_none());
        assert!(give(&mut all, None, json!({"clusterIP": plain["spec"]["clusterIP"]})).is_ok());
    }

    #[test]
    fn both_families_where_the_cluster_has_them() {
        let mut all = allocations(&["10.96.0.0/16", "fd00::/112"]);
        let both = give(&mut all, None, json!({"ipFamilyPolicy": "PreferDualStack"})).unwrap();
        assert_eq!(both["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(both["spec"]["clusterIPs"], json!(["10.96.1.1", "fd00::101"]));
        let mut less = both["spec"].clone();
        less["ipFamilyPolicy"] = json!("SingleStack");
        let less = give(&mut all, Some(&both), less).unwrap();
        assert_eq!(less["spec"]["clusterIPs"], json!(["10.96.1.1"]));
        let mut more = less["spec"].clone();
        more["ipFamilyPolicy"] = json!("RequireDualStack");
        let more = give(&mut all, Some(&less), more).unwrap();
        assert_eq!(more["spec"]["clusterIPs"], json!(["10.96.1.1", "fd00::102"]));
        let six = give(&mut all, None, json!({"ipFamilies": ["IPv6"]})).unwrap();
        assert_eq!(six["spec"]["clusterIPs"], json!(["fd00::103"]));
        let mut single = allocations(&["10.96.0.0/16"]);
        assert_eq!(field(give(&mut single, None, json!({"ipFamilies": ["IPv6"]}))), "spec.ipFamilies[0]");
        let required = json!({"ipFamilyPolicy": "RequireDualStack"});
        assert_eq!(field(give(&mut single, None, required)), "spec.ipFamilyPolicy");
    }

    #[test]
    fn node_ports_are_given_kept_shared_by_protocols_and_freed() {
        let mut all = allocations(&["10.96.0.0/16"]);
        let ports = json!([{"port": 53, "protocol": "UDP", "nodePort": 30053}, {"port": 53, "protocol": "TCP", "nodePort": 30053},
                           {"port": 80, "protocol": "TCP"}]);
        let first = give(&mut all, None, json!({"type": "NodePort", "ports": ports})).unwrap();
        assert_eq!(first["spec"]["ports"][2]["nodePort"], 30086);
        let taken = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30053}]});
        assert_eq!(field(give(&mut all, None, taken.clone())), "spec.ports[0].nodePort");
        let outside = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]});
        assert_eq!(field(give(&mut all, None, outside)), "spec.ports[0].nodePort");
        let same = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]});
        let kept = give(&mut all, Some(&first), same).unwrap();
        assert_eq!(kept["spec"]["ports"][0]["nodePort"], 30086);
        assert!(give(&mut all, None, taken).is_ok());
        let plain = give(&mut all, Some(&kept), json!({"ports": kept["spec"]["ports"]})).unwrap();
        assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
    }

    #[test]
    fn a_local_load_balancer_has_a_health_port() {
        let mut all = allocations(&["10.96.0.0/16"]);
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
        let service = give(&mut all, None, spec).unwrap();
        assert_eq!(service["spec"]["ports"][0]["nodePort"], 30086);
        assert_eq!(service["spec"]["healthCheckNodePort"], 30087);
    }
}
