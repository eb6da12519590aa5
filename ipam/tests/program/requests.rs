//! What a configuration may ask for, and how it is refused.

use std::fs;

use serde_json::{Value, json};

use crate::network::{Network, OURS, address, call};

#[test]
fn a_full_range_is_one_clear_error_and_nothing_leaks() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/30"}]]));
    network.call(OURS, "ADD", "c1").unwrap();
    let error = network.call(OURS, "ADD", "c2").unwrap_err();
    assert_eq!(error["msg"], "no IP addresses available in range set 10.1.0.1-10.1.0.2 of network blue");
    assert!(error["details"].as_str().unwrap().contains("add a range to ipam.ranges"), "{error}");
    assert_eq!(network.files().len(), 2);
    network.call(OURS, "DEL", "c1").unwrap();
    network.call(OURS, "DEL", "c1").unwrap();
    assert_eq!(address(&network.call(OURS, "ADD", "c2").unwrap()), "10.1.0.2/30");
}

#[test]
fn a_malformed_configuration_names_the_field() {
    let error = |ranges: Value| Network::new(ranges).call(OURS, "ADD", "c1").unwrap_err();
    let decode = error(json!([[{"subnet": "10.1.0.0/99"}]]));
    assert_eq!(decode["code"], 6);
    assert!(decode["msg"].as_str().unwrap().contains("ranges[0][0].subnet"), "{decode}");
    let config = error(json!([[{"subnet": "10.1.0.7/24"}]]));
    assert_eq!(config["code"], 7);
    assert!(
        config["msg"].as_str().unwrap().starts_with("network blue: ipam.ranges[0][0].subnet: "),
        "{config}"
    );
}

#[test]
fn garbage_collection_keeps_what_is_valid_and_status_tells_when_all_is_given() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/29"}]]));
    let mut config = network.config.clone();
    config["cniVersion"] = "1.1.0".into();
    for container in ["c1", "c2", "c3", "c4"] {
        assert_eq!(call(OURS, "STATUS", "", &config), Ok(Value::Null));
        call(OURS, "ADD", container, &config).unwrap();
    }
    // An empty record, as a crash of the reference plugin leaves it, is free to be given.
    fs::write(network.folder().join("10.1.0.6"), "").unwrap();
    assert_eq!(call(OURS, "STATUS", "", &config), Ok(Value::Null));
    assert_eq!(address(&call(OURS, "ADD", "c5", &config).unwrap()), "10.1.0.6/29");
    assert_eq!(call(OURS, "STATUS", "", &config).unwrap_err()["code"], 50);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "c2", "ifname": "eth0"}]);
    assert_eq!(call(OURS, "GC", "", &config), Ok(Value::Null));
    assert_eq!(network.files().into_keys().collect::<Vec<_>>(), ["10.1.0.3", "last_reserved_ip.0"]);
    assert_eq!(call(OURS, "STATUS", "", &config), Ok(Value::Null));
}
