//! Routes there and back, and what is kept while a peer restarts.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::bgp::peer::RemoteAs;
use crate::bgp::wire::{Capabilities, Community, Dialect, Message, Open, Reached};

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn peer(remote: u32) -> Peer {
    let address = IpAddr::from([10, 0, 0, 2]);
    let own = Ipv4Addr::new(10, 0, 0, 1);
    let imports = vec![network("10.244.0.0/16"), network("fd00::/16")];
    let next_hops = [(Family::V6, "fd00::1".parse().unwrap())].into();
    Peer { imports, next_hops, ..Peer::new(address, RemoteAs::Number(remote), 65000, own) }
}

fn session(asn: u32, restart: Option<GracefulRestart>) -> Session {
    let capabilities = Capabilities { graceful_restart: restart, ..Capabilities::default() };
    Session {
        open: Open { asn, hold_time: 90, router_id: Ipv4Addr::new(10, 0, 0, 2), capabilities },
        dialect: Dialect { four_octet_as: true, is_external: asn != 65000, ..Dialect::default() },
        families: Family::BOTH.into(),
        hold_time: 90,
    }
}

fn restart(forwards: bool) -> GracefulRestart {
    let families = Family::BOTH.map(|family| (family, forwards)).into();
    GracefulRestart { restarting: false, seconds: 60, families }
}

fn local() -> IpAddr {
    IpAddr::from([10, 0, 0, 1])
}

fn updates(mut bytes: Vec<u8>, session: &Session) -> Vec<Update> {
    std::iter::from_fn(|| match wire::take(&mut bytes, session.dialect).unwrap()? {
        Message::Update(update) => Some(update),
        other => panic!("{other:?}"),
    })
    .collect()
}

/// What a receiver holds.
fn receive(held: &mut BTreeMap<IpNetwork, (IpAddr, Attributes)>, updates: Vec<Update>) {
    for update in updates {
        held.retain(|prefix, _| !update.withdrawn.contains(prefix));
        for Reached { next_hop, prefixes, .. } in update.reached {
            held.extend(prefixes.into_iter().map(|prefix| (prefix, (next_hop, update.attributes.clone()))));
        }
    }
}

fn announcements() -> impl Strategy<Value = Announcements> {
    let prefix = prop_oneof![
        (0u8..6).prop_map(|n| network(&format!("192.0.2.{n}/32"))),
        (0u8..4).prop_map(|n| network(&format!("2001:db8::{n}/128"))),
    ];
    let attributes = (0u32..3).prop_map(|n| {
        let communities = (0..n).map(Community).collect();
        Arc::new(Attributes { communities, med: (n == 2).then_some(7), ..Attributes::default() })
    });
    prop::collection::btree_map(prefix, attributes, 0..8)
}

proptest! {
    #[test]
    fn a_peer_holds_what_is_wanted_after_each_change(changes in prop::collection::vec(announcements(), 1..6)) {
        let (peer, session) = (peer(65001), session(65001, None));
        let (mut out, mut held) = (AdjOut::default(), BTreeMap::new());
        for wanted in changes {
            receive(&mut held, updates(out.sync(&wanted, &peer, &session, local()), &session));
            let expected: BTreeMap<_, _> = wanted.iter().map(|(&prefix, attributes)| {
                let next_hop = if prefix.is_ipv4() { local() } else { "fd00::1".parse().unwrap() };
                (prefix, (next_hop, completed(attributes, &peer, &session)))
            }).collect();
            prop_assert_eq!(&held, &expected);
            prop_assert_eq!(out.sync(&wanted, &peer, &session, local()), vec![], "nothing is told twice");
            let mut again = BTreeMap::new();
            for family in Family::BOTH {
                receive(&mut again, updates(out.refresh(family, &session), &session));
            }
            prop_assert_eq!(&again, &expected, "a refresh tells all");
        }
    }
}

