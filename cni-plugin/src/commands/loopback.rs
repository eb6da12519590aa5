//! The `loopback` plugin, which runtimes call for every container: it sets `lo` up.

use std::path::Path;

use weft_cni_spec::{Args, Attachment, Failure, Handler, Interface, Invocation, IpConfig, Success};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{Link, LinkChange, RtnetlinkClient};

use crate::{Error, Result};

/// The loopback plugin.
#[derive(Clone, Copy, Debug)]
pub struct Loopback;

impl Handler for Loopback {
    fn about(&self) -> &'static str {
        concat!("weft-cni ", env!("CARGO_PKG_VERSION"), " as loopback: sets lo up, a CNI plugin")
    }

    fn add(
        &self,
        invocation: &Invocation,
        _attachment: &Attachment,
        netns: &Path,
        _args: &Args,
    ) -> Result<Success, Failure> {
        let previous = invocation.previous()?;
        let (link, addresses) = inside(netns, set_up).map_err(|error| error.failure())?;
        // In a list the result of the plugins before is what counts (SPEC section 2, "ADD").
        if let Some(previous) = previous {
            return Ok(previous);
        }
        let interface = Interface {
            name: link.name,
            mac: link.mac.map(|mac| mac.to_string()),
            mtu: None,
            sandbox: Some(netns.to_string_lossy().into_owned()),
            ..Interface::default()
        };
        let ip = |address| IpConfig { address, gateway: None, interface: Some(0) };
        let ips = addresses.into_iter().map(ip).collect();
        Ok(Success { interfaces: vec![interface], ips, ..Success::default() })
    }

    /// A namespace takes its loopback interface with it.
    fn del(&self, _: &Invocation, _: &Attachment, _: Option<&Path>) -> Result<(), Failure> {
        Ok(())
    }

    fn check(
        &self,
        _invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        _previous: &Success,
    ) -> Result<(), Failure> {
        let link = inside(netns, |route| route.link("lo")).map_err(|error| error.failure())?;
        if link.up {
            return Ok(());
        }
        let container = attachment.container.clone();
        Err(Error::Check { container, what: "lo is down".to_owned() }.failure())
    }

    fn gc(&self, _: &Invocation) -> Result<(), Failure> {
        Ok(())
    }

    fn status(&self, _: &Invocation) -> Result<(), Failure> {
        Ok(())
    }
}

fn set_up(route: &mut RtnetlinkClient) -> weft_netlink::Result<(Link, Vec<ipnetwork::IpNetwork>)> {
    let link = route.link("lo")?;
    route.change_link(link.index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
    let addresses = route.addresses(Some(link.index))?;
    Ok((link, addresses.into_iter().map(|address| address.address).collect()))
}

fn inside<T: Send>(
    netns: &Path,
    work: impl FnOnce(&mut RtnetlinkClient) -> weft_netlink::Result<T> + Send,
) -> Result<T> {
    let namespace = Namespace::open(netns).map_err(Error::Namespace)?;
    Ok(namespace.run(|| work(&mut RtnetlinkClient::open()?))??)
}
