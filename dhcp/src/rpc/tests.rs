//! The reference's own words (`/usr/lib/cni/dhcp` of Debian 12, plugin and daemon), and what is none.

use proptest::prelude::*;

use super::*;
use crate::lease::{Route, Station};

/// What the plugin sends for ADD, after its greeting.
const ALLOCATE: &[&str] = &[
    "2fff81030101075265717565737401ff82000102010d536572766963654d6574686f64010c0001035365710106000000",
    "12ff82010d444843502e416c6c6f63617465005aff8303010107436d644172677301ff84000106010b436f6e7461696e",
    "65724944010c0001054e65746e73010c00010649664e616d65010c00010441726773010c00010450617468010c000109",
    "537464696e44617461010a000000fff2ff840102633101112f72756e2f6e65746e732f77642d706f6401046574683001",
    "104b38535f504f445f4e414d453d776562010c2f7573722f6c69622f636e6901ffaf7b22636e6956657273696f6e223a",
    "22312e302e30222c226e616d65223a226c616e222c2274797065223a226d6163766c616e222c226970616d223a7b2274",
    "797065223a2264686370222c226461656d6f6e536f636b657450617468223a222f746d702f77646863702f702e736f63",
    "6b222c2270726f76696465223a5b7b226f7074696f6e223a22686f73742d6e616d65222c2266726f6d417267223a224b",
    "38535f504f445f4e414d45227d5d7d7d0a00",
];
/// What the daemon answers, after its welcome: 10.7.0.80/24, by 10.7.0.1.
const ALLOCATED: &[&str] = &[
    "3aff8103010108526573706f6e736501ff82000103010d536572766963654d6574686f64010c00010353657101060001",
    "054572726f72010c00000012ff82010d444843502e416c6c6f636174650051ff8303010106526573756c7401ff840001",
    "05010a434e4956657273696f6e010c00010a496e746572666163657301ff8800010349507301ff8e000106526f757465",
    "7301ff92000103444e5301ff9400000024ff87020101155b5d2a74797065733130302e496e7465726661636501ff8800",
    "01ff86000029ff85030102ff8600010301044e616d65010c0001034d6163010c00010753616e64626f78010c00000023",
    "ff8d020101145b5d2a74797065733130302e4950436f6e66696701ff8e0001ff8a000033ff89030102ff8a0001030109",
    "496e7465726661636501040001074164647265737301ff8c00010747617465776179010a00000023ff8b030101054950",
    "4e657401ff8c00010201024950010a0001044d61736b010a0000001dff910201010e5b5d2a74797065732e526f757465",
    "01ff920001ff9000001cff8f030102ff90000102010344737401ff8c0001024757010a00000046ff9303010103444e53",
    "01ff94000104010b4e616d657365727665727301ff96000106446f6d61696e010c00010653656172636801ff96000107",
    "4f7074696f6e7301ff9600000016ff95020101085b5d737472696e6701ff9600010c000033ff8403010201040a070050",
    "0104ffffff000001040a070001000101010104000000000104000000000001040a07000100010000",
];
/// What it answers where the container has no such interface.
const FAILED: &[&str] = &[
    "3aff8103010108526573706f6e736501ff82000103010d536572766963654d6574686f64010c00010353657101060001",
    "054572726f72010c0000003bff82010d444843502e416c6c6f6361746502276572726f72206c6f6f6b696e6720757020",
    "2265746858223a204c696e6b206e6f7420666f756e64000aff97030102ff9800000003ff9800",
];
/// What it answers DEL.
const RELEASED: &[&str] = &[
    "3aff8103010108526573706f6e736501ff82000103010d536572766963654d6574686f64010c00010353657101060001",
    "054572726f72010c00000011ff82010c444843502e52656c65617365000aff97030102ff9800000003ff9800",
];

fn bytes(lines: &[&str]) -> Vec<u8> {
    let text = lines.concat();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The messages of a stream, without their lengths.
fn messages(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = stream;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let length = gob::uint(&mut rest).unwrap() as usize;
        let (message, after) = rest.split_at(length);
        messages.push(message.to_vec());
        rest = after;
    }
    messages
}

/// The values that a stream tells, whatever numbers its types have.
fn values(stream: &[u8]) -> Vec<Value> {
    let mut reader = Reader::default();
    messages(stream).iter().filter_map(|message| reader.message(message).unwrap()).collect()
}

