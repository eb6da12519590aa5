//! From devices as they are found to devices as they are planned.

use super::*;
use crate::routing::wireguard::plan::Encryption;

const KEY: Key = [64; 32];
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn plan(peers: &[(&str, Peer)], keepalive: Option<u16>) -> WireGuard {
    let settings = crate::routing::wireguard::plan::Settings {
        port: 51820,
        keepalive,
        encryption: Encryption::Strict,
        key_file: "/key".into(),
    };
    WireGuard {
        node: "node1".to_owned(),
        mtu: 1420,
        settings,
        probe_addresses: Vec::new(),
        addresses: Vec::new(),
        peers: peers.iter().map(|(name, peer)| ((*name).to_owned(), peer.clone())).collect(),
        own: None,
        retired: None,
        announcement: None,
    }
}

fn peer(key: u8, endpoint: &str, allowed: &[&str]) -> Peer {
    let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
    Peer { key: PublicKey([key; 32]), endpoint: endpoint.parse().ok(), allowed }
}

fn held(peers: &[&Peer]) -> Device {
    let peer = |peer: &&Peer| kernel::Peer {
        public_key: peer.key.0,
        endpoint: peer.endpoint,
        allowed: peer.allowed.iter().copied().collect(),
        ..kernel::Peer::default()
    };
    Device { private_key: Some(KEY), public_key: None, port: 51820, peers: peers.iter().map(peer).collect() }
}

/// What is done where the kernel has `held` and these handshakes were so many seconds ago.
fn done(plan: &WireGuard, held: &Device, silence: Option<u64>, set: &Endpoints) -> Vec<PeerChange> {
    let mut held = held.clone();
    for peer in &mut held.peers {
        peer.last_handshake = silence.map(|seconds| NOW - Duration::from_secs(seconds));
    }
    changes(plan, &KEY, &held, set, NOW).peers
}

#[test]
fn what_is_as_planned_is_left_alone() {
    let (a, b) = (peer(1, "172.30.0.12:51820", &["10.244.2.0/24"]), peer(2, "", &["10.244.3.0/24"]));
    let plan = plan(&[("a", a.clone()), ("b", b.clone())], None);
    assert_eq!(changes(&plan, &KEY, &held(&[&a, &b]), &Endpoints::new(), NOW), Changes::default());
}

#[test]
fn a_new_device_gets_all() {
    let a = peer(1, "172.30.0.12:51820", &["10.244.2.0/24"]);
    let changes =
        changes(&plan(&[("a", a.clone())], Some(25)), &KEY, &Device::default(), &Endpoints::new(), NOW);
    assert_eq!(changes.settings, Settings { private_key: Some(KEY), port: Some(51820) });
    let expected = PeerChange {
        public_key: a.key.0,
        endpoint: a.endpoint,
        keepalive: Some(25),
        allowed: a.allowed.into_iter().collect(),
        ..PeerChange::default()
    };
    assert_eq!(changes.peers, [expected]);
}

#[test]
fn a_key_or_a_port_that_somebody_changed_is_put_back() {
    let other = Device { private_key: Some([72; 32]), port: 7, ..Device::default() };
    let changes = changes(&plan(&[], None), &KEY, &other, &Endpoints::new(), NOW);
    assert_eq!(changes.settings, Settings { private_key: Some(KEY), port: Some(51820) });
}

#[test]
fn peers_of_nobody_go_after_others_have_their_networks() {
    let (old, new) = (peer(9, "", &["10.244.2.0/24"]), peer(1, "", &["10.244.2.0/24"]));
    let peers = done(&plan(&[("a", new)], None), &held(&[&old]), None, &Endpoints::new());
    assert_eq!(
        peers.iter().map(|peer| (peer.public_key[0], peer.remove)).collect::<Vec<_>>(),
        [(1, false), (9, true)]
    );
}

#[test]
fn a_network_that_comes_is_added_and_none_is_gone_for_a_moment() {
    let before = peer(1, "", &["10.244.2.0/26"]);
    let after = peer(1, "", &["10.244.2.0/26", "10.244.7.64/26"]);
    let [change] = &done(&plan(&[("a", after)], None), &held(&[&before]), None, &Endpoints::new())[..] else {
        panic!()
    };
    assert_eq!((change.replace_allowed, change.allowed.len()), (false, 1));
}

#[test]
fn a_network_that_goes_takes_all_to_be_set_anew() {
    let before = peer(1, "", &["10.244.2.0/26", "10.244.7.64/26"]);
    let after = peer(1, "", &["10.244.2.0/26"]);
    let [change] = &done(&plan(&[("a", after)], None), &held(&[&before]), None, &Endpoints::new())[..] else {
        panic!()
    };
    assert_eq!((change.replace_allowed, change.allowed.len()), (true, 1));
}

#[test]
fn where_packets_come_from_is_believed_until_the_other_node_says_otherwise_or_is_silent() {
    let (told, moved) = ("172.30.0.12:51820", "192.0.2.1:4000");
    let planned = peer(1, told, &[]);
    let plan = plan(&[("a", planned.clone())], None);
    let device = held(&[&peer(1, moved, &[])]);
    let set = |text: &str| Endpoints::from([(planned.key, text.parse().ok())]);
    let endpoint = |silence, set: &Endpoints| {
        done(&plan, &device, silence, set).first().and_then(|change| change.endpoint)
    };
    // After a start it is not known what was set before.
    for known in [Endpoints::new(), set(told)] {
        assert_eq!(endpoint(Some(20), &known), None, "a peer behind an address translation");
        assert_eq!(endpoint(Some(181), &known), planned.endpoint);
        assert_eq!(endpoint(None, &known), planned.endpoint);
    }
    assert_eq!(endpoint(Some(20), &set("172.30.0.99:51820")), planned.endpoint, "it has another address");
}

#[test]
fn without_an_endpoint_in_the_plan_the_one_that_is_known_stays() {
    let planned = peer(1, "", &[]);
    let device = held(&[&peer(1, "192.0.2.1:4000", &[])]);
    assert_eq!(done(&plan(&[("a", planned)], None), &device, None, &Endpoints::new()), []);
}

#[test]
fn keepalive_ends_where_it_is_not_asked_for_any_more() {
    let planned = peer(1, "", &[]);
    let mut device = held(&[&planned]);
    device.peers[0].keepalive = Some(25);
    let peers = done(&plan(&[("a", planned.clone())], None), &device, None, &Endpoints::new());
    assert_eq!(
        peers,
        [PeerChange { public_key: planned.key.0, keepalive: Some(0), ..PeerChange::default() }]
    );
}
