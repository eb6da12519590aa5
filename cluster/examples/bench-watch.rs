//! How long it takes to know a cluster, and how much memory meanwhile: JSON in pages, JSON as a stream,
//! protobuf as a stream, all from one server, in turns. `cargo run --release -p weft-cluster --example
//! bench-watch [SERVICES [ENDPOINTS]]`

#![allow(clippy::unwrap_used, reason = "an example stops at the first thing that goes wrong")]

use std::time::{Duration, Instant};

use weft_bench::api::{Dialect, Server};
use weft_bench::cluster::Size;
use weft_cluster::{Watch, WatchFilter};
use weft_types::Kind;

const ROUNDS: usize = 9;
const KINDS: [Kind; 3] = [Kind::Service, Kind::EndpointSlice, Kind::Node];

/// What it took once.
struct Cost {
    time: Duration,
    /// The most bytes that were allocated at once, and those that stay.
    peak: u64,
    stays: i64,
    allocations: u64,
}

/// Starts a watch and waits until it knows the cluster. All of it on this thread; the server has another one.
fn start(server: &Server, size: Size) -> Cost {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut time, mut watch) = (Duration::ZERO, None);
    let used = allocation_counter::measure(|| {
        runtime.block_on(async {
            let client = weft_cluster::client(Some(server.kubeconfig())).await.unwrap();
            let begun = Instant::now();
            let mut started = Watch::start(client, &WatchFilter::service_proxy(), &KINDS);
            started.next().await;
            time = begun.elapsed();
            assert_eq!(started.snapshot().services().count(), size.services);
            watch = Some(started);
        });
    });
    drop(watch);
    Cost { time, peak: used.bytes_max, stays: used.bytes_current, allocations: used.count_total }
}

fn main() {
    let number =
        |place: usize, otherwise| std::env::args().nth(place).map_or(otherwise, |text| text.parse().unwrap());
    let size = Size { services: number(1, 10_000), endpoints: number(2, 2) };
    let dialects = [
        ("JSON, in pages", Dialect::JsonInPages),
        ("JSON, as a stream", Dialect::Json),
        ("protobuf, as a stream", Dialect::Protobuf),
    ];
    let servers = dialects.map(|(name, dialect)| (name, Server::start_with(size, dialect)));
    let mut costs: [Vec<Cost>; 3] = Default::default();
    for _ in 0..ROUNDS {
        costs.iter_mut().zip(&servers).for_each(|(costs, (_, server))| costs.push(start(server, size)));
    }
    println!("{} Services x {} endpoints, medians of {ROUNDS}", size.services, size.endpoints);
    println!("| | ms | allocated at most, MB | that stays, MB | allocations |\n|---|---|---|---|---|");
    for (mut costs, (name, _)) in costs.into_iter().zip(&servers) {
        costs.sort_by_key(|cost| cost.time);
        let Cost { time, peak, stays, allocations } = &costs[ROUNDS / 2];
        let (peak, stays) = (*peak as f64 / 1e6, *stays as f64 / 1e6);
        println!("| {name} | {:.0} | {peak:.1} | {stays:.1} | {allocations} |", time.as_secs_f64() * 1e3);
    }
}
