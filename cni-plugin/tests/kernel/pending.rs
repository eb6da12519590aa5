//! Pods of namespaces with policies start closed, until the agent has answered. Tests play the agent.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_nftables::{Client, Data, Detail, Family, TableKey, Tuple, Value as Key, diff};
use weft_policy::pending::{CHAIN, GuardedNamespaces, PENDING, TABLE, minimal_table};
use weft_policy::ruleset::{Denied, Ruleset, adopt};
use weft_testkit::rootless::Rootless;

use crate::node::{Node, Pod, address, answer, serve, talk};
use crate::outside::{NODE, OUTSIDE, ask, at, outside, serve_udp, udp_client};
use crate::repair::repair;

const SUBNETS: [&str; 2] = ["10.244.1.0/24", "fd00:1::/64"];
/// As containerd has it.
const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c1;\
                    K8S_POD_UID=0a1b2c3d";
/// What ADD notes with each address of that pod.
const WEB: &str = "shop/web/0a1b2c3d";
/// The second word of families' tables.
const FAMILIES: [&str; 2] = ["ip", "ip6"];

/// The agent's configuration, and its word of which namespaces have policies.
fn guarded(node: &Node, namespaces: &[&str], timeout: u32) -> Value {
    let mut config = node.config(&SUBNETS);
    config["policyTimeout"] = timeout.into();
    let every = namespaces.contains(&"*");
    let names = namespaces.iter().filter(|name| **name != "*").map(|name| (*name).to_owned()).collect();
    let path = GuardedNamespaces::path(&node.folder.path().join("data"));
    GuardedNamespaces { every, names }.write(&path).unwrap();
    config
}

fn spawn(node: &Node, command: &str, pod: &Pod, args: &str, config: &Value) -> Child {
    let netns = pod.netns.to_string_lossy();
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", &pod.id),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", &netns),
        ("CNI_PATH", "/usr/lib/cni"),
        ("CNI_ARGS", args),
    ];
    node.spawn_in(env!("CARGO_BIN_EXE_weft-cni"), &variables, config.to_string().as_bytes())
}

fn add(node: &Node, pod: &Pod, config: &Value) -> Value {
    answer(spawn(node, "ADD", pod, ARGS, config)).unwrap_or_else(|error| panic!("ADD {}: {error}", pod.id))
}

/// The addresses that are closed, each with its note.
fn pending(node: &Node) -> Vec<(IpAddr, String)> {
    node.namespace
        .run(|| {
            let keys = keys();
            let observed = Client::open().unwrap().observe(&keys).unwrap();
            weft_policy::ruleset::adopt::pending(&observed)
        })
        .unwrap()
}

fn keys() -> [TableKey; 2] {
    Family::BOTH.map(|family| minimal_table(family).key())
}

/// What the agent does once it has the pod's rows in.
fn open(node: &Node, addresses: impl IntoIterator<Item = IpAddr>) {
    for address in addresses {
        let family = FAMILIES[usize::from(address.is_ipv6())];
        node.run("nft", &[&format!("delete element {family} {TABLE} {PENDING} {{ {address} }}")]);
    }
}

fn until<T>(what: &str, condition: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match condition() {
            Some(found) => return found,
            None => assert!(Instant::now() < deadline, "{what}"),
        }
        std::thread::yield_now();
    }
}

