//! Single changes in one process: from a changed snapshot to the kernel's acknowledgement, without an API
//! server.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use weft_netlink::netns::Namespace;
use weft_proxy::sync::Sync;
use weft_types::{
    ChangeSet, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Object, Protocol, ServicePort, SmolStr,
    Snapshot,
};

use crate::loads::config;
use crate::report::Report;
use weft_bench::cluster::{Size, key, namespace, new_pod, set_endpoints};
use weft_bench::table::{ms, quantile, thousands};

pub(crate) fn measure(services: usize, changes: usize, report: &mut Report) {
    let size = Size { services, endpoints: 2 };
    let (mut replaced, mut counted) = in_loaded_namespace(size.snapshot(), |sync, snapshot| {
        let change = |number: usize| number * 7 % services;
        let replaced = timed(sync, snapshot, changes, |number| {
            (change(number), vec![size.endpoints_of(change(number))[0], new_pod(number)])
        });
        let counted = timed(sync, snapshot, changes, |number| {
            let mut pods = size.endpoints_of(change(number));
            pods.push(new_pod(number));
            (change(number), pods)
        });
        (replaced, counted)
    });
    for (what, times) in
        [("is replaced", &mut replaced), ("comes, so that their number changes", &mut counted)]
    {
        let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
        let what = format!("{} x 2: an endpoint {what}: planned and committed", thousands(services));
        report.note(format!("{what}, p50"), format!("{:.3} ms", ms(p50)));
        report.at_most(format!("{what}, p99"), ms(p99), 2.0, "ms");
    }
}

/// Many endpoints in one Service, and many in all.
pub(crate) fn measure_large(report: &mut Report) {
    for size in [Size { services: 1, endpoints: 5000 }, Size { services: 5000, endpoints: 50 }] {
        let snapshot = size.snapshot();
        let what = format!("{} x {}", thousands(size.services), thousands(size.endpoints));
        let load = crate::loads::once(&snapshot).wall;
        report.note(format!("{what}: empty to full"), format!("{:.0} ms", ms(load)));
        let mut times = in_loaded_namespace(snapshot, |sync, snapshot| {
            timed(sync, snapshot, 100, |number| {
                let mut pods = size.endpoints_of(number % size.services);
                *pods.last_mut().unwrap() = new_pod(number);
                (number % size.services, pods)
            })
        });
        let p50 = quantile(&mut times, 0.5);
        report.note(format!("{what}: an endpoint is replaced, p50"), format!("{:.2} ms", ms(p50)));
    }
}

/// A Service of many ports, in slices that have all of them.
pub(crate) fn measure_ports(report: &mut Report) {
    let (ports, slices) = (1000, 10);
    let mut snapshot = Size { services: 1, endpoints: 0 }.snapshot();
    let port = |number: u16| (SmolStr::from(format!("port-{number}")), NonZeroU16::new(number).unwrap());
    let mut service = snapshot.service(&key(0)).unwrap().clone();
    let of_service = |(name, port)| ServicePort { name, protocol: Protocol::Tcp, port, node_port: None };
    service.ports = (1..=ports).map(port).map(of_service).collect();
    snapshot.apply(Object::Service(service), &mut ChangeSet::default());
    let of_slice = |(name, port)| EndpointPort { name, protocol: Protocol::Tcp, port };
    let slice = |number: usize, pod: Ipv4Addr| {
        let key = NamespacedName::new(namespace(0), format!("slice-{number}"));
        let ports = (1..=ports).map(port).map(of_slice).collect();
        let endpoints = vec![Endpoint::ready(pod.into())];
        Object::EndpointSlice(EndpointSlice { key, service: self::key(0), ports, endpoints })
    };
    for number in 0..slices {
        snapshot.apply(slice(number, new_pod(number)), &mut ChangeSet::default());
    }
    let mut times = in_loaded_namespace(snapshot, |sync, snapshot| {
        let time = |number: usize| {
            let mut changes = ChangeSet::default();
            snapshot.apply(slice(number % slices, new_pod(slices + number)), &mut changes);
            let start = Instant::now();
            sync.apply(snapshot, &changes).unwrap();
            start.elapsed()
        };
        (0..30).map(time).collect::<Vec<_>>()
    });
    let p50 = quantile(&mut times, 0.5);
    let what = format!("1 Service of {} ports, {slices} slices", thousands(ports.into()));
    report.note(format!("{what}: an endpoint of all ports is replaced, p50"), format!("{:.1} ms", ms(p50)));
}

fn in_loaded_namespace<T: Send>(
    mut snapshot: Snapshot,
    work: impl FnOnce(&mut Sync, &mut Snapshot) -> T + Send,
) -> T {
    let run = || {
        let mut sync = Sync::open(config()).unwrap();
        sync.apply(&snapshot, &ChangeSet::default()).unwrap();
        // The kernel goes on to grow its hash tables for a moment.
        std::thread::sleep(Duration::from_millis(300));
        work(&mut sync, &mut snapshot)
    };
    Namespace::temporary().unwrap().run(run).unwrap()
}

/// The times of changes that each give a Service other endpoints.
fn timed(
    sync: &mut Sync,
    snapshot: &mut Snapshot,
    count: usize,
    change: impl Fn(usize) -> (usize, Vec<Ipv4Addr>),
) -> Vec<Duration> {
    let time = |number| {
        let (service, pods) = change(number);
        let changes = set_endpoints(snapshot, service, &pods);
        let start = Instant::now();
        sync.apply(snapshot, &changes).unwrap();
        start.elapsed()
    };
    (0..count).map(time).collect()
}
