//! CHECK: whether everything is as ADD told. Changes nothing.

use weft_netlink::netns::Namespace;
use weft_netlink::route::Route;
use weft_types::cni::{Args, Attachment, Invocation, Success};

use crate::facts::Inside;
use crate::ipam::Source;
use crate::plan::{host_ports, masquerade};
use crate::shared::Tables;
use crate::{Error, Options, Result, host_name};

/// Compares what is with `previous`, the result of ADD.
pub(crate) fn check(
    invocation: &Invocation,
    attachment: &Attachment,
    namespace: &Namespace,
    previous: &Success,
) -> Result<()> {
    let options = Options::read(invocation, &Args::default())?;
    let ipam = Source::of(invocation)?;
    ipam.check(invocation, attachment, namespace.path(), previous)?;
    let wrong = |what: String| Error::Check { container: attachment.container.clone(), what };
    let mut host = Route::open()?;
    let bridge = host.link(options.bridge.as_str())?;
    let near = host.link(&host_name(attachment))?;
    if near.master != Some(bridge.index) {
        return Err(wrong(format!("{} is no port of bridge {}", near.name, bridge.name)));
    }
    if options.spoof_check && !host.is_port_locked(near.index)? {
        return Err(wrong(format!("{} takes frames from any Ethernet address", near.name)));
    }
    let ifname = attachment.ifname.as_str();
    let found = namespace.run(|| Inside::read(ifname))??;
    found.compare(previous, namespace.path()).map_err(wrong)?;
    let limited = host.token_bucket(near.index)?;
    if options.limits.ingress.is_some_and(|wanted| limited != Some((wanted.rate, wanted.limit))) {
        return Err(wrong(format!("{} does not limit what the container receives", near.name)));
    }
    if options.limits.egress.is_some_and(|wanted| !found.has_limit(&wanted)) {
        return Err(wrong(format!("{ifname} does not limit what the container sends")));
    }
    if let Some(plan) = masquerade(&options, previous, &ipam.gateways(invocation)?)
        && let Some(missing) = Tables::open()?.check_masquerade(&plan)?
    {
        return Err(wrong(missing));
    }
    if let Some(plan) = host_ports(attachment, &options, previous)
        && let Some(missing) = Tables::open()?.check_ports(&plan)?
    {
        return Err(wrong(missing));
    }
    Ok(())
}
