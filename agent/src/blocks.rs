//! Blocks of addresses (`--ipam blocks`): `plan` decides which the node has, claims and gives up, by objects in
//! the cluster. Here the file is kept by which the plugin gives addresses, and requests are made, beside the
//! daemon's rounds. A Node's pod CIDRs then are its blocks.

pub(crate) mod dry_run;
mod free;
mod nodes;
pub(crate) mod plan;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use prometheus_client::registry::Registry;
use tracing::info;
use weft_cluster::write::{
    Events, Recorder, Warning, Written, claim_block, delete_block, delete_block_of_lost_node, renew_block,
};
use weft_ipam::Blocks;
use weft_netlink::rtnl::RtnetlinkClient;
use weft_types::{IpNetwork, IpamBlock, Kind, ObjectKey, Snapshot};

use self::nodes::with_blocks;
use self::plan::{BlockPlan, BlockPlanner, Known, Outcome, Request, Settings};
use self::report::{Figures, Latest};
use crate::attachments::PluginPaths;
use crate::subsystem::{Environment, Report, Round, Subsystem};
use crate::watches::Watches;
use crate::{Error, Result};

/// Requests that ended, what became of them, and what was said where that is not known.
type Answers = Arc<Mutex<Vec<(Request, Outcome, Option<String>)>>>;

/// Keeps the node in blocks.
pub(crate) struct BlockIpam {
    settings: Settings,
    planner: BlockPlanner,
    paths: PluginPaths,
    /// The bridge's name.
    bridge: String,
    file: PathBuf,
    environment: Option<(kube::Client, String, crate::subsystem::Wake)>,
    events: Option<Events>,
    answers: Answers,
    /// What is wrong with requests, by the block's name.
    failures: BTreeMap<String, String>,
    /// The file as it is, what the last look decided, and the addresses that are reserved.
    file_now: Blocks,
    plan: BlockPlan,
    held: BTreeSet<IpAddr>,
    /// How many blocks there are, and of how many Nodes.
    claimed: (usize, usize),
    figures: Figures,
    latest: Latest,
}

impl Subsystem for BlockIpam {
    fn name(&self) -> &'static str {
        "blocks"
    }

    fn kinds(&self) -> BTreeSet<Kind> {
        [Kind::IpamBlock].into()
    }

    fn essential(&self) -> Option<Kind> {
        Some(Kind::IpamBlock)
    }

    fn endpoints(&self) -> Router {
        self.latest.endpoint()
    }

    fn due(&self) -> Option<Instant> {
        self.planner.due(Instant::now())
    }

    fn start(&mut self, environment: &Environment) -> Result<()> {
        let Environment { client, node, wake, .. } = environment;
        self.events = Some(Events::start(Recorder::new(client.clone(), "weft-agent", node)));
        self.environment = Some((client.clone(), node.clone(), wake.clone()));
        Ok(())
    }

    fn allocate(&mut self, cluster: &Watches) -> Result<Option<Snapshot>> {
        let Some((nodes, blocks)) = cluster.snapshot(Kind::Node).zip(cluster.snapshot(Kind::IpamBlock))
        else {
            return Ok(None);
        };
        let Some(name) = self.environment.as_ref().map(|(_, name, _)| name.clone()) else { return Ok(None) };
        self.take_answers();
        // In this order: who reserved an address by the file of before did so before this one was written.
        self.file_now = Blocks::read(&self.file).map_err(|error| self.failed(error))?;
        self.held = self.paths.addresses().into_iter().collect();
        let all: Vec<&IpamBlock> = blocks.ipam_blocks().collect();
        self.claimed = (all.len(), all.iter().map(|block| &block.node).collect::<BTreeSet<_>>().len());
        let known = Known {
            node: (&name, nodes.node(&name).map(|node| node.uid.as_str())),
            nodes: nodes.nodes().map(|node| node.name.as_str()).collect(),
            blocks: all,
            served: &self.file_now.blocks,
            held: &self.held,
        };
        self.plan = self.planner.plan(&known, Instant::now());
        Ok(Some(with_blocks(nodes, blocks, &name, &self.plan.serve)))
    }

    fn reconcile(&mut self, _round: &Round<'_>, report: &mut Report) {
        let Some((_, node, _)) = &self.environment else { return };
        let exhausted = self
            .plan
            .exhausted
            .iter()
            .map(|&family| report::exhausted(&self.settings, family, node, self.claimed));
        let exhausted: Vec<String> = exhausted.collect();
        let warnings = exhausted.iter().map(|note| Warning {
            about: ObjectKey::Node(node.clone()),
            reason: "ClusterCIDRExhausted",
            note: note.clone(),
        });
        if let Some(events) = &mut self.events {
            events.tell(warnings.collect());
        }
        report.problems(self.failures.values());
        let missing = exhausted.first().or(self.failures.values().next()).cloned();
        let lacking = report::lacking(node, &self.plan.lacking);
        match lacking {
            Some(problem) => {
                report.blocking(problem);
                report.problems(&exhausted);
            }
            None => report.problems(&exhausted),
        }
        self.figures.set(&self.plan.serve, &self.held);
        let missing = missing.or(report::lacking(node, &self.plan.lacking));
        self.latest.set(node, &self.plan.serve, &self.held, missing.as_deref());
        if let Err(error) = self.write(missing) {
            // What the file still has must not be given up.
            report.blocking(error);
            return self.put_off();
        }
        for request in std::mem::take(&mut self.plan.requests) {
            self.send(request, report);
        }
    }
}

