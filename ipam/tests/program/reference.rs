//! Side by side with the reference plugin, and on its folder in both directions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::network::{Network, OURS, REFERENCE, address, call};

#[test]
fn both_programs_give_the_same_results_and_leave_the_same_files() {
    let ranges =
        json!([[{"subnet": "10.1.0.0/29"}], [{"subnet": "fd00:1::/64", "rangeStart": "fd00:1::10"}]]);
    let (ours, reference) = (Network::new(ranges.clone()), Network::new(ranges));
    for container in ["c1", "c2", "c3"] {
        assert_eq!(
            ours.call(OURS, "ADD", container),
            reference.call(REFERENCE, "ADD", container),
            "{container}"
        );
    }
    assert_eq!(ours.files(), reference.files());
    assert_eq!(ours.call(OURS, "DEL", "c2"), reference.call(REFERENCE, "DEL", "c2"));
    assert_eq!(ours.call(OURS, "ADD", "c4"), reference.call(REFERENCE, "ADD", "c4"));
    assert_eq!(ours.files(), reference.files());
    assert_eq!(ours.files()["10.1.0.2"], "c1\r\neth0");
}

#[test]
fn a_node_can_change_over_and_back() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/29"}]]));
    assert_eq!(address(&network.call(REFERENCE, "ADD", "c1").unwrap()), "10.1.0.2/29");
    assert_eq!(address(&network.call(OURS, "ADD", "c2").unwrap()), "10.1.0.3/29");
    assert_eq!(address(&network.call(REFERENCE, "ADD", "c3").unwrap()), "10.1.0.4/29");
    for program in [OURS, REFERENCE] {
        for container in ["c1", "c2", "c3"] {
            assert!(network.call(program, "ADD", container).is_err(), "{container} has one already");
        }
    }
    // Each frees what the other gave.
    network.call(OURS, "DEL", "c1").unwrap();
    network.call(REFERENCE, "DEL", "c2").unwrap();
    assert_eq!(network.files().into_keys().collect::<Vec<_>>(), ["10.1.0.4", "last_reserved_ip.0"]);
    let mut checked = network.config.clone();
    checked["prevResult"] = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.4/29"}]});
    for program in [OURS, REFERENCE] {
        assert_eq!(call(program, "CHECK", "c3", &checked), Ok(Value::Null));
        assert!(call(program, "CHECK", "c1", &checked).is_err());
    }
}

#[test]
fn parallel_calls_give_each_its_own_address() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/24"}]]));
    let names: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    let addresses: BTreeSet<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let program = if index % 4 == 0 { REFERENCE } else { OURS };
                let network = &network;
                scope.spawn(move || address(&network.call(program, "ADD", name).unwrap()).to_owned())
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(addresses.len(), names.len());
    assert_eq!(network.files().len(), names.len() + 1);
}
