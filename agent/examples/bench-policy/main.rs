//! Measures network policies at 10,000 pods, 1,000 policies and 100 pods on the node: loads, single changes,
//! memory, packets, and the start of pods; beside the same policies in other shapes. Says which bars are met.
//! Run as root by `make bench-policy`.
//!
//! `bench-policy FOLDER` with the folder of the release binaries; `--help` tells of its parts.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that goes wrong")]

mod add;
mod chart;
mod cluster;
mod cut;
mod daemon;
mod kernel;
mod shapes;
mod traffic;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use weft_bench::table::{Table, ms, number};

use crate::chart::Bars;
use crate::shapes::{Rules, SHAPES, Shape};
use crate::traffic::{Pair, World};

/// Measures network policies.
#[derive(Debug, Parser)]
#[command(name = "bench-policy")]
struct Options {
    /// The folder of the release builds of weft-agent and weft-cni.
    folder: PathBuf,
    /// How many single changes of a kind are timed.
    #[arg(long, default_value_t = 500)]
    changes: usize,
    /// Measure only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Where to draw loads and changes.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Loads and changes without a daemon, and the other shapes beside them.
    Kernel,
    /// The agent's memory and changes.
    Daemon,
    /// Connections that a change denies.
    Cut,
    /// Connections and throughput.
    Traffic,
    /// The start of pods.
    Add,
}

fn main() {
    let options = Options::parse();
    let start = Instant::now();
    let mut table = Table::default();
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let (agent, plugin) = (options.folder.join("weft-agent"), options.folder.join("weft-cni"));
    let mut contenders = Vec::new();
    if wanted(Part::Kernel) {
        let [load, change] = kernel::measure(options.changes, &mut table);
        contenders.push(Bars { name: "Weft".to_owned(), load, change });
        contenders.extend(others());
    }
    if wanted(Part::Daemon) {
        daemon::measure_without(&agent, &mut table);
        daemon::measure(&agent, options.changes, &mut table);
    }
    if wanted(Part::Cut) {
        cut::measure(&agent, &mut table);
    }
    if wanted(Part::Traffic) {
        traffic(&mut table);
    }
    if wanted(Part::Add) {
        add::measure(&agent, &plugin, &mut table);
    }
    print_contenders(&contenders);
    table.print();
    println!("\nThe run took {:.0} s.", start.elapsed().as_secs_f64());
    if let (Some(file), false) = (&options.svg, contenders.is_empty()) {
        std::fs::write(file, chart::svg(&contenders)).unwrap();
    }
}

/// The times of the other shapes.
fn others() -> Vec<Bars> {
    let rules = Rules::new(&cluster::snapshot());
    let bars = |shape: Shape| {
        let [load, change] = shape.times(&rules);
        Bars { name: shape.name(), load, change }
    };
    SHAPES.into_iter().map(bars).collect()
}

fn print_contenders(contenders: &[Bars]) {
    if contenders.is_empty() {
        return;
    }
    println!("| | from an empty kernel to all policies in | a change of one policy |\n|---|---|---|");
    for Bars { name, load, change } in contenders {
        let time = |time: Duration| number(ms(time), "ms");
        println!("| {name} | {} | {} |", time(*load), time(*change));
    }
    println!();
}

/// Nodes without policies, with Weft's, and with the other shapes, all with the same two pods.
fn traffic(table: &mut Table) {
    let snapshot = cluster::snapshot();
    let planner = kernel::planner(&snapshot);
    let pair = Pair::find(&planner);
    let world = |name: &str| World::new(name, pair);
    let mut worlds = vec![world("without policies"), world("Weft")];
    worlds[1].node.run(|| kernel::load(&snapshot)).unwrap();
    let rules = Rules::new(&snapshot);
    for shape in SHAPES {
        let world = world(&shape.name());
        world.node.run(|| shape.load(&rules)).unwrap();
        worlds.push(world);
    }
    traffic::measure(&worlds, table);
}
