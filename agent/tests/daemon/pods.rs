//! What running pods rely on and the plugin made: put back, or told of.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Machine, NODES, node};

/// A node with a running pod, and a plugin that puts its bridge back where it may.
fn with_a_pod() -> Machine {
    let mut machine = Machine::new();
    machine.install_plugin();
    let repair = r#"#!/bin/sh
        cat >"$0.config"
        [ -e "$0.may" ] || { echo '{"done": [], "problems": ["the disk is full"]}'; exit; }
        PATH=/usr/sbin:/usr/bin:/sbin:/bin
        exec 2>>"$0.log"
        ip link add cni0 type bridge
        ip link set cni0 up
        ip addr replace 10.244.1.1/24 dev cni0
        ip link set pod up master cni0 && bridge link set dev pod isolated on hairpin off
        nft add table ip weft-cni-hostports
        echo '{"done": ["what was gone"], "problems": []}'"#;
    fs::write(machine.path("bin/repair"), repair).unwrap();
    fs::set_permissions(machine.path("bin/repair"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(machine.path("bin/repair.may"), "").unwrap();
    machine.sh("ip link add cni0 type bridge && ip link set cni0 up && ip addr add 10.244.1.1/24 dev cni0");
    machine.sh(
        "ip link add pod type veth peer name pod-far && ip link set pod up master cni0 alias weft/c1/eth0",
    );
    machine.sh("echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables || true");
    machine.sh("echo 0 >/proc/sys/net/bridge/bridge-nf-call-ip6tables || true");
    machine.sh("bridge link set dev pod isolated on hairpin off && nft add table ip weft-cni-hostports");
    machine.reserve("10.244.1.8", "c1");
    fs::create_dir_all(machine.path("networks/.asked/weft")).unwrap();
    fs::write(machine.path("networks/.asked/weft/pod"), "{}").unwrap();
    machine.server.put(NODES, node(1));
    machine.start();
    machine.until("the configuration", |machine| machine.conflist().exists());
    machine.until("readiness", |machine| machine.ask("/readyz") == ("200".to_owned(), "ok\n".to_owned()));
    machine
}

/// So often that the time would not do for an agent that only looks every few seconds.
#[test]
fn what_running_pods_rely_on_is_put_back_by_notification() {
    let machine = with_a_pod();
    let shape = "(ip -br addr show dev cni0; bridge -d link show dev pod; nft list tables) 2>/dev/null | tr -s ' \n' ' ' || true";
    let is_whole = |machine: &Machine| {
        let shape = machine.sh(shape);
        let words =
            ["UP 10.244.1.1/24", "master cni0", "isolated on", "ip weft-agent", "ip weft-cni-hostports"];
        words.iter().all(|word| shape.contains(word))
    };
    let damages = [
        "ip addr flush dev cni0",
        "ip link set cni0 down",
        "ip link set pod nomaster",
        "ip link set pod down",
        "nft flush ruleset",
        "nft delete table ip weft-cni-hostports",
        "ip link del cni0",
    ];
    machine.sh("ip link set pod-far up");
    machine.until("a whole node", is_whole);
    let start = Instant::now();
    for damage in [damages; 2].concat() {
        machine.sh(damage);
        machine.until(&format!("as before {damage}"), is_whole);
    }
    assert!(start.elapsed() < Duration::from_secs(40), "found by looking, not by being told");
    machine.until("readiness", |machine| machine.ask("/readyz") == ("200".to_owned(), "ok\n".to_owned()));
    assert!(machine.log().contains("put back: what was gone"), "{}", machine.log());
    assert!(!machine.ask("/metrics").1.contains("weft_agent_repairs_total 0\n"));
    let config: Value =
        serde_json::from_slice(&fs::read(machine.path("bin/repair.config")).unwrap()).unwrap();
    assert_eq!((&config["name"], &config["bridge"]), (&json!("weft"), &json!("cni0")));
}

#[test]
fn what_cannot_be_put_back_is_told_by_readyz_and_by_the_plugin() {
    let machine = with_a_pod();
    let unavailable = |machine: &Machine| {
        let conflist: Value = serde_json::from_slice(&fs::read(machine.conflist()).unwrap()).unwrap();
        conflist["plugins"][0]["unavailable"].is_string()
    };
    fs::remove_file(machine.path("bin/repair.may")).unwrap();
    machine.sh("ip addr flush dev cni0");
    machine.until("a word to the plugin", unavailable);
    let (status, body) = machine.ask("/readyz");
    assert!(status == "503" && body.contains("the bridge cni0 lacks the address 10.244.1.1/24"), "{body}");
    assert!(body.contains("cannot put back: the disk is full"), "{body}");
    fs::write(machine.path("bin/repair.may"), "").unwrap();
    machine.until("readiness", |machine| machine.ask("/readyz") == ("200".to_owned(), "ok\n".to_owned()));
    assert!(!unavailable(&machine));
}

#[test]
fn a_node_registered_anew_with_another_range_serves_the_old_ones_pods_until_they_are_gone() {
    let machine = with_a_pod();
    let mut anew = node(1);
    anew["spec"]["podCIDR"] = json!("10.244.9.0/24");
    machine.server.put(NODES, anew);
    let plugin = |machine: &Machine| -> Value {
        let conflist: Value = serde_json::from_slice(&fs::read(machine.conflist()).unwrap()).unwrap();
        conflist["plugins"][0].clone()
    };
    machine.until("the new range", |machine| {
        plugin(machine)["ipam"]["ranges"] == json!([[{"subnet": "10.244.9.0/24"}]])
    });
    assert_eq!(plugin(&machine)["retired"], json!(["10.244.1.0/24"]));
    let masquerades = |machine: &Machine, range: &str| {
        machine.sh("nft list table ip weft-agent").contains(&format!("ip saddr {range} masquerade"))
    };
    assert!(masquerades(&machine, "10.244.1.0/24") && masquerades(&machine, "10.244.9.0/24"));
    let told = |machine: &Machine| {
        machine.ask("/readyz").1.contains("1 running pods of Node node1 have addresses of 10.244.1.0/24")
    };
    machine.until("a word about them", told);
    machine.sh("ip addr del 10.244.1.1/24 dev cni0");
    machine.until("the old gateway put back", |machine| {
        machine.sh("ip addr show dev cni0").contains("10.244.1.1/24")
    });

    machine.sh("ip link del pod");
    machine.until("nothing of the old range", |machine| {
        plugin(machine).get("retired").is_none() && !masquerades(machine, "10.244.1.0/24") && !told(machine)
    });
}
