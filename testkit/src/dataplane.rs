//! A data plane without a kernel: what is in effect is a table of frontends and their endpoints, which a test
//! can read, change as somebody else would, and let refuse a commit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use weft_proxy::counters::ReadCounters;
use weft_proxy::dataplane::{Author, Dataplane, ForeignChange, Outcome, Through};
use weft_proxy::error::Error;
use weft_proxy::services::node::NodeConfig;
use weft_proxy::services::plan::{Frontend, FrontendPlan, ServicePlan, Target};
use weft_proxy::services::planner::Stage;
use weft_types::NamespacedName;

/// What stands for the kernel. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct MemoryKernel(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What is in effect: whose each frontend is, and where it leads.
    rows: BTreeMap<Frontend, String>,
    /// How many commits changed something.
    commits: usize,
    /// How many more commits are refused.
    refusals: usize,
    /// Who changed something since that was asked last.
    author: Option<Author>,
    waker: Option<Waker>,
}

impl MemoryKernel {
    /// What is in effect, one line for each frontend.
    pub fn text(&self) -> String {
        let state = self.state();
        state.rows.values().map(|row| format!("{row}\n")).collect()
    }

    /// How many commits have changed something.
    pub fn commits(&self) -> usize {
        self.state().commits
    }

    /// Lets so many further commits be refused.
    pub fn refuse(&self, commits: usize) {
        self.state().refusals = commits;
    }

    /// Somebody else deletes everything.
    pub fn flush(&self, program: &str) {
        let mut state = self.state();
        state.rows.clear();
        state.author = Some(Author { program: program.to_owned(), process: 7 });
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn commit(&self, rows: BTreeMap<Frontend, String>) -> Result<(), Error> {
        let mut state = self.state();
        if state.rows == rows {
            return Ok(());
        }
        if state.refusals > 0 {
            state.refusals -= 1;
            return Err(Error::Dataplane("the test refuses this commit".to_owned()));
        }
        state.commits += 1;
        state.rows = rows;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The data plane on such a kernel.
#[derive(Debug, Default)]
pub struct MemoryDataplane {
    kernel: MemoryKernel,
    services: BTreeMap<Arc<NamespacedName>, ServicePlan>,
    /// The Services that were staged since the last commit.
    staged: BTreeSet<Arc<NamespacedName>>,
    node: NodeConfig,
    watching: bool,
}

impl MemoryDataplane {
    /// One on that kernel.
    pub fn new(kernel: &MemoryKernel) -> MemoryDataplane {
        MemoryDataplane { kernel: kernel.clone(), ..MemoryDataplane::default() }
    }

    /// All rows that there should be.
    fn rows(&self) -> BTreeMap<Frontend, String> {
        let of_service = |(name, plan): (&Arc<NamespacedName>, &ServicePlan)| -> Vec<_> {
            plan.frontends.iter().map(|plan| (plan.frontend, row(name, plan))).collect()
        };
        self.services.iter().flat_map(of_service).collect()
    }
}

/// `shop/web http 10.96.0.1:80 (tcp) -> 10.244.1.2:8080`
fn row(service: &NamespacedName, plan: &FrontendPlan) -> String {
    let mut row = format!("{service} {} {} -> {}", plan.port, plan.frontend, words(&plan.target));
    if let Some(outside) = &plan.outside {
        row += &format!(", from outside {}", words(outside));
    }
    row
}

fn words(target: &Target) -> String {
    match target {
        Target::Endpoints(endpoints) => {
            endpoints.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ")
        }
        Target::Reject => "reject".to_owned(),
        Target::Drop => "drop".to_owned(),
    }
}

impl Stage for MemoryDataplane {
    fn stage(&mut self, service: &Arc<NamespacedName>, plan: ServicePlan) {
        self.staged.insert(service.clone());
        match plan.frontends.is_empty() {
            true => drop(self.services.remove(service)),
            false => drop(self.services.insert(service.clone(), plan)),
        }
    }

    fn stage_node(&mut self, node: &NodeConfig) {
        self.node = node.clone();
    }
}

impl Dataplane for MemoryDataplane {
    fn adopt(&mut self) -> Result<(), Error> {
        Ok(()) // Endpoints have no places here that could be kept.
    }

    fn commit(&mut self) -> Result<Outcome, Error> {
        // What others have changed stays as they left it: a commit touches only what was staged.
        let staged = std::mem::take(&mut self.staged);
        let is_staged = |row: &String| staged.iter().any(|name| row.starts_with(&format!("{name} ")));
        let mut rows = self.kernel.state().rows.clone();
        rows.retain(|_, row| !is_staged(row));
        rows.extend(self.rows().into_iter().filter(|(_, row)| is_staged(row)));
        self.kernel.commit(rows)?;
        Ok(Outcome::Partial)
    }

    fn resync(&mut self) -> Result<(), Error> {
        self.staged.clear();
        self.kernel.commit(self.rows())
    }

    fn plan(&self, service: &NamespacedName) -> Option<&ServicePlan> {
        self.services.get(service)
    }

    fn services(&self) -> usize {
        self.services.len()
    }

    fn render(&self) -> String {
        self.rows().values().map(|row| format!("{row}\n")).collect()
    }

    fn trace(&mut self, packet: &str, _through: Through) -> Result<String, Error> {
        let to = packet.split(" -> ").nth(1).unwrap_or_default();
        let row = self.rows().into_values().find(|row| row.contains(&format!(" {to} ")));
        Ok(row.unwrap_or_else(|| format!("{to} is no frontend\n")))
    }

    fn counters(&self) -> ReadCounters {
        Box::new(|| Ok(Vec::new()))
    }

    fn watch(&mut self, _other_programs: &Arc<Notify>) -> Result<bool, Error> {
        self.watching = true;
        Ok(self.kernel.state().author.take().is_none())
    }

    fn poll_foreign_change(&mut self, context: &mut Context<'_>) -> Poll<ForeignChange> {
        let mut state = self.kernel.state();
        match state.author.take().filter(|_| self.watching) {
            Some(author) => Poll::Ready(ForeignChange::By(author)),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn clean_up(&mut self) -> Result<(), Error> {
        self.kernel.commit(BTreeMap::new())
    }
}
