//! Where addresses come from: Weft's own IPAM, in this process. Which one a container gets is decided there.

use std::path::Path;

use ipnetwork::IpNetwork;
use weft_ipam::Ipam;
use weft_types::cni::{Args, Attachment, Code, Failure, Handler, Invocation, Success};

use crate::Result;

/// The IPAM plugin that a network's configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `weft-ipam` and `host-local`.
    BuiltIn,
    /// None: containers get no address.
    None,
}

impl Source {
    /// Reads `ipam.type`.
    ///
    /// # Errors
    /// Code 2 for a plugin that this one cannot call.
    pub(crate) fn of(invocation: &Invocation) -> Result<Source, Failure> {
        let section = invocation.config.ipam.as_ref();
        let kind = section.and_then(|section| section.get("type")).and_then(|kind| kind.as_str());
        match kind.unwrap_or_default() {
            "" => Ok(Source::None),
            kind if Ipam::NAMES.contains(&kind) => Ok(Source::BuiltIn),
            kind => {
                let msg = format!("network {}: ipam.type {kind:?} is not supported", invocation.network);
                let known = Ipam::NAMES.join(" or ");
                Err(Failure::new(Code::UnsupportedField, msg).with_details(format!("use {known}")))
            }
        }
    }

    /// Leases addresses for an attachment.
    pub(crate) fn add(
        self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        args: &Args,
    ) -> Result<Success, Failure> {
        match self {
            Source::BuiltIn => Ipam.add(invocation, attachment, netns, args),
            Source::None => Ok(Success::default()),
        }
    }

    /// Frees them. What is free already is no error.
    pub(crate) fn del(self, invocation: &Invocation, attachment: &Attachment) -> Result<(), Failure> {
        match self {
            Source::BuiltIn => Ipam.del(invocation, attachment, None),
            Source::None => Ok(()),
        }
    }

    /// See whether they are leased still.
    pub(crate) fn check(
        self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        previous: &Success,
    ) -> Result<(), Failure> {
        match self {
            Source::BuiltIn => Ipam.check(invocation, attachment, netns, previous),
            Source::None => Ok(()),
        }
    }

    /// Frees those of attachments that are not valid any more.
    pub(crate) fn gc(self, invocation: &Invocation) -> Result<(), Failure> {
        match self {
            Source::BuiltIn => Ipam.gc(invocation),
            Source::None => Ok(()),
        }
    }

    /// Whether any are left.
    pub(crate) fn status(self, invocation: &Invocation) -> Result<(), Failure> {
        match self {
            Source::BuiltIn => Ipam.status(invocation),
            Source::None => Ok(()),
        }
    }

    /// The gateways of all ranges, with their subnets' prefixes.
    pub(crate) fn gateways(self, invocation: &Invocation) -> Result<Vec<IpNetwork>, Failure> {
        match self {
            Source::BuiltIn => {
                let pool = Ipam::pool(invocation).map_err(|error| error.failure())?;
                let ranges = pool.sets.iter().flat_map(|set| set.ranges());
                Ok(ranges.map(|range| range.with_prefix(range.gateway)).collect())
            }
            Source::None => Ok(Vec::new()),
        }
    }
}
