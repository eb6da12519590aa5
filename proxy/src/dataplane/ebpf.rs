//! Sockets that connect to ClusterIPs are led to endpoints by programs of eBPF, at the call itself, so that
//! their packets meet no address translation. It goes before a data plane that is complete by itself: what
//! programs do not see, or leave alone, is led by that one.
//!
//! ```text
//! ServicePlan -> rows() -> changes() -> Objects::apply       (elements.rs: pure; objects.rs: the kernel)
//!                            layout.rs: what the bytes mean, for both of these
//! programs.rs -> [Instruction] -> Objects::attach
//! ```

mod elements;
mod layout;
mod objects;
mod programs;
mod stale_sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tracing::{info, warn};
use weft_netlink::netns::{self, Namespace};
use weft_types::NamespacedName;

use super::{Dataplane, ForeignChange, Outcome, Programs, Through};
use crate::config::{Ebpf, EbpfScope, StaleSockets};
use crate::counters::ReadCounters;
use crate::error::Error;
use crate::services::node::NodeConfig;
use crate::services::plan::ServicePlan;
use crate::services::planner::Stage;

use elements::{Rows, changes, frontends, removed, rows, text};
use objects::{Objects, clean_up, root_cgroup};
use stale_sockets::Destroyer;

/// A data plane with programs before it.
#[derive(Debug)]
pub struct EbpfDataplane {
    beside: Box<dyn Dataplane>,
    bpffs: PathBuf,
    /// Where the proxy runs; none where the kernel cannot tell it from other namespaces.
    home: Option<Home>,
    /// Where and for whom the programs run; none where there are to be none.
    attachment: Option<Attachment>,
    /// The maps, while they are in step with what was committed.
    objects: Option<Objects>,
    /// How many frontends they have, and why there are none where there should be.
    programs: Programs,
    /// All Services that have a plan.
    services: BTreeSet<Arc<NamespacedName>>,
    /// What each Service that was staged had in the maps before.
    staged: BTreeMap<Arc<NamespacedName>, Rows>,
}

/// A network namespace.
#[derive(Clone, Debug)]
struct Home {
    namespace: Arc<Namespace>,
    cookie: u64,
}

#[derive(Debug)]
struct Attachment {
    scope: EbpfScope,
    /// The root of all of them where none was given.
    cgroup: Option<PathBuf>,
    stale_sockets: StaleSockets,
    /// Started when it is needed.
    destroyer: Option<Destroyer>,
}

impl Home {
    fn of_calling_thread() -> Result<Home, weft_netlink::Error> {
        Ok(Home { namespace: Arc::new(Namespace::current()?), cookie: netns::cookie()? })
    }
}

impl EbpfDataplane {
    /// Puts programs of the calling thread's network namespace before that data plane, or has those of an
    /// earlier run go, as the configuration says. Nothing is done yet.
    pub fn before(beside: Box<dyn Dataplane>, config: &Ebpf) -> Box<dyn Dataplane> {
        let Some(bpffs) = config.bpffs.clone() else { return beside };
        let attachment = config.scope.map(|scope| Attachment {
            scope,
            cgroup: config.cgroup.clone(),
            stale_sockets: config.stale_sockets,
            destroyer: None,
        });
        Box::new(EbpfDataplane {
            beside,
            bpffs,
            home: Home::of_calling_thread().ok(),
            attachment,
            objects: None,
            programs: Programs { led: 0, problem: None },
            services: BTreeSet::new(),
            staged: BTreeMap::new(),
        })
    }

    /// What stands in the maps for these Services.
    fn rows_of<'a>(&self, services: impl IntoIterator<Item = &'a Arc<NamespacedName>>) -> Rows {
        services.into_iter().filter_map(|service| self.beside.plan(service)).flat_map(rows).collect()
    }

    /// Brings maps and programs into step. Where that cannot be, there are none afterwards.
    fn resync_programs(&mut self) -> Result<(), Error> {
        self.staged.clear();
        self.objects = None;
        let desired = self.rows_of(&self.services);
        self.programs = Programs { led: 0, problem: None };
        match (&mut self.attachment, &self.home) {
            (None, _) => {
                if self.detach()? {
                    info!("detached the eBPF programs of an earlier run");
                }
            }
            (Some(_), None) => self.go_without("the kernel is older than Linux 5.14"),
            (Some(attachment), Some(home)) => match attachment.bring_into_step(&self.bpffs, home, &desired) {
                Ok(objects) => {
                    self.objects = Some(objects);
                    self.programs.led = frontends(&desired);
                }
                Err(error) => {
                    // What is there may lead to endpoints that are gone.
                    self.detach()?;
                    self.go_without(error);
                }
            },
        }
        Ok(())
    }

    fn go_without(&mut self, problem: impl ToString) {
        let problem = problem.to_string();
        warn!("{problem}; sockets are not led by eBPF, and Services are served by packets alone");
        self.programs.problem = Some(problem);
    }

    fn detach(&self) -> Result<bool, weft_netlink::Error> {
        self.home.as_ref().map_or(Ok(false), |home| clean_up(&self.bpffs, home.cookie))
    }
}

