//! Messages there and back, and what RFC 7606 makes of bad ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn prefix4() -> impl Strategy<Value = IpNetwork> {
    (any::<u32>(), 0u8..=32).prop_map(|(bits, length)| masked(Ipv4Addr::from(bits).into(), length))
}

fn prefix6() -> impl Strategy<Value = IpNetwork> {
    (any::<u128>(), 0u8..=128).prop_map(|(bits, length)| masked(Ipv6Addr::from(bits).into(), length))
}

fn masked(address: IpAddr, length: u8) -> IpNetwork {
    let prefix = IpNetwork::new(address, length).unwrap();
    IpNetwork::new(prefix.network(), length).unwrap()
}

fn prefixes() -> impl Strategy<Value = Vec<IpNetwork>> {
    prop_oneof![prop::collection::vec(prefix4(), 0..1500), prop::collection::vec(prefix6(), 0..600)]
}

fn segment() -> impl Strategy<Value = Segment> {
    let systems = || prop::collection::vec(1u32.., 1..4);
    prop_oneof![systems().prop_map(Segment::Sequence), systems().prop_map(Segment::Set)]
}

prop_compose! {
    fn attributes()(
        origin in prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)],
        as_path in prop::collection::vec(segment(), 0..4),
        med in any::<Option<u32>>(),
        local_pref in any::<Option<u32>>(),
        communities in prop::collection::vec(any::<u32>().prop_map(Community), 0..90),
        large_communities in prop::collection::vec(any::<[u32; 3]>().prop_map(LargeCommunity), 0..30),
        originator_id in any::<Option<u32>>(),
        cluster_list in prop::collection::vec(any::<u32>().prop_map(Ipv4Addr::from), 0..3),
    ) -> Attributes {
        let originator_id = originator_id.map(Ipv4Addr::from);
        Attributes {
            origin, as_path, med, local_pref, communities, large_communities, originator_id, cluster_list,
        }
    }
}

fn all(mut bytes: Vec<u8>, dialect: Dialect) -> Vec<Update> {
    let mut updates = Vec::new();
    while let Some(message) = take(&mut bytes, dialect).unwrap() {
        let Message::Update(update) = message else { panic!("{message:?}") };
        updates.push(update);
    }
    assert_eq!(bytes, [], "messages end where they say");
    updates
}

proptest! {
    #[test]
    fn what_is_announced_and_withdrawn_comes_back(
        sent in prefixes(),
        attributes in attributes(),
        by_v6 in any::<bool>(),
        four_octet_as in any::<bool>(),
    ) {
        let dialect = Dialect { four_octet_as, extended_next_hop: by_v6, is_external: false };
        let v4 = sent.first().is_some_and(IpNetwork::is_ipv4);
        let next_hop: IpAddr = match v4 && !by_v6 {
            true => Ipv4Addr::new(10, 0, 0, 1).into(),
            false => "fd00::1".parse().unwrap(),
        };
        let updates = all(announce(next_hop, &sent, &attributes, dialect), dialect);
        let mut came = Vec::new();
        for update in &updates {
            prop_assert_eq!(&update.faults, &Vec::<String>::new());
            prop_assert_eq!(&update.withdrawn, &vec![]);
            for reached in &update.reached {
                prop_assert_eq!(reached.next_hop, next_hop);
                came.extend(reached.prefixes.clone());
            }
            let path = |attributes: &Attributes| -> Vec<u32> {
                attributes.as_path.iter().flat_map(|segment| segment.systems().to_vec()).collect()
            };
            prop_assert_eq!(path(&update.attributes), path(&attributes));
            let but_path = |attributes: &Attributes| Attributes { as_path: vec![], ..attributes.clone() };
            prop_assert_eq!(but_path(&update.attributes), but_path(&attributes));
        }
        prop_assert_eq!(&came, &sent);
        let gone: Vec<IpNetwork> =
            all(withdraw(&sent, dialect), dialect).into_iter().flat_map(|update| update.withdrawn).collect();
        prop_assert_eq!(gone, sent);
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..7) {
        let mut bytes = message(kind, &body);
        for dialect in [Dialect::default(), Dialect { extended_next_hop: true, four_octet_as: true, is_external: true }] {
            let _ = take(&mut bytes.clone(), dialect);
        }
        bytes.truncate(body.len());
        let _ = take(&mut bytes, Dialect::default());
    }
}

