//! Three nodes on two links with a router between them, each with a pod: direct on the link, through the tunnel
//! to the other one, and a node that moves between them.

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_testkit::namespace::{bare_end, cable, end, forward, machine, route_by, sh, sh_output};
use weft_testkit::wait::eventually;

use crate::{Machine, NODES};

/// A node, with the pod that it has.
struct Site {
    machine: Machine,
    pod: Namespace,
    number: u8,
}

struct World {
    sites: Vec<Site>,
    /// Router and switches.
    router: Namespace,
}

fn addresses(segment: u8, number: u8) -> [String; 2] {
    [format!("172.30.{segment}.1{number}"), format!("fd00:30:{segment}::1{number}")]
}

fn with_prefixes(segment: u8, number: u8) -> [String; 2] {
    let [v4, v6] = addresses(segment, number);
    [v4 + "/24", v6 + "/64"]
}

fn node(segment: u8, number: u8) -> Value {
    let addresses = addresses(segment, number).map(|it| json!({"type": "InternalIP", "address": it}));
    json!({
        "metadata": {"name": format!("node{number}")},
        "spec": {"podCIDRs": [format!("10.244.{number}.0/24"), format!("fd00:10:{number}::/64")]},
        "status": {"addresses": addresses},
    })
}

/// Where the default route of a link's nodes leads, which knows nothing of pods.
fn routers(segment: u8) -> [String; 2] {
    [format!("172.30.{segment}.1"), format!("fd00:30:{segment}::1")]
}

fn pods(number: u8) -> [String; 2] {
    [format!("10.244.{number}.2"), format!("fd00:10:{number}::2")]
}

impl World {
    /// Nodes 1 and 2 are on link 1, node 3 is on link 2.
    fn new() -> World {
        let router = machine();
        forward(&router);
        for segment in [1, 2] {
            let [v4, v6] = routers(segment);
            sh(
                &router,
                &format!(
                    "ip link add link{segment} type bridge && ip link set link{segment} up && ip addr add {v4}/24 dev link{segment} && ip addr add {v6}/64 dev link{segment} nodad"
                ),
            );
        }
        let mut world = World { sites: Vec::new(), router };
        for number in 1..=3 {
            world.sites.push(Site::new(number));
            world.plug(usize::from(number) - 1, if number == 3 { 2 } else { 1 });
        }
        world
    }

    /// Puts a node's cable into a link's switch, and gives it addresses there.
    fn plug(&self, site: usize, segment: u8) {
        let Site { machine, number, .. } = &self.sites[site];
        machine.sh("ip link del uplink 2>/dev/null || true");
        cable(
            &end(&machine.namespace, "uplink", with_prefixes(segment, *number)),
            &bare_end(&self.router, &format!("port{number}")),
        );
        // A machine takes its network card with it.
        machine.sh(&format!("ip link set uplink address 02:00:00:00:00:0{number}"));
        sh(&self.router, &format!("ip link set port{number} master link{segment}"));
        route_by(&machine.namespace, routers(segment));
    }

    /// Everybody hears where a node is.
    fn tell(&self, segment: u8, number: u8) {
        self.sites.iter().for_each(|site| site.machine.server.put(NODES, node(segment, number)));
    }

    /// Waits until a node has routes by that device to another's pods of both families.
    fn until_by(&self, from: u8, to: u8, device: &str) {
        let site = &self.sites[usize::from(from) - 1];
        for pod in pods(to) {
            site.machine.until(&format!("{pod} by {device}"), |machine| {
                let route = machine.sh(&format!("ip route get {pod}"));
                let is_default =
                    [1, 2].map(routers).concat().iter().any(|it| route.contains(&format!("via {it} ")));
                route.contains(&format!("dev {device} ")) && !is_default
            });
        }
    }

    /// Pods of the one node that ask those of the other all the time, in both families.
    fn pinging(&self, from: u8, to: u8) -> [Pinging; 2] {
        pods(to).map(|pod| {
            let mut ping = Command::new("ping");
            ping.args(["-q", "-i", "0.01", &pod]).stdout(Stdio::piped());
            Pinging(Some(self.sites[usize::from(from) - 1].pod.run(|| ping.spawn()).unwrap().unwrap()))
        })
    }

    /// Waits until a node's pod has answers of another's, in both families.
    fn until_reached(&self, from: u8, to: u8) {
        for pod in pods(to) {
            let ping =
                || sh_output(&self.sites[usize::from(from) - 1].pod, &format!("ping -q -c 1 -W 1 {pod}"));
            eventually(format!("an answer of {pod}"), || ping().status.success());
        }
    }
}

