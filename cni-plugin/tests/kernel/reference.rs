//! Side by side with Debian's reference `bridge`: the same configuration gives the same result, in the same
//! order, and the same addresses and routes inside.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weft_netlink::rtnl::RouteFilter;

use crate::node::{Node, Pod, answer};

const OURS: &str = env!("CARGO_BIN_EXE_weft-cni");
const REFERENCE: &str = "/usr/lib/cni/bridge";

/// The result without what each plugin chooses for itself: Ethernet addresses, and the name of the host's
/// end. An empty `dns` is left out by newer reference plugins too.
fn chosen_apart(mut result: Value, pod: &Pod) -> Value {
    for interface in result.get_mut("interfaces").and_then(Value::as_array_mut).into_iter().flatten() {
        assert!(interface["mac"].as_str().is_some_and(|mac| mac.len() == 17), "{interface}");
        interface["mac"] = Value::Null;
        if interface["name"].as_str().unwrap().starts_with("veth") {
            interface["name"] = "veth".into();
        }
        if interface.get("sandbox").is_some() {
            assert_eq!(interface["sandbox"], json!(pod.netns));
            interface["sandbox"] = "the container's".into();
        }
    }
    if result["dns"] == json!({}) {
        result.as_object_mut().unwrap().remove("dns");
    }
    result
}

/// Addresses and routes inside, without those that the kernel makes by itself.
fn inside(pod: &Pod) -> BTreeSet<String> {
    let mut route = pod.route();
    let link = pod.link().unwrap();
    assert!(link.up);
    let addresses = route.addresses(Some(link.index)).unwrap();
    let mut found: BTreeSet<String> = addresses.iter().map(|address| address.address.to_string()).collect();
    let paths = route.routes(RouteFilter { link: Some(link.index), ..RouteFilter::default() }).unwrap();
    found.extend(paths.iter().map(|path| format!("{} via {:?}", path.destination, path.gateway)));
    found.retain(|text| !text.starts_with("fe80::") && !text.starts_with("ff00::"));
    found
}

fn made_by(program: &str, change: &dyn Fn(&mut Value)) -> (Value, BTreeSet<String>) {
    let node = Node::new();
    let (pod, mut config) = (node.pod("c1"), node.config(&["10.244.1.0/24"]));
    config["cniVersion"] = "1.0.0".into();
    config["ipam"]["type"] = "host-local".into();
    for option in ["portIsolation", "isDefaultGateway"] {
        config.as_object_mut().unwrap().remove(option);
    }
    change(&mut config);
    let netns = pod.netns.to_string_lossy();
    let result = answer(node.spawn_program(program, "ADD", "c1", &netns, &config));
    let result = result.unwrap_or_else(|error| panic!("{program}: {error}"));
    (chosen_apart(result, &pod), inside(&pod))
}

#[test]
fn the_same_configuration_gives_the_same_result_and_the_same_inside() {
    let changes: [&dyn Fn(&mut Value); 11] = [
        &|_| {},
        &|config| config["isDefaultGateway"] = true.into(),
        &|config| config["isGateway"] = false.into(),
        &|config| config["mtu"] = 1400.into(),
        &|config| config["hairpinMode"] = true.into(),
        &|config| config["promiscMode"] = true.into(),
        &|config| config["dns"] = json!({"nameservers": ["10.96.0.10"], "search": ["a.b"]}),
        &|config| {
            config["ipam"]["routes"] =
                json!([{"dst": "10.9.0.0/16"}, {"dst": "10.8.0.0/16", "gw": "10.244.1.9"}])
        },
        &|config| {
            config["isDefaultGateway"] = true.into();
            config["ipam"]["ranges"] = json!([
                [{"subnet": "10.244.1.0/24", "rangeStart": "10.244.1.40", "gateway": "10.244.1.254"}],
                [{"subnet": "fd00:1::/64"}],
            ]);
        },
        &|config| {
            config["isDefaultGateway"] = true.into();
            config["ipam"]["ranges"] = json!([[{"subnet": "fd00:1::/64"}]]);
        },
        &|config| drop(config.as_object_mut().unwrap().remove("ipam")),
    ];
    for (place, change) in changes.into_iter().enumerate() {
        assert_eq!(made_by(OURS, change), made_by(REFERENCE, change), "change {place}");
    }
}

#[test]
fn the_same_result_in_every_version_that_both_know() {
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let change = |config: &mut Value| {
            config["cniVersion"] = version.into();
            config["isDefaultGateway"] = true.into();
            config["ipam"]["ranges"] = json!([[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:1::/64"}]]);
        };
        assert_eq!(made_by(OURS, &change), made_by(REFERENCE, &change), "{version}");
    }
}
