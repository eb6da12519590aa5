//! The mode iptables: a load, single changes and a restart, in one process and without an API server. What
//! kube-proxy takes for the same with `iptables-nft` stands in docs/data-planes.md.

use std::time::{Duration, Instant};

use weft_netlink::netns::Namespace;
use weft_proxy::config::{Config, ProxyMode};
use weft_proxy::sync::Sync;
use weft_types::{ChangeSet, ObjectKey, Snapshot};

use crate::loads::config;
use crate::report::Report;
use weft_bench::cluster::{Size, key, new_pod, set_endpoints};
use weft_bench::table::{median, ms, thousands};

/// How many changes of each kind are timed: each makes the kernel follow all rules of the table.
const CHANGES: usize = 20;

pub(crate) fn measure(services: usize, report: &mut Report) {
    let size = Size { services, endpoints: 2 };
    let what = format!("mode iptables, {} x 2", thousands(services));
    let (load, restart, [mut replaced, mut deleted, mut added]) =
        Namespace::temporary().unwrap().run(|| run(size)).unwrap();
    report.at_most(format!("{what}: empty to full, planning included"), ms(load), 3500.0, "ms");
    report.note(format!("{what}: restart over rules that are as planned"), format!("{:.0} ms", ms(restart)));
    for (change, times) in [
        ("an endpoint is replaced", &mut replaced),
        ("a Service goes", &mut deleted),
        ("a Service comes", &mut added),
    ] {
        report.at_most(format!("{what}: {change}, p50"), ms(median(times)), 150.0, "ms");
    }
}

/// The times of a load, of a restart, and of changes.
fn run(size: Size) -> (Duration, Duration, [Vec<Duration>; 3]) {
    let config = Config { mode: ProxyMode::Iptables, ..config() };
    let mut snapshot = size.snapshot();
    let mut sync = Sync::open(config.clone()).unwrap();
    let load = timed(&mut sync, &snapshot, &ChangeSet::default());
    drop(sync);
    let mut sync = Sync::open(config).unwrap();
    let restart = timed(&mut sync, &snapshot, &ChangeSet::default());
    let (mut replaced, mut deleted, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..CHANGES {
        let service = number * 7 % size.services;
        let changes =
            set_endpoints(&mut snapshot, service, &[size.endpoints_of(service)[0], new_pod(number)]);
        replaced.push(timed(&mut sync, &snapshot, &changes));
        let object = snapshot.service(&key(service)).unwrap().clone();
        let mut changes = ChangeSet::default();
        snapshot.delete(&ObjectKey::Service(key(service)), &mut changes);
        deleted.push(timed(&mut sync, &snapshot, &changes));
        let mut changes = ChangeSet::default();
        snapshot.apply(weft_types::Object::Service(object), &mut changes);
        added.push(timed(&mut sync, &snapshot, &changes));
    }
    (load, restart, [replaced, deleted, added])
}

fn timed(sync: &mut Sync, snapshot: &Snapshot, changes: &ChangeSet) -> Duration {
    let start = Instant::now();
    sync.apply(snapshot, changes).unwrap();
    start.elapsed()
}
