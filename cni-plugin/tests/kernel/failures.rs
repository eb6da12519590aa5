//! ADD where something goes wrong, or much happens at once: nothing stays, nothing is given twice.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};
use weft_netlink::rtnl::{Bridge, RtnetlinkClient};

use crate::node::{Node, address, answer};

#[test]
fn an_add_that_fails_late_leaves_nothing() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24"]);
    // The very last step: a route whose next hop is on no link.
    config["ipam"]["routes"] = json!([{"dst": "10.9.0.0/16", "gw": "192.0.2.1"}]);
    let pod = node.pod("c1");
    let error = node.call("ADD", &pod, &config).unwrap_err();
    assert_eq!(error["code"], 101);
    let msg = error["msg"].as_str().unwrap();
    assert!(msg.starts_with("cannot add route 10.9.0.0/16 via 192.0.2.1"), "{msg}");
    assert_eq!(pod.link(), None);
    assert!(node.veths().is_empty() && node.reserved().is_empty());
    config["ipam"]["routes"] = json!([]);
    node.add(&pod, &config);
}

#[test]
fn an_interface_that_exists_is_an_error_and_stays() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24"]);
    let pod = node.pod("c1");
    pod.route().add_bridge(&Bridge { name: "eth0".into(), mac: None, mtu: None }).unwrap();
    let error = node.call("ADD", &pod, &config).unwrap_err();
    assert_eq!(error["msg"], "CNI_IFNAME: container c1 already has an interface eth0");
    assert!(pod.link().is_some_and(|link| link.kind.as_deref() == Some("bridge")));
    assert!(node.veths().is_empty() && node.reserved().is_empty());
}

#[test]
fn a_second_add_is_an_error_and_the_first_stays() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24"]);
    let pod = node.pod("c1");
    node.add(&pod, &config);
    assert!(node.call("ADD", &pod, &config).is_err());
    assert!(pod.link().is_some());
    assert_eq!((node.veths().len(), node.reserved().len()), (1, 1));
}

#[test]
fn the_plugins_own_namespace_is_refused_before_anything_is_done() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24"]);
    let program = env!("CARGO_BIN_EXE_weft-cni");
    for command in ["ADD", "DEL"] {
        let error =
            answer(node.spawn_program(program, command, "c1", "/proc/self/ns/net", &config)).unwrap_err();
        assert_eq!(error["code"], 8, "{error}");
    }
    assert!(!node.links().iter().any(|link| link.name == "cni0"));
    assert!(node.reserved().is_empty());
}

#[test]
fn a_missing_namespace_is_a_clear_error() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24"]);
    let mut pod = node.pod("c1");
    pod.vanish();
    let error = node.call("ADD", &pod, &config).unwrap_err();
    assert_eq!(error["code"], 4);
    let msg = error["msg"].as_str().unwrap();
    assert!(msg.contains(&*pod.netns.to_string_lossy()), "{msg}");
    assert!(node.reserved().is_empty());
}

