//! Lists of plugins, called one after the other as libcni does: the reference plugins of package
//! containernetworking-plugins after this one, and this one after another.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::node::{Node, Pod, address, answer, serve, talk};
use crate::outside::{NODE, OUTSIDE, at, outside};

/// All that know prevResult. The reference plugins of Debian 12 know all but the last.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
const SUBNETS: [&str; 2] = ["10.244.1.0/24", "fd00:1::/64"];
/// The folder of the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// A network's list of plugins.
struct Chain<'a> {
    node: &'a Node,
    version: &'a str,
    plugins: Vec<Value>,
    /// The folders in which plugins find programs.
    path: String,
}

impl Chain<'_> {
    /// ADD by all, each with what the one before it told. What the last one tells.
    fn add(&self, pod: &Pod) -> Result<Value, Value> {
        let call = |previous, plugin| self.call("ADD", pod, plugin, &previous);
        self.plugins.iter().try_fold(Value::Null, call)
    }

    /// CHECK by all, where the version has it.
    fn check(&self, pod: &Pod, result: &Value) -> Result<(), Value> {
        let plugins = self.plugins.iter().filter(|_| self.version >= "0.4.0");
        plugins.into_iter().try_for_each(|plugin| self.call("CHECK", pod, plugin, result).map(drop))
    }

    /// DEL by all, the last one first.
    fn del(&self, pod: &Pod, result: &Value) {
        let told = if self.version >= "0.4.0" { result } else { &Value::Null };
        for plugin in self.plugins.iter().rev() {
            assert_eq!(self.call("DEL", pod, plugin, told), Ok(Value::Null), "{}", plugin["type"]);
        }
        assert!(self.node.veths().iter().all(|name| name == "uplink"), "{:?}", self.node.veths());
        assert!(self.node.reserved().is_empty() && pod.link().is_none());
    }

    fn call(&self, command: &str, pod: &Pod, plugin: &Value, previous: &Value) -> Result<Value, Value> {
        let mut config = plugin.clone();
        config["cniVersion"] = self.version.into();
        config["name"] = "weft".into();
        if !previous.is_null() {
            config["prevResult"] = previous.clone();
        }
        let program = match plugin["type"].as_str().unwrap() {
            "weft-cni" => env!("CARGO_BIN_EXE_weft-cni").to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            name => format!("{REFERENCE}/{name}"),
        };
        let netns = pod.netns.to_string_lossy();
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", &pod.id),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", &netns),
            ("CNI_PATH", REFERENCE),
            ("PATH", &self.path),
        ];
        answer(self.node.spawn_in(&program, &variables, config.to_string().as_bytes()))
    }
}

/// This plugin with others after it.
fn followed<'a>(node: &'a Node, version: &'a str, others: &[Value]) -> Chain<'a> {
    let plugins = [&[node.config(&SUBNETS)], others].concat();
    Chain { node, version, plugins, path: "/usr/sbin:/usr/bin:/sbin:/bin".into() }
}

/// The versions that the reference plugins know, too.
fn shared_versions() -> impl Iterator<Item = &'static str> {
    VERSIONS.into_iter().filter(|version| *version < "1.1.0")
}

fn ruleset(node: &Node) -> String {
    node.run("nft", &["list", "ruleset"])
}

fn portmap() -> Value {
    let mapping = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
    json!({"type": "portmap", "snat": true, "runtimeConfig": {"portMappings": [mapping]}})
}

#[test]
fn portmap_leads_to_the_pod_until_it_is_deleted() {
    let node = Node::new();
    let machine = outside(&node);
    for version in shared_versions() {
        let (pod, chain) = (node.pod("c1"), followed(&node, version, &[portmap()]));
        let result = chain.add(&pod).unwrap_or_else(|error| panic!("{version}: {error}"));
        for place in [0, 1] {
            serve(pod.namespace(), SocketAddr::new(address(&result, place), 80));
            let seen = talk(machine.namespace(), at(NODE[place], 8080));
            assert_eq!(seen.unwrap(), at(OUTSIDE[place], 0).ip(), "{version}");
        }
        assert!(ruleset(&node).contains("dport 8080"), "{version}");
        chain.del(&pod, &result);
        assert!(!ruleset(&node).contains("dport 8080"), "{version}");
    }
}

