//! Load balancer addresses on a link of real kernels: nodes that answer, and a client whose kernel asks. Runs
//! as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use weft_announce::bfd::service::Bfd;
use weft_announce::l2::plan::{Candidates, Plan};
use weft_announce::l2::service::{L2, PeerNode, Wanted};
use weft_netlink::netns::Namespace;
use weft_testkit::namespace::{bare_end, cable, end, machine, sh};
use weft_testkit::wait::{eventually, eventually_ok};

const ADDRESSES: [&str; 2] = ["192.0.2.100", "2001:db8::100"];

/// Nodes and a client, each with a cable to one switch.
struct World {
    switch: Namespace,
    client: Namespace,
    nodes: Vec<Namespace>,
}

/// A node's agent, as far as it is about this.
struct Agent {
    number: usize,
    l2: L2,
    bfd: Arc<Bfd>,
}

fn own(number: usize) -> Vec<IpAddr> {
    [format!("192.0.2.{number}"), format!("2001:db8::{number}")]
        .iter()
        .map(|it| it.parse().unwrap())
        .collect()
}

fn name(number: usize) -> Arc<str> {
    format!("node{number}").into()
}

/// The Ethernet address of a machine's interface.
fn mac(machine: &Namespace) -> String {
    let shown = sh(machine, "ip -o link show dev eth0");
    shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().to_owned()
}

impl World {
    fn new(count: usize) -> World {
        let [switch, client] = [(); 2].map(|()| machine());
        sh(&switch, "ip link add switch type bridge && ip link set switch up");
        let plug = |machine: &Namespace, port: &str, addresses: &[String]| {
            cable(&end(machine, "eth0", addresses), &bare_end(&switch, port));
            sh(&switch, &format!("ip link set {port} master switch"));
        };
        plug(&client, "client", &["192.0.2.200/24".into(), "2001:db8::200/64".into()]);
        let nodes = (1..=count)
            .map(|number| {
                let node = machine();
                plug(
                    &node,
                    &format!("node{number}"),
                    &[format!("192.0.2.{number}/24"), format!("2001:db8::{number}/64")],
                );
                node
            })
            .collect();
        World { switch, client, nodes }
    }

    fn agent(&self, number: usize) -> Agent {
        let start = || {
            let bfd = Arc::new(Bfd::start().unwrap());
            let l2 = L2::start(bfd.clone()).unwrap();
            Agent { number, l2, bfd }
        };
        self.nodes[number - 1].run(start).unwrap()
    }

    fn mac(&self, number: usize) -> String {
        mac(&self.nodes[number - 1])
    }

    /// Whom the client would send to, as far as it knows.
    fn known(&self, address: &str) -> Option<String> {
        let shown = sh(&self.client, &format!("ip neigh show {address} dev eth0"));
        let mut words = shown.split_whitespace().skip_while(|word| *word != "lladdr");
        words.nth(1).filter(|_| !shown.contains("FAILED")).map(str::to_owned)
    }

    /// Has the client ask for an address that it does not know, and tells who answered.
    fn asked(&self, address: &str) -> Option<String> {
        sh(&self.client, &format!("ip neigh del {address} dev eth0 || true"));
        self.send(address);
        eventually_ok("somebody answers, or the kernel gives up", || match self.known(address) {
            Some(mac) => Ok(Some(mac)),
            None => {
                let shown = sh(&self.client, &format!("ip neigh show {address} dev eth0"));
                if shown.contains("FAILED") { Ok(None) } else { Err(shown) }
            }
        })
    }

    fn send(&self, address: &str) {
        let to: IpAddr = address.parse().unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let _ = self.client.run(|| UdpSocket::bind(any).unwrap().send_to(b"x", (to, 9))).unwrap();
    }
}

impl Agent {
    /// Goes by this order of nodes for all addresses; those of `ready` are so by their Nodes.
    fn set(&self, order: &[usize], ready: &[usize]) {
        let candidates = Candidates { nodes: order.iter().map(|it| name(*it)).collect(), interfaces: None };
        let addresses = ADDRESSES.iter().map(|it| (it.parse().unwrap(), candidates.clone())).collect();
        let others = order.iter().filter(|it| **it != self.number);
        let peers = others
            .map(|it| (name(*it), PeerNode { addresses: own(*it), is_ready: ready.contains(it) }))
            .collect();
        self.l2.set(Wanted {
            node: name(self.number).to_string(),
            addresses: own(self.number),
            plan: Plan { addresses, ..Plan::default() },
            peers,
            interfaces: None,
        });
    }

    fn has_all(&self) -> bool {
        self.l2.report().ours.len() == ADDRESSES.len()
    }
}

