//! Whatever a runtime sets and sends: an error is always told, as valid JSON (SPEC section 5, "Error"), and
//! nothing else is ever printed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use crate::node::Node;

/// The network's name. No real one is called so: a configuration that loses its folder means the machine's.
const NETWORK: &str = "weft-any-input-test";

fn text() -> impl Strategy<Value = OsString> {
    let bytes = prop::collection::vec(1u8..=255, 0..24).prop_map(OsString::from_vec);
    prop_oneof![bytes, "[a-zA-Z0-9/=;:._-]{0,24}".prop_map(OsString::from)]
}

/// Mostly what a runtime would set.
fn variable(usual: &[&str]) -> impl Strategy<Value = Option<OsString>> + use<> {
    let usual: Vec<OsString> = usual.iter().map(OsString::from).collect();
    prop_oneof![8 => select(usual).prop_map(Some), 2 => text().prop_map(Some), 1 => Just(None)]
}

fn environment(netns: &str) -> impl Strategy<Value = Vec<(&'static str, OsString)>> + use<> {
    let variables = (
        variable(&["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", ""]),
        variable(&["c1", "c2", "c_3.x-"]),
        variable(&["eth0", "eth1", "lo"]),
        variable(&[netns, "/run/netns/none", "/proc/self/ns/net"]),
        variable(&["IgnoreUnknown=1;K8S_POD_NAME=web", "IP=10.244.1.9", "MAC=02:00:00:00:00:01"]),
    );
    variables.prop_map(|(command, container, ifname, netns, args)| {
        let names = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"];
        let set = names.into_iter().zip([command, container, ifname, netns, args]);
        set.filter_map(|(name, value)| Some((name, value?))).collect()
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        select(vec!["10.244.1.0/24", "fd00::/64", "10.244.1.3", "1.1.0", "0.2.0", "host-local"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let object = prop::collection::vec(("[a-zA-Z]{1,8}", inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|pairs| Value::Object(Map::from_iter(pairs))),
        ]
    })
}

/// A configuration that works, with one thing replaced; or any JSON; or any bytes; or a part of it.
fn stdin(config: Value) -> impl Strategy<Value = Vec<u8>> {
    let places = select(vec![
        "/cniVersion",
        "/bridge",
        "/mtu",
        "/isGateway",
        "/vlan",
        "/dns",
        "/ipam/ranges",
        "/ipam/ranges/0",
        "/ipam/ranges/0/0/subnet",
        "/ipam/ranges/0/0/rangeEnd",
        "/ipam/routes",
        "/ipam/type",
        "/runtimeConfig",
        "/runtimeConfig/ips",
        "/args",
        "/prevResult",
        "/prevResult/ips",
        "/cni.dev~1valid-attachments",
        "/none",
    ]);
    let whole = config.clone();
    let replaced = (places, any_json()).prop_map(move |(place, value)| {
        let mut config = whole.clone();
        if let Some(found) = config.pointer_mut(place) {
            *found = value;
        }
        config.to_string().into_bytes()
    });
    let cut = (0..config.to_string().len())
        .prop_map(move |length| config.to_string().as_bytes()[..length].to_vec());
    let bytes = prop::collection::vec(any::<u8>(), 0..64);
    prop_oneof![8 => replaced, 1 => cut, 1 => any_json().prop_map(|json| json.to_string().into_bytes()), 1 => bytes]
}

/// Started with what `prepare` makes of it. Whether it succeeded, and what it printed.
fn run(
    node: &Node,
    command: &str,
    netns: &str,
    prepare: impl FnOnce(&mut Command) -> &mut Command,
) -> (bool, Vec<u8>) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_weft-cni"));
    process.env_clear().envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")]);
    process.env("CNI_NETNS", netns).stdout(Stdio::piped()).stderr(Stdio::null());
    prepare(&mut process);
    let child = node.namespace.run(|| process.spawn()).unwrap().unwrap();
    drop(process);
    let output = child.wait_with_output().unwrap();
    (output.status.success(), output.stdout)
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_configuration_that_cannot_be_read_is_an_error() {
    let node = Node::new();
    let deep = b"{\"ipam\":".repeat(100_000);
    let huge = vec![b' '; (16 << 20) + 1];
    let inputs: [(&[u8], u64, &str); 4] = [
        (b"", 6, "EOF"),
        (b"{\"cniVersion\": \"1.1.0\", \"name\": \"\xff\"}", 6, "invalid unicode"),
        (&deep, 6, "recursion limit"),
        (&huge, 5, "larger than 16777216 bytes"),
    ];
    for (stdin, code, words) in inputs {
        let (success, stdout) = run(&node, "GC", "", |process| process.stdin(file(stdin)));
        let error: Value = serde_json::from_slice(&stdout).unwrap();
        let msg = error["msg"].as_str().unwrap();
        assert!(!success && error["code"] == code && msg.contains(words), "{error}");
    }
}

#[test]
fn a_result_that_nobody_can_read_is_no_success_and_del_takes_all_away() {
    let node = Node::new();
    let (pod, config) = (node.pod("c1"), node.config(&["10.244.1.0/24"]));
    let netns = pod.netns.to_string_lossy();
    let stdin = || file(config.to_string().as_bytes());
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    for stdout in [&full as &dyn Fn() -> Stdio, &closed] {
        let (success, _) = run(&node, "ADD", &netns, |process| process.stdin(stdin()).stdout(stdout()));
        assert!(!success, "nobody learns of the container's address");
        node.del(&pod, &config);
        assert!(node.veths().is_empty() && node.reserved().is_empty() && pod.link().is_none());
    }
    let (success, stdout) = run(&node, "ADD", &netns, |process| process.stdin(stdin()).stderr(full()));
    assert!(success && serde_json::from_slice::<Value>(&stdout).is_ok());
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_and_nothing_is_made() {
    let node = Node::new();
    let (pod, mut config) = (node.pod("c1"), node.config(&["10.244.1.0/24"]));
    for folder in ["/proc/none", "/dev/null/none", "/sys/kernel"] {
        config["ipam"]["dataDir"] = folder.into();
        let error = node.call("ADD", &pod, &config).unwrap_err();
        assert!(error["code"] == 5 && error["msg"].as_str().unwrap().contains(folder), "{error}");
        assert!(node.veths().is_empty() && pod.link().is_none());
    }
}

#[test]
fn an_error_is_always_valid_json_and_always_printed() {
    let node = Node::new();
    let pod = node.pod("c1");
    let mut config = node.config(&["10.244.1.0/24"]);
    config["name"] = NETWORK.into();
    config["ipam"]["routes"] = json!([]);
    for key in ["mtu", "vlan", "cni.dev/valid-attachments", "dns"] {
        config[key] = if key == "dns" {
            json!({})
        } else if key.contains('/') {
            json!([])
        } else {
            json!(0)
        };
    }
    config["runtimeConfig"] = json!({"ips": []});
    config["args"] = json!({"cni": {}});
    config["prevResult"] = json!({"cniVersion": "1.1.0", "ips": []});
    let cases = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let strategy = (environment(&pod.netns.to_string_lossy()), stdin(config));
    TestRunner::new(cases)
        .run(&strategy, |(variables, stdin)| {
            let child = node.spawn_in(env!("CARGO_BIN_EXE_weft-cni"), &variables, &stdin);
            let output = child.wait_with_output().unwrap();
            let printed: Option<Value> = serde_json::from_slice(&output.stdout).ok();
            prop_assert!(printed.is_some() || output.stdout.is_empty(), "{:?}", output);
            match output.status.code() {
                Some(0) => prop_assert!(printed.is_none_or(|result| result["cniVersion"].is_string())),
                Some(_) => {
                    let error = printed.unwrap_or_default();
                    prop_assert!(
                        error["code"].as_u64().is_some_and(|code| code > 0 && code != 999),
                        "{:?}",
                        output
                    );
                    prop_assert!(error["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{:?}", output);
                    let version = error["cniVersion"].as_str().unwrap_or_default();
                    prop_assert!(version.parse::<weft_cni_spec::Version>().is_ok(), "{:?}", output);
                }
                None => prop_assert!(false, "{:?}", output),
            }
            Ok(())
        })
        .unwrap();
}