/// Who gets datagrams and answers none.
fn listen(namespace: &Namespace, address: SocketAddr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// A way for datagrams. What goes it is received in order.
struct Way {
    name: &'static str,
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Way {
    fn new(
        name: &'static str,
        from: &Namespace,
        to: &Namespace,
        port: SocketAddr,
        listener: SocketAddr,
    ) -> Way {
        Way { name, receiver: listen(to, listener), sender: udp_client(from, port) }
    }

    fn send(&self, text: &str) {
        self.sender.send(text.as_bytes()).unwrap();
    }

    /// Nothing arrives but what is sent from now on.
    fn has_let_nothing_through(&self) {
        self.send("late");
        let mut buffer = [0; 16];
        let length = self.receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        assert_eq!(&buffer[..length], b"late", "{}", self.name);
    }

    fn is_closed(&self) {
        self.send("early");
        self.receiver.set_nonblocking(true).unwrap();
        let error = self.receiver.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{}", self.name);
        self.receiver.set_nonblocking(false).unwrap();
    }
}

#[test]
fn a_pod_of_a_namespace_with_policies_neither_sends_nor_is_reached_until_the_agent_answers() {
    let node = Node::new();
    let machine = outside(&node);
    // ADD ends because it is answered.
    let mut config = guarded(&node, &["shop"], 3600);
    let mapping = json!({"hostPort": 8080, "containerPort": 81, "protocol": "udp"});
    config["runtimeConfig"] = json!({ "portMappings": [mapping] });
    let pod = node.pod("c1");
    let waiting = spawn(&node, "ADD", &pod, ARGS, &config);
    until("host ports, which come last", || {
        node.run("nft", &["list", "ruleset"]).contains("weft-cni-hostports").then_some(())
    });
    let held = until("both addresses are closed", || Some(pending(&node)).filter(|held| held.len() == 2));
    assert!(held.iter().all(|(_, note)| note == WEB), "{held:?}");
    let mut ways = Vec::new();
    for (place, (address, _)) in held.iter().enumerate() {
        assert_eq!(address.is_ipv6(), place == 1);
        let (inside, gateway) = (pod.namespace(), at(["10.244.1.1", "fd00:1::1"][place], 4000));
        // The node's own way is open, and afterwards all know their neighbours.
        serve_udp(&node.namespace, gateway, "node");
        ask(&udp_client(inside, gateway)).unwrap();
        serve_udp(&node.namespace, at(NODE[place], 4000), "node");
        ask(&udp_client(machine.namespace(), at(NODE[place], 4000))).unwrap();
        let route = ["route", "add", SUBNETS[place], "via", NODE[place]];
        let status = machine.namespace().run(|| Command::new("ip").args(route).status());
        assert!(status.unwrap().unwrap().success());
        let (port, outer) = (SocketAddr::new(*address, 80), at(OUTSIDE[place], 80));
        ways.extend([
            Way::new("out", inside, machine.namespace(), outer, outer),
            Way::new("in", machine.namespace(), inside, port, port),
            Way::new(
                "by a port of the host",
                machine.namespace(),
                inside,
                at(NODE[place], 8080),
                SocketAddr::new(*address, 81),
            ),
        ]);
    }
    ways.iter().for_each(Way::is_closed);
    for (place, (address, _)) in held.iter().enumerate() {
        // What was sent before has gone its way by now.
        ask(&udp_client(pod.namespace(), at(["10.244.1.1", "fd00:1::1"][place], 4000))).unwrap();
        ask(&udp_client(machine.namespace(), at(NODE[place], 4000))).unwrap();
        open(&node, [*address]);
    }
    let result = answer(waiting).unwrap();
    assert_eq!(
        held.iter().map(|(address, _)| *address).collect::<Vec<_>>(),
        [address(&result, 0), address(&result, 1)]
    );
    ways.iter().for_each(Way::has_let_nothing_through);
}

#[test]
fn without_an_answer_add_succeeds_after_the_bound_says_so_and_the_pod_stays_closed() {
    for timeout in [1, 0] {
        let node = Node::new();
        let config = guarded(&node, &["shop"], timeout);
        let pod = node.pod("c1");
        let output = spawn(&node, "ADD", &pod, ARGS, &config).wait_with_output().unwrap();
        assert!(output.status.success());
        let told = String::from_utf8(output.stderr).unwrap();
        let expected = "weft-cni: pod shop/web stays closed until weft-agent has read its policies: there was no answer \
                        within 1 s\n";
        assert_eq!(told, if timeout == 0 { "" } else { expected });
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        let held: Vec<IpAddr> = pending(&node).into_iter().map(|(address, _)| address).collect();
        assert_eq!(held, [address(&result, 0), address(&result, 1)]);
        let mut checked = config.clone();
        checked["prevResult"] = result;
        assert_eq!(answer(spawn(&node, "CHECK", &pod, ARGS, &checked)), Ok(Value::Null));
        node.del(&pod, &config);
        assert_eq!(pending(&node), []);
        node.del(&pod, &config);
    }
}

#[test]
fn where_no_policy_may_select_it_a_pod_is_open_at_once() {
    let none: &[&str] = &[];
    let podman = "IgnoreUnknown=1;K8S_POD_NAME=web";
    for (namespaces, args) in [(none, ARGS), (&["other"], ARGS), (&["*"], podman), (&["*"], "")] {
        let node = Node::new();
        let config = guarded(&node, namespaces, 3600);
        let (one, two) = (node.pod("c1"), node.pod("c2"));
        let results = [&one, &two].map(|pod| answer(spawn(&node, "ADD", pod, args, &config)).unwrap());
        assert_eq!(node.run("nft", &["list", "ruleset"]), "", "{namespaces:?} {args}");
        for place in [0, 1] {
            let server = SocketAddr::new(address(&results[0], place), 80);
            serve(one.namespace(), server);
            talk(two.namespace(), server).unwrap();
        }
    }
}

#[test]
fn a_policy_for_every_namespace_closes_those_that_nobody_named() {
    let node = Node::new();
    let config = guarded(&node, &["*"], 0);
    add(&node, &node.pod("c1"), &config);
    assert_eq!(pending(&node).len(), 2);
}

#[test]
fn a_list_of_namespaces_that_cannot_be_read_closes_the_door() {
    let node = Node::new();
    let config = guarded(&node, &["shop"], 0);
    let path = GuardedNamespaces::path(&node.folder.path().join("data"));
    fs::write(&path, [0xff]).unwrap();
    let pod = node.pod("c1");
    let error = answer(spawn(&node, "ADD", &pod, ARGS, &config)).unwrap_err();
    assert_eq!(error["code"], 5);
    let msg = error["msg"].as_str().unwrap();
    assert!(msg.contains(&*path.to_string_lossy()), "{msg}");
    assert!(node.veths().is_empty() && node.reserved().is_empty());
}

/// The agent takes over what the plugin made: nothing is built anew, and nobody is opened by it.
#[test]
fn the_table_that_the_plugin_makes_is_the_one_that_the_agent_declares() {
    let node = Node::new();
    let config = guarded(&node, &["shop"], 0);
    add(&node, &node.pod("c1"), &config);
    let held = pending(&node);
    node.namespace
        .run(|| {
            let mut client = Client::open().unwrap();
            let observed = client.observe(&keys()).unwrap();
            let mut tables = Family::BOTH.map(minimal_table);
            for (address, note) in &held {
                let set = tables[usize::from(address.is_ipv6())].sets.get_mut(PENDING).unwrap();
                let key = Tuple::new(&[Key::Address(*address)]);
                set.elements.insert(key.clone(), Data::None);
                let comment = Some(note.as_str().into());
                set.details.insert(key, Detail { comment, timeout: None });
            }
            assert_eq!(diff(&tables, &observed).to_string(), "");
            let mut ruleset = Ruleset::new(Denied::default());
            ruleset.set_pending(&adopt::pending(&observed));
            let change = diff(ruleset.tables(), &observed);
            let text = change.to_string();
            assert!(
                !text.contains("delete") && !text.contains(&format!("element ip {TABLE} {PENDING}")),
                "{text}"
            );
            client.commit(&change).unwrap();
        })
        .unwrap();
    assert_eq!(pending(&node), held);
    // The next pod finds the whole table.
    let rules = node.run("nft", &["-s", "list", "chain", "ip", TABLE, CHAIN]);
    add(&node, &node.pod("c2"), &config);
    assert_eq!(pending(&node).len(), 4);
    assert_eq!(node.run("nft", &["-s", "list", "chain", "ip", TABLE, CHAIN]), rules);
}

#[test]
fn an_add_that_fails_takes_nobody_into_the_set() {
    let node = Node::new();
    let mut config = guarded(&node, &["shop"], 0);
    config["ipam"]["routes"] = json!([{"dst": "10.9.0.0/16", "gw": "192.0.2.1"}]);
    let error = answer(spawn(&node, "ADD", &node.pod("c1"), ARGS, &config)).unwrap_err();
    assert_eq!(error["code"], 101);
    assert_eq!(pending(&node), []);
}

#[test]
fn what_an_earlier_pod_left_gets_the_name_of_the_next() {
    let node = Node::new();
    let config = guarded(&node, &["shop"], 0);
    let pod = node.pod("c1");
    let given = address(&add(&node, &pod, &config), 0);
    node.del(&pod, &config);
    node.run("nft", &[&format!("add element ip {TABLE} {PENDING} {{ {given} comment \"old/one/1\" }}")]);
    let mut config = config;
    config["runtimeConfig"] = json!({"ips": [given.to_string()]});
    add(&node, &node.pod("c2"), &config);
    assert!(pending(&node).contains(&(given, WEB.to_owned())), "{:?}", pending(&node));
}

#[test]
fn a_second_del_does_not_open_the_pod_that_has_the_address_now() {
    let node = Node::new();
    let mut config = guarded(&node, &["shop"], 0);
    let (one, two) = (node.pod("c1"), node.pod("c2"));
    let result = add(&node, &one, &config);
    node.del(&one, &config);
    config["runtimeConfig"] =
        json!({"ips": [address(&result, 0).to_string(), address(&result, 1).to_string()]});
    add(&node, &two, &config);
    config["prevResult"] = result;
    node.del(&one, &config);
    assert_eq!(pending(&node).len(), 2);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "c2", "ifname": "eth0"}]);
    assert_eq!(node.call("GC", &two, &config), Ok(Value::Null));
    assert_eq!(pending(&node).len(), 2, "the runtime knows it");
}

