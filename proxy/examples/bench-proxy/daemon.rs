//! The daemon against an API server: starts, memory, changes from the API server's event to the kernel, and
//! what it does when its tables are flushed.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::kernel::{Commits, Probe, assert_in_step, flush};
use crate::process::Machine;
use crate::report::Report;
use weft_bench::cluster::{Size, cluster_ip, new_pod, set_endpoints};
use weft_bench::process::Daemon;
use weft_bench::table::{median, ms, quantile, thousands};

const STARTS: usize = 5;
const FLUSHES: usize = 10;
/// Between two single changes: longer than the daemon waits for more of them.
const PAUSE: Duration = Duration::from_millis(8);
/// Changes a second, and how many are made at a time.
const RATE: usize = 1000;
const BURST: usize = 10;

pub(crate) fn measure(program: &Path, services: usize, changes: usize, seconds: u64, report: &mut Report) {
    let size = Size { services, endpoints: 2 };
    let what = format!("{} x 2", thousands(services));
    let mut starts: Vec<Duration> = (0..STARTS).map(|_| Machine::new(program, size).start().1).collect();
    report.at_most(
        format!("{what}: start to all rules in, list included"),
        seconds_of(&mut starts),
        0.6,
        "s",
    );

    let machine = Machine::new(program, size);
    let (mut daemon, _) = machine.start();
    machine.namespace.run(|| assert_in_step(&size.snapshot())).unwrap();
    memory(&what, &daemon, Some(28.0), report);
    let mut restarts = Vec::new();
    for _ in 0..STARTS {
        daemon.stop();
        let (next, took) = machine.start();
        daemon = next;
        restarts.push(took);
    }
    report.at_most(format!("{what}: restart over existing rules"), seconds_of(&mut restarts), 0.6, "s");
    // A fresh machine: the other one's daemon has read its rules, which costs memory of its own.
    drop(daemon);
    let machine = Machine::new(program, size);
    let (daemon, _) = machine.start();
    changes_one_by_one(&machine, &daemon, size, changes, report);
    changes_sustained(&machine, &daemon, size, seconds, report);
    flushes(&machine, size, report);
    drop(daemon);

    let size = Size { services, endpoints: 10 };
    let what = format!("{} x 10", thousands(services));
    let machine = Machine::new(program, size);
    let (daemon, took) = machine.start();
    report.note(
        format!("{what}: start to all rules in, list included"),
        format!("{:.2} s", took.as_secs_f64()),
    );
    // Some tenths of a second, in which it gives back what the start took.
    machine.namespace.run(|| assert_in_step(&size.snapshot())).unwrap();
    memory(&what, &daemon, Some(45.0), report);
}

/// 5,000 endpoints in one Service, and 250,000 in all.
pub(crate) fn measure_large(program: &Path, report: &mut Report) {
    for size in [Size { services: 1, endpoints: 5000 }, Size { services: 5000, endpoints: 50 }] {
        let what = format!("{} x {}", thousands(size.services), thousands(size.endpoints));
        let machine = Machine::new(program, size);
        let (daemon, took) = machine.start();
        report.note(
            format!("{what}: start to all rules in, list included"),
            format!("{:.2} s", took.as_secs_f64()),
        );
        machine.namespace.run(|| assert_in_step(&size.snapshot())).unwrap();
        memory(&what, &daemon, None, report);
    }
}

fn memory(what: &str, daemon: &Daemon, bar: Option<f64>, report: &mut Report) {
    let (now, peak) = daemon.memory();
    match bar {
        Some(bar) => report.at_most(format!("{what}: resident memory"), now, bar, "MB"),
        None => report.note(format!("{what}: resident memory"), format!("{now:.1} MB")),
    }
    report.note(format!("{what}: resident memory at its highest"), format!("{peak:.1} MB"));
}

