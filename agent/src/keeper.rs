//! Looking after what the plugin made for the node's pods: what is missing is put back at once, and told until it is. What is
//! missing is decided in `upkeep`; putting back is the plugin's.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::info;
use weft_cni_spec::NetworkList;
use weft_netlink::rtnl::bridge_netfilter;
use weft_types::IpNetwork;

use crate::attachments::Place;
use crate::kernel::Kernel;
use crate::metrics::Metrics;
use crate::plan::NodePlan;
use crate::upkeep::{Missing, Pace, Wanted, port};
use crate::{Result, plugin};

/// When to try again what could not be put back, where nothing else calls for it.
const AGAIN: Duration = Duration::from_secs(4);

/// How often the plugin is asked whether it could start a pod.
const ASK: Duration = Duration::from_secs(10);

/// What is wrong.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    pub(crate) problems: Vec<String>,
    /// All pods are concerned, and new ones would be.
    pub(crate) is_fatal: bool,
}

/// What is remembered from one look to the next.
#[derive(Debug)]
pub(crate) struct Keeper {
    place: Place,
    metrics: Metrics,
    /// The host's ports may have changed since they were last found right.
    is_suspect: bool,
    /// What could not be put back.
    problems: Vec<String>,
    tried: Option<Instant>,
    pace: Pace,
    /// When the plugin was asked last, and why it could start no pod then.
    asked: Option<(Instant, Option<String>)>,
}

impl Keeper {
    pub(crate) fn new(place: Place, metrics: Metrics) -> Keeper {
        let (problems, pace) = (Vec::new(), Pace::default());
        Keeper { place, metrics, is_suspect: true, problems, tried: None, pace, asked: None }
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
    pub(crate) fn suspect(&mut self, is_suspect: bool) {
        self.is_suspect |= is_suspect;
    }

    /// Ranges that pods have addresses of from before, and how many.
    pub(crate) fn former(&self, current: &[IpNetwork]) -> Result<BTreeMap<IpNetwork, usize>> {
        self.place.former(current)
    }

    /// Looks, and puts back what is missing.
    pub(crate) fn look_after(&mut self, plan: &NodePlan, kernel: &mut Kernel) -> Missed {
        self.look(plan, kernel).unwrap_or_else(|error| Missed {
            problems: vec![format!("cannot see whether all that pods rely on is there: {error}")],
            is_fatal: false,
        })
    }

    fn look(&mut self, plan: &NodePlan, kernel: &mut Kernel) -> Result<Missed> {
        // A Node that registers anew has no pod CIDR for a moment: then what is in the file holds.
        let text =
            plan.conflist_text().map(String::into_bytes).or_else(|| fs::read(&self.place.conflist).ok());
        let list = text.as_ref().and_then(|text| serde_json::from_slice::<NetworkList>(text).ok());
        let (Some(text), Some(list)) = (text, list) else { return Ok(Missed::default()) };
        let port = port(bridge_netfilter());
        let Some(wanted) = Wanted::by(&list, &self.place.addresses(), port) else {
            return Ok(Missed::default());
        };
        let missing = wanted.missing(&kernel.held(&wanted.bridge)?);
        let may_lack_ports = std::mem::take(&mut self.is_suspect) && self.place.has_records();
        let is_due = !self.problems.is_empty() && self.tried.is_none_or(|tried| tried.elapsed() >= AGAIN);
        if missing.is_empty() && !may_lack_ports && !is_due {
            return Ok(self.told(&missing, ""));
        }
        if self.pace.is_fight(Instant::now()) {
            self.is_suspect = may_lack_ports;
            return Ok(self.told(&missing, "somebody undoes what is put back"));
        }
        let config = plugin::config(&text).unwrap_or_default();
        let refused = self.repair(&config).err();
        let missing = wanted.missing(&kernel.held(&wanted.bridge)?);
        Ok(self.told(&missing, refused.as_deref().unwrap_or("it could not be put back")))
    }

    fn repair(&mut self, config: &Value) -> Result<(), String> {
        self.problems.clear();
        self.tried = Some(Instant::now());
        let report = plugin::repair(&self.place.bin_dir, config)
            .map_err(|problem| format!("the plugin cannot put it back: {problem}"))?;
        for what in &report.done {
            info!("put back: {what}");
            self.metrics.repaired.inc();
            self.pace.note(Instant::now());
        }
        self.problems = report.problems.iter().map(|problem| format!("cannot put back: {problem}")).collect();
        Ok(())
    }

    fn told(&self, missing: &[Missing], why: &str) -> Missed {
        let told = missing.iter().map(|missing| format!("{}: {why}", missing.text()));
        Missed {
            problems: self.problems.iter().cloned().chain(told).collect(),
            is_fatal: missing.iter().any(|missing| matches!(missing, Missing::Bridge(_))),
        }
    }
}