#[test]
fn a_client_s_kernel_finds_the_node_and_nobody_once_it_is_gone() {
    let world = World::new(1);
    let agent = world.agent(1);
    agent.set(&[1], &[]);
    for address in ADDRESSES {
        eventually(format!("{address} is answered"), || world.asked(address) == Some(world.mac(1)));
        // A neighbour that checks whether the address is still there asks the node alone.
        sh(&world.client, &format!("ip neigh change {address} lladdr {} dev eth0 nud probe", world.mac(1)));
        eventually("who checks is answered", || {
            sh(&world.client, &format!("ip neigh show {address}")).contains("REACHABLE")
        });
    }
    assert_eq!(world.asked("192.0.2.101"), None, "nobody has this one");
    assert_eq!(agent.l2.report().problems, [].into());
    assert!(agent.l2.counters().answers.load(Ordering::Relaxed) >= 4);
    let own = sh(&world.nodes[0], "ip address");
    assert!(!ADDRESSES.iter().any(|address| own.contains(address)), "none is on an interface: {own}");
    drop(agent);
    ADDRESSES.iter().for_each(|address| assert_eq!(world.asked(address), None, "{address}"));
}

#[test]
fn when_a_node_falls_silent_another_answers_and_tells_and_gives_back_what_is_the_first_one_s() {
    let world = World::new(2);
    let agents = [world.agent(1), world.agent(2)];
    agents.iter().for_each(|agent| agent.set(&[1, 2], &[1, 2]));
    eventually("the first has them", || agents[0].has_all());
    for address in ADDRESSES {
        eventually("it is answered", || world.asked(address) == Some(world.mac(1)));
    }
    assert!(agents[1].l2.report().ours.is_empty());

    // Its cable is pulled at the switch; the agent and its Node know nothing of it.
    sh(&world.switch, "ip link set node1 down");
    let silent = Instant::now();
    for address in ADDRESSES {
        eventually(format!("{address} is the second node's for the client, unasked"), || {
            world.known(address) == Some(world.mac(2))
        });
    }
    println!("another node answers after {:?}", silent.elapsed());

    // It lived on and still has the addresses, and so has to tell everybody when it is heard again.
    sh(&world.switch, "ip link set node1 up");
    for address in ADDRESSES {
        eventually(format!("{address} is the first node's again"), || {
            world.known(address) == Some(world.mac(1))
        });
    }
    eventually("the second let go", || agents[1].l2.report().ours.is_empty());
    eventually("and nothing is wrong", || agents.iter().all(|agent| agent.l2.report().problems.is_empty()));
}

#[test]
fn a_node_that_ends_is_left_at_once_and_one_that_comes_waits_for_the_others() {
    let world = World::new(2);
    let first = world.agent(1);
    let second = world.agent(2);
    [&first, &second].iter().for_each(|agent| agent.set(&[1, 2], &[1, 2]));
    eventually("the first has them", || first.has_all());
    eventually("the second knows", || second.l2.report().holders.values().all(|it| *it == Some(name(1))));
    drop(first);
    eventually("the second has them", || second.has_all());
    let again = world.agent(1);
    again.set(&[1, 2], &[1, 2]);
    eventually("the first has them again", || again.has_all() && second.l2.report().ours.is_empty());
    assert_eq!((again.bfd.problem(), again.l2.report().problems), (None, [].into()));
}

#[test]
fn a_node_whose_agent_does_not_run_gets_no_address_though_its_node_is_ready() {
    let world = World::new(2);
    let second = world.agent(2);
    second.set(&[1, 2], &[1, 2]);
    eventually("the second has them", || second.has_all());
}

#[test]
fn another_ethernet_address_is_told_and_an_interface_that_is_down_is_left() {
    let world = World::new(2);
    let agents = [world.agent(1), world.agent(2)];
    agents.iter().for_each(|agent| agent.set(&[1, 2], &[1, 2]));
    eventually("the first has them", || agents[0].has_all());
    for address in ADDRESSES {
        eventually("it is answered", || world.asked(address) == Some(world.mac(1)));
    }
    sh(&world.nodes[0], "ip link set eth0 address 02:00:00:00:00:99");
    for address in ADDRESSES {
        eventually("the new one is known, unasked", || {
            world.known(address).as_deref() == Some("02:00:00:00:00:99")
        });
    }
    sh(&world.nodes[0], "ip link set eth0 down");
    eventually("the second has them", || agents[1].has_all());
}

#[test]
fn a_machine_that_claims_the_address_is_named() {
    let world = World::new(1);
    let agent = world.agent(1);
    agent.set(&[1], &[]);
    eventually("it is answered", || world.asked(ADDRESSES[0]) == Some(world.mac(1)));
    let by = mac(&world.client);
    sh(&world.client, "ip address add 192.0.2.100/24 dev eth0");
    // It asks in the name of the address, as it does before it sends from it.
    eventually("it is named", || {
        let to_node = || UdpSocket::bind("192.0.2.100:0").unwrap().send_to(b"x", ("192.0.2.77", 9));
        let _ = world.client.run(to_node).unwrap();
        agent
            .l2
            .report()
            .problems
            .iter()
            .any(|problem| problem.contains(&by) && problem.contains("192.0.2.100"))
    });
}
