//! Where addresses come from: Weft's own IPAM, in this process, or another plugin's program. Which one a
//! container gets is decided there.

use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;
use serde_json::Value;
use weft_cni_spec::{Args, Attachment, Code, Delegate, Failure, Handler, Invocation, Success, parse};
use weft_ipam::Ipam;

use crate::Result;

/// The plugin that asks a server by the container's own interface, which must be there before.
const DHCP: &str = "dhcp";

/// The IPAM plugin that a network's configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `weft-ipam` and `host-local`.
    BuiltIn,
    /// Any other.
    Foreign(Delegate),
    /// `dhcp`, which needs the container's interface.
    Dhcp(Delegate),
    /// None: containers get no address.
    None,
}

impl Source {
    /// Reads `ipam.type`.
    ///
    /// # Errors
    /// Where it is no name, or the program of a plugin that is not built in cannot be found.
    pub(crate) fn of(invocation: &Invocation) -> Result<Source, Failure> {
        let section = invocation.config.ipam.as_ref();
        match section.and_then(|section| section.get("type")) {
            None => Ok(Source::None),
            Some(Value::String(kind)) if Ipam::NAMES.contains(&kind.as_str()) => Ok(Source::BuiltIn),
            Some(Value::String(kind)) if kind == DHCP => Delegate::find(kind, invocation).map(Source::Dhcp),
            Some(Value::String(kind)) => Delegate::find(kind, invocation).map(Source::Foreign),
            Some(other) => {
                let msg =
                    format!("network {}: ipam.type: {other} is not a plugin's name", invocation.network);
                Err(Failure::new(Code::Decode, msg))
            }
        }
    }

    /// Whether it asks by the container's interface.
    pub(crate) fn needs_interface(&self) -> bool {
        matches!(self, Source::Dhcp(_))
    }

    /// Leases addresses for an attachment.
    pub(crate) fn add(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        args: &Args,
    ) -> Result<Success, Failure> {
        match self {
            Source::BuiltIn => Ipam.add(invocation, attachment, netns, args),
            Source::Foreign(delegate) | Source::Dhcp(delegate) => {
                delegate.add(invocation).inspect_err(|_| {
                    // What a plugin did before it failed is undone by its own DEL (SPEC section 4); the first
                    // error is the one to report.
                    let _ = delegate.run("DEL", invocation);
                })
            }
            Source::None => Ok(Success::default()),
        }
    }

    /// Frees them. What is free already is no error.
    pub(crate) fn del(&self, invocation: &Invocation, attachment: &Attachment) -> Result<(), Failure> {
        match self {
            Source::BuiltIn => Ipam.del(invocation, attachment, None),
            Source::Foreign(delegate) | Source::Dhcp(delegate) => delegate.run("DEL", invocation),
            Source::None => Ok(()),
        }
    }

    /// See whether they are leased still.
    pub(crate) fn check(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        previous: &Success,
    ) -> Result<(), Failure> {
        match self {
            Source::BuiltIn => Ipam.check(invocation, attachment, netns, previous),
            Source::Foreign(delegate) | Source::Dhcp(delegate) => delegate.run("CHECK", invocation),
            Source::None => Ok(()),
        }
    }

    /// The addresses of an attachment, as far as they are known: of a foreign plugin's, by the result of ADD
    /// alone.
    pub(crate) fn addresses(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
    ) -> Result<Vec<IpAddr>, Failure> {
        match self {
            Source::BuiltIn => Ipam::reserved(invocation, Some(attachment)).map_err(|error| error.failure()),
            Source::Foreign(_) | Source::Dhcp(_) | Source::None => {
                // DEL takes no other notice of it: whatever is wrong with it keeps nothing from being freed.
                let config = parse(&invocation.stdin).unwrap_or_default();
                let result = config.get("prevResult").and_then(|it| Success::from_json(it).ok());
                Ok(result.unwrap_or_default().ips.iter().map(|ip| ip.address.ip()).collect())
            }
        }
    }

    /// Frees those of attachments that are not valid any more.
    pub(crate) fn gc(&self, invocation: &Invocation) -> Result<(), Failure> {
        match self {
            Source::BuiltIn => Ipam.gc(invocation),
            Source::Foreign(delegate) | Source::Dhcp(delegate) => delegate.run("GC", invocation),
            Source::None => Ok(()),
        }
    }

    /// Whether any are left.
    pub(crate) fn status(&self, invocation: &Invocation) -> Result<(), Failure> {
        match self {
            Source::BuiltIn => Ipam.status(invocation),
            Source::Foreign(delegate) | Source::Dhcp(delegate) => delegate.run("STATUS", invocation),
            Source::None => Ok(()),
        }
    }

    /// The gateways of all ranges, with their subnets' prefixes, as far as they are known here.
    pub(crate) fn gateways(&self, invocation: &Invocation) -> Result<Vec<IpNetwork>, Failure> {
        match self {
            Source::BuiltIn => {
                let pool = Ipam::pool(invocation).map_err(|error| error.failure())?;
                let ranges = pool.sets.iter().flat_map(|set| set.ranges());
                Ok(ranges.map(|range| range.with_prefix(range.gateway)).collect())
            }
            Source::Foreign(_) | Source::Dhcp(_) | Source::None => Ok(Vec::new()),
        }
    }
}
