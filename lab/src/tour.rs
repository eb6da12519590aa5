//! The walk that every guide to cluster networking takes, in a lab: what is shown and said at each step, and
//! what must be seen there. `walk` goes it.
//!
//! In commands and in what must be seen, names in braces stand for what the lab has: `{lab}` is how to call
//! `weft-lab`, `{files}` the folder of the manifests, `{node1}` a node's network namespace, `{outside}` that of
//! the world outside, `{client}` a pod's address, `{web}` a ClusterIP, `{port}` a NodePort.

mod walk;

pub use self::walk::{Place, Printed, walk};

/// The namespace of the tour's objects.
pub const NAMESPACE: &str = "tour";

/// The manifests, by their names.
pub const FILES: [(&str, &str); 3] = [
    ("10-pods.yaml", include_str!("../tour/10-pods.yaml")),
    ("20-closed.yaml", include_str!("../tour/20-closed.yaml")),
    ("30-open.yaml", include_str!("../tour/30-open.yaml")),
];

/// A part of the walk.
#[derive(Debug)]
pub struct Step {
    /// What it is about.
    pub title: &'static str,
    /// What is looked at.
    pub looks: &'static [Look],
}

/// A command, and what it shows.
#[derive(Debug)]
pub struct Look {
    /// The sentence that explains it.
    pub says: &'static str,
    /// The command, for a shell.
    pub command: &'static str,
    /// What its output must have.
    pub shows: &'static [&'static str],
}

const fn look(says: &'static str, command: &'static str, shows: &'static [&'static str]) -> Look {
    Look { says, command, shows }
}

