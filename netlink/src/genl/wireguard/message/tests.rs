//! What is written is what the kernel answers with, so that it can be read back.

use super::*;
use crate::genl::HEADER;

const FAMILY: Family = Family { number: 33, version: 1 };

fn networks(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Requests, read as answers.
fn answers(requests: Vec<Request>) -> Vec<Device> {
    let frame = |payload| Frame { kind: 33, flags: 0, sequence: 1, payload };
    requests.iter().map(|request| device(frame(&request.payload)).unwrap()).collect()
}

#[test]
fn a_device_and_its_peers_read_back_as_they_were_written() {
    let settings = Settings { private_key: Some([7; 32]), port: Some(51820) };
    let v4 = PeerChange {
        public_key: [1; 32],
        endpoint: Some("172.30.0.12:51820".parse().unwrap()),
        keepalive: Some(25),
        allowed: networks(&["10.244.2.0/24", "fd00:10:244:2::/64"]),
        ..PeerChange::default()
    };
    let endpoint = Some("[fd00:30::13]:51821".parse().unwrap());
    let v6 = PeerChange { public_key: [2; 32], endpoint, ..PeerChange::default() };
    let requests = set(&FAMILY, "wg", &settings, &[v4.clone(), v6]);
    assert_eq!(Attributes(&requests[0].payload[HEADER..]).string(IFNAME), Some("wg"));
    let read = join(answers(requests));
    assert_eq!((read.private_key, read.port), (Some([7; 32]), 51820));
    let peer = Peer {
        public_key: [1; 32],
        endpoint: v4.endpoint,
        keepalive: Some(25),
        allowed: v4.allowed,
        ..Peer::default()
    };
    assert_eq!(read.peers, [peer, Peer { public_key: [2; 32], endpoint, ..Peer::default() }]);
}

#[test]
fn what_is_not_named_stays() {
    assert_eq!(set(&FAMILY, "wg", &Settings::default(), &[]), []);
    let requests = set(&FAMILY, "wg", &Settings { port: Some(1), private_key: None }, &[]);
    let message = Attributes(&requests[0].payload[HEADER..]);
    assert_eq!((message.get(PRIVATE_KEY), message.u16_native(LISTEN_PORT)), (None, Some(1)));
}

#[test]
fn however_many_peers_and_networks_there_are_each_message_has_room_for_its_own() {
    let allowed: Vec<IpNetwork> = (0..1000u16)
        .map(|number| {
            IpNetwork::new(Ipv4Addr::from(0x0a00_0000 + u32::from(number) * 64).into(), 26).unwrap()
        })
        .collect();
    let large = PeerChange {
        public_key: [9; 32],
        replace_allowed: true,
        allowed: allowed.clone(),
        ..PeerChange::default()
    };
    let small = (0..1000u16).map(|number| {
        let mut public_key = [1; 32];
        public_key[..2].copy_from_slice(&number.to_be_bytes());
        PeerChange { public_key, allowed: networks(&["10.244.2.0/24"]), ..PeerChange::default() }
    });
    let changes: Vec<PeerChange> = [large].into_iter().chain(small).collect();
    let requests = set(&FAMILY, "wg", &Settings { port: Some(5), private_key: None }, &changes);
    assert!(requests.iter().all(|request| request.payload.len() < 1 << 16), "a message is too long");
    let read = join(answers(requests));
    assert_eq!((read.port, read.peers.len()), (5, 1001));
    assert_eq!(read.peers[0].allowed, allowed);
}

#[test]
fn a_peer_that_is_cut_off_goes_on_in_the_next_message() {
    let part = |peers: &[(u8, &[&str])]| Device {
        peers: peers
            .iter()
            .map(|(key, allowed)| Peer {
                public_key: [*key; 32],
                allowed: networks(allowed),
                ..Peer::default()
            })
            .collect(),
        ..Device::default()
    };
    let joined = join(vec![
        part(&[(1, &["10.0.1.0/24"]), (2, &["10.0.2.0/24"])]),
        part(&[(2, &["10.0.3.0/24"]), (3, &[])]),
    ]);
    assert_eq!(joined, part(&[(1, &["10.0.1.0/24"]), (2, &["10.0.2.0/24", "10.0.3.0/24"]), (3, &[])]));
}

#[test]
fn there_was_no_handshake_at_the_beginning_of_time() {
    let time =
        |seconds: u64, nanoseconds: u64| moment(&[seconds.to_ne_bytes(), nanoseconds.to_ne_bytes()].concat());
    assert_eq!(time(0, 0), None);
    assert_eq!(time(5, 7), Some(SystemTime::UNIX_EPOCH + Duration::new(5, 7)));
    assert_eq!(time(5, u64::MAX), None);
    assert_eq!(moment(&[1; 9]), None);
}

#[test]
fn whatever_is_too_short_is_told_and_nothing_is_read_beyond_its_end() {
    let network = |family: u16, octets: &[u8], prefix: u8| {
        let mut buffer = Vec::new();
        let mut writer = Writer(&mut buffer);
        writer.u16_native(ALLOWED_FAMILY, family);
        writer.bytes(ALLOWED_ADDRESS, octets);
        writer.u8(ALLOWED_PREFIX, prefix);
        super::network(&Attributes(&buffer))
    };
    assert_eq!(network(AF_INET, &[10, 0, 0, 0], 8), "10.0.0.0/8".parse().ok());
    for (family, octets, prefix) in
        [(AF_INET, &[10, 0, 0][..], 8), (AF_INET, &[10, 0, 0, 0], 33), (7, &[0; 16], 0)]
    {
        assert_eq!(network(family, octets, prefix), None);
    }
    assert_eq!(endpoint(&[2]), None);
    assert_eq!(endpoint(&AF_INET6.to_ne_bytes()), None);
    let mut buffer = Vec::new();
    Writer(&mut buffer).bytes(PEER_PUBLIC_KEY, &[1; 31]);
    assert!(matches!(peer(&Attributes(&buffer)), Err(Error::Malformed(_))));
}
