//! A call of the plugin as a fuzzer's input: environment, configuration, prevResult and ranges through
//! everything that is pure, up to the plan. The kernel and the disk are not touched.
//!
//! An input is lines `NAME=VALUE`, the environment, up to an empty line; the rest is standard input.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use weft_cni::{BridgeState, HostState, Options, Pod, plan};
use weft_cni_spec::{Args, Attachment, Failure, Handler, Invocation, IpConfig, Success, Version, dispatch};
use weft_ipam::{Ipam, Pool, RangeSet};

/// So many addresses of a range set are looked at.
const LOOKED_AT: usize = 300;

/// Makes the call. Panics where a runtime would not get what the protocol promises.
pub(crate) fn run(input: &[u8]) {
    let (environment, stdin) = split(input);
    let outcome = dispatch(&Planner, &|name| environment.get(name).cloned(), || Ok(stdin.to_vec()));
    let printed: Option<Value> = serde_json::from_str(&outcome.stdout).ok();
    assert!(printed.is_some() || outcome.stdout.is_empty(), "printed {:?}", outcome.stdout);
    match (outcome.success, printed) {
        (true, None) => {}
        (true, Some(result)) => {
            Success::from_json(&result).expect("a result of ADD, or of VERSION, which has nothing of it");
        }
        (false, error) => {
            let error = error.expect("an error is always printed");
            assert!(error["code"].as_u64().is_some_and(|code| code > 0 && code != 999), "{error}");
            assert!(error["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{error}");
            assert!(error["cniVersion"].as_str().unwrap().parse::<Version>().is_ok(), "{error}");
        }
    }
}

fn split(input: &[u8]) -> (BTreeMap<String, String>, &[u8]) {
    let end = input.windows(2).position(|pair| pair == b"\n\n").unwrap_or(input.len());
    let text = String::from_utf8_lossy(&input[..end]);
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    (environment, input.get(end + 2..).unwrap_or_default())
}

/// The plugin up to the plan.
struct Planner;

impl Handler for Planner {
    fn about(&self) -> &'static str {
        "a planner"
    }

    fn add(
        &self,
        invocation: &Invocation,
        attachment: &Attachment,
        netns: &Path,
        args: &Args,
    ) -> Result<Success, Failure> {
        let options = Options::read(invocation, args).map_err(|error| error.failure())?;
        let previous = invocation.previous()?.unwrap_or_default();
        let pool = Ipam::pool(invocation).map_err(|error| error.failure())?;
        let lease = lease(&pool);
        let pod = Pod {
            network: invocation.network.clone(),
            attachment: attachment.clone(),
            netns: netns.to_owned(),
            waits: None,
        };
        for state in [HostState::default(), bridged(&pool)] {
            let plan = plan(&pod, &options, lease.clone(), &state).map_err(|error| error.failure())?;
            assert!(!plan.to_string().is_empty(), "people can read every plan");
        }
        let result = lease.after(previous);
        reads_back(&result, invocation.version);
        Ok(result)
    }

    fn del(&self, invocation: &Invocation, _: &Attachment, _: Option<&Path>) -> Result<(), Failure> {
        invocation.previous().map(drop)
    }

    fn check(
        &self,
        invocation: &Invocation,
        _: &Attachment,
        _: &Path,
        previous: &Success,
    ) -> Result<(), Failure> {
        reads_back(previous, invocation.version);
        self.status(invocation)
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), Failure> {
        self.status(invocation)
    }

    fn status(&self, invocation: &Invocation) -> Result<(), Failure> {
        Options::read(invocation, &Args::default()).map_err(|error| error.failure())?;
        Ipam::pool(invocation).map(|pool| pool.sets.iter().for_each(inspect)).map_err(|error| error.failure())
    }
}

/// The first address of each set.
fn lease(pool: &Pool) -> Success {
    let first = |set: &RangeSet| {
        inspect(set);
        let (range, address) = set.round_robin(None).next()?;
        Some(IpConfig { address: range.with_prefix(address), gateway: Some(range.gateway), interface: None })
    };
    let ips = pool.sets.iter().filter_map(first).collect();
    Success { ips, routes: pool.routes.clone(), ..Success::default() }
}

/// A node whose bridge has the gateways' addresses.
fn bridged(pool: &Pool) -> HostState {
    let ranges = pool.sets.iter().flat_map(RangeSet::ranges);
    let gateways: Vec<_> = ranges.map(|range| range.with_prefix(range.gateway)).collect();
    let bridge = Some(BridgeState { addresses: gateways.clone(), ..BridgeState::default() });
    HostState { bridge, gateways, bridge_netfilter: true }
}

/// A set gives every address once, each of a range, and never a gateway.
fn inspect(set: &RangeSet) {
    let mut seen = BTreeSet::new();
    for (range, address) in set.round_robin(None).take(LOOKED_AT) {
        assert!(
            range.first <= address && address <= range.last && address != range.gateway,
            "{address} of {range}"
        );
        assert_eq!(set.range_of(address), Some(range));
        assert!(range.subnet.contains(address), "{address} of {}", range.subnet);
        assert!(seen.insert(address), "{address} is given twice");
    }
    assert_eq!(seen.len() as u128, set.capacity().min(LOOKED_AT as u128), "of {set}");
}

/// What a version has words for is read from them as it was.
fn reads_back(result: &Success, version: Version) {
    let Ok(json) = result.to_json(version) else { return };
    let again = Success::from_json(&json).expect("a result");
    assert_eq!(again.to_json(version), Ok(json));
}