/// The whole walk.
pub const STEPS: &[Step] = &[
    Step {
        title: "Three pods on two nodes",
        looks: &[look(
            "A client and a server run on node1, another server on node2. Each pod has an address of its own, out of \
             its node's range.",
            "{lab} kubectl -n tour get pods -o wide",
            &["client", "{client}", "{near}", "{far}"],
        )],
    },
    Step {
        title: "A pod's own network",
        looks: &[
            look(
                "A pod is a network namespace. Its eth0 is one end of a veth pair; the other end is on the node.",
                "{lab} exec -n tour client -- ip -br -4 address",
                &["eth0", "{client}"],
            ),
            look(
                "Its whole routing table: the gateway, which is the node, and all else by way of it.",
                "{lab} exec -n tour client -- ip route",
                &["default via", "dev eth0"],
            ),
            look(
                "On the node the pods' ends are ports of one bridge, which has the gateway's address.",
                "ip netns exec {node1} ip -br link show master cni0",
                &["veth"],
            ),
        ],
    },
    Step {
        title: "Pod to pod on one node",
        looks: &[
            look(
                "For the node its own pods are on the link of the bridge.",
                "ip netns exec {node1} ip route get {near}",
                &["dev cni0"],
            ),
            look(
                "So they reach each other.",
                "{lab} exec -n tour client -- curl -s http://{near}:8080/hostname",
                &["near"],
            ),
            look(
                "This is the way of such a packet, through every rule that sees it.",
                "weft trace tour/client tour/near:8080",
                &["arrives: Pod tour/client", "arrives at Pod tour/near"],
            ),
        ],
    },
    Step {
        title: "Pod to pod across nodes",
        looks: &[
            look(
                "Each node has a route to the range of every other one: its address is the next hop where the network \
                 between them carries pod addresses, and a tunnel elsewhere.",
                "ip netns exec {node1} ip route show proto 119",
                &["10.244."],
            ),
            look(
                "Nobody translates anything: the server sees the client's own address.",
                "{lab} exec -n tour client -- curl -s http://{far}:8080/clientip",
                &["{client}"],
            ),
            look(
                "The way leads over both nodes, and the answer's way back.",
                "weft trace tour/client tour/far:8080",
                &["  node2", "arrives at Pod tour/far", "the answer's way back"],
            ),
        ],
    },
    Step {
        title: "A Service's ClusterIP",
        looks: &[
            look(
                "A Service is an address that no machine has.",
                "{lab} kubectl -n tour get service web",
                &["{web}"],
            ),
            look(
                "To the kernel of each node it is one element of a map: 0:2 stands for two endpoints.",
                "ip netns exec {node1} nft get element ip weft frontends '{ {web} . tcp . 80 }'",
                &["0:2"],
            ),
            look(
                "These are the endpoints, by their numbers.",
                "ip netns exec {node1} nft list map ip weft endpoints | grep -o '{web} . tcp . 80 [^,}]*'",
                &["{near}", "{far}"],
            ),
            look(
                "A client of the ClusterIP gets one of them, at random.",
                "{lab} exec -n tour client -- curl -s http://{web}/hostname",
                &["ar"],
            ),
            look(
                "Connection tracking keeps the choice: the packets that come back, from the endpoint, get the \
                 ClusterIP as their source again.",
                "ip netns exec {node1} conntrack -L -d {web} 2>/dev/null",
                &["dst={web}", "dport=80"],
            ),
            look(
                "On the first packet's way the rule that leads it is named; each endpoint has a way of its own.",
                "weft trace tour/client svc/tour/web",
                &["led to {near}:8080 by table ip weft", "led to {far}:8080 by table ip weft"],
            ),
        ],
    },
    Step {
        title: "A NodePort",
        looks: &[
            look(
                "Every node has the port, here node3, which runs none of the pods: the element is in its map, too.",
                "ip netns exec {node3} nft get element ip weft nodeports '{ tcp . {port} }'",
                &["1000:2"],
            ),
            look(
                "So the world outside reaches the Service by any node. The server sees node3's address, for the answer \
                 must come back this way.",
                "ip netns exec {outside} curl -s http://172.30.0.13:{port}/clientip",
                &["172.30.0.13"],
            ),
            look(
                "The way shows where the source is changed.",
                "weft trace 172.30.0.1 node/node3:{port}",
                &["its source becomes 172.30.0.13", "arrives at Pod tour/"],
            ),
        ],
    },
    Step {
        title: "A headless Service",
        looks: &[
            look(
                "Without a ClusterIP there is nothing in the kernel: the name leads to the pods themselves.",
                "{lab} exec -n tour client -- getent ahostsv4 peers",
                &["{near}", "{far}"],
            ),
            look(
                "And each pod with a hostname has a name of its own.",
                "{lab} exec -n tour client -- getent hosts far.peers",
                &["far.peers.tour.svc.cluster.local"],
            ),
        ],
    },
    Step {
        title: "DNS",
        looks: &[
            look(
                "A pod asks the ClusterIP of kube-dns, and tries these domains for names with fewer than five dots.",
                "{lab} exec -n tour client -- cat /etc/resolv.conf",
                &["nameserver 10.96.0.10", "tour.svc.cluster.local", "ndots:5"],
            ),
            look(
                "Which is a Service like others: one endpoint on each node.",
                "ip netns exec {node1} nft get element ip weft frontends '{ 10.96.0.10 . udp . 53 }'",
                &["0:3"],
            ),
            look(
                "This is how the server answers that pod, name by name.",
                "weft dns explain tour/client web",
                &["web.tour.svc.cluster.local.", "The pod takes this answer."],
            ),
        ],
    },
    Step {
        title: "A network policy",
        looks: &[
            look(
                "A policy selects the servers, and has no rule: from now on they are isolated.",
                "{lab} kubectl apply -f {files}/20-closed.yaml",
                &["networkpolicy.networking.k8s.io/servers"],
            ),
            look(
                "On the servers' nodes the kernel has their addresses in a set: nothing enters without a row.",
                "ip netns exec {node2} nft get element ip weft-policy ingress '{ {far} }'",
                &["{far}"],
            ),
            look(
                "The client waits in vain.",
                "{lab} exec -n tour client -- curl -sS -m 1 http://{far}:8080/hostname 2>&1",
                &["timed out"],
            ),
            look(
                "The trace says where, and which policy it is.",
                "weft trace tour/client tour/far:8080",
                &["does not arrive", "denied: isolated by NetworkPolicy tour/servers"],
            ),
            look(
                "With a rule for the client there is a row: to that pod, from a class of peers, by TCP to port 8080.",
                "{lab} kubectl apply -f {files}/30-open.yaml && ip netns exec {node2} nft list map ip weft-policy \
                 may-enter | grep {far}",
                &["{far}", "8080 : return"],
            ),
            look(
                "And it is served again.",
                "{lab} exec -n tour client -- curl -s -m 5 http://{far}:8080/hostname",
                &["far"],
            ),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_look_is_explained_in_sentences_and_must_see_something() {
        for step in STEPS {
            assert!(!step.looks.is_empty(), "{}", step.title);
            for look in step.looks {
                assert!(look.says.ends_with('.') && !look.says.contains("  "), "{}", look.says);
                assert!(!look.command.is_empty() && !look.shows.is_empty(), "{}", look.says);
            }
        }
    }

    /// Whoever changes what is said shows it anew: docs/tour.md is what `weft-lab tour --markdown` prints.
    #[test]
    fn the_page_has_every_step_with_its_words() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tour.md")).unwrap();
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let page = words(&page);
        for (number, step) in STEPS.iter().enumerate() {
            assert!(page.contains(&format!("## {}. {}", number + 1, step.title)), "{}", step.title);
            for look in step.looks {
                assert!(page.contains(look.says), "docs/tour.md lacks: {}", look.says);
            }
        }
    }
}
