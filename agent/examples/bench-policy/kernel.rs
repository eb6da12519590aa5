//! Planning and committing without a daemon: the first load, and single changes.

use std::time::{Duration, Instant};

use nix::time::ClockId;
use weft_bench::table::{Table, ms, quantile, thousands};
use weft_netlink::netns::Namespace;
use weft_nftables::{Client, Observed, diff};
use weft_policy::plan::{Direction, Planner};
use weft_policy::ruleset::{Denied, Ruleset};
use weft_types::{Family, Namespace as ClusterNamespace, NetworkPolicy, Pod, Snapshot};

use crate::cluster::{self, NAMESPACES, NODE, PODS};

/// How often the whole is loaded; the best counts, as other load only ever takes away.
const LOADS: usize = 5;
/// How often all peers change their classes.
const HALVINGS: usize = 11;

/// A change of the cluster, for a planner to hear of.
type Event = Box<dyn FnOnce(&mut Planner)>;

/// A node's plan in the kernel.
struct Loaded {
    planner: Planner,
    ruleset: Ruleset,
    client: Client,
}

impl Loaded {
    /// Tells the planner of a change, and writes what comes of it. Returns the processor's time for planning
    /// and for all, and the clock's for all.
    fn take(&mut self, event: Event) -> [Duration; 3] {
        let (start, before) = (Instant::now(), on_processor());
        event(&mut self.planner);
        let delta = self.planner.commit();
        let planned = on_processor() - before;
        let transaction = self.ruleset.apply(&delta);
        self.client.commit(&transaction).unwrap();
        [planned, on_processor() - before, start.elapsed()]
    }
}

/// Returns the time of a first load, planning included, and of a change of one policy.
pub(crate) fn measure(changes: usize, table: &mut Table) -> [Duration; 2] {
    let snapshot = cluster::snapshot();
    let load = Namespace::temporary().unwrap().run(|| first_load(&snapshot, table)).unwrap();
    let change = Namespace::temporary().unwrap().run(|| single_changes(&snapshot, changes, table)).unwrap();
    [load, change]
}

/// The plan of the node.
pub(crate) fn planner(snapshot: &Snapshot) -> Planner {
    let mut planner = Planner::new(NODE);
    cluster::tell(&mut planner, snapshot);
    planner.commit();
    planner
}

/// Loads the tables with all policies into the calling thread's namespace.
pub(crate) fn load(snapshot: &Snapshot) {
    load_all(snapshot);
}

/// The same. Returns how long telling, planning and writing took, and for how long the writing kept the
/// processor.
fn load_all(snapshot: &Snapshot) -> (Loaded, [Duration; 3], Duration) {
    let mut planner = Planner::new(NODE);
    let start = Instant::now();
    cluster::tell(&mut planner, snapshot);
    let told = start.elapsed();
    let delta = planner.commit();
    let planned = start.elapsed() - told;
    let mut ruleset = Ruleset::new(Denied::default());
    ruleset.apply(&delta);
    let transaction = ruleset.bring(&Observed::default());
    let mut client = Client::open().unwrap();
    let (start, before) = (Instant::now(), on_processor());
    client.commit(&transaction).unwrap();
    let (written, processor) = (start.elapsed(), on_processor() - before);
    (Loaded { planner, ruleset, client }, [told, planned, written], processor)
}

fn first_load(snapshot: &Snapshot, table: &mut Table) -> Duration {
    let mut loads: Vec<([Duration; 3], Duration)> = Vec::new();
    for round in 0..LOADS {
        let (loaded, times, processor) = load_all(snapshot);
        drop_tables();
        loads.push((times, processor));
        if round == 0 {
            let plan = loaded.planner.plan().family(Family::V4);
            let sides = plan.endpoints.values().flat_map(|it| Direction::BOTH.map(|way| it.side(way)));
            let rows: usize =
                sides.flatten().flat_map(|side| side.rows.values()).map(|rows| rows.len()).sum();
            let size = [plan.endpoints.len(), plan.peers.len(), rows].map(thousands).join(", ");
            table.note("addresses of the node's pods, peers, and rows", size);
        }
    }
    let best = loads.into_iter().min_by_key(|(_, processor)| *processor);
    let ([told, planned, written], processor) = best.unwrap();
    table
        .note("first load: objects taken in, and planned", format!("{:.0}, {:.0} ms", ms(told), ms(planned)));
    table.note("first load: written to the kernel, by the clock", format!("{:.0} ms", ms(written)));
    table.at_most("first load: processor time of that", ms(processor), 150.0, "ms");
    told + planned + written
}

