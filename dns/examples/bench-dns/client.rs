//! dnsperf as the client: how much is answered in a second, at what cost to the server, and how fast.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use weft_bench::table::quantile;

use crate::servers::Running;

/// The core that the client has while one server has the other.
pub(crate) const CORE: &str = "1";
/// How many queries a second are asked where latency is measured: few enough that none waits for another.
const CALM: &str = "10000";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Services.
    Positive,
    /// Services that do not exist.
    Negative,
    /// What a pod's search list makes of Services' names.
    Walk,
    /// Names of another zone, which are cached.
    Forwarded,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Positive, Kind::Negative, Kind::Walk, Kind::Forwarded];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Positive => "positive",
            Kind::Negative => "negative",
            Kind::Walk => "ndots:5 walks",
            Kind::Forwarded => "cached forwards",
        }
    }

    /// Which share of the answers has the code NOERROR, in percent.
    fn positive(self) -> f64 {
        match self {
            Kind::Positive | Kind::Forwarded => 100.0,
            Kind::Negative => 0.0,
            Kind::Walk => 50.0,
        }
    }
}

/// What a server was seen to take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Microseconds per query.
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// Queries per second.
    pub(crate) rate: f64,
    /// Half of the answers, and 99 of a hundred, come within so many seconds.
    pub(crate) latency: [f64; 2],
}

impl Cost {
    pub(crate) fn total(&self) -> f64 {
        self.user + self.system
    }

    /// The one in the middle, by time on processors. How it divides is known by ticks, which take many to be
    /// true: so that is of all together.
    pub(crate) fn middle(mut costs: Vec<Cost>) -> Cost {
        let (user, total) =
            costs.iter().fold((0.0, 0.0), |(user, total), cost| (user + cost.user, total + cost.total()));
        costs.sort_by(|a, b| a.total().total_cmp(&b.total()));
        let middle = costs[costs.len() / 2];
        let user = middle.total() * user / total;
        Cost { user, system: middle.total() - user, ..middle }
    }
}

/// Asks everything once, so that caches are full and pages are there.
pub(crate) fn warm_up(server: &Running, questions: &Path) {
    dnsperf(server, questions, CORE, &["-n", "1"]);
}

/// Asks for a second, with as many queries under way as the server takes in a few batches.
pub(crate) fn ask(server: &Running, questions: &Path, kind: Kind, cores: &str) -> Cost {
    let (before, ticks) = (server.cpu(), server.ticks());
    let output = dnsperf(server, questions, cores, &["-l", "1", "-q", "128"]);
    let (cpu, after) = (server.cpu() - before, server.ticks());
    let completed = value(&output, "Queries completed:");
    let positive = share(&output, "NOERROR");
    assert!((positive - kind.positive()).abs() < 1.0, "{}: {output}", server.contender.name());
    let total = cpu.as_secs_f64() * 1e6 / completed;
    let (user, system) = (after.0 - ticks.0, after.1 - ticks.1);
    let user = total * user / (user + system).max(1.0);
    let rate = value(&output, "Queries per second:");
    Cost { user, system: total - user, rate, latency: [0.0; 2] }
}

/// The latency that half of the answers, and 99 of a hundred, stay below.
pub(crate) fn latency(server: &Running, questions: &Path) -> [f64; 2] {
    let output = dnsperf(server, questions, CORE, &["-l", "1", "-Q", CALM, "-v"]);
    let answers = output.lines().filter(|line| line.starts_with("> "));
    let mut times: Vec<Duration> = answers
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .map(Duration::from_secs_f64)
        .collect();
    [0.5, 0.99].map(|share| quantile(&mut times, share).as_secs_f64())
}

fn dnsperf(server: &Running, questions: &Path, cores: &str, flags: &[&str]) -> String {
    let port = server.contender.port().to_string();
    let mut command = Command::new("taskset");
    command.args(["-c", cores, "dnsperf", "-s", "127.0.0.1", "-p", &port, "-t", "1"]);
    let output = command.args(flags).arg("-d").arg(questions).output().unwrap();
    assert!(output.status.success(), "dnsperf: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The number after that name in what dnsperf says.
fn value(output: &str, name: &str) -> f64 {
    let (_, rest) = output.split_once(name).unwrap_or_else(|| panic!("no {name} {output}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// The percentage of answers with that code.
fn share(output: &str, code: &str) -> f64 {
    let (_, codes) = output.split_once("Response codes:").unwrap();
    let Some((_, rest)) = codes.split_once(&format!("{code} ")) else { return 0.0 };
    rest.split(['(', '%']).nth(1).unwrap().parse().unwrap()
}
