//! ARP and Neighbor Discovery for load balancer addresses: who may have which is planned here from what the
//! cluster says; who has it right now, a thread decides beside the rounds (`weft_announce::l2::service`), so
//! that no node's death waits for a round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prometheus_client::registry::Registry;
use weft_announce::bfd::service::Bfd;
use weft_announce::hosts::needs_endpoints;
use weft_announce::l2::plan::{Advertisement, Input, advertisements, plan};
use weft_announce::l2::service::{L2, PeerNode, Wanted};
use weft_types::{AddressRange, Kind, L2Advertisement, Node, Snapshot};

use super::l2_metrics::Metrics;
use crate::bfd::SharedBfd;
use crate::subsystem::{Environment, Report, Round, Subsystem};
use crate::{Error, Result};

/// What the flags say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Addresses are answered for at all.
    pub(crate) is_enabled: bool,
    /// The interfaces to answer on; none: those that suit an address.
    pub(crate) interfaces: BTreeSet<String>,
    /// The addresses that are given without any object: they are announced by all nodes.
    pub(crate) pool: Vec<AddressRange>,
    /// L2Advertisements say which addresses of IPAddressPools are announced.
    pub(crate) reads_pools: bool,
}

/// Answers for load balancer addresses on this node's links.
pub(crate) struct L2Announcement {
    settings: Settings,
    bfd: SharedBfd,
    node: String,
    metrics: Metrics,
    threads: Option<Threads>,
    /// There may be an address to announce.
    needs_services: bool,
    /// Some Service's addresses depend on where its endpoints are.
    needs_endpoints: bool,
    /// What the threads go by.
    wanted: Wanted,
    /// Something changed since that was planned.
    is_stale: bool,
}

struct Threads {
    l2: L2,
    bfd: Arc<Bfd>,
}

impl L2Announcement {
    /// Nothing runs before [`Subsystem::start`].
    pub(crate) fn new(settings: Settings, bfd: SharedBfd, registry: &mut Registry) -> L2Announcement {
        L2Announcement {
            settings,
            bfd,
            node: String::new(),
            metrics: Metrics::new(registry),
            threads: None,
            needs_services: false,
            needs_endpoints: false,
            wanted: Wanted::default(),
            is_stale: true,
        }
    }

    /// What the threads are to go by; none as long as not all that it is made of is known.
    fn wanted(&self, round: &Round<'_>) -> Option<Wanted> {
        let advertisements = self.advertisements(round)?;
        let empty = Snapshot::default();
        let services = match self.has_something(round) {
            true => round.objects(Kind::Service)?,
            false => &empty,
        };
        let slices = match needs_endpoints(services) {
            true => Some(round.objects(Kind::EndpointSlice)?),
            false => None,
        };
        let nodes = round.objects(Kind::Node)?;
        let input =
            Input { node: &self.node, services, slices, nodes, advertisements: advertisements.as_deref() };
        let others = nodes.nodes().filter(|node| node.name != self.node);
        let peer = |node: &Node| PeerNode { addresses: node.addresses.clone(), is_ready: node.ready };
        let own = nodes.node(&self.node);
        let interfaces = &self.settings.interfaces;
        Some(Wanted {
            node: self.node.clone(),
            addresses: own.map(|node| node.addresses.clone()).unwrap_or_default(),
            plan: plan(&input),
            peers: others.map(|node| (node.name.as_str().into(), peer(node))).collect::<BTreeMap<_, _>>(),
            interfaces: (!interfaces.is_empty()).then(|| interfaces.clone()),
        })
    }

    /// What is announced: without pools of any kind all addresses, whoever gives them.
    fn advertisements(&self, round: &Round<'_>) -> Option<Option<Vec<Advertisement>>> {
        let Settings { pool, reads_pools, .. } = &self.settings;
        if pool.is_empty() && !reads_pools {
            return Some(None);
        }
        let mut all = vec![Advertisement::of_ranges(pool)];
        if *reads_pools {
            let (l2, pools) = (round.objects(Kind::L2Advertisement)?, round.objects(Kind::IpAddressPool)?);
            all.extend(advertisements(l2, pools));
        }
        Some(Some(all))
    }

    /// Whether there may be an address to announce.
    fn has_something(&self, round: &Round<'_>) -> bool {
        let has_objects = || {
            let l2 = round.objects(Kind::L2Advertisement);
            l2.is_some_and(|l2| !l2.of::<L2Advertisement>().is_empty())
        };
        !self.settings.reads_pools || !self.settings.pool.is_empty() || has_objects()
    }
}

impl Subsystem for L2Announcement {
    fn name(&self) -> &'static str {
        "l2"
    }

    fn start(&mut self, environment: &Environment) -> Result<()> {
        self.node.clone_from(&environment.node);
        if self.settings.is_enabled {
            let failed =
                |problem| Error::Runtime { operation: "answer for load balancer addresses", problem };
            let bfd = self.bfd.get()?;
            let l2 = L2::start(bfd.clone()).map_err(failed)?;
            self.threads = Some(Threads { l2, bfd });
        }
        Ok(())
    }

    fn kinds(&self) -> BTreeSet<Kind> {
        if self.threads.is_none() {
            return BTreeSet::new();
        }
        let objects = [Kind::IpAddressPool, Kind::L2Advertisement];
        let objects = objects.into_iter().filter(|_| self.settings.reads_pools);
        let services = self.needs_services.then_some(Kind::Service);
        objects.chain(services).chain(self.needs_endpoints.then_some(Kind::EndpointSlice)).collect()
    }

    fn reconcile(&mut self, round: &Round<'_>, report: &mut Report) {
        let Some(threads) = &self.threads else { return };
        let has_changed = |kind: &Kind| round.changes(*kind).next().is_some();
        self.is_stale |= self.kinds().iter().chain(&[Kind::Node]).any(has_changed);
        // As long as not all is known, what is answered for stays.
        if self.is_stale
            && let Some(wanted) = self.wanted(round)
        {
            self.is_stale = false;
            if wanted != self.wanted {
                threads.l2.set(wanted.clone());
                self.wanted = wanted;
            }
        }
        self.needs_services = self.has_something(round);
        let services = round.objects(Kind::Service).filter(|_| self.needs_services);
        self.needs_endpoints = services.is_some_and(needs_endpoints);
        for kind in self.kinds() {
            if let Some(refusal) = round.refusal(kind) {
                report.problem(format_args!("load balancer addresses are not followed: {refusal}"));
            }
        }
        let told = threads.l2.report();
        report.problems(&told.problems);
        told.ours.keys().for_each(|address| report.announces(address));
        self.metrics.update(&threads.l2, &threads.bfd);
    }

    /// The others hear of it, and take over at once.
    fn stop(&mut self) {
        self.threads = None;
    }
}
