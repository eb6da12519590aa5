//! A pod's first packet, sent as soon as ADD says that the pod is connected: it is answered at once.

use std::net::UdpSocket;
use std::time::Duration;

use crate::node::{Node, Pod};
use crate::outside::{at, serve_udp};

/// Less than the second after which a lost question for an Ethernet address is asked again.
const AT_ONCE: Duration = Duration::from_millis(500);

fn is_answered(pod: &Pod, server: std::net::SocketAddr) -> bool {
    let socket = pod.namespace().run(|| UdpSocket::bind(at("0.0.0.0", 0))).unwrap().unwrap();
    socket.set_read_timeout(Some(AT_ONCE)).unwrap();
    socket.connect(server).unwrap();
    socket.send(b"1").unwrap();
    socket.recv(&mut [0; 64]).is_ok()
}

#[test]
fn the_first_packet_of_every_pod_is_answered_at_once() {
    let node = Node::new();
    let config = node.config(&["10.244.0.0/22"]);
    let pods: Vec<Pod> = (0..100).map(|number| node.pod(&format!("c{number}"))).collect();
    let gateway = at("10.244.0.1", 4000);
    let mut late = Vec::new();
    for (number, pod) in pods.iter().enumerate() {
        node.add(pod, &config);
        if number == 0 {
            serve_udp(&node.namespace, gateway, "node");
        }
        if !is_answered(pod, gateway) {
            late.push(number);
        }
        // Others go meanwhile, which gives the kernel work to put off.
        if number % 3 == 2 {
            node.del(&pods[number - 1], &config);
        }
    }
    assert!(late.is_empty(), "{late:?} of {}", pods.len());
}

#[test]
fn the_first_pod_of_a_new_bridge_is_answered_at_once() {
    for round in 0..30 {
        let node = Node::new();
        let mut config = node.config(&["10.244.0.0/22"]);
        config["bridge"] = format!("br{round}").into();
        let pod = node.pod("c1");
        node.add(&pod, &config);
        let gateway = at("10.244.0.1", 4000);
        serve_udp(&node.namespace, gateway, "node");
        assert!(is_answered(&pod, gateway), "round {round}");
    }
}
