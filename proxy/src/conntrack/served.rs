//! Frontends whose tracked connections are to be looked at, and which of those are stale.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use weft_netlink::conntrack::{CtStatus, Filter, Flow, TcpState};
use weft_types::{Family, Protocol};

use crate::services::plan::Frontend;
use crate::services::valid_endpoints::ValidEndpoints;

/// Up to so many frontends of a family and protocol the kernel is asked for the flows of each alone: it walks
/// through the whole table every time, some milliseconds long, but has to copy little.
const ONE_BY_ONE: usize = 2;
/// So many frontends take memory that is worth giving back.
const LARGE: usize = 1000;

/// Frontends whose flows are to be looked at, each with those who may go on answering them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    frontends: HashMap<Frontend, ValidEndpoints>,
    /// The addresses at which NodePorts are served.
    node: BTreeSet<IpAddr>,
    /// Whether open TCP connections are ended when their endpoint is gone.
    ends_tcp: bool,
}

impl Served {
    /// No frontends yet. NodePorts are served at those addresses.
    pub(super) fn new(node: BTreeSet<IpAddr>, ends_tcp: bool) -> Served {
        Served { frontends: HashMap::new(), node, ends_tcp }
    }

    pub(super) fn insert(&mut self, frontend: Frontend, valid: ValidEndpoints) {
        self.frontends.insert(frontend, valid);
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty()
    }

    /// Whether clients may be stuck for as long as nobody looks. Those who have no answer yet begin again a
    /// second later at the earliest.
    pub fn is_urgent(&self) -> bool {
        self.ends_tcp || self.frontends.keys().any(|frontend| frontend.protocol() == Protocol::Udp)
    }

    /// Whether there is so much to look at that its memory is worth giving back.
    pub fn is_large(&self) -> bool {
        self.frontends.len() > LARGE
    }

    /// Takes in what became known later.
    pub fn extend(&mut self, later: Served) {
        let Served { frontends, node, ends_tcp } = later;
        self.frontends.extend(frontends);
        self.ends_tcp |= ends_tcp;
        // Without NodePorts nothing is said of the node.
        if !node.is_empty() {
            self.node = node;
        }
    }

    /// Takes in who may answer soon, besides those who may now.
    pub fn expect(&mut self, coming: &Served) {
        for (frontend, valid) in &mut self.frontends {
            if let Some(coming) = coming.frontends.get(frontend) {
                *valid = ValidEndpoints::new(valid.iter().chain(coming.iter()));
            }
        }
    }

    /// What is to be read of the table of connections to find all stale flows: little, where there is little
    /// to look at.
    pub fn readings(&self) -> Vec<(Family, Filter)> {
        let mut kinds: BTreeMap<(Family, Protocol), Vec<&Frontend>> = BTreeMap::new();
        for frontend in self.frontends.keys() {
            kinds.entry((frontend.family(), frontend.protocol())).or_default().push(frontend);
        }
        let of_kind = |((family, protocol), frontends): ((Family, Protocol), Vec<&Frontend>)| {
            let opening_only = match protocol {
                Protocol::Udp => false,
                Protocol::Tcp => !self.ends_tcp,
                Protocol::Sctp => true,
            };
            let without = if opening_only { CtStatus::SEEN_REPLY } else { CtStatus::default() };
            let all = Filter { protocol: Some(protocol.number()), without, ..Filter::default() };
            // Without an answer there are few.
            let filters = match !opening_only && frontends.len() <= ONE_BY_ONE {
                true => frontends.into_iter().map(|frontend| narrowed(all, frontend)).collect(),
                false => vec![all],
            };
            filters.into_iter().map(move |filter| (family, filter))
        };
        kinds.into_iter().flat_map(of_kind).collect()
    }

    /// Whether a flow was sent to one of the frontends, and is led to somebody who serves it no longer, or to
    /// nobody.
    pub fn is_stale(&self, flow: &Flow) -> bool {
        let Some(protocol) = Protocol::from_number(flow.protocol) else { return false };
        let Some(valid) = self.valid(flow, protocol) else { return false };
        let answerer = valid.find(flow.reply.source);
        let is_opening = !flow.status.contains(CtStatus::SEEN_REPLY);
        match protocol {
            Protocol::Udp => answerer != Some(true),
            // Whoever began such a connection sends its first packet again, which finds its way anew. One
            // that was picked up in its midst, of which one direction passes elsewhere, has no answers here
            // and is open all the same.
            Protocol::Tcp if is_opening && flow.tcp_state == Some(TcpState::SynSent) => {
                answerer != Some(true)
            }
            Protocol::Sctp if is_opening => answerer != Some(true),
            // One that is not translated never was a Service's. One that shuts down finishes what it has
            // begun.
            Protocol::Tcp if self.ends_tcp && flow.status.contains(CtStatus::DST_NAT) => answerer.is_none(),
            Protocol::Tcp | Protocol::Sctp => false,
        }
    }

    fn valid(&self, flow: &Flow, protocol: Protocol) -> Option<&ValidEndpoints> {
        let destination = flow.original.destination;
        let at_address = Frontend::Address(destination.ip(), protocol, destination.port());
        let at_node = Frontend::NodePort(Family::of(destination.ip()), protocol, destination.port());
        // A port of that number at another machine, or at another Service's address, has nothing to do with
        // the NodePort.
        let is_here = || self.node.contains(&destination.ip());
        self.frontends.get(&at_address).or_else(|| self.frontends.get(&at_node).filter(|_| is_here()))
    }
}

fn narrowed(all: Filter, frontend: &Frontend) -> Filter {
    match *frontend {
        Frontend::Address(address, _, port) => Filter { destination: Some(address), port: Some(port), ..all },
        Frontend::NodePort(_, _, port) => Filter { port: Some(port), ..all },
    }
}
