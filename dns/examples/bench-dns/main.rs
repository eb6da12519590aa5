//! Times the DNS server side by side with Knot, NSD, Unbound and a bare server that does nothing but look
//! bytes up, in one run, one core each, and says which bars are met. Run as root in a network namespace of
//! its own by `make bench-dns`.
//!
//! `bench-dns WEFT_DNS` with the path of the release daemon; `--help` tells of sizes. The names are made in
//! `weft_bench::cluster` and told to each server in its own way (`servers.rs`, `names.rs`, `bare.rs`);
//! dnsperf asks (`client.rs`); `chart.rs` draws.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that goes wrong")]

mod bare;
mod chart;
mod client;
mod freshness;
mod names;
mod servers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::Parser;
use weft_bench::cluster::Size;
use weft_bench::table::{Table, number, thousands};

use crate::client::{Cost, Kind};
use crate::servers::{Contender, Running};

/// Measures weft-dns beside other name servers.
#[derive(Debug, Parser)]
#[command(name = "bench-dns")]
struct Options {
    /// The release build of weft-dns.
    daemon: PathBuf,
    /// How many Services there are.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    sizes: Vec<usize>,
    /// How often each server is asked, for a second, what is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many changes are timed until they are answered.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// Where to draw what a query costs.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Be the bare server on this port, with the names of so many Services.
    #[arg(long, value_name = "PORT", requires = "bare_services", hide = true)]
    bare: Option<u16>,
    #[arg(long, hide = true)]
    bare_services: Option<usize>,
}

/// What one server costs for one kind of queries, at one size.
struct Row {
    contender: Contender,
    size: Size,
    kind: Kind,
    cost: Cost,
}

fn main() {
    let options = Options::parse();
    if let (Some(port), Some(services)) = (options.bare, options.bare_services) {
        return bare::serve(port, Size { services, endpoints: 2 });
    }
    let start = Instant::now();
    run("ip link set lo up");
    let (mut rows, mut table) = (Vec::new(), Table::default());
    for &services in &options.sizes {
        let size = Size { services, endpoints: 2 };
        side_by_side(&options, size, &mut rows, &mut table);
    }
    bars(&rows, &mut table);
    let largest = Size { services: options.sizes.iter().copied().max().unwrap(), endpoints: 10 };
    memory(&Running::start(Contender::Weft, &options.daemon, largest), largest, 50.0, &mut table);
    two_cores(&options, &rows, Size { endpoints: 2, ..largest }, &mut table);
    freshness::measure(&options.daemon, Size { endpoints: 2, ..largest }, options.changes, &mut table);
    print(&rows);
    table.print();
    println!("\nThe run took {:.0} s.", start.elapsed().as_secs_f64());
    if let Some(file) = &options.svg {
        std::fs::write(file, chart::svg(&rows)).unwrap();
    }
}

/// All servers at one size. They take turns, so that whatever else the machine does meets all of them.
fn side_by_side(options: &Options, size: Size, rows: &mut Vec<Row>, table: &mut Table) {
    let folder = tempfile::tempdir().unwrap();
    let running: Vec<Running> =
        Contender::ALL.map(|contender| Running::start(contender, &options.daemon, size)).into();
    for kind in Kind::ALL {
        let questions = names::questions(kind, size, folder.path());
        let asked: Vec<&Running> = running.iter().filter(|server| server.contender.answers(kind)).collect();
        let mut rounds: Vec<Vec<Cost>> = asked.iter().map(|_| Vec::new()).collect();
        asked.iter().for_each(|server| client::warm_up(server, &questions));
        for _ in 0..options.rounds {
            for (server, costs) in asked.iter().zip(&mut rounds) {
                costs.push(client::ask(server, &questions, kind, client::CORE));
            }
        }
        for (server, costs) in asked.iter().zip(rounds) {
            let (mut cost, contender) = (Cost::middle(costs), server.contender);
            cost.latency = client::latency(server, &questions);
            eprintln!("{} x 2, {}, {}: {cost:?}", thousands(size.services), kind.name(), contender.name());
            rows.push(Row { contender, size, kind, cost });
        }
    }
    for server in &running {
        match server.contender {
            Contender::Weft if size.services == 10_000 => memory(server, size, 25.0, table),
            other => {
                let what = format!("{} x 2: resident memory, {}", thousands(size.services), other.name());
                table.note(what, format!("{:.1} MB", server.memory().0));
            }
        }
    }
}

