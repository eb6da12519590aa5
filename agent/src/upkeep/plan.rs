//! What the plugin made for the node's pods and must stay while they run: the bridge, its addresses, the
//! pods' ports of it. Whether something is missing is decided here, from values. Putting it back is the
//! plugin's business (`plugin`), which knows how it made it; ports of the host are known to it alone.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft_cni_spec::NetworkList;
use weft_types::IpNetwork;

/// How much may be put back within how long before somebody is taken to undo it.
const MANY: usize = 20;
const LATELY: Duration = Duration::from_secs(10);

/// What the pods rely on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The bridge's name.
    pub bridge: String,
    /// The network's name.
    pub network: String,
    /// The addresses that the bridge has for the ranges that pods have addresses of.
    pub gateways: Vec<IpNetwork>,
    /// How the bridge treats the pods' ports.
    pub port: PortSettings,
}

/// How the bridge treats a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSettings {
    /// What came in by it may go out by it.
    pub hairpin: bool,
    /// Nothing goes to another isolated port.
    pub isolated: bool,
}

/// A link, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The note that the plugin leaves on it.
    pub alias: Option<String>,
    /// Whether somebody set it up.
    pub up: bool,
    /// Whether something is at its other end.
    pub carrier: bool,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// How that treats it.
    pub port: Option<PortSettings>,
}

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// All links.
    pub links: Vec<Link>,
    /// The bridge's addresses.
    pub addresses: Vec<IpNetwork>,
}

/// Something that is not as pods rely on it, in words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// It concerns all pods.
    Bridge(String),
    /// It concerns one.
    Port(String),
}

/// How a pod's port must be, as the plugin sets it at ADD. With br_netfilter a packet for a Service goes from
/// port to port once its address is rewritten, even back out of its own; without it everything goes through
/// the host.
pub fn port(bridge_netfilter: bool) -> PortSettings {
    PortSettings { hairpin: bridge_netfilter, isolated: !bridge_netfilter }
}

/// The ranges of a configuration that pods get addresses of, and those that some have addresses of from
/// before.
pub fn ranges(list: &NetworkList) -> impl Iterator<Item = IpNetwork> {
    let plugins = list.plugins.iter().take(1);
    plugins.flat_map(|plugin| {
        let ranges = plugin.ipam.iter().flat_map(|ipam| ipam.ranges.iter().flatten());
        ranges.map(|range| range.subnet).chain(plugin.bridge.retired.iter().copied())
    })
}

impl Expected {
    /// By a configuration, where pods may have addresses of `ranges`, and `held` are those that are reserved.
    pub fn by(
        list: &NetworkList,
        ranges: &[IpNetwork],
        held: &[IpAddr],
        port: PortSettings,
    ) -> Option<Expected> {
        let plugin = list.plugins.first()?;
        let used = ranges.iter().copied().filter(|range| held.iter().any(|address| range.contains(*address)));
        let gateway = |range: IpNetwork| IpNetwork::new(range.iter().nth(1)?, range.prefix()).ok();
        Some(Expected {
            bridge: plugin.bridge.bridge.clone()?,
            network: list.name.clone(),
            gateways: used.filter_map(gateway).collect(),
            port,
        })
    }

    /// What is missing. Nothing is where no pod is: the next one's ADD makes all.
    pub fn defects(&self, held: &Observed) -> Vec<Defect> {
        let prefix = format!("{}/", self.network);
        let is_pods = |link: &&Link| link.alias.as_deref().is_some_and(|alias| alias.starts_with(&prefix));
        let pods: Vec<&Link> = held.links.iter().filter(is_pods).collect();
        if pods.is_empty() {
            return Vec::new();
        }
        let Some(bridge) = held.links.iter().find(|link| link.name == self.bridge) else {
            return vec![Defect::Bridge(format!("the bridge {} is gone", self.bridge))];
        };
        let ports = pods.into_iter().filter_map(|link| Some(Defect::Port(self.wrong(link, bridge.index)?)));
        self.bridge(bridge, &held.addresses).into_iter().chain(ports).collect()
    }

    fn bridge(&self, bridge: &Link, held: &[IpNetwork]) -> Vec<Defect> {
        let name = &self.bridge;
        let down = (!bridge.up).then(|| format!("the bridge {name} is down"));
        let lacking = self.gateways.iter().filter(|gateway| !held.contains(gateway));
        let lacking = lacking.map(|gateway| format!("the bridge {name} lacks the address {gateway}"));
        // Without one the kernel asks for no pod's Ethernet address when it forwards IPv6 (RFC 4861 section
        // 7.2.2).
        let is_local =
            |held: &IpNetwork| matches!(held, IpNetwork::V6(held) if held.ip().is_unicast_link_local());
        let needs_local = bridge.carrier && self.gateways.iter().any(IpNetwork::is_ipv6);
        let local = (needs_local && !held.iter().any(is_local))
            .then(|| format!("the bridge {name} lacks a link-local address"));
        down.into_iter().chain(lacking).chain(local).map(Defect::Bridge).collect()
    }

