//! Looking after what the plugin made for the node's pods: what is missing is put back at once, and told until it is. What is
//! missing is decided in `plan`; putting back is the plugin's.

pub mod plan;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::info;
use weft_cni_spec::NetworkList;
use weft_netlink::rtnl::bridge_netfilter;
use weft_types::IpNetwork;

use crate::attachments::PluginPaths;
use crate::kernel::Kernel;
use crate::metrics::Metrics;
use crate::plan::NodePlan;
use crate::upkeep::plan::{Cooldown, Defect, Expected, port};
use crate::{Result, plugin};

/// When to try again what could not be put back, where nothing else calls for it.
const AGAIN: Duration = Duration::from_secs(4);

/// How often the plugin is asked whether it could start a pod.
const ASK: Duration = Duration::from_secs(10);

/// What is wrong.
#[derive(Debug, Default)]
pub(crate) struct Finding {
    pub(crate) problems: Vec<String>,
    /// All pods are concerned, and new ones would be.
    pub(crate) is_fatal: bool,
}

/// What is remembered from one look to the next.
#[derive(Debug)]
pub(crate) struct Upkeep {
    place: PluginPaths,
    metrics: Metrics,
    /// The host's ports may have changed since they were last found right.
    is_dirty: bool,
    /// What could not be put back.
    problems: Vec<String>,
    tried: Option<Instant>,
    cooldown: Cooldown,
    /// When the plugin was asked last, and why it could start no pod then.
    asked: Option<(Instant, Option<String>)>,
}

impl Upkeep {
    pub(crate) fn new(place: PluginPaths, metrics: Metrics) -> Upkeep {
        let (problems, cooldown) = (Vec::new(), Cooldown::default());
        Upkeep { place, metrics, is_dirty: true, problems, tried: None, cooldown, asked: None }
    }

    /// Why the plugin could start no pod with this configuration, as its STATUS has it. Asked at most every [`ASK`].
    pub(crate) fn refusal(&mut self, conflist: &str) -> Option<String> {
        if self.asked.as_ref().is_none_or(|(moment, _)| moment.elapsed() >= ASK) {
            let config = plugin::config(conflist.as_bytes()).unwrap_or_default();
            let refusal = plugin::status(&self.place.bin_dir, &config).err();
            let told = refusal.map(|reason| format!("no pod can start on this node: {reason}"));
            self.asked = Some((Instant::now(), told));
        }
        self.asked.as_ref().and_then(|(_, refusal)| refusal.clone())
    }

    /// Takes word that the host's ports may have changed.
    pub(crate) fn mark_dirty(&mut self, is_dirty: bool) {
        self.is_dirty |= is_dirty;
    }

    /// Ranges that pods have addresses of from before, and how many.
    pub(crate) fn former(&self, current: &[IpNetwork]) -> Result<BTreeMap<IpNetwork, usize>> {
        self.place.former(current)
    }

    /// Looks, and puts back what is missing.
    pub(crate) fn look_after(&mut self, plan: &NodePlan, kernel: &mut Kernel) -> Finding {
        self.look(plan, kernel).unwrap_or_else(|error| Finding {
            problems: vec![format!("cannot see whether all that pods rely on is there: {error}")],
            is_fatal: false,
        })
    }

    fn look(&mut self, plan: &NodePlan, kernel: &mut Kernel) -> Result<Finding> {
        // A Node that registers anew has no pod CIDR for a moment: then what is in the file holds.
        let text =
            plan.conflist_text().map(String::into_bytes).or_else(|| fs::read(&self.place.conflist).ok());
        let list = text.as_ref().and_then(|text| serde_json::from_slice::<NetworkList>(text).ok());
        let (Some(text), Some(list)) = (text, list) else { return Ok(Finding::default()) };
        let port = port(bridge_netfilter());
        let Some(expected) = Expected::by(&list, &self.place.addresses(), port) else {
            return Ok(Finding::default());
        };
        let defects = expected.defects(&kernel.held(&expected.bridge)?);
        let may_lack_ports = std::mem::take(&mut self.is_dirty) && self.place.has_records();
        let is_due = !self.problems.is_empty() && self.tried.is_none_or(|tried| tried.elapsed() >= AGAIN);
        if defects.is_empty() && !may_lack_ports && !is_due {
            return Ok(self.told(&defects, ""));
        }
        if self.cooldown.is_active(Instant::now()) {
            self.is_dirty = may_lack_ports;
            return Ok(self.told(&defects, "somebody undoes what is put back"));
        }
        let config = plugin::config(&text).unwrap_or_default();
        let refused = self.repair(&config).err();
        let defects = expected.defects(&kernel.held(&expected.bridge)?);
        Ok(self.told(&defects, refused.as_deref().unwrap_or("it could not be put back")))
    }

    fn repair(&mut self, config: &Value) -> Result<(), String> {
        self.problems.clear();
        self.tried = Some(Instant::now());
        let report = plugin::repair(&self.place.bin_dir, config)
            .map_err(|problem| format!("the plugin cannot put it back: {problem}"))?;
        for what in &report.done {
            info!("put back: {what}");
            self.metrics.repaired.inc();
            self.cooldown.note(Instant::now());
        }
        self.problems = report.problems.iter().map(|problem| format!("cannot put back: {problem}")).collect();
        Ok(())
    }

    fn told(&self, defects: &[Defect], why: &str) -> Finding {
        let told = defects.iter().map(|defects| format!("{}: {why}", defects.text()));
        Finding {
            problems: self.problems.iter().cloned().chain(told).collect(),
            is_fatal: defects.iter().any(|defects| matches!(defects, Defect::Bridge(_))),
        }
    }
}