#[test]
fn routes_bear_what_the_kind_of_the_peer_asks_for() {
    let wanted: Announcements = [(network("192.0.2.1/32"), Arc::default())].into();
    let told = |remote: u32| {
        let session = session(remote, None);
        let bytes = AdjOut::default().sync(&wanted, &peer(remote), &session, local());
        updates(bytes, &session).remove(0).attributes
    };
    let external = told(65001);
    assert_eq!((external.local_pref, external.path_length(), external.passed(65000)), (None, 1, true));
    let internal = told(65000);
    assert_eq!((internal.local_pref, internal.path_length()), (Some(100), 0));
}

#[test]
fn a_peer_that_restarts_gracefully_hears_the_end_of_the_first_routes_once() {
    let (peer, session) = (peer(65001), session(65001, Some(restart(true))));
    let mut out = AdjOut::default();
    let first = updates(out.sync(&Announcements::new(), &peer, &session, local()), &session);
    let ends: Vec<_> = first.iter().map(|update| update.end_of_rib).collect();
    assert_eq!(ends, [Some(Family::V4), Some(Family::V6)]);
    assert_eq!(out.sync(&Announcements::new(), &peer, &session, local()), vec![]);
}

#[test]
fn a_family_without_an_address_of_ours_is_left_out() {
    let wanted: Announcements = [(network("2001:db8::1/128"), Arc::default())].into();
    let peer = Peer { next_hops: BTreeMap::new(), ..peer(65001) };
    let mut out = AdjOut::default();
    assert_eq!(out.sync(&wanted, &peer, &session(65001, None), local()), vec![]);
    let v4: Announcements = [(network("192.0.2.1/32"), Arc::default())].into();
    let mut session = session(65001, None);
    let own: IpAddr = "fd00::1".parse().unwrap();
    assert_eq!(out.sync(&v4, &peer, &session, own), vec![]);
    session.dialect.extended_next_hop = true;
    let told = updates(out.sync(&v4, &peer, &session, own), &session);
    assert_eq!(told[0].reached[0].next_hop, own, "IPv4 by an IPv6 next hop (RFC 8950)");
}

fn routes(prefixes: &[&str], next_hop: &str) -> Update {
    let prefixes = prefixes.iter().map(|text| network(text)).collect();
    let reached = vec![Reached { next_hop: next_hop.parse().unwrap(), link_local: None, prefixes }];
    Update { reached, ..Update::default() }
}

fn held(routes: &AdjIn) -> Vec<String> {
    routes.paths().keys().map(ToString::to_string).collect()
}

#[test]
fn only_what_is_within_the_ranges_is_taken() {
    let (mut taken, peer) = (AdjIn::default(), peer(65001));
    let told = ["10.244.7.0/24", "10.0.0.0/8", "0.0.0.0/0", "192.0.2.0/24"];
    taken.update(routes(&told, "10.0.0.2"), &peer).unwrap();
    assert_eq!((held(&taken), taken.refused()), (vec!["10.244.7.0/24".to_owned()], 3));
    taken.update(routes(&["10.244.8.0/24"], "fd00::1"), &peer).unwrap();
    taken.update(routes(&["10.244.8.0/24"], "127.0.0.1"), &peer).unwrap();
    let mut through_us = routes(&["10.244.8.0/24"], "10.0.0.2");
    through_us.attributes.as_path = vec![Segment::Sequence(vec![65001, 65000])];
    taken.update(through_us, &peer).unwrap();
    assert_eq!(held(&taken).len(), 1, "ours, nobody's, and one that passed us already");
    taken.update(Update { withdrawn: vec![network("10.244.7.0/24")], ..Update::default() }, &peer).unwrap();
    assert_eq!(held(&taken).len(), 0);
}

