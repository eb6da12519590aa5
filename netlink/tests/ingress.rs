//! Programs at the ingress of interfaces, and the types that the running kernel shows. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use weft_netlink::bpf::Register::{Frame, R0, R1, R2, R7};
use weft_netlink::bpf::{Assembler, Helper, IngressProgram, KernelTypes, Map, MapKind, MapSpec, Size};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{Bridge, LinkChange, RtnetlinkClient};

const COUNTS: MapSpec = MapSpec { name: "counts", kind: MapKind::Hash, key: 4, value: 8, capacity: 1 };

/// Counts what comes in, and leaves it to others.
fn counting(map: &Map) -> Assembler {
    let mut code = Assembler::default();
    let end = code.label();
    code.store_number(Size::Word, Frame, -4, 0).copy(R2, Frame).add(R2, -4).set_map(R1, map.descriptor());
    code.call(Helper::MapLookup).jump_if_equal(R0, 0, end);
    code.copy(R7, R0).set(R1, 1).add_atomically(R7, 0, R1);
    code.place(end).set(R0, IngressProgram::NEXT).exit();
    code
}

#[test]
fn a_program_sees_what_comes_in_until_its_link_or_its_interface_goes() {
    let namespace = Namespace::temporary().unwrap();
    namespace
        .run(|| {
            let mut route = RtnetlinkClient::open().unwrap();
            route.add_bridge(&Bridge { name: "other".into(), mac: None, mtu: None }).unwrap();
            let lo = route.link("lo").unwrap().index;
            route.change_link(lo, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
            let map = Map::create(COUNTS).unwrap();
            map.put(&[0; 4], &[0; 8]).unwrap();
            let count = || u64::from_ne_bytes(map.get(&[0; 4]).unwrap().unwrap().try_into().unwrap());
            let types = KernelTypes::read("nf_conntrack").unwrap();
            let program = IngressProgram::load("counting", &counting(&map).finish(), &types).unwrap();
            let [one, other] = [lo, route.link("other").unwrap().index].map(|it| program.attach(it).unwrap());
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let send = || {
                socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
                socket.recv_from(&mut [0]).unwrap();
            };
            send();
            assert_eq!(count(), 1);
            assert!(one.is_attached().unwrap() && other.is_attached().unwrap());
            route.delete_link_named("other").unwrap();
            assert!(!other.is_attached().unwrap());
            drop(one);
            send();
            assert_eq!(count(), 1);
        })
        .unwrap();
}

#[test]
fn the_kernel_says_where_its_connections_have_what() {
    let types = KernelTypes::read("nf_conntrack").unwrap();
    assert!(types.function("bpf_skb_ct_lookup").is_ok());
    // Behind the count of its users, which is a structure's first member.
    assert!(types.offset("nf_conn", "timeout").unwrap() >= 4);
    assert!(types.offset("nf_conn", "status").unwrap() > types.offset("nf_conn", "timeout").unwrap());
    let error = types.offset("nf_conn", "weather").unwrap_err().to_string();
    assert!(error.contains("member weather of struct nf_conn"), "{error}");
}

#[test]
fn a_program_that_the_verifier_refuses_is_told_of_in_its_words() {
    let types = KernelTypes::read("nf_conntrack").unwrap();
    let mut code = Assembler::default();
    code.load(Size::Word, R0, R1, 4096).exit();
    let error = IngressProgram::load("wrong", &code.finish(), &types).unwrap_err().to_string();
    assert!(error.contains("wrong for interfaces") && error.contains("invalid bpf_context"), "{error}");
}
