//! The bare netlink calls for a container's end state, and for its removal: what no plugin can do without.

use std::os::fd::AsFd;
use std::path::Path;

use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{self, Address, Bridge, LinkChange, RtnetlinkClient, Veth, VethEnd};

const BRIDGE: &str = "cni0";

/// A veth pair at the bridge, the pod's end up with an address and a default route.
pub(crate) fn add(id: &str, netns: &Path) {
    let mut host = RtnetlinkClient::open().unwrap();
    let bridge = host.link(BRIDGE).unwrap().index;
    let namespace = Namespace::open(netns).unwrap();
    let end = |name: String| VethEnd { name, mac: None, mtu: None };
    let veth = Veth {
        host: end(host_name(id)),
        host_group: 0,
        host_up: true,
        master: Some(bridge),
        peer: end("eth0".into()),
    };
    host.add_veth(&veth, namespace.as_fd()).unwrap();
    let inside = || {
        let mut route = RtnetlinkClient::open().unwrap();
        let link = route.link("eth0").unwrap().index;
        route.change_link(link, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
        route.add_address(Address { link, address: "10.244.0.2/22".parse().unwrap() }).unwrap();
        let default = rtnl::Route::default_via("10.244.0.1".parse().unwrap());
        route.add_route(&default).unwrap();
    };
    namespace.run(inside).unwrap();
}

/// The link, and with it everything that is on it.
pub(crate) fn delete(id: &str) {
    RtnetlinkClient::open().unwrap().delete_link_named(&host_name(id)).unwrap();
}

/// Makes the bridge that they find.
pub(crate) fn prepare(node: &Namespace) {
    let work = || {
        let mut route = RtnetlinkClient::open().unwrap();
        route.add_bridge(&Bridge { name: BRIDGE.into(), mac: None, mtu: None }).unwrap();
        let link = route.link(BRIDGE).unwrap().index;
        route.change_link(link, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
        route.add_address(Address { link, address: "10.244.0.1/22".parse().unwrap() }).unwrap();
    };
    node.run(work).unwrap();
}

fn host_name(id: &str) -> String {
    format!("veth{id}")
}