/// A `ping` that goes on until it is asked.
struct Pinging(Option<Child>);

impl Pinging {
    /// How many packets went, and how many came back.
    fn counted(mut self) -> (u32, u32) {
        let ping = self.0.take().unwrap();
        kill(Pid::from_raw(ping.id().cast_signed()), Signal::SIGINT).unwrap();
        let told = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
        let line = told.lines().find(|line| line.contains("packets transmitted")).unwrap();
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }
}

impl Drop for Pinging {
    fn drop(&mut self) {
        if let Some(mut ping) = self.0.take() {
            ping.kill().unwrap();
            ping.wait().unwrap();
        }
    }
}

impl Site {
    fn new(number: u8) -> Site {
        let mut machine = Machine::with(weft_testkit::namespace::machine(), None);
        machine.install_plugin();
        machine.backend = "auto";
        machine.flags = &["--cluster-cidr", "fd00:10::/32"];
        machine.name = ["node1", "node2", "node3"][usize::from(number) - 1];
        let pod = weft_testkit::namespace::machine();
        let ends = |host: u8| [format!("10.244.{number}.{host}/24"), format!("fd00:10:{number}::{host}/64")];
        cable(&end(&machine.namespace, "pod", ends(1)), &end(&pod, "eth0", ends(2)));
        route_by(&pod, [format!("10.244.{number}.1"), format!("fd00:10:{number}::1")]);
        for (segment, number) in [(1, 1), (1, 2), (2, 3)] {
            machine.server.put(NODES, node(segment, number));
        }
        Site { machine, pod, number }
    }
}

#[test]
fn a_node_reaches_those_on_its_link_directly_and_the_others_through_the_tunnel() {
    let mut world = World::new();
    world.sites.iter_mut().for_each(|site| site.machine.start());
    world.until_by(1, 2, "uplink");
    world.until_by(2, 1, "uplink");
    for (from, to) in [(1, 3), (2, 3), (3, 1), (3, 2)] {
        world.until_by(from, to, "weft-vxlan");
    }
    for (from, to) in [(1, 2), (1, 3), (2, 3)] {
        world.until_reached(from, to);
    }
    let metrics = world.sites[0].machine.ask("/metrics").1;
    for expected in ["weft_agent_direct_ranges 2\n", "weft_agent_tunnelled_ranges 2\n"] {
        assert!(metrics.contains(expected), "{metrics}");
    }
    let conflist = std::fs::read_to_string(world.sites[0].machine.conflist()).unwrap();
    assert!(conflist.contains("\"mtu\": 1450"), "pods get what fits to every node: {conflist}");
}

#[test]
fn a_node_that_moves_to_another_link_and_back_is_followed_and_no_way_to_it_is_ever_taken_away() {
    let mut world = World::new();
    world.sites.iter_mut().for_each(|site| site.machine.start());
    world.until_by(1, 2, "uplink");
    world.until_by(2, 1, "uplink");
    world.until_by(3, 2, "weft-vxlan");
    let pinging = [world.pinging(1, 2), world.pinging(3, 2)];

    world.plug(1, 2);
    world.tell(2, 2);
    for (from, to, device) in [(1, 2, "weft-vxlan"), (2, 1, "weft-vxlan"), (2, 3, "uplink"), (3, 2, "uplink")]
    {
        world.until_by(from, to, device);
    }
    [1, 3].into_iter().for_each(|from| world.until_reached(from, 2));

    world.plug(1, 1);
    world.tell(1, 2);
    for (from, to, device) in [(1, 2, "uplink"), (2, 1, "uplink"), (2, 3, "weft-vxlan"), (3, 2, "weft-vxlan")]
    {
        world.until_by(from, to, device);
    }
    [1, 3].into_iter().for_each(|from| world.until_reached(from, 2));

    for ping in pinging.into_iter().flatten() {
        let (sent, received) = ping.counted();
        println!("{} of {sent} packets lost over both moves", sent - received);
        assert!(received > 0);
    }
    for site in [&world.sites[0], &world.sites[2]] {
        let log = site.machine.log();
        for range in ["10.244.2.0/24", "fd00:10:2::/64"] {
            let taken = |line: &&str| line.contains("deleted a route") && line.contains(range);
            assert_eq!(log.lines().find(taken), None, "{log}");
        }
    }
}