#[test]
fn a_thousand_routes_with_the_same_attributes_take_few_messages() {
    let sent: Vec<IpNetwork> =
        (0..1000u32).map(|n| masked(Ipv4Addr::from(0xc000_0200 + n).into(), 32)).collect();
    let dialect = Dialect { four_octet_as: true, ..Dialect::default() };
    let next_hop = Ipv4Addr::new(10, 0, 0, 1).into();
    assert_eq!(all(announce(next_hop, &sent, &Attributes::default(), dialect), dialect).len(), 2);
}

#[test]
fn a_message_is_judged_as_soon_as_its_header_is_there() {
    let refused =
        |bytes: &[u8]| take(&mut bytes.to_vec(), Dialect::default()).map_err(|why| (why.code, why.subcode));
    assert_eq!(refused(b"GET / HTTP/1.1\r\n"), Err((1, 1)));
    let header = |length: u16, kind: u8| [&[0xff; 16][..], &length.to_be_bytes(), &[kind]].concat();
    assert_eq!(refused(&header(18, 4)), Err((1, 2)));
    assert_eq!(refused(&header(20, 4)), Err((1, 2)));
    assert_eq!(refused(&header(4097, 2)), Err((1, 2)));
    assert_eq!(refused(&header(28, 1)), Err((1, 2)));
    assert_eq!(refused(&header(19, 9)), Err((1, 3)));
    assert_eq!(refused(&header(4096, 2)), Ok(None));
    assert_eq!(refused(&[0xff; 7]), Ok(None));
    assert_eq!(refused(&message(ROUTE_REFRESH, &[0, 1, 1])), Err((7, 1)));
}

#[test]
fn small_messages_come_back() {
    let back = |mut bytes: Vec<u8>| take(&mut bytes, Dialect::default()).unwrap().unwrap();
    assert_eq!(back(keepalive()), Message::Keepalive);
    for family in Family::BOTH {
        for refresh in [Refresh::Request, Refresh::Begin, Refresh::End] {
            let expected = Message::RouteRefresh(Some((family, refresh)));
            assert_eq!(back(route_refresh(family, refresh)), expected);
        }
        let expected = Update { end_of_rib: Some(family), ..Update::default() };
        assert_eq!(back(end_of_rib(family)), Message::Update(expected));
    }
    let why = Notification::shutdown("bye");
    assert_eq!(back(notification(&why)), Message::Notification(why));
}

/// An UPDATE with these attributes and the IPv4 prefix 10.0.0.0/8, where one is asked for.
fn update(attributes: &[&[u8]], with_prefix: bool) -> Result<Update, (u8, u8)> {
    let attributes = attributes.concat();
    let prefix: &[u8] = if with_prefix { &[8, 10] } else { &[] };
    let body = [&[0, 0][..], &[0, u8::try_from(attributes.len()).unwrap()], &attributes, prefix].concat();
    Update::decode(&body, Dialect { four_octet_as: true, ..Dialect::default() })
        .map_err(|why| (why.code, why.subcode))
}

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8];
const HOP: &[u8] = &[0x40, 3, 4, 10, 0, 0, 1];

