//! The bridge ports of this node's pods. The plugin makes each as br_netfilter asks for at that moment; when somebody
//! turns that on or off later (Docker does), the ports that are there must follow.

use weft_netlink::route::{BridgePort, Link};

/// How a pod's port must be, as the plugin sets it at ADD. With br_netfilter a packet for a Service goes from port to
/// port once its address is rewritten, even back out of its own; without it everything goes through the host.
pub fn port(bridge_netfilter: bool) -> BridgePort {
    BridgePort { hairpin: bridge_netfilter, isolated: !bridge_netfilter }
}

/// The ports of `bridge` that the plugin made for the network: it notes the network's name in their alias.
pub fn of_pods<'a>(links: &'a [Link], bridge: &str, network: &str) -> impl Iterator<Item = &'a Link> {
    let prefix = format!("{network}/");
    let bridge = links.iter().find(|link| link.name == bridge).map(|link| link.index);
    links.iter().filter(move |link| {
        let ours = link.alias.as_deref().is_some_and(|alias| alias.starts_with(&prefix));
        ours && bridge.is_some() && link.master == bridge
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, master: Option<u32>, alias: Option<&str>) -> Link {
        let (name, alias) = (name.to_owned(), alias.map(str::to_owned));
        Link {
            index,
            name,
            kind: None,
            mac: None,
            mtu: 1500,
            up: true,
            promiscuous: false,
            carrier: true,
            master,
            alias,
            group: 0,
            peer: None,
        }
    }

    #[test]
    fn only_the_plugins_ports_of_that_bridge_count() {
        let links = [
            link(1, "cni0", None, None),
            link(2, "pod", Some(1), Some("weft/a/eth0")),
            link(3, "foreign", Some(1), Some("wefty/a/eth0")),
            link(4, "unnamed", Some(1), None),
            link(5, "elsewhere", Some(9), Some("weft/b/eth0")),
        ];
        let found: Vec<&str> = of_pods(&links, "cni0", "weft").map(|link| link.name.as_str()).collect();
        assert_eq!(found, ["pod"]);
        assert_eq!(of_pods(&links, "cni1", "weft").count(), 0, "no such bridge");
    }
}