impl BlockIpam {
    /// For the plugin at these paths.
    pub(crate) fn new(
        settings: Settings,
        paths: PluginPaths,
        bridge: String,
        file: PathBuf,
        registry: &mut Registry,
    ) -> BlockIpam {
        let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let claim = format!("{:x}-{:x}", start.as_nanos(), std::process::id());
        BlockIpam {
            planner: BlockPlanner::new(settings.clone(), claim),
            settings,
            paths,
            bridge,
            file,
            environment: None,
            events: None,
            answers: Answers::default(),
            failures: BTreeMap::new(),
            file_now: Blocks::default(),
            plan: BlockPlan::default(),
            held: BTreeSet::new(),
            claimed: (0, 0),
            figures: Figures::new(registry),
            latest: Latest::default(),
        }
    }

    fn failed(&self, problem: weft_ipam::Error) -> Error {
        Error::Blocks { path: self.file.clone(), problem: problem.to_string() }
    }

    fn take_answers(&mut self) {
        let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        for (request, outcome, problem) in answers {
            let name = request.block().name.clone();
            match problem {
                Some(problem) => drop(self.failures.insert(name, problem)),
                None => drop(self.failures.remove(&name)),
            }
            self.planner.note(&request, outcome, Instant::now());
        }
    }

    fn write(&mut self, missing: Option<String>) -> Result<()> {
        let blocks =
            Blocks { blocks: self.plan.serve.clone(), is_incomplete: !self.plan.lacking.is_empty(), missing };
        if blocks == self.file_now {
            return Ok(());
        }
        blocks.write(&self.file, &self.paths.leases).map_err(|error| self.failed(error))?;
        let is_other = blocks.blocks != self.file_now.blocks;
        self.file_now = blocks;
        if is_other {
            let names: Vec<String> = self.file_now.blocks.iter().map(ToString::to_string).collect();
            info!(blocks = names.join(" "), "pods get addresses of these blocks");
            // What left the file can be given up now.
            if let Some((_, _, wake)) = &self.environment {
                wake.wake();
            }
        }
        Ok(())
    }

    /// Requests that are not made after all.
    fn put_off(&mut self) {
        for request in std::mem::take(&mut self.plan.requests) {
            self.planner.note(&request, Outcome::Unknown, Instant::now());
        }
    }

    fn send(&mut self, request: Request, report: &mut Report) {
        let Some((client, _, wake)) = self.environment.clone() else { return };
        if let Request::Release(block) = &request
            && let Err(error) = self.leave(&block.cidr)
        {
            report.problem(error);
            return self.planner.note(&request, Outcome::Unknown, Instant::now());
        }
        let answers = self.answers.clone();
        // It ends with the runtime.
        tokio::spawn(async move {
            let (outcome, problem) = match carry_out(&client, &request).await {
                Ok(Written::Done) => (Outcome::Done, None),
                Ok(Written::Conflict) => (Outcome::Conflict, None),
                Ok(Written::Gone) if matches!(request, Request::Claim(_)) => {
                    (Outcome::Unknown, Some(report::undefined(request.block())))
                }
                Ok(Written::Gone) => (Outcome::Gone, None),
                Err(problem) => (Outcome::Unknown, Some(report::refused(&request, &problem))),
            };
            tell(&request, outcome);
            // After anything else the watch says more, or it is tried again with the next look.
            let is_next_at_once = matches!((&request, outcome), (Request::Claim(_), Outcome::Conflict));
            answers.lock().unwrap_or_else(PoisonError::into_inner).push((request, outcome, problem));
            if is_next_at_once {
                wake.wake();
            }
        });
    }

    /// The bridge ceases to be in a block: another node's pods will have these addresses.
    fn leave(&self, block: &IpNetwork) -> Result<()> {
        let mut route = RtnetlinkClient::open()?;
        let Some(link) = route.find_link(&self.bridge)? else { return Ok(()) };
        let held = route.addresses(Some(link.index))?.into_iter();
        let mut stale =
            held.filter(|held| held.address.prefix() == block.prefix() && block.contains(held.address.ip()));
        Ok(stale.try_for_each(|stale| route.delete_address(stale))?)
    }
}

async fn carry_out(client: &kube::Client, request: &Request) -> Result<Written, String> {
    match request {
        Request::Claim(block) => claim_block(client, block).await,
        Request::Renew(block) => renew_block(client, block).await,
        Request::Release(block) => delete_block(client, block).await,
        Request::Collect(block) => delete_block_of_lost_node(client, block).await,
    }
}

fn tell(request: &Request, outcome: Outcome) {
    let IpamBlock { cidr, node, .. } = request.block();
    match (request, outcome) {
        (Request::Claim(_), Outcome::Done) => info!(%cidr, "claimed a block of addresses"),
        (Request::Release(_), Outcome::Done) => info!(%cidr, "gave up a block of addresses"),
        (Request::Collect(_), Outcome::Done) => {
            info!(%cidr, node, "gave up a block of addresses of a Node that is gone");
        }
        _ => {}
    }
}