fn memory(server: &Running, size: Size, bar: f64, table: &mut Table) {
    let (now, peak) = server.memory();
    let what = format!("{} x {}: resident memory, weft-dns", thousands(size.services), size.endpoints);
    table.at_most(&what, now, bar, "MB");
    table.note(format!("{what}, at its highest"), format!("{peak:.1} MB"));
}

/// The bars of DESIGN's section 9, at each size.
fn bars(rows: &[Row], table: &mut Table) {
    for weft in rows.iter().filter(|row| row.contender == Contender::Weft) {
        let at = |contender, kind| {
            let same = |row: &&Row| row.contender == contender && row.size.services == weft.size.services;
            rows.iter().filter(same).find(|row| row.kind == kind).map(|row| row.cost.total())
        };
        let what = format!("{} x 2, {}", thousands(weft.size.services), weft.kind.name());
        if let Some(bare) = at(Contender::Bare, weft.kind) {
            table.at_most(
                format!("{what}: CPU per query, x the bare server"),
                weft.cost.total() / bare,
                1.1,
                "",
            );
        }
        if let Some(knot) = at(Contender::Knot, weft.kind) {
            table.at_most(format!("{what}: CPU per query, x Knot"), weft.cost.total() / knot, 1.0, "");
        }
        if weft.kind != Kind::Forwarded {
            table.at_most(format!("{what}: user time per query"), weft.cost.user, 0.2, "us");
        }
        if let (Kind::Negative, Some(positive)) = (weft.kind, at(Contender::Weft, Kind::Positive)) {
            table.at_most(
                format!("{what}: CPU per query, x positive"),
                weft.cost.total() / positive,
                1.1,
                "",
            );
        }
    }
}

/// What a query costs where the daemon may use two cores, and answers with a thread on each.
fn two_cores(options: &Options, rows: &[Row], size: Size, table: &mut Table) {
    let folder = tempfile::tempdir().unwrap();
    let questions = names::questions(Kind::Positive, size, folder.path());
    let server = Running::start_on("0,1", Contender::Weft, &options.daemon, size);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Where there are others, the client has them for itself.
    let client = if cores >= 4 { "2,3" } else { "0,1" };
    let costs = (0..options.rounds).map(|_| client::ask(&server, &questions, Kind::Positive, client));
    let cost = Cost::middle(costs.collect());
    let is_it = |row: &&Row| {
        (row.contender, row.kind, row.size.services) == (Contender::Weft, Kind::Positive, size.services)
    };
    let one = &rows.iter().find(is_it).unwrap().cost;
    let what = format!("{} x 2: two cores: ", thousands(size.services));
    table.note(format!("{what}queries per second, client on cores {client}"), thousands(cost.rate as usize));
    table.note(
        format!("{what}what they answer against one, by CPU per query"),
        format!("{:.2} x", 2.0 * one.total() / cost.total()),
    );
}

fn print(rows: &[Row]) {
    println!(
        "CPU in us per query; queries per second with the client on another core; latency at 10,000 a second\n"
    );
    println!("| | | user | system | CPU | queries/s | p50 | p99 |");
    println!("|---|---|---|---|---|---|---|---|");
    for Row { contender, size, kind, cost } in rows {
        let [p50, p99] = cost.latency.map(|time| number(time * 1e6, "us"));
        println!(
            "| {} x 2, {} | {} | {:.2} | {:.2} | {:.2} | {} | {p50} | {p99} |",
            thousands(size.services),
            kind.name(),
            contender.name(),
            cost.user,
            cost.system,
            cost.total(),
            thousands(cost.rate as usize),
        );
    }
    println!();
}

/// Runs a program with those arguments.
fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The text of a file that a program has written so far.
fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}
