//! VXLAN devices and their forwarding databases against the real kernel, in a namespace made for the test.
//! Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::net::IpAddr;

use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{FdbEntry, Mac, RtnetlinkClient, Tunnel, Vxlan};
use weft_testkit::namespace::sh;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn device(local: &str) -> Vxlan {
    let tunnel = Tunnel { vni: 1, port: 8472, local: ip(local) };
    Vxlan { name: "weft-vxlan".into(), mac: Mac([0x0e, 1, 2, 3, 4, 5]), mtu: 1450, tunnel }
}

#[test]
fn a_device_is_made_as_asked_and_read_back() {
    for local in ["172.30.0.11", "fd00:30::11"] {
        let namespace = Namespace::temporary().unwrap();
        let mut route = namespace.run(RtnetlinkClient::open).unwrap().unwrap();
        let device = device(local);
        route.add_vxlan(&device).unwrap();
        let shown = sh(&namespace, "ip -d link show weft-vxlan");
        for word in ["vxlan id 1", "dstport 8472", "nolearning", "0e:01:02:03:04:05", "mtu 1450", local] {
            assert!(shown.contains(word), "{word} in {shown}");
        }
        let index = route.link("weft-vxlan").unwrap().index;
        assert_eq!(route.tunnel(index).unwrap(), Some(device.tunnel));
    }
}

#[test]
fn another_make_of_device_is_no_tunnel_of_ours() {
    let namespace = Namespace::temporary().unwrap();
    let mut route = namespace.run(RtnetlinkClient::open).unwrap().unwrap();
    sh(&namespace, "ip link add learns type vxlan id 1 dstport 8472 local 172.30.0.11");
    sh(&namespace, "ip link add bridge0 type bridge");
    for name in ["learns", "bridge0", "lo"] {
        let index = route.link(name).unwrap().index;
        assert_eq!(route.tunnel(index).unwrap(), None, "{name}");
    }
}

#[test]
fn entries_come_move_and_go() {
    for (local, [first, second]) in
        [("172.30.0.11", ["172.30.0.12", "172.30.0.13"]), ("fd00:30::11", ["fd00:30::12", "fd00:30::13"])]
    {
        let namespace = Namespace::temporary().unwrap();
        let mut route = namespace.run(RtnetlinkClient::open).unwrap().unwrap();
        route.add_vxlan(&device(local)).unwrap();
        let link = route.link("weft-vxlan").unwrap().index;
        let entry = FdbEntry { link, mac: Mac([0x0e, 9, 9, 9, 9, 9]), remote: ip(first) };
        route.replace_fdb(entry).unwrap();
        route.replace_fdb(entry).unwrap();
        assert_eq!(route.fdb(link).unwrap(), [entry]);
        let shown = sh(&namespace, "bridge fdb show dev weft-vxlan");
        assert!(shown.contains(&format!("0e:09:09:09:09:09 dst {first} self permanent")), "{shown}");

        let moved = FdbEntry { remote: ip(second), ..entry };
        route.replace_fdb(moved).unwrap();
        assert_eq!(route.fdb(link).unwrap(), [moved], "the old remote is gone");
        route.delete_fdb(moved).unwrap();
        assert_eq!(route.fdb(link).unwrap(), []);
        assert!(route.delete_fdb(moved).unwrap_err().is_missing());
    }
}
