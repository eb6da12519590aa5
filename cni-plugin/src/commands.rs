//! The bridge plugin's commands, each in a file of its own, and those of `loopback`. [`repair`] is for the
//! agent.

mod add;
mod check;
mod del;
mod gc;
mod ipam;
mod loopback;
mod pending;
mod readiness;
mod record;
mod repair;
mod status;

use std::path::Path;

use weft_cni_spec::{Args, Attachment, Failure, Handler, Invocation, Success};
use weft_netlink::netns::Namespace;

pub use loopback::Loopback;
pub use repair::{Report, repair};

use crate::{Error, Result};
use ipam::Source;

/// The bridge plugin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bridge {
    /// Whether a container's namespace may be the plugin's own (CNI_NETNS_OVERRIDE).
    pub allow_own_namespace: bool,
}

impl Handler for Bridge {
    fn about(&self) -> &'static str {
        concat!("weft-cni ", env!("CARGO_PKG_VERSION"), ": connects containers by a bridge, a CNI plugin")
    }

    fn add(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        args: &Args,
    ) -> Result<Success, Failure> {
        self.open(netns)
            .and_then(|namespace| add::add(invocation, attachment, &namespace, args))
            .map_err(|error| error.failure())
    }

    fn del(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: Option<&Path>,
    ) -> Result<(), Failure> {
        let namespace = match netns.map(|path| self.open(path)) {
            None => None,
            Some(Ok(namespace)) => Some(namespace),
            Some(Err(error @ Error::OwnNamespace(_))) => return Err(error.failure()),
            // Gone, or what is left of its file: its end of the pair is gone with it.
            Some(Err(_)) => None,
        };
        del::del(invocation, attachment, namespace.as_ref()).map_err(|error| error.failure())
    }

    fn check(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        previous: &Success,
    ) -> Result<(), Failure> {
        self.open(netns)
            .and_then(|namespace| check::check(invocation, attachment, &namespace, previous))
            .map_err(|error| error.failure())
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), Failure> {
        // All are tried, whatever becomes of the others; the first error is reported.
        let links = gc::gc(invocation).map_err(|error| error.failure());
        let addresses = Source::of(invocation).and_then(|ipam| ipam.gc(invocation));
        // After the addresses were freed: who has none any more waits for nothing.
        let waiting = pending::collect(invocation).map_err(|error| error.failure());
        links.and(addresses).and(waiting)
    }

    fn status(&self, invocation: &Invocation) -> Result<(), Failure> {
        status::status(invocation)
    }
}

impl Bridge {
    /// Opens a container's namespace and makes sure that it is not this process's own: what is meant for a
    /// container would be done to the host (SPEC section 5, code 8).
    fn open(&self, path: &Path) -> Result<Namespace> {
        let namespace = Namespace::open(path).map_err(Error::Namespace)?;
        match namespace.is_current()? && !self.allow_own_namespace {
            true => Err(Error::OwnNamespace(path.to_owned())),
            false => Ok(namespace),
        }
    }
}
