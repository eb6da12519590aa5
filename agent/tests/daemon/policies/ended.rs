//! Pods that ended, whose objects stay with the addresses that they had.

use super::*;

impl Cluster {
    /// A pod ends, and stays in the API server with its addresses.
    fn end_pod(&self, name: &str, number: usize, phase: &str) {
        let mut ended = pod(name, name, &addresses(number));
        ended["status"]["phase"] = json!(phase);
        self.machine.server.put(PODS, ended);
    }
}

#[test]
fn a_pod_that_ended_has_no_rows_and_its_address_is_open_until_a_pod_with_policies_has_it() {
    let cluster = Cluster::with_policy();
    for phase in ["Succeeded", "Failed"] {
        cluster.end_pod("web", 1, phase);
        cluster.until_planned(0);
        assert!(cluster.machine.ask("/metrics").1.contains("weft_agent_policy_rows 0\n"));
        for to in addresses(1) {
            assert!(tcp(&cluster.outside, to, 81) && udp(&cluster.outside, to, 80), "{phase}: {to}");
        }
        // One that no policy selects, and one that is selected.
        cluster.put_pod("next", "next", 1);
        cluster.machine.until("the way in", |_| tcp(&cluster.outside, addresses(1)[0], 81));
        cluster.put_pod("next", "web", 1);
        cluster.until_planned(2);
        for to in addresses(1) {
            assert!(tcp(&cluster.pods[1], to, 80), "{phase}: {to}");
            assert!(!tcp(&cluster.outside, to, 80) && !tcp(&cluster.pods[1], to, 81), "{phase}: {to}");
        }
        cluster.machine.server.delete(PODS, "next");
        cluster.put_pod("web", "web", 1);
        cluster.until_planned(2);
    }
}

#[test]
fn a_peer_that_ended_lets_nobody_in_by_its_address() {
    let cluster = Cluster::with_policy();
    let [_, client] = &cluster.pods;
    let is_let_in = || addresses(1).into_iter().all(|to| tcp(client, to, 80));
    let is_kept_out = || addresses(1).into_iter().all(|to| !tcp(client, to, 80));
    assert!(is_let_in());
    cluster.end_pod("client", 2, "Failed");
    cluster.machine.until("a peer less", |_| is_kept_out());
    cluster.put_pod("stranger", "stranger", 2);
    cluster.put_pod("sign", "web", 9);
    cluster.until_planned(4);
    assert!(is_kept_out(), "its address is a stranger's by now");
    cluster.put_pod("stranger", "client", 2);
    cluster.machine.until("the way in", |_| is_let_in());
}