/// The time from the API server's event to the kernel's word of a commit.
fn changes_one_by_one(
    machine: &Machine<'_>,
    daemon: &Daemon,
    size: Size,
    changes: usize,
    report: &mut Report,
) {
    let what = format!("{} x 2", thousands(size.services));
    let mut snapshot = size.snapshot();
    let mut commits = machine.namespace.run(Commits::listen).unwrap();
    let before = daemon.cpu();
    let mut timed = |grow: bool| {
        let time = |number: usize| {
            let service = number * 7 % size.services;
            let mut pods = size.endpoints_of(service);
            match grow {
                true => pods.push(new_pod(number)),
                false => pods[1] = new_pod(number),
            }
            sleep(PAUSE);
            set_endpoints(&mut snapshot, service, &pods);
            let start = Instant::now();
            machine.api.set_endpoints(service, &pods);
            commits.next();
            start.elapsed()
        };
        (0..changes).map(time).collect::<Vec<_>>()
    };
    let (replaced, counted) = (timed(false), timed(true));
    let cpu = (daemon.cpu() - before).as_secs_f64() * 1000.0 / (2 * changes) as f64;
    for (change, mut times) in [("is replaced", replaced), ("comes, so that their number changes", counted)] {
        let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
        let what = format!("{what}: an endpoint {change}: event sent to committed");
        report.note(format!("{what}, p50"), format!("{:.2} ms", ms(p50)));
        report.at_most(format!("{what}, p99"), ms(p99), 1.2, "ms");
    }
    report.note(format!("{what}: processor time of 1,000 such changes, one by one"), format!("{cpu:.2} s"));
    machine.namespace.run(|| assert_in_step(&snapshot)).unwrap();
}

/// A thousand changes each second, half of which change the number of a Service's endpoints.
fn changes_sustained(machine: &Machine<'_>, daemon: &Daemon, size: Size, seconds: u64, report: &mut Report) {
    let what = format!("{} x 2", thousands(size.services));
    let mut commits = machine.namespace.run(Commits::listen).unwrap();
    let (start, before) = (Instant::now(), daemon.cpu());
    let mut snapshot = size.snapshot();
    let total = seconds as usize * RATE;
    // What the single changes left is changed too, so that the end is known.
    for number in 0..total.max(size.services) {
        let service = number % size.services;
        let mut pods = size.endpoints_of(service);
        pods.extend((number % 2 == 0).then(|| new_pod(number)));
        pods[0] = new_pod(number + 1);
        machine.api.set_endpoints(service, &pods);
        set_endpoints(&mut snapshot, service, &pods);
        if number % BURST == 0 {
            let due = Duration::from_secs_f64(number as f64 / RATE as f64);
            sleep(due.saturating_sub(start.elapsed()));
        }
    }
    let sent = Instant::now();
    let last = commits.until_quiet();
    let cpu = (daemon.cpu() - before).as_secs_f64() * 1000.0 / total.max(size.services) as f64;
    machine.namespace.run(|| assert_in_step(&snapshot)).unwrap();
    let took = (sent - start).as_secs_f64();
    let lag = last.saturating_duration_since(sent);
    report.note(
        format!("{what}: 1,000 changes a second for {took:.0} s: in step after the last"),
        format!("{:.0} ms", ms(lag)),
    );
    report.note(format!("{what}: processor time of 1,000 such changes, sustained"), format!("{cpu:.2} s"));
    let (now, peak) = daemon.memory();
    report.note(
        format!("{what}: resident memory after that, and at its highest"),
        format!("{now:.1}, {peak:.1} MB"),
    );
}

/// The time from the loss of all tables until the last Service leads somewhere again.
fn flushes(machine: &Machine<'_>, size: Size, report: &mut Report) {
    let last = cluster_ip(size.services - 1);
    let once = |_| {
        sleep(Duration::from_millis(300));
        let run = || {
            let mut probe = Probe::open();
            let start = Instant::now();
            flush();
            probe.until_frontend(last);
            start.elapsed()
        };
        machine.namespace.run(run).unwrap()
    };
    let mut times: Vec<Duration> = (0..FLUSHES).map(once).collect();
    let what = format!("{} x 2: all tables flushed to put right", thousands(size.services));
    report.at_most(what, ms(median(&mut times)), 100.0, "ms");
}

fn seconds_of(times: &mut [Duration]) -> f64 {
    median(times).as_secs_f64()
}