/// The portmap of Debian 12 looks for what it maps among the rules of both families, whichever the address is
/// of, so its CHECK passes only where one of the two programs is missing.
#[test]
fn portmaps_check_passes_and_names_the_rule_that_is_gone() {
    let node = Node::new();
    let programs = node.folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    symlink("/usr/sbin/iptables", programs.join("iptables")).unwrap();
    for version in ["0.4.0", "1.0.0"] {
        let (pod, mut chain) = (node.pod("c1"), followed(&node, version, &[portmap()]));
        chain.path = programs.to_string_lossy().into_owned();
        chain.plugins[0]["ipam"]["ranges"] = json!([[{"subnet": SUBNETS[0]}]]);
        let result = chain.add(&pod).unwrap_or_else(|error| panic!("{version}: {error}"));
        assert_eq!(chain.check(&pod, &result), Ok(()), "{version}");
        node.run("iptables", &["-t", "nat", "-F"]);
        assert!(chain.check(&pod, &result).unwrap_err()["msg"].as_str().unwrap().contains("dnat"));
        chain.del(&pod, &result);
    }
}

#[test]
fn firewall_lets_the_pod_through_a_host_that_forwards_nothing() {
    let node = Node::new();
    let machine = outside(&node);
    let server = at(OUTSIDE[0], 80);
    serve(machine.namespace(), server);
    node.run("iptables", &["-P", "FORWARD", "DROP"]);
    let firewall = json!({"type": "firewall", "backend": "iptables"});
    for version in ["0.4.0", "1.0.0"] {
        let (pod, mut chain) = (node.pod("c1"), followed(&node, version, std::slice::from_ref(&firewall)));
        chain.plugins[0]["ipMasq"] = true.into();
        let result = chain.add(&pod).unwrap_or_else(|error| panic!("{version}: {error}"));
        let seen = talk(pod.namespace(), server).unwrap_or_else(|error| panic!("{version}: {error}"));
        assert_eq!(seen, at(NODE[0], 0).ip(), "{version}");
        assert_eq!(chain.check(&pod, &result), Ok(()), "{version}");
        let own = address(&result, 0).to_string();
        assert!(node.run("iptables", &["-S"]).contains(&own), "{version}");
        chain.del(&pod, &result);
        assert!(!node.run("iptables", &["-S"]).contains(&own), "{version}");
    }
}

#[test]
fn tuning_changes_the_interface_and_check_tolerates_it() {
    let node = Node::new();
    let (mac, tunings) = ("02:00:00:00:00:77", node.folder.path().join("tuning"));
    let tuning = json!({
        "type": "tuning", "mac": mac, "mtu": 1300, "dataDir": tunings,
        "sysctl": {"net.core.somaxconn": "500"},
    });
    for version in shared_versions() {
        let (pod, chain) = (node.pod("c1"), followed(&node, version, std::slice::from_ref(&tuning)));
        let result = chain.add(&pod).unwrap_or_else(|error| panic!("{version}: {error}"));
        let link = pod.link().unwrap();
        assert_eq!((link.mac.unwrap().to_string().as_str(), link.mtu), (mac, 1300), "{version}");
        let told = result["interfaces"].as_array().unwrap().iter().find(|known| known["name"] == "eth0");
        assert_eq!(told.unwrap()["mac"], mac, "{version}");
        assert_eq!(chain.check(&pod, &result), Ok(()), "{version}");
        chain.del(&pod, &result);
        assert_eq!(std::fs::read_dir(&tunings).unwrap().count(), 0, "{version}");
    }
}

