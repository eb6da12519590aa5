//! Looking after what the plugin made for the node's pods: what is missing is put back at once, and reported
//! until it is. What is missing is decided in `plan`, from what `observe` sees; putting back is the plugin's.

pub mod observe;
pub mod plan;

use std::fs;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tracing::info;
use weft_cni_spec::NetworkList;
use weft_netlink::sysctl::bridge_netfilter;
use weft_types::Node;
use weft_types::well_known::table::HOST_PORTS;

use crate::attachments::PluginPaths;
use crate::plan::NodePlan;
use crate::subsystem::{Report, Round, Subsystem};
use crate::upkeep::observe::BridgeObserver;
use crate::upkeep::plan::{Cooldown, Defect, Expected, port};
use crate::uplink::Uplink;
use crate::{Result, plugin};

/// When to try again what could not be put back, where nothing else calls for it.
const AGAIN: Duration = Duration::from_secs(4);

/// What is wrong.
#[derive(Debug, Default)]
struct Finding {
    problems: Vec<String>,
    /// All pods are concerned, and new ones would be.
    is_fatal: bool,
}

/// What is remembered from one round to the next.
pub(crate) struct Upkeep {
    paths: PluginPaths,
    bridge: BridgeObserver,
    repaired: Counter,
    /// The host's ports may have changed since they were last found right.
    is_dirty: bool,
    /// What could not be put back.
    problems: Vec<String>,
    tried: Option<Instant>,
    cooldown: Cooldown,
}

impl Subsystem for Upkeep {
    fn name(&self) -> &'static str {
        "upkeep"
    }

    fn tables(&self) -> &'static [&'static str] {
        &[HOST_PORTS]
    }

    fn observe(&mut self, node: Option<&Node>, uplink: &mut Uplink) -> Result<()> {
        let current = node.map(|node| node.pod_cidrs.as_slice()).unwrap_or_default();
        uplink.former = self.paths.former(current)?;
        Ok(())
    }

    fn reconcile(&mut self, round: &Round<'_>, report: &mut Report) {
        self.is_dirty |= round.kernel.touched(HOST_PORTS);
        let Some(plan) = round.plan else { return };
        match self.look(plan) {
            Ok(finding) => {
                report.problems(finding.problems);
                if finding.is_fatal {
                    report.block();
                }
            }
            Err(error) => {
                report.problem(format!("cannot see whether all that pods rely on is there: {error}"));
            }
        }
        report.problems(self.set_mtu(plan).err());
    }
}

impl Upkeep {
    /// For the plugin at these paths, in the calling thread's network namespace.
    pub(crate) fn new(paths: PluginPaths, registry: &mut Registry) -> Result<Upkeep> {
        let repaired = Counter::default();
        let help = "Things put back that the plugin had made for running pods";
        registry.register("repairs", help, repaired.clone());
        let (bridge, cooldown) = (BridgeObserver::open()?, Cooldown::default());
        Ok(Upkeep { paths, bridge, repaired, is_dirty: true, problems: Vec::new(), tried: None, cooldown })
    }

    fn set_mtu(&mut self, plan: &NodePlan) -> Result<()> {
        let config =
            plan.cni_config.as_ref().and_then(|list| list.plugins.first()).map(|plugin| &plugin.bridge);
        let Some((name, mtu)) = config.and_then(|bridge| bridge.bridge.as_deref().zip(bridge.mtu)) else {
            return Ok(());
        };
        self.bridge.set_mtu(name, mtu)
    }

    fn look(&mut self, plan: &NodePlan) -> Result<Finding> {
        // A Node that registers anew has no pod CIDR for a moment: then what is in the file holds.
        let text =
            plan.cni_config_text().map(String::into_bytes).or_else(|| fs::read(&self.paths.conflist).ok());
        let list = text.as_ref().and_then(|text| serde_json::from_slice::<NetworkList>(text).ok());
        let (Some(text), Some(list)) = (text, list) else { return Ok(Finding::default()) };
        let port = port(bridge_netfilter());
        let Some(expected) = Expected::by(&list, &self.paths.ranges(&list), &self.paths.addresses(), port)
        else {
            return Ok(Finding::default());
        };
        let defects = expected.defects(&self.bridge.observe(&expected.bridge)?);
        let may_lack_ports = std::mem::take(&mut self.is_dirty) && self.paths.has_records();
        let is_due = !self.problems.is_empty() && self.tried.is_none_or(|tried| tried.elapsed() >= AGAIN);
        if defects.is_empty() && !may_lack_ports && !is_due {
            return Ok(self.finding(&defects, ""));
        }
        if self.cooldown.is_active(Instant::now()) {
            self.is_dirty = may_lack_ports;
            return Ok(
                self.finding(&defects, "another program undoes repairs; they are paused for some seconds")
            );
        }
        let config = plugin::config(&text).unwrap_or_default();
        let refused = self.repair(&config).err();
        let defects = expected.defects(&self.bridge.observe(&expected.bridge)?);
        Ok(self.finding(&defects, refused.as_deref().unwrap_or("it could not be put back")))
    }

    fn repair(&mut self, config: &Value) -> Result<(), String> {
        self.problems.clear();
        self.tried = Some(Instant::now());
        let report = plugin::repair(&self.paths.bin_dir, config)
            .map_err(|problem| format!("the plugin cannot put it back: {problem}"))?;
        for what in &report.done {
            info!("put back: {what}");
            self.repaired.inc();
            self.cooldown.note(Instant::now());
        }
        self.problems = report.problems.iter().map(|problem| format!("cannot put back: {problem}")).collect();
        Ok(())
    }

    fn finding(&self, defects: &[Defect], why: &str) -> Finding {
        let told = defects.iter().map(|defects| format!("{}: {why}", defects.text()));
        Finding {
            problems: self.problems.iter().cloned().chain(told).collect(),
            is_fatal: defects.iter().any(|defects| matches!(defects, Defect::Bridge(_))),
        }
    }
}