#[test]
fn clear_errors_for_configurations_that_cannot_work() {
    let node = Node::new();
    let pod = node.pod("c1");
    let error = |change: &dyn Fn(&mut Value)| {
        let mut config = node.config(&["10.244.1.0/30"]);
        change(&mut config);
        let error = node.call("ADD", &pod, &config).unwrap_err();
        (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
    };
    let foreign = error(&|config| config["ipam"]["type"] = "whereabouts".into());
    assert_eq!(foreign, (4, "network weft: no IPAM plugin \"whereabouts\" in CNI_PATH".into()));
    let (code, msg) = error(&|config| config["ipam"]["ranges"] = json!([[{"subnet": "10.244.1.0/33"}]]));
    assert!(code == 6 && msg.contains("ranges[0][0].subnet"), "{msg}");
    let (code, msg) = error(&|config| config["ipam"]["ranges"] = json!([]));
    assert_eq!((code, msg.as_str()), (7, "network weft: ipam.ranges: no IP ranges specified"));
    let (code, _) = error(&|config| config["bridge"] = "lo".into());
    assert_eq!(code, 7);
    node.add(&node.pod("c2"), &node.config(&["10.244.1.0/30"]));
    let (code, msg) = error(&|_| {});
    assert_eq!(
        (code, msg.as_str()),
        (100, "no IP addresses available in range set 10.244.1.1-10.244.1.2 of network weft")
    );
    assert_eq!(node.call("STATUS", &pod, &node.config(&["10.244.1.0/30"])).unwrap_err()["code"], 50);
    assert_eq!(node.call("STATUS", &pod, &node.config(&["10.244.1.0/24"])), Ok(Value::Null));
}

#[test]
fn parallel_adds_and_dels_give_each_pod_its_own_address_and_free_all() {
    let node = Node::new();
    let config = node.config(&["10.244.1.0/24", "fd00:1::/64"]);
    let pods: Vec<_> = (0..30).map(|number| node.pod(&format!("c{number}"))).collect();
    let calls: Vec<_> = pods.iter().map(|pod| node.spawn("ADD", pod, &config)).collect();
    let results: Vec<Value> = calls.into_iter().map(|call| answer(call).unwrap()).collect();
    let given: BTreeSet<IpAddr> =
        results.iter().flat_map(|result| [address(result, 0), address(result, 1)]).collect();
    assert_eq!(given.len(), 2 * pods.len());
    assert_eq!(node.reserved(), given);
    assert_eq!(node.veths().len(), pods.len());
    let calls: Vec<_> = pods.iter().map(|pod| node.spawn("DEL", pod, &config)).collect();
    for call in calls {
        assert_eq!(answer(call), Ok(Value::Null));
    }
    assert!(node.veths().is_empty() && node.reserved().is_empty());
}

/// All system calls of the plugin that change anything which outlives it: messages to the kernel, files,
/// locks, and the end. What a kill at another call leaves is what a kill at the next of these leaves.
const CHANGING: [&str; 9] = [
    "sendto",
    "linkat,link",
    "openat",
    "write",
    "ftruncate",
    "unlink,unlinkat",
    "mkdir,mkdirat,rename,renameat,renameat2",
    "flock",
    "exit_group",
];

/// Kills ADD at its first, second, third ... system call of the kind that changes something, by strace, until
/// one comes through: after a DEL nothing may stay, and another ADD must succeed.
#[test]
fn an_add_killed_at_any_moment_is_undone_by_del() {
    let node = Node::new();
    let config = with_tables(&node);
    let pod = node.pod("c1");
    // The first ADD of a node makes the bridge; the later ones are all alike. `setns` leads into the
    // container and out.
    for call in CHANGING.into_iter().chain(["setns"]) {
        for place in 1.. {
            let inject = format!("inject={call}:signal=SIGKILL:when={place}");
            let killed = killed(&node, "ADD", &pod.netns, &config, &inject);
            node.del(&pod, &config);
            assert_eq!(pod.link(), None, "{inject}");
            assert!(node.veths().is_empty() && node.reserved().is_empty(), "{inject}: {:?}", node.reserved());
            assert_eq!(node.run("nft", &["list", "ruleset"]), "", "{inject}");
            if !killed {
                break;
            }
        }
    }
    node.add(&pod, &config);
}

/// The same where the runtime forgets the container: GC finds all that there is, a veth pair without an alias
/// too.
#[test]
fn an_add_killed_at_any_moment_is_collected() {
    let node = Node::new();
    let (mut config, pod) = (with_tables(&node), node.pod("c1"));
    config["cni.dev/valid-attachments"] = json!([]);
    let mut unnamed = 0;
    for place in 1.. {
        let inject = format!("inject=sendto:signal=SIGKILL:when={place}");
        let killed = killed(&node, "ADD", &pod.netns, &config, &inject);
        let veths = node.links().into_iter().filter(|link| link.kind.as_deref() == Some("veth"));
        unnamed += veths.filter(|link| link.alias.is_none()).count();
        assert_eq!(node.call("GC", &pod, &config), Ok(Value::Null), "{inject}");
        assert_eq!(pod.link(), None, "{inject}");
        assert!(node.veths().is_empty() && node.reserved().is_empty(), "{inject}: {:?}", node.reserved());
        assert_eq!(node.run("nft", &["list", "ruleset"]), "", "{inject}");
        if !killed {
            break;
        }
    }
    assert!(unnamed > 0, "one was killed before it could tell whose the pair is");
}

/// The same with DEL: the runtime calls it again, and then all is gone.
#[test]
fn a_del_killed_at_any_moment_is_finished_by_another() {
    let node = Node::new();
    let mut config = with_tables(&node);
    let (pod, other) = (node.pod("c1"), node.pod("c2"));
    let kept = address(&node.add(&other, &config), 0);
    config["runtimeConfig"]["portMappings"][0]["hostPort"] = 9090.into();
    let rules = node.run("nft", &["list", "ruleset"]);
    for call in CHANGING {
        for place in 1.. {
            let given = address(&node.add(&pod, &config), 0);
            let inject = format!("inject={call}:signal=SIGKILL:when={place}");
            let killed = killed(&node, "DEL", &pod.netns, &config, &inject);
            let reserved = node.reserved();
            assert!(pod.link().is_none() || reserved.contains(&given), "{inject}: an address in use is free");
            node.del(&pod, &config);
            assert_eq!((pod.link(), node.veths().len()), (None, 1), "{inject}");
            assert_eq!(node.reserved().into_iter().collect::<Vec<_>>(), [kept], "{inject}");
            assert_eq!(node.run("nft", &["list", "ruleset"]), rules, "{inject}");
            if !killed {
                break;
            }
        }
    }
}

/// DEL has a process of its own see the link's end through. Where that cannot be had, or is killed before it
/// could do anything, DEL does so itself.
#[test]
fn a_del_without_the_process_that_waits_does_all_the_same() {
    let node = Node::new();
    let config = with_tables(&node);
    let pod = node.pod("c1");
    let cases = ["clone,clone3,fork:error=EAGAIN", "prctl:error=EPERM", "close_range:signal=SIGKILL"];
    for case in cases {
        node.add(&pod, &config);
        let inject = format!("inject={case}:when=1");
        assert!(!killed(&node, "DEL", &pod.netns, &config, &inject), "{case}");
        assert_eq!(pod.link(), None, "{case}");
        assert!(node.veths().is_empty() && node.reserved().is_empty(), "{case}: {:?}", node.reserved());
        assert_eq!(node.run("nft", &["list", "ruleset"]), "", "{case}");
    }
}

/// With everything for which there are tables that all containers share.
fn with_tables(node: &Node) -> Value {
    let mut config = node.config(&["10.244.1.0/24"]);
    config["ipMasq"] = true.into();
    config["runtimeConfig"] = json!({
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000},
    });
    config
}