fn call() -> Call {
    let mut calls = Calls::default();
    let mut found =
        messages(&bytes(ALLOCATE)).iter().filter_map(|it| calls.take(it).unwrap()).collect::<Vec<_>>();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn lease() -> Lease {
    let gateway = Ipv4Addr::new(10, 7, 0, 1);
    Lease {
        address: "10.7.0.80/24".parse().unwrap(),
        gateway: Some(gateway),
        routes: vec![Route { destination: "0.0.0.0/0".parse().unwrap(), router: gateway }],
        term: None,
        server: Station { address: gateway, mac: [0; 6] },
    }
}

#[test]
fn the_reference_plugins_call_is_understood() {
    let call = call();
    assert_eq!((call.method.clone(), call.number), (Ok(Method::Allocate), 0));
    assert_eq!((&*call.container, &*call.netns, &*call.ifname), ("c1", "/run/netns/wd-pod", "eth0"));
    assert_eq!(call.args, "K8S_POD_NAME=web");
    let config: serde_json::Value = serde_json::from_slice(&call.config).unwrap();
    assert_eq!(config["ipam"]["provide"][0]["option"], "host-name");
}

/// Receivers go by names: what the reference leaves out of its values is not missed in ours.
#[test]
fn answers_tell_what_the_reference_daemons_do() {
    let theirs = values(&bytes(ALLOCATED));
    let ours = values(&Answers::default().lease(&call(), &lease(), 0));
    assert_eq!(ours[0], theirs[0]);
    for name in ["IPs", "Routes"] {
        assert_eq!(ours[1].field(name), theirs[1].field(name), "{name}");
    }
    let error = "error looking up \"ethX\": Link not found";
    assert_eq!(values(&Answers::default().error(&call(), error)), values(&bytes(FAILED)));
    let release = Call { method: Ok(Method::Release), ..call() };
    assert_eq!(values(&Answers::default().done(&release)), values(&bytes(RELEASED)));
}

#[test]
fn descriptions_of_types_are_written_as_the_reference_writes_them() {
    let theirs = messages(&bytes(ALLOCATED));
    let ours = messages(&Answers::default().lease(&call(), &lease(), 0));
    assert_eq!(ours[0], theirs[0], "Response");
    let network = |messages: &[Vec<u8>]| messages.iter().any(|it| it.windows(5).any(|part| part == b"IPNet"));
    assert!(network(&theirs) && network(&ours));
    let mut reader = Reader::default();
    for message in
        gob::structure(69, "IPNet", &[("IP", BYTES), ("Mask", BYTES)]).split_at(1).1.chunks(1 << 10)
    {
        assert_eq!(reader.message(message), Ok(None));
    }
}

#[test]
fn a_route_tells_its_metric_and_that_it_is_on_the_link() {
    let on_link = Route { destination: "10.8.0.0/16".parse().unwrap(), router: Ipv4Addr::UNSPECIFIED };
    let lease = Lease { routes: vec![lease().routes[0], on_link], gateway: None, ..lease() };
    let told = |metric| {
        let values = values(&Answers::default().lease(&call(), &lease, metric));
        let Some(Value::List(routes)) = values[1].field("Routes").cloned() else { panic!("{values:?}") };
        routes
            .iter()
            .map(|it| (it.field("Priority").cloned(), it.field("Scope").cloned()))
            .collect::<Vec<_>>()
    };
    // As signed numbers are written: twice as much.
    let (metric, scope) = (Some(Value::Number(200)), Some(Value::Number(506)));
    assert_eq!(told(100), [(metric.clone(), None), (metric, scope.clone())]);
    assert_eq!(told(0), [(None, None), (None, scope)]);
}

#[test]
fn types_are_described_once_in_a_conversation() {
    let mut answers = Answers::default();
    let first = answers.lease(&call(), &lease(), 0);
    let second = answers.lease(&Call { number: 300, ..call() }, &lease(), 0);
    assert_eq!((messages(&first).len(), messages(&second).len()), (9, 2));
    let all = values(&[first, second, answers.error(&call(), "no"), answers.done(&call())].concat());
    assert_eq!(all.len(), 8);
    assert_eq!(all[2].field("Seq"), Some(&Value::Number(300)));
}

#[test]
fn another_method_is_named() {
    let renamed: Vec<u8> = {
        let mut stream = bytes(ALLOCATE);
        let at = stream.windows(13).position(|part| part == b"DHCP.Allocate").unwrap();
        stream[at..at + 13].copy_from_slice(b"DHCP.Frobnify");
        stream
    };
    let mut calls = Calls::default();
    let found = messages(&renamed).iter().find_map(|message| calls.take(message).unwrap()).unwrap();
    assert_eq!(found.method, Err("DHCP.Frobnify".to_owned()));
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)) {
        let mut stream = bytes(ALLOCATE);
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let (mut rest, mut calls) = (&stream[..], Calls::default());
        while let Ok(length) = gob::uint(&mut rest) {
            let Some((message, after)) = rest.split_at_checked(length as usize) else { break };
            rest = after;
            if calls.take(message).is_err() {
                break;
            }
        }
    }

    #[test]
    fn garbage_is_no_call(message in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut calls = Calls::default();
        prop_assert!(!matches!(calls.take(&message), Ok(Some(_))));
    }
}