/// Debian's containernetworking-plugins has an IPAM plugin `static`.
#[test]
fn addresses_of_another_ipam_plugin_are_closed_and_opened_too() {
    let node = Node::new();
    let mut config = guarded(&node, &["shop"], 0);
    let static_one = json!({"address": "10.244.9.9/24", "gateway": "10.244.9.1"});
    let data_dir = config["ipam"]["dataDir"].clone();
    config["ipam"] = json!({"type": "static", "dataDir": data_dir, "addresses": [static_one]});
    let pod = node.pod("c1");
    config["cniVersion"] = "1.0.0".into();
    config["prevResult"] = add(&node, &pod, &config);
    assert_eq!(pending(&node), [(address(&config["prevResult"], 0), WEB.to_owned())]);
    node.del(&pod, &config);
    assert_eq!(pending(&node), []);
}

#[test]
fn a_repair_closes_nobody_again() {
    let node = Node::new();
    let config = guarded(&node, &["shop"], 0);
    let pod = node.pod("c1");
    add(&node, &pod, &config);
    open(&node, pending(&node).into_iter().map(|(address, _)| address));
    node.run("ip", &["link", "delete", "cni0"]);
    assert_ne!(repair(&node, &config), Vec::<String>::new());
    assert_eq!(pending(&node), []);
}

