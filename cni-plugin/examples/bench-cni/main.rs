//! ADD and DEL side by side in one run: the bare netlink calls for the same end state, this plugin and the
//! reference bridge + host-local, both with ipMasq off and on, each on a node of its own; and what is asked
//! of the plugin, met or missed. Run as root by `make bench-cni`.
//!
//! `bench-cni FOLDER [ROUNDS]`, with the folder of the release binaries. It calls itself as
//! `bench-cni bare ...` and `bench-cni watch ...`.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that goes wrong")]

mod bare;
mod contender;
mod cost;
mod report;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use contender::{Contender, Pod};
use report::{Bar, Figures, Limit, Row};

const COMMANDS: [&str; 2] = ["ADD", "DEL"];
const ROUNDS: usize = 100;
/// Rounds in which processor time and memory are measured.
const WATCHED: usize = 10;
const PARALLEL: usize = 100;
/// The pods of a full node: a kubelet takes no more by default.
const CROWD: usize = 110;
/// A multiple of every usual period of the kernel's clock tick.
const TICKS: Duration = Duration::from_millis(20);

// The contenders' places.
const BARE: usize = 0;
const WEFT: usize = 1;
const WEFT_MASQUERADE: usize = 2;
const REFERENCE: usize = 3;
const REFERENCE_MASQUERADE: usize = 4;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bare", "ADD", id, netns] => bare::add(id, Path::new(netns)),
        ["bare", "DEL", id, _] => bare::delete(id),
        ["watch", program, arguments @ ..] => cost::watch(program, arguments),
        [folder] => compare(Path::new(folder), ROUNDS),
        [folder, rounds] => compare(Path::new(folder), rounds.parse().unwrap()),
        _ => panic!("usage: bench-cni FOLDER [ROUNDS]"),
    }
}

fn compare(folder: &Path, rounds: usize) {
    isolate();
    let plugin = folder.join("weft-cni");
    let contenders = [
        Contender::bare(),
        Contender::weft("weft-cni", &plugin, false),
        Contender::weft("weft-cni, ipMasq", &plugin, true),
        Contender::reference("reference", false),
        Contender::reference("reference, ipMasq", true),
    ];
    // A node has other pods: one that stays has the bridge made, and keeps what containers share on it.
    let _others: Vec<Pod> = contenders.iter().map(|contender| contender.attached("c0")).collect();
    let pods: Vec<Pod> = contenders.iter().map(|contender| contender.pod("c1")).collect();
    let calls: Vec<(&Contender, &Pod)> = contenders.iter().zip(&pods).collect();
    let alone = times(&calls, rounds);
    let rows: Vec<Row> = contenders
        .iter()
        .zip(&pods)
        .zip(alone)
        .map(|((contender, pod), times)| (contender.name, figures(contender, pod, times)))
        .collect();
    report::print_times(rounds, &rows);
    report::print_costs(&rows);
    let at_once: Vec<_> = contenders.iter().map(|contender| (contender.name, parallel(contender))).collect();
    report::print_parallel(PARALLEL, &at_once);
    let _crowd: Vec<Vec<Pod>> = contenders.iter().map(crowd).collect();
    let crowded: Vec<_> =
        contenders.iter().map(|contender| contender.name).zip(times(&calls, rounds)).collect();
    let crowded = report::print_crowded(CROWD, crowded);
    let mut bars = bars(folder, &rows);
    bars.push(Bar {
        what: "ADD with ipMasq on a full node, x faster than the reference with ipMasq",
        limit: Limit::AtLeast(10.0),
        seen: crowded[REFERENCE_MASQUERADE] / crowded[WEFT_MASQUERADE],
    });
    report::print_bars(&bars);
}

/// Goes on with mounts and a /proc of its own. A killed run leaves no namespaces behind then; and none of
/// those that others have on this machine is in the way: the kernel looks a namespace's settings up
/// (`/proc/sys/net/ipv6`) in one list of all namespaces' settings of that name, a list for each mount of
/// /proc, at about a microsecond for each.
fn isolate() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>).unwrap();
}

