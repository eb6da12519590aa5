//! The plugin's commands: ADD, DEL, CHECK, GC and STATUS of a bridge network. Each goes from facts to a plan and from
//! there to the kernel; none decides what a plan looks like.

use std::path::Path;

use weft_netlink::netns::Namespace;
use weft_netlink::route::{Link, Route};
use weft_types::cni::{Args, Attachment, Code, Failure, Handler, Invocation, Success};

use crate::apply::apply;
use crate::ipam::Source;
use crate::{Error, Facts, Options, Pod, Result, host_name, plan};

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
        self.attach(invocation, attachment, netns, args).map_err(|error| error.failure())
    }

    fn del(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: Option<&Path>,
    ) -> Result<(), Failure> {
        self.detach(invocation, attachment, netns).map_err(|error| error.failure())
    }

    fn check(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        previous: &Success,
    ) -> Result<(), Failure> {
        self.compare(invocation, attachment, netns, previous).map_err(|error| error.failure())
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), Failure> {
        // Both are tried, whatever becomes of the other; the first error is reported.
        let links = collect_links(invocation).map_err(|error| error.failure());
        let addresses = Source::of(invocation).and_then(|ipam| ipam.gc(invocation));
        links.and(addresses)
    }

    fn status(&self, invocation: &Invocation) -> Result<(), Failure> {
        let unavailable = |error: Error| Failure { code: Code::Unavailable, ..error.failure() };
        let options = Options::read(invocation, &Args::default()).map_err(unavailable)?;
        let mut host = Route::open().map_err(|error| unavailable(error.into()))?;
        Facts::read(&mut host, &options, Vec::new()).map_err(unavailable)?;
        Source::of(invocation)?.status(invocation)
    }
}

impl Bridge {
    fn attach(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        args: &Args,
    ) -> Result<Success> {
        let namespace = self.open(netns)?;
        let options = Options::read(invocation, args)?;
        let previous = invocation.previous()?.unwrap_or_default();
        let ipam = Source::of(invocation)?;
        let gateways = ipam.gateways(invocation)?;
        let mut host = Route::open()?;
        let facts = Facts::read(&mut host, &options, gateways)?;
        let pod = Pod {
            network: invocation.network.clone(),
            attachment: attachment.clone(),
            netns: netns.to_owned(),
        };
        let lease = ipam.add(invocation, attachment, netns, args)?;
        let outcome =
            plan(&pod, &options, lease, &facts).and_then(|plan| apply(&mut host, &namespace, &plan));
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

    /// The link goes first: an address whose link could not be deleted must not be another's.
    fn detach(&self, invocation: &Invocation, attachment: &Attachment, netns: Option<&Path>) -> Result<()> {
        let namespace = match netns.map(|path| self.open(path)) {
            None => None,
            Some(Ok(namespace)) => Some(namespace),
            Some(Err(error @ Error::OwnNamespace(_))) => return Err(error),
            // Gone, or what is left of its file: its end of the pair is gone with it.
            Some(Err(_)) => None,
        };
        let deleted = Route::open()?.delete_link_named(&host_name(attachment));
        match (deleted, namespace) {
            (Ok(()), _) => {}
            // Made by another plugin, with another name on the host: found from the inside.
            (Err(error), Some(namespace)) if error.is_missing() => {
                namespace.run(|| delete_inside(attachment.ifname.as_str()))??;
            }
            (Err(error), None) if error.is_missing() => {}
            (Err(error), _) => return Err(error.into()),
        }
        Ok(Source::of(invocation)?.del(invocation, attachment)?)
    }

    fn compare(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        previous: &Success,
    ) -> Result<()> {
        let namespace = self.open(netns)?;
        let options = Options::read(invocation, &Args::default())?;
        Source::of(invocation)?.check(invocation, attachment, netns, previous)?;
        let wrong = |what: String| Error::Check { container: attachment.container.clone(), what };
        let mut host = Route::open()?;
        let bridge = host.link(options.bridge.as_str())?;
        let near = host.link(&host_name(attachment))?;
        if near.master != Some(bridge.index) {
            return Err(wrong(format!("{} is no port of bridge {}", near.name, bridge.name)));
        }
        let ifname = attachment.ifname.as_str();
        let found = namespace.run(|| crate::facts::Inside::read(ifname))??;
        found.compare(previous, netns).map_err(wrong)
    }

    /// Opens a container's namespace and makes sure that it is not this process's own: what is meant for a container
    /// would be done to the host (SPEC section 5, code 8).
    fn open(&self, path: &Path) -> Result<Namespace> {
        let namespace = Namespace::open(path).map_err(Error::Namespace)?;
        let own = namespace.is(&Namespace::current()?)?;
        match own && !self.allow_own_namespace {
            true => Err(Error::OwnNamespace(path.to_owned())),
            false => Ok(namespace),
        }
    }
}

fn delete_inside(ifname: &str) -> Result<()> {
    match Route::open()?.delete_link_named(ifname) {
        Err(error) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Deletes the host's ends of veth pairs that this network made for attachments that are not valid any more. Goes on
/// after an error and reports the first.
fn collect_links(invocation: &Invocation) -> Result<()> {
    let mut host = Route::open()?;
    let ours = format!("{}/", invocation.network);
    let valid: Vec<String> = invocation
        .config
        .valid_attachments
        .iter()
        .map(|valid| format!("{ours}{}/{}", valid.container_id, valid.ifname))
        .collect();
    let is_stale = |link: &Link| {
        let alias = link.alias.as_deref().unwrap_or_default();
        link.kind.as_deref() == Some("veth")
            && alias.starts_with(&ours)
            && !valid.iter().any(|known| known == alias)
    };
    let stale: Vec<Link> = host.links()?.into_iter().filter(is_stale).collect();
    let outcomes: Vec<Result<()>> = stale
        .iter()
        .map(|link| match host.delete_link(link.index) {
            Err(error) if !error.is_missing() => Err(error.into()),
            _ => Ok(()),
        })
        .collect();
    outcomes.into_iter().collect()
}