/// Has the programs go that an earlier run left in the network namespace of the calling thread, unless some
/// are wanted still. Returns whether there were any.
///
/// # Errors
/// What cannot be deleted.
pub fn withdraw(config: &Ebpf) -> Result<bool, Error> {
    match (&config.bpffs, config.scope, netns::cookie()) {
        (Some(bpffs), None, Ok(cookie)) => Ok(clean_up(bpffs, cookie)?),
        _ => Ok(false),
    }
}

impl Attachment {
    fn bring_into_step(&mut self, bpffs: &Path, home: &Home, desired: &Rows) -> Result<Objects, Error> {
        let objects = Objects::open(bpffs, home.cookie)?;
        let observed = objects.observe()?;
        let left_out = objects.apply(&changes(&observed, desired))?;
        let cgroup = match &self.cgroup {
            Some(cgroup) => cgroup.clone(),
            None => root_cgroup()?,
        };
        let only = (self.scope == EbpfScope::Host).then_some(home.cookie);
        objects.attach(&cgroup, only)?;
        self.after_changes(&objects, home, left_out, removed(&observed, desired))?;
        info!(cgroup = %cgroup.display(), scope = self.scope.name(), "sockets are led by eBPF");
        Ok(objects)
    }

    fn after_changes(
        &mut self,
        objects: &Objects,
        home: &Home,
        left_out: usize,
        removed: stale_sockets::Removed,
    ) -> Result<(), Error> {
        if left_out > 0 {
            warn!(
                "{left_out} addresses and ports have no room in the eBPF maps; they are served by packets alone"
            );
        }
        if removed.is_empty() {
            return Ok(());
        }
        let destroyer = match &mut self.destroyer {
            Some(destroyer) => destroyer,
            none => none.insert(Destroyer::start(self.stale_sockets, self.scope, &home.namespace)?),
        };
        destroyer.destroy(&objects.peers, removed);
        Ok(())
    }
}

impl Stage for EbpfDataplane {
    fn stage(&mut self, service: &Arc<NamespacedName>, plan: ServicePlan) {
        if self.objects.is_some() && !self.staged.contains_key(service) {
            let before = self.rows_of([service]);
            self.staged.insert(service.clone(), before);
        }
        match plan.frontends.is_empty() {
            true => drop(self.services.remove(service)),
            false => drop(self.services.insert(service.clone())),
        }
        self.beside.stage(service, plan);
    }

    fn stage_node(&mut self, node: &NodeConfig) {
        self.beside.stage_node(node);
    }
}

impl Dataplane for EbpfDataplane {
    fn adopt(&mut self) -> Result<(), Error> {
        self.beside.adopt()
    }

    fn commit(&mut self) -> Result<Outcome, Error> {
        let outcome = self.beside.commit()?;
        let staged = std::mem::take(&mut self.staged);
        let new = self.rows_of(staged.keys());
        // All at once: a frontend may have gone from one Service to another.
        let old: Rows = staged.into_values().flatten().collect();
        if let (Some(objects), Some(attachment), Some(home)) =
            (&self.objects, &mut self.attachment, &self.home)
        {
            let left_out = objects.apply(&changes(&old, &new))?;
            self.programs.led = (self.programs.led + frontends(&new)).saturating_sub(frontends(&old));
            attachment.after_changes(objects, home, left_out, removed(&old, &new))?;
        }
        Ok(outcome)
    }

    fn resync(&mut self) -> Result<(), Error> {
        self.beside.resync()?;
        self.resync_programs()
    }

    fn plan(&self, service: &NamespacedName) -> Option<&ServicePlan> {
        self.beside.plan(service)
    }

    fn services(&self) -> usize {
        self.beside.services()
    }

    fn render(&self) -> String {
        let rendered = self.beside.render();
        match self.attachment {
            None => rendered,
            Some(_) => {
                let maps = text(&self.rows_of(&self.services));
                let maps: String = maps.lines().map(|line| format!("# {line}\n")).collect();
                format!("{rendered}\n# eBPF maps\n{maps}")
            }
        }
    }

    fn trace(&mut self, packet: &str, through: Through) -> Result<String, Error> {
        self.beside.trace(packet, through)
    }

    fn counters(&self) -> ReadCounters {
        self.beside.counters()
    }

    fn watch(&mut self, other_programs: &Arc<Notify>) -> Result<bool, Error> {
        self.beside.watch(other_programs)
    }

    fn poll_foreign_change(&mut self, context: &mut Context<'_>) -> Poll<ForeignChange> {
        self.beside.poll_foreign_change(context)
    }

    fn programs(&self) -> Option<Programs> {
        self.attachment.as_ref().map(|_| self.programs.clone())
    }

    fn clean_up(&mut self) -> Result<(), Error> {
        self.detach()?;
        self.beside.clean_up()
    }
}