    /// What is wrong with a pod's link. One that somebody made a port of another bridge is left to them.
    fn wrong(&self, link: &Link, bridge: u32) -> Option<String> {
        let name = &link.name;
        match link.master {
            None => Some(format!("{name} is no port of the bridge {}", self.bridge)),
            Some(master) if master != bridge => None,
            Some(_) if !link.up => Some(format!("{name} is down")),
            Some(_) => link.port.filter(|port| *port != self.port).map(|_| {
                format!("{name} has other bridge port settings (hairpin, isolated) than a pod's port")
            }),
        }
    }
}

impl Defect {
    /// The words.
    pub fn text(&self) -> &str {
        match self {
            Defect::Bridge(text) | Defect::Port(text) => text,
        }
    }
}

/// When something was put back, so that nobody fights with somebody else for ever.
#[derive(Debug, Default)]
pub struct Cooldown(VecDeque<Instant>);

impl Cooldown {
    /// Whether so much was put back lately that somebody must be undoing it.
    pub fn is_active(&mut self, now: Instant) -> bool {
        while self.0.front().is_some_and(|earlier| now.duration_since(*earlier) > LATELY) {
            self.0.pop_front();
        }
        self.0.len() >= MANY
    }

    /// Notes that something was put back.
    pub fn note(&mut self, now: Instant) {
        self.0.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge() -> Link {
        Link { index: 1, name: "cni0".into(), up: true, carrier: true, ..Link::default() }
    }

    fn pod(index: u32) -> Link {
        let alias = Some(format!("weft/c{index}/eth0"));
        let (name, port) = (format!("veth{index}"), Some(port(false)));
        Link { index, name, alias, up: true, master: Some(1), port, ..Link::default() }
    }

    fn expected() -> Expected {
        let gateways = vec!["10.244.1.1/24".parse().unwrap(), "fd00:1::1/64".parse().unwrap()];
        Expected { bridge: "cni0".into(), network: "weft".into(), gateways, port: port(false) }
    }

    fn whole() -> Observed {
        let addresses = ["10.244.1.1/24", "fd00:1::1/64", "fe80::1/64", "192.0.2.1/32"];
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Observed { links: vec![bridge(), pod(2), pod(3)], addresses }
    }

    fn defects(change: impl Fn(&mut Observed)) -> Vec<String> {
        let mut held = whole();
        change(&mut held);
        expected().defects(&held).iter().map(|defect| defect.text().to_owned()).collect()
    }

    #[test]
    fn what_running_pods_rely_on_is_missed() {
        assert_eq!(defects(|_| {}), Vec::<String>::new());
        assert_eq!(defects(|held| held.links[0].up = false), ["the bridge cni0 is down"]);
        assert_eq!(defects(|held| drop(held.links.remove(0))), ["the bridge cni0 is gone"]);
        let flushed = defects(|held| held.addresses.clear());
        assert_eq!(flushed.len(), 3, "{flushed:?}");
        assert!(flushed[2].contains("link-local"), "{flushed:?}");
        assert_eq!(defects(|held| held.links[2].master = None), ["veth3 is no port of the bridge cni0"]);
        assert_eq!(defects(|held| held.links[2].up = false), ["veth3 is down"]);
        assert_eq!(defects(|held| held.links[2].port = Some(port(true))).len(), 1);
    }

    #[test]
    fn without_pods_and_for_others_nothing_is_missed() {
        assert_eq!(defects(|held| held.links.truncate(0)), Vec::<String>::new(), "no pod");
        let others = defects(|held| {
            held.links[1].alias = Some("wefty/c2/eth0".into());
            held.links[1].master = None;
            held.links[2].master = Some(9);
        });
        assert_eq!(others, Vec::<String>::new());
    }

    #[test]
    fn somebody_who_undoes_everything_is_noticed() {
        let (mut cooldown, start) = (Cooldown::default(), Instant::now());
        for _ in 0..MANY {
            assert!(!cooldown.is_active(start));
            cooldown.note(start);
        }
        assert!(cooldown.is_active(start + LATELY));
        assert!(!cooldown.is_active(start + LATELY * 2));
    }
}
