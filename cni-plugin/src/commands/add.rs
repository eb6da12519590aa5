//! ADD: from the state of the host to a plan and from there to the kernel. What fails on the way undoes what
//! was done. What a plan looks like is decided in `plan`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_cni_spec::{Args, Attachment, Invocation, Success};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{Link, RtnetlinkClient};
use weft_netlink::sysctl::Originals;

use super::del::release_masquerade;
use super::ipam::Source;
use super::pending;
use super::record::{Records, originals};
use crate::kernel::{Lock, apply, complete, conntrack};
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
    if ipam.needs_interface() {
        let asking = Asking { ipam: &ipam, invocation, attachment, args };
        return asking.add(&mut host, namespace, &pod, &options, &state).map(|result| result.after(previous));
    }
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

/// A source that asks by the container's interface: the container is connected first, and gets its addresses
/// then.
struct Asking<'a> {
    ipam: &'a Source,
    invocation: &'a Invocation,
    attachment: &'a Attachment,
    args: &'a Args,
}

impl Asking<'_> {
    fn add(
        &self,
        host: &mut RtnetlinkClient,
        namespace: &Namespace,
        pod: &Pod,
        options: &Options,
        state: &HostState,
    ) -> Result<Success> {
        refuse_gateway(pod, options)?;
        let bare = plan(pod, options, Success::default(), state)?;
        let bridge = state.bridge.as_ref().map(|bridge| bridge.link.clone());
        let connected = connect(host, namespace, &bare, bridge, self.invocation)?;
        let leased = self.ipam.add(self.invocation, self.attachment, namespace.path(), self.args);
        let outcome = leased.map_err(Error::from).and_then(|lease| {
            let plan = plan(pod, options, lease, state)?;
            pending::closed(plan.pending.as_ref(), options.policy_timeout, || {
                let result = complete(host, namespace, &plan)?;
                Ok(Success { interfaces: connected.interfaces, ..result })
            })
        });
        outcome.inspect_err(|_| {
            // The first error is the one to report. The lease is given back while the interface is there.
            let _ = self.ipam.del(self.invocation, self.attachment);
            Records::of(self.invocation).forget(&bare.veth.link.host.name);
            let _ = host.delete_link_named(&bare.veth.link.host.name);
        })
    }
}

/// The host is no router of a network that has addresses, and a router, of its own.
///
/// # Errors
/// Where the options have it be one.
fn refuse_gateway(pod: &Pod, options: &Options) -> Result<()> {
    for (option, is_set) in [
        ("isGateway", options.gateway),
        ("ipMasq", options.masquerade),
        ("portMappings", !options.ports.is_empty()),
        ("disableContainerInterface", !options.up),
    ] {
        if is_set {
            return Err(Error::Invalid {
                network: pod.network.to_string(),
                option: option.into(),
                reason:
                    "the DHCP server's network has a gateway of its own; leave it out with ipam.type dhcp"
                        .into(),
            });
        }
    }
    Ok(())
}

fn connect(
    host: &mut RtnetlinkClient,
    namespace: &Namespace,
    plan: &PodPlan,
    bridge: Option<Link>,
    invocation: &Invocation,
) -> Result<Success> {
    let records = Records::of(invocation);
    let originals = originals(invocation);
    let outcome = masquerade_and_apply(host, namespace, plan, bridge, &originals);
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
    originals: &Originals,
) -> Result<Success> {
    let Some(masquerade) = &plan.masquerade else {
        unmasquerade(host, plan)?;
        return apply(host, namespace, plan, bridge, originals);
    };
    let lock = Lock::shared()?;
    Tables::open_for(|| "ipMasq true".into())?.masquerade(host, masquerade, &lock)?;
    apply(host, namespace, plan, bridge, originals)
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
