//! Full loads by Weft itself: from a snapshot to a kernel that holds all of it, in a namespace that was empty.

use std::time::{Duration, Instant};

use weft_netlink::netns::Namespace;
use weft_proxy::planner::everything;
use weft_proxy::sync::Sync;
use weft_types::Snapshot;

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

/// One load of an empty namespace.
pub(crate) fn once(snapshot: &Snapshot) -> Duration {
    let namespace = Namespace::temporary().unwrap();
    let time = namespace.run(|| {
        let mut sync = Sync::open(config()).unwrap();
        let start = Instant::now();
        sync.apply(snapshot, &everything(snapshot)).unwrap();
        start.elapsed()
    });
    drop(namespace);
    std::thread::sleep(REST);
    time.unwrap()
}
