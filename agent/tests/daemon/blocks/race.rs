//! Two agents that fill a cluster CIDR of eight blocks at the same time, and are killed in between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_testkit::api_server::FakeApiServer;
use weft_testkit::wait::eventually_ok;
use weft_types::{IpNetwork, overlap};

use super::{BLOCKS, bare, served};
use crate::{Machine, NODES, joined};

const FLAGS: &[&str] = &["--ipam", "blocks", "--block-mask-size-ipv4", "29", "--block-grace", "300"];
/// Of eight blocks of /29, of which each has five for pods.
const CLUSTER_CIDR: &str = "10.244.0.0/26";
const ALL: usize = 8 * 5;

/// What is given to containers, and on which node.
type Given = BTreeMap<IpAddr, &'static str>;

/// Two nodes of one API server, which is on the first one's link.
fn nodes() -> ([Machine; 2], FakeApiServer) {
    let mut machines = joined();
    let server = machines[0].namespace.run(|| FakeApiServer::start_at([172, 30, 0, 11])).unwrap();
    (1..=2).for_each(|number| server.put(NODES, bare(number)));
    for machine in &mut machines {
        machine.kubeconfig = Some(server.kubeconfig().to_owned());
        (machine.flags, machine.cluster_cidr) = (FLAGS, CLUSTER_CIDR);
        machine.install_plugin();
    }
    (machines, server)
}

/// An address of the blocks that the plugin goes by which nobody on the node has.
fn free(machine: &Machine, given: &Given) -> Option<IpAddr> {
    let mut usable = served(machine).into_iter().flat_map(|block| {
        let block: IpNetwork = block.parse().unwrap();
        block.iter().skip(2).take(5).collect::<Vec<_>>()
    });
    usable.find(|address| given.get(address) != Some(&machine.name))
}

/// Gives a container of the node an address, where one is free.
fn give(machine: &Machine, given: &mut Given) -> bool {
    let Some(address) = free(machine, given) else { return false };
    let other = given.insert(address, machine.name);
    assert_eq!(other, None, "{address} is given twice: {}", machine.log());
    machine.reserve(&address.to_string(), &format!("container-{address}"));
    true
}

/// Ends an agent in one of several moments, and starts it again. Its blocks are full, or were a moment ago.
fn kill(machine: &mut Machine, server: &FakeApiServer, given: &Given, moment: usize) {
    let is_over = || free(machine, given).is_some() || all(server) == 8;
    match moment % 4 {
        // At once: the claim may be under way.
        0 => {}
        // When it has claimed another block, which may not be in the file yet.
        1 => until(machine, || blocks_of(server, machine.name).len() > served(machine).len() || is_over()),
        // When pods get addresses of that.
        2 => until(machine, is_over),
        _ => return,
    }
    machine.kill();
    machine.start();
}

fn until(machine: &Machine, is_so: impl Fn() -> bool) {
    eventually_ok("a block more", || if is_so() { Ok(()) } else { Err(machine.log()) });
}

fn blocks_of(server: &FakeApiServer, node: &str) -> BTreeSet<String> {
    let all = server.objects(BLOCKS).into_iter().filter(|block| block["spec"]["node"] == node);
    all.map(|block| block["spec"]["cidr"].as_str().unwrap().to_owned()).collect()
}

fn all(server: &FakeApiServer) -> usize {
    server.objects(BLOCKS).len()
}

#[test]
fn two_agents_that_are_killed_while_they_claim_give_no_address_twice_and_lose_no_block() {
    let (mut machines, server) = nodes();
    let (mut given, mut moment) = (Given::new(), 0);
    machines.iter_mut().for_each(Machine::start);
    while given.len() < ALL {
        eventually_ok("a free address", || {
            let before = given.len();
            for machine in &machines {
                while give(machine, &mut given) {}
            }
            let logs = || machines.each_ref().map(Machine::log).concat();
            if given.len() > before { Ok(()) } else { Err(logs()) }
        });
        for machine in &mut machines {
            kill(machine, &server, &given, moment);
            moment += 1;
        }
    }
    let owned = machines.each_ref().map(|machine| blocks_of(&server, machine.name));
    let ranges: Vec<IpNetwork> = owned.iter().flatten().map(|block| block.parse().unwrap()).collect();
    assert_eq!(ranges.len(), 8, "{owned:?}");
    for (index, one) in ranges.iter().enumerate() {
        assert!(!ranges[..index].iter().any(|other| overlap(one, other)), "{ranges:?}");
    }
    for (machine, blocks) in machines.iter().zip(&owned) {
        for (address, _) in given.iter().filter(|(_, node)| **node == machine.name) {
            let is_inside = |block: &String| block.parse::<IpNetwork>().unwrap().contains(*address);
            assert!(blocks.iter().any(is_inside), "{address} of {}: {owned:?}", machine.name);
        }
    }
    // Whoever comes back goes on with all that it had.
    for machine in &mut machines {
        machine.kill();
        machine.start();
    }
    for (machine, blocks) in machines.iter().zip(&owned) {
        machine.until("all of its blocks", |machine| served(machine) == *blocks);
    }
    assert_eq!(machines.each_ref().map(|machine| blocks_of(&server, machine.name)), owned);
}
