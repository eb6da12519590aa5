//! What the daemon says of other programs' firewalls that are in the way.

use serde_json::json;
use weft_testkit::namespace::run_in;

use crate::machine::{Machine, NODES, programmed};

fn conflicts(machine: &Machine) -> String {
    let answer = machine.get(10256, "/healthz").unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let (_, conflicts) = answer.split_once("\"conflicts\":").unwrap();
    conflicts.split(']').next().unwrap().to_owned()
}

#[test]
fn a_chain_that_drops_what_is_passed_on_is_named_in_the_log_and_to_probes_until_it_is_gone() {
    let machine = programmed();
    machine.server.put(
        NODES,
        json!({
            "metadata": {"name": "node1"},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.11"}]},
        }),
    );
    let words =
        "the chain forward of table inet fire stops what is passed on to endpoints of Services (policy drop)";
    for round in 1..=2 {
        let table =
            "table inet fire { chain forward { type filter hook forward priority 0; policy drop; }; }";
        run_in(&machine.namespace, "nft", &[table]);
        machine.until("it is told to probes", |machine| conflicts(machine).contains(words));
        assert_eq!(machine.log().matches(words).count(), round, "{}", machine.log());
        run_in(&machine.namespace, "nft", &["delete table inet fire"]);
        machine.until("it is gone", |machine| conflicts(machine) == "[");
    }
    assert!(machine.log().contains("other programs' chains let connections to Services through again"));
}
