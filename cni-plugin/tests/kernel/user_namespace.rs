//! The plugin as root of a user namespace, with all that it can be asked for.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use weft_testkit::rootless::{Pod, Rootless};

use crate::node::{Node, address, answer, serve, talk};

fn call(machine: &Rootless, command: &str, pod: &Pod, config: &Value) -> Result<Value, Value> {
    let mut process = machine.command(env!("CARGO_BIN_EXE_weft-cni"));
    process.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    process.env("CNI_COMMAND", command).env("CNI_NETNS", pod.namespace().path());
    process.env("CNI_CONTAINERID", "c1").env("CNI_IFNAME", "eth0").env("CNI_PATH", "/usr/lib/cni");
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = process.spawn().unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    answer(child)
}

#[test]
fn a_pod_is_attached_and_detached_as_root_of_a_user_namespace_with_every_option() {
    let machine = Rootless::new();
    let node = Node { namespace: machine.namespace(), folder: tempfile::tempdir().unwrap() };
    let mut config = node.config(&["10.244.1.0/24", "fd00:1::/64"]);
    config["ipMasq"] = true.into();
    let mapping = |protocol: &str| json!({"hostPort": 8080, "containerPort": 80, "protocol": protocol});
    config["runtimeConfig"] = json!({
        "portMappings": [mapping("tcp"), mapping("udp")],
        "bandwidth": {
            "ingressRate": 8_000_000, "ingressBurst": 8_000_000,
            "egressRate": 8_000_000, "egressBurst": 8_000_000,
        },
    });
    let pod = machine.pod();
    let result = call(&machine, "ADD", &pod, &config).unwrap();
    for place in [0, 1] {
        let server = SocketAddr::new(address(&result, place), 80);
        serve(&pod.namespace(), server);
        talk(&node.namespace, server).unwrap();
    }
    let mut checked = config.clone();
    checked["prevResult"] = result;
    assert_eq!(call(&machine, "CHECK", &pod, &checked), Ok(Value::Null));
    assert_eq!(call(&machine, "STATUS", &pod, &config), Ok(Value::Null));
    assert_eq!(call(&machine, "DEL", &pod, &config), Ok(Value::Null));
    assert!(node.veths().is_empty() && node.reserved().is_empty());
}
