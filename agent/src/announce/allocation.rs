//! Giving addresses to Services of the type LoadBalancer: one agent of the cluster does, the one that holds a
//! Lease. It has a watch of its own, which begins when it gets the Lease: so it starts from what the cluster
//! is at that moment, all that was given before included, and the other agents watch nothing for it.

mod leader;
mod metrics;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tracing::{info, warn};
use weft_cluster::write::Candidate;
use weft_types::{AddressRange, IpAddressPool, Kind};

use self::leader::Leader;
use self::metrics::Metrics;
use crate::Result;
use crate::subsystem::{Environment, Report, Round, Subsystem, Wake};

/// Where the Lease is, and its name.
const NAMESPACE: &str = "kube-system";
const LEASE: &str = "weft-load-balancers";

/// What the flags say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The addresses that are given without any object.
    pub(crate) pool: Vec<AddressRange>,
    /// IPAddressPools of the cluster count, too.
    pub(crate) reads_pools: bool,
    /// The class of Services that get addresses; none for those without one.
    pub(crate) class: Option<String>,
}

/// Gives addresses, where this agent is the one that does.
pub(crate) struct Allocation {
    settings: Settings,
    metrics: Metrics,
    /// Whether there is something to give.
    wanted: watch::Sender<bool>,
    problem: Problem,
}

/// What is wrong with what this agent writes, for its state.
#[derive(Clone, Default)]
struct Problem {
    text: Arc<Mutex<Option<String>>>,
    wake: Wake,
}

impl Problem {
    fn set(&self, problem: Option<String>) {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if *text != problem {
            *text = problem;
            self.wake.wake();
        }
    }

    fn get(&self) -> Option<String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Allocation {
    pub(crate) fn new(settings: Settings, registry: &mut Registry) -> Allocation {
        let (wanted, _) = watch::channel(!settings.pool.is_empty());
        Allocation { settings, metrics: Metrics::new(registry), wanted, problem: Problem::default() }
    }
}

impl Subsystem for Allocation {
    fn name(&self) -> &'static str {
        "load-balancer-addresses"
    }

    fn start(&mut self, environment: &Environment) -> Result<()> {
        if self.settings.pool.is_empty() && !self.settings.reads_pools {
            return Ok(());
        }
        self.problem.wake = environment.wake.clone();
        let Environment { client, node, .. } = environment;
        let candidate = Candidate::new(client.clone(), NAMESPACE, LEASE, node.clone());
        let (metrics, problem) = (self.metrics.clone(), self.problem.clone());
        let leader = Leader::new(client.clone(), node, self.settings.clone(), metrics, problem);
        // It ends with the runtime.
        tokio::spawn(run(candidate, leader, self.wanted.subscribe()));
        Ok(())
    }

    fn kinds(&self) -> BTreeSet<Kind> {
        self.settings.reads_pools.then_some(Kind::IpAddressPool).into_iter().collect()
    }

    fn reconcile(&mut self, round: &Round<'_>, report: &mut Report) {
        if !self.settings.reads_pools {
            report.problems(self.problem.get());
            return;
        }
        if let Some(pools) = round.objects(Kind::IpAddressPool)
            && !pools.of::<IpAddressPool>().is_empty()
        {
            // Once there was a pool, there may be addresses to tell of, also without one.
            self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        }
        if let Some(refusal) = round.refusal(Kind::IpAddressPool) {
            report.problem(format!("address pools are not known: {refusal}"));
        }
        report.problems(self.problem.get());
    }
}

/// Waits until there is something to give, and then for the Lease, again and again.
async fn run(mut candidate: Candidate, mut leader: Leader, mut wanted: watch::Receiver<bool>) {
    if wanted.wait_for(|wanted| *wanted).await.is_err() {
        return;
    }
    loop {
        let since = candidate.acquire().await;
        info!(lease = LEASE, "this agent gives addresses to LoadBalancer Services from now on");
        // Whether the Lease is still held comes before anything else.
        tokio::select! {
            biased;
            why = candidate.keep(since) => {
                warn!(lease = LEASE, %why, "another agent gives addresses to LoadBalancer Services from now on");
            }
            never = leader.lead() => match never {},
        }
        leader.retire();
    }
}
