//! Full loads by Weft itself: from a snapshot to a kernel that holds all of it, in a namespace that was
//! empty.

use std::time::Duration;

use weft_netlink::netns::Namespace;
use weft_proxy::config::Config;
use weft_proxy::dataplane::nftables::DesiredTables;
use weft_proxy::services::planner::Planner;
use weft_proxy::sync::Sync;
use weft_types::{ChangeSet, Snapshot};

use crate::process::Cost;
use crate::report::{Load, Outcome, Report};
use weft_bench::cluster::{NODE, POD_NETWORK, Size};
use weft_bench::table::{median, ms, thousands};

const ROUNDS: usize = 5;
/// The kernel frees what a namespace held some time after it is gone, and would be at it in the next round.
const REST: Duration = Duration::from_millis(300);

pub(crate) fn measure(sizes: &[usize], report: &mut Report) {
    let mut per_service = Vec::new();
    for &services in sizes {
        let time = load(Size { services, endpoints: 2 }, report);
        per_service.push(time.as_secs_f64() / services as f64);
        let what = format!("{} x 2: empty to full, planning included", thousands(services));
        match services {
            10_000 => report.at_most(what, ms(time), 100.0, "ms"),
            100_000 => report.at_most(what, ms(time), 1200.0, "ms"),
            _ => {}
        }
    }
    if let (Some(first), Some(last)) = (per_service.first(), per_service.last()) {
        report.at_most("cost per Service, largest load against smallest", last / first, 1.5, "");
    }
    if sizes.contains(&10_000) {
        load(Size { services: 10_000, endpoints: 10 }, report);
    }
}

/// The median of several loads.
fn load(size: Size, report: &mut Report) -> Duration {
    let snapshot = size.snapshot();
    let time = median_of(|| once(&snapshot), report, size, "empty to full");
    median_of(|| planning(&snapshot), report, size, "planning alone");
    let outcome = Outcome::Took(time);
    report.loads.push(Load {
        contender: "weft-proxy",
        services: size.services,
        endpoints: size.endpoints,
        outcome,
    });
    time
}

/// Does it several times, and returns the median of the time. That of the processor's time is told.
fn median_of(once: impl Fn() -> Cost, report: &mut Report, size: Size, what: &str) -> Duration {
    let costs: Vec<Cost> = (0..ROUNDS).map(|_| once()).collect();
    let [time, processor] = [|cost: &Cost| cost.wall, |cost: &Cost| cost.processor]
        .map(|of| median(&mut costs.iter().map(of).collect::<Vec<_>>()));
    let what = format!("{} x {}: {what}: processor time", thousands(size.services), size.endpoints);
    report.note(what, format!("{:.1} ms", ms(processor)));
    time
}

/// A plan of everything, without a kernel.
fn planning(snapshot: &Snapshot) -> Cost {
    let (mut planner, mut tables) = (Planner::new(NODE), DesiredTables::new(&config()));
    Cost::of(|| {
        planner.start(snapshot, &mut tables);
        assert!(!tables.take_changes().is_empty());
    })
}

/// The settings of a proxy on the node of the cluster.
pub(crate) fn config() -> Config {
    Config { node: NODE.to_owned(), cluster_cidrs: vec![POD_NETWORK.parse().unwrap()], ..Config::default() }
}

/// One load of an empty namespace.
pub(crate) fn once(snapshot: &Snapshot) -> Cost {
    let namespace = Namespace::temporary().unwrap();
    let cost = namespace.run(|| {
        let mut sync = Sync::open(config()).unwrap();
        Cost::of(|| {
            sync.apply(snapshot, &ChangeSet::default()).unwrap();
        })
    });
    drop(namespace);
    std::thread::sleep(REST);
    cost.unwrap()
}