#[test]
fn a_bad_attribute_costs_its_routes_and_not_the_session() {
    let good = update(&[ORIGIN, PATH, HOP], true).unwrap();
    assert_eq!((good.reached.len(), good.withdrawn.len(), good.faults.len()), (1, 0, 0));
    let bad: [(&str, &[&[u8]]); 12] = [
        ("an unknown origin", &[&[0x40, 1, 1, 3], PATH, HOP]),
        ("a long origin", &[&[0x40, 1, 2, 0, 0], PATH, HOP]),
        ("no origin", &[PATH, HOP]),
        ("no path", &[ORIGIN, HOP]),
        ("no next hop", &[ORIGIN, PATH]),
        ("a short next hop", &[ORIGIN, PATH, &[0x40, 3, 3, 10, 0, 0]]),
        ("an empty segment", &[ORIGIN, &[0x40, 2, 2, 2, 0], HOP]),
        ("a segment beyond the end", &[ORIGIN, &[0x40, 2, 2, 2, 1], HOP]),
        ("an unknown segment", &[ORIGIN, &[0x40, 2, 6, 9, 1, 0, 0, 0, 1], HOP]),
        ("wrong flags", &[&[0x80, 1, 1, 0], PATH, HOP]),
        ("communities of three bytes", &[ORIGIN, PATH, HOP, &[0xc0, 8, 3, 0, 0, 0]]),
        ("an attribute beyond the end", &[ORIGIN, PATH, HOP, &[0x80, 4, 40, 0]]),
    ];
    for (what, attributes) in bad {
        let update = update(attributes, true).unwrap();
        let seen = (update.reached.len(), update.withdrawn.len(), update.faults.len());
        assert_eq!(seen, (0, 1, 1), "{what}");
    }
}

#[test]
fn what_is_wrong_and_harms_no_route_is_left_out() {
    let harmless: [(&str, &[u8]); 4] = [
        ("an aggregator of one byte", &[0xc0, 7, 1, 0]),
        ("an atomic aggregate with a value", &[0x40, 6, 1, 0]),
        ("an optional one that nobody knows", &[0xc0, 99, 1, 0]),
        ("a second origin", &[0x40, 1, 1, 2]),
    ];
    for (what, attribute) in harmless {
        let update = update(&[ORIGIN, PATH, HOP, attribute], true).unwrap();
        assert_eq!((update.reached.len(), update.attributes.origin), (1, Origin::Igp), "{what}");
    }
}

#[test]
fn a_session_ends_where_nobody_knows_which_routes_are_meant() {
    let reach = |rest: &[u8]| [&[0x80, 14, u8::try_from(rest.len()).unwrap()][..], rest].concat();
    let good = reach(&[&[0, 2, 1, 16][..], &[0xfd; 16], &[0, 8, 0xfd]].concat());
    assert_eq!(update(&[ORIGIN, PATH, &good], false).unwrap().reached.len(), 1);
    assert_eq!(update(&[ORIGIN, PATH, &good, &good], false), Err((3, 1)), "twice");
    let hop = reach(&[0, 2, 1, 5, 1, 2, 3, 4, 5, 0]);
    assert_eq!(update(&[ORIGIN, PATH, &hop], false), Err((3, 9)), "a next hop of five bytes");
    let long = reach(&[&[0, 2, 1, 16][..], &[0xfd; 16], &[0, 129, 0xfd]].concat());
    assert_eq!(update(&[ORIGIN, PATH, &long], false), Err((3, 9)), "a prefix of 129 bits");
    let v4 = reach(&[&[0, 1, 1, 16][..], &[0xfd; 16], &[0, 8, 10]].concat());
    assert_eq!(update(&[ORIGIN, PATH, &v4], false), Err((3, 9)), "IPv4 by IPv6, which was not agreed");
    assert_eq!(update(&[&[0x40, 99, 1, 0]], true), Err((3, 2)), "a well-known one that nobody knows");
    assert_eq!(update(&[&[0x40, 1, 1, 9], PATH], false), Err((3, 1)), "bad, and about nothing");
    let body = [0, 0, 0, 0, 33, 10, 0, 0, 0, 0];
    let refused = Update::decode(&body, Dialect::default()).unwrap_err();
    assert_eq!((refused.code, refused.subcode), (3, 10), "a prefix of 33 bits");
    let refused = Update::decode(&[0, 9, 0, 0], Dialect::default()).unwrap_err();
    assert_eq!((refused.code, refused.subcode), (3, 1), "more withdrawn than there is");
}