/// Whether it was killed before it ended by itself.
fn killed(node: &Node, netns: &Path, config: &Value, place: u32) -> bool {
    let inject = format!("inject=sendto:signal=SIGKILL:when={place}");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &inject, env!("CARGO_BIN_EXE_weft-cni")]);
    command.envs([
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", ARGS),
    ]);
    command.env("CNI_NETNS", netns).env_remove("LD_LIBRARY_PATH");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = node.namespace.run(|| command.spawn()).unwrap().unwrap();
    // It may be dead already.
    let _ = child.stdin.take().unwrap().write_all(config.to_string().as_bytes());
    !child.wait().unwrap().success()
}

#[test]
fn an_add_killed_at_any_moment_leaves_nobody_open_and_del_or_gc_takes_all_away() {
    let node = Node::new();
    let mut config = guarded(&node, &["shop"], 0);
    config["cni.dev/valid-attachments"] = json!([]);
    let pod = node.pod("c1");
    let mut closed = 0;
    for place in 1.. {
        let killed = killed(&node, &pod.netns, &config, place);
        let held: BTreeSet<IpAddr> = pending(&node).into_iter().map(|(address, _)| address).collect();
        closed += usize::from(!held.is_empty());
        if pod.link().is_some() {
            assert_eq!(held, node.reserved(), "killed at {place}: whoever has a link is closed");
        }
        match place % 2 {
            0 => node.del(&pod, &config),
            _ => assert_eq!(node.call("GC", &pod, &config), Ok(Value::Null)),
        }
        assert_eq!(pending(&node), [], "killed at {place}");
        assert!(node.veths().is_empty() && node.reserved().is_empty(), "killed at {place}");
        if !killed {
            break;
        }
    }
    assert!(closed > 5, "{closed}");
}

#[test]
fn a_pod_waits_as_root_of_a_user_namespace_too() {
    let machine = Rootless::new();
    let node = Node { namespace: machine.namespace(), folder: tempfile::tempdir().unwrap() };
    let config = guarded(&node, &["shop"], 0);
    let pod = machine.pod();
    let call = |command: &str| {
        let mut process = machine.command(env!("CARGO_BIN_EXE_weft-cni"));
        process.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("CNI_ARGS", ARGS);
        process.env("CNI_COMMAND", command).env("CNI_NETNS", pod.namespace().path());
        process.env("CNI_CONTAINERID", "c1").env("CNI_IFNAME", "eth0").env("CNI_PATH", "/usr/lib/cni");
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = process.spawn().unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        answer(child).unwrap()
    };
    let result = call("ADD");
    let held: Vec<IpAddr> = pending(&node).into_iter().map(|(address, _)| address).collect();
    assert_eq!(held, [address(&result, 0), address(&result, 1)]);
    call("DEL");
    assert_eq!(pending(&node), []);
}
