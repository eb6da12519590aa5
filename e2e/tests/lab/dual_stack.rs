//! What the groups "IPv6DualStack", "NoSNAT" and "EndpointSlice" of Kubernetes' sig-network tests ask.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::case::{Case, echo};
use crate::lab::{Lab, Outcome, equal, poll};
use crate::probe::{BOTH, Via, seen_as, served};

pub(crate) fn nodes_and_pods_have_both_families(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "both-families")?;
    let nodes = lab.api()?.get("/api/v1/nodes")?;
    for node in nodes["items"].as_array().into_iter().flatten() {
        let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
        let internal = addresses.iter().filter(|address| address["type"] == "InternalIP").count();
        equal("a node's internal addresses", internal, 2)?;
        equal("a node's pod CIDRs", node["spec"]["podCIDRs"].as_array().map(Vec::len), Some(2))?;
    }
    let [pod] = case.run([echo("one")])?;
    equal("a pod's families", pod.ips.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>(), vec![true, false])
}

/// The families of a Service's addresses, and what serves them.
pub(crate) fn single_and_dual_stack_services(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "family-policies")?;
    let [client, _] = case.run([echo("client").app("client"), echo("one")])?;
    let cases: [(&str, Value, &[bool]); 5] = [
        ("default", json!({"ipFamilyPolicy": null}), &[true]),
        ("only-v4", json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}), &[true]),
        ("only-v6", json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}), &[false]),
        ("v4-first", json!({"ipFamilies": ["IPv4", "IPv6"]}), &[true, false]),
        ("v6-first", json!({"ipFamilies": ["IPv6", "IPv4"]}), &[false, true]),
    ];
    for (name, spec, families) in cases {
        let service = case.service(name, spec)?;
        equal(name, service.ips.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>(), families.to_vec())?;
        for server in service.at(80) {
            BOTH.into_iter().try_for_each(|via| served(&client.netns, via, server, &["one"]))?;
        }
    }
    let more = case.change("only-v6", json!({"ipFamilyPolicy": "PreferDualStack"}))?;
    equal("the second address", more.ips.len(), 2)?;
    more.at(80).into_iter().try_for_each(|server| served(&client.netns, Via::Http, server, &["one"]))
}

pub(crate) fn between_pods_without_snat(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "no-snat")?;
    let pods = case.run([1, 2, 3].map(|node| echo(&format!("on-node{node}")).on(&format!("node{node}"))))?;
    for from in &pods {
        for to in &pods {
            for (own, ip) in from.ips.iter().zip(&to.ips) {
                seen_as(&from.netns, Via::Http, SocketAddr::new(*ip, 8080), *own)?;
            }
        }
    }
    Ok(())
}

/// A slice of endpoints that nobody but the scenario manages.
fn slice(name: &str, family: &str, ports: &Value, addresses: &[IpAddr]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|ip| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}}))
        .collect();
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": family, "ports": ports, "endpoints": endpoints})
}

pub(crate) fn endpoints_over_several_slices(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "several-slices")?;
    let ports =
        json!([{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": 8601}]);
    let service = case.service("web", json!({"selector": null, "ports": ports}))?;
    let [client, one, two, other] =
        case.run([echo("client"), echo("one"), echo("two"), echo("other").port(8601)])?;
    let (a, b) = (
        json!([{"name": "a", "port": 8080, "protocol": "TCP"}]),
        json!([{"name": "b", "port": 8601, "protocol": "TCP"}]),
    );
    for (position, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
        for (name, ports, peer) in [("one", &a, &one), ("two", &a, &two), ("other", &b, &other)] {
            let name = format!("{name}-{}", family.to_lowercase());
            case.create("endpointslices", &slice(&name, family, ports, &[peer.ips[position]]))?;
        }
    }
    for server in service.at(80) {
        served(&client.netns, Via::Http, server, &["one", "two"])?;
    }
    for server in service.at(81) {
        served(&client.netns, Via::Http, server, &["other"])?;
    }
    ["ipv4", "ipv6"]
        .into_iter()
        .try_for_each(|family| case.delete("endpointslices", &format!("one-{family}")))?;
    service.at(80).into_iter().try_for_each(|server| served(&client.netns, Via::Http, server, &["two"]))
}

pub(crate) fn slices_follow_the_service(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "slices-follow")?;
    case.service("web", json!({}))?;
    let [pod] = case.run([echo("one")])?;
    let published = || -> Result<Vec<String>, String> {
        let slices = case.list("endpointslices")?;
        let addresses = slices.iter().filter_map(|slice| slice["endpoints"][0]["addresses"][0].as_str());
        let mut addresses: Vec<String> = addresses.map(str::to_owned).collect();
        addresses.sort();
        Ok(addresses)
    };
    let expected: Vec<String> = pod.ips.iter().map(IpAddr::to_string).collect();
    poll("a slice of each family", || equal("addresses", published()?, expected.clone()))?;
    case.delete("services", "web")?;
    poll("no slice", || equal("slices", case.list("endpointslices")?.len(), 0))
}

pub(crate) fn api_server_s_endpoints(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "api-server")?;
    let [client] = case.run([echo("client")])?;
    let service = lab.api()?.get("/api/v1/namespaces/default/services/kubernetes")?;
    let ip: IpAddr =
        service["spec"]["clusterIP"].as_str().unwrap_or_default().parse().map_err(|_| "no address")?;
    poll("the API server through its Service", || {
        match crate::probe::ask(&client.netns, Via::Http, SocketAddr::new(ip, 443), "version") {
            crate::probe::Seen::Answer(text) => crate::lab::holds("its version", &text, "gitVersion"),
            other => Err(format!("{other:?}")),
        }
    })
}
