//! ADD: from the state of the host to a plan and from there to the kernel. What fails on the way undoes what
//! was done. What a plan looks like is decided in `plan`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_cni_spec::{Args, Attachment, Invocation, Success};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{Link, RtnetlinkClient};

use super::del::release_masquerade;
use super::ipam::Source;
use super::pending;
use super::record::Records;
use crate::kernel::{Lock, apply, conntrack};
use crate::nft::Tables;
use crate::{Error, HostState, Options, Pod, PodPlan, Result, plan};

/// Connects a container.
pub(crate) fn add(
    invocation: &Invocation,
    attachment: &Attachment,
    namespace: &Namespace,
    args: &Args,
) -> Result<Success> {
    let options = Options::read(invocation, args)?;
    let previous = invocation.previous()?.unwrap_or_default();
    let ipam = Source::of(invocation)?;
    let mut host = RtnetlinkClient::open()?;
    let mut state = HostState::read(&mut host, &options, Vec::new())?;
    // Only now: another call may just have given the bridge the gateway of a range that was not there before.
    state.gateways = options.gateways(ipam.gateways(invocation)?);
    let pod = Pod {
        network: invocation.network.clone(),
        attachment: attachment.clone(),
        netns: namespace.path().to_owned(),
        waits: pending::pod(invocation, args)?,
    };
    let lease = ipam.add(invocation, attachment, namespace.path(), args)?;
    let outcome = plan(&pod, &options, lease, &state).and_then(|plan| {
        pending::closed(plan.pending.as_ref(), options.policy_timeout, || {
            connect(&mut host, namespace, &plan, state.bridge.map(|bridge| bridge.link), invocation)
        })
    });
    outcome.map(|result| result.after(previous)).map_err(|error| match ipam.del(invocation, attachment) {
        Ok(()) => error,
        // Both must be known, or the address would be missed one day.
        Err(second) => {
            let first = error.failure();
            let details = format!("{} And the lease could not be freed: {second}", first.details);
            Error::Failure(first.with_details(details.trim_start()))
        }
    })
}

fn connect(
    host: &mut RtnetlinkClient,
    namespace: &Namespace,
    plan: &PodPlan,
    bridge: Option<Link>,
    invocation: &Invocation,
) -> Result<Success> {
    let records = Records::of(invocation);
    let outcome = masquerade_and_apply(host, namespace, plan, bridge);
    let outcome = outcome.and_then(|result| {
        records.keep(invocation, plan);
        let mapped = map_ports(host, plan).map(|()| result);
        mapped.inspect_err(|_| {
            records.forget(&plan.veth.link.host.name);
            // The first error is the one to report. With one end of the pair, both go, and all that is on
            // them.
            let _ = host.delete_link_named(&plan.veth.link.host.name);
        })
    });
    outcome.inspect_err(|_| {
        if let Some(masquerade) = &plan.masquerade {
            // The bridge may have no container now.
            let has_vlan_gateway = plan.bridge.vlan_gateway.is_some();
            let _ = release_masquerade(host, &masquerade.bridge, has_vlan_gateway);
        }
    })
}

/// Containers never send anything that is not masqueraded, so that comes first; and it must not be taken away
/// again before the bridge has the container.
fn masquerade_and_apply(
    host: &mut RtnetlinkClient,
    namespace: &Namespace,
    plan: &PodPlan,
    bridge: Option<Link>,
) -> Result<Success> {
    let Some(masquerade) = &plan.masquerade else {
        unmasquerade(host, plan)?;
        return apply(host, namespace, plan, bridge);
    };
    let lock = Lock::shared()?;
    Tables::open_for(|| "ipMasq true".into())?.masquerade(host, masquerade, &lock)?;
    apply(host, namespace, plan, bridge)
}

/// Where ipMasq was switched off, its elements must not outlive that.
fn unmasquerade(host: &mut RtnetlinkClient, plan: &PodPlan) -> Result<()> {
    // A network that asks for nothing of nf_tables needs nothing of it.
    let Ok(Some(mut tables)) = Tables::open() else { return Ok(()) };
    let addresses: Vec<IpAddr> = plan.pod.addresses.iter().map(IpNetwork::ip).collect();
    tables.unmasquerade(host, &plan.bridge.link.name, &addresses)
}

fn map_ports(host: &mut RtnetlinkClient, plan: &PodPlan) -> Result<()> {
    let Some(ports) = &plan.host_ports else { return Ok(()) };
    let mut tables = Tables::open_for(|| format!("portMappings {:?}", ports.mappings))?;
    let outcome = tables.map_ports(host, ports).and_then(|()| conntrack::forget_before(ports));
    outcome.inspect_err(|_| {
        // The mappings of the other family may be there; the first error is the one to report.
        let _ = tables.unmap_ports(&ports.owner, false);
    })
}
