//! STATUS: whether an ADD could succeed now. Runtimes ask every few seconds, so it looks at little and
//! changes nothing.

use weft_cni_spec::Boot;
use weft_cni_spec::{Args, Code, Failure, Invocation};
use weft_netlink::rtnl::RtnetlinkClient;

use super::ipam::Source;
use super::readiness;
use crate::nft::Tables;
use crate::plan::{addresses_to_delete, names};
use crate::{Error, HostState, Options, Result};

/// The most ports of a bridge: the kernel numbers them from 1, with ten bits (BR_MAX_PORTS).
const MOST_PORTS: usize = 1023;

/// # Errors
/// Code 50 where ADD would fail, 51 where the network's containers are cut off too (SPEC section 2,
/// "STATUS").
pub(crate) fn status(invocation: &Invocation) -> Result<(), Failure> {
    look(invocation).map_err(|error| match error {
        Error::Failure(failure) if failure.code == Code::Impaired => failure,
        error => Failure { code: Code::Unavailable, ..error.failure() },
    })
}

fn look(invocation: &Invocation) -> Result<()> {
    let options = Options::read(invocation, &Args::default())?;
    let ipam = Source::of(invocation)?;
    let gateways = ipam.gateways(invocation)?;
    let mut host = RtnetlinkClient::open()?;
    let state = match HostState::read(&mut host, &options, options.gateways(gateways.clone())) {
        Err(error @ Error::NotABridge { .. }) => {
            let group = names::group(&invocation.network);
            let has_containers = host.links()?.iter().any(|link| link.group == group);
            let failure = error.failure();
            let code = if has_containers { Code::Impaired } else { Code::Unavailable };
            return Err(Failure { code, ..failure }.into());
        }
        outcome => outcome?,
    };
    readiness::check(invocation, &Boot::current())?;
    if let Some(bridge) = &state.bridge
        && host.ports(bridge.link.index)?.len() >= MOST_PORTS
    {
        return Err(Error::BridgeFull { bridge: bridge.link.name.clone() });
    }
    readiness::check_settings(&options, &state)?;
    if options.masquerade {
        Tables::open_for(|| "ipMasq true".into())?;
    }
    addresses_to_delete(&options, &gateways, &state)?;
    Ok(ipam.status(invocation)?)
}
