//! What the host and a container have already, as far as a plan depends on it. Reads the kernel, changes
//! nothing.

use std::path::Path;

use ipnetwork::IpNetwork;
use weft_cni_spec::{IpConfig, Success};
use weft_netlink::rtnl::{Link, Mac, RouteFilter, RtnetlinkClient, TokenBucket};
use weft_netlink::sysctl::bridge_netfilter;

use crate::{BridgeState, Error, HostState, Options, PodSide, Result};

impl HostState {
    /// Reads them in the client's namespace.
    pub(crate) fn read(
        route: &mut RtnetlinkClient,
        options: &Options,
        gateways: Vec<IpNetwork>,
    ) -> Result<HostState> {
        let bridge_netfilter = bridge_netfilter();
        let Some(link) = route.find_link(options.bridge.as_str())? else {
            return Ok(HostState { bridge: None, gateways, bridge_netfilter });
        };
        if link.kind.as_deref() != Some("bridge") {
            let kind = link.kind.unwrap_or_else(|| "physical interface".to_owned());
            return Err(Error::NotABridge { name: link.name, kind });
        }
        let gateway = match (options.gateway, options.gateway_link == options.bridge) {
            // Nobody looks at the addresses of a bridge that is no gateway.
            (false, _) => None,
            (true, true) => Some(link.index),
            (true, false) => route.find_link(options.gateway_link.as_str())?.map(|link| link.index),
        };
        let addresses = gateway.map(|index| route.addresses(Some(index))).transpose()?.unwrap_or_default();
        let addresses = addresses.into_iter().map(|address| address.address).collect();
        Ok(HostState { bridge: Some(BridgeState { link, addresses }), gateways, bridge_netfilter })
    }
}

/// What a container's interface has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerInterface {
    link: Link,
    addresses: Vec<IpNetwork>,
    destinations: Vec<IpNetwork>,
    /// Rate and limit of what it sends.
    limit: Option<(u64, u32)>,
}

impl ContainerInterface {
    /// Reads it in the calling thread's namespace.
    pub(crate) fn read(ifname: &str) -> Result<ContainerInterface> {
        let mut route = RtnetlinkClient::open()?;
        let link = route.link(ifname)?;
        let addresses =
            route.addresses(Some(link.index))?.into_iter().map(|address| address.address).collect();
        // Whichever table and next hop: a plugin later in the list may have changed them.
        let paths = route.routes(RouteFilter::default())?;
        let destinations = paths.into_iter().map(|path| path.destination).collect();
        let limit = route.token_bucket(link.index)?;
        Ok(ContainerInterface { link, addresses, destinations, limit })
    }

    /// Its Ethernet address, whoever chose it.
    pub(crate) fn mac(&self) -> Option<Mac> {
        self.link.mac
    }

    /// The part of a result that is about this interface: the lease of which ADD made its plan.
    pub(crate) fn told(&self, previous: &Success) -> Success {
        let is_own = |ip: &&IpConfig| {
            let interface = ip.interface.and_then(|index| previous.interfaces.get(index));
            interface.is_some_and(|interface| interface.name == self.link.name && interface.sandbox.is_some())
        };
        let ips = previous.ips.iter().filter(is_own).cloned().collect();
        Success { ips, routes: previous.routes.clone(), ..Success::default() }
    }

    /// What is not as planned and not told by the result, in words.
    pub(crate) fn difference(&self, plan: &PodSide) -> Option<String> {
        let name = &self.link.name;
        let is_limited = |wanted: &TokenBucket| self.limit == Some((wanted.rate, wanted.limit));
        (plan.up && !self.link.up).then(|| format!("{name} is down")).or_else(|| {
            let lacks_limit = plan.limit.is_some_and(|wanted| !is_limited(&wanted));
            lacks_limit.then(|| format!("{name} does not limit what the container sends"))
        })
    }

    /// Says what is not as the result of ADD told.
    pub(crate) fn compare(&self, previous: &Success, netns: &Path) -> Result<(), String> {
        let name = &self.link.name;
        let netns = netns.to_string_lossy();
        let told =
            previous.interfaces.iter().enumerate().find(|(_, interface)| {
                interface.name == *name && interface.sandbox.as_deref() == Some(&*netns)
            });
        let Some((index, interface)) = told else {
            return Err(format!("prevResult tells of no interface {name} in {netns}"));
        };
        let mac = self.link.mac.map(|mac| mac.to_string());
        if interface.mac.is_some() && interface.mac != mac {
            let (told, found) = (interface.mac.as_deref().unwrap_or_default(), mac.unwrap_or_default());
            return Err(format!("{name} has MAC address {found} instead of {told}"));
        }
        let mut ips = previous.ips.iter().filter(|ip| ip.interface == Some(index));
        if let Some(ip) = ips.find(|ip| !self.addresses.contains(&ip.address)) {
            return Err(format!("{name} lacks address {}", ip.address));
        }
        // A route of a table of its own is that table's business.
        let mut routes = previous.routes.iter().filter(|route| route.table.is_none());
        match routes.find(|route| !self.destinations.contains(&route.dst)) {
            Some(route) => Err(format!("the route to {} is gone", route.dst)),
            None => Ok(()),
        }
    }
}
