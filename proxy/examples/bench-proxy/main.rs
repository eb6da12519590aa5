//! Times the service proxy side by side with the rule sets of kube-proxy, in one run, each in a network
//! namespace of its own, and says which bars are met. Run as root by `make bench-proxy`.
//!
//! `bench-proxy WEFT_PROXY` with the path of the release daemon; `--help` tells of sizes and of the longer
//! runs. What is measured: full loads (`loads.rs`, `peers.rs`), single changes (`changes.rs`), the mode
//! iptables (`iptables.rs`), the daemon against an API server (`daemon.rs`, `api.rs`), new connections
//! (`connections.rs`), very many tracked flows (`flows.rs`). `report.rs` and `chart.rs` show it.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that goes wrong")]

mod changes;
mod chart;
mod connections;
mod daemon;
mod flows;
mod iptables;
mod kernel;
mod loads;
mod peers;
mod process;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::report::Report;

/// Measures weft-proxy beside kube-proxy's rule sets.
#[derive(Debug, Parser)]
#[command(name = "bench-proxy")]
struct Options {
    /// The release build of weft-proxy.
    daemon: PathBuf,
    /// How many Services a full load has.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    sizes: Vec<usize>,
    /// How many Services there are in all other measurements.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// How many single changes are timed.
    #[arg(long, default_value_t = 1000)]
    changes: usize,
    /// For how many seconds there are 1,000 changes each.
    #[arg(long, default_value_t = 10)]
    sustain: u64,
    /// Sustain the changes for a minute.
    #[arg(long)]
    soak: bool,
    /// How many seconds one load of a peer may take.
    #[arg(long, default_value_t = 30)]
    peer_limit: u64,
    /// Measure only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Where to draw the full loads.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Loads,
    Peers,
    Changes,
    Iptables,
    Daemon,
    Large,
    Connections,
    Flows,
}

fn main() {
    let options = Options::parse();
    let start = Instant::now();
    let mut report = Report::default();
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    if wanted(Part::Loads) {
        loads::measure(&options.sizes, &mut report);
    }
    if wanted(Part::Peers) {
        peers::measure(&options.sizes, Duration::from_secs(options.peer_limit), &mut report);
    }
    if wanted(Part::Changes) {
        changes::measure(options.services, options.changes, &mut report);
    }
    if wanted(Part::Iptables) {
        iptables::measure(options.services, &mut report);
    }
    if wanted(Part::Daemon) {
        let seconds = if options.soak { 60 } else { options.sustain };
        daemon::measure(&options.daemon, options.services, options.changes, seconds, &mut report);
    }
    if wanted(Part::Large) {
        changes::measure_large(&mut report);
        changes::measure_ports(&mut report);
        daemon::measure_large(&options.daemon, &mut report);
    }
    if wanted(Part::Connections) {
        connections::measure(options.services, &mut report);
    }
    if wanted(Part::Flows) {
        flows::measure(&options.daemon, &mut report);
    }
    report.print();
    println!("\nThe run took {:.0} s.", start.elapsed().as_secs_f64());
    if let Some(file) = &options.svg {
        std::fs::write(file, chart::svg(&report.loads)).unwrap();
    }
}