/// Both tables go, as when the last policy does.
fn drop_tables() {
    let mut client = Client::open().unwrap();
    let keys = Ruleset::new(Denied::default()).tables().each_ref().map(weft_nftables::Table::key);
    let held = client.observe(&keys).unwrap();
    client.commit(&diff(&[], &held)).unwrap();
}

/// Returns the median time of a change of one policy.
fn single_changes(snapshot: &Snapshot, changes: usize, table: &mut Table) -> Duration {
    let (mut loaded, ..) = load_all(snapshot);
    let here: Vec<u32> = cluster::pods_here().collect();
    let mut row = |what: &str, bar: f64, rounds: usize, event: &dyn Fn(u32) -> Event| {
        let times: Vec<[Duration; 3]> = (0..rounds as u32).map(|round| loaded.take(event(round))).collect();
        let [mut planned, mut processor, mut clock] =
            [0, 1, 2].map(|place| times.iter().map(|times| times[place]).collect::<Vec<Duration>>());
        table.note(format!("{what}: planned, processor time, p50, p99"), both(&mut planned));
        table.note(format!("{what}: planned and committed, processor time, p50, p99"), both(&mut processor));
        table.note(
            format!("{what}: planned and committed, p50"),
            format!("{:.3} ms", ms(quantile(&mut clock, 0.5))),
        );
        table.at_most(
            format!("{what}: planned and committed, p99"),
            ms(quantile(&mut clock, 0.99)),
            bar,
            "ms",
        );
        quantile(&mut clock, 0.5)
    };
    row("a pod elsewhere changes its labels", 2.0, changes, &|round| {
        let pod = read_pod(cluster::pod_elsewhere(round));
        Box::new(move |planner| planner.set_pod(&pod.key, Some(&pod)))
    });
    row("a pod of the node comes or goes", 2.0, changes, &|round| {
        let pod = read_pod(cluster::pod(here[(round / 2) as usize % here.len()], 0));
        Box::new(move |planner| planner.set_pod(&pod.key, (round % 2 == 1).then_some(&pod)))
    });
    let change = row("a policy changes a port", 2.0, changes, &|round| {
        let policy = read_policy(cluster::policy_here(round));
        Box::new(move |planner| planner.set_network_policy(&policy.key, Some(&policy)))
    });
    row("a namespace changes its labels", 2.0, changes, &|round| {
        let snapshot = cluster::read(vec![cluster::namespace(round % NAMESPACES, 7 + round % 3)]);
        let namespace = snapshot.of::<ClusterNamespace>().iter().next().unwrap().clone();
        Box::new(move |planner| planner.set_namespace(&namespace.name, Some(&namespace)))
    });
    let what = format!("a policy that gives half of {} pods other classes", thousands(PODS as usize));
    row(&what, 50.0, HALVINGS * 2, &|round| {
        let policy = read_policy(cluster::halving());
        Box::new(move |planner| planner.set_network_policy(&policy.key, (round % 2 == 0).then_some(&policy)))
    });
    change
}

/// The processor time of the calling thread, the kernel's work for it included. It holds where others keep
/// the processors busy.
fn on_processor() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap().into()
}

fn both(times: &mut [Duration]) -> String {
    format!("{:.3}, {:.3} ms", ms(quantile(times, 0.5)), ms(quantile(times, 0.99)))
}

fn read_pod(pod: serde_json::Value) -> Pod {
    let snapshot = cluster::read(vec![pod]);
    snapshot.of::<Pod>().iter().next().unwrap().clone()
}

fn read_policy(policy: serde_json::Value) -> NetworkPolicy {
    let snapshot = cluster::read(vec![policy]);
    snapshot.of::<NetworkPolicy>().iter().next().unwrap().clone()
}
