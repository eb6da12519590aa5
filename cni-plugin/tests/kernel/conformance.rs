//! CNI SPEC 1.1.0, requirement by requirement, as far as the other modules beside do not hold it; docs/cni.md
//! lists which test holds which.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::node::{Node, Pod, address, answer};

const OURS: &str = env!("CARGO_BIN_EXE_weft-cni");

/// Calls the plugin with a whole environment, where `change` replaces a variable; an empty value is none.
fn call_with(
    node: &Node,
    pod: &Pod,
    command: &str,
    change: (&str, &str),
    config: &Value,
) -> Result<Value, Value> {
    let netns = pod.netns.to_string_lossy();
    let whole = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", &pod.id),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", &netns),
    ];
    let changed = whole.map(|(name, value)| if name == change.0 { change } else { (name, value) });
    let variables: Vec<_> = changed.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    answer(node.spawn_in(OURS, &variables, config.to_string().as_bytes()))
}

/// An IPAM plugin that notes how it is called and answers what the test says for ADD.
pub(crate) fn foreign_ipam(node: &Node, on_add: &str) -> String {
    let folder = node.folder.path();
    let script = format!(
        "#!/bin/sh\necho \"foreign: $CNI_COMMAND\" >&2\necho \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS\" >> {0}/calls\ncat > {0}/stdin\n\
         [ $CNI_COMMAND = ADD ] || exit 0\n{on_add}\n",
        folder.display()
    );
    fs::write(folder.join("foreign"), script).unwrap();
    fs::set_permissions(folder.join("foreign"), fs::Permissions::from_mode(0o755)).unwrap();
    folder.to_string_lossy().into_owned()
}

fn calls(node: &Node) -> Vec<String> {
    let text = fs::read_to_string(node.folder.path().join("calls")).unwrap();
    text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

pub(crate) fn call_foreign(
    node: &Node,
    pod: &Pod,
    command: &str,
    path: &str,
    config: &Value,
) -> Result<Value, Value> {
    let netns = pod.netns.to_string_lossy();
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", &*pod.id),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", &*netns),
        ("CNI_PATH", path),
        ("PATH", "/usr/bin:/bin"),
    ];
    answer(node.spawn_in(OURS, &variables, config.to_string().as_bytes()))
}

/// Section 1: "name" is required, restricted to an alphabet; "cniVersion" must be known; other keys are
/// tolerated.
#[test]
fn s1_network_configuration() {
    let node = Node::new();
    let pod = node.pod("c1");
    let code = |change: &dyn Fn(&mut Value)| {
        let mut config = node.config(&["10.244.1.0/24"]);
        change(&mut config);
        node.call("ADD", &pod, &config).unwrap_err()["code"].as_u64().unwrap()
    };
    assert_eq!(code(&|config| drop(config.as_object_mut().unwrap().remove("name"))), 7);
    assert_eq!(code(&|config| config["name"] = "-a".into()), 7);
    assert_eq!(code(&|config| config["name"] = "../a".into()), 7);
    assert_eq!(code(&|config| config["cniVersion"] = "2.0.0".into()), 1);
    let mut config = node.config(&["10.244.1.0/24"]);
    config["unknown"] = json!({"key": [1]});
    config["runtimeConfig"] = json!({"unknown": true, "io.kubernetes.cri.pod-annotations": {"a": "b"}});
    config["args"] = json!({"labels": []});
    node.add(&pod, &config);
}