/// Whether it was killed before it ended by itself.
fn killed(node: &Node, command: &str, netns: &Path, config: &Value, inject: &str) -> bool {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let start = || {
        Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", inject, env!("CARGO_BIN_EXE_weft-cni")])
            .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")])
            .env("CNI_NETNS", netns)
            // With it the loader alone makes some hundred calls.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut child = node.namespace.run(start).unwrap();
    // It may be dead already.
    let _ = child.stdin.take().unwrap().write_all(config.to_string().as_bytes());
    !child.wait().unwrap().success()
}

#[test]
fn version_and_old_versions() {
    let node = Node::new();
    let pod = node.pod("c1");
    let version = node.call("VERSION", &pod, &Value::Null).unwrap();
    assert_eq!(version["supportedVersions"].as_array().unwrap().len(), 7);
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let mut config = node.config(&["10.244.1.0/24"]);
        config["cniVersion"] = version.into();
        let result = node.add(&pod, &config);
        assert_eq!(result["cniVersion"], version);
        let first = if version < "0.3.0" { &result["ip4"]["ip"] } else { &result["ips"][0]["address"] };
        assert!(first.as_str().unwrap().starts_with("10.244.1."), "{result}");
        node.del(&pod, &config);
    }
    // A route client in the test's own namespace sees none of it.
    assert!(RtnetlinkClient::open().unwrap().find_link("cni0").unwrap().is_none());
}
