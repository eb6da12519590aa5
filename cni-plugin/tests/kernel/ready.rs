//! STATUS says no where ADD would fail.

use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};

use crate::node::Node;

fn refused(node: &Node, config: &Value, words: &str) {
    let pod = node.pod("c1");
    let error = node.call("STATUS", &pod, config).unwrap_err();
    assert_eq!(error["code"], 50, "{error}");
    assert!(error["msg"].as_str().unwrap().contains(words), "{error}");
    assert!(node.call("ADD", &pod, config).is_err(), "{words}");
    assert!(node.veths().is_empty() && node.reserved().is_empty());
    assert_eq!(node.call("DEL", &pod, config), Ok(Value::Null));
}

fn ready(node: &Node, config: &Value) {
    let pod = node.pod("c1");
    assert_eq!(node.call("STATUS", &pod, config), Ok(Value::Null));
    node.add(&pod, config);
    assert_eq!(node.call("STATUS", &pod, config), Ok(Value::Null));
    node.del(&pod, config);
}

#[test]
fn status_says_no_where_ipv6_is_switched_off_and_pods_would_have_it() {
    let node = Node::new();
    let dual = node.config(&["10.244.1.0/24", "fd00:1::/64"]);
    let set = |name: &str, value: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        node.namespace.run(|| std::fs::write(path, value)).unwrap().unwrap();
    };
    set("all", "1");
    refused(&node, &dual, "disable_ipv6 is 1");
    ready(&node, &node.config(&["10.244.1.0/24"]));
    set("all", "0");
    ready(&node, &dual);
    set("cni0", "1");
    refused(&node, &dual, "conf/cni0/disable_ipv6 is 1");
}

struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(flags: MsFlags, options: &str) -> Mounted {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), folder.path(), Some("tmpfs"), flags, Some(options)).unwrap();
        Mounted(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount(self.0.path());
    }
}

#[test]
fn status_says_no_where_no_reservation_can_be_written() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24"]);
    let read_only = Mounted::new(MsFlags::MS_RDONLY, "size=64k");
    config["ipam"]["dataDir"] = json!(read_only.0.path().join("networks"));
    refused(&node, &config, "Read-only file system");
    let full = Mounted::new(MsFlags::empty(), "size=64k");
    let _ = std::fs::write(full.0.path().join("filling"), vec![0; 1 << 20]);
    config["ipam"]["dataDir"] = json!(full.0.path());
    refused(&node, &config, "no storage space");
}

#[test]
fn status_says_no_where_name_resolution_cannot_be_read() {
    let node = Node::new();
    let mut config = node.config(&["10.244.1.0/24"]);
    config["ipam"]["resolvConf"] = json!(node.folder.path().join("none"));
    refused(&node, &config, "none");
    std::fs::write(node.folder.path().join("none"), "nameserver 10.96.0.10\n").unwrap();
    ready(&node, &config);
}