/// Section 2, "Parameters": what a command requires is required, all that is missing is named; the alphabet
/// of CNI_CONTAINERID; CNI_IFNAME is an interface's name.
#[test]
fn s2_parameters() {
    let node = Node::new();
    let (pod, config) = (node.pod("c1"), node.config(&["10.244.1.0/24"]));
    let error = |command: &str, change| call_with(&node, &pod, command, change, &config).unwrap_err();
    for (command, names) in [
        ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"][..]),
        ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"]),
    ] {
        for name in names {
            let error = error(command, (name, ""));
            assert!(
                error["code"] == 4 && error["msg"].as_str().unwrap().contains(name),
                "{command}: {error}"
            );
        }
    }
    for (name, value) in [
        ("CNI_COMMAND", "UPDATE"),
        ("CNI_COMMAND", "add"),
        ("CNI_CONTAINERID", "_a"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_IFNAME", "."),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "a:b"),
        ("CNI_IFNAME", "sixteen-letters-"),
    ] {
        let error = error("ADD", (name, value));
        assert!(
            error["code"] == 4 && error["msg"].as_str().unwrap().contains(name),
            "{name}={value}: {error}"
        );
    }
    assert!(node.links().iter().all(|link| link.name != "cni0"), "nothing is done before");
}

/// Section 2, "ADD": a plugin given a prevResult must pass it on or amend it.
#[test]
fn s2_add_passes_on_what_plugins_before_made() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24"]);
    config["prevResult"] = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "net1", "sandbox": "/run/netns/x"}],
        "ips": [{"address": "192.0.2.7/24", "interface": 0}],
    });
    let pod = node.pod("c1");
    let result = node.add(&pod, &config);
    let names: Vec<_> = result["interfaces"].as_array().unwrap().iter().map(|i| i["name"].clone()).collect();
    assert_eq!((names[0].as_str(), names[3].as_str(), names.len()), (Some("net1"), Some("eth0"), 4));
    assert_eq!(result["ips"][0], json!({"address": "192.0.2.7/24", "interface": 0}));
    assert_eq!(
        (&result["ips"][1]["address"], &result["ips"][1]["interface"]),
        (&json!("10.244.1.2/24"), &json!(3))
    );
    config["prevResult"] = result;
    assert_eq!(node.call("CHECK", &pod, &config), Ok(Value::Null));
    config["prevResult"] = json!({"ips": "nonsense"});
    assert_eq!(node.call("ADD", &node.pod("c2"), &config).unwrap_err()["code"], 6);
}

/// Section 2, "DEL": success where the interface, the namespace or everything is missing; prevResult may be
/// missing; the namespace may be empty.
#[test]
fn s2_del_succeeds_whatever_is_missing() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24"]);
    let pod = node.pod("c1");
    node.del(&pod, &config);
    assert_eq!(call_with(&node, &pod, "DEL", ("CNI_NETNS", ""), &config), Ok(Value::Null));
    assert_eq!(call_with(&node, &pod, "DEL", ("CNI_NETNS", "/run/netns/gone"), &config), Ok(Value::Null));
    config["prevResult"] = node.add(&pod, &config);
    // A configuration that changed since, and an impossible one, must not keep anybody's interface.
    config["bridge"] = "cni9".into();
    config["ipam"]["ranges"] = json!([]);
    node.del(&pod, &config);
    assert_eq!(pod.link(), None);
    assert!(node.reserved().is_empty());
}

/// Section 2, "CHECK": prevResult is required; success right after ADD; what later plugins changed is
/// tolerated; a missing interface, a port that left its bridge and a lost reservation are errors.
#[test]
fn s2_check() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24"]);
    let pod = node.pod("c1");
    let result = node.add(&pod, &config);
    assert_eq!(node.call("CHECK", &pod, &config).unwrap_err()["code"], 7);
    config["prevResult"] = result;
    assert_eq!(node.call("CHECK", &pod, &config), Ok(Value::Null));
    let inside = |arguments: &[&str]| {
        let run = || std::process::Command::new("ip").args(arguments).status();
        assert!(pod.namespace().run(run).unwrap().unwrap().success(), "{arguments:?}");
    };
    inside(&["route", "replace", "default", "via", "10.244.1.1", "dev", "eth0", "mtu", "1300"]);
    inside(&["route", "add", "192.0.2.0/24", "via", "10.244.1.1"]);
    inside(&["address", "add", "192.0.2.9/32", "dev", "eth0"]);
    assert_eq!(node.call("CHECK", &pod, &config), Ok(Value::Null), "later plugins add to it");
    let veth = node.veths().into_iter().next().unwrap();
    node.run("ip", &["link", "set", &veth, "nomaster"]);
    assert_eq!(node.call("CHECK", &pod, &config).unwrap_err()["code"], 102);
    node.del(&pod, &config);
    config.as_object_mut().unwrap().remove("prevResult");
    config["prevResult"] = node.add(&pod, &config);
    fs::remove_file(node.folder.path().join("data/weft/10.244.1.3")).unwrap();
    assert_eq!(node.call("CHECK", &pod, &config).unwrap_err()["code"], 102, "the reservation");
    node.del(&pod, &config);
    assert_eq!(node.call("CHECK", &pod, &config).unwrap_err()["code"], 3, "nothing is there");
}

