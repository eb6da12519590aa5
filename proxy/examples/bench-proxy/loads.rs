//! Full loads by Weft itself: from a snapshot to a kernel that holds all of it, in a namespace that was empty.

use std::time::{Duration, Instant};

use weft_netlink::netns::Namespace;
use weft_proxy::planner::Planner;
use weft_proxy::sync::Sync;
use weft_types::{ChangeSet, Snapshot};

use crate::cluster::{Size, config};
use crate::report::{Load, Outcome, Report, median, ms, thousands};

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
        let planning = planning(&Size { services, endpoints: 2 }.snapshot());
        let what = format!("{} x 2: of that, planning alone", thousands(services));
        report.note(what, format!("{:.1} ms", ms(planning)));
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
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| once(&snapshot)).collect();
    let time = median(&mut times);
    let outcome = Outcome::Took(time);
    report.loads.push(Load {
        contender: "weft-proxy",
        services: size.services,
        endpoints: size.endpoints,
        outcome,
    });
    time
}

/// The median of what several plans of all that take, without a kernel.
fn planning(snapshot: &Snapshot) -> Duration {
    let once = |_| {
        let mut planner = Planner::new(config());
        let start = Instant::now();
        let transaction = planner.start(snapshot);
        let took = start.elapsed();
        assert!(!transaction.is_empty());
        took
    };
    median(&mut (0..ROUNDS).map(once).collect::<Vec<_>>())
}

/// One load of an empty namespace.
pub(crate) fn once(snapshot: &Snapshot) -> Duration {
    let namespace = Namespace::temporary().unwrap();
    let time = namespace.run(|| {
        let mut sync = Sync::open(config()).unwrap();
        let start = Instant::now();
        sync.apply(snapshot, &ChangeSet::default()).unwrap();
        start.elapsed()
    });
    drop(namespace);
    std::thread::sleep(REST);
    time.unwrap()
}