/// All pods of a full node but the one that stays on every node, and the one that comes and goes.
fn crowd(contender: &Contender) -> Vec<Pod> {
    (2..CROWD).map(|number| contender.attached(&format!("n{number}"))).collect()
}

/// The times of ADD and DEL of each contender. All take turns, and another one begins in each round, so that
/// the machine's moods are shared. A removal ends with a tick of the kernel's clock, by which its grace
/// periods go, and so would the call after it begin with one: who needs a little longer than to the next tick
/// would seem to need a tick more. Hence calls begin at all times between ticks, equally often.
fn times(calls: &[(&Contender, &Pod)], rounds: usize) -> Vec<[Vec<Duration>; 2]> {
    let mut times: Vec<[Vec<Duration>; 2]> = calls.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    for round in 0..rounds {
        for turn in 0..calls.len() {
            let index = (round + turn) % calls.len();
            let (contender, pod) = calls[index];
            for (place, command) in COMMANDS.into_iter().enumerate() {
                thread::sleep(pause(round));
                times[index][place].push(contender.timed(command, pod));
            }
        }
    }
    times
}

/// Multiples of the golden section spread evenly, however many there are.
fn pause(round: usize) -> Duration {
    TICKS.mul_f64((round as f64 * 0.618_034).fract())
}

fn figures(contender: &Contender, pod: &Pod, times: [Vec<Duration>; 2]) -> [Figures; 2] {
    let mut usage = [Vec::new(), Vec::new()];
    for _ in 0..WATCHED {
        for (place, command) in COMMANDS.into_iter().enumerate() {
            usage[place].push(contender.watched(command, pod));
        }
    }
    let [add_calls, del_calls] = COMMANDS.map(|command| contender.traced(command, pod));
    let ([add_times, del_times], [add_usage, del_usage]) = (times, usage);
    [Figures::new(add_times, add_usage, add_calls), Figures::new(del_times, del_usage, del_calls)]
}

/// The times for a hundred pods at once.
fn parallel(contender: &Contender) -> [Duration; 2] {
    let pods: Vec<Pod> = (0..PARALLEL).map(|number| contender.pod(&format!("p{number}"))).collect();
    let (add, answers) = contender.parallel("ADD", &pods);
    if contender.gives_addresses() {
        let address =
            |answer: &String| serde_json::from_str::<Value>(answer).unwrap()["ips"][0]["address"].to_string();
        let addresses: BTreeSet<String> = answers.iter().map(address).collect();
        assert_eq!(addresses.len(), PARALLEL, "{}: an address was given twice", contender.name);
    }
    let (del, _) = contender.parallel("DEL", &pods);
    [add, del]
}

fn bars(folder: &Path, rows: &[Row]) -> Vec<Bar> {
    let add = |place: usize| rows[place].1[0].median();
    let del = |place: usize| rows[place].1[1].median();
    let resident =
        rows[WEFT..=WEFT_MASQUERADE].iter().flat_map(|(_, both)| both.iter().map(Figures::resident));
    let size = |program: &str| report::megabytes(fs::metadata(folder.join(program)).unwrap().len());
    let bar = |what, limit, seen| Bar { what, limit, seen };
    vec![
        bar("ADD, x the bare calls", Limit::AtMost(1.5), add(WEFT) / add(BARE)),
        bar("ADD, x faster than the reference", Limit::AtLeast(3.5), add(REFERENCE) / add(WEFT)),
        bar(
            "ADD with ipMasq, x faster than the reference with ipMasq",
            Limit::AtLeast(10.0),
            add(REFERENCE_MASQUERADE) / add(WEFT_MASQUERADE),
        ),
        bar("DEL, x the bare removal of the link", Limit::AtMost(1.1), del(WEFT) / del(BARE)),
        bar("resident memory of weft-cni, MB", Limit::AtMost(5.0), resident.fold(0.0, f64::max)),
        bar("file of weft-cni, MB", Limit::AtMost(4.0), size("weft-cni")),
        bar("file of weft-ipam, MB", Limit::AtMost(4.0), size("weft-ipam")),
    ]
}