/// Section 2, "CHECK", "STATUS", "GC": each exists only from its version of the protocol on.
#[test]
fn s2_commands_of_newer_versions_are_refused() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24"]);
    config["prevResult"] = json!({"ips": [{"address": "10.244.1.2/24", "version": "4"}]});
    for (command, version) in [("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "1.0.0")] {
        config["cniVersion"] = version.into();
        let error = node.call(command, &node.pod("c1"), &config).unwrap_err();
        assert_eq!((&error["code"], &error["cniVersion"]), (&json!(1), &json!(version)), "{command}");
    }
}

/// Section 2, "STATUS" and "GC": CNI_COMMAND and the configuration are enough; "VERSION": nothing but the
/// command.
#[test]
fn s2_commands_without_a_container() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24"]);
    for command in ["STATUS", "GC"] {
        let child = node.spawn_in(OURS, &[("CNI_COMMAND", command)], config.to_string().as_bytes());
        assert_eq!(answer(child), Ok(Value::Null), "{command}");
    }
    let version =
        answer(node.spawn_in(OURS, &[("CNI_COMMAND", "VERSION")], br#"{"cniVersion": "0.4.0"}"#)).unwrap();
    assert_eq!(version["cniVersion"], "0.4.0", "section 5: the value of cniVersion specified on input");
    assert!(version["supportedVersions"].as_array().unwrap().contains(&json!("1.1.0")));
    let about = node.spawn_in(OURS, &[("NOTHING", "")], b"").wait_with_output().unwrap();
    assert!(about.status.success() && about.stdout.is_empty());
    assert!(String::from_utf8(about.stderr).unwrap().contains("supported: 0.1.0, 0.2.0"));
}

/// Section 2, "STATUS": 50 where ADD would fail, 51 where containers are cut off too; each cause is told.
#[test]
fn s2_status_fails_where_add_would() {
    let node = Node::new();
    let status = |change: &dyn Fn(&mut Value)| {
        let mut config = node.config(&["10.244.1.0/24"]);
        change(&mut config);
        node.call("STATUS", &node.pod("c1"), &config)
    };
    assert_eq!(status(&|_| {}), Ok(Value::Null));
    assert_eq!(status(&|config| config["bridge"] = "lo".into()).unwrap_err()["code"], 50);
    let unprepared = status(&|config| config["boot"] = "0123456789abcdef".into()).unwrap_err();
    assert_eq!(unprepared["code"], 50, "prepared in another boot only: {unprepared}");
    let unavailable = status(&|config| config["unavailable"] = "no pod CIDR".into()).unwrap_err();
    assert!(unavailable["code"] == 50 && unavailable["msg"].as_str().unwrap().contains("no pod CIDR"));
    let code = |change: &dyn Fn(&mut Value)| status(change).unwrap_err()["code"].clone();
    assert_eq!(code(&|config| config["mtu"] = "large".into()), 50);
    assert_eq!(code(&|config| config["ipam"]["ranges"] = json!([])), 50);
    assert_eq!(code(&|config| config["ipam"]["type"] = "missing".into()), 50);
    // Another address of the bridge, which may not be replaced.
    let pod = node.pod("c1");
    let mut config = node.config(&["10.244.1.0/24"]);
    config["prevResult"] = node.add(&pod, &config);
    let moved = |forced: bool| {
        let mut config = node.config(&["10.244.7.0/24"]);
        config["forceAddress"] = forced.into();
        node.call("STATUS", &pod, &config)
    };
    assert_eq!(moved(true), Ok(Value::Null));
    let error = moved(false).unwrap_err();
    assert_eq!(error["code"], 50);
    assert!(error["msg"].as_str().unwrap().ends_with("10.244.7.1/24: 10.244.1.1/24"), "{error}");
    // A network whose bridge is another interface now: its containers are cut off too.
    node.run("ip", &["link", "delete", "cni0"]);
    node.run("ip", &["link", "add", "cni0", "type", "veth", "peer", "name", "cni0p"]);
    let error = node.call("STATUS", &pod, &config).unwrap_err();
    assert_eq!(
        (&error["code"], &error["msg"]),
        (&json!(51), &json!("cni0 exists and is a veth, not a bridge"))
    );
}

/// Section 2, "GC": without the key nothing is valid; it goes on after an error and reports it.
#[test]
fn s2_gc_goes_on_after_an_error() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24"]);
    let pod = node.pod("c1");
    node.add(&pod, &config);
    let mut broken = config.clone();
    broken["ipam"]["type"] = "missing".into();
    assert_eq!(node.call("GC", &pod, &broken).unwrap_err()["code"], 4);
    assert_eq!(pod.link(), None, "the interface is gone although IPAM failed");
    assert_eq!(node.call("GC", &pod, &config), Ok(Value::Null));
    assert!(node.reserved().is_empty());
}