#[test]
fn routes_are_kept_while_a_peer_restarts_and_until_it_told_all() {
    let (mut taken, peer, now) = (AdjIn::default(), peer(65000), Instant::now());
    let both = ["10.244.1.0/24", "10.244.2.0/24"];
    taken.update(routes(&both, "10.0.0.2"), &peer).unwrap();
    taken.down(Some(&restart(true)), now);
    assert_eq!(held(&taken), both);
    // A second restart does not give it more time.
    taken.down(Some(&restart(true)), now + Duration::from_secs(30));
    assert_eq!(taken.deadline(), Some(now + Duration::from_secs(60)));
    taken.up(&session(65000, Some(restart(true))), now + Duration::from_secs(40));
    taken.update(routes(&both[..1], "10.0.0.2"), &peer).unwrap();
    assert_eq!(held(&taken), both);
    taken.update(Update { end_of_rib: Some(Family::V4), ..Update::default() }, &peer).unwrap();
    assert_eq!((held(&taken).len(), taken.ended().len()), (1, 1));
    assert!(!taken.tick(now + Duration::from_secs(3600)));
}

#[test]
fn routes_of_a_peer_that_does_not_come_back_go() {
    let (peer, now) = (peer(65000), Instant::now());
    let with_routes = || {
        let mut taken = AdjIn::default();
        taken.update(routes(&["10.244.1.0/24"], "10.0.0.2"), &peer).unwrap();
        taken
    };
    let mut taken = with_routes();
    taken.down(Some(&restart(true)), now);
    assert!(!taken.tick(now + Duration::from_secs(59)));
    assert!(taken.tick(now + Duration::from_secs(60)) && held(&taken).is_empty());
    let mut taken = with_routes();
    taken.down(None, now);
    assert!(held(&taken).is_empty(), "it said goodbye");
    let mut taken = with_routes();
    taken.down(Some(&restart(true)), now);
    taken.up(&session(65000, Some(restart(false))), now);
    assert!(held(&taken).is_empty(), "it forwarded nothing meanwhile");
}

#[test]
fn the_best_way_is_the_preferred_one_then_the_shortest_and_those_that_are_as_good() {
    let (one, mut two) = (peer(65000), peer(65000));
    two.address = IpAddr::from([10, 0, 0, 9]);
    let way = |next_hop: &str, change: &dyn Fn(&mut Attributes)| {
        let mut update = routes(&["10.244.1.0/24"], next_hop);
        change(&mut update.attributes);
        let mut taken = AdjIn::default();
        taken.update(update, &peer(65000)).unwrap();
        taken
    };
    let plain = way("10.0.0.2", &|_| {});
    let found = |other: &AdjIn| {
        let found = best([(&one, &plain, false), (&two, other, false)]);
        found[&network("10.244.1.0/24")].iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let chosen = |other: &AdjIn| found(other) == ["10.0.0.9"];
    assert!(chosen(&way("10.0.0.9", &|all| all.local_pref = Some(200))));
    assert!(!chosen(&way("10.0.0.9", &|all| all.as_path = vec![Segment::Sequence(vec![1])])));
    assert!(!chosen(&way("10.0.0.9", &|all| all.med = Some(1))));
    assert_eq!(found(&way("10.0.0.9", &|_| {})), ["10.0.0.2", "10.0.0.9"], "of equal ones, all");
    assert_eq!(found(&way("10.0.0.2", &|_| {})), ["10.0.0.2"], "by one next hop, whoever tells of it");
    let mut stale = way("10.0.0.9", &|all| all.local_pref = Some(200));
    stale.down(Some(&restart(true)), Instant::now());
    assert!(!chosen(&stale));
    let ways: Vec<AdjIn> = (1..=20).map(|last| way(&format!("10.0.1.{last}"), &|_| {})).collect();
    let all = best(ways.iter().rev().map(|way| (&one, way, false)));
    let hops: Vec<IpAddr> = all[&network("10.244.1.0/24")].iter().copied().collect();
    assert_eq!((hops.len(), hops[0]), (MOST_WAYS, IpAddr::from([10, 0, 1, 1])));
}
