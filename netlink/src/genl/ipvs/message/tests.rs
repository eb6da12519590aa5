//! Messages byte by byte, and back.

use proptest::prelude::*;

use super::*;
use crate::Frame;
use crate::genl::{Family, attributes};

const FAMILY: Family = Family { number: 33, version: VERSION };

fn server(address: &str) -> VirtualServer {
    VirtualServer { protocol: 6, address: address.parse().unwrap() }
}

fn scheduling(scheduler: &str, flags: u32, persistence: u32) -> Scheduling {
    Scheduling { scheduler: scheduler.into(), flags, persistence: NonZeroU32::new(persistence) }
}

/// The attributes of a request, as a frame would bring them.
fn told(request: &Request) -> Attributes<'_> {
    attributes(Frame { kind: request.kind, flags: 0, sequence: 1, payload: &request.payload }).unwrap()
}

#[test]
#[cfg(target_endian = "little")]
fn a_virtual_server_is_told_by_family_protocol_address_and_port() {
    let request = change(&FAMILY, &Change::DeleteService(server("10.96.0.10:80")));
    let expected = [
        vec![3, 1, 0, 0, 48, 0, 1, 0x80], // IPVS_CMD_DEL_SERVICE, version 1, IPVS_CMD_ATTR_SERVICE
        vec![6, 0, 1, 0, 2, 0, 0, 0, 6, 0, 2, 0, 6, 0, 0, 0], // AF_INET, TCP
        vec![20, 0, 3, 0, 10, 96, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![6, 0, 4, 0, 0, 80, 0, 0], // the port, big-endian
    ];
    assert_eq!(request.payload, expected.concat());
}

#[test]
#[cfg(target_endian = "little")]
fn a_destination_has_its_address_nat_a_weight_and_no_thresholds() {
    let at = server("10.96.0.10:80");
    let request = change(&FAMILY, &Change::AddDestination(at, "10.244.1.2:8080".parse().unwrap(), 1));
    let expected = [
        vec![64, 0, 2, 0x80, 20, 0, 1, 0, 10, 244, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![6, 0, 2, 0, 0x1f, 0x90, 0, 0, 8, 0, 3, 0, 0, 0, 0, 0, 8, 0, 4, 0, 1, 0, 0, 0],
        vec![8, 0, 5, 0, 0, 0, 0, 0, 8, 0, 6, 0, 0, 0, 0, 0],
    ];
    assert_eq!(request.payload[52..], expected.concat());
    let gone = change(&FAMILY, &Change::DeleteDestination(at, "10.244.1.2:8080".parse().unwrap()));
    assert_eq!(gone.payload[52..], [&[32, 0, 2, 0x80][..], &expected[0][4..], &expected[1][..8]].concat());
}

#[test]
fn a_virtual_server_reads_back_as_it_was_told() {
    for (at, scheduling) in [
        (server("10.96.0.10:80"), scheduling("rr", 0, 0)),
        (server("[fd00:96::10]:53"), scheduling("mh", SCHEDULER_FLAG_2, 10_800)),
        (server("10.96.0.10:80"), scheduling("sh", SCHEDULER_FLAG_1 | MARK, 0)),
    ] {
        let request = change(&FAMILY, &Change::AddService(at, scheduling.clone()));
        let read = service(&told(&request)).unwrap().unwrap();
        assert_eq!(read, Service { server: at, scheduling, statistics: Statistics::default() });
    }
}

#[test]
fn what_is_told_by_a_firewall_mark_is_nobodys_virtual_server() {
    let request = FAMILY.request(NEW_SERVICE, |writer| writer.nest(SERVICE, |s| s.u32_native(SVC_FWMARK, 7)));
    assert_eq!(service(&told(&request)).unwrap(), None);
}

#[test]
fn a_destination_and_what_is_counted_read_back() {
    let request = FAMILY.request(NEW_DEST, |writer| {
        writer.nest(DEST, |dest| {
            describe(dest, &"[fd00::2]:8080".parse().unwrap(), Some(0));
            dest.u32_native(DEST_ACTIVE_CONNS, 3);
            dest.u32_native(DEST_INACT_CONNS, 4);
        });
    });
    let read = destination(&told(&request), &server("[fd00:96::10]:80")).unwrap();
    let address = "[fd00::2]:8080".parse().unwrap();
    assert_eq!(read, Destination { address, weight: 0, is_nat: true, connections: 7 });

    let mut buffer = Vec::new();
    let mut writer = Writer(&mut buffer);
    writer.bytes(STATS_CONNS, &9u64.to_ne_bytes());
    writer.u32_native(STATS_INPKTS, 8);
    writer.bytes(STATS_OUTBYTES, &u64::MAX.to_ne_bytes());
    let counted = Statistics { connections: 9, received: (8, 0), sent: (0, u64::MAX) };
    assert_eq!(statistics(&Attributes(&buffer)), counted);
}

#[test]
fn timeouts_read_back() {
    let timeouts = Timeouts { tcp: 900, tcp_fin: 120, udp: 300 };
    assert_eq!(super::timeouts(&told(&set_timeouts(&FAMILY, &timeouts))), timeouts);
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_never_a_panic(cut in 0usize..200, at in 0usize..200, byte: u8) {
        let added = Change::AddService(server("[fd00:96::10]:53"), scheduling("rr", 0, 7));
        let mut payload = change(&FAMILY, &added).payload;
        let length = payload.len();
        payload[at % length] = byte;
        payload.truncate(cut.max(4));
        let frame = Frame { kind: 33, flags: 0, sequence: 1, payload: &payload };
        let _ = service(&attributes(frame).unwrap());
        let _ = destination(&attributes(frame).unwrap(), &server("10.0.0.1:1"));
    }
}