/// Section 4: the plugin is found in CNI_PATH, gets environment and configuration as they are, and every
/// command is passed on to it.
#[test]
fn s4_delegation_passes_on_every_command() {
    let node = Node::new();
    let path =
        foreign_ipam(&node, r#"echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.244.9.9/24"}]}'"#);
    let path = format!("/nowhere:{path}");
    let mut config = node.config(&[]);
    config["ipam"] = json!({"type": "foreign", "own": {"option": 1}});
    let pod = node.pod("c1");
    let result = call_foreign(&node, &pod, "ADD", &path, &config).unwrap();
    assert_eq!(address(&result, 0).to_string(), "10.244.9.9");
    config["prevResult"] = result;
    for command in ["CHECK", "STATUS", "DEL", "GC"] {
        assert_eq!(call_foreign(&node, &pod, command, &path, &config), Ok(Value::Null), "{command}");
    }
    assert_eq!(calls(&node), ["ADD", "CHECK", "STATUS", "DEL", "GC"]);
    let seen: Value = serde_json::from_slice(&fs::read(node.folder.path().join("stdin")).unwrap()).unwrap();
    assert_eq!(seen, config);
    let first = fs::read_to_string(node.folder.path().join("calls")).unwrap();
    assert_eq!(first.lines().next().unwrap(), format!("ADD c1 eth0 {}", pod.netns.display()));
}

/// Section 4: what a delegated plugin says on standard error is said on the plugin's own.
#[test]
fn s4_standard_error_of_a_delegated_plugin_is_passed_on() {
    let node = Node::new();
    let path = foreign_ipam(&node, "exit 1");
    let mut config = node.config(&[]);
    config["ipam"] = json!({"type": "foreign"});
    let variables = [("CNI_COMMAND", "STATUS"), ("CNI_PATH", &path), ("PATH", "/usr/bin:/bin")];
    let output = node.spawn_in(OURS, &variables, config.to_string().as_bytes()).wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "foreign: STATUS\n");
    assert!(output.status.success() && output.stdout.is_empty());
}

/// Section 4: an IPAM plugin that gives no address has failed, and its DEL is called.
#[test]
fn s4_a_delegated_plugin_that_gives_no_address_has_failed() {
    let node = Node::new();
    let path = foreign_ipam(&node, r#"echo '{"cniVersion": "1.1.0"}'"#);
    let mut config = node.config(&[]);
    config["ipam"] = json!({"type": "foreign"});
    let pod = node.pod("c1");
    let error = call_foreign(&node, &pod, "ADD", &path, &config).unwrap_err();
    assert!(error["msg"].as_str().unwrap().ends_with("/foreign gave no address"), "{error}");
    assert_eq!(calls(&node), ["ADD", "DEL"]);
    assert!(pod.link().is_none() && node.veths().is_empty());
}

/// Section 4: a failed delegated ADD is followed by DEL, and its code and words reach the runtime.
#[test]
fn s4_a_failed_delegated_add_is_undone() {
    let node = Node::new();
    let path = foreign_ipam(
        &node,
        r#"echo '{"cniVersion": "1.1.0", "code": 11, "msg": "busy", "details": "later"}'; exit 1"#,
    );
    let mut config = node.config(&[]);
    config["ipam"] = json!({"type": "foreign"});
    let pod = node.pod("c1");
    let error = call_foreign(&node, &pod, "ADD", &path, &config).unwrap_err();
    assert_eq!((&error["code"], &error["details"]), (&json!(11), &json!("later")));
    assert!(error["msg"].as_str().unwrap().ends_with("busy"), "{error}");
    assert_eq!(calls(&node), ["ADD", "DEL"]);
    assert!(pod.link().is_none() && node.veths().is_empty());
}

/// Section 5, "Success": an IPAM plugin's result has no interfaces; before 0.3.0 a result needs an address,
/// and where there is none the attachment is undone.
#[test]
fn s5_a_result_that_cannot_be_told_is_undone() {
    let node = Node::new();
    let mut config = node.config(&[]);
    config["cniVersion"] = "0.2.0".into();
    for key in ["ipam", "isGateway", "isDefaultGateway"] {
        config.as_object_mut().unwrap().remove(key);
    }
    let pod = node.pod("c1");
    assert_eq!(node.call("ADD", &pod, &config).unwrap_err()["code"], 1);
    assert!(pod.link().is_none() && node.veths().is_empty());
}
