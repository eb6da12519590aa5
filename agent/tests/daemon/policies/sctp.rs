//! Associations of SCTP when a change of policies denies them. Their ends are in another kernel, as the
//! running one need not have sockets of SCTP; it judges what goes between them.

use std::io::{Read, Write};
use std::net::TcpListener;

use weft_testkit::namespace::{forward, machine};
use weft_testkit::sctp::{self, PASSED, PATIENCE, SILENCE, Socket};
use weft_testkit::wait::eventually_ok;

use super::*;

const THIS: &str = "policies::sctp::a_change_ends_the_associations_that_it_denies_and_no_others";
/// The pods, by their interfaces, and the last number of their addresses.
const SERVER: usize = 0;
const CLIENT: usize = 1;
const POD: u8 = 2;
/// A port that stays allowed, and one that does not.
const PORTS: [u16; 2] = [9999, 9998];
/// Where the other kernel asks this one for the change.
const CONTROL: u16 = 7000;

/// The server lets the client in to these ports.
fn policy(ports: &[u16]) -> Value {
    let ports: Vec<Value> = ports.iter().map(|port| json!({"protocol": "SCTP", "port": port})).collect();
    let mut policy = super::policy();
    policy["spec"]["ingress"][0]["ports"] = ports.into();
    policy
}

#[test]
fn a_change_ends_the_associations_that_it_denies_and_no_others() {
    if sctp::is_there() {
        return in_the_pods();
    }
    let namespace = machine();
    forward(&namespace);
    let mut machine = Machine::with(namespace, None);
    machine.install_plugin();
    machine.server.put(NODES, node(1));
    machine.server.put(NAMESPACES, json!({"metadata": {"name": "shop"}}));
    for (pod, app) in [(SERVER, "web"), (CLIENT, "client")] {
        machine.server.put(PODS, super::pod(app, app, &sctp::addresses(pod, POD)));
    }
    machine.server.put(POLICIES, policy(&PORTS));
    machine.start();
    let says = |figure: &str| {
        machine.until(figure, |machine| {
            machine.conflist().exists() && machine.ask("/metrics").1.contains(&format!("{figure}\n"))
        });
    };
    says("weft_agent_policy_isolated_addresses 2");
    let control = machine.namespace.run(|| TcpListener::bind(("0.0.0.0", CONTROL))).unwrap().unwrap();
    control.set_nonblocking(true).unwrap();
    std::thread::scope(|scope| {
        let there = scope.spawn(|| sctp::run_there(THIS, &machine.namespace, &[POD..POD + 1, POD..POD + 1]));
        let mut asked = eventually_ok("a word of the pods", || match control.accept() {
            Err(_) if there.is_finished() => panic!("the pods ended"),
            accepted => accepted.map(|(stream, _)| stream).map_err(|error| error.to_string()),
        });
        asked.set_read_timeout(Some(PATIENCE)).unwrap();
        asked.read_exact(&mut [0]).unwrap();
        machine.server.put(POLICIES, policy(&PORTS[..1]));
        // One of each family.
        says("weft_agent_policy_ended_connections_total 2");
        asked.write_all(b"!").unwrap();
        there.join().unwrap();
    });
}

/// A port of the server, by one family.
struct Port {
    family: usize,
    number: u16,
    listener: Socket,
}

impl Port {
    fn open(family: usize, number: u16) -> Port {
        let at = SocketAddr::new(sctp::addresses(SERVER, POD)[family], number);
        Port { family, number, listener: sctp::listen(&sctp::namespace(SERVER), at) }
    }

    /// Both ends of a new association, the client's first.
    fn associate(&self, patience: Duration) -> std::io::Result<[Socket; 2]> {
        let at = |pod: usize, port| SocketAddr::new(sctp::addresses(pod, POD)[self.family], port);
        let client = sctp::namespace(CLIENT);
        let near = sctp::associate(&client, at(CLIENT, 0), at(SERVER, self.number), patience)?;
        Ok([near, self.listener.accept()?.0])
    }
}

fn passes(from: &mut Socket, to: &mut Socket, patience: Duration) -> bool {
    to.set_read_timeout(Some(patience)).unwrap();
    from.write_all(b"!").is_ok() && to.read(&mut [0]).is_ok_and(|length| length == 1)
}

/// Everything in the other kernel.
fn in_the_pods() {
    let ports = (0..2).flat_map(|family| PORTS.map(|number| Port::open(family, number)));
    let mut all: Vec<(Port, [Socket; 2])> = ports
        .map(|port| {
            let ends = port.associate(PATIENCE).unwrap();
            (port, ends)
        })
        .collect();
    for (_, [near, far]) in &mut all {
        assert!(passes(near, far, PATIENCE) && passes(far, near, PATIENCE));
    }
    let node = SocketAddr::new(sctp::addresses(CLIENT, 1)[0], CONTROL);
    let mut control = sctp::namespace(CLIENT).run(|| TcpStream::connect(node)).unwrap().unwrap();
    control.write_all(b"?").unwrap();
    control.read_exact(&mut [0]).unwrap();
    for (port, [near, far]) in &mut all {
        let is_allowed = port.number == PORTS[0];
        let place = format!("port {}, family {}", port.number, port.family);
        let patience = if is_allowed { PATIENCE } else { SILENCE };
        assert_eq!(passes(near, far, patience), is_allowed, "to the server, {place}");
        assert_eq!(passes(far, near, patience), is_allowed, "from the server, {place}");
        assert_eq!(port.associate(patience).is_ok(), is_allowed, "a new one, {place}");
    }
    println!("{PASSED}");
}
