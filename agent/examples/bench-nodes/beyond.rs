//! What happens beyond a node, and how soon: a Node that is added is reached from everywhere, a router hears of load
//! balancers by BGP, Services get addresses.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use weft_announce::bgp::peer::{Peer, RemoteAs};
use weft_announce::bgp::rib::Announcements;
use weft_announce::bgp::speaker::{Speaker, Wanted};
use weft_bench::table::{Table, ms};
use weft_testkit::namespace::{cable, end};

use crate::machine::{Machine, node};

/// How often a Node is added with each backend.
const ROUNDS: usize = 5;
/// Services with a load balancer.
const SERVICES: usize = 1000;
/// Longer than anything takes that goes well.
const PATIENCE: Duration = Duration::from_secs(60);

/// All of it, on two nodes of one link.
pub(crate) fn measure(machines: &[Machine; 2], agent: &Path) {
    let mut table = Table::default();
    for backend in ["host-gw", "vxlan", "auto", "bgp"] {
        let mut times: Vec<f64> = (0..ROUNDS).map(|_| ms(node_added(machines, backend))).collect();
        times.sort_by(f64::total_cmp);
        let what = format!("{backend}: a Node is added, until its pod has answered another node's");
        table.note(format!("{what}, median"), format!("{:.0} ms", times[ROUNDS / 2]));
        table.at_most(format!("{what}, at most"), times[ROUNDS - 1], 1000.0, "ms");
    }
    let time = routes_announced(&machines[0], &machines[1]);
    table.at_most(format!("BGP: {SERVICES} Services, until a router has all routes"), ms(time), 500.0, "ms");
    machines[0].clean_up();
    let time = addresses_given(agent);
    table.at_most(format!("{SERVICES} Services, until all have addresses"), ms(time), 2000.0, "ms");
    table.print();
}

/// Both hear of each other at the same moment.
fn node_added([one, two]: &[Machine; 2], backend: &str) -> Duration {
    let nodes = [1, 2].map(|number| node(number, false));
    [one, two].into_iter().zip(&nodes).for_each(|(machine, node)| machine.hear_of(node.clone()));
    let agents = [one, two].map(|machine| machine.start(&["--backend", backend]));
    let bind = |machine: &Machine| {
        let socket = machine.pod.run(|| UdpSocket::bind((machine.pod_address(false), 7))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        socket
    };
    let (here, there) = (bind(one), bind(two));
    let start = Instant::now();
    one.hear_of(nodes[1].clone());
    two.hear_of(nodes[0].clone());
    let mut buffer = [0; 8];
    loop {
        // Unreachable before the routes are there.
        let _ = here.send_to(b"first", (two.pod_address(false), 7));
        if there.recv_from(&mut buffer).is_ok() {
            let _ = there.send_to(b"answer", (one.pod_address(false), 7));
        }
        if here.recv_from(&mut buffer).is_ok() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "no packet gets through");
    }
    let time = start.elapsed();
    drop(agents);
    [one, two].into_iter().for_each(Machine::clean_up);
    time
}

/// From the first Service that the API server tells of until the router has them all.
fn routes_announced(machine: &Machine, router: &Machine) -> Duration {
    machine.hear_of(node(1, false));
    let _agent = machine.start(&["--backend", "host-gw", "--bgp-peer", "172.30.0.12:65000"]);
    let speak = async {
        let speaker = Speaker::start(|| {});
        let own = Ipv4Addr::new(172, 30, 0, 12);
        let agent = IpAddr::from([172, 30, 0, 11]);
        let mut peer = Peer::new(agent, RemoteAs::Number(64512), 65000, own);
        peer.imports = vec!["0.0.0.0/0".parse().unwrap()];
        peer.passive = true;
        speaker.set(Wanted { peers: vec![(peer, Arc::new(Announcements::new()))], listen: Some(179) });
        let until = async |what: &str, is_so: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !is_so() {
                assert!(start.elapsed() < PATIENCE, "{what}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        until("a session", &|| speaker.view().established == 1).await;
        let start = Instant::now();
        (0..SERVICES).for_each(|number| machine.add_load_balancer(number, Some(address(number))));
        until("all routes", &|| speaker.view().routes.len() == SERVICES).await;
        start.elapsed()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    router.node.run(|| runtime.block_on(speak)).unwrap()
}

/// From the first Service that the API server tells of until the last one has an address, with an agent that gives
/// some already.
fn addresses_given(agent: &Path) -> Duration {
    let machine = Machine::new(1, agent);
    let other = Machine::new(2, agent);
    cable(&end(&machine.node, "uplink", ["172.30.0.11/16"]), &end(&other.node, "uplink", ["172.30.0.12/16"]));
    machine.hear_of(node(1, false));
    machine.add_load_balancer(SERVICES, None);
    let _agent = machine.start(&["--backend", "host-gw", "--lb-pool", "10.200.0.0/21"]);
    let until = |count: usize| {
        let start = Instant::now();
        while machine.load_balancers_served() < count {
            assert!(start.elapsed() < PATIENCE, "not all Services get addresses");
            sleep(Duration::from_millis(20));
        }
    };
    until(1);
    let start = Instant::now();
    (0..SERVICES).for_each(|number| machine.add_load_balancer(number, None));
    until(SERVICES + 1);
    start.elapsed()
}

fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 2, 0)) + number as u32)
}
