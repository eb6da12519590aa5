//! Limits of bandwidth: what passes, what `tc` says of it, and what the reference plugin makes of the same
//! limits.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;

use crate::node::{Node, Pod, address, answer};

/// A thousand bytes per second, ten thousand at once.
const SLOW: (u64, u64) = (8_000, 80_000);
/// Datagrams of a burst, and the bytes of each. They fit into a receiver's buffer.
const SENT: usize = 60;
const SIZE: usize = 972;

fn limited(node: &Node, direction: &str) -> Value {
    let mut config = node.config(&["10.244.1.0/24"]);
    let (rate, burst) = SLOW;
    config["runtimeConfig"]["bandwidth"] =
        json!({format!("{direction}Rate"): rate, format!("{direction}Burst"): burst});
    config
}

/// What `tc` says of an interface's root discipline.
fn discipline(namespace: &Namespace, link: &str) -> Value {
    let tc = || std::process::Command::new("tc").args(["-s", "-j", "qdisc", "show", "dev", link]).output();
    let output = namespace.run(tc).unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].clone()
}

/// How many datagrams of a burst arrive before there is a silence. The first may be late: neighbours resolve
/// each other.
fn arriving(from: &Namespace, to: &Namespace, server: SocketAddr) -> usize {
    let receiver = to.run(|| UdpSocket::bind(server)).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let sender = from.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    for _ in 0..SENT {
        sender.send_to(&[7; SIZE], server).unwrap();
    }
    receiver.recv(&mut [0; SIZE]).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    1 + std::iter::from_fn(|| receiver.recv(&mut [0; SIZE]).ok()).count()
}

fn host_end(node: &Node) -> String {
    node.veths().into_iter().next().unwrap()
}

fn check(node: &Node, pod: &Pod, config: &Value, previous: &Value) -> Result<Value, Value> {
    let mut config = config.clone();
    config["prevResult"] = previous.clone();
    node.call("CHECK", pod, &config)
}

#[test]
fn what_a_pod_receives_is_limited_and_what_it_sends_is_not() {
    let node = Node::new();
    let (pod, config) = (node.pod("c1"), limited(&node, "ingress"));
    let result = node.add(&pod, &config);
    let (server, gateway) = (SocketAddr::new(address(&result, 0), 9), "10.244.1.1:9".parse().unwrap());
    assert_eq!(arriving(pod.namespace(), &node.namespace, gateway), SENT);
    let arrived = arriving(&node.namespace, pod.namespace(), server);
    let said = discipline(&node.namespace, &host_end(&node));
    assert!((1..SENT).contains(&arrived), "{arrived} arrived: {said}");
    assert_eq!((&said["kind"], &said["options"]["rate"]), (&json!("tbf"), &json!(1000)));
    let count = |what: &str| said[what].as_u64().unwrap();
    assert!(count("drops") > 0 && count("overlimits") > 0, "{said}");
    assert!(count("packets") < SENT as u64, "{said}");
}

#[test]
fn what_a_pod_sends_is_limited_and_what_it_receives_is_not() {
    let node = Node::new();
    let (pod, config) = (node.pod("c1"), limited(&node, "egress"));
    let result = node.add(&pod, &config);
    let (server, gateway) = (SocketAddr::new(address(&result, 0), 9), "10.244.1.1:9".parse().unwrap());
    assert_eq!(arriving(&node.namespace, pod.namespace(), server), SENT);
    let arrived = arriving(pod.namespace(), &node.namespace, gateway);
    let said = discipline(pod.namespace(), "eth0");
    assert!((1..SENT).contains(&arrived), "{arrived} arrived: {said}");
    assert_eq!((&said["kind"], &said["options"]["rate"]), (&json!("tbf"), &json!(1000)));
    assert!(said["drops"].as_u64().unwrap() > 0, "{said}");
}

#[test]
fn check_names_the_limit_that_is_gone_and_del_leaves_nothing() {
    let node = Node::new();
    let pod = node.pod("c1");
    for (direction, words) in
        [("ingress", "what the container receives"), ("egress", "what the container sends")]
    {
        let config = limited(&node, direction);
        let result = node.add(&pod, &config);
        assert_eq!(check(&node, &pod, &config, &result), Ok(Value::Null));
        let (namespace, link) = match direction {
            "ingress" => (&node.namespace, host_end(&node)),
            _ => (pod.namespace(), "eth0".to_owned()),
        };
        let tc = || std::process::Command::new("tc").args(["qdisc", "del", "dev", &link, "root"]).status();
        assert!(namespace.run(tc).unwrap().unwrap().success());
        let error = check(&node, &pod, &config, &result).unwrap_err();
        assert!(error["code"] == 102 && error["msg"].as_str().unwrap().contains(words), "{error}");
        node.del(&pod, &config);
        assert!(node.veths().is_empty() && pod.link().is_none());
    }
}

/// The same limits by the reference `bandwidth`, after this plugin in the list: what `tc` shows is alike.
/// (What a container sends it redirects to another interface, so there is nothing to compare.)
#[test]
fn the_bucket_is_the_references() {
    let node = Node::new();
    let (pod, plain) = (node.pod("c1"), node.config(&["10.244.1.0/24"]));
    let netns = pod.netns.to_string_lossy().into_owned();
    let shown = || {
        let said = discipline(&node.namespace, &host_end(&node));
        assert_eq!(said["kind"], "tbf");
        ["rate", "burst", "lat"].map(|option| said["options"][option].as_u64().unwrap())
    };
    // The reference tells the burst as a time, and loses a little of it.
    let alike = |ours: u64, theirs: u64| ours.abs_diff(theirs) <= theirs / 10_000;
    for (rate, burst) in [(80_000_000, 8_000_000), (1_000_000_000, u64::from(u32::MAX))] {
        let limits = json!({"ingressRate": rate, "ingressBurst": burst});
        let mut theirs = json!({"cniVersion": "1.0.0", "name": "weft", "type": "bandwidth"});
        theirs["prevResult"] = node.add(&pod, &plain);
        theirs["prevResult"]["cniVersion"] = "1.0.0".into();
        theirs["runtimeConfig"] = json!({ "bandwidth": limits });
        answer(node.spawn_program("/usr/lib/cni/bandwidth", "ADD", "c1", &netns, &theirs)).unwrap();
        let expected = shown();
        node.del(&pod, &plain);
        let mut ours = plain.clone();
        ours["ingressRate"] = limits["ingressRate"].clone();
        ours["ingressBurst"] = limits["ingressBurst"].clone();
        node.add(&pod, &ours);
        let found = shown();
        assert!(
            found.into_iter().zip(expected).all(|(ours, theirs)| alike(ours, theirs)),
            "{found:?} {expected:?}"
        );
        node.del(&pod, &plain);
    }
}