/// What a container receives it limits on this plugin's end of the pair.
#[test]
fn bandwidth_limits_what_the_pod_receives() {
    let node = Node::new();
    let limits = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000});
    let bandwidth = json!({"type": "bandwidth", "runtimeConfig": {"bandwidth": limits}});
    for version in shared_versions() {
        let (pod, chain) = (node.pod("c1"), followed(&node, version, std::slice::from_ref(&bandwidth)));
        let result = chain.add(&pod).unwrap_or_else(|error| panic!("{version}: {error}"));
        let near = node.veths().into_iter().next().unwrap();
        assert!(node.run("tc", &["qdisc", "show", "dev", &near]).contains("tbf"), "{version}");
        assert_eq!(chain.check(&pod, &result), Ok(()), "{version}");
        chain.del(&pod, &result);
    }
}

/// What a container sends it limits on an interface of kind `ifb`, which many a kernel has not. There the
/// list fails, and a runtime calls DEL.
#[test]
fn bandwidth_limits_what_the_pod_sends_where_the_kernel_has_ifb() {
    let node = Node::new();
    let limits = json!({"egressRate": 8_000_000, "egressBurst": 800_000});
    let bandwidth = json!({"type": "bandwidth", "runtimeConfig": {"bandwidth": limits}});
    let (pod, chain) = (node.pod("c1"), followed(&node, "1.0.0", &[bandwidth]));
    let try_ifb =
        || std::process::Command::new("ip").args(["link", "add", "ifb-try", "type", "ifb"]).output();
    let has_ifb = node.namespace.run(try_ifb).unwrap().unwrap().status.success();
    match chain.add(&pod) {
        Ok(result) => {
            assert!(has_ifb);
            assert_eq!(chain.check(&pod, &result), Ok(()));
            chain.del(&pod, &result);
        }
        Err(error) => {
            assert!(!has_ifb && error["msg"].as_str().unwrap().contains("not supported"), "{error}");
            chain.del(&pod, &Value::Null);
        }
    }
}

/// Section 2, "ADD": what a plugin before made is passed on, in every version, so that plugins behind
/// understand it.
#[test]
fn prev_result_passes_through_in_every_version() {
    let node = Node::new();
    let own = node.folder.path().join("loopback");
    symlink(env!("CARGO_BIN_EXE_weft-cni"), &own).unwrap();
    for version in VERSIONS {
        passes_through(&node, version, &own);
    }
    for version in shared_versions() {
        passes_through(&node, version, &Path::new(REFERENCE).join("loopback"));
    }
}

fn passes_through(node: &Node, version: &str, loopback: &Path) {
    let mut chain = followed(node, version, &[]);
    chain.plugins.insert(0, json!({ "type": loopback }));
    let pod = node.pod("c1");
    let result = chain.add(&pod).unwrap_or_else(|error| panic!("{version}: {error}"));
    assert_eq!(result["cniVersion"], version);
    let interfaces = result["interfaces"].as_array().unwrap();
    let place = |name: &str| interfaces.iter().position(|interface| interface["name"] == name);
    assert_eq!((place("lo"), place("eth0")), (Some(0), Some(3)), "{version}: {result}");
    let ips = result["ips"].as_array().unwrap();
    for (start, interface, family) in [("127.0.0.1/", 0, "4"), ("10.244.1.", 3, "4"), ("fd00:1::", 3, "6")] {
        let is_wanted = |ip: &&Value| ip["address"].as_str().unwrap().starts_with(start);
        let ip = ips.iter().find(is_wanted).unwrap_or_else(|| panic!("{version}: {result}"));
        let told = if version < "1.0.0" { json!(family) } else { Value::Null };
        assert_eq!((&ip["interface"], &ip["version"]), (&json!(interface), &told), "{version}");
    }
    if version < "1.1.0" {
        // One that changes nothing reads it and tells it again.
        let tuning = json!({"type": "tuning", "dataDir": node.folder.path()});
        let mut again = chain.call("ADD", &pod, &tuning, &result).unwrap();
        again.as_object_mut().unwrap().remove("dns").inspect(|dns| assert_eq!(*dns, json!({}), "{version}"));
        assert_eq!(again, result, "{version}");
    }
    assert_eq!(chain.check(&pod, &result), Ok(()), "{version}");
    chain.del(&pod, &result);
}
