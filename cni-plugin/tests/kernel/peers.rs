//! Configurations as peers written in Go send and read them: what is null or empty is not set, a key is the
//! same in any case, and a command needs no more than it uses.

use serde_json::{Value, json};

use crate::node::{Node, Pod, answer};

const OURS: &str = env!("CARGO_BIN_EXE_weft-cni");

fn call_text(node: &Node, pod: &Pod, command: &str, stdin: &str) -> Result<Value, Value> {
    let netns = pod.netns.to_string_lossy();
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", &*pod.id),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", &*netns),
        ("CNI_ARGS", "IP=;MAC="),
    ];
    answer(node.spawn_in(OURS, &variables, stdin.as_bytes()))
}

/// All values of a configuration that a runtime, or somebody by hand, may leave empty.
fn with_empty_values(mut config: Value, empty: &Value) -> Value {
    for key in
        ["args", "runtimeConfig", "dns", "mtu", "vlan", "vlanTrunk", "ipMasqBackend", "boot", "unavailable"]
    {
        config[key] = empty.clone();
    }
    for key in ["routes", "resolvConf", "rangeStart", "rangeEnd", "gateway", "subnet"] {
        config["ipam"][key] = empty.clone();
    }
    for key in ["rangeStart", "rangeEnd", "gateway"] {
        config["ipam"]["ranges"][0][0][key] = empty.clone();
    }
    config["cni.dev/valid-attachments"] = empty.clone();
    config
}

#[test]
fn what_is_null_or_empty_is_not_set_for_any_command() {
    for empty in [Value::Null, json!("")] {
        let node = Node::new();
        let plain = node.config(&["10.244.1.0/24", "fd00:1::/64"]);
        let mut config = with_empty_values(plain, &empty);
        config["prevResult"] = empty.clone();
        let pod = node.pod("c1");
        let result = node.add(&pod, &config);
        assert_eq!(result["ips"][0]["address"], "10.244.1.2/24");
        config["prevResult"] = result;
        config["prevResult"]["dns"] = json!({"nameservers": null, "domain": empty});
        config["prevResult"]["interfaces"][0]["sandbox"] = empty.clone();
        config["prevResult"]["routes"][0]["mtu"] = Value::Null;
        for command in ["CHECK", "STATUS", "DEL"] {
            assert_eq!(node.call(command, &pod, &config), Ok(Value::Null), "{command} {empty}");
        }
        let lost = node.pod("c2");
        config["prevResult"] = empty.clone();
        node.add(&lost, &config);
        assert_eq!(node.call("GC", &lost, &config), Ok(Value::Null), "no attachment is valid");
        assert!(node.veths().is_empty() && node.reserved().is_empty());
    }
}

#[test]
fn keys_may_be_written_in_any_case() {
    let node = Node::new();
    let usual = node.config(&["10.244.1.0/24"]).to_string();
    let config = usual
        .replace("\"isDefaultGateway\"", "\"isdefaultgateway\"")
        .replace("\"isGateway\":true,", "")
        .replace("\"ranges\"", "\"Ranges\"")
        .replace("\"dataDir\"", "\"DATADIR\"")
        .replace("\"subnet\"", "\"Subnet\"");
    assert_ne!(usual, config);
    let pod = node.pod("c1");
    let result = call_text(&node, &pod, "ADD", &config).unwrap();
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}]));
    assert_eq!(pod.gateways(), ["10.244.1.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(node.reserved().len(), 1);
    assert_eq!(call_text(&node, &pod, "DEL", &config), Ok(Value::Null));
    assert!(node.reserved().is_empty());
}

#[test]
fn del_takes_all_away_whatever_is_wrong_with_what_it_does_not_need() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24"]);
    for key in ["runtimeConfig", "args", "prevResult", "mtu", "dns", "bridge", "vlan", "capabilities"] {
        let pod = node.pod("c1");
        node.add(&pod, &config);
        let mut broken = config.clone();
        broken[key] = json!([{"of": "another kind"}]);
        node.del(&pod, &broken);
        assert!(node.veths().is_empty() && node.reserved().is_empty(), "{key}");
    }
    let pod = node.pod("c1");
    node.add(&pod, &config);
    let mut broken = config.clone();
    broken["ipam"]["ranges"] = json!("nonsense");
    node.del(&pod, &broken);
    assert!(node.veths().is_empty() && node.reserved().is_empty());
}

#[test]
fn text_behind_the_configuration_is_an_error() {
    let node = Node::new();
    let pod = node.pod("c1");
    let config = format!("{} }}", node.config(&["10.244.1.0/24"]));
    let error = call_text(&node, &pod, "ADD", &config).unwrap_err();
    assert!(error["code"] == 6 && error["msg"].as_str().unwrap().contains("trailing characters"), "{error}");
    assert!(node.veths().is_empty() && node.reserved().is_empty());
}

#[test]
fn an_ipam_plugin_may_leave_parts_of_its_result_null() {
    let node = Node::new();
    let answer = r#"echo '{"cniVersion":"1.1.0","interfaces":null,"routes":null,"dns":{"search":null},"Ips":[{"Address":"10.9.0.2/24","gateway":""}]}'"#;
    let path = crate::conformance::foreign_ipam(&node, answer);
    let mut config = node.config(&[]);
    config["ipam"] = json!({"type": "foreign"});
    let pod = node.pod("c1");
    let result = crate::conformance::call_foreign(&node, &pod, "ADD", &path, &config).unwrap();
    assert_eq!(result["ips"][0]["address"], "10.9.0.2/24");
}
